//! The database servers of the tests do what the tests count on: they are real, durable, apart, and gone afterwards.
#![cfg(all(unix, feature = "sql"))]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::servers::{Engine, Server, mariadb, postgres};
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

const BOTH: [Engine; 2] = [Engine::MariaDb, Engine::Postgres];
/// Set for the victim: the engine it starts.
const VICTIM: &str = "XM_STORE_SERVERS_VICTIM";

async fn connect(url: &str) -> DatabaseConnection {
    sea_orm::Database::connect(url).await.unwrap_or_else(|error| panic!("{url}: {error}"))
}

async fn number(database: &DatabaseConnection, sql: &str) -> i64 {
    let row = database.query_one_raw(Statement::from_string(database.get_database_backend(), sql)).await;
    row.expect("it answers").expect("with a row").try_get_by_index(0).expect("that holds a number")
}

/// Connects as the stores will: makes the database, then uses it.
async fn made(server: &Server, name: &str) -> DatabaseConnection {
    let home = match server.engine() {
        Engine::MariaDb => "",
        Engine::Postgres => "postgres",
    };
    let quote = if server.engine() == Engine::MariaDb { '`' } else { '"' };
    let database = connect(&server.url(home)).await;
    let sql = format!("CREATE DATABASE {quote}{name}{quote}");
    database.execute_unprepared(&sql).await.expect("the user may make his databases");
    database.close().await.expect("it closes");
    connect(&server.url(name)).await
}

async fn remember(database: &DatabaseConnection, number: i64) {
    database.execute_unprepared("CREATE TABLE t (n BIGINT)").await.expect("a table is made");
    database.execute_unprepared(&format!("INSERT INTO t VALUES ({number})")).await.expect("a row is made");
}

async fn is_reached_over_tcp_and_the_socket(server: Option<&Server>) {
    let Some(server) = server else { return };
    let name = server.fresh_name("RouterDB");
    let database = made(server, &name).await;
    remember(&database, 7).await;
    let beside = connect(&server.socket_url(&name)).await;
    assert_eq!(number(&beside, "SELECT n FROM t").await, 7);
    let admin = connect(&server.admin_url(&name)).await;
    assert_eq!(number(&admin, "SELECT n FROM t").await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_is_reached_over_tcp_and_the_socket() {
    is_reached_over_tcp_and_the_socket(mariadb()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_reached_over_tcp_and_the_socket() {
    is_reached_over_tcp_and_the_socket(postgres()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_opens_nothing() {
    for server in [mariadb(), postgres()].into_iter().flatten() {
        for url in [server.url(server.engine().home()), server.admin_url(server.engine().home())] {
            let (before, after) = url.split_once('@').unwrap();
            let (user, _) = before.rsplit_once(':').unwrap();
            for wrong in [format!("{user}:wrong@{after}"), format!("{user}@{after}")] {
                assert!(sea_orm::Database::connect(&wrong).await.is_err(), "{wrong}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_comes_back_with_what_was_committed() {
    for engine in BOTH {
        let Some(server) = Server::own(engine) else { continue };
        let database = made(&server, "RouterDB").await;
        remember(&database, 7).await;
        let pid = server.pid();
        server.stop_immediately();
        assert!(!Path::new("/proc").join(pid.to_string()).exists(), "{engine:?}: it is gone");
        assert!(std::net::TcpStream::connect(("127.0.0.1", server.port())).is_err(), "{engine:?}: nobody listens");
        server.start_again();
        assert_ne!(server.pid(), pid, "{engine:?}");
        let again = connect(&server.url("RouterDB")).await;
        assert_eq!(number(&again, "SELECT n FROM t").await, 7, "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_answers_after_it_is_resumed() {
    for engine in BOTH {
        let Some(server) = Server::own(engine) else { continue };
        let database = connect(&server.admin_url(engine.home())).await;
        let sql = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'information_schema'";
        assert_eq!(number(&database, sql).await, 1, "{engine:?}");
        server.pause();
        let mut answer = tokio::spawn(async move { number(&database, sql).await });
        let silent = tokio::time::timeout(Duration::from_millis(300), &mut answer).await;
        assert!(silent.is_err(), "{engine:?}: it answered while it stood still");
        server.resume();
        assert_eq!(answer.await.unwrap(), 1, "{engine:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_flushed() {
    let wanted = [
        (mariadb(), "SELECT CAST(@@innodb_flush_log_at_trx_commit AS SIGNED)"),
        (postgres(), "SELECT count(*) FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'on'"),
    ];
    for ((server, sql), expected) in wanted.into_iter().zip([1, 2]) {
        let Some(server) = server else { continue };
        let database = connect(&server.admin_url(server.engine().home())).await;
        assert_eq!(number(&database, sql).await, expected, "{:?}", server.engine());
    }
}

/// Not a test of its own: the victim, when started by the test below.
#[test]
fn victim() {
    let Some(engine) = std::env::var_os(VICTIM) else { return };
    let engine = if engine == "mariadb" { Engine::MariaDb } else { Engine::Postgres };
    let Some(server) = Server::own(engine) else { return };
    println!("\nstarted {} {} {} .", server.pid(), server.watchdog(), server.directory().display());
    loop {
        std::thread::park();
    }
}

#[test]
fn nothing_outlives_a_test_that_is_killed() {
    for engine in BOTH {
        let mut child = Command::new(std::env::current_exe().expect("this test has a path"))
            .args(["victim", "--exact", "--nocapture", "--test-threads=1"])
            .env(VICTIM, engine.name())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the victim starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        let line = { lines }.find(|line| line.starts_with("started "));
        child.kill().expect("SIGKILL");
        child.wait().expect("it is dead");
        let Some(line) = line else { continue };
        let words: Vec<_> = line.split(' ').collect();
        let ["started", server, watchdog, directory, "."] = words[..] else { panic!("{line:?}") };
        // Waits until that process has ended.
        let wait = |pid: &str| {
            Command::new("tail").arg(format!("--pid={pid}")).args(["-s", "0.1", "-f", "/dev/null"]).status()
        };
        assert!(wait(watchdog).expect("coreutils").success());
        assert!(!Path::new("/proc").join(server).exists(), "{engine:?}: the server lives on");
        assert!(!Path::new(directory).exists(), "{engine:?}: {directory} is left");
    }
}
