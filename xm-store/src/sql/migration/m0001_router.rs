//! RouterDB, first step: users and the answers to registration requests.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, binary_len, integer, small_integer, string_len, var_binary, var_binary_null, var_binary_uniq,
};

use super::{Rows, index, profile_columns, table};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "router_0001"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut placements = Table::create();
        placements
            .table("placements")
            // AUTOINCREMENT: an id is never given out again, not even after its row is gone.
            .col(ColumnDef::new("user").big_integer().not_null().auto_increment().primary_key())
            .col(string_len("name", 128))
            .col(var_binary_uniq("name_folded", 128))
            .col(string_len("email", 254))
            // Folding may lengthen an address: up to three bytes for two.
            .col(var_binary_uniq("email_folded", 768))
            .col(var_binary("salt", 16))
            .col(big_integer("kdf_memory_kib"))
            .col(big_integer("kdf_passes"))
            .col(big_integer("kdf_lanes"))
            .col(var_binary("token", 32))
            .col(small_integer("state"))
            .col(big_integer("expires"))
            .col(integer("cluster"))
            .col(integer("presence"))
            .col(big_integer("registered_at"))
            .col(var_binary_null("key_hash", 32));
        profile_columns(&mut placements);
        table(manager, placements).await?;
        index(manager, "placements", &["token"], Rows::Any).await?;
        index(manager, "placements", &["state", "expires"], Rows::Any).await?;
        let mut requests = Table::create();
        requests
            .table("requests")
            .col(binary_len("request", 16))
            .col(small_integer("kind"))
            .col(small_integer("answer"))
            .col(big_integer("user"))
            .col(big_integer("at"))
            .primary_key(Index::create().col("request").col("kind"));
        table(manager, requests).await?;
        index(manager, "requests", &["at"], Rows::Any).await
    }
}
