//! The Router's copy of who is online. It takes over nothing by itself: it is there for a spare that becomes a Presence,
//! and for buddies who live elsewhere.

use std::sync::Mutex;
use std::time::Duration;

use hashbrown::HashMap;
use xmmep::bounded::Text;
use xmmep::messages::DeviceClass;
use xmmep::types::{PresenceId, Status, UserId};

use super::lock;
use super::presences::Generation;

/// How long statuses outlive the link of their Presence without being confirmed on a new one. Longer than a client's
/// session survives silence (80 s), so that whoever comes back in time never seemed to be away.
pub const STATUS_GRACE: Duration = Duration::from_secs(90);

/// Room that is kept however few are online.
const SPARE: usize = 4_096;

/// An online user in the Router's copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnlineUser {
    /// Which Presence said so; the user lives there.
    pub presence: PresenceId,
    /// What watchers see: never OFFLINE or INVISIBLE.
    pub status: Status,
    /// The line beside it.
    pub personal_msg: Text<256>,
    /// The device in use.
    pub device_class: DeviceClass,
}

/// Who is online. One entry per online user, 29 to 57 bytes and the line of text; only users who live at the reporting
/// Presence get one, so there are at most as many as accounts. One lock: an update holds it for less than 1 µs.
#[derive(Default)]
pub(super) struct Statuses(Mutex<HashMap<UserId, Entry>>);

/// An [`OnlineUser`] in 16 bytes: the table has places for as many more.
struct Entry {
    presence: PresenceId,
    generation: Generation,
    status: Status,
    device_class: DeviceClass,
    /// `None` if it is empty, as most are.
    personal_msg: Option<Box<Text<256>>>,
}

impl Entry {
    fn user(&self) -> OnlineUser {
        OnlineUser {
            presence: self.presence,
            status: self.status,
            personal_msg: self.personal_msg.as_deref().cloned().unwrap_or_default(),
            device_class: self.device_class,
        }
    }
}

impl Statuses {
    /// Which Presence a user is online at.
    pub(super) fn presence(&self, user: UserId) -> Option<PresenceId> {
        lock(&self.0).get(&user).map(|entry| entry.presence)
    }

    pub(super) fn find(&self, user: UserId) -> Option<OnlineUser> {
        lock(&self.0).get(&user).map(Entry::user)
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// A user is online, seen in this generation of the user's Presence.
    pub(super) fn set(&self, user: UserId, online: OnlineUser, generation: Generation) {
        let OnlineUser { presence, status, personal_msg, device_class } = online;
        let personal_msg = Some(personal_msg).filter(|line| !line.is_empty()).map(Box::new);
        lock(&self.0).insert(user, Entry { presence, generation, status, device_class, personal_msg });
    }

    /// An online user's status changed.
    pub(super) fn change(&self, user: UserId, status: Status, generation: Generation) {
        if let Some(entry) = lock(&self.0).get_mut(&user) {
            entry.status = status;
            entry.generation = generation;
        }
    }

    /// A user is offline.
    pub(super) fn remove(&self, user: UserId) {
        let mut users = lock(&self.0);
        users.remove(&user);
        if users.capacity() > 4 * users.len() + SPARE {
            let len = users.len();
            users.shrink_to(2 * len);
        }
    }

    /// Drops what a Presence said before this generation.
    pub(super) fn forget_before(&self, presence: PresenceId, generation: Generation) {
        lock(&self.0).retain(|_, entry| entry.presence != presence || entry.generation == generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_takes_24_bytes_of_the_table() {
        assert_eq!(size_of::<(UserId, Entry)>(), 24);
    }
}
