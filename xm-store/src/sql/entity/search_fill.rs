//! Table `search_fills`: how far the accounts have been put into the search index, per version of folding.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "search_fills")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub version: i16,
    pub last_user: i64,
    pub done: i16,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
