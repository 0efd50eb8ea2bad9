//! A client that holds the keys of its session and keeps no rule: it seals whatever the input says. The server must keep
//! its own rules all the same.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use xmmep::session::{
    Accept, Acceptor, CloseReason, Config, DATAGRAM_MAX, Event, FRAGMENTS_PER_MESSAGE, Limits, ServerKey, Serves,
    Session,
};
use xmmep::types::{Time, WallTime};

use super::bodies::Input;
use super::{noise, seeded};

/// Where the client is.
pub const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1_000);
/// Where the server is.
pub const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 2_000);

const INITIATOR_INDEX: [u8; 4] = [1, 2, 3, 4];
const RECEIVER_INDEX: u32 = 0x0a0b_0c0d;
const START: Time = Time::from_micros(1_000_000);

/// The client's side of a handshake, laid out by hand.
pub struct Handshake {
    state: snow::HandshakeState,
    /// Noise message 1, or what is sent in its place.
    pub message: Vec<u8>,
}

impl Handshake {
    /// Writes Noise message 1 around `payload`.
    pub fn begin(server_key: &[u8; 32], payload: &[u8]) -> Self {
        let mut state = noise::initiator(server_key, INITIATOR_INDEX, &[0x41; 32]);
        let mut message = vec![0; payload.len() + 48];
        let len = state.write_message(payload, &mut message).expect("the buffer has room");
        message.truncate(len);
        Self { state, message }
    }

    /// The INIT with a token of that kind.
    pub fn init(&self, kind: u8, token: &[u8]) -> Vec<u8> {
        let mut init = vec![4, 1];
        init.extend_from_slice(&INITIATOR_INDEX);
        init.extend_from_slice(&[kind, token.len() as u8]);
        init.extend_from_slice(token);
        init.extend_from_slice(&(self.message.len() as u16).to_be_bytes());
        init.extend_from_slice(&self.message);
        init.resize(DATAGRAM_MAX, 0);
        init
    }

    /// Reads RESPONSE; gives the keys to the server and to the client.
    fn finish(mut self, response: &[u8]) -> ([u8; 32], [u8; 32]) {
        let mut payload = vec![0; response.len()];
        let message = response.get(5..).unwrap_or_default();
        self.state.read_message(message, &mut payload).expect("an authentic answer");
        self.state.dangerously_get_raw_split()
    }
}

/// A session as a server has it right after the handshake, and the keys of records to the server and to the client.
pub fn server_session() -> (Session, ([u8; 32], [u8; 32])) {
    /// The server's half of the handshake is the same every time, so the client's half is done once.
    static CLIENT_HALF: OnceLock<(Vec<u8>, [u8; 32], [u8; 32])> = OnceLock::new();

    let key = ServerKey::from_bytes([7; 32]);
    let mut acceptor =
        Acceptor::new(START, key.clone(), Serves::Sessions, None, Arc::new(Config::default()), &mut seeded(5));
    let mut accept = |init: &[u8]| {
        acceptor.handle_init(START, WallTime(0), CLIENT, init, b"", &mut seeded(6), || Some(RECEIVER_INDEX))
    };
    let open = |accepted: Accept| match accepted {
        Accept::Open(opened) => opened,
        other => panic!("not opened: {other:?}"),
    };
    if let Some((init, to_server, to_client)) = CLIENT_HALF.get() {
        return (open(accept(init)).session, (*to_server, *to_client));
    }
    let handshake = Handshake::begin(&key.public().0, &[2]);
    let Accept::Reply(retry) = accept(&handshake.init(0, &[])) else { panic!("no RETRY") };
    let init = handshake.init(1, retry.as_bytes().get(5..).unwrap_or_default());
    let opened = open(accept(&init));
    let (to_server, to_client) = handshake.finish(&opened.reply);
    let _ = CLIENT_HALF.set((init, to_server, to_client));
    (opened.session, (to_server, to_client))
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce.into()
}

/// One direction of records, as the page says.
struct Direction {
    key: [u8; 32],
    epoch: u64,
    /// The next to send, or one more than the last received.
    counter: u64,
}

impl Direction {
    fn new(key: [u8; 32]) -> Self {
        Self { key, epoch: 0, counter: 0 }
    }

    fn go_to(&mut self, epoch: u64) {
        while self.epoch < epoch {
            let sealed = ChaCha20Poly1305::new(&self.key.into()).encrypt(&nonce(u64::MAX), &[0; 32][..]);
            self.key.copy_from_slice(sealed.expect("32 bytes are few").get(..32).unwrap_or_default());
            self.epoch += 1;
        }
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.go_to(self.counter >> 20);
        let mut record = vec![8];
        record.extend_from_slice(&RECEIVER_INDEX.to_be_bytes());
        record.extend_from_slice(&self.counter.to_be_bytes());
        let sealed = Payload { msg: plain, aad: &record };
        let sealed = ChaCha20Poly1305::new(&self.key.into()).encrypt(&nonce(self.counter), sealed);
        record.extend_from_slice(&sealed.expect("a datagram is short"));
        self.counter += 1;
        record
    }

    fn open(&mut self, record: &[u8]) -> Vec<u8> {
        let (header, sealed) = record.split_at_checked(13).expect("a whole header");
        assert_eq!((header.first(), header.get(1..5)), (Some(&8), Some(&INITIATOR_INDEX[..])));
        let counter = header.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        assert!(counter >= self.counter, "counter {counter} after {}", self.counter);
        self.counter = counter + 1;
        self.go_to(counter >> 20);
        let sealed = Payload { msg: sealed, aad: header };
        ChaCha20Poly1305::new(&self.key.into()).decrypt(&nonce(counter), sealed).expect("the server seals well")
    }
}

/// The chunks of a plaintext by the page's table; panics if it is none. Returns the challenges in it.
fn chunks(plain: &[u8]) -> Vec<[u8; 8]> {
    assert!(plain.len() >= 16, "a plaintext of {} bytes", plain.len());
    let (mut input, mut challenges) = (Input(plain), Vec::new());
    while !input.is_empty() {
        let kind = input.byte();
        let len = match kind {
            0x00 | 0x01 => 0,
            0x02 => 13,
            0x03 => usize::from(input.short()),
            0x04 | 0x05 => 8,
            0x06 => 1,
            0x10..=0x13 => {
                input.take(4);
                let len = usize::from(input.short());
                assert!(len <= 1_024, "a fragment of {len} bytes");
                len
            }
            other => panic!("chunk type {other:#x}"),
        };
        let content = input.take(len);
        assert_eq!(content.len(), len, "chunk {kind:#x} is cut off");
        if kind == 0x04 {
            challenges.extend(content.first_chunk().copied());
        }
    }
    challenges
}

/// The server under attack, and the accounts of what it received and sent.
struct Siege {
    session: Session,
    now: Time,
    to_server: Direction,
    to_client: Direction,
    /// Bytes of authentic records from, and of datagrams to, each address that has not proven itself.
    from: HashMap<SocketAddr, usize>,
    to: HashMap<SocketAddr, usize>,
    proven: Vec<SocketAddr>,
    challenge: Option<[u8; 8]>,
    received: usize,
    sent: usize,
    promoted: bool,
    over: bool,
}

/// An authenticated client that keeps no rule: operations and plaintexts come from the input.
pub fn hostile(input: &[u8]) {
    let (session, (to_server, to_client)) = server_session();
    let mut siege = Siege {
        session,
        now: START,
        to_server: Direction::new(to_server),
        to_client: Direction::new(to_client),
        from: HashMap::new(),
        to: HashMap::new(),
        proven: vec![CLIENT],
        challenge: None,
        received: DATAGRAM_MAX,
        sent: 53,
        promoted: false,
        over: false,
    };
    let mut input = Input(input);
    while !input.is_empty() {
        siege.step(&mut input);
        siege.settle();
    }
}

impl Siege {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 12 {
            0 => {
                self.session.promote();
                self.promoted = true;
            }
            1 => {
                let len = usize::from(input.short()) % 20_000;
                let sent = self.session.send(Bytes::from(vec![7; len]));
                assert!(sent.is_err() || len <= 16 * 1_024);
            }
            2 => drop(self.session.send_unreliable(Bytes::from(vec![8; usize::from(input.short()) % 1_300]))),
            3 => self.now = self.now.after(Duration::from_millis(u64::from(input.byte()))),
            4 => self.now = self.now.after(Duration::from_secs(u64::from(input.byte()))),
            5 => self.session.probe(),
            6 if input.byte() == 0 => self.session.close(CloseReason(input.byte())),
            7 => self.to_server.counter = (self.to_server.epoch + 1) << 20,
            8 => self.to_server.counter += u64::from(input.short()),
            9 => {
                let token = self.challenge.unwrap_or_default();
                let plain = [&[0x05][..], &token, &[0; 7]].concat();
                self.deliver(&plain, input.byte());
            }
            _ => {
                let (len, address) = (usize::from(input.short()) % 1_172, input.byte());
                let plain = input.take(len).to_vec();
                self.deliver(&plain, address);
            }
        }
    }

    fn deliver(&mut self, plain: &[u8], address: u8) {
        // Mostly from where the client is; a few other places.
        let from = if address < 200 { CLIENT } else { SocketAddr::from(([203, 0, 113, address % 4], 9)) };
        let mut record = self.to_server.seal(plain);
        let (len, mut events) = (record.len(), Vec::new());
        let result = self.session.receive(self.now, from, &mut record, &mut events);
        if result.is_ok() {
            self.received += len;
            *self.from.entry(from).or_default() += len;
        } else {
            assert!(events.is_empty());
        }
        for event in events {
            assert!(!self.over, "{event:?} after the end");
            match event {
                Event::Message(message) => assert!(message.len() <= FRAGMENTS_PER_MESSAGE * 1_024),
                Event::Datagram(datagram) => assert!(datagram.len() <= DATAGRAM_MAX),
                Event::AddressChanged(address) => {
                    assert!(self.challenge.is_some(), "moved to {address} without a challenge");
                    self.proven.push(address);
                }
                Event::Ended(_) => self.over = true,
                Event::Confirmed => {}
            }
        }
    }

    /// Does what a driver does, and checks what leaves.
    fn settle(&mut self) {
        for round in 0.. {
            let mut datagram = Vec::new();
            for count in 0.. {
                let Some(to) = self.session.poll_transmit(self.now, &mut datagram) else { break };
                assert!(count < 256, "the server never stops sending: {:?}", self.session);
                self.check_sent(to, &datagram);
            }
            if self.session.deadline().is_none_or(|deadline| deadline > self.now) {
                break;
            }
            assert!(round < 16, "time stands still: {:?}", self.session);
            if self.session.on_deadline(self.now).is_some() {
                self.over = true;
            }
        }
        assert!(self.session.unacknowledged() <= Limits::MEMBER.queue_max);
    }

    fn check_sent(&mut self, to: SocketAddr, datagram: &[u8]) {
        assert!(datagram.len() <= DATAGRAM_MAX);
        let challenges = chunks(&self.to_client.open(datagram));
        self.challenge = challenges.first().copied().or(self.challenge);
        self.sent += datagram.len();
        assert!(self.promoted || self.sent <= self.received, "{} bytes for {}", self.sent, self.received);
        let total = self.to.entry(to).or_default();
        *total += datagram.len();
        let paid = self.from.get(&to).copied().unwrap_or(0);
        assert!(self.proven.contains(&to) || *total <= paid, "{total} bytes to {to}, which sent {paid}");
    }
}
