//! The one task that writes: collects the changes that wait, makes them in one transaction, commits once, answers.
//!
//! ```text
//! change ─┐                                         ┌─► answers
//! change ─┼─► queue ─► writer: begin, run all, commit
//! change ─┘            └─ one refused? again without it; it comes alone, behind the others
//! ```
//!
//! Nobody hears of success before the commit returned. A change is run again only where it is certain that nothing of it
//! was done: it lost against another process, or the connection was gone before the commit was asked for. Where that is
//! not certain the caller hears [`StoreError::Unavailable`] and repeats itself.
//!
//! A disk that fails in a commit stops the database: nothing is answered with success any more until it was opened anew
//! and what the disk really has was read, which the task tries by itself.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sea_orm::{DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode, TransactionOptions, TransactionTrait};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::connect::{Pool, WAIT_MAX};
use super::failure::{Failure, is_disk_failure, is_none_free};
use super::fence::Fence;
use super::health::Health;
use super::panics::caught;
use crate::error::StoreError;

/// Changes that wait. The next one is told that the store is busy.
const WAITING_MAX: usize = 1_024;
/// Changes in one transaction. More would only make all of them wait for the last.
const GROUP_MAX: usize = 128;
/// A group is committed after this even if not all of it was run: the rest comes next.
const GROUP_TIME: Duration = Duration::from_millis(500);
/// Changes of one group that refuse and are put aside, so that the others still share a commit.
const ASIDE_MAX: usize = 8;
/// How often a change is tried that loses against other processes.
const TRIES: u32 = 4;
/// The first pause between tries; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(5);
/// After a failure of the disk the database is opened anew after this; each further time after twice as long.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// The longest pause between these.
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What a change does in its transaction. May run more than once; what an earlier run did has been undone.
pub(super) type Work<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// Where changes go.
#[derive(Debug)]
pub(super) struct Writer {
    queue: mpsc::Sender<Box<dyn Change>>,
    closed: watch::Receiver<bool>,
    health: Arc<Health>,
}

impl Writer {
    /// Starts the task. It ends when the writer is dropped or closed, after what was waiting.
    pub(super) fn start(pool: Arc<Pool>, readers: Arc<Pool>, health: Arc<Health>, fence: Arc<OnceLock<Fence>>) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let (ended, closed) = watch::channel(false);
        let task = Task { pool, readers, health: health.clone(), fence };
        tokio::spawn(async move {
            task.run(waiting).await;
            // Nobody may be waiting for the end.
            let _ = ended.send(true);
        });
        Self { queue, closed, health }
    }

    /// Makes a change of `data` by `work`; returns once it is committed, or with the reason why it was not made.
    pub(super) async fn write<D, T, E, F>(&self, data: D, work: F) -> Result<T, E>
    where
        D: Send + Sync + 'static,
        T: Send + 'static,
        E: Failure,
        F: for<'a> Fn(&'a DatabaseTransaction, &'a D) -> Work<'a, T, E> + Send + Sync + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let change = Waiting { data, work, outcome: None, reply, since: Instant::now() };
        self.queue.try_send(Box::new(change)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                self.health.turned_down(1);
                StoreError::Busy("too many changes wait".into())
            }
            mpsc::error::TrySendError::Closed(_) => closed(),
        })?;
        answer.await.unwrap_or_else(|_| Err(closed().into()))
    }

    /// Waits until what was waiting is done and the task has ended.
    pub(super) async fn close(&self) {
        // The task ends on the marker; changes behind it are refused.
        if self.queue.send(Box::new(End)).await.is_ok() {
            let _ = self.closed.clone().wait_for(|ended| *ended).await;
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the database is closed".into())
}

/// How one run of a change ended, as far as the transaction goes.
enum Ran {
    /// It can be committed.
    Done,
    /// It answers without changing anything, so its transaction is undone.
    Refused,
    /// The database failed.
    Failed(StoreError),
}

/// A change with its types forgotten.
trait Change: Send {
    /// Runs it. The answer stays inside.
    fn run<'a>(&'a mut self, txn: &'a DatabaseTransaction) -> Pin<Box<dyn Future<Output = Ran> + Send + 'a>>;
    /// Tells the caller: this error, or else what the last run answered.
    fn answer(self: Box<Self>, error: Option<StoreError>);
    /// Whether its caller has waited so long that running it would help nobody.
    fn is_late(&self) -> bool;
    /// Whether this is the end.
    fn is_end(&self) -> bool {
        false
    }
}

struct Waiting<D, T, E, F> {
    data: D,
    work: F,
    outcome: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
    since: Instant,
}

impl<D, T, E, F> Change for Waiting<D, T, E, F>
where
    D: Send + Sync + 'static,
    T: Send + 'static,
    E: Failure,
    F: for<'a> Fn(&'a DatabaseTransaction, &'a D) -> Work<'a, T, E> + Send + Sync + 'static,
{
    fn run<'a>(&'a mut self, txn: &'a DatabaseTransaction) -> Pin<Box<dyn Future<Output = Ran> + Send + 'a>> {
        Box::pin(async move {
            let outcome = (self.work)(txn, &self.data).await;
            let ran = match &outcome {
                Ok(_) => Ran::Done,
                Err(error) => match error.of_store() {
                    Some(error @ (StoreError::Unavailable(_) | StoreError::Conflict(_) | StoreError::Busy(_))) => {
                        Ran::Failed(error.clone())
                    }
                    _ => Ran::Refused,
                },
            };
            self.outcome = Some(outcome);
            ran
        })
    }

    fn answer(self: Box<Self>, error: Option<StoreError>) {
        let answer = match (error, self.outcome) {
            (Some(error), _) => Err(error.into()),
            (None, Some(outcome)) => outcome,
            (None, None) => Err(closed().into()),
        };
        // The caller may have gone; the change is made all the same.
        let _ = self.reply.send(answer);
    }

    fn is_late(&self) -> bool {
        self.since.elapsed() > WAIT_MAX
    }
}

struct End;

impl Change for End {
    fn run<'a>(&'a mut self, _txn: &'a DatabaseTransaction) -> Pin<Box<dyn Future<Output = Ran> + Send + 'a>> {
        Box::pin(std::future::ready(Ran::Done))
    }

    fn answer(self: Box<Self>, _error: Option<StoreError>) {}

    fn is_late(&self) -> bool {
        false
    }

    fn is_end(&self) -> bool {
        true
    }
}

/// Why a transaction was not committed.
enum Undone {
    /// The change at this place in the group refuses, and has its answer.
    Refused(usize),
    /// The database failed before the commit: nothing was done.
    Before(StoreError),
    /// The database failed in the commit: it may have been done.
    Unknown(StoreError),
}

struct Task {
    pool: Arc<Pool>,
    /// Opened anew together with the others.
    readers: Arc<Pool>,
    health: Arc<Health>,
    /// Who may write, where that can change.
    fence: Arc<OnceLock<Fence>>,
}

impl Task {
    async fn run(self, mut waiting: mpsc::Receiver<Box<dyn Change>>) {
        while let Some(first) = self.next(&mut waiting).await {
            // Whoever else is ready to ask for a change does so now, and shares the commit. It delays nobody who is alone.
            tokio::task::yield_now().await;
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(next) = waiting.try_recv()
            {
                group.push(next);
            }
            let end = group.iter().position(|change| change.is_end());
            group.truncate(end.unwrap_or(group.len()));
            self.take(group).await;
            if end.is_some() {
                return;
            }
        }
    }

    /// The next change. While the disk has failed, meanwhile opens the database anew.
    async fn next(&self, waiting: &mut mpsc::Receiver<Box<dyn Change>>) -> Option<Box<dyn Change>> {
        let mut pause = REOPEN_AFTER;
        while self.health.is_stopped() {
            match timeout(pause, waiting.recv()).await {
                Ok(next) => return next,
                Err(_) if self.reopen().await.is_ok() => self.health.reopened(),
                Err(_) => pause = (pause * 2).min(REOPEN_PAUSE_MAX),
            }
        }
        waiting.recv().await
    }

    /// Opens the database anew. Only SQLite, whose disk is ours, comes to this.
    async fn reopen(&self) -> Result<(), DbErr> {
        self.pool.close().await;
        self.readers.close().await;
        self.pool.renew().await?;
        self.readers.renew().await?;
        match self.pool.write_back().await? {
            true => Ok(()),
            false => Err(DbErr::Custom("the log could not be written back".into())),
        }
    }

    /// Makes the changes of a group and answers all of them.
    async fn take(&self, mut group: Vec<Box<dyn Change>>) {
        let mut alone = Vec::new();
        loop {
            self.turn_down_late(&mut group);
            if group.len() < 2 {
                break;
            }
            match self.tried(&mut group).await {
                Ok(done) => answer(group.drain(..done).collect(), None),
                // It comes behind the others: what it saw of them has been undone with it.
                Err(Undone::Refused(which)) if alone.len() < ASIDE_MAX => alone.push(group.remove(which)),
                // One of them lost against another process, or cannot be made: which one shows when each is alone.
                Err(Undone::Refused(_) | Undone::Before(StoreError::Conflict(_) | StoreError::Corrupt(_))) => break,
                Err(Undone::Before(error) | Undone::Unknown(error)) => answer(std::mem::take(&mut group), Some(&error)),
            }
        }
        alone.extend(group);
        while !alone.is_empty() {
            self.turn_down_late(&mut alone);
            if !alone.is_empty() {
                self.alone(alone.remove(0)).await;
            }
        }
    }

    /// Answers those whose callers have waited so long that making the change would help nobody.
    fn turn_down_late(&self, group: &mut Vec<Box<dyn Change>>) {
        let late: Vec<_> = group.extract_if(.., |change| change.is_late()).collect();
        self.health.turned_down(late.len());
        answer(late, Some(&StoreError::Busy("the changes before it took too long".into())));
    }

    async fn alone(&self, change: Box<dyn Change>) {
        let mut one = vec![change];
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            let result = self.tried(&mut one).await;
            match result {
                Err(Undone::Before(StoreError::Conflict(_))) if attempt < TRIES => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Ok(_) | Err(Undone::Refused(_)) => return answer(one, None),
                Err(Undone::Before(error) | Undone::Unknown(error)) => return answer(one, Some(&error)),
            }
        }
    }

    /// [`attempt`](Self::attempt), once more if a connection turns out to be gone: the server was restarted meanwhile.
    async fn tried(&self, group: &mut [Box<dyn Change>]) -> Result<usize, Undone> {
        if let Err(error) = self.health.check() {
            return Err(Undone::Before(error));
        }
        let mut result = self.bounded(group).await;
        if let Err(Undone::Before(StoreError::Unavailable(_))) = &result
            && !self.health.is_away()
        {
            // Others in the pool are likely to be gone with it.
            self.drop_connections().await;
            result = self.bounded(group).await;
        }
        match &result {
            Ok(_) | Err(Undone::Refused(_)) => self.health.well(),
            Err(Undone::Before(StoreError::Unavailable(why)) | Undone::Unknown(StoreError::Unavailable(why))) => {
                self.health.away(why);
            }
            Err(_) => {}
        }
        result
    }

    /// [`attempt`](Self::attempt) that ends in time. A server that does not answer gets new connections next time.
    async fn bounded(&self, group: &mut [Box<dyn Change>]) -> Result<usize, Undone> {
        let mut committing = false;
        match timeout(WAIT_MAX, caught(self.attempt(group, &mut committing))).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => {
                // A pool that cannot be replaced stays as it is.
                let _ = self.pool.renew().await;
                Err(match committing {
                    true => Undone::Unknown(StoreError::Unavailable(panic)),
                    false => Undone::Before(StoreError::Corrupt(panic)),
                })
            }
            Err(_) => {
                let error = StoreError::Unavailable("the database did not answer in time".into());
                self.pool.renew_hung().await;
                Err(if committing { Undone::Unknown(error) } else { Undone::Before(error) })
            }
        }
    }

    /// Makes the changes of a group, or the first of them if they take long, in one transaction. Returns how many were
    /// committed: at least one.
    async fn attempt(&self, group: &mut [Box<dyn Change>], committing: &mut bool) -> Result<usize, Undone> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let begun = self.pool.get().begin_with_options(options).await;
        if begun.as_ref().err().is_some_and(is_none_free) {
            self.pool.renew_hung().await;
        }
        let txn = begun.map_err(|error| Undone::Before(error.into()))?;
        if let Some(fence) = self.fence.get()
            && let Err(error) = fence.enter(&txn).await
        {
            if txn.rollback().await.is_err() {
                self.drop_connections().await;
            }
            return Err(Undone::Before(error));
        }
        let (start, mut made) = (Instant::now(), 0);
        for change in group {
            if made > 0 && start.elapsed() > GROUP_TIME {
                break;
            }
            let undone = match change.run(&txn).await {
                Ran::Done => {
                    made += 1;
                    continue;
                }
                Ran::Refused => Undone::Refused(made),
                Ran::Failed(error) => Undone::Before(error),
            };
            if txn.rollback().await.is_err() {
                self.drop_connections().await;
            }
            return Err(undone);
        }
        *committing = true;
        if let Err(error) = self.commit(txn).await {
            self.drop_connections().await;
            return Err(self.not_committed(&error));
        }
        // Stopped by an earlier commit that nobody waited for any more: after that no success can be trusted.
        if self.health.is_stopped() {
            self.health.check().map_err(Undone::Unknown)?;
        }
        self.fence.get().inspect(|fence| fence.committed());
        self.health.committed(made);
        Ok(made)
    }

    /// Commits. SQLite goes on with that when nobody waits any more, and how it ends is heard all the same: a disk that
    /// fails after a long time has failed.
    async fn commit(&self, txn: DatabaseTransaction) -> Result<(), DbErr> {
        if !self.is_ours() {
            return txn.commit().await;
        }
        let health = self.health.clone();
        let commit = tokio::spawn(async move {
            let committed = txn.commit().await;
            if let Err(error) = committed.as_ref()
                && is_disk_failure(error)
            {
                // What SQLite says after a failed flush cannot be trusted.
                health.stop(&error.to_string());
            }
            committed
        });
        commit.await.unwrap_or_else(|ended| match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(ended) => Err(DbErr::Custom(ended.to_string())),
        })
    }

    /// Whether the disk is ours to look after: servers look after their own.
    fn is_ours(&self) -> bool {
        self.pool.get().get_database_backend() == DbBackend::Sqlite
    }

    /// After a commit or a rollback that failed, the driver and SQLite may not agree whether a transaction is open: what is
    /// begun on such a connection would be part of the old one, and never committed.
    async fn drop_connections(&self) {
        let old = self.pool.get();
        // A pool that cannot be replaced stays as it is.
        let _ = self.pool.renew().await;
        // A server that hangs takes its time; nobody waits for it.
        tokio::spawn(async move { old.close().await });
    }

    fn not_committed(&self, error: &DbErr) -> Undone {
        if self.is_ours() && is_disk_failure(error) {
            return Undone::Unknown(StoreError::Stopped(error.to_string()));
        }
        match StoreError::from(error.clone()) {
            // Serialization failures may show at the commit, which has then undone everything; and so does SQLite, in the
            // same process, if there was no room.
            error @ StoreError::Conflict(_) => Undone::Before(error),
            StoreError::Full(why) if self.is_ours() => Undone::Before(StoreError::Full(why)),
            _ => Undone::Unknown(StoreError::Unavailable(error.to_string())),
        }
    }
}

fn answer(changes: Vec<Box<dyn Change>>, error: Option<&StoreError>) {
    for change in changes {
        change.answer(error.cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::address::Address;
    use crate::sql::connect::{Use, make_private};

    /// A change that has waited too long.
    struct Late;

    impl Change for Late {
        fn run<'a>(&'a mut self, _txn: &'a DatabaseTransaction) -> Pin<Box<dyn Future<Output = Ran> + Send + 'a>> {
            Box::pin(std::future::ready(Ran::Done))
        }

        fn answer(self: Box<Self>, error: Option<StoreError>) {
            assert!(matches!(error, Some(StoreError::Busy(_))), "{error:?}");
        }

        fn is_late(&self) -> bool {
            true
        }
    }

    #[tokio::test]
    async fn changes_that_all_come_too_late_take_no_commit() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("database");
        make_private(&file).expect("it is made");
        let address = Address::parse(&format!("sqlite:{}", file.display())).expect("a path");
        let pool = Arc::new(Pool::open(&address, Use::Write, 1).await.expect("it opens"));
        let health = Arc::new(Health::default());
        let task = Task { pool: pool.clone(), readers: pool, health: health.clone(), fence: Arc::default() };
        task.take(vec![Box::new(Late), Box::new(Late)]).await;
        assert_eq!((health.stats().commits, health.stats().busy), (0, 2));
    }
}
