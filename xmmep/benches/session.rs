//! What a datagram costs: first contact, a handshake, a relayed message, a forged record.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use divan::Bencher;
use divan::counter::BytesCount;
use rand::SeedableRng;
use rand::rngs::StdRng;
use xmmep::session::{Accept, Acceptor, Config, Connecting, Opened, ServerKey, Serves, Session, Step};
use xmmep::types::{Time, WallTime};

const WALL: WallTime = WallTime(0);

fn main() {
    divan::main();
}

fn client() -> SocketAddr {
    ([192, 0, 2, 1], 1_000).into()
}

fn server() -> SocketAddr {
    ([192, 0, 2, 2], 2_000).into()
}

/// A server and a client that has its cookie.
struct Setup {
    acceptor: Acceptor,
    connecting: Connecting,
    first_init: Vec<u8>,
    second_init: Vec<u8>,
    rng: StdRng,
    now: Time,
}

impl Setup {
    fn new() -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let now = Time::ZERO;
        let key = ServerKey::random(&mut rng);
        let config = Arc::<Config>::default();
        let mut acceptor = Acceptor::new(now, key.clone(), Serves::Both, None, config.clone(), &mut rng);
        let (mut connecting, first_init) =
            Connecting::open(now, server(), &key.public(), None, b"", config, &mut rng).expect("it is short");
        let Accept::Reply(retry) = acceptor.handle_init(now, WALL, client(), &first_init, b"", &mut rng, || None)
        else {
            panic!("no RETRY")
        };
        let Step::Send(second_init) = connecting.handle(now, server(), retry.as_bytes()) else {
            panic!("no second INIT")
        };
        Self { acceptor, connecting, first_init, second_init, rng, now }
    }

    fn accept(&mut self) -> Box<Opened> {
        // The limiter gives this address 20 a second: the cookie lives long enough for 300 of them.
        self.now = self.now.after(std::time::Duration::from_millis(50));
        let init = &self.second_init;
        match self.acceptor.handle_init(self.now, WALL, client(), init, b"", &mut self.rng, || Some(1)) {
            Accept::Open(opened) => opened,
            other => panic!("{other:?}"),
        }
    }

    fn sessions() -> (Session, Session) {
        let mut setup = Self::new();
        let mut opened = setup.accept();
        let Step::Open(ours, _) = setup.connecting.handle(setup.now, server(), &opened.reply) else {
            panic!("not open")
        };
        opened.session.promote();
        (*ours, opened.session)
    }
}

#[divan::bench]
fn answer_first_contact(bencher: Bencher) {
    let mut setup = Setup::new();
    bencher.bench_local(|| {
        let init = black_box(&setup.first_init);
        setup.acceptor.handle_init(setup.now, WALL, client(), init, b"", &mut setup.rng, || None)
    });
}

#[divan::bench(sample_count = 100, sample_size = 1)]
fn accept_with_cookie(bencher: Bencher) {
    bencher.with_inputs(Setup::new).bench_local_values(|mut setup| setup.accept());
}

/// A message there and one back, each acknowledged by the next: seal, open, queue, deliver, twice.
#[divan::bench(args = [50, 150, 1_000, 16_000])]
fn message_there_and_back(bencher: Bencher, len: usize) {
    let (mut ours, mut theirs) = Setup::sessions();
    let text = Bytes::from(vec![7; len]);
    let (mut datagram, mut events) = (Vec::new(), Vec::new());
    let now = Time::from_micros(60_000);
    let mut relay = |from: &mut Session, to: &mut Session, address| {
        from.send(text.clone()).expect("the queue is short");
        while from.poll_transmit(now, &mut datagram).is_some() {
            to.receive(now, address, &mut datagram, &mut events).expect("it is authentic");
        }
        events.clear();
    };
    bencher.bench_local(|| {
        relay(&mut ours, &mut theirs, client());
        relay(&mut theirs, &mut ours, server());
    });
}

/// One record with so many bytes in it, 32 more on the wire: nothing queued, ordered or acknowledged.
#[divan::bench(args = [50, 118, 1_000], sample_size = 100)]
fn seal(bencher: Bencher, len: usize) {
    let (mut ours, _) = Setup::sessions();
    let payload = Bytes::from(vec![7; len]);
    let (mut datagram, now) = (Vec::new(), Time::from_micros(60_000));
    bencher.counter(BytesCount::new(len)).bench_local(|| {
        ours.send_unreliable(payload.clone()).expect("the queue is short");
        ours.poll_transmit(now, black_box(&mut datagram))
    });
}

#[divan::bench(args = [50, 118, 1_000], sample_size = 100)]
fn open(bencher: Bencher, len: usize) {
    let (mut ours, mut theirs) = Setup::sessions();
    let payload = Bytes::from(vec![7; len]);
    let now = Time::from_micros(60_000);
    let seal = || {
        let mut datagram = Vec::new();
        ours.send_unreliable(payload.clone()).expect("the queue is short");
        ours.poll_transmit(now, &mut datagram).expect("a record");
        datagram
    };
    let mut events = Vec::with_capacity(8);
    bencher.counter(BytesCount::new(len)).with_inputs(seal).bench_local_refs(|record| {
        theirs.receive(now, client(), black_box(record), &mut events).expect("it is authentic");
        events.clear();
    });
}

#[divan::bench]
fn reject_a_forged_record(bencher: Bencher) {
    let (mut ours, mut theirs) = Setup::sessions();
    let (mut record, mut events) = (Vec::new(), Vec::new());
    let now = Time::from_micros(60_000);
    ours.send(Bytes::from_static(&[7; 150])).expect("the queue is short");
    ours.poll_transmit(now, &mut record).expect("a record");
    record[20] ^= 1;
    bencher.bench_local(|| theirs.receive(now, client(), black_box(&mut record), &mut events));
}
