//! Every fixed bound of the engine, with its reason. Bounds of the session are `xmmep::session`'s, bounds an operator may
//! change are in the roles' configs.

use std::time::Duration;

/// Sessions on one lane: what the 24 bits below the lane's number in a receiver index can name.
pub const SESSIONS_PER_LANE_MAX: u32 = 1 << 24;

/// How long a session may live without a login. Covers two lost datagrams of a slow client; a stranger's session costs
/// about 1 KiB.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Sessions nobody has logged in on, per lane: 4,096 × 1 KiB = 4 MiB is the most a flood can make a lane hold.
pub const STRANGERS_MAX: usize = 4_096;

/// Messages of one session that may wait for a handler that waits. More than a client has in flight at once; the next
/// one is refused with SERVER_BUSY.
pub const WAITING_PER_SESSION_MAX: usize = 64;

/// Lookups in progress per lane. A lookup is one read of the database; the next one gets no answer and is repeated by the client.
pub const LOOKUPS_MAX: usize = 64;

/// How long a session that is being closed may take to get its last messages acknowledged.
pub const LINGER: Duration = Duration::from_secs(3);
