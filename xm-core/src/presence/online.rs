//! Who is online, and who is told: friends and the Router, at most once in an interval per user. Shared by the flows that
//! change what friends see.

use std::sync::{Arc, PoisonError};

use xmmep::bounded::List;
use xmmep::frame;
use xmmep::message::Message;
use xmmep::messages::login::{BuddyLoginNotify, BuddyLoginNotifyFwd};
use xmmep::messages::status::StatusChangedNotifyFwd;
use xmmep::messages::{OnlineBuddy, StatusChange};
use xmmep::types::{Status, UserId};

use super::Presence;
use super::timers::Due;
use super::users::{Online, User};
use crate::ctx::Now;
use crate::link::Link;
use crate::outbox::Outbox;

/// Tells friends and the Router a user's status, now or when the merge interval has passed.
pub(super) fn announce(presence: &Arc<Presence>, now: Now, outbox: &Outbox, user: UserId) {
    let told = presence.users.with(user, |state| {
        let online = state.online.as_mut().filter(|online| online.ready)?;
        let next = online.announced.map(|last| last.after(presence.config.status_interval));
        if let Some(next) = next.filter(|next| *next > now.mono) {
            if !std::mem::replace(&mut online.announce_due, true) {
                presence.timers.set(online.session.lane(), next, Due::Announce(user));
            }
            return None;
        }
        online.announce_due = false;
        let seen = online.status.seen_by_others();
        // Back to what everybody believes: that something happened in between is nobody's business.
        if seen == std::mem::replace(&mut online.told, seen) {
            return None;
        }
        online.announced = Some(now.mono);
        Some((seen, state.watchers()))
    });
    if let Some((status, friends)) = told.flatten() {
        tell(presence, outbox, user, status, &friends);
    }
}

/// Tells everybody that a user's client is ready, unless he is invisible.
pub(super) fn announce_login(presence: &Arc<Presence>, now: Now, outbox: &Outbox, user: UserId) {
    let told = presence.users.with(user, |state| {
        let online = state.online.as_mut()?;
        let before = std::mem::replace(&mut online.told, online.status.seen_by_others());
        online.announced = Some(now.mono);
        Some((card(user, online), before, state.watchers()))
    });
    let Some((buddy, before, friends)) = told.flatten() else { return };
    if buddy.status == Status::OFFLINE {
        // An older session of his was seen.
        if before != Status::OFFLINE {
            tell(presence, outbox, user, Status::OFFLINE, &friends);
        }
        return;
    }
    let frame = frame::notice(&BuddyLoginNotify { buddy: buddy.clone() });
    for session in friends.iter().filter_map(|friend| presence.listener(*friend)) {
        outbox.send_frame(session, frame.clone());
    }
    tell_routers(presence, &BuddyLoginNotifyFwd { owner_epoch: presence.config.owner_epoch, buddy });
}

/// Tells `friends` and the Router that `user` is seen as `status` from now on.
pub(super) fn tell(presence: &Presence, outbox: &Outbox, user: UserId, status: Status, friends: &[UserId]) {
    let change = StatusChangedNotifyFwd { changes: List::one(StatusChange { user, status }) };
    let frame = frame::notice(&change);
    for session in friends.iter().filter_map(|friend| presence.listener(*friend)) {
        outbox.send_frame(session, frame.clone());
    }
    tell_routers(presence, &change);
}

/// Tells all Routers. One that is away must not hold up a login: it learns everything when it is back.
fn tell_routers<M: Message>(presence: &Presence, message: &M) {
    for router in presence.routers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = router.notice(message);
    }
}

/// Tells one Router of everybody whom others see.
pub(super) fn report(presence: &Presence, router: &Link) {
    let owner_epoch = presence.config.owner_epoch;
    presence.users.each(|user, state| {
        if let Some(online) = state.online.as_ref().filter(|online| online.told != Status::OFFLINE) {
            // Under the user's lock, so that no change gets there first. If the link broke, the next one is told all.
            let _ = router.notice(&BuddyLoginNotifyFwd { owner_epoch, buddy: card(user, online) });
        }
    });
}

/// Whether status and messages flow between two users, as the first one's roster in memory has it.
pub(super) fn are_friends(presence: &Presence, a: UserId, b: UserId) -> bool {
    presence.users.with(a, |state| state.is_friend(b)).unwrap_or(false)
}

/// Shows two users to each other after something between them changed: who may see the other gets the other's status, who
/// no longer may sees OFFLINE. Somebody who was no friend before is not told of a block.
pub(super) fn show_each_other(presence: &Presence, outbox: &Outbox, a: UserId, b: UserId, were_friends: bool) {
    for (viewer, seen) in [(a, b), (b, a)] {
        let Some(session) = presence.listener(viewer) else { continue };
        let look = |state: &mut User| {
            let visible = state.online.as_ref().filter(|online| online.told != Status::OFFLINE);
            visible.filter(|_| state.is_friend(viewer)).map(|online| card(seen, online))
        };
        match presence.users.with(seen, look).flatten() {
            Some(buddy) => outbox.send(session, &BuddyLoginNotify { buddy }),
            None if were_friends => {
                let change = StatusChange { user: seen, status: Status::OFFLINE };
                outbox.send(session, &StatusChangedNotifyFwd { changes: List::one(change) });
            }
            None => {}
        }
    }
}

/// What a friend sees of an online user: what was told last, so that whoever comes later sees what all others see.
fn card(user: UserId, online: &Online) -> OnlineBuddy {
    OnlineBuddy {
        user,
        status: online.told,
        personal_msg: online.personal_msg.as_deref().cloned().unwrap_or_default(),
        device_class: online.device_class,
    }
}

/// The friends of `me` who are online and visible.
pub(super) fn online_friends(presence: &Presence, me: UserId) -> Vec<OnlineBuddy> {
    let friends = presence.users.with(me, |state| state.watchers()).unwrap_or_default();
    let see = |friend: &UserId| {
        let visible = |state: &mut User| state.online.as_ref().map(|online| card(*friend, online));
        presence.users.with(*friend, visible).flatten().filter(|buddy| buddy.status != Status::OFFLINE)
    };
    friends.iter().filter_map(see).collect()
}
