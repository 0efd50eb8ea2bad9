//! The Router's copy of who is online. It takes over nothing by itself: it is there for a spare that becomes a Presence,
//! and for buddies who live elsewhere.

use std::sync::Mutex;
use std::time::Duration;

use hashbrown::HashMap;
use xmmep::bounded::Text;
use xmmep::messages::DeviceClass;
use xmmep::types::{PresenceId, Status, UserId};

use super::lock;

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

/// Who is online. One entry per online user, some 100 bytes and the line of text; only users who live at the reporting
/// Presence get one, so there are at most as many as accounts. One lock: an update holds it for less than 1 µs.
#[derive(Default)]
pub(super) struct Statuses(Mutex<HashMap<UserId, Entry>>);

struct Entry {
    user: OnlineUser,
    generation: u32,
}

impl Statuses {
    /// Which Presence a user is online at.
    pub(super) fn presence(&self, user: UserId) -> Option<PresenceId> {
        lock(&self.0).get(&user).map(|entry| entry.user.presence)
    }

    pub(super) fn find(&self, user: UserId) -> Option<OnlineUser> {
        lock(&self.0).get(&user).map(|entry| entry.user.clone())
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.0).len()
    }

    /// A user is online, seen in this generation of the user's Presence.
    pub(super) fn set(&self, user: UserId, online: OnlineUser, generation: u32) {
        lock(&self.0).insert(user, Entry { user: online, generation });
    }

    /// An online user's status changed.
    pub(super) fn change(&self, user: UserId, status: Status, generation: u32) {
        if let Some(entry) = lock(&self.0).get_mut(&user) {
            entry.user.status = status;
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
    pub(super) fn forget_before(&self, presence: PresenceId, generation: u32) {
        lock(&self.0).retain(|_, entry| entry.user.presence != presence || entry.generation == generation);
    }
}
