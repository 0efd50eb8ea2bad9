//! `kill -9` at any moment loses no place that was answered with `Stored`, keeps the order, doubles nothing.
//!
//! The test starts its own executable again as the victim, which appends and writes each answer to standard output
//! *after* it got it. The parent kills it in the middle, opens the log and compares.
#![cfg(all(unix, feature = "offline-log"))]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use xm_store::Offline;
use xm_store::offline::Appended;
use xm_store::offline_log::{OfflineLog, Options};
use xm_store::records::{Level, Parcel, ParcelId, Place, Quotas};
use xmmep::types::{MsgId, UserId, WallTime};

/// Set for the victim: the directory of its log.
const DIRECTORY: &str = "XM_STORE_CRASH_DIRECTORY";
/// Set for the victim: the number of its first parcel.
const FIRST: &str = "XM_STORE_CRASH_FIRST";
/// How often the victim is killed.
const KILLS: u64 = 25;
const BOB: UserId = UserId(2);
const WRITERS: u64 = 4;

fn options() -> Options {
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

/// Not a test of its own: the victim, when started by the test below.
#[test]
fn victim() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let log = OfflineLog::open(Path::new(&directory), options()).expect("the log opens after a crash");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let log = std::sync::Arc::new(log);
    runtime.block_on(async move {
        let writers = (0..WRITERS).map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                for number in (first..).filter(|number| number % WRITERS == writer) {
                    let answers = log.append(BOB, vec![parcel(number)]).await.expect("the append works");
                    assert!(matches!(answers[..], [Appended::Stored(_)]), "{number}: {answers:?}");
                    journal("stored", number);
                    if number % 3 == 0 {
                        log.settle(BOB, &[id(number)], Level::Received, WallTime(number)).await.expect("settles");
                        journal("settled", number);
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("a writer never ends");
        }
    });
}

/// One line, one write: a line in the pipe is never torn by the kill.
fn journal(what: &str, number: u64) {
    let line = format!("\njournal {what} {number} .\n");
    std::io::stdout().lock().write_all(line.as_bytes()).expect("the parent reads");
}

/// Starts the victim, reads `lines` lines of its journal, kills it, reads the rest.
fn run_victim(directory: &Path, first: u64, lines: usize) -> Vec<(String, u64)> {
    let mut child = Command::new(std::env::current_exe().expect("this test has a path"))
        .args(["victim", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the victim starts");
    let mut reader = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut journal = Vec::new();
    let mut read = |journal: &mut Vec<(String, u64)>| {
        let Some(Ok(line)) = reader.next() else { return false };
        let words: Vec<_> = line.split_whitespace().collect();
        if let ["journal", what, number, "."] = words[..] {
            journal.push((what.to_owned(), number.parse().expect("a number")));
        }
        true
    };
    while journal.len() < lines && read(&mut journal) {}
    assert_eq!(journal.len(), lines, "the victim lives until it is killed");
    child.kill().expect("SIGKILL");
    child.wait().expect("it is dead");
    while read(&mut journal) {}
    journal
}

#[test]
fn killing_the_process_loses_nothing_that_was_stored() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let mut stored = std::collections::BTreeSet::new();
    let mut settled = std::collections::BTreeSet::new();
    let mut first = 1;
    for kill in 0..KILLS {
        let lines = 1 + (kill * 13 % 60) as usize;
        for (what, number) in run_victim(directory.path(), first, lines) {
            if what == "stored" {
                stored.insert(number)
            } else {
                settled.insert(number)
            };
        }
        let log = OfflineLog::open(directory.path(), options()).expect("the log opens after a crash");
        assert_eq!(log.recovery().damage, [], "kill {kill}: a crash damages nothing");
        let waiting = runtime.block_on(log.page(BOB, Place::START, usize::MAX, usize::MAX)).unwrap();
        let found: Vec<u64> = waiting.iter().map(|(_, parcel)| parcel.sent.0).collect();
        for (_, one) in &waiting {
            assert_eq!(*one, parcel(one.sent.0), "kill {kill}: whole and as sent");
        }
        let unique: std::collections::BTreeSet<_> = found.iter().copied().collect();
        assert_eq!(unique.len(), found.len(), "kill {kill}: none twice");
        for writer in 0..WRITERS {
            let own: Vec<_> = found.iter().filter(|number| **number % WRITERS == writer).collect();
            assert!(own.is_sorted(), "kill {kill}: in the sender's order: {own:?}");
        }
        for number in &stored {
            let level = runtime.block_on(log.level(BOB, id(*number))).unwrap();
            let was_settled = number % 3 == 0;
            assert!(level.is_some(), "kill {kill}: parcel {number} was stored and is lost");
            assert!(unique.contains(number) || was_settled, "kill {kill}: parcel {number} does not wait any more");
        }
        first = unique.iter().chain(&stored).max().copied().unwrap_or(0) + 1_000;
    }
    assert!(stored.len() > 500, "only {} parcels were stored", stored.len());
    assert!(!settled.is_empty());
}
