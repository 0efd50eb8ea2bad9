//! [`Contacts`] in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;
use xmmep::bounded::Text;
use xmmep::types::{GroupId, RosterVersion, UserId, WallTime};

use super::lock;
use crate::contacts::{Answer, Answered, Ask, Asked, Contacts, Heard, Standing};
use crate::error::{RosterError, RosterRefusal, StoreError};
use crate::records::{
    ASK_AGAIN_AFTER, BLOCKED_MAX, BUDDIES_MAX, BuddyEntry, BuddyRequest, BuddyState, GROUPS_MAX, Group, Person, Roster,
    Watcher,
};

/// [`Contacts`] in memory.
#[derive(Debug, Default)]
pub struct MemoryContacts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    owners: BTreeMap<UserId, Owner>,
    /// By owner and buddy.
    relations: BTreeMap<(UserId, UserId), Relation>,
    /// By who blocked and who is blocked.
    blocks: BTreeMap<(UserId, UserId), Person>,
}

#[derive(Debug, Default)]
struct Owner {
    changes: u64,
    last_group: u32,
    groups: BTreeMap<GroupId, Text<64>>,
}

#[derive(Debug)]
struct Relation {
    owner: Person,
    entry: BuddyEntry,
    refused: bool,
}

impl State {
    fn version(&self, user: UserId) -> RosterVersion {
        RosterVersion(1 + self.owners.get(&user).map_or(0, |owner| owner.changes))
    }

    fn changed(&mut self, user: UserId) -> RosterVersion {
        self.owners.entry(user).or_default().changes += 1;
        self.version(user)
    }

    fn is_blocked(&self, by: UserId, other: UserId) -> bool {
        self.blocks.contains_key(&(by, other))
    }

    /// Who has blocked `user`, by ascending id.
    fn blocked_by(&self, user: UserId) -> Vec<UserId> {
        self.blocks.keys().filter(|(_, other)| *other == user).map(|(by, _)| *by).collect()
    }

    fn check_group(&self, owner: UserId, group: GroupId) -> Result<(), RosterRefusal> {
        let exists = self.owners.get(&owner).is_some_and(|owner| owner.groups.contains_key(&group));
        if group == GroupId::DEFAULT || exists { Ok(()) } else { Err(RosterRefusal::NoSuchGroup(group)) }
    }

    fn check_space(&self, owner: UserId) -> Result<(), RosterRefusal> {
        let entries = self.relations.range((owner, UserId(0))..=(owner, UserId(u64::MAX))).count();
        if entries < BUDDIES_MAX { Ok(()) } else { Err(RosterRefusal::LimitReached(BUDDIES_MAX)) }
    }

    fn ask(&mut self, ask: Ask) -> Result<Asked, RosterRefusal> {
        let (me, buddy) = (ask.me.user, ask.buddy.user);
        if me == buddy {
            return Err(RosterRefusal::Oneself);
        }
        let heard = if self.is_blocked(buddy, me) { Heard::No } else { Heard::Yes };
        let version = self.version(me);
        if let Some(relation) = self.relations.get_mut(&(me, buddy)) {
            let accepted = relation.entry.state == BuddyState::Accepted;
            let again = !accepted && relation.refused && relation.entry.asked_at.after(ASK_AGAIN_AFTER) <= ask.at;
            if again {
                relation.refused = false;
                relation.entry.asked_at = ask.at;
                relation.entry.greeting = ask.greeting;
            }
            let standing = if accepted { Standing::Accepted } else { Standing::Pending };
            let heard = if again { heard } else { Heard::No };
            return Ok(Asked { standing, entry: relation.entry.clone(), version, heard });
        }
        self.check_group(me, ask.group)?;
        self.check_space(me)?;
        let entry = BuddyEntry {
            buddy: ask.buddy,
            group: ask.group,
            display_name: ask.display_name,
            state: BuddyState::Pending,
            asked_at: ask.at,
            greeting: ask.greeting,
        };
        self.relations.insert((me, buddy), Relation { owner: ask.me, entry: entry.clone(), refused: false });
        Ok(Asked { standing: Standing::New, entry, version: self.changed(me), heard })
    }

    /// Puts `asker` on the list of `me` as accepted. Returns whether that changed anything.
    fn add_back(&mut self, me: &Person, asker: &Person, at: WallTime) -> Result<bool, RosterRefusal> {
        if let Some(own) = self.relations.get_mut(&(me.user, asker.user)) {
            let before = std::mem::replace(&mut own.entry.state, BuddyState::Accepted);
            own.refused = false;
            return Ok(before != BuddyState::Accepted);
        }
        self.check_space(me.user)?;
        let entry = BuddyEntry {
            buddy: asker.clone(),
            group: GroupId::DEFAULT,
            display_name: Text::default(),
            state: BuddyState::Accepted,
            asked_at: at,
            greeting: Text::default(),
        };
        self.relations.insert((me.user, asker.user), Relation { owner: me.clone(), entry, refused: false });
        Ok(true)
    }

    fn answer(&mut self, me: &Person, asker: UserId, answer: Answer, at: WallTime) -> Result<Answered, RosterRefusal> {
        if self.is_blocked(me.user, asker) {
            return Err(RosterRefusal::NoSuchRequest);
        }
        let request = self.relations.get(&(asker, me.user)).ok_or(RosterRefusal::NoSuchRequest)?;
        let asker_person = request.owner.clone();
        if answer == Answer::AcceptAndAdd && self.add_back(me, &asker_person, at)? {
            self.changed(me.user);
        }
        let request = self.relations.get_mut(&(asker, me.user)).ok_or(RosterRefusal::NoSuchRequest)?;
        let open = request.entry.state == BuddyState::Pending;
        if answer == Answer::Refuse {
            request.refused |= open;
            return Ok(Answered { version: self.version(me.user), accepted: None });
        }
        request.entry.state = BuddyState::Accepted;
        request.refused = false;
        let accepted = open.then(|| self.changed(asker));
        Ok(Answered { version: self.version(me.user), accepted })
    }

    fn roster(&self, user: UserId) -> Roster {
        let watching = || self.relations.values().filter(move |relation| relation.entry.buddy.user == user);
        let is_open = |relation: &&Relation| {
            relation.entry.state == BuddyState::Pending
                && !relation.refused
                && !self.is_blocked(user, relation.owner.user)
        };
        let own = (user, UserId(0))..=(user, UserId(u64::MAX));
        let groups = self.owners.get(&user).into_iter().flat_map(|owner| &owner.groups);
        Roster {
            version: self.version(user),
            groups: groups.map(|(group, name)| Group { group: *group, name: name.clone() }).collect(),
            buddies: self.relations.range(own.clone()).map(|(_, relation)| relation.entry.clone()).collect(),
            watchers: watching()
                .map(|relation| Watcher { who: relation.owner.clone(), state: relation.entry.state })
                .collect(),
            blocked: self.blocks.range(own).map(|(_, person)| person.clone()).collect(),
            blocked_by: self.blocked_by(user),
            requests: watching()
                .filter(is_open)
                .map(|relation| BuddyRequest {
                    from: relation.owner.clone(),
                    greeting: relation.entry.greeting.clone(),
                    asked_at: relation.entry.asked_at,
                })
                .collect(),
        }
    }
}

impl MemoryContacts {
    /// Who has blocked `user`, by ascending id.
    pub(super) fn blocked_by(&self, user: UserId) -> Vec<UserId> {
        lock(&self.0).blocked_by(user)
    }
}

#[async_trait]
impl Contacts for MemoryContacts {
    async fn load(&self, user: UserId) -> Result<Roster, StoreError> {
        Ok(lock(&self.0).roster(user))
    }

    async fn ask(&self, ask: Ask) -> Result<Asked, RosterError> {
        Ok(lock(&self.0).ask(ask)?)
    }

    async fn answer(&self, me: &Person, asker: UserId, answer: Answer, at: WallTime) -> Result<Answered, RosterError> {
        Ok(lock(&self.0).answer(me, asker, answer, at)?)
    }

    async fn remove(&self, me: UserId, buddy: UserId) -> Result<RosterVersion, RosterError> {
        let mut state = lock(&self.0);
        let removed = state.relations.remove(&(me, buddy)).is_some();
        Ok(if removed { state.changed(me) } else { state.version(me) })
    }

    async fn modify(
        &self,
        me: UserId,
        buddy: UserId,
        display_name: Option<Text<128>>,
        group: Option<GroupId>,
    ) -> Result<RosterVersion, RosterError> {
        let state = &mut *lock(&self.0);
        if let Some(group) = group {
            state.check_group(me, group)?;
        }
        let relation = state.relations.get_mut(&(me, buddy)).ok_or(RosterRefusal::NoSuchBuddy)?;
        let before = relation.entry.clone();
        relation.entry.display_name = display_name.unwrap_or_else(|| before.display_name.clone());
        relation.entry.group = group.unwrap_or(before.group);
        Ok(if relation.entry == before { state.version(me) } else { state.changed(me) })
    }

    async fn block(&self, me: UserId, other: &Person, _at: WallTime) -> Result<RosterVersion, RosterError> {
        let mut state = lock(&self.0);
        if me == other.user {
            return Err(RosterRefusal::Oneself.into());
        }
        if state.is_blocked(me, other.user) {
            return Ok(state.version(me));
        }
        if state.blocks.range((me, UserId(0))..=(me, UserId(u64::MAX))).count() >= BLOCKED_MAX {
            return Err(RosterRefusal::LimitReached(BLOCKED_MAX).into());
        }
        state.blocks.insert((me, other.user), other.clone());
        Ok(state.changed(me))
    }

    async fn unblock(&self, me: UserId, other: UserId, group: Option<GroupId>) -> Result<RosterVersion, RosterError> {
        let state = &mut *lock(&self.0);
        if let Some(group) = group {
            state.check_group(me, group)?;
        }
        if state.blocks.remove(&(me, other)).is_none() {
            return Ok(state.version(me));
        }
        if let (Some(group), Some(relation)) = (group, state.relations.get_mut(&(me, other))) {
            relation.entry.group = group;
        }
        Ok(state.changed(me))
    }

    async fn create_group(&self, me: UserId, name: Text<64>) -> Result<(GroupId, RosterVersion), RosterError> {
        let mut state = lock(&self.0);
        let owner = state.owners.entry(me).or_default();
        if let Some((group, _)) = owner.groups.iter().find(|(_, other)| **other == name) {
            let group = *group;
            return Ok((group, state.version(me)));
        }
        if owner.groups.len() >= GROUPS_MAX {
            return Err(RosterRefusal::LimitReached(GROUPS_MAX).into());
        }
        owner.last_group += 1;
        let group = GroupId(owner.last_group);
        owner.groups.insert(group, name);
        Ok((group, state.changed(me)))
    }

    async fn rename_group(&self, me: UserId, group: GroupId, name: Text<64>) -> Result<RosterVersion, RosterError> {
        let mut state = lock(&self.0);
        if group == GroupId::DEFAULT {
            return Err(RosterRefusal::DefaultGroup.into());
        }
        state.check_group(me, group)?;
        let owner = state.owners.entry(me).or_default();
        match owner.groups.iter().find(|(_, other)| **other == name) {
            Some((other, _)) if *other == group => Ok(state.version(me)),
            Some(_) => Err(RosterRefusal::GroupNameTaken.into()),
            None => {
                owner.groups.insert(group, name);
                Ok(state.changed(me))
            }
        }
    }

    async fn delete_group(&self, me: UserId, group: GroupId) -> Result<RosterVersion, RosterError> {
        let mut state = lock(&self.0);
        if group == GroupId::DEFAULT {
            return Err(RosterRefusal::DefaultGroup.into());
        }
        if state.owners.get_mut(&me).and_then(|owner| owner.groups.remove(&group)).is_none() {
            return Ok(state.version(me));
        }
        for (_, relation) in state.relations.range_mut((me, UserId(0))..=(me, UserId(u64::MAX))) {
            if relation.entry.group == group {
                relation.entry.group = GroupId::DEFAULT;
            }
        }
        Ok(state.changed(me))
    }

    async fn erase(&self, user: UserId) -> Result<Vec<UserId>, StoreError> {
        let mut state = lock(&self.0);
        let about = |other: &UserId| *other == user;
        let owners = state.relations.keys().filter(|(_, buddy)| about(buddy)).map(|(owner, _)| *owner);
        let blockers = state.blocks.keys().filter(|(_, other)| about(other)).map(|(by, _)| *by);
        let others: BTreeSet<_> = owners.chain(blockers).collect();
        state.relations.retain(|(owner, buddy), _| !about(owner) && !about(buddy));
        state.blocks.retain(|(by, other), _| !about(by) && !about(other));
        state.owners.remove(&user);
        for other in &others {
            state.changed(*other);
        }
        Ok(others.into_iter().collect())
    }
}
