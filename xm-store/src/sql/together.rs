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

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryFilter, QueryTrait, Value};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::connect::WAIT_MAX;
use super::health::Health;
use super::prepared::Prepared;
use crate::error::StoreError;

/// Calls that wait. The next one is told that the store is busy.
const WAITING_MAX: usize = 1_024;
/// Calls that share a statement. With more there is little left to save, and the first ones would wait for the last.
const TOGETHER_MAX: usize = 16;
/// Statements of a kind under way, if they take long.
const UNDER_WAY_MAX: usize = 4;
/// How long the next statement waits for the one under way.
const HOLD_MAX: Duration = Duration::from_millis(5);
/// Lengths of the lists of keys: the powers of two up to [`TOGETHER_MAX`].
const LENGTHS: usize = TOGETHER_MAX.ilog2() as usize + 1;

/// One kind of call.
pub(super) trait Shared: Send + Sync + 'static {
    /// What is looked for. Equal ones do not share a statement.
    type Key: Eq + Send + Sync + 'static;
    /// What is found.
    type Found: Send + 'static;

    /// What is found for each of the keys, in their order; at most [`TOGETHER_MAX`], no two equal.
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
    reply: oneshot::Sender<Result<S::Found, StoreError>>,
    since: Instant,
}

impl<S: Shared> Together<S> {
    /// Starts the task. It ends when this is dropped, after what was waiting.
    pub(super) fn start(kind: S, health: Arc<Health>) -> Self {
        let (queue, calls) = mpsc::channel(WAITING_MAX);
        tokio::spawn(Task { kind: Arc::new(kind), health: health.clone(), queue: calls, next: None }.run());
        Self { queue, health }
    }

    /// What is found for `key`.
    pub(super) async fn find(&self, key: S::Key) -> Result<S::Found, StoreError> {
        self.health.check()?;
        let (reply, answer) = oneshot::channel();
        self.queue.try_send(Call { key, reply, since: Instant::now() }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => busy(&self.health),
            mpsc::error::TrySendError::Closed(_) => closed(),
        })?;
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
    /// Came out of the queue, but has the key of one before it.
    next: Option<Call<S>>,
}

impl<S: Shared> Task<S> {
    async fn run(mut self) {
        let turns = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        while let Some(first) = self.next().await {
            // Never closed. Those who wait meanwhile stay in the queue, whose length is bounded.
            let Ok(turn) = turns.clone().acquire_owned().await else { return };
            // Whoever else is ready to ask does so now. It delays nobody who is alone.
            tokio::task::yield_now().await;
            let calls = self.gather(first);
            let answer = answer(self.kind.clone(), calls);
            let answered = tokio::spawn(async move {
                answer.await;
                drop(turn);
            });
            let _ = timeout(HOLD_MAX, answered).await;
        }
    }

    async fn next(&mut self) -> Option<Call<S>> {
        match self.next.take() {
            Some(next) => Some(next),
            None => self.queue.recv().await,
        }
    }

    /// Those who go together: all who wait, up to a limit, or up to one with the key of another.
    fn gather(&mut self, first: Call<S>) -> Vec<Call<S>> {
        let mut calls = Vec::new();
        let mut next = Some(first);
        while let Some(call) = next.take() {
            if calls.iter().any(|other: &Call<S>| other.key == call.key) {
                self.next = Some(call);
                break;
            }
            if call.since.elapsed() > WAIT_MAX {
                tell(call, Err(busy(&self.health)));
            } else if !call.reply.is_closed() {
                calls.push(call);
            }
            if calls.len() < TOGETHER_MAX {
                next = self.queue.try_recv().ok();
            }
        }
        calls
    }
}

async fn answer<S: Shared>(kind: Arc<S>, calls: Vec<Call<S>>) {
    if calls.is_empty() {
        return;
    }
    let keys: Vec<_> = calls.iter().map(|call| &call.key).collect();
    match kind.find(&keys).await {
        Ok(found) => calls.into_iter().zip(found).for_each(|(call, found)| tell(call, Ok(found))),
        Err(StoreError::Corrupt(_)) if calls.len() > 1 => {
            let mut failed = None;
            for call in calls {
                let alone = match &failed {
                    // Who comes later would only wait for the same.
                    Some(error) => Err(StoreError::clone(error)),
                    None => kind.find(&[&call.key]).await,
                };
                failed = alone.as_ref().err().filter(|error| !matches!(error, StoreError::Corrupt(_))).cloned();
                tell(call, alone.and_then(|found| found.into_iter().next().ok_or_else(given_up)));
            }
        }
        Err(error) => calls.into_iter().for_each(|call| tell(call, Err(error.clone()))),
    }
}

fn tell<S: Shared>(call: Call<S>, answer: Result<S::Found, StoreError>) {
    // The caller may have gone.
    let _ = call.reply.send(answer);
}

/// Statements with a list of keys, by the length of that list. There are few lengths, so that databases know their texts
/// again.
#[derive(Default)]
pub(super) struct PreparedLists([Prepared; LENGTHS]);

impl PreparedLists {
    /// The statement for so many keys, and the keys, of which the last is repeated until there is a statement for so many.
    pub(super) fn with_keys(&self, keys: impl IntoIterator<Item = Value>) -> (&Prepared, Vec<Value>) {
        let mut keys: Vec<_> = keys.into_iter().collect();
        debug_assert!(keys.len() <= TOGETHER_MAX, "{} keys for a statement", keys.len());
        keys.truncate(TOGETHER_MAX);
        let length = keys.len().next_power_of_two();
        if let Some(last) = keys.last().cloned() {
            keys.resize(length, last);
        }
        (&self.0[length.ilog2() as usize], keys)
    }
}

/// The rows that have one of `keys` in `column`.
pub(super) async fn by_keys<E: EntityTrait>(
    db: &impl ConnectionTrait,
    statements: &PreparedLists,
    column: E::Column,
    keys: impl IntoIterator<Item = Value>,
) -> Result<Vec<E::Model>, DbErr> {
    let (statement, keys) = statements.with_keys(keys);
    let query = || E::find().filter(column.is_in(keys.clone())).into_query();
    let rows = db.query_all_raw(statement.with(db.get_database_backend(), keys.clone(), query)).await?;
    rows.iter().map(|row| E::Model::from_query_result(row, "")).collect()
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
        let most = TOGETHER_MAX as u64;
        assert_eq!(setup.asked(), [vec![100], (101..101 + most).collect(), (101 + most..120).collect()]);
    }

    #[tokio::test(start_paused = true)]
    async fn equal_keys_are_found_one_after_the_other() {
        let setup = Setup::new(Ok(()));
        let answers = setup.answers([1, 2, 3, 2, 4]).await;
        assert_eq!(answers, [Ok(10), Ok(20), Ok(30), Ok(20), Ok(40)]);
        assert_eq!(setup.asked(), [vec![1], vec![2, 3], vec![2, 4]]);
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
        let (queue, health) = (mpsc::channel(1).1, setup.health.clone());
        let kind = Arc::new(Tens { may: setup.may.clone(), asked: setup.asked.clone(), answers: Ok(()) });
        let (reply, mut answer) = oneshot::channel();
        let since = Instant::now();
        tokio::time::advance(WAIT_MAX * 2).await;
        let none = Task { kind, health, queue, next: None }.gather(Call { key: 1, reply, since });
        assert!(none.is_empty());
        assert!(matches!(answer.try_recv(), Ok(Err(StoreError::Busy(_)))));
        assert_eq!(setup.health.stats().busy, 1);
    }

    #[test]
    fn a_list_of_any_length_has_a_statement() {
        let lists = PreparedLists::default();
        for wanted in 1..=TOGETHER_MAX as u64 {
            let (_, keys) = lists.with_keys((1..=wanted).map(Value::from));
            assert!(keys.len().is_power_of_two() && keys.len() < 2 * wanted as usize, "{wanted}: {}", keys.len());
            assert_eq!(keys[wanted as usize - 1..], vec![Value::from(wanted); keys.len() - wanted as usize + 1]);
        }
    }
}
