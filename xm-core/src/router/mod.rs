//! The Router: unique names and e-mail addresses, activation, where each user lives, and the copy of online statuses.
//! What it stores is behind [`Placements`]; sockets and links to other servers are the driver's.
//!
//! ```text
//! Register ──100, 102, 109──► registration.rs ──104──► Presence
//! stranger ──110────────────► login.rs
//! Presence ──212────────────► links.rs         ──131, 136──► status.rs
//! ```
//!
//! A Router can be restarted at any moment: what must survive is committed in the store before anything is answered,
//! Presences register anew on every link, and activations that were under way are taken up again then.

mod activations;
mod admitted;
mod decoy;
mod links;
mod login;
mod presences;
mod registration;
mod status;
mod statuses;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand_core::CryptoRng;
use xm_store::Placements;
use xmmep::types::{PresenceId, Time, UserId};

use crate::ctx::{Ctx, Now};
use crate::handlers::Handlers;
use crate::link::Link;
use crate::origin::Peer;
use crate::outbox::{LaneId, Outbox};
use crate::refusal::Refusal;
use crate::role::{Role, Task};

pub use activations::RESUMED_AT_ONCE_MAX;
use admitted::Admitted;
use decoy::Decoys;
pub use login::TICKET_LIFE;
pub use presences::PRESENCES_MAX;
use presences::{Here, Presences};
pub use registration::TOKEN_LIFE_MAX;
use statuses::Statuses;
pub use statuses::{OnlineUser, STATUS_GRACE};

/// How often the Router looks for activations that got stuck and for statuses nobody confirmed. Short enough that
/// somebody who activated while a Presence was away has an account before giving up.
pub const TICK: Duration = Duration::from_secs(30);

/// How often expired registrations are removed from the store. They stand in nobody's way before that.
pub const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// The message handlers of a Router, complete. Embedders add theirs to it.
#[must_use]
pub fn handlers() -> Handlers<Router> {
    let handlers = Handlers::new();
    let handlers = login::handlers(handlers);
    let handlers = registration::handlers(handlers);
    let handlers = links::handlers(handlers);
    status::handlers(handlers)
}

/// What a Router has to be told.
#[derive(Clone)]
pub struct RouterConfig {
    secret: [u8; 32],
}

impl RouterConfig {
    /// `secret`: 32 random bytes that nobody else knows and that stay the same over restarts and on the standby. The
    /// answers for names nobody has are derived from it, through a derivation of their own, so that a key used for
    /// something else as well does no harm. Whoever knows it can tell such names from real ones.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }
}

impl fmt::Debug for RouterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RouterConfig(…)")
    }
}

/// A Router's state, shared by its lanes.
pub struct Router {
    placements: Arc<dyn Placements>,
    presences: Presences,
    statuses: Statuses,
    admitted: Admitted,
    decoys: Decoys,
    rng: Mutex<Box<dyn CryptoRng + Send>>,
    due: Mutex<Due>,
}

/// When housekeeping is due.
#[derive(Clone, Copy)]
struct Due {
    tick: Time,
    forget: Time,
}

impl Router {
    /// A Router over `placements` that no Presence has registered with yet. `rng` must be fit for keys: nonces and
    /// random hashes in admission tickets come from it.
    #[must_use]
    pub fn new(config: &RouterConfig, placements: Arc<dyn Placements>, rng: Box<dyn CryptoRng + Send>) -> Arc<Self> {
        Arc::new(Self {
            placements,
            presences: Presences::default(),
            statuses: Statuses::default(),
            admitted: Admitted::new(),
            decoys: Decoys::new(&config.secret),
            rng: Mutex::new(rng),
            due: Mutex::new(Due { tick: Time::ZERO, forget: Time::ZERO }),
        })
    }

    /// The driver's duty when a link breaks: without it, the Router believes the Presence to be there until the next
    /// frame it sends. Its users' statuses stay for [`STATUS_GRACE`].
    pub fn link_down(&self, now: Now, link: &Arc<Link>) {
        if let Some(presence) = self.presences.disconnect(now.mono, link) {
            tracing::warn!(%presence, "a Presence is gone");
        }
    }

    /// Presences that are connected and registered.
    #[must_use]
    pub fn connected(&self) -> Vec<PresenceId> {
        self.presences.connected().into_iter().map(|(presence, _)| presence).collect()
    }

    /// What the copy of statuses says of a user; `None` if offline or unknown.
    #[must_use]
    pub fn online(&self, user: UserId) -> Option<OnlineUser> {
        self.statuses.find(user)
    }

    /// Users online anywhere, as far as the Presences have said.
    #[must_use]
    pub fn online_count(&self) -> usize {
        self.statuses.len()
    }

    async fn keep_house(self: Arc<Self>, now: Now, forget: bool) {
        for (presence, generation) in self.presences.lapsed(now.mono) {
            self.statuses.forget_before(presence, generation);
        }
        if forget {
            match self.placements.forget(now.wall).await {
                Ok(0) => {}
                Ok(expired) => tracing::info!(expired, "registrations that were never activated are removed"),
                Err(error) => tracing::warn!(%error, "expired registrations could not be removed"),
            }
        }
        for (presence, link) in self.presences.connected() {
            activations::resume(&self, now, presence, &link).await;
        }
    }
}

impl Role for Router {
    /// The first lane keeps house for all.
    fn deadline(&self, lane: LaneId) -> Option<Time> {
        (lane == LaneId(0)).then(|| lock(&self.due).tick)
    }

    fn on_deadline(self: &Arc<Self>, now: Now, _outbox: &Outbox, lane: LaneId) -> Vec<Task> {
        let mut due = lock(&self.due);
        if lane != LaneId(0) || now.mono < due.tick {
            return Vec::new();
        }
        due.tick = now.mono.after(TICK);
        let forget = now.mono >= due.forget;
        if forget {
            due.forget = now.mono.after(FORGET_EVERY);
        }
        vec![Box::pin(self.clone().keep_house(now, forget))]
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("connected", &self.connected()).field("online", &self.online_count()).finish()
    }
}

/// Only a Register may send this.
fn from_register(ctx: &Ctx<Router>) -> Result<(), Refusal> {
    match ctx.link().map(|link| link.peer()) {
        Some(Peer::Register) => Ok(()),
        _ => Err(Refusal::WrongRole),
    }
}

/// The Presence that sent this, if it is the one that registered for its identity last.
fn from_presence(ctx: &Ctx<Router>) -> Result<Here, Refusal> {
    match ctx.link().map(|link| (link, link.peer())) {
        Some((link, Peer::Presence(presence))) => ctx.role().presences.here(presence, link),
        _ => Err(Refusal::WrongRole),
    }
}

/// A lock nobody holds for long; what a panicking holder left is still whole, because each change is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
