//! The Presences the Router knows: where they are, which link is theirs, how many users each was given. What they say
//! about themselves comes in through `links.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use xmmep::bounded::List;
use xmmep::messages::login::Address;
use xmmep::secret::TicketKey;
use xmmep::types::{OwnerEpoch, PresenceId, Time, UserId};

use super::decoy::Decoy;
use super::lock;
use super::statuses::STATUS_GRACE;
use crate::link::Link;
use crate::refusal::Refusal;

/// Presences a Router knows. Identities come from keys the operator has listed; this bounds what a lookup may cost, which
/// draws once for each (some 0.1 µs).
pub const PRESENCES_MAX: usize = 256;

/// Counts how often a Presence came and went. It may begin again: what an old one leaves behind is gone after
/// [`STATUS_GRACE`].
pub(super) type Generation = u16;

/// What a Presence says about itself.
pub(super) struct Announced {
    /// Where clients reach it.
    pub(super) addresses: List<Address, 4>,
    /// Its static key.
    pub(super) static_key: [u8; 32],
    /// Seals tickets for it.
    pub(super) ticket_key: TicketKey,
}

/// The Presences registered since the Router started, connected or not.
#[derive(Default)]
pub(super) struct Presences(Mutex<BTreeMap<PresenceId, Known>>);

struct Known {
    announced: Arc<Announced>,
    owner_epoch: OwnerEpoch,
    /// `None` while it is away.
    link: Option<Arc<Link>>,
    /// Users given to it since the Router started.
    assigned: u64,
    /// Grows when it comes and when it goes: statuses of an older generation are hearsay.
    generation: Generation,
    /// Until when such hearsay counts.
    grace: Option<Time>,
    /// The last user whose activation was taken up again; the next round begins behind.
    resumed: UserId,
}

/// A Presence that is connected, as one of its messages finds it.
pub(super) struct Here {
    /// Which.
    pub(super) presence: PresenceId,
    /// The owner epoch it registered with.
    pub(super) owner_epoch: OwnerEpoch,
    /// See [`Known::generation`].
    pub(super) generation: Generation,
}

impl Presences {
    /// A Presence registers, on `link`. An earlier link of the same identity counts no more.
    pub(super) fn register(
        &self,
        now: Time,
        presence: PresenceId,
        owner_epoch: OwnerEpoch,
        announced: Announced,
        link: &Arc<Link>,
    ) -> Result<(), Refusal> {
        let mut presences = lock(&self.0);
        let before = presences.get(&presence);
        if before.is_none() && presences.len() >= PRESENCES_MAX {
            return Err(Refusal::LimitReached(u32::try_from(PRESENCES_MAX).unwrap_or(u32::MAX)));
        }
        if before.is_some_and(|before| owner_epoch < before.owner_epoch) {
            return Err(Refusal::StaleEpoch);
        }
        let known = Known {
            announced: Arc::new(announced),
            owner_epoch,
            link: Some(link.clone()),
            assigned: before.map_or(0, |before| before.assigned),
            generation: before.map_or(0, |before| before.generation.wrapping_add(1)),
            grace: before.map(|_| now.after(STATUS_GRACE)),
            resumed: UserId(0),
        };
        presences.insert(presence, known);
        Ok(())
    }

    /// A link is gone. Says whose it was, if it was still in use.
    pub(super) fn disconnect(&self, now: Time, link: &Arc<Link>) -> Option<PresenceId> {
        let mut presences = lock(&self.0);
        let is_it = |known: &Known| known.link.as_ref().is_some_and(|theirs| Arc::ptr_eq(theirs, link));
        let (presence, known) = presences.iter_mut().find(|(_, known)| is_it(known))?;
        known.link = None;
        known.generation = known.generation.wrapping_add(1);
        known.grace = Some(now.after(STATUS_GRACE));
        Some(*presence)
    }

    /// The Presence behind a message that came on `link`.
    pub(super) fn here(&self, presence: PresenceId, link: &Arc<Link>) -> Result<Here, Refusal> {
        let presences = lock(&self.0);
        let known = presences.get(&presence).ok_or(Refusal::BadState)?;
        match &known.link {
            Some(theirs) if Arc::ptr_eq(theirs, link) => {
                Ok(Here { presence, owner_epoch: known.owner_epoch, generation: known.generation })
            }
            Some(_) => Err(Refusal::StaleEpoch),
            None => Err(Refusal::BadState),
        }
    }

    /// Where the user of a lookup is sent: `home`, or where the decoy says. `None` while it is away, whichever of the
    /// two it is.
    pub(super) fn seat(&self, home: Option<PresenceId>, decoy: &Decoy) -> Option<(PresenceId, Arc<Announced>)> {
        let presences = lock(&self.0);
        // Drawn among the ones that are away as well: the names nobody has share the outages of those somebody has.
        let drawn = decoy.presence(presences.keys().copied());
        let presence = home.or(drawn)?;
        let known = presences.get(&presence).filter(|known| known.link.is_some())?;
        Some((presence, known.announced.clone()))
    }

    /// The connected Presence that was given the fewest users since the Router started; the first of several.
    pub(super) fn emptiest(&self) -> Option<PresenceId> {
        let presences = lock(&self.0);
        let connected = presences.iter().filter(|(_, known)| known.link.is_some());
        connected.min_by_key(|(presence, known)| (known.assigned, **presence)).map(|(presence, _)| *presence)
    }

    /// One more user was given to a Presence.
    pub(super) fn assigned(&self, presence: PresenceId) {
        if let Some(known) = lock(&self.0).get_mut(&presence) {
            known.assigned = known.assigned.saturating_add(1);
        }
    }

    /// The link to a Presence, and the epoch it acts under.
    pub(super) fn link(&self, presence: PresenceId) -> Option<(Arc<Link>, OwnerEpoch)> {
        let presences = lock(&self.0);
        let known = presences.get(&presence)?;
        Some((known.link.clone()?, known.owner_epoch))
    }

    /// Those that are connected.
    pub(super) fn connected(&self) -> Vec<(PresenceId, Arc<Link>)> {
        let presences = lock(&self.0);
        presences.iter().filter_map(|(presence, known)| Some((*presence, known.link.clone()?))).collect()
    }

    /// Presences whose hearsay has lapsed at `now`, each once, with the generation that still counts.
    pub(super) fn lapsed(&self, now: Time) -> Vec<(PresenceId, Generation)> {
        let mut presences = lock(&self.0);
        let lapsed = presences.iter_mut().filter_map(|(presence, known)| {
            known.grace.take_if(|grace| *grace <= now).map(|_| (*presence, known.generation))
        });
        lapsed.collect()
    }

    /// Behind which user the next round of resuming begins.
    pub(super) fn resumed(&self, presence: PresenceId) -> UserId {
        lock(&self.0).get(&presence).map_or(UserId(0), |known| known.resumed)
    }

    /// Remembers how far a round of resuming got.
    pub(super) fn set_resumed(&self, presence: PresenceId, user: UserId) {
        if let Some(known) = lock(&self.0).get_mut(&presence) {
            known.resumed = user;
        }
    }
}
