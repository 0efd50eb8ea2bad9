//! What an operator or embedder may choose about a Presence. Where it comes from (file, arguments) is the daemon's.

use std::net::SocketAddr;
use std::time::Duration;

use xmmep::secret::TicketKey;
use xmmep::session::ServerPublicKey;
use xmmep::types::{OwnerEpoch, PresenceId};

/// Configuration of a Presence. Start from [`PresenceConfig::new`] and change fields.
#[derive(Clone, Debug)]
pub struct PresenceConfig {
    /// Its identity.
    pub identity: PresenceId,
    /// How often the identity has changed owner.
    pub owner_epoch: OwnerEpoch,
    /// Where clients reach it, best first; at most four.
    pub addresses: Vec<SocketAddr>,
    /// Its static public key, as the Router tells clients.
    pub static_key: ServerPublicKey,
    /// Seals and opens admission tickets; shared with the Routers.
    pub ticket_key: TicketKey,
    /// How long a recipient's confirmation may take before a message is stored, too. Default 200 ms: longer than a round
    /// trip across a continent, shorter than a sender's patience.
    pub relay_bound: Duration,
    /// A user's status reaches watchers at most once in this time. Default 1 s.
    pub status_interval: Duration,
    /// Texts a user may send at once. Default 60.
    pub texts_burst: u32,
    /// Texts a user may send per second in the long run. Default 1.
    pub texts_per_second: u32,
    /// Failed logins before each further one has to wait. Default 10.
    pub free_attempts: u32,
    /// Two devices that throw each other out may do so once in this time. Default 60 s.
    pub replace_interval: Duration,
    /// How long a message waits for its recipient. Default 30 days.
    pub retention: Duration,
}

impl PresenceConfig {
    /// The defaults.
    #[must_use]
    pub fn new(
        identity: PresenceId,
        addresses: Vec<SocketAddr>,
        static_key: ServerPublicKey,
        ticket_key: TicketKey,
    ) -> Self {
        Self {
            identity,
            owner_epoch: OwnerEpoch(1),
            addresses,
            static_key,
            ticket_key,
            relay_bound: Duration::from_millis(200),
            status_interval: Duration::from_secs(1),
            texts_burst: 60,
            texts_per_second: 1,
            free_attempts: 10,
            replace_interval: Duration::from_secs(60),
            retention: Duration::from_secs(30 * 24 * 3600),
        }
    }
}
