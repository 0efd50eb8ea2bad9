//! PresenceDB, first step: accounts, rosters, waiting messages.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, binary_len, blob, small_integer, string_len, var_binary, var_binary_uniq,
};

use super::{Rows, index, profile_columns, table};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "presence_0001"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut accounts = Table::create();
        accounts
            .table("accounts")
            .col(big_integer("user").primary_key())
            .col(string_len("name", 128))
            .col(var_binary_uniq("name_folded", 128))
            .col(string_len("email", 254))
            .col(var_binary("key_hash", 32))
            .col(big_integer("created"))
            .col(big_integer_null("last_login"))
            .col(big_integer("failed_attempts"))
            .col(big_integer_null("last_failed"));
        profile_columns(&mut accounts);
        table(manager, accounts).await?;
        rosters(manager).await?;
        parcels(manager).await
    }
}

async fn rosters(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let mut rosters = Table::create();
    rosters
        .table("rosters")
        .col(big_integer("owner").primary_key())
        .col(big_integer("changes"))
        .col(big_integer("last_group"));
    table(manager, rosters).await?;
    let mut groups = Table::create();
    groups
        .table("roster_groups")
        .col(big_integer("owner"))
        .col(big_integer("group_id"))
        .col(var_binary("name", 64))
        .primary_key(Index::create().col("owner").col("group_id"));
    table(manager, groups).await?;
    index(manager, "roster_groups", &["owner", "name"], Rows::Unique).await?;
    let mut relations = Table::create();
    relations
        .table("relations")
        .col(big_integer("owner"))
        .col(big_integer("buddy"))
        .col(string_len("owner_name", 128))
        .col(string_len("buddy_name", 128))
        .col(big_integer("group_id"))
        .col(string_len("display_name", 128))
        .col(small_integer("state"))
        .col(big_integer("asked_at"))
        .col(string_len("greeting", 256))
        .primary_key(Index::create().col("owner").col("buddy"));
    table(manager, relations).await?;
    index(manager, "relations", &["buddy"], Rows::Any).await?;
    let mut blocks = Table::create();
    blocks
        .table("blocks")
        .col(big_integer("owner"))
        .col(big_integer("other"))
        .col(string_len("other_name", 128))
        .col(big_integer("at"))
        .primary_key(Index::create().col("owner").col("other"));
    table(manager, blocks).await?;
    index(manager, "blocks", &["other"], Rows::Any).await
}

async fn parcels(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let mut parcels = Table::create();
    parcels
        .table("parcels")
        .col(ColumnDef::new("place").big_integer().not_null().auto_increment().primary_key())
        .col(big_integer("recipient"))
        .col(big_integer("sender"))
        .col(binary_len("msg", 16))
        .col(big_integer("sent"))
        .col(blob("body"))
        .col(big_integer("bytes"))
        .col(var_binary("hash", 32))
        .col(small_integer("level"))
        .col(big_integer("at"));
    table(manager, parcels).await?;
    index(manager, "parcels", &["recipient", "sender", "msg"], Rows::Unique).await?;
    index(manager, "parcels", &["recipient", "level", "place"], Rows::Any).await?;
    index(manager, "parcels", &["level", "sent"], Rows::Any).await
}
