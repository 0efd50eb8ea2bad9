//! Keep-alive, idle death, acknowledgement delays, memory of an idle session.

use xmmep::session::{ACK_DELAY, Config, Ended, HANDSHAKE_AGE_MAX, Session};
use xmmep::types::Time;

use crate::wire::{Wire, message, ms, secs};

#[test]
fn an_idle_session_lives_on_a_ping_every_25_seconds() {
    let mut wire = Wire::new(1);
    wire.run(secs(1_000));
    assert_eq!((wire.client.ended, wire.server.ended), (None, None));
    assert!((40..=50).contains(&wire.client.sent.len()), "{}: a PING each, and new keys", wire.client.sent.len());
    assert!((40..=50).contains(&wire.server.sent.len()), "{}: one answer each, and new keys", wire.server.sent.len());
    assert!(wire.client.sent.iter().all(|(_, len, _)| *len <= 45), "keep-alives are small");
}

#[test]
fn both_sides_notice_within_80_seconds_that_the_other_is_gone() {
    let mut wire = Wire::new(2);
    wire.run(secs(10));
    wire.faults.loss = 100;
    wire.run(secs(79) - ms(9_900));
    assert_eq!((wire.client.ended, wire.server.ended), (None, None));
    wire.run(secs(11));
    assert_eq!((wire.client.ended, wire.server.ended), (Some(Ended::Silent), Some(Ended::Silent)));
    assert_eq!((wire.client.session.deadline(), wire.server.session.deadline()), (None, None));
}

#[test]
fn two_lost_keep_alives_do_no_harm() {
    let mut wire = Wire::new(3);
    wire.run(secs(10));
    wire.faults.loss = 100;
    wire.run(secs(60));
    wire.faults.loss = 0;
    wire.run(secs(600));
    assert_eq!((wire.client.ended, wire.server.ended), (None, None));
}

#[test]
fn a_peer_that_lives_but_acknowledges_nothing_is_given_up() {
    let mut wire = Wire::with_config(4, Config { idle: secs(1_000), ..Config::default() });
    wire.run(ms(500));
    wire.faults.client_is_cut_off = true;
    wire.client.session.send(message(0, 10)).unwrap();
    for number in 0..120 {
        wire.server.session.send_unreliable(message(number, 10)).unwrap();
        wire.run(secs(1));
    }
    assert_eq!(wire.client.ended, Some(Ended::Unanswered));
}

#[test]
fn an_acknowledgement_waits_25_ms_for_something_to_ride_on() {
    let mut wire = Wire::new(5);
    wire.run(ms(500));
    let before = wire.server.sent.len();
    wire.client.session.send(message(0, 10)).unwrap();
    wire.run(wire.delay + ACK_DELAY - ms(1));
    assert_eq!((wire.server.messages.len(), wire.server.sent.len()), (1, before));
    wire.run(ms(1));
    assert_eq!(wire.server.sent.len(), before + 1);

    wire.client.session.send(message(1, 10)).unwrap();
    wire.run(wire.delay);
    wire.server.session.send(message(2, 10)).unwrap();
    wire.run(ms(1));
    assert_eq!(wire.server.sent.len(), before + 2, "the answer leaves at once");
    wire.run(wire.delay);
    assert_eq!(wire.client.session.unacknowledged(), 0, "and carries the acknowledgement");
}

#[test]
fn several_small_messages_share_a_datagram() {
    let mut wire = Wire::new(6);
    wire.run(ms(500));
    let before = wire.client.sent.len();
    (0..8).for_each(|number| wire.client.session.send(message(number, 100)).unwrap());
    wire.run(ms(100));
    assert_eq!((wire.client.sent.len(), wire.server.messages.len()), (before + 1, 8));
}

#[test]
fn an_idle_session_keeps_no_buffers_and_is_small() {
    let mut wire = Wire::new(7);
    wire.client.session.send(message(0, 10_000)).unwrap();
    wire.run(secs(1));
    assert!(wire.client.session.has_buffers() && wire.server.session.has_buffers());
    wire.run(secs(6));
    assert!(!wire.client.session.has_buffers() && !wire.server.session.has_buffers());
    assert!(size_of::<Session>() <= 392, "{} bytes", size_of::<Session>());
}

#[test]
fn a_client_that_never_speaks_is_forgotten_after_five_seconds() {
    let mut wire = Wire::before_login(8, Config::default());
    wire.faults.client_is_cut_off = true;
    wire.server.session.send(message(0, 10)).unwrap();
    wire.run(HANDSHAKE_AGE_MAX - ms(1));
    assert_eq!(wire.server.ended, None);
    wire.run(ms(1));
    assert_eq!((wire.server.ended, wire.server.sent.len()), (Some(Ended::Unconfirmed), 0));
}

#[test]
fn all_deadlines_lie_ahead_once_everything_is_sent() {
    let mut wire = Wire::new(9);
    wire.faults.loss = 20;
    for number in 0..300 {
        let _ = wire.client.session.send(message(number, 700));
        wire.run(ms(7));
        let late = |time: Option<Time>| time.is_some_and(|time| time < wire.now);
        assert!(!late(wire.client.session.deadline()) && !late(wire.server.session.deadline()));
    }
}
