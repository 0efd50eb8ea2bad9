//! Offline messages on local disk: an append-only log in segments, one flush for all who wait.
//!
//! ```text
//! append ─┐                                    ┌─► answers
//! append ─┼─► queue ─► committer: one write, one flush
//! settle ─┘            (a thread)              └─► index: place, level, where it lies ─► page
//! ```
//!
//! # On disk
//!
//! | file | holds |
//! |---|---|
//! | `LOCK` | nothing; locked by the process that has the log open |
//! | `0000000000000001.seg` … | segments: records with checksums, see `format.rs` |
//! | `quarantine/` | copies of damaged parts, for whoever looks into it |
//! | `unfinished` | a segment in the making; deleted at start |
//!
//! # What survives what
//!
//! What [`append`](crate::Offline::append) answered with `Stored` survives a crash of the process and a power cut, as
//! long as the disk survives. Levels follow within 200 ms: a crash before that brings a message back that was confirmed,
//! and the recipient's device knows it by its id. A flush that fails stops the log: every later call is an error until
//! it is opened again. A full disk refuses appends and nothing else, and ends by itself.
//!
//! The index, some 200 bytes per waiting message, is in memory; it is rebuilt at each start by reading the segments once.
//! The log takes about twice the room of what waits, and two segments.

mod committer;
mod disk;
mod format;
mod index;
mod recover;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::oneshot;
use xmmep::types::{UserId, WallTime};

use committer::{Committer, Job, Reply};
use index::{Index, Location};
pub use recover::{Damage, Recovery};

use crate::error::{OpenError, StoreError};
use crate::offline::{Appended, Expired, Offline};
use crate::records::{Level, Parcel, ParcelId, Place, Quotas, Summary};

/// Calls that wait for the thread. At 12 KiB each this is 48 MiB; more than a second of a slow disk's work.
const JOBS_MAX: usize = 4_096;

/// How the log works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How much may wait for one recipient.
    pub quotas: Quotas,
    /// Bytes of a segment, taken from the disk when it is made. Default 8 MiB: small enough to make at each start,
    /// large enough that the making, with its two flushes, is rare.
    pub segment_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { quotas: Quotas::default(), segment_bytes: 8 * 1024 * 1024 }
    }
}

/// [`Offline`] on local disk. Dropping it flushes what is left and waits for that.
#[derive(Debug)]
pub struct OfflineLog {
    shared: Arc<Shared>,
    /// Gone while being dropped.
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    recovery: Recovery,
    /// Locked for as long as the log is open. The last field: unlocked after the thread has ended.
    _lock: File,
}

/// What callers and the thread both see.
#[derive(Debug)]
struct Shared {
    index: Mutex<Index>,
    /// Segments to read from, by number.
    files: RwLock<Files>,
    /// Why the log has stopped, if it has.
    stopped: OnceLock<StoreError>,
    /// Parcels left out of pages because they could not be read.
    unreadable: std::sync::atomic::AtomicU64,
}

type Files = std::collections::BTreeMap<u64, Arc<File>>;

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn files(&self) -> std::sync::RwLockWriteGuard<'_, Files> {
        self.files.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn check_running(&self) -> Result<(), StoreError> {
        self.stopped.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn stop(&self, error: &StoreError) {
        // Only the first failure counts; those after it follow from it.
        let _ = self.stopped.set(error.clone());
    }
}

impl Shared {
    /// Reads what waits for `to` at these locations.
    fn read(&self, to: UserId, page: &[(Place, Location)]) -> Vec<(Place, Parcel)> {
        let mut parcels = Vec::with_capacity(page.len());
        for (place, location) in page {
            let mut at = *location;
            loop {
                if let Some(parcel) = self.read_one(*place, at) {
                    parcels.push((*place, parcel));
                    break;
                }
                match self.index().location(to, *place) {
                    // A compaction has moved it since.
                    Some(now) if now != at => at = now,
                    Some(_) => {
                        self.unreadable.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        break;
                    }
                    // It has been settled since.
                    None => break,
                }
            }
        }
        parcels
    }

    fn read_one(&self, place: Place, at: Location) -> Option<Parcel> {
        let file = self.files.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&at.segment).cloned()?;
        committer::parcel_in(&committer::read_frame(&file, at)?, place)
    }
}

impl OfflineLog {
    /// Opens the log in `directory`, or makes it.
    ///
    /// Reads everything that is there; blocks for as long as that takes.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage is no error: see [`recovery`](Self::recovery).
    pub fn open(directory: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_with(directory, options, disk::Calls::REAL)
    }

    fn open_with(directory: &Path, options: Options, calls: disk::Calls) -> Result<Self, OpenError> {
        let unreachable =
            |error: std::io::Error| OpenError::Unreachable { path: directory.to_owned(), why: error.to_string() };
        disk::private_directory(directory).map_err(unreachable)?;
        let lock = lock(directory)?;
        let recovered = recover::recover(directory)?;
        let mut recovery = recovered.report;
        recovery.waiting = recovered.index.waiting();
        let files = recovered.segments.iter().map(|segment| (segment.number, segment.file.clone())).collect();
        let shared = Arc::new(Shared {
            index: Mutex::new(recovered.index),
            files: RwLock::new(files),
            stopped: OnceLock::new(),
            unreadable: Default::default(),
        });
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let committer = Committer {
            directory: directory.to_owned(),
            options,
            calls,
            shared: shared.clone(),
            segments: recovered.segments.into(),
            is_open: false,
            stamp: 0,
            batch: recovered.batch,
            unsaved: std::collections::BTreeSet::new(),
            has_grown: false,
        };
        let thread = std::thread::Builder::new().name("offline-log".into()).spawn(move || committer.run(&queue));
        let thread = Some(thread.map_err(unreachable)?);
        Ok(Self { shared, jobs: Some(jobs), thread, recovery, _lock: lock })
    }

    /// What the start found. Damage is worth an alarm.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// How many times a parcel was left out of a page because it could not be read. More than 0 is worth an alarm.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        self.shared.unreadable.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Hands a job to the thread and waits for its answer.
    async fn call<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        self.shared.check_running()?;
        let (reply, answer) = oneshot::channel();
        let gone = || StoreError::Stopped("the thread that writes has ended".into());
        let Some(jobs) = &self.jobs else { return Err(gone()) };
        jobs.try_send(job(reply)).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Unavailable("too many calls wait for the disk".into()),
            TrySendError::Disconnected(_) => gone(),
        })?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for OfflineLog {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell any more, not even that it panicked.
            let _ = thread.join();
        }
    }
}

/// Takes the directory for this process.
fn lock(directory: &Path) -> Result<File, OpenError> {
    let path: PathBuf = directory.join("LOCK");
    let unreachable = |error: std::io::Error| OpenError::Unreachable { path: path.clone(), why: error.to_string() };
    let file = disk::private_file(&path).map_err(unreachable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(unreachable(error)),
    }
}

#[async_trait]
impl Offline for OfflineLog {
    async fn append(&self, to: UserId, parcels: Vec<Parcel>) -> Result<Vec<Appended>, StoreError> {
        self.call(|reply| Job::Append { to, parcels, reply }).await
    }

    async fn page(
        &self,
        to: UserId,
        after: Place,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Place, Parcel)>, StoreError> {
        let mut after = after;
        loop {
            self.shared.check_running()?;
            let locations = self.shared.index().page(to, after, messages_max, bytes_max);
            let Some((last, _)) = locations.last().copied() else { return Ok(Vec::new()) };
            let shared = self.shared.clone();
            let read = tokio::task::spawn_blocking(move || shared.read(to, &locations)).await;
            let parcels = read.map_err(|error| StoreError::Unavailable(error.to_string()))?;
            // If none of them could be read, there may still be some behind them.
            if !parcels.is_empty() {
                return Ok(parcels);
            }
            after = last;
        }
    }

    async fn summary(&self, to: UserId) -> Result<Summary, StoreError> {
        self.shared.check_running()?;
        Ok(self.shared.index().summary(to))
    }

    async fn settle(
        &self,
        to: UserId,
        parcels: &[ParcelId],
        level: Level,
        at: WallTime,
    ) -> Result<Vec<ParcelId>, StoreError> {
        let parcels = parcels.to_vec();
        self.call(|reply| Job::Settle { to, parcels, level, at, reply }).await
    }

    async fn level(&self, to: UserId, parcel: ParcelId) -> Result<Option<Level>, StoreError> {
        self.shared.check_running()?;
        Ok(self.shared.index().level(to, parcel))
    }

    async fn expire(&self, before: WallTime, now: WallTime, max: usize) -> Result<Vec<Expired>, StoreError> {
        self.call(|reply| Job::Expire { before, now, max, reply }).await
    }

    async fn forget(&self, now: WallTime) -> Result<(), StoreError> {
        self.call(|reply| Job::Forget { now, reply }).await
    }
}
