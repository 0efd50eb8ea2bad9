//! `kill -9` at any moment loses no place that was answered with `Stored`, keeps the order, doubles nothing.
//!
//! `XM_KILLS=1000 cargo test -p xm-store --features offline-log --test crash` kills more often than usual.
#![cfg(all(unix, feature = "offline-log"))]

#[path = "common/child.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod child;
#[path = "common/need.rs"]
#[expect(dead_code, reason = "shared by several tests")]
mod need;
#[path = "common/victim.rs"]
mod victim;

use child::Victim;
use victim::Ledger;

/// How often the victim is killed.
const KILLS: u64 = 25;

#[test]
fn killing_the_process_loses_nothing_that_was_stored() {
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::default();
    let kills = need::setting("XM_KILLS", KILLS);
    for kill in 0..kills {
        let mut victim = Victim::start(directory.path(), ledger.next(), &[]);
        victim.wait_for_many("stored", 1 + (kill * 13 % 60) as usize);
        ledger.take(&victim.kill());
        // Every other time the next victim finds what the crash left.
        if kill % 2 == 0 || kill + 1 == kills {
            ledger.compare(directory.path(), &format!("kill {kill}"));
        }
        ledger.begin_again_if_large(directory.path());
    }
    let (stored, settled) = ledger.counts();
    println!("{kills} kills, {stored} parcels stored, none lost, none twice");
    assert!(stored > 20 * kills && settled > 0, "only {stored} parcels were stored, {settled} confirmed");
}
