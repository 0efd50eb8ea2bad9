//! Table `placements`: the users of all Presences, as the Router knows them.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "placements")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub user: i64,
    pub name: String,
    #[sea_orm(unique)]
    pub name_folded: Vec<u8>,
    pub email: String,
    #[sea_orm(unique)]
    pub email_folded: Vec<u8>,
    pub salt: Vec<u8>,
    pub kdf_memory_kib: i64,
    pub kdf_passes: i64,
    pub kdf_lanes: i64,
    pub token: Vec<u8>,
    /// 0 registered, 1 activating, 2 active.
    pub state: i16,
    /// While registered.
    pub expires: i64,
    /// The home, from activating on; 0 before.
    pub cluster: i32,
    pub presence: i32,
    pub registered_at: i64,
    /// `NULL` once the account is handed over; the profile is empty then.
    pub key_hash: Option<Vec<u8>>,
    pub nickname: String,
    pub personal_msg: String,
    pub birthdate: String,
    pub location: String,
    pub gender: i16,
    pub avatar: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
