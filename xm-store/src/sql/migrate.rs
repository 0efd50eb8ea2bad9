//! Bringing a database to the newest schema: made if missing, checked, migrated; one process at a time. The steps
//! themselves are in `migration/`.

use std::path::Path;

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, SqliteTransactionMode, Statement, TransactionOptions,
    TransactionTrait,
};

use super::address::Address;
use super::backup;
use super::connect::{Pool, Use, WAIT_MAX, make_private};
use super::failure::{is_database_there, is_no_such_database, is_read_only, open_error};
use super::migration::Steps;
use crate::error::OpenError;

/// How far a database is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaStatus {
    /// Steps it has, oldest first.
    pub applied: Vec<String>,
    /// Steps it lacks. Opening the database makes them.
    pub pending: Vec<String>,
}

/// Makes the database if it is missing and brings it to the newest schema.
pub(super) async fn bring_up<M: Steps>(address: &Address) -> Result<(), OpenError> {
    bring_to::<M>(address, None).await
}

/// The same; with a number, by at most so many steps.
pub(super) async fn bring_to<M: Steps>(address: &Address, steps: Option<u32>) -> Result<(), OpenError> {
    if let Address::Sqlite(path) = address {
        // Looked at before a byte or a mode is changed of what may be another program's.
        look::<M>(path, address).await?;
        make_private(path)?;
    }
    let failed = |error: DbErr| open_error(address.shown(), &error);
    let pool = match Pool::open(address, Use::Migrate, 1).await {
        Err(error) if is_no_such_database(&error) => {
            create(address).await?;
            Pool::open(address, Use::Migrate, 1).await
        }
        opened => opened,
    }
    .map_err(failed)?;
    let mut result = migrate::<M>(&pool, address, steps).await;
    if result.is_ok() && matches!(address, Address::Sqlite(_)) {
        // Whether the last run ended well is not known.
        result = pool.write_back().await.map(|_| ()).map_err(failed);
    }
    pool.close().await;
    result
}

/// How far the database is, without changing it. A database that is missing has no step.
pub(super) async fn status<M: Steps>(address: &Address) -> Result<SchemaStatus, OpenError> {
    let known = known::<M>();
    let missing = SchemaStatus { applied: Vec::new(), pending: known.clone() };
    let applied = if let Address::Sqlite(path) = address {
        look::<M>(path, address).await?
    } else {
        let pool = match Pool::open(address, Use::Read, 1).await {
            Err(error) if is_no_such_database(&error) => return Ok(missing),
            opened => opened.map_err(|error| open_error(address.shown(), &error))?,
        };
        let applied = in_time(address, applied::<M>(&pool.get(), address)).await;
        pool.close().await;
        applied?
    };
    let pending = known.into_iter().filter(|step| !applied.contains(step)).collect();
    Ok(SchemaStatus { applied, pending })
}

/// The steps that a database in a file has, read without changing anything. A file that is missing or empty has none.
async fn look<M: Steps>(path: &Path, address: &Address) -> Result<Vec<String>, OpenError> {
    let failed = |error: std::io::Error| OpenError::Unreachable { path: address.shown(), why: error.to_string() };
    if !path.try_exists().map_err(failed)? || path.metadata().is_ok_and(|file| file.is_file() && file.len() == 0) {
        return Ok(Vec::new());
    }
    let db = match backup::connect(path, backup::Access::Read).await {
        // A transaction was cut short. To undo it is the one thing that whoever reads any program's file must write.
        Err(error) if is_read_only(&error) && has_journal(path) => backup::connect(path, backup::Access::Write).await,
        opened => opened,
    };
    let db = db.map_err(|error| open_error(path.to_owned(), &error))?;
    let applied = in_time(address, applied::<M>(&db, address)).await;
    // It was only read from. The `-wal` and `-shm` that SQLite may have made to read may stay beside the file.
    let _ = db.close().await;
    applied
}

/// Whether a transaction that uses no write-ahead log is under way, or was when its process ended.
fn has_journal(path: &Path) -> bool {
    let mut journal = path.as_os_str().to_owned();
    journal.push("-journal");
    Path::new(&journal).exists()
}

pub(super) fn known<M: Steps>() -> Vec<String> {
    M::migrations().iter().map(|step| step.name().to_owned()).collect()
}

/// All steps in one transaction where the engine can do that, and one process at a time in any case.
async fn migrate<M: Steps>(pool: &Pool, address: &Address, steps: Option<u32>) -> Result<(), OpenError> {
    let failed = |error: DbErr| open_error(address.shown(), &error);
    let known = known::<M>();
    let options =
        TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
    // Looked at before anything is written to what may be another program's.
    if in_time(address, applied::<M>(&pool.get(), address)).await? == known {
        return Ok(());
    }
    let txn = pool.get().begin_with_options(options).await.map_err(failed)?;
    if !lock(&txn, address).await.map_err(failed)? {
        return Err(OpenError::InUse(address.shown()));
    }
    // Another process may have been faster.
    applied::<M>(&txn, address).await?;
    let result = M::up(&txn, steps).await;
    unlock(&txn).await;
    result.map_err(failed)?;
    txn.commit().await.map_err(failed)
}

/// The number of our lock among all advisory locks of a PostgreSQL database: "XMigrate" in ASCII.
const LOCK_NUMBER: i64 = i64::from_be_bytes(*b"XMigrate");

/// Waits for other processes that migrate. SQLite's transaction has waited already.
async fn lock(txn: &DatabaseTransaction, address: &Address) -> Result<bool, DbErr> {
    match txn.get_database_backend() {
        DbBackend::Postgres => {
            txn.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({LOCK_NUMBER})")).await?;
            Ok(true)
        }
        DbBackend::MySql => {
            let name = format!("x-messenger {}", address.database().unwrap_or_default());
            let name: String = name.chars().take(64).collect();
            let sql = "SELECT GET_LOCK(?, 120) AS held";
            let row = txn.query_one_raw(Statement::from_sql_and_values(DbBackend::MySql, sql, [name.into()])).await?;
            Ok(row.map(|row| row.try_get::<Option<i64>>("", "held")).transpose()?.flatten() == Some(1))
        }
        _ => Ok(true),
    }
}

/// PostgreSQL unlocks with the end of the transaction, MySQL only with that of the connection.
async fn unlock(txn: &DatabaseTransaction) {
    if txn.get_database_backend() == DbBackend::MySql {
        // If this fails the connection is gone, and the lock with it.
        let _ = txn.execute_unprepared("DO RELEASE_ALL_LOCKS()").await;
    }
}

/// What a look at a database finds, in time. Changes of the schema take as long as they take; looks do not.
pub(super) async fn in_time<T>(
    address: &Address,
    look: impl Future<Output = Result<T, OpenError>>,
) -> Result<T, OpenError> {
    tokio::time::timeout(WAIT_MAX, look).await.unwrap_or_else(|_| {
        let why = "the database did not answer in time".into();
        Err(OpenError::Unreachable { path: address.shown(), why })
    })
}

/// The steps that a database has. Refuses what is not ours, or not yet known to us.
pub(super) async fn applied<M: Steps>(db: &impl ConnectionTrait, address: &Address) -> Result<Vec<String>, OpenError> {
    let (known, role) = (known::<M>(), M::ROLE);
    let foreign = |why: String| OpenError::Foreign { path: address.shown(), why };
    let failed = |error: DbErr| open_error(address.shown(), &error);
    let backend = db.get_database_backend();
    let tables = match backend {
        DbBackend::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table'",
        DbBackend::MySql => "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = DATABASE()",
        _ => "SELECT table_name::text AS name FROM information_schema.tables WHERE table_schema = current_schema()",
    };
    let list = |sql: &str| db.query_all_raw(Statement::from_string(backend, sql.to_owned()));
    let tables = list(tables).await.map_err(failed)?;
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<String> =
        tables.iter().map(|row| row.try_get("", "name")).collect::<Result<_, _>>().map_err(failed)?;
    if !names.iter().any(|name| name == "seaql_migrations") {
        return Err(foreign("it is a database of another program".into()));
    }
    let mut steps = Vec::new();
    for row in list("SELECT version FROM seaql_migrations ORDER BY version").await.map_err(failed)? {
        let step: String = row.try_get("", "version").map_err(failed)?;
        if !step.starts_with(role) {
            return Err(foreign(format!("it holds {step}, not {role}…")));
        }
        if !known.contains(&step) {
            return Err(OpenError::Newer { path: address.shown(), found: step });
        }
        steps.push(step);
    }
    Ok(steps)
}

/// Makes a database on its server. If somebody else does at the same time, that is as good.
async fn create(address: &Address) -> Result<(), OpenError> {
    let Some(name) = address.database() else { return Ok(()) };
    let quote = if matches!(address, Address::MySql(_)) { '`' } else { '"' };
    if name.is_empty() || name.contains([quote, '\0', '\\']) {
        let why = format!("{name:?} is no name for a database");
        return Err(OpenError::Unreachable { path: address.shown(), why });
    }
    let (beside, sql) = match address {
        Address::MySql(_) => (
            address.beside("information_schema"),
            format!("CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"),
        ),
        _ => (
            address.beside("postgres"),
            format!("CREATE DATABASE \"{name}\" ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"),
        ),
    };
    let failed = |error: DbErr| {
        let why = format!("there is no such database, and it cannot be made here ({error}); let its owner run: {sql}");
        OpenError::Unreachable { path: address.shown(), why }
    };
    let pool = Pool::open(&beside, Use::Migrate, 1).await.map_err(failed)?;
    let made = pool.get().execute_unprepared(&sql).await;
    pool.close().await;
    match made {
        Err(error) if !is_database_there(&error) => Err(failed(error)),
        _ => Ok(()),
    }
}
