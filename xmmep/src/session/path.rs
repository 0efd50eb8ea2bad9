//! The way to the peer: a new address is proposed by an authentic record, challenged, and used once it answered.

use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use super::cookie::ip_bytes;
use crate::types::Time;

/// Least time between two proposals, and so between two changes of address.
pub const PROPOSAL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a proposed address may take to answer. The old path stays in use meanwhile.
pub const PROPOSAL_AGE_MAX: Duration = Duration::from_secs(3);

/// When a challenge that was not answered is sent again; the pause doubles each time.
const CHALLENGE_PAUSE: Duration = Duration::from_millis(250);

/// A token that answers a challenge.
pub(super) type Token = [u8; 8];

/// An address that sent an authentic newest record and has to show that it receives as well.
struct Proposal {
    address: SocketAddr,
    token: Token,
    /// Bytes received from there minus bytes sent there.
    credit: usize,
    next_challenge: Time,
    pause: Duration,
    until: Time,
}

/// Everything about addresses that an undisturbed session does not need.
#[derive(Default)]
pub(super) struct Path {
    proposal: Option<Proposal>,
    /// Until when no other address is considered.
    closed_until: Time,
    /// A challenge of the peer's, and where its answer goes.
    answer: Option<(SocketAddr, Token)>,
}

impl Path {
    /// Takes in that an authentic record of `len` bytes, the newest so far, came from `from`, which is not the address
    /// in use. `token` is called if this is a proposal.
    pub(super) fn on_newest_from(&mut self, now: Time, from: SocketAddr, len: usize, token: impl FnOnce() -> Token) {
        match &mut self.proposal {
            Some(proposal) if proposal.address == from => proposal.credit += len,
            _ if now < self.closed_until => {}
            _ => {
                self.closed_until = now.after(PROPOSAL_INTERVAL);
                self.proposal = Some(Proposal {
                    address: from,
                    token: token(),
                    credit: len,
                    next_challenge: now,
                    pause: CHALLENGE_PAUSE,
                    until: now.after(PROPOSAL_AGE_MAX),
                });
            }
        }
    }

    /// The peer challenges us from `from`; only its last challenge is answered.
    pub(super) fn on_challenge(&mut self, from: SocketAddr, token: Token) {
        self.answer = Some((from, token));
    }

    /// Whether this answers our challenge: then the address is proven.
    pub(super) fn on_response(&mut self, now: Time, from: SocketAddr, token: Token) -> bool {
        let proven = self.proposal.as_ref().is_some_and(|p| p.address == from && p.token == token && now <= p.until);
        if proven {
            self.proposal = None;
        }
        proven
    }

    /// A challenge to send now, and where; `len` is the size of the record that will carry it.
    pub(super) fn challenge(&mut self, now: Time, len: usize) -> Option<(SocketAddr, Token)> {
        let proposal = self.proposal.as_mut()?;
        if now < proposal.next_challenge || now > proposal.until || proposal.credit < len {
            return None;
        }
        proposal.credit -= len;
        proposal.next_challenge = now.after(proposal.pause);
        proposal.pause *= 2;
        Some((proposal.address, proposal.token))
    }

    /// An answer to send, and where; `len` is the size of the record that will carry it. To an address that has to
    /// prove itself it goes only within its credit.
    pub(super) fn answer(&mut self, len: usize) -> Option<(SocketAddr, Token)> {
        let (to, token) = self.answer.take()?;
        if let Some(proposal) = self.proposal.as_mut().filter(|proposal| proposal.address == to) {
            proposal.credit = proposal.credit.checked_sub(len)?;
        }
        Some((to, token))
    }

    /// When to come back: the next challenge, if one of `len` bytes can be paid for, or the end of the proposal.
    pub(super) fn deadline(&self, len: usize) -> Time {
        match &self.proposal {
            Some(proposal) if proposal.credit >= len => proposal.next_challenge.min(proposal.until),
            Some(proposal) => proposal.until,
            None => self.closed_until,
        }
    }

    /// Gives up a proposal that took too long, and an answer that cannot be sent. Says whether there is nothing left to
    /// remember.
    pub(super) fn expire(&mut self, now: Time, can_send: bool) -> bool {
        self.answer = self.answer.filter(|_| can_send);
        if self.proposal.as_ref().is_some_and(|proposal| now >= proposal.until) {
            self.proposal = None;
        }
        self.proposal.is_none() && self.answer.is_none() && now >= self.closed_until
    }
}

/// Prints addresses and times, not tokens.
impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Path")
            .field("proposal", &self.proposal.as_ref().map(|proposal| (proposal.address, proposal.credit)))
            .field("closed_until", &self.closed_until)
            .field("answer_to", &self.answer.map(|(to, _)| to))
            .finish()
    }
}

/// The path challenge for an address: only who holds the secret can tell it without receiving it.
pub(super) fn token(secret: [u8; 8], counter: u64, address: SocketAddr) -> Token {
    let mut hasher = blake3::Hasher::new_derive_key("XMMEP path challenge v1");
    hasher.update(&secret).update(&counter.to_be_bytes());
    hasher.update(&ip_bytes(address.ip())).update(&address.port().to_be_bytes());
    *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
}
