//! Who is online, and who is told: friends and the Router, at most once in an interval per user. Shared by the flows that
//! change what friends see.

use std::sync::Arc;

use xmmep::bounded::List;
use xmmep::frame;
use xmmep::messages::login::{BuddyLoginNotify, BuddyLoginNotifyFwd};
use xmmep::messages::status::StatusChangedNotifyFwd;
use xmmep::messages::{OnlineBuddy, StatusChange};
use xmmep::types::{Status, UserId};

use super::Presence;
use super::timers::Due;
use super::users::{Online, User};
use crate::ctx::Now;
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
        online.announced = Some(now.mono);
        online.announce_due = false;
        Some((online.status.seen_by_others(), state.friends.clone()))
    });
    if let Some((status, friends)) = told.flatten() {
        tell(presence, outbox, user, status, &friends);
    }
}

/// Tells everybody that a user's client is ready, unless he is invisible.
pub(super) fn announce_login(presence: &Arc<Presence>, now: Now, outbox: &Outbox, user: UserId) {
    let told = presence.users.with(user, |state| {
        let card = state.online.as_mut().map(|online| {
            online.announced = Some(now.mono);
            card(user, online)
        })?;
        (card.status != Status::OFFLINE).then(|| (card, state.friends.clone()))
    });
    let Some((buddy, friends)) = told.flatten() else { return };
    let frame = frame::notice(&BuddyLoginNotify { buddy: buddy.clone() });
    for session in friends.iter().filter_map(|friend| presence.session_of(*friend)) {
        outbox.send_frame(session, frame.clone());
    }
    if let Some(router) = presence.router.get() {
        // The Router's copy is repaired by the next change; a Router that is away must not hold up a login.
        let _ = router.notice(&BuddyLoginNotifyFwd { owner_epoch: presence.config.owner_epoch, buddy });
    }
}

/// Tells `friends` and the Router that `user` is seen as `status` from now on.
pub(super) fn tell(presence: &Presence, outbox: &Outbox, user: UserId, status: Status, friends: &[UserId]) {
    let change = StatusChangedNotifyFwd { changes: List::new(vec![StatusChange { user, status }]).unwrap_or_default() };
    let frame = frame::notice(&change);
    for session in friends.iter().filter_map(|friend| presence.session_of(*friend)) {
        outbox.send_frame(session, frame.clone());
    }
    if let Some(router) = presence.router.get() {
        let _ = router.notice(&change);
    }
}

/// Shows two users to each other after something between them changed: whoever may see the other gets the other's
/// status, whoever may not sees OFFLINE.
pub(super) fn show_each_other(presence: &Presence, outbox: &Outbox, a: UserId, b: UserId) {
    for (viewer, seen) in [(a, b), (b, a)] {
        let Some(session) = presence.session_of(viewer) else { continue };
        let buddy = presence.users.with(seen, |state| {
            if state.is_friend(viewer) {
                state.online.as_ref().filter(|online| online.ready).map(|o| card(seen, o))
            } else {
                None
            }
        });
        match buddy.flatten().filter(|buddy| buddy.status != Status::OFFLINE) {
            Some(buddy) => outbox.send(session, &BuddyLoginNotify { buddy }),
            None => {
                let change = StatusChange { user: seen, status: Status::OFFLINE };
                outbox.send(session, &StatusChangedNotifyFwd { changes: List::new(vec![change]).unwrap_or_default() });
            }
        }
    }
}

/// What a friend sees of an online user.
pub(super) fn card(user: UserId, online: &Online) -> OnlineBuddy {
    OnlineBuddy {
        user,
        status: online.status.seen_by_others(),
        personal_msg: xmmep::bounded::Text::cut(&online.personal_msg),
        device_class: online.device_class,
    }
}

/// The friends of `me` who are online and visible.
pub(super) fn online_friends(presence: &Presence, me: UserId) -> Vec<OnlineBuddy> {
    let friends = presence.users.with(me, |state| state.friends.clone()).unwrap_or_default();
    let see = |friend: &UserId| {
        let visible = |state: &mut User| state.online.as_ref().filter(|online| online.ready).map(|o| card(*friend, o));
        presence.users.with(*friend, visible).flatten().filter(|buddy| buddy.status != Status::OFFLINE)
    };
    friends.iter().filter_map(see).collect()
}
