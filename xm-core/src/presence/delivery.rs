//! Delivery: carries out what an inbox asks for, at the sessions, the store and the senders. What is to be done is decided in
//! `inbox.rs`; shared by the flows that begin or end a session, block, or send.

use std::sync::Arc;
use std::time::Duration;

use xm_store::StoreError;
use xm_store::records::{Level, Parcel, ParcelId, Place};
use xmmep::message::Message;
use xmmep::messages::chat::{Forward, OfflineBeginNotify, OfflineEndNotify, Tick, TxtMsg, TxtTickNotify};
use xmmep::result_code::ResultCode;
use xmmep::types::UserId;

use super::Presence;
use super::inbox::{Effect, Effects, Inbox, Settling};
use super::timers::Due;
use super::users::User;
use crate::ctx::Now;
use crate::outbox::{LaneId, Outbox, SessionRef};
use crate::refusal::Refusal;
use crate::role::Task;

/// How long to wait before a store that failed is asked again.
pub(super) const STORE_RETRY: Duration = Duration::from_secs(1);

/// The 200 ms are over for some message to `user`.
pub(super) fn overdue(presence: &Arc<Presence>, now: Now, outbox: &Outbox, user: UserId) {
    change(presence, now, outbox, user, |inbox, effects| inbox.overdue(now.mono, effects));
}

/// The session of `user` is gone.
pub(super) fn session_lost(presence: &Arc<Presence>, now: Now, outbox: &Outbox, user: UserId) {
    change(presence, now, outbox, user, Inbox::session_lost);
}

/// The client of `user` is ready: what waits is announced and sent.
pub(super) fn session_ready(presence: &Arc<Presence>, now: Now, outbox: &Outbox, user: UserId, session: SessionRef) {
    let (presence, out) = (presence.clone(), outbox.clone());
    outbox.spawn(Box::pin(async move {
        if let Ok(waiting) = presence.stores.offline.summary(user).await
            && waiting.messages > 0
        {
            out.send(
                session,
                &OfflineBeginNotify {
                    messages: u32::try_from(waiting.messages).unwrap_or(u32::MAX),
                    bytes: waiting.bytes,
                    oldest: waiting.oldest.unwrap_or_default(),
                    files: 0,
                },
            );
        }
        let effects = presence.users.with(user, |state| {
            let mut effects = Effects::new();
            if state.ready_session() == Some(session) {
                state.inbox().session_ready(session, &mut effects);
                relay(&out, state, &mut effects);
            }
            effects
        });
        carry_out(&presence, now, &out, user, effects.unwrap_or_default());
    }));
}

/// `user` has just blocked `sender`: what still waits from there is refused.
pub(super) fn refuse_waiting(presence: &Arc<Presence>, outbox: &Outbox, now: Now, user: UserId, sender: UserId) {
    change(presence, now, outbox, user, |inbox, effects| inbox.refuse_from(sender, effects));
}

/// Tells senders which messages nobody fetched in time, and lets the store tidy up.
pub(super) fn housekeeping(presence: &Arc<Presence>, now: Now, outbox: &Outbox, lane: LaneId) -> Option<Task> {
    if lane != LaneId(0) || !presence.timers.take_housekeeping(now.mono) {
        return None;
    }
    let (presence, outbox) = (presence.clone(), outbox.clone());
    Some(Box::pin(async move {
        let retention = u64::try_from(presence.config.retention.as_millis()).unwrap_or(u64::MAX);
        let before = xmmep::types::WallTime(now.wall.0.saturating_sub(retention));
        loop {
            match presence.stores.offline.expire(before, now.wall, 256).await {
                Ok(expired) if expired.is_empty() => break,
                Ok(expired) => {
                    for gone in &expired {
                        tick(&presence, now, &outbox, gone.parcel, Tick::EXPIRED, (ResultCode::EXPIRED, 0));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the offline store could not let old messages expire; it will try again in an hour");
                    break;
                }
            }
        }
        if let Err(error) = presence.stores.offline.forget(now.wall).await {
            tracing::warn!(%error, "the offline store could not tidy up; it will try again in an hour");
        }
    }))
}

/// Something happened to the inbox of a user in memory.
fn change(
    presence: &Arc<Presence>,
    now: Now,
    outbox: &Outbox,
    user: UserId,
    happened: impl FnOnce(&mut Inbox, &mut Effects),
) {
    let effects = presence.users.with(user, |state| {
        let mut effects = Effects::new();
        if let Some(inbox) = state.open_inbox() {
            happened(inbox, &mut effects);
        }
        set_timer(presence, user, state);
        relay(outbox, state, &mut effects);
        effects
    });
    carry_out(presence, now, outbox, user, effects.unwrap_or_default());
}

/// Wakes the lane when the next message would have to be stored. Before it is told of the message: it looks at its timers then.
pub(super) fn set_timer(presence: &Presence, user: UserId, state: &mut User) {
    let Some(session) = state.ready_session() else { return };
    if let Some(at) = state.open_inbox().and_then(Inbox::timer) {
        presence.timers.set(session.lane(), at, Due::Store(user));
    }
}

/// Sends to the session of `state` what its inbox has for it. To be called before the user's lock is let go: otherwise
/// another lane could send what comes later first.
pub(super) fn relay(outbox: &Outbox, state: &User, effects: &mut Effects) {
    let Some(session) = state.ready_session() else { return };
    effects.retain(|effect| {
        match effect {
            Effect::Relay(text) => outbox.send_frame(session, text.frame().clone()),
            // What comes from the store is not taken on trust: one that is damaged must not hold up the others.
            Effect::RelayStored(Parcel { from, id, sent, body }) => match TxtMsg::decode_body(body) {
                Ok(message) => outbox.send_frame(session, Forward::new(*from, *sent, true, &message).frame().clone()),
                Err(error) => tracing::error!(%from, %id, %error, "a waiting message is damaged"),
            },
            Effect::Drained { sent: 0 } => {}
            Effect::Drained { sent } => outbox.send(session, &OfflineEndNotify { sent: *sent, left: 0 }),
            _ => return true,
        }
        false
    });
}

/// Does the rest of what the inbox of `owner` asks for.
pub(super) fn carry_out(presence: &Arc<Presence>, now: Now, outbox: &Outbox, owner: UserId, effects: Effects) {
    let mut settle = Vec::new();
    for effect in effects {
        match effect {
            // The session they were for is gone, and the inbox knows.
            Effect::Relay(_) | Effect::RelayStored(_) | Effect::Drained { .. } => {}
            Effect::Tick { parcel, tick: level, result, retry_after_s } => {
                if matches!(level, Tick::DELIVERED | Tick::READ) {
                    presence.users.remember(owner, parcel, level);
                }
                tick(presence, now, outbox, parcel, level, (result, retry_after_s));
            }
            Effect::Append => outbox.spawn(Box::pin(append(presence.clone(), now, outbox.clone(), owner))),
            Effect::Read { after, messages, bytes } => {
                let most = (messages, bytes);
                outbox.spawn(Box::pin(read(presence.clone(), now, outbox.clone(), owner, after, most)));
            }
            Effect::Settle(settling) => settle.push(settling),
        }
    }
    if !settle.is_empty() {
        outbox.spawn(Box::pin(settled(presence.clone(), now, outbox.clone(), owner, settle)));
    }
}

/// Appends what is queued for `owner`, batch after batch, one at a time so that the order stays.
async fn append(presence: Arc<Presence>, now: Now, outbox: Outbox, owner: UserId) {
    while let Some(batch) = presence.users.with(owner, |state| state.inbox().take_batch()).flatten() {
        let appended = match presence.stores.offline.append(owner, batch).await {
            Err(error) if may_pass(&error) => {
                // Outcome unknown: no tick and no refusal. Appending the same ids again finds out.
                tracing::warn!(%error, %owner, "messages cannot be stored; trying again");
                change(&presence, now, &outbox, owner, |inbox, _| inbox.append_failed());
                try_again(&presence, now, &outbox, owner);
                return;
            }
            // About this server and not about the text: sent again it reaches the new owner.
            Err(StoreError::Fenced) => Err(Refusal::NOT_READY),
            appended => appended.map_err(Refusal::from),
        };
        change(&presence, now, &outbox, owner, |inbox, effects| inbox.appended(appended, effects));
    }
    presence.users.with(owner, User::put_away_inbox);
    presence.users.forget_idle(owner);
}

/// Whether the same append may succeed later. If not, the senders are told.
fn may_pass(error: &StoreError) -> bool {
    use StoreError::{Corrupt, Fenced, Full, Rejected};
    !matches!(error, Full(_) | Corrupt(_) | Rejected(_) | Fenced)
}

/// The store failed: the inbox of `owner` is looked at again in a while.
fn try_again(presence: &Presence, now: Now, outbox: &Outbox, owner: UserId) {
    presence.timers.set(LaneId(0), now.mono.after(STORE_RETRY), Due::Store(owner));
    outbox.wake(LaneId(0));
}

/// Reads the next page of what waits for `owner`.
async fn read(presence: Arc<Presence>, now: Now, outbox: Outbox, owner: UserId, after: Place, most: (usize, usize)) {
    let Some(session) = presence.session_of(owner) else { return };
    let page = presence.stores.offline.page(owner, after, most.0, most.1).await;
    let effects = presence.users.with(owner, |state| {
        let mut effects = Effects::new();
        let blocked = state.blocked.clone();
        match page {
            Ok(page) => {
                let refuse = |parcel: &ParcelId| blocked.binary_search(&parcel.from).is_ok();
                state.inbox().page_read(session, page, refuse, &mut effects);
                relay(&outbox, state, &mut effects);
                state.put_away_inbox();
            }
            Err(error) => {
                tracing::warn!(%error, %owner, "waiting messages cannot be read; trying again");
                state.inbox().page_failed(session);
                try_again(&presence, now, &outbox, owner);
            }
        }
        effects
    });
    carry_out(&presence, now, &outbox, owner, effects.unwrap_or_default());
}

/// Tells the store which messages are settled, and their senders what the store did not know yet.
async fn settled(presence: Arc<Presence>, now: Now, outbox: Outbox, owner: UserId, settle: Vec<Settling>) {
    for level in [Level::Received, Level::Read, Level::Refused] {
        let settling: Vec<_> = settle.iter().filter(|settling| settling.level == level).copied().collect();
        let parcels: Vec<_> = settling.iter().map(|settling| settling.parcel).collect();
        if parcels.is_empty() {
            continue;
        }
        let raised = match presence.stores.offline.settle(owner, &parcels, level, now.wall).await {
            Ok(raised) => raised,
            // Asked again for ever it would say the same. The messages come again after the next login.
            Err(error) if !may_pass(&error) && !matches!(error, StoreError::Full(_)) => {
                tracing::error!(%error, %owner, "confirmations cannot be noted");
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, %owner, "confirmations cannot be noted; trying again");
                presence.users.with(owner, |state| state.inbox().settle_failed(settling));
                try_again(&presence, now, &outbox, owner);
                continue;
            }
        };
        let reached = match level {
            Level::Received => Tick::DELIVERED,
            Level::Read => Tick::READ,
            _ => continue,
        };
        for Settling { parcel, .. } in settling.into_iter().filter(|settling| !settling.told) {
            // Read, and never stored: that it was delivered is remembered here.
            let relayed = || level == Level::Read && presence.users.recall(owner, parcel) == Some(Tick::DELIVERED);
            if raised.contains(&parcel) || relayed() {
                presence.users.remember(owner, parcel, reached);
                tick(&presence, now, &outbox, parcel, reached, (ResultCode::SUCCESS, 0));
            }
        }
    }
}

/// Tells the sender, if he is there. If not, he asks by sending the message again.
fn tick(presence: &Presence, now: Now, outbox: &Outbox, parcel: ParcelId, tick: Tick, why: (ResultCode, u32)) {
    if let Some(session) = presence.users.with(parcel.from, |user| user.online.as_ref().map(|o| o.session)).flatten() {
        let (result, retry_after_s) = why;
        outbox.send(session, &TxtTickNotify { id: parcel.id, tick, result, at: now.wall, retry_after_s });
    }
}
