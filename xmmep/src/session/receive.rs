//! What a session does with a datagram: authenticate, then judge, then act. Fragments go to `incoming.rs`,
//! acknowledgements to `outgoing.rs`, addresses to `path.rs`.

use core::net::SocketAddr;

use bytes::Bytes;

use super::chunk::{Chunk, Chunks, Data};
use super::incoming::Arrival;
use super::records::OpenedRecord;
use super::wire::{DATAGRAM_MAX, Peek, RECORD_HEADER, TAG, peek};
use super::{ACK_DELAY, ACK_EVERY, CloseReason, Ended, Event, Rejected, Role, Session, Stage, Violation, path};
use crate::types::Time;

impl Session {
    /// Takes in a datagram that arrived from `from`; decrypts it in place. What it brings is appended to `events`.
    ///
    /// # Errors
    /// If it is not an authentic, new record of this session. Then nothing has changed but a counter.
    pub fn receive(
        &mut self,
        now: Time,
        from: SocketAddr,
        datagram: &mut [u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Rejected> {
        let opened =
            self.authenticate(now, datagram).inspect_err(|_| self.rejected = self.rejected.saturating_add(1))?;
        self.received = self.received.saturating_add(1);
        self.last_received = now;
        if !self.confirmed {
            self.confirmed = true;
            events.push(Event::Confirmed);
        }
        if !self.promoted && self.role == Role::Server {
            self.grant(datagram.len());
        }
        if opened.new_epoch {
            self.acknowledge_by(now);
        }
        if opened.newest && from != self.peer {
            let (secret, counter) = (self.path_secret, self.receive_keys.next_counter());
            let path = self.path.get_or_insert_default();
            path.on_newest_from(now, from, datagram.len(), || path::token(secret, counter, from));
        }
        let plain = datagram.get(RECORD_HEADER..datagram.len() - TAG).unwrap_or_default();
        if let Err(violation) = self.act_on(now, from, plain, events) {
            self.stage = Stage::Closing(CloseReason::VIOLATION);
            self.busy = None;
            events.push(Event::Ended(Ended::Violation(violation)));
        }
        Ok(())
    }

    fn authenticate(&mut self, now: Time, datagram: &mut [u8]) -> Result<OpenedRecord, Rejected> {
        if self.stage != Stage::Open {
            return Err(Rejected::Over);
        }
        if peek(datagram) != Some(Peek::Record { receiver_index: self.local_index }) || datagram.len() > DATAGRAM_MAX {
            return Err(Rejected::Malformed);
        }
        self.receive_keys.open(now, self.config.epoch_bits, datagram)
    }

    /// Acts on the chunks of an authentic record; on none of them if one is bad.
    fn act_on(&mut self, now: Time, from: SocketAddr, plain: &[u8], events: &mut Vec<Event>) -> Result<(), Violation> {
        if Chunks::new(plain).any(|chunk| chunk.is_err()) {
            return Err(Violation::BadChunk);
        }
        let mut carries_data = false;
        for chunk in Chunks::new(plain).flatten() {
            match chunk {
                Chunk::Ping => self.acknowledge_by(now),
                Chunk::Ack(ack) => {
                    self.send_keys.confirm(ack.epoch_low);
                    match &mut self.busy {
                        Some(busy) => busy.outgoing.on_ack(now, &mut self.pace, ack)?,
                        None => super::Outgoing::default().on_ack(now, &mut self.pace, ack)?,
                    }
                }
                Chunk::Datagram(bytes) => events.push(Event::Datagram(Bytes::copy_from_slice(bytes))),
                Chunk::PathChallenge(token) => self.path.get_or_insert_default().on_challenge(from, token),
                Chunk::PathResponse(token) => self.on_path_response(now, from, token, events),
                Chunk::Close(reason) => {
                    self.end(Ended::ByPeer(CloseReason(reason)));
                    events.push(Event::Ended(Ended::ByPeer(CloseReason(reason))));
                    return Ok(());
                }
                Chunk::Data(data) => {
                    carries_data = true;
                    self.on_data(now, data, events)?;
                }
            }
        }
        if carries_data {
            self.unacked_records = self.unacked_records.saturating_add(1);
            let wait = if self.unacked_records >= ACK_EVERY { core::time::Duration::ZERO } else { ACK_DELAY };
            self.acknowledge_by(now.after(wait));
        }
        Ok(())
    }

    fn on_data(&mut self, now: Time, data: Data<'_>, events: &mut Vec<Event>) -> Result<(), Violation> {
        let limits = *self.limits();
        let busy = self.busy.get_or_insert_default();
        let arrival = busy.incoming.take(&mut self.receive_next, &limits, data, events)?;
        if arrival == Arrival::Irregular {
            self.acknowledge_by(now);
        }
        Ok(())
    }

    fn on_path_response(&mut self, now: Time, from: SocketAddr, token: [u8; 8], events: &mut Vec<Event>) {
        if !self.path.as_mut().is_some_and(|path| path.on_response(now, from, token)) {
            return;
        }
        self.peer = from;
        self.pace.new_path();
        if let Some(busy) = &mut self.busy {
            busy.outgoing.send_all_again();
        }
        self.acknowledge_by(now);
        events.push(Event::AddressChanged(from));
    }

    fn acknowledge_by(&mut self, time: Time) {
        self.ack_due = Some(self.ack_due.map_or(time, |due| due.min(time)));
    }
}
