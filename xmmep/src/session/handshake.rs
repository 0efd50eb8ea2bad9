//! The client's side of the handshake: INIT, RETRY, RESPONSE, and trying again. The server's side is `accept.rs`.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use rand_core::CryptoRng;
use snow::HandshakeState;

use super::cookie::Cookie;
use super::ticket::Ticket;
use super::wire::{self, DATAGRAM_MAX, INIT_NOISE_MAX, InitToken, NOISE_OVERHEAD, RESPONSE_HEADER, Reader};
use super::{Config, Role, ServerPublicKey, Session, noise};
use crate::types::Time;

/// Most bytes of a lookup request or of what goes with opening a session.
pub const REQUEST_MAX: usize = INIT_NOISE_MAX - NOISE_OVERHEAD - 1;

/// Most bytes of the answer to a lookup. Every answer is padded to this size, so that it tells nothing by its length.
pub const LOOKUP_ANSWER_MAX: usize = 768;

/// Most bytes a server says when it opens a session.
pub const WELCOME_MAX: usize = DATAGRAM_MAX - RESPONSE_HEADER - NOISE_OVERHEAD - 4;

/// How long the first INIT waits for an answer; the wait doubles with each try, up to four times this. Up to a
/// quarter is added at random, so that ten thousand clients do not come back in step.
pub const INIT_PAUSE: Duration = Duration::from_millis(500);

/// INITs sent on time-outs before giving up, 20 to 27 s after the first. With a cookie half-way, 99 of 100 get through
/// a wire that loses 30 % each way.
pub const INIT_TRIES_MAX: u8 = 12;

/// RETRYs followed between two time-outs. One is the rule; forged ones must not be able to make us talk endlessly,
/// nor to keep us from following the real one.
const RETRIES_PER_TRY: u8 = 3;

/// First byte of the payload of message 1: a lookup.
pub(super) const LOOKUP: u8 = 1;
/// First byte of the payload of message 1: open a session.
pub(super) const OPEN: u8 = 2;

/// A handshake under way, on the client's side.
///
/// The driver sends what [`Connecting::lookup`] or [`Connecting::open`] gives it to [`Connecting::server`], feeds all
/// datagrams for [`Connecting::index`] to [`Connecting::handle`], and calls [`Connecting::on_deadline`] at
/// [`Connecting::deadline`], until one of them ends the matter. The same Noise message is sent each time; nothing that
/// is not authentic can spoil the attempt, only delay it.
pub struct Connecting {
    server: SocketAddr,
    index: u32,
    purpose: u8,
    noise: Box<[u8]>,
    token: InitToken,
    /// `None` once the handshake ended.
    state: Option<Box<HandshakeState>>,
    config: Arc<Config>,
    path_secret: [u8; 8],
    tries: u8,
    retries_left: u8,
    /// Added to each pause, in 1/1,024 of it: up to a quarter.
    jitter: u32,
    deadline: Time,
    other_version: Option<u8>,
}

/// What a datagram did to the handshake.
#[derive(Debug)]
pub enum Step {
    /// Nothing: it is forged, old, or for somebody else.
    Ignore,
    /// Send this to the server.
    Send(Vec<u8>),
    /// The Router's answer to the lookup; the handshake is over.
    Answer(Bytes),
    /// The session is open, and this is what the server said; the handshake is over.
    Open(Box<Session>, Bytes),
}

/// Why a handshake ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GaveUp {
    /// Nobody answered, or only with forgeries.
    #[error("the server did not answer the handshake")]
    NoAnswer,
    /// Somebody, perhaps the server, said that it speaks another version; no answer came.
    #[error("the server did not answer the handshake and says it speaks version {0}")]
    OtherVersion(u8),
}

/// A request that does not fit into an INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request of {0} bytes does not fit into a handshake, which takes {REQUEST_MAX}")]
pub struct RequestTooLong(pub usize);

impl Connecting {
    /// Begins a lookup at a Router; also returns the first datagram.
    ///
    /// # Errors
    /// If `request` is longer than [`REQUEST_MAX`].
    pub fn lookup(
        now: Time,
        server: SocketAddr,
        key: &ServerPublicKey,
        request: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Vec<u8>), RequestTooLong> {
        Self::begin(now, server, key, LOOKUP, InitToken::None, request, Arc::default(), rng)
    }

    /// Begins to open a session; also returns the first datagram. `payload` reaches the server with it: encrypted, but
    /// by whoever recorded it to be repeated, so it must have no effect of its own.
    ///
    /// # Errors
    /// If `payload` is longer than [`REQUEST_MAX`].
    pub fn open(
        now: Time,
        server: SocketAddr,
        key: &ServerPublicKey,
        ticket: Option<Ticket>,
        payload: &[u8],
        config: Arc<Config>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Vec<u8>), RequestTooLong> {
        let token = ticket.map_or(InitToken::None, InitToken::Ticket);
        Self::begin(now, server, key, OPEN, token, payload, config, rng)
    }

    #[expect(clippy::too_many_arguments, reason = "the union of what its two public callers are given")]
    fn begin(
        now: Time,
        server: SocketAddr,
        key: &ServerPublicKey,
        purpose: u8,
        token: InitToken,
        payload: &[u8],
        config: Arc<Config>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Vec<u8>), RequestTooLong> {
        if payload.len() > REQUEST_MAX {
            return Err(RequestTooLong(payload.len()));
        }
        let index = rng.next_u32();
        let mut state = noise::initiator(key, index, rng);
        let plain = [&[purpose], payload].concat();
        let mut noise = vec![0; plain.len() + NOISE_OVERHEAD];
        let len = state.write_message(&plain, &mut noise).expect("the buffer has room, and the ephemeral key is there");
        noise.truncate(len);
        let mut connecting = Self {
            server,
            index,
            purpose,
            noise: noise.into(),
            token,
            state: Some(Box::new(state)),
            config,
            path_secret: rng.next_u64().to_be_bytes(),
            tries: 0,
            retries_left: 0,
            jitter: rng.next_u32() % 256,
            deadline: now,
            other_version: None,
        };
        let first = connecting.try_again(now);
        Ok((connecting, first))
    }

    /// The index in all datagrams for this handshake and, if it opens one, for the session.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Where the datagrams go.
    #[must_use]
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// When to call [`Connecting::on_deadline`]; `None` when the handshake is over.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.state.as_ref().map(|_| self.deadline)
    }

    /// Gives the next datagram to send, now that no answer came in time.
    ///
    /// # Errors
    /// After [`INIT_TRIES_MAX`] tries; the handshake is then over.
    pub fn on_deadline(&mut self, now: Time) -> Result<Option<Vec<u8>>, GaveUp> {
        if self.state.is_none() || now < self.deadline {
            return Ok(None);
        }
        if self.tries == INIT_TRIES_MAX {
            self.state = None;
            return Err(self.other_version.map_or(GaveUp::NoAnswer, GaveUp::OtherVersion));
        }
        Ok(Some(self.try_again(now)))
    }

    fn try_again(&mut self, now: Time) -> Vec<u8> {
        let pause = INIT_PAUSE * (1 << self.tries.min(2));
        self.deadline = now.after(self.with_jitter(pause));
        self.tries += 1;
        self.retries_left = RETRIES_PER_TRY;
        self.init()
    }

    fn with_jitter(&self, pause: Duration) -> Duration {
        pause + pause * self.jitter / 1_024
    }

    fn init(&self) -> Vec<u8> {
        wire::write_init(self.index, &self.token, &self.noise)
    }

    /// Takes in a datagram that arrived from `from`.
    pub fn handle(&mut self, now: Time, from: SocketAddr, datagram: &[u8]) -> Step {
        let mut reader = Reader(datagram);
        let (Some(kind), Some(index)) = (reader.u8(), reader.u32()) else { return Step::Ignore };
        if index != self.index || from != self.server || self.state.is_none() || datagram.len() > DATAGRAM_MAX {
            return Step::Ignore;
        }
        match kind {
            wire::RETRY => self.follow(now, reader.0),
            wire::OTHER_VERSION => {
                if let [version] = reader.0 {
                    self.other_version = Some(*version);
                }
                Step::Ignore
            }
            wire::RESPONSE => self.finish(now, reader.0).unwrap_or(Step::Ignore),
            _ => Step::Ignore,
        }
    }

    fn follow(&mut self, now: Time, cookie: &[u8]) -> Step {
        let Ok(cookie) = cookie.try_into().map(Cookie) else { return Step::Ignore };
        if self.retries_left == 0 {
            return Step::Ignore;
        }
        self.retries_left -= 1;
        self.token = InitToken::Cookie(cookie);
        self.deadline = self.deadline.min(now.after(self.with_jitter(INIT_PAUSE)));
        Step::Send(self.init())
    }

    fn finish(&mut self, now: Time, message: &[u8]) -> Option<Step> {
        let mut plain = [0; DATAGRAM_MAX];
        let len = self.state.as_mut()?.read_message(message, &mut plain).ok()?;
        let mut state = self.state.take()?;
        let mut reader = Reader(plain.get(..len)?);
        let responder_index = reader.u32()?;
        if self.purpose == LOOKUP {
            let answer_len = reader.u16()?;
            return Some(Step::Answer(Bytes::copy_from_slice(reader.take(answer_len.into())?)));
        }
        let (send, receive) = state.dangerously_get_raw_split();
        let keys = super::Keys { send, receive, local_index: self.index, peer_index: responder_index };
        let session = Session::new(now, Role::Client, self.server, &keys, self.path_secret, Arc::clone(&self.config));
        Some(Step::Open(Box::new(session), Bytes::copy_from_slice(reader.0)))
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting")
            .field("server", &self.server)
            .field("index", &self.index)
            .field("token", &self.token)
            .field("tries", &self.tries)
            .finish_non_exhaustive()
    }
}
