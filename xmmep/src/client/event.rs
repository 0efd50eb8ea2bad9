//! What goes into a [`Machine`](super::Machine) with every call, and what comes out.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use rand_core::CryptoRng;

use crate::error::FrameError;
use crate::frame::Frame;
use crate::messages::chat::{OfflineBeginNotify, OfflineEndNotify, TxtTickNotify};
use crate::messages::login::DevicePolicy;
use crate::messages::{Profile, PublicCard};
use crate::name::UserName;
use crate::types::{Status, Time, UserId, WallTime};

use super::error::{ConnectError, End, RequestError};
use super::journal::{Entry, Received};
use super::options::{DeriveKey, DerivedKey};
use super::requests::RequestHandle;

/// What the world lends a machine for one call.
pub struct Env<'a> {
    /// Monotonic time; never goes back.
    pub now: Time,
    /// The wall clock, for the times that people see.
    pub wall: WallTime,
    /// Keys, ids and the spread of waiting times. From the operating system, except in tests.
    pub rng: &'a mut dyn CryptoRng,
}

impl fmt::Debug for Env<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").field("now", &self.now).field("wall", &self.wall).finish_non_exhaustive()
    }
}

/// What a call brought about, in order. Calls append; the caller empties it.
#[derive(Debug, Default)]
pub struct Output {
    /// To be sent.
    pub datagrams: Vec<Datagram>,
    /// To be told to the application.
    pub events: Vec<Event>,
    /// To be done, off the event loop.
    pub work: Vec<Work>,
}

/// A datagram to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Datagram {
    /// To whom.
    pub to: SocketAddr,
    /// What.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Datagram(to {}, {} bytes)", self.to, self.bytes.len())
    }
}

/// Long work. At most one piece of each kind is out at a time.
#[derive(Clone, Debug)]
pub enum Work {
    /// Run it, then call [`Machine::key_derived`](super::Machine::key_derived).
    DeriveKey(DeriveKey),
    /// [`Journal::append`](super::Journal::append) these, then call [`Machine::stored`](super::Machine::stored).
    Store(Vec<Entry>),
}

/// Who one is, as the server says at login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The user's id.
    pub user: UserId,
    /// The name as registered.
    pub name: UserName,
    /// The profile.
    pub profile: Profile,
    /// The server's clock.
    pub server_time: WallTime,
    /// How many devices may be logged in.
    pub device_policy: DevicePolicy,
    /// Failed logins since the last good one: worth showing if it is not 0.
    pub failed_attempts: u32,
}

/// What a client tells its application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The login key is known. Whoever keeps it needs no password next time.
    KeyDerived(DerivedKey),
    /// Logged in; the roster is complete. Happens again after each reconnect.
    LoggedIn(Box<Welcome>),
    /// Not logged in, or no longer; the client tries again by itself.
    Offline {
        /// Why.
        error: ConnectError,
        /// When it tries again, from now.
        retry_in: Duration,
    },
    /// It is over; nothing follows.
    Ended(End),
    /// The roster changed in another way than the events below say.
    RosterChanged,
    /// A buddy's status changed.
    Status {
        /// Whose.
        user: UserId,
        /// What it is now.
        status: Status,
    },
    /// Somebody asks to have us as a buddy: answer with `BuddiedNotifyRes`.
    Asks {
        /// Who.
        card: Box<PublicCard>,
        /// What they wrote. Comes from another user: show it as text only.
        greeting: Box<str>,
    },
    /// Somebody we asked has answered.
    Answered {
        /// Who.
        user: UserId,
        /// Whether they accepted.
        accepted: bool,
    },
    /// A text from somebody else, safe in the journal. Call [`Machine::taken`](super::Machine::taken) when it is
    /// dealt with; until then it comes again after each start.
    Text(Box<Received>),
    /// News of a text of ours. DELIVERED, REFUSED and EXPIRED are final; READ may follow DELIVERED.
    Tick(TxtTickNotify),
    /// Texts that waited for us follow.
    WaitingBegin(OfflineBeginNotify),
    /// That was all of them.
    WaitingEnd(OfflineEndNotify),
    /// A request ended.
    Answer {
        /// Which.
        request: RequestHandle,
        /// Its answer: a frame with the request's answer message.
        outcome: Result<Frame, RequestError>,
    },
    /// A message that this client does not know: an embedder's, or one of a newer server.
    Other(Frame),
    /// An unreliable datagram.
    Unreliable(Frame),
    /// The server sent something that cannot be read; it was dropped.
    Malformed(FrameError),
}
