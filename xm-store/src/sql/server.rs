//! A database server as its operator names it: once, for all databases on it, and without its password.

use sea_orm::sqlx::mysql::MySqlSslMode;
use sea_orm::sqlx::postgres::PgSslMode;

use super::address::{Address, is_loopback};

/// A MariaDB, MySQL or PostgreSQL server: `mysql://user@host:3306/`, `postgres://user@host/`, with TLS parameters or a
/// socket behind a question mark.
///
/// Holds neither a password nor a database, so it can be printed and compared; [`url`](Self::url) puts both in.
///
/// ```
/// use xm_store::sql::Server;
///
/// let server: Server = "postgres://xmd@db.example.org/?sslrootcert=/etc/xmd/db.pem".parse()?;
/// assert_eq!(
///     server.url("RouterDB", Some("p@ss")),
///     "postgres://xmd:p%40ss@db.example.org/RouterDB?sslrootcert=/etc/xmd/db.pem"
/// );
/// # Ok::<(), xm_store::sql::BadServer>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Up to the user's name.
    before: String,
    /// Host and port.
    host: String,
    /// With its question mark, or empty.
    query: String,
}

/// Why a text names no server. None of these shows a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadServer {
    /// It begins with something else.
    #[error("it must begin with \"mysql://\" or \"postgres://\"")]
    Scheme,
    /// There is nobody to log in as.
    #[error("it names no user; write \"mysql://user@host/\" or \"postgres://user@host/\"")]
    NoUser,
    /// It would be shown and logged with the server.
    #[error("it has a password in it, which everybody who sees it could read")]
    Password,
    /// Each of the databases has its own name.
    #[error("it names the database {0:?}; names are put behind it, so it must end with the server")]
    Database(String),
    /// A parameter that is unknown, or not the operator's to set.
    #[error(
        "it has the parameter {0:?}; those for TLS (ssl-mode, ssl-ca, sslmode, sslrootcert …) and sockets can be set"
    )]
    Parameter(String),
    /// Something in it cannot be understood.
    #[error("{0}")]
    Malformed(String),
}

/// What may stand behind the question mark: how to reach the server and how it proves itself.
const MYSQL_PARAMETERS: [&str; 9] =
    ["ssl-mode", "sslmode", "ssl-ca", "sslca", "ssl-cert", "sslcert", "ssl-key", "sslkey", "socket"];
const POSTGRES_PARAMETERS: [&str; 10] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "host",
];

impl std::str::FromStr for Server {
    type Err = BadServer;

    fn from_str(text: &str) -> Result<Self, BadServer> {
        let (scheme, rest) = text.split_once("://").ok_or(BadServer::Scheme)?;
        let parameters: &[&str] = match scheme {
            "mysql" | "mariadb" => &MYSQL_PARAMETERS,
            "postgres" | "postgresql" => &POSTGRES_PARAMETERS,
            _ => return Err(BadServer::Scheme),
        };
        if rest.contains('#') {
            return Err(BadServer::Malformed("what follows \"#\" would be ignored".into()));
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let (user, host) = authority.rsplit_once('@').ok_or(BadServer::NoUser)?;
        if user.contains(':') {
            return Err(BadServer::Password);
        }
        if user.is_empty() {
            return Err(BadServer::NoUser);
        }
        if !database.is_empty() {
            return Err(BadServer::Database(database.to_owned()));
        }
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (key, _) = parameter.split_once('=').unwrap_or((parameter, ""));
            match key {
                "password" => return Err(BadServer::Password),
                _ if parameters.contains(&key) => {}
                _ => return Err(BadServer::Parameter(key.to_owned())),
            }
        }
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let server = Self { before: format!("{scheme}://{user}"), host: host.to_owned(), query };
        server.address().map_err(BadServer::Malformed)?;
        Ok(server)
    }
}

impl Server {
    /// The URL of a database on this server, for the functions that open one. With a password it is a secret.
    #[must_use]
    pub fn url(&self, database: &str, password: Option<&str>) -> String {
        let password = password.map_or_else(String::new, |password| format!(":{}", escaped(password)));
        format!("{}{password}@{}/{database}{}", self.before, self.host, self.query)
    }

    /// Whether it is MariaDB or MySQL; else it is PostgreSQL.
    #[must_use]
    pub fn is_mysql(&self) -> bool {
        self.before.starts_with("my") || self.before.starts_with("mariadb")
    }

    /// What is risky about the way to this server, in words; empty is good. What the server itself does is asked when a
    /// database is opened.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let open = "is on another machine, and the connection to it may be unencrypted: whoever is on the way reads the \
            password and everything else; leave ssl-mode and sslmode out, and name its authority with ssl-ca or sslrootcert";
        let unproven = "is on another machine and need not prove its name: whoever is on the way can take its place; leave \
            ssl-mode and sslmode out, and name its authority with ssl-ca or sslrootcert";
        let risk = match self.address() {
            Ok(Address::MySql(options)) if options.get_socket().is_none() && !is_loopback(options.get_host()) => {
                match options.get_ssl_mode() {
                    MySqlSslMode::Disabled | MySqlSslMode::Preferred => Some(open),
                    MySqlSslMode::Required => Some(unproven),
                    MySqlSslMode::VerifyCa | MySqlSslMode::VerifyIdentity => None,
                }
            }
            Ok(Address::Postgres(options)) if options.get_socket().is_none() && !is_loopback(options.get_host()) => {
                match options.get_ssl_mode() {
                    PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer => Some(open),
                    PgSslMode::Require => Some(unproven),
                    PgSslMode::VerifyCa | PgSslMode::VerifyFull => None,
                }
            }
            _ => None,
        };
        risk.map(|risk| format!("{} {risk}", self.host)).into_iter().collect()
    }

    /// The server with some database, taken apart by the drivers.
    fn address(&self) -> Result<Address, String> {
        Address::parse(&self.url("database", None)).map_err(|error| match error {
            crate::OpenError::Unreachable { why, .. } => why,
            other => other.to_string(),
        })
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}/", self.before, self.host)
    }
}

/// Every byte that could mean something in a URL, as `%` and two digits.
fn escaped(password: &str) -> String {
    let mut text = String::with_capacity(password.len());
    for byte in password.bytes() {
        if byte.is_ascii_alphanumeric() {
            text.push(byte.into());
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> BadServer {
        text.parse::<Server>().expect_err(text)
    }

    #[test]
    fn a_database_and_a_password_are_put_in_whatever_their_characters() {
        for (text, mysql) in [
            ("mysql://xmd@db:3307/", true),
            ("mariadb://xmd@[2001:db8::1]", true),
            ("mysql://xmd@localhost/?socket=/run/mysqld/mysqld.sock", true),
            ("postgres://xmd@db/?sslrootcert=/etc/db.pem&sslmode=verify-full", false),
            ("postgresql://xmd@%2Frun%2Fpostgresql/", false),
        ] {
            let server: Server = text.parse().unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(server.is_mysql(), mysql, "{text}");
            for password in ["", "simple", "@:/?#[]%&= \"'\\", "пароль 密码 🙂"] {
                let url = server.url("PresenceDB_C1P1", Some(password));
                let address = Address::parse(&url).unwrap_or_else(|why| panic!("{url}: {why}"));
                assert_eq!(address.database(), Some("PresenceDB_C1P1"), "{url}");
                let (shown, seen) = (address.shown().display().to_string(), format!("{server} {server:?}"));
                assert!(password.is_empty() || !format!("{shown}{seen}").contains(password), "{shown} {seen}");
            }
        }
    }

    #[test]
    fn what_is_not_a_server_alone_is_refused_by_what_is_wrong_with_it() {
        for (text, wanted) in [
            ("", BadServer::Scheme),
            ("sqlite:x.db", BadServer::Scheme),
            ("redis://xmd@db/", BadServer::Scheme),
            ("mysql://db/", BadServer::NoUser),
            ("mysql://@db/", BadServer::NoUser),
            ("mysql://xmd:secret@db/", BadServer::Password),
            ("postgres://xmd:@db/", BadServer::Password),
            ("postgres://xmd@db/?password=secret", BadServer::Password),
            ("postgres://xmd@db/RouterDB", BadServer::Database("RouterDB".into())),
            ("postgres://xmd@db/?user=eve", BadServer::Parameter("user".into())),
            ("mysql://xmd@db/?ssl_mode=DISABLED", BadServer::Parameter("ssl_mode".into())),
        ] {
            assert_eq!(refusal(text), wanted, "{text}");
        }
        for text in ["mysql://xmd@db:port/", "postgres://xmd@db/?sslmode=perhaps", "mysql://xmd@", "mysql://x@db/#y"] {
            let why = refusal(text);
            assert!(matches!(&why, BadServer::Malformed(why) if why.len() > 5), "{text}: {why:?}");
        }
    }

    #[test]
    fn only_a_server_elsewhere_that_is_not_verified_gets_a_warning() {
        for (text, warned) in [
            ("mysql://xmd@db.example.org/", false),
            ("mysql://xmd@db.example.org/?ssl-mode=VERIFY_CA&ssl-ca=/x", false),
            ("mysql://xmd@db.example.org/?ssl-mode=REQUIRED", true),
            ("mysql://xmd@db.example.org/?ssl-mode=DISABLED", true),
            ("mysql://xmd@127.0.0.1/?ssl-mode=DISABLED", false),
            ("postgres://xmd@db.example.org/", false),
            ("postgres://xmd@db.example.org/?sslmode=require", true),
            ("postgres://xmd@db.example.org/?sslmode=prefer", true),
            ("postgres://xmd@db.example.org/?host=/run/postgresql&sslmode=disable", false),
            ("postgres://xmd@%2Frun%2Fpostgresql/?sslmode=disable", false),
        ] {
            let server: Server = text.parse().unwrap();
            assert_eq!(server.warnings().len(), usize::from(warned), "{text}: {:?}", server.warnings());
        }
    }
}
