//! Registration, the Presence's part: taking accounts from the Router.

use xm_store::accounts::Creation;
use xm_store::records::NewAccount;
use xmmep::messages::registration::{UserRegisteredNotify, UserRegisteredNotifyRes};
use xmmep::result_code::ResultCode;

use super::Presence;
use crate::ctx::{Ctx, Reply};
use crate::handlers::Handlers;
use crate::origin::Peer;
use crate::profile::stored_profile;
use crate::refusal::Refusal;

pub(super) fn handlers(h: Handlers<Presence>) -> Handlers<Presence> {
    h.from_link(take)
}

async fn take(ctx: Ctx<Presence>, notify: UserRegisteredNotify) -> Result<Reply, Refusal> {
    if ctx.link().is_none_or(|link| link.peer() != Peer::Router) {
        return Err(Refusal::WrongRole);
    }
    if notify.owner_epoch < ctx.role().config.owner_epoch {
        return Err(Refusal::StaleEpoch);
    }
    let user = notify.user;
    let account = NewAccount {
        user,
        name: notify.name,
        email: notify.email,
        key_hash: notify.key_hash,
        profile: stored_profile(notify.profile),
        created: notify.registered_at,
    };
    let result = match ctx.role().stores.accounts.create(account).await? {
        Creation::Created | Creation::Already => ResultCode::SUCCESS,
        Creation::Conflict => {
            tracing::error!(%user, "the Router's account contradicts one that is here; nothing was changed");
            ResultCode::ALREADY_EXISTS
        }
    };
    ctx.reply(UserRegisteredNotifyRes { user, result })
}
