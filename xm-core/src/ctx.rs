//! What a handler may know, and how it answers.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use xmmep::frame::{self, Sequence};
use xmmep::message::Message;
use xmmep::session::Admission;
use xmmep::types::{Time, UserId, WallTime};

use crate::link::Link;
use crate::origin::Origin;
use crate::outbox::{Outbox, SessionRef};
use crate::refusal::Refusal;

/// The time, as the driver saw it when it called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For order and time-outs.
    pub mono: Time,
    /// For people and expiry.
    pub wall: WallTime,
}

/// What a handler may know of the message it handles: the role, who sent it, when; and the way out.
pub struct Ctx<R> {
    pub(crate) role: Arc<R>,
    pub(crate) origin: Origin,
    pub(crate) sequence: Sequence,
    pub(crate) now: Now,
    pub(crate) outbox: Outbox,
}

impl<R> Ctx<R> {
    /// The role's state.
    #[must_use]
    pub fn role(&self) -> &Arc<R> {
        &self.role
    }

    /// Who sent the message.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The user who sent the message; 0, nobody, unless the handler was registered with `from_client`.
    #[must_use]
    pub fn user(&self) -> UserId {
        match &self.origin {
            Origin::Client { user, .. } => *user,
            _ => UserId(0),
        }
    }

    /// The session the message came on.
    #[must_use]
    pub fn session(&self) -> Option<SessionRef> {
        match &self.origin {
            Origin::Client { session, .. } => Some(*session),
            Origin::Stranger(stranger) => stranger.session,
            Origin::Link(_) => None,
        }
    }

    /// The link the message came on.
    #[must_use]
    pub fn link(&self) -> Option<&Arc<Link>> {
        match &self.origin {
            Origin::Link(link) => Some(link),
            _ => None,
        }
    }

    /// The address a stranger has proved to own.
    #[must_use]
    pub fn stranger_address(&self) -> Option<SocketAddr> {
        match &self.origin {
            Origin::Stranger(stranger) => Some(stranger.from),
            _ => None,
        }
    }

    /// What the Router says of the user behind a stranger.
    #[must_use]
    pub fn admission(&self) -> Option<&Admission> {
        match &self.origin {
            Origin::Stranger(stranger) => stranger.admission.as_ref(),
            _ => None,
        }
    }

    /// When the message arrived. A handler that waited is later than this.
    #[must_use]
    pub fn now(&self) -> Now {
        self.now
    }

    /// The way to other sessions.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The answer to the message.
    ///
    /// # Errors
    /// None: the `Result` is what handlers return.
    pub fn reply<M: Message>(&self, message: M) -> Result<Reply, Refusal> {
        Ok(Reply::Frame(frame::answer(&message, self.sequence)))
    }

    /// Nothing to say. If the sender wanted an answer it gets SUCCESS.
    ///
    /// # Errors
    /// None, as [`reply`](Self::reply).
    pub fn done(&self) -> Result<Reply, Refusal> {
        Ok(Reply::Done)
    }

    /// Sends the answer now, so that more messages can follow it.
    ///
    /// # Errors
    /// None, as [`reply`](Self::reply).
    pub fn reply_now<M: Message>(&self, message: &M) -> Result<Reply, Refusal> {
        if let Some(session) = self.session() {
            self.outbox.send_frame(session, frame::answer(message, self.sequence));
        }
        Ok(Reply::Sent)
    }
}

/// The answer to a message, encoded.
#[derive(Debug)]
pub enum Reply {
    /// This one.
    Frame(Bytes),
    /// Done, and nothing to say; a sender who wants an answer gets SUCCESS.
    Done,
    /// The handler has sent it.
    Sent,
}
