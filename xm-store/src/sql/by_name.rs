//! Looking for users by their names: the first thing a login does, at the Router and at the Presence.

use std::marker::PhantomData;
use std::sync::Arc;

use sea_orm::{EntityTrait, Value};

use super::database::Database;
use super::together::{PreparedLists, Shared, by_keys};
use crate::error::StoreError;

/// A table with one row for each name.
pub(super) trait Named: EntityTrait<Model: Sync> {
    /// What a row says.
    type Record: Send + 'static;
    /// The column of names, folded.
    const FOLDED: Self::Column;

    /// The name in a row, folded.
    fn folded(row: &Self::Model) -> &[u8];
    /// What the row says.
    fn decode(row: &Self::Model) -> Result<Self::Record, StoreError>;
}

/// Looking for a row by its name.
pub(super) struct ByName<E> {
    database: Arc<Database>,
    statements: PreparedLists,
    table: PhantomData<E>,
}

impl<E> ByName<E> {
    pub(super) fn new(database: Arc<Database>) -> Self {
        Self { database, statements: PreparedLists::default(), table: PhantomData }
    }
}

impl<E: Named> Shared for ByName<E> {
    /// A name, folded.
    type Key = Vec<u8>;
    type Found = Option<E::Record>;

    async fn find(&self, names: &[&Vec<u8>]) -> Result<Vec<Option<E::Record>>, StoreError> {
        let wanted = names.iter().map(|name| Value::from((*name).clone()));
        let rows = by_keys::<E>(&self.database.reader().await?, &self.statements, E::FOLDED, wanted).await?;
        let row = |name: &Vec<u8>| rows.iter().find(|row| E::folded(row) == name);
        names.iter().map(|name| row(name).map(E::decode).transpose()).collect()
    }
}
