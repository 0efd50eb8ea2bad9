//! How the database is: well, away, or stopped by its disk. Kept so that nobody waits for what is known not to answer. And
//! what it did, counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::StoreError;

/// After a failure calls are refused at once for this long; then one finds out how things are.
const AWAY_FOR: Duration = Duration::from_secs(1);

/// What a database has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Changes that were committed.
    pub changes: u64,
    /// Commits they took. Far fewer than changes under load: each is a flush to disk.
    pub commits: u64,
    /// Calls turned down because too many waited, or waited too long; reads that share a statement may count as one.
    pub busy: u64,
    /// Times the database did not answer.
    pub outages: u64,
    /// Rows left out because no version of this code wrote them. More than 0 is worth an alarm.
    pub unreadable: u64,
}

/// What calls found out about a database.
#[derive(Debug, Default)]
pub(super) struct Health {
    changes: AtomicU64,
    commits: AtomicU64,
    busy: AtomicU64,
    outages: AtomicU64,
    unreadable: AtomicU64,
    away: Mutex<Option<(Instant, String)>>,
    stopped: Mutex<Option<String>>,
}

impl Health {
    /// Whether a call makes sense now.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if let Some(why) = &*held(&self.stopped) {
            return Err(StoreError::Stopped(why.clone()));
        }
        match &*held(&self.away) {
            Some((since, why)) if since.elapsed() < AWAY_FOR => Err(StoreError::Unavailable(why.clone())),
            _ => Ok(()),
        }
    }

    /// Whether calls are refused now because of a failure.
    pub(super) fn is_away(&self) -> bool {
        self.check().is_err()
    }

    pub(super) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            changes: read(&self.changes),
            commits: read(&self.commits),
            busy: read(&self.busy),
            outages: read(&self.outages),
            unreadable: read(&self.unreadable),
        }
    }

    /// So many changes were committed at once.
    pub(super) fn committed(&self, changes: usize) {
        self.changes.fetch_add(changes as u64, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// So many changes were turned down unmade.
    pub(super) fn turned_down(&self, changes: usize) {
        self.busy.fetch_add(changes as u64, Ordering::Relaxed);
    }

    /// Takes what can be read of rows that must not stop each other; what cannot be is left out and counted.
    pub(super) fn readable<T>(&self, rows: impl Iterator<Item = Result<T, StoreError>>) -> Vec<T> {
        let mut found = Vec::new();
        for row in rows {
            match row {
                Ok(row) => found.push(row),
                Err(_) => {
                    self.unreadable.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        found
    }

    /// A call is turned down unmade, because too many wait or it has waited too long.
    pub(super) fn busy(&self, why: &str) -> StoreError {
        self.turned_down(1);
        StoreError::Busy(why.into())
    }

    /// The database did not answer.
    pub(super) fn away(&self, why: &str) {
        self.outages.fetch_add(1, Ordering::Relaxed);
        *held(&self.away) = Some((Instant::now(), why.to_owned()));
    }

    /// The database answered.
    pub(super) fn well(&self) {
        *held(&self.away) = None;
    }

    /// The disk failed under the database. Only the first failure counts; those after it follow from it.
    pub(super) fn stop(&self, why: &str) {
        held(&self.stopped).get_or_insert_with(|| why.to_owned());
    }

    pub(super) fn is_stopped(&self) -> bool {
        held(&self.stopped).is_some()
    }

    /// It was opened anew, and what the disk has was read.
    pub(super) fn reopened(&self) {
        *held(&self.stopped) = None;
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
