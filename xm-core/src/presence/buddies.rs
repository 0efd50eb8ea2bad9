//! Buddies: ask, answer, remove, change, block, unblock. Who sees whom online lives in `status.rs`.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use xm_store::contacts::{Answer, Ask, Standing};
use xm_store::records::Person;
use xm_store::{RosterError, StoreError};
use xmmep::messages::buddies::{
    AddBuddyReq, AddBuddyRes, BuddiedNotify, BuddiedNotifyRes, BuddyAnswer, BuddyAnsweredNotify, BuddyBlockedNotify,
    BuddyModifiedNotify, BuddyRemovedNotify, BuddyUnblockedNotify, RosterOpRes,
};
use xmmep::result_code::ResultCode;
use xmmep::types::{RosterVersion, Time, UserId};

use super::online::{are_friends, show_each_other};
use super::timers::Due;
use super::{Presence, delivery};
use crate::ctx::{Ctx, Now, Reply};
use crate::handlers::Handlers;
use crate::outbox::{LaneId, Outbox};
use crate::profile::{public_card, wire_buddy};
use crate::refusal::Refusal;

pub(super) fn handlers(h: Handlers<Presence>) -> Handlers<Presence> {
    h.from_client(add)
        .from_client(answer)
        .from_client(remove)
        .from_client(modify)
        .from_client(block)
        .from_client(unblock)
}

async fn add(ctx: Ctx<Presence>, req: AddBuddyReq) -> Result<Reply, Refusal> {
    let presence = ctx.role();
    let me = presence.stores.accounts.by_user(ctx.user()).await?.ok_or(Refusal::BadState)?;
    let buddy = presence.stores.accounts.by_name(&req.name).await?.ok_or(Refusal::NoSuchUser)?;
    let wish = Ask {
        me: Person { user: me.user, name: me.name.clone() },
        buddy: Person { user: buddy.user, name: buddy.name },
        display_name: req.display_name,
        group: req.group,
        greeting: req.greeting.clone(),
        at: ctx.now().wall,
    };
    let asked = followed(&ctx, buddy.user, presence.stores.contacts.ask(wish).await).await?;
    // A buddy who has blocked the asker is not asked, and the asker must not notice.
    if asked.is_heard()
        && let Some(session) = presence.listener(buddy.user)
    {
        ctx.outbox().send(session, &BuddiedNotify { card: public_card(&me), greeting: req.greeting });
    }
    let result = if asked.standing == Standing::Accepted { ResultCode::SUCCESS } else { ResultCode::PENDING };
    ctx.reply(AddBuddyRes { result, buddy: wire_buddy(asked.entry), roster_version: asked.version })
}

async fn answer(ctx: Ctx<Presence>, req: BuddiedNotifyRes) -> Result<Reply, Refusal> {
    let presence = ctx.role();
    let answer = match req.answer {
        BuddyAnswer::ACCEPT => Answer::Accept,
        BuddyAnswer::ACCEPT_AND_ADD => Answer::AcceptAndAdd,
        BuddyAnswer::REFUSE => Answer::Refuse,
        _ => return Err(Refusal::BadField("answer: one of ACCEPT, ACCEPT_AND_ADD, REFUSE".into())),
    };
    let me = presence.stores.accounts.by_user(ctx.user()).await?.ok_or(Refusal::BadState)?;
    let me = Person { user: me.user, name: me.name };
    let answered = presence.stores.contacts.answer(&me, req.user, answer, ctx.now().wall).await;
    let answered = followed(&ctx, req.user, answered).await?;
    if let Some(roster_version) = answered.accepted {
        if let Some(session) = presence.listener(req.user) {
            let notify = BuddyAnsweredNotify { user: me.user, accepted: true, roster_version };
            ctx.outbox().send(session, &notify);
        }
        show_each_other(presence, ctx.outbox(), me.user, req.user, false);
    }
    done(&ctx, answered.version)
}

async fn remove(ctx: Ctx<Presence>, req: BuddyRemovedNotify) -> Result<Reply, Refusal> {
    let were_friends = are_friends(ctx.role(), ctx.user(), req.user);
    let removed = ctx.role().stores.contacts.remove(ctx.user(), req.user).await;
    let version = followed(&ctx, req.user, removed).await?;
    show_each_other(ctx.role(), ctx.outbox(), ctx.user(), req.user, were_friends);
    done(&ctx, version)
}

async fn modify(ctx: Ctx<Presence>, req: BuddyModifiedNotify) -> Result<Reply, Refusal> {
    let contacts = &ctx.role().stores.contacts;
    let version = contacts.modify(ctx.user(), req.user, req.display_name, req.group).await?;
    done(&ctx, version)
}

async fn block(ctx: Ctx<Presence>, req: BuddyBlockedNotify) -> Result<Reply, Refusal> {
    let presence = ctx.role();
    let other = presence.stores.accounts.by_user(req.user).await?.ok_or(Refusal::NotFound)?;
    let other = Person { user: other.user, name: other.name };
    let were_friends = are_friends(presence, ctx.user(), req.user);
    let blocked = presence.stores.contacts.block(ctx.user(), &other, ctx.now().wall).await;
    // Both ends follow before we say Success: from then on nothing arrives.
    let version = followed(&ctx, req.user, blocked).await?;
    delivery::refuse_waiting(presence, ctx.outbox(), ctx.now(), ctx.user(), req.user);
    show_each_other(presence, ctx.outbox(), ctx.user(), req.user, were_friends);
    done(&ctx, version)
}

async fn unblock(ctx: Ctx<Presence>, req: BuddyUnblockedNotify) -> Result<Reply, Refusal> {
    let unblocked = ctx.role().stores.contacts.unblock(ctx.user(), req.user, req.group).await;
    let version = followed(&ctx, req.user, unblocked).await?;
    show_each_other(ctx.role(), ctx.outbox(), ctx.user(), req.user, false);
    done(&ctx, version)
}

/// What is in memory of both ends follows what was committed, or may have been. If the store does not say now, it is asked
/// again until it does.
async fn followed<T>(ctx: &Ctx<Presence>, other: UserId, change: Result<T, RosterError>) -> Result<T, Refusal> {
    let presence = ctx.role();
    // Only these leave open whether something was changed.
    let change = match change {
        Err(RosterError::Store(error @ (StoreError::Unavailable(_) | StoreError::Stopped(_)))) => Err(error),
        Err(error) => return Err(error.into()),
        Ok(change) => Ok(change),
    };
    let mut followed = Ok(());
    let looks = if change.is_ok() { &[] } else { LATE_LOOKS };
    for user in [ctx.user(), other] {
        if change.is_ok() && followed.is_ok() {
            followed = presence.users.refresh(&*presence.stores.contacts, user).await.map(drop);
        }
        if change.is_err() || followed.is_err() {
            refresh_later(presence, ctx.now(), ctx.outbox(), user, delivery::STORE_RETRY, looks);
        }
    }
    let change = change?;
    followed?;
    Ok(change)
}

/// Pauses between looks at what became of a change that was not answered, after the first that was: it may be committed
/// later still, by a server that hung or was started again.
const LATE_LOOKS: &[Duration] = &[Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(120)];

/// A roster in memory that may be older than the store's.
pub(super) struct Stale {
    /// When the store is asked.
    at: Time,
    /// The pauses until it is asked again, each counted from the answer before.
    looks: &'static [Duration],
}

fn refresh_later(
    presence: &Presence,
    now: Now,
    outbox: &Outbox,
    user: UserId,
    pause: Duration,
    looks: &'static [Duration],
) {
    let at = now.mono.after(pause);
    let mut stale = presence.stale.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = stale.entry(user).or_insert(Stale { at: Time::from_micros(u64::MAX), looks });
    if looks.len() > entry.looks.len() {
        entry.looks = looks;
    }
    if at < entry.at {
        entry.at = at;
        presence.timers.set(LaneId(0), at, Due::Refresh(user));
        outbox.wake(LaneId(0));
    }
}

/// The store did not say what became of a change: it is asked again. Both ends are shown what they would have been shown.
pub(super) async fn refresh_late(presence: Arc<Presence>, now: Now, outbox: Outbox, user: UserId) {
    // Whoever fails from here on asks anew. Another timer may have been faster.
    let is_due = |_: &UserId, stale: &mut Stale| stale.at <= now.mono;
    let due = presence.stale.lock().unwrap_or_else(PoisonError::into_inner).extract_if(user..=user, is_due).next();
    let Some((_, Stale { looks, .. })) = due else { return };
    let Ok(changed) = presence.users.refresh(&*presence.stores.contacts, user).await else {
        return refresh_later(&presence, now, &outbox, user, delivery::STORE_RETRY, looks);
    };
    let lost = changed.lost.into_iter().map(|other| (other, true));
    for (other, were_friends) in changed.gained.into_iter().map(|other| (other, false)).chain(lost) {
        // What one sees is decided by the roster of the one who is seen.
        match presence.users.refresh(&*presence.stores.contacts, other).await {
            Ok(_) => show_each_other(&presence, &outbox, user, other, were_friends),
            Err(_) => refresh_later(&presence, now, &outbox, other, delivery::STORE_RETRY, &[]),
        }
    }
    if let [pause, looks @ ..] = looks {
        refresh_later(&presence, now, &outbox, user, *pause, looks);
    }
}

fn done(ctx: &Ctx<Presence>, roster_version: RosterVersion) -> Result<Reply, Refusal> {
    ctx.reply(RosterOpRes { result: ResultCode::SUCCESS, roster_version })
}
