//! The published steps of each database, oldest first. A published step never changes: the next one corrects it.
//!
//! A step is named after its database, so that a file of another role is recognised.

mod m0001_presence;
mod m0001_register;
mod m0001_router;
mod m0002_presence;
mod m0003_presence;
mod m0004_presence;

use sea_orm_migration::prelude::*;

/// The steps of one database.
pub(super) trait Steps: MigratorTrait {
    /// How the names of all its steps begin.
    const ROLE: &'static str;
}

/// RouterDB.
pub(super) struct Router;

/// PresenceDB of one identity.
pub(super) struct Presence;

/// RegisterDB.
pub(super) struct Register;

impl Steps for Router {
    const ROLE: &'static str = "router_";
}

impl Steps for Presence {
    const ROLE: &'static str = "presence_";
}

impl Steps for Register {
    const ROLE: &'static str = "register_";
}

impl MigratorTrait for Router {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m0001_router::Step)]
    }
}

impl MigratorTrait for Presence {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_presence::Step),
            Box::new(m0002_presence::Step),
            Box::new(m0003_presence::Step),
            Box::new(m0004_presence::Step),
        ]
    }
}

impl MigratorTrait for Register {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m0001_register::Step)]
    }
}

/// The columns of a profile: the longest texts its bounds allow.
fn profile_columns(table: &mut TableCreateStatement) {
    use sea_orm_migration::schema::{small_integer, string_len, var_binary_null};
    table
        .col(string_len("nickname", 128))
        .col(string_len("personal_msg", 256))
        .col(string_len("birthdate", 10))
        .col(string_len("location", 128))
        .col(small_integer("gender"))
        .col(var_binary_null("avatar", 32));
}

/// Makes a table. MariaDB and MySQL commit each statement of a step by itself, so a step that was cut off by a crash is
/// made again, and what it made before is left as it is.
async fn table(manager: &SchemaManager<'_>, mut table: TableCreateStatement) -> Result<(), DbErr> {
    manager.create_table(table.if_not_exists().take()).await
}

/// Whether several rows may be alike.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    Any,
    Unique,
}

/// Makes an index named after its table and columns, unless it is there: see [`table`].
async fn index(
    manager: &SchemaManager<'_>,
    table: &'static str,
    columns: &[&'static str],
    rows: Rows,
) -> Result<(), DbErr> {
    let name = format!("ix_{table}_{}", columns.join("_"));
    if manager.has_index(table, &name).await? {
        return Ok(());
    }
    let mut index = Index::create();
    index.name(name).table(table);
    for column in columns {
        index.col(*column);
    }
    if rows == Rows::Unique {
        index.unique();
    }
    manager.create_index(index).await
}
