//! What the databases' errors mean, in one table per engine. What follows from an error is decided in `writer.rs` and by
//! callers.

use sea_orm::sqlx;
use sea_orm::{DbErr, RuntimeErr};

use crate::error::{OpenError, RosterError, StoreError};

/// An error of an operation: it may be the store's, or an answer.
pub(super) trait Failure: From<StoreError> + Send + 'static {
    /// The store's part, if it is that.
    fn of_store(&self) -> Option<&StoreError>;
}

impl Failure for StoreError {
    fn of_store(&self) -> Option<&StoreError> {
        Some(self)
    }
}

impl Failure for RosterError {
    fn of_store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::Refused(_) => None,
        }
    }
}

/// What an engine's own code means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// Somebody else changed the same rows: undone by the server.
    Conflict,
    /// Cancelled by the server after its time limit, or waited too long for a lock: undone.
    Slow,
    /// No space.
    Full,
    /// Not what the schema promises, or damaged.
    Corrupt,
    /// The disk failed.
    Disk,
    /// The server goes, comes, or has no place for us.
    Away,
    /// It refuses a statement that it should take.
    Rejected,
}

/// SQLite's primary result codes.
fn sqlite(code: u32) -> Meaning {
    match code & 0xff {
        // BUSY, LOCKED: another process writes.
        5 | 6 => Meaning::Conflict,
        10 => Meaning::Disk,
        // CORRUPT, MISMATCH, NOTADB.
        11 | 20 | 26 => Meaning::Corrupt,
        13 => Meaning::Full,
        // CONSTRAINT: another process was faster.
        19 => Meaning::Conflict,
        // NOMEM, READONLY, INTERRUPT, CANTOPEN.
        7 | 8 | 9 | 14 => Meaning::Away,
        _ => Meaning::Rejected,
    }
}

/// PostgreSQL's SQLSTATE.
fn postgres(state: &str) -> Meaning {
    match state {
        // Serialization failure, deadlock, unique violation: another process was faster.
        "40001" | "40P01" | "23505" => Meaning::Conflict,
        // Query cancelled (statement_timeout), lock not available (lock_timeout).
        "57014" | "55P03" => Meaning::Slow,
        "53100" => Meaning::Full,
        // Data corrupted, index corrupted, undefined column, undefined table, datatype mismatch.
        "XX001" | "XX002" | "42703" | "42P01" | "42804" => Meaning::Corrupt,
        // I/O error.
        "58030" => Meaning::Disk,
        // Shutting down, starting; connection failures; too many connections; read-only; login refused.
        _ if ["57P", "08", "53", "25006", "28"].iter().any(|class| state.starts_with(class)) => Meaning::Away,
        _ => Meaning::Rejected,
    }
}

/// MariaDB's and MySQL's error numbers.
fn mysql(number: u16) -> Meaning {
    match number {
        // Duplicate key, deadlock, record changed since last read.
        1062 | 1213 | 1020 => Meaning::Conflict,
        // Lock wait timeout, max_statement_time (MariaDB), max_execution_time (MySQL).
        1205 | 1969 | 3024 => Meaning::Slow,
        // Disk full, table full.
        1021 | 1114 => Meaning::Full,
        // Unknown column, no such table, incorrect key file, crashed table, index corrupt.
        1054 | 1146 | 1034 | 1194 | 1712 => Meaning::Corrupt,
        // Error reading or writing a file.
        1024 | 1026 => Meaning::Disk,
        // Too many connections, login refused, no such database, shutting down, network, read-only, killed.
        1040 | 1044 | 1045 | 1047 | 1049 | 1053 | 1152 | 1154..=1161 | 1203 | 1290 | 1317 | 1836 | 1927 => {
            Meaning::Away
        }
        _ => Meaning::Rejected,
    }
}

/// The driver's error, if that is where it comes from.
fn driver(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(inner))
        | DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner)) => Some(inner),
        _ => None,
    }
}

fn meaning(error: &DbErr) -> Meaning {
    use sqlx::Error;
    match (driver(error), error) {
        (Some(Error::Database(inner)), _) => engine_meaning(inner.as_ref()),
        // The database answered, but not with what the schema promises.
        (
            Some(
                Error::ColumnDecode { .. }
                | Error::Decode(_)
                | Error::ColumnNotFound(_)
                | Error::ColumnIndexOutOfBounds { .. }
                | Error::TypeNotFound { .. }
                | Error::RowNotFound,
            ),
            _,
        )
        | (None, DbErr::Type(_) | DbErr::TryIntoErr { .. } | DbErr::UnpackInsertId) => Meaning::Corrupt,
        _ => Meaning::Away,
    }
}

fn engine_meaning(error: &dyn sqlx::error::DatabaseError) -> Meaning {
    if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return mysql(error.number());
    }
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
        return postgres(&code);
    }
    code.parse().map_or(Meaning::Rejected, sqlite)
}

/// Whether a pool had no connection to give, for as long as one waits.
pub(super) fn is_none_free(error: &DbErr) -> bool {
    matches!(error, DbErr::ConnectionAcquire(_))
}

/// Whether the server says that there is no such database.
pub(super) fn is_no_such_database(error: &DbErr) -> bool {
    let Some(sqlx::Error::Database(inner)) = driver(error) else { return false };
    match inner.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        Some(error) => error.number() == 1049,
        None => inner.code().as_deref() == Some("3D000"),
    }
}

/// Whether SQLite was not allowed to write what it had to, to do what it was asked.
pub(super) fn is_read_only(error: &DbErr) -> bool {
    let Some(sqlx::Error::Database(inner)) = driver(error) else { return false };
    // READONLY, whatever the reason.
    inner.code().and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| code & 0xff == 8)
}

/// Whether somebody else made the database in between.
pub(super) fn is_database_there(error: &DbErr) -> bool {
    let Some(sqlx::Error::Database(inner)) = driver(error) else { return false };
    matches!(inner.code().as_deref(), Some("42P04" | "23505"))
}

/// Why a database did not open.
pub(super) fn open_error(path: std::path::PathBuf, error: &DbErr) -> OpenError {
    match meaning(error) {
        Meaning::Corrupt => OpenError::Foreign { path, why: error.to_string() },
        _ => OpenError::Unreachable { path, why: error.to_string() },
    }
}

/// Whether the disk failed under the database.
pub(super) fn is_disk_failure(error: &DbErr) -> bool {
    meaning(error) == Meaning::Disk
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        let text = error.to_string();
        match meaning(&error) {
            Meaning::Conflict => Self::Conflict(text),
            Meaning::Slow => Self::Busy(text),
            Meaning::Full => Self::Full(text),
            Meaning::Corrupt => Self::Corrupt(text),
            Meaning::Rejected => Self::Rejected(text),
            // What a failing disk means for what was promised is known at the commit alone: see `is_disk_failure`.
            Meaning::Disk | Meaning::Away => Self::Unavailable(text),
        }
    }
}

impl From<DbErr> for RosterError {
    fn from(error: DbErr) -> Self {
        Self::Store(error.into())
    }
}
