//! The configuration: what an operator may set, its defaults, and the checks between keys. What a single key accepts is
//! the table in `keys.rs`; how a file is read and complained about is `file.rs`.

mod file;
mod keys;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lettre::message::Mailbox;
use xm_store::sql::Server;
use xmmep::types::PresenceId;

pub use file::{ConfigError, Problem};
pub use keys::KEY_NAMES;

/// The configuration file that `xmd config` prints: every key, documented, at its default.
pub const DEFAULT_FILE: &str = include_str!("../../xmd.toml");

/// Everything an operator may set. [`DEFAULT_FILE`] documents each key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each key is documented once, in xmd.toml, and a test demands it there")]
pub struct Config {
    pub data_dir: PathBuf,
    pub public_address: String,
    pub router: Router,
    pub presence: Presence,
    pub database: Database,
    pub web: Web,
    pub mail: Mail,
    pub registration: Registration,
    pub limits: Limits,
    pub log: Log,
}

/// `[router]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see Config")]
pub struct Router {
    pub listen: SocketAddr,
}

/// `[presence]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see Config")]
pub struct Presence {
    pub identity: PresenceId,
    pub listen: SocketAddr,
    pub lanes: usize,
}

/// `[database]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see Config")]
pub struct Database {
    /// `database.url`; `None` for files in the data directory.
    pub server: Option<Server>,
    pub password_file: Option<PathBuf>,
    pub offline: OfflineIn,
}

/// Where messages wait for their recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfflineIn {
    /// In a log in the data directory.
    Log,
    /// In PresenceDB.
    Sql,
}

/// `[web]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see Config")]
pub struct Web {
    pub listen: SocketAddr,
    pub public_url: String,
    pub behind_proxy: bool,
    pub connections_max: usize,
}

/// `[mail]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see Config")]
pub struct Mail {
    pub mode: MailMode,
    pub directory: Option<PathBuf>,
    pub from: Mailbox,
    pub relays: Vec<RelayAddress>,
    pub tls: MailTls,
    pub user: String,
    pub password_file: Option<PathBuf>,
}

/// Where mails go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailMode {
    /// Into `.eml` files.
    Directory,
    /// To a relay.
    Smtp,
}

/// How a relay is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// TLS from the first byte.
    Tls,
    /// STARTTLS, or no mail.
    StartTls,
    /// In clear; for a relay on this machine.
    None,
}

/// A relay's host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// A name or an address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl RelayAddress {
    /// Whether the relay is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl std::fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// `[registration]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see Config")]
pub struct Registration {
    pub mode: RegistrationMode,
    pub token_days: u32,
    pub reserved: Vec<String>,
}

/// Who may register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationMode {
    /// Whoever has an e-mail address.
    Open,
    /// Nobody.
    Closed,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see Config")]
pub struct Limits {
    pub offline_messages: u64,
    pub offline_bytes: u64,
    pub offline_per_sender: u64,
    pub offline_days: u32,
    pub texts_at_once: u32,
    pub texts_per_second: u32,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "see Config")]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        let reserved = [
            "admin",
            "administrator",
            "root",
            "system",
            "support",
            "postmaster",
            "abuse",
            "security",
            "x-messenger",
            "xmessenger",
        ];
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let from = "X-Messenger <x-messenger@localhost>".parse().expect("a mailbox of the usual form");
        Self {
            data_dir: "xmd-data".into(),
            public_address: String::new(),
            router: Router { listen: local(7100) },
            presence: Presence { identity: PresenceId { cluster: 1, presence: 1 }, listen: local(7101), lanes: 0 },
            database: Database { server: None, password_file: None, offline: OfflineIn::Log },
            web: Web { listen: local(7180), public_url: String::new(), behind_proxy: false, connections_max: 256 },
            mail: Mail {
                mode: MailMode::Directory,
                directory: None,
                from,
                relays: Vec::new(),
                tls: MailTls::StartTls,
                user: String::new(),
                password_file: None,
            },
            registration: Registration {
                mode: RegistrationMode::Open,
                token_days: 7,
                reserved: reserved.map(str::to_owned).to_vec(),
            },
            limits: Limits {
                offline_messages: 1_000,
                offline_bytes: 4 * 1024 * 1024,
                offline_per_sender: 100,
                offline_days: 30,
                texts_at_once: 60,
                texts_per_second: 1,
            },
            log: Log { level: "info".to_owned(), format: LogFormat::Text },
        }
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is no TOML, or any key is unknown or has a value it does not accept: all of them are named.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { file: path.to_owned(), why: error.to_string() })?;
        Self::parse(&text, path)
    }

    /// Parses the text of a file; `path` is for messages only.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        file::parse(text, path)
    }

    /// What no key can see alone: the key to blame, why, and the way out.
    fn conflicts(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        for (key, listen) in [("router.listen", self.router.listen), ("presence.listen", self.presence.listen)] {
            if !listen.ip().is_loopback() && self.public_address.is_empty() {
                let why = "it is open to other machines, but clients would not know where this one is; \
                    set public_address, or listen on 127.0.0.1";
                found.push((key, why.to_owned()));
            }
        }
        if !self.web.listen.ip().is_loopback() && self.web.public_url.is_empty() {
            let why = "it is open to other machines, but links in mails would point at this one alone; \
                set web.public_url, or listen on 127.0.0.1";
            found.push(("web.listen", why.to_owned()));
        }
        if self.router.listen == self.presence.listen && self.router.listen.port() != 0 {
            found.push(("presence.listen", "the Router listens there; choose another port".to_owned()));
        }
        if self.limits.offline_per_sender > self.limits.offline_messages {
            let why = "it cannot be more than limits.offline_messages; lower it".to_owned();
            found.push(("limits.offline_per_sender", why));
        }
        self.database.conflicts(&mut found);
        self.mail.conflicts(&mut found);
        found
    }
}

impl Database {
    fn conflicts(&self, found: &mut Vec<(&'static str, String)>) {
        if self.server.is_some() {
            return;
        }
        if self.password_file.is_some() {
            let why = "files need no password; set database.url, or leave this empty";
            found.push(("database.password_file", why.to_owned()));
        }
        if self.offline == OfflineIn::Sql {
            let why = "without a database server they would wait on this machine, and slower than in the log; \
                set database.url, or leave \"log\"";
            found.push(("database.offline", why.to_owned()));
        }
    }
}

impl Mail {
    fn conflicts(&self, found: &mut Vec<(&'static str, String)>) {
        if self.mode == MailMode::Directory {
            return;
        }
        if self.relays.is_empty() {
            let why = "mail.mode is \"smtp\", so there must be a relay such as \"mail.example.org:587\"";
            found.push(("mail.relays", why.to_owned()));
        }
        if self.from.email.domain() == "localhost" && self.relays.iter().any(|relay| !relay.is_local()) {
            let why = "relays elsewhere refuse mail from localhost; give an address of yours";
            found.push(("mail.from", why.to_owned()));
        }
        if self.tls == MailTls::None
            && let Some(relay) = self.relays.iter().find(|relay| !relay.is_local())
        {
            let why = format!("{relay} is another machine, and mails carry tokens; use \"starttls\" or \"tls\"");
            found.push(("mail.tls", why));
        }
        if self.user.is_empty() != self.password_file.is_none() {
            let why = "mail.user and mail.password_file belong together; set both or neither";
            found.push(("mail.user", why.to_owned()));
        }
    }
}
