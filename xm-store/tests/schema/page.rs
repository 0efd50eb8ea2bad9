//! `docs/DATABASE.md` lists exactly the tables, columns and indexes that the databases have. `XM_BLESS=1` writes what an engine
//! says of itself; what things mean is prose, and stays.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use sea_orm::ConnectionTrait;
use xm_store::sql::{Schema, open_presence, open_router};
use xm_store::{Accounts, Contacts};
use xmmep::name::UserName;
use xmmep::types::{RosterVersion, UserId};

use super::common::servers::{Server, mariadb, postgres};
use super::facts::{Column, Index, Table, facts};
use super::people::Stores;
use super::{Engine, SCHEMAS, bless, steps};

/// The page is written by parallel tests.
static WRITING: Mutex<()> = Mutex::new(());
const BEGIN: &str = "<!-- table: ";
const END: &str = "<!-- end -->";
/// Where nobody has said yet what something is.
const UNSAID: &str = "?";

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/DATABASE.md")
}

fn read() -> String {
    std::fs::read_to_string(file()).expect("docs/DATABASE.md")
}

/// A table as the page has it.
#[derive(Debug, Default)]
struct Section {
    columns: Vec<ColumnRow>,
    indexes: Vec<IndexRow>,
}

#[derive(Debug)]
struct ColumnRow {
    name: String,
    /// By engine.
    kinds: [String; 3],
    is_null: bool,
    meaning: String,
}

#[derive(Debug)]
struct IndexRow {
    index: Index,
    reason: String,
}

/// The cells of a row of a table.
fn cells(line: &str) -> Vec<String> {
    let line = line.trim().trim_start_matches('|').trim_end_matches('|');
    line.split(" | ").map(|cell| cell.trim().to_owned()).collect()
}

/// What a cell says that is code.
fn code(cell: &str) -> String {
    cell.trim_matches('`').to_owned()
}

fn is_row(line: &str) -> bool {
    line.starts_with("| ") && !line.starts_with("| column |") && !line.starts_with("| index |")
}

impl Section {
    fn parse(text: &str) -> Self {
        let mut section = Self::default();
        for line in text.lines().filter(|line| is_row(line)) {
            match &cells(line)[..] {
                [name, sqlite, mariadb, postgres, null, meaning] => section.columns.push(ColumnRow {
                    name: code(name),
                    kinds: [sqlite, mariadb, postgres].map(|kind| code(kind)),
                    is_null: null == "yes",
                    meaning: meaning.clone(),
                }),
                [name, columns, reason] => section.indexes.push(IndexRow {
                    index: Index {
                        name: code(name.trim_start_matches("unique ")),
                        is_unique: name.starts_with("unique"),
                        columns: code(columns).split(", ").map(str::to_owned).collect(),
                    },
                    reason: reason.clone(),
                }),
                other => panic!("docs/DATABASE.md: {other:?} is neither a column nor an index"),
            }
        }
        section
    }

    /// What `engine` says, with the meanings that the page has.
    fn corrected(&self, engine: Engine, table: &Table) -> Self {
        let columns = table.columns.iter().map(|column| {
            let old = self.columns.iter().find(|old| old.name == column.name);
            let mut kinds = old.map_or([UNSAID, UNSAID, UNSAID].map(str::to_owned), |old| old.kinds.clone());
            kinds[engine as usize] = shown(table, column);
            let meaning = old.map_or(UNSAID.to_owned(), |old| old.meaning.clone());
            ColumnRow { name: column.name.clone(), kinds, is_null: column.is_null, meaning }
        });
        let indexes = table.indexes.iter().map(|index| {
            let old = self.indexes.iter().find(|old| old.index.columns == index.columns);
            IndexRow { index: index.clone(), reason: old.map_or(UNSAID.to_owned(), |old| old.reason.clone()) }
        });
        Self { columns: columns.collect(), indexes: indexes.collect() }
    }

    fn render(&self) -> String {
        let mut lines = vec![
            "| column | SQLite | MariaDB, MySQL | PostgreSQL | null | what it holds |".to_owned(),
            "|---|---|---|---|---|---|".to_owned(),
        ];
        for ColumnRow { name, kinds: [sqlite, mariadb, postgres], is_null, meaning } in &self.columns {
            let null = if *is_null { "yes" } else { "no" };
            lines.push(format!("| `{name}` | `{sqlite}` | `{mariadb}` | `{postgres}` | {null} | {meaning} |"));
        }
        lines.extend(["", "| index | columns | needed by |", "|---|---|---|"].map(str::to_owned));
        for IndexRow { index, reason } in &self.indexes {
            let columns = index.columns.join(", ");
            let name = match &*index.name {
                "primary key" | "unique" => index.name.clone(),
                name if index.is_unique => format!("unique `{name}`"),
                name => format!("`{name}`"),
            };
            lines.push(format!("| {name} | `{columns}` | {reason} |"));
        }
        format!("\n{}\n\n", lines.join("\n"))
    }
}

/// The type of a column as the page shows it, and whether the database counts it up.
fn shown(table: &Table, column: &Column) -> String {
    let kind = column.kind.replace("character varying", "varchar").to_lowercase();
    let is_key = table.indexes.first().is_some_and(|key| key.columns == [column.name.clone()]);
    let traits = if is_key { format!("{} {}", column.traits, table.traits) } else { column.traits.clone() };
    let counts = ["auto_increment", "autoincrement", "identity"].into_iter().find(|word| traits.contains(word));
    counts.map_or(kind.clone(), |word| format!("{kind} {word}"))
}

/// The sections of the page: table, text.
fn sections(page: &str) -> Vec<(String, String)> {
    let parts = page.split(BEGIN).skip(1);
    let named = parts.map(|part| {
        let (name, rest) = part.split_once(" -->\n").expect("a marker ends");
        let (text, _) = rest.split_once(END).unwrap_or_else(|| panic!("docs/DATABASE.md: {name} has no {END}"));
        (name.to_owned(), text.to_owned())
    });
    named.collect()
}

/// All tables of all databases on an engine; the one that all of them have once.
async fn tables(engine: Engine) -> Option<Vec<Table>> {
    let mut tables: Vec<Table> = Vec::new();
    for (schema, name) in SCHEMAS {
        let place = engine.place(name)?;
        schema.migrate(&place.url()).await.expect("it is made");
        for table in facts(&place.url()).await {
            if tables.iter().all(|known| known.name != table.name) {
                tables.push(table);
            }
        }
    }
    Some(tables)
}

async fn page_is_right_about(engine: Engine) {
    let Some(tables) = tables(engine).await else { return };
    let _guard = WRITING.lock().expect("no test panics while it writes");
    let mut page = read();
    let named: BTreeSet<_> = sections(&page).into_iter().map(|(name, _)| name).collect();
    let real: BTreeSet<_> = tables.iter().map(|table| table.name.clone()).collect();
    assert_eq!(named, real, "the tables on the page, the tables there are");
    for (name, text) in sections(&page) {
        let table = tables.iter().find(|table| table.name == name).expect("compared above");
        let wanted = Section::parse(&text).corrected(engine, table).render();
        if bless() {
            let (begin, end) = (format!("{BEGIN}{name} -->\n"), END);
            page = page.replace(&format!("{begin}{text}{end}"), &format!("{begin}{wanted}{end}"));
            continue;
        }
        let line = wanted.lines().zip(text.lines().chain(std::iter::repeat(""))).find(|(is, said)| is != said);
        assert!(
            text == wanted,
            "docs/DATABASE.md, {name}, {engine:?}: {line:?}; XM_BLESS=1 renews what the engine says"
        );
        assert!(!text.contains(&format!("| {UNSAID} |")), "docs/DATABASE.md, {name}: say what \"{UNSAID}\" is");
    }
    if bless() {
        std::fs::write(file(), page).expect("docs/DATABASE.md can be written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_lists_each_table_column_and_index_of_sqlite() {
    page_is_right_about(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_lists_each_table_column_and_index_of_mariadb() {
    page_is_right_about(Engine::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_lists_each_table_column_and_index_of_postgres() {
    page_is_right_about(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_names_each_published_step() {
    let page = read();
    for (schema, _) in SCHEMAS {
        for step in steps(schema).await {
            assert!(page.contains(&format!("`{step}`")), "docs/DATABASE.md does not name the step {step}");
        }
    }
}

/// The statements of the fenced block behind `marker`, each with the database it is run in, if it says one.
fn statements(marker: &str) -> Vec<(Option<String>, String)> {
    let page = read();
    let marker = format!("<!-- run: {marker} -->\n");
    let (_, rest) = page.split_once(&marker).unwrap_or_else(|| panic!("docs/DATABASE.md has no {marker:?}"));
    let (_, block) = rest.split_once("```sql\n").expect("a block of SQL");
    let (block, _) = block.split_once("```").expect("it ends");
    let (mut database, mut statement, mut found) = (None, String::new(), Vec::new());
    for line in block.lines().map(str::trim).filter(|line| !line.starts_with("--")) {
        if let Some(name) = line.strip_prefix("\\connect ") {
            database = Some(name.trim_matches('"').to_owned());
            continue;
        }
        statement = format!("{statement} {line}");
        if let Some(whole) = statement.trim().strip_suffix(';') {
            found.push((database.clone(), whole.to_owned()));
            statement.clear();
        }
    }
    assert!(statement.trim().is_empty(), "no statement ends: {statement}");
    found
}

/// Runs the statements as they stand there, as an administrator does.
fn administer(server: &Server, marker: &str) {
    for (database, statement) in statements(marker) {
        let database = database.unwrap_or_else(|| server.engine().home().to_owned());
        server.execute(&database, &[statement]);
    }
}

/// Somebody of the page who logs in with the password of the page.
fn url(server: &Server, user: &str, database: &str) -> String {
    server.engine().url(user, "change-me", server.port(), database)
}

async fn privileges_of_the_page_suffice(server: Option<&'static Server>, engine: &str) {
    let Some(server) = server else { return };
    administer(server, &format!("{engine} databases and users"));
    let databases = ["RouterDB", "PresenceDB_C1P1", "RegisterDB"];
    for (schema, database) in [Schema::Router, Schema::Presence, Schema::Register].into_iter().zip(databases) {
        let refused = schema.migrate(&url(server, "xmd", database)).await;
        assert!(refused.is_err(), "{database}: who serves may not change the schema");
        schema.migrate(&url(server, "xmd_owner", database)).await.unwrap_or_else(|error| panic!("{database}: {error}"));
    }
    served(server, 1).await;
    let intruder = sea_orm::Database::connect(url(server, "xmd", "RouterDB")).await.expect("it connects");
    assert!(intruder.execute_unprepared("DROP TABLE requests").await.is_err(), "who serves may not drop tables");
    administer(server, &format!("{engine} after going back"));
    let (user, roster) = served(server, 2).await;
    assert!(user.0 >= 2_000_000 && roster.0 > 1_000_000, "{user}, {roster:?}: given out again");
    // What `xmd` does by itself when it finds an older database.
    let [router, presence] = ["RouterDB", "PresenceDB_C1P1"].map(|database| url(server, "xmd", database));
    let (router, presence) =
        (open_router(&router).await.expect("it opens"), open_presence(&presence).await.expect("it opens"));
    router.pass_over_users(1_000_000).await.expect("who serves may pass over ids");
    presence.pass_over_versions(1_000_000, 1_000).await.expect("who serves may pass over versions");
    router.close().await;
    presence.close().await;
    let (next, later) = served(server, 3).await;
    assert!(next.0 > user.0 + 1_000_000 && later.0 >= roster.0 + 1_000_000, "{next}, {later:?}: given out again");
}

/// Does something of each kind as the user who serves. Returns a new user's id, and the version of an old one's buddy list.
async fn served(server: &Server, number: u32) -> (UserId, RosterVersion) {
    let [router, presence, register] =
        ["RouterDB", "PresenceDB_C1P1", "RegisterDB"].map(|database| url(server, "xmd", database));
    let stores = Stores::open(&router, &presence, &register).await;
    let person = stores.enrol(number).await;
    // Counts up, too.
    stores.send(&person, &person, 1).await;
    let first = stores.presence.by_name(&UserName::new("user1").expect("a name")).await.expect("it reads");
    let version = stores.presence.load(first.expect("enrolled first").user).await.expect("it loads").version;
    stores.close().await;
    (person.user, version)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_privileges_of_the_page_suffice_on_mariadb_and_are_no_more() {
    privileges_of_the_page_suffice(mariadb(), "mariadb").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_privileges_of_the_page_suffice_on_postgres_and_are_no_more() {
    privileges_of_the_page_suffice(postgres(), "postgres").await;
}
