//! Looking up a row of which there is at most one.

use sea_orm::{ConnectionTrait, DbErr, EntityTrait, Select};

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
