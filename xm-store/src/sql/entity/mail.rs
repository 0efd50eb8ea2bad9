//! Table `mails`: the outbox of Register.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "mails")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Vec<u8>,
    pub recipient: String,
    pub subject: String,
    /// Empty once sent or given up.
    pub body: String,
    pub created: i64,
    /// 0 waiting, 1 sent, 2 given up.
    pub state: i16,
    pub attempts: i64,
    /// While waiting: not before; then: when it ended.
    pub due: i64,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
