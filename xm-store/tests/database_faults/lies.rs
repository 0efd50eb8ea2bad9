//! A database that lies: whatever it answers is an answer or an error, never a panic, never a call that hangs, and costs
//! no memory. The drivers do panic at some lies (sqlx 0.9): what they break is thrown away.

use std::sync::Arc;

use tokio::task::JoinSet;
use xm_store::contacts::Answer;
use xm_store::records::Place;
use xm_store::sql::{SqlPresence, open_presence, open_register, open_router};
use xm_store::testing::{at, name, text};
use xm_store::{RosterError, StoreError};
use xmmep::types::UserId;

use super::{again, in_time, on_each_engine};
use crate::common::liar::{Liar, Lie, lies};
use crate::common::memory_peak;
use crate::common::proxy::{Fault, Proxy};
use crate::common::servers::{Database, Engine, Server};
use crate::common::wire::Kind;

/// Half of what the lies declare. The drivers' panics are far below it, and need it: printing where one happened reads the
/// debug information of the whole test, some hundred MiB, where the environment asks for that.
const MEMORY_MAX: u64 = 512 << 20;
/// Ways to damage an answer.
const DAMAGES: u64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn no_store_opens_on_a_database_that_lies() {
    let before = memory_peak();
    for engine in [Engine::MariaDb, Engine::Postgres] {
        for lie in lies(engine) {
            let what = format!("{engine:?}: {}", lie.name);
            let liar = Liar::start(engine, lie).await;
            let opened = tokio::spawn(async move {
                let router = in_time("opening", open_router(&liar.url("RouterDB"))).await.map(|_| ());
                let presence = in_time("opening", open_presence(&liar.url("PresenceDB_C1P1"))).await.map(|_| ());
                let register = in_time("opening", open_register(&liar.url("RegisterDB"))).await.map(|_| ());
                [router, presence, register]
            });
            for opened in opened.await.unwrap_or_else(|panic| panic!("{what}: {panic}")) {
                assert!(opened.is_err(), "{what}");
            }
        }
    }
    let used = memory_peak() - before;
    assert!(used < MEMORY_MAX, "{used} bytes");
}

on_each_engine!(no_lie_and_no_damage_in_mid_use_brings_a_store_down);

/// A PresenceDB that a proxy stands in front of.
struct Spot {
    store: Arc<SqlPresence>,
    proxy: Proxy,
}

/// Reads and changes of every kind of answer: no row, one row of many columns, many rows, counts.
const CALLS: usize = 7;

async fn call(store: &SqlPresence, which: usize, number: u64) -> Result<(), StoreError> {
    use xm_store::{Accounts, Contacts, Offline};
    let ann = xm_store::records::Person { user: UserId(1), name: name("ann") };
    let roster = |error: RosterError| match error {
        RosterError::Store(error) => Err(error),
        RosterError::Refused(_) => Ok(()),
    };
    match which {
        0 => store.by_user(UserId(1)).await.map(|_| ()),
        1 => store.by_users(&[UserId(1), UserId(2)]).await.map(|_| ()),
        2 => store.load(UserId(1)).await.map(|_| ()),
        3 => store.summary(UserId(1)).await.map(|_| ()),
        4 => store.login_failed(UserId(1), at(number)).await.map(|_| ()),
        5 => store.page(UserId(1), Place::START, 10, 1_000).await.map(|_| ()),
        _ => store.answer(&ann, UserId(2), Answer::Accept, at(number)).await.map(|_| ()).or_else(roster),
    }
}

/// One account, with a roster, for all.
async fn fill(store: &SqlPresence) {
    use xm_store::{Accounts, Contacts, Offline};
    let person = |number, who| xm_store::records::Person { user: UserId(number), name: name(who) };
    for (number, who) in [(1, "ann"), (2, "bob")] {
        let account = xm_store::records::NewAccount {
            user: UserId(number),
            name: name(who),
            email: xmmep::name::Email::new(&format!("{who}@example.org")).unwrap(),
            key_hash: xmmep::secret::KeyHash::from_bytes([1; 32]),
            profile: xm_store::testing::profile("about"),
            created: at(0),
        };
        store.create(account).await.unwrap();
    }
    let ask = xm_store::contacts::Ask {
        me: person(2, "bob"),
        buddy: person(1, "ann"),
        display_name: text("Annie"),
        group: xmmep::types::GroupId::DEFAULT,
        greeting: text("hello"),
        at: at(0),
    };
    store.ask(ask).await.unwrap();
    let parcel = xm_store::records::Parcel {
        from: UserId(2),
        id: xm_store::testing::msg_id(1),
        sent: at(0),
        body: vec![7; 500],
    };
    store.append(UserId(1), vec![parcel]).await.unwrap();
}

async fn place(server: &'static Server, database: &Database) -> Spot {
    let proxy = Proxy::of(server).await;
    let store = open_presence(&server.url_at(proxy.port(), database.name())).await.expect("it opens");
    Spot { store: Arc::new(store), proxy }
}

/// Each call once with this fault in its first answer that matters, and once more without.
async fn bear(place: Spot, faults: Vec<(String, Kind, Fault)>) {
    for (number, (name, kind, fault)) in (100..).zip(faults) {
        for which in 0..CALLS {
            let what = format!("{name}, call {which}");
            place.proxy.when(move |request| request.kind == kind && !request.sql.starts_with("SET"), fault.clone());
            let store = place.store.clone();
            let called = tokio::spawn(async move { in_time("a call", call(&store, which, number)).await });
            // Damage need not be noticed; a panic would be.
            let _ = called.await.unwrap_or_else(|panic| panic!("{what}: {panic}"));
            place.proxy.disarm();
            let store = &place.store;
            again(&what, || async {
                match call(store, which, number).await {
                    // A damaged answer may have been believed on the way to the database's own checks.
                    Err(StoreError::Corrupt(why)) => Err(StoreError::Unavailable(why)),
                    other => other,
                }
            })
            .await;
        }
    }
}

async fn no_lie_and_no_damage_in_mid_use_brings_a_store_down(server: &'static Server) {
    let database = server.database("PresenceDB_C1P1");
    fill(&open_presence(&database.url()).await.unwrap()).await;
    let before = memory_peak();
    let told = lies(server.engine()).into_iter().map(|Lie { name, prepared, answer }| match prepared {
        Some(lie) => (name.to_owned(), Kind::Prepare, Fault::LastWords(lie)),
        None => (name.to_owned(), Kind::Run, Fault::LastWords(answer)),
    });
    let damages = (0..DAMAGES).map(|seed| (format!("damage {seed}"), Kind::Run, Fault::Damaged(seed)));
    let faults: Vec<_> = told.chain(damages).collect();
    let mut places = JoinSet::new();
    for share in faults.chunks(1) {
        places.spawn(bear(place(server, &database).await, share.to_vec()));
    }
    while let Some(ended) = places.join_next().await {
        ended.unwrap_or_else(|panic| panic!("{panic}"));
    }
    let used = memory_peak() - before;
    assert!(used < MEMORY_MAX, "{used} bytes");
}
