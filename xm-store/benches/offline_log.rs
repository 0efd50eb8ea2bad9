//! What the offline log costs: appends with a flush each, pages, confirmations; time, CPU, bytes written.
//!
//! `cargo bench -p xm-store --features offline-log --bench offline_log [-- WORD]` runs those whose name has the word in
//! it. `XM_BENCH_DIR` names a directory on the disk to measure; without it, the temporary directory. The figures are
//! those of this machine and its disk at this moment; CPU and bytes travel better than time.
//!
//! For system calls: `strace -f -c target/release/deps/offline_log-… append-64`.

use std::ops::Range;
#[path = "common/cost.rs"]
mod cost;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cost::Cost;
use tokio::task::JoinSet;
use xm_store::Offline;
use xm_store::offline::Appended;
use xm_store::offline_log::{OfflineLog, Options};
use xm_store::records::{Level, Parcel, ParcelId, Place, Quotas};
use xmmep::types::{MsgId, UserId, WallTime};

/// A text of 200 bytes: what people send, sealed and framed.
const BODY: usize = 200;
/// Messages in one page, as a Presence asks for them.
const PAGE: usize = 64;

fn main() {
    let word = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let wanted = |name: &str| name.contains(&word);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("the runtime starts");
    for (name, in_flight, count) in [("append-1", 1, 2_000), ("append-64", 64, 40_000), ("append-512", 512, 100_000)] {
        if wanted(name) {
            let (log, _directory) = open(name);
            let cost = Cost::start(Vec::new());
            runtime.block_on(append(&log, in_flight, 0..count));
            cost.print(name, count);
        }
    }
    for (name, calls_of) in [("confirm-page", PAGE), ("confirm-single", 1)] {
        if wanted(name) {
            let (log, _directory) = open(name);
            runtime.block_on(append(&log, 512, 0..20_000));
            let cost = Cost::start(Vec::new());
            runtime.block_on(confirm(&log, calls_of, 20_000));
            // Dropping it flushes what is left.
            drop(log);
            cost.print(name, 20_000);
        }
    }
    if wanted("page") {
        let (log, _directory) = open("page");
        runtime.block_on(append(&log, 512, 0..20_000));
        let cost = Cost::start(Vec::new());
        let pages = runtime.block_on(pages(&log, 20_000));
        cost.print("page (64 messages)", pages);
    }
    if wanted("open") {
        let (log, directory) = open("open");
        runtime.block_on(append(&log, 512, 0..100_000));
        drop(log);
        let cost = Cost::start(Vec::new());
        let log = OfflineLog::open(directory.path(), options()).expect("the log opens");
        assert_eq!(log.recovery().waiting, 100_000);
        cost.print("open (per message)", 100_000);
    }
    if wanted("stall") {
        runtime.block_on(stalls());
    }
}

fn options() -> Options {
    let quotas = Quotas { messages: u64::MAX, bytes: u64::MAX, messages_per_sender: u64::MAX };
    Options { quotas, ..Options::default() }
}

/// A log of its own with its first segment made, so that the making is not measured.
fn open(name: &str) -> (Arc<OfflineLog>, tempfile::TempDir) {
    let parent = std::env::var_os("XM_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::Builder::new().prefix(name).tempdir_in(parent).expect("a directory");
    let log = OfflineLog::open(directory.path(), options()).expect("the log opens");
    (Arc::new(log), directory)
}

fn parcel(number: usize) -> Parcel {
    let id = MsgId((number as u128).to_le_bytes());
    Parcel { from: UserId(number as u64 % 20), id, sent: WallTime(number as u64), body: vec![number as u8; BODY] }
}

/// A hundred recipients take turns.
fn recipient(number: usize) -> UserId {
    UserId(1_000 + number as u64 % 100)
}

/// Appends these parcels, one a call, with so many calls in flight.
async fn append(log: &Arc<OfflineLog>, in_flight: usize, numbers: Range<usize>) {
    let mut writers = JoinSet::new();
    for writer in 0..in_flight {
        let (log, numbers) = (log.clone(), numbers.clone());
        writers.spawn(async move {
            for number in numbers.skip(writer).step_by(in_flight) {
                let answers = log.append(recipient(number), vec![parcel(number)]).await.expect("the append works");
                assert!(matches!(answers[..], [Appended::Stored(_)]), "{answers:?}");
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.expect("a writer ends");
    }
}

/// Confirms everything, for one recipient after the other, so many in a call.
async fn confirm(log: &OfflineLog, calls_of: usize, count: usize) {
    for user in 0..100 {
        let ids: Vec<_> = (user..count).step_by(100).map(parcel).collect();
        let ids: Vec<_> = ids.iter().map(|parcel| ParcelId { from: parcel.from, id: parcel.id }).collect();
        for call in ids.chunks(calls_of) {
            let at = WallTime(count as u64);
            let raised = log.settle(recipient(user), call, Level::Received, at).await.expect("it settles");
            assert_eq!(raised.len(), call.len());
        }
    }
}

/// Reads everything, page by page; returns how many pages there were.
async fn pages(log: &OfflineLog, count: usize) -> usize {
    let (mut pages, mut messages) = (0, 0);
    for user in 0..100 {
        let mut after = Place::START;
        loop {
            let page = log.page(recipient(user), after, PAGE, usize::MAX).await.expect("it is read");
            let Some((last, _)) = page.last() else { break };
            after = *last;
            pages += 1;
            messages += page.len();
        }
    }
    assert_eq!(messages, count);
    pages
}

/// What housekeeping and compaction cost a log in which a million messages are known, and how long a reader waits for it.
#[expect(clippy::print_stdout, reason = "a benchmark prints")]
async fn stalls() {
    let (log, _directory) = open("stall");
    let before = resident_bytes();
    let mut writers = JoinSet::new();
    for writer in 0..64 {
        let log = log.clone();
        writers.spawn(async move {
            for user in (writer..USERS).step_by(64) {
                let parcels = (0..EACH).map(|number| parcel(user * EACH + number)).collect();
                log.append(UserId(user as u64), parcels).await.expect("the append works");
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.expect("a writer ends");
    }
    println!("{:.0} bytes of memory for each message", (resident_bytes() - before) as f64 / KNOWN as f64);
    let later = |time: u64| WallTime(time + 10 * 24 * 3_600_000);
    beside(&log, "expire, none is old", log.expire(WallTime(0), WallTime(1), 256)).await;
    beside(&log, "expire 256", log.expire(WallTime(500_000), WallTime(1), 256)).await;
    beside(&log, "forget, none is old", log.forget(WallTime(2))).await;
    for user in 0..USERS {
        let ids = (0..EACH / 2).map(|number| parcel(user * EACH + number));
        let ids: Vec<_> = ids.map(|parcel| ParcelId { from: parcel.from, id: parcel.id }).collect();
        log.settle(UserId(user as u64), &ids, Level::Received, WallTime(2)).await.expect("it settles");
    }
    beside(&log, "append 100,000", append(&log, 512, KNOWN..KNOWN + 100_000)).await;
    beside(&log, "forget 500,000", log.forget(later(3))).await;
    beside(&log, "append 100,000 more", append(&log, 512, KNOWN + 100_000..KNOWN + 200_000)).await;
    beside(&log, "erase one", log.erase(UserId(7), WallTime(3))).await;
}

/// Users of [`stalls`], and messages of each.
const USERS: usize = 10_000;
const EACH: usize = 100;
const KNOWN: usize = USERS * EACH;

/// Does it, while somebody asks again and again how much waits for him.
#[expect(clippy::print_stdout, reason = "a benchmark prints")]
async fn beside<T>(log: &Arc<OfflineLog>, name: &str, work: impl Future<Output = T>) {
    let longest = Arc::new(AtomicU64::new(0));
    let (reading, slowest) = (log.clone(), longest.clone());
    let reader = tokio::spawn(async move {
        loop {
            let before = Instant::now();
            reading.summary(UserId(7)).await.expect("it answers");
            slowest.fetch_max(before.elapsed().as_micros() as u64, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    });
    let start = Instant::now();
    work.await;
    let took = start.elapsed();
    reader.abort();
    let longest = longest.load(Ordering::Relaxed) as f64 / 1e3;
    println!("{name:<20} {:>9.1} ms, a reader waited for up to {longest:>5.1} ms", took.as_secs_f64() * 1e3);
}

/// Bytes of the process that are in memory, where the system says: the second field of `statm`, in pages of 4 KiB.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4_096
}
