//! Two honest sessions on a wire that the input controls: it drops, repeats, reorders and damages datagrams, moves the
//! client and lets time pass. Then the wire heals, and everything sent must arrive, once and in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use xmmep::session::{
    Accept, Acceptor, Config, Connecting, DATAGRAM_MAX, Ended, Event, SendError, ServerKey, Serves, Session, Step,
};
use xmmep::types::{Time, WallTime};

use super::bodies::Input;
use super::hostile::{CLIENT, SERVER};
use super::seeded;

/// One side.
struct End {
    session: Session,
    /// Accepted by its session, in order.
    sent: Vec<Bytes>,
    received: Vec<Bytes>,
    ended: Option<Ended>,
    highest_counter: Option<u64>,
}

/// A datagram under way.
#[derive(Clone)]
struct Flying {
    to_server: bool,
    from: SocketAddr,
    bytes: Vec<u8>,
    damaged: bool,
}

struct Duo {
    now: Time,
    client: End,
    server: End,
    seen_at: SocketAddr,
    wire: Vec<Flying>,
    /// The client is logged in; before that it sends nothing over 4 KiB.
    promoted: bool,
}

fn open(config: Arc<Config>) -> (Session, Session) {
    let (now, mut rng) = (Time::ZERO, seeded(11));
    let key = ServerKey::from_bytes([9; 32]);
    let mut acceptor = Acceptor::new(now, key.clone(), Serves::Sessions, None, config.clone(), &mut rng);
    let connecting = Connecting::open(now, SERVER, &key.public(), None, b"", config, &mut rng);
    let (mut connecting, init) = connecting.expect("nothing is sent along");
    let mut accept =
        |init: &[u8]| acceptor.handle_init(now, WallTime(0), CLIENT, init, b"", &mut seeded(12), || Some(5));
    let Accept::Reply(retry) = accept(&init) else { panic!("no RETRY") };
    let Step::Send(init) = connecting.handle(now, SERVER, retry.as_bytes()) else { panic!("no second INIT") };
    let Accept::Open(opened) = accept(&init) else { panic!("not opened") };
    let Step::Open(client, _) = connecting.handle(now, SERVER, &opened.reply) else { panic!("not open") };
    (*client, opened.session)
}

/// Two honest ends on a hostile wire: every operation comes from the input.
pub fn session(input: &[u8]) {
    let mut input = Input(input);
    let shape = input.byte();
    // Small epochs, so that keys change within a run; and the real one.
    let epoch_bits = [20, 4, 6, 8][usize::from(shape % 4)];
    let config = Config { epoch_bits, ..Config::default() };
    let (client, mut server) = open(Arc::new(config));
    let promoted = shape & 4 == 0;
    if promoted {
        server.promote();
    }
    let end = |session| End { session, sent: vec![], received: vec![], ended: None, highest_counter: None };
    let mut duo =
        Duo { now: Time::ZERO, client: end(client), server: end(server), seen_at: CLIENT, wire: Vec::new(), promoted };
    while !input.is_empty() {
        duo.step(&mut input);
    }
    duo.heal();
}

impl Duo {
    fn end(&mut self, server: bool) -> &mut End {
        if server { &mut self.server } else { &mut self.client }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let server = choice & 0x80 != 0;
        match choice & 0x0f {
            0..=2 => {
                let most = if self.promoted { 5_000 } else { 4_096 };
                let len = usize::from(input.short()) % (most + 1);
                self.send(server, len);
            }
            3 => drop(self.end(server).session.send_unreliable(Bytes::from_static(b"typing"))),
            4..=6 => {
                self.transmit(server);
            }
            7..=9 => {
                let place = usize::from(input.byte());
                self.deliver_at(place);
            }
            10 => {
                let place = usize::from(input.byte());
                if !self.wire.is_empty() {
                    self.wire.swap_remove(place % self.wire.len());
                }
            }
            11 => {
                let place = usize::from(input.byte());
                let copy = self.wire.get(place % self.wire.len().max(1)).cloned();
                self.wire.extend(copy.filter(|_| self.wire.len() < 200));
            }
            12 => self.damage(input),
            13 => {
                self.now = self.now.after(Duration::from_millis(u64::from(input.byte())));
                self.serve();
            }
            14 => {
                self.now = self.now.after(Duration::from_millis(u64::from(input.byte()) * 250));
                self.serve();
            }
            _ => match choice & 0x30 {
                0x00 => self.seen_at = SocketAddr::from(([192, 0, 2, input.byte() % 3 + 1], 1_000)),
                0x10 => self.end(server).session.probe(),
                _ => {
                    self.server.session.promote();
                    self.promoted = true;
                }
            },
        }
    }

    fn send(&mut self, server: bool, len: usize) {
        let end = self.end(server);
        let number = end.sent.len() as u64;
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.resize(len.max(8), number as u8);
        let message = Bytes::from(bytes);
        match end.session.send(message.clone()) {
            Ok(()) => end.sent.push(message),
            Err(SendError::Over) => assert!(end.session.is_over()),
            Err(SendError::Full | SendError::TooLarge) => {}
        }
    }

    /// One datagram onto the wire.
    fn transmit(&mut self, server: bool) -> bool {
        let (now, seen_at) = (self.now, self.seen_at);
        let end = self.end(server);
        let mut bytes = Vec::new();
        let Some(to) = end.session.poll_transmit(now, &mut bytes) else { return false };
        assert!(bytes.len() <= DATAGRAM_MAX);
        let counter = bytes.get(5..13).and_then(|bytes| bytes.first_chunk()).map_or(0, |b| u64::from_be_bytes(*b));
        assert!(end.highest_counter.is_none_or(|highest| counter > highest), "counter {counter} again");
        end.highest_counter = Some(counter);
        let (from, reachable) = if server { (SERVER, to == seen_at) } else { (seen_at, to == SERVER) };
        if reachable {
            self.wire.push(Flying { to_server: !server, from, bytes, damaged: false });
        }
        true
    }

    fn deliver_at(&mut self, place: usize) {
        if !self.wire.is_empty() {
            let flying = self.wire.remove(place % self.wire.len());
            self.deliver(flying);
        }
    }

    fn deliver(&mut self, flying: Flying) {
        let now = self.now;
        let end = self.end(flying.to_server);
        let before = flying.damaged.then(|| format!("{:?}", end.session));
        let (mut bytes, mut events) = (flying.bytes, Vec::new());
        let accepted = end.session.receive(now, flying.from, &mut bytes, &mut events).is_ok();
        if let Some(before) = before {
            assert!(!accepted, "a damaged datagram was accepted");
            assert_eq!(before, format!("{:?}", end.session), "a damaged datagram left a trace");
        }
        for event in events {
            match event {
                Event::Message(message) => end.received.push(message),
                Event::Ended(ended) => {
                    assert!(!matches!(ended, Ended::Violation(_)), "an honest peer was accused: {ended:?}");
                    end.ended = Some(ended);
                }
                Event::Datagram(datagram) => assert_eq!(&datagram[..], b"typing"),
                Event::Confirmed | Event::AddressChanged(_) => {}
            }
        }
    }

    fn damage(&mut self, input: &mut Input<'_>) {
        let (place, at) = (usize::from(input.byte()), usize::from(input.short()));
        let places = self.wire.len().max(1);
        let Some(flying) = self.wire.get_mut(place % places) else { return };
        let bits = (flying.bytes.len() * 8).max(1);
        if at % 7 == 0 {
            flying.bytes.truncate(at % flying.bytes.len().max(1));
            flying.damaged = true;
        } else if let (false, Some(byte)) = (flying.damaged, flying.bytes.get_mut(at % bits / 8)) {
            *byte ^= 1 << (at % 8);
            flying.damaged = true;
        }
    }

    /// Both drivers do what is due.
    fn serve(&mut self) {
        for server in [false, true] {
            let now = self.now;
            let end = self.end(server);
            if end.session.deadline().is_some_and(|deadline| deadline <= now) {
                let ended = end.session.on_deadline(now);
                end.ended = ended.or(end.ended);
            }
            for count in 0.. {
                if !self.transmit(server) {
                    break;
                }
                assert!(count < 256, "no end of sending");
            }
        }
    }

    /// The wire works from now on: all is delivered, and then nothing may be missing.
    fn heal(&mut self) {
        let until = self.now.after(Duration::from_secs(200));
        self.server.session.promote();
        while self.now <= until {
            for round in 0.. {
                let mut moved = false;
                for server in [false, true] {
                    let now = self.now;
                    let end = self.end(server);
                    if end.session.deadline().is_some_and(|deadline| deadline <= now) {
                        let ended = end.session.on_deadline(now);
                        end.ended = ended.or(end.ended);
                        moved = true;
                    }
                    while self.transmit(server) {
                        moved = true;
                    }
                }
                for flying in std::mem::take(&mut self.wire) {
                    self.deliver(flying);
                    moved = true;
                }
                if !moved {
                    break;
                }
                assert!(round < 2_000, "time stands still: {:?} {:?}", self.client.session, self.server.session);
            }
            if self.client.session.unacknowledged() + self.server.session.unacknowledged() == 0 {
                break;
            }
            let deadlines = [self.client.session.deadline(), self.server.session.deadline()];
            match deadlines.into_iter().flatten().min() {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
        }
        for (from, to) in [(&self.client, &self.server), (&self.server, &self.client)] {
            assert!(from.sent.starts_with(&to.received), "out of order, doubled or invented");
            let over = self.client.session.is_over() || self.server.session.is_over();
            assert!(over || from.sent.len() == to.received.len(), "lost: {:?} {:?}", from.session, to.session);
        }
    }
}
