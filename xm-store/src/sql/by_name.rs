//! Looking for users by their names: the first thing a login does, at the Router and at the Presence.

use std::marker::PhantomData;
use std::sync::Arc;

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryTrait, Value};

use super::database::Database;
use super::prepared::PreparedLists;
use super::together::Shared;
use crate::error::StoreError;

/// A table with one row for each name.
pub(super) trait Named: EntityTrait<Model: Sync> {
    /// What a row says.
    type Record: Clone + Send + 'static;
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
        let (statement, keys) = self.statements.with_keys(names.iter().map(|name| Value::from((*name).clone())));
        let query = || E::find().filter(E::FOLDED.is_in(keys.clone())).into_query();
        let db = self.database.reader().await?;
        let rows = db.query_all_raw(statement.with(db.get_database_backend(), keys.clone(), query)).await?;
        let rows = rows.iter().map(|row| E::Model::from_query_result(row, "")).collect::<Result<Vec<_>, _>>()?;
        let row = |name: &Vec<u8>| rows.iter().find(|row| E::folded(row) == name);
        names.iter().map(|name| row(name).map(E::decode).transpose()).collect()
    }
}
