//! The registry: which function handles which message, and who may send it. What is not registered is refused.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use xmmep::error::DecodeError;
use xmmep::frame::Code;
use xmmep::message::Message;

use crate::ctx::{Ctx, Reply};
use crate::origin::Sender;
use crate::refusal::Refusal;

pub(crate) type Handling = Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send>>;
type Erased<R> = Box<dyn Fn(Ctx<R>, &Bytes) -> Result<Handling, DecodeError> + Send + Sync>;

/// The message handlers of a role.
///
/// A handler is an ordinary function, `async fn(Ctx<R>, M) -> Result<Reply, Refusal>`; the type of its second argument
/// says which message it handles, the verb that registers it who may send that message. One handler per code.
pub struct Handlers<R> {
    table: HashMap<Code, Entry<R>>,
}

struct Entry<R> {
    name: &'static str,
    sender: Sender,
    handle: Erased<R>,
}

impl<R: 'static> Default for Handlers<R> {
    fn default() -> Self {
        Self { table: HashMap::new() }
    }
}

impl<R: Send + Sync + 'static> Handlers<R> {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// `handler` takes this message from anybody who has proved to own an address, before login.
    #[must_use]
    pub fn from_stranger<M, F, Fut>(self, handler: F) -> Self
    where
        M: Message,
        F: Fn(Ctx<R>, M) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, Refusal>> + Send + 'static,
    {
        self.add(Sender::Stranger, handler)
    }

    /// `handler` takes this message from logged-in users.
    #[must_use]
    pub fn from_client<M, F, Fut>(self, handler: F) -> Self
    where
        M: Message,
        F: Fn(Ctx<R>, M) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, Refusal>> + Send + 'static,
    {
        self.add(Sender::Client, handler)
    }

    /// `handler` takes this message from other servers. Which role may send it is the handler's to check.
    #[must_use]
    pub fn from_link<M, F, Fut>(self, handler: F) -> Self
    where
        M: Message,
        F: Fn(Ctx<R>, M) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, Refusal>> + Send + 'static,
    {
        self.add(Sender::Link, handler)
    }

    fn add<M, F, Fut>(mut self, sender: Sender, handler: F) -> Self
    where
        M: Message,
        F: Fn(Ctx<R>, M) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Reply, Refusal>> + Send + 'static,
    {
        let handle: Erased<R> = Box::new(move |ctx, body| Ok(Box::pin(handler(ctx, M::decode_body(body)?))));
        let before = self.table.insert(M::CODE, Entry { name: M::NAME, sender, handle });
        if let Some(before) = before {
            panic!("code {} has two handlers: one for {} and one for {}", M::CODE, before.name, M::NAME);
        }
        self
    }

    /// Finds the handler of `code` for a message from `sender`.
    ///
    /// # Errors
    /// [`Refusal::UnknownCode`] if there is none; [`Refusal::BadState`] if a client may send it, but after login or
    /// before; [`Refusal::WrongRole`] if this sender never may.
    pub(crate) fn find(&self, sender: Sender, code: Code) -> Result<Handler<'_, R>, Refusal> {
        let entry = self.table.get(&code).ok_or(Refusal::UnknownCode)?;
        match (sender, entry.sender) {
            (sender, registered) if sender == registered => Ok(Handler { entry }),
            (Sender::Stranger, Sender::Client) | (Sender::Client, Sender::Stranger) => Err(Refusal::BadState),
            _ => Err(Refusal::WrongRole),
        }
    }

    /// The table, by code: name of the message and who may send it. The access policy, to print and to test.
    #[must_use]
    pub fn policy(&self) -> Vec<(Code, &'static str, Sender)> {
        let mut rows: Vec<_> = self.table.iter().map(|(code, entry)| (*code, entry.name, entry.sender)).collect();
        rows.sort_by_key(|row| row.0);
        rows
    }

    /// Ready to be shared by the lanes.
    #[must_use]
    pub fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }
}

pub(crate) struct Handler<'a, R> {
    entry: &'a Entry<R>,
}

impl<R> Handler<'_, R> {
    /// Decodes the body and starts handling it; nothing has run yet.
    pub(crate) fn start(&self, ctx: Ctx<R>, body: &Bytes) -> Result<Handling, DecodeError> {
        (self.entry.handle)(ctx, body)
    }
}
