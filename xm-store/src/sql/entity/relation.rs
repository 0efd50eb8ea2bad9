//! Table `relations`: who has whom as a buddy. Read from both ends.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "relations")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub owner: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub buddy: i64,
    pub owner_name: String,
    pub buddy_name: String,
    pub group_id: i64,
    pub display_name: String,
    /// 0 pending, 1 refused (pending for the owner), 2 accepted.
    pub state: i16,
    pub asked_at: i64,
    pub greeting: String,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
