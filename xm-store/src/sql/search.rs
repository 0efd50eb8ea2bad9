//! [`Search`] in PresenceDB: which users, in which order of looking. The index is kept by `search_index.rs`.
//!
//! Every condition is put to the folded texts of a user, byte by byte. What differs is which users are looked at: those
//! that the most selective condition names, if these are few; else all, by ascending id, until enough are found. So a
//! frequent text ends early, a rare one looks at few, and no query costs more than one walk over a compact table.

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, ExprTrait, Func, Query as Sql, SelectStatement, SimpleExpr, UnionType};
use sea_orm::{
    ColumnTrait, Condition as All, ConnectionTrait, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use tokio::sync::Semaphore;
use xmmep::types::UserId;

use super::SqlPresence;
use super::accounts::account;
use super::connect::WAIT_MAX;
use super::database::Reader;
use super::decode::{signed, user};
use super::entity::searchable::{Column, Entity};
use super::entity::{account as accounts, block, search_pair};
use super::search_index::{Space, pairs};
use crate::error::StoreError;
use crate::search::{Condition, HITS_MAX, Hits, Key, Mode, Query, Search};

/// Searches at once. Half of the readers: the other half is for those who log in meanwhile.
const SEARCHES: usize = 2;
/// A condition that names more users than this names too many: looking each up costs more than walking past all.
const CANDIDATES_MAX: u64 = 50_000;
/// Pairs of a text that are counted to find its rarest.
const PROBES_MAX: usize = 8;
/// A pair this rare is rare enough: no other is counted.
const RARE: u64 = 200;

pub(super) fn turns() -> Semaphore {
    Semaphore::new(SEARCHES)
}

fn columns(key: Key) -> &'static [Column] {
    match key {
        Key::Name => &[Column::Name],
        Key::Nickname => &[Column::Nickname],
        Key::Email => &[Column::Email],
        Key::Location => &[Column::Location],
        Key::NameOrNickname => &[Column::Name, Column::Nickname],
    }
}

/// What [`Condition::matches`] says, in SQL.
fn matches(condition: &Condition, backend: DbBackend) -> All {
    let text = condition.folded().as_bytes();
    let is_in = |column: &Column| -> SimpleExpr {
        match condition.mode() {
            Mode::Whole => column.eq(text),
            Mode::Prefix => {
                let start = Func::cust("substr").arg(column.into_expr()).arg(1).arg(text.len() as i32);
                Expr::expr(start).eq(text)
            }
            // Bytes in bytes: UTF-8 cannot match in the middle of a character.
            Mode::Part if backend == DbBackend::Postgres => {
                Expr::cust_with_exprs("position($1 in $2) > 0", [Expr::value(text), column.into_expr()])
            }
            Mode::Part => Expr::expr(Func::cust("instr").arg(column.into_expr()).arg(text)).gt(0),
        }
    };
    columns(condition.key()).iter().fold(All::any(), |any, column| any.add(is_in(column)))
}

/// The ids of the users that an index names for a condition, perhaps with some that do not match. `None` if no index
/// helps.
fn candidates(condition: &Condition, rarest: Option<i64>) -> Option<SelectStatement> {
    let text = condition.folded().as_bytes();
    let select = |filter: SimpleExpr| Sql::select().column(Column::User).from(Entity).and_where(filter).take();
    let by_text = |column: &Column| match condition.mode() {
        Mode::Whole => select(column.eq(text)),
        _ => select(column.gte(text).and(column.lt(behind(text)))),
    };
    match condition.mode() {
        Mode::Whole | Mode::Prefix => {
            let mut parts = columns(condition.key()).iter().map(by_text);
            let mut first = parts.next()?;
            for part in parts {
                first.union(UnionType::Distinct, part);
            }
            Some(first)
        }
        Mode::Part => {
            let filter = search_pair::Column::Pair.eq(rarest?);
            Some(Sql::select().column(search_pair::Column::User).from(search_pair::Entity).and_where(filter).take())
        }
    }
}

/// The first text behind all that begin with `text`. UTF-8 has no byte 0xff.
fn behind(text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    if let Some(last) = text.last_mut() {
        *last = last.saturating_add(1);
    }
    text
}

/// How many rows `select` has; counting ends at `max`.
async fn count(db: &Reader<'_>, mut select: SelectStatement, max: u64) -> Result<u64, StoreError> {
    let first = select.limit(max).take();
    let count = Sql::select().expr_as(Expr::cust("COUNT(*)"), "rows").from_subquery(first, "candidates").take();
    let row = db.query_one(&count).await?;
    let rows: i64 = row.map_or(Ok(0), |row| row.try_get("", "rows"))?;
    Ok(rows.cast_unsigned())
}

/// The rarest of some pairs of the text, and how many users have it.
async fn rarest(db: &Reader<'_>, condition: &Condition) -> Result<Option<i64>, StoreError> {
    let space = if condition.key() == Key::Location { Space::Places } else { Space::People };
    let pairs: Vec<_> = pairs(space, condition.folded()).into_iter().collect();
    let (mut best, mut rows) = (None, CANDIDATES_MAX);
    for pair in pairs.iter().step_by(pairs.len().div_ceil(PROBES_MAX).max(1)) {
        let Some(select) = candidates(condition, Some(*pair)) else { continue };
        let found = count(db, select, rows).await?;
        if found < rows {
            (best, rows) = (Some(*pair), found);
        }
        if rows <= RARE {
            break;
        }
    }
    Ok(best)
}

/// The users to look at: those whom the most selective condition names, or `None` for all.
async fn narrowed(db: &Reader<'_>, query: &Query) -> Result<Option<SelectStatement>, StoreError> {
    let (mut best, mut rows) = (None, CANDIDATES_MAX);
    for condition in query.conditions() {
        let rarest = if condition.mode() == Mode::Part { rarest(db, condition).await? } else { None };
        let Some(select) = candidates(condition, rarest) else { continue };
        let found = count(db, select.clone(), rows).await?;
        if found < rows {
            (best, rows) = (Some(select), found);
        }
    }
    Ok(best)
}

/// The first [`HITS_MAX`] + 1 users who match, by ascending id.
async fn matching(db: &Reader<'_>, query: &Query) -> Result<Vec<UserId>, StoreError> {
    let narrowed = narrowed(db, query).await?;
    let blocks = Sql::select()
        .expr(Expr::value(1))
        .from(block::Entity)
        .and_where(block::Column::Owner.into_expr().equals(Column::User))
        .and_where(block::Column::Other.eq(signed(query.asker().0)))
        .take();
    let mut filter = All::all().add(Expr::exists(blocks).not());
    for condition in query.conditions() {
        filter = filter.add(matches(condition, db.get_database_backend()));
    }
    if let Some(narrowed) = narrowed {
        filter = filter.add(Column::User.in_subquery(narrowed));
    }
    let mut found: Vec<UserId> = Vec::new();
    // Ids from 2^63 on are stored as negative numbers: they come last.
    for half in [Column::User.gte(0), Column::User.lt(0)] {
        let left = (HITS_MAX + 1 - found.len()) as u64;
        let users = Entity::find().select_only().column(Column::User).filter(filter.clone()).filter(half);
        let users: Vec<i64> = users.order_by_asc(Column::User).limit(left).into_tuple().all(db).await?;
        found.extend(users.into_iter().map(user));
        if found.len() > HITS_MAX {
            break;
        }
    }
    Ok(found)
}

#[async_trait]
impl Search for SqlPresence {
    async fn find(&self, query: &Query, after: Option<UserId>, max: usize) -> Result<Hits, StoreError> {
        let turn = tokio::time::timeout(WAIT_MAX, self.searching.acquire()).await;
        let _turn = turn.map_err(|_| StoreError::Busy("too many searches at once".into()))?;
        let db = &self.database.reader().await?;
        let found = matching(db, query).await?;
        let (page, total, next) = Hits::page(&found, after, max);
        let mut ids: Vec<_> = page.iter().map(|user| signed(user.0)).collect();
        let Some(last) = ids.last().copied() else { return Ok(Hits { cards: Vec::new(), total, next }) };
        ids.resize(ids.len().next_power_of_two(), last);
        let rows = accounts::Entity::find().filter(accounts::Column::User.is_in(ids)).all(db).await?;
        // An account that cannot be read is left out: it must not keep the others from being found.
        let mut cards: Vec<_> = rows.iter().filter_map(|row| Some(account(row).ok()?.card())).collect();
        cards.sort_unstable_by_key(|card| card.user);
        Ok(Hits { cards, total, next })
    }
}
