//! Roaming: the client turns up at another address.

use std::net::SocketAddr;

use xmmep::session::PROPOSAL_AGE_MAX;

use crate::wire::{Side, Wire, client_address, message, ms, secs};

fn elsewhere() -> SocketAddr {
    "203.0.113.7:4444".parse().unwrap()
}

#[test]
fn a_client_behind_a_new_address_goes_on_without_a_login() {
    let mut wire = Wire::new(1);
    wire.run(secs(35));
    wire.client_seen_at = elsewhere();
    wire.server.session.send(message(0, 5_000)).unwrap();
    wire.run(secs(1));
    wire.client.session.send(message(1, 100)).unwrap();
    wire.drain(secs(2));
    assert_eq!((wire.server.addresses.as_slice(), wire.server.session.peer()), ([elsewhere()].as_slice(), elsewhere()));
    assert_eq!((wire.server.messages.len(), wire.client.messages.len()), (1, 1));
}

#[test]
fn a_probe_shows_the_new_address_to_the_server_at_once() {
    let mut wire = Wire::new(2);
    wire.run(secs(3));
    wire.client_seen_at = elsewhere();
    wire.client.session.probe();
    wire.run(ms(100));
    assert_eq!(wire.server.session.peer(), elsewhere());
}

#[test]
fn a_new_address_gets_no_more_bytes_than_it_sent_until_it_has_answered() {
    let mut wire = Wire::new(3);
    wire.run(secs(3));
    wire.client_seen_at = elsewhere();
    wire.faults.server_is_cut_off = true;
    for number in 0..20 {
        let _ = wire.server.session.send(message(number, 3_000));
    }
    let before: usize = wire.client.sent.len();
    wire.client.session.probe();
    wire.run(secs(10));
    let from_there: usize = wire.client.sent[before..].iter().map(|(_, len, _)| len).sum();
    let to_there = wire.bytes_to(elsewhere());
    assert!(to_there > 0 && to_there <= from_there, "{to_there} bytes for {from_there}");
    assert_eq!(wire.server.session.peer(), client_address(), "the old path stays");
}

#[test]
fn an_answer_from_another_address_or_too_late_does_not_count() {
    for (from, wait) in [(client_address(), ms(1)), ("203.0.113.8:1".parse().unwrap(), ms(1)), (elsewhere(), secs(4))] {
        let mut wire = Wire::new(4);
        wire.run(secs(3));
        let now = wire.now;
        let (mut datagram, mut events) = (Vec::new(), Vec::new());
        wire.client.session.probe();
        wire.client.session.poll_transmit(now, &mut datagram).unwrap();
        wire.server.session.receive(now, elsewhere(), &mut datagram, &mut events).unwrap();
        assert_eq!(wire.server.session.poll_transmit(now, &mut datagram), Some(elsewhere()));
        let later = now.after(wait);
        wire.client.session.receive(later, crate::wire::server_address(), &mut datagram, &mut events).unwrap();
        wire.client.session.poll_transmit(later, &mut datagram).unwrap();
        wire.server.session.receive(later, from, &mut datagram, &mut events).unwrap();
        assert_eq!(wire.server.session.peer(), client_address(), "from {from} after {wait:?}");
    }
    assert!(secs(4) > PROPOSAL_AGE_MAX);
}

#[test]
fn the_address_changes_at_most_once_a_second() {
    let mut wire = Wire::new(5);
    wire.run(secs(3));
    for port in 0..40 {
        wire.client_seen_at.set_port(5_000 + port);
        wire.client.session.probe();
        wire.run(ms(100));
    }
    assert!((3..=5).contains(&wire.server.addresses.len()), "{:?}", wire.server.addresses);
    wire.run(secs(2));
    wire.client.session.probe();
    wire.run(secs(1));
    assert_eq!(wire.server.session.peer(), wire.client_seen_at);
}

#[test]
fn a_copied_or_old_record_from_elsewhere_proposes_nothing() {
    let mut wire = Wire::new(6);
    wire.run(secs(3));
    let now = wire.now;
    let (mut old, mut new, mut events) = (Vec::new(), Vec::new(), Vec::new());
    for datagram in [&mut old, &mut new] {
        wire.client.session.probe();
        wire.client.session.poll_transmit(now, datagram).unwrap();
    }
    let copy = new.clone();
    wire.server.session.receive(now, client_address(), &mut new, &mut events).unwrap();
    assert!(wire.server.session.receive(now, elsewhere(), &mut copy.clone(), &mut events).is_err());
    wire.server.session.receive(now, elsewhere(), &mut old, &mut events).unwrap();
    let mut datagram = Vec::new();
    while let Some(to) = wire.server.session.poll_transmit(now, &mut datagram) {
        assert_eq!(to, client_address());
    }
}

#[test]
fn the_server_may_move_too() {
    let mut wire = Wire::new(7);
    wire.run(secs(3));
    let now = wire.now;
    let (mut datagram, mut events) = (Vec::new(), Vec::new());
    wire.server.session.probe();
    wire.server.session.poll_transmit(now, &mut datagram).unwrap();
    wire.client.session.receive(now, elsewhere(), &mut datagram, &mut events).unwrap();
    assert_eq!(wire.client.session.poll_transmit(now, &mut datagram), Some(elsewhere()), "a challenge");
    wire.server.session.receive(now, client_address(), &mut datagram, &mut events).unwrap();
    assert_eq!(wire.server.session.poll_transmit(now, &mut datagram), Some(client_address()), "its answer");
    wire.client.session.receive(now, elsewhere(), &mut datagram, &mut events).unwrap();
    wire.note(Side::Client, events);
    assert_eq!(wire.client.addresses, [elsewhere()]);
}

#[test]
fn messages_under_way_survive_moves_under_loss() {
    for seed in 0..10 {
        let mut wire = Wire::new(seed);
        wire.faults.loss = 20;
        let mut sent = Vec::new();
        for number in 0..100 {
            if number % 20 == 10 {
                wire.client_seen_at.set_port(6_000 + number as u16);
            }
            let message = message(number, 500);
            if wire.client.session.send(message.clone()).is_ok() {
                sent.push(message);
            }
            let _ = wire.server.session.send_unreliable(message_for_server(number));
            wire.run(ms(100));
        }
        wire.faults.loss = 0;
        wire.drain(secs(30));
        crate::wire::assert_same(&wire.server.messages, &sent, &format!("seed {seed}"));
        assert_eq!(wire.server.session.peer(), wire.client_seen_at, "seed {seed}");
    }
}

fn message_for_server(number: u64) -> bytes::Bytes {
    message(number, 50)
}
