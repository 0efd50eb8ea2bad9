//! The daemon's entry: parses the command line, sets up the process, and hands over to the library.

use std::process::ExitCode;

use clap::Parser;
use nix::sys::stat::{Mode, umask};
use xmd::cli::{Cli, Command, StoreCommand};
use xmd::{backup, check, db, run, threads, user};

/// Returns memory to the system, which the default allocator of a long-running server does badly; by a thread of its own,
/// so that it happens also while nothing else does.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Whatever a library creates is readable by its owner alone.
    umask(Mode::from_bits_truncate(0o077));
    // Two providers could be compiled in; the first one asked for by default would otherwise panic.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match cli.command {
        None => asynchronously(run::run(&cli.run)),
        Some(Command::Run(args)) => asynchronously(run::run(&args)),
        Some(Command::Config(args)) => run::config(&args),
        Some(Command::Demo(args)) => asynchronously(xmd::demo::demo(&args)),
        Some(Command::Db(command)) => asynchronously(db::db(&command)),
        Some(Command::Store(StoreCommand::Check(args))) => asynchronously(check::check(&args)),
        Some(Command::Store(StoreCommand::Repair(args))) => asynchronously(check::repair(&args)),
        Some(Command::User(command)) => asynchronously(user::user(&command)),
        Some(Command::Backup(args)) => asynchronously(backup::backup(&args)),
        Some(Command::Restore(args)) => asynchronously(backup::restore(&args)),
    }
}

fn asynchronously(work: impl Future<Output = ExitCode>) -> ExitCode {
    match threads::runtime() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A store that hangs must not hold up the exit.
            runtime.shutdown_timeout(std::time::Duration::from_millis(100));
            code
        }
        Err(error) => {
            run::complain(&format!("no threads to run on: {error}"));
            ExitCode::FAILURE
        }
    }
}
