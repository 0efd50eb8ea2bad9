//! How long a search takes on SQLite, its total included, among many users of mixed scripts.
//!
//! `cargo bench -p xm-store --all-features --bench search`; `XM_SEARCH_USERS=1000000` for the figures of the design. The
//! database stays in `target/tmp` for the next run.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "it measures and prints")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use sea_orm::ConnectionTrait;
use xm_store::accounts::ProfileChanges;
use xm_store::search::{Condition, Key, Mode, Query, Total};
use xm_store::sql::open_presence;
use xm_store::{Accounts, Search};
use xmmep::bounded::Text;
use xmmep::types::UserId;

const SEED: u64 = 7;
const RUNS: usize = 40;

const FIRST: [&str; 24] = [
    "Anna", "Ben", "Carla", "Dmitri", "Elena", "Felix", "Giulia", "Hannah", "Ivan", "Johanna", "Karim", "Lena",
    "Maria", "Nils", "Olga", "Pedro", "Quentin", "Rosa", "Sven", "Tanja", "Uwe", "Vera", "Wanda", "Yusuf",
];
const LAST: [&str; 20] = [
    "Lee",
    "Kim",
    "Müller",
    "Schmidt",
    "Ivanova",
    "Rossi",
    "García",
    "Smith",
    "Johnson",
    "Brown",
    "Nguyen",
    "Tanaka",
    "Okafor",
    "Hansen",
    "Kowalski",
    "Silva",
    "Novak",
    "Dubois",
    "Andersson",
    "Papadopoulos",
];
const SURNAMES: &str = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗김이박최정山田佐藤";
const PLACES: [&str; 16] = [
    "Berlin",
    "Shanghai",
    "北京",
    "上海",
    "東京",
    "서울",
    "Paris",
    "London",
    "Madrid",
    "Bern",
    "Bergen",
    "Lagos",
    "広州",
    "São Paulo",
    "Nantes",
    "Antananarivo",
];

/// Splitmix64: the same users and questions in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    /// Small numbers are more frequent than large ones, as names are.
    fn skewed(&mut self, end: usize) -> usize {
        let high = self.below(end) + 1;
        self.below(high)
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.skewed(list.len())]
    }

    fn nickname(&mut self) -> String {
        if self.below(10) < 6 {
            return format!("{} {}", self.pick(&FIRST), self.pick(&LAST));
        }
        let surnames: Vec<_> = SURNAMES.chars().collect();
        let mut name = String::from(surnames[self.skewed(surnames.len())]);
        for _ in 0..=self.below(2) {
            name.extend(char::from_u32(0x4e00 + self.skewed(2_000) as u32));
        }
        name
    }
}

fn main() {
    let users: usize = std::env::var("XM_SEARCH_USERS").map_or(50_000, |users| users.parse().expect("a number"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(users));
}

async fn measure(users: usize) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("search-{users}.db"));
    let url = format!("sqlite:{}", path.display());
    if !path.exists() {
        let made = path.with_extension("making");
        let _ = std::fs::remove_file(&made);
        make(&made, users).await;
        std::fs::rename(made, &path).unwrap();
    }
    let size = std::fs::metadata(&path).unwrap().len();
    println!("{users} users, {} MiB, {} bytes a user", size >> 20, size / users as u64);
    let store = open_presence(&url).await.unwrap();
    println!("{:34} {:>9} {:>9} {:>9}  found (median)", "", "median", "95 %", "slowest");
    for (title, questions) in questions() {
        let mut took = Vec::new();
        let mut totals = Vec::new();
        for question in &questions {
            let start = Instant::now();
            let hits = store.find(question, None, 50).await.unwrap();
            took.push(start.elapsed());
            totals.push(match hits.total {
                Total::Exactly(total) => total,
                Total::More => 1_001,
            });
        }
        totals.sort_unstable();
        println!("{title:34} {}  {}", summary(took), totals[totals.len() / 2]);
    }
    let mut random = Random(SEED);
    let mut took = Vec::new();
    for _ in 0..RUNS {
        let user = UserId(random.below(users) as u64 + 1);
        let changes =
            |nickname: &str| ProfileChanges { nickname: Some(Text::cut(nickname)), ..ProfileChanges::default() };
        // Away from what an earlier run may have left.
        store.update_profile(user, &changes("")).await.unwrap().unwrap();
        let start = Instant::now();
        store.update_profile(user, &changes(&random.nickname())).await.unwrap().unwrap();
        took.push(start.elapsed());
    }
    println!("{:34} {}", "a new nickname, committed", summary(took));
    store.close().await;
}

fn summary(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |part: usize| took[(took.len() - 1) * part / 100].as_secs_f64() * 1_000.0;
    format!("{:>6.1} ms {:>6.1} ms {:>6.1} ms", at(50), at(95), at(100))
}

/// What is looked for, how and where.
type Asked = Vec<(Key, Mode, String)>;

/// Questions by kind: as people ask, and the worst that can be asked.
fn questions() -> Vec<(&'static str, Vec<Query>)> {
    let mut random = Random(SEED + 1);
    let mut kinds = Vec::new();
    let mut kind = |title, ask: &dyn Fn(&mut Random) -> Asked| {
        let questions = (0..RUNS).map(|_| {
            let conditions = ask(&mut random).into_iter();
            let conditions = conditions.map(|(key, mode, text)| Condition::new(key, mode, &text).unwrap());
            Query::new(UserId(1), conditions.collect()).unwrap()
        });
        kinds.push((title, questions.collect()));
    };
    let cut = |text: String, from: usize, to: usize| text.chars().skip(from).take(to).collect::<String>();
    kind("whole nickname", &|random| vec![(Key::Nickname, Mode::Whole, random.nickname())]);
    kind("prefix of 1", &|random| vec![(Key::Nickname, Mode::Prefix, cut(random.nickname(), 0, 1))]);
    kind("prefix of 2", &|random| vec![(Key::NameOrNickname, Mode::Prefix, cut(random.nickname(), 0, 2))]);
    kind("prefix of 4", &|random| vec![(Key::NameOrNickname, Mode::Prefix, cut(random.nickname(), 0, 4))]);
    kind("prefix of a name", &|random| vec![(Key::Name, Mode::Prefix, format!("user{}", random.below(1_000)))]);
    kind("part of 1", &|random| vec![(Key::NameOrNickname, Mode::Part, cut(random.nickname(), 1, 1))]);
    kind("part of 2", &|random| vec![(Key::NameOrNickname, Mode::Part, cut(random.nickname(), 1, 2))]);
    kind("part of 4", &|random| vec![(Key::NameOrNickname, Mode::Part, cut(random.nickname(), 1, 4))]);
    kind("part, and a place", &|random| {
        let nickname = (Key::Nickname, Mode::Part, cut(random.nickname(), 1, 3));
        vec![nickname, (Key::Location, Mode::Prefix, random.pick(&PLACES).to_owned())]
    });
    kind("part: frequent pairs, found nowhere", &|_| vec![(Key::Nickname, Mode::Part, "anananan".to_owned())]);
    kind("part: one character nobody has", &|_| vec![(Key::NameOrNickname, Mode::Part, "ж".to_owned())]);
    kind("five frequent conditions, none met", &|_| {
        let pairs = ["an", "na", "er", "ser", "us"].map(|pair| (Key::Nickname, Mode::Part, pair.to_owned()));
        pairs.into()
    });
    kind("prefix that only the last 3 % have", &|_| vec![(Key::Name, Mode::Prefix, "zbot".to_owned())]);
    kinds
}

/// Accounts as an older version left them: the store puts them into its index when it opens.
async fn make(path: &Path, users: usize) {
    let url = format!("sqlite:{}", path.display());
    open_presence(&url).await.unwrap().close().await;
    let database = sea_orm::Database::connect(format!("{url}?mode=rwc")).await.unwrap();
    let run = async |sql: &str| database.execute_unprepared(sql).await.unwrap();
    run("DELETE FROM search_fills").await;
    let mut random = Random(SEED);
    let start = Instant::now();
    for batch in (1..=users).collect::<Vec<_>>().chunks(2_000) {
        let mut sql = String::from(
            "INSERT INTO accounts (user, name, name_folded, email, key_hash, nickname, personal_msg, birthdate, location, \
             gender, created, failed_attempts) VALUES ",
        );
        for user in batch {
            let start = if *user > users - users / 33 { "zbot" } else { "user" };
            let (name, nickname, place) = (format!("{start}{user}"), random.nickname(), random.pick(&PLACES));
            let comma = if user == &batch[0] { "" } else { "," };
            write!(
                sql,
                "{comma}({user}, '{name}', CAST('{name}' AS BLOB), '{name}@example.org', zeroblob(32), '{nickname}', '', \
                 '', '{place}', 2, 0, 0)"
            )
            .unwrap();
        }
        run(&sql).await;
    }
    database.close().await.unwrap();
    println!("{users} accounts made in {:.1} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    open_presence(&url).await.unwrap().close().await;
    println!("put into the index in {:.1} s", start.elapsed().as_secs_f64());
}
