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
    /// If it is not an authentic, new record of this session. Then nothing has changed but a counter, and what `datagram`
    /// holds is of no use.
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

#[cfg(test)]
mod tests {
    use super::super::chunk::{self, Ack, FIRST, LAST};
    use super::super::wire::PLAIN_MIN;
    use super::super::{Config, FRAGMENT_MAX, Keys};
    use super::*;
    use std::sync::Arc;

    const NOW: Time = Time::ZERO;

    fn address() -> SocketAddr {
        "192.0.2.1:1".parse().unwrap()
    }

    fn pair() -> (Session, Session) {
        let config = Arc::<Config>::default();
        let ours = Keys { send: [1; 32], receive: [2; 32], local_index: 3, peer_index: 4 };
        let theirs = Keys { send: [2; 32], receive: [1; 32], local_index: 4, peer_index: 3 };
        let client = Session::new(NOW, Role::Client, address(), &ours, [0; 8], config.clone());
        let mut server = Session::new(NOW, Role::Server, address(), &theirs, [0; 8], config);
        server.promote();
        (client, server)
    }

    /// Lets the server receive a record of the client's with any plaintext whatever.
    fn say(client: &mut Session, server: &mut Session, write: impl FnOnce(&mut Vec<u8>)) -> Vec<Event> {
        let mut record = vec![0; RECORD_HEADER];
        write(&mut record);
        record.resize(record.len().max(RECORD_HEADER + PLAIN_MIN), 0);
        client.send_keys.prepare(NOW, 20, client.config.epoch_age).unwrap();
        client.send_keys.seal(client.peer_index, &mut record);
        let mut events = Vec::new();
        server.receive(NOW, address(), &mut record, &mut events).unwrap();
        events.retain(|event| *event != Event::Confirmed);
        events
    }

    fn fragment(number: u32, flags: u8, bytes: &[u8]) -> impl FnOnce(&mut Vec<u8>) {
        move |out| chunk::put_data(out, Data { number, flags, bytes })
    }

    fn assert_ended(server: &mut Session, events: &[Event], violation: Violation) {
        assert_eq!(events, [Event::Ended(Ended::Violation(violation))]);
        let mut last = Vec::new();
        assert_eq!(server.poll_transmit(NOW, &mut last), Some(address()), "the peer is told");
        assert_eq!(server.poll_transmit(NOW, &mut last), None);
        assert!(server.is_over() && server.deadline().is_none() && !server.has_buffers());
    }

    #[test]
    fn a_record_with_a_bad_chunk_ends_the_session_and_none_of_its_chunks_counts() {
        let (mut client, mut server) = pair();
        let events = say(&mut client, &mut server, |out| {
            fragment(0, FIRST | LAST, b"text")(out);
            out.push(0x7f);
        });
        assert_ended(&mut server, &events, Violation::BadChunk);
    }

    #[test]
    fn the_peer_of_a_violator_learns_that_it_is_one() {
        let (mut client, mut server) = pair();
        say(&mut client, &mut server, |out| out.push(0x7f));
        let (mut last, mut events) = (Vec::new(), Vec::new());
        server.poll_transmit(NOW, &mut last).unwrap();
        client.receive(NOW, address(), &mut last, &mut events).unwrap();
        assert_eq!(events, [Event::Ended(Ended::ByPeer(CloseReason::VIOLATION))]);
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_ends_the_session() {
        let ack = |next, beyond| move |out: &mut Vec<u8>| chunk::put_ack(out, Ack { next, beyond, epoch_low: 0 });
        for (next, beyond) in [(2, 0), (1, 1), (0, 1 << 3), (1 << 30, 0), (u32::MAX, 1 << 1 | 1 << 2)] {
            let (mut client, mut server) = pair();
            say(&mut client, &mut server, chunk::put_ping);
            server.send(Bytes::from_static(b"one fragment")).unwrap();
            server.poll_transmit(NOW, &mut Vec::new()).unwrap();
            let events = say(&mut client, &mut server, ack(next, beyond));
            assert_ended(&mut server, &events, Violation::AckOfNothing);
        }
    }

    #[test]
    fn an_old_acknowledgement_and_a_repeated_one_do_no_harm() {
        let (mut client, mut server) = pair();
        say(&mut client, &mut server, chunk::put_ping);
        server.send(Bytes::from(vec![0; 3 * FRAGMENT_MAX])).unwrap();
        while server.poll_transmit(NOW, &mut Vec::new()).is_some() {}
        for (next, beyond) in
            [(0, 0b10), (0, 0b10), (2, 0), (1, 0), (3, 0), (3, 0), (0, 0b1), (u32::MAX - 70, u64::MAX)]
        {
            let ack = Ack { next, beyond, epoch_low: 0 };
            assert_eq!(say(&mut client, &mut server, |out| chunk::put_ack(out, ack)), [], "{ack:?}");
        }
        assert_eq!(server.unacknowledged(), 0);
    }

    #[test]
    fn contradictions_and_oversize_end_the_session() {
        let (mut client, mut server) = pair();
        let events = say(&mut client, &mut server, fragment(0, LAST, b"no first"));
        assert_ended(&mut server, &events, Violation::Contradiction);

        let (mut client, mut server) = pair();
        say(&mut client, &mut server, fragment(5, LAST, b"x"));
        let events = say(&mut client, &mut server, fragment(5, LAST, b"y"));
        assert_ended(&mut server, &events, Violation::Contradiction);

        let (mut client, mut server) = pair();
        let events = say(&mut client, &mut server, fragment(0, FIRST | LAST, &[0; FRAGMENT_MAX + 1]));
        assert_ended(&mut server, &events, Violation::TooLarge);
    }

    #[test]
    fn a_session_lives_on_when_its_fragment_numbers_wrap_around() {
        let (mut client, mut server) = pair();
        (client.pace.base, server.receive_next) = (u32::MAX - 20, u32::MAX - 20);
        let (mut datagram, mut events, mut sent) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..60_u8 {
            let message = Bytes::from(vec![number; 100]);
            client.send(message.clone()).unwrap();
            sent.push(Event::Message(message));
            while client.poll_transmit(NOW, &mut datagram).is_some() {
                server.receive(NOW, address(), &mut datagram, &mut events).unwrap();
            }
            while server.poll_transmit(NOW.after(ACK_DELAY), &mut datagram).is_some() {
                client.receive(NOW, address(), &mut datagram, &mut Vec::new()).unwrap();
            }
        }
        events.retain(|event| *event != Event::Confirmed);
        assert_eq!((events, client.unacknowledged(), client.pace.base), (sent, 0, 39));
    }

    #[test]
    fn a_hundred_thousand_unfinished_fragments_hold_no_more_than_the_cap() {
        let (mut client, mut server) = pair();
        for record in 0..1_000 {
            let events = say(&mut client, &mut server, |out| {
                (1..=100).for_each(|number| fragment(100 * record + number, FIRST, b"few")(out));
            });
            assert_eq!(events, []);
        }
        let mut out = Vec::new();
        server.poll_transmit(NOW, &mut out).unwrap();
        assert_eq!(server.busy.as_ref().unwrap().incoming.beyond(0), u64::MAX);
        assert_eq!(server.poll_transmit(NOW, &mut out), None, "one acknowledgement for all of them");
    }

    #[test]
    fn nothing_after_a_close_counts_and_it_is_not_answered() {
        let (mut client, mut server) = pair();
        let events = say(&mut client, &mut server, |out| {
            chunk::put_close(out, 77);
            fragment(0, FIRST | LAST, b"text")(out);
        });
        assert_eq!(events, [Event::Ended(Ended::ByPeer(CloseReason(77)))]);
        assert_eq!(server.poll_transmit(NOW, &mut Vec::new()), None);
    }

    #[test]
    fn a_record_shorter_than_45_bytes_is_dropped_however_authentic() {
        let (mut client, mut server) = pair();
        let mut record = vec![0; RECORD_HEADER + PLAIN_MIN - 1];
        client.send_keys.seal(client.peer_index, &mut record);
        let received = server.receive(NOW, address(), &mut record, &mut Vec::new());
        assert_eq!((received, server.is_confirmed()), (Err(Rejected::Malformed), false));
    }

    #[test]
    fn a_record_without_chunks_is_a_sign_of_life_and_nothing_else() {
        let (mut client, mut server) = pair();
        assert_eq!(say(&mut client, &mut server, |_| {}), []);
        assert!(server.is_confirmed());
        assert_eq!(server.poll_transmit(NOW, &mut Vec::new()), None);
    }
}
