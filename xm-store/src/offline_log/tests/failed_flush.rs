//! A flush that fails is never tried again: until the log has read the disk anew, nothing is written, flushed or deleted,
//! because the next flush of the same file would work and hide what the disk lacks.

use std::pin::Pin;
use std::sync::mpsc::Receiver;
use std::sync::{Condvar, Mutex};
use std::task::{Context, Waker};

use super::*;

/// A disk, seen from its calls.
struct Disk {
    /// Whether flushes wait, and whether one does.
    is_stuck: bool,
    is_waiting: bool,
    /// Flushes that work before one fails.
    flushes_left: Option<usize>,
    /// Whether the first flush in the next segment fails.
    fails_in_new_segment: bool,
    has_failed: bool,
    removed: usize,
    /// Calls since the failure.
    after: Vec<&'static str>,
}

/// One for each test: they run side by side.
static DISKS: [(Mutex<Disk>, Condvar); 2] = [const { (Mutex::new(Disk::NEW), Condvar::new()) }; 2];

impl Disk {
    const NEW: Self = Self {
        is_stuck: false,
        is_waiting: false,
        flushes_left: None,
        fails_in_new_segment: false,
        has_failed: false,
        removed: 0,
        after: Vec::new(),
    };

    fn note(&mut self, call: &'static str) {
        if self.has_failed {
            self.after.push(call);
        }
    }
}

fn with<const N: usize, T>(change: impl FnOnce(&mut Disk) -> T) -> T {
    let changed = change(&mut DISKS[N].0.lock().unwrap());
    DISKS[N].1.notify_all();
    changed
}

fn sync<const N: usize>(file: &File) -> std::io::Result<()> {
    with::<N, _>(|disk| disk.is_waiting = true);
    let mut disk = DISKS[N].1.wait_while(DISKS[N].0.lock().unwrap(), |disk| disk.is_stuck).unwrap();
    disk.is_waiting = false;
    disk.note("sync");
    if disk.flushes_left == Some(0) {
        (disk.flushes_left, disk.has_failed) = (None, true);
        return Err(std::io::Error::other("EIO"));
    }
    disk.flushes_left = disk.flushes_left.map(|left| left - 1);
    file.sync_data()
}

fn calls<const N: usize>() -> disk::Calls {
    disk::Calls {
        write: |file, bytes, at| {
            with::<N, _>(|disk| disk.note("write"));
            disk::write_all_at(file, bytes, at)
        },
        sync: sync::<N>,
        rename: |from, to| {
            with::<N, _>(|disk| {
                if std::mem::take(&mut disk.fails_in_new_segment) {
                    disk.flushes_left = Some(0);
                }
            });
            std::fs::rename(from, to)
        },
        remove: |path| {
            with::<N, _>(|disk| {
                disk.removed += 1;
                disk.note("remove");
            });
            std::fs::remove_file(path)
        },
        ..disk::Calls::REAL
    }
}

/// A log on such a disk, and the calls between the failure and the moment the log says that it has stopped.
fn opened<const N: usize>(directory: &Path) -> (OfflineLog, Receiver<Vec<&'static str>>) {
    let (tell, after) = std::sync::mpsc::channel();
    let watch = move |event| {
        if let Event::Stopped(_) = event {
            // What the log does to read the disk again is no retry.
            with::<N, _>(|disk| disk.has_failed = false);
            drop(tell.send(with::<N, _>(|disk| std::mem::take(&mut disk.after))));
        }
    };
    let options = Options { segment_bytes: 3_000, ..Options::default() };
    (OfflineLog::open_with(directory, options, Box::new(watch), calls::<N>()).unwrap(), after)
}

const NONE: [&str; 0] = [];

fn large(number: u64) -> Parcel {
    Parcel { body: vec![number as u8; 900], ..parcel(number) }
}

async fn append_and_settle(log: &OfflineLog, number: u64) -> Result<(), StoreError> {
    log.append(BOB, vec![large(number)]).await?;
    log.settle(BOB, &[id(&parcel(number))], Level::Received, WallTime(number)).await.map(drop)
}

#[test]
fn after_a_failed_flush_in_a_new_segment_the_old_ones_are_not_compacted() {
    let directory = scratch();
    let (log, after) = opened::<0>(directory.path());
    block_on(async {
        append(&log, 1..2).await;
        for number in 2..100 {
            append_and_settle(&log, number).await.unwrap();
        }
        assert!(with::<0, _>(|disk| disk.removed) > 20, "by now each new segment moves and deletes an old one");
        with::<0, _>(|disk| disk.fails_in_new_segment = true);
        let mut number = 100;
        let failed = loop {
            match append_and_settle(&log, number).await {
                Ok(()) => number += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(failed, StoreError::Stopped(_)), "{failed:?}");
        assert!(number < 110, "a segment holds three");
    });
    assert_eq!(after.recv().unwrap(), NONE);
}

type Call<'a> = Pin<Box<dyn Future<Output = Result<(), StoreError>> + 'a>>;

/// A call that the thread has, or will find in the queue.
fn queued<'a, T>(call: impl Future<Output = Result<T, StoreError>> + 'a) -> Call<'a> {
    let mut call: Call<'_> = Box::pin(async { call.await.map(drop) });
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    call
}

#[test]
fn what_waits_behind_an_append_whose_flush_fails_is_refused_with_it() {
    let confirmed = [id(&parcel(1))];
    for behind in ["forget", "forget what was just confirmed", "erase"] {
        let directory = scratch();
        let (log, after) = opened::<1>(directory.path());
        block_on(append(&log, 1..2));
        with::<1, _>(|disk| disk.is_stuck = true);
        let first = queued(log.append(BOB, vec![parcel(2)]));
        // The thread has taken it and waits for its flush: all that comes now is met together.
        drop(DISKS[1].1.wait_while(DISKS[1].0.lock().unwrap(), |disk| !disk.is_waiting).unwrap());
        let mut confirming = None;
        if behind == "forget what was just confirmed" {
            confirming = Some(queued(log.settle(BOB, &confirmed, Level::Received, WallTime(9))));
        }
        let second = queued(log.append(BOB, vec![parcel(3)]));
        let housekeeping =
            if behind == "erase" { queued(log.erase(BOB, WallTime(9))) } else { queued(log.forget(WallTime(9))) };
        let third = queued(log.append(BOB, vec![parcel(4)]));
        with::<1, _>(|disk| (disk.is_stuck, disk.flushes_left) = (false, Some(1)));
        block_on(async {
            first.await.unwrap();
            if let Some(confirming) = confirming {
                confirming.await.unwrap();
            }
            for (call, what) in [(second, "append"), (housekeeping, behind), (third, "append after it")] {
                let answer = call.await;
                assert!(matches!(answer, Err(StoreError::Stopped(_))), "{what}: {answer:?}");
            }
        });
        assert_eq!(after.recv().unwrap(), NONE, "{behind}");
    }
}
