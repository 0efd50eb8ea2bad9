//! Password guessing: after some failures each further attempt has to wait longer, per user name and per address. Never a
//! lock, and a fixed amount of memory: names and addresses share the places of a table.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use xmmep::types::Time;

/// Places in each table: 65,536 × 16 B = 1 MiB. Two names in one place share their failures, which slows both.
const PLACES: usize = 1 << 16;
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// Failures are forgotten after this.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3_600);
/// Failures from one address before each further attempt from there waits: many users may share it.
const FREE_PER_ADDRESS: u32 = 100;

pub(super) struct Attempts {
    hasher: RandomState,
    names: Mutex<Box<[Failures]>>,
    addresses: Mutex<Box<[Failures]>>,
}

#[derive(Clone, Copy, Default)]
struct Failures {
    count: u32,
    last: Time,
}

impl Failures {
    fn wait(self, free: u32, now: Time) -> Option<Duration> {
        let beyond = self.count.checked_sub(free)?;
        let wait = Duration::from_secs(1u64.checked_shl(beyond).unwrap_or(u64::MAX)).min(WAIT_MAX);
        wait.checked_sub(now.since(self.last)).filter(|left| !left.is_zero())
    }

    fn fail(&mut self, now: Time) {
        let forgotten = now.since(self.last) >= FORGOTTEN_AFTER;
        *self = Self { count: if forgotten { 1 } else { self.count.saturating_add(1) }, last: now };
    }
}

impl Attempts {
    pub(super) fn new() -> Self {
        let table = || Mutex::new(vec![Failures::default(); PLACES].into_boxed_slice());
        Self { hasher: RandomState::new(), names: table(), addresses: table() }
    }

    /// How long this attempt has to wait; `None` if it may be made now.
    pub(super) fn wait(&self, now: Time, folded: &str, ip: Option<IpAddr>, free: u32) -> Option<Duration> {
        let name = self.names.lock().unwrap_or_else(PoisonError::into_inner)[self.place(folded)];
        let address = ip.map(|ip| self.addresses.lock().unwrap_or_else(PoisonError::into_inner)[self.place(ip)]);
        name.wait(free, now).max(address.and_then(|failures| failures.wait(FREE_PER_ADDRESS, now)))
    }

    /// An attempt failed.
    pub(super) fn failed(&self, now: Time, folded: &str, ip: Option<IpAddr>) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)[self.place(folded)].fail(now);
        if let Some(ip) = ip {
            self.addresses.lock().unwrap_or_else(PoisonError::into_inner)[self.place(ip)].fail(now);
        }
    }

    /// A login succeeded: the name's failures are forgotten.
    pub(super) fn succeeded(&self, folded: &str) {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)[self.place(folded)] = Failures::default();
    }

    fn place(&self, key: impl std::hash::Hash) -> usize {
        (self.hasher.hash_one(key) as usize) & (PLACES - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_are_free_and_each_further_one_waits_longer_up_to_15_minutes() {
        let attempts = Attempts::new();
        let mut now = Time::from_micros(1);
        let mut waits = Vec::new();
        for _ in 0..30 {
            let wait = attempts.wait(now, "ann", None, 10).unwrap_or_default();
            waits.push(wait.as_secs());
            now = now.after(wait);
            attempts.failed(now, "ann", None);
        }
        assert_eq!(waits[..15], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 8, 16]);
        assert_eq!(waits[29], 900);
    }

    #[test]
    fn a_good_login_or_an_hour_forgets_the_failures_of_a_name() {
        let attempts = Attempts::new();
        let now = Time::from_micros(1);
        (0..20).for_each(|_| attempts.failed(now, "ann", None));
        assert!(attempts.wait(now, "ann", None, 10).is_some());
        attempts.succeeded("ann");
        assert_eq!(attempts.wait(now, "ann", None, 10), None);
    }

    #[test]
    fn an_address_that_guesses_at_many_names_has_to_wait_too() {
        let attempts = Attempts::new();
        let ip = Some("192.0.2.1".parse().unwrap());
        let now = Time::from_micros(1);
        (0..101).for_each(|n| attempts.failed(now, &format!("user{n}"), ip));
        assert!(attempts.wait(now, "somebody else", ip, 10).is_some());
        assert_eq!(attempts.wait(now, "somebody else", Some("192.0.2.2".parse().unwrap()), 10), None);
    }
}
