//! The daemon with its databases on real servers: from the form to the last message, with as few rights as will do.

use std::path::Path;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use xmmep::client::Event;
use xmmep::messages::chat::Tick;

use crate::databases::servers::{Engine, Server, shared};
use crate::place::{PATIENCE, Place, output, text};
use crate::registration::{PASSWORD, befriend, enrol, login, wait};

pub(crate) const BOTH: [Engine; 2] = [Engine::MariaDb, Engine::Postgres];

/// The server of an engine, without databases of ours, for one test at a time: their names are always the same.
pub(crate) async fn alone(engine: Engine) -> Option<(&'static Server, MutexGuard<'static, ()>)> {
    static MARIADB: Mutex<()> = Mutex::const_new(());
    static POSTGRES: Mutex<()> = Mutex::const_new(());
    let guard = if engine == Engine::MariaDb { MARIADB.lock().await } else { POSTGRES.lock().await };
    let server = shared(engine)?;
    let databases = ["RouterDB", "PresenceDB_C1P1", "RegisterDB"];
    server.execute(engine.home(), &databases.map(|name| engine.drop_database(name)));
    Some((server, guard))
}

/// A place whose databases are on the server at `url`, which ends in a slash, with messages waiting in `offline`.
pub(crate) fn place_on(url: &str, offline: &str) -> Place {
    let (before, after) = url.split_once('@').unwrap();
    let (user, password) = before.rsplit_once(':').unwrap();
    let place = Place::new(&format!(
        "[database]\nurl = \"{user}@{after}\"\npassword_file = \"PASSWORD\"\noffline = \"{offline}\"\n[log]\nlevel = \"debug\"\n"
    ));
    let file = place.data("").with_file_name("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    replace(&place, "PASSWORD", file.to_str().unwrap());
    place
}

fn replace(place: &Place, from: &str, to: &str) {
    let config = std::fs::read_to_string(place.config()).unwrap();
    assert!(config.contains(from), "{config}");
    std::fs::write(place.config(), config.replace(from, to)).unwrap();
}

fn password(url: &str) -> &str {
    url.split_once('@').unwrap().0.rsplit_once(':').unwrap().1
}

fn run(place: &Place, args: &[&str]) -> (i32, String) {
    let config = place.config();
    let output = output(&[args, &["--config", &config]].concat());
    (output.status.code().unwrap(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn people_register_chat_and_come_back_after_a_kill_with_everything_on_the_server() {
    for engine in BOTH {
        let Some((server, _alone)) = alone(engine).await else { continue };
        let url = server.url("");
        let place = place_on(&url, "sql");
        let (code, said) = run(&place, &["db", "status"]);
        assert!(code == 1 && said.contains("pending: presence_0001"), "{engine:?}: {said}");
        let running = place.start();
        enrol(&place, &running, "ann");
        enrol(&place, &running, "bob");
        let (bob, mut bob_events) = login(&running, "bob", PASSWORD).await.unwrap();
        let (ann, mut events) = login(&running, "ann", PASSWORD).await.unwrap();
        let bob_id = bob.welcome().user;
        befriend(&ann, (&bob, &mut bob_events), "").await;
        bob.logout().await;
        let id = ann.send_text(bob_id, "for later").await.unwrap();
        wait(&mut events, |event| {
            matches!(event, Event::Tick(tick) if tick.id == id && tick.tick == Tick::STORED).then_some(())
        })
        .await;
        running.signal("-KILL");
        drop((ann, events, running));
        for file in ["RouterDB.db", "offline-C1P1"] {
            assert!(!place.data(file).exists(), "{engine:?}: {file} is on this machine");
        }

        let running = place.start();
        let (bob, mut events) = login(&running, "BOB", PASSWORD).await.unwrap();
        let shown = wait(&mut events, |event| match event {
            Event::Text(text) => Some(text.text.id),
            _ => None,
        });
        assert_eq!(shown.await, id, "{engine:?}");
        events.dealt_with().await;
        bob.logout().await;
        let (status, _, log) = running.stop("-TERM");
        assert!(status.success() && !log.contains(password(&url)), "{engine:?}: {log}");
        let (code, said) = run(&place, &["db", "status"]);
        assert!(code == 0 && !said.contains("warning") && !said.contains(password(&url)), "{engine:?}: {said}");
        let (code, said) = run(&place, &["store", "check"]);
        assert!(code == 0 && said.contains("2 accounts") && said.contains("everything is good"), "{engine:?}: {said}");
        assert!(said.contains("its files are the server's"), "{engine:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_server_that_dies_and_comes_back_ends_no_session() {
    for engine in BOTH {
        let Some((server, _alone)) = alone(engine).await else { continue };
        let place = place_on(&server.url(""), "log");
        let running = place.start();
        enrol(&place, &running, "ann");
        enrol(&place, &running, "bob");
        enrol(&place, &running, "cat");
        let (bob, mut bob_events) = login(&running, "bob", PASSWORD).await.unwrap();
        let (ann, mut ann_events) = login(&running, "ann", PASSWORD).await.unwrap();
        let bob_id = bob.welcome().user;
        befriend(&ann, (&bob, &mut bob_events), "").await;
        server.stop_immediately();
        // Both are loaded: what they write needs no database.
        let id = ann.send_text(bob_id, "still here?").await.unwrap();
        wait(&mut bob_events, |event| matches!(event, Event::Text(_)).then_some(())).await;
        bob_events.dealt_with().await;
        let delivered =
            |event| matches!(event, Event::Tick(t) if t.id == id && t.tick == Tick::DELIVERED).then_some(());
        wait(&mut ann_events, delivered).await;
        assert!(login(&running, "cat", PASSWORD).await.is_err(), "{engine:?}: nobody knows who that is");
        server.start_again();
        let comes_back = async {
            // Tries without a pause would only meet the limit of handshakes from one address.
            while login(&running, "cat", PASSWORD).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(PATIENCE, comes_back).await.unwrap_or_else(|_| panic!("{engine:?}: it does not recover"));
        ann.logout().await;
        bob.logout().await;
        let (status, _, log) = running.stop("-TERM");
        assert!(status.success(), "{engine:?}: {log}");
    }
}

/// The SQL of the manual: users who may as little as will do.
fn manual(engine: Engine) -> Vec<String> {
    let manual = include_str!("../../../docs/OPERATING.md");
    let heading = match engine {
        Engine::MariaDb => "### MariaDB and MySQL",
        Engine::Postgres => "### PostgreSQL",
    };
    let section = manual.split(heading).nth(1).unwrap_or_else(|| panic!("no {heading}"));
    let sql = section.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let lines =
        sql.lines().map(|line| line.split(" -- ").next().unwrap().trim()).filter(|line| !line.starts_with("--"));
    let statements = lines.collect::<Vec<_>>().join(" ");
    statements.split(';').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_the_manual_may_do_what_they_have_to_and_no_more() {
    for engine in BOTH {
        let Some((server, _alone)) = alone(engine).await else { continue };
        let mut statements = manual(engine);
        let secret =
            |sql: String| sql.replace("'a long password'", "'pw1'").replace("'another long password'", "'pw2'");
        // In PostgreSQL some rights are given inside each database.
        let later = statements.iter().position(|sql| sql.starts_with("\\")).unwrap_or(statements.len());
        let rights: Vec<_> = statements.split_off(later);
        server.execute(engine.home(), &statements.into_iter().map(secret).collect::<Vec<_>>());
        let scheme = if engine == Engine::MariaDb { "mysql" } else { "postgres" };
        let url = |user: &str, password: &str| format!("{scheme}://{user}:{password}@127.0.0.1:{}/", server.port());

        let mut database = String::new();
        for sql in rights {
            match sql.strip_prefix("\\c ") {
                Some(rest) => {
                    let (name, sql) = rest.split_once(' ').unwrap();
                    database = name.trim_matches('"').to_owned();
                    server.execute(&database, &[sql.to_owned()]);
                }
                None => server.execute(&database, &[sql]),
            }
        }
        let owner = place_on(&url("xmd_owner", "pw2"), "sql");
        let (code, said) = run(&owner, &["db", "migrate"]);
        assert_eq!(code, 0, "{engine:?}: {said}");

        let place = place_on(&url("xmd", "pw1"), "sql");
        let running = place.start();
        enrol(&place, &running, "ann");
        let (ann, _events) = login(&running, "ann", PASSWORD).await.unwrap();
        ann.logout().await;
        running.stop("-TERM");
        let drop = url("xmd", "pw1");
        assert!(cannot_drop(&drop).await, "{engine:?}: the user may drop a table");
    }
}

async fn cannot_drop(url: &str) -> bool {
    use sea_orm::ConnectionTrait;
    let db = sea_orm::Database::connect(format!("{url}RegisterDB")).await.unwrap();
    db.execute_unprepared("DROP TABLE mails").await.is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_a_database_server_holds_what_is_local_and_says_how_to_copy_the_rest() {
    for engine in BOTH {
        let Some((server, _alone)) = alone(engine).await else { continue };
        let place = place_on(&server.url(""), "log");
        let running = place.start();
        let to = place.data("").with_file_name("backup");
        let (code, said) = run(&place, &["backup", "--to", to.to_str().unwrap()]);
        assert_eq!(code, 0, "{said}");
        let command = if engine == Engine::MariaDb { "mariadb-dump --single-transaction" } else { "pg_basebackup" };
        assert!(
            said.contains(command) && said.contains("RouterDB") && !said.contains(password(&server.url(""))),
            "{said}"
        );
        running.stop("-TERM");
        assert!(to.join("keys/router.key").exists() && !to.join("RouterDB.db").exists());
        let restored = place.data("").with_file_name("restored");
        let paths = |path: &Path| path.to_str().unwrap().to_owned();
        let restore = output(&["restore", "--from", &paths(&to), "--data", &paths(&restored)]);
        let told = text(&restore.stdout);
        assert!(restore.status.success() && told.contains("The databases are on"), "{told}");
        let data = paths(&restored);
        let (code, said) = run(&place, &["store", "check", "--data", &data]);
        assert_eq!(code, 0, "{said}");
    }
}
