//! The Presence: sessions, status, buddies, chat and offline messages of the users who live on it.
//!
//! | flow | state it uses |
//! |---|---|
//! | `registration`, `profile`, `links` | – |
//! | `login`, `status`, `buddies` | `users`: who is in memory; `online`: who is told; `attempts`: password guesses |
//! | `chat` | `inbox`: what happens to a message; `delivery`: doing it; `recent`: how it ended |

mod attempts;
mod buddies;
mod chat;
mod config;
mod delivery;
mod inbox;
mod links;
mod login;
mod online;
mod profile;
mod recent;
mod registration;
mod status;
mod timers;
mod users;

use std::sync::{Arc, Mutex};

use xm_store::Stores;
use xmmep::types::{Time, UserId};

pub use self::chat::text_of;
pub use self::config::PresenceConfig;
pub use self::links::join;

use self::attempts::Attempts;
use self::timers::{Due, Timers};
use self::users::Users;
use crate::ctx::Now;
use crate::handlers::Handlers;
use crate::link::Link;
use crate::outbox::{LaneId, Outbox, SessionRef};
use crate::role::{Role, Task};

/// The Presence role: its state, shared by its handlers.
pub struct Presence {
    config: PresenceConfig,
    stores: Stores,
    users: Users,
    attempts: Attempts,
    timers: Timers,
    /// Whose roster in memory may be older than the store's: to be read again.
    stale: Mutex<std::collections::BTreeMap<UserId, buddies::Stale>>,
    routers: Mutex<Vec<Arc<Link>>>,
}

impl Presence {
    /// A Presence on these stores.
    #[must_use]
    pub fn new(config: PresenceConfig, stores: Stores) -> Arc<Self> {
        Arc::new(Self {
            config,
            stores,
            users: Users::new(),
            attempts: Attempts::new(),
            timers: Timers::new(),
            stale: Mutex::default(),
            routers: Mutex::default(),
        })
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &PresenceConfig {
        &self.config
    }

    /// Its stores, for handlers of embedders.
    #[must_use]
    pub fn stores(&self) -> &Stores {
        &self.stores
    }

    /// The session of a user who is logged in and ready to receive, for handlers of embedders.
    #[must_use]
    pub fn session_of(&self, user: UserId) -> Option<SessionRef> {
        self.users.with(user, |user| user.ready_session()).flatten()
    }

    /// The session of a user who is logged in, ready or not: what changes while a login is under way is told at once, or
    /// it would be neither in the lists nor in a notice.
    fn listener(&self, user: UserId) -> Option<SessionRef> {
        self.users.with(user, |user| user.online.as_ref().map(|online| online.session)).flatten()
    }

    /// How many users are in memory: online, or written to a moment ago.
    #[must_use]
    pub fn users_in_memory(&self) -> usize {
        self.users.len()
    }
}

/// All flows of a Presence. An embedder adds its own: `presence::handlers().from_client(play_note)`.
#[must_use]
pub fn handlers() -> Handlers<Presence> {
    let flows = [
        registration::handlers,
        login::handlers,
        status::handlers,
        buddies::handlers,
        chat::handlers,
        profile::handlers,
    ];
    flows.into_iter().fold(Handlers::new(), |handlers, flow| flow(handlers))
}

impl Role for Presence {
    fn session_ended(self: &Arc<Self>, now: Now, outbox: &Outbox, user: UserId, session: SessionRef) -> Option<Task> {
        login::leave(self, now, outbox, user, session);
        None
    }

    fn deadline(&self, lane: LaneId) -> Option<Time> {
        self.timers.deadline(lane)
    }

    fn on_deadline(self: &Arc<Self>, now: Now, outbox: &Outbox, lane: LaneId) -> Vec<Task> {
        while let Some(due) = self.timers.take_due(lane, now.mono) {
            match due {
                Due::Store(user) => delivery::overdue(self, now, outbox, user),
                Due::Announce(user) => online::announce(self, now, outbox, user),
                Due::Refresh(user) => {
                    outbox.spawn(Box::pin(buddies::refresh_late(self.clone(), now, outbox.clone(), user)))
                }
                Due::Sweep => {
                    self.users.sweep(now.mono);
                    self.timers.sweep_again(now.mono);
                }
            }
        }
        delivery::housekeeping(self, now, outbox, lane).into_iter().collect()
    }
}
