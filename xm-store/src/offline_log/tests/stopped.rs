//! A flush that fails: the log stops, reads the disk again by itself, and trusts nothing the disk may not have.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Condvar, Mutex};

use super::*;

static FLUSHES_LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Flushes as often as allowed, then fails once, then would succeed: as a kernel does that has dropped the pages.
fn failing_sync(file: &File) -> std::io::Result<()> {
    match FLUSHES_LEFT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
        Ok(_) => file.sync_data(),
        Err(_) => {
            FLUSHES_LEFT.store(usize::MAX, Ordering::SeqCst);
            Err(std::io::Error::other("EIO"))
        }
    }
}

/// Every call of a stopped log.
async fn assert_stopped(log: &OfflineLog) {
    let retried = log.append(BOB, vec![parcel(4)]).await;
    assert!(matches!(retried, Err(StoreError::Stopped(_))), "the retry must not hide it: {retried:?}");
    assert!(log.page(BOB, Place::START, 10, 10).await.is_err());
    assert!(log.settle(BOB, &[id(&parcel(1))], Level::Received, WallTime(9)).await.is_err());
    assert!(log.summary(BOB).await.is_err());
    assert!(log.level(BOB, id(&parcel(1))).await.is_err());
    assert!(log.expire(WallTime(9), WallTime(9), 9).await.is_err());
    assert!(log.forget(WallTime(9)).await.is_err());
    assert!(log.erase(BOB, WallTime(9)).await.is_err());
}

#[test]
fn a_failed_flush_stops_the_log_until_it_has_read_the_disk_again() {
    let directory = scratch();
    let (events, watch) = watched();
    let calls = disk::Calls { sync: failing_sync, ..disk::Calls::REAL };
    let log = OfflineLog::open_with(directory.path(), small(), watch, calls).unwrap();
    block_on(async {
        append(&log, 1..4).await;
        let settled = log.settle(BOB, &[id(&parcel(1))], Level::Received, WallTime(9)).await.unwrap();
        assert_eq!(settled.len(), 1);
        FLUSHES_LEFT.store(0, Ordering::SeqCst);
        let failed = log.append(BOB, vec![parcel(4)]).await;
        assert!(matches!(failed, Err(StoreError::Stopped(_))), "{failed:?}");
        assert_stopped(&log).await;
    });
    let recovery = reopened_event(&events);
    assert_eq!(recovery.damage, []);
    assert!(recovery.rewritten > 0, "the batch whose flush failed may be in the page cache alone");
    let error = OfflineLog::open(directory.path(), small()).unwrap_err();
    assert_eq!(error, OpenError::InUse(directory.path().to_owned()), "the lock was kept all the time");
    block_on(async {
        assert_eq!(numbers(&waiting(&log).await)[..2], [2, 3], "a level raised before the failure is kept");
        let retried = log.append(BOB, vec![parcel(4)]).await.unwrap();
        assert_eq!(retried, [Appended::Already(Place(4), Level::Stored)]);
        append(&log, 5..7).await;
    });
    assert_eq!((log.counters().stops, log.counters().reopens), (1, 1));
    drop(log);
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    assert_eq!(numbers(&block_on(waiting(&log))), [2, 3, 4, 5, 6]);
}

/// What the disk has, for [`lying_write`] and [`lying_sync`]: bytes written since the last flush that worked.
static UNSYNCED: Mutex<Vec<(std::fs::File, u64, usize)>> = Mutex::new(Vec::new());
static IS_LYING: AtomicBool = AtomicBool::new(false);

fn lying_write(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    UNSYNCED.lock().unwrap().push((file.try_clone()?, at, bytes.len()));
    disk::write_all_at(file, bytes, at)
}

/// Fails while told to, and forgets that there was anything to write: what was written stays readable and never gets to
/// the disk.
fn lying_sync(file: &File) -> std::io::Result<()> {
    if IS_LYING.load(Ordering::SeqCst) {
        return Err(std::io::Error::other("EIO"));
    }
    UNSYNCED.lock().unwrap().clear();
    file.sync_data()
}

#[test]
fn what_the_page_cache_alone_has_is_written_again_before_anybody_is_told_that_it_is_stored() {
    let directory = scratch();
    let (events, watch) = watched();
    let calls = disk::Calls { sync: lying_sync, write: lying_write, ..disk::Calls::REAL };
    let log = OfflineLog::open_with(directory.path(), small(), watch, calls).unwrap();
    let lost = block_on(async {
        append(&log, 1..4).await;
        IS_LYING.store(true, Ordering::SeqCst);
        assert!(log.append(BOB, (4..7).map(parcel).collect()).await.is_err());
        std::mem::take(&mut *UNSYNCED.lock().unwrap())
    });
    IS_LYING.store(false, Ordering::SeqCst);
    assert_eq!(reopened_event(&events).rewritten, 3);
    block_on(async {
        let answers = log.append(BOB, (4..7).map(parcel).collect()).await.unwrap();
        assert!(answers.iter().all(|answer| matches!(answer, Appended::Already(_, Level::Stored))), "{answers:?}");
    });
    // The power goes: what never got to the disk is not there any more.
    for (file, at, len) in lost {
        disk::write_all_at(&file, &vec![0; len], at).unwrap();
    }
    drop(log);
    assert_eq!(check(directory.path()).unwrap().verdict, Verdict::Closed);
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    assert_eq!(numbers(&block_on(waiting(&log))), [1, 2, 3, 4, 5, 6]);
    assert_eq!(log.recovery().damage, [], "nothing is lost");
}

#[test]
fn a_last_batch_that_only_a_process_saw_is_no_damage_once_the_next_start_has_written_it_again() {
    // Killed between write and flush: the next start finds the batch in the page cache, writes it again, and the power goes.
    for rounds in 1..3 {
        let (bytes, starts) = three_batches();
        let mut directory = scratch();
        std::fs::write(disk::segment_path(directory.path(), 1), &bytes).unwrap();
        for _ in 0..rounds {
            let log = OfflineLog::open(directory.path(), small()).unwrap();
            let copy = crash_copy(directory.path());
            drop(log);
            directory = copy;
        }
        for lost in [starts[3]..bytes.len(), starts[3]..starts[4], starts[4]..bytes.len(), starts[5]..bytes.len()] {
            let mut after = bytes.clone();
            after[lost].fill(0);
            std::fs::write(disk::segment_path(directory.path(), 1), after).unwrap();
            let report = check(directory.path()).unwrap();
            assert_eq!(report.verdict, Verdict::Unclosed, "{report}");
            let log = OfflineLog::open(directory.path(), small()).unwrap();
            assert_eq!(numbers(&block_on(waiting(&log))), [1, 2, 3, 4, 5, 6]);
            assert_eq!(log.recovery().damage, []);
            directory = crash_copy(directory.path());
        }
    }
}

/// A log that was not closed: three batches, the last one of three parcels.
fn unclosed() -> tempfile::TempDir {
    let (bytes, _) = three_batches();
    let directory = scratch();
    std::fs::write(disk::segment_path(directory.path(), 1), bytes).unwrap();
    directory
}

#[test]
fn a_start_after_a_crash_writes_the_last_batch_again_once() {
    let mut directory = unclosed();
    for (start, rewritten) in [(1, 3), (2, 0), (3, 0)] {
        let log = OfflineLog::open(directory.path(), small()).unwrap();
        assert_eq!(log.recovery().rewritten, rewritten, "start {start}");
        assert_eq!(numbers(&block_on(waiting(&log))), [1, 2, 3, 4, 5, 6], "start {start}");
        assert_eq!(records(&disk::segment_path(directory.path(), 2)).len(), 3, "start {start}");
        directory = crash_copy(directory.path());
    }
}

#[test]
fn damage_in_what_a_start_wrote_again_is_damage_and_costs_one_parcel() {
    let directory = unclosed();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    let bytes = std::fs::read(disk::segment_path(directory.path(), 2)).unwrap();
    drop(log);
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let frames = records(&disk::segment_path(directory.path(), 2)).len() - 1;
    assert_eq!(frames, 3);
    let frame_len = (used + 1 - HEADER_LEN) as u64 / 3;
    for at in HEADER_LEN..HEADER_LEN + 2 * frame_len as usize {
        let damaged_log = unclosed();
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(disk::segment_path(damaged_log.path(), 2), &damaged).unwrap();
        let log = OfflineLog::open(damaged_log.path(), small()).unwrap();
        assert_eq!((log.recovery().damage.len(), log.recovery().torn_bytes), (1, 0), "byte {at}");
        let lost = 4 + (at - HEADER_LEN) as u64 / frame_len;
        let expected: Vec<_> = (1..7).filter(|number| *number != lost).collect();
        assert_eq!(numbers(&block_on(waiting(&log))), expected, "byte {at}");
    }
}

static IS_FULL: AtomicBool = AtomicBool::new(false);

fn full_write(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    if IS_FULL.load(Ordering::SeqCst) {
        return Err(std::io::ErrorKind::StorageFull.into());
    }
    disk::write_all_at(file, bytes, at)
}

#[test]
fn on_a_full_disk_a_start_works_and_calls_nothing_stored_that_is_in_doubt() {
    let directory = unclosed();
    IS_FULL.store(true, Ordering::SeqCst);
    let (events, watch) = watched();
    let calls = disk::Calls { write: full_write, ..disk::Calls::REAL };
    let log = OfflineLog::open_with(directory.path(), small(), watch, calls).unwrap();
    assert!(matches!(events.try_recv(), Ok(Event::Full(_))));
    block_on(async {
        assert_eq!(numbers(&waiting(&log).await), [1, 2, 3], "what is certain can be read");
        let again = log.append(BOB, vec![parcel(5)]).await;
        assert!(matches!(again, Err(StoreError::Full(_))), "{again:?}");
        assert_eq!(log.level(BOB, id(&parcel(5))).await.unwrap(), None);
        IS_FULL.store(false, Ordering::SeqCst);
        let again = log.append(BOB, vec![parcel(5)]).await.unwrap();
        assert_eq!(again, [Appended::Already(Place(5), Level::Stored)]);
        assert_eq!(numbers(&waiting(&log).await), [1, 2, 3, 4, 5, 6]);
    });
}

static PANICS: AtomicBool = AtomicBool::new(false);

fn panicking_sync(file: &File) -> std::io::Result<()> {
    assert!(!PANICS.swap(false, Ordering::SeqCst), "planted");
    file.sync_data()
}

#[test]
fn a_panic_of_the_thread_that_writes_is_survived() {
    let directory = scratch();
    let (events, watch) = watched();
    let calls = disk::Calls { sync: panicking_sync, ..disk::Calls::REAL };
    let log = OfflineLog::open_with(directory.path(), small(), watch, calls).unwrap();
    block_on(append(&log, 1..4));
    PANICS.store(true, Ordering::SeqCst);
    let failed = block_on(log.append(BOB, vec![parcel(4)]));
    assert!(matches!(failed, Err(StoreError::Stopped(_))), "{failed:?}");
    reopened_event(&events);
    block_on(append(&log, 5..6));
    let found = numbers(&block_on(waiting(&log)));
    assert_eq!((&found[..3], found.last()), (&[1, 2, 3][..], Some(&5)));
}

#[test]
fn a_log_whose_files_are_gone_when_it_wants_to_go_on_stays_stopped() {
    let directory = scratch();
    let (events, watch) = watched();
    let log_directory = directory.path().join("log");
    let calls = disk::Calls { sync: sync_of_the_gone, ..disk::Calls::REAL };
    let log = OfflineLog::open_with(&log_directory, small(), watch, calls).unwrap();
    block_on(append(&log, 1..4));
    let segment = disk::segment_path(&log_directory, 1);
    let moved = directory.path().join("moved");
    std::fs::rename(&segment, &moved).unwrap();
    GONE.store(true, Ordering::SeqCst);
    assert!(block_on(log.append(BOB, vec![parcel(4)])).is_err());
    let still = events.iter().find_map(|event| match event {
        Event::StillStopped(error, _) => Some(error),
        _ => None,
    });
    assert!(matches!(&still, Some(OpenError::Foreign { path, .. }) if *path == segment), "{still:?}");
    assert!(block_on(log.summary(BOB)).is_err(), "an empty log in its place would be a loss nobody hears of");
    std::fs::rename(&moved, &segment).unwrap();
    reopened_event(&events);
    assert_eq!(numbers(&block_on(waiting(&log)))[..3], [1, 2, 3]);
}

static GONE: AtomicBool = AtomicBool::new(false);

fn sync_of_the_gone(file: &File) -> std::io::Result<()> {
    if GONE.swap(false, Ordering::SeqCst) { Err(std::io::Error::other("EIO")) } else { file.sync_data() }
}

/// Whether the disk does nothing.
static STUCK: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

fn set_stuck(is_stuck: bool) {
    *STUCK.0.lock().unwrap() = is_stuck;
    STUCK.1.notify_all();
}

fn stuck_sync(file: &File) -> std::io::Result<()> {
    let _moves = STUCK.1.wait_while(STUCK.0.lock().unwrap(), |is_stuck| *is_stuck).unwrap();
    file.sync_data()
}

#[test]
fn while_the_disk_does_nothing_so_many_calls_wait_and_no_more() {
    let directory = scratch();
    let calls = disk::Calls { sync: stuck_sync, ..disk::Calls::REAL };
    let quotas = Quotas { messages: 100_000, bytes: 100_000_000, messages_per_sender: 100_000 };
    let log = OfflineLog::open_with(directory.path(), Options { quotas, ..small() }, Box::new(|_| {}), calls).unwrap();
    let log = Arc::new(log);
    block_on(async {
        append(&log, 1..2).await;
        set_stuck(true);
        let mut refused = 0;
        let mut waiting = Vec::new();
        for number in 2..20_002 {
            let mut call = Box::pin(log.append(BOB, vec![parcel(number)]));
            // Once: that hands it over, or is told at once that too many wait.
            match std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context))).await {
                std::task::Poll::Pending => waiting.push(call),
                std::task::Poll::Ready(answer) => {
                    assert!(matches!(answer, Err(StoreError::Busy(_))), "{answer:?}");
                    refused += 1;
                }
            }
        }
        set_stuck(false);
        // Those in the queue, and one batch that the thread had taken before it stuck.
        assert!(waiting.len() >= JOBS_MAX && refused > 0, "{} wait, {refused} refused", waiting.len());
        assert_eq!(waiting.len() + refused, 20_000);
        for call in waiting {
            assert!(matches!(call.await.unwrap()[..], [Appended::Stored(_)]));
        }
    });
}
