//! The command line: what can be said to `xmd`, and help that teaches. What the commands do lives in the modules they call.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  xmd demo                       Watch two people register, log in and chat; nothing stays behind.
  xmd                            Run a server on this machine, in ./xmd-data. It prints where everything is.
  xmd config > xmd.toml          Get a configuration to edit: every key, explained.
  xmd config --check xmd.toml    See whether it is right, without starting anything.
  xmd run --config xmd.toml      Run with it.
  xmd backup --to DIR            Copy what a running server keeps; `xmd restore` makes a server of the copy.
  xmd store check                See whether everything kept is whole.
  xmd user export ann            Write out everything that is kept about a user; `erase` takes it away.

Without configuration only this machine can reach the server, and mails become files in ./xmd-data/mail. To serve
others set public_address, web.public_url, the listen addresses and the [mail] section. Stop it with Ctrl-C or SIGTERM:
it finishes what it has begun. See docs/OPERATING.md.";

/// X-Messenger: an instant messaging server in one process.
#[derive(Debug, Parser)]
#[command(name = "xmd", version, about, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do. Without a command: run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// For running without a command.
    #[command(flatten)]
    pub run: RunArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server until it is told to stop (the default).
    Run(RunArgs),
    /// Print the default configuration with every key explained, or check a file.
    Config(ConfigArgs),
    /// Start a server in a temporary directory and show two people using it.
    Demo(DemoArgs),
    /// Look at the databases, or bring them to the newest schema.
    #[command(subcommand)]
    Db(DbCommand),
    /// Check or repair what a stopped server or a backup keeps.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Write out or erase everything that is kept about one user.
    #[command(subcommand)]
    User(UserCommand),
    /// Copy everything a server keeps, while it runs.
    #[command(after_help = BACKUP)]
    Backup(BackupArgs),
    /// Make a data directory from a backup.
    #[command(after_help = RESTORE)]
    Restore(RestoreArgs),
}

const BACKUP: &str = "\
The copy is one state of the whole: messages that had a tick before it began are in it, and so are accounts and buddies.
It holds the server's keys and everybody's addresses, so keep it where nobody else can read it.

Databases on a server (database.url) are not copied; their own tools do that, and the command says how.

Example, every night:
  xmd backup --config /etc/xmd/xmd.toml --to /backup/xmd-$(date +%F)";

const RESTORE: &str = "\
Every file is compared with what it was when the backup was made; then all is checked as `xmd store check` does.
Whoever registered after the backup is not in it. Messages delivered after it may come a second time; devices know
them and show them once.

Example:
  xmd restore --from /backup/xmd-2026-11-25 --data /var/lib/xmd";

/// What about a user.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Write out everything that is kept about a user, as JSON.
    ///
    /// The server must be stopped; --data may name a directory made by `xmd restore`. Leaves out what is derived from the
    /// password, and tokens.
    Export(ExportArgs),
    /// Erase a user: account, profile, buddies on both sides, blocks, waiting messages, mails. Name and address are free
    /// afterwards.
    ///
    /// The server must be stopped. What others were sent and have received is theirs. Ids of messages stay for seven days,
    /// so that who wrote in vain is told; backups keep what they have.
    Erase(EraseArgs),
}

/// Whose data, and where to.
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// Where the data is.
    #[command(flatten)]
    pub run: RunArgs,
    /// The user's name.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// A new file, readable by its owner alone. Without it: standard output.
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
}

/// Whom to erase.
#[derive(Clone, Debug, Args)]
pub struct EraseArgs {
    /// Where the data is.
    #[command(flatten)]
    pub run: RunArgs,
    /// The user's name.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Yes, for good. Without it, says what would go.
    #[arg(long)]
    pub yes: bool,
}

/// What about the databases.
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Say for each database where it is, which steps of the schema it has and lacks, and what is risky about its server.
    ///
    /// Changes nothing, and may be asked while the server runs. Exits with 1 if a step is pending or a database cannot be
    /// reached.
    Status(RunArgs),
    /// Make what is missing and bring the rest to the newest schema.
    ///
    /// `xmd run` does the same when it starts. By itself it is for a user who may change schemas, so that the one
    /// xmd runs as needs no right to: see docs/OPERATING.md.
    Migrate(RunArgs),
}

/// What about the stores.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Read everything that is kept and say what is wrong with it.
    ///
    /// For a data directory the server must be stopped; --data may also name a backup, whose files are then compared
    /// with its manifest. Reads every database file as a whole, every row of every table, what must hold between them,
    /// and every waiting message. Changes nothing. Exits with 1 if anything is wrong.
    Check(RunArgs),
    /// Repair the waiting messages, and say what to do about the rest.
    ///
    /// The server must be stopped. Nothing is thrown away: damaged parts stay in quarantine/ beside the messages.
    Repair(RunArgs),
}

/// What to copy, and where to.
#[derive(Clone, Debug, Args)]
pub struct BackupArgs {
    /// Whose data.
    #[command(flatten)]
    pub run: RunArgs,
    /// A directory that is empty or does not exist yet.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
}

/// What to restore, and where.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// A directory made by `xmd backup`.
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// The new data directory, which is empty or does not exist yet.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

/// How to run.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// The configuration; without it every key has its default.
    #[arg(long, value_name = "FILE", env = "XMD_CONFIG")]
    pub config: Option<PathBuf>,
    /// The directory in which everything is kept, whatever the configuration says.
    #[arg(long, value_name = "DIR", env = "XMD_DATA")]
    pub data: Option<PathBuf>,
}

/// What about the configuration.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Check this file instead of printing the default one. Exits with 1 if anything in it is wrong.
    #[arg(long, value_name = "FILE")]
    pub check: Option<PathBuf>,
}

/// How to demonstrate.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the server running afterwards, to try it with a client of your own. Ctrl-C ends it.
    #[arg(long)]
    pub stay: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_means_run_with_the_same_options() {
        let bare = Cli::parse_from(["xmd", "--data", "d"]);
        assert!(bare.command.is_none() && bare.run.data == Some("d".into()));
        let Some(Command::Run(run)) = Cli::parse_from(["xmd", "run", "--config", "c"]).command else {
            panic!("no run")
        };
        assert_eq!(run.config, Some("c".into()));
    }
}
