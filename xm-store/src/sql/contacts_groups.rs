//! Groups and versions of rosters in PresenceDB.

use std::collections::HashSet;

use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter,
    QuerySelect,
};
use xmmep::bounded::Text;
use xmmep::types::{GroupId, RosterVersion, UserId};

use super::decode::{corrupt, number, signed, text};
use super::entity::roster_group::{Column, Entity, Model};
use super::entity::{relation, roster};
use super::search_index::insert_rows;
use super::unique::Unique;
use crate::error::{RosterError, RosterRefusal, StoreError};
use crate::records::{GROUPS_MAX, Group};

/// The version of a roster.
pub(super) async fn version(db: &impl ConnectionTrait, owner: UserId) -> Result<RosterVersion, StoreError> {
    let row = roster::Entity::find_by_id(signed(owner.0)).unique(db).await?;
    version_of(row.map_or(0, |row| row.changes))
}

/// The version of a roster that was changed so often.
pub(super) fn version_of(changes: i64) -> Result<RosterVersion, StoreError> {
    let changes: u64 = number(changes, "a roster's version")?;
    Ok(RosterVersion(1 + changes))
}

/// Raises the version of a roster by one and returns it.
pub(super) async fn changed(txn: &DatabaseTransaction, owner: UserId) -> Result<RosterVersion, StoreError> {
    let raised = roster::Entity::update_many()
        .col_expr(roster::Column::Changes, Expr::col(roster::Column::Changes).add(1))
        .filter(roster::Column::Owner.eq(signed(owner.0)))
        .exec(txn)
        .await?;
    if raised.rows_affected == 0 {
        let row = roster::Model { owner: signed(owner.0), changes: 1, last_group: 0 };
        roster::Entity::insert(row.into_active_model()).exec_without_returning(txn).await?;
    }
    version(txn, owner).await
}

/// Owners whose rows one statement names.
const OWNERS_MAX: usize = 1_000;

/// Raises the versions of any number of rosters by one. One after the other would take longer than a change may.
pub(super) async fn all_changed(txn: &DatabaseTransaction, owners: &[UserId]) -> Result<(), StoreError> {
    for some in owners.chunks(OWNERS_MAX) {
        let mut named: Vec<_> = some.iter().map(|owner| signed(owner.0)).collect();
        // Few lengths: each is a statement of its own to the database.
        named.resize(named.len().next_power_of_two(), signed(some[0].0));
        let those = roster::Column::Owner.is_in(named);
        let there = roster::Entity::find().filter(those.clone()).select_only().column(roster::Column::Owner);
        let there: HashSet<i64> = there.into_tuple::<i64>().all(txn).await?.into_iter().collect();
        let raised = roster::Entity::update_many()
            .col_expr(roster::Column::Changes, Expr::col(roster::Column::Changes).add(1))
            .filter(those);
        raised.exec(txn).await?;
        let missing = some.iter().map(|owner| signed(owner.0)).filter(|owner| !there.contains(owner));
        insert_rows(txn, missing.map(|owner| roster::Model { owner, changes: 1, last_group: 0 }).collect()).await?;
    }
    Ok(())
}

/// [`changed`] or [`version`].
pub(super) async fn changed_if(
    txn: &DatabaseTransaction,
    owner: UserId,
    is_changed: bool,
) -> Result<RosterVersion, StoreError> {
    if is_changed { changed(txn, owner).await } else { version(txn, owner).await }
}

/// Refuses a group that does not exist.
pub(super) async fn check(txn: &DatabaseTransaction, owner: UserId, group: GroupId) -> Result<(), RosterError> {
    if group == GroupId::DEFAULT || find(txn, owner, group).await?.is_some() {
        return Ok(());
    }
    Err(RosterRefusal::NoSuchGroup(group).into())
}

pub(super) fn group(id: i64, name: &[u8]) -> Result<Group, StoreError> {
    let name = std::str::from_utf8(name).map_err(corrupt)?;
    Ok(Group { group: GroupId(number(id, "a group id")?), name: text(name)? })
}

async fn find(txn: &DatabaseTransaction, owner: UserId, group: GroupId) -> Result<Option<Model>, StoreError> {
    Ok(Entity::find_by_id((signed(owner.0), i64::from(group.0))).unique(txn).await?)
}

async fn find_name(txn: &DatabaseTransaction, owner: UserId, name: &str) -> Result<Option<Model>, StoreError> {
    let of_owner = Entity::find().filter(Column::Owner.eq(signed(owner.0)));
    Ok(of_owner.filter(Column::Name.eq(name.as_bytes().to_vec())).unique(txn).await?)
}

/// Takes the next group id. The roster's row exists: the version was raised before.
async fn next_id(txn: &DatabaseTransaction, owner: UserId) -> Result<i64, StoreError> {
    roster::Entity::update_many()
        .col_expr(roster::Column::LastGroup, Expr::col(roster::Column::LastGroup).add(1))
        .filter(roster::Column::Owner.eq(signed(owner.0)))
        .exec(txn)
        .await?;
    let row = roster::Entity::find_by_id(signed(owner.0)).unique(txn).await?;
    row.map(|row| row.last_group).ok_or_else(|| corrupt(format_args!("no roster of user {owner}")))
}

pub(super) async fn create(
    txn: &DatabaseTransaction,
    me: UserId,
    name: &Text<64>,
) -> Result<(GroupId, RosterVersion), RosterError> {
    if let Some(row) = find_name(txn, me, name).await? {
        return Ok((group(row.group_id, &row.name)?.group, version(txn, me).await?));
    }
    if Entity::find().filter(Column::Owner.eq(signed(me.0))).count(txn).await? >= GROUPS_MAX as u64 {
        return Err(RosterRefusal::LimitReached(GROUPS_MAX).into());
    }
    let version = changed(txn, me).await?;
    let group_id = next_id(txn, me).await?;
    let row = Model { owner: signed(me.0), group_id, name: name.as_bytes().to_vec() };
    let created = group(row.group_id, &row.name)?.group;
    Entity::insert(row.into_active_model()).exec_without_returning(txn).await?;
    Ok((created, version))
}

pub(super) async fn rename(
    txn: &DatabaseTransaction,
    me: UserId,
    group: GroupId,
    name: &Text<64>,
) -> Result<RosterVersion, RosterError> {
    check(txn, me, group).await?;
    match find_name(txn, me, name).await? {
        Some(row) if row.group_id == i64::from(group.0) => return Ok(version(txn, me).await?),
        Some(_) => return Err(RosterRefusal::GroupNameTaken.into()),
        None => {}
    }
    Entity::update_many()
        .col_expr(Column::Name, Expr::value(name.as_bytes().to_vec()))
        .filter(Column::Owner.eq(signed(me.0)))
        .filter(Column::GroupId.eq(i64::from(group.0)))
        .exec(txn)
        .await?;
    Ok(changed(txn, me).await?)
}

pub(super) async fn delete(
    txn: &DatabaseTransaction,
    me: UserId,
    group: GroupId,
) -> Result<RosterVersion, RosterError> {
    let gone = Entity::delete_by_id((signed(me.0), i64::from(group.0))).exec(txn).await?.rows_affected > 0;
    if gone {
        relation::Entity::update_many()
            .col_expr(relation::Column::GroupId, Expr::value(i64::from(GroupId::DEFAULT.0)))
            .filter(relation::Column::Owner.eq(signed(me.0)))
            .filter(relation::Column::GroupId.eq(i64::from(group.0)))
            .exec(txn)
            .await?;
    }
    Ok(changed_if(txn, me, gone).await?)
}

/// Erases groups and version.
pub(super) async fn erase(txn: &DatabaseTransaction, owner: UserId) -> Result<(), StoreError> {
    Entity::delete_many().filter(Column::Owner.eq(signed(owner.0))).exec(txn).await?;
    roster::Entity::delete_by_id(signed(owner.0)).exec(txn).await?;
    Ok(())
}
