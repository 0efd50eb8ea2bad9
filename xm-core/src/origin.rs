//! Who sent a message. Taken from the session or the link, never from a field.

use std::net::SocketAddr;
use std::sync::Arc;

use xmmep::session::Admission;
use xmmep::types::{PresenceId, UserId};

use crate::link::Link;
use crate::outbox::SessionRef;

/// Who sent a message, as proved by the session or link it came on.
#[derive(Clone)]
pub enum Origin {
    /// A handshake or a session nobody has logged in on.
    Stranger(Stranger),
    /// A user on a session that is logged in.
    Client {
        /// The user.
        user: UserId,
        /// The session.
        session: SessionRef,
    },
    /// Another server.
    Link(Arc<Link>),
}

/// A peer that has proved to own its address, and nothing else.
#[derive(Clone)]
pub struct Stranger {
    /// Where it is.
    pub from: SocketAddr,
    /// Its session; none while it is still in the handshake.
    pub session: Option<SessionRef>,
    /// What the Router says of the user behind it, if it came with an admission ticket.
    pub admission: Option<Admission>,
}

/// What kind of sender a handler takes messages from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Before login: the strictest limits.
    Stranger,
    /// A logged-in user.
    Client,
    /// Another server.
    Link,
}

impl Origin {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Sender {
        match self {
            Self::Stranger(_) => Sender::Stranger,
            Self::Client { .. } => Sender::Client,
            Self::Link(_) => Sender::Link,
        }
    }
}

/// The role at the other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A Router.
    Router,
    /// The Presence that serves this identity.
    Presence(PresenceId),
    /// A Register.
    Register,
}
