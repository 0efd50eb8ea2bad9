//! Users who are online and do nothing while others are measured: does a text or a notification cost more on a full server?
//!
//! While a measurement goes on, these clients are silent: only what the server makes of having them in memory counts, not
//! their keep-alives, which W2 measures. Between measurements they send what is due, so that they stay online.

use std::time::{Duration, Instant};

use super::{Bench, bring_in, lost};
use crate::crowd::{Crowd, Who};
use crate::server::Server;
use crate::sockets::Sharing;
use crate::user::Happened;
use crate::{Failure, RunArgs};

/// The first of them: behind all who are measured.
const FIRST: u32 = 5_000;
/// Sockets they share, whatever the others do. Each has an address, from which the server takes 20 handshakes a second.
const SOCKETS: u32 = 1_024;
/// The longest measurement. The server gives up a client after 80 seconds of silence; before a measurement one may have been
/// silent for the 25 seconds between two keep-alives, and for the rest and the logins before the measurement begins.
const SECONDS_MAX: u64 = 35;
/// A keep-alive that was lost is sent again meanwhile.
const KEEP_ALIVES: Duration = Duration::from_secs(2);
/// Sessions drop their buffers five seconds after the last traffic: that is not to happen during a measurement.
const BUFFERS_GONE: Duration = Duration::from_secs(6);

/// Refuses what cannot be measured, before anything is.
pub(super) fn check(args: &RunArgs) -> Result<(), Failure> {
    if args.beside == 0 || args.seconds <= SECONDS_MAX {
        return Ok(());
    }
    Err(format!("--seconds {}: with --beside at most {SECONDS_MAX}, or those users time out", args.seconds).into())
}

/// So many users, if there are to be any.
pub(super) struct Beside<'a>(Option<Crowd<'a>>);

impl<'a> Beside<'a> {
    /// Logs in as many as the command line says.
    pub(super) fn bring_in(bench: &Bench<'a>, server: &Server) -> Result<Self, Failure> {
        let size = bench.args.beside;
        if size == 0 {
            return Ok(Self(None));
        }
        let who = Who { first: FIRST, step: 1, size };
        let mut crowd = Crowd::gather(bench.population, &server.address, who, Sharing::Shared(SOCKETS))?;
        bring_in(&mut crowd)?;
        Ok(Self(Some(crowd)))
    }

    /// Before a measurement: they send the keep-alives that are due, and the server gets some rest.
    pub(super) fn keep_alive(&mut self) -> Result<(), Failure> {
        let Some(crowd) = &mut self.0 else { return Ok(()) };
        let (since, mut happened) = (Instant::now(), Vec::new());
        while since.elapsed() < KEEP_ALIVES || crowd.is_overdue() {
            crowd.turn(Duration::from_millis(20), &mut happened)?;
            for (member, what) in happened.drain(..) {
                if let Happened::Lost(why) = what {
                    return Err(lost(member, &why));
                }
            }
        }
        std::thread::sleep(BUFFERS_GONE);
        Ok(())
    }
}
