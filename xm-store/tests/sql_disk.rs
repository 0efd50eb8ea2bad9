//! A database in a file, on disks that lose power, fail, fill up, and under processes that are killed: what was answered with
//! success is there, once and in order, and work goes on by itself once the fault has passed.
//!
//! `XM_KILLS=500 XM_POWER_CUTS=300 cargo test -p xm-store --features sql --test sql_disk` takes longer. What this cannot
//! show: a disk that lies about having flushed.
#![cfg(all(target_os = "linux", feature = "sql"))]

#[path = "common/child.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod child;
#[path = "common/faults.rs"]
mod faults;
#[path = "common/loop_disk.rs"]
mod loop_disk;
#[path = "common/need.rs"]
mod need;
#[path = "common/sql_victim.rs"]
mod victim;

use child::Victim;
use faults::{injected, powered, tmpfs};
use victim::Ledger;

#[test]
fn killing_the_process_loses_nothing_that_was_committed() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::default();
    let kills = need::setting("XM_KILLS", 15);
    for kill in 0..kills {
        let mut victim = Victim::start(directory.path(), ledger.next(), &[]);
        victim.wait_for_many("stored", 1 + (kill * 13 % 60) as usize);
        ledger.take(&victim.kill());
        ledger.compare(directory.path(), &format!("kill {kill}"));
    }
    println!("{kills} kills, {} changes committed, none lost, none twice", ledger.count());
    assert!(ledger.count() as u64 > 15 * kills);
}

#[test]
fn a_power_cut_loses_nothing_that_was_committed() {
    let Some(mut disk) = powered("a_power_cut_loses_nothing_that_was_committed") else { return };
    let mut ledger = Ledger::default();
    let cuts = need::setting("XM_POWER_CUTS", 8);
    for cut in 0..cuts {
        let mut victim = Victim::start(disk.path(), 10_000 * (cut + 1), &[]);
        victim.wait_for_many("stored", 1 + (cut * 29 % 120) as usize);
        // With the power nobody hears anything any more. A flush that is under way while the file system is stopped may
        // return as if all was well: the kernel takes the change of the file's length, which it has thrown away, for one
        // that it has written before.
        let heard = victim.journal.len();
        disk.cut_power().unwrap();
        if cut % 2 == 0 {
            // It meets the dead disk: nothing is answered with success any more.
            victim.wait_for_any(&["refused:stopped", "refused:unavailable", "refused:otherwise"]);
        }
        ledger.take(&victim.kill()[..heard]);
        disk.unmount().unwrap();
        disk.mount().unwrap();
        ledger.compare(disk.path(), &format!("cut {cut}"));
    }
    println!("{cuts} power cuts, {} changes committed, none lost, none twice", ledger.count());
    assert!(ledger.count() as u64 > 10 * cuts);
}

#[test]
fn a_flush_that_fails_is_answered_with_no_success_and_the_database_is_opened_anew() {
    let at_once = ["fsync:error=EIO:when=20", "fsync:error=EIO:when=20..22", "pwrite64:error=EIO:when=900"];
    // Longer than anybody waits for a commit.
    let late = ["fsync:error=EIO:delay_enter=6500000:when=20"];
    for injection in at_once.into_iter().chain(late) {
        let test = "a_flush_that_fails_is_answered_with_no_success_and_the_database_is_opened_anew";
        let Some(wrapper) = injected(test, injection) else { return };
        let directory = tempfile::tempdir().unwrap();
        let mut victim = Victim::start(directory.path(), 1, &wrapper);
        victim.wait_for("refused:stopped");
        victim.wait_for_many("stored", 40);
        let mut ledger = Ledger::default();
        ledger.take(&victim.kill());
        ledger.compare(directory.path(), injection);
    }
}

#[test]
fn a_full_disk_refuses_changes_before_any_success_and_passes() {
    let Some(disk) = tmpfs("a_full_disk_refuses_changes_before_any_success_and_passes", "3m") else { return };
    let mut victim = Victim::start(disk.path(), 1, &[]);
    victim.wait_for("refused:full");
    disk.remount("size=24m").unwrap();
    // A commit that failed must not leave its transaction open under those that follow.
    victim.wait_for_many("refused:rightly", 20);
    victim.wait_for_many("stored", 40);
    let mut ledger = Ledger::default();
    ledger.take(&victim.kill());
    ledger.compare(disk.path(), "a full disk");
}

#[test]
fn a_slow_disk_makes_changes_slow_and_loses_none() {
    let injection = "fsync:delay_enter=100000";
    let Some(wrapper) = injected("a_slow_disk_makes_changes_slow_and_loses_none", injection) else { return };
    let directory = tempfile::tempdir().unwrap();
    let mut victim = Victim::start(directory.path(), 1, &wrapper);
    victim.wait_for_many("stored", 40);
    let mut ledger = Ledger::default();
    ledger.take(&victim.kill());
    ledger.compare(directory.path(), injection);
}
