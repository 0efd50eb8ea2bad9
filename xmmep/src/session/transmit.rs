//! What a session sends: which chunks go into the next datagram, and where it goes.

use core::net::SocketAddr;

use super::chunk::{self, ACK_LEN, Ack, DATAGRAM_HEADER, PATH_LEN};
use super::wire::{DATAGRAM_MAX, PLAIN_MIN, RECORD_HEADER, RECORD_MIN, TAG};
use super::{CloseReason, Ended, FRAGMENT_MAX, Role, Session, Stage, UNRELIABLE_MAX};
use crate::types::Time;

/// Where the plaintext of a full record ends.
const PLAIN_END: usize = DATAGRAM_MAX - TAG;

// An acknowledgement and a PING always fit beside the largest of the rest, and path chunks fit the shortest record.
const _: () = assert!(RECORD_HEADER + ACK_LEN + 1 + chunk::DATA_HEADER + FRAGMENT_MAX <= PLAIN_END);
const _: () = assert!(RECORD_HEADER + ACK_LEN + 1 + DATAGRAM_HEADER + UNRELIABLE_MAX <= PLAIN_END);
const _: () = assert!(PATH_LEN <= PLAIN_MIN && ACK_LEN < PLAIN_MIN);

impl Session {
    /// Writes the next datagram into `out`, which is cleared first, and says where to send it; `None` if there is
    /// nothing to send now.
    pub fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> Option<SocketAddr> {
        out.clear();
        match self.stage {
            Stage::Open => {}
            Stage::Closing(reason) => return self.transmit_close(now, reason, out),
            Stage::Untold(_) | Stage::Over => return None,
        }
        if !self.can_send() || !self.has_something(now) {
            return None;
        }
        if self.send_keys.prepare(now, self.config.epoch_bits, self.config.epoch_age).is_err() {
            self.end(Ended::UsedUp);
            self.stage = Stage::Untold(Ended::UsedUp);
            return None;
        }
        out.resize(RECORD_HEADER, 0);
        if let Some(to) = self.write_path_chunk(now, out) {
            self.seal(out);
            return Some(to);
        }
        let asks = self.write_chunks(now, out);
        if out.len() == RECORD_HEADER {
            out.clear();
            return None;
        }
        if asks {
            self.last_asked = now;
        }
        self.seal(out);
        Some(self.peer)
    }

    /// Whether the peer may be sent anything at all.
    pub(super) fn can_send(&self) -> bool {
        self.confirmed && self.allowance() >= RECORD_MIN
    }

    /// The longest datagram that may leave now.
    fn allowance(&self) -> usize {
        let unlimited = self.promoted || self.role == Role::Client;
        if unlimited { DATAGRAM_MAX } else { DATAGRAM_MAX.min(self.credit as usize) }
    }

    fn has_something(&self, now: Time) -> bool {
        self.ping
            || self.ack_due.is_some_and(|due| due <= now)
            || self.path.is_some()
            || self.busy.as_ref().is_some_and(|busy| !busy.unreliable.is_empty() || busy.outgoing.is_ready(&self.pace))
    }

    /// A challenge or an answer to one travels alone: it may go elsewhere, and what it costs there is counted.
    fn write_path_chunk(&mut self, now: Time, out: &mut Vec<u8>) -> Option<SocketAddr> {
        let path = self.path.as_mut()?;
        if let Some((to, token)) = path.answer(RECORD_MIN) {
            chunk::put_path_response(out, token);
            return Some(to);
        }
        let (to, token) = path.challenge(now, RECORD_MIN)?;
        chunk::put_path_challenge(out, token);
        Some(to)
    }

    /// Says whether the peer will acknowledge what was written.
    fn write_chunks(&mut self, now: Time, out: &mut Vec<u8>) -> bool {
        let end = self.allowance() - TAG;
        if self.send_keys.wants_confirmation(self.config.epoch_bits) {
            self.ping = true;
        }
        let ready =
            self.busy.as_ref().is_some_and(|busy| !busy.unreliable.is_empty() || busy.outgoing.is_ready(&self.pace));
        if !ready && !self.ping && self.ack_due.is_none_or(|due| due > now) {
            return false;
        }
        if self.ack_due.take().is_some() {
            let beyond = self.busy.as_ref().map_or(0, |busy| busy.incoming.beyond(self.receive_next));
            let epoch_low = self.receive_keys.epoch().to_le_bytes()[0];
            chunk::put_ack(out, Ack { next: self.receive_next, beyond, epoch_low });
            self.unacked_records = 0;
        }
        let ping = core::mem::take(&mut self.ping);
        if ping {
            chunk::put_ping(out);
        }
        let Some(busy) = &mut self.busy else { return ping };
        while let Some(datagram) = busy.unreliable.front() {
            if out.len() + DATAGRAM_HEADER + datagram.len() > end {
                break;
            }
            chunk::put_datagram(out, datagram);
            busy.unreliable.pop_front();
        }
        let before = out.len();
        let again = busy.outgoing.write(now, &self.pace, end, out);
        self.retransmitted = self.retransmitted.saturating_add(again);
        ping || out.len() > before
    }

    fn transmit_close(&mut self, now: Time, reason: CloseReason, out: &mut Vec<u8>) -> Option<SocketAddr> {
        let can_send = self.can_send();
        self.stage = Stage::Over;
        self.busy = None;
        self.path = None;
        self.send_keys.prepare(now, self.config.epoch_bits, self.config.epoch_age).ok().filter(|()| can_send)?;
        out.resize(RECORD_HEADER, 0);
        chunk::put_close(out, reason.0);
        self.seal(out);
        Some(self.peer)
    }

    fn seal(&mut self, out: &mut Vec<u8>) {
        if out.len() < RECORD_HEADER + PLAIN_MIN {
            out.resize(RECORD_HEADER + PLAIN_MIN, 0);
        }
        self.send_keys.seal(self.peer_index, out);
        self.sent = self.sent.saturating_add(1);
        if !self.promoted && self.role == Role::Server {
            self.credit = self.credit.saturating_sub(u32::try_from(out.len()).unwrap_or(u32::MAX));
        }
    }
}
