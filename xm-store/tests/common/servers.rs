//! Real database servers: private, in a temporary directory, on a free port and a unix socket, gone with the test.
//!
//! [`mariadb`] and [`postgres`] share one server each among the tests of a binary; every test has databases of its own.
//! A test that hurts its server starts an own one with [`Server::own`].

pub mod engine;
mod process;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use sea_orm::sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, PgConnection};

pub use engine::Engine;
use engine::Programs;
use process::{Place, Running};

use super::{not_exercised, random};

/// How often a server is started on another port because somebody was faster.
const PORTS_TRIED: usize = 5;
/// How long a statement of this file may take, so that a server a test has stopped stops nothing else.
const STATEMENT_MAX: Duration = Duration::from_secs(30);

/// The MariaDB of this test binary; `None` on a machine without it.
pub fn mariadb() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| Server::own(Engine::MariaDb)).as_ref()
}

/// The PostgreSQL of this test binary; `None` on a machine without it.
pub fn postgres() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(|| Server::own(Engine::Postgres)).as_ref()
}

/// The shared server of an engine.
pub fn shared(engine: Engine) -> Option<&'static Server> {
    match engine {
        Engine::MariaDb => mariadb(),
        Engine::Postgres => postgres(),
    }
}

/// A database server. Dropping it kills it and removes what it stored.
#[derive(Debug)]
pub struct Server {
    engine: Engine,
    programs: Programs,
    port: u16,
    /// As it is in URLs and, having no character that needs a quote, in statements.
    password: String,
    admin_password: String,
    // Before the place: it must be dead when that vanishes.
    running: Mutex<Option<Running>>,
    place: Place,
}

impl Server {
    /// Starts a server for one test alone; `None`, loudly, on a machine without the engine.
    ///
    /// # Panics
    /// If the engine is there and does not start.
    pub fn own(engine: Engine) -> Option<Self> {
        match engine.programs() {
            Ok(programs) => Some(Self::start(engine, programs).unwrap_or_else(|why| panic!("{why}"))),
            Err(why) => {
                not_exercised(engine.name(), &why);
                None
            }
        }
    }

    fn start(engine: Engine, programs: Programs) -> Result<Self, String> {
        let place = Place::new(engine.run_as());
        let admin_password = password();
        engine.make(&programs, &place, &admin_password)?;
        let mut tries = 0;
        let (port, running) = loop {
            let port = free_port();
            match Running::start(engine.command(&programs, &place, port), engine.ready()) {
                Ok(running) => break (port, running),
                Err(_) if tries < PORTS_TRIED => tries += 1,
                Err(why) => return Err(why),
            }
        };
        let running = Mutex::new(Some(running));
        let server = Self { engine, programs, port, password: password(), admin_password, running, place };
        server.execute(engine.home(), &engine.users(&server.password));
        Ok(server)
    }

    pub fn engine(&self) -> Engine {
        self.engine
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn data_directory(&self) -> PathBuf {
        self.place.data()
    }

    /// All that will be removed.
    pub fn directory(&self) -> &Path {
        self.place.path()
    }

    /// The process that removes it, once we are gone.
    pub fn watchdog(&self) -> u32 {
        self.place.watchdog()
    }

    /// The process; of PostgreSQL the one that starts all the others.
    ///
    /// # Panics
    /// If it is stopped.
    pub fn pid(&self) -> u32 {
        self.running.lock().expect("no start panics").as_ref().expect("it runs").pid()
    }

    /// All its processes now.
    pub fn processes(&self) -> Vec<u32> {
        process::inside(&self.place.data())
    }

    /// The URL of a database, over TCP, for a user who may make `RouterDB…`, `PresenceDB…`, `RegisterDB…` and use them.
    pub fn url(&self, database: &str) -> String {
        self.url_at(self.port, database)
    }

    /// What no error and no log may show.
    pub fn password(&self) -> String {
        self.password.clone()
    }

    /// The same through something that listens on another port of 127.0.0.1.
    pub fn url_at(&self, port: u16, database: &str) -> String {
        self.engine.url("messenger", &self.password, port, database)
    }

    /// The same over the unix socket.
    pub fn socket_url(&self, database: &str) -> String {
        self.engine.socket_url("messenger", &self.password, &self.place, self.port, database)
    }

    /// The URL of a database for a user who may do everything.
    pub fn admin_url(&self, database: &str) -> String {
        self.engine.url("admin", &self.admin_password, self.port, database)
    }

    /// A database nobody else uses, named `role` and a number. It is not made; it is removed when the value is dropped.
    pub fn database(&'static self, role: &str) -> Database {
        Database { server: self, name: self.fresh_name(role) }
    }

    /// The name of a database nobody else uses.
    pub fn fresh_name(&self, role: &str) -> String {
        static NAMES: AtomicU32 = AtomicU32::new(1);
        format!("{role}_{}", NAMES.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs statements as the administrator, one after the other.
    ///
    /// # Panics
    /// If one fails.
    pub fn execute(&self, database: &str, statements: &[String]) {
        let (engine, url) = (self.engine, self.admin_url(database));
        // A thread of its own, for callers that are inside a runtime already.
        std::thread::scope(|scope| {
            let all = scope.spawn(|| blocking(execute(engine, &url, statements)));
            all.join().expect("it does not panic").unwrap_or_else(|why| panic!("{statements:?}: {why}"));
        });
    }

    /// `kill -9`, of all its processes.
    pub fn stop_immediately(&self) {
        if let Some(running) = self.running.lock().expect("no start panics").take() {
            // The parent first: it would take the death of a child for a crash and go on.
            running.kill();
        }
        loop {
            let left = process::inside(&self.place.data());
            if left.is_empty() {
                break;
            }
            process::signal("KILL", &left);
        }
    }

    /// Starts it again on the same port, with what it had stored; returns once it takes connections.
    ///
    /// # Panics
    /// If it runs, or does not start.
    pub fn start_again(&self) {
        let mut running = self.running.lock().expect("no start panics");
        assert!(running.is_none(), "it runs already");
        let command = self.engine.command(&self.programs, &self.place, self.port);
        *running = Some(Running::start(command, self.engine.ready()).unwrap_or_else(|why| panic!("{why}")));
    }

    /// SIGSTOP: connections stay, nobody answers.
    pub fn pause(&self) {
        // Twice: until the parent stands still it may fork.
        for _ in 0..2 {
            process::signal("STOP", &process::inside(&self.place.data()));
        }
    }

    /// SIGCONT.
    pub fn resume(&self) {
        process::signal("CONT", &process::inside(&self.place.data()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_immediately();
    }
}

/// A database of one test. Dropping it removes it: hundreds of tests each with its own would fill a disk.
#[derive(Debug)]
pub struct Database {
    server: &'static Server,
    name: String,
}

impl Database {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    pub fn server(&self) -> &'static Server {
        self.server
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        static SWEEPER: OnceLock<Sender<(Engine, String, String)>> = OnceLock::new();
        let sweeper = SWEEPER.get_or_init(|| {
            let (jobs, queue) = channel::<(Engine, String, String)>();
            std::thread::spawn(move || {
                for (engine, url, statement) in queue {
                    // Nothing depends on it: with the server its databases go as well.
                    let _ = blocking(execute(engine, &url, &[statement]));
                }
            });
            jobs
        });
        let engine = self.server.engine;
        let job = (engine, self.server.admin_url(engine.home()), engine.drop_database(&self.name));
        sweeper.send(job).expect("the sweeper never ends");
    }
}

fn blocking<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let work = async { tokio::time::timeout(STATEMENT_MAX, work).await.map_err(|error| error.to_string())? };
    runtime.expect("the test has threads").block_on(work)
}

async fn execute(engine: Engine, url: &str, statements: &[String]) -> Result<(), String> {
    let all = async {
        match engine {
            Engine::MariaDb => {
                let mut connection = MySqlConnection::connect(url).await?;
                for statement in statements {
                    connection.execute(AssertSqlSafe(statement.as_str())).await?;
                }
                connection.close().await
            }
            Engine::Postgres => {
                let mut connection = PgConnection::connect(url).await?;
                for statement in statements {
                    connection.execute(AssertSqlSafe(statement.as_str())).await?;
                }
                connection.close().await
            }
        }
    };
    all.await.map_err(|error| error.to_string())
}

/// Good for this run only.
fn password() -> String {
    random::<16>().map(|byte| format!("{byte:02x}")).concat()
}

/// A port nobody uses, outside the range the system hands out by itself: nobody gets it while a server is down.
fn free_port() -> u16 {
    loop {
        let port = 16_384 + u16::from_le_bytes(random()) % 16_384;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
