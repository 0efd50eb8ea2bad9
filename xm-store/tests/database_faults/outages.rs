//! The server is down, comes back, is killed in the middle, stands still, or somebody holds a table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use xm_store::placements::Registration;
use xm_store::sql::open_router;
use xm_store::testing::{at, name};
use xm_store::{OpenError, Placements, StoreError};
use xmmep::types::UserId;

use super::{Behind, again, form, in_time, is_passing, on_each_engine, on_own_servers, refusal};
use crate::common::proxy::{Fault, Proxy};
use crate::common::servers::{Engine, Server};
use crate::common::wire::{Kind, Request, mysql_packet, postgres_message};

on_own_servers!(
    a_server_that_is_down_at_start_is_named_and_later_found,
    a_server_that_comes_back_is_used_again,
    a_server_killed_in_the_middle_has_done_all_or_nothing,
    a_server_that_stands_still_holds_up_nobody,
);

on_each_engine!(
    a_table_that_somebody_holds_ends_calls_in_time,
    a_server_that_falls_silent_while_it_is_opened_is_named_in_time,
    connections_that_never_answer_again_are_given_up,
    a_disk_that_fails_under_a_commit_of_a_server_stops_nothing,
);

/// The event loop may be late by this much: the machine may be busy, but a blocked loop is late by seconds.
const LATE_MAX: Duration = Duration::from_millis(500);
/// What is known to be away is not asked.
const AT_ONCE: Duration = Duration::from_millis(250);

async fn a_server_that_is_down_at_start_is_named_and_later_found(server: &Server) {
    let url = server.url("RouterDB");
    server.stop_immediately();
    let error = refusal(&url).await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{}/RouterDB", server.port())), "{text}");
    assert!(!text.contains(&server.password()), "{text}");
    server.start_again();
    let store = open_router(&url).await.expect("now it opens");
    assert_eq!(store.by_user(UserId(1)).await.unwrap(), None);
}

async fn a_server_that_comes_back_is_used_again(server: &Server) {
    let store = open_router(&server.url("RouterDB")).await.expect("it opens");
    let ann = store.register(form(1, "Ann"), at(0)).await.unwrap();
    for round in 0..2 {
        server.stop_immediately();
        let read = in_time("reading", store.by_name(&name("Ann"))).await;
        assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
        let since = Instant::now();
        let write = in_time("writing", store.register(form(2, "Bob"), at(0))).await;
        assert!(matches!(write, Err(StoreError::Unavailable(_))), "{write:?}");
        assert!(since.elapsed() < AT_ONCE, "{:?}: it is known to be away", since.elapsed());
        server.start_again();
        let found = again("reading", || async { store.by_name(&name("Ann")).await }).await.expect("she is kept");
        assert_eq!(Registration::Registered(found.user), ann);
        let new = form(10 + round, &format!("New{round}"));
        let made = again("writing", || store.register(new.clone(), at(1))).await;
        assert!(matches!(made, Registration::Registered(_)), "{made:?}");
    }
}

async fn connect(url: &str) -> DatabaseConnection {
    sea_orm::Database::connect(url).await.expect("the server is there")
}

async fn count(database: &DatabaseConnection, table: &str) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM {table}");
    let row = database.query_one_raw(Statement::from_string(database.get_database_backend(), sql)).await;
    row.expect("it answers").expect("with a row").try_get_by_index(0).expect("a number")
}

async fn a_server_killed_in_the_middle_has_done_all_or_nothing(server: &Server) {
    let proxy = Proxy::of(server).await;
    let store = Arc::new(open_router(&server.url_at(proxy.port(), "RouterDB")).await.expect("it opens"));
    let moments: [fn(&Request) -> bool; 4] = [
        |request| request.sql.contains("placements") && request.sql.starts_with("INSERT"),
        |request| request.sql.contains("requests") && request.sql.starts_with("INSERT"),
        Request::is_commit,
        |request| request.kind == Kind::Run && request.sql.contains("requests"),
    ];
    for (number, moment) in (1..).zip(moments) {
        let ann = form(number, &format!("Ann{number}"));
        // The moment is told, and nothing else is done to the connection.
        let (sender, mut reached) = tokio::sync::mpsc::unbounded_channel();
        let tell = move |request: &Request| {
            if moment(request) {
                let _ = sender.send(());
            }
            false
        };
        proxy.when(tell, Fault::Before);
        let (calling, form) = (store.clone(), ann.clone());
        let call = tokio::spawn(async move { calling.register(form, at(0)).await });
        reached.recv().await.expect("the moment comes");
        server.stop_immediately();
        let answer = in_time("registering", call).await.expect("no panic");
        if let Err(error) = &answer {
            assert!(is_passing(error), "{number}: {error}");
        }
        server.start_again();

        let beside = connect(&server.admin_url("RouterDB")).await;
        let (placements, requests) = (count(&beside, "placements").await, count(&beside, "requests").await);
        assert_eq!(placements, requests, "{number}: half a registration");
        assert!(placements == number as i64 || (placements == number as i64 - 1 && answer.is_err()), "{number}");
        let made = again("registering", || store.register(ann.clone(), at(1))).await;
        let found = again("reading", || store.by_name(&ann.name)).await.expect("he is there");
        assert_eq!(made, Registration::Registered(found.user), "{number}");
        assert_eq!(count(&beside, "placements").await, number as i64, "{number}: exactly one");
        proxy.disarm();
    }
}

async fn a_server_that_stands_still_holds_up_nobody(server: &Server) {
    let store = Arc::new(open_router(&server.url("RouterDB")).await.expect("it opens"));
    store.register(form(1, "Ann"), at(0)).await.unwrap();
    server.pause();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..40 {
        let store = store.clone();
        calls.spawn(async move {
            match number % 2 {
                0 => store.by_user(UserId(number)).await.map(|_| ()),
                _ => store.register(form(number, &format!("user{number}")), at(0)).await.map(|_| ()),
            }
        });
    }
    let mut beats = tokio::time::interval(Duration::from_millis(5));
    let (since, mut last, mut latest) = (Instant::now(), Instant::now(), Duration::ZERO);
    while !calls.is_empty() {
        tokio::select! {
            _ = beats.tick() => {
                latest = latest.max(last.elapsed());
                last = Instant::now();
            }
            Some(ended) = calls.join_next() => {
                let ended = ended.expect("no panic");
                assert!(ended.as_ref().is_err_and(is_passing), "{ended:?}");
            }
        }
        assert!(since.elapsed() < super::CALL_MAX, "{} calls hang", calls.len());
    }
    assert!(latest < LATE_MAX, "the event loop was late by {latest:?}");
    server.resume();
    again("reading", || async { store.by_name(&name("Ann")).await }).await.expect("she is kept");
    again("writing", || store.register(form(1_000, "Bob"), at(1))).await;
}

async fn a_table_that_somebody_holds_ends_calls_in_time(server: &'static Server) {
    let behind = Behind::new(server).await;
    behind.store.register(form(1, "Ann"), at(0)).await.unwrap();
    // One connection: what it holds it holds until it is told otherwise.
    let mut options = sea_orm::ConnectOptions::new(server.admin_url(behind.database.name()));
    options.max_connections(1);
    let holder = sea_orm::Database::connect(options).await.unwrap();
    let (lock, unlock) = match server.engine() {
        Engine::MariaDb => ("LOCK TABLES placements WRITE", "UNLOCK TABLES"),
        Engine::Postgres => ("BEGIN; LOCK TABLE placements IN ACCESS EXCLUSIVE MODE", "COMMIT"),
    };
    holder.execute_unprepared(lock).await.unwrap();
    let (reading, writing) = tokio::join!(
        in_time("reading", behind.store.by_user(UserId(1))),
        in_time("writing", behind.store.register(form(2, "Bob"), at(0))),
    );
    assert!(reading.as_ref().is_err_and(is_passing), "{reading:?}");
    assert!(writing.as_ref().is_err_and(is_passing), "{writing:?}");
    holder.execute_unprepared(unlock).await.unwrap();
    again("reading", || async { behind.store.by_name(&name("Ann")).await }).await.expect("she is kept");
    let made = again("writing", || behind.store.register(form(2, "Bob"), at(1))).await;
    assert!(matches!(made, Registration::Registered(_)), "{made:?}");
}

async fn a_server_that_falls_silent_while_it_is_opened_is_named_in_time(server: &'static Server) {
    let database = server.database("RouterDB");
    open_router(&database.url()).await.expect("it is made").close().await;
    let mut openers = tokio::task::JoinSet::new();
    for n in 1..=48 {
        let proxy = Proxy::of(server).await;
        proxy.at(n, Fault::Answer(Vec::new()));
        let url = server.url_at(proxy.port(), database.name());
        openers.spawn(async move {
            // A store that opened all the same did so before the fault, or over another connection.
            let opened = in_time(&format!("opening, silent at {n}"), open_router(&url)).await.map(|_| ());
            assert!(matches!(opened, Ok(()) | Err(OpenError::Unreachable { .. })), "{n}: {opened:?}");
            (opened.is_err(), proxy.disarm())
        });
    }
    let ended = openers.join_all().await;
    assert!(ended.iter().filter(|(failed, struck)| *failed && *struck).count() >= 5, "{ended:?}");
    assert!(ended.iter().any(|(_, struck)| !struck), "opening takes more statements: {ended:?}");
}

async fn connections_that_never_answer_again_are_given_up(server: &'static Server) {
    let behind = Behind::new(server).await;
    // One more than there are connections to write.
    for number in 1..=3 {
        let silence = Fault::Answer(Vec::new());
        behind.proxy.when(|request| request.kind == Kind::Run && request.sql.starts_with("INSERT"), silence);
        let call = in_time("writing", behind.store.register(form(number, &format!("Ann{number}")), at(0))).await;
        // A second try of the store's own may have gone through.
        assert!(call.as_ref().err().is_none_or(is_passing), "{number}: {call:?}");
        assert!(behind.proxy.disarm(), "{number}: it did not strike");
        // Until the next try makes sense.
        again("reading", || async { behind.store.by_name(&name("Ann")).await }).await;
    }
    for number in 1..=3 {
        let made = again("writing", || behind.store.register(form(number, &format!("Ann{number}")), at(1))).await;
        assert!(matches!(made, Registration::Registered(_)), "{made:?}");
    }
}

/// What a server says whose disk failed: MySQL's "error writing file", PostgreSQL's `io_error`.
fn disk_failed(engine: Engine) -> Vec<u8> {
    match engine {
        Engine::MariaDb => {
            let number = 1026_u16.to_le_bytes();
            mysql_packet(1, &[&[0xff], &number[..], b"#HY000Error writing file"].concat())
        }
        Engine::Postgres => postgres_message(b'E', b"SERROR\0VERROR\0C58030\0Mcould not write\0\0"),
    }
}

async fn a_disk_that_fails_under_a_commit_of_a_server_stops_nothing(server: &'static Server) {
    let place = Behind::new(server).await;
    let ann = form(1, "Ann");
    place.proxy.when(Request::is_commit, Fault::LastWords(disk_failed(server.engine())));
    let said = in_time("a commit", place.store.register(ann.clone(), at(0))).await;
    assert!(place.proxy.disarm(), "it came to a commit");
    // Whether it was made is not known here: to be asked again, and of a server that is not given up.
    assert!(matches!(said, Err(StoreError::Unavailable(_))), "{said:?}");
    let made = again("the same once more", || place.store.register(ann.clone(), at(0))).await;
    assert!(matches!(made, Registration::Registered(_)), "{made:?}");
}
