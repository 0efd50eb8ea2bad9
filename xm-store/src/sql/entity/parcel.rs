//! Table `parcels`: messages that wait, and the levels of those that did.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "parcels")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub place: i64,
    pub recipient: i64,
    pub sender: i64,
    pub msg: Vec<u8>,
    pub sent: i64,
    /// Empty once settled.
    pub body: Vec<u8>,
    /// Of the body while it waits, else 0.
    pub bytes: i64,
    pub hash: Vec<u8>,
    /// 0 stored, 1 received, 2 read, 3 refused, 4 expired.
    pub level: i16,
    /// When the level last rose.
    pub at: i64,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
