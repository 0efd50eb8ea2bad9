//! Login: prove the key, take over from an older session, get everything one has; and leaving again.

use std::sync::Arc;

use xm_store::records::{Account, Roster};
use xmmep::bounded::{List, Text};
use xmmep::message::Message;
use xmmep::messages::Part;
use xmmep::messages::buddies::BuddiedNotify;
use xmmep::messages::login::{
    Blocked, ClientReady, DevicePolicy, Group, LoginReq, LoginRes1, LoginRes2, LoginRes3, LoginRes4, LoginRes6,
    LoginResEnd, LogoutReq, LogoutRes, SessionReport,
};
use xmmep::result_code::ResultCode;
use xmmep::secret::KeyHash;
use xmmep::session::{CloseReason, UserKind};
use xmmep::types::{Status, UserId};

use super::users::{Online, User};
use super::{Presence, delivery, online};
use crate::ctx::{Ctx, Now, Reply};
use crate::handlers::Handlers;
use crate::outbox::{Outbox, SessionRef};
use crate::profile::{name_card, public_card, wire_buddy, wire_profile};
use crate::refusal::Refusal;

/// Encoded bytes of the entries in one part of a list: with headers it stays within one datagram.
const PART_BYTES_MAX: usize = 1_000;

pub(super) fn handlers(h: Handlers<Presence>) -> Handlers<Presence> {
    h.from_stranger(login).from_client(ready).from_client(logout)
}

async fn login(ctx: Ctx<Presence>, req: LoginReq) -> Result<Reply, Refusal> {
    let presence = ctx.role();
    let session = ctx.session().ok_or(Refusal::BadState)?;
    let account = prove(&ctx, &req).await?;
    let (accounts, at) = (&presence.stores.accounts, ctx.now().wall);
    let history = accounts.logged_in(account.user, account.history(), at).await?.unwrap_or_default();
    let mut online = Some(Online {
        session,
        device: req.device,
        device_class: req.device_class,
        ready: false,
        live: false,
        was_asked: false,
        status: req.status,
        personal_msg: Some(&account.profile.personal_msg).filter(|line| !line.is_empty()).cloned().map(Box::new),
        announced: None,
        announce_due: false,
        told: Status::OFFLINE,
        replaced_at: None,
        allowance: (u64::from(presence.config.texts_burst) * 1_000, ctx.now().mono),
    });
    let contacts = &*presence.stores.contacts;
    let enter = |user: &mut User, roster: &Roster| {
        online.iter_mut().for_each(|new| new.was_asked = !roster.requests.is_empty());
        take_over(presence, &ctx, user, &mut online)
    };
    let (roster, replaced) = presence.users.enter(contacts, ctx.now().mono, account.user, enter).await?;
    if let Some(old) = replaced? {
        delivery::session_lost(presence, ctx.now(), ctx.outbox(), account.user);
        report_duplicate(&ctx, old, &req.device_name);
    }
    ctx.outbox().bind(session, account.user);
    let unchanged = req.roster_version == roster.version;
    let first = LoginRes1 {
        result: ResultCode::SUCCESS,
        user: account.user,
        name: account.name.clone(),
        profile: wire_profile(account.profile),
        server_time: ctx.now().wall,
        device_policy: DevicePolicy::SINGLE,
        failed_attempts: history.failed_attempts,
        roster_unchanged: unchanged,
    };
    let reply = ctx.reply_now(&first)?;
    send_lists(&ctx, session, account.user, roster, unchanged);
    tracing::info!(user = %account.user, "logged in");
    Ok(reply)
}

/// Who it is, if the key is right. Every wrong way takes the same steps.
async fn prove(ctx: &Ctx<Presence>, req: &LoginReq) -> Result<Account, Refusal> {
    let presence = ctx.role();
    let (now, folded) = (ctx.now(), req.name.folded());
    let ip = ctx.stranger_address().map(|address| address.ip());
    if let Some(wait) = presence.attempts.wait(now.mono, &folded, ip, presence.config.free_attempts) {
        let retry_after_s = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
        return Err(Refusal::RateLimited { retry_after_s });
    }
    if !matches!(req.status, Status::ONLINE | Status::BUSY | Status::AWAY | Status::INVISIBLE) {
        return Err(Refusal::BadField("status: one of ONLINE, BUSY, AWAY, INVISIBLE".into()));
    }
    let account = presence.stores.accounts.by_name(&req.name).await?;
    let waiting = ctx.admission().filter(|admission| admission.kind == UserKind::NotActivated);
    let nobody = KeyHash::from_bytes([0; 32]);
    let key_hash = account.as_ref().map(|account| &account.key_hash);
    let key_hash = key_hash.or(waiting.map(|admission| &admission.key_hash)).unwrap_or(&nobody);
    if req.login_key.hash() == *key_hash {
        presence.attempts.succeeded(&folded);
        return account.ok_or(Refusal::NotActivated);
    }
    presence.attempts.failed(now.mono, &folded, ip);
    if let Some(account) = account {
        presence.stores.accounts.login_failed(account.user, now.wall).await?;
    }
    Err(Refusal::WrongPassword)
}

/// Puts the new session in the place of the old one, if there is one; returns the old one.
fn take_over(
    presence: &Presence,
    ctx: &Ctx<Presence>,
    user: &mut User,
    online: &mut Option<Online>,
) -> Result<Option<SessionRef>, Refusal> {
    let now = ctx.now().mono;
    let Some(new) = online.as_mut() else { return Ok(None) };
    if let Some(old) = &user.online {
        let fights = old.replaced_at.filter(|at| now.since(*at) < presence.config.replace_interval);
        if old.device == new.device {
            new.replaced_at = fights;
        } else if let Some(at) = fights {
            // Two devices that throw each other out in turn would keep both, and the watchers, busy for ever.
            let left = presence.config.replace_interval.saturating_sub(now.since(at)).as_secs();
            return Err(Refusal::RateLimited { retry_after_s: u32::try_from(left).unwrap_or(60).saturating_add(1) });
        } else {
            new.replaced_at = Some(now);
        }
        // Friends go on seeing what they see until the new client is ready, or gone.
        new.told = old.told;
    }
    let replaced = user.online.take().map(|old| old.session);
    user.online = online.take();
    user.used = now;
    Ok(replaced)
}

/// The old client is told; its session hears nothing any more.
fn report_duplicate(ctx: &Ctx<Presence>, old: SessionRef, device_name: &Text<64>) {
    let report = SessionReport {
        result: ResultCode::DUPLICATE_SESSION,
        device_name: device_name.clone(),
        at: ctx.now().wall,
        may_reconnect: false,
    };
    ctx.outbox().send(old, &report);
    ctx.outbox().close(old, CloseReason::REPLACED);
}

/// Parts 2 to 6, each only if there is something in it, and the end with the totals.
fn send_lists(ctx: &Ctx<Presence>, session: SessionRef, me: UserId, roster: Roster, unchanged: bool) {
    let online = online::online_friends(ctx.role(), me);
    let mut end = LoginResEnd {
        groups: 0,
        buddies: 0,
        blocked: 0,
        rooms: 0,
        online: online.len() as u32,
        roster_version: roster.version,
    };
    if !unchanged {
        let groups = roster.groups.into_iter().map(|group| Group { group: group.group, name: group.name });
        let buddies = roster.buddies.into_iter().map(wire_buddy);
        let blocked = roster.blocked.into_iter().map(|person| Blocked { user: person.user, name: person.name });
        end.groups = groups.len() as u32;
        end.buddies = buddies.len() as u32;
        end.blocked = blocked.len() as u32;
        send_parts(ctx, session, List::in_parts(groups, PART_BYTES_MAX), |part, groups| LoginRes2 { part, groups });
        send_parts(ctx, session, List::in_parts(buddies, PART_BYTES_MAX), |part, buddies| LoginRes3 { part, buddies });
        send_parts(ctx, session, List::in_parts(blocked, PART_BYTES_MAX), |part, blocked| LoginRes4 { part, blocked });
    }
    send_parts(ctx, session, List::in_parts(online, PART_BYTES_MAX), |part, online| LoginRes6 { part, online });
    ctx.outbox().send(session, &end);
}

/// Sends a list in parts that fit a datagram each.
fn send_parts<T, M: Message>(
    ctx: &Ctx<Presence>,
    session: SessionRef,
    parts: Vec<List<T, 100>>,
    message: impl Fn(Part, List<T, 100>) -> M,
) {
    let total = parts.iter().map(|part| part.len() as u32).sum();
    let count = parts.len() as u16;
    for (number, list) in (0_u16..).zip(parts) {
        ctx.outbox().send(session, &message(Part { part: number, parts: count, total }, list));
    }
}

async fn ready(ctx: Ctx<Presence>, _: ClientReady) -> Result<Reply, Refusal> {
    let presence = ctx.role();
    let (me, session) = (ctx.user(), ctx.session().ok_or(Refusal::BadState)?);
    let was_asked = presence.users.with(me, |user| {
        let online = user.online.as_mut().filter(|online| online.session == session)?;
        let first = !std::mem::replace(&mut online.ready, true);
        Some(first.then_some(online.was_asked))
    });
    let Some(was_asked) = was_asked.flatten().ok_or(Refusal::BadState)? else { return ctx.done() };
    online::announce_login(presence, ctx.now(), ctx.outbox(), me);
    delivery::session_ready(presence, ctx.now(), ctx.outbox(), me, session);
    if was_asked {
        show_requests(&ctx, session).await?;
    }
    ctx.done()
}

/// Requests that came while the user was away.
async fn show_requests(ctx: &Ctx<Presence>, session: SessionRef) -> Result<(), Refusal> {
    let stores = &ctx.role().stores;
    let requests = stores.contacts.load(ctx.user()).await?.requests;
    let askers: Vec<_> = requests.iter().map(|request| request.from.user).collect();
    let accounts = if askers.is_empty() { Vec::new() } else { stores.accounts.by_users(&askers).await? };
    for request in requests {
        let account = accounts.iter().find(|account| account.user == request.from.user);
        let card = account.map_or_else(|| name_card(&request.from), public_card);
        ctx.outbox().send(session, &BuddiedNotify { card, greeting: request.greeting });
    }
    Ok(())
}

fn logout(ctx: Ctx<Presence>, _: LogoutReq) -> Result<Reply, Refusal> {
    let session = ctx.session().ok_or(Refusal::BadState)?;
    leave(ctx.role(), ctx.now(), ctx.outbox(), ctx.user(), session);
    let reply = ctx.reply_now(&LogoutRes { result: ResultCode::SUCCESS })?;
    ctx.outbox().close(session, CloseReason::DONE);
    Ok(reply)
}

/// A session is over: friends see OFFLINE, what was not confirmed goes to the store.
pub(super) fn leave(presence: &Arc<Presence>, now: Now, outbox: &Outbox, user: UserId, session: SessionRef) {
    let left = presence.users.with(user, |state| {
        let online = state.online.take_if(|online| online.session == session)?;
        Some((online.told != Status::OFFLINE).then(|| state.watchers()))
    });
    let Some(seen_by) = left.flatten() else { return };
    delivery::session_lost(presence, now, outbox, user);
    if let Some(friends) = seen_by {
        online::tell(presence, outbox, user, Status::OFFLINE, &friends);
    }
    presence.users.forget_idle(user);
    tracing::info!(%user, "left");
}
