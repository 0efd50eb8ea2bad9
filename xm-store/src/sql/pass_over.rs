//! After a database has gone back to an older state: ids and versions given out since must not come again, or third ones, whose
//! devices and databases know them, would take the new for the old.

use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect, Statement,
};

use super::decode::corrupt;
use super::entity::{account, placement, roster};
use super::{SqlPlacements, SqlPresence};
use crate::error::StoreError;

/// Ids that one change takes from a sequence: a million would take longer than a change may.
const IDS_AT_ONCE: u32 = 10_000;

/// Users whose lists one change raises.
const USERS_AT_ONCE: u64 = 1_000;

impl SqlPlacements {
    /// Passes over the next `count` user ids. Doing so twice does no harm. On PostgreSQL this needs the right to use the
    /// sequence of the ids, which registering does not.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn pass_over_users(&self, count: u32) -> Result<(), StoreError> {
        let mut left = count;
        while left > 0 {
            left -= self.database.write(left, |txn, left| Box::pin(users(txn, *left))).await?;
        }
        Ok(())
    }
}

impl SqlPresence {
    /// Raises the versions of all rosters by `changes` and passes over `groups` group ids, some users at a time: after an error
    /// some have been raised. Doing so twice does no harm.
    ///
    /// # Errors
    /// If the database cannot be written.
    pub async fn pass_over_versions(&self, changes: u32, groups: u16) -> Result<(), StoreError> {
        let mut after = Some(0);
        while let Some(last) = after {
            let some = (changes, groups, last);
            after = self.database.write(some, |txn, some| Box::pin(versions(txn, *some))).await?;
        }
        Ok(())
    }
}

/// Passes over some ids, at most `count`; says how many.
async fn users(txn: &DatabaseTransaction, count: u32) -> Result<u32, StoreError> {
    if txn.get_database_backend() == DbBackend::Postgres {
        let some = Ord::min(count, IDS_AT_ONCE);
        let next = "SELECT count(nextval(pg_get_serial_sequence('placements', 'user'))) FROM generate_series(1, $1)";
        let next = Statement::from_sql_and_values(DbBackend::Postgres, next, [i64::from(some).into()]);
        txn.query_one_raw(next).await?;
        return Ok(some);
    }
    // The others count on from the highest id that ever was in the table.
    let highest = placement::Entity::find().select_only().expr(placement::Column::User.max());
    let highest: Option<Option<i64>> = highest.into_tuple().one(txn).await?;
    let user =
        highest.flatten().unwrap_or(0).checked_add(count.into()).ok_or_else(|| corrupt("no user ids are left"))?;
    placement::Entity::insert(nobody(user).into_active_model()).exec_without_returning(txn).await?;
    placement::Entity::delete_by_id(user).exec(txn).await?;
    Ok(count)
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

/// Raises the versions of some users behind `after`; says up to which, if there are more.
async fn versions(
    txn: &DatabaseTransaction,
    (changes, groups, after): (u32, u16, i64),
) -> Result<Option<i64>, StoreError> {
    let some = account::Entity::find().select_only().column(account::Column::User);
    let some = some.filter(account::Column::User.gt(after)).order_by_asc(account::Column::User);
    let last: Option<i64> = some.offset(USERS_AT_ONCE - 1).limit(1).into_tuple().one(txn).await?;
    raise(txn, changes, groups, (after, last.unwrap_or(i64::MAX))).await?;
    Ok(last)
}

/// Raises the versions of the users behind the first of two ids, up to the second.
async fn raise(txn: &DatabaseTransaction, changes: u32, groups: u16, users: (i64, i64)) -> Result<(), StoreError> {
    let of = |user: Expr| user.clone().gt(users.0).and(user.lte(users.1));
    let with_roster = Query::select().column(roster::Column::Owner).from(roster::Entity).take();
    let mut without = Query::select();
    without.column(account::Column::User).exprs([Expr::value(0_i64), Expr::value(0_i64)]).from(account::Entity);
    without.and_where(of(Expr::col(account::Column::User)));
    without.and_where(Expr::col(account::Column::User).not_in_subquery(with_roster));
    let mut new = Query::insert();
    new.into_table(roster::Entity).columns([roster::Column::Owner, roster::Column::Changes, roster::Column::LastGroup]);
    let new = new.select_from(without).map_err(|error| StoreError::Rejected(error.to_string()))?.to_owned();
    txn.execute(&new).await?;
    roster::Entity::update_many()
        .col_expr(roster::Column::Changes, Expr::col(roster::Column::Changes).add(i64::from(changes)))
        .col_expr(roster::Column::LastGroup, Expr::col(roster::Column::LastGroup).add(i64::from(groups)))
        .filter(of(Expr::col(roster::Column::Owner)))
        .exec(txn)
        .await?;
    Ok(())
}
