//! Table `searchables`: what is searched of each user who wants to be found, folded.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "searchables")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub user: i64,
    pub name: Vec<u8>,
    pub nickname: Vec<u8>,
    pub location: Vec<u8>,
    pub email: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
