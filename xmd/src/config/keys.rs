//! The keys: one table of name and what a value does. Defaults are in `mod.rs`, their documentation in `xmd.toml`.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::de::DeValue;

use xm_store::sql::{BadServer, Server};

use super::{Config, LogFormat, MailMode, MailTls, OfflineIn, RegistrationMode, RelayAddress};

/// Takes a value into a configuration, or says why it is refused and what would be accepted.
pub(super) type Take = fn(&mut Config, &DeValue<'_>) -> Result<(), String>;

/// Declares the table and the list of names from one place.
macro_rules! keys {
    ($($name:literal => |$config:ident, $value:ident| $take:expr;)*) => {
        /// The names of all keys, as in `router.listen`.
        pub const KEY_NAMES: &[&str] = &[$($name),*];
        pub(super) const KEYS: &[(&str, Take)] = &[$(($name, |$config, $value| { $take; Ok(()) })),*];
    };
}

keys! {
    "data_dir" => |config, value| config.data_dir = path(value)?.ok_or("it cannot be empty; give a directory")?;
    "public_address" => |config, value| config.public_address = host(value)?;
    "router.listen" => |config, value| config.router.listen = parsed(value, "an address such as \"127.0.0.1:7100\"")?;
    "presence.identity" => |config, value|
        config.presence.identity = parsed(value, "a cluster and a number such as \"C1P1\"")?;
    "presence.listen" => |config, value|
        config.presence.listen = parsed(value, "an address such as \"127.0.0.1:7101\"")?;
    "presence.lanes" => |config, value| config.presence.lanes = integer(value, 0..=64)?;
    "database.url" => |config, value| config.database.server = database_server(value)?;
    "database.password_file" => |config, value| config.database.password_file = path(value)?;
    "database.offline" => |config, value|
        config.database.offline = choice(value, &[("log", OfflineIn::Log), ("sql", OfflineIn::Sql)])?;
    "web.listen" => |config, value| config.web.listen = parsed(value, "an address such as \"127.0.0.1:7180\"")?;
    "web.public_url" => |config, value| config.web.public_url = url(value)?;
    "web.behind_proxy" => |config, value|
        config.web.behind_proxy = value.as_bool().ok_or("it must be true or false")?;
    "web.connections_max" => |config, value| config.web.connections_max = integer(value, 8..=65_536)?;
    "mail.mode" => |config, value|
        config.mail.mode = choice(value, &[("directory", MailMode::Directory), ("smtp", MailMode::Smtp)])?;
    "mail.directory" => |config, value| config.mail.directory = path(value)?;
    "mail.from" => |config, value|
        config.mail.from = parsed(value, "a mailbox such as \"Chat <chat@example.org>\"")?;
    "mail.relays" => |config, value| config.mail.relays = relays(value)?;
    "mail.tls" => |config, value| config.mail.tls = choice(
        value,
        &[("tls", MailTls::Tls), ("starttls", MailTls::StartTls), ("none", MailTls::None)],
    )?;
    "mail.user" => |config, value| config.mail.user = line(value)?;
    "mail.password_file" => |config, value| config.mail.password_file = path(value)?;
    "registration.mode" => |config, value| config.registration.mode =
        choice(value, &[("open", RegistrationMode::Open), ("closed", RegistrationMode::Closed)])?;
    "registration.token_days" => |config, value| config.registration.token_days = integer(value, 1..=30)?;
    "registration.reserved" => |config, value| config.registration.reserved = names(value)?;
    "limits.offline_messages" => |config, value| config.limits.offline_messages = integer(value, 10..=100_000)?;
    "limits.offline_bytes" => |config, value|
        config.limits.offline_bytes = integer(value, 65_536..=1_073_741_824)?;
    "limits.offline_per_sender" => |config, value|
        config.limits.offline_per_sender = integer(value, 1..=100_000)?;
    "limits.offline_days" => |config, value| config.limits.offline_days = integer(value, 1..=365)?;
    "limits.texts_at_once" => |config, value| config.limits.texts_at_once = integer(value, 1..=1_000_000)?;
    "limits.texts_per_second" => |config, value| config.limits.texts_per_second = integer(value, 1..=1_000_000)?;
    "log.level" => |config, value| config.log.level = level(value)?;
    "log.format" => |config, value|
        config.log.format = choice(value, &[("text", LogFormat::Text), ("json", LogFormat::Json)])?;
}

fn text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    value.as_str().ok_or_else(|| "it must be text in quotes".to_owned())
}

/// Text that ends up on one line somewhere: no control characters.
fn line(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    if text.chars().any(char::is_control) {
        return Err("it has a control character; write one line of plain text".to_owned());
    }
    Ok(text.to_owned())
}

fn parsed<T: FromStr>(value: &DeValue<'_>, wanted: &str) -> Result<T, String>
where
    T::Err: Display,
{
    line(value)?.parse().map_err(|error| format!("{error}; write {wanted}"))
}

fn integer<T: FromStr + Display + PartialOrd>(value: &DeValue<'_>, range: RangeInclusive<T>) -> Result<T, String> {
    let wanted = || format!("it must be a whole number from {} to {}", range.start(), range.end());
    let digits = value.as_integer().filter(|integer| integer.radix() == 10).ok_or_else(wanted)?;
    digits.as_str().parse().ok().filter(|number| range.contains(number)).ok_or_else(wanted)
}

fn choice<T: Copy>(value: &DeValue<'_>, choices: &[(&str, T)]) -> Result<T, String> {
    let text = text(value)?;
    choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        format!("it must be {}", names.join(" or "))
    })
}

/// A path; empty means none.
fn path(value: &DeValue<'_>) -> Result<Option<std::path::PathBuf>, String> {
    let text = line(value)?;
    Ok((!text.is_empty()).then(|| text.into()))
}

/// A host name or an address, without a port; empty means none.
fn host(value: &DeValue<'_>) -> Result<String, String> {
    let text = line(value)?;
    let name = |text: &str| {
        text.len() <= 253
            && text.split('.').all(|label| {
                (1..=63).contains(&label.len()) && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            })
    };
    if text.is_empty() || name(&text) || text.parse::<std::net::IpAddr>().is_ok() {
        return Ok(text);
    }
    Err("it is no host name and no address; write \"chat.example.org\" or \"192.0.2.7\", without a port".to_owned())
}

/// The beginning of a link: scheme, host, port, perhaps a path; no slash at the end. Empty means none.
fn url(value: &DeValue<'_>) -> Result<String, String> {
    let text = line(value)?;
    let wanted = || "it must look like \"https://chat.example.org\", without a query".to_owned();
    if text.is_empty() {
        return Ok(text);
    }
    let uri: axum::http::Uri = text.parse().map_err(|_| wanted())?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if !web || !plain || uri.query().is_some() || text.contains(['#', '"', '<', '>', ' ']) {
        return Err(wanted());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// A database server without a database; empty means none.
fn database_server(value: &DeValue<'_>) -> Result<Option<Server>, String> {
    let text = line(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    let server = text.parse().map_err(|error| match error {
        BadServer::Password => {
            format!("{error}; take it out, put it into a file that you alone can read, and name that in database.password_file")
        }
        error => error.to_string(),
    });
    server.map(Some)
}

fn relays(value: &DeValue<'_>) -> Result<Vec<RelayAddress>, String> {
    let wanted = || "it must be a list of at most two relays such as [\"mail.example.org:587\"]".to_owned();
    let entries = value.as_array().filter(|entries| entries.len() <= 2).ok_or_else(wanted)?;
    let relay = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let fine = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c));
        let port = port.parse().ok().filter(|port| *port != 0)?;
        fine.then(|| RelayAddress { host: host.to_owned(), port })
    };
    entries.iter().map(|entry| entry.get_ref().as_str().and_then(relay).ok_or_else(wanted)).collect()
}

fn names(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let wanted = "it must be a list of at most 1,000 names such as [\"admin\"]";
    let entries = value.as_array().filter(|entries| entries.len() <= 1_000).ok_or(wanted)?;
    let name = |text: &str| xmmep::name::UserName::new(text).map(|name| name.as_str().to_owned());
    entries
        .iter()
        .map(|entry| {
            let text = entry.get_ref().as_str().ok_or(wanted)?;
            name(text).map_err(|error| format!("{text:?}: {error}, so nobody could register it; leave it out"))
        })
        .collect()
}

fn level(value: &DeValue<'_>) -> Result<String, String> {
    let text = line(value)?;
    crate::log::filter(&text).map_err(|error| format!("{error}; write \"info\" or \"info,xm_core=debug\""))?;
    Ok(text)
}
