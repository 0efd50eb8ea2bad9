//! The one way of a datagram, for one lane of one role: session, frame, handler, outbox, session, datagram. No socket,
//! no clock: bytes and times go in, bytes, work and the next deadline come out.
//!
//! ```text
//! datagram() ─► Lane: session opens it ─► Frame ─► Handlers::find ─► handler(ctx, message)
//!                                                                        │ Outbox
//! Output.datagrams ◄─ Lane::flush: session seals ◄─ Mailbox ◄────────────┘
//! ```
//!
//! A handler is polled once, in place. If it waits, the rest of it becomes a task that the driver runs; until it is
//! done, later messages of the same session queue behind it, and nobody else's.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt;
use rand_core::CryptoRng;
use xmmep::frame::{self, Code, Frame, Header, Kind, Sequence};
use xmmep::secret::TicketKey;
use xmmep::session::{
    Accept, Acceptor, AcceptorStats, CloseReason, Config, Ended, Event, Peek, PendingLookup, ServerKey, Serves, peek,
};
use xmmep::types::{PresenceId, Time, UserId};

use crate::ctx::{Ctx, Now, Reply};
use crate::handlers::{Begun, Handlers, Handling};
use crate::lane::{Gone, Lane};
use crate::limits::WAITING_PER_SESSION_MAX;
use crate::link::Link;
use crate::origin::{Origin, Stranger};
use crate::outbox::{Command, LaneId, Mailbox, Outbox, SessionRef};
use crate::refusal::Refusal;
use crate::role::{Role, Task};

/// Why a session is closed whose client sent more than could wait behind a slow handler. It may come back at once.
pub const OVERLOADED: CloseReason = CloseReason(64);

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub bytes: Bytes,
}

/// What the engine wants done. The driver empties it after every call.
#[derive(Default)]
pub struct Output {
    /// Datagrams to send, in order.
    pub datagrams: Vec<Datagram>,
    /// Work to run beside the lane, each to its end.
    pub tasks: Vec<Task>,
}

/// What the engines of one role have in common.
pub struct Setup<R> {
    /// The role's state.
    pub role: Arc<R>,
    /// Its handlers.
    pub handlers: Arc<Handlers<R>>,
    /// The server's static key, which clients pin.
    pub key: ServerKey,
    /// Whether it answers lookups or opens sessions.
    pub serves: Serves,
    /// The key admission tickets are sealed with, and for whom.
    pub tickets: Option<(TicketKey, PresenceId)>,
    /// Times and limits of the sessions.
    pub session: Arc<Config>,
}

/// One lane of a role.
pub struct Engine<R: Role> {
    id: LaneId,
    role: Arc<R>,
    handlers: Arc<Handlers<R>>,
    lane: Lane,
    acceptor: Acceptor,
    mailbox: Arc<Mailbox>,
    /// From the first input of a batch to the end of [`flush`](Self::flush): nobody need wake the lane.
    at_work: bool,
    outbox: Outbox,
    links: Vec<Arc<Link>>,
    rng: Box<dyn CryptoRng + Send>,
    events: Vec<Event>,
    commands: Vec<Command>,
    gone: Vec<Gone>,
}

/// Where the answer to a message goes.
enum Sink {
    Session(SessionRef),
    Lookup(PendingLookup),
    Link(Arc<Link>),
}

impl<R: Role> Engine<R> {
    /// One engine per random source: the lanes of a role.
    ///
    /// # Panics
    /// If there are none, or more than 256: a receiver index has eight bits for its lane.
    pub fn lanes(now: Time, setup: Setup<R>, rngs: Vec<Box<dyn CryptoRng + Send>>) -> Vec<Self> {
        assert!((1..=256).contains(&rngs.len()), "{} lanes: there are 1 to 256", rngs.len());
        let mailboxes: Arc<[Arc<Mailbox>]> = rngs.iter().map(|_| Arc::default()).collect();
        let outbox = Outbox::new(mailboxes.clone());
        let lane = |(number, mut rng): (usize, Box<dyn CryptoRng + Send>)| Self {
            id: LaneId(u8::try_from(number).expect("there are at most 256 lanes")),
            role: setup.role.clone(),
            handlers: setup.handlers.clone(),
            lane: Lane::new(LaneId(u8::try_from(number).expect("there are at most 256 lanes"))),
            acceptor: Acceptor::new(
                now,
                setup.key.clone(),
                setup.serves,
                setup.tickets.clone(),
                setup.session.clone(),
                &mut rng,
            ),
            mailbox: mailboxes[number].clone(),
            at_work: false,
            outbox: outbox.clone(),
            links: Vec::new(),
            rng,
            events: Vec::new(),
            commands: Vec::new(),
            gone: Vec::new(),
        };
        rngs.into_iter().enumerate().map(lane).collect()
    }

    /// The way to the role's sessions, for links and timers outside.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The lane's letter box: the driver sets its waker.
    #[must_use]
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// The role's state.
    #[must_use]
    pub fn role(&self) -> &Arc<R> {
        &self.role
    }

    /// Sessions on this lane.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.lane.len()
    }

    /// What became of the handshakes so far.
    #[must_use]
    pub fn handshakes(&self) -> AcceptorStats {
        self.acceptor.stats()
    }

    /// This lane watches over the time-outs of requests on `link`.
    pub fn add_link(&mut self, link: Arc<Link>) {
        self.links.push(link);
    }

    /// Takes a datagram that arrived. Anything not ours, and anything that does not authenticate, has no effect.
    pub fn datagram(&mut self, now: Now, from: SocketAddr, bytes: &mut [u8], out: &mut Output) {
        self.attend();
        match peek(bytes) {
            Some(Peek::Init) => self.init(now, from, bytes, out),
            Some(Peek::Record { receiver_index }) if LaneId::of(receiver_index) == self.id => {
                self.record(now, from, receiver_index, bytes, out);
            }
            Some(Peek::Record { receiver_index }) => {
                self.outbox.command(LaneId::of(receiver_index), Command::Forwarded(from, bytes.as_ref().into()));
            }
            _ => {}
        }
    }

    /// Carries out what waits in the letter box. To be called when its waker was.
    pub fn mail(&mut self, now: Now, out: &mut Output) {
        self.attend();
        let mut commands = std::mem::take(&mut self.commands);
        self.mailbox.take(&mut commands);
        for command in commands.drain(..) {
            self.command(now, command, out);
        }
        self.commands = commands;
    }

    /// When [`on_deadline`](Self::on_deadline) wants to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let links = self.links.iter().filter_map(|link| link.deadline());
        links.chain(self.lane.deadline()).chain(self.role.deadline(self.id)).min()
    }

    /// Does what is due.
    pub fn on_deadline(&mut self, now: Now, out: &mut Output) {
        self.attend();
        self.links.iter().for_each(|link| link.on_deadline(now.mono));
        self.lane.on_deadline(now.mono, &mut self.gone);
        if self.role.deadline(self.id).is_some_and(|deadline| deadline <= now.mono) {
            let tasks = self.role.on_deadline(now, &self.outbox, self.id);
            self.start_all(tasks, out);
        }
        self.flush(now, out);
    }

    fn attend(&mut self) {
        if !std::mem::replace(&mut self.at_work, true) {
            self.mailbox.attend();
        }
    }

    /// Turns what the calls before left in the sessions into datagrams. To be called once after a batch of inputs, so
    /// that several frames share a datagram, and before waiting for anything: only then does mail wake the lane again.
    pub fn flush(&mut self, now: Now, out: &mut Output) {
        // What a session's end sets off may touch other sessions, and so on; each round ends at least one session.
        loop {
            while !self.mailbox.is_empty() {
                self.mail(now, out);
            }
            self.lane.flush(now.mono, &mut out.datagrams, &mut self.gone);
            if self.gone.is_empty() && self.mailbox.rest() {
                self.at_work = false;
                return;
            }
            for gone in std::mem::take(&mut self.gone) {
                self.acceptor.settled(gone.session.index);
                let task = self.role.session_ended(now, &self.outbox, gone.user, gone.session);
                self.start_all(task.into_iter().collect(), out);
            }
        }
    }

    /// The server stops: all sessions are told and closed.
    pub fn shut_down(&mut self, now: Now, out: &mut Output) {
        for session in self.lane.all() {
            if let Some(entry) = self.lane.resolve(session) {
                entry.session.close(CloseReason::GOING_AWAY);
            }
            self.lane.touch(session.index);
        }
        self.flush(now, out);
    }

    fn init(&mut self, now: Now, from: SocketAddr, bytes: &[u8], out: &mut Output) {
        let (lane, rng) = (&self.lane, &mut self.rng);
        let accept = self.acceptor.handle_init(now.mono, now.wall, from, bytes, &[], rng, || lane.next_index());
        match accept {
            Accept::Nothing => {}
            Accept::Reply(reply) => {
                out.datagrams.push(Datagram { to: from, bytes: Bytes::copy_from_slice(reply.as_bytes()) });
            }
            Accept::Lookup(pending, payload) => {
                let stranger = Stranger { from, session: None, admission: None };
                self.dispatch(now, Origin::Stranger(stranger), Sink::Lookup(pending), &payload, out);
            }
            Accept::Open(opened) => {
                if let Some(evicted) = opened.evicted {
                    self.gone.extend(self.lane.remove(evicted));
                }
                out.datagrams.push(Datagram { to: from, bytes: opened.reply.into() });
                self.lane.insert(now.mono, opened.session, opened.admission);
            }
        }
    }

    fn record(&mut self, now: Now, from: SocketAddr, index: u32, bytes: &mut [u8], out: &mut Output) {
        let Some(entry) = self.lane.get(index) else { return };
        let mut events = std::mem::take(&mut self.events);
        if entry.session.receive(now.mono, from, bytes, &mut events).is_ok() {
            self.lane.touch(index);
        }
        for event in events.drain(..) {
            match event {
                Event::Confirmed => self.acceptor.settled(index),
                Event::Message(message) => {
                    self.message(now, index, message, out);
                    // A login binds through the letter box; what came in the same datagram has to see it.
                    if !self.mailbox.is_empty() {
                        self.mail(now, out);
                    }
                }
                // Its CLOSE is still to be sent; `flush` removes it afterwards.
                Event::Ended(Ended::Violation(_)) => self.lane.touch(index),
                Event::Ended(_) => self.gone.extend(self.lane.remove(index)),
                // No flow of today has unreliable messages to a server; a changed address is the session's affair.
                Event::Datagram(_) | Event::AddressChanged(_) => {}
            }
        }
        self.events = events;
    }

    /// A whole message arrived: it is handled now, or after those of the same session that came before it.
    fn message(&mut self, now: Now, index: u32, message: Bytes, out: &mut Output) {
        let Some(session) = self.lane.reference(index) else { return };
        let Some(entry) = self.lane.get(index).filter(|entry| entry.is_open()) else { return };
        if let Some(waiting) = &mut entry.waiting {
            if waiting.len() < WAITING_PER_SESSION_MAX {
                // In memory of its own: the handler before it may take its time.
                waiting.push_back(Bytes::copy_from_slice(&message));
                return;
            }
            match frame::split(&message) {
                Ok((header, _)) if header.sequence != Sequence::NONE => {
                    let refusal = Refusal::Busy { retry_after_s: 1 };
                    respond(&self.outbox, Sink::Session(session), header, Err(refusal));
                }
                // Nothing is dropped in silence, and what comes behind must not overtake it: the client comes back and
                // sends again, in order, whatever it has no answer for.
                _ => {
                    entry.session.close(OVERLOADED);
                    self.lane.touch(index);
                }
            }
            return;
        }
        let origin = match entry.user {
            UserId(0) => Origin::Stranger(Stranger {
                from: entry.session.peer(),
                session: Some(session),
                admission: entry.admission().cloned(),
            }),
            user => Origin::Client { user, session },
        };
        self.dispatch(now, origin, Sink::Session(session), &message, out);
    }

    fn command(&mut self, now: Now, command: Command, out: &mut Output) {
        match command {
            Command::Send(session, frame) => {
                let Some(entry) = self.lane.resolve(session) else { return };
                if let Err(error) = entry.session.send(frame) {
                    // A peer that takes nothing any more. What it misses it gets after its next login; `flush` tells it
                    // and the role.
                    tracing::debug!(user = %entry.user, %error, "closing a session that cannot keep up");
                    entry.session.close(CloseReason::GOING_AWAY);
                }
                self.lane.touch(session.index);
            }
            Command::SendUnreliable(session, frame) => {
                if let Some(entry) = self.lane.resolve(session) {
                    // May get lost: here, too.
                    let _ = entry.session.send_unreliable(frame);
                    self.lane.touch(session.index);
                }
            }
            Command::Bind(session, user) => {
                if !self.lane.bind(session, user) {
                    // It ended while its login was under way, when there was nobody to tell.
                    self.gone.push(Gone { session, user });
                }
            }
            Command::Close(session, reason) => self.lane.close(now.mono, session, reason),
            Command::Handled(session) => self.handled(now, session, out),
            Command::Answer(lookup, frame) => {
                let to = lookup.from();
                if let Some(datagram) = lookup.answer(now.mono, &frame) {
                    out.datagrams.push(Datagram { to, bytes: datagram.into() });
                }
            }
            Command::Spawn(task) => self.start_all(vec![task], out),
            Command::Wake => {}
            Command::Forwarded(from, mut bytes) => {
                if let Some(Peek::Record { receiver_index }) = peek(&bytes) {
                    self.record(now, from, receiver_index, &mut bytes, out);
                }
            }
            Command::Link(link, bytes) => self.link_frame(now, &link, bytes, out),
        }
    }

    /// A handler that had waited is done: what queued behind it is handled, until one waits again.
    fn handled(&mut self, now: Now, session: SessionRef, out: &mut Output) {
        let Some(queued) = self.lane.resolve(session).and_then(|entry| entry.waiting.take()) else { return };
        for message in *queued {
            self.message(now, session.index, message, out);
            // Login binds through the letter box; the next message has to see it.
            self.mail(now, out);
        }
    }

    fn link_frame(&mut self, now: Now, link: &Arc<Link>, bytes: Bytes, out: &mut Output) {
        let frame = match Frame::decode(bytes.clone()) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(peer = ?link.peer(), %error, "a server sent a malformed frame");
                return;
            }
        };
        if link.receive(frame).is_some() {
            self.dispatch(now, Origin::Link(link.clone()), Sink::Link(link.clone()), &bytes, out);
        }
    }

    /// Finds the handler of a message and runs it.
    fn dispatch(&mut self, now: Now, origin: Origin, sink: Sink, frame: &[u8], out: &mut Output) {
        let (header, body) = match frame::split(frame) {
            Ok((header, body)) if header.kind == Kind::Ask => (header, body),
            // An answer to nothing is not answered; a frame without a readable header cannot be.
            _ => return,
        };
        let handling = self.handlers.find(origin.kind(), header.code).and_then(|handler| {
            let (role, outbox) = (self.role.clone(), self.outbox.clone());
            let ctx = Ctx { role, origin, sequence: header.sequence, now, outbox };
            handler.start(ctx, body).map_err(|error| Refusal::BadField(error.to_string().into()))
        });
        let mut begun = match handling {
            Ok(Handling::Begun(begun)) => begun,
            Ok(Handling::Done(result)) => return respond(&self.outbox, sink, header, result),
            Err(refusal) => return respond(&self.outbox, sink, header, Err(refusal)),
        };
        match begun.poll_unpin(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => respond(&self.outbox, sink, header, result),
            Poll::Pending => self.wait_for(begun, sink, header, out),
        }
    }

    /// What came of polling a handler once, in place, is that it waits: it becomes a task.
    fn wait_for(&mut self, handling: Begun, sink: Sink, header: Header, out: &mut Output) {
        let session = match &sink {
            Sink::Session(session) => Some(*session),
            _ => None,
        };
        if let Some(entry) = session.and_then(|session| self.lane.resolve(session)) {
            entry.waiting.get_or_insert_default();
        }
        let outbox = self.outbox.clone();
        out.tasks.push(Box::pin(async move {
            let result = handling.await;
            respond(&outbox, sink, header, result);
            if let Some(session) = session {
                outbox.command(session.lane(), Command::Handled(session));
            }
        }));
    }

    /// Polls tasks once, in place; those that wait go to the driver.
    fn start_all(&mut self, tasks: Vec<Task>, out: &mut Output) {
        for task in tasks {
            let mut task: Task = Box::pin(AssertUnwindSafe(task).catch_unwind().map(|result| {
                if result.is_err() {
                    tracing::error!("a task panicked; what it was to do is left undone");
                }
            }));
            if task.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending() {
                out.tasks.push(task);
            }
        }
    }
}

/// Answers a message, if there is something to say.
fn respond(outbox: &Outbox, sink: Sink, header: Header, result: Result<Reply, Refusal>) {
    let (code, sequence) = (header.code, header.sequence);
    let answer = match result {
        Ok(Reply::Frame(answer)) => answer,
        Ok(Reply::Sent) => return,
        Ok(Reply::Done) if sequence == Sequence::NONE => return,
        Ok(Reply::Done) => frame::answer(&success(code), sequence),
        Err(refusal) => {
            tracing::debug!(%code, %refusal, "refused");
            frame::answer(&refusal.message(code), sequence)
        }
    };
    match sink {
        Sink::Session(session) => outbox.command(session.lane(), Command::Send(session, answer)),
        Sink::Lookup(lookup) => outbox.command(LaneId(0), Command::Answer(lookup, answer)),
        // A link that went down meanwhile: the peer repeats its request when it is back.
        Sink::Link(link) => drop(link.send(answer)),
    }
}

fn success(answered: Code) -> xmmep::messages::ResultMsg {
    xmmep::messages::ResultMsg {
        result: xmmep::result_code::ResultCode::SUCCESS,
        answered,
        retry_after_s: 0,
        detail: xmmep::bounded::Text::default(),
    }
}
