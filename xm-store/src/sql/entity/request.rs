//! Table `requests`: the remembered answers to registration requests.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "requests")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub request: Vec<u8>,
    /// 0 registration, 1 renewal.
    #[sea_orm(primary_key, auto_increment = false)]
    pub kind: i16,
    pub answer: i16,
    /// With an answer that names a user.
    pub user: i64,
    pub at: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
