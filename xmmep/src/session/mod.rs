//! The secure session between a client and a server over UDP: handshake, records, reliable delivery, roaming. No socket
//! and no clock: datagrams, times and an RNG are arguments, datagrams and events are results.
//!
//! # Who calls what
//!
//! A **client** starts a [`Connecting`], which becomes a [`Session`] or the answer to a lookup. A **server** has one
//! [`Acceptor`] per lane, gives it every datagram for which [`peek`] says [`Peek::Init`], and keeps the sessions it
//! opens under the indexes it chose. With a session, after *each* call of `receive`, `send`, `send_unreliable`, `close`,
//! `probe` or `on_deadline`, call [`Session::poll_transmit`] until it says `None`, and set a timer to
//! [`Session::deadline`]. Addresses are compared as they are given: a driver writes an IPv4 address in one way only,
//! plain or mapped into IPv6.
//!
//! ```
//! use std::sync::Arc;
//! use rand::{SeedableRng, rngs::StdRng};
//! use xmmep::session::{Accept, Acceptor, Config, Connecting, Event, ServerKey, Serves, Step};
//! use xmmep::types::{Time, WallTime};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut rng = StdRng::seed_from_u64(1);
//! let (now, wall) = (Time::ZERO, WallTime(0));
//! let (client, server) = ("192.0.2.1:1000".parse()?, "192.0.2.2:2000".parse()?);
//! let key = ServerKey::random(&mut rng);
//! let public = key.public();
//! let config = Arc::new(Config::default());
//! let mut acceptor = Acceptor::new(now, key, Serves::Sessions, None, config.clone(), &mut rng);
//!
//! // First contact costs the server nothing: it answers with a cookie.
//! let (mut connecting, init) = Connecting::open(now, server, &public, None, b"", config, &mut rng)?;
//! let Accept::Reply(retry) = acceptor.handle_init(now, wall, client, &init, b"", &mut rng, || Some(7)) else { panic!() };
//! let Step::Send(init) = connecting.handle(now, server, retry.as_bytes()) else { panic!() };
//!
//! // With the cookie, it opens a session.
//! let Accept::Open(opened) = acceptor.handle_init(now, wall, client, &init, b"welcome", &mut rng, || Some(7)) else {
//!     panic!()
//! };
//! let Step::Open(mut ours, welcome) = connecting.handle(now, server, &opened.reply) else { panic!() };
//! assert_eq!(&welcome[..], b"welcome");
//!
//! // One message.
//! let mut theirs = opened.session;
//! let (mut datagram, mut events) = (Vec::new(), Vec::new());
//! ours.send(b"hello".as_slice().into())?;
//! assert_eq!(ours.poll_transmit(now, &mut datagram), Some(server));
//! theirs.receive(now, client, &mut datagram, &mut events)?;
//! assert_eq!(events, [Event::Confirmed, Event::Message(b"hello".as_slice().into())]);
//! # Ok(()) }
//! ```
#![doc = include_str!("on_the_wire.md")]

mod accept;
mod aead;
mod chunk;
mod config;
mod cookie;
mod event;
mod handshake;
mod incoming;
mod noise;
mod outgoing;
mod pace;
mod path;
mod receive;
mod records;
mod ticket;
mod transmit;
mod wire;
mod x25519;

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use accept::{
    Accept, Acceptor, AcceptorStats, HANDSHAKE_AGE_MAX, HANDSHAKES_MAX, LOOKUPS_MAX, Opened, PendingLookup, Serves,
};
pub use config::{Config, Limits};
pub use cookie::{COOKIE_AGE_MAX, COOKIE_SECRET_AGE_MAX, HANDSHAKES_BURST, HANDSHAKES_PER_SECOND};
pub use event::{CloseReason, Ended, Event, Rejected, SendError, Stats, Violation};
pub use handshake::{
    Connecting, GaveUp, INIT_PAUSE, INIT_TRIES_MAX, LOOKUP_ANSWER_MAX, REQUEST_MAX, RequestTooLong, Step, WELCOME_MAX,
};
pub use noise::{NOISE_NAME, ServerKey, ServerPublicKey};
pub use outgoing::MESSAGE_OVERHEAD;
pub use pace::{RTO_INITIAL, RTO_MAX, RTO_MIN, TIMEOUTS_MAX, WINDOW_INITIAL, WINDOW_MAX};
pub use path::{PROPOSAL_AGE_MAX, PROPOSAL_INTERVAL};
pub use records::{PREVIOUS_KEY_AGE_MAX, REPLAY_WINDOW};
pub use ticket::{Admission, TICKET_LEN, Ticket, UserKind};
pub use wire::{DATAGRAM_MAX, Peek, Reply, VERSION, peek};

use crate::types::Time;
use incoming::Incoming;
use outgoing::{BUFFERS_KEPT, Outgoing};
use pace::Pace;
use path::Path;
use records::{Key, ReceiveKeys, SendKeys};

/// Most bytes of a message in one fragment: leaves room in a datagram for an acknowledgement, a PING and small change.
pub const FRAGMENT_MAX: usize = 1_024;

/// Most fragments of one message.
pub const FRAGMENTS_PER_MESSAGE: usize = 16;

/// Most bytes of an unreliable datagram: one datagram's plaintext less an acknowledgement, a PING and path chunks.
pub const UNRELIABLE_MAX: usize = 1_100;

/// Unreliable datagrams waiting to be sent; a driver that polls as it should never has more than one.
pub const UNRELIABLE_QUEUE_MAX: usize = 16;

/// How long an acknowledgement waits for something to ride on.
pub const ACK_DELAY: Duration = Duration::from_millis(25);

/// Records with data that are acknowledged at once, waiting for nothing.
pub const ACK_EVERY: u8 = 4;

/// Which side of the handshake a session was on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

/// What the handshake agreed on; wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Keys {
    send: [u8; 32],
    receive: [u8; 32],
    local_index: u32,
    peer_index: u32,
}

/// One end of an open session.
///
/// Idle, it takes some 400 bytes and no heap; buffers come with traffic and leave 5 s after it. See the
/// [module page](self) for the calling contract.
pub struct Session {
    config: Arc<Config>,
    send_keys: SendKeys,
    receive_keys: ReceiveKeys,
    peer: SocketAddr,
    busy: Option<Box<Busy>>,
    path: Option<Box<Path>>,
    pace: Pace,
    /// The fragment expected next.
    receive_next: u32,
    local_index: u32,
    peer_index: u32,
    last_received: Time,
    /// When something was last sent that the peer acknowledges.
    last_asked: Time,
    /// When an acknowledgement must leave, if one is owed.
    ack_due: Option<Time>,
    /// What path challenges are made from. Not known to the peer, who could otherwise answer for others.
    path_secret: [u8; 8],
    /// Before login: how many bytes a server may still send. Grows with what it receives.
    credit: u32,
    sent: u32,
    received: u32,
    rejected: u32,
    retransmitted: u32,
    /// Records with data that are not acknowledged yet.
    unacked_records: u8,
    role: Role,
    /// The limits of members apply.
    promoted: bool,
    /// The peer has authenticated a record, or its handshake answer.
    confirmed: bool,
    ping: bool,
    stage: Stage,
}

/// How far the session is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// A CLOSE with this reason is to be sent.
    Closing(CloseReason),
    /// Over, but whoever asks for the deadline has not been told.
    Untold(Ended),
    Over,
}

/// What only a session with traffic needs.
#[derive(Default)]
struct Busy {
    outgoing: Outgoing,
    incoming: Incoming,
    unreliable: VecDeque<Bytes>,
}

impl Busy {
    fn is_drained(&self) -> bool {
        self.outgoing.is_drained() && self.incoming.is_empty() && self.unreliable.is_empty()
    }
}

impl Session {
    fn new(now: Time, role: Role, peer: SocketAddr, keys: &Keys, path_secret: [u8; 8], config: Arc<Config>) -> Self {
        let client = role == Role::Client;
        Self {
            config,
            send_keys: SendKeys::new(Key(keys.send), now),
            receive_keys: ReceiveKeys::new(Key(keys.receive)),
            peer,
            busy: None,
            path: None,
            pace: Pace::new(),
            receive_next: 0,
            local_index: keys.local_index,
            peer_index: keys.peer_index,
            last_received: now,
            last_asked: now,
            ack_due: None,
            path_secret,
            credit: 0,
            sent: 0,
            received: 0,
            rejected: 0,
            retransmitted: 0,
            unacked_records: 0,
            role,
            promoted: client,
            confirmed: client,
            ping: client,
            stage: Stage::Open,
        }
    }

    /// Lets a server's session send this many bytes more before login.
    fn grant(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Queues a message. It arrives once and in order, or the session ends.
    ///
    /// A fan-out shares one [`Bytes`]: fragments are slices of it, nothing is copied until it is sealed.
    ///
    /// # Errors
    /// [`SendError::Full`] if [`Limits::queue_max`] would be exceeded, [`SendError::TooLarge`] over
    /// [`Limits::message_max`], [`SendError::Over`] after the end.
    pub fn send(&mut self, message: Bytes) -> Result<(), SendError> {
        if self.stage != Stage::Open {
            return Err(SendError::Over);
        }
        let limits = *self.limits();
        self.busy.get_or_insert_default().outgoing.push(message, &limits)
    }

    /// Queues a datagram that may get lost. It leaves with the next [`Session::poll_transmit`], whatever the congestion
    /// window says: whoever sends many has to pace them.
    ///
    /// # Errors
    /// [`SendError::TooLarge`] over [`UNRELIABLE_MAX`] bytes, [`SendError::Full`] if [`UNRELIABLE_QUEUE_MAX`] wait
    /// already, [`SendError::Over`] after the end.
    pub fn send_unreliable(&mut self, datagram: Bytes) -> Result<(), SendError> {
        if self.stage != Stage::Open {
            return Err(SendError::Over);
        }
        if datagram.len() > UNRELIABLE_MAX {
            return Err(SendError::TooLarge);
        }
        let busy = self.busy.get_or_insert_default();
        if busy.unreliable.len() >= UNRELIABLE_QUEUE_MAX {
            return Err(SendError::Full);
        }
        busy.unreliable.push_back(datagram);
        Ok(())
    }

    /// Ends the session: tells the peer once, drops what was not sent. Wait for [`Session::unacknowledged`] to reach 0
    /// first if that matters.
    pub fn close(&mut self, reason: CloseReason) {
        if self.stage == Stage::Open {
            self.stage = Stage::Closing(reason);
            self.busy = None;
        }
    }

    /// Makes the peer answer at once: to measure, or to show it a new address after the network changed.
    pub fn probe(&mut self) {
        self.ping = true;
    }

    /// The user has logged in: from now on [`Config::member`] applies, and no limit on what is sent.
    pub fn promote(&mut self) {
        self.promoted = true;
    }

    /// The next moment at which [`Session::on_deadline`] has something to do; `None` when the session is over.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.stage {
            Stage::Open => {}
            Stage::Untold(_) => return Some(Time::ZERO),
            Stage::Closing(_) | Stage::Over => return None,
        }
        if !self.confirmed {
            return Some(self.last_received.after(HANDSHAKE_AGE_MAX));
        }
        let mut deadline = self.last_received.after(self.config.idle);
        let mut earliest = |time: Time| deadline = deadline.min(time);
        if self.role == Role::Client {
            earliest(self.last_asked.after(self.config.keep_alive));
        }
        if let Some(time) = self.ack_due.filter(|_| self.can_send()) {
            earliest(time);
        }
        if let Some(busy) = &self.busy {
            busy.outgoing.timer().into_iter().for_each(&mut earliest);
            if busy.is_drained() {
                earliest(self.last_traffic().after(BUFFERS_KEPT));
            }
        }
        self.receive_keys.expires().into_iter().for_each(&mut earliest);
        if let Some(path) = &self.path {
            earliest(path.deadline(if self.can_send() { wire::RECORD_MIN } else { usize::MAX }));
        }
        Some(deadline)
    }

    /// Does what is due: keep-alive, retransmission, path challenges; says so if the session ended of itself.
    pub fn on_deadline(&mut self, now: Time) -> Option<Ended> {
        match self.stage {
            Stage::Open => {}
            Stage::Untold(ended) => {
                self.stage = Stage::Over;
                return Some(ended);
            }
            Stage::Closing(_) | Stage::Over => return None,
        }
        if !self.confirmed {
            return (now.since(self.last_received) >= HANDSHAKE_AGE_MAX).then(|| self.end(Ended::Unconfirmed));
        }
        if now.since(self.last_received) >= self.config.idle {
            return Some(self.end(Ended::Silent));
        }
        if self.role == Role::Client && now.since(self.last_asked) >= self.config.keep_alive {
            self.ping = true;
        }
        let idle = now.since(self.last_traffic()) >= BUFFERS_KEPT;
        if let Some(busy) = &mut self.busy {
            let timed_out = busy.outgoing.timer().is_some_and(|timer| timer <= now);
            if timed_out && busy.outgoing.on_timeout(&mut self.pace) {
                return Some(self.end(Ended::Unanswered));
            }
        }
        if idle && self.busy.as_ref().is_some_and(|busy| busy.is_drained()) {
            self.busy = None;
            self.pace.idle();
        }
        let can_send = self.can_send();
        if self.path.as_mut().is_some_and(|path| path.expire(now, can_send)) {
            self.path = None;
        }
        self.receive_keys.expire(now);
        None
    }

    fn end(&mut self, ended: Ended) -> Ended {
        self.stage = Stage::Over;
        self.busy = None;
        self.path = None;
        ended
    }

    fn limits(&self) -> &Limits {
        if self.promoted { &self.config.member } else { &self.config.stranger }
    }

    fn last_traffic(&self) -> Time {
        self.last_received.max(self.last_asked)
    }

    /// The index of records to us, as [`peek`] shows it.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.local_index
    }

    /// The peer's address now in use.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the peer has shown that it holds the keys; until then a server's session is half-open.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Whether nothing more can be sent or received.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stage != Stage::Open
    }

    /// Bytes of messages not acknowledged yet, [`MESSAGE_OVERHEAD`] per message included; 0 when all has arrived.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.busy.as_ref().map_or(0, |busy| busy.outgoing.charged())
    }

    /// Whether this session has buffers on the heap; an idle one has none.
    #[must_use]
    pub fn has_buffers(&self) -> bool {
        self.busy.is_some()
    }

    /// What this session has seen.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            sent: self.sent,
            received: self.received,
            rejected: self.rejected,
            retransmitted: self.retransmitted,
            rtt: self.pace.rtt(),
        }
    }
}

/// All state but secrets and the count of rejected datagrams: two equal texts mean that nothing happened in between.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("role", &self.role)
            .field("stage", &self.stage)
            .field("confirmed", &self.confirmed)
            .field("promoted", &self.promoted)
            .field("local_index", &self.local_index)
            .field("peer_index", &self.peer_index)
            .field("peer", &self.peer)
            .field("send", &(self.send_keys.epoch(), self.send_keys.counter()))
            .field("receive", &(self.receive_keys.epoch(), self.receive_keys.next_counter(), self.receive_next))
            .field("key_of_last_epoch_until", &self.receive_keys.expires())
            .field("pace", &self.pace)
            .field("last_received", &self.last_received)
            .field("last_asked", &self.last_asked)
            .field("ack_due", &self.ack_due)
            .field("ping", &self.ping)
            .field("credit", &self.credit)
            .field("unacknowledged", &self.unacknowledged())
            .field("beyond", &self.busy.as_ref().map(|busy| busy.incoming.beyond(self.receive_next)))
            .field("path", &self.path)
            .field("deadline", &self.deadline())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_on_the_module_page_are_the_real_ones() {
        assert_eq!((DATAGRAM_MAX, VERSION, cookie::COOKIE_LEN, TICKET_LEN, Reply::MAX), (1_200, 1, 24, 105, 29));
        assert_eq!(
            (wire::NOISE_OVERHEAD, wire::INIT_NOISE_MAX, REQUEST_MAX, LOOKUP_ANSWER_MAX),
            (48, 1_085, 1_036, 768)
        );
        assert_eq!((wire::RECORD_HEADER, wire::PLAIN_MIN, wire::RECORD_MIN), (13, 16, 45));
        assert_eq!((FRAGMENT_MAX * FRAGMENTS_PER_MESSAGE, WINDOW_MAX, ACK_EVERY), (Limits::MEMBER.message_max, 64, 4));
    }

    #[test]
    fn both_ends_and_everything_pending_may_move_between_threads() {
        fn may_move<T: Send + Sync>() {}
        may_move::<Session>();
        may_move::<Connecting>();
        may_move::<Acceptor>();
        may_move::<PendingLookup>();
    }
}
