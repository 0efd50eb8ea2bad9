//! Registration, the Router's part: reserve a name and an address, activate, renew a token. How the account gets to its
//! Presence lives in `activations.rs`.

use std::time::Duration;

use xm_store::placements::{Activation, Registration, Renewal};
use xm_store::records::{NewPlacement, PlacementState};
use xmmep::bounded::Text;
use xmmep::messages::registration::{
    ActivationResendReq, RegisterActivateReq, RegisterActivateRes, RegisterReq, RegisterRes,
};
use xmmep::result_code::ResultCode;
use xmmep::types::WallTime;

use super::activations::hand_over;
use super::{Router, from_register};
use crate::ctx::{Ctx, Now, Reply};
use crate::handlers::Handlers;
use crate::profile::stored_profile;
use crate::refusal::Refusal;

/// How long a token may be good for at most: what an operator can set (30 days) and a day for clocks that differ. A
/// mistake must not reserve a name for ever.
pub const TOKEN_LIFE_MAX: Duration = Duration::from_secs(31 * 24 * 3_600);

pub(super) fn handlers(h: Handlers<Router>) -> Handlers<Router> {
    h.from_link(reserve).from_link(activate).from_link(renew)
}

/// A form was sent. Repeating a request gets the first answer again.
async fn reserve(ctx: Ctx<Router>, req: RegisterReq) -> Result<Reply, Refusal> {
    from_register(&ctx)?;
    req.kdf.check().map_err(|bad| Refusal::BadField(format!("kdf: {bad}").into()))?;
    check_expiry(ctx.now(), req.token_expires)?;
    let new = NewPlacement {
        request: req.request,
        name: req.name,
        email: req.email,
        salt: req.salt,
        kdf: req.kdf,
        key_hash: req.key_hash,
        token: req.token_hash,
        expires: req.token_expires,
        profile: stored_profile(req.profile),
    };
    let registration = ctx.role().placements.register(new, ctx.now().wall).await?;
    let result = match registration {
        Registration::Registered(user) => {
            tracing::info!(%user, "a user has registered");
            ResultCode::SUCCESS
        }
        Registration::NameTaken => ResultCode::USER_EXISTS,
        Registration::EmailTaken => ResultCode::MAIL_IN_USE,
        Registration::BothTaken => ResultCode::USER_MAIL_EXISTS,
    };
    ctx.reply(RegisterRes { result })
}

/// A token came back. Answered with SUCCESS once the Presence has the account.
async fn activate(ctx: Ctx<Router>, req: RegisterActivateReq) -> Result<Reply, Refusal> {
    from_register(&ctx)?;
    let (role, now) = (ctx.role(), ctx.now());
    let mismatch = RegisterActivateRes { result: ResultCode::ACTIVATE_CODE_MISMATCH, name: Text::default() };
    let token = req.token.hash();
    // Read first, so that a token that is no good gets its answer even while all Presences are away.
    let Some(placement) = role.placements.by_token(&token).await? else { return ctx.reply(mismatch) };
    let presence = match placement.state {
        PlacementState::Registered { .. } if placement.is_expired(now.wall) => return ctx.reply(mismatch),
        PlacementState::Registered { .. } => role.presences.emptiest().ok_or(Refusal::NOT_READY)?,
        PlacementState::Activating { presence } => presence,
        PlacementState::Active { .. } => return ctx.reply(mismatch),
    };
    let activation = role.placements.begin_activation(&token, presence, now.wall).await?;
    let Activation::Begun(begun) = activation else { return ctx.reply(mismatch) };
    if matches!(placement.state, PlacementState::Registered { .. }) {
        role.presences.assigned(presence);
    }
    let name = Text::cut(begun.name.as_str());
    hand_over(role, now, begun).await?;
    ctx.reply(RegisterActivateRes { result: ResultCode::SUCCESS, name })
}

/// A mail did not arrive: a new token takes the place of the old one.
async fn renew(ctx: Ctx<Router>, req: ActivationResendReq) -> Result<Reply, Refusal> {
    from_register(&ctx)?;
    check_expiry(ctx.now(), req.token_expires)?;
    let (token, expires) = (&req.token_hash, req.token_expires);
    let renewal = ctx.role().placements.renew_token(&req.email, req.request, token, expires, ctx.now().wall).await?;
    match renewal {
        Renewal::Renewed(_) => ctx.done(),
        Renewal::NothingWaits => Err(Refusal::NotFound),
    }
}

fn check_expiry(now: Now, expires: WallTime) -> Result<(), Refusal> {
    if expires <= now.wall || expires > now.wall.after(TOKEN_LIFE_MAX) {
        return Err(Refusal::BadField("token_expires: not between now and 31 days from now".into()));
    }
    Ok(())
}
