//! Keys change in time and by count, and a (key, counter) pair is never used twice: `wire.rs` checks the latter for
//! every datagram of every test.

use xmmep::session::{Config, Ended};

use crate::wire::{Wire, message, ms, secs};

fn epoch(wire: &Wire) -> String {
    let text = format!("{:?}", wire.client.session);
    let (_, rest) = text.split_once("send: (").unwrap();
    rest.split_once(',').unwrap().0.to_owned()
}

#[test]
fn keys_change_by_count() {
    let mut wire = Wire::with_config(1, Config { epoch_bits: 4, ..Config::default() });
    for number in 0..200 {
        wire.client.session.send(message(number, 10)).unwrap();
        wire.run(ms(60));
    }
    assert_eq!(wire.server.messages.len(), 200);
    assert!(epoch(&wire).parse::<u64>().unwrap() >= 200 / 16, "epoch {}", epoch(&wire));
}

#[test]
fn keys_change_after_120_seconds_of_use_and_only_then() {
    let mut wire = Wire::new(2);
    wire.run(secs(119));
    assert_eq!(epoch(&wire), "0");
    wire.run(secs(61));
    assert_eq!(epoch(&wire), "1");
    wire.run(secs(1_000));
    assert!((7..=9).contains(&epoch(&wire).parse::<u64>().unwrap()), "{}", epoch(&wire));
    wire.client.session.send(message(0, 10)).unwrap();
    wire.drain(secs(1));
}

#[test]
fn the_key_of_the_last_epoch_is_wiped_after_60_seconds_also_where_nothing_but_keep_alives_arrives() {
    let has_two = |wire: &Wire| !format!("{:?}", wire.server.session).contains("key_of_last_epoch_until: None");
    let mut wire = Wire::new(4);
    let since = (0..200).find(|_| {
        wire.run(secs(1));
        has_two(&wire)
    });
    assert!(since.is_some_and(|second| (119..150).contains(&second)), "{since:?}");
    wire.run(secs(58));
    assert!(has_two(&wire));
    wire.run(secs(3));
    assert!(!has_two(&wire));
}

#[test]
fn a_sender_that_hears_no_confirmation_ends_instead_of_wearing_out_its_key() {
    let mut wire = Wire::with_config(3, Config { epoch_bits: 5, ..Config::default() });
    wire.faults.client_is_cut_off = true;
    for number in 0..40 {
        let _ = wire.client.session.send_unreliable(message(number, 10));
        wire.run(ms(10));
    }
    assert_eq!(wire.client.ended, Some(Ended::UsedUp));
    assert_eq!(wire.client.sent.len(), 32);
    assert!(wire.client.session.is_over());
}
