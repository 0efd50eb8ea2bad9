//! What differs between MariaDB and PostgreSQL: where the programs are, how a data directory is made, what is said
//! on the command line and to a new server. Durability is never turned off.

use std::path::{Path, PathBuf};

use super::process::{self, Place, RunAs};

/// Connections a server takes. The cases of a suite open pools at the same time, and closed ones linger.
const CONNECTIONS_MAX: usize = 400;

/// A database engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    MariaDb,
    Postgres,
}

/// The programs of an engine.
#[derive(Clone, Debug)]
pub struct Programs {
    server: PathBuf,
    /// Makes a data directory.
    maker: PathBuf,
}

impl Engine {
    /// As in `XM_REQUIRE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MariaDb => "mariadb",
            Self::Postgres => "postgres",
        }
    }

    /// Finds the programs, or says what is missing.
    pub fn programs(self) -> Result<Programs, String> {
        find("setpriv")?;
        match self {
            Self::MariaDb => Ok(Programs { server: find("mariadbd")?, maker: find("mariadb-install-db")? }),
            Self::Postgres => {
                let server = find("postgres")?;
                // Versions live side by side: the maker must be of the server's.
                let maker = server.canonicalize().map_err(|error| error.to_string())?.with_file_name("initdb");
                if maker.is_file() { Ok(Programs { server, maker }) } else { Err(format!("no {}", maker.display())) }
            }
        }
    }

    pub fn run_as(self) -> RunAs {
        match self {
            Self::MariaDb => RunAs::first(&["mysql", "nobody"]),
            Self::Postgres => RunAs::first(&["postgres", "nobody"]),
        }
    }

    /// Makes an empty data directory whose administrator has `password`.
    pub fn make(self, programs: &Programs, place: &Place, password: &str) -> Result<(), String> {
        let run_as = self.run_as();
        let mut maker = run_as.command(&programs.maker);
        // MariaDB deletes at its start what looks like its own in there, also if another one needs it.
        maker.env("TMPDIR", place.path());
        let first = place.path().join("first");
        write_for(run_as, &first, &self.first_words(password));
        match self {
            Self::MariaDb => maker
                .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
                // Not in /tmp: each start removes the temporary tables of every other server there.
                .arg(option("--tmpdir=", place.path()))
                .arg(option("--datadir=", &place.data())),
            Self::Postgres => maker
                .args(["--username=admin", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"])
                .args(["--no-sync", "--wal-segsize=1"])
                .arg(option("--pwfile=", &first))
                .arg(option("--pgdata=", &place.data())),
        };
        process::run(maker)
    }

    /// What a new server reads first, each time it starts: MariaDB statements, PostgreSQL only the password.
    fn first_words(self, password: &str) -> String {
        match self {
            Self::MariaDb => format!(
                "CREATE USER IF NOT EXISTS admin@'%' IDENTIFIED BY '{password}';\n\
                 GRANT ALL PRIVILEGES ON *.* TO admin@'%' WITH GRANT OPTION;\n\
                 CREATE USER IF NOT EXISTS admin@localhost IDENTIFIED BY '{password}';\n\
                 GRANT ALL PRIVILEGES ON *.* TO admin@localhost WITH GRANT OPTION;\n\
                 DROP USER IF EXISTS root@localhost;\n"
            ),
            Self::Postgres => password.to_owned(),
        }
    }

    /// What the administrator says once: the user of the stores comes into being, with as few rights as will do.
    pub fn users(self, password: &str) -> Vec<String> {
        match self {
            Self::MariaDb => {
                let hosts = ["'%'", "localhost"];
                let create = hosts.map(|host| format!("CREATE USER messenger@{host} IDENTIFIED BY '{password}'"));
                let grants = hosts.iter().flat_map(|host| {
                    ["RouterDB", "PresenceDB", "RegisterDB"]
                        .map(|role| format!("GRANT ALL PRIVILEGES ON `{role}%`.* TO messenger@{host}"))
                });
                create.into_iter().chain(grants).collect()
            }
            Self::Postgres => vec![format!("CREATE ROLE messenger LOGIN CREATEDB PASSWORD '{password}'")],
        }
    }

    pub fn command(self, programs: &Programs, place: &Place, port: u16) -> std::process::Command {
        let mut command = self.run_as().command(&programs.server);
        match self {
            Self::MariaDb => command
                .args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-log-bin", "--skip-name-resolve"])
                .args(["--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=32M"])
                .args(["--innodb-log-file-size=16M", "--performance-schema=OFF"])
                .arg(format!("--max-connections={CONNECTIONS_MAX}"))
                .arg(format!("--port={port}"))
                .arg(option("--datadir=", &place.data()))
                .arg(option("--tmpdir=", place.path()))
                .arg(option("--socket=", &self.socket(place, port)))
                .arg(option("--pid-file=", &place.path().join("pid")))
                .arg(option("--init-file=", &place.path().join("first"))),
            Self::Postgres => command
                .arg("-D")
                .arg(place.data())
                .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=on", "-c", "synchronous_commit=on"])
                .args(["-c", "shared_buffers=16MB", "-c", "min_wal_size=8MB", "-c", "max_wal_size=64MB"])
                // Shared memory in files of the data directory: nothing stays behind after a kill.
                .args(["-c", "dynamic_shared_memory_type=mmap", "-c", "jit=off"])
                .args(["-c", &format!("max_connections={CONNECTIONS_MAX}"), "-c", &format!("port={port}"), "-c"])
                .arg(option("unix_socket_directories=", place.path())),
        };
        command
    }

    /// What the log says once connections are taken.
    pub fn ready(self) -> &'static str {
        match self {
            Self::MariaDb => "ready for connections",
            Self::Postgres => "ready to accept connections",
        }
    }

    fn socket(self, place: &Place, port: u16) -> PathBuf {
        match self {
            Self::MariaDb => place.path().join("socket"),
            Self::Postgres => place.path().join(format!(".s.PGSQL.{port}")),
        }
    }

    /// The URL of a database over TCP.
    pub fn url(self, user: &str, password: &str, port: u16, database: &str) -> String {
        format!("{}://{user}:{password}@127.0.0.1:{port}/{database}", self.scheme())
    }

    /// The URL of a database over the unix socket.
    pub fn socket_url(self, user: &str, password: &str, place: &Place, port: u16, database: &str) -> String {
        let scheme = self.scheme();
        match self {
            Self::MariaDb => {
                let socket = self.socket(place, port);
                format!("{scheme}://{user}:{password}@localhost/{database}?socket={}", socket.display())
            }
            Self::Postgres => {
                let directory = place.path().display();
                format!("{scheme}://{user}:{password}@localhost:{port}/{database}?host={directory}")
            }
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::MariaDb => "mysql",
            Self::Postgres => "postgres",
        }
    }

    /// The database an administrator connects to when he means none.
    pub fn home(self) -> &'static str {
        match self {
            Self::MariaDb => "mysql",
            Self::Postgres => "postgres",
        }
    }

    /// The statement that removes a database, whoever is connected.
    pub fn drop_database(self, name: &str) -> String {
        match self {
            Self::MariaDb => format!("DROP DATABASE IF EXISTS `{name}`"),
            Self::Postgres => format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"),
        }
    }
}

fn option(name: &str, value: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push(value);
    option
}

/// Writes a file that only the server's user can read: it holds a password.
fn write_for(run_as: RunAs, path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).expect("the directory is writable");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("the file is ours");
    run_as.give(path);
}

/// Looks for a program in `PATH` and where Debian keeps database servers, newest version first.
fn find(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from));
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_unstable_by(|left, right| right.cmp(left));
    places.extend(versions.into_iter().map(|(_, place)| place));
    let found = places.into_iter().map(|place| place.join(program)).find(|path| path.is_file());
    found.ok_or_else(|| format!("{program} is not installed"))
}
