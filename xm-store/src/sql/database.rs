//! One database: connect, pools, pragmas, the turn to write, errors. No query of a trait is here.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, RuntimeErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};
use sea_orm_migration::MigratorTrait;
use tokio::sync::{Mutex, MutexGuard};

use crate::error::{OpenError, StoreError};

/// Connections that read. SQLite gives each a thread; more would only queue for the disk.
const READERS: u32 = 4;
/// How long a call waits for a connection or its turn before it is told to come again. Long enough for a slow fsync,
/// short enough that callers are answered before their clients give up.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// One open database.
#[derive(Debug)]
pub(super) struct Database {
    read: DatabaseConnection,
    write: DatabaseConnection,
    /// Writers queue here, in order, and not inside SQLite, which lets them race.
    turn: Mutex<()>,
    /// The disk failed in a commit.
    stopped: AtomicBool,
}

/// A transaction that may write. Undone unless committed.
pub(super) struct Writing<'a> {
    pub(super) txn: DatabaseTransaction,
    stopped: &'a AtomicBool,
    _turn: MutexGuard<'a, ()>,
}

impl Database {
    /// Opens or makes the database at `url` and brings it to the newest schema of `M`, whose steps begin with `role`.
    pub(super) async fn open<M: MigratorTrait>(url: &str, role: &str) -> Result<Self, OpenError> {
        let path = sqlite_path(url)?;
        make_private(&path)?;
        let failed = |error: DbErr| open_error(&path, &error);
        let write = connect(&path, 1).await.map_err(failed)?;
        check_contents(
            &write,
            &path,
            role,
            &M::migrations().iter().map(|step| step.name().to_owned()).collect::<Vec<_>>(),
        )
        .await?;
        let txn = write.begin_with_options(immediate()).await.map_err(failed)?;
        M::up(&txn, None).await.map_err(failed)?;
        txn.commit().await.map_err(failed)?;
        let read = connect(&path, READERS).await.map_err(failed)?;
        Ok(Self { read, write, turn: Mutex::new(()), stopped: AtomicBool::new(false) })
    }

    /// For queries outside a transaction.
    pub(super) fn reader(&self) -> Result<&DatabaseConnection, StoreError> {
        self.check_running()?;
        Ok(&self.read)
    }

    /// Waits for the turn to write and begins a transaction.
    pub(super) async fn write(&self) -> Result<Writing<'_>, StoreError> {
        let turn = tokio::time::timeout(WAIT_MAX, self.turn.lock()).await;
        let turn = turn.map_err(|_| StoreError::Unavailable("too many changes at once".into()))?;
        self.check_running()?;
        let txn = self.write.begin_with_options(immediate()).await?;
        Ok(Writing { txn, stopped: &self.stopped, _turn: turn })
    }

    pub(super) async fn close(&self) {
        // An error here means that it is closed already.
        let _ = self.read.close_by_ref().await;
        let _ = self.write.close_by_ref().await;
    }

    fn check_running(&self) -> Result<(), StoreError> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(StoreError::Stopped("the disk failed in a commit".into()));
        }
        Ok(())
    }
}

impl Writing<'_> {
    /// Returns once everything is on stable storage. If the disk fails in here, the database stops: what SQLite says
    /// after a failed fsync cannot be trusted.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        self.txn.commit().await.map_err(|error| {
            if sqlite_code(&error) == Some(SQLITE_IOERR) {
                self.stopped.store(true, Ordering::Release);
                return StoreError::Stopped(error.to_string());
            }
            error.into()
        })
    }
}

fn immediate() -> TransactionOptions {
    TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() }
}

fn sqlite_path(url: &str) -> Result<PathBuf, OpenError> {
    let path = url.strip_prefix("sqlite:").map(|rest| rest.strip_prefix("//").unwrap_or(rest));
    match path {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err(OpenError::Unreachable {
            path: PathBuf::from(url),
            why: "a database is given as \"sqlite:\" and a path".into(),
        }),
    }
}

/// Makes the file if it is not there, and takes it from everybody but its owner: it holds key hashes and addresses.
fn make_private(path: &Path) -> Result<(), OpenError> {
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
    open().map_err(|error| OpenError::Unreachable { path: path.to_owned(), why: error.to_string() })
}

async fn connect(path: &Path, connections: u32) -> Result<DatabaseConnection, DbErr> {
    // The path goes in below, where no character of it is special; the URL only names the kind.
    let mut options = ConnectOptions::new("sqlite://database");
    let file = path.to_owned();
    options
        .max_connections(connections)
        .min_connections(1)
        .acquire_timeout(WAIT_MAX)
        .test_before_acquire(false)
        .sqlx_logging(false)
        .record_stmt_in_spans(false)
        .map_sqlx_sqlite_opts(move |sqlite: SqliteConnectOptions| {
            sqlite
                .filename(&file)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .foreign_keys(true)
                .busy_timeout(WAIT_MAX)
        });
    sea_orm::Database::connect(options).await
}

/// Refuses what is not ours, or not yet known to us.
async fn check_contents(db: &DatabaseConnection, path: &Path, role: &str, known: &[String]) -> Result<(), OpenError> {
    let foreign = |why: String| OpenError::Foreign { path: path.to_owned(), why };
    let failed = |error: DbErr| open_error(path, &error);
    let list = |sql: &str| db.query_all_raw(Statement::from_string(DbBackend::Sqlite, sql.to_owned()));
    let tables = list("SELECT name FROM sqlite_master WHERE type = 'table'").await.map_err(failed)?;
    if tables.is_empty() {
        return Ok(());
    }
    let names: Vec<String> =
        tables.iter().map(|row| row.try_get("", "name")).collect::<Result<_, _>>().map_err(failed)?;
    if !names.iter().any(|name| name == "seaql_migrations") {
        return Err(foreign("it is a database of another program".into()));
    }
    for row in list("SELECT version FROM seaql_migrations ORDER BY version").await.map_err(failed)? {
        let step: String = row.try_get("", "version").map_err(failed)?;
        if !step.starts_with(role) {
            return Err(foreign(format!("it holds {step}, not {role}…")));
        }
        if !known.contains(&step) {
            return Err(OpenError::Newer { path: path.to_owned(), found: step });
        }
    }
    Ok(())
}

const SQLITE_IOERR: u32 = 10;
const SQLITE_CORRUPT: u32 = 11;
const SQLITE_FULL: u32 = 13;
const SQLITE_NOTADB: u32 = 26;

/// SQLite's primary result code, if that is where the error comes from.
fn sqlite_code(error: &DbErr) -> Option<u32> {
    let (DbErr::Conn(inner) | DbErr::Exec(inner) | DbErr::Query(inner)) = error else { return None };
    let RuntimeErr::SqlxError(inner) = inner else { return None };
    let code: u32 = inner.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

fn open_error(path: &Path, error: &DbErr) -> OpenError {
    let path = path.to_owned();
    match sqlite_code(error) {
        Some(SQLITE_NOTADB | SQLITE_CORRUPT) => OpenError::Foreign { path, why: error.to_string() },
        _ => OpenError::Unreachable { path, why: error.to_string() },
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        let text = error.to_string();
        match (sqlite_code(&error), &error) {
            (Some(SQLITE_FULL), _) => Self::Full(text),
            (Some(SQLITE_CORRUPT | SQLITE_NOTADB), _) => Self::Corrupt(text),
            (_, DbErr::Type(_) | DbErr::TryIntoErr { .. }) => Self::Corrupt(text),
            (None, DbErr::Query(RuntimeErr::SqlxError(inner))) if is_decode_error(inner) => Self::Corrupt(text),
            _ => Self::Unavailable(text),
        }
    }
}

/// The database answered, but not with what the schema promises.
fn is_decode_error(error: &sea_orm::sqlx::Error) -> bool {
    use sea_orm::sqlx::Error;
    matches!(
        error,
        Error::ColumnDecode { .. } | Error::Decode(_) | Error::ColumnNotFound(_) | Error::TypeNotFound { .. }
    )
}

impl From<DbErr> for crate::error::RosterError {
    fn from(error: DbErr) -> Self {
        Self::Store(error.into())
    }
}
