//! What the SQL stores cost, per engine: a roster at login, changes of buddy lists, offline messages; time, CPU here and in
//! the server, bytes written.
//!
//! `cargo bench -p xm-store --all-features --bench sql [-- WORD]` runs those whose name has the word in it: an engine
//! (`sqlite`, `mariadb`, `postgres`), a piece of work (`load`, `edit`, `append`, `page`, `confirm`). Engines that are
//! not on this machine are left out. `XM_BENCH_DIR` names a directory on the disk that SQLite is measured on.
//!
//! For system calls: `strace -f -c target/release/deps/sql-… sqlite-edit-64`.

#[path = "common/cost.rs"]
mod cost;
#[path = "../tests/common/mod.rs"]
mod servers_common;

use std::path::PathBuf;
use std::sync::Arc;

use cost::Cost;
use servers_common::servers::{Engine, shared};
use tokio::task::JoinSet;
use xm_store::contacts::Answer;
use xm_store::offline::Appended;
use xm_store::records::{Level, Parcel, ParcelId, Place, Quotas};
use xm_store::sql::{SqlPresence, open_presence};
use xm_store::testing::at;
use xm_store::testing::contacts::{person, wish};
use xm_store::{Contacts, Offline};
use xmmep::types::{MsgId, UserId, WallTime};

/// Buddies of the user who logs in.
const BUDDIES: u64 = 200;
/// Bytes of a text: what people send, sealed and framed.
const BODY: usize = 200;
/// Messages in one page, as a Presence asks for them.
const PAGE: usize = 64;

/// A database to measure, and what has to stay while it is.
struct Subject {
    engine: &'static str,
    store: Arc<SqlPresence>,
    processes: Box<dyn Fn() -> Vec<u32>>,
    _kept: Box<dyn std::any::Any>,
}

fn main() {
    let word = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("the runtime starts");
    for engine in ["sqlite", "mariadb", "postgres"] {
        let works = ["load", "edit-1", "edit-64", "edit-512", "append-1", "append-64", "append-512", "page", "confirm"];
        let wanted: Vec<_> = works.into_iter().filter(|work| format!("{engine}-{work}").contains(&word)).collect();
        if wanted.is_empty() {
            continue;
        }
        let Some(subject) = runtime.block_on(open(engine)) else { continue };
        for work in wanted {
            runtime.block_on(run(&subject, work));
        }
        runtime.block_on(subject.store.close());
    }
}

async fn open(engine: &'static str) -> Option<Subject> {
    let quotas = Quotas { messages: u64::MAX, bytes: u64::MAX, messages_per_sender: u64::MAX };
    let opened = |store: SqlPresence| Arc::new(store.with_quotas(quotas));
    if engine == "sqlite" {
        let parent = std::env::var_os("XM_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let directory = tempfile::tempdir_in(parent).expect("a directory");
        let store = open_presence(&format!("sqlite:{}", directory.path().join("PresenceDB_C1P1.db").display())).await;
        let store = opened(store.expect("it opens"));
        return Some(Subject { engine, store, processes: Box::new(Vec::new), _kept: Box::new(directory) });
    }
    let server = shared(if engine == "mariadb" { Engine::MariaDb } else { Engine::Postgres })?;
    let database = server.database("PresenceDB_C1P1");
    let store = opened(open_presence(&database.url()).await.expect("it opens"));
    Some(Subject { engine, store, processes: Box::new(|| server.processes()), _kept: Box::new(database) })
}

async fn run(subject: &Subject, work: &str) {
    let (kind, in_flight) = work.split_once('-').unwrap_or((work, "1"));
    let in_flight: usize = in_flight.parse().expect("a number");
    let more = if in_flight == 1 { 1 } else { 10 };
    match kind {
        "load" => {
            befriend(&subject.store).await;
            measured(subject, "load a roster of 200", 1_000, loads(&subject.store, 1_000)).await;
        }
        "edit" => {
            let (first, count) = (in_flight as u64 * 100_000, 500 * more);
            let name = format!("edit a buddy list, {in_flight} at once");
            measured(subject, &name, count, edits(&subject.store, first, in_flight, count)).await;
        }
        "append" => {
            let (first, count) = (in_flight * 1_000_000, 500 * more);
            let name = format!("append, {in_flight} at once");
            measured(subject, &name, count, appends(&subject.store, first, in_flight, count)).await;
        }
        "page" => {
            appends(&subject.store, 0, 64, 20 * PAGE * RECIPIENTS).await;
            let pages = 20 * RECIPIENTS;
            measured(subject, "read a page of 64", pages, read_pages(&subject.store, pages)).await;
        }
        _ => {
            let count = PAGE * RECIPIENTS;
            appends(&subject.store, 7_000_000, 64, count).await;
            measured(subject, "confirm a page of 64", RECIPIENTS, confirms(&subject.store, 7_000_000)).await;
        }
    }
}

async fn measured(subject: &Subject, name: &str, count: usize, work: impl Future<Output = ()>) {
    let cost = Cost::start((subject.processes)());
    work.await;
    cost.print(&format!("{}: {name}", subject.engine), count);
}

/// User 1 and 200 others are buddies of each other.
async fn befriend(store: &Arc<SqlPresence>) {
    let mut calls = JoinSet::new();
    for buddy in 2..2 + BUDDIES {
        let store = store.clone();
        calls.spawn(async move {
            store.ask(wish(buddy, 1)).await.expect("it asks");
            store.answer(&person(1), UserId(buddy), Answer::AcceptAndAdd, at(1)).await.expect("it answers");
        });
    }
    finish(calls).await;
}

async fn loads(store: &SqlPresence, count: usize) {
    for _ in 0..count {
        let roster = store.load(UserId(1)).await.expect("it loads");
        assert_eq!((roster.buddies.len(), roster.watchers.len()), (BUDDIES as usize, BUDDIES as usize));
    }
}

/// Each user asks for one buddy.
async fn edits(store: &Arc<SqlPresence>, first: u64, in_flight: usize, count: usize) {
    let mut writers = JoinSet::new();
    for writer in 0..in_flight {
        let store = store.clone();
        writers.spawn(async move {
            for number in (writer..count).step_by(in_flight) {
                store.ask(wish(first + number as u64, 1)).await.expect("it asks");
            }
        });
    }
    finish(writers).await;
}

/// So many recipients take turns.
const RECIPIENTS: usize = 10;

fn recipient(number: usize) -> UserId {
    UserId(1_000 + (number % RECIPIENTS) as u64)
}

fn parcel(number: usize) -> Parcel {
    let id = MsgId((number as u128).to_le_bytes());
    Parcel { from: UserId(number as u64 % 20), id, sent: WallTime(number as u64), body: vec![number as u8; BODY] }
}

async fn appends(store: &Arc<SqlPresence>, first: usize, in_flight: usize, count: usize) {
    let mut writers = JoinSet::new();
    for writer in 0..in_flight {
        let store = store.clone();
        writers.spawn(async move {
            for number in (first + writer..first + count).step_by(in_flight) {
                let answers = store.append(recipient(number), vec![parcel(number)]).await.expect("the append works");
                assert!(matches!(answers[..], [Appended::Stored(_)]), "{answers:?}");
            }
        });
    }
    finish(writers).await;
}

async fn read_pages(store: &SqlPresence, pages: usize) {
    let mut after = [Place::START; RECIPIENTS];
    for number in 0..pages {
        let after = &mut after[number % RECIPIENTS];
        let page = store.page(recipient(number), *after, PAGE, usize::MAX).await.expect("it is read");
        *after = page.last().expect("it is full").0;
    }
}

async fn confirms(store: &SqlPresence, first: usize) {
    for user in 0..RECIPIENTS {
        let parcels = (first + user..first + PAGE * RECIPIENTS).step_by(RECIPIENTS).map(parcel);
        let ids: Vec<_> = parcels.map(|parcel| ParcelId { from: parcel.from, id: parcel.id }).collect();
        let raised = store.settle(recipient(first + user), &ids, Level::Received, at(9)).await.expect("it settles");
        assert_eq!(raised.len(), PAGE);
    }
}

async fn finish(mut calls: JoinSet<()>) {
    while let Some(done) = calls.join_next().await {
        done.expect("a call ends");
    }
}
