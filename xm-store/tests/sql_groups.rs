//! Changes in SQL are committed in groups: one flush for many callers, and none of them is hurt by another.
#![cfg(all(feature = "testing", feature = "sql"))]

use std::sync::Arc;

use sea_orm::{ConnectionTrait, DatabaseConnection};
use xm_store::contacts::Ask;
use xm_store::error::{RosterError, RosterRefusal, StoreError};
use xm_store::records::GROUPS_MAX;
use xm_store::sql::{SqlPresence, open_presence};
use xm_store::testing::contacts::wish;
use xm_store::testing::{at, text};
use xm_store::{Accounts, Contacts};
use xmmep::types::{GroupId, UserId};

/// A store, and a connection beside it that can hold up its changes.
struct Held {
    store: Arc<SqlPresence>,
    beside: DatabaseConnection,
    directory: tempfile::TempDir,
}

impl Held {
    async fn open() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("PresenceDB_C1P1.db");
        let store = open_presence(&format!("sqlite:{}", path.display())).await.expect("it opens");
        let mut options = sea_orm::ConnectOptions::new(format!("sqlite://{}", path.display()));
        let beside = sea_orm::Database::connect(options.max_connections(1).clone()).await.expect("SQLite opens it");
        Self { store: Arc::new(store), beside, directory }
    }

    /// Holds up all changes until [`let_go`](Self::let_go).
    async fn hold(&self) {
        self.beside.execute_unprepared("BEGIN IMMEDIATE").await.expect("nobody else writes");
    }

    async fn let_go(&self) {
        self.beside.execute_unprepared("ROLLBACK").await.expect("it was begun");
    }
}

/// Starts all calls, in this order, while changes are held up; lets them go; returns what they answered.
async fn together<T: Send + 'static>(held: &Held, calls: Vec<impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    held.hold().await;
    let mut calls: Vec<_> = calls.into_iter().map(Box::pin).collect();
    for call in &mut calls {
        // The first poll puts it into the queue.
        assert!(futures_poll(call).await.is_none(), "it waits");
    }
    held.let_go().await;
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await);
    }
    answers
}

/// One poll.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| match std::pin::Pin::new(&mut *future).poll(context) {
        std::task::Poll::Ready(answer) => std::task::Poll::Ready(Some(answer)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_wait_are_committed_together() {
    let held = Held::open().await;
    let before = held.store.stats();
    let calls = (1..=100).map(|me| {
        let store = held.store.clone();
        async move { store.ask(wish(me, 1_000)).await }
    });
    for answer in together(&held, calls.collect()).await {
        assert!(answer.is_ok(), "{answer:?}");
    }
    let after = held.store.stats();
    assert_eq!(after.changes - before.changes, 100);
    assert!(after.commits - before.commits <= 3, "{} commits", after.commits - before.commits);
    assert_eq!(held.store.load(UserId(1_000)).await.unwrap().watchers.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_change_leaves_its_group_as_if_it_had_not_been_there() {
    let held = Held::open().await;
    for number in 0..GROUPS_MAX {
        held.store.create_group(UserId(7), text(&format!("group {number}"))).await.unwrap();
    }
    let calls = (1..=10).map(|number| {
        let store = held.store.clone();
        async move {
            match number {
                4 => store.create_group(UserId(7), text("one too many")).await.map(|_| ()),
                8 => store.ask(Ask { group: GroupId(4_711), ..wish(8, 1_000) }).await.map(|_| ()),
                me => store.ask(wish(me, 1_000)).await.map(|_| ()),
            }
        }
    });
    let before = held.store.stats();
    let answers = together(&held, calls.collect()).await;
    let commits = held.store.stats().commits - before.commits;
    assert!(commits <= 2, "the others still share their commit, and not {commits}");
    for (number, answer) in (1..).zip(answers) {
        let expected = match number {
            4 => Err(RosterError::Refused(RosterRefusal::LimitReached(GROUPS_MAX))),
            8 => Err(RosterError::Refused(RosterRefusal::NoSuchGroup(GroupId(4_711)))),
            _ => Ok(()),
        };
        assert_eq!(answer, expected, "{number}");
    }
    let roster = held.store.load(UserId(1_000)).await.unwrap();
    assert_eq!(roster.watchers.iter().map(|w| w.who.user.0).collect::<Vec<_>>(), [1, 2, 3, 5, 6, 7, 9, 10]);
    assert_eq!(held.store.load(UserId(7)).await.unwrap().groups.len(), GROUPS_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_bounded_and_says_so_at_once() {
    let held = Held::open().await;
    held.hold().await;
    let mut waiting = Vec::new();
    let mut busy = 0;
    for user in 1..=3_000 {
        let store = held.store.clone();
        let mut call = Box::pin(async move { store.login_failed(UserId(user), at(0)).await });
        match futures_poll(&mut call).await {
            None => waiting.push(call),
            Some(answer) => {
                assert!(matches!(answer, Err(StoreError::Busy(_))), "{answer:?}");
                busy += 1;
            }
        }
    }
    assert!(busy >= 3_000 - 1_024 - 128 - 1, "one group is under way, 1,024 wait: {busy} refused");
    assert_eq!(held.store.stats().busy, busy);
    held.let_go().await;
    for call in waiting {
        assert_eq!(call.await, Ok(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_up_has_made_the_change_all_the_same() {
    let held = Held::open().await;
    held.hold().await;
    let store = held.store.clone();
    let mut call = Box::pin(async move { store.ask(wish(1, 2)).await });
    assert!(futures_poll(&mut call).await.is_none());
    drop(call);
    held.let_go().await;
    held.store.close().await;
    let store = open_presence(&format!("sqlite:{}", held.directory.path().join("PresenceDB_C1P1.db").display())).await;
    assert_eq!(store.unwrap().load(UserId(1)).await.unwrap().buddies.len(), 1);
}
