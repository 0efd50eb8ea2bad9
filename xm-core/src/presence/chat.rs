//! Chat: text between users, with ticks. What happens to a message is decided in `inbox.rs`; here it is carried out.

use std::sync::Arc;

use bytes::Bytes;
use xm_store::records::{Level, ParcelId, Place};
use xmmep::message::{Message, body_of};
use xmmep::messages::chat::{
    BODY_MAX, ConfirmLevel, OfflineBeginNotify, OfflineEndNotify, TargetKind, Tick, TxtConfirm, TxtMsg, TxtMsgFwd,
    TxtTickNotify,
};
use xmmep::result_code::ResultCode;
use xmmep::types::{Time, UserId};

use super::Presence;
use super::inbox::{Effect, Inbox, PAGE_BYTES_MAX, refused};
use super::timers::Due;
use super::users::{Online, User};
use crate::ctx::{Ctx, Now, Reply};
use crate::handlers::Handlers;
use crate::outbox::{LaneId, Outbox, SessionRef};
use crate::refusal::Refusal;
use crate::role::Task;

pub(super) fn handlers(h: Handlers<Presence>) -> Handlers<Presence> {
    h.from_client(send).from_client(confirm)
}

async fn send(ctx: Ctx<Presence>, message: TxtMsg) -> Result<Reply, Refusal> {
    let presence = ctx.role();
    let (me, now) = (ctx.user(), ctx.now());
    let parcel = ParcelId { from: me, id: message.text.id };
    let to = UserId(message.text.target);
    let mut effects = Vec::new();
    match check(&ctx, &message) {
        Err((result, retry_after_s)) => effects.push(refused(parcel, result, retry_after_s)),
        Ok(()) => {
            if let Some(tick) = presence.users.recall(to, parcel) {
                effects.push(Effect::Tick { parcel, tick, result: ResultCode::SUCCESS, retry_after_s: 0 });
            } else {
                let content = Bytes::from(body_of(&message));
                let take = |user: &mut User| {
                    // A stranger, a blocker and nobody at all are not told apart.
                    if !user.is_friend(me) {
                        effects.push(refused(parcel, ResultCode::BLOCKED, 0));
                        return;
                    }
                    let bound = presence.config.relay_bound;
                    user.inbox().accept(now.mono, bound, parcel, now.wall, content, &mut effects);
                    set_timer(presence, to, user);
                };
                if let Err(error) = presence.users.with_loaded(&*presence.stores.contacts, now.mono, to, take).await {
                    let refusal = Refusal::from(error);
                    effects.push(refused(parcel, refusal.code(), refusal.retry_after_s()));
                }
            }
        }
    }
    carry_out(presence, now, ctx.outbox(), to, effects);
    ctx.done()
}

/// Rules that do not depend on the recipient.
fn check(ctx: &Ctx<Presence>, message: &TxtMsg) -> Result<(), (ResultCode, u32)> {
    if message.text.target_kind != TargetKind::USER {
        return Err((ResultCode::NOT_FOUND, 0));
    }
    if message.text.target == ctx.user().0 || message.text.target == 0 {
        return Err((ResultCode::NOT_PERMITTED, 0));
    }
    if message.text.body.expose().len() > BODY_MAX {
        return Err((ResultCode::TOO_LARGE, 0));
    }
    let config = &ctx.role().config;
    let allowed = ctx.role().users.with(ctx.user(), |user| {
        let online = user.online.as_mut()?;
        Some(spend(online, ctx.now().mono, config.texts_burst, config.texts_per_second))
    });
    match allowed.flatten() {
        Some(true) => Ok(()),
        Some(false) => Err((ResultCode::RATE_LIMITED, 1)),
        None => Err((ResultCode::BAD_STATE, 0)),
    }
}

/// Takes one text off the allowance, which grows with time; false if none is left.
fn spend(online: &mut Online, now: Time, burst: u32, per_second: u32) -> bool {
    let (thousandths, since) = online.allowance;
    let grown = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX).saturating_mul(u64::from(per_second));
    let has = thousandths.saturating_add(grown).min(u64::from(burst) * 1_000);
    online.allowance = (has.saturating_sub(1_000), now);
    if has < 1_000 {
        online.allowance = (has, now);
    }
    has >= 1_000
}

async fn confirm(ctx: Ctx<Presence>, confirm: TxtConfirm) -> Result<Reply, Refusal> {
    let level = match confirm.level {
        ConfirmLevel::RECEIVED => Level::Received,
        ConfirmLevel::READ => Level::Read,
        _ => return Err(Refusal::BadField("level: RECEIVED or READ".into())),
    };
    let effects = ctx.role().users.with(ctx.user(), |user| {
        let current = user.online.as_ref().map(|online| online.session);
        let mut effects = Vec::new();
        for message in confirm.messages.iter().filter(|_| current == ctx.session()) {
            user.inbox().confirm(ParcelId { from: message.from, id: message.id }, level, &mut effects);
        }
        effects
    });
    carry_out(ctx.role(), ctx.now(), ctx.outbox(), ctx.user(), effects.unwrap_or_default());
    ctx.done()
}

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
            let mut effects = Vec::new();
            if state.ready_session() == Some(session) {
                state.inbox().session_ready(session, &mut effects);
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
        while let Ok(expired) = presence.stores.offline.expire(before, now.wall, 256).await {
            for gone in &expired {
                tick(&presence, now, &outbox, gone.parcel, Tick::EXPIRED, (ResultCode::EXPIRED, 0));
            }
            if expired.is_empty() {
                break;
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
    happened: impl FnOnce(&mut Inbox, &mut Vec<Effect>),
) {
    let effects = presence.users.with(user, |state| {
        let mut effects = Vec::new();
        if let Some(inbox) = &mut state.inbox {
            happened(inbox, &mut effects);
        }
        set_timer(presence, user, state);
        effects
    });
    carry_out(presence, now, outbox, user, effects.unwrap_or_default());
}

/// Wakes the lane when the next message would have to be stored.
fn set_timer(presence: &Presence, user: UserId, state: &User) {
    let at = state.inbox.as_ref().and_then(|inbox| inbox.deadline());
    if let (Some(at), Some(session)) = (at, state.ready_session()) {
        presence.timers.set(session.lane(), at, Due::Store(user));
    }
}

/// Does what the inbox of `owner` asks for.
fn carry_out(presence: &Arc<Presence>, now: Now, outbox: &Outbox, owner: UserId, effects: Vec<Effect>) {
    let mut settle: Vec<(Level, ParcelId)> = Vec::new();
    for effect in effects {
        match effect {
            Effect::Relay { parcel, at, content, from_store } => {
                let session = presence.session_of(owner);
                if let (Some(session), Ok(message)) = (session, TxtMsg::decode_body(&content)) {
                    let forward = TxtMsgFwd { from: parcel.from, at, from_store, text: message.text };
                    outbox.send(session, &forward);
                }
            }
            Effect::Tick { parcel, tick: level, result, retry_after_s } => {
                if matches!(level, Tick::DELIVERED | Tick::READ) {
                    presence.users.remember(owner, parcel, level);
                }
                tick(presence, now, outbox, parcel, level, (result, retry_after_s));
            }
            Effect::Append => outbox.spawn(Box::pin(append(presence.clone(), now, outbox.clone(), owner))),
            Effect::Read { after, max } => {
                outbox.spawn(Box::pin(read(presence.clone(), now, outbox.clone(), owner, after, max)));
            }
            Effect::Settle { parcel, level } => settle.push((level, parcel)),
            Effect::Drained { sent } => {
                if let Some(session) = presence.session_of(owner).filter(|_| sent > 0) {
                    outbox.send(session, &OfflineEndNotify { sent, left: 0 });
                }
            }
        }
    }
    if !settle.is_empty() {
        outbox.spawn(Box::pin(settled(presence.clone(), now, outbox.clone(), owner, settle)));
    }
}

/// Appends what is queued for `owner`, batch after batch, one at a time so that the order stays.
async fn append(presence: Arc<Presence>, now: Now, outbox: Outbox, owner: UserId) {
    while let Some(batch) = presence.users.with(owner, |state| state.inbox().take_batch()).flatten() {
        let appended = presence.stores.offline.append(owner, batch).await.map_err(Refusal::from);
        change(&presence, now, &outbox, owner, |inbox, effects| inbox.appended(appended, effects));
    }
    presence.users.with(owner, |state| {
        state.inbox.take_if(|inbox| inbox.is_idle());
    });
    presence.users.forget_idle(owner);
}

/// Reads the next page of what waits for `owner`.
async fn read(presence: Arc<Presence>, now: Now, outbox: Outbox, owner: UserId, after: Place, max: usize) {
    let Some(session) = presence.session_of(owner) else { return };
    let page = presence.stores.offline.page(owner, after, max, PAGE_BYTES_MAX).await;
    let effects = presence.users.with(owner, |state| {
        let mut effects = Vec::new();
        let blocked = state.blocked.clone();
        match page {
            Ok(page) => {
                let refuse = |parcel: &ParcelId| blocked.binary_search(&parcel.from).is_ok();
                state.inbox().page_read(session, page, refuse, &mut effects);
            }
            Err(error) => {
                tracing::warn!(%error, %owner, "waiting messages cannot be read; the next confirmation or login tries again");
                state.inbox().page_failed(session);
            }
        }
        effects
    });
    carry_out(&presence, now, &outbox, owner, effects.unwrap_or_default());
}

/// Tells the store which messages are settled, and their senders what the store did not know yet.
async fn settled(presence: Arc<Presence>, now: Now, outbox: Outbox, owner: UserId, settle: Vec<(Level, ParcelId)>) {
    for level in [Level::Received, Level::Read, Level::Refused] {
        let parcels: Vec<_> = settle.iter().filter(|(of, _)| *of == level).map(|(_, parcel)| *parcel).collect();
        if parcels.is_empty() {
            continue;
        }
        match presence.stores.offline.settle(owner, &parcels, level, now.wall).await {
            Ok(raised) if level != Level::Refused => {
                let reached = if level == Level::Read { Tick::READ } else { Tick::DELIVERED };
                for parcel in parcels {
                    // Read, and never stored: that it was delivered is remembered here.
                    let relayed =
                        || level == Level::Read && presence.users.recall(owner, parcel) == Some(Tick::DELIVERED);
                    if raised.contains(&parcel) || relayed() {
                        presence.users.remember(owner, parcel, reached);
                        tick(&presence, now, &outbox, parcel, reached, (ResultCode::SUCCESS, 0));
                    }
                }
            }
            Ok(_) => {}
            Err(error) => {
                // The message comes again after the next login, and the device knows it.
                tracing::warn!(%error, %owner, "a confirmation could not be noted");
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
