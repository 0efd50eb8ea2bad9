//! Everything in SQL, through sea-orm: SQLite today, written so that MariaDB and PostgreSQL can follow.
//!
//! | database | opened by | tables |
//! |---|---|---|
//! | RouterDB | [`open_router`] | `placements`, `requests` |
//! | PresenceDB, one per identity | [`open_presence`] | `accounts`, `rosters`, `roster_groups`, `relations`, `blocks`, `parcels` |
//! | RegisterDB | [`open_register`] | `mails` |
//!
//! # SQLite
//!
//! Write-ahead log with `synchronous=FULL`: a commit that returned survives a power cut. One connection writes, under
//! `BEGIN IMMEDIATE`, so that no transaction ever waits for another in the middle; four read. The file is readable by
//! its owner alone. Beside it SQLite keeps `-wal` and `-shm` files: a backup needs all three, or `VACUUM INTO`.
//!
//! Each database is brought to the newest schema when it is opened, all steps in one transaction. One of a newer
//! version, of another role, of another program, or a file that is no database is refused, by name.

mod accounts;
mod contacts;
mod contacts_groups;
mod database;
mod decode;
mod entity;
mod mail_queue;
mod migration;
mod offline;
mod placements;

use std::sync::Arc;

use database::Database;

use crate::Stores;
use crate::error::OpenError;
use crate::records::Quotas;

/// [`Placements`](crate::Placements) in RouterDB.
#[derive(Debug)]
pub struct SqlPlacements(Database);

/// [`Accounts`](crate::Accounts), [`Contacts`](crate::Contacts) and [`Offline`](crate::Offline) in PresenceDB.
#[derive(Debug)]
pub struct SqlPresence {
    database: Database,
    quotas: Quotas,
}

/// [`MailQueue`](crate::MailQueue) in RegisterDB.
#[derive(Debug)]
pub struct SqlMailQueue(Database);

/// Opens RouterDB, or makes it. `url` is `sqlite:` and a path.
///
/// # Errors
/// See [`OpenError`].
pub async fn open_router(url: &str) -> Result<SqlPlacements, OpenError> {
    Database::open::<migration::Router>(url, "router_").await.map(SqlPlacements)
}

/// Opens the PresenceDB of one identity, or makes it. `url` is `sqlite:` and a path.
///
/// # Errors
/// See [`OpenError`].
pub async fn open_presence(url: &str) -> Result<SqlPresence, OpenError> {
    let database = Database::open::<migration::Presence>(url, "presence_").await?;
    Ok(SqlPresence { database, quotas: Quotas::default() })
}

/// Opens RegisterDB, or makes it. `url` is `sqlite:` and a path.
///
/// # Errors
/// See [`OpenError`].
pub async fn open_register(url: &str) -> Result<SqlMailQueue, OpenError> {
    Database::open::<migration::Register>(url, "register_").await.map(SqlMailQueue)
}

impl SqlPlacements {
    /// Closes the database and waits until its files are closed. Later calls fail.
    pub async fn close(&self) {
        self.0.close().await;
    }
}

impl SqlPresence {
    /// The same database with other quotas for offline messages.
    #[must_use]
    pub fn with_quotas(self, quotas: Quotas) -> Self {
        Self { quotas, ..self }
    }

    /// All stores of a Presence, in this database. Replace [`Stores::offline`] to keep messages elsewhere.
    #[must_use]
    pub fn stores(self: &Arc<Self>) -> Stores {
        Stores { accounts: self.clone(), contacts: self.clone(), offline: self.clone() }
    }

    /// Closes the database and waits until its files are closed. Later calls fail.
    pub async fn close(&self) {
        self.database.close().await;
    }
}

impl SqlMailQueue {
    /// Closes the database and waits until its files are closed. Later calls fail.
    pub async fn close(&self) {
        self.0.close().await;
    }
}
