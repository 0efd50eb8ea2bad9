//! Activations under way: a user's account is handed to the Presence where the user will live, until it has it. What
//! starts one lives in `registration.rs`.

use std::sync::Arc;

use futures_util::future::join_all;
use xm_store::records::{Placement, PlacementState};
use xmmep::messages::registration::UserRegisteredNotify;
use xmmep::result_code::ResultCode;
use xmmep::types::PresenceId;

use super::Router;
use crate::ctx::Now;
use crate::link::{Link, LinkError};
use crate::profile::wire_profile;
use crate::refusal::Refusal;

/// Accounts handed to one Presence at the same time when activations are taken up again. The next ones follow with the
/// next round: a Presence that comes back is not buried, and all requests of a round have the same time to be answered.
pub const RESUMED_AT_ONCE_MAX: usize = 256;

/// Hands an account to its Presence and waits until it is committed there and here. May be repeated at any time.
///
/// # Errors
/// `SERVER_NOT_READY` if the Presence is away or the outcome is unknown. The activation stays under way, and is taken up
/// again when the Presence registers.
pub(super) async fn hand_over(router: &Router, now: Now, placement: Placement) -> Result<(), Refusal> {
    let PlacementState::Activating { presence } = placement.state else { return Ok(()) };
    let Some(form) = placement.form else { return Ok(()) };
    let Some((link, owner_epoch)) = router.presences.link(presence) else {
        tracing::warn!(%presence, user = %placement.user, "an activation waits for its Presence");
        return Err(Refusal::NOT_READY);
    };
    let account = UserRegisteredNotify {
        user: placement.user,
        owner_epoch,
        name: placement.name,
        email: placement.email,
        key_hash: form.key_hash,
        profile: wire_profile(form.profile),
        registered_at: placement.registered_at,
    };
    match link.request(now.mono, &account).await {
        Ok(answer) if answer.result == ResultCode::SUCCESS && answer.user == account.user => {}
        Ok(answer) => {
            tracing::error!(%presence, user = %account.user, result = ?answer.result, "a Presence does not take an account");
            return Err(Refusal::NOT_READY);
        }
        Err(error) => {
            if error == LinkError::Down {
                router.presences.disconnect(now.mono, &link);
            }
            tracing::warn!(%presence, user = %account.user, %error, "an activation waits for its Presence");
            return Err(Refusal::NOT_READY);
        }
    }
    router.placements.finish_activation(account.user).await?;
    tracing::info!(user = %account.user, %presence, "a user is activated");
    Ok(())
}

/// Takes up the activations that got stuck on their way to `presence`, which is there on `link`. Whom it turns down does
/// not keep others waiting: each round begins behind the last user of the round before.
pub(super) async fn resume(router: &Router, now: Now, presence: PresenceId, link: &Arc<Link>) {
    let is_theirs = |placement: &Placement| placement.state == PlacementState::Activating { presence };
    let mut stuck = match router.placements.activating().await {
        Ok(stuck) => stuck,
        Err(error) => {
            tracing::warn!(%presence, %error, "activations could not be taken up again; the next round tries");
            return;
        }
    };
    stuck.retain(is_theirs);
    let begin = router.presences.resumed(presence);
    let split = stuck.partition_point(|placement| placement.user <= begin);
    stuck.rotate_left(split);
    stuck.truncate(RESUMED_AT_ONCE_MAX);
    let Some(last) = stuck.last() else { return };
    router.presences.set_resumed(presence, last.user);
    // It may have left while the store was read; then its next link resumes.
    if router.presences.here(presence, link).is_ok() {
        tracing::info!(%presence, accounts = stuck.len(), "activations are taken up again");
        join_all(stuck.into_iter().map(|placement| hand_over(router, now, placement))).await;
    }
}
