//! Admission tickets: what a Router tells a Presence about a client, carried by the client, readable by the Presence
//! alone. Who gets one is the Router's business; what it buys is decided in `accept.rs`.

use core::fmt;
use core::net::IpAddr;

use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use rand_core::CryptoRng;

use super::cookie::ip_bytes;
use super::wire::{Reader, TAG};
use crate::secret::{KeyHash, TicketKey};
use crate::types::{PresenceId, UserId, WallTime};

const NONCE: usize = 24;
/// Client address, expiry, kind, user, key hash.
const PLAIN: usize = 16 + 8 + 1 + 8 + 32;

/// Bytes of an admission ticket, whoever it is for.
pub const TICKET_LEN: usize = NONCE + PLAIN + TAG;

const _: () = assert!(TICKET_LEN <= 160, "tickets have a budget of 160 bytes");

/// Separates tickets from anything else ever sealed with the same key.
const LABEL: &[u8; 15] = b"XMMEP ticket v1";

/// What the Router knows of the user who asked. From outside, tickets of all kinds look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserKind {
    /// A registered, activated user.
    Member,
    /// Registered, but the activation mail was not answered yet.
    NotActivated,
    /// Nobody: the Presence goes through the motions and says "wrong password".
    Unknown,
}

/// What a ticket tells the Presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// What kind of user.
    pub kind: UserKind,
    /// Who; [`UserId`] 0 for nobody.
    pub user: UserId,
    /// What the login key must hash to; random for nobody.
    pub key_hash: KeyHash,
}

/// A sealed [`Admission`], bound to the client's IP address, one Presence and an expiry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ticket(pub(super) [u8; TICKET_LEN]);

impl Ticket {
    /// Takes a ticket out of a Router's answer. Whether it is any good, only the Presence can tell.
    #[must_use]
    pub fn from_bytes(bytes: [u8; TICKET_LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes to put into a Router's answer.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; TICKET_LEN] {
        &self.0
    }

    /// Seals an admission for `presence`, good for a client that comes from `ip` (any port) before `expires`.
    ///
    /// Draws a 24-byte nonce: collisions are out of reach, so Routers that share the key need no counter.
    pub fn seal(
        admission: &Admission,
        key: &TicketKey,
        presence: PresenceId,
        ip: IpAddr,
        expires: WallTime,
        rng: &mut impl CryptoRng,
    ) -> Self {
        let mut ticket = [0; TICKET_LEN];
        let (nonce, rest) = ticket.split_at_mut(NONCE);
        let (plain, tag) = rest.split_at_mut(PLAIN);
        rng.fill_bytes(nonce);
        plain[..16].copy_from_slice(&ip_bytes(ip));
        plain[16..24].copy_from_slice(&expires.0.to_be_bytes());
        plain[24] = match admission.kind {
            UserKind::Member => 1,
            UserKind::NotActivated => 2,
            UserKind::Unknown => 3,
        };
        plain[25..33].copy_from_slice(&admission.user.0.to_be_bytes());
        plain[33..].copy_from_slice(admission.key_hash.expose());
        let nonce = XNonce::try_from(&*nonce).expect("split at the length of a nonce");
        let sealed = cipher(key).encrypt_inout_detached(&nonce, &associated(presence), plain.into());
        tag.copy_from_slice(&sealed.expect("65 bytes are not too long"));
        Self(ticket)
    }

    /// Opens a ticket; `None` if it was forged, or is for another Presence or address, or has expired.
    #[must_use]
    pub fn open(&self, key: &TicketKey, presence: PresenceId, ip: IpAddr, now: WallTime) -> Option<Admission> {
        let mut reader = Reader(&self.0);
        let nonce = XNonce::from(reader.array::<NONCE>()?);
        let mut plain = reader.array::<PLAIN>()?;
        let tag = Tag::from(reader.array::<TAG>()?);
        cipher(key).decrypt_inout_detached(&nonce, &associated(presence), plain.as_mut_slice().into(), &tag).ok()?;
        let mut reader = Reader(&plain);
        if reader.array()? != ip_bytes(ip) || WallTime(reader.u64()?) <= now {
            return None;
        }
        let kind = match reader.u8()? {
            1 => UserKind::Member,
            2 => UserKind::NotActivated,
            3 => UserKind::Unknown,
            _ => return None,
        };
        Some(Admission { kind, user: UserId(reader.u64()?), key_hash: KeyHash::from_bytes(reader.array()?) })
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

fn cipher(key: &TicketKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&(*key.expose()).into())
}

fn associated(presence: PresenceId) -> [u8; LABEL.len() + 4] {
    let mut bytes = [0; LABEL.len() + 4];
    let (label, id) = bytes.split_at_mut(LABEL.len());
    label.copy_from_slice(LABEL);
    id[..2].copy_from_slice(&presence.cluster.to_be_bytes());
    id[2..].copy_from_slice(&presence.presence.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    const HERE: PresenceId = PresenceId { cluster: 1, presence: 1 };
    const EXPIRES: WallTime = WallTime(1_000_000);
    const BEFORE: WallTime = WallTime(999_999);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admission(kind: UserKind) -> Admission {
        Admission { kind, user: UserId(42), key_hash: KeyHash::from_bytes([7; 32]) }
    }

    fn sealed(kind: UserKind) -> Ticket {
        let key = TicketKey::from_bytes([3; 32]);
        Ticket::seal(&admission(kind), &key, HERE, ip("192.0.2.1"), EXPIRES, &mut StdRng::seed_from_u64(5))
    }

    #[test]
    fn a_ticket_opens_at_its_presence_from_its_address_before_it_expires() {
        let key = TicketKey::from_bytes([3; 32]);
        for kind in [UserKind::Member, UserKind::NotActivated, UserKind::Unknown] {
            assert_eq!(sealed(kind).open(&key, HERE, ip("192.0.2.1"), BEFORE), Some(admission(kind)));
        }
    }

    #[test]
    fn a_ticket_is_worth_nothing_elsewhere_or_later_or_with_another_key() {
        let key = TicketKey::from_bytes([3; 32]);
        let ticket = sealed(UserKind::Member);
        let there = PresenceId { cluster: 1, presence: 2 };
        assert_eq!(ticket.open(&key, there, ip("192.0.2.1"), BEFORE), None);
        assert_eq!(ticket.open(&key, HERE, ip("192.0.2.2"), BEFORE), None);
        assert_eq!(ticket.open(&key, HERE, ip("192.0.2.1"), EXPIRES), None);
        assert_eq!(ticket.open(&TicketKey::from_bytes([4; 32]), HERE, ip("192.0.2.1"), BEFORE), None);
    }

    #[test]
    fn a_ticket_with_any_bit_flipped_is_refused() {
        let key = TicketKey::from_bytes([3; 32]);
        for bit in 0..TICKET_LEN * 8 {
            let mut ticket = sealed(UserKind::Member);
            ticket.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ticket.open(&key, HERE, ip("192.0.2.1"), BEFORE), None, "bit {bit}");
        }
    }
}
