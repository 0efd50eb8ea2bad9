//! Links, the Presence's part: making itself known to a Router.

use std::sync::{Arc, PoisonError};

use xmmep::bounded::List;
use xmmep::messages::links::PresenceRegisterReq;
use xmmep::messages::login::Address;
use xmmep::types::Time;

use super::Presence;
use super::online::report;
use crate::link::{Link, LinkError};

/// Makes a Presence known to a Router over a new link, and tells who is online. From then on the Router sends users there
/// and is told what changes. To be called for each Router, and again whenever a link was replaced by a new one.
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
    {
        let mut routers = presence.routers.lock().unwrap_or_else(PoisonError::into_inner);
        routers.retain(|known| !known.is_down());
        routers.push(router.clone());
    }
    report(presence, &router);
    Ok(())
}
