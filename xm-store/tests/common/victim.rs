//! A victim that appends to a log, and the ledger of what it was promised. An error is answered like a client does: the
//! same parcel again, a little later.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use xm_store::offline::Appended;
use xm_store::offline_log::{Event, OfflineLog, Options};
use xm_store::records::{Level, Parcel, ParcelId, Place, Quotas};
use xm_store::{Offline, StoreError};
use xmmep::types::{MsgId, UserId, WallTime};

use crate::child::{journal, task};

const BOB: UserId = UserId(2);
const WRITERS: u64 = 4;
/// Bytes of a log with which a test goes on.
const LOG_MAX: u64 = 12 * 1024 * 1024;
/// Between an error and the next try.
const RETRY: Duration = Duration::from_millis(10);

pub(crate) fn options() -> Options {
    let quotas = Quotas { messages: u64::MAX, bytes: u64::MAX, messages_per_sender: u64::MAX };
    Options { quotas, segment_bytes: 64 * 1024 }
}

fn parcel(number: u64) -> Parcel {
    Parcel {
        from: UserId(100 + number % WRITERS),
        id: MsgId(u128::from(number).to_le_bytes()),
        sent: WallTime(number),
        body: vec![number as u8; (number * 37 % 3_000) as usize],
    }
}

fn id(number: u64) -> ParcelId {
    ParcelId { from: parcel(number).from, id: parcel(number).id }
}

/// Most are confirmed as soon as they are stored, so that segments are compacted.
fn is_settled(number: u64) -> bool {
    !number.is_multiple_of(5)
}

/// Not a test of its own: the victim, when started by another test.
#[test]
fn victim() {
    let Some((directory, first)) = task() else { return };
    let log = OfflineLog::open_watched(&directory, options(), |event| journal(word(&event), 0));
    let log = Arc::new(log.expect("the log opens"));
    journal("opened", 0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async move {
        let writers = (0..WRITERS).map(|writer| {
            let numbers = (first..).filter(move |number| number % WRITERS == writer);
            tokio::spawn(write(log.clone(), numbers))
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("a writer never ends");
        }
    });
}

async fn write(log: Arc<OfflineLog>, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        loop {
            match log.append(BOB, vec![parcel(number)]).await {
                Ok(answers) => match answers[..] {
                    [Appended::Stored(_) | Appended::Already(_, Level::Stored)] => break,
                    _ => panic!("{number}: {answers:?}"),
                },
                Err(StoreError::Full(_)) => journal("refused:full", number),
                Err(StoreError::Stopped(_)) => journal("refused:stopped", number),
                Err(StoreError::Unavailable(_)) => journal("refused:unavailable", number),
                Err(StoreError::Busy(_)) => journal("refused:busy", number),
                Err(error) => panic!("{number}: {error}"),
            }
            tokio::time::sleep(RETRY).await;
        }
        journal("stored", number);
        if is_settled(number) && log.settle(BOB, &[id(number)], Level::Received, WallTime(number)).await.is_ok() {
            journal("settled", number);
        }
    }
}

fn word(event: &Event) -> &'static str {
    match event {
        Event::Stopped(_) => "event:stopped",
        Event::StillStopped(..) => "event:still-stopped",
        Event::Reopened(_) => "event:reopened",
        Event::SlowFlush(_) => "event:slow",
        Event::Full(_) => "event:full",
        _ => "event:other",
    }
}

/// All that was promised by victims of one log.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Numbers answered with `Stored`.
    stored: BTreeSet<u64>,
    /// Numbers confirmed.
    settled: BTreeSet<u64>,
    highest: u64,
    count: usize,
}

impl Ledger {
    /// A number for the next victim to begin with.
    pub(crate) fn next(&self) -> u64 {
        self.highest + 1_000
    }

    /// Begins a new log before the disk is full and comparing takes long: what is in this one has been compared.
    pub(crate) fn begin_again_if_large(&mut self, directory: &Path) {
        let files = std::fs::read_dir(directory).expect("the log").flatten().filter_map(|entry| entry.metadata().ok());
        if files.map(|file| file.len()).sum::<u64>() < LOG_MAX {
            return;
        }
        self.compare(directory, "before the next log");
        for entry in std::fs::read_dir(directory).expect("the log").flatten() {
            std::fs::remove_file(entry.path()).expect("it goes");
        }
        self.count += self.stored.len();
        self.stored.clear();
        self.settled.clear();
    }

    /// How many were stored, in all logs, and how many confirmed in this one.
    pub(crate) fn counts(&self) -> (u64, usize) {
        ((self.count + self.stored.len()) as u64, self.settled.len())
    }

    pub(crate) fn take(&mut self, journal: &[(String, u64)]) {
        for (what, number) in journal {
            match what.as_str() {
                "stored" => self.stored.insert(*number),
                "settled" => self.settled.insert(*number),
                _ => continue,
            };
            self.highest = self.highest.max(*number);
        }
    }

    /// Opens the log and compares: lost 0, twice 0, order kept. `when` says after what.
    pub(crate) fn compare(&mut self, directory: &Path, when: &str) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let log = OfflineLog::open(directory, options()).expect("the log opens after that");
        assert_eq!(log.recovery().damage, [], "{when}: it damages nothing");
        let waiting = runtime.block_on(log.page(BOB, Place::START, usize::MAX, usize::MAX)).expect("a page");
        let found: Vec<u64> = waiting.iter().map(|(_, parcel)| parcel.sent.0).collect();
        for (_, one) in &waiting {
            assert_eq!(*one, parcel(one.sent.0), "{when}: whole and as sent");
        }
        let unique: BTreeSet<_> = found.iter().copied().collect();
        assert_eq!(unique.len(), found.len(), "{when}: none twice");
        for writer in 0..WRITERS {
            let own: Vec<_> = found.iter().filter(|number| **number % WRITERS == writer).collect();
            assert!(own.is_sorted(), "{when}: in the sender's order: {own:?}");
        }
        for number in &self.stored {
            let level = runtime.block_on(log.level(BOB, id(*number))).expect("a level");
            assert!(level.is_some(), "{when}: parcel {number} was stored and is lost");
            assert!(unique.contains(number) || is_settled(*number), "{when}: parcel {number} does not wait any more");
        }
        self.highest = unique.last().map_or(self.highest, |last| self.highest.max(*last));
        assert_eq!(log.counters().unreadable, 0, "{when}");
    }
}
