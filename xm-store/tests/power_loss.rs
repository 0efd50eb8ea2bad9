//! The power goes while a victim appends: what was not flushed is gone, and what was answered with `Stored` is there, once,
//! in order. On ext4 in a file; needs root.
//!
//! `XM_POWER_CUTS=1000 cargo test -p xm-store --features offline-log --test power_loss` cuts more often than usual. What
//! this cannot show: a disk that lies about having flushed.
#![cfg(all(target_os = "linux", feature = "offline-log"))]

#[path = "common/child.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod child;
#[path = "common/faults.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod faults;
#[path = "common/loop_disk.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod loop_disk;
#[path = "common/need.rs"]
mod need;
#[path = "common/victim.rs"]
mod victim;

use child::Victim;
use faults::powered;
use victim::Ledger;

/// How often the power goes.
const CUTS: u64 = 10;

#[test]
fn what_was_flushed_stays_and_what_was_not_is_gone() {
    let Some(mut disk) = powered("what_was_flushed_stays_and_what_was_not_is_gone") else { return };
    let path = |name| disk.path().join(name);
    std::fs::write(path("flushed"), b"here").unwrap();
    std::fs::File::open(path("flushed")).unwrap().sync_all().unwrap();
    std::fs::File::open(disk.path()).unwrap().sync_all().unwrap();
    std::fs::write(path("not"), b"here").unwrap();
    // Into room that was there before, as the log does it.
    let file = std::fs::OpenOptions::new().write(true).open(path("flushed")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"gone", 0).unwrap();
    drop(file);
    disk.cut_power().unwrap();
    disk.unmount().unwrap();
    disk.mount().unwrap();
    assert_eq!(std::fs::read(disk.path().join("flushed")).unwrap(), b"here");
    assert!(
        std::fs::read(disk.path().join("not")).is_ok_and(|bytes| bytes.is_empty()) || !disk.path().join("not").exists()
    );
}

#[test]
fn a_power_cut_loses_nothing_that_was_stored() {
    let Some(mut disk) = powered("a_power_cut_loses_nothing_that_was_stored") else { return };
    let directory = disk.path().join("offline");
    let mut ledger = Ledger::default();
    let cuts = need::setting("XM_POWER_CUTS", CUTS);
    for cut in 0..cuts {
        let mut victim = Victim::start(&directory, ledger.next(), &[]);
        victim.wait_for_many("stored", 1 + (cut * 29 % 120) as usize);
        disk.cut_power().unwrap();
        if cut % 2 == 0 {
            // The log meets the dead disk, and tries to open it again: nothing is answered with `Stored` by that.
            victim.wait_for("event:stopped");
            if cut % 4 == 0 {
                victim.wait_for("event:still-stopped");
            }
        }
        ledger.take(&victim.kill());
        disk.unmount().unwrap();
        disk.mount().unwrap();
        // Every third time the next victim finds what the cut left, and is cut in its turn.
        if cut % 3 != 2 || cut + 1 == cuts {
            ledger.compare(&directory, &format!("cut {cut}"));
        }
        ledger.begin_again_if_large(&directory);
    }
    let (stored, _) = ledger.counts();
    println!("{cuts} power cuts, {stored} parcels stored, none lost, none twice");
    assert!(stored > 20 * cuts, "only {stored} parcels were stored");
}
