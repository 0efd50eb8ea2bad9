//! What the client knows of people: buddies with their status, groups, blocked, who asks. Kept current from the login
//! parts and from notices. How the parts are collected is `login.rs`.

use core::ops::Not;

use crate::bounded::Text;
use crate::frame::Code;
use crate::message::Message;
use crate::messages::buddies::{
    AddBuddyReq, AddBuddyRes, BuddiedNotify, BuddiedNotifyRes, BuddyAnswer, BuddyAnsweredNotify, BuddyBlockedNotify,
    BuddyModifiedNotify, BuddyRemovedNotify, BuddyUnblockedNotify, RosterOpRes,
};
use crate::messages::login::{Blocked, Buddy, BuddyState, Group};
use crate::messages::{DeviceClass, OnlineBuddy, PublicCard, Room, StatusChange};
use crate::name::UserName;
use crate::types::{GroupId, RosterVersion, Status, UserId};

/// Buddy requests held for an answer. As many as a buddy list has room for; the server asks again at the next login.
pub const ASKING_MAX: usize = 1_000;

/// A buddy as of now.
#[derive(Clone, Copy, Debug)]
pub struct BuddyView<'a> {
    /// The entry in the list.
    pub entry: &'a Buddy,
    /// What is known of the buddy's presence; `None` for one who is offline or has not accepted.
    pub online: Option<&'a OnlineBuddy>,
}

impl BuddyView<'_> {
    /// The status to show.
    #[must_use]
    pub fn status(&self) -> Status {
        self.online.map_or(Status::OFFLINE, |online| online.status)
    }

    /// The name to show: the owner's own for the buddy, else the user name.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        if self.entry.display_name.is_empty() { self.entry.name.as_str() } else { &self.entry.display_name }
    }
}

/// Somebody who asks to have us as a buddy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// Who.
    pub card: PublicCard,
    /// What they wrote.
    pub greeting: Box<str>,
}

/// Buddies, groups, blocked, rooms, requests. All lists are sorted by id; they are as of the last login when offline.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// The version the three lists below have; 0 if they may not be exactly what the server has.
    pub(super) version: RosterVersion,
    pub(super) groups: Vec<Group>,
    pub(super) buddies: Vec<Buddy>,
    pub(super) blocked: Vec<Blocked>,
    pub(super) rooms: Vec<Room>,
    pub(super) online: Vec<OnlineBuddy>,
    pub(super) asking: Vec<Asking>,
}

/// A change of the roster that was asked for and not answered yet.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Add,
    Answer(UserId, BuddyAnswer),
    Remove(UserId),
    Modify { user: UserId, display_name: Option<Text<128>>, group: Option<GroupId> },
    Block(UserId),
    Unblock(UserId),
}

impl Change {
    /// The change that a request asks for, if it is one of the roster's.
    pub(super) fn of(code: Code, body: &[u8]) -> Option<Self> {
        let change = match code {
            AddBuddyReq::CODE => Self::Add,
            BuddiedNotifyRes::CODE => {
                let message = BuddiedNotifyRes::decode_body(body).ok()?;
                Self::Answer(message.user, message.answer)
            }
            BuddyRemovedNotify::CODE => Self::Remove(BuddyRemovedNotify::decode_body(body).ok()?.user),
            BuddyModifiedNotify::CODE => {
                let BuddyModifiedNotify { user, display_name, group } = BuddyModifiedNotify::decode_body(body).ok()?;
                Self::Modify { user, display_name, group }
            }
            BuddyBlockedNotify::CODE => Self::Block(BuddyBlockedNotify::decode_body(body).ok()?.user),
            BuddyUnblockedNotify::CODE => Self::Unblock(BuddyUnblockedNotify::decode_body(body).ok()?.user),
            _ => return None,
        };
        Some(change)
    }
}

impl Roster {
    /// The buddies, by user id.
    pub fn buddies(&self) -> impl ExactSizeIterator<Item = BuddyView<'_>> {
        self.buddies.iter().map(|entry| BuddyView { entry, online: self.online_of(entry.user) })
    }

    /// One buddy.
    #[must_use]
    pub fn buddy(&self, user: UserId) -> Option<BuddyView<'_>> {
        let entry = find(&self.buddies, user, |buddy| buddy.user)?;
        Some(BuddyView { entry, online: self.online_of(user) })
    }

    /// The groups; the default group, [`GroupId::DEFAULT`], is not among them.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The blocked.
    #[must_use]
    pub fn blocked(&self) -> &[Blocked] {
        &self.blocked
    }

    /// The rooms one is in.
    #[must_use]
    pub fn rooms(&self) -> &[Room] {
        &self.rooms
    }

    /// Who asks to have us as a buddy and has no answer yet.
    #[must_use]
    pub fn asking(&self) -> &[Asking] {
        &self.asking
    }

    /// Finds somebody by user name or by one's own name for a buddy: among buddies, blocked and those who ask.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<UserId> {
        let wanted = UserName::new(name).ok();
        let is = |name: &UserName| wanted.as_ref() == Some(name);
        let buddy = self.buddies.iter().find(|buddy| is(&buddy.name)).map(|buddy| buddy.user);
        let asking = || self.asking.iter().find(|asking| is(&asking.card.name)).map(|asking| asking.card.user);
        let blocked = || self.blocked.iter().find(|blocked| is(&blocked.name)).map(|blocked| blocked.user);
        let own = || self.buddies.iter().find(|buddy| &*buddy.display_name == name).map(|buddy| buddy.user);
        buddy.or_else(asking).or_else(blocked).or_else(own)
    }

    /// The user name behind an id, if known.
    #[must_use]
    pub fn name(&self, user: UserId) -> Option<&UserName> {
        let buddy = find(&self.buddies, user, |buddy| buddy.user).map(|buddy| &buddy.name);
        let asking = || self.asking.iter().find(|asking| asking.card.user == user).map(|asking| &asking.card.name);
        buddy.or_else(asking).or_else(|| find(&self.blocked, user, |blocked| blocked.user).map(|blocked| &blocked.name))
    }

    fn online_of(&self, user: UserId) -> Option<&OnlineBuddy> {
        find(&self.online, user, |online| online.user)
    }

    /// A buddy came online, or changed more than the status.
    pub(super) fn came_online(&mut self, buddy: OnlineBuddy) -> bool {
        if buddy.status.seen_by_others() == Status::OFFLINE {
            return self.went_offline(buddy.user);
        }
        if self.online_of(buddy.user) == Some(&buddy) {
            return false;
        }
        put(&mut self.online, buddy, |online| online.user);
        true
    }

    /// A status changed; whether that is news.
    pub(super) fn status_changed(&mut self, change: StatusChange) -> bool {
        let status = change.status.seen_by_others();
        if status == Status::OFFLINE {
            return self.went_offline(change.user);
        }
        let (personal_msg, device_class) = match self.online_of(change.user) {
            Some(online) if online.status == status => return false,
            Some(online) => (online.personal_msg.clone(), online.device_class),
            None => (Default::default(), DeviceClass::OTHER),
        };
        self.came_online(OnlineBuddy { user: change.user, status, personal_msg, device_class })
    }

    fn went_offline(&mut self, user: UserId) -> bool {
        drop_entry(&mut self.online, user, |online| online.user)
    }

    /// The session is gone: nobody's status is known any more.
    pub(super) fn all_offline(&mut self) -> bool {
        let any = self.online.is_empty().not();
        self.online = Vec::new();
        any
    }

    /// Somebody asks; whether that is news.
    pub(super) fn asks(&mut self, notice: BuddiedNotify) -> bool {
        let asking = Asking { card: notice.card, greeting: notice.greeting.as_str().into() };
        if self.asking.contains(&asking) {
            return false;
        }
        let known = find(&self.asking, asking.card.user, |asking| asking.card.user).is_some();
        if !known && self.asking.len() >= ASKING_MAX {
            return false;
        }
        put(&mut self.asking, asking, |asking| asking.card.user);
        true
    }

    /// Somebody we asked has answered.
    pub(super) fn answered(&mut self, notice: &BuddyAnsweredNotify) {
        if let Ok(at) = self.buddies.binary_search_by_key(&notice.user, |buddy| buddy.user)
            && let Some(buddy) = self.buddies.get_mut(at)
            && notice.accepted
        {
            buddy.state = BuddyState::ACCEPTED;
            self.advance(notice.roster_version, Exactness::Known);
        } else {
            self.advance(notice.roster_version, Exactness::Guessed);
        }
    }

    /// Our wish for a buddy is on the list.
    pub(super) fn added(&mut self, answer: AddBuddyRes) {
        put(&mut self.buddies, answer.buddy, |buddy| buddy.user);
        self.advance(answer.roster_version, Exactness::Known);
    }

    /// A change we asked for is committed.
    pub(super) fn changed(&mut self, change: Change, answer: &RosterOpRes) {
        let exactness = match change {
            Change::Add => Exactness::Guessed,
            Change::Answer(user, answer) => self.answer(user, answer),
            Change::Remove(user) => {
                self.went_offline(user);
                drop_entry(&mut self.buddies, user, |buddy| buddy.user);
                Exactness::Known
            }
            Change::Modify { user, display_name, group } => {
                if let Ok(at) = self.buddies.binary_search_by_key(&user, |buddy| buddy.user)
                    && let Some(buddy) = self.buddies.get_mut(at)
                {
                    buddy.display_name = display_name.unwrap_or_else(|| buddy.display_name.clone());
                    buddy.group = group.unwrap_or(buddy.group);
                }
                Exactness::Known
            }
            Change::Block(user) => {
                if let Some(name) = self.name(user).cloned() {
                    put(&mut self.blocked, Blocked { user, name }, |blocked| blocked.user);
                }
                self.went_offline(user);
                self.asking.retain(|asking| asking.card.user != user);
                Exactness::Guessed
            }
            Change::Unblock(user) => {
                drop_entry(&mut self.blocked, user, |blocked| blocked.user);
                Exactness::Guessed
            }
        };
        self.advance(answer.roster_version, exactness);
    }

    fn answer(&mut self, user: UserId, answer: BuddyAnswer) -> Exactness {
        let Ok(at) = self.asking.binary_search_by_key(&user, |asking| asking.card.user) else {
            return Exactness::Guessed;
        };
        let card = self.asking.remove(at).card;
        if answer != BuddyAnswer::ACCEPT_AND_ADD {
            return Exactness::Known;
        }
        // They asked for us, so they agree to be asked for.
        let state = BuddyState::ACCEPTED;
        let buddy = match find(&self.buddies, user, |buddy| buddy.user) {
            Some(buddy) => Buddy { state, ..buddy.clone() },
            None => Buddy { user, name: card.name, group: GroupId::DEFAULT, display_name: Text::default(), state },
        };
        put(&mut self.buddies, buddy, |buddy| buddy.user);
        Exactness::Guessed
    }

    /// The server's lists are now at `version`. Only if ours took exactly that one step too may the next login say that
    /// it has them; otherwise they are sent again.
    fn advance(&mut self, version: RosterVersion, exactness: Exactness) {
        let one_step = version == self.version || version.0 == self.version.0.saturating_add(1);
        let exact = self.version != RosterVersion(0) && one_step && exactness == Exactness::Known;
        self.version = if exact { version } else { RosterVersion(0) };
    }
}

/// Whether a change left our lists as the server's are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exactness {
    Known,
    Guessed,
}

fn find<T, K: Ord>(list: &[T], key: K, key_of: impl FnMut(&T) -> K) -> Option<&T> {
    list.binary_search_by_key(&key, key_of).ok().and_then(|at| list.get(at))
}

/// Puts an entry in its place, over the one with the same key.
fn put<T, K: Ord>(list: &mut Vec<T>, entry: T, mut key_of: impl FnMut(&T) -> K) {
    let key = key_of(&entry);
    match list.binary_search_by_key(&key, key_of) {
        Ok(at) => {
            if let Some(place) = list.get_mut(at) {
                *place = entry;
            }
        }
        Err(at) => list.insert(at, entry),
    }
}

fn drop_entry<T, K: Ord>(list: &mut Vec<T>, key: K, key_of: impl FnMut(&T) -> K) -> bool {
    let found = list.binary_search_by_key(&key, key_of);
    found.map(|at| list.remove(at)).is_ok()
}
