//! Cookies and the limit per address: all that happens before the first curve operation. Nothing here allocates
//! after construction. Admission tickets live in `ticket.rs`.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::types::Time;

/// Bytes of a cookie: issue time (8, microseconds of the server's monotonic clock) and MAC (16).
pub(super) const COOKIE_LEN: usize = 24;

/// How long a cookie is good. One slow round trip with a few lost datagrams; short, so that a harvest of cookies
/// from borrowed addresses is worth little.
pub const COOKIE_AGE_MAX: Duration = Duration::from_secs(15);

/// How long a cookie secret makes cookies. It verifies them for as long again.
pub const COOKIE_SECRET_AGE_MAX: Duration = Duration::from_secs(120);

/// What a RETRY hands out and the next INIT brings back. Opaque to clients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Cookie(pub(super) [u8; COOKIE_LEN]);

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cookie(…)")
    }
}

/// A key for BLAKE3, wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
struct MacKey([u8; 32]);

impl MacKey {
    fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }
}

/// Makes and checks cookies with two secrets that take turns.
pub(super) struct Cookies {
    current: MacKey,
    previous: MacKey,
    rotated_at: Time,
}

impl Cookies {
    pub(super) fn new(now: Time, rng: &mut impl CryptoRng) -> Self {
        Self { current: MacKey::random(rng), previous: MacKey::random(rng), rotated_at: now }
    }

    /// Puts a new secret in place of one that is too old. Called before each use.
    pub(super) fn rotate(&mut self, now: Time, rng: &mut impl CryptoRng) {
        let age = now.since(self.rotated_at);
        if age < COOKIE_SECRET_AGE_MAX {
            return;
        }
        self.previous = core::mem::replace(&mut self.current, MacKey::random(rng));
        if age >= 2 * COOKIE_SECRET_AGE_MAX {
            self.previous = MacKey::random(rng);
        }
        self.rotated_at = now;
    }

    /// Makes the cookie for a client.
    pub(super) fn make(&self, now: Time, from: SocketAddr, initiator_index: u32) -> Cookie {
        let mut cookie = [0; COOKIE_LEN];
        cookie[..8].copy_from_slice(&now.as_micros().to_be_bytes());
        cookie[8..].copy_from_slice(&mac(&self.current, now, from, initiator_index));
        Cookie(cookie)
    }

    /// Whether this is a cookie we made for this client within the last [`COOKIE_AGE_MAX`].
    pub(super) fn check(&self, now: Time, from: SocketAddr, initiator_index: u32, cookie: &Cookie) -> bool {
        let (time, tag) = cookie.0.split_at(8);
        let issued = Time::from_micros(u64::from_be_bytes(time.try_into().expect("split at eight bytes")));
        if issued > now || now.since(issued) > COOKIE_AGE_MAX {
            return false;
        }
        let key = if issued >= self.rotated_at { &self.current } else { &self.previous };
        mac(key, issued, from, initiator_index).ct_eq(tag).into()
    }
}

fn mac(key: &MacKey, issued: Time, from: SocketAddr, initiator_index: u32) -> [u8; 16] {
    let mut input = [0; 8 + 16 + 2 + 4];
    input[..8].copy_from_slice(&issued.as_micros().to_be_bytes());
    input[8..24].copy_from_slice(&ip_bytes(from.ip()));
    input[24..26].copy_from_slice(&from.port().to_be_bytes());
    input[26..].copy_from_slice(&initiator_index.to_be_bytes());
    *blake3::keyed_hash(&key.0, &input).as_bytes().first_chunk().expect("a hash has 32 bytes")
}

/// The address as 16 bytes; an IPv4 address and the same one mapped into IPv6 give the same.
pub(super) fn ip_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
    .octets()
}

/// Handshakes one address (IPv4 /32, IPv6 /64) may begin per second, in the long run.
pub const HANDSHAKES_PER_SECOND: u32 = 20;

/// Handshakes one address may begin at once.
pub const HANDSHAKES_BURST: u32 = 5;

/// Sets of the limiter's table; with four ways of 16 bytes each it takes 64 KiB and never more.
const SETS: usize = 1_024;
const WAYS: usize = 4;
const INTERVAL: u64 = 1_000_000 / HANDSHAKES_PER_SECOND as u64;

/// A bucket per address, in fixed memory: four-way sets found by a keyed hash, the longest unused leaves first.
/// Pushing somebody out takes five live addresses in one set, and which addresses share a set is secret.
pub(super) struct Limiter {
    secret: MacKey,
    /// (tag of the address, when its bucket will be full again): the generic cell rate algorithm.
    sets: Box<[[(u32, Time); WAYS]]>,
}

impl Limiter {
    pub(super) fn new(rng: &mut impl CryptoRng) -> Self {
        Self { secret: MacKey::random(rng), sets: vec![[(0, Time::ZERO); WAYS]; SETS].into_boxed_slice() }
    }

    /// Whether this address may begin one more handshake now; if so, it is counted.
    pub(super) fn admit(&mut self, now: Time, ip: IpAddr) -> bool {
        let hash = blake3::keyed_hash(&self.secret.0, &network(ip));
        let (head, rest) = hash.as_bytes().split_first_chunk::<4>().expect("a hash has 32 bytes");
        let tag = u32::from_be_bytes(*rest.first_chunk().expect("a hash has 32 bytes"));
        let set = &mut self.sets[u32::from_be_bytes(*head) as usize % SETS];
        let way = match set.iter().position(|(known, _)| *known == tag) {
            Some(way) => way,
            None => {
                let oldest = (0..WAYS).min_by_key(|way| set[*way].1).unwrap_or(0);
                set[oldest] = (tag, Time::ZERO);
                oldest
            }
        };
        let full_at = set[way].1.max(now);
        if full_at.since(now).as_micros() > u128::from(INTERVAL * u64::from(HANDSHAKES_BURST - 1)) {
            return false;
        }
        set[way].1 = full_at.after(Duration::from_micros(INTERVAL));
        true
    }
}

/// What the limiter counts as one address: all of IPv4, the first half of IPv6.
fn network(ip: IpAddr) -> [u8; 16] {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    const INDEX: u32 = 77;

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_cookie_is_good_for_its_own_address_port_and_index_only() {
        let cookies = Cookies::new(at(0), &mut StdRng::seed_from_u64(1));
        let from = address("192.0.2.1:5000");
        let cookie = cookies.make(at(1), from, INDEX);
        assert!(cookies.check(at(2), from, INDEX, &cookie));
        assert!(cookies.check(at(2), address("[::ffff:192.0.2.1]:5000"), INDEX, &cookie));
        assert!(!cookies.check(at(2), address("192.0.2.2:5000"), INDEX, &cookie));
        assert!(!cookies.check(at(2), address("192.0.2.1:5001"), INDEX, &cookie));
        assert!(!cookies.check(at(2), from, INDEX + 1, &cookie));
    }

    #[test]
    fn a_cookie_with_any_bit_flipped_is_refused() {
        let cookies = Cookies::new(at(0), &mut StdRng::seed_from_u64(1));
        let from = address("192.0.2.1:5000");
        let cookie = cookies.make(at(1), from, INDEX);
        for bit in 0..COOKIE_LEN * 8 {
            let mut forged = cookie;
            forged.0[bit / 8] ^= 1 << (bit % 8);
            assert!(!cookies.check(at(1), from, INDEX, &forged), "bit {bit}");
        }
    }

    #[test]
    fn a_cookie_lives_fifteen_seconds_and_survives_one_change_of_secret() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut cookies = Cookies::new(at(0), &mut rng);
        let from = address("[2001:db8::1]:5000");
        let cookie = cookies.make(at(118), from, INDEX);
        cookies.rotate(at(121), &mut rng);
        assert!(cookies.check(at(121), from, INDEX, &cookie), "made with the previous secret");
        assert!(cookies.check(at(133), from, INDEX, &cookie), "exactly 15 s old");
        assert!(!cookies.check(at(134), from, INDEX, &cookie), "16 s old");
        assert!(!cookies.check(at(117), from, INDEX, &cookie), "from the future");
    }

    #[test]
    fn a_cookie_of_another_process_is_refused() {
        let from = address("192.0.2.1:5000");
        let cookie = Cookies::new(at(0), &mut StdRng::seed_from_u64(1)).make(at(1), from, INDEX);
        assert!(!Cookies::new(at(0), &mut StdRng::seed_from_u64(2)).check(at(1), from, INDEX, &cookie));
    }

    #[test]
    fn an_address_gets_its_burst_and_then_twenty_a_second() {
        let mut limiter = Limiter::new(&mut StdRng::seed_from_u64(1));
        let ip = address("192.0.2.1:1").ip();
        let admitted = |limiter: &mut Limiter, now| (0..100).filter(|_| limiter.admit(now, ip)).count();
        assert_eq!(admitted(&mut limiter, at(1)), HANDSHAKES_BURST as usize);
        assert_eq!(admitted(&mut limiter, at(1)), 0);
        assert_eq!(admitted(&mut limiter, Time::from_micros(1_050_000)), 1);
        assert_eq!(admitted(&mut limiter, at(60)), HANDSHAKES_BURST as usize);
        let per_ms = (61_000..62_000).filter(|ms| limiter.admit(Time::from_micros(ms * 1_000), ip)).count();
        assert!((20..=25).contains(&per_ms), "{per_ms}");
    }

    #[test]
    fn an_ipv6_network_of_64_bits_counts_as_one_address() {
        let mut limiter = Limiter::new(&mut StdRng::seed_from_u64(1));
        let admitted = (0..100u128).filter(|host| {
            let ip = Ipv6Addr::from_bits((0x2001_0db8 << 96) | *host);
            limiter.admit(at(1), IpAddr::V6(ip))
        });
        assert_eq!(admitted.count(), HANDSHAKES_BURST as usize);
        assert!(limiter.admit(at(1), address("[2001:db8:0:1::1]:1").ip()));
    }
}
