//! Links: a Presence says who it is and where clients find it. What the Router then knows lives in `presences.rs`.

use std::net::SocketAddr;

use xmmep::messages::links::PresenceRegisterReq;

use super::Router;
use super::activations::resume;
use super::presences::Announced;
use crate::ctx::{Ctx, Reply};
use crate::handlers::Handlers;
use crate::origin::Peer;
use crate::refusal::Refusal;

pub(super) fn handlers(h: Handlers<Router>) -> Handlers<Router> {
    h.from_link(register)
}

/// Afterwards the Presence reports, by 131, each user who is online there; statuses it does not confirm lapse.
async fn register(ctx: Ctx<Router>, req: PresenceRegisterReq) -> Result<Reply, Refusal> {
    let link = ctx.link().ok_or(Refusal::WrongRole)?.clone();
    match link.peer() {
        Peer::Presence(identity) if identity == req.identity => {}
        Peer::Presence(_) => return Err(Refusal::NotPermitted),
        Peer::Router | Peer::Register => return Err(Refusal::WrongRole),
    }
    if req.addresses.is_empty() {
        return Err(Refusal::BadField("addresses: none is given".into()));
    }
    for address in &*req.addresses {
        let address = SocketAddr::from(address);
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(Refusal::BadField(format!("addresses: no client can reach {address}").into()));
        }
    }
    let announced = Announced { addresses: req.addresses, static_key: req.static_key, ticket_key: req.ticket_key };
    let (role, now) = (ctx.role().clone(), ctx.now());
    role.presences.register(now.mono, req.identity, req.owner_epoch, announced, &link)?;
    tracing::info!(presence = %req.identity, owner_epoch = %req.owner_epoch, "a Presence has registered");
    ctx.outbox().spawn(Box::pin(async move { resume(&role, now, req.identity, &link).await }));
    ctx.done()
}
