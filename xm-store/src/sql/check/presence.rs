//! What holds in PresenceDB.

use std::collections::{HashMap, HashSet};

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect};

use super::{Check, search, walk};
use crate::error::StoreError;
use crate::records::{Level, PARCEL_BODY_MAX};
use crate::sql::decode::{number, person, wall};
use crate::sql::entity::{account, block, owner, parcel, relation, roster, roster_group};
use crate::sql::{accounts, contacts, contacts_groups, offline};

pub(super) async fn check(check: &mut Check<'_>) -> Result<(), StoreError> {
    walk!(check, "accounts", account::Entity::find(), account::Column::User, |row| row.user, |rows| {
        for row in &rows {
            let which = format!("accounts, user {}", row.user);
            let Some(account) = check.row(&which, accounts::account(row)) else { continue };
            let is_folded = account.name.folded().into_bytes() == row.name_folded;
            check.expect(is_folded, format_args!("{which}: the name is not what it is unique by"));
        }
    });
    rosters(check).await?;
    relations(check).await?;
    blocks(check).await?;
    parcels(check).await?;
    owners(check).await?;
    search::check(check).await
}

/// Without its row the server could write nothing.
async fn owners(check: &mut Check<'_>) -> Result<(), StoreError> {
    let mut epochs = 0;
    walk!(check, "owners", owner::Entity::find(), owner::Column::Id, |row| row.id, |rows| {
        for row in &rows {
            epochs += 1;
            check.row(format_args!("owners, row {}", row.id), number::<u64>(row.epoch, "an owner epoch"));
            check.row(format_args!("owners, row {}", row.id), number::<u64>(row.changes, "a number of changes"));
        }
    });
    check.expect(epochs == 1, format_args!("owners: {epochs} rows, not one"));
    Ok(())
}

async fn rosters(check: &mut Check<'_>) -> Result<(), StoreError> {
    walk!(check, "rosters", roster::Entity::find(), roster::Column::Owner, |row| row.owner, |rows| {
        for row in &rows {
            let which = format!("rosters, owner {}", row.owner);
            check.row(&which, number::<u64>(row.changes, "a roster's version"));
            check.row(&which, number::<u32>(row.last_group, "a group id"));
        }
    });
    walk!(
        check,
        "roster_groups",
        roster_group::Entity::find(),
        (roster_group::Column::Owner, roster_group::Column::GroupId),
        |row| (row.owner, row.group_id),
        |rows| {
            let owners: HashSet<i64> = rows.iter().map(|row| row.owner).collect();
            let rosters = roster::Entity::find().filter(roster::Column::Owner.is_in(owners)).all(&check.db).await?;
            let last: HashMap<i64, i64> = rosters.iter().map(|roster| (roster.owner, roster.last_group)).collect();
            for row in &rows {
                let which = format!("roster_groups, owner {}, group {}", row.owner, row.group_id);
                check.row(&which, contacts_groups::group(row.group_id, &row.name));
                let given_out = last.get(&row.owner).is_some_and(|last| (1..=*last).contains(&row.group_id));
                check.expect(given_out, format_args!("{which}: its number was never given out"));
            }
        }
    );
    Ok(())
}

async fn relations(check: &mut Check<'_>) -> Result<(), StoreError> {
    walk!(
        check,
        "relations",
        relation::Entity::find(),
        (relation::Column::Owner, relation::Column::Buddy),
        |row| (row.owner, row.buddy),
        |rows| {
            let names = names(&check.db, rows.iter().flat_map(|row| [row.owner, row.buddy])).await?;
            let groups = groups(&check.db, &rows).await?;
            for row in &rows {
                let which = format!("relations, owner {}, buddy {}", row.owner, row.buddy);
                check.row(&which, contacts::entry(row));
                check.row(&which, person(row.owner, &row.owner_name));
                ends(check, &which, &names, [(row.owner, &row.owner_name), (row.buddy, &row.buddy_name)]);
                // The groups of somebody who lives elsewhere are there.
                let has_group =
                    row.group_id == 0 || groups.contains(&(row.owner, row.group_id)) || !names.contains_key(&row.owner);
                check.expect(has_group, format_args!("{which}: there is no group {}", row.group_id));
            }
        }
    );
    Ok(())
}

async fn blocks(check: &mut Check<'_>) -> Result<(), StoreError> {
    walk!(
        check,
        "blocks",
        block::Entity::find(),
        (block::Column::Owner, block::Column::Other),
        |row| (row.owner, row.other),
        |rows| {
            let names = names(&check.db, rows.iter().flat_map(|row| [row.owner, row.other])).await?;
            for row in &rows {
                let which = format!("blocks, owner {}, other {}", row.owner, row.other);
                check.row(&which, person(row.other, &row.other_name));
                check.row(&which, wall(row.at));
                let here = names.contains_key(&row.owner) || names.contains_key(&row.other);
                check.expect(here, format_args!("{which}: neither of them has an account here"));
                is_named(check, &which, &names, (row.other, &row.other_name));
            }
        }
    );
    Ok(())
}

async fn parcels(check: &mut Check<'_>) -> Result<(), StoreError> {
    walk!(check, "parcels", parcel::Entity::find(), parcel::Column::Place, |row| row.place, |rows| {
        let names = names(&check.db, rows.iter().map(|row| row.recipient)).await?;
        for row in rows {
            let which = format!("parcels, place {}", row.place);
            let is_here = names.contains_key(&row.recipient);
            check.expect(is_here, format_args!("{which}: its recipient {} has no account here", row.recipient));
            let Some(level) = check.row(&which, offline::level(&row)) else { continue };
            check.row(&which, wall(row.at));
            let length = row.body.len();
            let as_noted = row.bytes == length as i64 && length <= PARCEL_BODY_MAX;
            check.expect(as_noted, format_args!("{which}: {length} bytes where {} are noted", row.bytes));
            if level == Level::Stored {
                let is_whole = blake3::hash(&row.body).as_bytes() == &row.hash[..];
                check.expect(is_whole, format_args!("{which}: the message is not the one that was stored"));
            } else {
                check.expect(length == 0, format_args!("{which}: a settled message still has its text"));
            }
            check.row(&which, offline::parcel(row));
        }
    });
    Ok(())
}

/// Names of those of `users` who have an account here.
async fn names(
    db: &impl ConnectionTrait,
    users: impl Iterator<Item = i64>,
) -> Result<HashMap<i64, String>, StoreError> {
    let users: HashSet<i64> = users.collect();
    let found = account::Entity::find().filter(account::Column::User.is_in(users));
    let found = found.select_only().columns([account::Column::User, account::Column::Name]);
    Ok(found.into_tuple::<(i64, String)>().all(db).await?.into_iter().collect())
}

/// The groups of the owners of `rows`, as far as `rows` are in them.
async fn groups(db: &impl ConnectionTrait, rows: &[relation::Model]) -> Result<HashSet<(i64, i64)>, StoreError> {
    let grouped = || rows.iter().filter(|row| row.group_id != 0);
    let (owners, ids): (HashSet<i64>, HashSet<i64>) = grouped().map(|row| (row.owner, row.group_id)).unzip();
    let found = roster_group::Entity::find()
        .filter(roster_group::Column::Owner.is_in(owners))
        .filter(roster_group::Column::GroupId.is_in(ids));
    Ok(found.all(db).await?.into_iter().map(|row| (row.owner, row.group_id)).collect())
}

/// Both ends of a relation: at least one lives here, and whoever does has the name that stands there.
fn ends(check: &mut Check<'_>, which: &str, names: &HashMap<i64, String>, ends: [(i64, &String); 2]) {
    let here = ends.iter().any(|(user, _)| names.contains_key(user));
    check.expect(here, format_args!("{which}: neither of them has an account here"));
    ends.into_iter().for_each(|end| is_named(check, which, names, end));
}

fn is_named(check: &mut Check<'_>, which: &str, names: &HashMap<i64, String>, (user, name): (i64, &String)) {
    let is_so = names.get(&user).is_none_or(|known| known == name);
    check.expect(is_so, format_args!("{which}: user {user} has another name"));
}

pub(super) async fn is_empty(db: &impl ConnectionTrait) -> Result<bool, StoreError> {
    let one = account::Entity::find().select_only().column(account::Column::User).limit(1).into_tuple::<i64>();
    Ok(one.one(db).await?.is_none())
}

pub(super) async fn has_waiting(db: &impl ConnectionTrait) -> Result<bool, StoreError> {
    let waiting = parcel::Entity::find().filter(parcel::Column::Level.eq(offline::column(Level::Stored)));
    let one = waiting.select_only().column(parcel::Column::Place).limit(1).into_tuple::<i64>();
    Ok(one.one(db).await?.is_some())
}
