//! What must not happen to databases between two starts: being renamed, lost, or looked for in another place.

use std::process::Command;

use crate::place::{PATIENCE, Place};
use crate::registration::{PASSWORD, enrol, login};

/// A place in which Ann has an account, with nothing running.
fn with_ann(more: &str) -> Place {
    let place = Place::new(more);
    let running = place.start();
    enrol(&place, &running, "ann");
    running.stop("-TERM");
    place
}

fn names(place: &Place) -> Vec<String> {
    let mut names: Vec<_> =
        place.data("").read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn databases_with_their_old_names_are_refused_with_the_commands_that_rename_them() {
    let place = with_ann("");
    // As a crash leaves them: what was committed last is in the file beside the database.
    for (new, old) in [("RouterDB", "router"), ("PresenceDB_C1P1", "presence-C1P1"), ("RegisterDB", "register")] {
        std::fs::rename(place.data(&format!("{new}.db")), place.data(&format!("{old}.db"))).unwrap();
        std::fs::write(place.data(&format!("{old}.db-wal")), b"").unwrap();
    }
    let before = names(&place);
    let (code, said) = place.refused();
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(names(&place), before, "nothing is made beside them");
    let commands = said.split_once("with no xmd running: ").unwrap_or_else(|| panic!("no commands in {said}")).1.trim();
    assert!(commands.contains("mv router.db-wal RouterDB.db-wal"), "{commands}");
    assert!(Command::new("sh").args(["-ec", commands]).status().unwrap().success(), "{commands}");
    let running = place.start();
    login(&running, "ann", PASSWORD).await.unwrap().0.logout().await;
}

#[test]
fn a_part_that_is_gone_is_not_made_anew_and_can_be_given_up() {
    for (gone, kind) in [
        ("PresenceDB_C1P1.db", "file"),
        ("RegisterDB.db", "file"),
        ("RouterDB.db", "file"),
        ("offline-C1P1", "directory"),
    ] {
        let place = with_ann("");
        let aside = place.data("").with_file_name("aside");
        std::fs::rename(place.data(gone), &aside).unwrap();
        let (code, said) = place.refused();
        assert_eq!(code, Some(1), "{gone}: {said}");
        assert!(said.contains(&format!("{gone} is missing")) && said.contains("backup"), "{said}");
        assert!(said.contains(kind) || gone == "RouterDB.db", "{said}");
        assert!(!place.data(gone).exists(), "{gone} was made");
        if gone == "RegisterDB.db" {
            std::fs::write(place.data(gone), b"").unwrap();
        } else {
            std::fs::rename(&aside, place.data(gone)).unwrap();
        }
        place.start().stop("-TERM");
    }
}

#[test]
fn a_router_without_anybody_does_not_go_on_beside_accounts() {
    let place = with_ann("");
    std::fs::write(place.data("RouterDB.db"), b"").unwrap();
    let (code, said) = place.refused();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("RouterDB.db is missing or empty, but") && said.contains("has accounts"), "{said}");
}

#[test]
fn a_server_is_not_begun_with_beside_accounts_in_files() {
    let place = with_ann("");
    let config = std::fs::read_to_string(place.config()).unwrap();
    let server = format!("{config}[database]\nurl = \"mysql://xmd@127.0.0.1:1/\"\n");
    std::fs::write(place.config(), &server).unwrap();
    let (code, said) = place.refused();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("database.url names a server") && said.contains("RouterDB.db exists"), "{said}");
    std::fs::write(place.config(), config).unwrap();
    place.start().stop("-TERM");
}

#[test]
fn a_way_to_another_machine_that_is_not_safe_is_a_warning_at_start() {
    // Not the address of this machine for all that xmd can know, and nobody listens there.
    for (url, words) in [
        ("mysql://xmd@0.0.0.0:1/?ssl-mode=DISABLED", "may be unencrypted"),
        ("postgres://xmd@0.0.0.0:1/?sslmode=require", "need not prove its name"),
    ] {
        let place = Place::new(&format!("[database]\nurl = \"{url}\"\n"));
        let (code, said) = place.refused();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("WARNING") && said.contains(words), "{said}");
    }
}

#[test]
fn a_database_server_that_is_away_is_named_without_its_password_and_without_delay() {
    for scheme in ["mysql", "postgres"] {
        let place =
            Place::new(&format!("[database]\nurl = \"{scheme}://xmd@127.0.0.1:1/\"\npassword_file = \"PASSWORD\"\n"));
        let file = place.data("").with_file_name("password");
        std::fs::write(&file, "s3cret words\n").unwrap();
        let config = std::fs::read_to_string(place.config()).unwrap().replace("PASSWORD", file.to_str().unwrap());
        std::fs::write(place.config(), config).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        let (code, said) = place.refused();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("can be read by others (mode 0640)"), "{said}");
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let begun = std::time::Instant::now();
        let (code, said) = place.refused();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("127.0.0.1:1") && said.contains("[database]"), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
        assert!(begun.elapsed() < PATIENCE, "{said}");
    }
}
