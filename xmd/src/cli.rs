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
}

/// How to run.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// The configuration; without it every key has its default.
    #[arg(long, value_name = "FILE", env = "XMD_CONFIG")]
    pub config: Option<PathBuf>,
    /// Keep everything in this directory, whatever the configuration says.
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
