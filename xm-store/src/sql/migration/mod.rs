//! The published steps of each database, oldest first. A published step never changes: the next one corrects it.
//!
//! A step is named after its database, so that a file of another role is recognised.

mod m0001_presence;
mod m0001_register;
mod m0001_router;

use sea_orm_migration::prelude::*;

/// RouterDB.
pub(super) struct Router;

/// PresenceDB of one identity.
pub(super) struct Presence;

/// RegisterDB.
pub(super) struct Register;

impl MigratorTrait for Router {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m0001_router::Step)]
    }
}

impl MigratorTrait for Presence {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m0001_presence::Step)]
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

/// An index named after its table and columns.
fn index(table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(format!("ix_{table}_{}", columns.join("_"))).table(table);
    for column in columns {
        index.col(*column);
    }
    index
}
