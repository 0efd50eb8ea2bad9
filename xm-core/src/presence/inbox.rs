//! The inbox of one user: messages on their way to the device, to the store, or both. A state machine without store or
//! session: calls say what happened, [`Effect`]s say what is to be done.
//!
//! ```text
//!            recipient ready                     no confirmation in time, session lost
//! accept ──► Relayed ──────────────────────────► Queued ──► Appending ──► stored
//!    │          │ confirmed                        ▲                         │ confirmed
//!    │          └──► DELIVERED                     │                         └──► DELIVERED
//!    └─ recipient away, or still draining ─────────┘          STORED when the store says so, not before
//! ```
//!
//! Order: messages leave the inbox for the session, and for the store, in the order they came. While older messages
//! drain from the store, newer ones queue behind them there; nothing overtakes.

use std::collections::VecDeque;
use std::time::Duration;

use smallvec::SmallVec;
use xm_store::offline::Appended;
use xm_store::records::{Level, Parcel, ParcelId, Place};
use xmmep::messages::chat::{Forward, Tick};
use xmmep::result_code::ResultCode;
use xmmep::types::{Time, WallTime};

use crate::outbox::SessionRef;
use crate::refusal::Refusal;

/// Messages of one recipient that are in memory: relayed and unconfirmed, or on their way to the store. With 12 KiB
/// each, 12 MiB is the most one recipient can make us hold; more are refused with SERVER_BUSY.
pub(super) const PENDING_MAX: usize = 1_000;

/// Messages from the store that may be unconfirmed at one time.
pub(super) const UNCONFIRMED_MAX: usize = 64;

/// Bytes of messages from the store that may be unconfirmed at one time, but for the last one. Leaves room in the send
/// queue of a session (512 KiB) for everything else.
pub(super) const UNCONFIRMED_BYTES_MAX: usize = 128 * 1024;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Send this message to the recipient's session.
    Relay(Forward),
    /// Send this message from the store to the recipient's session.
    RelayStored(Parcel),
    /// Tell the sender.
    Tick { parcel: ParcelId, tick: Tick, result: ResultCode, retry_after_s: u32 },
    /// Start appending: call [`Inbox::take_batch`] until it has nothing, giving each result to [`Inbox::appended`].
    Append,
    /// Read the next page and give it to [`Inbox::page_read`].
    Read { after: Place, messages: usize, bytes: usize },
    /// Tell the store.
    Settle(Settling),
    /// Everything that waited has been sent; from here on messages are live.
    Drained { sent: u32 },
}

/// What is to be done after one call: most ask for little, and that needs no memory of its own.
pub(super) type Effects = SmallVec<[Effect; 3]>;

/// A message that no longer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settling {
    pub(super) parcel: ParcelId,
    pub(super) level: Level,
    /// The sender knows already.
    pub(super) told: bool,
}

/// Messages on their way to one user.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pending: VecDeque<Pending>,
    /// What the store could not take note of; at most [`PENDING_MAX`].
    unsettled: Vec<Settling>,
    appending: bool,
    road: Road,
    /// When [`overdue`](Self::overdue) is going to be called, as far as [`timer`](Self::timer) asked for it.
    timer: Option<Time>,
}

/// Which way a new message goes.
#[derive(Debug, Default)]
enum Road {
    /// To the store: nobody is there.
    #[default]
    Away,
    /// To the store: older ones are still being sent from there.
    Draining(Box<Draining>),
    /// To the session.
    Live,
}

#[derive(Debug)]
struct Draining {
    session: SessionRef,
    after: Place,
    /// What was sent to the device and not confirmed, with its size.
    unconfirmed: Vec<(ParcelId, usize)>,
    sent: u32,
    /// A page is being read.
    reading: bool,
    /// Something was stored since that page was asked for.
    again: bool,
}

#[derive(Debug)]
struct Pending {
    parcel: ParcelId,
    at: WallTime,
    text: Forward,
    stage: Stage,
    /// It was sent to the session that is there now.
    relayed: bool,
    /// The recipient has confirmed it while it was being appended.
    confirmed: Option<Level>,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// The store comes in when this time has passed.
    Relayed { store_at: Time },
    /// The store could not take it; the device still may.
    Kept,
    /// To be appended.
    Queued,
    /// Being appended.
    Appending,
    /// Stored, and relayed to this session.
    Stored,
}

impl Inbox {
    /// An empty one; [`is_live`](Self::is_live) is what the last one of this session said.
    pub(super) fn new(live: bool) -> Self {
        Self { road: if live { Road::Live } else { Road::Away }, ..Self::default() }
    }

    /// A message came. `bound` is how long the recipient's confirmation may take before the message is stored.
    pub(super) fn accept(
        &mut self,
        now: Time,
        bound: Duration,
        parcel: ParcelId,
        at: WallTime,
        mut text: Forward,
        effects: &mut Effects,
    ) {
        if let Some(known) = self.pending.iter().find(|pending| pending.parcel == parcel) {
            if known.text.body() != text.body() {
                effects.push(refused(parcel, ResultCode::ID_CONFLICT, 0));
            } else if known.stage == Stage::Stored {
                effects.push(ticked(parcel, Tick::STORED));
            }
            return;
        }
        if self.pending.len() >= PENDING_MAX {
            effects.push(refused(parcel, ResultCode::SERVER_BUSY, 1));
            return;
        }
        let live = self.is_live();
        let stage = if live { Stage::Relayed { store_at: now.after(bound) } } else { Stage::Queued };
        if live {
            effects.push(Effect::Relay(text.clone()));
        } else {
            text.keep();
        }
        self.pending.push_back(Pending { parcel, at, text, stage, relayed: live, confirmed: None });
        self.want_append(effects);
    }

    /// The recipient's device has a message.
    pub(super) fn confirm(&mut self, parcel: ParcelId, level: Level, effects: &mut Effects) {
        let tick = if level == Level::Read { Tick::READ } else { Tick::DELIVERED };
        let place = self.pending.iter().position(|pending| pending.parcel == parcel && pending.relayed);
        let Some((place, pending)) = place.and_then(|place| Some((place, self.pending.get_mut(place)?))) else {
            // Sent from the store, or long ago: the store knows, and says whether the sender is to be told.
            effects.push(Effect::Settle(Settling { parcel, level, told: false }));
            self.confirmed_from_store(parcel, effects);
            return;
        };
        effects.push(ticked(parcel, tick));
        match pending.stage {
            Stage::Appending => pending.confirmed = Some(level),
            Stage::Stored => {
                effects.push(Effect::Settle(Settling { parcel, level, told: true }));
                self.pending.remove(place);
            }
            Stage::Relayed { .. } | Stage::Kept | Stage::Queued => {
                self.pending.remove(place);
            }
        }
    }

    /// When [`overdue`](Self::overdue) has something to do.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.pending.iter().find_map(|pending| match pending.stage {
            Stage::Relayed { store_at } => Some(store_at),
            _ => None,
        })
    }

    /// When to call [`overdue`](Self::overdue), unless that was said before: most messages are confirmed long before, and a
    /// timer for each would cost more than they do.
    pub(super) fn timer(&mut self) -> Option<Time> {
        let at = self.deadline()?;
        if self.timer.is_some_and(|set| set <= at) {
            return None;
        }
        self.timer = Some(at);
        Some(at)
    }

    /// The store could not take note of this: it is told again. More than it can hold is forgotten, and comes again after
    /// the next login to a device that knows it.
    pub(super) fn settle_failed(&mut self, settling: Vec<Settling>) {
        self.unsettled.extend(settling);
        self.unsettled.truncate(PENDING_MAX);
    }

    /// Messages that were not confirmed in time go to the store, too; and what the store failed to do is tried again.
    pub(super) fn overdue(&mut self, now: Time, effects: &mut Effects) {
        self.timer = self.timer.filter(|set| *set > now);
        effects.extend(self.unsettled.drain(..).map(Effect::Settle));
        for pending in &mut self.pending {
            if matches!(pending.stage, Stage::Relayed { store_at } if store_at <= now) {
                pending.queue();
            }
        }
        self.want_append(effects);
        self.want_page(effects);
    }

    /// The next messages to append, in order; `None` when there are none and appending is over.
    pub(super) fn take_batch(&mut self) -> Option<Vec<Parcel>> {
        let mut batch = Vec::new();
        for pending in self.pending.iter_mut().filter(|pending| pending.stage == Stage::Queued).take(UNCONFIRMED_MAX) {
            pending.stage = Stage::Appending;
            let ParcelId { from, id } = pending.parcel;
            batch.push(Parcel { from, id, sent: pending.at, body: pending.text.body().to_vec() });
        }
        self.appending = !batch.is_empty();
        self.appending.then_some(batch)
    }

    /// The store could not say whether it has the last batch. Nobody is told anything, nothing overtakes: it is appended
    /// again, and [`overdue`](Self::overdue) starts that.
    pub(super) fn append_failed(&mut self) {
        self.appending = false;
        for pending in &mut self.pending {
            if pending.stage == Stage::Appending {
                pending.stage = Stage::Queued;
            }
        }
        // What the device confirmed meanwhile needs no store.
        self.pending.retain(|pending| pending.stage != Stage::Queued || pending.confirmed.is_none());
    }

    /// How appending the last batch ended: an answer for each, or one refusal for all.
    pub(super) fn appended(&mut self, results: Result<Vec<Appended>, Refusal>, effects: &mut Effects) {
        let mut results = results.map(Vec::into_iter);
        let mut kept = VecDeque::with_capacity(self.pending.len());
        for mut pending in std::mem::take(&mut self.pending) {
            if pending.stage != Stage::Appending {
                kept.push_back(pending);
                continue;
            }
            let result = match &mut results {
                Ok(results) => results.next().ok_or(Refusal::NOT_READY),
                Err(refusal) => Err(refusal.clone()),
            };
            if let Some(stage) = pending.settle(result, effects) {
                pending.stage = stage;
                kept.push_back(pending);
            }
        }
        self.pending = kept;
        if let Road::Draining(draining) = &mut self.road {
            draining.again = true;
        }
        self.want_page(effects);
    }

    /// The session is gone: what it had not confirmed goes to the store.
    pub(super) fn session_lost(&mut self, effects: &mut Effects) {
        self.road = Road::Away;
        self.pending.retain_mut(|pending| {
            pending.relayed = false;
            if matches!(pending.stage, Stage::Relayed { .. } | Stage::Kept) {
                pending.queue();
            }
            pending.stage != Stage::Stored
        });
        self.want_append(effects);
    }

    /// A session is ready to receive: first what waits in the store, then the rest.
    pub(super) fn session_ready(&mut self, session: SessionRef, effects: &mut Effects) {
        self.road = Road::Draining(Box::new(Draining {
            session,
            after: Place::START,
            unconfirmed: Vec::new(),
            sent: 0,
            reading: false,
            again: true,
        }));
        self.want_page(effects);
    }

    /// A page that [`Effect::Read`] asked for on behalf of `session`; `refuse` says whose messages are no longer wanted.
    pub(super) fn page_read(
        &mut self,
        session: SessionRef,
        page: Vec<(Place, Parcel)>,
        refuse: impl Fn(&ParcelId) -> bool,
        effects: &mut Effects,
    ) {
        let Road::Draining(draining) = &mut self.road else { return };
        if draining.session != session {
            return;
        }
        draining.reading = false;
        let more = !page.is_empty();
        for (place, stored) in page {
            let parcel = ParcelId { from: stored.from, id: stored.id };
            draining.after = draining.after.max(place);
            if refuse(&parcel) {
                effects.push(Effect::Settle(Settling { parcel, level: Level::Refused, told: true }));
                effects.push(refused(parcel, ResultCode::BLOCKED, 0));
                continue;
            }
            draining.unconfirmed.push((parcel, stored.body.len()));
            draining.sent = draining.sent.saturating_add(1);
            effects.push(Effect::RelayStored(stored));
        }
        draining.again |= more;
        self.want_page(effects);
    }

    /// The store could not be read; [`overdue`](Self::overdue) tries again.
    pub(super) fn page_failed(&mut self, session: SessionRef) {
        if let Road::Draining(draining) = &mut self.road
            && draining.session == session
        {
            draining.reading = false;
            draining.again = true;
        }
    }

    /// Messages of a sender who is no longer wanted, and that no device has seen.
    pub(super) fn refuse_from(&mut self, sender: xmmep::types::UserId, effects: &mut Effects) {
        self.pending.retain(|pending| {
            let refuse = pending.parcel.from == sender && pending.stage == Stage::Queued && !pending.relayed;
            if refuse {
                effects.push(refused(pending.parcel, ResultCode::BLOCKED, 0));
            }
            !refuse
        });
    }

    /// Whether nothing is on its way, so that [`new`](Self::new) makes one like it.
    pub(super) fn is_empty(&self) -> bool {
        let draining = matches!(self.road, Road::Draining(_));
        self.pending.is_empty() && self.unsettled.is_empty() && !self.appending && !draining
    }

    /// Whether new messages go to the session at once: everything that waited was sent to it.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.road, Road::Live)
    }

    fn confirmed_from_store(&mut self, parcel: ParcelId, effects: &mut Effects) {
        if let Road::Draining(draining) = &mut self.road {
            draining.unconfirmed.retain(|(unconfirmed, _)| *unconfirmed != parcel);
            self.want_page(effects);
        }
    }

    fn want_append(&mut self, effects: &mut Effects) {
        if !self.appending && self.pending.iter().any(|pending| pending.stage == Stage::Queued) {
            self.appending = true;
            effects.push(Effect::Append);
        }
    }

    /// Asks for the next page if there may be one and the device keeps up; goes live if there is none.
    fn want_page(&mut self, effects: &mut Effects) {
        let Road::Draining(draining) = &mut self.road else { return };
        if draining.reading {
            return;
        }
        if draining.again {
            // Half a window at a time: a page per confirmation would be a read per message.
            let messages = UNCONFIRMED_MAX.saturating_sub(draining.unconfirmed.len());
            let bytes = UNCONFIRMED_BYTES_MAX.saturating_sub(draining.unconfirmed.iter().map(|(_, size)| size).sum());
            if messages >= UNCONFIRMED_MAX / 2 && bytes >= UNCONFIRMED_BYTES_MAX / 2 {
                draining.again = false;
                draining.reading = true;
                effects.push(Effect::Read { after: draining.after, messages, bytes });
            }
            return;
        }
        let behind = |pending: &Pending| matches!(pending.stage, Stage::Queued | Stage::Appending);
        if !self.pending.iter().any(behind) {
            effects.push(Effect::Drained { sent: draining.sent });
            self.road = Road::Live;
        }
    }
}

impl Pending {
    /// It goes to the store, which may take its time.
    fn queue(&mut self) {
        self.stage = Stage::Queued;
        self.text.keep();
    }

    /// What the store's answer means: effects, and the next stage if it stays in memory.
    fn settle(&self, result: Result<Appended, Refusal>, effects: &mut Effects) -> Option<Stage> {
        let parcel = self.parcel;
        match result {
            Ok(Appended::Stored(_)) => {
                if let Some(level) = self.confirmed {
                    effects.push(Effect::Settle(Settling { parcel, level, told: true }));
                    return None;
                }
                effects.push(ticked(parcel, Tick::STORED));
                self.relayed.then_some(Stage::Stored)
            }
            Ok(Appended::Already(_, level)) => {
                if let (Some(confirmed), Level::Stored) = (self.confirmed, level) {
                    effects.push(Effect::Settle(Settling { parcel, level: confirmed, told: true }));
                    return None;
                }
                effects.push(level_tick(parcel, level));
                (self.relayed && level == Level::Stored).then_some(Stage::Stored)
            }
            _ if self.confirmed.is_some() => None,
            Ok(Appended::IdConflict) => {
                effects.push(refused(parcel, ResultCode::ID_CONFLICT, 0));
                None
            }
            // The device has it in its hands; it may still confirm, and if its session ends the store is asked again.
            _ if self.relayed => Some(Stage::Kept),
            Ok(Appended::QuotaFull) => {
                effects.push(refused(parcel, ResultCode::QUOTA_FULL, 0));
                None
            }
            Ok(Appended::TooLarge) => {
                effects.push(refused(parcel, ResultCode::TOO_LARGE, 0));
                None
            }
            Err(refusal) => {
                effects.push(refused(parcel, refusal.code(), refusal.retry_after_s()));
                None
            }
        }
    }
}

/// The tick that tells a stored message's level.
pub(super) fn level_tick(parcel: ParcelId, level: Level) -> Effect {
    match level {
        Level::Stored => ticked(parcel, Tick::STORED),
        Level::Received => ticked(parcel, Tick::DELIVERED),
        Level::Read => ticked(parcel, Tick::READ),
        Level::Refused => refused(parcel, ResultCode::BLOCKED, 0),
        Level::Expired => Effect::Tick { parcel, tick: Tick::EXPIRED, result: ResultCode::EXPIRED, retry_after_s: 0 },
    }
}

fn ticked(parcel: ParcelId, tick: Tick) -> Effect {
    Effect::Tick { parcel, tick, result: ResultCode::SUCCESS, retry_after_s: 0 }
}

/// The tick that turns a message down.
pub(super) fn refused(parcel: ParcelId, result: ResultCode, retry_after_s: u32) -> Effect {
    Effect::Tick { parcel, tick: Tick::REFUSED, result, retry_after_s }
}

#[cfg(test)]
#[path = "inbox_tests.rs"]
mod tests;
