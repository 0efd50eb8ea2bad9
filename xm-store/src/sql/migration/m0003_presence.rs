//! PresenceDB, third step: the owner epoch, by which a Presence that was replaced is kept from writing.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, small_integer};

use super::table;

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "presence_0003"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut owners = Table::create();
        owners.table("owners").col(small_integer("id").primary_key());
        owners.col(big_integer("epoch")).col(big_integer("claim"));
        table(manager, owners).await?;
        // One row, whatever an earlier try has left: what is locked must be there.
        let db = manager.get_connection();
        if db.query_one(Query::select().column("id").from("owners")).await?.is_none() {
            let mut first = Query::insert();
            first.into_table("owners").columns(["id", "epoch", "claim"]);
            first.values_panic([1_i16.into(), 0_i64.into(), 0_i64.into()]);
            db.execute(&first).await?;
        }
        Ok(())
    }
}
