//! One database in use: who may read and write when, and for how long. What the statements say is in the trait files, how
//! connections are made in `connect.rs`, how changes are made in `writer.rs`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr,
    Statement,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::address::Address;
use super::connect::{Pool, Use, WAIT_MAX};
use super::failure::{Failure, is_none_free, open_error};
use super::fence::{Fence, Mark};
use super::health::{Health, Stats};
use super::migration::Steps;
use super::panics::{caught, check};
use super::together::{Shared, Together};
use super::writer::{Work, Writer};
use super::{fence, migrate, panics, settings};
use crate::error::{OpenError, StoreError};

/// Connections that read, and reads under way. SQLite gives each a thread; more would only queue for the disk.
const READERS: u32 = 4;
/// Connections to write: one is used at a time, and the next must not wait until a server has noticed that it is gone.
const WRITERS: u32 = 2;
/// Reads under way or waiting for their turn. The next one is told that the store is busy.
const READS_MAX: usize = 1_024;
/// How long closing waits for what is under way.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// One open database.
#[derive(Debug)]
pub(super) struct Database {
    read: Arc<Pool>,
    /// Reads under way or waiting.
    reads: Semaphore,
    /// Reads under way. Whoever waits for a turn says nothing about how the database is.
    turns: Semaphore,
    write: Arc<Pool>,
    writer: Writer,
    health: Arc<Health>,
    fence: Arc<OnceLock<Fence>>,
    /// Settings of the server under which a commit that returned can be lost.
    warnings: Vec<String>,
}

impl Database {
    /// Opens or makes the database at `url` and brings it to the newest schema of `M`.
    pub(super) async fn open<M: Steps>(url: &str) -> Result<Self, OpenError> {
        let address = Address::parse(url)?;
        panics::caught_opening(&address, Box::pin(Self::open_at::<M>(&address))).await
    }

    async fn open_at<M: Steps>(address: &Address) -> Result<Self, OpenError> {
        migrate::bring_up::<M>(address).await?;
        let failed = |error: DbErr| open_error(address.shown(), &error);
        let writers = if matches!(address, Address::Sqlite(_)) { 1 } else { WRITERS };
        let write = Arc::new(Pool::open(address, Use::Write, writers).await.map_err(failed)?);
        let read = Arc::new(Pool::open(address, Use::Read, READERS).await.map_err(failed)?);
        let settings = async { settings::unsafe_ones(&read.get()).await.map_err(failed) };
        let warnings = migrate::in_time(address, settings).await?;
        let health = Arc::new(Health::default());
        let fence = Arc::new(OnceLock::new());
        let writer = Writer::start(write.clone(), read.clone(), health.clone(), fence.clone());
        Ok(Self {
            read,
            reads: Semaphore::new(READS_MAX),
            turns: Semaphore::new(READERS as usize),
            write,
            writer,
            health,
            fence,
            warnings,
        })
    }

    /// Calls of one kind, which share statements.
    pub(super) fn together<S: Shared>(&self, kind: S) -> Together<S> {
        Together::start(kind, self.health.clone())
    }

    /// For queries outside a transaction. Each ends in time.
    pub(super) async fn reader(&self) -> Result<Reader<'_>, StoreError> {
        self.health.check()?;
        let busy = || self.health.busy("too many reads wait");
        let place = self.reads.try_acquire().map_err(|_| busy())?;
        let turn = timeout(WAIT_MAX, self.turns.acquire()).await.ok().and_then(Result::ok).ok_or_else(busy)?;
        Ok(Reader { database: self, connection: self.read.get(), _place: place, _turn: turn })
    }

    /// After something was erased: takes it out of SQLite's log, too. The servers do that in their own time.
    pub(super) async fn scrub(&self) -> Result<(), StoreError> {
        if self.write.get().get_database_backend() != DbBackend::Sqlite || self.write.write_back().await? {
            return Ok(());
        }
        Err(StoreError::Busy("it is erased, but a reader keeps its log: call again".into()))
    }

    /// Makes a change of `data` by `work`. Returns once it is committed. `work` may run more than once, see `writer.rs`.
    pub(super) async fn write<D, T, E, F>(&self, data: D, work: F) -> Result<T, E>
    where
        D: Send + Sync + 'static,
        T: Send + 'static,
        E: Failure,
        F: for<'a> Fn(&'a DatabaseTransaction, &'a D) -> Work<'a, T, E> + Send + Sync + 'static,
    {
        self.health.check()?;
        self.writer.write(data, work).await
    }

    /// Settings of the server under which a commit that returned can be lost; empty is good.
    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// From now on changes are made only as long as nobody else takes over.
    pub(super) async fn fence(&self) -> Result<(), StoreError> {
        let fence = Fence::read(&self.reader().await?).await?;
        self.fence.get_or_init(|| fence);
        Ok(())
    }

    /// How far it has come, as far as this store knows; `None` if nobody counts.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.fence.get().map(Fence::mark)
    }

    /// How it showed that the database was put back to an older state, if it did.
    pub(super) fn put_back(&self) -> Option<&str> {
        self.fence.get().and_then(Fence::put_back)
    }

    /// Takes over under this owner epoch: see [`fence::take_over`]. Only after [`fence`](Self::fence).
    pub(super) async fn take_over(&self, epoch: i64) -> Result<(), StoreError> {
        let fence = self.fence.get().ok_or_else(|| StoreError::Rejected("this database has no owner".into()))?;
        self.write((epoch, fence.claim()), |txn, (to, claim)| Box::pin(fence::take_over(txn, *to, *claim))).await?;
        // The next change would find out; but if this commit should be lost, it is to be noticed.
        fence.raise(epoch);
        Ok(())
    }

    /// See [`Health::readable`].
    pub(super) fn readable<T>(&self, rows: impl Iterator<Item = Result<T, StoreError>>) -> Vec<T> {
        self.health.readable(rows)
    }

    pub(super) fn stats(&self) -> Stats {
        self.health.stats()
    }

    /// Closes the database after the changes that wait.
    pub(super) async fn close(&self) {
        let _ = timeout(CLOSE_MAX, self.writer.close()).await;
        self.read.close().await;
        self.write.close().await;
    }

    /// Notes that the database did not answer, and gives the next call new connections.
    async fn hung(&self) -> DbErr {
        let why = "the database did not answer in time";
        self.health.away(why);
        self.read.renew_hung().await;
        DbErr::Conn(RuntimeErr::Internal(why.into()))
    }

    /// Gives the next call new connections if none of the old came free.
    async fn failed(&self, error: DbErr) -> DbErr {
        if is_none_free(&error) {
            self.read.renew_hung().await;
        }
        error
    }

    /// Gives the next call connections that no panic has gone through.
    async fn broken(&self, panic: String) -> DbErr {
        // A pool that cannot be replaced stays as it is.
        let _ = self.read.renew().await;
        DbErr::Type(panic)
    }
}

/// A connection whose every statement ends in time.
pub(super) struct Reader<'a> {
    database: &'a Database,
    connection: DatabaseConnection,
    _place: SemaphorePermit<'a>,
    _turn: SemaphorePermit<'a>,
}

impl Reader<'_> {
    async fn bounded<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        match timeout(WAIT_MAX, caught(statement)).await {
            Ok(Ok(Ok(answer))) => {
                self.database.health.well();
                Ok(answer)
            }
            Ok(Ok(Err(error))) => {
                if let StoreError::Unavailable(why) = StoreError::from(error.clone()) {
                    self.database.health.away(&why);
                }
                Err(self.database.failed(error).await)
            }
            Ok(Err(panic)) => Err(self.database.broken(panic).await),
            Err(_) => Err(self.database.hung().await),
        }
    }
}

#[async_trait]
impl ConnectionTrait for Reader<'_> {
    fn get_database_backend(&self) -> DbBackend {
        self.connection.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.bounded(self.connection.execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.bounded(self.connection.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        let query = async {
            let row = self.connection.query_one_raw(statement).await?;
            check(&row)?;
            Ok(row)
        };
        self.bounded(query).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let query = async {
            let rows = self.connection.query_all_raw(statement).await?;
            check(&rows)?;
            Ok(rows)
        };
        self.bounded(query).await
    }
}
