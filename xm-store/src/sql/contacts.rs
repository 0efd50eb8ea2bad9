//! [`Contacts`] in PresenceDB: buddies, requests, blocks. Groups and versions are in `contacts_groups.rs`, reading it all in
//! `roster.rs`.

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{
    ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter, QuerySelect,
};
use xmmep::bounded::Text;
use xmmep::types::{GroupId, RosterVersion, UserId, WallTime};

use super::SqlPresence;
use super::contacts_groups as groups;
use super::decode::{corrupt, millis, number, person, signed, text, user, wall};
use super::entity::block;
use super::entity::relation::{Column, Entity, Model};
use super::unique::Unique;
use crate::contacts::{Answer, Answered, Ask, Asked, Contacts, Heard, Standing};
use crate::error::{RosterError, RosterRefusal, StoreError};
use crate::records::{ASK_AGAIN_AFTER, BLOCKED_MAX, BUDDIES_MAX, BuddyEntry, BuddyState, Person, Roster};

pub(super) const PENDING: i16 = 0;
const REFUSED: i16 = 1;
pub(super) const ACCEPTED: i16 = 2;

pub(super) fn state(column: i16) -> Result<BuddyState, StoreError> {
    match column {
        PENDING | REFUSED => Ok(BuddyState::Pending),
        ACCEPTED => Ok(BuddyState::Accepted),
        other => Err(corrupt(format_args!("the state {other} of a buddy"))),
    }
}

pub(super) fn entry(row: &Model) -> Result<BuddyEntry, StoreError> {
    Ok(BuddyEntry {
        buddy: person(row.buddy, &row.buddy_name)?,
        group: GroupId(number(row.group_id, "a group id")?),
        display_name: text(&row.display_name)?,
        state: state(row.state)?,
        asked_at: wall(row.asked_at)?,
        greeting: text(&row.greeting)?,
    })
}

async fn relation(txn: &DatabaseTransaction, owner: UserId, buddy: UserId) -> Result<Option<Model>, StoreError> {
    Ok(Entity::find_by_id((signed(owner.0), signed(buddy.0))).unique(txn).await?)
}

async fn is_blocked(txn: &DatabaseTransaction, by: UserId, other: UserId) -> Result<bool, StoreError> {
    Ok(block::Entity::find_by_id((signed(by.0), signed(other.0))).unique(txn).await?.is_some())
}

async fn insert(txn: &DatabaseTransaction, row: Model) -> Result<(), RosterError> {
    if Entity::find().filter(Column::Owner.eq(row.owner)).count(txn).await? >= BUDDIES_MAX as u64 {
        return Err(RosterRefusal::LimitReached(BUDDIES_MAX).into());
    }
    Entity::insert(row.into_active_model()).exec_without_returning(txn).await?;
    Ok(())
}

async fn set_state(txn: &DatabaseTransaction, row: &Model, state: i16) -> Result<(), StoreError> {
    Entity::update_many()
        .col_expr(Column::State, Expr::value(state))
        .filter(Column::Owner.eq(row.owner))
        .filter(Column::Buddy.eq(row.buddy))
        .exec(txn)
        .await?;
    Ok(())
}

/// Puts `asker` on the list of `me` as accepted. Returns whether that changed anything.
async fn add_back(txn: &DatabaseTransaction, me: &Person, asker: &Model, at: WallTime) -> Result<bool, RosterError> {
    if let Some(own) = relation(txn, me.user, user(asker.owner)).await? {
        set_state(txn, &own, ACCEPTED).await?;
        return Ok(own.state != ACCEPTED);
    }
    let row = Model {
        owner: signed(me.user.0),
        buddy: asker.owner,
        owner_name: me.name.as_str().to_owned(),
        buddy_name: asker.owner_name.clone(),
        group_id: GroupId::DEFAULT.0.into(),
        display_name: String::new(),
        state: ACCEPTED,
        asked_at: millis(at),
        greeting: String::new(),
    };
    insert(txn, row).await?;
    Ok(true)
}

/// A request for somebody on the list already: put again if it was refused long enough ago.
async fn ask_again(
    txn: &DatabaseTransaction,
    mut row: Model,
    ask: &Ask,
    heard: Heard,
) -> Result<(Standing, BuddyEntry, Heard), StoreError> {
    if row.state == ACCEPTED {
        return Ok((Standing::Accepted, entry(&row)?, Heard::No));
    }
    if row.state != REFUSED || wall(row.asked_at)?.after(ASK_AGAIN_AFTER) > ask.at {
        return Ok((Standing::Pending, entry(&row)?, Heard::No));
    }
    row.asked_at = millis(ask.at);
    row.greeting = ask.greeting.to_string();
    Entity::update_many()
        .col_expr(Column::State, Expr::value(PENDING))
        .col_expr(Column::AskedAt, Expr::value(row.asked_at))
        .col_expr(Column::Greeting, Expr::value(row.greeting.clone()))
        .filter(Column::Owner.eq(row.owner))
        .filter(Column::Buddy.eq(row.buddy))
        .exec(txn)
        .await?;
    Ok((Standing::Pending, entry(&row)?, heard))
}

async fn ask(txn: &DatabaseTransaction, ask: &Ask) -> Result<Asked, RosterError> {
    let (me, buddy) = (ask.me.user, ask.buddy.user);
    let heard = if is_blocked(txn, buddy, me).await? { Heard::No } else { Heard::Yes };
    if let Some(row) = relation(txn, me, buddy).await? {
        let (standing, entry, heard) = ask_again(txn, row, ask, heard).await?;
        return Ok(Asked { standing, entry, version: groups::version(txn, me).await?, heard });
    }
    groups::check(txn, me, ask.group).await?;
    let row = Model {
        owner: signed(me.0),
        buddy: signed(buddy.0),
        owner_name: ask.me.name.as_str().to_owned(),
        buddy_name: ask.buddy.name.as_str().to_owned(),
        group_id: ask.group.0.into(),
        display_name: ask.display_name.to_string(),
        state: PENDING,
        asked_at: millis(ask.at),
        greeting: ask.greeting.to_string(),
    };
    insert(txn, row.clone()).await?;
    Ok(Asked { standing: Standing::New, entry: entry(&row)?, version: groups::changed(txn, me).await?, heard })
}

async fn answer(
    txn: &DatabaseTransaction,
    me: &Person,
    asker: UserId,
    answer: Answer,
    at: WallTime,
) -> Result<Answered, RosterError> {
    if is_blocked(txn, me.user, asker).await? {
        return Err(RosterRefusal::NoSuchRequest.into());
    }
    let request = relation(txn, asker, me.user).await?.ok_or(RosterRefusal::NoSuchRequest)?;
    let open = request.state != ACCEPTED;
    let mut accepted = None;
    if answer == Answer::Refuse {
        if open {
            set_state(txn, &request, REFUSED).await?;
        }
    } else {
        if answer == Answer::AcceptAndAdd && add_back(txn, me, &request, at).await? {
            groups::changed(txn, me.user).await?;
        }
        if open {
            set_state(txn, &request, ACCEPTED).await?;
            accepted = Some(groups::changed(txn, asker).await?);
        }
    }
    Ok(Answered { version: groups::version(txn, me.user).await?, accepted })
}

async fn remove(txn: &DatabaseTransaction, me: UserId, buddy: UserId) -> Result<RosterVersion, RosterError> {
    let gone = Entity::delete_by_id((signed(me.0), signed(buddy.0))).exec(txn).await?.rows_affected;
    Ok(groups::changed_if(txn, me, gone > 0).await?)
}

async fn modify(
    txn: &DatabaseTransaction,
    (me, buddy): (UserId, UserId),
    display_name: Option<&Text<128>>,
    group: Option<GroupId>,
) -> Result<RosterVersion, RosterError> {
    if let Some(group) = group {
        groups::check(txn, me, group).await?;
    }
    let row = relation(txn, me, buddy).await?.ok_or(RosterRefusal::NoSuchBuddy)?;
    let name = display_name.map_or_else(|| row.display_name.clone(), |name| name.to_string());
    let group = group.map_or(row.group_id, |group| group.0.into());
    let changed = name != row.display_name || group != row.group_id;
    if changed {
        Entity::update_many()
            .col_expr(Column::DisplayName, Expr::value(name))
            .col_expr(Column::GroupId, Expr::value(group))
            .filter(Column::Owner.eq(row.owner))
            .filter(Column::Buddy.eq(row.buddy))
            .exec(txn)
            .await?;
    }
    Ok(groups::changed_if(txn, me, changed).await?)
}

async fn block(
    txn: &DatabaseTransaction,
    me: UserId,
    other: &Person,
    at: WallTime,
) -> Result<RosterVersion, RosterError> {
    if is_blocked(txn, me, other.user).await? {
        return Ok(groups::version(txn, me).await?);
    }
    let blocked = block::Entity::find().filter(block::Column::Owner.eq(signed(me.0)));
    if blocked.count(txn).await? >= BLOCKED_MAX as u64 {
        return Err(RosterRefusal::LimitReached(BLOCKED_MAX).into());
    }
    let row = block::Model {
        owner: signed(me.0),
        other: signed(other.user.0),
        other_name: other.name.as_str().to_owned(),
        at: millis(at),
    };
    block::Entity::insert(row.into_active_model()).exec_without_returning(txn).await?;
    Ok(groups::changed(txn, me).await?)
}

async fn unblock(
    txn: &DatabaseTransaction,
    me: UserId,
    other: UserId,
    group: Option<GroupId>,
) -> Result<RosterVersion, RosterError> {
    if let Some(group) = group {
        groups::check(txn, me, group).await?;
    }
    let ended = block::Entity::delete_by_id((signed(me.0), signed(other.0))).exec(txn).await?.rows_affected > 0;
    if let Some(group) = group.filter(|_| ended) {
        Entity::update_many()
            .col_expr(Column::GroupId, Expr::value(i64::from(group.0)))
            .filter(Column::Owner.eq(signed(me.0)))
            .filter(Column::Buddy.eq(signed(other.0)))
            .exec(txn)
            .await?;
    }
    Ok(groups::changed_if(txn, me, ended).await?)
}

/// Erases what the user has, and what others have of the user.
async fn erase(txn: &DatabaseTransaction, who: UserId) -> Result<Vec<UserId>, StoreError> {
    let id = signed(who.0);
    let owners = Entity::find().filter(Column::Buddy.eq(id)).select_only().column(Column::Owner);
    let blockers = block::Entity::find().filter(block::Column::Other.eq(id)).select_only().column(block::Column::Owner);
    let mut others: Vec<i64> = owners.into_tuple().all(txn).await?;
    others.extend(blockers.into_tuple::<i64>().all(txn).await?);
    let mut others: Vec<_> = others.into_iter().map(user).collect();
    others.sort_unstable();
    others.dedup();
    Entity::delete_many().filter(Column::Buddy.eq(id).or(Column::Owner.eq(id))).exec(txn).await?;
    let blocks = block::Entity::delete_many();
    blocks.filter(block::Column::Other.eq(id).or(block::Column::Owner.eq(id))).exec(txn).await?;
    groups::erase(txn, who).await?;
    groups::all_changed(txn, &others).await?;
    Ok(others)
}

#[async_trait]
impl Contacts for SqlPresence {
    async fn load(&self, who: UserId) -> Result<Roster, StoreError> {
        self.rosters.find(who).await
    }

    async fn ask(&self, wish: Ask) -> Result<Asked, RosterError> {
        if wish.me.user == wish.buddy.user {
            return Err(RosterRefusal::Oneself.into());
        }
        self.database.write(wish, |txn, wish| Box::pin(ask(txn, wish))).await
    }

    async fn answer(&self, me: &Person, asker: UserId, said: Answer, at: WallTime) -> Result<Answered, RosterError> {
        let said = (me.clone(), asker, said, at);
        self.database.write(said, |txn, (me, asker, said, at)| Box::pin(answer(txn, me, *asker, *said, *at))).await
    }

    async fn remove(&self, me: UserId, buddy: UserId) -> Result<RosterVersion, RosterError> {
        self.database.write((me, buddy), |txn, &(me, buddy)| Box::pin(remove(txn, me, buddy))).await
    }

    async fn modify(
        &self,
        me: UserId,
        buddy: UserId,
        display_name: Option<Text<128>>,
        group: Option<GroupId>,
    ) -> Result<RosterVersion, RosterError> {
        let change = ((me, buddy), display_name, group);
        let modify =
            self.database.write(change, |txn, (who, name, group)| Box::pin(modify(txn, *who, name.as_ref(), *group)));
        modify.await
    }

    async fn block(&self, me: UserId, other: &Person, at: WallTime) -> Result<RosterVersion, RosterError> {
        if me == other.user {
            return Err(RosterRefusal::Oneself.into());
        }
        let wish = (me, other.clone(), at);
        self.database.write(wish, |txn, (me, other, at)| Box::pin(block(txn, *me, other, *at))).await
    }

    async fn unblock(&self, me: UserId, other: UserId, group: Option<GroupId>) -> Result<RosterVersion, RosterError> {
        let wish = (me, other, group);
        self.database.write(wish, |txn, &(me, other, group)| Box::pin(unblock(txn, me, other, group))).await
    }

    async fn create_group(&self, me: UserId, name: Text<64>) -> Result<(GroupId, RosterVersion), RosterError> {
        self.database.write((me, name), |txn, (me, name)| Box::pin(groups::create(txn, *me, name))).await
    }

    async fn rename_group(&self, me: UserId, group: GroupId, name: Text<64>) -> Result<RosterVersion, RosterError> {
        if group == GroupId::DEFAULT {
            return Err(RosterRefusal::DefaultGroup.into());
        }
        let wish = (me, group, name);
        self.database.write(wish, |txn, (me, group, name)| Box::pin(groups::rename(txn, *me, *group, name))).await
    }

    async fn delete_group(&self, me: UserId, group: GroupId) -> Result<RosterVersion, RosterError> {
        if group == GroupId::DEFAULT {
            return Err(RosterRefusal::DefaultGroup.into());
        }
        self.database.write((me, group), |txn, &(me, group)| Box::pin(groups::delete(txn, me, group))).await
    }

    async fn erase(&self, user: UserId) -> Result<Vec<UserId>, StoreError> {
        let erased = self.database.write(user, |txn, user| Box::pin(erase(txn, *user))).await?;
        self.database.scrub().await?;
        Ok(erased)
    }
}
