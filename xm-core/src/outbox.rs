//! What leaves a handler: commands to the lanes that own the sessions and links. Encoding happens once per message,
//! however many receive it. How a lane carries a command out lives in `lane.rs`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use xmmep::frame;
use xmmep::message::Message;
use xmmep::session::{CloseReason, PendingLookup};
use xmmep::types::UserId;

use crate::link::Link;
use crate::role::Task;

/// A session, for as long as it lives. A later session in the same place has another serial number, so a reference
/// that outlived its session reaches nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionRef {
    /// Where it is: the receiver index of its datagrams. The highest byte is the lane.
    pub(crate) index: u32,
    /// Which of all sessions that were ever there.
    pub(crate) serial: u64,
}

impl SessionRef {
    /// The lane that owns it.
    #[must_use]
    pub fn lane(self) -> LaneId {
        LaneId::of(self.index)
    }
}

/// A lane: one thread with a socket and the sessions that landed on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub u8);

impl LaneId {
    /// The lane named by a receiver index.
    #[must_use]
    pub fn of(index: u32) -> Self {
        Self(index.to_be_bytes()[0])
    }
}

/// What a lane is told to do.
pub(crate) enum Command {
    /// Send a frame, reliably and in order.
    Send(SessionRef, Bytes),
    /// Send a frame that may get lost.
    SendUnreliable(SessionRef, Bytes),
    /// The session now belongs to this user.
    Bind(SessionRef, UserId),
    /// End the session; the role is not told.
    Close(SessionRef, CloseReason),
    /// A handler that had waited is done: the session's next message may be handled.
    Handled(SessionRef),
    /// Answer a lookup.
    Answer(PendingLookup, Bytes),
    /// Run this beside the lane.
    Spawn(Task),
    /// Nothing but to look at the deadlines again.
    Wake,
    /// A frame arrived on a link.
    Link(Arc<Link>, Bytes),
    /// A datagram for one of the lane's sessions arrived at another lane.
    Forwarded(SocketAddr, BytesMut),
}

/// A lane's letter box: commands from other lanes, links and handlers that had waited.
#[derive(Default)]
pub struct Mailbox {
    letters: Mutex<Letters>,
    waker: Mutex<Option<Box<dyn Fn() + Send>>>,
}

#[derive(Default)]
struct Letters {
    commands: Vec<Command>,
    /// The lane is at work and looks here before it rests: it need not be woken.
    attended: bool,
}

impl Mailbox {
    /// Sets what is called when a command arrives in an empty box of a lane that rests: the driver's way to wake it. Called at
    /// once if something has arrived already.
    pub fn on_mail(&self, wake: impl Fn() + Send + 'static) {
        let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        // Checked under the lock that `push` takes after pushing: one of the two sees the other.
        if !self.is_empty() {
            wake();
        }
        *waker = Some(Box::new(wake));
    }

    pub(crate) fn push(&self, command: Command) {
        let to_wake = {
            let mut letters = self.letters();
            letters.commands.push(command);
            letters.commands.len() == 1 && !letters.attended
        };
        if to_wake && let Some(wake) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            wake();
        }
    }

    /// The lane is at work from now on.
    pub(crate) fn attend(&self) {
        self.letters().attended = true;
    }

    /// The lane rests from now on, unless something waits; whether it does.
    pub(crate) fn rest(&self) -> bool {
        let mut letters = self.letters();
        letters.attended &= !letters.commands.is_empty();
        letters.commands.is_empty()
    }

    /// Takes everything, leaving `empty` in its place so that the memory is reused.
    pub(crate) fn take(&self, empty: &mut Vec<Command>) {
        std::mem::swap(&mut self.letters().commands, empty);
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.letters().commands.is_empty()
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way out, shared by everything a role runs: finds the lane of a session and leaves the command there.
#[derive(Clone)]
pub struct Outbox {
    lanes: Arc<[Arc<Mailbox>]>,
}

impl Outbox {
    pub(crate) fn new(lanes: Arc<[Arc<Mailbox>]>) -> Self {
        Self { lanes }
    }

    /// Sends `message` to a session, reliably and in order.
    pub fn send<M: Message>(&self, session: SessionRef, message: &M) {
        self.send_frame(session, frame::notice(message));
    }

    /// Sends one encoded frame to a session. For a fan-out: encode once, clone the bytes.
    pub fn send_frame(&self, session: SessionRef, frame: Bytes) {
        self.command(session.lane(), Command::Send(session, frame));
    }

    /// Sends `message` to a session; it may get lost or overtaken.
    pub fn send_unreliable<M: Message>(&self, session: SessionRef, message: &M) {
        self.command(session.lane(), Command::SendUnreliable(session, frame::notice(message)));
    }

    /// From here on the session belongs to `user`.
    pub fn bind(&self, session: SessionRef, user: UserId) {
        self.command(session.lane(), Command::Bind(session, user));
    }

    /// Ends a session once what was sent before has left.
    pub fn close(&self, session: SessionRef, reason: CloseReason) {
        self.command(session.lane(), Command::Close(session, reason));
    }

    /// Makes a lane look at its deadlines again.
    pub(crate) fn wake(&self, lane: LaneId) {
        self.command(lane, Command::Wake);
    }

    /// Runs `task` beside the lanes. For work whose end nobody waits for.
    pub fn spawn(&self, task: Task) {
        self.command(LaneId(0), Command::Spawn(task));
    }

    pub(crate) fn command(&self, lane: LaneId, command: Command) {
        if let Some(mailbox) = self.lanes.get(usize::from(lane.0)) {
            mailbox.push(command);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A letter box and how often its lane was woken.
    fn counted() -> (Mailbox, Arc<AtomicUsize>) {
        let (mailbox, wakes) = (Mailbox::default(), Arc::<AtomicUsize>::default());
        let counted = wakes.clone();
        mailbox.on_mail(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        (mailbox, wakes)
    }

    #[test]
    fn mail_that_came_before_the_driver_wakes_its_lane_all_the_same() {
        let wakes = Arc::<AtomicUsize>::default();
        let mailbox = Mailbox::default();
        mailbox.push(Command::Wake);
        let counted = wakes.clone();
        mailbox.on_mail(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_lane_is_woken_once_for_all_that_waits() {
        let (mailbox, wakes) = counted();
        for expected in 1..3 {
            mailbox.push(Command::Wake);
            mailbox.push(Command::Wake);
            assert_eq!(wakes.load(Ordering::Relaxed), expected);
            mailbox.take(&mut Vec::new());
        }
    }

    #[test]
    fn a_lane_at_work_is_not_woken_and_does_not_rest_before_it_has_taken_its_mail() {
        let (mailbox, wakes) = counted();
        mailbox.attend();
        mailbox.push(Command::Wake);
        assert!(!mailbox.rest());
        mailbox.take(&mut Vec::new());
        mailbox.push(Command::Wake);
        assert!(!mailbox.rest(), "came meanwhile");
        mailbox.take(&mut Vec::new());
        assert!(mailbox.rest());
        assert_eq!(wakes.load(Ordering::Relaxed), 0);
        mailbox.push(Command::Wake);
        assert_eq!(wakes.load(Ordering::Relaxed), 1, "it rests");
    }
}
