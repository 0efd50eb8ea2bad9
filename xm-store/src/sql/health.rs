//! How the database is: well, away, or stopped for good. Kept so that nobody waits for what is known not to answer.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::StoreError;

/// After a failure calls are refused at once for this long; then one finds out how things are.
const AWAY_FOR: Duration = Duration::from_secs(1);

/// What calls found out about a database.
#[derive(Debug, Default)]
pub(super) struct Health {
    away: Mutex<Option<(Instant, String)>>,
    stopped: OnceLock<String>,
}

impl Health {
    /// Whether a call makes sense now.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if let Some(why) = self.stopped.get() {
            return Err(StoreError::Stopped(why.clone()));
        }
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match &*away {
            Some((since, why)) if since.elapsed() < AWAY_FOR => Err(StoreError::Unavailable(why.clone())),
            _ => Ok(()),
        }
    }

    /// Whether calls are refused now because of a failure.
    pub(super) fn is_away(&self) -> bool {
        self.check().is_err()
    }

    /// The database did not answer.
    pub(super) fn away(&self, why: &str) {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), why.to_owned()));
    }

    /// The database answered.
    pub(super) fn well(&self) {
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The disk failed under the database. Only the first failure counts; those after it follow from it.
    pub(super) fn stop(&self, why: &str) {
        let _ = self.stopped.set(why.to_owned());
    }
}
