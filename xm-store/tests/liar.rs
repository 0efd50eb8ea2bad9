//! The lying database is a database but for its lies; the drivers neither believe it nor wait for it.
#![cfg(all(unix, feature = "sql"))]

mod common;

use std::time::Duration;

use common::liar::{Liar, Lie, lies};
use common::servers::Engine;
use common::wire::{mysql_packet, postgres_message};
use sea_orm::{ConnectOptions, ConnectionTrait, DbBackend, DbErr, Statement};

/// Half of what the lies declare. The drivers' panics are far below it, and need it: printing where one happened reads the
/// debug information of the whole test, some hundred MiB, where the environment asks for that.
const MEMORY_MAX: u64 = 512 << 20;
const TIME_MAX: Duration = Duration::from_secs(10);

/// Asks for the column `n`.
async fn ask(engine: Engine, url: String) -> Result<i64, DbErr> {
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).acquire_timeout(Duration::from_secs(5));
    let database = sea_orm::Database::connect(options).await?;
    let backend = if engine == Engine::MariaDb { DbBackend::MySql } else { DbBackend::Postgres };
    // With values, if none, so that it is prepared.
    let statement = Statement::from_sql_and_values(backend, "SELECT n FROM t", []);
    let row = database.query_one_raw(statement).await?;
    row.ok_or(DbErr::RecordNotFound("no row".into()))?.try_get("", "n")
}

fn truth(engine: Engine) -> Lie {
    let answer = match engine {
        Engine::MariaDb => [
            mysql_packet(1, &[1]),
            mysql_packet(2, b"\x03def\0\x01t\x01t\x01n\x01n\x0c\x2d\0\x14\0\0\0\x08\0\0\0\0\0"),
            mysql_packet(3, b"\0\0\x07\0\0\0\0\0\0\0"),
            mysql_packet(4, &[0xfe, 0, 0, 2, 0, 0, 0]),
        ]
        .concat(),
        Engine::Postgres => [
            postgres_message(b'2', &[]),
            postgres_message(b'D', b"\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x07"),
            postgres_message(b'C', b"SELECT 1\0"),
            postgres_message(b'Z', b"I"),
        ]
        .concat(),
    };
    Lie { name: "the truth", prepared: None, answer }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lie_it_is_a_database() {
    for engine in [Engine::MariaDb, Engine::Postgres] {
        let liar = Liar::start(engine, truth(engine)).await;
        assert_eq!(ask(engine, liar.url("db")).await, Ok(7), "{engine:?}");
    }
}

/// The drivers panic at some of them (sqlx 0.9): the stores have to contain that.
#[tokio::test(flavor = "multi_thread")]
async fn no_lie_is_believed_or_waited_for_and_none_costs_memory() {
    let before = common::memory_peak();
    let mut wrong = Vec::new();
    for engine in [Engine::MariaDb, Engine::Postgres] {
        for lie in lies(engine) {
            let name = lie.name;
            let liar = Liar::start(engine, lie).await;
            let asked = tokio::spawn(ask(engine, liar.url("db")));
            match tokio::time::timeout(TIME_MAX, asked).await {
                Ok(Ok(Err(_)) | Err(_)) => {}
                Ok(Ok(Ok(number))) => wrong.push(format!("{engine:?}: {name}: {number} was believed")),
                Err(_) => wrong.push(format!("{engine:?}: {name}: it never ended")),
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let used = common::memory_peak() - before;
    assert!(used < MEMORY_MAX, "{used} bytes");
}
