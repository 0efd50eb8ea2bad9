//! Checks find what no version of this code wrote, on every engine, and nothing where all is well.
#![cfg(all(unix, feature = "sql"))]

mod common;
#[path = "common/people.rs"]
mod people;

use common::servers::{Server, mariadb, postgres};
use people::{HOME, Stores};
use sea_orm::ConnectionTrait;
use xm_store::error::OpenError;
use xm_store::sql::{Schema, check_homes};

/// Where the databases of a test are, and how their rows are damaged.
enum Place {
    Files(tempfile::TempDir),
    Server(&'static Server, [common::servers::Database; 3]),
}

impl Place {
    fn url(&self, which: usize) -> String {
        match self {
            Self::Files(directory) => format!("sqlite:{}", directory.path().join(which.to_string()).display()),
            Self::Server(_, databases) => databases[which].url(),
        }
    }

    async fn execute(&self, which: usize, sql: &str) {
        match self {
            Self::Files(directory) => {
                let path = directory.path().join(which.to_string());
                let db = sea_orm::Database::connect(format!("sqlite://{}", path.display())).await.expect("it opens");
                db.execute_unprepared(sql).await.unwrap_or_else(|why| panic!("{sql}: {why}"));
                db.close().await.expect("it closes");
            }
            Self::Server(server, databases) => server.execute(databases[which].name(), &[sql.to_owned()]),
        }
    }

    /// All findings, and rows read by table.
    async fn check(&self) -> (Vec<String>, Vec<(&'static str, u64)>) {
        let (mut found, mut rows) = (Vec::new(), Vec::new());
        for (which, schema) in [Schema::Router, Schema::Presence, Schema::Register].into_iter().enumerate() {
            let checked = schema.check(&self.url(which), &mut |_, _| {}).await.expect("it opens");
            found.extend(checked.findings);
            rows.extend(checked.rows);
        }
        let homes = check_homes(&self.url(0), &self.url(1), HOME, &mut |_, _| {}).await.expect("they open");
        found.extend(homes.findings);
        (found, rows)
    }
}

const ROUTER: usize = 0;
const PRESENCE: usize = 1;
const REGISTER: usize = 2;

/// Damage done one after the other, and the words by which each is found, with bars between findings.
const DAMAGE: &[(usize, &str, &str)] = &[
    (
        ROUTER,
        "UPDATE placements SET email_folded = salt WHERE name = 'user1'",
        "the address is not what it is unique by",
    ),
    (ROUTER, "UPDATE placements SET key_hash = token WHERE name = 'user2'", "has its form still"),
    (ROUTER, "UPDATE placements SET key_hash = NULL WHERE name = 'user900'", "but has no form"),
    (ROUTER, "UPDATE placements SET state = 0, key_hash = token WHERE name = 'user3'", "the Router knows of none"),
    (ROUTER, "UPDATE placements SET salt = substr(token, 1, 9) WHERE name = 'user4'", "a salt of 9 bytes"),
    (ROUTER, "UPDATE placements SET state = 9 WHERE name = 'user5'", "the state 9 of user"),
    (ROUTER, "UPDATE requests SET answer = 77", "the answer 77 to a registration"),
    (ROUTER, "UPDATE requests SET kind = 5", "a request of kind 5"),
    (
        PRESENCE,
        "UPDATE accounts SET name_folded = key_hash WHERE name = 'user1'",
        "the name is not what it is unique by",
    ),
    (
        PRESENCE,
        "UPDATE searchables SET nickname = name WHERE nickname <> name",
        "he is not found by what his account says",
    ),
    (PRESENCE, "DELETE FROM search_pairs WHERE pair = 245366899", "3 of 4 are there"),
    (PRESENCE, "UPDATE relations SET greeting = '', buddy_name = 'eve' WHERE buddy_name = 'user2'", "has another name"),
    (PRESENCE, "UPDATE relations SET state = 7 WHERE owner_name = 'user3'", "the state 7 of a buddy"),
    (PRESENCE, "UPDATE blocks SET other_name = ''", "blocks, owner"),
    (PRESENCE, "UPDATE rosters SET last_group = 0", "its number was never given out"),
    (PRESENCE, "DELETE FROM roster_groups", "there is no group 1"),
    (PRESENCE, "UPDATE parcels SET body = hash WHERE level = 1", "a settled message still has its text"),
    (PRESENCE, "UPDATE parcels SET bytes = 77 WHERE level = 0", "6 bytes where 77 are noted"),
    (PRESENCE, "UPDATE parcels SET hash = msg WHERE level = 0", "the message is not the one that was stored"),
    (PRESENCE, "UPDATE parcels SET sent = -5 WHERE level = 0", "a time before 1970: -5"),
    (PRESENCE, "UPDATE parcels SET level = 6 WHERE level = 0", "the level 6 of a parcel"),
    (PRESENCE, "UPDATE accounts SET gender = 300 WHERE name = 'user6'", "a gender out of range"),
    (PRESENCE, "UPDATE accounts SET key_hash = name_folded WHERE name = 'user7'", "a key hash of 5 bytes"),
    (
        PRESENCE,
        "DELETE FROM accounts WHERE name = 'user8'",
        "has no account here|has no account there|1 rows are of nobody",
    ),
    (PRESENCE, "UPDATE accounts SET name = 'eve' WHERE name = 'user9'", "is user9 to the Router and eve at C1P1"),
    (PRESENCE, "DELETE FROM searchables", "is not to be found"),
    (PRESENCE, "UPDATE owners SET epoch = -1", "an owner epoch out of range"),
    (PRESENCE, "DELETE FROM owners", "owners: 0 rows, not one"),
    (REGISTER, "UPDATE mails SET body = 'x' WHERE state = 1", "only what waits has its text"),
    (REGISTER, "UPDATE mails SET state = 4 WHERE state = 1", "the state 4 of a mail"),
    (REGISTER, "UPDATE mails SET recipient = 'nobody'", "an e-mail address: "),
];

async fn finds_what_is_wrong(place: Place) {
    let stores = Stores::open(&place.url(ROUTER), &place.url(PRESENCE), &place.url(REGISTER)).await;
    let mut people = Vec::new();
    for number in 0..10 {
        people.push(stores.enrol(number).await);
    }
    stores.register(900).await;
    stores.mail_is_sent(0).await;
    for pair in people.windows(2) {
        stores.befriend(&pair[0], &pair[1]).await;
    }
    stores.block(&people[0], &people[9]).await;
    stores.send(&people[0], &people[8], 1).await;
    let settled = stores.send(&people[0], &people[8], 2).await;
    stores.settle(&people[8], settled).await;
    stores.close().await;

    let (found, rows) = place.check().await;
    assert_eq!(found, [] as [&str; 0]);
    let expected = [
        ("placements", 11),
        ("requests", 11),
        ("accounts", 10),
        ("rosters", 10),
        ("roster_groups", 9),
        ("relations", 18),
        ("blocks", 1),
        ("parcels", 2),
        ("owners", 1),
        ("searchables", 10),
        ("search_pairs", 40),
        ("mails", 11),
    ];
    assert_eq!(rows, expected);

    for (which, sql, words) in DAMAGE {
        let (before, _) = place.check().await;
        let early = words.split('|').find(|words| before.iter().any(|finding| finding.contains(words)));
        assert_eq!(early, None, "found before {sql}: {before:#?}");
        place.execute(*which, sql).await;
        let (found, _) = place.check().await;
        let lacks = words.split('|').find(|words| !found.iter().any(|finding| finding.contains(words)));
        assert_eq!(lacks, None, "{sql}: {found:#?}");
        let secret = found.iter().any(|finding| finding.contains("example.org") || finding.contains("a token"));
        assert!(!secret, "{found:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_finds_what_is_wrong() {
    finds_what_is_wrong(Place::Files(tempfile::tempdir().unwrap())).await;
}

async fn on(server: Option<&'static Server>) {
    let Some(server) = server else { return };
    let databases = ["RouterDB", "PresenceDB_C1P1", "RegisterDB"].map(|role| server.database(role));
    finds_what_is_wrong(Place::Server(server, databases)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_finds_what_is_wrong() {
    on(mariadb()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_finds_what_is_wrong() {
    on(postgres()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_page_is_read_whole_and_findings_are_counted_beyond_a_hundred() {
    let place = Place::Files(tempfile::tempdir().unwrap());
    let stores = Stores::open(&place.url(ROUTER), &place.url(PRESENCE), &place.url(REGISTER)).await;
    let stores = std::sync::Arc::new(stores);
    let registered = (0..600).map(|number| {
        let stores = stores.clone();
        tokio::spawn(async move { stores.register(number).await })
    });
    for person in registered.collect::<Vec<_>>() {
        person.await.unwrap();
    }
    stores.close().await;
    let mut pages = Vec::new();
    let checked = Schema::Router.check(&place.url(ROUTER), &mut |table, rows| pages.push((table, rows))).await.unwrap();
    assert!(checked.is_good(), "{:?}", checked.findings);
    assert_eq!(checked.rows, [("placements", 600), ("requests", 600)]);
    assert_eq!(pages[..3], [("placements", 256), ("placements", 512), ("placements", 600)]);
    place.execute(ROUTER, "UPDATE placements SET state = 9").await;
    let checked = Schema::Router.check(&place.url(ROUTER), &mut |_, _| {}).await.unwrap();
    assert_eq!((checked.findings.len(), checked.untold), (100, 500));
    // A key of two columns: pages end in the middle of an owner, and each row is read once.
    let blocks = "WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 30) \
        INSERT INTO blocks SELECT one.v, other.v, 'user1', 5 FROM n AS one, n AS other";
    place.execute(PRESENCE, blocks).await;
    let checked = Schema::Presence.check(&place.url(PRESENCE), &mut |_, _| {}).await.unwrap();
    assert!(checked.rows.contains(&("blocks", 900)), "{:?}", checked.rows);
    assert_eq!(checked.findings.len() as u64 + checked.untold, 900, "neither of two has an account");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_found_page_by_page_or_refused_and_never_called_good() {
    let place = tempfile::tempdir().unwrap();
    let urls =
        [ROUTER, PRESENCE, REGISTER].map(|which| format!("sqlite:{}", place.path().join(which.to_string()).display()));
    let stores = Stores::open(&urls[0], &urls[1], &urls[2]).await;
    for number in 0..20 {
        stores.register(number).await;
    }
    stores.close().await;
    let path = place.path().join("0");
    let whole = std::fs::read(&path).unwrap();
    // A page of zeros wherever one lies; the first one says that it is a database.
    for page in 0..whole.len() / 4_096 {
        let mut damaged = whole.clone();
        damaged[page * 4_096..][..4_096].fill(0);
        std::fs::write(&path, &damaged).unwrap();
        match Schema::Router.check(&urls[0], &mut |_, _| {}).await {
            Ok(checked) => assert!(!checked.is_good(), "page {page}"),
            Err(OpenError::Foreign { .. } | OpenError::Unreachable { .. }) => {}
            Err(error) => panic!("page {page}: {error}"),
        }
    }
    std::fs::write(&path, &whole).unwrap();
    assert!(Schema::Router.check(&urls[0], &mut |_, _| {}).await.unwrap().is_good());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_of_another_role_is_an_error_and_stays_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    let missing = format!("sqlite:{}", place.path().join("missing").display());
    assert!(Schema::Router.check(&missing, &mut |_, _| {}).await.is_err());
    assert_eq!(place.path().read_dir().unwrap().count(), 0);
    let urls =
        [ROUTER, PRESENCE, REGISTER].map(|which| format!("sqlite:{}", place.path().join(which.to_string()).display()));
    Stores::open(&urls[0], &urls[1], &urls[2]).await.close().await;
    let error = Schema::Presence.check(&urls[0], &mut |_, _| {}).await.unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    // An empty file is a database without a schema.
    std::fs::write(place.path().join("empty"), b"").unwrap();
    let empty = format!("sqlite:{}", place.path().join("empty").display());
    let checked = Schema::Register.check(&empty, &mut |_, _| {}).await.unwrap();
    assert!(checked.findings[0].contains("lacks register_0001"), "{:?}", checked.findings);
}
