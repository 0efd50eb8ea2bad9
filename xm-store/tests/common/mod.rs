//! What the tests of this crate share: real database servers, and means to break the road to them.
#![allow(dead_code, unreachable_pub, reason = "shared: every user takes another part")]

pub mod liar;
pub mod proxy;
pub mod servers;
pub mod wire;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::Mutex;

/// The variable that names what must not be skipped: `XM_REQUIRE=mariadb,postgres`.
const REQUIRE: &str = "XM_REQUIRE";

/// Says that `what` is not exercised on this machine, once, where everybody sees it: the test itself passes.
///
/// # Panics
/// If `XM_REQUIRE` names it.
pub fn not_exercised(what: &str, why: &str) {
    let required = std::env::var(REQUIRE).unwrap_or_default();
    assert!(!required.split(',').any(|name| name.trim() == what), "{REQUIRE} names {what}, but {why}");
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if !SAID.lock().expect("nothing panics in here").insert(what.to_owned()) {
        return;
    }
    // Straight to the descriptor: the test runner swallows what passing tests print.
    let line = format!("not exercised: {what}: {why}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error is open");
}

/// As many random bytes as wanted, from the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut source = std::fs::File::open("/dev/urandom").expect("the system has randomness");
    source.read_exact(&mut bytes).expect("and enough of it");
    bytes
}

/// The most memory this process has ever had, in bytes.
pub fn memory_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it tells the peak");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("in KiB") * 1024
}
