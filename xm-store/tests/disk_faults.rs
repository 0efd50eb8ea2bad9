//! A disk that fails, is slow, is full, is read-only, and a process out of descriptors: no tick that is not true, nothing
//! ticked lost, and work goes on by itself once the fault has passed. Faults are injected into a victim by `strace`, or come
//! from a small file system and from limits.
#![cfg(all(target_os = "linux", feature = "offline-log"))]

#[path = "common/child.rs"]
mod child;
#[path = "common/faults.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod faults;
#[path = "common/loop_disk.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod loop_disk;
#[path = "common/need.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod need;
#[path = "common/victim.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod victim;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use child::Victim;
use faults::{injected, tmpfs};
use victim::{Ledger, options};
use xm_store::OpenError;
use xm_store::offline_log::OfflineLog;

/// Resident memory a victim may have, in KiB: that of a test executable and a log of some thousand messages.
const RESIDENT_MAX: u64 = 96 * 1024;

/// Kills the victim and compares.
fn compare(directory: &Path, victim: Victim, when: &str) {
    let mut ledger = Ledger::default();
    ledger.take(&victim.kill());
    ledger.compare(directory, when);
}

#[test]
fn a_call_that_fails_once_gets_no_tick_and_the_log_reads_the_disk_again() {
    let flushes = ["fdatasync:error=EIO:when=1", "fdatasync:error=EIO:when=2", "fdatasync:error=EIO:when=9"];
    let others =
        ["fsync:error=EIO:when=1", "pwrite64:error=EIO:when=3", "rename:error=EIO:when=2", "unlink:error=EIO:when=1"];
    for injection in flushes.into_iter().chain(others) {
        let Some(wrapper) = injected("a_call_that_fails_once_gets_no_tick_and_the_log_reads_the_disk_again", injection)
        else {
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let mut victim = Victim::start(directory.path(), 1, &wrapper);
        victim.wait_for("event:stopped");
        victim.wait_for("event:reopened");
        victim.wait_for_many("stored", 40);
        assert_eq!(victim.count("event:stopped"), 1, "{injection}");
        // A removal that fails is met after all have their answers.
        let is_met = victim.count("refused:stopped") > 0 || injection.starts_with("unlink");
        assert!(is_met, "{injection}: those who waited were not told that it is stored");
        compare(directory.path(), victim, injection);
    }
}

#[test]
fn a_disk_that_fails_for_long_is_waited_for() {
    let injection = "fdatasync:error=EIO:when=3..6";
    let Some(wrapper) = injected("a_disk_that_fails_for_long_is_waited_for", injection) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut victim = Victim::start(directory.path(), 1, &wrapper);
    victim.wait_for("event:still-stopped");
    victim.wait_for("event:reopened");
    victim.wait_for_many("stored", 40);
    compare(directory.path(), victim, injection);
}

#[test]
fn no_space_no_quota_and_read_only_refuse_before_any_tick_and_pass() {
    let test = "no_space_no_quota_and_read_only_refuse_before_any_tick_and_pass";
    for error in ["ENOSPC", "EDQUOT", "EROFS"] {
        // The second write of the thread is the note in `LOCK`, which nobody waits for.
        for when in ["1", "3", "5+50", "8..12"] {
            let injection = format!("pwrite64:error={error}:when={when}");
            let Some(wrapper) = injected(test, &injection) else { return };
            let directory = tempfile::tempdir().unwrap();
            let mut victim = Victim::start(directory.path(), 1, &wrapper);
            victim.wait_for("refused:full");
            victim.wait_for_many("stored", 40);
            assert_eq!(victim.count("event:stopped"), 0, "{injection}: a full disk stops nothing");
            assert!(victim.count("event:full") > 0, "{injection}");
            compare(directory.path(), victim, &injection);
        }
    }
}

#[test]
fn a_slow_disk_is_slower_and_nothing_else() {
    for (delay_us, stored) in [(10_000, 60), (100_000, 24), (500_000, 10), (10_000_000, 4)] {
        let injection = format!("fdatasync:delay_enter={delay_us}");
        let Some(wrapper) = injected("a_slow_disk_is_slower_and_nothing_else", &injection) else { return };
        let directory = tempfile::tempdir().unwrap();
        let mut victim = Victim::start(directory.path(), 1, &wrapper);
        victim.wait_for_many("stored", stored);
        let refused = victim.journal.iter().filter(|(what, _)| what.starts_with("refused")).count();
        assert_eq!(refused, 0, "{injection}");
        let is_told = victim.count("event:slow") > 0;
        assert!(is_told || delay_us < 500_000, "{injection}: the operator hears of it");
        let status = std::fs::read_to_string(format!("/proc/{}/status", victim.pid())).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(resident < RESIDENT_MAX, "{injection}: {resident} KiB");
        compare(directory.path(), victim, &injection);
    }
}

#[test]
fn a_full_file_system_refuses_until_there_is_space_without_a_restart() {
    let Some(disk) = tmpfs("a_full_file_system_refuses_until_there_is_space_without_a_restart", "8m") else { return };
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; 5 * 1024 * 1024]).unwrap();
    let directory = disk.path().join("offline");
    let mut victim = Victim::start(&directory, 1, &[]);
    victim.wait_for("event:full");
    victim.wait_for_many("refused:full", 8);
    std::fs::remove_file(&ballast).unwrap();
    victim.wait_for_many("stored", 200);
    // And once more, to the brim.
    victim.wait_for("event:full");
    assert_eq!(victim.count("event:stopped"), 0);
    let mut ledger = Ledger::default();
    ledger.take(&victim.kill());
    // A start on the full disk: everything is there, and it needs no space to say so.
    let report = xm_store::offline_log::check(&directory).unwrap();
    assert_eq!(report.losses().count(), 0, "{report}");
    OfflineLog::open(&directory, options()).expect("it opens on a full disk");
    disk.remount("size=32m").unwrap();
    ledger.compare(&directory, "a full disk");
}

#[test]
fn a_read_only_file_system_is_named_and_no_harm() {
    let Some(disk) = tmpfs("a_read_only_file_system_is_named_and_no_harm", "8m") else { return };
    let directory = disk.path().join("offline");
    let mut victim = Victim::start(&directory, 1, &[]);
    victim.wait_for_many("stored", 20);
    let mut ledger = Ledger::default();
    ledger.take(&victim.kill());
    disk.remount("ro").unwrap();
    let error = OfflineLog::open(&directory, options()).unwrap_err();
    assert!(matches!(&error, OpenError::Unreachable { path, .. } if path.starts_with(&directory)), "{error}");
    assert_eq!(xm_store::offline_log::check(&directory).unwrap().losses().count(), 0, "it can be checked");
    disk.remount("rw").unwrap();
    ledger.compare(&directory, "a read-only time");
}

#[test]
fn a_process_out_of_descriptors_refuses_until_it_has_some() {
    let missing = need::missing_program(&["prlimit"]);
    if !need::need("a_process_out_of_descriptors_refuses_until_it_has_some", "prlimit", missing) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let limited = ["prlimit", "--nofile=24:1024"].map(OsString::from);
    let mut victim = Victim::start(directory.path(), 1, &limited);
    // Each segment takes a descriptor.
    victim.wait_for_many("refused:unavailable", 8);
    let pid = victim.pid().to_string();
    let raised = Command::new("prlimit").args(["--pid", &pid, "--nofile=1024:1024"]).status().unwrap();
    assert!(raised.success());
    victim.wait_for_many("stored", 100);
    assert_eq!(victim.count("event:stopped"), 0);
    compare(directory.path(), victim, "a lack of descriptors");
}

#[test]
fn something_else_in_the_place_of_the_log_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("offline");
    std::fs::write(&file, b"?").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = OfflineLog::open(&path, options()).unwrap_err();
        assert!(matches!(&error, OpenError::Unreachable { path: named, .. } if named.starts_with(&file)), "{error}");
    }
}
