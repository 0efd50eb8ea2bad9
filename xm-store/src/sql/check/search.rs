//! What holds between accounts and the search index in PresenceDB.

use std::collections::{HashMap, HashSet};

use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};

use super::{Check, walk};
use crate::error::StoreError;
use crate::folding::Folded;
use crate::sql::entity::{account, search_fill, search_pair, searchable};
use crate::sql::{accounts, search_index};

pub(super) async fn check(check: &mut Check<'_>) -> Result<(), StoreError> {
    let fill = search_fill::Entity::find_by_id(search_index::VERSION).one(&check.db).await?;
    // What a start has not yet filled holds nothing to rely on.
    if fill.is_none_or(|fill| fill.done == 0) {
        return Ok(());
    }
    let mut known = 0;
    walk!(check, "searchables", account::Entity::find(), account::Column::User, |row| row.user, |rows| {
        let users = rows.iter().map(|row| row.user);
        let found = searchable::Entity::find().filter(searchable::Column::User.is_in(users)).all(&check.db).await?;
        known += found.len() as u64;
        let found: HashMap<i64, searchable::Model> = found.into_iter().map(|row| (row.user, row)).collect();
        for row in &rows {
            // An account that cannot be read is a finding already.
            let Ok(account) = accounts::account(row) else { continue };
            searchable(check, Folded::of(&account), (row.user, found.get(&row.user))).await?;
        }
    });
    let all = searchable::Entity::find().count(&check.db).await?;
    check.expect(all == known, format_args!("searchables: {} rows are of nobody", all.saturating_sub(known)));
    let key = (search_pair::Column::Pair, search_pair::Column::User);
    walk!(check, "search_pairs", search_pair::Entity::find(), key, |row| (row.pair, row.user), |rows| {
        let users: HashSet<i64> = rows.iter().map(|row| row.user).collect();
        let found = searchable::Entity::find().filter(searchable::Column::User.is_in(users)).all(&check.db).await?;
        let found: HashSet<i64> = found.into_iter().map(|row| row.user).collect();
        for row in &rows {
            let (pair, user) = (row.pair, row.user);
            check.expect(found.contains(&user), format_args!("search_pairs, {pair}: user {user} is not to be found"));
        }
    });
    Ok(())
}

/// One user in the index: what he wants to be found by, and all of it.
async fn searchable(
    check: &mut Check<'_>,
    texts: Option<Folded>,
    (user, found): (i64, Option<&searchable::Model>),
) -> Result<(), StoreError> {
    let which = format!("searchables, user {user}");
    let Some(texts) = texts else {
        check.expect(found.is_none(), format_args!("{which}: he does not want to be found"));
        return Ok(());
    };
    let is_same = found.is_some_and(|found| *found == search_index::row(user, &texts));
    check.expect(is_same, format_args!("{which}: he is not found by what his account says"));
    let pairs = search_index::all_pairs(Some(&texts));
    let expected = pairs.len() as u64;
    let there = search_pair::Entity::find()
        .filter(search_pair::Column::User.eq(user))
        .filter(search_pair::Column::Pair.is_in(pairs))
        .count(&check.db)
        .await?;
    check.expect(there == expected, format_args!("search_pairs, user {user}: {there} of {expected} are there"));
    Ok(())
}
