//! Losing the session and coming back.

use std::time::Duration;

use xmmep::client::{ConnectError, End, Event, PAUSE_MAX};
use xmmep::messages::chat::{Tick, TxtMsg};
use xmmep::messages::login::{LoginReq, LogoutReq, LogoutRes};
use xmmep::result_code::ResultCode;
use xmmep::session::CloseReason;
use xmmep::types::Status;

use crate::script::{BOB, refusal};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn offline(world: &World) -> Vec<(ConnectError, Duration)> {
    let offline = |event: &Event| match event {
        Event::Offline { error, retry_in } => Some((error.clone(), *retry_in)),
        _ => None,
    };
    world.events.iter().filter_map(offline).collect()
}

#[test]
fn texts_without_a_tick_go_again_in_order_with_the_same_ids_after_a_loss() {
    let mut world = World::logged_in(1);
    world.script.tick = None;
    let first: Vec<_> = (0..5).map(|n| world.text(&format!("{n}"))).collect();
    world.run(SECOND);
    world.close(CloseReason::GOING_AWAY);
    world.until(SECOND, "the loss", |world| !world.machine.is_online());
    let second: Vec<_> = (5..8).map(|n| world.text(&format!("{n}"))).collect();
    world.script.tick = Some(Tick::DELIVERED);
    world.until(5 * SECOND, "all ticks", |world| world.ticks().len() == 8);
    let sent: Vec<_> = world.heard::<TxtMsg>().into_iter().map(|message| message.text.id).collect();
    assert_eq!(sent, [first.clone(), first, second].concat());
    assert_eq!(world.derived, 1, "no second derivation");
}

#[test]
fn a_silent_server_is_noticed_and_statuses_are_no_longer_believed() {
    let mut world = World::logged_in(2);
    world.crash_presence();
    world.run(85 * SECOND);
    assert_eq!(offline(&world)[0].0, ConnectError::Lost);
    world.until_online();
    assert_eq!(world.machine.roster().buddy(BOB).unwrap().status(), Status::BUSY);
    world.close(CloseReason::GOING_AWAY);
    world.until(SECOND, "the loss", |world| !world.machine.is_online());
    assert_eq!(world.machine.roster().buddy(BOB).unwrap().status(), Status::OFFLINE);
}

#[test]
fn pauses_grow_to_a_minute_and_differ_between_clients() {
    let pauses = |seed| {
        let mut world = World::logged_in(seed);
        world.run(20 * SECOND);
        (world.router.up, world.presence.up) = (false, false);
        world.close(CloseReason::GOING_AWAY);
        world.run(900 * SECOND);
        offline(&world).into_iter().map(|(_, pause)| pause).collect::<Vec<_>>()
    };
    let (one, other) = (pauses(3), pauses(4));
    assert!(one[0] <= SECOND && one.len() > 5, "{one:?}");
    assert!(
        one.windows(2).all(|pair| pair[1] >= pair[0] / 2) && one.iter().all(|pause| *pause <= PAUSE_MAX),
        "{one:?}"
    );
    assert!(*one.last().unwrap() >= PAUSE_MAX / 2, "{one:?}");
    assert_ne!(one[0], other[0]);
    assert_eq!(one, pauses(3), "same seed, same pauses");
}

#[test]
fn a_client_that_was_logged_in_finds_back_without_a_router() {
    let mut world = World::logged_in(5);
    world.router.up = false;
    world.close(CloseReason::GOING_AWAY);
    world.until(SECOND, "the loss", |world| !world.machine.is_online());
    world.until(60 * SECOND, "a login", |world| world.machine.is_online());
    assert_eq!(world.presence.acceptor.stats().retried, 1, "by a cookie instead of the old ticket");
}

#[test]
fn a_network_that_comes_back_is_used_at_once_if_the_application_says_so() {
    let mut world = World::logged_in(6);
    (world.router.up, world.presence.up) = (false, false);
    world.close(CloseReason::GOING_AWAY);
    world.until(300 * SECOND, "long pauses", |world| offline(world).len() >= 5);
    (world.router.up, world.presence.up) = (true, true);
    world.call(|machine, env, out| machine.wake(env, out));
    world.until(SECOND, "a login", |world| world.machine.is_online());
}

#[test]
fn a_password_changed_meanwhile_ends_the_client() {
    let mut world = World::logged_in(7);
    world.script.salt = xmmep::secret::Salt([8; 16]);
    world.close(CloseReason::GOING_AWAY);
    assert_eq!(world.end(), End::NoLogin(ConnectError::PasswordChanged));
}

#[test]
fn a_busy_server_is_not_the_end_for_a_client_that_was_logged_in() {
    let mut world = World::logged_in(8);
    world.script.refuse = Some(refusal(112, ResultCode::SERVER_BUSY));
    world.close(CloseReason::GOING_AWAY);
    world.until(10 * SECOND, "a refusal", |world| world.heard::<LoginReq>().len() == 2);
    world.script.refuse = None;
    world.until_online();
}

#[test]
fn a_status_set_while_away_is_the_one_of_the_next_login() {
    let mut world = World::logged_in(9);
    world.close(CloseReason::GOING_AWAY);
    world.until(SECOND, "the loss", |world| !world.machine.is_online());
    world.call(|machine, env, out| machine.set_status(env, Status::AWAY, out));
    world.until_online();
    assert_eq!(world.heard::<LoginReq>()[1].status, Status::AWAY);
}

#[test]
fn logging_out_waits_for_the_goodbye_but_not_for_ever() {
    let mut world = World::logged_in(10);
    world.call(|machine, env, out| machine.logout(env, out));
    world.until(SECOND, "a logout", |world| !world.heard::<LogoutReq>().is_empty());
    world.reply::<LogoutReq>(&LogoutRes { result: ResultCode::SUCCESS });
    assert_eq!(world.end(), End::LoggedOut);

    let mut world = World::logged_in(11);
    world.call(|machine, env, out| machine.logout(env, out));
    let before = world.now;
    assert_eq!(world.end(), End::LoggedOut);
    assert_eq!(world.now.since(before), 5 * SECOND);
}

#[test]
fn logging_out_before_the_login_is_done_ends_at_once() {
    let mut world = World::new(12);
    world.start();
    world.call(|machine, env, out| machine.logout(env, out));
    assert_eq!(world.end(), End::LoggedOut);
    world.run(60 * SECOND);
    assert!(world.heard::<LoginReq>().is_empty());
}

#[test]
fn a_client_that_is_over_does_nothing_any_more() {
    let mut world = World::logged_in(13);
    world.close(CloseReason::REPLACED);
    assert!(matches!(world.end(), End::Replaced { .. }));
    let (sent, events) = (world.sent.len(), world.events.len());
    world.call(|machine, env, out| {
        machine.start(env, out);
        machine.wake(env, out);
        machine.logout(env, out);
        machine.on_deadline(env, out);
        machine.set_status(env, Status::BUSY, out);
    });
    world.run(600 * SECOND);
    assert_eq!((world.sent.len(), world.events.len()), (sent, events));
}

#[test]
fn work_that_comes_back_after_the_end_is_told_to_nobody_and_kept_for_the_next_start() {
    let mut world = World::new(15);
    world.held = Some(Vec::new());
    world.start();
    world.until(SECOND, "a derivation", |world| world.held.as_ref().is_some_and(|held| !held.is_empty()));
    world.call(|machine, env, out| machine.logout(env, out));
    world.release();
    assert_eq!(world.events, [Event::Ended(End::LoggedOut)]);

    let mut world = World::logged_in(15);
    world.held = Some(Vec::new());
    world.text_from_bob(1);
    world.run(SECOND);
    world.close(CloseReason::REPLACED);
    world.end();
    world.release();
    assert!(matches!(world.events.last(), Some(Event::Ended(_))));
    world.crash_client(|_| {});
    assert_eq!(world.shown(), ["text 1"]);
}

#[test]
fn a_client_at_rest_is_small() {
    // Beside its options, its session and its roster; what a load generator multiplies by a hundred thousand.
    assert!(size_of::<xmmep::client::Machine>() <= 1_024, "{} bytes", size_of::<xmmep::client::Machine>());
}

#[test]
fn the_same_seed_gives_the_same_datagrams() {
    let trace = || {
        let mut world = World::logged_in(14);
        world.text("hello");
        world.close(CloseReason::GOING_AWAY);
        world.run(60 * SECOND);
        world.sent
    };
    assert_eq!(trace(), trace());
}
