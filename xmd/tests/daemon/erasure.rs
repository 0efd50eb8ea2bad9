//! Everything about one person, written out and erased: `xmd user`.

use xmmep::bounded::Text;
use xmmep::client::Event;
use xmmep::messages::buddies::BuddyAnswer;
use xmmep::messages::chat::Tick;
use xmmep::name::UserName;

use crate::place::{Place, mode, output, text};
use crate::registration::{PASSWORD, enrol, login, wait};

fn said(place: &Place, args: &[&str]) -> (i32, String) {
    let config = place.config();
    let output = output(&[args, &["--config", &config]].concat());
    (output.status.code().unwrap(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

/// Ann and Bob are buddies. One message was delivered after it waited, another waits for Ann.
async fn a_place_with_history() -> Place {
    let place = Place::new("");
    let running = place.start();
    enrol(&place, &running, "ann");
    enrol(&place, &running, "bob");
    let (ann, mut ann_events) = login(&running, "ann", PASSWORD).await.unwrap();
    let (bob, mut bob_events) = login(&running, "bob", PASSWORD).await.unwrap();
    let (ann_id, bob_id) = (ann.welcome().user, bob.welcome().user);
    ann.add_buddy(UserName::new("bob").unwrap(), Text::new("it is Ann").unwrap()).await.unwrap();
    let asked = |event| matches!(event, Event::Asks { .. }).then_some(());
    wait(&mut bob_events, asked).await;
    bob.answer_buddy(ann_id, BuddyAnswer::ACCEPT_AND_ADD).await.unwrap();
    let stored =
        |id| move |event| matches!(event, Event::Tick(t) if t.id == id && t.tick == Tick::STORED).then_some(());
    bob.logout().await;
    let id = ann.send_text(bob_id, "ann wrote this to bob").await.unwrap();
    wait(&mut ann_events, stored(id)).await;
    ann.logout().await;
    running.stop("-TERM");
    let running = place.start();
    let (bob, mut bob_events) = login(&running, "bob", PASSWORD).await.unwrap();
    let id = bob.send_text(ann_id, "bob wrote this to ann").await.unwrap();
    wait(&mut bob_events, stored(id)).await;
    bob.logout().await;
    running.stop("-TERM");
    place
}

#[tokio::test]
async fn an_export_has_everything_and_no_secret() {
    let place = a_place_with_history().await;
    let file = place.data("").with_file_name("ann.json");
    let (code, words) = said(&place, &["user", "export", "ANN", "--to", file.to_str().unwrap()]);
    assert_eq!(code, 0, "{words}");
    assert_eq!(mode(&file) & 0o077, 0);
    let export: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(export["user"]["name"], "ann");
    assert_eq!(export["user"]["e-mail"], "ann@example.org");
    assert_eq!(export["roster"]["buddies"][0]["name"], "bob");
    assert_eq!(export["messages waiting for this user"][0]["text"], "bob wrote this to ann");
    let (_, other) = said(&place, &["user", "export", "bob"]);
    let other: serde_json::Value = serde_json::from_str(&other).unwrap();
    assert_eq!(other["messages of this user waiting for others"][0]["text"], "bob wrote this to ann");
    let text = export.to_string();
    for secret in ["salt", "hash", "token", "password"] {
        assert!(!text.contains(secret), "{text}");
    }
    let (code, words) = said(&place, &["user", "export", "ann", "--to", file.to_str().unwrap()]);
    assert_eq!(code, 1, "{words}");
    assert!(words.contains("exists; name another file"), "{words}");
    let (code, printed) = said(&place, &["user", "export", "ann"]);
    assert_eq!(code, 0);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), export);
}

#[tokio::test]
async fn who_is_erased_is_gone_from_every_file_and_the_others_go_on() {
    let place = a_place_with_history().await;
    let (code, words) = said(&place, &["user", "erase", "ann"]);
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("--yes"), "{words}");
    let (code, words) = said(&place, &["user", "erase", "ann", "--yes"]);
    assert_eq!(code, 0, "{words}");
    assert!(words.contains("others whose lists changed: 1"), "{words}");
    let mut looked_at = 0;
    let mut folders = vec![place.data("")];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                if !path.ends_with("mail") {
                    folders.push(path);
                }
                continue;
            }
            looked_at += 1;
            let bytes = std::fs::read(&path).unwrap();
            for trace in ["ann@example.org", "it is Ann", "bob wrote this to ann", "ann wrote this to bob"] {
                let found = bytes.windows(trace.len()).any(|window| window == trace.as_bytes());
                assert!(!found, "{trace:?} is still in {}", path.display());
            }
        }
    }
    assert!(looked_at > 5);
    let (code, words) = said(&place, &["store", "check"]);
    assert_eq!(code, 0, "{words}");
    let (code, words) = said(&place, &["user", "erase", "ann", "--yes"]);
    assert_eq!(code, 1, "{words}");
    assert!(words.contains("there is no user \"ann\""), "{words}");
    let running = place.start();
    assert!(login(&running, "ann", PASSWORD).await.is_err());
    let (bob, _) = login(&running, "bob", PASSWORD).await.unwrap();
    bob.logout().await;
    enrol(&place, &running, "Ann");
    running.stop("-TERM");
}

#[tokio::test]
async fn a_reader_of_the_last_database_does_not_make_an_erasure_fail_that_was_made() {
    use sea_orm::{ConnectOptions, ConnectionTrait, Database};
    let place = Place::new("");
    let running = place.start();
    enrol(&place, &running, "ann");
    running.stop("-TERM");
    let mut options = ConnectOptions::new(format!("sqlite://{}", place.data("RouterDB.db").display()));
    let reader = Database::connect(options.max_connections(1).clone()).await.unwrap();
    reader.execute_unprepared("BEGIN; SELECT COUNT(*) FROM placements").await.unwrap();
    let (code, words) = said(&place, &["user", "erase", "ann", "--yes"]);
    assert_eq!((code, words.contains("the next start takes them out")), (0, true), "{words}");
    reader.close().await.unwrap();
    place.start().stop("-TERM");
    for file in ["RouterDB.db", "RouterDB.db-wal"] {
        let bytes = std::fs::read(place.data(file)).unwrap_or_default();
        assert!(!bytes.windows(15).any(|window| window == b"ann@example.org"), "{file}");
    }
}

#[test]
fn a_running_server_an_unknown_and_an_impossible_name_are_refused() {
    let place = Place::new("");
    let running = place.start();
    let (code, words) = said(&place, &["user", "export", "ann"]);
    assert_eq!(code, 1, "{words}");
    assert!(words.contains("in use by another xmd"), "{words}");
    running.stop("-TERM");
    let (code, words) = said(&place, &["user", "export", "nobody"]);
    assert_eq!((code, words.contains("there is no user \"nobody\"")), (1, true), "{words}");
    let empty = tempfile::tempdir().unwrap();
    let nowhere = output(&["user", "export", "ann", "--data", empty.path().to_str().unwrap()]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("nobody has registered here yet"), "{}", text(&nowhere.stderr));
    assert!(!empty.path().join("RouterDB.db").exists(), "asking makes no database");
    let (code, words) = said(&place, &["user", "erase", "a\u{202e}b", "--yes"]);
    assert_eq!((code, words.contains("is no user name")), (2, true), "{words}");
}
