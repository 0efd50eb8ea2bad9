//! Table `accounts`: the users of a Presence.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "accounts")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub user: i64,
    pub name: String,
    #[sea_orm(unique)]
    pub name_folded: Vec<u8>,
    pub email: String,
    pub key_hash: Vec<u8>,
    pub nickname: String,
    pub personal_msg: String,
    pub birthdate: String,
    pub location: String,
    pub gender: i16,
    pub avatar: Option<Vec<u8>>,
    pub created: i64,
    pub last_login: Option<i64>,
    pub failed_attempts: i64,
    pub last_failed: Option<i64>,
    pub in_search: i16,
    pub by_email: i16,
    pub profile_version: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
