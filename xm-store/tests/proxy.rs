//! The proxy in front of a database breaks exactly what a test asks it to break.
#![cfg(all(unix, feature = "sql"))]

mod common;

use std::time::{Duration, Instant};

use common::proxy::{Fault, Mode, Proxy};
use common::servers::{Database, Engine, Server, mariadb, postgres};
use common::wire::{Kind, Request, mysql_packet, postgres_message};
use sea_orm::{ConnectOptions, ConnectionTrait, DatabaseConnection, DbErr, Statement, TransactionTrait};

/// Longer than any answer takes, short enough to wait for.
const A_WHILE: Duration = Duration::from_millis(300);

/// A table of a test's own, and the proxy in front of it.
struct Bench {
    server: &'static Server,
    proxy: Proxy,
    database: Database,
}

impl Bench {
    async fn new(server: &'static Server) -> Self {
        let database = server.database("RouterDB");
        server.execute(server.engine().home(), &create(server.engine(), database.name()));
        let bench = Self { server, proxy: Proxy::of(server).await, database };
        bench.connect().await.execute_unprepared("CREATE TABLE t (n BIGINT)").await.expect("a table is made");
        bench
    }

    /// One connection through the proxy.
    async fn connect(&self) -> DatabaseConnection {
        let url = self.server.url_at(self.proxy.port(), self.database.name());
        let mut options = ConnectOptions::new(url);
        options.max_connections(1).min_connections(1).test_before_acquire(false);
        sea_orm::Database::connect(options).await.expect("the proxy lets it pass")
    }

    /// What is in the table, seen past the proxy.
    async fn rows(&self) -> Vec<i64> {
        let database = sea_orm::Database::connect(self.database.url()).await.expect("the server is there");
        let rows = database.query_all_raw(statement(self.server.engine(), "SELECT n FROM t ORDER BY n", &[])).await;
        let rows = rows.expect("it answers");
        rows.iter().map(|row| row.try_get_by_index(0).expect("numbers")).collect()
    }
}

fn create(engine: Engine, name: &str) -> Vec<String> {
    match engine {
        Engine::MariaDb => vec![format!("CREATE DATABASE `{name}`")],
        Engine::Postgres => vec![format!("CREATE DATABASE \"{name}\" OWNER messenger")],
    }
}

fn statement(engine: Engine, sql: &str, values: &[i64]) -> Statement {
    let (backend, sql) = match engine {
        Engine::MariaDb => (sea_orm::DbBackend::MySql, sql.replace("$1", "?")),
        Engine::Postgres => (sea_orm::DbBackend::Postgres, sql.to_owned()),
    };
    Statement::from_sql_and_values(backend, sql, values.iter().map(|value| (*value).into()))
}

async fn insert(database: &impl ConnectionTrait, engine: Engine, number: i64) -> Result<(), DbErr> {
    database.execute_raw(statement(engine, "INSERT INTO t VALUES ($1)", &[number])).await.map(|_| ())
}

/// Runs a test on each engine there is.
async fn on_both<F: Future<Output = ()>>(test: impl Fn(Bench) -> F) {
    for server in [mariadb(), postgres()].into_iter().flatten() {
        test(Bench::new(server).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_seen_with_its_statement() {
    on_both(|bench| async move {
        let engine = bench.server.engine();
        let database = bench.connect().await;
        assert!(bench.proxy.requests().iter().any(|request| request.kind == Kind::Login), "{engine:?}");
        let txn = database.begin().await.unwrap();
        insert(&txn, engine, 1).await.unwrap();
        insert(&txn, engine, 2).await.unwrap();
        txn.commit().await.unwrap();
        let seen = bench.proxy.requests();
        let of = |kind: Kind| {
            seen.iter().filter(move |request| request.kind == kind && request.sql.starts_with("INSERT INTO t"))
        };
        assert_eq!(of(Kind::Prepare).count(), 1, "{engine:?}: {seen:?}");
        assert_eq!(of(Kind::Run).count(), 2, "{engine:?}: {seen:?}");
        assert_eq!(seen.iter().filter(|request| request.is_commit()).count(), 1, "{engine:?}: {seen:?}");
        // A connection that goes back into its pool asks whether the server is there.
        let last = seen.iter().rfind(|request| request.kind != Kind::Other);
        assert!(last.is_some_and(Request::is_commit), "{engine:?}: {seen:?}");
        assert_eq!(bench.rows().await, [1, 2], "{engine:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_lost_before_or_after_the_server_did_what_was_asked() {
    on_both(|bench| async move {
        let engine = bench.server.engine();
        let faults = [Fault::Before, Fault::After, Fault::BeforeAll, Fault::AfterAll];
        let mut expected = Vec::new();
        for (number, fault) in (1..).zip(faults) {
            let database = bench.connect().await;
            let other = bench.connect().await;
            let all = matches!(fault, Fault::BeforeAll | Fault::AfterAll);
            if matches!(fault, Fault::After | Fault::AfterAll) {
                expected.push(number);
            }
            bench.proxy.when(|request| request.kind == Kind::Run && request.sql.starts_with("INSERT"), fault.clone());
            assert!(insert(&database, engine, number).await.is_err(), "{engine:?} {fault:?}");
            assert!(bench.proxy.disarm(), "{engine:?} {fault:?}: it did not strike");
            assert_eq!(bench.rows().await, expected, "{engine:?} {fault:?}");
            assert_eq!(other.ping().await.is_err(), all, "{engine:?} {fault:?}: the other connection");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_a_commit_was_made_stays_unknown_to_the_client() {
    on_both(|bench| async move {
        let engine = bench.server.engine();
        for (number, fault, is_made) in [(1, Fault::Before, false), (2, Fault::After, true)] {
            let database = bench.connect().await;
            let txn = database.begin().await.unwrap();
            insert(&txn, engine, number).await.unwrap();
            bench.proxy.when(Request::is_commit, fault);
            assert!(txn.commit().await.is_err(), "{engine:?}");
            assert_eq!(bench.rows().await.contains(&number), is_made, "{engine:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nth_request_is_the_nth() {
    on_both(|bench| async move {
        let engine = bench.server.engine();
        let database = bench.connect().await;
        insert(&database, engine, 1).await.unwrap();
        bench.proxy.at(3, Fault::Before);
        // Prepared already: one request each.
        insert(&database, engine, 2).await.unwrap();
        insert(&database, engine, 3).await.unwrap();
        assert!(insert(&database, engine, 4).await.is_err(), "{engine:?}");
        assert_eq!(bench.rows().await, [1, 2, 3], "{engine:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_held_and_delayed() {
    on_both(|bench| async move {
        let engine = bench.server.engine();
        let database = bench.connect().await;
        bench.proxy.set(Mode::Hold);
        let mut answer = tokio::spawn(async move {
            insert(&database, engine, 1).await.unwrap();
            database
        });
        let held = tokio::time::timeout(A_WHILE, &mut answer).await;
        assert!(held.is_err(), "{engine:?}: it came through");
        bench.proxy.set(Mode::Pass);
        let database = answer.await.unwrap();
        assert_eq!(bench.rows().await, [1], "{engine:?}");

        bench.proxy.set(Mode::Delay(A_WHILE));
        let since = Instant::now();
        insert(&database, engine, 2).await.unwrap();
        assert!(since.elapsed() >= A_WHILE, "{engine:?}: {:?}", since.elapsed());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_proxy_takes_connections_and_a_refusing_one_closes_them() {
    on_both(|bench| async move {
        let engine = bench.server.engine();
        let database = bench.connect().await;
        bench.proxy.set(Mode::Silent);
        let asked = tokio::time::timeout(A_WHILE, insert(&database, engine, 1)).await;
        assert!(asked.is_err(), "{engine:?}: it is silent, not gone");
        let asked = tokio::time::timeout(A_WHILE, bench.connect()).await;
        assert!(asked.is_err(), "{engine:?}: newcomers hear nothing either");
        bench.proxy.set(Mode::Refuse);
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", bench.proxy.port())).await.unwrap();
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{engine:?}: {read:?}");
        bench.proxy.set(Mode::Pass);
        insert(&bench.connect().await, engine, 2).await.unwrap();
        assert!(bench.rows().await.contains(&2), "{engine:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_hears_what_the_test_puts_in_the_place_of_an_answer() {
    on_both(|bench| async move {
        let engine = bench.server.engine();
        let database = bench.connect().await;
        let error = match engine {
            Engine::MariaDb => mysql_packet(1, b"\xff\x15\x04#28000made up"),
            Engine::Postgres => {
                [postgres_message(b'E', b"SERROR\0C28000\0Mmade up\0\0"), postgres_message(b'Z', b"I")].concat()
            }
        };
        bench.proxy.when(|request| request.sql.starts_with("INSERT"), Fault::Answer(error));
        let text = insert(&database, engine, 1).await.expect_err("it hears an error").to_string();
        assert!(text.contains("made up"), "{engine:?}: {text}");
        assert_eq!(bench.rows().await, Vec::<i64>::new(), "{engine:?}");
    })
    .await;
}
