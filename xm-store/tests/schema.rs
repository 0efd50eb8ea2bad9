//! The schema that the databases really have: `docs/DATABASE.md` describes exactly it, published steps never change it, older
//! databases are brought to it with what they hold.
#![cfg(all(unix, feature = "testing", feature = "sql"))]
#![allow(unreachable_pub, missing_docs, reason = "a test has no users")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "schema/facts.rs"]
mod facts;
#[path = "schema/page.rs"]
mod page;
#[path = "common/people.rs"]
mod people;
#[path = "schema/upgrade.rs"]
mod upgrade;

use std::path::{Path, PathBuf};

use common::servers::{Database, mariadb, postgres};
use facts::{described, facts};
use xm_store::sql::Schema;

/// An engine, in the order of the page's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    MariaDb,
    Postgres,
}

pub const SCHEMAS: [(Schema, &str); 3] =
    [(Schema::Router, "RouterDB"), (Schema::Presence, "PresenceDB_C1P1"), (Schema::Register, "RegisterDB")];

/// A place for a database that nobody else uses. It is gone with the value.
pub enum Place {
    File(tempfile::TempDir),
    Server(Database),
}

impl Engine {
    /// `None`, said loudly, on a machine without the engine.
    pub fn place(self, name: &str) -> Option<Place> {
        match self {
            Self::Sqlite => Some(Place::File(tempfile::tempdir().expect("a temporary directory"))),
            Self::MariaDb => Some(Place::Server(mariadb()?.database(name))),
            Self::Postgres => Some(Place::Server(postgres()?.database(name))),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::MariaDb => "mariadb",
            Self::Postgres => "postgres",
        }
    }
}

impl Place {
    pub fn url(&self) -> String {
        match self {
            Self::File(directory) => format!("sqlite:{}", directory.path().join("database.db").display()),
            Self::Server(database) => database.url(),
        }
    }
}

/// Whether golden files and generated parts are to be written.
pub fn bless() -> bool {
    std::env::var_os("XM_BLESS").is_some_and(|value| value != "0")
}

fn steps_file(step: &str, engine: Engine) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/schema/steps/{step}.{}", engine.name()))
}

/// The names of the steps of a schema.
pub async fn steps(schema: Schema) -> Vec<String> {
    schema.status("sqlite:/nowhere").await.expect("a missing database has no step").pending
}

/// After each step the database is as the golden file of that step says.
async fn steps_are_as_published(engine: Engine) {
    for (schema, name) in SCHEMAS {
        let Some(place) = engine.place(name) else { return };
        for step in steps(schema).await {
            schema.migrate_by(&place.url(), 1).await.expect("the step is made");
            let made = described(&facts(&place.url()).await);
            let file = steps_file(&step, engine);
            let Ok(published) = std::fs::read_to_string(&file) else {
                assert!(bless(), "{step} is new: XM_BLESS=1 writes {}, for ever", file.display());
                std::fs::write(&file, made).expect("it can be written");
                continue;
            };
            let line = made.lines().zip(published.lines()).find(|(is, was)| is != was);
            assert!(
                made == published,
                "{step} is published, and databases out there have it as it was. It makes something else now, on {}: \
                 {line:?}. Put it back as it was, and add a new step that makes the difference.",
                engine.name()
            );
        }
        assert!(schema.status(&place.url()).await.expect("it opens").pending.is_empty(), "all steps were made");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_step_never_changes_on_sqlite() {
    steps_are_as_published(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_step_never_changes_on_mariadb() {
    steps_are_as_published(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_step_never_changes_on_postgres() {
    steps_are_as_published(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_step_is_never_taken_away() {
    let mut known = Vec::new();
    for (schema, _) in SCHEMAS {
        known.extend(steps(schema).await);
    }
    for file in std::fs::read_dir(steps_file("x", Engine::Sqlite).with_file_name("")).expect("the golden files") {
        let path = file.expect("a file").path();
        let step = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
        assert!(known.contains(&step), "databases out there have {step}: a version without it would refuse them");
    }
}

/// What is risky about the server of RouterDB, as its opening finds it.
async fn warnings(url: &str) -> String {
    let store = xm_store::sql::open_router(url).await.expect("it opens");
    let warnings = store.warnings().join("\n");
    store.close().await;
    warnings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_may_lose_commits_is_warned_of() {
    for engine in [Engine::MariaDb, Engine::Postgres] {
        let Some(Place::Server(database)) = engine.place("RouterDB") else { continue };
        assert_eq!(warnings(&database.url()).await, "", "{engine:?}: a server as it should be");
        let home = database.server().engine().home();
        let (setter, setting, risk, safe, reload) = match engine {
            Engine::MariaDb => ("SET GLOBAL", "innodb_flush_log_at_trx_commit", "2", "1", "DO 1"),
            _ => ("ALTER SYSTEM SET", "full_page_writes", "off", "on", "SELECT pg_reload_conf()"),
        };
        let statements = |value: &str| [format!("{setter} {setting} = {value}"), reload.to_owned()];
        database.server().execute(home, &statements(risk));
        // PostgreSQL reads its settings again in its own time.
        let mut said = String::new();
        for _ in 0..1_000 {
            said = warnings(&database.url()).await;
            if !said.is_empty() {
                break;
            }
        }
        database.server().execute(home, &statements(safe));
        assert_eq!(said, format!("{setting} is {risk}, not {safe}: a power cut can lose what was committed"));
    }
}
