//! Argon2id for the form's password: the only place where the server runs it, and never more than a few at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// Forms that may wait for a turn. 64 × 15 ms on one core is about a second; the next visitor is told to come back.
const WAITING_MAX: usize = 64;

/// Runs jobs that take milliseconds of a core and 19 MiB each, off the event loop.
pub(super) struct Hashing {
    places: Arc<Semaphore>,
    running: Semaphore,
}

impl Hashing {
    /// As many at a time as half the cores, so that chat keeps the others.
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::with(WAITING_MAX, (cores / 2).max(1))
    }

    fn with(waiting: usize, running: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(waiting)), running: Semaphore::new(running) }
    }

    /// Runs `job`; `None` if too many wait already, or if it panicked.
    pub(super) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let place = self.places.clone().try_acquire_owned().ok()?;
        let turn = self.running.acquire().await.ok()?;
        // The place moves into the job: a visitor who goes away does not make room before the work is done.
        let done = tokio::task::spawn_blocking(move || {
            let result = job();
            drop(place);
            result
        });
        let result = done.await.ok();
        drop(turn);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_job_too_many_is_turned_away_and_the_others_run() {
        let hashing = Arc::new(Hashing::with(1, 1));
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let busy = hashing.clone();
        let first = tokio::spawn(async move {
            busy.run(move || {
                let _ = started.send(());
                released.recv().is_ok()
            })
            .await
        });
        has_started.await.unwrap();
        assert_eq!(hashing.run(|| 2).await, None);
        release.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Some(true));
        assert_eq!(hashing.run(|| 3).await, Some(3));
    }
}
