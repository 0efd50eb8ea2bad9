//! `xmd run`: from the command line to a server that runs until it is told to stop. Also `xmd config`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{ConfigArgs, RunArgs};
use crate::config::{Config, DEFAULT_FILE};
use crate::log;
use crate::server::{Places, Server};

/// The exit code for a configuration or a command that cannot be used. A supervisor need not try again.
pub const EXIT_USAGE: u8 = 2;

/// Writes to standard output. A reader who has gone away is no error of ours.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes a line to standard error, for mistakes before there is a log.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "xmd: {}", text.replace('\n', "\nxmd: "));
}

/// `xmd config`: prints the default configuration, or checks a file.
#[must_use]
pub fn config(args: &ConfigArgs) -> ExitCode {
    let Some(file) = &args.check else {
        say(DEFAULT_FILE);
        return ExitCode::SUCCESS;
    };
    match Config::read(file) {
        Ok(_) => {
            say(&format!("{} can be used\n", file.display()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// `xmd run`: runs the server until SIGTERM or SIGINT.
pub async fn run(args: &RunArgs) -> ExitCode {
    let config = match configuration(args) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    // The check of `log.level` passed, and nobody else has set a subscriber: this can fail only in a test of ours.
    if let Ok((subscriber, _)) = log::subscriber(&config.log.level, config.log.format, std::io::stderr) {
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
    // Listens from here on: whoever reads below that it runs may stop it at once.
    let told_to_stop = told_to_stop();
    let mut server = match Server::start(&config).await {
        Ok(server) => server,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    say(&welcome(server.places()));
    let failed = tokio::select! {
        () = told_to_stop => None,
        why = server.failed() => Some(why),
    };
    if let Some(why) = &failed {
        tracing::error!(%why, "stopping, because the rest must not go on alone");
    }
    server.stop().await;
    if failed.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The configuration a command is to work with.
pub(crate) fn configuration(args: &RunArgs) -> Result<Config, String> {
    let config = args.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read);
    let mut config = config.map_err(|error| error.to_string())?;
    if let Some(data) = &args.data {
        config.data_dir.clone_from(data);
    }
    Ok(config)
}

/// Resolves at a SIGTERM or SIGINT that comes from now on; never if this system has no signals.
pub(crate) fn told_to_stop() -> impl Future<Output = ()> {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async {
        let (Ok(mut term), Ok(mut int)) = signals else { return std::future::pending().await };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    }
}

/// What is printed once the server serves: where everything is, and what to do next.
pub(crate) fn welcome(places: &Places) -> String {
    let mut text = format!("X-Messenger {} is running.\n\n", env!("CARGO_PKG_VERSION"));
    let mut line = |name: &str, value: &str| {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "  {name:<22}{value}");
    };
    line("Address for clients", &places.client.to_string());
    line("Page to register", &format!("{}/", places.web));
    line("Mails", &places.mails.as_deref().map_or("go to the relays".to_owned(), shown));
    line("Everything is kept in", &shown(&places.data));
    text.push_str("\nNext: open the page and register; then open the link in the mail");
    text.push_str(if places.mails.is_some() { " (the newest file in the\ndirectory above)" } else { "" });
    text.push_str(", press the button, and log in with a client, which asks for the address above.\n");
    if places.loopback_only {
        text.push_str("Only this machine can reach the server. `xmd config` shows how to change that.\n");
    }
    if !places.loopback_only && places.web.starts_with("http://") {
        text.push_str(
            "Passwords travel in clear on the page: put a proxy with https in front, and set web.public_url.\n",
        );
    }
    text.push_str("Stop it with Ctrl-C.\n");
    text
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
