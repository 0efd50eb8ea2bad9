//! Where a database is: a URL taken apart. Nothing is opened here.

use std::fmt;
use std::path::PathBuf;

use sea_orm::sqlx::mysql::MySqlConnectOptions;
use sea_orm::sqlx::postgres::PgConnectOptions;

use crate::error::OpenError;

/// Where a database is.
#[derive(Clone)]
pub(super) enum Address {
    /// A file.
    Sqlite(PathBuf),
    /// A database on a MariaDB or MySQL server.
    MySql(Box<MySqlConnectOptions>),
    /// A database on a PostgreSQL server.
    Postgres(Box<PgConnectOptions>),
}

const WANTED: &str = "a database is given as \"sqlite:\" and a path, or as \
    \"mysql://user:password@host/name\" or \"postgres://user:password@host/name\"";

impl Address {
    /// Takes a URL apart.
    ///
    /// A server on another machine is spoken to with TLS that verifies its name, unless the URL says otherwise
    /// (`ssl-mode`, `sslmode`): the drivers' own defaults are satisfied with no encryption at all.
    pub(super) fn parse(url: &str) -> Result<Self, OpenError> {
        use sea_orm::sqlx::mysql::MySqlSslMode;
        use sea_orm::sqlx::postgres::PgSslMode;
        let bad = |why: String| OpenError::Unreachable { path: without_password(url).into(), why };
        let says = |key: &str| url.split_once('?').is_some_and(|(_, query)| query.contains(key));
        match url.split_once(':').map_or("", |(scheme, _)| scheme) {
            "sqlite" => match url["sqlite:".len()..].trim_start_matches("//") {
                "" => Err(bad(WANTED.into())),
                _ => Ok(Self::Sqlite(sqlite_path(url))),
            },
            "mysql" | "mariadb" => {
                let mut options: MySqlConnectOptions = url.parse().map_err(|why| bad(format!("{why}; {WANTED}")))?;
                if options.get_database().is_none() {
                    return Err(bad(format!("it names no database; {WANTED}")));
                }
                let is_local = options.get_socket().is_some() || is_loopback(options.get_host());
                if !is_local && !says("ssl-mode=") && !says("sslmode=") {
                    options = options.ssl_mode(MySqlSslMode::VerifyIdentity);
                }
                Ok(Self::MySql(Box::new(options)))
            }
            "postgres" | "postgresql" => {
                let mut options: PgConnectOptions = url.parse().map_err(|why| bad(format!("{why}; {WANTED}")))?;
                if options.get_database().is_none() {
                    return Err(bad(format!("it names no database; {WANTED}")));
                }
                let is_local = options.get_socket().is_some() || is_loopback(options.get_host());
                if !is_local && !says("sslmode=") && !says("ssl-mode=") {
                    options = options.ssl_mode(PgSslMode::VerifyFull);
                }
                Ok(Self::Postgres(Box::new(options)))
            }
            _ => Err(bad(WANTED.into())),
        }
    }

    /// The name of the database on its server.
    pub(super) fn database(&self) -> Option<&str> {
        match self {
            Self::Sqlite(_) => None,
            Self::MySql(options) => options.get_database(),
            Self::Postgres(options) => options.get_database(),
        }
    }

    /// The same server, another database on it; without a name, the one every server has.
    pub(super) fn beside(&self, database: &str) -> Self {
        match self.clone() {
            Self::Sqlite(path) => Self::Sqlite(path),
            Self::MySql(options) => Self::MySql(Box::new(options.database(database))),
            Self::Postgres(options) => Self::Postgres(Box::new(options.database(database))),
        }
    }

    /// What errors call it. A URL comes without its password.
    pub(super) fn shown(&self) -> PathBuf {
        match self {
            Self::Sqlite(path) => path.clone(),
            Self::MySql(options) => {
                let at = match options.get_socket() {
                    Some(socket) => socket.display().to_string(),
                    None => format!("{}:{}", options.get_host(), options.get_port()),
                };
                format!("mysql://{}@{at}/{}", options.get_username(), options.get_database().unwrap_or("")).into()
            }
            Self::Postgres(options) => {
                let at = match options.get_socket() {
                    Some(socket) => socket.display().to_string(),
                    None => format!("{}:{}", options.get_host(), options.get_port()),
                };
                format!("postgres://{}@{at}/{}", options.get_username(), options.get_database().unwrap_or("")).into()
            }
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.shown().display())
    }
}

/// Everything after the colon, as it is: no character of a path is special.
fn sqlite_path(url: &str) -> PathBuf {
    let rest = &url["sqlite:".len()..];
    PathBuf::from(rest.strip_prefix("//").unwrap_or(rest))
}

pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // An absolute path in place of a host is a socket.
    host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The URL as it may be shown to anybody.
fn without_password(url: &str) -> String {
    // A password may stand behind a question mark, and may hold slashes that nobody escaped.
    let url = url.split('?').next().unwrap_or(url);
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let Some(at) = rest.rfind('@') else { return url.to_owned() };
    let user = rest[..at].split(':').next().unwrap_or("");
    format!("{scheme}://{user}{}", &rest[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        Address::parse(url).expect_err(url).to_string()
    }

    #[test]
    fn a_url_that_names_no_database_says_what_would() {
        for url in ["", "RouterDB", "sqlite:", "sqlite://", "redis://localhost/1", "mysql://", "postgres://ann@db"] {
            let text = refusal(url);
            assert!(text.contains("postgres://user:password@host/name"), "{url}: {text}");
        }
    }

    #[test]
    fn no_error_and_no_debug_output_shows_a_password() {
        for url in [
            "mysql://ann:s3cret@db",
            "postgres://ann:s3cret@db:99999/x",
            "mysql://ann:s3cret@:1:2/x",
            "mysql://ann:s3/s3cret@db/x",
            "postgres://ann@db?password=s3cret",
            "postgres://ann@db:99999/x?password=s3cret",
        ] {
            assert!(!refusal(url).contains("s3cret"), "{}", refusal(url));
        }
        for url in ["mysql://ann:s3cret@db/RouterDB", "postgres://ann:s3cret@db/RouterDB"] {
            let address = Address::parse(url).unwrap();
            let text = format!("{address:?} {}", address.shown().display());
            assert!(!text.contains("s3cret") && text.contains("ann@db:") && text.contains("/RouterDB"), "{text}");
        }
    }

    #[test]
    fn a_server_elsewhere_must_prove_its_name_unless_the_url_says_otherwise() {
        use sea_orm::sqlx::mysql::MySqlSslMode::{Required, VerifyIdentity};
        use sea_orm::sqlx::postgres::PgSslMode::{Require, VerifyFull};
        let mysql = |url: &str| match Address::parse(url).unwrap() {
            Address::MySql(options) => options.get_ssl_mode(),
            other => panic!("{other:?}"),
        };
        let postgres = |url: &str| match Address::parse(url).unwrap() {
            Address::Postgres(options) => options.get_ssl_mode(),
            other => panic!("{other:?}"),
        };
        assert!(matches!(mysql("mysql://ann@db.example.org/x"), VerifyIdentity));
        assert!(matches!(mysql("mysql://ann@db.example.org/x?ssl-mode=REQUIRED"), Required));
        assert!(!matches!(mysql("mysql://ann@127.0.0.1/x"), VerifyIdentity));
        assert!(!matches!(mysql("mariadb://ann@db/x?socket=/run/db.sock"), VerifyIdentity));
        assert!(matches!(postgres("postgres://ann@db.example.org/x"), VerifyFull));
        assert!(matches!(postgres("postgresql://ann@db.example.org/x?sslmode=require"), Require));
        assert!(!matches!(postgres("postgres://ann@[::1]/x"), VerifyFull));
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        for (url, path) in [("sqlite:a b?c#d", "a b?c#d"), ("sqlite:///x/y", "/x/y"), ("sqlite:/x%20y", "/x%20y")] {
            assert_eq!(Address::parse(url).unwrap().shown(), PathBuf::from(path));
        }
    }
}
