//! The search index in PresenceDB: kept in step with the accounts, filled where it is missing. Queries are in `search.rs`.
//!
//! A user who wants to be found has a row of folded texts in `searchables` and, for every two characters that stand side
//! by side in one of them, a row in `search_pairs`. A pair names candidates; what is found is decided by the texts.

use std::collections::BTreeSet;
use std::time::Duration;

use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, ModelTrait, QueryFilter, QueryOrder, QuerySelect,
};

use super::database::Database;
use super::decode::signed;
use super::entity::searchable::Model;
use super::entity::{account as accounts, search_fill, search_pair, searchable};
use super::unique::Unique;
use crate::error::StoreError;
use crate::folding::{Folded, fold};
use crate::records::Account;

/// The version of folding and pairs. Raised together with a step of the schema that empties both tables: the next start
/// fills them anew.
pub(super) const VERSION: i16 = 1;
/// Accounts put into the index in one commit. Each commit writes many pages of a large index, so few would be cheaper; but
/// each must end in the time that any change has.
const BATCH: u64 = 1_000;
/// Where even this is too much for one change, something else is wrong.
const BATCH_MIN: u64 = 32;
/// How often a batch may fail while nobody else gets on with it either.
const IN_VAIN_MAX: u32 = 5;
/// Before the next try after another process was faster.
const PAUSE: Duration = Duration::from_millis(100);
/// Before the next try after an outage: longer than the database counts as away.
const PAUSE_AWAY: Duration = Duration::from_millis(1_100);
/// Rows in one insert. A power of two, as are all that are smaller: statements are cached by their text.
const ROWS_MAX: usize = 1_024;

/// Where a text is: people's names are searched together, places apart, so that a large city is in nobody's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    People,
    Places,
}

/// The pairs of neighbouring characters in a folded text: 21 bits each, below the space.
pub(super) fn pairs(space: Space, folded: &str) -> BTreeSet<i64> {
    let space = i64::from(space == Space::Places) << 42;
    let code = |character: char| i64::from(u32::from(character));
    folded.chars().zip(folded.chars().skip(1)).map(|(one, two)| space | code(one) << 21 | code(two)).collect()
}

pub(super) fn all_pairs(texts: Option<&Folded>) -> BTreeSet<i64> {
    let Some(texts) = texts else { return BTreeSet::new() };
    let mut all = pairs(Space::People, &texts.name);
    all.extend(pairs(Space::People, &texts.nickname));
    all.extend(pairs(Space::Places, &texts.location));
    all
}

pub(super) fn row(user: i64, texts: &Folded) -> Model {
    Model {
        user,
        name: texts.name.clone().into_bytes(),
        nickname: texts.nickname.clone().into_bytes(),
        location: texts.location.clone().into_bytes(),
        email: texts.email.clone().map(String::into_bytes),
    }
}

/// Brings the index from `before` to `after`, two states of one account; `None` is one that does not exist.
pub(super) async fn update(
    txn: &DatabaseTransaction,
    before: Option<&Account>,
    after: Option<&Account>,
) -> Result<(), StoreError> {
    let Some(user) = before.or(after).map(|account| signed(account.user.0)) else { return Ok(()) };
    replace(txn, user, before.and_then(Folded::of).as_ref(), after.and_then(Folded::of).as_ref()).await
}

/// Takes a user out of the index, by what the index itself holds: also one whose account cannot be read any more.
pub(super) async fn erase(txn: &DatabaseTransaction, user: i64) -> Result<(), StoreError> {
    let Some(row) = searchable::Entity::find_by_id(user).unique(txn).await? else { return Ok(()) };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (name, nickname, location) = (text(&row.name), text(&row.nickname), text(&row.location));
    let before = Folded { name, nickname, location, email: row.email.as_deref().map(text) };
    replace(txn, user, Some(&before), None).await
}

async fn replace(
    txn: &DatabaseTransaction,
    user: i64,
    before: Option<&Folded>,
    after: Option<&Folded>,
) -> Result<(), StoreError> {
    if before == after {
        return Ok(());
    }
    if before.is_some() {
        searchable::Entity::delete_by_id(user).exec(txn).await?;
    }
    if let Some(after) = after {
        searchable::Entity::insert(row(user, after).into_active_model()).exec_without_returning(txn).await?;
    }
    let (old, new) = (all_pairs(before), all_pairs(after));
    remove_pairs(txn, user, old.difference(&new).copied().collect()).await?;
    insert_rows(txn, new.difference(&old).map(|pair| search_pair::Model { pair: *pair, user }).collect()).await
}

async fn remove_pairs(txn: &DatabaseTransaction, user: i64, mut pairs: Vec<i64>) -> Result<(), StoreError> {
    let Some(last) = pairs.last().copied() else { return Ok(()) };
    pairs.resize(pairs.len().next_power_of_two(), last);
    search_pair::Entity::delete_many()
        .filter(search_pair::Column::User.eq(user))
        .filter(search_pair::Column::Pair.is_in(pairs))
        .exec(txn)
        .await?;
    Ok(())
}

/// Inserts any number of rows, in as few statements as it takes.
pub(super) async fn insert_rows<M>(txn: &DatabaseTransaction, rows: Vec<M>) -> Result<(), StoreError>
where
    M: ModelTrait + IntoActiveModel<<M::Entity as EntityTrait>::ActiveModel> + Clone,
    <M::Entity as EntityTrait>::ActiveModel: Send,
{
    let mut rest = &rows[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(ROWS_MAX.min(1 << rest.len().ilog2()));
        let now = now.iter().map(|row| row.clone().into_active_model());
        M::Entity::insert_many(now).exec_without_returning(txn).await?;
        rest = later;
    }
    Ok(())
}

/// Puts every account into the index that is not in it yet: after the step of the schema that made it. May be cut short at
/// any point; the next call goes on from there.
pub(super) async fn fill(database: &Database) -> Result<(), StoreError> {
    let (mut size, mut in_vain, mut reached) = (BATCH, 0, i64::MIN);
    loop {
        let fill = search_fill::Entity::find_by_id(VERSION).unique(&database.reader().await?).await?;
        if fill.as_ref().is_some_and(|fill| fill.done != 0) {
            return Ok(());
        }
        if let Some(fill) = fill.filter(|fill| fill.last_user > reached) {
            (reached, in_vain) = (fill.last_user, 0);
        }
        match database.write(size, |txn, size| Box::pin(fill_batch(txn, *size))).await {
            Ok(()) => {}
            // Another process fills, too, and was faster: what it did need not be done again.
            Err(StoreError::Conflict(_) | StoreError::Busy(_)) if in_vain < IN_VAIN_MAX => {
                in_vain += 1;
                tokio::time::sleep(PAUSE).await;
            }
            // Too much for one change on this machine.
            Err(StoreError::Unavailable(_)) if size > BATCH_MIN => {
                size /= 2;
                tokio::time::sleep(PAUSE_AWAY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn fill_batch(txn: &DatabaseTransaction, size: u64) -> Result<(), StoreError> {
    let fill = match search_fill::Entity::find_by_id(VERSION).unique(txn).await? {
        Some(fill) => fill,
        None => {
            let fill = search_fill::Model { version: VERSION, last_user: i64::MIN, done: 0 };
            search_fill::Entity::insert(fill.clone().into_active_model()).exec_without_returning(txn).await?;
            fill
        }
    };
    let batch = accounts::Entity::find()
        .select_only()
        .columns([accounts::Column::User, accounts::Column::Name, accounts::Column::Nickname])
        .columns([accounts::Column::Location, accounts::Column::Email])
        .columns([accounts::Column::InSearch, accounts::Column::ByEmail])
        .filter(accounts::Column::User.gt(fill.last_user))
        .order_by_asc(accounts::Column::User)
        .limit(size)
        .into_tuple::<(i64, String, String, String, String, i16, i16)>()
        .all(txn)
        .await?;
    // Straight from the columns: an account that is damaged elsewhere must not keep the others from being found.
    let (mut pairs, mut rows) = (BTreeSet::new(), Vec::new());
    for (user, name, nickname, location, email, _, by_email) in batch.iter().filter(|account| account.5 != 0) {
        let email = (*by_email != 0).then(|| fold(email));
        let texts = Folded { name: fold(name), nickname: fold(nickname), location: fold(location), email };
        pairs.extend(all_pairs(Some(&texts)).into_iter().map(|pair| (pair, *user)));
        rows.push(row(*user, &texts));
    }
    insert_rows(txn, rows).await?;
    insert_rows(txn, pairs.into_iter().map(|(pair, user)| search_pair::Model { pair, user }).collect()).await?;
    let done = (batch.len() as u64) < size;
    search_fill::Entity::update_many()
        .col_expr(search_fill::Column::LastUser, Expr::value(batch.last().map_or(fill.last_user, |account| account.0)))
        .col_expr(search_fill::Column::Done, Expr::value(i16::from(done)))
        .filter(search_fill::Column::Version.eq(VERSION))
        .exec(txn)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_told_apart_by_order_and_space() {
        let one = |space, text| pairs(space, text).into_iter().next();
        assert_eq!(pairs(Space::People, "a").len(), 0);
        assert_eq!(pairs(Space::People, "aaaa").len(), 1);
        assert_ne!(one(Space::People, "ab"), one(Space::People, "ba"));
        assert_ne!(one(Space::People, "ab"), one(Space::Places, "ab"));
        assert!(one(Space::Places, "\u{10ffff}\u{10ffff}") > Some(0), "all of them fit 64 bits");
    }
}
