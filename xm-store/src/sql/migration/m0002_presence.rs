//! PresenceDB, second step: who may be found, and the search index. It is filled when the database is opened: folding is
//! not done in SQL.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, small_integer, var_binary, var_binary_null};
use sea_orm_migration::sea_orm::DbBackend;

use super::{Rows, index, table};

pub(super) struct Step;

impl MigrationName for Step {
    fn name(&self) -> &'static str {
        "presence_0002"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = [
            ("in_search", small_integer("in_search").default(1).take()),
            ("by_email", small_integer("by_email").default(0).take()),
            ("profile_version", big_integer("profile_version").default(1).take()),
        ];
        for (name, column) in columns {
            // One by one, because SQLite adds no two columns at once; see `table` for the question.
            if !manager.has_column("accounts", name).await? {
                manager.alter_table(Table::alter().table("accounts").add_column(column).take()).await?;
            }
        }
        searchables(manager).await?;
        let mut pairs = Table::create();
        pairs
            .table("search_pairs")
            .col(big_integer("pair"))
            .col(big_integer("user"))
            .primary_key(Index::create().col("pair").col("user"));
        if manager.get_database_backend() == DbBackend::Sqlite {
            // Otherwise each row is kept twice, in the table and in its key.
            pairs.extra("WITHOUT ROWID");
        }
        table(manager, pairs).await?;
        let mut fills = Table::create();
        fills
            .table("search_fills")
            .col(small_integer("version").primary_key())
            .col(big_integer("last_user"))
            .col(small_integer("done"));
        table(manager, fills).await
    }
}

async fn searchables(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let mut searchables = Table::create();
    searchables
        .table("searchables")
        .col(big_integer("user").primary_key())
        .col(var_binary("name", 512))
        .col(var_binary("nickname", 512))
        .col(var_binary("location", 512))
        .col(var_binary_null("email", 512));
    table(manager, searchables).await?;
    for columns in [["name", "user"], ["nickname", "user"], ["location", "user"], ["email", "user"]] {
        index(manager, "searchables", &columns, Rows::Any).await?;
    }
    Ok(())
}
