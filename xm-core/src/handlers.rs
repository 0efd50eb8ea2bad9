//! The registry: which function handles which message, and who may send it. What is not registered is refused.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;
use hashbrown::HashMap;
use xmmep::error::DecodeError;
use xmmep::frame::Code;
use xmmep::message::Message;
use xmmep::result_code::ResultCode;

use crate::ctx::{Ctx, Reply};
use crate::origin::Sender;
use crate::refusal::Refusal;

type Erased<R> = Box<dyn Fn(Ctx<R>, &[u8]) -> Result<Handling, DecodeError> + Send + Sync>;

/// A function that handles message `M` of role `R`: `fn(Ctx<R>, M) -> Result<Reply, Refusal>`, or an `async fn` if it has
/// to wait for something. `K` says which of the two; the compiler finds it.
pub trait Handle<R, M, K>: Send + Sync + 'static {
    /// Begins.
    fn handle(&self, ctx: Ctx<R>, message: M) -> Handling;
}

/// How far a handler has come.
pub enum Handling {
    /// To its end.
    Done(Result<Reply, Refusal>),
    /// It may have to wait; nothing has run yet.
    Begun(Begun),
}

/// The rest of a handler that may have to wait.
pub type Begun = Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send>>;

/// Marks functions that never wait.
pub enum AtOnce {}

/// Marks functions that may wait.
pub enum Async {}

impl<R, M, F> Handle<R, M, AtOnce> for F
where
    M: Message,
    F: Fn(Ctx<R>, M) -> Result<Reply, Refusal> + Send + Sync + 'static,
{
    fn handle(&self, ctx: Ctx<R>, message: M) -> Handling {
        let result = catch_unwind(AssertUnwindSafe(|| self(ctx, message)));
        Handling::Done(result.unwrap_or_else(|_| Err(panicked(M::CODE))))
    }
}

impl<R, M, F, Fut> Handle<R, M, Async> for F
where
    M: Message,
    F: Fn(Ctx<R>, M) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Reply, Refusal>> + Send + 'static,
{
    fn handle(&self, ctx: Ctx<R>, message: M) -> Handling {
        let handling = AssertUnwindSafe(self(ctx, message)).catch_unwind();
        Handling::Begun(Box::pin(handling.map(|result| result.unwrap_or_else(|_| Err(panicked(M::CODE))))))
    }
}

fn panicked(code: Code) -> Refusal {
    tracing::error!(%code, "a handler panicked; its request is answered with ERROR");
    Refusal::Other(ResultCode::ERROR, "internal error".into())
}

/// The message handlers of a role.
///
/// A handler is an ordinary function, `fn(Ctx<R>, M) -> Result<Reply, Refusal>`, or an `async fn` if it waits for
/// something; the type of its second argument says which message it handles, the verb that registers it who may send that
/// message. One handler per code.
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
    pub fn from_stranger<M: Message, K>(self, handler: impl Handle<R, M, K>) -> Self {
        self.add(Sender::Stranger, handler)
    }

    /// `handler` takes this message from logged-in users.
    #[must_use]
    pub fn from_client<M: Message, K>(self, handler: impl Handle<R, M, K>) -> Self {
        self.add(Sender::Client, handler)
    }

    /// `handler` takes this message from other servers. Which role may send it is the handler's to check.
    #[must_use]
    pub fn from_link<M: Message, K>(self, handler: impl Handle<R, M, K>) -> Self {
        self.add(Sender::Link, handler)
    }

    fn add<M: Message, K>(mut self, sender: Sender, handler: impl Handle<R, M, K>) -> Self {
        let handle: Erased<R> = Box::new(move |ctx, body| Ok(handler.handle(ctx, M::decode_body(body)?)));
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
    /// Decodes the body and begins to handle it.
    pub(crate) fn start(&self, ctx: Ctx<R>, body: &[u8]) -> Result<Handling, DecodeError> {
        (self.entry.handle)(ctx, body)
    }
}
