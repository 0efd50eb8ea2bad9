//! The space of a segment is taken before it is needed.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;

static LONGEST: AtomicUsize = AtomicUsize::new(0);

fn measured_write(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    LONGEST.fetch_max(bytes.len(), Ordering::SeqCst);
    disk::write_all_at(file, bytes, at)
}

#[test]
fn only_the_first_append_waits_for_the_space_of_a_whole_segment() {
    let directory = scratch();
    let calls = disk::Calls { write: measured_write, ..disk::Calls::REAL };
    let log = OfflineLog::open_with(directory.path(), small(), Box::new(|_| {}), calls).unwrap();
    block_on(append(&log, 1..2));
    assert_eq!(LONGEST.swap(0, Ordering::SeqCst), small().segment_bytes);
    block_on(append(&log, 2..400));
    let longest = LONGEST.load(Ordering::SeqCst);
    assert!(longest < small().segment_bytes / 4, "{longest} bytes in one write");
    let files = directory.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    assert!(files.filter(|name| name.to_str().and_then(disk::segment_number).is_some()).count() > 3);
    drop(log);
    assert!(!directory.path().join(disk::UNFINISHED).exists(), "one that is not needed any more is deleted");
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    assert_eq!(numbers(&block_on(waiting(&log))), (1..400).collect::<Vec<_>>());
}

/// Appends until the next segment is in the making; returns the number that comes next.
async fn until_the_next_is_begun(log: &OfflineLog, directory: &Path) -> u64 {
    let mut next = 1;
    while !directory.join(disk::UNFINISHED).exists() {
        append(log, next..next + 1).await;
        next += 1;
    }
    next
}

static FAILS: AtomicBool = AtomicBool::new(false);

fn failing_sync(file: &File) -> std::io::Result<()> {
    if FAILS.swap(false, Ordering::SeqCst) { Err(std::io::Error::other("EIO")) } else { file.sync_data() }
}

#[test]
fn a_log_that_stops_while_the_next_segment_is_made_goes_on_as_any_other() {
    let directory = scratch();
    let (events, watch) = watched();
    let calls = disk::Calls { sync: failing_sync, ..disk::Calls::REAL };
    let log = OfflineLog::open_with(directory.path(), small(), watch, calls).unwrap();
    let next = block_on(async {
        let next = until_the_next_is_begun(&log, directory.path()).await;
        FAILS.store(true, Ordering::SeqCst);
        let failed = log.append(BOB, vec![parcel(next)]).await;
        assert!(matches!(failed, Err(StoreError::Stopped(_))), "{failed:?}");
        next + 1
    });
    assert_eq!(reopened_event(&events).damage, []);
    block_on(append(&log, next..next + 400));
    drop(log);
    assert!(!directory.path().join(disk::UNFINISHED).exists());
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    assert_eq!(numbers(&block_on(waiting(&log))), (1..next + 400).collect::<Vec<_>>());
}

#[test]
fn an_erasure_while_the_next_segment_is_made_takes_what_it_is_to_take_and_no_more() {
    const EVE: UserId = UserId(66);
    let directory = scratch();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    let next = block_on(async {
        log.append(EVE, vec![parcel(1_000)]).await.unwrap();
        let next = until_the_next_is_begun(&log, directory.path()).await;
        assert_eq!(log.erase(EVE, WallTime(9)).await.unwrap().to, 1);
        append(&log, next..next + 400).await;
        next
    });
    drop(log);
    assert!(!directory.path().join(disk::UNFINISHED).exists());
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    assert_eq!(numbers(&block_on(waiting(&log))), (1..next + 400).collect::<Vec<_>>());
    assert_eq!(block_on(log.summary(EVE)).unwrap().messages, 0);
}
