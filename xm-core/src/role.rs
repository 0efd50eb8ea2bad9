//! What the engine asks of a role beside its handlers: what happens when a session ends, and when time passes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use xmmep::types::{Time, UserId};

use crate::ctx::Now;
use crate::outbox::{LaneId, Outbox, SessionRef};

/// Work that waits for something; the driver runs it beside the lane. Its results leave through the outbox.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A server role: state that handlers share, behind short locks of its own. One that has to do with messages alone leaves all
/// of this as it is: nothing is done.
pub trait Role: Send + Sync + Sized + 'static {
    /// A session of `user` ended without the role asking for it: closed by the client, silent for too long.
    #[expect(unused_variables, reason = "names for whoever writes one")]
    fn session_ended(self: &Arc<Self>, now: Now, outbox: &Outbox, user: UserId, session: SessionRef) -> Option<Task> {
        None
    }

    /// When [`on_deadline`](Self::on_deadline) wants to be called for this lane.
    #[expect(unused_variables, reason = "names for whoever writes one")]
    fn deadline(&self, lane: LaneId) -> Option<Time> {
        None
    }

    /// Time passed. Each lane calls it for itself.
    #[expect(unused_variables, reason = "names for whoever writes one")]
    fn on_deadline(self: &Arc<Self>, now: Now, outbox: &Outbox, lane: LaneId) -> Vec<Task> {
        Vec::new()
    }
}
