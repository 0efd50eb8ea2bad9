//! How sessions behave: limits and intervals. What the protocol fixes for everybody is a constant where it is used.

use core::time::Duration;

/// What a peer may make us hold, and how much we queue for it. Per session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one message, sent or received.
    pub message_max: usize,
    /// Most bytes sent and not acknowledged, [`MESSAGE_OVERHEAD`](super::MESSAGE_OVERHEAD) per message included.
    pub queue_max: usize,
    /// Most fragments that arrived before their time; at most 64.
    pub ahead_max: usize,
}

impl Limits {
    /// Before login: 4 KiB messages, 8 KiB queued, 4 fragments ahead. A stranger's session holds 16 KiB at most, and
    /// only if it comes from an address that answers.
    pub const STRANGER: Self = Self { message_max: 4 * 1_024, queue_max: 8 * 1_024, ahead_max: 4 };

    /// After login: 16 KiB messages, 512 KiB queued, 64 fragments ahead. The queue takes what a login sends at once to a
    /// user whose every list is full: 1,000 buddies and 1,000 blocked users with long names.
    pub const MEMBER: Self = Self { message_max: 16 * 1_024, queue_max: 512 * 1_024, ahead_max: 64 };
}

/// How sessions behave; the defaults are what the protocol says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a client sends nothing that is acknowledged before it sends a PING; default 25 s, less than the shortest
    /// common NAT timeout.
    pub keep_alive: Duration,
    /// After how much silence of the peer's a session ends; default 80 s, three keep-alives and a little.
    pub idle: Duration,
    /// After how long in one key epoch the next begins; default 120 s.
    pub epoch_age: Duration,
    /// An epoch has 2 to this many counters; default 20. Part of the protocol: both sides must have the same. Other
    /// values (1 to 32) are for tests that must see many epochs.
    pub epoch_bits: u8,
    /// What a server grants before login.
    pub stranger: Limits,
    /// What a server grants after login, and a client always.
    pub member: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(25),
            idle: Duration::from_secs(80),
            epoch_age: Duration::from_secs(120),
            epoch_bits: 20,
            stranger: Limits::STRANGER,
            member: Limits::MEMBER,
        }
    }
}
