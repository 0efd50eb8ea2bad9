//! Users who are online and do nothing while others are measured: does a text or a notification cost more on a full server?
//!
//! While a measurement goes on, these clients are silent: only what the server makes of having them in memory counts, not
//! their keep-alives, which W2 measures. Between measurements they send what is due, so that they stay online.

use std::time::Duration;

use super::silent::Silent;
use super::{Bench, Workload, leave};
use crate::crowd::Crowd;
use crate::server::Server;
use crate::{Failure, RunArgs};

/// The longest measurement. The server gives up a client after 80 seconds of silence; before a measurement one may have been
/// silent for the 25 seconds between two keep-alives, and for the rest and the logins before the measurement begins.
const SECONDS_MAX: u64 = 35;
/// Sessions drop their buffers five seconds after the last traffic: that is not to happen during a measurement.
const BUFFERS_GONE: Duration = Duration::from_secs(6);

/// Refuses what cannot be measured, before anything is.
pub(super) fn check(args: &RunArgs) -> Result<(), Failure> {
    if args.beside == 0 {
        return Ok(());
    }
    if args.seconds > SECONDS_MAX {
        return Err(format!(
            "--seconds {}: with --beside at most {SECONDS_MAX}, or those users time out",
            args.seconds
        )
        .into());
    }
    if args.workloads.is_empty() || args.workloads.iter().any(|work| !matches!(work, Workload::Chat | Workload::Status))
    {
        return Err("--beside goes with `chat` and `status`: name one of them, or both".into());
    }
    Ok(())
}

/// The server of a workload and, with `--beside`, the users who are silent on it. They took long to log in, so the next
/// workload gets them, too.
pub(super) struct Host {
    pub(super) server: Server,
    silent: Option<Silent>,
}

impl Host {
    /// The one that was kept, or a new one, with as many silent users as the command line says.
    pub(super) fn begin(bench: &Bench<'_>, kept: &mut Option<Self>) -> Result<Self, Failure> {
        if let Some(host) = kept.take() {
            return Ok(host);
        }
        let server = bench.server()?;
        let size = bench.args.beside;
        let silent = (size > 0).then(|| Silent::come(&bench.args.dir, &server.address, size)).transpose()?;
        Ok(Self { server, silent })
    }

    /// Before a measurement: the silent send the keep-alives that are due, and the server gets some rest.
    pub(super) fn keep_alive(&mut self) -> Result<(), Failure> {
        let Some(silent) = &mut self.silent else { return Ok(()) };
        silent.keep_alive()?;
        std::thread::sleep(BUFFERS_GONE);
        Ok(())
    }

    /// The workload is over, and `crowd` goes. Without silent users the server stops; with them it is kept.
    pub(super) fn end(mut self, crowd: &mut Crowd<'_>, kept: &mut Option<Self>) -> Result<(), Failure> {
        if self.silent.is_none() {
            return self.server.stop();
        }
        leave(crowd)?;
        self.keep_alive()?;
        *kept = Some(self);
        Ok(())
    }
}
