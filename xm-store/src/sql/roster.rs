//! Reading a whole roster, in one statement: what a login costs is mostly statements, each of which goes to the thread of a
//! connection and back. And one statement sees one moment, so that the lists fit each other without a transaction.

use sea_orm::sea_query::{Expr, ExprTrait, SelectStatement, UnionType};
use sea_orm::{ConnectionTrait, EntityTrait, QuerySelect, QueryTrait};
use xmmep::types::UserId;

use super::contacts::{PENDING, entry, state};
use super::contacts_groups as groups;
use super::decode::{corrupt, person, signed, text, user, wall};
use super::entity::{block, relation, roster, roster_group};
use crate::error::StoreError;
use crate::records::{BuddyEntry, BuddyRequest, Group, Person, Roster, Watcher};

/// What a row is; all have the columns of the widest.
const RELATION: i16 = 0;
const BLOCK: i16 = 1;
const VERSION: i16 = 2;
const GROUP: i16 = 3;

/// What, owner, other, their names, group, display name, state, time, greeting; the name of a group.
type Row = (i16, i64, i64, String, String, i64, String, i16, i64, String, Vec<u8>);

pub(super) async fn load(db: &impl ConnectionTrait, who: UserId) -> Result<Roster, StoreError> {
    let me = signed(who.0);
    let mut all = relation::Entity::find().select_only();
    *QueryTrait::query(&mut all) = relations(relation::Column::Owner, me);
    let others = [
        relations(relation::Column::Buddy, me),
        blocks(block::Column::Owner, me),
        blocks(block::Column::Other, me),
        version(me),
        groups_of(me),
    ];
    QueryTrait::query(&mut all).unions(others.map(|part| (UnionType::All, part)));
    let rows: Vec<Row> = all.into_tuple().all(db).await?;
    let mut read = Lists::default();
    rows.into_iter().try_for_each(|row| read.take(me, row))?;
    read.finish()
}

fn relations(end: relation::Column, me: i64) -> SelectStatement {
    use relation::Column::{AskedAt, Buddy, BuddyName, DisplayName, Greeting, GroupId, Owner, OwnerName, State};
    let columns = [Owner, Buddy, OwnerName, BuddyName, GroupId, DisplayName, State, AskedAt, Greeting];
    let mut part = SelectStatement::new();
    part.expr(Expr::value(RELATION)).columns(columns).expr(Expr::value(Vec::<u8>::new()));
    part.from(relation::Entity).and_where(Expr::col(end).eq(me)).take()
}

fn blocks(end: block::Column, me: i64) -> SelectStatement {
    use block::Column::{At, Other, OtherName, Owner};
    let mut part = SelectStatement::new();
    part.expr(Expr::value(BLOCK)).columns([Owner, Other]).expr(Expr::value("")).column(OtherName);
    part.expr(Expr::value(0_i64)).expr(Expr::value("")).expr(Expr::value(0_i16)).column(At);
    part.expr(Expr::value("")).expr(Expr::value(Vec::<u8>::new()));
    part.from(block::Entity).and_where(Expr::col(end).eq(me)).take()
}

fn version(me: i64) -> SelectStatement {
    use roster::Column::{Changes, Owner};
    let mut part = SelectStatement::new();
    part.expr(Expr::value(VERSION)).columns([Owner, Changes]);
    part.exprs(["", ""].map(Expr::value)).expr(Expr::value(0_i64)).expr(Expr::value(""));
    part.expr(Expr::value(0_i16)).expr(Expr::value(0_i64)).expr(Expr::value("")).expr(Expr::value(Vec::<u8>::new()));
    part.from(roster::Entity).and_where(Expr::col(Owner).eq(me)).take()
}

fn groups_of(me: i64) -> SelectStatement {
    use roster_group::Column::{GroupId, Name, Owner};
    let mut part = SelectStatement::new();
    part.expr(Expr::value(GROUP)).columns([Owner, GroupId]);
    part.exprs(["", ""].map(Expr::value)).expr(Expr::value(0_i64)).expr(Expr::value(""));
    part.expr(Expr::value(0_i16)).expr(Expr::value(0_i64)).expr(Expr::value("")).column(Name);
    part.from(roster_group::Entity).and_where(Expr::col(Owner).eq(me)).take()
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
    fn take(&mut self, me: i64, row: Row) -> Result<(), StoreError> {
        let (what, owner, other, owner_name, other_name, group_id, display_name, said, at, greeting, group_name) = row;
        match what {
            RELATION if owner == me => self.buddies.push(entry(&relation::Model {
                owner,
                buddy: other,
                owner_name,
                buddy_name: other_name,
                group_id,
                display_name,
                state: said,
                asked_at: at,
                greeting,
            })?),
            RELATION => {
                let who = person(owner, &owner_name)?;
                if said == PENDING {
                    self.requests.push(BuddyRequest {
                        from: who.clone(),
                        greeting: text(&greeting)?,
                        asked_at: wall(at)?,
                    });
                }
                self.watchers.push(Watcher { who, state: state(said)? });
            }
            BLOCK if owner == me => self.blocked.push(person(other, &other_name)?),
            BLOCK => self.blocked_by.push(user(owner)),
            VERSION => self.changes = other,
            GROUP => self.groups.push(groups::group(other, &group_name)?),
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
