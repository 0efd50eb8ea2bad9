//! Status: Presences report who is online and what changes, for the Router's copy in `statuses.rs`.

use xmmep::messages::DeviceClass;
use xmmep::messages::login::BuddyLoginNotifyFwd;
use xmmep::messages::status::StatusChangedNotifyFwd;
use xmmep::types::{Status, UserId};

use super::presences::Here;
use super::statuses::OnlineUser;
use super::{Router, from_presence};
use crate::ctx::{Ctx, Reply};
use crate::handlers::Handlers;
use crate::refusal::Refusal;

pub(super) fn handlers(h: Handlers<Router>) -> Handlers<Router> {
    h.from_link(logged_in).from_link(changed)
}

/// A user is online at the sender.
async fn logged_in(ctx: Ctx<Router>, req: BuddyLoginNotifyFwd) -> Result<Reply, Refusal> {
    let here = from_presence(&ctx)?;
    if req.owner_epoch < here.owner_epoch {
        return Err(Refusal::StaleEpoch);
    }
    let buddy = req.buddy;
    let online = OnlineUser {
        presence: here.presence,
        status: buddy.status.seen_by_others(),
        personal_msg: buddy.personal_msg,
        device_class: buddy.device_class,
    };
    report(&ctx, &here, buddy.user, online).await?;
    ctx.done()
}

/// Statuses of users at the sender changed; OFFLINE ends the entry.
async fn changed(ctx: Ctx<Router>, req: StatusChangedNotifyFwd) -> Result<Reply, Refusal> {
    let here = from_presence(&ctx)?;
    let statuses = &ctx.role().statuses;
    for change in req.changes.iter() {
        let status = change.status.seen_by_others();
        if statuses.presence(change.user) == Some(here.presence) && status != Status::OFFLINE {
            statuses.change(change.user, status, here.generation);
            continue;
        }
        let online = OnlineUser {
            presence: here.presence,
            status,
            personal_msg: xmmep::bounded::Text::default(),
            device_class: DeviceClass::OTHER,
        };
        report(&ctx, &here, change.user, online).await?;
    }
    ctx.done()
}

/// Takes a report over, if the user lives at the Presence it comes from: a Presence in wrong hands must not speak for
/// the users of others. The store is asked once per user and session, not per change, and not at all about somebody whom
/// the Router itself has just sent there.
async fn report(ctx: &Ctx<Router>, here: &Here, user: UserId, online: OnlineUser) -> Result<(), Refusal> {
    let role = ctx.role();
    let listed_here = role.statuses.presence(user) == Some(here.presence);
    if online.status == Status::OFFLINE {
        if listed_here {
            role.statuses.remove(user);
        }
        return Ok(());
    }
    let lives_here = listed_here
        || role.admitted.sent_to(here.presence, user, ctx.now().mono)
        || role.placements.locate(user).await? == Some(here.presence);
    if !lives_here {
        tracing::warn!(presence = %here.presence, %user, "a Presence reports a user who does not live there");
        return Err(Refusal::NotPermitted);
    }
    role.statuses.set(user, online, here.generation);
    Ok(())
}
