//! Checks of a database that nobody writes to: its file, every row through the code by which the stores read it, and what
//! is true between rows by design. Nothing is changed, and memory is bounded: tables are read in pages.

mod homes;
mod presence;
mod register;
mod router;
mod search;

use std::fmt::Display;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement};

use super::address::Address;
use super::backup;
use super::connect::{Pool, Use, WAIT_MAX};
use super::failure::open_error;
use super::migrate::{applied, known};
use super::migration::{self, Steps};
use super::{Schema, SqlPresence, settings};
use crate::error::{OpenError, StoreError};

pub use homes::check_homes;

/// Findings that are told; more of them are counted.
const FINDINGS_MAX: usize = 100;
/// Rows read at once: at most some 3 MiB, where each holds the longest message.
const PAGE: u64 = 256;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Rows read, by table.
    pub rows: Vec<(&'static str, u64)>,
    /// What is wrong, in words: tables, ids and names, no secrets. Empty is good.
    pub findings: Vec<String>,
    /// How many findings there are beside those.
    pub untold: u64,
}

impl Checked {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, what: impl Display) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(what.to_string());
        } else {
            self.untold += 1;
        }
    }
}

/// Told after each page: a table and how many of its rows were read.
pub type Progress<'a> = dyn FnMut(&'static str, u64) + Send + 'a;

/// A check under way.
struct Check<'a> {
    db: DatabaseConnection,
    checked: Checked,
    progress: &'a mut Progress<'a>,
}

impl Check<'_> {
    /// Notes what is wrong with a row, if anything is.
    fn row<T>(&mut self, which: impl Display, decoded: Result<T, StoreError>) -> Option<T> {
        match decoded {
            Ok(value) => Some(value),
            Err(StoreError::Corrupt(why)) => {
                self.checked.find(format_args!("{which}: {why}"));
                None
            }
            Err(error) => {
                self.checked.find(format_args!("{which}: {error}"));
                None
            }
        }
    }

    /// Notes `what` unless it is as designed.
    fn expect(&mut self, is_so: bool, what: impl Display) {
        if !is_so {
            self.checked.find(what);
        }
    }

    fn page(&mut self, table: &'static str, rows: usize) {
        let total = match self.checked.rows.iter_mut().find(|(known, _)| *known == table) {
            Some((_, total)) => {
                *total += rows as u64;
                *total
            }
            None => {
                self.checked.rows.push((table, rows as u64));
                rows as u64
            }
        };
        (self.progress)(table, total);
    }
}

/// Walks a table by its key, page by page: `walk!(check, "table", entity, (Column::A, Column::B), |row| (row.a, row.b),
/// |rows| { … })`. A page that the database cannot hand over ends the table with a finding.
macro_rules! walk {
    ($check:ident, $table:literal, $find:expr, ($one:expr, $other:expr), |$row:ident| $key:expr, |$rows:ident| $body:block) => {
        $crate::sql::check::walk!(@ $check, $table, $find, ($one, $other), |$row| $key, |$rows| $body, |find, after| {
            // In what a cursor says of two columns the engines see no range: each page would read all before it.
            sea_orm::QueryFilter::filter(find, sea_orm::ColumnTrait::gte(&$one, after.0.clone()))
        })
    };
    ($check:ident, $table:literal, $find:expr, $column:expr, |$row:ident| $key:expr, |$rows:ident| $body:block) => {
        $crate::sql::check::walk!(@ $check, $table, $find, $column, |$row| $key, |$rows| $body, |find, after| find)
    };
    (@ $check:ident, $table:literal, $find:expr, $columns:expr, |$row:ident| $key:expr, |$rows:ident| $body:block,
     |$narrowed:ident, $after:ident| $narrow:expr) => {{
        let mut cursor = $find.cursor_by($columns);
        loop {
            let $rows = match cursor.first($crate::sql::check::PAGE).all(&$check.db).await {
                Ok(rows) => rows,
                Err(error) => match $crate::error::StoreError::from(error) {
                    $crate::error::StoreError::Corrupt(why) => {
                        $check.checked.find(format_args!("{}: {why}; the rest of the table was not read", $table));
                        break;
                    }
                    error => return Err(error),
                },
            };
            $check.page($table, $rows.len());
            let is_last = ($rows.len() as u64) < $crate::sql::check::PAGE;
            let last = $rows.last().map(|$row| $key);
            $body
            let Some($after) = last.filter(|_| !is_last) else { break };
            let $narrowed = $find;
            cursor = $narrow.cursor_by($columns);
            cursor.after($after);
        }
    }};
}
use walk;

impl Schema {
    /// Checks the database at `url`, which nobody may write to meanwhile. Changes nothing.
    ///
    /// For SQLite this includes the file itself; the files of a server are checked by the server's own tools.
    ///
    /// # Errors
    /// If it cannot be opened or stops answering. What is wrong in it is no error but a finding.
    pub async fn check<'a>(self, url: &str, progress: &'a mut Progress<'a>) -> Result<Checked, OpenError> {
        let address = Address::parse(url)?;
        let db = open(&address).await?;
        let mut check = Check { db: db.clone(), checked: Checked::default(), progress };
        let result = self.check_all(&mut check, &address).await;
        close(db).await;
        result.map(|()| check.checked)
    }

    /// Whether the database at `url` has never been of use: it is missing, or nobody and nothing is in it. Changes nothing.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn is_unused(self, url: &str) -> Result<bool, OpenError> {
        if self.status(url).await?.applied.is_empty() {
            return Ok(true);
        }
        let address = Address::parse(url)?;
        let db = open(&address).await?;
        let row = match self {
            Self::Router => router::is_empty(&db).await,
            Self::Presence => presence::is_empty(&db).await,
            Self::Register => register::is_empty(&db).await,
        };
        close(db).await;
        row.map_err(|error| OpenError::Unreachable { path: address.shown(), why: error.to_string() })
    }

    async fn check_all(self, check: &mut Check<'_>, address: &Address) -> Result<(), OpenError> {
        if matches!(address, Address::Sqlite(_)) {
            file(check).await.map_err(|error| open_error(address.shown(), &error))?;
        }
        let complete = match self {
            Self::Router => has_all_steps::<migration::Router>(check, address).await?,
            Self::Presence => has_all_steps::<migration::Presence>(check, address).await?,
            Self::Register => has_all_steps::<migration::Register>(check, address).await?,
        };
        if !complete {
            return Ok(());
        }
        let rows = match self {
            Self::Router => router::check(check).await,
            Self::Presence => presence::check(check).await,
            Self::Register => register::check(check).await,
        };
        rows.map_err(|error| OpenError::Unreachable { path: address.shown(), why: error.to_string() })
    }
}

/// What SQLite says about its file.
async fn file(check: &mut Check<'_>) -> Result<(), DbErr> {
    for (pragma, good) in [("PRAGMA integrity_check(20)", Some("ok")), ("PRAGMA foreign_key_check", None)] {
        let statement = Statement::from_string(check.db.get_database_backend(), pragma);
        for row in check.db.query_all_raw(statement).await? {
            let text: String = row.try_get_by_index(0)?;
            if good != Some(text.as_str()) {
                check.checked.find(format_args!("SQLite: {text}"));
            }
        }
    }
    Ok(())
}

async fn has_all_steps<M: Steps>(check: &mut Check<'_>, address: &Address) -> Result<bool, OpenError> {
    let (known, applied) = (known::<M>(), applied::<M>(&check.db, address).await?);
    let pending: Vec<_> = known.into_iter().filter(|step| !applied.contains(step)).collect();
    let complete = pending.is_empty();
    check.expect(complete, format_args!("the schema lacks {}; its rows were not read", pending.join(", ")));
    Ok(complete)
}

/// A connection that changes nothing: a copy stays, to the byte, what it is.
async fn open(address: &Address) -> Result<DatabaseConnection, OpenError> {
    let failed = |error: DbErr| open_error(address.shown(), &error);
    match address {
        Address::Sqlite(path) => backup::open(path, backup::Access::Read).await,
        _ => Ok(Pool::open(address, Use::Read, 1).await.map_err(failed)?.get()),
    }
}

async fn close(db: DatabaseConnection) {
    // Nothing is left to be said to it; a server that hangs is not waited for.
    let _ = tokio::time::timeout(WAIT_MAX, db.close_by_ref()).await;
}

/// Settings of the server of the database at `url` under which a power cut can lose what was committed, in words; empty
/// is good. For tools: an opened store knows its own.
///
/// # Errors
/// If it cannot be opened.
pub async fn server_warnings(url: &str) -> Result<Vec<String>, OpenError> {
    let address = Address::parse(url)?;
    let db = open(&address).await?;
    let found = settings::unsafe_ones(&db).await;
    close(db).await;
    found.map_err(|error| open_error(address.shown(), &error))
}

impl SqlPresence {
    /// Whether messages wait here.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn has_waiting(&self) -> Result<bool, StoreError> {
        presence::has_waiting(&self.database.reader().await?).await
    }
}
