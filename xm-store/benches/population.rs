//! How much room a population takes, per engine and table: the figures of `docs/DATABASE.md`.
//!
//! `cargo bench -p xm-store --all-features --bench population [-- ENGINE]`; `XM_POPULATION` is the number of users.
//! Engines that are not on this machine are left out. Also measures the work that looks at many messages at once.

#![allow(clippy::print_stdout, reason = "it measures and prints")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Instant;

use common::servers::{Engine, shared};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use xm_store::Offline;
use xm_store::sql::{open_presence, open_register, open_router};
use xmmep::types::{UserId, WallTime};

/// Buddies of a user.
const BUDDIES: u64 = 20;
const GROUPS: u64 = 3;
/// Messages that wait for a user, and such as waited in the last seven days, whose levels are remembered.
const WAITING: u64 = 2;
const SETTLED: u64 = 8;
/// One user in so many has blocked somebody; one has registered in the last seven days.
const BLOCKS_ONE_IN: u64 = 3;
const REGISTERED_ONE_IN: u64 = 20;
/// Bytes of a text with its envelope.
const BODY: std::ops::Range<u64> = 120..380;
const NOW: u64 = 1_790_000_000_000;
const DAY: u64 = 24 * 3600 * 1000;

const FIRST: [&str; 12] =
    ["Anna", "Ben", "Carla", "Dmitri", "Elena", "Felix", "Giulia", "Hannah", "Ivan", "Johanna", "Karim", "Lena"];
const LAST: [&str; 10] =
    ["Lee", "Kim", "Müller", "Schmidt", "Ivanova", "García", "Johnson", "Nguyen", "Kowalski", "Papadopoulos"];
const PLACES: [&str; 8] = ["Berlin", "Shanghai", "北京", "東京", "서울", "São Paulo", "Antananarivo", "Bern"];
const GROUP_NAMES: [&str; 3] = ["Family", "Work", "Friends from school"];

/// Splitmix64: the same people in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len() as u64) as usize]
    }

    fn nickname(&mut self) -> String {
        if self.below(10) < 7 {
            return format!("{} {}", self.pick(&FIRST), self.pick(&LAST));
        }
        (0..2 + self.below(2)).filter_map(|_| char::from_u32(0x4e00 + self.below(2_000) as u32)).collect()
    }
}

/// A database being filled.
struct Filler {
    db: DatabaseConnection,
    random: Random,
    rows: Vec<String>,
}

impl Filler {
    async fn open(url: &str) -> Self {
        let db = sea_orm::Database::connect(url).await.expect("it connects");
        if db.get_database_backend() == DbBackend::Sqlite {
            // What is made need not survive.
            db.execute_unprepared("PRAGMA synchronous = OFF; PRAGMA cache_size = -200000").await.expect("it is set");
        }
        Self { db, random: Random(7), rows: Vec::new() }
    }

    /// So many random bytes, as the engine writes them.
    fn blob(&mut self, len: u64) -> String {
        let bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.random.next().to_le_bytes()).collect();
        self.literal(&bytes[..len as usize])
    }

    fn literal(&self, bytes: &[u8]) -> String {
        let mut digits = String::with_capacity(bytes.len() * 2 + 3);
        for byte in bytes {
            write!(digits, "{byte:02x}").expect("a string takes everything");
        }
        if self.db.get_database_backend() == DbBackend::Postgres {
            format!("'\\x{digits}'")
        } else {
            format!("x'{digits}'")
        }
    }

    async fn row(&mut self, table: &str, values: String) {
        self.rows.push(format!("({values})"));
        if self.rows.len() == 1_000 {
            self.flush(table).await;
        }
    }

    async fn flush(&mut self, table: &str) {
        if !self.rows.is_empty() {
            self.run(&format!("INSERT INTO {table} VALUES {}", self.rows.join(","))).await;
            self.rows.clear();
        }
    }

    async fn run(&self, sql: &str) {
        self.db.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{:.200}: {error}", sql));
    }

    async fn router(&mut self, users: u64) {
        for user in 1..=users {
            let (name, salt, token) = (format!("{}{user}", self.random.pick(&FIRST)), self.blob(16), self.blob(32));
            let (folded, email) = (self.literal(name.to_lowercase().as_bytes()), format!("{name}@example.org"));
            let email_folded = self.literal(email.to_lowercase().as_bytes());
            self.row("placements", format!("{user}, '{name}', {folded}, '{email}', {email_folded}, {salt}, 19456, 2, 1, {token}, 2, {NOW}, 1, 1, {NOW}, NULL, '', '', '', '', 0, NULL")).await;
        }
        self.flush("placements").await;
        for user in 1..=users / REGISTERED_ONE_IN {
            let request = self.blob(16);
            self.row("requests", format!("{request}, 0, 1, {user}, {NOW}")).await;
        }
        self.flush("requests").await;
    }

    async fn register(&mut self, users: u64) {
        for user in 1..=users / REGISTERED_ONE_IN {
            let id = self.blob(16);
            self.row(
                "mails",
                format!("{id}, 'user{user}@example.org', 'Activate your account', '', {NOW}, 1, 1, {NOW}, ''"),
            )
            .await;
        }
        self.flush("mails").await;
    }

    async fn accounts(&mut self, users: u64) {
        for user in 1..=users {
            let (name, key) = (format!("{}{user}", self.random.pick(&FIRST)), self.blob(32));
            let (folded, nickname) = (self.literal(name.to_lowercase().as_bytes()), self.random.nickname());
            let (place, avatar) = (self.random.pick(&PLACES), self.blob(32));
            let message = if self.random.below(2) == 0 { "" } else { "At work until five, then at the lake" };
            let avatar = if self.random.below(2) == 0 { "NULL" } else { &avatar };
            self.row("accounts", format!("{user}, '{name}', {folded}, '{name}@example.org', {key}, {NOW}, {NOW}, 0, NULL, '{nickname}', '{message}', '1990-01-01', '{place}', 1, {avatar}, 1, 0, 1")).await;
        }
        self.flush("accounts").await;
        for owner in 1..=users {
            self.row("rosters", format!("{owner}, {}, {GROUPS}", BUDDIES + GROUPS)).await;
        }
        self.flush("rosters").await;
        for owner in 1..=users {
            for group in 1..=GROUPS {
                let name = self.literal(GROUP_NAMES[group as usize - 1].as_bytes());
                self.row("roster_groups", format!("{owner}, {group}, {name}")).await;
            }
        }
        self.flush("roster_groups").await;
    }

    /// In random order, as people meet.
    async fn relations(&mut self, users: u64) {
        let mut known = HashSet::new();
        while (known.len() as u64) < users * BUDDIES / 2 {
            let (one, other) = (1 + self.random.below(users), 1 + self.random.below(users));
            if one == other || !known.insert((one.min(other), one.max(other))) {
                continue;
            }
            for (owner, buddy, greeting) in [(one, other, "Hello, it is me"), (other, one, "")] {
                let (mine, theirs) = (self.random.pick(&FIRST), self.random.pick(&FIRST));
                let group = self.random.below(GROUPS + 1);
                self.row(
                    "relations",
                    format!(
                        "{owner}, {buddy}, '{mine}{owner}', '{theirs}{buddy}', {group}, '', 2, {NOW}, '{greeting}'"
                    ),
                )
                .await;
            }
        }
        self.flush("relations").await;
        for owner in (1..=users).step_by(BLOCKS_ONE_IN as usize) {
            let other = 1 + self.random.below(users);
            self.row("blocks", format!("{owner}, {other}, '{}{other}', {NOW}", FIRST[0])).await;
        }
        self.flush("blocks").await;
    }

    /// In the order in which they come.
    async fn parcels(&mut self, users: u64) {
        for place in 1..=users * (WAITING + SETTLED) {
            let (to, from) = (1 + self.random.below(users), 1 + self.random.below(users));
            let waits = self.random.below(WAITING + SETTLED) < WAITING;
            let len = if waits { BODY.start + self.random.below(BODY.end - BODY.start) } else { 0 };
            let (id, body, hash, level) = (self.blob(16), self.blob(len), self.blob(32), u8::from(!waits));
            let at = NOW - 7 * DAY + place * 7 * DAY / (users * (WAITING + SETTLED));
            self.row("parcels", format!("{place}, {to}, {from}, {id}, {at}, {body}, {len}, {hash}, {level}, {at}"))
                .await;
        }
        self.flush("parcels").await;
    }

    /// Rows, bytes of tables, bytes of indexes, by table.
    async fn sizes(&self) -> Vec<(String, i64, i64, i64)> {
        let backend = self.db.get_database_backend();
        let list = async |sql: &str| {
            self.db.query_all_raw(Statement::from_string(backend, sql.to_owned())).await.expect("it answers")
        };
        let sql = match backend {
            DbBackend::Sqlite => {
                "SELECT m.tbl_name, CAST(SUM(CASE WHEN m.type = 'table' THEN s.pgsize ELSE 0 END) AS INTEGER), \
                 CAST(SUM(CASE WHEN m.type = 'index' THEN s.pgsize ELSE 0 END) AS INTEGER) \
                 FROM sqlite_master m JOIN dbstat s ON s.name = m.name AND s.aggregate = TRUE GROUP BY m.tbl_name"
            }
            DbBackend::MySql => {
                "SELECT CAST(table_name AS CHAR), CAST(data_length AS SIGNED), CAST(index_length AS SIGNED) \
                 FROM information_schema.tables WHERE table_schema = DATABASE()"
            }
            _ => {
                "SELECT relname::text, pg_table_size(oid), pg_indexes_size(oid) FROM pg_class \
                 WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            }
        };
        let mut sizes = Vec::new();
        for row in list(sql).await {
            let name: String = row.try_get_by_index(0).expect("a name");
            if name.starts_with("seaql") || name.starts_with("sqlite") {
                continue;
            }
            if backend == DbBackend::MySql {
                self.run(&format!("ANALYZE TABLE {name}")).await;
            }
            let count = list(&format!("SELECT COUNT(*) FROM {name}")).await;
            let count = count[0].try_get_by_index(0).expect("a count");
            sizes.push((name, count, row.try_get_by_index(1).expect("bytes"), row.try_get_by_index(2).expect("bytes")));
        }
        sizes
    }
}

/// A database and its size.
async fn measure(engine: &str, database: &str, url: &str, users: u64) {
    let start = Instant::now();
    match database {
        "RouterDB" => open_router(url).await.expect("it opens").close().await,
        "RegisterDB" => open_register(url).await.expect("it opens").close().await,
        _ => open_presence(url).await.expect("it opens").close().await,
    }
    let mut filler = Filler::open(url).await;
    match database {
        "RouterDB" => filler.router(users).await,
        "RegisterDB" => filler.register(users).await,
        _ => {
            filler.run("DELETE FROM search_fills").await;
            filler.accounts(users).await;
            filler.relations(users).await;
            filler.parcels(users).await;
            let before = Instant::now();
            open_presence(url).await.expect("the index is filled").close().await;
            println!("{engine}: the search index was filled in {:.1} s", before.elapsed().as_secs_f64());
        }
    }
    match filler.db.get_database_backend() {
        DbBackend::Sqlite => filler.run("PRAGMA wal_checkpoint(TRUNCATE)").await,
        DbBackend::MySql => {}
        _ => filler.run("VACUUM ANALYZE").await,
    }
    // MariaDB brings its figures up to date when it is asked the first time.
    filler.sizes().await;
    let mut sum = 0;
    for (name, count, data, indexes) in filler.sizes().await {
        sum += data + indexes;
        let each = |bytes: i64| bytes as f64 / count.max(1) as f64;
        println!(
            "{engine:<9} {name:<14} {count:>9} rows  {:>6.0} + {:>5.0} bytes a row  {:>7.0} MB per million users",
            each(data),
            each(indexes),
            (data + indexes) as f64 / users as f64
        );
    }
    let all = sum as f64 / users as f64;
    println!("{engine:<9} {database}: {all:.0} MB per million users, made in {:.0} s", start.elapsed().as_secs_f64());
    filler.db.close().await.expect("it closes");
}

/// The work that looks at many messages at once.
async fn housekeeping(engine: &str, url: &str) {
    let store = open_presence(url).await.expect("it opens");
    let start = Instant::now();
    let timed = |name: &str, start: Instant, result: String| {
        println!("{engine:<9} {name:<34} {:>8.1} ms  {result}", start.elapsed().as_secs_f64() * 1_000.0);
    };
    let sent = store.sent_by(UserId(77), None, 100).await.map(|sent| sent.len());
    timed("messages of one sender", start, format!("{sent:?}"));
    let start = Instant::now();
    let expired = store.expire(WallTime(NOW - 30 * DAY), WallTime(NOW), 256).await.map(|expired| expired.len());
    timed("expire, nothing due", start, format!("{expired:?}"));
    let start = Instant::now();
    let forgotten = store.forget(WallTime(NOW)).await;
    timed("forget, nothing due", start, format!("{forgotten:?}"));
    let start = Instant::now();
    let forgotten = store.forget(WallTime(NOW + DAY)).await;
    timed("forget the levels of a day", start, format!("{forgotten:?}"));
    let start = Instant::now();
    let erased = store.erase(UserId(77), WallTime(NOW)).await;
    timed("erase the messages of one user", start, format!("{erased:?}"));
    store.close().await;
}

fn main() {
    let word = std::env::args().skip(1).find(|word| !word.starts_with('-')).unwrap_or_default();
    let users: u64 = std::env::var("XM_POPULATION").map_or(10_000, |users| users.parse().expect("a number"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("the runtime starts");
    println!(
        "{users} users with {BUDDIES} buddies and {GROUPS} groups each; {WAITING} messages wait, {SETTLED} levels are remembered"
    );
    for engine in ["sqlite", "mariadb", "postgres"].into_iter().filter(|engine| engine.contains(&word)) {
        let directory = tempfile::tempdir().expect("a directory");
        for database in ["RouterDB", "RegisterDB", "PresenceDB_C1P1"] {
            let server = match engine {
                "sqlite" => None,
                "mariadb" => Some(shared(Engine::MariaDb)),
                _ => Some(shared(Engine::Postgres)),
            };
            let place = server.flatten().map(|server| server.database(database));
            let url = match (&place, server) {
                (Some(place), _) => place.url(),
                (None, None) => format!("sqlite:{}", directory.path().join(database).display()),
                (None, Some(_)) => continue,
            };
            runtime.block_on(measure(engine, database, &url, users));
            if database.starts_with("Presence") {
                runtime.block_on(housekeeping(engine, &url));
            }
        }
    }
}
