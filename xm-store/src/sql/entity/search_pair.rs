//! Table `search_pairs`: which two characters stand side by side in which user's folded texts.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "search_pairs")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub pair: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub user: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
