//! The commands for what is kept: db, store, backup, restore. What they must notice, refuse and leave alone.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::place::{Place, mode, output, text};
use crate::registration::{PASSWORD, enrol, login};

/// Runs a command on a place. Returns the exit code and all it said.
fn said(place: &Place, args: &[&str]) -> (i32, String) {
    let config = place.config();
    run(&[args, &["--config", &config]].concat())
}

fn run(args: &[&str]) -> (i32, String) {
    let output = output(args);
    (output.status.code().unwrap(), format!("{}{}", text(&output.stdout), text(&output.stderr)))
}

/// A place in which Ann has an account, with nothing running.
fn with_ann() -> Place {
    let place = Place::new("");
    let running = place.start();
    enrol(&place, &running, "ann");
    running.stop("-TERM");
    place
}

/// A directory beside the data.
fn beside(place: &Place, name: &str) -> PathBuf {
    place.data("").with_file_name(name)
}

fn backed_up(place: &Place, name: &str) -> PathBuf {
    let to = beside(place, name);
    let (code, text) = said(place, &["backup", "--to", to.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    to
}

#[test]
fn status_tells_what_is_pending_and_migrate_makes_it() {
    let place = Place::new("");
    let (code, before) = said(&place, &["db", "status"]);
    assert_eq!(code, 1, "{before}");
    assert!(before.contains("pending: router_0001") && before.contains("applied: none"), "{before}");
    assert!(!place.data("").exists(), "status makes nothing");
    let (code, done) = said(&place, &["db", "migrate"]);
    assert_eq!(code, 0, "{done}");
    assert!(done.contains("RouterDB: router_0001") && done.contains("RegisterDB: done"), "{done}");
    let (code, after) = said(&place, &["db", "status"]);
    assert_eq!(code, 0, "{after}");
    assert_eq!(after.matches("pending: none").count(), 3, "{after}");
    let (code, again) = said(&place, &["db", "migrate"]);
    assert_eq!((code, again.matches("nothing to do").count()), (0, 3), "{again}");
    // The tables came before the first start, which makes everything else.
    place.start().stop("-TERM");
}

#[test]
fn status_can_be_asked_of_a_running_server_and_names_what_is_unusable() {
    let place = Place::new("");
    let running = place.start();
    let (code, text) = said(&place, &["db", "status"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = said(&place, &["db", "migrate"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("in use by another xmd"), "{text}");
    running.stop("-TERM");
    std::fs::write(place.data("RegisterDB.db"), [b'x'; 5_000]).unwrap();
    let (code, text) = said(&place, &["db", "status"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("unusable: ") && text.contains("RegisterDB.db"), "{text}");
    assert!(text.contains("applied: router_0001"), "the others are shown all the same: {text}");
}

#[test]
fn a_check_reads_everything_and_needs_the_directory_for_itself() {
    let place = with_ann();
    let (code, good) = said(&place, &["store", "check"]);
    assert_eq!(code, 0, "{good}");
    for words in
        ["1 accounts", "1 placements", "RouterDB and PresenceDB_C1P1", "offline messages", "everything is good"]
    {
        assert!(good.contains(words), "no {words:?} in {good}");
    }
    let running = place.start();
    let (code, text) = said(&place, &["store", "check"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("in use by another xmd"), "{text}");
    running.stop("-TERM");
    let missing = beside(&place, "missing");
    let (code, text) = run(&["store", "check", "--data", missing.to_str().unwrap()]);
    assert!(code == 1 && text.contains("--data") && !missing.exists(), "{text}");
}

#[test]
fn a_damaged_database_is_found_and_repair_says_what_to_do() {
    let place = with_ann();
    let path = place.data("PresenceDB_C1P1.db");
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[4_096..].fill(0xff);
    std::fs::write(&path, &damaged).unwrap();
    let (code, text) = said(&place, &["store", "check"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("PresenceDB_C1P1") && text.contains("NOT everything is good"), "{text}");
    let (code, text) = said(&place, &["store", "repair"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("xmd restore") && text.contains("copy the directory"), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), damaged, "repair changes no database");
}

#[tokio::test]
async fn a_backup_of_a_stopped_server_becomes_a_server_like_it() {
    let place = with_ann();
    let backup = backed_up(&place, "backup");
    assert_eq!(mode(&backup), 0o700);
    for name in ["RouterDB.db", "PresenceDB_C1P1.db", "RegisterDB.db", "backup.manifest", "keys/router.key"] {
        assert_eq!(mode(&backup.join(name)), 0o600, "{name}");
    }
    let (code, text) = run(&["store", "check", "--data", backup.to_str().unwrap()]);
    assert!(code == 0 && text.contains("files: good") && text.contains("everything is good"), "{text}");

    let key = std::fs::read(place.data("keys/router.key")).unwrap();
    std::fs::remove_dir_all(place.data("")).unwrap();
    let data = place.data("");
    let (code, text) = run(&["restore", "--from", backup.to_str().unwrap(), "--data", data.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("everything is good"), "{text}");
    assert_eq!(std::fs::read(place.data("keys/router.key")).unwrap(), key);
    let running = place.start();
    login(&running, "ann", PASSWORD).await.unwrap().0.logout().await;
    // Ids given out since the backup are given to nobody.
    enrol(&place, &running, "bob");
    let (bob, _events) = login(&running, "bob", PASSWORD).await.unwrap();
    assert!(bob.welcome().user.0 > 1_000_000, "{}", bob.welcome().user);
    bob.logout().await;
}

#[test]
fn a_backup_that_is_unfinished_or_changed_is_refused_and_nothing_is_made_of_it() {
    let place = with_ann();
    let backup = backed_up(&place, "backup");
    let target = beside(&place, "restored");
    let restore = || run(&["restore", "--from", backup.to_str().unwrap(), "--data", target.to_str().unwrap()]);
    let mut files = vec![backup.clone()];
    let mut all = Vec::new();
    while let Some(directory) = files.pop() {
        for entry in directory.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files.push(path) } else { all.push(path) }
        }
    }
    assert!(all.len() >= 7, "{all:?}");
    for path in &all {
        let whole = std::fs::read(path).unwrap();
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 0x10;
        for bytes in [&changed[..], &whole[..whole.len() - 1]] {
            std::fs::write(path, bytes).unwrap();
            let (code, text) = restore();
            assert_eq!(code, 1, "{}: {text}", path.display());
            assert!(text.contains("take another backup"), "{text}");
            assert!(!target.exists(), "{text}");
        }
        std::fs::remove_file(path).unwrap();
        let (code, text) = restore();
        assert!(code == 1 && !target.exists(), "{}: {text}", path.display());
        std::fs::write(path, &whole).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert_eq!(restore().0, 0);
}

#[test]
fn neither_a_backup_nor_a_restore_touches_what_is_there_already() {
    let place = with_ann();
    let backup = backed_up(&place, "backup");
    let data = place.data("");
    let paths = |path: &Path| path.to_str().unwrap().to_owned();
    for (args, words) in [
        (["backup", "--to", &paths(&backup)], "is not empty"),
        (["backup", "--to", &paths(&data.join("inside"))], "is inside"),
        (["backup", "--to", "/dev/null"], "cannot use /dev/null"),
    ] {
        let (code, text) = said(&place, &args);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(words), "{text}");
    }
    assert!(!data.join("inside").exists());
    let busy = beside(&place, "busy");
    std::fs::create_dir(&busy).unwrap();
    std::fs::set_permissions(&busy, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(busy.join("somebody else's"), b"").unwrap();
    for target in [&busy, &data] {
        let (code, text) = run(&["restore", "--from", &paths(&backup), "--data", &paths(target)]);
        assert!(code == 1 && text.contains("is not empty"), "{text}");
    }
    assert_eq!(mode(&busy), 0o755, "what is not ours keeps its mode");
    let (code, text) = run(&["backup", "--data", &paths(&busy), "--to", &paths(&beside(&place, "none"))]);
    assert!(code == 1 && text.contains("is missing") && !beside(&place, "none").exists(), "{text}");
}

#[test]
fn no_server_starts_in_a_backup_or_in_half_a_restored_directory() {
    let place = with_ann();
    let backup = backed_up(&place, "backup");
    let (code, text) = run(&["run", "--data", backup.to_str().unwrap()]);
    assert!(code == 1 && text.contains("is a backup"), "{text}");
    assert!(!backup.join("xmd.lock").exists());
    // What a power cut in the middle of a restore leaves.
    std::fs::write(place.data("restore.unfinished"), b"").unwrap();
    let (code, text) = place.refused();
    assert!(code == Some(1) && text.contains("half restored"), "{text}");
}
