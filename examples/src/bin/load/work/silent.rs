//! Users who are online and say nothing, as a process of their own: in the same one their million sessions, and what their
//! logins left of its memory, made a client who chats dearer, and the clients could no longer keep up with the server.
//!
//! The process answers with a line once everybody is in. For each line it is given it sends what is due, and answers again.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use clap::Args;
use xmmep::client::ServerAddress;

use super::{bring_in, pass};
use crate::Failure;
use crate::crowd::{Crowd, Who};
use crate::place::Place;
use crate::sockets::Sharing;

/// The first of them: behind all who are measured.
const FIRST: u32 = 5_000;
/// Sockets they share. Each has an address, from which the server takes 20 handshakes a second.
const SOCKETS: u32 = 1_024;
/// A keep-alive that was lost is sent again meanwhile.
const KEEP_ALIVES: Duration = Duration::from_secs(2);

/// What the process is told.
#[derive(Args)]
pub(crate) struct SilentArgs {
    /// The directory with their names.
    #[arg(long)]
    dir: PathBuf,
    /// Where they log in.
    #[arg(long)]
    server: ServerAddress,
    /// How many they are.
    #[arg(long)]
    size: u32,
}

/// The process, seen from outside.
pub(super) struct Silent {
    process: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Silent {
    /// Starts it, and waits until everybody is in.
    pub(super) fn come(dir: &Path, server: &ServerAddress, size: u32) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("silent").arg("--dir").arg(dir);
        command.arg("--server").arg(server.to_string()).arg("--size").arg(size.to_string());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let to = process.stdin.take().ok_or("no way to the silent users")?;
        let from = BufReader::new(process.stdout.take().ok_or("no way from the silent users")?).lines();
        let mut silent = Self { process, to, from };
        silent.answer()?;
        Ok(silent)
    }

    /// They send what is due.
    pub(super) fn keep_alive(&mut self) -> Result<(), Failure> {
        writeln!(self.to)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<(), Failure> {
        let line = self.from.next().transpose()?;
        line.map(drop).ok_or_else(|| "the silent users are gone; what went wrong stands above".into())
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // If it has failed, there is nothing to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process itself.
pub(crate) fn serve(args: &SilentArgs) -> Result<(), Failure> {
    let population = Place::at(&args.dir)?.population()?;
    let who = Who { first: FIRST, step: 1, size: args.size };
    let mut crowd = Crowd::gather(&population, &args.server, who, Sharing::Shared(SOCKETS))?;
    bring_in(&mut crowd)?;
    // Not `println!`: whoever began this may have gone.
    writeln!(std::io::stdout())?;
    for command in std::io::stdin().lines() {
        command?;
        pass(&mut crowd, KEEP_ALIVES)?;
        while crowd.is_overdue() {
            pass(&mut crowd, Duration::from_millis(20))?;
        }
        writeln!(std::io::stdout())?;
    }
    Ok(())
}
