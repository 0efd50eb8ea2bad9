//! Links, the Presence's part: making itself known to a Router.

use std::sync::Arc;

use xmmep::bounded::List;
use xmmep::messages::links::PresenceRegisterReq;
use xmmep::messages::login::Address;
use xmmep::types::Time;

use super::Presence;
use crate::link::{Link, LinkError};

/// Makes a Presence known to a Router over a new link. From then on the Router sends users there.
///
/// # Errors
/// If the Router refuses, for example because a newer owner of the identity is known, or does not answer.
pub async fn join(presence: &Presence, now: Time, router: Arc<Link>) -> Result<(), LinkError> {
    let config = &presence.config;
    let addresses = config.addresses.iter().take(4).map(|address| Address::from(*address)).collect();
    router
        .order(
            now,
            &PresenceRegisterReq {
                identity: config.identity,
                addresses: List::new(addresses).unwrap_or_default(),
                static_key: config.static_key.0,
                owner_epoch: config.owner_epoch,
                ticket_key: config.ticket_key.clone(),
            },
        )
        .await?;
    // A second link to the same Router changes nothing: frames may take either.
    let _ = presence.router.set(router);
    Ok(())
}
