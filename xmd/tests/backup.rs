//! A backup made while people chat is a server that can go on: everything that had a tick before it began is in it. The real
//! daemon on a real disk, real clients with journals on disk.

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Home, PATIENCE, Record, Session, USERS, log_in};
use xmmep::messages::chat::Tick;

/// Backups made one after the other, at moments nobody has chosen.
const BACKUPS: usize = 4;

/// Messages of one sender that wait: more of them would be refused.
const WAITING_MAX: usize = 90;

/// Runs a command of the daemon and returns what it said.
fn xmd(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_xmd")).args(args).output().expect("the daemon can be started");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), said)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary directories have names in ASCII")
}

/// Everybody but the one who is away writes to everybody, until told to stop.
async fn chat(sessions: Arc<Vec<(usize, Session)>>, home: Arc<Home>, record: Arc<Record>, stop: Arc<AtomicBool>) {
    let (mut number, away) = (0, USERS - 1);
    while !stop.load(Ordering::Relaxed) {
        for (from, session) in sessions.iter() {
            let to_all = home.people.iter().enumerate().filter(|(to, _)| to != from);
            for (to, person) in to_all.filter(|(to, _)| *to != away || number < WAITING_MAX) {
                // A full queue means that this one waits for ticks.
                if let Ok(id) = session.client.send_text(person.user, &format!("{number}")).await {
                    record.sent(home.people[*from].user, home.people[to].user, id);
                }
            }
        }
        number += 1;
        // Nobody types faster.
        tokio::time::timeout(PATIENCE, record.wait_until_ticked()).await.expect("ticks come");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_had_a_tick_before_a_backup_began_is_in_it() {
    let home = Arc::new(Home::new().await);
    let record = Arc::new(Record::default());
    let away = USERS - 1;
    let server = home.start();
    let sessions: Vec<_> = log_in(&home, &record, Some(away)).await.into_iter().collect();
    let (sessions, stop) = (Arc::new(sessions), Arc::new(AtomicBool::new(false)));
    let talk = tokio::spawn(chat(sessions.clone(), home.clone(), record.clone(), stop.clone()));

    let mut backups = Vec::new();
    for number in 0..BACKUPS {
        let more = record.ticked().len() + 20;
        tokio::time::timeout(PATIENCE, record.wait_for_ticks(more)).await.expect("people go on chatting");
        let promised = record.ticked();
        let to = home.path().join(format!("backup{number}"));
        let (data, target) = (home.data(), to.clone());
        let run = move || xmd(&["backup", "--data", text(&data), "--to", text(&target)]);
        let (ok, said) = tokio::task::spawn_blocking(run).await.expect("it does not panic");
        assert!(ok, "{said}");
        backups.push((to, promised));
    }
    stop.store(true, Ordering::Relaxed);
    talk.await.expect("the chat goes on beside backups");
    let Ok(sessions) = Arc::try_unwrap(sessions) else { panic!("nobody else holds them") };
    futures_util::future::join_all(sessions.into_iter().map(|(_, session)| session.leave())).await;
    server.kill();

    for (number, (backup, promised)) in backups.into_iter().enumerate() {
        let (ok, said) = xmd(&["store", "check", "--data", text(&backup)]);
        assert!(ok && said.contains("everything is good"), "backup {number}: {said}");
        let _ = std::fs::remove_dir_all(home.data());
        let (ok, said) = xmd(&["restore", "--from", text(&backup), "--data", text(&home.data())]);
        assert!(ok && said.contains("everything is good"), "backup {number}: {said}");
        let server = home.start();
        arrives(&home, away, number, &promised, &record).await;
        server.stop();
        let (ok, said) = xmd(&["store", "check", "--data", text(&home.data())]);
        assert!(ok, "backup {number}: {said}");
    }
}

/// The one who was away logs in on a device that knows nothing, and is shown what was promised to wait.
async fn arrives(home: &Home, away: usize, number: usize, promised: &[common::record::Ticked], sent: &Record) {
    let me = home.people[away].user;
    let fresh = Arc::new(Record::default());
    let session = home.log_in_one(away, &format!("fresh{number}"), &fresh).await;
    let waiting: Vec<_> = promised.iter().filter(|ticked| ticked.to == me && ticked.tick < Tick::DELIVERED).collect();
    assert!(!waiting.is_empty(), "nothing waits in backup {number}");
    let shown = fresh.until(|fresh| waiting.iter().all(|ticked| fresh.was_shown(ticked.from, me, ticked.id)));
    if tokio::time::timeout(PATIENCE, shown).await.is_err() {
        let lost: Vec<_> = waiting.iter().filter(|ticked| !fresh.was_shown(ticked.from, me, ticked.id)).collect();
        panic!("backup {number}: {} of {} are lost: {lost:?}", lost.len(), waiting.len());
    }
    session.leave().await;
    fresh.check_order(sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_found_and_repaired_with_what_is_left_of_it() {
    let home = Home::new().await;
    let record = Arc::new(Record::default());
    let away = USERS - 1;
    let server = home.start();
    let sessions = log_in(&home, &record, Some(away)).await;
    for _ in 0..5 {
        for (from, session) in &sessions {
            let id = session.client.send_text(home.people[away].user, "hello").await.expect("there is room");
            record.sent(home.people[*from].user, home.people[away].user, id);
        }
    }
    tokio::time::timeout(PATIENCE, record.wait_until_ticked()).await.expect("ticks come");
    futures_util::future::join_all(sessions.into_values().map(Session::leave)).await;
    server.stop();

    let log = home.data().join("offline-C1P1");
    let entries = log.read_dir().expect("the log is there").map(|entry| entry.expect("it can be read").path());
    let segment = { entries }.find(|path| path.extension().is_some_and(|extension| extension == "seg"));
    let segment = segment.expect("something waits");
    let mut bytes = std::fs::read(&segment).expect("it can be read");
    // The first message behind the header.
    bytes[1_024 + 40] ^= 0xff;
    std::fs::write(&segment, bytes).expect("it can be written");
    let check = || xmd(&["store", "check", "--data", text(&home.data())]);
    let (ok, said) = check();
    assert!(!ok && said.contains("NOT everything is good"), "{said}");
    let (ok, said) = xmd(&["store", "repair", "--data", text(&home.data())]);
    assert!(ok && said.contains("everything is good"), "{said}");
    assert!(check().0);
    let server = home.start();
    let fresh = Arc::new(Record::default());
    let session = home.log_in_one(away, "fresh", &fresh).await;
    tokio::time::timeout(PATIENCE, fresh.wait_until_shown(14)).await.expect("the others are left");
    session.leave().await;
    server.stop();
}
