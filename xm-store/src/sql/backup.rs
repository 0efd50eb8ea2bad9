//! Copies of SQLite databases while others use them. Servers have tools of their own for that.
//!
//! Each copy is one moment of its database. For all copies together to be one state of the whole, nothing may be written to
//! the first database from the moment of its copy to the moments of the others: it is locked until each copy has begun,
//! which takes milliseconds, and not while they are written. Writers to it wait meanwhile, as they do for each other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sea_orm::sqlx::{self, sqlite::SqliteConnectOptions};
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connect::WAIT_MAX;
use super::failure::open_error;
use crate::error::OpenError;

/// How long writers are kept waiting at most. Less than they are ready to wait.
const HOLD_MAX: Duration = Duration::from_secs(3);
/// How often it is looked whether the copies have begun.
const LOOK: Duration = Duration::from_millis(1);

/// A database file and where its copy goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCopy {
    /// A database, perhaps in use.
    pub from: PathBuf,
    /// A file that does not exist yet, in a directory that does.
    pub to: PathBuf,
}

/// Copies SQLite databases that others may be using: each as it is at one moment of the call, all moments within a time in
/// which nothing is written to `first`. So whoever writes to `first`, then to another, then to `first` again is found at
/// one point of that way, never with a later step and without an earlier one.
///
/// Returns once the copies are on stable storage; their directory is the caller's to flush. After an error what is
/// there is of no use.
///
/// # Errors
/// If a file cannot be read or written, or the copies do not begin in time because the machine is too busy.
pub async fn copy_files(first: &FileCopy, others: &[FileCopy]) -> Result<(), OpenError> {
    let failed = |error: DbErr| open_error(first.from.clone(), &error);
    let holder = open(&first.from, Access::Write).await?;
    let options =
        TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
    let held = holder.begin_with_options(options).await.map_err(failed)?;
    let mut copies = Vec::new();
    for copy in [first].into_iter().chain(others).cloned() {
        let db = open(&copy.from, Access::Read).await?;
        let to = copy.to.clone();
        copies.push((to, tokio::spawn(async move { copy_one(&db, &copy).await })));
    }
    let begun = all_have_begun(&copies).await;
    held.rollback().await.map_err(failed)?;
    holder.close().await.map_err(failed)?;
    for (to, copy) in copies {
        copy.await.map_err(|error| OpenError::Unreachable { path: to, why: error.to_string() })??;
    }
    if begun {
        return Ok(());
    }
    let why = "the copies did not begin in time; try again when the machine is less busy".into();
    Err(OpenError::Unreachable { path: first.from.clone(), why })
}

/// Waits until each copy shows a moment that lies behind us. SQLite writes the first byte of a copy after it has begun to
/// read, and small copies at their end.
async fn all_have_begun(copies: &[(PathBuf, JoinHandle<Result<(), OpenError>>)]) -> bool {
    let since = Instant::now();
    let has_begun = |to: &Path| to.metadata().is_ok_and(|file| file.len() > 0);
    while !copies.iter().all(|(to, copy)| copy.is_finished() || has_begun(to)) {
        if since.elapsed() > HOLD_MAX {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

async fn copy_one(db: &DatabaseConnection, copy: &FileCopy) -> Result<(), OpenError> {
    let unusable = |why: String| OpenError::Unreachable { path: copy.to.clone(), why };
    let to = copy.to.to_str().ok_or_else(|| unusable("its name is no text".into()))?;
    // SQLite writes into an empty file: this one was never readable for others.
    let mut private = std::fs::OpenOptions::new();
    private.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut private, 0o600);
    private.open(&copy.to).map_err(|error| unusable(error.to_string()))?;
    let vacuum = Statement::from_sql_and_values(DbBackend::Sqlite, "VACUUM INTO ?", [to.into()]);
    let copied = db.execute_raw(vacuum).await;
    // It was only read from.
    let _ = db.close_by_ref().await;
    copied.map_err(|error| open_error(copy.from.clone(), &error))?;
    let path = copy.to.clone();
    let flush = move || std::fs::OpenOptions::new().write(true).open(path)?.sync_all();
    let flushed = tokio::task::spawn_blocking(flush).await.map_err(|error| unusable(error.to_string()))?;
    flushed.map_err(|error| unusable(error.to_string()))
}

/// Passes over the next `count` user ids in the RouterDB at `file`, which nobody else has open.
///
/// After going back to an older state, ids given out since would be given to other people, whom the devices and
/// databases of third ones take for those before.
///
/// # Errors
/// If the file cannot be read or written.
pub async fn skip_users(file: &Path, count: u32) -> Result<(), OpenError> {
    let db = open(file, Access::Write).await?;
    let sql = "INSERT INTO sqlite_sequence (name, seq) SELECT 'placements', 0 \
        WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'placements'); \
        UPDATE sqlite_sequence SET seq = seq + {count} WHERE name = 'placements'";
    let skipped = db.execute_unprepared(&sql.replace("{count}", &count.to_string())).await;
    let closed = db.close().await;
    skipped.map(drop).and(closed).map_err(|error| open_error(file.to_owned(), &error))
}

/// Raises the versions of all rosters by `changes` and passes over `groups` group ids, in the PresenceDB at `file`, which
/// nobody else has open.
///
/// After going back to an older state, a version or group id given out since would come again, and a device that knows it
/// would believe that its list is the present one.
///
/// # Errors
/// If the file cannot be read or written.
pub async fn skip_versions(file: &Path, changes: u32, groups: u16) -> Result<(), OpenError> {
    let db = open(file, Access::Write).await?;
    let sql = format!(
        "BEGIN IMMEDIATE; \
        INSERT INTO rosters (owner, changes, last_group) SELECT \"user\", 0, 0 FROM accounts \
            WHERE \"user\" NOT IN (SELECT owner FROM rosters); \
        UPDATE rosters SET changes = changes + {changes}, last_group = last_group + {groups}; COMMIT"
    );
    let skipped = db.execute_unprepared(&sql).await;
    let closed = db.close().await;
    skipped.map(drop).and(closed).map_err(|error| open_error(file.to_owned(), &error))
}

/// What a connection to a file is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Not a byte is changed.
    Read,
    /// It may be.
    Write,
}

/// One connection to a file that is there. What a database is set to stays as it is.
pub(super) async fn open(path: &Path, access: Access) -> Result<DatabaseConnection, OpenError> {
    connect(path, access).await.map_err(|error| open_error(path.to_owned(), &error))
}

/// The same, with SQLite's own words if it fails.
pub(super) async fn connect(path: &Path, access: Access) -> Result<DatabaseConnection, DbErr> {
    let file = path.to_owned();
    let mut options = ConnectOptions::new("sqlite://database");
    options.max_connections(1).connect_timeout(WAIT_MAX).acquire_timeout(WAIT_MAX).sqlx_logging(false);
    options.map_sqlx_sqlite_opts(move |_| {
        let options = SqliteConnectOptions::new().filename(&file).read_only(access == Access::Read);
        sqlx::ConnectOptions::disable_statement_logging(options.busy_timeout(WAIT_MAX))
    });
    sea_orm::Database::connect(options).await
}
