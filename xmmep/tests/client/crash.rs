//! `kill -9` of either side at every moment: nothing lost, nothing shown twice, the same ids.

use std::time::Duration;

use xmmep::client::{Event, Journal};
use xmmep::messages::chat::{Tick, TxtConfirm, TxtMsg};

use crate::script::{BOB, content, received};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn taken(world: &mut World, n: u8) {
    world.call(|machine, env, out| machine.taken(env, BOB, content(n).id, out));
}

#[test]
fn texts_without_a_final_tick_are_sent_again_after_a_crash_with_the_same_ids() {
    let mut world = World::logged_in(1);
    world.script.tick = Some(Tick::STORED);
    let ids: Vec<_> = (0..10).map(|n| world.text(&format!("{n}"))).collect();
    world.run(SECOND);
    world.script.tick = Some(Tick::DELIVERED);
    world.crash_client(|_| {});
    world.until(5 * SECOND, "all ticks", |world| world.ticks().len() == 20);
    let sent: Vec<_> = world.heard::<TxtMsg>().into_iter().map(|message| message.text.id).collect();
    assert_eq!(sent, [ids.clone(), ids].concat());

    world.run(5 * SECOND);
    world.crash_client(|_| {});
    world.run(5 * SECOND);
    assert_eq!(world.heard::<TxtMsg>().len(), 20, "DELIVERED is final");
}

#[test]
fn order_numbers_go_on_after_a_crash() {
    let mut world = World::logged_in(2);
    world.text("one");
    world.run(5 * SECOND);
    world.crash_client(|_| {});
    world.text("two");
    world.run(5 * SECOND);
    let orders: Vec<_> = world.heard::<TxtMsg>().into_iter().map(|message| message.text.order).collect();
    assert_eq!(orders, [1, 2]);
}

#[test]
fn a_text_the_journal_never_got_comes_again_and_is_shown() {
    let mut world = World::logged_in(3);
    world.held = Some(Vec::new());
    world.text_from_bob(1);
    world.run(SECOND);
    world.crash_client(|_| {});
    world.until_online();
    world.text_from_bob(1);
    world.run(SECOND);
    assert_eq!(world.shown(), ["text 1"]);
    assert_eq!(world.heard::<TxtConfirm>().len(), 1);
}

#[test]
fn a_text_that_was_not_dealt_with_is_told_again_at_the_start_and_one_that_was_is_not() {
    let mut world = World::logged_in(4);
    world.text_from_bob(1);
    world.text_from_bob(2);
    world.run(SECOND);
    taken(&mut world, 1);
    world.events.clear();
    world.crash_client(|_| {});
    assert_eq!(world.shown(), ["text 2"]);
    world.until_online();
    world.text_from_bob(1);
    world.text_from_bob(2);
    world.run(SECOND);
    assert_eq!(world.shown(), ["text 2"], "repetitions after the crash");
    taken(&mut world, 2);
    world.events.clear();
    world.crash_client(|_| {});
    assert!(world.shown().is_empty());
}

#[test]
fn a_text_whose_confirmation_got_lost_with_the_server_is_shown_once() {
    let mut world = World::logged_in(5);
    world.text_from_bob(1);
    world.until(SECOND, "a text", |world| !world.shown().is_empty());
    world.crash_presence();
    world.text("wake up");
    world.until(120 * SECOND, "that the server is gone", |world| !world.machine.is_online());
    world.until_online();
    world.text_from_bob(1);
    world.run(SECOND);
    assert_eq!(world.shown(), ["text 1"]);
    assert!(!world.heard::<TxtConfirm>().is_empty());
}

#[test]
fn a_crash_at_any_step_of_a_conversation_loses_and_doubles_nothing() {
    for steps in 0..60 {
        let mut world = World::logged_in(100 + steps);
        for n in 1..=5 {
            world.text(&format!("{n}"));
            world.text_from_bob(n);
        }
        // The disk is slow: every second batch is only written 15 ms later.
        for step in 0..steps {
            world.held.get_or_insert_default();
            world.run(Duration::from_millis(5));
            if step % 3 == 2 {
                world.release();
            }
        }
        let ours = world.machine.outgoing().map(|(text, _)| text.id).collect::<Vec<_>>();
        let ticked = world.ticks();
        let shown_before = world.shown();
        world.events.clear();
        world.crash_client(|_| {});
        let told_again = world.shown();
        world.until_online();
        // The server repeats what it has no confirmation for; here: everything.
        (1..=5).for_each(|n| {
            world.text_from_bob(n);
        });
        world.run(5 * SECOND);

        let all: Vec<_> = (1..=5).map(|n| format!("text {n}")).collect();
        assert_eq!(
            world.shown(),
            all,
            "crash after step {steps}: shown {shown_before:?} before, {told_again:?} at start"
        );
        let remembered = world.journal.recover().unwrap();
        assert!((1..=5).all(|n| remembered.has_shown(BOB, received(n).text.id)));
        assert_eq!(remembered.outgoing().len(), 0, "crash after step {steps}: {ours:?}, {ticked:?}");
    }
}

#[test]
fn every_text_ticked_or_not_reaches_the_server_at_least_once_if_the_journal_had_it() {
    let mut world = World::logged_in(6);
    world.held = Some(Vec::new());
    let kept = world.text("kept");
    world.release();
    world.held = Some(Vec::new());
    world.text("never safe, never sent");
    world.run(SECOND);
    world.crash_client(|_| {});
    world.run(5 * SECOND);
    let ids: Vec<_> = world.heard::<TxtMsg>().into_iter().map(|message| message.text.id).collect();
    assert!(ids.iter().all(|id| *id == kept) && !ids.is_empty(), "{ids:?}");
    assert!(world.events.iter().any(|event| matches!(event, Event::Tick(tick) if tick.id == kept)));
}
