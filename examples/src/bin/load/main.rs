//! A load generator: hundreds of thousands of clients in one process, on one core, against a real server with real sockets,
//! full encryption and its databases. Prints what the server needs for each login, message and user.
//!
//! ```text
//! cargo build --release -p xmd -p examples
//! target/release/load seed --dir /tmp/load --users 100000      accounts and buddies, once
//! target/release/load run --dir /tmp/load                      all workloads, three times, medians
//! target/release/load run --dir /tmp/load chat --sockets 64    one of them, users sharing sockets
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `seed.rs`, `place.rs` | the directory that is measured on: who is in it, how its server is configured |
//! | `server.rs` | the server as a process: started, pinned to a core, its processor time and memory read |
//! | `crowd.rs`, `user.rs`, `sockets.rs` | the clients: many state machines, one loop, few system calls |
//! | `work/` | the workloads |
//! | `relay.rs` | the least that any server could do with the same datagrams |
//! | `report.rs` | figures, medians, the table |
//!
//! Linux only: processor time and memory come from `/proc`, the loop is epoll's.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod crowd;
mod place;
mod relay;
mod report;
mod seed;
mod server;
mod sockets;
mod user;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::sockets::Sharing;
use crate::work::Workload;
use crate::work::silent::{self, SilentArgs};

/// Whatever ends a run early.
type Failure = Box<dyn std::error::Error>;

/// Measures an X-Messenger server: what it needs per login, per message, per user.
#[derive(Parser)]
#[command(name = "load")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a directory with accounts and buddies to measure on.
    Seed(SeedArgs),
    /// Start the server on such a directory, put it under load, and print what it needed.
    Run(RunArgs),
    /// The floor: receive, open, seal, send, and nothing else. `run` starts it by itself.
    #[command(hide = true)]
    Relay,
    /// The silent users of `run --beside`, which starts it by itself.
    #[command(hide = true)]
    Silent(SilentArgs),
}

/// What `seed` is told.
#[derive(Args)]
struct SeedArgs {
    /// Where to make it; it must not exist, or be empty.
    #[arg(long)]
    dir: PathBuf,
    /// How many accounts. A million take some minutes and 5 GB.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=5_000_000))]
    users: u32,
    /// How many buddies each of them has, an even number. The last hundred users have 200 whatever it is: `disturbed` lets
    /// them log in.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=90))]
    buddies: u32,
    /// The server's program; by default the `xmd` beside this one.
    #[arg(long)]
    xmd: Option<PathBuf>,
}

/// What `run` is told.
#[derive(Args)]
struct RunArgs {
    /// A directory made by `load seed`.
    #[arg(long)]
    dir: PathBuf,
    /// Which workloads; without any, all.
    #[arg(value_enum)]
    workloads: Vec<Workload>,
    /// How often each is run; the table has medians, and the least and the most.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// How long each measurement of chat, status and storing takes, in seconds; with --beside at most 35.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// A socket per user ("each"), or a number of sockets that the users share.
    #[arg(long, default_value = "each")]
    sockets: Sharing,
    /// How many users are online for `idle`. More than the sockets that the system allows need shared ones.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=2_500_000))]
    idle: u32,
    /// How often the users of `idle` come and go before the memory that stays is measured. They are idle the first time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    waves: u32,
    /// So many more users are online and silent while `chat` and `status` are measured: with 1000, with 100000 and with a
    /// million, what a text and a notification cost the server should be the same. The directory must hold 5,000 users more.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=2_500_000))]
    beside: u32,
    /// Threads of the Presence, each with a socket; each needs a core.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    lanes: u32,
    /// The cores the server runs on, as `taskset` has them. Empty: wherever it likes.
    #[arg(long, default_value = "0")]
    server_cores: String,
    /// The core this program runs on. Empty: wherever it likes.
    #[arg(long, default_value = "1")]
    own_core: String,
    /// Writes one JSON object per figure to this file, too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// The server's program; by default the `xmd` beside this one.
    #[arg(long)]
    xmd: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Seed(args) => seed::seed(&args),
        Command::Run(args) => work::run(&args),
        Command::Relay => relay::serve(),
        Command::Silent(args) => silent::serve(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("load: {failure}");
            ExitCode::FAILURE
        }
    }
}
