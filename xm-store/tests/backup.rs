//! Copies of SQLite databases in use are one state of the whole, and going back to one gives no user's id to another.
#![cfg(feature = "sql")]

#[path = "common/people.rs"]
mod people;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use people::{HOME, Stores};
use xm_store::Contacts;
use xm_store::sql::{FileCopy, Schema, check_homes, copy_files, skip_users, skip_versions};

const NAMES: [&str; 3] = ["RouterDB.db", "PresenceDB_C1P1.db", "RegisterDB.db"];

fn url(directory: &Path, name: &str) -> String {
    format!("sqlite:{}", directory.join(name).display())
}

async fn open(directory: &Path) -> Stores {
    let [router, presence, register] = NAMES.map(|name| url(directory, name));
    Stores::open(&router, &presence, &register).await
}

fn copies(from: &Path, to: &Path) -> [FileCopy; 3] {
    NAMES.map(|name| FileCopy { from: from.join(name), to: to.join(name) })
}

/// All that is wrong in a directory of databases.
async fn findings(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (name, schema) in NAMES.into_iter().zip([Schema::Router, Schema::Presence, Schema::Register]) {
        found.extend(schema.check(&url(directory, name), &mut |_, _| {}).await.expect("it opens").findings);
    }
    let (router, presence) = (url(directory, NAMES[0]), url(directory, NAMES[1]));
    found.extend(check_homes(&router, &presence, HOME, &mut |_, _| {}).await.expect("they open").findings);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_made_while_people_are_activated_are_one_state_of_the_whole() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let stores = Arc::new(open(&data).await);
    let (numbers, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let done = Arc::new(std::sync::Mutex::new(Vec::new()));
    // More than fits into SQLite's cache, so that copies take longer than it takes to begin them.
    for number in 0..400 {
        stores.register(1_000_000 + number).await;
    }
    let workers = (0..8).map(|_| {
        let (stores, numbers, stop, done) = (stores.clone(), numbers.clone(), stop.clone(), done.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                stores.enrol(number).await;
                done.lock().unwrap().push(number);
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    let mut looked_at = 0;
    for round in 0..12 {
        let to = place.path().join(format!("copy{round}"));
        std::fs::create_dir(&to).unwrap();
        let before = done.lock().unwrap().clone();
        let [router, presence, register] = copies(&data, &to);
        copy_files(&router, &[presence, register]).await.unwrap();
        assert_eq!(findings(&to).await, [] as [&str; 0], "copy {round}");
        // What was done before is in it.
        let copy = open(&to).await;
        for number in &before[looked_at..] {
            let name = xmmep::name::UserName::new(&format!("user{number}")).unwrap();
            assert!(xm_store::Accounts::by_name(&*copy.presence, &name).await.unwrap().is_some(), "user{number}");
        }
        looked_at = before.len();
        copy.close().await;
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.expect("nothing failed in the original");
    }
    assert!(looked_at > 10, "only {looked_at} people came in meanwhile");
    stores.close().await;
    assert_eq!(findings(&data).await, [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_leaves_a_copy_as_it_is_to_the_byte() {
    let place = tempfile::tempdir().unwrap();
    let (data, to) = (place.path().join("data"), place.path().join("copy"));
    std::fs::create_dir(&data).unwrap();
    std::fs::create_dir(&to).unwrap();
    let stores = open(&data).await;
    stores.enrol(1).await;
    let [router, presence, register] = copies(&data, &to);
    copy_files(&router, &[presence, register]).await.unwrap();
    let before = NAMES.map(|name| std::fs::read(to.join(name)).unwrap());
    assert_eq!(findings(&to).await, [] as [&str; 0]);
    assert_eq!(NAMES.map(|name| std::fs::read(to.join(name)).unwrap()), before);
    assert_eq!(to.read_dir().unwrap().count(), NAMES.len(), "something was left beside the copies");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_over_a_file_that_is_there_or_without_room_is_refused_and_the_original_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let stores = open(&data).await;
    stores.enrol(1).await;
    let [router, mut presence, register] = copies(&data, place.path());
    std::fs::write(&presence.to, b"somebody else's").unwrap();
    let refused = copy_files(&router, &[presence.clone(), register.clone()]).await.unwrap_err().to_string();
    assert!(refused.contains("PresenceDB_C1P1.db"), "{refused}");
    assert_eq!(std::fs::read(&presence.to).unwrap(), b"somebody else's");
    presence.to = place.path().join("missing/PresenceDB_C1P1.db");
    for done in [&router.to, &register.to] {
        let _ = std::fs::remove_file(done);
    }
    assert!(copy_files(&router, &[presence, register]).await.is_err());
    stores.enrol(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_passed_over_go_to_nobody() {
    let place = tempfile::tempdir().unwrap();
    let stores = open(place.path()).await;
    let file = place.path().join(NAMES[0]);
    stores.close().await;
    skip_users(&file, 5).await.unwrap();
    let stores = open(place.path()).await;
    assert_eq!(stores.enrol(1).await.user.0, 6);
    stores.close().await;
    skip_users(&file, 1_000_000).await.unwrap();
    let stores = open(place.path()).await;
    assert_eq!(stores.enrol(2).await.user.0, 1_000_007);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_passed_over_are_no_devices_any_more() {
    let place = tempfile::tempdir().unwrap();
    let stores = open(place.path()).await;
    let user = stores.enrol(1).await.user;
    stores.close().await;
    let presence = format!("sqlite:{}", place.path().join(NAMES[1]).display());
    let store = xm_store::sql::open_presence(&presence).await.unwrap();
    let (group, _) = store.create_group(user, xm_store::testing::text("work")).await.unwrap();
    let version = store.load(user).await.unwrap().version;
    store.close().await;
    skip_versions(&place.path().join(NAMES[1]), 1_000, 10).await.unwrap();
    let store = xm_store::sql::open_presence(&presence).await.unwrap();
    assert_eq!(store.load(user).await.unwrap().version.0, version.0 + 1_000);
    let (other, _) = store.create_group(user, xm_store::testing::text("home")).await.unwrap();
    assert_eq!(other.0, group.0 + 11);
}
