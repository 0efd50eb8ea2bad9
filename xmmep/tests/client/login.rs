//! From an address to a roster, and every way that can fail.

use std::time::Duration;

use bytes::Bytes;
use xmmep::bounded::List;
use xmmep::client::{ConnectError, Credentials, DerivedKey, End, Event, FirstLogin};
use xmmep::frame;
use xmmep::messages::login::{ClientReady, LoginReq, LoginRes3, LoginRes6, SessionReport};
use xmmep::messages::status::StatusChangedNotifyFwd;
use xmmep::messages::{ResultMsg, StatusChange};
use xmmep::result_code::ResultCode;
use xmmep::secret::{BadKdfParams, KdfParams, LoginKey, Salt};
use xmmep::types::{RosterVersion, Status, UserId, WallTime};

use crate::script::{BOB, ME, PASSWORD, bob, end, first, login_with_bob, online, part, refusal, right_key};
use crate::world::{Tickets, World};

fn no_login(world: &mut World) -> ConnectError {
    match world.end() {
        End::NoLogin(error) => error,
        end => panic!("{end:?}"),
    }
}

#[test]
fn a_login_gives_the_roster_and_then_says_ready() {
    let mut world = World::logged_in(1);
    let Some(Event::LoggedIn(welcome)) = world.events.iter().find(|event| matches!(event, Event::LoggedIn(_))) else {
        panic!("{:?}", world.events)
    };
    assert_eq!((welcome.user, welcome.failed_attempts, welcome.server_time), (ME, 3, WallTime(42)));
    let roster = world.machine.roster();
    let buddy = roster.buddy(BOB).unwrap();
    assert_eq!((buddy.shown_name(), buddy.status()), ("bob", Status::BUSY));
    assert_eq!((roster.groups().len(), roster.find("BOB")), (1, Some(BOB)));
    world.until(Duration::from_secs(1), "ClientReady", |world| world.is_ready());
    assert_eq!(world.heard::<ClientReady>().len(), 1);
}

#[test]
fn with_a_ticket_the_whole_way_takes_four_round_trips_and_no_retry_at_the_presence() {
    let world = World::logged_in(2);
    assert_eq!(world.presence.acceptor.stats().retried, 0);
    assert_eq!(world.router.acceptor.stats().retried, 1);
    // INIT and RETRY, INIT and RESPONSE, INIT and RESPONSE, LoginReq and parts; 10 ms each way.
    assert_eq!(world.now.as_micros(), 80_000);
}

#[test]
fn without_a_ticket_or_with_one_that_is_not_good_the_way_goes_by_a_retry() {
    for ticket in [Tickets::Missing, Tickets::Forged] {
        let mut world = World::new(3);
        world.script.ticket = ticket;
        world.start();
        world.until_online();
        assert_eq!(world.presence.acceptor.stats().retried, 1);
    }
}

#[test]
fn a_key_from_an_earlier_login_needs_no_derivation() {
    let first = World::logged_in(4);
    assert_eq!(first.derived, 1);
    let Some(Event::KeyDerived(key)) = first.events.first() else { panic!("{:?}", first.events) };
    let mut world = World::with(5, |options| options.credentials = Credentials::Key(key.clone()));
    world.start();
    world.until_online();
    assert_eq!(world.derived, 0);
}

#[test]
fn a_key_that_was_made_with_another_salt_means_that_the_password_was_changed() {
    let salt = Salt([1; 16]);
    let key = LoginKey::from_bytes([1; 32]);
    let key = DerivedKey { key, salt, params: KdfParams::RECOMMENDED };
    let mut world = World::with(6, |options| options.credentials = Credentials::Key(key));
    world.start();
    assert_eq!(no_login(&mut world), ConnectError::PasswordChanged);
    assert!(world.heard::<LoginReq>().is_empty());
}

#[test]
fn a_wrong_password_is_told_and_not_tried_again() {
    let credentials = Credentials::Password(xmmep::client::Password::new("wrong"));
    let mut world = World::with(7, |options| {
        options.credentials = credentials;
        options.first_login = FirstLogin::Patient;
    });
    world.right_password = false;
    world.start();
    assert_eq!(no_login(&mut world), ConnectError::WrongPassword);
    world.run(Duration::from_secs(600));
    assert_eq!(world.heard::<LoginReq>().len(), 1);
}

#[test]
fn each_refusal_has_its_own_words() {
    for (result, wait, wanted) in [
        (ResultCode::PASSWD_MISMATCH, 0, ConnectError::WrongPassword),
        (ResultCode::USER_NOT_ACTIVATED, 0, ConnectError::NotActivated(String::new())),
        (ResultCode::SUSPENDED, 0, ConnectError::Suspended(String::new())),
        (ResultCode::RATE_LIMITED, 30, ConnectError::RateLimited(Duration::from_secs(30))),
        (ResultCode::SERVER_NOT_READY, 5, ConnectError::NotReady(Duration::from_secs(5))),
    ] {
        let mut world = World::new(8);
        world.script.refuse = Some(ResultMsg { retry_after_s: wait, ..refusal(112, result) });
        world.start();
        assert_eq!(no_login(&mut world), wanted);
    }
}

#[test]
fn a_patient_client_waits_as_long_as_the_server_asks() {
    let mut world = World::with(9, |options| options.first_login = FirstLogin::Patient);
    world.script.refuse = Some(ResultMsg { retry_after_s: 100, ..refusal(112, ResultCode::RATE_LIMITED) });
    world.start();
    world.until(Duration::from_secs(5), "a refusal", |world| !world.heard::<LoginReq>().is_empty());
    world.script.refuse = None;
    world.run(Duration::from_secs(99));
    assert_eq!(world.heard::<LoginReq>().len(), 1, "before its time");
    world.until(Duration::from_secs(3), "a login", |world| world.machine.is_online());
}

#[test]
fn a_server_that_answers_but_has_another_key_is_told_apart_from_one_that_does_not_answer() {
    let mut world = World::with(10, |options| options.server_key = [7; 32]);
    world.start();
    assert_eq!(no_login(&mut world), ConnectError::WrongServerKey(world.router.addr));

    let mut world = World::new(10);
    world.router.up = false;
    world.start();
    assert_eq!(no_login(&mut world), ConnectError::NotReachable(world.router.addr));

    let mut world = World::new(10);
    world.presence.up = false;
    world.start();
    assert_eq!(no_login(&mut world), ConnectError::NotReachable(world.presence.addr));
}

#[test]
fn no_key_is_derived_or_sent_for_parameters_out_of_bounds() {
    for kdf in [
        KdfParams { memory_kib: 64, ..KdfParams::RECOMMENDED },
        KdfParams { passes: 1_000_000, ..KdfParams::RECOMMENDED },
        KdfParams { lanes: 0, ..KdfParams::RECOMMENDED },
    ] {
        let mut world = World::new(11);
        world.script.kdf = kdf;
        world.start();
        assert_eq!(no_login(&mut world), ConnectError::Kdf(BadKdfParams(kdf)));
        assert_eq!(world.derived, 0);
        assert!(world.sent.iter().all(|(_, to, _)| *to == world.router.addr), "nothing for the Presence");
    }
}

#[test]
fn lists_in_several_parts_are_put_together() {
    let buddy = |n| xmmep::messages::login::Buddy { user: UserId(n), ..bob() };
    let buddies = |at, entries| LoginRes3 { part: part(at, 2, 3), buddies: List::new(entries).unwrap() };
    let mut world = World::new(12);
    let (one, two) = (buddies(0, vec![buddy(30), buddy(10)]), buddies(1, vec![buddy(20)]));
    world.script.login = Some(vec![first(false), frame::notice(&one), frame::notice(&two), end(0, 3, 0, 9)]);
    world.start();
    world.until_online();
    let users: Vec<_> = world.machine.roster().buddies().map(|buddy| buddy.entry.user.0).collect();
    assert_eq!(users, [10, 20, 30]);
}

#[test]
fn a_login_whose_parts_do_not_add_up_is_no_login() {
    let buddies = |at, of, total| {
        let buddies = List::new(vec![bob()]).unwrap();
        frame::notice(&LoginRes3 { part: part(at, of, total), buddies })
    };
    let cases: Vec<(&str, Vec<Bytes>)> = vec![
        ("one announced, none came", vec![first(false), end(0, 1, 0, 1)]),
        ("none announced, one came", vec![first(false), buddies(0, 1, 1), end(0, 0, 0, 1)]),
        ("the part and the end disagree", vec![first(false), buddies(0, 1, 2), end(0, 1, 0, 1)]),
        ("the second part is missing", vec![first(false), buddies(0, 2, 1), end(0, 1, 0, 1)]),
        ("the first part is missing", vec![first(false), buddies(1, 2, 1), end(0, 1, 0, 1)]),
        ("the same part twice", vec![first(false), buddies(0, 2, 2), buddies(0, 2, 2), end(0, 2, 0, 1)]),
        ("a part behind the last", vec![first(false), buddies(0, 1, 2), buddies(1, 1, 2), end(0, 2, 0, 1)]),
        ("a total out of bounds", vec![first(false), buddies(0, 1, u32::MAX), end(0, u32::MAX, 0, 1)]),
        ("LoginRes1 twice", vec![first(false), first(false), end(0, 0, 0, 1)]),
        ("parts before LoginRes1", vec![buddies(0, 1, 1), first(false), end(0, 1, 0, 1)]),
        ("the end before LoginRes1", vec![end(0, 0, 0, 1)]),
        ("\"unchanged\" for a roster we do not have", vec![first(true), end(0, 0, 0, 1)]),
        ("a part that cannot be read", vec![first(false), malformed(115), end(0, 0, 0, 1)]),
        ("LoginRes1 that cannot be read", vec![malformed(113), end(0, 0, 0, 1)]),
        ("an end that cannot be read", vec![first(false), malformed(127)]),
    ];
    for (what, parts) in cases {
        let mut world = World::new(13);
        world.script.login = Some(parts);
        world.start();
        let error = no_login(&mut world);
        assert!(matches!(error, ConnectError::BadAnswer(_)), "{what}: {error:?}");
        assert!(!world.is_ready(), "{what}");
        assert_eq!(world.machine.roster().buddies().len(), 0, "{what}");
    }
}

/// A frame with a code and three bytes that make no body of any message with that code.
fn malformed(code: u16) -> Bytes {
    let [high, low] = code.to_be_bytes();
    vec![high, low, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff].into()
}

#[test]
fn a_login_that_stops_half_way_ends_in_time() {
    for parts in [None, Some(vec![first(false)])] {
        let mut world = World::new(14);
        world.script.login = parts;
        world.start();
        assert_eq!(no_login(&mut world), ConnectError::TimedOut);
        assert!(world.now.as_micros() < 31_000_000);
    }
}

#[test]
fn a_status_that_changes_during_the_login_is_not_overwritten_by_it() {
    let mut world = World::new(15);
    let changes = List::new(vec![StatusChange { user: BOB, status: Status::AWAY }]).unwrap();
    let mut parts = login_with_bob();
    parts.insert(parts.len() - 1, frame::notice(&StatusChangedNotifyFwd { changes }));
    world.script.login = Some(parts);
    world.start();
    world.until_online();
    assert_eq!(world.machine.roster().buddy(BOB).unwrap().status(), Status::AWAY);
}

#[test]
fn an_unchanged_roster_is_kept_at_the_next_login() {
    let mut world = World::logged_in(16);
    let rooms = LoginRes6 { part: part(0, 1, 1), online: List::new(vec![online(BOB, Status::AWAY)]).unwrap() };
    world.script.login = Some(vec![first(true), frame::notice(&rooms), end(1, 1, 1, 5)]);
    world.close(xmmep::session::CloseReason::GOING_AWAY);
    world.until(Duration::from_secs(10), "a second login", |world| world.heard::<LoginReq>().len() == 2);
    world.until_online();
    assert_eq!(world.heard::<LoginReq>()[1].roster_version, RosterVersion(5));
    assert_eq!(world.machine.roster().buddy(BOB).unwrap().status(), Status::AWAY);
}

#[test]
fn a_user_who_moved_asks_the_router_once_more() {
    let mut world = World::new(17);
    world.script.refuse = Some(refusal(112, ResultCode::MOVED));
    world.start();
    world.until(Duration::from_secs(5), "a refusal", |world| world.heard::<LoginReq>().len() == 1);
    world.script.refuse = None;
    world.until_online();
    assert_eq!(world.router.acceptor.stats().lookups, 2);

    let mut world = World::new(17);
    world.script.refuse = Some(refusal(112, ResultCode::MOVED));
    world.start();
    assert!(matches!(no_login(&mut world), ConnectError::BadAnswer(_)), "round in circles");
    assert_eq!(world.heard::<LoginReq>().len(), 2);
}

#[test]
fn lookups_that_the_router_refuses_are_told() {
    let mut world = World::new(18);
    let mut info = world.usual_info();
    info.result = ResultCode::SERVER_NOT_READY;
    world.script.info = Some(info);
    world.start();
    assert_eq!(no_login(&mut world), ConnectError::NotReady(Duration::ZERO));
}

#[test]
fn a_place_without_an_address_is_an_error() {
    let mut world = World::new(19);
    let mut info = world.usual_info();
    info.addresses = List::default();
    world.script.info = Some(info);
    world.start();
    assert!(matches!(no_login(&mut world), ConnectError::BadAnswer(_)));
}

#[test]
fn a_dead_first_address_of_the_presence_does_not_hold_up_the_second() {
    let mut world = World::new(20);
    let mut info = world.usual_info();
    let dead: std::net::SocketAddr = "192.0.2.99:1".parse().unwrap();
    info.addresses = List::new(vec![dead.into(), world.presence.addr.into()]).unwrap();
    world.script.info = Some(info);
    world.start();
    world.until(Duration::from_secs(6), "a login", |world| world.machine.is_online());
}

#[test]
fn a_login_survives_heavy_loss() {
    for seed in 0..20 {
        let mut world = World::with(seed, |options| options.first_login = FirstLogin::Patient);
        let mut noise = xmmep::sample::Sampler::new(seed);
        world.lose = Box::new(move |_, _| noise.next_u64() % 100 < 30);
        world.start();
        world.until(Duration::from_secs(90), &format!("a login with seed {seed}"), |world| world.machine.is_online());
    }
}

#[test]
fn a_client_ends_when_it_was_replaced_and_says_by_whom() {
    let mut world = World::logged_in(21);
    let device_name = xmmep::bounded::Text::new("phone").unwrap();
    let result = ResultCode::DUPLICATE_SESSION;
    world.say(&SessionReport { result, device_name, at: WallTime(77), may_reconnect: false });
    assert_eq!(world.end(), End::Replaced { device: "phone".into(), at: WallTime(77) });
    world.run(Duration::from_secs(600));
    assert_eq!(world.heard::<LoginReq>().len(), 1, "it does not come back by itself");
}

#[test]
fn a_session_that_the_server_ended_for_good_ends_the_client() {
    let mut world = World::logged_in(22);
    let device_name = xmmep::bounded::Text::default();
    let result = ResultCode::EXPIRED_SESSION;
    world.say(&SessionReport { result, device_name, at: WallTime(77), may_reconnect: false });
    assert_eq!(world.end(), End::Expired(ResultCode::EXPIRED_SESSION));
}

#[test]
fn passwords_and_keys_do_not_print() {
    let world = World::logged_in(23);
    let key = right_key(world.script.salt);
    let all = format!("{:?} {:?}", world.machine, world.events);
    assert!(!all.contains(PASSWORD) && !all.contains(&format!("{:?}", &key.expose()[..4])));
}
