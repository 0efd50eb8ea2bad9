//! What the fuzz targets do with their input; `tests/corpus.rs` does the same with the committed corpus. The sessions of
//! two more targets are in `duo.rs` and `hostile.rs`.

use bytes::Bytes;
use xmmep::catalog;
use xmmep::error::Problem;
use xmmep::frame::{Code, Frame, HEADER_LEN, Kind};
use xmmep::message::Descriptor;
use xmmep::secret::TicketKey;
use xmmep::session::{Accept, Acceptor, Connecting, ServerKey, Serves, Step, peek};
use xmmep::types::{PresenceId, Time, WallTime};

use super::{hostile, schema, seeded};

/// Takes choices off the front of an input; an input that is used up says 0.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Two bytes, big-endian.
    pub fn short(&mut self) -> u16 {
        u16::from(self.byte()) << 8 | u16::from(self.byte())
    }

    /// At most `len` bytes.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        front
    }

    /// Whether anything is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Frames: a header is read as it stands, and a body by its code.
pub fn frame(input: &[u8]) {
    let decoded = Frame::decode(Bytes::copy_from_slice(input));
    assert_eq!(decoded, Frame::decode(Bytes::copy_from_slice(input)), "the same verdict twice");
    let Ok(frame) = decoded else { return };
    let mut again = frame.header.code.0.to_be_bytes().to_vec();
    again.push(u8::from(frame.header.kind == Kind::Answer));
    again.extend_from_slice(&frame.header.sequence.0.to_be_bytes());
    again.extend_from_slice(&frame.body);
    assert_eq!(again, input, "a header says all that its bytes say");
    if let Some(message) = catalog::find(frame.header.code) {
        body(message, &frame.body);
    }
}

/// Bodies of every message: two bytes choose it, the rest is the body.
pub fn message(input: &[u8]) {
    let mut input = Input(input);
    let choice = input.short();
    let by_number = || catalog::all().nth(usize::from(choice) % catalog::all().count());
    let message = catalog::find(Code(choice)).or_else(by_number).expect("the catalogue is not empty");
    body(message, input.0);
}

fn body(message: &Descriptor, body: &[u8]) {
    let recoded = (message.recode)(body);
    assert_eq!(recoded, (message.recode)(body), "{}: the same verdict twice", message.name);
    assert_eq!(recoded.is_ok(), (message.field_ends)(body).is_ok(), "{}: fields and whole", message.name);
    let page = schema::walk(message.fields, body);
    match &recoded {
        Ok(bytes) => {
            assert_eq!((message.recode)(bytes).as_ref(), Ok(bytes), "{}: a fixed point", message.name);
            assert!(page.is_ok(), "{}: the page's reader says {page:?}", message.name);
        }
        Err(error) => {
            assert!(error.offset <= body.len(), "{}: {error}", message.name);
            let named = |ty: &str| ty.contains("UserName") || ty.contains("Email");
            let by_rule = error.problem == Problem::Malformed
                && page.as_ref().is_ok_and(|walk| walk.leaves.iter().any(|leaf| named(&leaf.ty)));
            assert!(page.is_err() || by_rule, "{}: {error}, but the page's reader takes it", message.name);
        }
    }
}

/// Byte streams: however they are cut, the same frames come out, and nothing is kept beyond the limit.
#[cfg(feature = "tokio")]
pub fn stream(input: &[u8]) {
    use bytes::BytesMut;
    use tokio_util::codec::Decoder;
    use xmmep::stream::{FrameCodec, LENGTH_LEN};

    let mut input = Input(input);
    let limit = usize::from(input.short() % 1_024);
    let piece = usize::from(input.byte()).max(1);
    let run = |size: usize| {
        let (mut codec, mut buffer, mut frames) = (FrameCodec::new(), BytesMut::new(), Vec::new());
        codec.set_limit(limit);
        for bytes in input.0.chunks(size.max(1)) {
            buffer.extend_from_slice(bytes);
            loop {
                match codec.decode(&mut buffer) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, error.to_string()),
                }
            }
            assert!(buffer.len() <= limit + LENGTH_LEN, "{} bytes wait for a frame of at most {limit}", buffer.len());
        }
        loop {
            match codec.decode_eof(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, String::new()),
                Err(error) => return (frames, error.to_string()),
            }
        }
    };
    let (frames, end) = run(piece);
    assert!(frames.iter().all(|frame| (1..=limit).contains(&frame.len())));
    assert_eq!((&frames, &end), (&run(1).0, &run(1).1), "one byte at a time");
    assert_eq!((frames, end), run(input.0.len()), "all at once");
}

const NOW: Time = Time::from_micros(5_000_000);
const WALL: WallTime = WallTime(1_000_000);

fn acceptor() -> (Acceptor, ServerKey) {
    let mut rng = seeded(1);
    let key = ServerKey::random(&mut rng);
    let tickets = Some((TicketKey::from_bytes([3; 32]), PresenceId { cluster: 1, presence: 1 }));
    (Acceptor::new(NOW, key.clone(), Serves::Both, tickets, std::sync::Arc::default(), &mut rng), key)
}

/// What strangers may send: nothing is answered with more than a tenth of it, and nothing changes anything.
pub fn datagram(input: &[u8]) {
    let mut input = Input(input);
    let mode = input.byte();
    let _ = peek(input.0);
    match mode % 4 {
        0 => stranger(input.0),
        1 => with_cookie(input.0),
        2 => initiator(input.0),
        _ => record(input.0),
    }
}

/// Raw bytes, and the same filled up to the size of an INIT, to a server that never saw the sender.
fn stranger(bytes: &[u8]) {
    let (mut acceptor, _) = acceptor();
    let mut init = bytes.to_vec();
    init.resize(xmmep::session::DATAGRAM_MAX, 0);
    for datagram in [bytes, &init] {
        let from = hostile::CLIENT;
        let accepted = acceptor.handle_init(NOW, WALL, from, datagram, b"", &mut seeded(2), || Some(1));
        match accepted {
            Accept::Nothing => {}
            Accept::Reply(reply) => assert!(reply.as_bytes().len() * 100 <= datagram.len() * 11),
            Accept::Lookup(..) | Accept::Open(_) => panic!("a stranger without a cookie got in"),
        }
    }
    assert_eq!(acceptor.pending(), (0, 0));
}

/// A good cookie around any Noise message; and an authentic Noise message with any payload.
fn with_cookie(bytes: &[u8]) {
    let (mut acceptor, key) = acceptor();
    let payload = bytes.get(..bytes.len().min(1_037)).unwrap_or_default();
    let mut handshake = hostile::Handshake::begin(&key.public().0, payload);
    let mut rng = seeded(2);
    let retry = acceptor.handle_init(NOW, WALL, hostile::CLIENT, &handshake.init(0, &[]), b"", &mut rng, || None);
    let Accept::Reply(retry) = retry else { panic!("no RETRY") };
    let cookie = retry.as_bytes().get(5..).unwrap_or_default().to_vec();

    let authentic = handshake.init(1, &cookie);
    let accepted = acceptor.handle_init(NOW, WALL, hostile::CLIENT, &authentic, b"", &mut rng, || Some(1));
    match (payload.first(), accepted) {
        (Some(1), Accept::Lookup(_, asked)) => assert_eq!(Some(&asked[..]), payload.get(1..)),
        (Some(2), Accept::Open(opened)) => assert!(opened.reply.len() <= xmmep::session::DATAGRAM_MAX),
        (Some(1 | 2), other) => panic!("not admitted: {other:?}"),
        (_, Accept::Nothing) => {}
        (_, other) => panic!("admitted without a purpose: {other:?}"),
    }

    handshake.message = payload.to_vec();
    let forged = handshake.init(1, &cookie);
    let accepted = acceptor.handle_init(NOW, WALL, hostile::CLIENT, &forged, b"", &mut rng, || Some(2));
    assert!(matches!(accepted, Accept::Nothing), "a forged Noise message got in");
}

/// Any answers to a client that connects.
fn initiator(bytes: &[u8]) {
    let (_, key) = acceptor();
    let server = hostile::SERVER;
    let begun = Connecting::lookup(NOW, server, &key.public(), b"", &mut seeded(3));
    let (mut connecting, _) = begun.expect("an empty request fits");
    let index = connecting.index().to_be_bytes();
    let mut input = Input(bytes);
    for _ in 0..64 {
        let (kind, len) = (input.byte(), input.short());
        let content = input.take(usize::from(len));
        match connecting.handle(NOW, server, &[&[kind % 10], &index[..], content].concat()) {
            Step::Ignore => {}
            Step::Send(init) => assert_eq!(init.len(), xmmep::session::DATAGRAM_MAX),
            Step::Answer(_) | Step::Open(..) => panic!("an answer was forged"),
        }
        if input.is_empty() {
            break;
        }
    }
    assert!(connecting.deadline().is_some(), "forgeries ended the attempt");
}

/// Anything as a record to an open session.
fn record(bytes: &[u8]) {
    let (mut session, _) = hostile::server_session();
    let mut datagram = vec![8];
    datagram.extend_from_slice(&session.index().to_be_bytes());
    datagram.extend_from_slice(bytes);
    let before = format!("{session:?}");
    let mut events = Vec::new();
    assert!(session.receive(NOW, hostile::CLIENT, &mut datagram, &mut events).is_err(), "a record was forged");
    assert_eq!((before, 0), (format!("{session:?}"), events.len()), "a forged record left a trace");
}

/// Bytes of the header, so that targets and seeds agree on where a body begins.
pub const BODY_AT: usize = HEADER_LEN;
