//! What an operator should hear of the log, and its counters. Who logs them is for the caller to decide.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::recover::Recovery;
use crate::error::{OpenError, StoreError};

/// A flush that takes this long is worth a word: people wait for it. At most one such word in [`SLOW_EVERY`].
pub const SLOW_FLUSH: Duration = Duration::from_millis(500);
/// See [`SLOW_FLUSH`].
pub const SLOW_EVERY: Duration = Duration::from_secs(60);

/// Something an operator should hear of. The text of each is one line for a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The disk failed. Every call is an error until the log has read the disk again, which it tries by itself.
    Stopped(StoreError),
    /// Reading the disk again did not work; the next try follows after this time.
    StillStopped(OpenError, Duration),
    /// The log has read the disk again and works. What was answered with `Stored` before is there, unless `damage` says
    /// otherwise.
    Reopened(Recovery),
    /// A flush took this long; the longest of the last minute, if it was one of many.
    SlowFlush(Duration),
    /// Space has run out, and appends are refused. Told once, until one has worked again.
    Full(StoreError),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(error) => write!(f, "{error}"),
            Self::StillStopped(error, again_in) => write!(f, "{error}; next try in {} ms", again_in.as_millis()),
            Self::Reopened(found) => {
                write!(f, "opened again: {} parcels wait, {} torn bytes", found.waiting, found.torn_bytes)?;
                write!(f, ", {} damaged parts", found.damage.len())
            }
            Self::SlowFlush(took) => write!(f, "a flush took {} ms", took.as_millis()),
            Self::Full(error) => write!(f, "{error}; messages for those away are refused"),
        }
    }
}

/// What the log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Batches written and flushed.
    pub batches: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The longest flush, in microseconds.
    pub flush_us_max: u64,
    /// Writes refused for want of space.
    pub full: u64,
    /// How often the disk failed and the log stopped.
    pub stops: u64,
    /// How often it came back from that.
    pub reopens: u64,
    /// How often a parcel was left out of a page because it could not be read. More than 0 is worth an alarm.
    pub unreadable: u64,
}

/// The same, as it is being counted.
#[derive(Debug, Default)]
pub(super) struct Counting {
    pub(super) batches: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) flush_us_max: AtomicU64,
    pub(super) full: AtomicU64,
    pub(super) stops: AtomicU64,
    pub(super) reopens: AtomicU64,
    pub(super) unreadable: AtomicU64,
}

impl Counting {
    pub(super) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            batches: read(&self.batches),
            bytes: read(&self.bytes),
            flush_us_max: read(&self.flush_us_max),
            full: read(&self.full),
            stops: read(&self.stops),
            reopens: read(&self.reopens),
            unreadable: read(&self.unreadable),
        }
    }
}
