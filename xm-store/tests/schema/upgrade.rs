//! Older databases, and those whose migration was cut off, are brought to the newest schema by opening them.

use sea_orm::{ConnectionTrait, DatabaseConnection};
use xm_store::folding::fold;
use xm_store::offline::Appended;
use xm_store::records::{Findable, Level, Parcel, ParcelId, Place as At};
use xm_store::search::{Condition, Key, Mode, Query};
use xm_store::sql::{Schema, SqlPresence, open_presence};
use xm_store::{Accounts, Contacts, Offline, Search};
use xmmep::types::{GroupId, MsgId, UserId, WallTime};

use super::facts::{described, facts};
use super::{Engine, SCHEMAS};

async fn connect(url: &str) -> DatabaseConnection {
    sea_orm::Database::connect(url).await.expect("it connects")
}

async fn run(db: &DatabaseConnection, sql: &str) {
    db.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Bytes as each engine writes them.
fn blob(engine: Engine, bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    match engine {
        Engine::Postgres => format!("'\\x{digits}'"),
        _ => format!("x'{digits}'"),
    }
}

/// Two people with all that the first step has a table for, as a server of that version left it.
async fn live_in(engine: Engine, url: &str) {
    let db = connect(url).await;
    let bytes = |bytes: &[u8]| blob(engine, bytes);
    for (user, name, nickname) in [(1, "ann", "Ann 李 🙂"), (2, "bob", "B'o\"b %_")] {
        let nickname = nickname.replace('\'', "''");
        let (folded, key) = (bytes(name.as_bytes()), bytes(&[user; 32]));
        run(&db, &format!("INSERT INTO accounts VALUES ({user}, '{name}', {folded}, '{name}@example.org', {key}, 5, NULL, 3, 7, '{nickname}', '', '', 'Bern', 2, NULL)")).await;
        run(&db, &format!("INSERT INTO rosters VALUES ({user}, 4, 9)")).await;
    }
    run(&db, &format!("INSERT INTO roster_groups VALUES (1, 9, {})", bytes(b"friends"))).await;
    run(&db, "INSERT INTO relations VALUES (1, 2, 'ann', 'bob', 9, 'my Bob', 2, 5, 'hello')").await;
    run(&db, "INSERT INTO blocks VALUES (2, 3, 'eve', 6)").await;
    for (place, level, body) in [(11, 0, &b"waits"[..]), (12, 1, b"")] {
        let (msg, hash) = (bytes(&[place; 16]), bytes(blake3::hash(body).as_bytes()));
        let (body, len) = (bytes(body), body.len());
        run(&db, &format!("INSERT INTO parcels VALUES ({place}, 2, 1, {msg}, 8, {body}, {len}, {hash}, {level}, 8)"))
            .await;
    }
    db.close().await.expect("it closes");
}

async fn finds(store: &SqlPresence, text: &str) -> Vec<UserId> {
    let condition = Condition::new(Key::NameOrNickname, Mode::Part, text).expect("a condition");
    let query = Query::new(UserId(1), vec![condition]).expect("a query");
    store.find(&query, None, 10).await.expect("it finds").cards.iter().map(|card| card.user).collect()
}

/// All that [`live_in`] put there is there, and what newer steps added has its default.
async fn still_live_in(store: &SqlPresence) {
    let (ann, bob) = (UserId(1), UserId(2));
    let account = store.by_user(ann).await.expect("it reads").expect("ann has an account");
    assert_eq!((account.name.as_str(), &*account.profile.nickname, account.failed_attempts), ("ann", "Ann 李 🙂", 3));
    assert_eq!((account.findable, account.profile_version), (Findable::default(), 1));
    let roster = store.load(ann).await.expect("it loads");
    assert_eq!(
        roster.groups.iter().map(|group| (group.group, &*group.name)).collect::<Vec<_>>(),
        [(GroupId(9), "friends")]
    );
    assert_eq!(
        roster.buddies.iter().map(|one| (one.buddy.user, &*one.display_name)).collect::<Vec<_>>(),
        [(bob, "my Bob")]
    );
    assert_eq!((roster.version.0, store.load(bob).await.expect("it loads").blocked.len()), (5, 1));
    let waiting = Parcel { from: ann, id: MsgId([11; 16]), sent: WallTime(8), body: b"waits".to_vec() };
    assert_eq!(store.page(bob, At::START, 10, 1_000).await.expect("it reads"), [(At(11), waiting.clone())]);
    let settled = ParcelId { from: ann, id: MsgId([12; 16]) };
    assert_eq!(store.level(bob, settled).await.expect("it reads"), Some(Level::Received));
    assert_eq!(finds(store, "李").await, [ann], "{:?}", fold("李"));
    assert_eq!(finds(store, "%_").await, [bob]);
    // And it goes on: what is known is known, what is new gets a place of its own.
    let new = Parcel { id: MsgId([13; 16]), ..waiting.clone() };
    let appended = store.append(bob, vec![waiting, new]).await.expect("there is room");
    assert_eq!(appended[0], Appended::Already(At(11), Level::Stored));
    assert!(matches!(appended[1], Appended::Stored(place) if place > At(12)), "{appended:?}");
}

async fn an_old_database_is_upgraded(engine: Engine) {
    let Some(place) = engine.place("PresenceDB_C1P1") else { return };
    Schema::Presence.migrate_by(&place.url(), 1).await.expect("the first step is made");
    live_in(engine, &place.url()).await;
    if engine == Engine::Postgres {
        // As the server of that version would have left it.
        let db = connect(&place.url()).await;
        run(&db, "SELECT setval('parcels_place_seq', 12)").await;
        db.close().await.expect("it closes");
    }
    let store = open_presence(&place.url()).await.expect("it opens");
    still_live_in(&store).await;
    store.close().await;
    assert!(Schema::Presence.status(&place.url()).await.expect("it opens").pending.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_a_database_of_the_first_version_upgrades_it_with_all_it_holds_on_sqlite() {
    an_old_database_is_upgraded(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_a_database_of_the_first_version_upgrades_it_with_all_it_holds_on_mariadb() {
    an_old_database_is_upgraded(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_a_database_of_the_first_version_upgrades_it_with_all_it_holds_on_postgres() {
    an_old_database_is_upgraded(Engine::Postgres).await;
}

/// The second step of PresenceDB, taken back statement by statement, the last one first.
const UNDO: [&str; 10] = [
    "DROP TABLE search_fills",
    "DROP TABLE search_pairs",
    "DROP INDEX ix_searchables_email_user ON searchables",
    "DROP INDEX ix_searchables_location_user ON searchables",
    "DROP INDEX ix_searchables_nickname_user ON searchables",
    "DROP INDEX ix_searchables_name_user ON searchables",
    "DROP TABLE searchables",
    "ALTER TABLE accounts DROP COLUMN profile_version",
    "ALTER TABLE accounts DROP COLUMN by_email",
    "ALTER TABLE accounts DROP COLUMN in_search",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_mariadb_made_in_part_is_completed_wherever_it_was_cut_off() {
    let Some(place) = Engine::MariaDb.place("PresenceDB_C1P1") else { return };
    let url = place.url();
    Schema::Presence.migrate_by(&url, 1).await.expect("the first step is made");
    live_in(Engine::MariaDb, &url).await;
    Schema::Presence.migrate(&url).await.expect("the second step is made");
    let whole = described(&facts(&url).await);
    for missing in 0..=UNDO.len() {
        let db = connect(&url).await;
        run(&db, "DELETE FROM seaql_migrations WHERE version = 'presence_0002'").await;
        for statement in &UNDO[..missing] {
            run(&db, statement).await;
        }
        db.close().await.expect("it closes");
        Schema::Presence.migrate(&url).await.unwrap_or_else(|error| panic!("{missing} statements missing: {error}"));
        assert_eq!(described(&facts(&url).await), whole, "{missing} statements missing");
    }
    let store = open_presence(&url).await.expect("it opens");
    still_live_in(&store).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_step_that_mariadb_made_in_part_is_completed() {
    for (schema, name) in SCHEMAS {
        let Some(place) = Engine::MariaDb.place(name) else { return };
        schema.migrate(&place.url()).await.expect("it is made");
        let tables = facts(&place.url()).await;
        let whole = described(&tables);
        for table in tables.iter().filter(|table| table.name != super::facts::MIGRATIONS) {
            let db = connect(&place.url()).await;
            run(&db, "DELETE FROM seaql_migrations").await;
            run(&db, &format!("DROP TABLE {}", table.name)).await;
            db.close().await.expect("it closes");
            schema.migrate(&place.url()).await.unwrap_or_else(|error| panic!("{}: {error}", table.name));
            assert_eq!(described(&facts(&place.url()).await), whole, "{}", table.name);
        }
    }
}
