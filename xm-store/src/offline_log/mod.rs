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
//! | `LOCK` | the newest segment's number; locked by the process that has the log open |
//! | `0000000000000001.seg` … | segments: records with checksums, see `format.rs` |
//! | `quarantine/` | copies of damaged parts, for whoever looks into it |
//! | `unfinished` | a segment in the making; deleted at start |
//!
//! [`check`] says what a log is worth, [`repair`] makes a damaged one whole, [`copy`] copies one that is in use.
//!
//! # What survives what
//!
//! What [`append`](crate::Offline::append) answered with `Stored` survives a crash of the process and a power cut, as
//! long as the disk survives. Levels follow within 200 ms, one record for each run of places, which is all a client costs
//! that confirms what it got in order: a crash before that brings a message back that was confirmed, and the recipient's
//! device knows it by its id.
//!
//! A flush that fails stops the log: calls are errors until it has read the disk again, which it does by itself, with
//! growing pauses. After that, and after every start that follows no clean stop, the last batch is written once more and
//! flushed before anything in it counts as stored: the page cache may show what the disk never got.
//!
//! A full disk refuses appends and nothing else, and ends by itself.
//!
//! The index, some 340 bytes per waiting message, is in memory; it is rebuilt at each start by reading the segments once.
//! The log takes about twice the room of what waits, and three segments.

mod check;
mod committer;
mod compact;
mod copy;
mod disk;
mod events;
mod format;
mod index;
mod recover;
mod reopen;
mod repair;
mod segments;
mod shared;
mod spare;
mod sums;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::oneshot;
use xmmep::types::{UserId, WallTime};

pub use check::{Loss, Other, Report, SegmentReport, Verdict, check};
use committer::{Committer, Job, Reply, Watch};
pub use copy::{Copied, copy};
use disk::Lock;
pub use events::{Counters, Event, SLOW_EVERY, SLOW_FLUSH};
pub use recover::{Damage, Recovery};
pub use repair::{Repaired, repair};
use shared::Shared;

use crate::error::{OpenError, StoreError};
use crate::offline::{Appended, Erased, Expired, Offline};
use crate::records::{Level, Parcel, ParcelId, Place, Quotas, Summary};

/// Calls that wait for the thread. At 12 KiB each this is 48 MiB; more than a second of a slow disk's work.
const JOBS_MAX: usize = 4_096;

/// How the log works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How much may wait for one recipient.
    pub quotas: Quotas,
    /// Bytes of a segment, taken from the disk when the one before is half full. Default 8 MiB: small enough to make at each
    /// start, large enough that the making is rare.
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
    _lock: Arc<Lock>,
}

impl OfflineLog {
    /// Opens the log in `directory`, or makes it.
    ///
    /// Reads everything that is there; blocks for as long as that takes.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage is no error: see [`recovery`](Self::recovery).
    pub fn open(directory: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_watched(directory, options, |_| {})
    }

    /// The same; `watch` hears of everything an operator should know while the log is open. It is called by the thread
    /// that opens and then by the one that writes, which wait for it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_watched(
        directory: &Path,
        options: Options,
        watch: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, OpenError> {
        Self::open_with(directory, options, Box::new(watch), disk::Calls::REAL)
    }

    fn open_with(directory: &Path, options: Options, watch: Watch, calls: disk::Calls) -> Result<Self, OpenError> {
        let unreachable = |error| disk::unreachable(directory, &error);
        disk::private_directory(directory).map_err(unreachable)?;
        let lock = Arc::new(Lock::take(directory)?);
        let shared = Arc::new(Shared::default());
        let mut committer = Committer::new(directory, options, calls, shared.clone(), lock.clone(), watch);
        let recovery = committer.read()?;
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let thread = std::thread::Builder::new().name("offline-log".into()).spawn(move || committer.run(&queue));
        let thread = Some(thread.map_err(unreachable)?);
        Ok(Self { shared, jobs: Some(jobs), thread, recovery, _lock: lock })
    }

    /// What the start found. Damage is worth an alarm.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// What it has done since.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.counting.read()
    }

    /// Hands a job to the thread and waits for its answer.
    async fn call<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        self.shared.check_running()?;
        let (reply, answer) = oneshot::channel();
        let gone = || StoreError::Stopped("the thread that writes has ended".into());
        let Some(jobs) = &self.jobs else { return Err(gone()) };
        jobs.try_send(job(reply)).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy("too many calls wait for the disk".into()),
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
            let locations = self.shared.running()?.page(to, after, messages_max, bytes_max);
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
        Ok(self.shared.running()?.summary(to))
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
        Ok(self.shared.running()?.level(to, parcel))
    }

    async fn expire(&self, before: WallTime, now: WallTime, max: usize) -> Result<Vec<Expired>, StoreError> {
        self.call(|reply| Job::Expire { before, now, max, reply }).await
    }

    async fn forget(&self, now: WallTime) -> Result<(), StoreError> {
        self.call(|reply| Job::Forget { now, reply }).await
    }

    async fn sent_by(
        &self,
        from: UserId,
        after: Option<(UserId, Place)>,
        messages_max: usize,
    ) -> Result<Vec<(UserId, Place, Parcel)>, StoreError> {
        let mut after = after;
        loop {
            let locations = self.shared.running()?.sent_by(from, after, messages_max);
            let Some((to, last, _)) = locations.last().copied() else { return Ok(Vec::new()) };
            let shared = self.shared.clone();
            let read = move || {
                let one = |&(to, place, at): &(UserId, Place, _)| {
                    shared.read(to, &[(place, at)]).pop().map(|(place, parcel)| (to, place, parcel))
                };
                locations.iter().filter_map(one).collect::<Vec<_>>()
            };
            let parcels = tokio::task::spawn_blocking(read).await;
            let parcels = parcels.map_err(|error| StoreError::Unavailable(error.to_string()))?;
            // If none of them could be read, there may still be some behind them.
            if !parcels.is_empty() {
                return Ok(parcels);
            }
            after = Some((to, last));
        }
    }

    /// Settles what waits, then rewrites the log until no segment holds a body to or from `user`, also of messages settled
    /// long ago.
    ///
    /// Reads the whole log once and may rewrite all of it; appends wait for that. The blocks that held the bodies are
    /// given back to the file system, not overwritten. After an error, call it again. [`StoreError::Corrupt`] if a segment
    /// that has to go holds a waiting message nobody can read.
    async fn erase(&self, user: UserId, at: WallTime) -> Result<Erased, StoreError> {
        self.call(|reply| Job::Erase { user, at, reply }).await
    }
}
