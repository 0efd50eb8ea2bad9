//! RegisterDB, first step: the outbox.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, binary_len, small_integer, string_len, text};

use super::{Rows, index, table};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "register_0001"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut mails = Table::create();
        mails
            .table("mails")
            .col(binary_len("id", 16).primary_key())
            .col(string_len("recipient", 254))
            .col(string_len("subject", 256))
            .col(text("body"))
            .col(big_integer("created"))
            .col(small_integer("state"))
            .col(big_integer("attempts"))
            .col(big_integer("due"))
            .col(string_len("reason", 256));
        table(manager, mails).await?;
        index(manager, "mails", &["state", "due"], Rows::Any).await
    }
}
