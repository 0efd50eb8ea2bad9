//! Table `owners`: who acts as this Presence identity now, and how far it has come. One row.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "owners")]
pub struct Model {
    /// Always 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i16,
    /// 0 until somebody takes over for the first time.
    pub epoch: i64,
    /// A random number of the store that took over, by which it knows itself.
    pub claim: i64,
    /// Commits so far.
    pub changes: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
