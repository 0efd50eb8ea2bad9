//! What strangers, and authenticated peers with bad intent, can do: nothing, or end their own session.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use xmmep::session::{Accept, Connecting, Peek, Rejected, Serves, peek};
use xmmep::types::Time;

use crate::wire::{Side, WALL, Wire, acceptor, client_address, message, ms, secs, server_address};

/// A datagram of each type, all of them valid a moment ago or about to be.
fn valid_datagrams(seed: u64) -> Vec<Vec<u8>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let now = Time::ZERO;
    let (mut acceptor, key) = acceptor(&mut rng, Serves::Sessions, Arc::default());
    let (mut connecting, init) =
        Connecting::open(now, server_address(), &key.public(), None, b"", Arc::default(), &mut rng).unwrap();
    let Accept::Reply(retry) = acceptor.handle_init(now, WALL, client_address(), &init, b"", &mut rng, || None) else {
        panic!("no RETRY")
    };
    let xmmep::session::Step::Send(second) = connecting.handle(now, server_address(), retry.as_bytes()) else {
        panic!("no second INIT")
    };
    let accepted = acceptor.handle_init(now, WALL, client_address(), &second, b"", &mut rng, || Some(5));
    let Accept::Open(opened) = accepted else { panic!("not opened") };
    let mut wire = Wire::new(seed);
    wire.client.session.send(message(1, 300)).unwrap();
    wire.run(ms(100));
    let record = wire.arrived.pop().unwrap().2;
    vec![init, second, retry.as_bytes().to_vec(), opened.reply, record]
}

#[test]
fn no_two_bytes_have_any_effect_on_anything() {
    let mut wire = Wire::new(1);
    wire.run(ms(100));
    let mut rng = StdRng::seed_from_u64(1);
    let (mut acceptor, key) = acceptor(&mut rng, Serves::Both, Arc::default());
    let (mut connecting, _) =
        Connecting::open(Time::ZERO, server_address(), &key.public(), None, b"", Arc::default(), &mut rng).unwrap();
    let now = wire.now;
    let before = format!("{:?}", wire.server.session);
    for two in 0..=u16::MAX {
        let mut bytes = two.to_be_bytes();
        assert_eq!(peek(&bytes), None);
        let received = wire.server.session.receive(now, client_address(), &mut bytes, &mut Vec::new());
        assert_eq!(received, Err(Rejected::Malformed));
        let accepted = acceptor.handle_init(now, WALL, client_address(), &bytes, b"", &mut rng, || None);
        assert!(matches!(accepted, Accept::Nothing));
        assert!(matches!(connecting.handle(now, server_address(), &bytes), xmmep::session::Step::Ignore));
    }
    assert_eq!(before, format!("{:?}", wire.server.session));
    assert_eq!(wire.server.session.stats().rejected, 65_536);
}

#[test]
fn prefixes_extensions_and_bit_flips_of_valid_datagrams_are_rejected_without_a_trace() {
    let mut wire = Wire::new(2);
    wire.run(ms(100));
    wire.client.session.send(message(1, 60)).unwrap();
    let now = wire.now;
    let mut record = Vec::new();
    wire.client.session.poll_transmit(now, &mut record).unwrap();
    let before = format!("{:?}", wire.server.session);
    let mut reject = |mut bytes: Vec<u8>, what: &str| {
        let mut events = Vec::new();
        let received = wire.server.session.receive(now, client_address(), &mut bytes, &mut events);
        assert!(received.is_err() && events.is_empty(), "{what}");
    };
    for len in 0..record.len() {
        reject(record[..len].to_vec(), &format!("cut at {len}"));
    }
    for more in 1..50 {
        reject([record.clone(), vec![0; more]].concat(), &format!("{more} more"));
    }
    for bit in 0..record.len() * 8 {
        let mut flipped = record.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        reject(flipped, &format!("bit {bit}"));
    }
    assert_eq!(before, format!("{:?}", wire.server.session));
    let mut events = Vec::new();
    wire.server.session.receive(now, client_address(), &mut record, &mut events).unwrap();
    assert_eq!(events.len(), 1, "and the real one still counts");
}

#[test]
fn no_prefix_of_a_handshake_datagram_is_answered_and_flips_never_open_a_session() {
    let mut rng = StdRng::seed_from_u64(3);
    let datagrams = valid_datagrams(3);
    let (mut acceptor, _) = acceptor(&mut rng, Serves::Both, Arc::default());
    let mut init =
        |bytes: &[u8]| acceptor.handle_init(Time::ZERO, WALL, client_address(), bytes, b"", &mut rng, || Some(1));
    for datagram in &datagrams {
        for len in 0..datagram.len() {
            assert!(matches!(init(&datagram[..len]), Accept::Nothing), "cut at {len}");
        }
        for bit in 0..datagram.len() * 8 {
            let mut flipped = datagram.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(init(&flipped), Accept::Open(_) | Accept::Lookup(..)), "bit {bit}");
        }
    }
}

#[test]
fn garbage_of_any_kind_changes_nothing() {
    let mut wire = Wire::new(4);
    wire.run(ms(100));
    let now = wire.now;
    let index = wire.server.session.index().to_be_bytes();
    let before = format!("{:?}", wire.server.session);
    let mut rng = StdRng::seed_from_u64(4);
    for _ in 0..20_000 {
        let mut bytes = vec![0; rng.random_range(0..1_300)];
        rng.fill(&mut bytes[..]);
        if let Some(head) = bytes.first_chunk_mut::<5>() {
            head[0] = 8;
            head[1..].copy_from_slice(&index);
        }
        let from = "203.0.113.1:1".parse().unwrap();
        assert!(wire.server.session.receive(now, from, &mut bytes, &mut Vec::new()).is_err());
    }
    assert_eq!(before, format!("{:?}", wire.server.session));
    assert_eq!(wire.server.session.poll_transmit(now, &mut Vec::new()), None, "and is not answered");
}

#[test]
fn every_datagram_is_recognised_for_what_it_is() {
    let expected = valid_datagrams(5);
    let kinds: Vec<_> = expected.iter().map(|datagram| peek(datagram)).collect();
    assert!(matches!(
        kinds[..],
        [
            Some(Peek::Init),
            Some(Peek::Init),
            Some(Peek::Handshake { .. }),
            Some(Peek::Handshake { .. }),
            Some(Peek::Record { .. })
        ]
    ));
}

#[test]
fn a_record_for_another_session_of_the_same_client_is_forged() {
    let mut wire = Wire::new(6);
    let mut other = Wire::new(7);
    let now = wire.now;
    let mut datagram = Vec::new();
    wire.client.session.probe();
    wire.client.session.poll_transmit(now, &mut datagram).unwrap();
    datagram[1..5].copy_from_slice(&other.server.session.index().to_be_bytes());
    let received = other.server.session.receive(now, client_address(), &mut datagram, &mut Vec::new());
    assert_eq!(received, Err(Rejected::Forged));
}

#[test]
fn an_ended_session_takes_and_says_nothing() {
    let mut wire = Wire::new(8);
    wire.run(ms(100));
    let (mut late, now) = (Vec::new(), wire.now);
    wire.client.session.send(message(0, 10)).unwrap();
    wire.client.session.poll_transmit(now, &mut late).unwrap();
    wire.server.session.close(xmmep::session::CloseReason::DONE);
    wire.run(secs(1));
    let received = wire.server.session.receive(wire.now, client_address(), &mut late, &mut Vec::new());
    assert_eq!(received, Err(Rejected::Over));
    assert_eq!(wire.end(Side::Server).session.poll_transmit(Time::ZERO, &mut Vec::new()), None);
}
