//! Looking up a row of which there is at most one.

use sea_orm::{ConnectionTrait, DbErr, EntityTrait, FromQueryResult, QueryTrait, Select, Value};

use super::prepared::Prepared;

/// A query by a key.
pub(super) trait Unique<E: EntityTrait> {
    /// The row, if there is one. Unlike `one`, which adds `LIMIT ?`: whenever that is bound SQLite plans the statement
    /// anew, because the number could change the plan; and that takes longer than to run it.
    fn unique(self, db: &impl ConnectionTrait) -> impl Future<Output = Result<Option<E::Model>, DbErr>> + Send;
}

impl<E: EntityTrait<Model: Sync>> Unique<E> for Select<E> {
    async fn unique(self, db: &impl ConnectionTrait) -> Result<Option<E::Model>, DbErr> {
        Ok(self.all(db).await?.into_iter().next())
    }
}

/// The row with that `key`, if there is one; `query` asks for it, and is made the first time only.
pub(super) async fn by_key<E: EntityTrait>(
    db: &impl ConnectionTrait,
    prepared: &Prepared,
    key: Value,
    query: impl FnOnce(Value) -> Select<E>,
) -> Result<Option<E::Model>, DbErr> {
    let statement = prepared.with(db.get_database_backend(), vec![key.clone()], || query(key).into_query());
    let rows = db.query_all_raw(statement).await?;
    rows.first().map(|row| E::Model::from_query_result(row, "")).transpose()
}
