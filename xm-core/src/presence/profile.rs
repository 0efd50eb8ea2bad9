//! Profile cards: the public card for all, the full card for oneself and friends.

use xmmep::messages::FullCard;
use xmmep::messages::profile::{GetBuddyInfoReq, GetBuddyInfoRes};
use xmmep::result_code::ResultCode;

use super::Presence;
use crate::ctx::{Ctx, Reply};
use crate::handlers::Handlers;
use crate::profile::{public_card, wire_profile};
use crate::refusal::Refusal;

pub(super) fn handlers(h: Handlers<Presence>) -> Handlers<Presence> {
    h.from_client(card)
}

async fn card(ctx: Ctx<Presence>, req: GetBuddyInfoReq) -> Result<Reply, Refusal> {
    let presence = ctx.role();
    let account = presence.stores.accounts.by_user(req.user).await?.ok_or(Refusal::NotFound)?;
    let me = ctx.user();
    let close = me == req.user || presence.users.with(me, |state| state.is_friend(req.user)).unwrap_or(false);
    let card = public_card(&account);
    let full = close.then(|| FullCard {
        last_login: account.last_login.unwrap_or_default(),
        profile: wire_profile(account.profile),
    });
    ctx.reply(GetBuddyInfoRes { result: ResultCode::SUCCESS, card, full })
}
