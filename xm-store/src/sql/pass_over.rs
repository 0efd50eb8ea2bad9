//! After a database has gone back to an older state: ids and versions given out since must not come again, or third ones, whose
//! devices and databases know them, would take the new for the old.

use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, IntoActiveModel, QuerySelect, Statement,
};

use super::decode::corrupt;
use super::entity::{account, placement, roster};
use super::{SqlPlacements, SqlPresence};
use crate::error::StoreError;

impl SqlPlacements {
    /// Passes over the next `count` user ids. Doing so twice does no harm. On PostgreSQL this needs the right to use the
    /// sequence of the ids, which registering does not.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn pass_over_users(&self, count: u32) -> Result<(), StoreError> {
        self.0.write(count, |txn, count| Box::pin(users(txn, *count))).await
    }
}

impl SqlPresence {
    /// Raises the versions of all rosters by `changes` and passes over `groups` group ids. Doing so twice does no harm.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn pass_over_versions(&self, changes: u32, groups: u16) -> Result<(), StoreError> {
        self.database
            .write((changes, groups), |txn, (changes, groups)| Box::pin(versions(txn, *changes, *groups)))
            .await
    }
}

async fn users(txn: &DatabaseTransaction, count: u32) -> Result<(), StoreError> {
    if txn.get_database_backend() == DbBackend::Postgres {
        let next = "SELECT count(nextval(pg_get_serial_sequence('placements', 'user'))) FROM generate_series(1, $1)";
        let next = Statement::from_sql_and_values(DbBackend::Postgres, next, [i64::from(count).into()]);
        txn.query_one_raw(next).await?;
        return Ok(());
    }
    // The others count on from the highest id that ever was in the table.
    let highest = placement::Entity::find().select_only().expr(placement::Column::User.max());
    let highest: Option<Option<i64>> = highest.into_tuple().one(txn).await?;
    let user =
        highest.flatten().unwrap_or(0).checked_add(count.into()).ok_or_else(|| corrupt("no user ids are left"))?;
    placement::Entity::insert(nobody(user).into_active_model()).exec_without_returning(txn).await?;
    placement::Entity::delete_by_id(user).exec(txn).await?;
    Ok(())
}

/// A row that is taken out again.
fn nobody(user: i64) -> placement::Model {
    placement::Model {
        user,
        name: String::new(),
        name_folded: Vec::new(),
        email: String::new(),
        email_folded: Vec::new(),
        salt: Vec::new(),
        kdf_memory_kib: 0,
        kdf_passes: 0,
        kdf_lanes: 0,
        token: Vec::new(),
        state: 0,
        expires: 0,
        cluster: 0,
        presence: 0,
        registered_at: 0,
        key_hash: None,
        nickname: String::new(),
        personal_msg: String::new(),
        birthdate: String::new(),
        location: String::new(),
        gender: 0,
        avatar: None,
    }
}

async fn versions(txn: &DatabaseTransaction, changes: u32, groups: u16) -> Result<(), StoreError> {
    let with_roster = Query::select().column(roster::Column::Owner).from(roster::Entity).take();
    let mut without = Query::select();
    without.column(account::Column::User).exprs([Expr::value(0_i64), Expr::value(0_i64)]).from(account::Entity);
    without.and_where(Expr::col(account::Column::User).not_in_subquery(with_roster));
    let mut new = Query::insert();
    new.into_table(roster::Entity).columns([roster::Column::Owner, roster::Column::Changes, roster::Column::LastGroup]);
    let new = new.select_from(without).map_err(|error| StoreError::Rejected(error.to_string()))?.to_owned();
    txn.execute(&new).await?;
    roster::Entity::update_many()
        .col_expr(roster::Column::Changes, Expr::col(roster::Column::Changes).add(i64::from(changes)))
        .col_expr(roster::Column::LastGroup, Expr::col(roster::Column::LastGroup).add(i64::from(groups)))
        .exec(txn)
        .await?;
    Ok(())
}
