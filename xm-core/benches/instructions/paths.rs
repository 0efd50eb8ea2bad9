//! The hot paths whose instructions are counted.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use xmmep::frame::{self, Frame};
use xmmep::messages::chat::TxtMsg;
use xmmep::session::{Accept, Acceptor, Config, Connecting, Event, ServerKey, Serves, Session, Step};
use xmmep::types::{Time, UserId, WallTime};

use crate::common::{Pause, Recording, logins, statuses, text, texts};

/// A hot path.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    pub(crate) operations: usize,
    /// Makes what does so many operations, and nothing but them.
    pub(crate) prepare: fn(usize) -> Box<dyn FnMut()>,
}

pub(crate) const PATHS: &[Path] = &[
    Path { name: "text_encoded_and_decoded", operations: 1_000, prepare: codec },
    Path { name: "record_150_sealed_and_opened", operations: 1_000, prepare: record },
    Path { name: "message_150_there_and_back", operations: 1_000, prepare: there_and_back },
    Path { name: "text_relayed_busy", operations: 500, prepare: |items| play(texts(Pause::Busy, 1_100, items)) },
    Path { name: "text_relayed_quiet", operations: 500, prepare: |items| play(texts(Pause::Quiet, 1_100, items)) },
    Path { name: "status_to_20", operations: 50, prepare: |items| play(statuses(20, items)) },
    Path { name: "login_with_20_buddies", operations: 20, prepare: |items| play(logins(items)) },
];

/// A recorded scene, for the server alone.
fn play(recording: Recording) -> Box<dyn FnMut()> {
    let recording: &'static Recording = Box::leak(Box::new(recording));
    let mut player = recording.player();
    Box::new(move || player.play_all())
}

fn codec(operations: usize) -> Box<dyn FnMut()> {
    let message = text(UserId(1_234_567), 42);
    Box::new(move || {
        for _ in 0..operations {
            let frame = Frame::decode(frame::notice(black_box(&message)));
            black_box(frame.and_then(|frame| frame.message::<TxtMsg>())).expect("it is well-formed");
        }
    })
}

/// An unreliable datagram: nothing is queued, ordered or acknowledged, so this is the record and little else.
fn record(operations: usize) -> Box<dyn FnMut()> {
    // Header 13, chunk type and length 3, tag 16.
    const PAYLOAD: usize = 150 - 32;
    let (mut ours, mut theirs) = sessions();
    let payload = Bytes::from(vec![7; PAYLOAD]);
    let mut wire = Wire::default();
    // The acknowledgement that is still owed rides on the first one.
    ours.send_unreliable(payload.clone()).expect("there is room");
    wire.carry(&mut ours, &mut theirs, CLIENT);
    Box::new(move || {
        for _ in 0..operations {
            ours.send_unreliable(payload.clone()).expect("there is room");
            let bytes = wire.carry(&mut ours, &mut theirs, CLIENT);
            assert_eq!(bytes, 150);
        }
    })
}

fn there_and_back(operations: usize) -> Box<dyn FnMut()> {
    let (mut ours, mut theirs) = sessions();
    let message = Bytes::from(vec![7; 150]);
    let mut wire = Wire::default();
    Box::new(move || {
        for _ in 0..operations {
            ours.send(message.clone()).expect("there is room");
            wire.carry(&mut ours, &mut theirs, CLIENT);
            theirs.send(message.clone()).expect("there is room");
            wire.carry(&mut theirs, &mut ours, SERVER);
        }
    })
}

#[derive(Default)]
struct Wire {
    datagram: Vec<u8>,
    events: Vec<Event>,
}

impl Wire {
    /// Carries all that one end has to say to the other; returns how many bytes that was.
    fn carry(&mut self, from: &mut Session, to: &mut Session, address: ([u8; 4], u16)) -> usize {
        let mut bytes = 0;
        while from.poll_transmit(NOW, &mut self.datagram).is_some() {
            bytes += self.datagram.len();
            to.receive(NOW, address.into(), &mut self.datagram, &mut self.events).expect("it is authentic");
        }
        self.events.clear();
        bytes
    }
}

const NOW: Time = Time::from_micros(60_000);
const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 1], 1_000);
const SERVER: ([u8; 4], u16) = ([192, 0, 2, 2], 2_000);

/// The two ends of an open session that has been used.
fn sessions() -> (Session, Session) {
    let mut rng = StdRng::seed_from_u64(1);
    let (client, server) = (SocketAddr::from(CLIENT), SocketAddr::from(SERVER));
    let (now, wall, key) = (Time::ZERO, WallTime(0), ServerKey::from_bytes([5; 32]));
    let config = Arc::<Config>::default();
    let mut acceptor = Acceptor::new(now, key.clone(), Serves::Sessions, None, config.clone(), &mut rng);
    let opening = Connecting::open(now, server, &key.public(), None, b"", config, &mut rng);
    let (mut connecting, init) = opening.expect("there is no request that could be too long");
    let Accept::Reply(retry) = acceptor.handle_init(now, wall, client, &init, b"", &mut rng, || None) else {
        panic!("no RETRY")
    };
    let Step::Send(init) = connecting.handle(now, server, retry.as_bytes()) else { panic!("no second INIT") };
    let Accept::Open(opened) = acceptor.handle_init(now, wall, client, &init, b"", &mut rng, || Some(1)) else {
        panic!("not opened")
    };
    let Step::Open(mut ours, _) = connecting.handle(now, server, &opened.reply) else { panic!("not open") };
    let mut theirs = opened.session;
    theirs.promote();
    let mut wire = Wire::default();
    for _ in 0..10 {
        ours.send(Bytes::from_static(b"hello")).expect("there is room");
        wire.carry(&mut ours, &mut theirs, CLIENT);
        theirs.send(Bytes::from_static(b"hello")).expect("there is room");
        wire.carry(&mut theirs, &mut ours, SERVER);
    }
    (*ours, theirs)
}
