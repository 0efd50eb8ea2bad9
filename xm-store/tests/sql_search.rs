//! The search index of a database that is older than it: filled when the database is opened, whatever interrupts that.
#![cfg(all(feature = "testing", feature = "sql"))]

use std::path::Path;

use sea_orm::ConnectionTrait;
use xm_store::accounts::ProfileChanges;
use xm_store::search::{Condition, Key, Mode, Query, Total};
use xm_store::sql::{Schema, SqlPresence, open_presence};
use xm_store::{Accounts, Search};
use xmmep::bounded::Text;
use xmmep::types::UserId;

/// More than two batches of the filling.
const USERS: usize = 2_345;

fn url(directory: &Path) -> String {
    format!("sqlite:{}", directory.join("PresenceDB_C1P1").display())
}

/// Runs statements behind the store's back.
async fn execute(directory: &Path, statements: &[&str]) {
    let database = sea_orm::Database::connect(format!("{}?mode=rwc", url(directory))).await.expect("SQLite opens it");
    for statement in statements {
        database.execute_unprepared(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    database.close().await.expect("it closes");
}

/// How many rows a table has.
async fn rows(directory: &Path, table: &str) -> i64 {
    let database = sea_orm::Database::connect(url(directory)).await.expect("SQLite opens it");
    let count =
        sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, format!("SELECT COUNT(*) AS n FROM {table}"));
    let row = database.query_one_raw(count).await.expect("an answer").expect("a row");
    database.close().await.expect("it closes");
    row.try_get("", "n").expect("a number")
}

/// A database as the first step of the schema left it, with users.
async fn old_database(directory: &Path) {
    open_presence(&url(directory)).await.expect("it opens").close().await;
    let accounts = format!(
        "WITH RECURSIVE ids(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM ids WHERE id < {USERS}) \
         INSERT INTO accounts (user, name, name_folded, email, key_hash, nickname, personal_msg, birthdate, location, \
         gender, created, failed_attempts) SELECT id, 'User' || id, CAST('user' || id AS BLOB), id || '@example.org', \
         zeroblob(32), CASE WHEN id % 5 = 0 THEN 'Ｊörg ' ELSE '王小明' END || id, '', '', 'Berlin', 2, 0, 0 FROM ids"
    );
    let statements = [
        "DROP TABLE searchables",
        "DROP TABLE search_pairs",
        "DROP TABLE search_fills",
        "ALTER TABLE accounts DROP COLUMN in_search",
        "ALTER TABLE accounts DROP COLUMN by_email",
        "ALTER TABLE accounts DROP COLUMN profile_version",
        "DELETE FROM seaql_migrations WHERE version = 'presence_0002'",
        &accounts,
    ];
    execute(directory, &statements).await;
}

async fn found(store: &SqlPresence, key: Key, mode: Mode, text: &str) -> (Vec<u64>, Total) {
    let condition = Condition::new(key, mode, text).expect("a condition");
    let query = Query::new(UserId(9_999), vec![condition]).expect("a query");
    let hits = store.find(&query, None, 50).await.expect("an answer");
    (hits.cards.iter().map(|card| card.user.0).collect(), hits.total)
}

/// Every user is found, by each kind of condition, and none twice.
async fn check(store: &SqlPresence) {
    for number in [1, 999, 1_000, 1_001, 2_000, 2_001, USERS as u64 - 1, USERS as u64] {
        let name = format!("user{number}");
        assert_eq!(found(store, Key::Name, Mode::Whole, &name).await, (vec![number], Total::Exactly(1)));
        let account = store.by_user(UserId(number)).await.expect("an answer").expect("it was there before");
        assert_eq!((account.findable.in_search, account.findable.by_email, account.profile_version), (true, false, 1));
        let (users, _) = found(store, Key::Nickname, Mode::Whole, &account.profile.nickname).await;
        assert_eq!(users, [number]);
    }
    assert_eq!(found(store, Key::Nickname, Mode::Part, "öRG").await.1, Total::Exactly(USERS / 5));
    assert_eq!(found(store, Key::Nickname, Mode::Prefix, "jörg").await.1, Total::Exactly(USERS / 5));
    assert_eq!(found(store, Key::Nickname, Mode::Part, "小明").await.1, Total::More);
    let (users, total) = found(store, Key::Nickname, Mode::Part, "明234").await;
    assert_eq!((users, total), ([vec![234], (2_341..=2_344).collect()].concat(), Total::Exactly(5)));
    let (users, total) = found(store, Key::Email, Mode::Whole, "7@example.org").await;
    assert_eq!((users, total), (vec![], Total::Exactly(0)), "nobody has allowed it");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_an_older_database_are_found_after_the_next_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    old_database(directory.path()).await;
    let store = open_presence(&url(directory.path())).await.expect("it opens");
    check(&store).await;
    store.close().await;
    let store = open_presence(&url(directory.path())).await.expect("it opens again");
    check(&store).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filling_cut_short_goes_on_at_the_next_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    old_database(directory.path()).await;
    Schema::Presence.migrate(&url(directory.path())).await.expect("it migrates");
    // Every commit of the filling, refused: what the one before it left is what a crash leaves.
    let refusal = |last: usize| {
        format!(
            "CREATE TRIGGER crash BEFORE UPDATE ON search_fills WHEN NEW.last_user > {last} \
             BEGIN SELECT RAISE(ABORT, 'crash'); END"
        )
    };
    for last in [0, 1_000, 2_000] {
        execute(directory.path(), &[&refusal(last)]).await;
        let error = open_presence(&url(directory.path())).await.expect_err("it cannot be filled").to_string();
        assert!(error.contains("PresenceDB_C1P1"), "the error names the file: {error}");
        execute(directory.path(), &["DROP TRIGGER crash"]).await;
    }
    let store = open_presence(&url(directory.path())).await.expect("it opens");
    check(&store).await;
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_and_erased_leaves_nothing_in_the_index() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    old_database(directory.path()).await;
    execute(directory.path(), &["DELETE FROM accounts WHERE user > 40"]).await;
    let store = open_presence(&url(directory.path())).await.expect("it opens");
    for user in 1..=40 {
        for (nickname, in_search) in [("Annabel Lee", None), ("Ａnna ¼ 小明", Some(user % 2 == 0)), ("", None)] {
            let nickname = Some(Text::cut(nickname));
            let changes =
                ProfileChanges { nickname, in_search, location: Some(Text::cut("São Paulo")), ..Default::default() };
            store.update_profile(UserId(user), &changes).await.expect("it is made").expect("the user is there");
        }
    }
    store.close().await;
    assert!(rows(directory.path(), "search_pairs").await > 0, "some are still to be found");
    // One cannot be read any more, and goes all the same.
    execute(directory.path(), &["UPDATE accounts SET name = 'two words' WHERE user = 8"]).await;
    let store = open_presence(&url(directory.path())).await.expect("it opens");
    for user in 1..=40 {
        assert!(store.erase(UserId(user)).await.expect("it is made"));
    }
    store.close().await;
    assert_eq!((rows(directory.path(), "searchables").await, rows(directory.path(), "search_pairs").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_damaged_keeps_no_other_from_being_found() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    old_database(directory.path()).await;
    let damage = "UPDATE accounts SET key_hash = x'00', name = 'two words', nickname = 'damaged' WHERE user = 77";
    execute(directory.path(), &[damage]).await;
    let store = open_presence(&url(directory.path())).await.expect("it opens");
    check(&store).await;
    let (users, _) = found(&store, Key::Name, Mode::Prefix, "user7").await;
    assert_eq!(users.len(), 50, "a page is there");
    assert_eq!(
        found(&store, Key::Nickname, Mode::Whole, "damaged").await,
        (vec![], Total::Exactly(1)),
        "no card to show"
    );
    assert!(matches!(store.by_user(UserId(77)).await, Err(xm_store::StoreError::Corrupt(_))));
    store.close().await;
}
