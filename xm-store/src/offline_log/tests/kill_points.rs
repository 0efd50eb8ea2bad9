//! The process dies right before and right after each call on which a promise rests, by name: write, flush, rename, flush of
//! the directory, removal. What was answered by then is there, and what was flushed as settled does not come back.
//!
//! The test starts its own executable again as the victim.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::*;

const DIRECTORY: &str = "XM_KILL_DIRECTORY";
/// `label:before:3` dies before the third call of that name.
const POINT: &str = "XM_KILL_POINT";
/// The number of the victim's first parcel.
const FIRST: &str = "XM_KILL_FIRST";
const LABELS: [&str; 5] = ["write", "sync", "rename", "sync_directory", "remove"];

static CALLS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Dies here if this is the point.
fn pass(label: &str, when: &str) {
    let mut calls = CALLS.lock().unwrap();
    let name = format!("{label}:{when}");
    calls.push(name.clone());
    let count = calls.iter().filter(|call| **call == name).count();
    if std::env::var(POINT).is_ok_and(|point| point == format!("{name}:{count}")) {
        std::process::abort();
    }
}

fn around<T>(label: &str, call: impl FnOnce() -> T) -> T {
    pass(label, "before");
    let done = call();
    pass(label, "after");
    done
}

const DEADLY: disk::Calls = disk::Calls {
    write: |file, bytes, at| around("write", || disk::write_all_at(file, bytes, at)),
    sync: |file| around("sync", || file.sync_data()),
    rename: |from, to| around("rename", || std::fs::rename(from, to)),
    sync_directory: |directory| around("sync_directory", || directory.sync()),
    remove: |path| around("remove", || std::fs::remove_file(path)),
};

fn options() -> Options {
    let quotas = Quotas { messages: u64::MAX, bytes: u64::MAX, messages_per_sender: u64::MAX };
    Options { quotas, segment_bytes: 4_000 }
}

fn large(number: u64) -> Parcel {
    Parcel { body: vec![number as u8; 900], ..parcel(number) }
}

/// One line, one write: a line in the pipe is never torn.
fn journal(what: &str, number: u64) {
    std::io::stdout().lock().write_all(format!("\njournal {what} {number} .\n").as_bytes()).unwrap();
}

/// Not a test of its own: the victim, when started by the test below.
#[test]
fn victim() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let log = OfflineLog::open_with(Path::new(&directory), options(), Box::new(|_| {}), DEADLY).unwrap();
    block_on(async {
        let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
        for number in first..first + 80 {
            log.append(BOB, vec![large(number)]).await.unwrap();
            journal("stored", number);
            if number % 8 != 0 {
                let raised = log.settle(BOB, &[id(&parcel(number))], Level::Received, WallTime(number)).await.unwrap();
                assert_eq!(raised.len(), 1);
            }
            if number % 10 == 0 {
                log.forget(WallTime(number)).await.unwrap();
                journal("flushed", number);
            }
        }
    });
    drop(log);
    journal("closed", 0);
}

/// Runs the victim up to this point. Returns its journal, and whether it got there.
fn run(directory: &Path, point: &str, first: u64) -> (Vec<(String, u64)>, bool) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["offline_log::tests::kill_points::victim", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .env(POINT, point)
        .env(FIRST, first.to_string())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("journal "));
    let journal = lines.filter_map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        if let [what, number, "."] = words[..] { Some((what.to_owned(), number.parse().unwrap())) } else { None }
    });
    let journal: Vec<_> = journal.collect();
    let is_closed = journal.iter().any(|(what, _)| what == "closed");
    assert_eq!(output.status.success(), is_closed, "{point}: it dies at its point, or ends in order");
    (journal, !is_closed)
}

/// Opens the log the victims left, and compares.
fn compare(directory: &Path, point: &str, journals: &[Vec<(String, u64)>]) {
    let log = OfflineLog::open(directory, options()).unwrap();
    assert_eq!(log.recovery().damage, [], "{point}: a crash damages nothing");
    let found = block_on(waiting(&log));
    for one in &found {
        assert_eq!(*one, large(one.sent.0), "{point}: whole and as sent");
    }
    let found = numbers(&found);
    assert!(found.is_sorted_by(|one, next| one < next), "{point}: in order, none twice: {found:?}");
    let waits: BTreeSet<_> = found.iter().copied().collect();
    for journal in journals {
        let flushed = journal.iter().rfind(|(what, _)| what == "flushed").map_or(0, |(_, number)| *number);
        for (_, number) in journal.iter().filter(|(what, _)| what == "stored") {
            let level = block_on(log.level(BOB, id(&parcel(*number)))).unwrap();
            assert!(level.is_some(), "{point}: parcel {number} was stored and is lost");
            assert!(waits.contains(number) || number % 8 != 0, "{point}: parcel {number} does not wait any more");
            assert!(!waits.contains(number) || number % 8 == 0 || *number > flushed, "{point}: {number} came back");
        }
    }
    // It can be gone on with.
    block_on(append(&log, 9_000..9_003));
}

#[test]
fn dying_before_or_after_any_call_loses_nothing_that_was_answered() {
    for label in LABELS {
        for when in ["before", "after"] {
            let mut hits = 0;
            for count in [1, 2, 3, 5, 9] {
                let directory = scratch();
                let point = format!("{label}:{when}:{count}");
                let (journal, is_hit) = run(directory.path(), &point, 1);
                hits += usize::from(is_hit);
                // The next one dies as soon as it can, on its way up if it has to write something again.
                let (next, _) = run(directory.path(), &format!("{label}:{when}:1"), 1_000);
                compare(directory.path(), &point, &[journal, next]);
            }
            assert!(hits >= 3, "{label}:{when} was hit {hits} times");
        }
    }
}
