//! Calls of one kind that wait together share a statement: most of what a short one costs is the way to the thread of a
//! connection and back.
//!
//! ```text
//! call ─┐                                        ┌─► answers
//! call ─┼─► queue ─► task: one statement for all ─┤
//! call ─┘                                        └─ one cannot be read? each alone
//! ```
//!
//! Nobody waits for others to come. What gathers while one statement is under way goes with the next, which does not wait
//! long for it: one that reads a lot delays those who share it, and nobody else for long.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, iter};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::connect::WAIT_MAX;
use super::health::Health;
use super::prepared::KEYS_MAX;
use crate::error::StoreError;

/// Calls that wait. The next one is told that the store is busy.
const WAITING_MAX: usize = 1_024;
/// Statements of a kind under way, if they take long.
const UNDER_WAY_MAX: usize = 4;
/// How long the next statement waits for the one under way.
const HOLD_MAX: Duration = Duration::from_millis(5);

/// One kind of call.
pub(super) trait Shared: Send + Sync + 'static {
    /// What is looked for.
    type Key: Eq + Send + Sync + 'static;
    /// What is found.
    type Found: Clone + Send + 'static;

    /// What is found for each of the keys, in their order; at most [`KEYS_MAX`], no two equal.
    ///
    /// # Errors
    /// If what is stored for one of them cannot be read; it is then run for each of them alone.
    fn find(&self, keys: &[&Self::Key]) -> impl Future<Output = Result<Vec<Self::Found>, StoreError>> + Send;
}

/// Where calls of one kind go.
pub(super) struct Together<S: Shared> {
    queue: mpsc::Sender<Call<S>>,
    health: Arc<Health>,
}

struct Call<S: Shared> {
    key: S::Key,
    caller: Caller<S>,
}

struct Caller<S: Shared> {
    reply: oneshot::Sender<Result<S::Found, StoreError>>,
    since: Instant,
}

/// A key, and all who look for it.
struct Wanted<S: Shared> {
    key: S::Key,
    callers: Vec<Caller<S>>,
}

impl<S: Shared> Together<S> {
    /// Starts the task. It ends when this is dropped, after what was waiting.
    pub(super) fn start(kind: S, health: Arc<Health>) -> Self {
        let (queue, calls) = mpsc::channel(WAITING_MAX);
        tokio::spawn(Task { kind: Arc::new(kind), health: health.clone(), queue: calls }.run());
        Self { queue, health }
    }

    /// What is found for `key`.
    pub(super) async fn find(&self, key: S::Key) -> Result<S::Found, StoreError> {
        self.health.check()?;
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Call { key, caller: Caller { reply, since: Instant::now() } }).map_err(
            |error| match error {
                mpsc::error::TrySendError::Full(_) => busy(&self.health),
                mpsc::error::TrySendError::Closed(_) => closed(),
            },
        )?;
        answer.await.unwrap_or_else(|_| Err(given_up()))
    }
}

impl<S: Shared> fmt::Debug for Together<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Together").finish_non_exhaustive()
    }
}

fn busy(health: &Health) -> StoreError {
    health.busy("too many reads wait")
}

fn closed() -> StoreError {
    StoreError::Unavailable("the database is closed".into())
}

/// Of a statement that panicked, or a runtime that ends.
fn given_up() -> StoreError {
    StoreError::Unavailable("the read was given up".into())
}

struct Task<S: Shared> {
    kind: Arc<S>,
    health: Arc<Health>,
    queue: mpsc::Receiver<Call<S>>,
}

impl<S: Shared> Task<S> {
    async fn run(mut self) {
        let turns = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        while let Some(first) = self.queue.recv().await {
            // Never closed. Those who wait meanwhile stay in the queue, whose length is bounded.
            let Ok(turn) = turns.clone().acquire_owned().await else { return };
            // Whoever else is ready to ask does so now. It delays nobody who is alone.
            tokio::task::yield_now().await;
            let wanted = self.gather(first);
            let (kind, health) = (self.kind.clone(), self.health.clone());
            let answered = tokio::spawn(async move {
                answer(&*kind, &health, wanted).await;
                drop(turn);
            });
            let _ = timeout(HOLD_MAX, answered).await;
        }
    }

    /// What those want who go together: all who wait, up to so many.
    fn gather(&mut self, first: Call<S>) -> Vec<Wanted<S>> {
        let mut all: Vec<Wanted<S>> = Vec::new();
        let waiting = iter::once(first).chain(iter::from_fn(|| self.queue.try_recv().ok()));
        for Call { key, caller } in waiting.take(KEYS_MAX) {
            match all.iter_mut().find(|wanted| wanted.key == key) {
                Some(wanted) => wanted.callers.push(caller),
                None => all.push(Wanted { key, callers: vec![caller] }),
            }
        }
        all
    }
}

async fn answer<S: Shared>(kind: &S, health: &Health, mut all: Vec<Wanted<S>>) {
    all.retain_mut(|wanted| wanted.is_waited_for(health));
    if all.is_empty() {
        return;
    }
    let keys: Vec<_> = all.iter().map(|wanted| &wanted.key).collect();
    match kind.find(&keys).await {
        Ok(found) => all.into_iter().zip(found).for_each(|(wanted, found)| wanted.tell(Ok(found))),
        Err(StoreError::Corrupt(_)) if all.len() > 1 => each_alone(kind, health, all).await,
        Err(error) => all.into_iter().for_each(|wanted| wanted.tell(Err(error.clone()))),
    }
}

/// After something that cannot be read.
async fn each_alone<S: Shared>(kind: &S, health: &Health, all: Vec<Wanted<S>>) {
    let mut failed = None;
    for mut wanted in all {
        if !wanted.is_waited_for(health) {
            continue;
        }
        let answer = match &failed {
            // Who comes later would only wait for the same.
            Some(error) => Err(StoreError::clone(error)),
            None => kind.find(&[&wanted.key]).await,
        };
        failed = answer.as_ref().err().filter(|error| !matches!(error, StoreError::Corrupt(_))).cloned();
        wanted.tell(answer.and_then(|found| found.into_iter().next().ok_or_else(given_up)));
    }
}

impl<S: Shared> Wanted<S> {
    /// Whether anybody still waits for it. Those who have waited too long are told so.
    fn is_waited_for(&mut self, health: &Health) -> bool {
        self.callers.retain(|caller| !caller.reply.is_closed());
        for late in self.callers.extract_if(.., |caller| caller.since.elapsed() > WAIT_MAX) {
            late.tell(Err(busy(health)));
        }
        !self.callers.is_empty()
    }

    fn tell(mut self, answer: Result<S::Found, StoreError>) {
        let Some(last) = self.callers.pop() else { return };
        self.callers.into_iter().for_each(|caller| caller.tell(answer.clone()));
        last.tell(answer);
    }
}

impl<S: Shared> Caller<S> {
    fn tell(self, answer: Result<S::Found, StoreError>) {
        // He may have gone.
        let _ = self.reply.send(answer);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::task::{JoinHandle, yield_now};

    use super::*;

    /// What cannot be read.
    const DAMAGED: u64 = 13;
    /// What makes the statement panic.
    const PANICS: u64 = u64::MAX - 1;
    /// What takes the database away, if nothing is damaged.
    const FATAL: u64 = u64::MAX;

    /// Finds ten times the key, once it may.
    struct Tens {
        may: Arc<Semaphore>,
        asked: Arc<Mutex<Vec<Vec<u64>>>>,
        answers: Result<(), StoreError>,
    }

    impl Shared for Tens {
        type Key = u64;
        type Found = u64;

        async fn find(&self, keys: &[&u64]) -> Result<Vec<u64>, StoreError> {
            let keys: Vec<_> = keys.iter().map(|key| **key).collect();
            self.asked.lock().unwrap().push(keys.clone());
            self.may.acquire().await.unwrap().forget();
            self.answers.clone()?;
            if keys.contains(&DAMAGED) {
                return Err(StoreError::Corrupt("bad luck".into()));
            }
            assert!(!keys.contains(&PANICS), "as it was told to");
            if keys.contains(&FATAL) {
                return Err(StoreError::Unavailable("it is away".into()));
            }
            Ok(keys.into_iter().map(|key| key * 10).collect())
        }
    }

    struct Setup {
        tens: Arc<Together<Tens>>,
        may: Arc<Semaphore>,
        asked: Arc<Mutex<Vec<Vec<u64>>>>,
        health: Arc<Health>,
    }

    impl Setup {
        fn new(answers: Result<(), StoreError>) -> Self {
            let (may, asked, health) = (Arc::new(Semaphore::new(0)), Arc::default(), Arc::new(Health::default()));
            let kind = Tens { may: may.clone(), asked: Arc::clone(&asked), answers };
            Self { tens: Arc::new(Together::start(kind, health.clone())), may, asked, health }
        }

        /// Calls, of which the first is under way when the others come.
        async fn calls(&self, keys: impl IntoIterator<Item = u64>) -> Vec<JoinHandle<Result<u64, StoreError>>> {
            let mut calls = Vec::new();
            for key in keys {
                let tens = self.tens.clone();
                calls.push(tokio::spawn(async move { tens.find(key).await }));
                while self.asked.lock().unwrap().is_empty() {
                    yield_now().await;
                }
            }
            yield_now().await;
            calls
        }

        async fn answers(&self, keys: impl IntoIterator<Item = u64>) -> Vec<Result<u64, StoreError>> {
            let calls = self.calls(keys).await;
            self.may.add_permits(Semaphore::MAX_PERMITS / 2);
            let mut answers = Vec::new();
            for call in calls {
                answers.push(call.await.unwrap());
            }
            answers
        }

        fn asked(&self) -> Vec<Vec<u64>> {
            self.asked.lock().unwrap().clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_goes_with_the_next_statement_and_hears_what_is_his() {
        let setup = Setup::new(Ok(()));
        let answers = setup.answers(100..120).await;
        assert_eq!(answers, (100..120).map(|key| Ok(key * 10)).collect::<Vec<_>>());
        let most = KEYS_MAX as u64;
        assert_eq!(setup.asked(), [vec![100], (101..101 + most).collect(), (101 + most..120).collect()]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_looks_for_the_same_shares_the_answer() {
        let setup = Setup::new(Ok(()));
        let answers = setup.answers([1, 2, 3, 2, 4]).await;
        assert_eq!(answers, [Ok(10), Ok(20), Ok(30), Ok(20), Ok(40)]);
        assert_eq!(setup.asked(), [vec![1], vec![2, 3, 4]]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_share_a_statement_because_they_look_for_the_same() {
        let setup = Setup::new(Ok(()));
        let _calls = setup.calls([2; 2 + KEYS_MAX]).await;
        tokio::time::sleep(HOLD_MAX * 100).await;
        assert_eq!(setup.asked(), [[2], [2], [2]], "the first alone, then as many as may, then the last");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_what_is_under_way_has_it_read_anew() {
        let setup = Setup::new(Ok(()));
        let answers = setup.answers([1, 1]).await;
        assert_eq!(answers, [Ok(10), Ok(10)]);
        assert_eq!(setup.asked(), [[1], [1]], "what the first reads may be older than the second call");
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_while_each_is_asked_for_alone_is_not_looked_for() {
        let setup = Setup::new(Ok(()));
        let calls = setup.calls([1, DAMAGED, 2, 3]).await;
        setup.may.add_permits(2);
        while setup.asked().len() < 3 {
            yield_now().await;
        }
        calls[2].abort();
        yield_now().await;
        setup.may.add_permits(2);
        assert_eq!(calls.into_iter().next_back().unwrap().await.unwrap(), Ok(30));
        assert_eq!(setup.asked(), [vec![1], vec![DAMAGED, 2, 3], vec![DAMAGED], vec![3]]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_ends_with_the_store_after_what_was_waiting() {
        let setup = Setup::new(Ok(()));
        let calls = setup.calls([1, 2]).await;
        drop(setup.tens);
        assert_eq!(Arc::strong_count(&setup.asked), 2, "the task has one");
        setup.may.add_permits(2);
        for call in calls {
            assert!(call.await.unwrap().is_ok());
        }
        yield_now().await;
        assert_eq!(Arc::strong_count(&setup.asked), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_hurts_nobody_else() {
        let setup = Setup::new(Ok(()));
        let answers = setup.answers([1, 2, DAMAGED, 3]).await;
        assert_eq!(answers, [Ok(10), Ok(20), Err(StoreError::Corrupt("bad luck".into())), Ok(30)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_fails_all_is_not_asked_again_for_each() {
        let away = StoreError::Unavailable("it is away".into());
        let setup = Setup::new(Err(away.clone()));
        assert_eq!(setup.answers(1..5).await, vec![Err(away); 4]);
        assert_eq!(setup.asked(), [vec![1], vec![2, 3, 4]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_fails_while_each_is_asked_for_alone_is_not_asked_for_the_rest() {
        let setup = Setup::new(Ok(()));
        let answers = setup.answers([1, DAMAGED, FATAL, 2, 3]).await;
        let away = Err(StoreError::Unavailable("it is away".into()));
        assert_eq!(answers[2..], [away.clone(), away.clone(), away]);
        assert_eq!(setup.asked(), [vec![1], vec![DAMAGED, FATAL, 2, 3], vec![DAMAGED], vec![FATAL]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_an_error_for_those_who_shared_the_statement_alone() {
        let setup = Setup::new(Ok(()));
        let answers = setup.answers([1, PANICS]).await;
        assert_eq!(answers, [Ok(10), Err(StoreError::Unavailable("the read was given up".into()))]);
        assert_eq!(setup.tens.find(2).await, Ok(20));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_gone_is_not_looked_for() {
        let setup = Setup::new(Ok(()));
        let calls = setup.calls(1..5).await;
        calls[1].abort();
        yield_now().await;
        setup.may.add_permits(2);
        for call in calls.into_iter().skip(2) {
            assert!(call.await.unwrap().is_ok());
        }
        assert_eq!(setup.asked(), [vec![1], vec![3, 4]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_statement_that_takes_long_does_not_hold_up_the_next() {
        let setup = Setup::new(Ok(()));
        let _calls = setup.calls([1, 2, 3]).await;
        assert_eq!(setup.asked(), [vec![1]]);
        tokio::time::sleep(HOLD_MAX * 2).await;
        assert_eq!(setup.asked(), [vec![1], vec![2, 3]], "though the first is still under way");
    }

    #[tokio::test(start_paused = true)]
    async fn of_statements_that_take_long_so_many_are_under_way_and_who_comes_then_waits_in_the_queue() {
        let setup = Setup::new(Ok(()));
        let mut calls = setup.calls(1..=100).await;
        tokio::time::sleep(HOLD_MAX * 100).await;
        assert_eq!(setup.asked().len(), UNDER_WAY_MAX, "{:?}", setup.asked());
        setup.may.add_permits(100);
        assert_eq!(calls.pop().unwrap().await.unwrap().ok(), Some(1_000));
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_fit_are_turned_down_and_counted() {
        let setup = Setup::new(Ok(()));
        let fit = WAITING_MAX as u64 + 1;
        let answers = setup.answers(100..100 + fit + 1).await;
        let turned_down: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
        assert_eq!(turned_down, [&Err(StoreError::Busy("too many reads wait".into()))]);
        assert_eq!(setup.health.stats().busy, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_too_long_is_told_so_and_not_looked_for() {
        let setup = Setup::new(Ok(()));
        let mut under_way = Vec::new();
        for key in 1..=UNDER_WAY_MAX as u64 {
            under_way.extend(setup.calls([key]).await);
            tokio::time::sleep(HOLD_MAX * 2).await;
        }
        assert_eq!(setup.asked().len(), UNDER_WAY_MAX);
        let calls = setup.calls([DAMAGED]).await;
        tokio::time::sleep(WAIT_MAX * 2).await;
        setup.may.add_permits(100);
        for call in calls {
            assert!(matches!(call.await.unwrap(), Err(StoreError::Busy(_))));
        }
        for call in under_way {
            assert!(call.await.unwrap().is_ok(), "whoever is being looked for hears what is found");
        }
        assert_eq!(setup.health.stats().busy, 1);
    }
}
