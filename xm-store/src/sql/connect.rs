//! Pools of connections: how each engine is spoken to, and what every connection is told first.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, Executor};
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, RuntimeErr, Statement};
use tokio::time::Instant;

use super::address::Address;
use crate::error::OpenError;

/// How long a call waits for a connection, a lock or an answer before it is told to come again. Long enough for a slow
/// fsync, short enough that callers are answered before their clients give up.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(5);
/// The servers give up before we do, so that they end what nobody waits for.
const STATEMENT_MAX: Duration = Duration::from_secs(4);
/// After this a server undoes a transaction that nobody goes on with, and with it its locks: the connection may be lost
/// without the server knowing. We give up after [`WAIT_MAX`].
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long a start waits for another process that migrates.
const MIGRATION_WAIT_MAX: Duration = Duration::from_secs(120);

/// What the connections of a pool are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Queries, and transactions that see one moment.
    Read,
    /// Changes. They behave as if one came after the other, also those of another process.
    Write,
    /// Changes of the schema, which may take as long as they take.
    Migrate,
}

/// Connections for one use. Cloning the connection inside is cheap.
#[derive(Debug)]
pub(super) struct Pool {
    options: ConnectOptions,
    /// And since when.
    current: Mutex<(DatabaseConnection, Instant)>,
}

impl Pool {
    /// Opens at least one connection. The drivers themselves wait for ever for what a connection is told first.
    pub(super) async fn open(address: &Address, purpose: Use, connections: u32) -> Result<Self, DbErr> {
        let options = options(address, purpose, connections);
        let connect = tokio::time::timeout(WAIT_MAX * 2, sea_orm::Database::connect(options.clone()));
        let hung = |_| DbErr::Conn(RuntimeErr::Internal("the database did not answer in time".into()));
        let current = connect.await.map_err(hung)??;
        Ok(Self { options, current: Mutex::new((current, Instant::now())) })
    }

    pub(super) fn get(&self) -> DatabaseConnection {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Replaces all connections unless that was done just now: callers who find them hung come in crowds. Connections also
    /// hang that are on their way back into the pool, where nobody waits for them, but their places stay taken.
    pub(super) async fn renew_hung(&self) {
        let since = self.current.lock().unwrap_or_else(PoisonError::into_inner).1;
        if since.elapsed() >= WAIT_MAX {
            // A pool that cannot be replaced stays as it is.
            let _ = self.renew().await;
        }
    }

    /// Replaces all connections. Those of the old pool may hang for as long as TCP keeps hoping; nobody waits for them.
    pub(super) async fn renew(&self) -> Result<(), DbErr> {
        let mut options = self.options.clone();
        let fresh = sea_orm::Database::connect(options.connect_lazy(true).clone()).await?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = (fresh, Instant::now());
        Ok(())
    }

    /// Writes what SQLite's log holds into the database again, and flushes it: after a failed flush the disk may lack what
    /// the system's memory shows. Returns whether it could; a reader in another process is reason enough that not.
    pub(super) async fn write_back(&self) -> Result<bool, DbErr> {
        let checkpoint = Statement::from_string(DbBackend::Sqlite, "PRAGMA wal_checkpoint(TRUNCATE)");
        let row = self.get().query_one_raw(checkpoint).await?;
        Ok(row.map(|row| row.try_get_by_index::<i64>(0)).transpose()? == Some(0))
    }

    /// Waits until the connections are closed, but not for ever: a server that has stopped cannot say goodbye.
    pub(super) async fn close(&self) {
        let _ = tokio::time::timeout(WAIT_MAX, self.get().close_by_ref()).await;
    }
}

fn options(address: &Address, purpose: Use, connections: u32) -> ConnectOptions {
    // Where to connect goes in below; the URL only names the kind.
    let kind = match address {
        Address::Sqlite(_) => "sqlite://database",
        Address::MySql(_) => "mysql://database",
        Address::Postgres(_) => "postgres://database",
    };
    let mut options = ConnectOptions::new(kind);
    options
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(WAIT_MAX)
        .connect_timeout(WAIT_MAX)
        .sqlx_logging(false)
        .record_stmt_in_spans(false);
    match address.clone() {
        Address::Sqlite(path) => {
            options.test_before_acquire(false);
            options.map_sqlx_sqlite_opts(move |sqlite| sqlite_options(sqlite, &path));
        }
        Address::MySql(server) => {
            options.test_before_acquire_if_idle_for(Duration::from_secs(30));
            let server = server.charset("utf8mb4").collation("utf8mb4_bin").pipes_as_concat(false);
            options.map_sqlx_mysql_opts(move |_| sqlx::ConnectOptions::disable_statement_logging(server.clone()));
            let first = mysql_settings(purpose);
            options.map_sqlx_mysql_pool_opts(move |pool| {
                let first = first.clone();
                pool.after_connect(move |connection, _| {
                    let first = first.clone();
                    Box::pin(async move { connection.execute(sqlx::AssertSqlSafe(first.as_ref())).await.map(|_| ()) })
                })
            });
        }
        Address::Postgres(server) => {
            options.test_before_acquire_if_idle_for(Duration::from_secs(30));
            let server = server.application_name("x-messenger");
            options.map_sqlx_postgres_opts(move |_| sqlx::ConnectOptions::disable_statement_logging(server.clone()));
            let first = postgres_settings(purpose);
            options.map_sqlx_postgres_pool_opts(move |pool| {
                let first = first.clone();
                pool.after_connect(move |connection, _| {
                    let first = first.clone();
                    Box::pin(async move { connection.execute(sqlx::AssertSqlSafe(first.as_ref())).await.map(|_| ()) })
                })
            });
        }
    }
    options
}

fn sqlite_options(sqlite: SqliteConnectOptions, path: &Path) -> SqliteConnectOptions {
    sqlite
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // What is deleted is overwritten: key hashes and texts do not stay behind in free pages.
        .pragma("secure_delete", "ON")
        // In KiB, per connection. The system keeps the pages, too, and once for all of them: 2 MiB each, as is usual, would
        // take more memory than ten thousand users.
        .pragma("cache_size", "-256")
        // Rows that a statement may be ahead of who takes them: stopping it and going on takes longer than many rows.
        .row_buffer_size(1_024)
        .busy_timeout(WAIT_MAX)
}

fn isolation(purpose: Use) -> &'static str {
    match purpose {
        Use::Write => "SERIALIZABLE",
        Use::Read => "REPEATABLE READ",
        // Who has waited for another process must see what that has done, and not the moment he began to wait.
        Use::Migrate => "READ COMMITTED",
    }
}

/// What MariaDB and MySQL connections are told first. The comments are read by one of them each.
fn mysql_settings(purpose: Use) -> Arc<str> {
    let isolation = isolation(purpose);
    let limits = if purpose == Use::Migrate {
        format!("SET SESSION lock_wait_timeout = {}", MIGRATION_WAIT_MAX.as_secs())
    } else {
        let (seconds, millis, idle) = (STATEMENT_MAX.as_secs(), STATEMENT_MAX.as_millis(), IDLE_MAX.as_secs());
        format!(
            "SET SESSION innodb_lock_wait_timeout = {seconds}, SESSION lock_wait_timeout = {seconds} \
             /*M!100100 , SESSION max_statement_time = {seconds} */ \
             /*M!100300 , SESSION idle_transaction_timeout = {idle} */ /*!80000 , SESSION max_execution_time = {millis} */"
        )
    };
    format!("SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'; {limits}; SET SESSION TRANSACTION ISOLATION LEVEL {isolation}").into()
}

/// What PostgreSQL connections are told first. A commit is on disk when it returns, whatever the server's default is.
fn postgres_settings(purpose: Use) -> Arc<str> {
    let isolation = isolation(purpose);
    let (statement, lock, idle) = match purpose {
        Use::Migrate => (Duration::ZERO, MIGRATION_WAIT_MAX, MIGRATION_WAIT_MAX),
        Use::Read | Use::Write => (STATEMENT_MAX, STATEMENT_MAX, IDLE_MAX),
    };
    format!(
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {isolation}; SET synchronous_commit = on; \
         SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
         SET standard_conforming_strings = on",
        statement.as_millis(),
        lock.as_millis(),
        idle.as_millis()
    )
    .into()
}

/// Makes a database's file if it is not there, and takes it from everybody but its owner: it holds key hashes and
/// addresses.
pub(super) fn make_private(path: &Path) -> Result<(), OpenError> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let open = || {
        let file = options.open(path)?;
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        file.sync_all()
    };
    open().map_err(|error: std::io::Error| OpenError::Unreachable { path: path.to_owned(), why: error.to_string() })
}
