//! The tokio drivers: sockets come bound, shutdown is a future. The only place of this crate with a clock.

pub mod batch;
pub mod thread;
pub mod udp;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use xmmep::types::{Time, WallTime};

use crate::ctx::Now;

/// The clocks of this machine. All lanes and roles of a process share one, so that their times compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is where the roles' time comes from")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is where the roles' time comes from")]
    pub fn now(&self) -> Now {
        let micros = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: Time::from_micros(micros), wall: WallTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)) }
    }

    fn instant(&self, time: Time) -> tokio::time::Instant {
        (self.start + std::time::Duration::from_micros(time.as_micros())).into()
    }
}
