//! A terminal client in line mode: what you type goes out, what happens is printed, a line each. No screen tricks, so it
//! works over a pipe as well as under your fingers: feed it a file and it is a script.
//!
//! `main.rs` starts and ends it, `commands.rs` is what can be typed, `screen.rs` is what is printed.

mod commands;
mod screen;

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::sync::mpsc;
use xmmep::client::{Client, ClientOptions, Credentials, FileJournal, Password, ServerAddress};
use xmmep::name::UserName;
use xmmep::types::{DeviceId, Status};

use commands::{Chat, Next};
use screen::{harmless, say};

const MORE: &str = "\
Once logged in, type /help. The short of it:

  /add bob Hi, it's Ann!       ask bob to be your buddy
  /accept bob                  bob asked: yes, and I want to see bob too
  /buddies                     who is there
  /to bob Dinner at eight?     write to bob; later lines without a slash go to bob too
  /status busy                 what buddies see of you
  /quit                        leave

Ticks beside what you wrote: ✓ the server has it on disk, ✓✓ it is on bob's device, ✗ it was refused, with the reason.
What has no tick yet when you leave is sent the next time: it is in the journal in the data directory.

The password comes from the file of --password-file, else from the variable XM_PASSWORD, else from the first line of
standard input. It is never an argument, because arguments are seen by everybody on the machine.

A script is a file of such lines; /wait makes it wait for what it needs:

  chat --server xm://… --user ann --password-file ann.pw <<'END'
  /to bob Dinner at eight?
  /wait delivered 60
  /wait text yes
  /quit
  END

Leaves with 0 if all went well, 1 if there was no login or a /wait was in vain, 2 if the arguments are wrong.";

/// X-Messenger in a terminal: buddies with their status, text with ticks, messages that waited for you.
#[derive(Debug, Parser)]
#[command(name = "chat", version, after_long_help = MORE)]
struct Arguments {
    /// The server, as it was given to you: xm://host:port/key.
    #[arg(long, env = "XM_SERVER", value_name = "ADDRESS")]
    server: ServerAddress,
    /// Your user name.
    #[arg(long, env = "XM_USER", value_name = "NAME")]
    user: UserName,
    /// A file whose first line is your password. See below for other ways.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Where the journal and the device id live.
    #[arg(long, env = "XM_DATA", value_name = "DIRECTORY", default_value = "xm-chat-data")]
    data: PathBuf,
    /// The name of this device, for your other ones.
    #[arg(long, value_name = "NAME", default_value = "terminal")]
    device_name: String,
    /// The status to log in with: online, busy, away, invisible.
    #[arg(long, default_value = "online", value_parser = commands::status)]
    status: Status,
    /// Where to make an account; only printed, for people who have none yet.
    #[arg(long, env = "XM_REGISTER_URL", value_name = "URL")]
    register_url: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            say(&format!("! {}", harmless(&error)));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode, String> {
    if let Some(url) = &arguments.register_url {
        say(&format!("* no account yet? make one at {}", harmless(url)));
    }
    let password = match (&arguments.password_file, std::env::var("XM_PASSWORD")) {
        (Some(file), _) => first_line(file)?,
        (None, Ok(password)) => password,
        (None, Err(_)) => {
            if std::io::stdin().is_terminal() {
                say("* your password, please (it is shown as you type: --password-file avoids that)");
            }
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map_err(|error| format!("no password: {error}"))?;
            line.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    let home = home(&arguments)?;
    let mut options = ClientOptions::new(
        arguments.server.clone(),
        arguments.user.clone(),
        Credentials::Password(Password::new(&password)),
    );
    drop(password);
    options.device = device(&home)?;
    options.device_name = xmmep::bounded::Text::cut(&arguments.device_name);
    options.client = xmmep::bounded::Text::cut(concat!("chat ", env!("CARGO_PKG_VERSION")));
    options.status = arguments.status;
    let owner = format!("{} at {}", arguments.user.folded(), arguments.server);
    let journal = FileJournal::open(home.join("journal"), &owner).map_err(|error| error.to_string())?;
    options.journal = Some(Box::new(journal));

    let (client, mut events) = Client::connect(options).await.map_err(|error| error.to_string())?;
    let mut chat = Chat::new(client);
    let mut lines = lines();
    let next = loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => chat.happened(event).await,
                None => break Next::Over,
            },
            // While a script waits for something, its next line waits too.
            line = lines.recv(), if !chat.is_waiting() => match line {
                Some(line) => match chat.typed(&line).await {
                    Next::Go => {}
                    next => break next,
                },
                None if chat.has_unticked() => chat.wait_for_ticks(Duration::from_secs(5)),
                None => break Next::Quit,
            },
            () = chat.timeout() => if chat.gave_up() { break Next::Failed },
        }
    };
    if next != Next::Over {
        events.dealt_with().await;
        chat.leave().await;
        while let Some(event) = events.next().await {
            chat.after(&event);
        }
    }
    Ok(if next == Next::Quit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A directory per server and user: ids of one mean nothing to another.
fn home(arguments: &Arguments) -> Result<PathBuf, String> {
    let server: String = arguments.server.key().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let home = arguments.data.join(format!("{server}-{}", arguments.user.folded()));
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    Ok(home)
}

/// The id of this device: drawn at the first start, kept from then on.
fn device(home: &Path) -> Result<DeviceId, String> {
    let path = home.join("device");
    let problem = |error: std::io::Error| format!("{}: {error}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let id = u128::from_str_radix(text.trim(), 16).ok().filter(|_| text.trim().len() == 32);
            let bad =
                || format!("{}: not a device id (32 hex digits); delete the file to draw a new one", path.display());
            id.map(|id| DeviceId(id.to_be_bytes())).ok_or_else(bad)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let id = DeviceId::random(&mut rand::make_rng::<rand::rngs::StdRng>());
            let aside = home.join("device.new");
            std::fs::write(&aside, format!("{id}\n")).and_then(|()| std::fs::rename(&aside, &path)).map_err(problem)?;
            Ok(id)
        }
        Err(error) => Err(problem(error)),
    }
}

fn first_line(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() { Err(format!("{}: the first line is empty", file.display())) } else { Ok(line.to_owned()) }
}

/// What is typed, line by line. Reading blocks, so it has a thread of its own; it ends with the process.
fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}
