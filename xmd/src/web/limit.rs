//! How often one address may do something, in memory whose size no stranger can change.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use xmmep::types::Time;

/// Buckets of a limiter: 65,536 × 8 B = 512 KiB, whatever is thrown at it. Two addresses can share a bucket, but nobody
/// outside can tell which: the places are drawn with a key of this process.
const BUCKETS: usize = 65_536;

/// A rate limit per address: `burst` at once, then one per `interval`.
///
/// IPv6 addresses count by their /64, which is what one customer gets. Somebody with tens of thousands of networks can
/// fill all buckets and so close a form for everybody; without limits he would fill the database instead.
pub(super) struct Limiter {
    /// For each bucket the time until which it is paid for, in microseconds (generic cell rate algorithm).
    buckets: Mutex<Box<[u64]>>,
    places: RandomState,
    interval: Duration,
    burst: u32,
}

impl Limiter {
    /// `burst` at once, then one per `interval`.
    #[must_use]
    pub(super) fn new(burst: u32, interval: Duration) -> Self {
        let buckets = vec![0; BUCKETS].into_boxed_slice();
        Self { buckets: Mutex::new(buckets), places: RandomState::new(), interval, burst }
    }

    /// Counts one try of `address`.
    ///
    /// # Errors
    /// If it is one too many: after how long the next one is welcome. A refused try costs nothing.
    pub(super) fn take(&self, address: IpAddr, now: Time) -> Result<(), Duration> {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let place = usize::try_from(self.places.hash_one(network(address)) % BUCKETS as u64).unwrap_or(0);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let paid_until = buckets[place].max(now.as_micros());
        let next = paid_until.saturating_add(micros(self.interval));
        let allowed = now.as_micros().saturating_add(micros(self.interval.saturating_mul(self.burst)));
        if next > allowed {
            return Err(Duration::from_micros(next.saturating_sub(allowed)));
        }
        buckets[place] = next;
        Ok(())
    }
}

/// What one customer gets: an IPv4 address, an IPv6 /64.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(u32::from(v4)),
        // No IPv4 address comes out here: the upper half of a /64 in use is never below 2^32.
        IpAddr::V6(v6) => u64::try_from(u128::from(v6) >> 64).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn six_at_once_then_one_per_thirty_seconds() {
        let limiter = Limiter::new(6, Duration::from_secs(30));
        let ann = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..6 {
            assert_eq!(limiter.take(ann, seconds(100)), Ok(()));
        }
        assert_eq!(limiter.take(ann, seconds(100)), Err(Duration::from_secs(30)));
        assert_eq!(limiter.take(ann, seconds(129)), Err(Duration::from_secs(1)));
        assert_eq!(limiter.take(ann, seconds(130)), Ok(()));
        assert_eq!(limiter.take(ann, seconds(130)), Err(Duration::from_secs(30)));
        for _ in 0..6 {
            assert_eq!(limiter.take(ann, seconds(1_000)), Ok(()));
        }
        assert!(limiter.take(ann, seconds(1_000)).is_err());
    }

    #[test]
    fn a_network_of_one_customer_shares_a_bucket_and_others_do_not() {
        let limiter = Limiter::new(1, Duration::from_secs(30));
        let now = seconds(1);
        assert!(limiter.take("2001:db8:1:1::1".parse().unwrap(), now).is_ok());
        assert!(limiter.take("2001:db8:1:1:ffff::2".parse().unwrap(), now).is_err());
        // One in 65,536 shares a bucket by chance: of fifty others, at least 48 are free in every sane run.
        let free = (2..52).filter(|n| limiter.take(format!("2001:db8:1:{n}::1").parse().unwrap(), now).is_ok());
        assert!(free.count() >= 48);
        assert!(limiter.take("192.0.2.1".parse().unwrap(), now).is_ok());
        assert!(limiter.take("::ffff:192.0.2.1".parse().unwrap(), now).is_err());
    }
}
