//! What holds between accounts and the search index in PresenceDB.

use std::collections::{BTreeSet, HashMap, HashSet};

use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};

use super::{Check, walk};
use crate::error::StoreError;
use crate::folding::Folded;
use crate::sql::entity::{account, search_fill, search_pair, searchable};
use crate::sql::{accounts, search_index};

/// Pairs asked for at once. All users of a page may have some in common, and together thousands.
const PAIRS: usize = 1_000;

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
        // An account that cannot be read is a finding already.
        let accounts = rows.iter().filter_map(|row| Some((row.user, accounts::account(row).ok()?)));
        let texts: Vec<_> = accounts.map(|(user, account)| (user, Folded::of(&account))).collect();
        for (user, texts) in &texts {
            searchable(check, (*user, texts.as_ref()), found.get(user));
        }
        pairs(check, &texts).await?;
    });
    let all = searchable::Entity::find().count(&check.db).await?;
    check.expect(all == known, format_args!("searchables: {} rows are of nobody", all.saturating_sub(known)));
    walk!(
        check,
        "search_pairs",
        search_pair::Entity::find(),
        (search_pair::Column::Pair, search_pair::Column::User),
        |row| (row.pair, row.user),
        |rows| {
            let users: HashSet<i64> = rows.iter().map(|row| row.user).collect();
            let found = searchable::Entity::find().filter(searchable::Column::User.is_in(users)).all(&check.db).await?;
            let found: HashSet<i64> = found.into_iter().map(|row| row.user).collect();
            for row in &rows {
                let (pair, user) = (row.pair, row.user);
                check.expect(
                    found.contains(&user),
                    format_args!("search_pairs, {pair}: user {user} is not to be found"),
                );
            }
        }
    );
    Ok(())
}

/// One user in the index: there if he wants to be found, by what his account says.
fn searchable(check: &mut Check<'_>, (user, texts): (i64, Option<&Folded>), found: Option<&searchable::Model>) {
    let which = format!("searchables, user {user}");
    match texts {
        None => check.expect(found.is_none(), format_args!("{which}: he does not want to be found")),
        Some(texts) => {
            let is_same = found.is_some_and(|found| *found == search_index::row(user, texts));
            check.expect(is_same, format_args!("{which}: he is not found by what his account says"));
        }
    }
}

/// The pairs of some users whose ids follow each other: none of them is missing.
async fn pairs(check: &mut Check<'_>, texts: &[(i64, Option<Folded>)]) -> Result<(), StoreError> {
    let (Some((first, _)), Some((last, _))) = (texts.first(), texts.last()) else { return Ok(()) };
    let expected: Vec<_> = texts.iter().map(|(user, texts)| (*user, search_index::all_pairs(texts.as_ref()))).collect();
    let all: BTreeSet<i64> = expected.iter().flat_map(|(_, pairs)| pairs).copied().collect();
    let all: Vec<i64> = all.into_iter().collect();
    let mut there: HashMap<i64, usize> = HashMap::new();
    for some in all.chunks(PAIRS) {
        let rows = search_pair::Entity::find()
            .filter(search_pair::Column::Pair.is_in(some.iter().copied()))
            .filter(search_pair::Column::User.between(*first, *last))
            .all(&check.db)
            .await?;
        for row in rows {
            let is_expected = expected
                .binary_search_by_key(&row.user, |(user, _)| *user)
                .is_ok_and(|at| expected[at].1.contains(&row.pair));
            if is_expected {
                *there.entry(row.user).or_default() += 1;
            }
        }
    }
    for (user, pairs) in &expected {
        let (there, expected) = (there.get(user).copied().unwrap_or(0), pairs.len());
        check.expect(there == expected, format_args!("search_pairs, user {user}: {there} of {expected} are there"));
    }
    Ok(())
}
