//! More calls than a slow database can take: the queue has an end, and who finds it full is told so at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use xm_store::sql::{SqlPlacements, open_presence};
use xm_store::testing::at;
use xm_store::testing::contacts::wish;
use xm_store::{Contacts, Placements, StoreError};
use xmmep::types::UserId;

use super::{Behind, again, form, is_passing, on_each_engine};
use crate::common::memory_peak;
use crate::common::proxy::{Mode, Proxy};
use crate::common::servers::Server;
use crate::common::wire::Kind;

on_each_engine!(
    a_full_queue_says_so_at_once_and_loses_nothing_it_took,
    a_slow_database_ends_every_call_in_time_and_takes_no_memory,
    erasing_somebody_whom_many_watch_takes_few_statements,
);

/// More than wait anywhere.
const CALLS: u64 = 4_000;
/// More than may wait of one kind, wherever it waits: in the queue, in the group under way, on its way.
const WAITING_MAX: usize = 1_500;
/// What four thousand calls may cost, with all that the tests beside this one use.
const MEMORY_MAX: u64 = 128 << 20;

type Answers = JoinSet<Result<(), StoreError>>;

/// Many changes, and many queries.
fn many(store: &Arc<SqlPlacements>) -> (Answers, Answers) {
    let (mut writes, mut reads) = (JoinSet::new(), JoinSet::new());
    for number in 0..CALLS {
        let (writing, reading) = (store.clone(), store.clone());
        writes.spawn(async move { writing.finish_activation(UserId(number)).await });
        reads.spawn(async move { reading.by_user(UserId(number)).await.map(|_| ()) });
    }
    (writes, reads)
}

async fn a_full_queue_says_so_at_once_and_loses_nothing_it_took(server: &'static Server) {
    let behind = Behind::new(server).await;
    behind.proxy.set(Mode::Hold);
    let (mut writes, mut reads) = many(&behind.store);
    for (what, calls) in [("writes", &mut writes), ("reads", &mut reads)] {
        for _ in 0..CALLS as usize - WAITING_MAX {
            // Nothing comes back from the database: only a refusal can be this quick.
            let answer = calls.join_next().await.expect("there are more").expect("no panic");
            assert!(matches!(answer, Err(StoreError::Busy(_))), "{what}: {answer:?}");
        }
    }
    behind.proxy.set(Mode::Pass);
    for (what, calls) in [("writes", &mut writes), ("reads", &mut reads)] {
        let mut done = 0;
        while let Some(answer) = calls.join_next().await {
            match answer.expect("no panic") {
                Ok(()) => done += 1,
                Err(error) => assert!(is_passing(&error), "{what}: {error}"),
            }
        }
        assert!(done > 0, "{what}: what waited is done");
    }
    again("afterwards", || behind.store.register(form(1, "Ann"), at(0))).await;
}

async fn a_slow_database_ends_every_call_in_time_and_takes_no_memory(server: &'static Server) {
    /// A queue that is full when its database goes takes this long to empty.
    const EMPTY_MAX: Duration = Duration::from_secs(40);
    let behind = Behind::new(server).await;
    let before = memory_peak();
    behind.proxy.set(Mode::Delay(Duration::from_secs(2)));
    let (mut writes, mut reads) = many(&behind.store);
    let all = async {
        for calls in [&mut writes, &mut reads] {
            while let Some(answer) = calls.join_next().await {
                let answer = answer.expect("no panic");
                assert!(answer.as_ref().err().is_none_or(is_passing), "{answer:?}");
            }
        }
    };
    tokio::time::timeout(EMPTY_MAX, all).await.expect("every call ends");
    let used = memory_peak() - before;
    assert!(used < MEMORY_MAX, "{used} bytes");
    behind.proxy.set(Mode::Pass);
    again("afterwards", || behind.store.register(form(1, "Ann"), at(0))).await;
}

async fn erasing_somebody_whom_many_watch_takes_few_statements(server: &'static Server) {
    const WATCHERS: u64 = 600;
    let (proxy, database) = (Proxy::of(server).await, server.database("PresenceDB_C1P1"));
    let store = open_presence(&server.url_at(proxy.port(), database.name())).await.expect("it opens");
    let store = Arc::new(store);
    let mut asking: JoinSet<_> = (1..=WATCHERS)
        .map(|me| {
            let store = store.clone();
            async move { store.ask(wish(me, 5_000)).await.map(drop) }
        })
        .collect();
    while let Some(asked) = asking.join_next().await {
        asked.expect("no panic").expect("the queue has room for all");
    }
    proxy.requests();
    assert_eq!(store.erase(UserId(5_000)).await.expect("it is done").len() as u64, WATCHERS);
    let statements = proxy.requests().iter().filter(|request| request.kind == Kind::Run).count();
    // Each takes its way there and back, and all of them must end within the time that a change has.
    assert!(statements < 25, "{statements} statements");
}
