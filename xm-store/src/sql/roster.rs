//! Reading a whole roster, in one statement: what a login costs is mostly statements, each of which goes to the thread of a
//! connection and back. And one statement sees one moment, so that the lists fit each other without a transaction.

use sea_orm::ConnectionTrait;
use sea_orm::sea_query::{Expr, ExprTrait, IntoColumnRef, SelectStatement, UnionType};
use xmmep::types::{GroupId, UserId};

use super::contacts::{PENDING, state};
use super::contacts_groups as groups;
use super::decode::{corrupt, number, person, signed, text, user, wall};
use super::entity::{block, relation, roster, roster_group};
use super::prepared::Prepared;
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

/// Parts of the statement, each with one value.
const PARTS: usize = 7;

/// What, id, name, group, display name, state, time, greeting; the name of a group.
type Row =
    (i32, i64, Option<String>, Option<i64>, Option<String>, Option<i16>, Option<i64>, Option<String>, Option<Vec<u8>>);

pub(super) async fn load(db: impl ConnectionTrait, who: UserId) -> Result<Roster, StoreError> {
    static LOAD: Prepared = Prepared::new();
    let me = signed(who.0);
    let all = LOAD.with(db.get_database_backend(), vec![me.into(); PARTS], || parts(me));
    let rows = db.query_all_raw(all).await?;
    // Others may read while these rows are taken apart.
    drop(db);
    let mut read = Lists::default();
    for (number, row) in (1..).zip(rows) {
        read.take(row.try_get_many_by_index()?)?;
        if number % ROWS_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
    }
    read.finish()
}

/// All parts. The only value in them is `me`. Between them the first two have a value in each column: PostgreSQL takes their types.
fn parts(me: i64) -> SelectStatement {
    let mut all = part(GROUP, roster_group::Column::GroupId, [(8, roster_group::Column::Name)]);
    all.from(roster_group::Entity).and_where(Expr::col(roster_group::Column::Owner).eq(me));
    use relation::Column as Relation;
    let told = [(2, Relation::BuddyName), (3, Relation::GroupId), (4, Relation::DisplayName), (5, Relation::State)];
    let mut buddies =
        part(BUDDY, Relation::Buddy, told.into_iter().chain([(6, Relation::AskedAt), (7, Relation::Greeting)]));
    buddies.from(relation::Entity).and_where(Expr::col(Relation::Owner).eq(me));
    let mut watchers = part(WATCHER, Relation::Owner, [(2, Relation::OwnerName), (5, Relation::State)]);
    watchers.from(relation::Entity).and_where(Expr::col(Relation::Buddy).eq(me));
    let mut requests =
        part(REQUEST, Relation::Owner, [(2, Relation::OwnerName), (6, Relation::AskedAt), (7, Relation::Greeting)]);
    requests.from(relation::Entity).and_where(Expr::col(Relation::Buddy).eq(me));
    requests.and_where(Expr::col(Relation::State).eq(Expr::cust(PENDING.to_string())));
    use block::Column as Block;
    let mut blocked = part(BLOCKED, Block::Other, [(2, Block::OtherName)]);
    blocked.from(block::Entity).and_where(Expr::col(Block::Owner).eq(me));
    let mut blocked_by = part(BLOCKED_BY, Block::Owner, []);
    blocked_by.from(block::Entity).and_where(Expr::col(Block::Other).eq(me));
    let mut version = part(VERSION, roster::Column::Changes, []);
    version.from(roster::Entity).and_where(Expr::col(roster::Column::Owner).eq(me));
    let others = [buddies, watchers, requests, blocked, blocked_by, version];
    all.unions(others.map(|part| (UnionType::All, part))).take()
}

/// The columns of a part: what it is, an id, and those given at their places; the others are null.
fn part<C: IntoColumnRef + Copy>(what: i32, id: C, given: impl IntoIterator<Item = (usize, C)>) -> SelectStatement {
    let mut columns: [Option<C>; 9] = [None; 9];
    columns[1] = Some(id);
    given.into_iter().for_each(|(place, column)| columns[place] = Some(column));
    let mut part = SelectStatement::new();
    part.expr(Expr::cust(what.to_string()));
    for column in columns.into_iter().skip(1) {
        part.expr(column.map_or_else(|| Expr::cust("NULL"), Expr::col));
    }
    part.take()
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
        let (what, id, name, group, display_name, stands, at, greeting, group_name) = row;
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
