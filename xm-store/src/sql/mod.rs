//! Everything in SQL, through sea-orm: SQLite, MariaDB or MySQL, PostgreSQL. One schema, one code path.
//!
//! | database | opened by | tables |
//! |---|---|---|
//! | RouterDB | [`open_router`] | `placements`, `requests` |
//! | PresenceDB, one per identity | [`open_presence`] | `accounts`, `searchables`, `search_pairs`, `search_fills`, `rosters`, `roster_groups`, `relations`, `blocks`, `parcels`, `owners` |
//! | RegisterDB | [`open_register`] | `mails` |
//!
//! `docs/DATABASE.md` describes every column.
//!
//! # URLs
//!
//! | engine | URL |
//! |---|---|
//! | SQLite | `sqlite:` and a path, taken as it is |
//! | MariaDB, MySQL | `mysql://user:password@host:3306/RouterDB`, or with `?socket=/run/mysqld/mysqld.sock` |
//! | PostgreSQL | `postgres://user:password@host:5432/RouterDB`; a host that is a directory (`%2Frun%2Fpostgresql`) is a socket |
//!
//! A server that is not on this machine has to prove its name by a certificate, unless the URL says otherwise
//! (`ssl-mode`, `sslmode`; `ssl-ca` and `sslrootcert` name the authority). A database that is missing is made.
//!
//! # What a call can rely on
//!
//! A change that returned is committed and flushed. Changes wait in one queue per database and are committed in groups, so
//! a hundred callers pay for one flush. They behave as if one came after the other, also when several processes use a
//! database. Queues are bounded ([`StoreError::Busy`]), every call ends within some seconds
//! ([`StoreError::Unavailable`]), and after an outage the next call finds new connections.
//!
//! Each database is brought to the newest schema when it is opened, by one process at a time. One of a newer version, of
//! another role, of another program, or a file that is no database is refused, by name.
//!
//! SQLite runs with a write-ahead log and `synchronous=FULL`. The file is readable by its owner alone. Beside it stand
//! `-wal` and `-shm` files, which belong to it.

mod accounts;
mod address;
mod backup;
mod by_name;
mod check;
mod connect;
mod contacts;
mod contacts_groups;
mod database;
mod decode;
mod entity;
mod failure;
mod fence;
mod health;
mod import;
mod mail_queue;
mod migrate;
mod migration;
mod offline;
mod panics;
mod pass_over;
mod placements;
mod prepared;
mod roster;
mod search;
mod search_index;
mod server;
mod settings;
mod together;
mod unique;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use address::Address;
pub use backup::{FileCopy, copy_files, skip_users, skip_versions};
use by_name::ByName;
pub use check::{Checked, Progress, check_homes, server_warnings};
use database::Database;
pub use fence::Mark;
pub use health::Stats;
pub use import::IMPORT_MAX;
pub use migrate::SchemaStatus;
use roster::Rosters;
pub use server::{BadServer, Server};
use together::Together;

use crate::Stores;
use crate::error::{OpenError, StoreError};
use crate::records::Quotas;

/// [`Placements`](crate::Placements) in RouterDB.
#[derive(Debug)]
pub struct SqlPlacements {
    database: Arc<Database>,
    by_name: Together<ByName<entity::placement::Entity>>,
}

/// [`Accounts`](crate::Accounts), [`Contacts`](crate::Contacts), [`Search`](crate::Search) and
/// [`Offline`](crate::Offline) in PresenceDB.
#[derive(Debug)]
pub struct SqlPresence {
    database: Arc<Database>,
    by_name: Together<ByName<entity::account::Entity>>,
    rosters: Together<Rosters>,
    quotas: Quotas,
    /// Searches take turns: see `search.rs`.
    searching: tokio::sync::Semaphore,
}

/// [`MailQueue`](crate::MailQueue) in RegisterDB.
#[derive(Debug)]
pub struct SqlMailQueue(Database);

/// Opens RouterDB, or makes it. Must be called on a tokio runtime, which then also makes the changes and the reads that
/// share statements.
///
/// # Errors
/// See [`OpenError`].
pub async fn open_router(url: &str) -> Result<SqlPlacements, OpenError> {
    let database = Arc::new(Database::open::<migration::Router>(url).await?);
    let by_name = database.together(ByName::new(database.clone()));
    Ok(SqlPlacements { database, by_name })
}

/// Opens the PresenceDB of one identity, or makes it. See [`open_router`].
///
/// # Errors
/// See [`OpenError`].
pub async fn open_presence(url: &str) -> Result<SqlPresence, OpenError> {
    let database = Arc::new(Database::open::<migration::Presence>(url).await?);
    let ready = async {
        database.fence().await?;
        search_index::fill(&database).await
    };
    ready.await.map_err(|error| match error {
        StoreError::Corrupt(why) => OpenError::Foreign { path: shown(url), why },
        error => OpenError::Unreachable { path: shown(url), why: error.to_string() },
    })?;
    let by_name = database.together(ByName::new(database.clone()));
    let rosters = database.together(Rosters::new(database.clone()));
    Ok(SqlPresence { database, by_name, rosters, quotas: Quotas::default(), searching: search::turns() })
}

/// What errors call the database: the URL without its password.
fn shown(url: &str) -> PathBuf {
    Address::parse(url).map(|address| address.shown()).unwrap_or_default()
}

/// Opens RegisterDB, or makes it. See [`open_router`].
///
/// # Errors
/// See [`OpenError`].
pub async fn open_register(url: &str) -> Result<SqlMailQueue, OpenError> {
    Database::open::<migration::Register>(url).await.map(SqlMailQueue)
}

/// The schemas, for tools that look at databases or migrate them without opening a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// RouterDB.
    Router,
    /// PresenceDB of one identity.
    Presence,
    /// RegisterDB.
    Register,
}

impl Schema {
    /// How far the database at `url` is. Changes nothing; a database that is missing has no step.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn status(self, url: &str) -> Result<SchemaStatus, OpenError> {
        let address = Address::parse(url)?;
        let status = async {
            match self {
                Self::Router => migrate::status::<migration::Router>(&address).await,
                Self::Presence => migrate::status::<migration::Presence>(&address).await,
                Self::Register => migrate::status::<migration::Register>(&address).await,
            }
        };
        panics::caught_opening(&address, Box::pin(status)).await
    }

    /// Makes the database at `url` if it is missing and brings it to the newest schema, as opening it does.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn migrate(self, url: &str) -> Result<(), OpenError> {
        let address = Address::parse(url)?;
        let migrate = async {
            match self {
                Self::Router => migrate::bring_up::<migration::Router>(&address).await,
                Self::Presence => migrate::bring_up::<migration::Presence>(&address).await,
                Self::Register => migrate::bring_up::<migration::Register>(&address).await,
            }
        };
        panics::caught_opening(&address, Box::pin(migrate)).await
    }

    /// Makes only the next `steps` steps of the database at `url`, so that it is as an older version left it. For tests of
    /// upgrades.
    ///
    /// # Errors
    /// See [`OpenError`].
    #[cfg(feature = "testing")]
    pub async fn migrate_by(self, url: &str, steps: u32) -> Result<(), OpenError> {
        let address = Address::parse(url)?;
        match self {
            Self::Router => migrate::bring_to::<migration::Router>(&address, Some(steps)).await,
            Self::Presence => migrate::bring_to::<migration::Presence>(&address, Some(steps)).await,
            Self::Register => migrate::bring_to::<migration::Register>(&address, Some(steps)).await,
        }
    }
}

/// What all opened databases can say and do.
macro_rules! opened {
    ($store:ty, $($database:tt)+) => {
        impl $store {
            /// Settings of the server under which a power cut can lose what was committed, in words; empty is good.
            #[must_use]
            pub fn warnings(&self) -> &[String] {
                self.$($database)+.warnings()
            }

            /// What the database has done since it was opened.
            #[must_use]
            pub fn stats(&self) -> Stats {
                self.$($database)+.stats()
            }

            /// Closes the database after the changes that wait. Later calls fail.
            pub async fn close(&self) {
                self.$($database)+.close().await;
            }
        }
    };
}

opened!(SqlPlacements, database);
opened!(SqlPresence, database);
opened!(SqlMailQueue, 0);

impl SqlPresence {
    /// The same database with other quotas for offline messages.
    #[must_use]
    pub fn with_quotas(self, quotas: Quotas) -> Self {
        Self { quotas, ..self }
    }

    /// Takes this identity over: from now on whoever acts under a lower owner epoch is refused with
    /// [`StoreError::Fenced`], inside the transaction, so that nothing of theirs is committed and answered any more. To be
    /// called before any other change. Repeating it changes nothing.
    ///
    /// A store acts under the epoch that the database had when it was opened: one that was opened before somebody else
    /// took over is fenced, one that is opened afterwards is not. Whether it may open the database is not known here.
    ///
    /// # Errors
    /// `Fenced` if a higher epoch is there, or another store has taken over since this one was opened.
    pub async fn take_over(&self, epoch: u64) -> Result<(), StoreError> {
        let epoch =
            i64::try_from(epoch).map_err(|_| StoreError::Rejected(format!("owner epoch {epoch} is too high")))?;
        self.database.take_over(epoch).await
    }

    /// How far the database has come, as far as this store knows: at least what it found when it was opened, and what it
    /// committed since. Keep it somewhere else: a database that comes back with a lower one has lost what was answered.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.database.mark().unwrap_or_default()
    }

    /// How it showed that the database was put back to an older state while it was open, if it did: a replica took over that
    /// had not got the last commits, or somebody restored a copy. From then on every change is refused with
    /// [`StoreError::Corrupt`], because what callers have in memory is no longer what is stored. Open it anew.
    #[must_use]
    pub fn put_back(&self) -> Option<&str> {
        self.database.put_back()
    }

    /// All stores of a Presence, in this database. Replace [`Stores::offline`] to keep messages elsewhere.
    #[must_use]
    pub fn stores(self: &Arc<Self>) -> Stores {
        Stores { accounts: self.clone(), contacts: self.clone(), search: self.clone(), offline: self.clone() }
    }
}
