//! Nothing lost, nothing doubled, nothing out of order, whatever the wire does; and the caps that make it so.

use bytes::Bytes;
use rand::RngExt;
use xmmep::session::{Config, Ended, FRAGMENT_MAX, Limits, SendError, UNRELIABLE_MAX};

use crate::wire::{Faults, Side, Wire, assert_same, message, ms, secs};

const NASTY: [Faults; 6] = [
    Faults { loss: 1, ..QUIET },
    Faults { loss: 10, damage: 10, ..QUIET },
    Faults { duplicates: 20, damage: 20, ..QUIET },
    Faults { jitter: ms(200), late: 10, ..QUIET },
    Faults { loss: 30, duplicates: 20, ..QUIET },
    Faults { loss: 30, duplicates: 20, damage: 20, jitter: ms(200), late: 10, ..QUIET },
];

const QUIET: Faults = Faults {
    loss: 0,
    duplicates: 0,
    damage: 0,
    jitter: ms(0),
    late: 0,
    client_is_cut_off: false,
    server_is_cut_off: false,
};

/// Both sides talk at random for a while; then the wire heals and both must drain.
fn both_talk(seed: u64, faults: Faults, config: Config) {
    let mut wire = Wire::with_config(seed, config);
    let what = format!("seed {seed}, {faults:?}");
    wire.faults = faults;
    let mut sent = [Vec::new(), Vec::new()];
    for number in 0..120 {
        for (side, sent) in [Side::Client, Side::Server].into_iter().zip(&mut sent) {
            let len = match wire.rng.random_range(0..10) {
                0 => wire.rng.random_range(0..Limits::MEMBER.message_max),
                1..4 => wire.rng.random_range(0..3 * FRAGMENT_MAX),
                _ => wire.rng.random_range(0..200),
            };
            let message = message(number, len);
            match wire.end(side).session.send(message.clone()) {
                Ok(()) => sent.push(message),
                Err(SendError::Full) => {}
                Err(error) => panic!("{what}: {error} {:?}", wire.end(side).session),
            }
        }
        let pause = wire.rng.random_range(0..100);
        wire.run(ms(pause));
    }
    wire.faults = QUIET;
    let took = wire.drain(secs(30));
    assert_same(&wire.server.messages, &sent[0], &what);
    assert_same(&wire.client.messages, &sent[1], &what);
    assert!(sent[0].len() > 10 && sent[1].len() > 10, "{what}: hardly anything was accepted");
    assert!(took <= secs(30), "{what}: took {took:?} to drain");
    replay_everything(&mut wire, &what);
}

/// All that ever arrived arrives again, from elsewhere too: nothing may happen.
fn replay_everything(wire: &mut Wire, what: &str) {
    let now = wire.now;
    for (side, from, bytes) in std::mem::take(&mut wire.arrived) {
        let end = wire.end(side);
        let before = format!("{:?}", end.session);
        let mut events = Vec::new();
        for from in [from, "203.0.113.9:9".parse().unwrap()] {
            assert!(end.session.receive(now, from, &mut bytes.clone(), &mut events).is_err(), "{what}: replayed");
        }
        assert_eq!((before, events.len()), (format!("{:?}", end.session), 0), "{what}");
    }
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order_on_any_wire() {
    for faults in NASTY {
        for seed in 0..5 {
            both_talk(seed, faults, Config::default());
        }
    }
}

#[test]
fn nothing_is_lost_while_keys_change_every_few_hundred_records_or_second() {
    for faults in NASTY {
        for seed in 100..102 {
            both_talk(seed, faults, Config { epoch_bits: 8, ..Config::default() });
            both_talk(seed, faults, Config { epoch_age: secs(1), ..Config::default() });
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| {
        let mut wire = Wire::new(seed);
        wire.faults = NASTY[5];
        for number in 0..20 {
            wire.client.session.send(message(number, 3_000)).unwrap();
            wire.run(ms(300));
        }
        wire.drain(secs(120));
        (wire.arrived, wire.server.sent, wire.client.sent)
    };
    assert!(run(5) == run(5));
    assert!(run(5) != run(6));
}

#[test]
fn the_lost_last_message_of_a_burst_arrives_within_three_seconds() {
    let mut wire = Wire::new(1);
    wire.run(ms(200));
    for number in 0..5 {
        wire.client.session.send(message(number, 100)).unwrap();
        wire.run(ms(5));
    }
    wire.faults.loss = 100;
    wire.client.session.send(message(5, 100)).unwrap();
    wire.run(ms(5));
    wire.faults.loss = 0;
    wire.drain(secs(3));
    assert_eq!(wire.server.messages.len(), 6);
}

#[test]
fn after_a_cut_in_one_direction_nothing_is_missing_or_doubled() {
    for client_is_cut_off in [true, false] {
        let mut wire = Wire::new(2);
        wire.run(ms(100));
        wire.faults = Faults { client_is_cut_off, server_is_cut_off: !client_is_cut_off, ..QUIET };
        let sent: Vec<Bytes> = (0..10).map(|number| message(number, 2_000)).collect();
        for message in &sent {
            wire.client.session.send(message.clone()).unwrap();
            wire.server.session.send(message.clone()).unwrap();
            wire.run(secs(3));
        }
        assert!(wire.client.session.unacknowledged() > 0, "the sender must know that it was not heard");
        wire.faults = QUIET;
        wire.drain(secs(30));
        assert_same(&wire.server.messages, &sent, "to the server");
        assert_same(&wire.client.messages, &sent, "to the client");
    }
}

#[test]
fn a_single_lost_fragment_is_repaired_by_later_acknowledgements_without_a_timeout() {
    let mut wire = Wire::new(3);
    wire.run(ms(100));
    wire.faults.loss = 100;
    wire.client.session.send(message(0, 1_000)).unwrap();
    wire.run(ms(1));
    wire.faults.loss = 0;
    for number in 1..8 {
        wire.client.session.send(message(number, 1_000)).unwrap();
        wire.run(ms(1));
    }
    let took = wire.drain(ms(180));
    assert_eq!(wire.server.messages.len(), 8);
    assert_eq!(wire.client.session.stats().retransmitted, 1, "took {took:?}");
}

#[test]
fn a_full_queue_says_so_and_drains() {
    let mut wire = Wire::new(4);
    wire.faults.loss = 100;
    let taken = (0..1_000).take_while(|number| wire.client.session.send(message(*number, 1_000)).is_ok()).count();
    assert_eq!(taken, Limits::MEMBER.queue_max / 1_064);
    assert_eq!(wire.client.session.send(Bytes::new()), Err(SendError::Full).or(wire.client.session.send(Bytes::new())));
    wire.faults.loss = 0;
    wire.drain(secs(10));
    wire.client.session.send(message(0, 1_000)).unwrap();
}

#[test]
fn empty_messages_are_delivered_and_do_not_come_for_free() {
    let mut wire = Wire::new(5);
    let taken = (0..10_000).take_while(|_| wire.client.session.send(Bytes::new()).is_ok()).count();
    assert_eq!(taken, Limits::MEMBER.queue_max / 64);
    wire.drain(secs(10));
    assert_eq!(wire.server.messages, vec![Bytes::new(); taken]);
}

#[test]
fn a_message_over_the_limit_is_refused_where_it_is_sent() {
    let mut wire = Wire::new(6);
    let largest = Limits::MEMBER.message_max;
    assert_eq!(wire.client.session.send(message(0, largest + 1)), Err(SendError::TooLarge));
    wire.client.session.send(message(0, largest)).unwrap();
    wire.drain(secs(2));
    assert_eq!(wire.server.messages, [message(0, largest)]);
    let long = Bytes::from(vec![0; UNRELIABLE_MAX + 1]);
    assert_eq!(wire.client.session.send_unreliable(long), Err(SendError::TooLarge));
}

#[test]
fn a_stranger_may_send_four_kibibytes_and_not_one_byte_more() {
    for (len, accepted) in [(Limits::STRANGER.message_max, true), (Limits::STRANGER.message_max + 1, false)] {
        let mut wire = Wire::before_login(7, Config::default());
        wire.client.session.send(message(0, len)).unwrap();
        wire.run(secs(3));
        assert_eq!(wire.server.messages.len(), usize::from(accepted));
        assert_eq!(wire.server.ended.is_some(), !accepted, "{:?}", wire.server.ended);
    }
}

#[test]
fn unreliable_datagrams_arrive_at_most_once_and_do_not_wait_for_lost_messages() {
    let mut wire = Wire::new(8);
    wire.faults = Faults { duplicates: 50, loss: 20, ..QUIET };
    for number in 0..200 {
        wire.client.session.send_unreliable(message(number, 300)).unwrap();
        wire.client.session.send(message(number, 300)).unwrap();
        wire.run(ms(20));
    }
    wire.faults = QUIET;
    wire.drain(secs(30));
    let mut seen = wire.server.datagrams.clone();
    let total = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), total, "one arrived twice");
    assert!((120..200).contains(&total), "{total} of 200 at 20 % loss");
    assert_eq!(wire.server.messages.len(), 200);
}

#[test]
fn before_login_a_server_never_sends_more_than_it_received() {
    let mut wire = Wire::before_login(9, Config::default());
    wire.client.session.send(message(0, 100)).unwrap();
    wire.run(ms(100));
    while wire.server.session.send(message(0, 4_000)).is_ok() {}
    wire.faults.server_is_cut_off = true;
    wire.run(secs(60));
    let sent: usize = wire.server.sent.iter().map(|(_, len, _)| len).sum();
    let received: usize = wire.client.sent.iter().map(|(_, len, _)| len).sum();
    assert!(sent <= received + 1_200, "{sent} bytes for {received} and an INIT of 1,200");
    assert!(sent > 500, "{sent}: the test shows nothing if the server is silent");
}

#[test]
fn after_a_close_the_other_side_knows_why_and_nothing_more_is_sent() {
    let mut wire = Wire::new(10);
    wire.run(ms(100));
    wire.server.session.close(xmmep::session::CloseReason::REPLACED);
    assert_eq!(wire.server.session.send(Bytes::new()), Err(SendError::Over));
    wire.run(secs(1));
    assert_eq!(wire.client.ended, Some(Ended::ByPeer(xmmep::session::CloseReason::REPLACED)));
    let sent = wire.client.sent.len() + wire.server.sent.len();
    wire.run(secs(300));
    assert_eq!(wire.client.sent.len() + wire.server.sent.len(), sent);
    assert_eq!((wire.client.session.deadline(), wire.server.session.deadline()), (None, None));
}
