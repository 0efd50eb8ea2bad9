//! What can happen to a database server and the road to it, on real servers: nothing is half done, nothing done twice,
//! nothing blocked, and everything recovers by itself.
#![cfg(all(unix, feature = "testing", feature = "sql"))]
#![allow(unreachable_pub, missing_docs, reason = "a test has no users")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod lies;
mod outages;
mod overload;
mod races;
mod scenario;
mod statements;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::proxy::Proxy;
use common::servers::{Database, Server};
use xm_store::sql::{SqlPlacements, open_router};
use xm_store::testing::{at, name, profile, request_id};
use xm_store::{OpenError, StoreError};
use xmmep::name::Email;
use xmmep::secret::{KdfParams, KeyHash, Salt, TokenHash};

/// A call is answered within this, come what may: the stores promise "some seconds", and this machine may be busy.
pub const CALL_MAX: Duration = Duration::from_secs(15);
/// A store works again within this once its server does.
pub const RECOVERY_MAX: Duration = Duration::from_secs(30);

/// A name, an address, a token and a request made of a number.
pub fn form(number: u64, spelling: &str) -> xm_store::records::NewPlacement {
    xm_store::records::NewPlacement {
        request: request_id(number),
        name: name(spelling),
        email: Email::new(&format!("user{number}@example.org")).expect("an address"),
        salt: Salt([5; 16]),
        kdf: KdfParams { memory_kib: 19_456, passes: 2, lanes: 1 },
        key_hash: KeyHash::from_bytes([1; 32]),
        token: token(number),
        expires: at(7 * 24 * 3600),
        profile: profile("about"),
    }
}

pub fn token(number: u64) -> TokenHash {
    TokenHash::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// Whether a caller should call again: the store is away, busy or in a conflict.
pub fn is_passing(error: &StoreError) -> bool {
    matches!(error, StoreError::Unavailable(_) | StoreError::Busy(_) | StoreError::Conflict(_))
}

/// Calls again until the store answers, as every caller does. A store that knows that its database is away says so at
/// once, so there is a pause in between.
pub async fn again<T, F>(what: &str, call: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, StoreError>>,
{
    let since = Instant::now();
    let mut pause = tokio::time::interval(Duration::from_millis(50));
    loop {
        pause.tick().await;
        match in_time(what, call()).await {
            Ok(answer) => return answer,
            Err(error) if is_passing(&error) && since.elapsed() < RECOVERY_MAX => {}
            Err(error) => panic!("{what}: {error}"),
        }
    }
}

/// The answer, which must come.
pub async fn in_time<T>(what: &str, call: impl Future<Output = T>) -> T {
    tokio::time::timeout(CALL_MAX, call).await.unwrap_or_else(|_| panic!("{what} did not end"))
}

/// RouterDB behind a proxy.
pub struct Behind {
    pub store: Arc<SqlPlacements>,
    pub proxy: Proxy,
    pub database: Database,
}

impl Behind {
    pub async fn new(server: &'static Server) -> Self {
        let (proxy, database) = (Proxy::of(server).await, server.database("RouterDB"));
        let store = open_router(&server.url_at(proxy.port(), database.name())).await.expect("it opens");
        Self { store: Arc::new(store), proxy, database }
    }

    /// The same database, past the proxy.
    pub async fn beside(&self) -> SqlPlacements {
        open_router(&self.database.url()).await.expect("it opens")
    }
}

/// The error of opening RouterDB.
pub async fn refusal(url: &str) -> OpenError {
    match in_time("opening", open_router(url)).await {
        Ok(_) => panic!("{url} must be refused"),
        Err(error) => error,
    }
}

/// Emits a test per engine of an async function that takes its server.
macro_rules! on_each_engine {
    ($($test:ident),* $(,)?) => {
        mod mariadb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(server) = $crate::common::servers::mariadb() {
                    super::$test(server).await;
                }
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(server) = $crate::common::servers::postgres() {
                    super::$test(server).await;
                }
            })*
        }
    };
}
pub(crate) use on_each_engine;

/// The same for a test that hurts its server and gets one of its own.
macro_rules! on_own_servers {
    ($($test:ident),* $(,)?) => {
        mod own_mariadb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(server) = $crate::common::servers::Server::own($crate::common::servers::Engine::MariaDb) {
                    super::$test(&server).await;
                }
            })*
        }
        mod own_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                if let Some(server) = $crate::common::servers::Server::own($crate::common::servers::Engine::Postgres) {
                    super::$test(&server).await;
                }
            })*
        }
    };
}
pub(crate) use on_own_servers;
