//! PresenceDB, fourth step: how many changes were committed, by which a database that has lost the last ones is known.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::big_integer;

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "presence_0004"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // See `table` for the question.
        if manager.has_column("owners", "changes").await? {
            return Ok(());
        }
        let column = big_integer("changes").default(0).take();
        manager.alter_table(Table::alter().table("owners").add_column(column).take()).await
    }
}
