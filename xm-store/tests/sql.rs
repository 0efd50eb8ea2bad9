//! The SQL stores pass the conformance suite on SQLite, refuse what is not theirs, and keep secrets to their owner.
#![cfg(all(feature = "testing", feature = "sql"))]

use std::path::Path;
use std::sync::Arc;

use xm_store::error::OpenError;
use xm_store::sql::{open_presence, open_register, open_router};
use xm_store::testing::{Open, opener};
use xm_store::{Accounts, Contacts, MailQueue, Offline, Placements, Stores};

/// An empty directory that lives as long as the test's opener.
fn place() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().expect("a temporary directory"))
}

fn url(directory: &Path, name: &str) -> String {
    format!("sqlite:{}", directory.join(name).display())
}

fn router() -> Open<dyn Placements> {
    let directory = place();
    opener(move || {
        let directory = directory.clone();
        async move {
            let store = open_router(&url(directory.path(), "RouterDB")).await.expect("it opens");
            Arc::new(store) as Arc<dyn Placements>
        }
    })
}

/// Opens PresenceDB as one of the traits it implements.
macro_rules! presence {
    ($store:ty) => {{
        let directory = place();
        opener(move || {
            let directory = directory.clone();
            async move {
                let store = open_presence(&url(directory.path(), "PresenceDB_C1P1")).await.expect("it opens");
                Arc::new(store) as Arc<$store>
            }
        })
    }};
}

fn register() -> Open<dyn MailQueue> {
    let directory = place();
    opener(move || {
        let directory = directory.clone();
        async move {
            let store = open_register(&url(directory.path(), "RegisterDB")).await.expect("it opens");
            Arc::new(store) as Arc<dyn MailQueue>
        }
    })
}

/// All that PresenceDB holds.
fn stores() -> Open<Stores> {
    let directory = place();
    opener(move || {
        let directory = directory.clone();
        async move {
            let store = open_presence(&url(directory.path(), "PresenceDB_C1P1")).await.expect("it opens");
            Arc::new(Arc::new(store).stores())
        }
    })
}

xm_store::suite!(placements, placements, router());
xm_store::suite!(accounts, accounts, presence!(dyn Accounts));
xm_store::suite!(contacts, contacts, presence!(dyn Contacts));
xm_store::suite!(offline, offline, presence!(dyn Offline));
xm_store::suite!(mail_queue, mail_queue, register());
xm_store::suite!(search, search, stores());

/// The error of opening `name` as RouterDB.
async fn refusal(directory: &Path, name: &str) -> OpenError {
    match open_router(&url(directory, name)).await {
        Ok(_) => panic!("{name} must be refused"),
        Err(error) => {
            assert!(error.to_string().contains(name), "the error names the file: {error}");
            error
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_database_is_refused_by_name_and_left_alone() {
    let directory = place();
    for (name, content) in [("text", vec![b'x'; 10_000]), ("zeros", vec![0; 5_000]), ("short", b"hello".to_vec())] {
        let path = directory.path().join(name);
        std::fs::write(&path, &content).unwrap();
        let error = refusal(directory.path(), name).await;
        assert!(matches!(error, OpenError::Foreign { .. }), "{name}: {error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), content, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_role_is_refused_by_name() {
    let directory = place();
    open_presence(&url(directory.path(), "mixed_up")).await.unwrap().close().await;
    let error = refusal(directory.path(), "mixed_up").await;
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_another_program_is_refused_by_name() {
    let directory = place();
    execute(directory.path(), "theirs", &["CREATE TABLE cats (name TEXT)"]).await;
    let path = directory.path().join("theirs");
    #[cfg(unix)]
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let before = (std::fs::read(&path).unwrap(), path.metadata().unwrap().permissions());
    let error = refusal(directory.path(), "theirs").await;
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
    assert!(xm_store::sql::Schema::Router.status(&url(directory.path(), "theirs")).await.is_err());
    assert!(before == (std::fs::read(&path).unwrap(), path.metadata().unwrap().permissions()), "and left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_version_is_refused_by_name() {
    let directory = place();
    open_router(&url(directory.path(), "future")).await.unwrap().close().await;
    let step = "INSERT INTO seaql_migrations VALUES ('router_9999', 0)";
    execute(directory.path(), "future", &[step]).await;
    let error = refusal(directory.path(), "future").await;
    assert!(matches!(&error, OpenError::Newer { found, .. } if found == "router_9999"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_last_transaction_was_cut_short_opens_as_it_was_before() {
    use sea_orm::{ConnectOptions, ConnectionTrait};
    let directory = place();
    open_router(&url(directory.path(), "before")).await.unwrap().close().await;
    let mut options = ConnectOptions::new(format!("sqlite:{}", directory.path().join("before").display()));
    let writer = sea_orm::Database::connect(options.max_connections(1).clone()).await.unwrap();
    // Restored databases have no write-ahead log yet. What does not fit into the cache is written before the commit.
    let half = "PRAGMA journal_mode = DELETE; PRAGMA cache_size = 2; BEGIN IMMEDIATE; DELETE FROM seaql_migrations; \
        CREATE TABLE cats AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999) \
        SELECT i, hex(randomblob(500)) FROM n";
    writer.execute_unprepared(half).await.unwrap();
    for (from, to) in [("before", "RouterDB"), ("before-journal", "RouterDB-journal")] {
        std::fs::copy(directory.path().join(from), directory.path().join(to)).unwrap();
    }
    let router = url(directory.path(), "RouterDB");
    assert_eq!(xm_store::sql::Schema::Router.status(&router).await.unwrap().pending, [""; 0]);
    open_router(&router).await.unwrap().close().await;
    assert!(!try_execute(directory.path(), "RouterDB", &["SELECT * FROM cats"]).await, "what was half done is undone");
}

/// `docs/decisions/0017-how-sqlite-is-compiled.md`.
#[tokio::test]
async fn sqlites_threads_share_no_lock_for_their_memory() {
    use sea_orm::{ConnectionTrait, DbBackend, Statement};
    let sqlite = sea_orm::Database::connect("sqlite::memory:").await.unwrap();
    let question = Statement::from_string(DbBackend::Sqlite, "PRAGMA compile_options");
    let rows = sqlite.query_all_raw(question).await.unwrap();
    let options: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    assert!(options.iter().any(|option| option == "DEFAULT_MEMSTATUS=0"), "{options:?}");
    assert!(!options.iter().any(|option| option == "ENABLE_MEMORY_MANAGEMENT"), "{options:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_opened_is_named() {
    let directory = place();
    let error = refusal(directory.path(), "missing/directory/RouterDB").await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
    std::fs::create_dir(directory.path().join("folder")).unwrap();
    let error = refusal(directory.path(), "folder").await;
    assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
    for url in ["", "sqlite:", "mysql://localhost/x", "RouterDB"] {
        let error = open_router(url).await.expect_err(url);
        assert!(matches!(error, OpenError::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_with_special_characters_is_taken_as_it_is() {
    let directory = place();
    let name = "a ?mode=memory#&%20'\"é.db";
    open_router(&url(directory.path(), name)).await.unwrap().close().await;
    assert!(directory.path().join(name).exists());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_files_belong_to_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = place();
    let path = directory.path().join("RouterDB");
    std::fs::write(&path, b"").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let store = open_router(&url(directory.path(), "RouterDB")).await.unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", file.path().display());
    }
    store.close().await;
}

// On one thread: both look for their names before the statement is made.
#[tokio::test]
async fn rows_no_version_wrote_are_errors_and_not_panics() {
    use xm_store::StoreError;
    use xm_store::testing::{AWKWARD, NOW, name, profile};
    let damages = [
        "name = '\u{202e}x y'",
        "name = NULL",
        "name = x'ff00'",
        "email = 'no address'",
        "key_hash = x'00'",
        "created = -1",
        "created = 'yesterday'",
        "failed_attempts = 99999999999",
        "gender = 4000",
        "nickname = 'a' || char(0) || 'b'",
        "nickname = hex(zeroblob(200000))",
        "avatar = x'01'",
    ];
    assert!(AWKWARD.len() > 1);
    for damage in damages {
        let directory = place();
        let store = open_presence(&url(directory.path(), "PresenceDB_C1P1")).await.unwrap();
        let account = |user, called| xm_store::records::NewAccount {
            user: xmmep::types::UserId(user),
            name: name(called),
            email: xmmep::name::Email::new("ann@example.org").unwrap(),
            key_hash: xmmep::secret::KeyHash::from_bytes([1; 32]),
            profile: profile("about"),
            created: NOW,
        };
        store.create(account(7, "ann")).await.unwrap();
        store.create(account(8, "bob")).await.unwrap();
        store.close().await;
        let relax = "PRAGMA ignore_check_constraints = ON";
        let sql = format!("UPDATE accounts SET {damage} WHERE user = 7");
        // A damage the schema itself prevents is none.
        if !try_execute(directory.path(), "PresenceDB_C1P1", &[relax, &sql]).await {
            continue;
        }
        let store = open_presence(&url(directory.path(), "PresenceDB_C1P1")).await.unwrap();
        let found = store.by_user(xmmep::types::UserId(7)).await;
        assert!(matches!(found, Err(StoreError::Corrupt(_))), "{damage}: {found:?}");
        // Looked for at once, they share a statement.
        let (ann, bob) = (name("ann"), name("bob"));
        let (ann, bob) = tokio::join!(store.by_name(&ann), store.by_name(&bob));
        assert!(matches!(ann, Err(StoreError::Corrupt(_))), "{damage}: {ann:?}");
        assert_eq!(bob.unwrap().unwrap().user.0, 8, "{damage}");
    }
}

async fn execute(directory: &Path, name: &str, statements: &[&str]) {
    assert!(try_execute(directory, name, statements).await, "{statements:?}");
}

/// Runs statements behind the store's back.
async fn try_execute(directory: &Path, name: &str, statements: &[&str]) -> bool {
    use sea_orm::ConnectionTrait;
    let url = format!("sqlite:{}?mode=rwc", directory.join(name).display());
    let database = sea_orm::Database::connect(url).await.expect("SQLite opens it");
    let mut all = true;
    for statement in statements {
        all &= database.execute_unprepared(statement).await.is_ok();
    }
    database.close().await.expect("it closes");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_erased_is_in_no_file_any_more() {
    use xm_store::records::{NewAccount, Parcel};
    use xm_store::testing::{NOW, at, msg_id, name, profile};
    use xmmep::types::UserId;
    let directory = place();
    let store = open_presence(&url(directory.path(), "PresenceDB_C1P1")).await.unwrap();
    let secret = "only-ann-knows-this";
    let account = NewAccount {
        user: UserId(7),
        name: name("ann"),
        email: xmmep::name::Email::new("ann@example.org").unwrap(),
        key_hash: xmmep::secret::KeyHash::from_bytes([1; 32]),
        profile: profile(secret),
        created: NOW,
    };
    store.create(account).await.unwrap();
    for number in 0..100 {
        let parcel = Parcel { from: UserId(8), id: msg_id(number), sent: NOW, body: secret.repeat(300).into_bytes() };
        store.append(UserId(7), vec![parcel]).await.unwrap();
    }
    let holds = || {
        let files = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
        let has = |path: &std::path::PathBuf| {
            std::fs::read(path).unwrap().windows(secret.len()).any(|window| window == secret.as_bytes())
        };
        files.filter(has).count()
    };
    assert!(holds() > 0, "it is there before");
    Accounts::erase(&store, UserId(7)).await.unwrap();
    Offline::erase(&store, UserId(7), at(1)).await.unwrap();
    assert_eq!(holds(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_that_an_erased_user_was_on_has_a_new_version_however_many_there_are() {
    use xm_store::testing::contacts::wish;
    use xmmep::types::{RosterVersion, UserId};
    let directory = place();
    let presence = url(directory.path(), "PresenceDB_C1P1");
    let store = open_presence(&presence).await.unwrap();
    store.ask(wish(1, 5_000)).await.unwrap();
    store.ask(wish(4, 4_000)).await.unwrap();
    store.close().await;
    let more = "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 2501) \
        INSERT INTO relations SELECT i, buddy, owner_name, buddy_name, group_id, display_name, state, asked_at, greeting \
        FROM n JOIN relations ON owner = 1";
    let columns = "owner, buddy, owner_name, buddy_name, group_id, display_name, state, asked_at, greeting";
    let more = more.replace("INTO relations", &format!("INTO relations ({columns})"));
    execute(directory.path(), "PresenceDB_C1P1", &[&more]).await;
    let store = open_presence(&presence).await.unwrap();
    assert_eq!(Contacts::erase(&store, UserId(5_000)).await.unwrap().len(), 2_501);
    for (user, version) in [(1, 3), (2, 2), (4, 3), (1_001, 2), (2_501, 2), (2_502, 1)] {
        assert_eq!(store.load(UserId(user)).await.unwrap().version, RosterVersion(version), "user {user}");
    }
    assert_eq!(store.load(UserId(4)).await.unwrap().buddies.len(), 1, "others stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_or_mail_no_version_wrote_stops_no_other() {
    use xm_store::records::{Level, Mail, Parcel, ParcelId, Place};
    use xm_store::testing::{NOW, at, msg_id, request_id, text};
    use xmmep::types::UserId;
    let directory = place();
    let presence = url(directory.path(), "PresenceDB_C1P1");
    let store = open_presence(&presence).await.unwrap();
    for number in 0..5 {
        let parcel = Parcel { from: UserId(8), id: msg_id(number), sent: NOW, body: vec![number as u8] };
        store.append(UserId(7), vec![parcel]).await.unwrap();
    }
    store.close().await;
    execute(
        directory.path(),
        "PresenceDB_C1P1",
        &["UPDATE parcels SET msg = CAST(place AS BLOB) WHERE place IN (1, 3)"],
    )
    .await;
    let store = open_presence(&presence).await.unwrap();
    let page = store.page(UserId(7), Place::START, 64, 1_000).await.unwrap();
    assert_eq!(page.iter().map(|(place, _)| place.0).collect::<Vec<_>>(), [2, 4, 5]);
    assert_eq!(store.sent_by(UserId(8), None, 64).await.unwrap().len(), 3);
    assert_eq!(store.stats().unreadable, 4);
    execute(directory.path(), "PresenceDB_C1P1", &["UPDATE parcels SET level = 9 WHERE place = 2"]).await;
    let ids = [1, 4].map(|number| ParcelId { from: UserId(8), id: msg_id(number) });
    assert_eq!(store.settle(UserId(7), &ids, Level::Received, at(1)).await.unwrap(), ids[1..]);
    assert_eq!(store.stats().unreadable, 5);
    execute(directory.path(), "PresenceDB_C1P1", &["UPDATE parcels SET level = 0 WHERE place IN (2, 5)"]).await;
    let expired = store.expire(at(1), at(2), 1).await.unwrap();
    assert_eq!(expired.len(), 1, "the first one that can be told to its sender");
    assert_eq!(store.expire(at(1), at(2), 10).await.unwrap().len(), 2);
    assert_eq!(store.expire(at(1), at(2), 10).await.unwrap(), [], "the others are gone, too");

    let register = url(directory.path(), "RegisterDB");
    let store = open_register(&register).await.unwrap();
    for number in 1..=4 {
        let to = xmmep::name::Email::new(&format!("{number}@example.org")).unwrap();
        let mail = Mail { id: request_id(number), to, subject: text("s"), body: Default::default(), created: NOW };
        store.enqueue(mail).await.unwrap();
    }
    store.close().await;
    execute(directory.path(), "RegisterDB", &["UPDATE mails SET recipient = 'nobody', due = 1 WHERE subject = 's' AND recipient LIKE '1%' OR recipient LIKE '2%'"])
        .await;
    let store = open_register(&register).await.unwrap();
    let due = store.due(at(1), 1).await.unwrap();
    assert_eq!(due.len(), 1, "mails behind what cannot be read leave");
    assert_eq!(store.due(at(1), 10).await.unwrap().len(), 2);
    assert_eq!(store.erase(&xmmep::name::Email::new("3@example.org").unwrap()).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_levels_is_forgotten_in_one_call() {
    use xm_store::offline::Appended;
    use xm_store::records::{LEVEL_KEPT, Level, Parcel, ParcelId, Quotas};
    use xm_store::testing::{NOW, at, msg_id};
    use xmmep::types::UserId;
    let directory = place();
    let quotas = Quotas { messages: u64::MAX, messages_per_sender: u64::MAX, ..Quotas::default() };
    let store = open_presence(&url(directory.path(), "PresenceDB_C1P1")).await.unwrap().with_quotas(quotas);
    let parcel = |number| Parcel { from: UserId(8), id: msg_id(number), sent: NOW, body: Vec::new() };
    let ids: Vec<_> = (0..2_500).map(|number| ParcelId { from: UserId(8), id: msg_id(number) }).collect();
    let appended = store.append(UserId(7), (0..2_500).map(parcel).collect()).await.unwrap();
    assert!(appended.iter().all(|one| matches!(one, Appended::Stored(_))));
    // One rose later than the others, and one not at all.
    store.settle(UserId(7), &ids[..2_498], Level::Received, at(1)).await.unwrap();
    store.settle(UserId(7), &ids[2_498..2_499], Level::Received, at(9)).await.unwrap();
    store.forget(at(5).after(LEVEL_KEPT)).await.unwrap();
    let mut left = Vec::new();
    for id in ids {
        left.extend(store.level(UserId(7), id).await.unwrap());
    }
    assert_eq!(left, [Level::Received, Level::Stored]);
}
