//! Status: one user changes it, friends see it. Who is told, and when, lives in `online.rs`.

use xmmep::messages::status::StatusChangedNotify;
use xmmep::types::Status;

use super::Presence;
use super::online::announce;
use crate::ctx::{Ctx, Reply};
use crate::handlers::Handlers;
use crate::refusal::Refusal;

pub(super) fn handlers(h: Handlers<Presence>) -> Handlers<Presence> {
    h.from_client(change)
}

fn change(ctx: Ctx<Presence>, notify: StatusChangedNotify) -> Result<Reply, Refusal> {
    if !matches!(notify.status, Status::ONLINE | Status::BUSY | Status::AWAY | Status::INVISIBLE) {
        return Err(Refusal::BadField("status: one of ONLINE, BUSY, AWAY, INVISIBLE; leaving is LOGOUT_REQ".into()));
    }
    let changed = ctx.role().users.with(ctx.user(), |user| {
        let online = user.online.as_mut().filter(|online| Some(online.session) == ctx.session())?;
        Some(
            online.status != notify.status && {
                online.status = notify.status;
                online.ready
            },
        )
    });
    if changed.flatten().ok_or(Refusal::BadState)? {
        announce(ctx.role(), ctx.now(), ctx.outbox(), ctx.user());
    }
    ctx.done()
}
