//! Chat: text between users, with ticks. Where a message goes is decided in `inbox.rs` and carried out in `delivery.rs`.

use xm_store::records::{Level, ParcelId};
use xmmep::message::Message;
use xmmep::messages::chat::{BODY_MAX, ConfirmLevel, Forward, TargetKind, TxtConfirm, TxtMsg};
use xmmep::result_code::ResultCode;
use xmmep::types::{Time, UserId};

use super::Presence;
use super::delivery::{carry_out, relay, set_timer};
use super::inbox::{Effect, Effects, refused};
use super::users::{Online, User};
use crate::ctx::{Ctx, Reply};
use crate::handlers::Handlers;
use crate::refusal::Refusal;

pub(super) fn handlers(h: Handlers<Presence>) -> Handlers<Presence> {
    h.from_client(send).from_client(confirm)
}

fn send(ctx: Ctx<Presence>, message: TxtMsg) -> Result<Reply, Refusal> {
    let presence = ctx.role();
    let (me, now) = (ctx.user(), ctx.now());
    let parcel = ParcelId { from: me, id: message.text.id };
    let to = UserId(message.text.target);
    let mut effects = Effects::new();
    match check(&ctx, &message) {
        Err((result, retry_after_s)) => effects.push(refused(parcel, result, retry_after_s)),
        Ok(standing) => match presence.users.recall(to, parcel) {
            Some(tick) => effects.push(Effect::Tick { parcel, tick, result: ResultCode::SUCCESS, retry_after_s: 0 }),
            None => accept(&ctx, standing, &message, parcel, &mut effects),
        },
    }
    carry_out(presence, now, ctx.outbox(), to, effects);
    ctx.done()
}

/// Gives a message to the recipient's inbox. Reads no store: whoever writes is online, and knows whom he may write to.
fn accept(ctx: &Ctx<Presence>, standing: Standing, message: &TxtMsg, parcel: ParcelId, effects: &mut Effects) {
    let (presence, now) = (ctx.role(), ctx.now());
    let to = UserId(message.text.target);
    let text = Forward::new(parcel.from, now.wall, false, message);
    let take = |user: &mut User| {
        // A stranger, a blocker and nobody at all are not told apart. The recipient's own view counts if there is one.
        let friend = if user.is_known() { user.is_friend(parcel.from) } else { standing == Standing::Friend };
        if !friend {
            effects.push(refused(parcel, ResultCode::BLOCKED, 0));
            return;
        }
        let bound = presence.config.relay_bound;
        user.inbox().accept(now.mono, bound, parcel, now.wall, text, effects);
        set_timer(presence, to, user);
        relay(ctx.outbox(), user, effects);
    };
    let in_memory = || presence.users.with(to, |_| ()).is_some();
    if standing == Standing::Friend || in_memory() {
        presence.users.with_absent(now.mono, to, take);
    } else {
        effects.push(refused(parcel, ResultCode::BLOCKED, 0));
    }
}

/// What the sender of a message is to its recipient, as the sender's own roster has it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Friend,
    Stranger,
}

/// Rules that do not depend on the recipient.
fn check(ctx: &Ctx<Presence>, message: &TxtMsg) -> Result<Standing, (ResultCode, u32)> {
    if message.text.target_kind != TargetKind::USER {
        return Err((ResultCode::NOT_FOUND, 0));
    }
    if message.text.target == ctx.user().0 || message.text.target == 0 {
        return Err((ResultCode::NOT_PERMITTED, 0));
    }
    if message.text.body.len() > BODY_MAX {
        return Err((ResultCode::TOO_LARGE, 0));
    }
    let config = &ctx.role().config;
    let allowed = ctx.role().users.with(ctx.user(), |user| {
        let friend = user.is_friend(UserId(message.text.target));
        let online = user.online.as_mut()?;
        let allowed = spend(online, ctx.now().mono, config.texts_burst, config.texts_per_second);
        Some((allowed, if friend { Standing::Friend } else { Standing::Stranger }))
    });
    match allowed.flatten() {
        Some((true, standing)) => Ok(standing),
        Some((false, _)) => Err((ResultCode::RATE_LIMITED, 1)),
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

/// The text in the body of a parcel, for tools that hand a user's data over; `None` if it is no text of ours. What a server
/// logs or shows to operators never comes from here.
#[must_use]
pub fn text_of(body: &[u8]) -> Option<String> {
    TxtMsg::decode_body(body).ok().map(|message| message.text.body.expose().to_owned())
}

fn confirm(ctx: Ctx<Presence>, confirm: TxtConfirm) -> Result<Reply, Refusal> {
    let level = match confirm.level {
        ConfirmLevel::RECEIVED => Level::Received,
        ConfirmLevel::READ => Level::Read,
        _ => return Err(Refusal::BadField("level: RECEIVED or READ".into())),
    };
    let effects = ctx.role().users.with(ctx.user(), |user| {
        let current = user.online.as_ref().map(|online| online.session);
        let mut effects = Effects::new();
        for message in confirm.messages.iter().filter(|_| current == ctx.session()) {
            user.inbox().confirm(ParcelId { from: message.from, id: message.id }, level, &mut effects);
        }
        relay(ctx.outbox(), user, &mut effects);
        effects
    });
    carry_out(ctx.role(), ctx.now(), ctx.outbox(), ctx.user(), effects.unwrap_or_default());
    ctx.done()
}
