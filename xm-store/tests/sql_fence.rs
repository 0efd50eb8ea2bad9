//! Two who act as one Presence: who was replaced writes no more, on any engine. And a database put back to an older state is
//! noticed by whoever uses it.
#![cfg(all(unix, feature = "testing", feature = "sql"))]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::proxy::{Fault, Proxy};
use common::servers::{Database, mariadb, postgres};
use common::wire::Request;
use xm_store::offline::Appended;
use xm_store::records::{Parcel, Place};
use xm_store::sql::{Mark, SqlPresence, open_presence};
use xm_store::testing::{NOW, msg_id, text};
use xm_store::{Contacts, Offline, RosterError, StoreError};
use xmmep::types::UserId;

const BOB: UserId = UserId(2);

fn parcel(number: u64) -> Parcel {
    Parcel { from: UserId(1), id: msg_id(number), sent: NOW, body: vec![7; 100] }
}

/// Runs a test on each engine there is, with the URL of an empty database.
async fn on_each<F: Future<Output = ()>>(test: impl Fn(String) -> F) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    test(format!("sqlite:{}", directory.path().join("PresenceDB_C1P1.db").display())).await;
    for server in [mariadb(), postgres()].into_iter().flatten() {
        let database: Database = server.database("PresenceDB_C1P1");
        test(database.url()).await;
    }
}

async fn open(url: &str) -> Arc<SqlPresence> {
    Arc::new(open_presence(url).await.expect("it opens"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_replaced_stores_nothing_and_gives_no_tick() {
    on_each(|url| async move {
        let owner = open(&url).await;
        assert!(matches!(owner.append(BOB, vec![parcel(1)]).await.unwrap()[..], [Appended::Stored(_)]));
        let spare = open(&url).await;
        spare.take_over(1).await.unwrap();
        assert_eq!(owner.append(BOB, vec![parcel(2)]).await, Err(StoreError::Fenced), "{url}");
        let group = owner.create_group(BOB, text("work")).await;
        assert_eq!(group, Err(RosterError::Store(StoreError::Fenced)), "{url}");
        assert!(matches!(spare.append(BOB, vec![parcel(3)]).await.unwrap()[..], [Appended::Stored(_)]));
        let found = spare.page(BOB, Place::START, 10, 10_000).await.unwrap();
        assert_eq!(found.into_iter().map(|(_, one)| one).collect::<Vec<_>>(), [parcel(1), parcel(3)], "{url}");
        assert_eq!(spare.load(BOB).await.unwrap().groups, [], "{url}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_higher_epoch_wins_and_an_order_may_be_repeated() {
    on_each(|url| async move {
        let (one, other) = (open(&url).await, open(&url).await);
        one.take_over(7).await.unwrap();
        one.take_over(7).await.unwrap();
        assert_eq!(other.take_over(7).await, Err(StoreError::Fenced), "{url}");
        assert_eq!(other.take_over(8).await, Err(StoreError::Fenced), "it was opened before: {url}");
        let other = open(&url).await;
        assert_eq!(other.take_over(6).await, Err(StoreError::Fenced), "{url}");
        other.take_over(8).await.unwrap();
        assert_eq!(one.take_over(9).await, Err(StoreError::Fenced), "{url}");
        assert!(matches!(other.take_over(u64::MAX).await, Err(StoreError::Rejected(_))), "{url}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_took_over_and_did_not_wait_for_the_answer_is_not_locked_out() {
    on_each(|url| async move {
        let (owner, spare) = (open(&url).await, open(&url).await);
        let given_up = tokio::time::timeout(Duration::ZERO, spare.take_over(1)).await;
        let stored = spare.append(BOB, vec![parcel(1)]).await;
        assert!(matches!(stored.as_deref(), Ok([Appended::Stored(_)])), "{url}: {given_up:?}, {stored:?}");
        spare.take_over(1).await.unwrap();
        assert_eq!(owner.append(BOB, vec![parcel(2)]).await, Err(StoreError::Fenced), "{url}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_took_over_and_never_heard_so_goes_on_and_is_the_only_one() {
    for server in [mariadb(), postgres()].into_iter().flatten() {
        let database: Database = server.database("PresenceDB_C1P1");
        let proxy = Proxy::of(server).await;
        let (owner, other) = (open(&database.url()).await, open(&database.url()).await);
        let spare = open(&server.url_at(proxy.port(), database.name())).await;
        proxy.when(Request::is_commit, Fault::After);
        let unheard = spare.take_over(1).await;
        assert!(matches!(unheard, Err(StoreError::Unavailable(_))), "{unheard:?}");
        assert!(proxy.disarm(), "it was committed");
        assert_eq!(other.take_over(1).await, Err(StoreError::Fenced), "the number alone is no claim");
        assert_eq!(owner.append(BOB, vec![parcel(2)]).await, Err(StoreError::Fenced));
        // After a failure calls are refused for a second.
        let mut pause = tokio::time::interval(Duration::from_millis(50));
        while let Err(error) = spare.take_over(1).await {
            assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
            pause.tick().await;
        }
        assert!(matches!(spare.append(BOB, vec![parcel(3)]).await.unwrap()[..], [Appended::Stored(_)]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_appends_during_a_takeover_those_that_were_answered_are_there() {
    on_each(|url| async move {
        let (owner, spare) = (open(&url).await, open(&url).await);
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..60 {
            let owner = owner.clone();
            calls.spawn(async move { (number, owner.append(BOB, vec![parcel(number)]).await) });
        }
        spare.take_over(1).await.unwrap();
        let mut ticked = Vec::new();
        while let Some(call) = calls.join_next().await {
            match call.expect("no call panics") {
                (number, Ok(answers)) => {
                    assert!(matches!(answers[..], [Appended::Stored(_)]), "{answers:?}");
                    ticked.push(number);
                }
                (_, Err(StoreError::Fenced | StoreError::Busy(_) | StoreError::Conflict(_))) => {}
                (number, Err(error)) => panic!("{url}: {number}: {error}"),
            }
        }
        let found = spare.page(BOB, Place::START, 100, 100_000).await.unwrap();
        let mut found: Vec<_> = found.into_iter().map(|(_, one)| one.id).collect();
        let mut ticked: Vec<_> = ticked.into_iter().map(msg_id).collect();
        found.sort_unstable();
        ticked.sort_unstable();
        assert_eq!(found, ticked, "{url}: not one more and not one less");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_put_back_to_an_older_state_is_noticed_and_nothing_is_stored_in_it() {
    on_each(|url| async move {
        let owner = open(&url).await;
        owner.take_over(5).await.unwrap();
        put_back(&url).await;
        match owner.append(BOB, vec![parcel(1)]).await {
            Err(StoreError::Corrupt(why)) => assert!(why.contains("older state"), "{why}"),
            other => panic!("{url}: {other:?}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_has_fewer_commits_than_it_had_is_noticed_and_nothing_is_stored_in_it() {
    on_each(|url| async move {
        let owner = open(&url).await;
        let before = owner.mark();
        owner.append(BOB, vec![parcel(1)]).await.unwrap();
        owner.append(BOB, vec![parcel(2)]).await.unwrap();
        assert_eq!(owner.mark(), Mark { changes: before.changes + 2, ..before }, "{url}: each commit counts");
        // What a tool commits beside the server does not disturb it.
        open(&url).await.create_group(BOB, text("work")).await.unwrap();
        owner.append(BOB, vec![parcel(3)]).await.unwrap();
        assert_eq!(owner.put_back(), None, "{url}");

        change(&url, "UPDATE owners SET changes = changes - 3").await;
        let lost = owner.append(BOB, vec![parcel(4)]).await;
        assert!(matches!(&lost, Err(StoreError::Corrupt(why)) if why.contains("older state")), "{url}: {lost:?}");
        assert!(owner.put_back().is_some_and(|why| why.contains("commits where")), "{url}");
        let again = owner.create_group(BOB, text("friends")).await;
        assert!(matches!(again, Err(RosterError::Store(StoreError::Corrupt(_)))), "{url}: {again:?}");

        let anew = open(&url).await;
        assert!(anew.mark() < owner.mark(), "{url}");
        assert_eq!(anew.page(BOB, Place::START, 10, 10_000).await.unwrap().len(), 3, "{url}: not one more");
        anew.append(BOB, vec![parcel(5)]).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_are_passed_over_do_not_come_again() {
    on_each(|url| async move {
        let store = open(&url).await;
        let (group, before) = store.create_group(BOB, text("work")).await.unwrap();
        store.pass_over_versions(1_000, 50).await.unwrap();
        let (next, after) = store.create_group(BOB, text("friends")).await.unwrap();
        assert!(after.0 > before.0 + 1_000 && next.0 > group.0 + 50, "{url}: {before:?} {after:?} {next:?}");
    })
    .await;
}

/// What a restored backup, or a replica that lost the last commits, looks like.
async fn put_back(url: &str) {
    change(url, "UPDATE owners SET epoch = 4").await;
}

/// Changes something behind our back.
async fn change(url: &str, statement: &str) {
    use sea_orm::ConnectionTrait;
    let url = match url.strip_prefix("sqlite:") {
        Some(path) => format!("sqlite://{path}"),
        None => url.to_owned(),
    };
    let beside = sea_orm::Database::connect(url).await.expect("it is there");
    beside.execute_unprepared(statement).await.expect("it is ours");
    beside.close().await.expect("it closes");
}
