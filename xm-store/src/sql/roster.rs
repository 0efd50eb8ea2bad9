//! Reading whole rosters, in one statement: what a login costs is mostly statements, each of which goes to the thread of a
//! connection and back. And one statement sees one moment, so that the lists fit each other without a transaction.

use std::iter;
use std::sync::Arc;

use sea_orm::sea_query::{Expr, ExprTrait, SelectStatement, UnionType};
use sea_orm::{ConnectionTrait, EntityTrait, Value};
use xmmep::types::{GroupId, UserId};

use super::contacts::{PENDING, state};
use super::contacts_groups as groups;
use super::database::Database;
use super::decode::{corrupt, number, person, signed, text, user, wall};
use super::entity::{block, relation, roster, roster_group};
use super::prepared::PreparedLists;
use super::together::Shared;
use crate::error::StoreError;
use crate::records::{BuddyEntry, BuddyRequest, Group, Person, Roster, Watcher};

/// What a row is. Each has the columns of [`Row`], of which most are null in most rows: whatever is read is copied several
/// times on its way here.
const GROUP: i32 = 0;
const BUDDY: i32 = 1;
const WATCHER: i32 = 2;
const REQUEST: i32 = 3;
const BLOCKED: i32 = 4;
const BLOCKED_BY: i32 = 5;
const VERSION: i32 = 6;

/// Rows that are taken apart at a time. Then others on the same thread have their turn.
const ROWS_AT_ONCE: usize = 64;

/// Parts of the statement, each with the same keys.
const PARTS: usize = 7;

/// What, whose, id, name, group, display name, state, time, greeting; the name of a group.
type Row = (
    i32,
    i64,
    i64,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<i16>,
    Option<i64>,
    Option<String>,
    Option<Vec<u8>>,
);

/// Reading rosters.
pub(super) struct Rosters {
    database: Arc<Database>,
    statements: PreparedLists,
}

impl Rosters {
    pub(super) fn new(database: Arc<Database>) -> Self {
        Self { database, statements: PreparedLists::default() }
    }
}

impl Shared for Rosters {
    type Key = UserId;
    type Found = Roster;

    async fn find(&self, users: &[&UserId]) -> Result<Vec<Roster>, StoreError> {
        let (load, keys) = self.statements.with_keys(users.iter().map(|user| signed(user.0).into()));
        let rows = {
            let db = self.database.reader().await?;
            let values = iter::repeat_n(&keys, PARTS).flatten().cloned().collect();
            let all = load.with(db.get_database_backend(), values, || parts(&keys));
            // Others may read while these rows are taken apart.
            db.query_all_raw(all).await?
        };
        let mut read: Vec<_> = users.iter().map(|_| Lists::default()).collect();
        for (number, row) in (1..).zip(rows) {
            let row: Row = row.try_get_many_by_index()?;
            let owner = user(row.1);
            let whose = users.iter().position(|user| **user == owner);
            let whose = whose.ok_or_else(|| corrupt(format_args!("the roster of {owner}, who was not asked for")))?;
            read[whose].take(row)?;
            if number % ROWS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        read.into_iter().map(Lists::finish).collect()
    }
}

/// All parts. Between them the first two have a value in each column: PostgreSQL takes their types.
fn parts(users: &[Value]) -> SelectStatement {
    use block::Column as Block;
    use relation::Column as Relation;
    use roster_group::Column as Group;
    let mut groups = part::<roster_group::Entity>(GROUP, users, Group::Owner, Group::GroupId, &[(9, Group::Name)]);
    let told = [
        (3, Relation::BuddyName),
        (4, Relation::GroupId),
        (5, Relation::DisplayName),
        (6, Relation::State),
        (7, Relation::AskedAt),
        (8, Relation::Greeting),
    ];
    let buddies = part::<relation::Entity>(BUDDY, users, Relation::Owner, Relation::Buddy, &told);
    let told = [(3, Relation::OwnerName), (6, Relation::State)];
    let watchers = part::<relation::Entity>(WATCHER, users, Relation::Buddy, Relation::Owner, &told);
    let told = [(3, Relation::OwnerName), (7, Relation::AskedAt), (8, Relation::Greeting)];
    let mut requests = part::<relation::Entity>(REQUEST, users, Relation::Buddy, Relation::Owner, &told);
    requests.and_where(Expr::col(Relation::State).eq(Expr::cust(PENDING.to_string())));
    let blocked = part::<block::Entity>(BLOCKED, users, Block::Owner, Block::Other, &[(3, Block::OtherName)]);
    let blocked_by = part::<block::Entity>(BLOCKED_BY, users, Block::Other, Block::Owner, &[]);
    let version = part::<roster::Entity>(VERSION, users, roster::Column::Owner, roster::Column::Changes, &[]);
    let others = [buddies, watchers, requests, blocked, blocked_by, version];
    groups.unions(others.map(|part| (UnionType::All, part))).take()
}

/// The rows of a table that have one of `users` in the column `whose`: what a row is, whose, an id, and the columns given at
/// their places; the others are null.
fn part<E: EntityTrait>(
    what: i32,
    users: &[Value],
    whose: E::Column,
    id: E::Column,
    given: &[(usize, E::Column)],
) -> SelectStatement {
    let mut columns: [Option<E::Column>; 10] = [None; 10];
    columns[1] = Some(whose);
    columns[2] = Some(id);
    given.iter().for_each(|&(place, column)| columns[place] = Some(column));
    let mut part = SelectStatement::new();
    part.expr(Expr::cust(what.to_string()));
    for column in columns.into_iter().skip(1) {
        part.expr(column.map_or_else(|| Expr::cust("NULL"), Expr::col));
    }
    part.from(E::default()).and_where(Expr::col(whose).is_in(users.iter().cloned())).take()
}

/// The lists, as far as they were read.
#[derive(Default)]
struct Lists {
    changes: i64,
    groups: Vec<Group>,
    buddies: Vec<BuddyEntry>,
    watchers: Vec<Watcher>,
    requests: Vec<BuddyRequest>,
    blocked: Vec<Person>,
    blocked_by: Vec<UserId>,
}

impl Lists {
    fn take(&mut self, row: Row) -> Result<(), StoreError> {
        let (what, _, id, name, group, display_name, stands, at, greeting, group_name) = row;
        let missing = || corrupt(format_args!("a null in part {what} of a roster"));
        let named = |name: Option<String>| person(id, &name.ok_or_else(missing)?);
        match what {
            GROUP => self.groups.push(groups::group(id, &group_name.ok_or_else(missing)?)?),
            BUDDY => self.buddies.push(BuddyEntry {
                buddy: named(name)?,
                group: GroupId(number(group.ok_or_else(missing)?, "a group id")?),
                display_name: text(&display_name.ok_or_else(missing)?)?,
                state: state(stands.ok_or_else(missing)?)?,
                asked_at: wall(at.ok_or_else(missing)?)?,
                greeting: text(&greeting.ok_or_else(missing)?)?,
            }),
            WATCHER => self.watchers.push(Watcher { who: named(name)?, state: state(stands.ok_or_else(missing)?)? }),
            REQUEST => self.requests.push(BuddyRequest {
                from: named(name)?,
                greeting: text(&greeting.ok_or_else(missing)?)?,
                asked_at: wall(at.ok_or_else(missing)?)?,
            }),
            BLOCKED => self.blocked.push(named(name)?),
            BLOCKED_BY => self.blocked_by.push(user(id)),
            VERSION => self.changes = id,
            other => return Err(corrupt(format_args!("a part {other} of a roster"))),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Roster, StoreError> {
        self.groups.sort_unstable_by_key(|group| group.group);
        self.buddies.sort_unstable_by_key(|entry| entry.buddy.user);
        self.watchers.sort_unstable_by_key(|watcher| watcher.who.user);
        self.blocked.sort_unstable_by_key(|person| person.user);
        self.blocked_by.sort_unstable();
        // Whoever was blocked asks in vain.
        let blocked = &self.blocked;
        let is_blocked = |who: &Person| blocked.binary_search_by_key(&who.user, |person| person.user).is_ok();
        self.requests.retain(|request| !is_blocked(&request.from));
        self.requests.sort_unstable_by_key(|request| request.from.user);
        Ok(Roster {
            version: groups::version_of(self.changes)?,
            groups: self.groups,
            buddies: self.buddies,
            watchers: self.watchers,
            blocked: self.blocked,
            blocked_by: self.blocked_by,
            requests: self.requests,
        })
    }
}
