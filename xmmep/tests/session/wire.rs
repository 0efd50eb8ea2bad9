//! A wire that loses, repeats, delays and damages datagrams as a seed says, and two sessions on it. Checks on the way
//! what must hold always: no datagram too long, no counter used twice, no effect of what does not authenticate.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use xmmep::session::{
    Accept, Acceptor, Config, Connecting, DATAGRAM_MAX, Ended, Event, Opened, ServerKey, Serves, Session, Step,
};
use xmmep::types::{Time, WallTime};

pub(crate) const WALL: WallTime = WallTime(1_000_000);

pub(crate) fn client_address() -> SocketAddr {
    "192.0.2.1:1000".parse().unwrap()
}

pub(crate) fn server_address() -> SocketAddr {
    "198.51.100.1:2000".parse().unwrap()
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How bad the wire is; chances in per cent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) loss: u32,
    pub(crate) duplicates: u32,
    pub(crate) damage: u32,
    /// Extra delay, drawn up to this.
    pub(crate) jitter: Duration,
    /// This share is delayed by five seconds.
    pub(crate) late: u32,
    pub(crate) client_is_cut_off: bool,
    pub(crate) server_is_cut_off: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Side {
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Intact,
    Copy,
    Damaged,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    at: Time,
    number: u64,
    to: Side,
    from: SocketAddr,
    fate: Fate,
    bytes: Vec<u8>,
}

/// One end and what it has seen.
pub(crate) struct End {
    pub(crate) session: Session,
    pub(crate) messages: Vec<Bytes>,
    pub(crate) datagrams: Vec<Bytes>,
    pub(crate) ended: Option<Ended>,
    pub(crate) addresses: Vec<SocketAddr>,
    /// When each datagram left, how long it was, and where it went.
    pub(crate) sent: Vec<(Time, usize, SocketAddr)>,
    counters: HashSet<u64>,
}

impl End {
    fn new(session: Session) -> Self {
        let (messages, datagrams, addresses, sent) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { session, messages, datagrams, ended: None, addresses, sent, counters: HashSet::new() }
    }
}

pub(crate) struct Wire {
    pub(crate) now: Time,
    pub(crate) rng: StdRng,
    pub(crate) faults: Faults,
    pub(crate) client: End,
    pub(crate) server: End,
    /// Where the client's datagrams come from, which is not always where it thinks it is.
    pub(crate) client_seen_at: SocketAddr,
    pub(crate) delay: Duration,
    /// Every datagram that arrived intact, for replaying.
    pub(crate) arrived: Vec<(Side, SocketAddr, Vec<u8>)>,
    flying: BinaryHeap<Reverse<Flying>>,
    number: u64,
}

impl Wire {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_config(seed, Config::default())
    }

    /// Two ends right after a handshake; the client is logged in.
    pub(crate) fn with_config(seed: u64, config: Config) -> Self {
        let mut wire = Self::before_login(seed, config);
        wire.server.session.promote();
        wire
    }

    pub(crate) fn before_login(seed: u64, config: Config) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (client, opened) = handshake(&mut rng, Arc::new(config));
        Self {
            now: Time::ZERO,
            rng,
            faults: Faults::default(),
            client: End::new(client),
            server: End::new(opened.session),
            client_seen_at: client_address(),
            delay: ms(20),
            arrived: Vec::new(),
            flying: BinaryHeap::new(),
            number: 0,
        }
    }

    pub(crate) fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Lets time pass; both drivers do their duty.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        let mut steps_now = 0;
        loop {
            for side in [Side::Client, Side::Server] {
                self.serve(side);
            }
            let deadlines = [&self.client, &self.server].map(|end| end.session.deadline());
            let arrival = self.flying.peek().map(|Reverse(flying)| flying.at);
            let next = deadlines.into_iter().flatten().chain(arrival).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            steps_now = if next > self.now { 0 } else { steps_now + 1 };
            assert!(steps_now < 1_000, "time stands still at {:?}: {:?}", self.now, self.client.session);
            self.now = self.now.max(next);
            while self.flying.peek().is_some_and(|Reverse(flying)| flying.at <= self.now) {
                let Some(Reverse(flying)) = self.flying.pop() else { break };
                self.arrive(flying);
            }
        }
        self.now = end;
    }

    /// Runs until both ends have nothing unacknowledged; says how long it took.
    pub(crate) fn drain(&mut self, at_most: Duration) -> Duration {
        let began = self.now;
        while self.client.session.unacknowledged() + self.server.session.unacknowledged() > 0 {
            assert!(
                self.now.since(began) < at_most,
                "not drained: {:?} {:?}",
                self.client.session,
                self.server.session
            );
            self.run(ms(10));
        }
        self.now.since(began)
    }

    fn serve(&mut self, side: Side) {
        let now = self.now;
        let end = self.end(side);
        if end.session.deadline().is_some_and(|deadline| deadline <= now) {
            end.ended = end.session.on_deadline(now).or(end.ended);
        }
        let mut datagram = Vec::new();
        while let Some(to) = self.end(side).session.poll_transmit(now, &mut datagram) {
            assert!(datagram.len() <= DATAGRAM_MAX, "{} bytes", datagram.len());
            let counter = u64::from_be_bytes(datagram[5..13].try_into().unwrap());
            let end = self.end(side);
            assert!(end.counters.insert(counter), "counter {counter} used twice by {side:?}");
            end.sent.push((now, datagram.len(), to));
            self.fly(side, to, &datagram);
        }
    }

    fn fly(&mut self, from: Side, to: SocketAddr, bytes: &[u8]) {
        let (source, target) = match from {
            Side::Client => (self.client_seen_at, Side::Server),
            Side::Server => (server_address(), Side::Client),
        };
        let reachable = if target == Side::Server { to == server_address() } else { to == self.client_seen_at };
        let cut_off = match target {
            Side::Server => self.faults.client_is_cut_off,
            Side::Client => self.faults.server_is_cut_off,
        };
        if !reachable || cut_off || self.chance(self.faults.loss) {
            return;
        }
        if self.chance(self.faults.duplicates) {
            self.launch(target, source, Fate::Copy, bytes.to_vec());
        }
        if self.chance(self.faults.damage) {
            let damaged = damage(&mut self.rng, bytes);
            self.launch(target, source, Fate::Damaged, damaged);
        }
        self.launch(target, source, Fate::Intact, bytes.to_vec());
    }

    pub(crate) fn chance(&mut self, per_cent: u32) -> bool {
        self.rng.random_range(0..100) < per_cent
    }

    fn launch(&mut self, to: Side, from: SocketAddr, fate: Fate, bytes: Vec<u8>) {
        let jitter = self.rng.random_range(0..=self.faults.jitter.as_micros() as u64);
        let late = if self.chance(self.faults.late) { secs(5) } else { Duration::ZERO };
        let at = self.now.after(self.delay + Duration::from_micros(jitter) + late);
        self.number += 1;
        self.flying.push(Reverse(Flying { at, number: self.number, to, from, fate, bytes }));
    }

    fn arrive(&mut self, flying: Flying) {
        let now = self.now;
        let mut events = Vec::new();
        let mut bytes = flying.bytes.clone();
        let end = self.end(flying.to);
        let before = format!("{:?}", end.session);
        let received = end.session.receive(now, flying.from, &mut bytes, &mut events);
        if received.is_err() {
            assert_eq!(before, format!("{:?}", end.session), "changed by a rejected datagram");
            assert_eq!(events.len(), 0, "a rejected datagram said something");
            return;
        }
        assert_ne!(flying.fate, Fate::Damaged, "a damaged datagram was accepted");
        self.arrived.push((flying.to, flying.from, flying.bytes));
        self.note(flying.to, events);
    }

    pub(crate) fn note(&mut self, side: Side, events: Vec<Event>) {
        let end = self.end(side);
        for event in events {
            match event {
                Event::Confirmed => assert_eq!(side, Side::Server),
                Event::Message(message) => end.messages.push(message),
                Event::Datagram(datagram) => end.datagrams.push(datagram),
                Event::AddressChanged(address) => end.addresses.push(address),
                Event::Ended(ended) => end.ended = Some(ended),
            }
        }
    }

    /// Bytes both ends sent to each address.
    pub(crate) fn bytes_to(&self, address: SocketAddr) -> usize {
        self.server.sent.iter().filter(|(.., to)| *to == address).map(|(_, len, _)| len).sum()
    }
}

/// Cut, lengthened, or with one bit flipped.
fn damage(rng: &mut StdRng, bytes: &[u8]) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    match rng.random_range(0..3) {
        0 => damaged.truncate(rng.random_range(0..bytes.len())),
        1 => damaged.extend((0..rng.random_range(1..40)).map(|_| 0_u8)),
        _ => {
            let bit = rng.random_range(0..bytes.len() * 8);
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
    }
    damaged
}

/// An acceptor for sessions, and the key clients pin.
pub(crate) fn acceptor(rng: &mut StdRng, serves: Serves, config: Arc<Config>) -> (Acceptor, ServerKey) {
    let key = ServerKey::random(rng);
    (Acceptor::new(Time::ZERO, key.clone(), serves, None, config, rng), key)
}

fn handshake(rng: &mut StdRng, config: Arc<Config>) -> (Session, Opened) {
    let now = Time::ZERO;
    let (mut acceptor, key) = acceptor(rng, Serves::Sessions, config.clone());
    let (mut connecting, init) =
        Connecting::open(now, server_address(), &key.public(), None, b"", config, rng).unwrap();
    let Accept::Reply(retry) = acceptor.handle_init(now, WALL, client_address(), &init, b"", rng, || None) else {
        panic!("no RETRY on first contact")
    };
    let Step::Send(init) = connecting.handle(now, server_address(), retry.as_bytes()) else { panic!("no second INIT") };
    let index = rng.next_u32();
    let Accept::Open(opened) = acceptor.handle_init(now, WALL, client_address(), &init, b"", rng, || Some(index))
    else {
        panic!("not opened")
    };
    let Step::Open(session, _) = connecting.handle(now, server_address(), &opened.reply) else { panic!("not open") };
    (*session, *opened)
}

/// A message that tells its number and has the given length, 8 at least.
pub(crate) fn message(number: u64, len: usize) -> Bytes {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(len.max(8), number as u8);
    bytes.into()
}

/// Fails unless `received` is `sent`, saying what is missing, doubled or out of place.
pub(crate) fn assert_same(received: &[Bytes], sent: &[Bytes], what: &str) {
    let mut times = BTreeMap::new();
    for message in received {
        *times.entry(message).or_insert(0) += 1;
    }
    let lost = sent.iter().filter(|message| !times.contains_key(message)).count();
    let doubled = times.values().filter(|times| **times > 1).count();
    assert_eq!((lost, doubled), (0, 0), "{what}: (lost, doubled)");
    assert!(received == sent, "{what}: out of order, or never sent");
}
