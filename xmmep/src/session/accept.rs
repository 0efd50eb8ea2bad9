//! The server's side of the handshake: what an INIT costs and what it gets. The client's side is `handshake.rs`.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use rand_core::CryptoRng;
use snow::HandshakeState;

use super::cookie::{Cookies, Limiter};
use super::handshake::{LOOKUP, LOOKUP_ANSWER_MAX, OPEN, WELCOME_MAX};
use super::noise::Responder;
use super::ticket::Admission;
use super::wire::{DATAGRAM_MAX, Init, InitToken, NOISE_OVERHEAD, RESPONSE, RESPONSE_HEADER, Reply};
use super::{Config, Role, ServerKey, Session};
use crate::secret::TicketKey;
use crate::types::{PresenceId, Time, WallTime};

/// Sessions opened whose client has not sent its first record yet; the oldest leaves first. 4,096 × 512 B = 2 MiB is
/// the most a flood from borrowed addresses can make us hold.
pub const HANDSHAKES_MAX: usize = 4_096;

/// How long a session may wait for its client's first record, and a lookup for its answer.
pub const HANDSHAKE_AGE_MAX: Duration = Duration::from_secs(5);

/// Lookups waiting for their answer. With some 1.5 KiB each, as much memory as the handshakes above.
pub const LOOKUPS_MAX: usize = 1_024;

/// What an [`Acceptor`] is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// Lookups: a Router.
    Lookups,
    /// Sessions: a Presence.
    Sessions,
    /// Both: a single process.
    Both,
}

impl Serves {
    fn purpose(self, purpose: u8) -> bool {
        match purpose {
            LOOKUP => self != Self::Sessions,
            OPEN => self != Self::Lookups,
            _ => false,
        }
    }
}

/// Answers INITs. One per lane; its memory is fixed.
///
/// Up to a valid cookie or ticket nothing is allocated and no curve operation is done; before the first one the
/// sender's address is held to [`HANDSHAKES_PER_SECOND`](super::HANDSHAKES_PER_SECOND).
pub struct Acceptor {
    responder: Responder,
    serves: Serves,
    tickets: Option<(TicketKey, PresenceId)>,
    cookies: Cookies,
    limiter: Limiter,
    /// Index and birth of each, oldest first; at most [`HANDSHAKES_MAX`].
    half_open: VecDeque<(u32, Time)>,
    lookups: Arc<AtomicUsize>,
    config: Arc<Config>,
    stats: AcceptorStats,
}

/// What became of the INITs so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AcceptorStats {
    /// Not an INIT at all, or malformed.
    pub malformed: u64,
    /// Of another version.
    pub other_version: u64,
    /// Without a cookie or ticket that is good here and now: answered by RETRY.
    pub retried: u64,
    /// More than their address may.
    pub limited: u64,
    /// With a Noise message that is not for our key.
    pub forged: u64,
    /// Refused for lack of room, or for a purpose not served here.
    pub refused: u64,
    /// Lookups begun.
    pub lookups: u64,
    /// Sessions opened.
    pub opened: u64,
    /// Half-open sessions that had to leave for newer ones.
    pub evicted: u64,
}

/// What to do about an INIT.
#[derive(Debug)]
pub enum Accept {
    /// Stay silent.
    Nothing,
    /// Send this back.
    Reply(Reply),
    /// Find the answer, then call [`PendingLookup::answer`].
    Lookup(PendingLookup, Bytes),
    /// Keep the session under its index and send the reply.
    Open(Box<Opened>),
}

/// A session that was opened for a client which has not spoken yet.
#[derive(Debug)]
pub struct Opened {
    /// The session; it sends nothing, and ends after [`HANDSHAKE_AGE_MAX`], unless its client speaks.
    pub session: Session,
    /// The datagram that tells the client.
    pub reply: Vec<u8>,
    /// What the client sent along. Not fresh: it may be a repetition. Nothing may be done because of it.
    pub payload: Bytes,
    /// What the ticket said, if the client came with a good one.
    pub admission: Option<Admission>,
    /// The index of the oldest half-open session, which has to be dropped now because there are too many.
    pub evicted: Option<u32>,
}

impl Acceptor {
    /// An acceptor with a static key. With `tickets`, it admits those who carry one for this Presence.
    pub fn new(
        now: Time,
        key: ServerKey,
        serves: Serves,
        tickets: Option<(TicketKey, PresenceId)>,
        config: Arc<Config>,
        rng: &mut impl CryptoRng,
    ) -> Self {
        Self {
            responder: Responder::new(key),
            serves,
            tickets,
            cookies: Cookies::new(now, rng),
            limiter: Limiter::new(rng),
            half_open: VecDeque::with_capacity(HANDSHAKES_MAX),
            lookups: Arc::default(),
            config,
            stats: AcceptorStats::default(),
        }
    }

    /// What became of the INITs so far.
    #[must_use]
    pub fn stats(&self) -> AcceptorStats {
        self.stats
    }

    /// Half-open sessions, as far as their end was noticed, and lookups without an answer.
    #[must_use]
    pub fn pending(&self) -> (usize, usize) {
        (self.half_open.len(), self.lookups.load(Ordering::Relaxed))
    }

    /// The session with this index is not half-open any more: its client spoke
    /// ([`Event::Confirmed`](super::Event::Confirmed)). Those that end without a word are forgotten by themselves.
    pub fn settled(&mut self, index: u32) {
        self.half_open.retain(|(half_open, _)| *half_open != index);
    }

    /// Takes in a datagram that [`peek`](super::peek) says is an INIT.
    ///
    /// `index` is asked for the index of a new session, only when one is about to be opened; it says `None` if there
    /// is no room. `welcome` goes to the client with the answer that opens a session.
    ///
    /// # Panics
    /// If `welcome` is longer than [`WELCOME_MAX`].
    #[expect(clippy::too_many_arguments, reason = "time, wall time, randomness and the index come from outside")]
    pub fn handle_init(
        &mut self,
        now: Time,
        wall_now: WallTime,
        from: SocketAddr,
        datagram: &[u8],
        welcome: &[u8],
        rng: &mut impl CryptoRng,
        index: impl FnOnce() -> Option<u32>,
    ) -> Accept {
        let (initiator_index, token, message) = match Init::parse(datagram) {
            Some(Init::Ours { initiator_index, token, noise }) => (initiator_index, token, noise),
            Some(Init::OtherVersion { initiator_index }) => {
                self.stats.other_version += 1;
                return Accept::Reply(Reply::other_version(initiator_index));
            }
            None => {
                self.stats.malformed += 1;
                return Accept::Nothing;
            }
        };
        self.cookies.rotate(now, rng);
        let admission = match token {
            InitToken::Cookie(cookie) if self.cookies.check(now, from, initiator_index, &cookie) => None,
            InitToken::Ticket(ticket) => {
                let opened =
                    self.tickets.as_ref().and_then(|(key, presence)| ticket.open(key, *presence, from.ip(), wall_now));
                match opened {
                    Some(admission) => Some(admission),
                    None => return self.retry(now, from, initiator_index),
                }
            }
            _ => return self.retry(now, from, initiator_index),
        };
        if !self.limiter.admit(now, from.ip()) {
            self.stats.limited += 1;
            return Accept::Nothing;
        }
        let mut state = self.responder.start(initiator_index, rng);
        let mut plain = [0; DATAGRAM_MAX];
        let Ok(len) = state.read_message(message, &mut plain) else {
            self.stats.forged += 1;
            return Accept::Nothing;
        };
        let Some((&purpose, payload)) = plain.get(..len).and_then(|plain| plain.split_first()) else {
            self.stats.refused += 1;
            return Accept::Nothing;
        };
        if !self.serves.purpose(purpose) {
            self.stats.refused += 1;
            return Accept::Nothing;
        }
        let payload = Bytes::copy_from_slice(payload);
        let handshake = Handshake { from, initiator_index, state };
        if purpose == LOOKUP {
            return self.begin_lookup(now, handshake, payload);
        }
        let Some(index) = index() else {
            self.stats.refused += 1;
            return Accept::Nothing;
        };
        let path_secret = rng.next_u64().to_be_bytes();
        let (session, reply) = handshake.open(now, index, welcome, path_secret, Arc::clone(&self.config));
        let evicted = self.remember_half_open(now, index);
        Accept::Open(Box::new(Opened { session, reply, payload, admission, evicted }))
    }

    fn retry(&mut self, now: Time, from: SocketAddr, initiator_index: u32) -> Accept {
        self.stats.retried += 1;
        Accept::Reply(Reply::retry(initiator_index, &self.cookies.make(now, from, initiator_index)))
    }

    fn begin_lookup(&mut self, now: Time, handshake: Handshake, payload: Bytes) -> Accept {
        let Some(slot) = Slot::take(&self.lookups) else {
            self.stats.refused += 1;
            return Accept::Nothing;
        };
        self.stats.lookups += 1;
        let until = now.after(HANDSHAKE_AGE_MAX);
        Accept::Lookup(PendingLookup { handshake: Box::new(handshake), until, _slot: slot }, payload)
    }

    /// Adds a half-open session, and forgets those that have ended by themselves or whose index now is another's:
    /// nobody but a live half-open session may ever be evicted.
    fn remember_half_open(&mut self, now: Time, index: u32) -> Option<u32> {
        self.stats.opened += 1;
        let alive = |born: Time| now.since(born) < HANDSHAKE_AGE_MAX;
        self.half_open.retain(|(half_open, born)| *half_open != index && alive(*born));
        let evicted = if self.half_open.len() < HANDSHAKES_MAX { None } else { self.half_open.pop_front() };
        self.stats.evicted += u64::from(evicted.is_some());
        self.half_open.push_back((index, now));
        evicted.map(|(index, _)| index)
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor")
            .field("serves", &self.serves)
            .field("pending", &self.pending())
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

/// A handshake whose first message was read.
struct Handshake {
    from: SocketAddr,
    initiator_index: u32,
    state: HandshakeState,
}

impl Handshake {
    fn response(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; RESPONSE_HEADER + NOISE_OVERHEAD + payload.len()];
        let (header, message) = out.split_at_mut(RESPONSE_HEADER);
        header[0] = RESPONSE;
        header[1..].copy_from_slice(&self.initiator_index.to_be_bytes());
        self.state.write_message(payload, message).expect("the buffer has room, and the ephemeral key is there");
        out
    }

    fn open(
        mut self,
        now: Time,
        index: u32,
        welcome: &[u8],
        path_secret: [u8; 8],
        config: Arc<Config>,
    ) -> (Session, Vec<u8>) {
        assert!(welcome.len() <= WELCOME_MAX, "a welcome of {} bytes exceeds {WELCOME_MAX}", welcome.len());
        let reply = self.response(&[&index.to_be_bytes(), welcome].concat());
        let (receive, send) = self.state.dangerously_get_raw_split();
        let keys = super::Keys { send, receive, local_index: index, peer_index: self.initiator_index };
        let mut session = Session::new(now, Role::Server, self.from, &keys, path_secret, config);
        session.grant(DATAGRAM_MAX - reply.len());
        (session, reply)
    }
}

/// A lookup whose answer is being found. Dropping it leaves the client without an answer; it will ask again.
pub struct PendingLookup {
    handshake: Box<Handshake>,
    until: Time,
    _slot: Slot,
}

impl PendingLookup {
    /// Where the answer goes, and whose address a ticket in it is bound to.
    #[must_use]
    pub fn from(&self) -> SocketAddr {
        self.handshake.from
    }

    /// The datagram that answers the lookup, always of the same size; `None` if it comes too late
    /// ([`HANDSHAKE_AGE_MAX`]) or is longer than [`LOOKUP_ANSWER_MAX`].
    #[must_use]
    pub fn answer(mut self, now: Time, answer: &[u8]) -> Option<Vec<u8>> {
        if now > self.until || answer.len() > LOOKUP_ANSWER_MAX {
            return None;
        }
        let mut payload = [0; 4 + 2 + LOOKUP_ANSWER_MAX];
        payload[4..6].copy_from_slice(&u16::try_from(answer.len()).ok()?.to_be_bytes());
        payload[6..6 + answer.len()].copy_from_slice(answer);
        Some(self.handshake.response(&payload))
    }
}

impl fmt::Debug for PendingLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingLookup").field("from", &self.handshake.from).field("until", &self.until).finish()
    }
}

/// One of the [`LOOKUPS_MAX`] places for lookups; given back when dropped.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(lookups: &Arc<AtomicUsize>) -> Option<Self> {
        if lookups.fetch_add(1, Ordering::Relaxed) < LOOKUPS_MAX {
            return Some(Self(Arc::clone(lookups)));
        }
        lookups.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
