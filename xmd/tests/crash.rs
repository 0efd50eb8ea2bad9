//! `kill -9` of the server at any moment loses no ticked message, shows none twice and keeps each sender's order. The real
//! daemon on a real disk or with a real database server, real clients with journals on disk.
//!
//! More kills: `XM_KILLS=100 cargo test -p xmd --test crash`

mod common;
#[path = "../../xm-store/tests/common/mod.rs"]
mod databases;

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use common::{Home, PATIENCE, Record, Session, USERS, log_in};
use databases::servers::{Engine, Server as Database};

/// Servers that are killed independently of each other, at the same time.
const SERVERS: u64 = 5;
/// Texts that each user sends to each other one between two kills.
const TEXTS: usize = 4;

fn kills(default: u64) -> u64 {
    std::env::var("XM_KILLS").map_or(default, |text| text.parse().expect("XM_KILLS is a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_any_moment_loses_no_ticked_message_and_shows_none_twice() {
    let each = kills(25).div_ceil(SERVERS);
    let worlds = (1..=SERVERS).map(|seed| tokio::spawn(async move { world(seed, each, Home::new().await).await }));
    for (seed, world) in (1..).zip(worlds.collect::<Vec<_>>()) {
        let told = world.await.unwrap_or_else(|panic| panic!("seed {seed}: {panic}"));
        println!("seed {seed}: {told}");
    }
}

/// Messages wait in the database, too: nothing but keys is on the disk of the server that is killed.
async fn kill_9_with(engine: Engine) {
    let Some(database) = Database::own(engine) else { return };
    let home = Home::with_server(&database.url(""), "sql").await;
    world(6, kills(25).div_ceil(SERVERS), home).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_with_everything_in_mariadb_loses_no_ticked_message_and_shows_none_twice() {
    kill_9_with(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_with_everything_in_postgresql_loses_no_ticked_message_and_shows_none_twice() {
    kill_9_with(Engine::Postgres).await;
}

/// One server and its users through some kills; says what happened.
async fn world(seed: u64, kills: u64, home: Home) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    let people = &home.people;
    let record = Arc::new(Record::default());
    for _ in 0..kills {
        let server = home.start();
        let away = rng.random_range(0..USERS);
        let mut sessions = log_in(&home, &record, Some(away)).await;
        record.ticks_until_kill(rng.random_range(1..=TEXTS * (USERS - 1) * (USERS - 1)));
        for number in 0..TEXTS {
            for (from, session) in &sessions {
                for (to, person) in people.iter().enumerate().filter(|(to, _)| to != from) {
                    let id =
                        session.client.send_text(person.user, &format!("{number}")).await.expect("the queue has room");
                    record.sent(people[*from].user, people[to].user, id);
                }
            }
        }
        // Whatever is under way at that tick, it ends here.
        tokio::time::timeout(PATIENCE, record.kill_now.notified()).await.expect("ticks come");
        server.kill();
        futures_util::future::join_all(sessions.drain().map(|(_, session)| session.leave())).await;
    }

    let server = home.start();
    let sessions = log_in(&home, &record, None).await;
    let all = tokio::time::timeout(PATIENCE, record.wait_until_all_is_delivered()).await;
    assert!(all.is_ok(), "not delivered: {:?}", record.undelivered());
    futures_util::future::join_all(sessions.into_values().map(Session::leave)).await;
    server.stop();
    record.check()
}
