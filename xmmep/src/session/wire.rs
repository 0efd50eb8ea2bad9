//! What a datagram looks like from outside, before anything is decrypted: types, headers, sizes. What is inside a
//! record lives in `chunk.rs`; every offset is listed in the module page.

use super::cookie::{COOKIE_LEN, Cookie};
use super::ticket::{TICKET_LEN, Ticket};

/// The largest datagram of the session, in bytes, and the exact size of an INIT. Fits the smallest IPv6 link
/// (1,280) with the headers of IPv6, UDP and a tunnel.
pub const DATAGRAM_MAX: usize = 1_200;

/// The version of the protocol these datagrams speak.
pub const VERSION: u8 = 1;

/// Client → server: the first and, with a token, the second datagram.
pub(super) const INIT: u8 = 4;
/// Server → client: come back with this cookie.
pub(super) const RETRY: u8 = 5;
/// Server → client: that version is not spoken here.
pub(super) const OTHER_VERSION: u8 = 6;
/// Server → client: the end of the handshake.
pub(super) const RESPONSE: u8 = 7;
/// Either way: everything after the handshake.
pub(super) const RECORD: u8 = 8;

/// Bytes of a record before its ciphertext: type, receiver index, counter.
pub(super) const RECORD_HEADER: usize = 13;
/// Bytes of an authentication tag.
pub(super) const TAG: usize = 16;
/// Least plaintext in one record; shorter ones are padded. So any record pays, byte for byte, for the path
/// challenge that answers it.
pub(super) const PLAIN_MIN: usize = 16;
/// Bytes of the shortest record.
pub(super) const RECORD_MIN: usize = RECORD_HEADER + PLAIN_MIN + TAG;

/// Bytes of an INIT before its token.
const INIT_HEADER: usize = 8;
/// Bytes of a RESPONSE before the Noise message.
pub(super) const RESPONSE_HEADER: usize = 5;
/// What Noise adds to a payload in either handshake message: an ephemeral key and a tag.
pub(super) const NOISE_OVERHEAD: usize = 32 + TAG;
/// Most bytes of the Noise message in an INIT, whatever its token.
pub(super) const INIT_NOISE_MAX: usize = DATAGRAM_MAX - INIT_HEADER - TICKET_LEN - 2;

/// What a datagram claims to be. Nothing of it is authenticated: good for finding out whom to hand it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// For an [`Acceptor`](super::Acceptor).
    Init,
    /// For the [`Connecting`](super::Connecting) with this index: RETRY, RESPONSE or "other version".
    Handshake {
        /// The index the client chose.
        initiator_index: u32,
    },
    /// For the [`Session`](super::Session) with this index.
    Record {
        /// The index its receiver chose.
        receiver_index: u32,
    },
}

/// Says for whom a datagram is; `None` if it is not ours.
///
/// Constant work, no allocation. An INIT or a record of a wrong size is not ours.
#[must_use]
pub fn peek(datagram: &[u8]) -> Option<Peek> {
    let (&kind, rest) = datagram.split_first()?;
    let index = || rest.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    match kind {
        INIT if datagram.len() == DATAGRAM_MAX => Some(Peek::Init),
        RETRY | OTHER_VERSION | RESPONSE if datagram.len() <= DATAGRAM_MAX => {
            index().map(|initiator_index| Peek::Handshake { initiator_index })
        }
        RECORD if (RECORD_MIN..=DATAGRAM_MAX).contains(&datagram.len()) => {
            index().map(|receiver_index| Peek::Record { receiver_index })
        }
        _ => None,
    }
}

/// What an INIT carries to show that its sender owns its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum InitToken {
    /// Nothing, or something we do not understand.
    None,
    /// The cookie of a RETRY.
    Cookie(Cookie),
    /// The ticket a Router sealed.
    Ticket(Ticket),
}

/// An INIT taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Init<'a> {
    /// One of our version.
    Ours {
        /// The index the client chose for what it receives.
        initiator_index: u32,
        /// The proof of address, unchecked.
        token: InitToken,
        /// The first Noise message.
        noise: &'a [u8],
    },
    /// One of another version; only the index is where we know it to be.
    OtherVersion {
        /// The index the client chose for what it receives.
        initiator_index: u32,
    },
}

impl<'a> Init<'a> {
    /// Takes an INIT apart; `None` if it is malformed.
    pub(super) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(datagram);
        if datagram.len() != DATAGRAM_MAX || reader.u8()? != INIT {
            return None;
        }
        let version = reader.u8()?;
        let initiator_index = reader.u32()?;
        if version != VERSION {
            return Some(Self::OtherVersion { initiator_index });
        }
        let kind = reader.u8()?;
        let token_len = usize::from(reader.u8()?);
        let token_bytes = reader.take(token_len)?;
        let noise_len = usize::from(reader.u16()?);
        let noise = reader.take(noise_len)?;
        if !(NOISE_OVERHEAD..=INIT_NOISE_MAX).contains(&noise_len) || reader.0.iter().any(|byte| *byte != 0) {
            return None;
        }
        let token = match kind {
            1 => <[u8; COOKIE_LEN]>::try_from(token_bytes).map_or(InitToken::None, |b| InitToken::Cookie(Cookie(b))),
            2 => <[u8; TICKET_LEN]>::try_from(token_bytes).map_or(InitToken::None, |b| InitToken::Ticket(Ticket(b))),
            _ => InitToken::None,
        };
        Some(Self::Ours { initiator_index, token, noise })
    }
}

/// Writes an INIT. `noise` is at most [`INIT_NOISE_MAX`] bytes.
pub(super) fn write_init(initiator_index: u32, token: &InitToken, noise: &[u8]) -> Vec<u8> {
    let (kind, token): (u8, &[u8]) = match token {
        InitToken::None => (0, &[]),
        InitToken::Cookie(cookie) => (1, &cookie.0),
        InitToken::Ticket(ticket) => (2, &ticket.0),
    };
    let mut out = Vec::with_capacity(DATAGRAM_MAX);
    out.extend_from_slice(&[INIT, VERSION]);
    out.extend_from_slice(&initiator_index.to_be_bytes());
    out.extend_from_slice(&[kind, u8::try_from(token.len()).expect("no token is longer than a ticket")]);
    out.extend_from_slice(token);
    out.extend_from_slice(&u16::try_from(noise.len()).expect("bounded by INIT_NOISE_MAX").to_be_bytes());
    out.extend_from_slice(noise);
    out.resize(DATAGRAM_MAX, 0);
    out
}

/// A short answer that needs no allocation: a RETRY or "other version".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Reply {
    /// The longest short answer, in bytes: 0.025 of the INIT it answers. The budget is 128 bytes.
    pub const MAX: usize = 5 + COOKIE_LEN;

    pub(super) fn retry(initiator_index: u32, cookie: &Cookie) -> Self {
        let mut bytes = [0; Self::MAX];
        bytes[0] = RETRY;
        bytes[1..5].copy_from_slice(&initiator_index.to_be_bytes());
        bytes[5..].copy_from_slice(&cookie.0);
        Self { bytes, len: Self::MAX as u8 }
    }

    pub(super) fn other_version(initiator_index: u32) -> Self {
        let mut bytes = [0; Self::MAX];
        bytes[0] = OTHER_VERSION;
        bytes[1..5].copy_from_slice(&initiator_index.to_be_bytes());
        bytes[5] = VERSION;
        Self { bytes, len: 6 }
    }

    /// The datagram.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Takes integers and slices off the front of received bytes.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*front)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_is_read_back_as_written() {
        for token in
            [InitToken::None, InitToken::Cookie(Cookie([7; COOKIE_LEN])), InitToken::Ticket(Ticket([9; TICKET_LEN]))]
        {
            let noise = [5; INIT_NOISE_MAX];
            let datagram = write_init(0x0102_0304, &token, &noise);
            assert_eq!(datagram.len(), DATAGRAM_MAX);
            let parsed = Init::parse(&datagram).unwrap();
            assert_eq!(parsed, Init::Ours { initiator_index: 0x0102_0304, token, noise: &noise });
        }
    }

    #[test]
    fn an_init_with_a_lying_length_short_noise_or_dirty_padding_is_dropped() {
        let good = write_init(1, &InitToken::None, &[5; 100]);
        for (offset, value) in [(7, 255), (8, 255), (9, 20), (1_199, 1), (0, 8)] {
            let mut bad = good.clone();
            bad[offset] = value;
            if offset == 7 {
                bad[8..].fill(0xff);
            }
            assert_eq!(Init::parse(&bad), None, "byte {offset} = {value}");
        }
        assert_eq!(Init::parse(&good[..1_199]), None);
    }

    #[test]
    fn a_token_of_unknown_kind_or_wrong_size_counts_as_none() {
        for kind in [1, 2, 3, 255] {
            let mut datagram = write_init(1, &InitToken::Cookie(Cookie([7; COOKIE_LEN])), &[5; 100]);
            datagram[6] = kind;
            let Some(Init::Ours { token, .. }) = Init::parse(&datagram) else { panic!("kind {kind} refused") };
            assert_eq!(token == InitToken::None, kind != 1, "kind {kind}");
        }
    }

    #[test]
    fn no_datagram_of_two_bytes_or_fewer_is_ours() {
        assert_eq!(peek(&[]), None);
        for first in 0..=255 {
            assert_eq!(peek(&[first]), None);
            for second in 0..=255 {
                assert_eq!(peek(&[first, second]), None);
            }
        }
    }
}
