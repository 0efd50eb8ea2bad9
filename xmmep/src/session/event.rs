//! What a session reports, and why it refuses. What leads to it lives in `receive.rs`, `transmit.rs` and `mod.rs`.

use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;

use crate::types::open_enum;

open_enum! {
    /// Why a session was closed, as told to the other side. From 64 on they belong to the application.
    CloseReason(u8) {
        /// No more to say.
        0 DONE,
        /// The other side broke the rules of the session.
        1 VIOLATION,
        /// The server is shutting down.
        2 GOING_AWAY,
        /// Another session of the same device or user took its place.
        3 REPLACED,
        /// Login was refused, or did not come in time.
        4 NOT_LOGGED_IN,
    }
}

/// What a session reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A server's session heard from its client for the first time: it is no longer half-open.
    Confirmed,
    /// A message, whole and in order. A small one shares memory with others of its time: keep a copy, if it is to stay.
    Message(Bytes),
    /// An unreliable datagram; some may be missing or out of order, none is repeated.
    Datagram(Bytes),
    /// The peer proved that it is now at this address.
    AddressChanged(SocketAddr),
    /// The session is over; nothing follows but, after a violation, one more datagram to tell the peer.
    Ended(Ended),
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed it.
    ByPeer(CloseReason),
    /// The peer broke the rules; it was told.
    Violation(Violation),
    /// Nothing was heard for [`Config::idle`](super::Config::idle).
    Silent,
    /// [`TIMEOUTS_MAX`](super::TIMEOUTS_MAX) retransmissions in a row were not acknowledged.
    Unanswered,
    /// The client did not speak within [`HANDSHAKE_AGE_MAX`](super::HANDSHAKE_AGE_MAX).
    Unconfirmed,
    /// A whole key epoch was sent, and no acknowledgement of it came.
    UsedUp,
}

/// How an authenticated peer broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A record is no sequence of chunks.
    BadChunk,
    /// A fragment or message is longer than allowed.
    TooLarge,
    /// A fragment contradicts another, or is not where its flags say.
    Contradiction,
    /// An acknowledgement of what was never sent.
    AckOfNothing,
}

/// Why a datagram had no effect. Never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not a record, or not for this session.
    #[error("the datagram is no record of this session")]
    Malformed,
    /// It does not authenticate.
    #[error("the record does not authenticate")]
    Forged,
    /// It was received before.
    #[error("the record was received before")]
    Replayed,
    /// Its counter is too far behind the newest.
    #[error("the record is older than the replay window")]
    TooOld,
    /// Its key epoch is not at hand.
    #[error("the record is of a key epoch that is not at hand")]
    Epoch,
    /// The session is over.
    #[error("the session is over")]
    Over,
}

/// Why something could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The queue is full: the peer acknowledges too slowly.
    #[error("the send queue is full")]
    Full,
    /// Longer than the session may carry now.
    #[error("the message is too large for this session")]
    TooLarge,
    /// The session is over or closing.
    #[error("the session is over")]
    Over,
}

/// What a session has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records sent, up to 2^32.
    pub sent: u32,
    /// Records received, authenticated and new; up to 2^32.
    pub received: u32,
    /// Datagrams rejected, up to 2^32.
    pub rejected: u32,
    /// Fragments sent again, up to 2^32.
    pub retransmitted: u32,
    /// Smoothed round-trip time, once measured.
    pub rtt: Option<Duration>,
}
