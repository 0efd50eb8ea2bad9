//! Texts and ticks while connected: order, once, and nothing confirmed that is not kept.

use std::time::Duration;

use xmmep::bounded::PrivateText;
use xmmep::client::{Durability, End, Event, JournalError, QUEUE_MAX, Target, TextError, Work};
use xmmep::messages::chat::{ConfirmLevel, Tick, TxtConfirm, TxtMsg};
use xmmep::types::UserId;

use crate::script::{BOB, content, tick_of};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_text_goes_out_and_its_tick_comes_back() {
    let mut world = World::logged_in(1);
    let id = world.text("hello");
    world.until(SECOND, "a tick", |world| !world.ticks().is_empty());
    assert_eq!(world.ticks(), [(id, Tick::DELIVERED)]);
    let sent = world.heard::<TxtMsg>();
    assert_eq!((sent[0].text.id, sent[0].text.target, sent[0].text.order), (id, BOB.0, 1));
    assert_eq!(sent[0].text.body.expose(), "hello");
    assert_eq!(world.machine.outgoing().len(), 0);
}

#[test]
fn a_text_is_sent_only_when_the_journal_has_it() {
    let mut world = World::logged_in(2);
    world.held = Some(Vec::new());
    world.text("hello");
    world.run(60 * SECOND);
    assert!(world.heard::<TxtMsg>().is_empty());
    world.release();
    world.until(SECOND, "a tick", |world| !world.ticks().is_empty());
}

#[test]
fn texts_written_before_there_is_a_login_go_out_in_order() {
    let mut world = World::new(3);
    let ids: Vec<_> = (0..200).map(|n| world.text(&format!("{n}"))).collect();
    world.start();
    world.until(10 * SECOND, "all ticks", |world| world.ticks().len() == 200);
    let sent: Vec<_> = world.heard::<TxtMsg>().into_iter().map(|message| message.text.id).collect();
    assert_eq!(sent, ids);
    let orders: Vec<_> = world.heard::<TxtMsg>().into_iter().map(|message| message.text.order).collect();
    assert_eq!(orders, (1..=200).collect::<Vec<_>>());
}

#[test]
fn a_text_that_came_in_is_shown_and_confirmed_only_when_the_journal_has_it() {
    let mut world = World::logged_in(4);
    world.held = Some(Vec::new());
    world.text_from_bob(1);
    world.run(60 * SECOND);
    assert!(world.shown().is_empty() && world.heard::<TxtConfirm>().is_empty());
    assert!(matches!(world.held.as_deref(), Some([Work::Store(_)])));
    world.release();
    assert_eq!(world.shown(), ["text 1"]);
    world.until(SECOND, "a confirmation", |world| !world.heard::<TxtConfirm>().is_empty());
    let confirmed = world.heard::<TxtConfirm>();
    assert_eq!((confirmed[0].level, confirmed[0].messages[0].id), (ConfirmLevel::RECEIVED, content(1).id));
}

#[test]
fn a_text_that_comes_again_is_confirmed_again_and_not_shown_again() {
    let mut world = World::logged_in(5);
    for _ in 0..3 {
        world.text_from_bob(1);
        world.run(SECOND);
    }
    assert_eq!(world.shown(), ["text 1"]);
    assert_eq!(world.heard::<TxtConfirm>().len(), 3);
}

#[test]
fn a_repetition_is_not_confirmed_while_the_first_one_is_not_safe() {
    let mut world = World::logged_in(6);
    world.held = Some(Vec::new());
    world.text_from_bob(1);
    world.text_from_bob(1);
    world.run(SECOND);
    assert!(world.heard::<TxtConfirm>().is_empty());
    world.release();
    world.run(SECOND);
    assert_eq!((world.shown().len(), world.heard::<TxtConfirm>().len()), (1, 1));
}

#[test]
fn one_id_from_two_senders_is_two_texts() {
    let mut world = World::logged_in(7);
    let text = world.text_from_bob(1);
    world.say(&xmmep::messages::chat::TxtMsgFwd { from: UserId(99), ..text });
    world.run(SECOND);
    assert_eq!(world.shown().len(), 2);
}

#[test]
fn a_burst_is_shown_in_order_and_confirmed_in_few_messages() {
    let mut world = World::logged_in(8);
    (0..200).for_each(|n| {
        world.text_from_bob(n);
    });
    world.until(10 * SECOND, "all texts", |world| world.shown().len() == 200);
    world.run(SECOND);
    assert_eq!(world.shown(), (0..200).map(|n| format!("text {n}")).collect::<Vec<_>>());
    let confirmations = world.heard::<TxtConfirm>();
    let ids: usize = confirmations.iter().map(|confirmation| confirmation.messages.len()).sum();
    assert_eq!(ids, 200);
    assert!(confirmations.iter().all(|confirmation| confirmation.messages.len() <= 64));
}

#[test]
fn read_is_told_when_the_application_says_so() {
    let mut world = World::logged_in(9);
    world.text_from_bob(1);
    world.run(SECOND);
    world.call(|machine, env, out| machine.read(env, BOB, content(1).id, out));
    world.run(SECOND);
    assert_eq!(world.heard::<TxtConfirm>().last().unwrap().level, ConfirmLevel::READ);
}

#[test]
fn ticks_only_rise_and_end_with_the_final_one() {
    let mut world = World::logged_in(10);
    world.script.tick = None;
    let id = world.text("hello");
    world.run(SECOND);
    let ticks =
        [Tick::STORED, Tick::STORED, Tick::NONE, Tick(77), Tick::DELIVERED, Tick::STORED, Tick::REFUSED, Tick::READ];
    ticks.into_iter().for_each(|tick| world.say(&tick_of(id, tick)));
    world.run(SECOND);
    assert_eq!(world.ticks(), [(id, Tick::STORED), (id, Tick::DELIVERED), (id, Tick::READ)]);
}

#[test]
fn a_refusal_is_told_with_its_reason_and_ends_the_text() {
    let mut world = World::logged_in(11);
    world.script.tick = None;
    let id = world.text("hello");
    let result = xmmep::result_code::ResultCode::BLOCKED;
    world.say(&xmmep::messages::chat::TxtTickNotify { result, ..tick_of(id, Tick::REFUSED) });
    world.run(SECOND);
    let Some(Event::Tick(tick)) = world.events.last() else { panic!("{:?}", world.events) };
    assert_eq!((tick.id, tick.tick, tick.result), (id, Tick::REFUSED, result));
    assert_eq!(world.machine.outgoing().len(), 0);
}

#[test]
fn a_text_the_server_cannot_take_now_goes_again_in_order_when_it_can() {
    let mut world = World::logged_in(16);
    world.script.tick = None;
    let ids: Vec<_> = (0..5).map(|n| world.text(&format!("{n}"))).collect();
    world.until(SECOND, "the texts", |world| world.heard::<TxtMsg>().len() == 5);
    world.say(&tick_of(ids[0], Tick::DELIVERED));
    ids[1..].iter().for_each(|id| world.say(&not_now(*id, 7)));
    world.run(6 * SECOND);
    assert_eq!(world.heard::<TxtMsg>().len(), 5, "before its time");
    assert_eq!(world.ticks(), [(ids[0], Tick::DELIVERED)], "not now is not never");
    world.script.tick = Some(Tick::DELIVERED);
    world.until(5 * SECOND, "all ticks", |world| world.ticks().len() == 5);
    let sent: Vec<_> = world.heard::<TxtMsg>().into_iter().map(|message| message.text.id).collect();
    assert_eq!(sent, [&ids[..], &ids[1..]].concat());
}

#[test]
fn a_text_that_was_overtaken_after_a_not_now_is_refused_rather_than_shown_out_of_order() {
    let mut world = World::logged_in(17);
    world.script.tick = None;
    let ids = [world.text("one"), world.text("two")];
    let cat = xmmep::bounded::PrivateText::new("to somebody else").unwrap();
    let other = world.call(|machine, env, out| machine.send_text(env, Target::User(UserId(9)), cat, out)).unwrap();
    world.until(SECOND, "the texts", |world| world.heard::<TxtMsg>().len() == 3);
    world.say(&not_now(ids[0], 3));
    world.say(&tick_of(other, Tick::STORED));
    world.run(SECOND);
    assert_eq!(world.ticks(), [(other, Tick::STORED)]);
    world.say(&tick_of(ids[1], Tick::STORED));
    world.run(10 * SECOND);
    assert_eq!(world.ticks(), [(other, Tick::STORED), (ids[0], Tick::REFUSED), (ids[1], Tick::STORED)]);
    assert_eq!(world.heard::<TxtMsg>().len(), 3);
}

fn not_now(id: xmmep::types::MsgId, retry_after_s: u32) -> xmmep::messages::chat::TxtTickNotify {
    let result = xmmep::result_code::ResultCode::RATE_LIMITED;
    xmmep::messages::chat::TxtTickNotify { result, retry_after_s, ..tick_of(id, Tick::REFUSED) }
}

#[test]
fn a_text_whose_tick_does_not_come_is_sent_again_with_its_id() {
    let mut world = World::logged_in(12);
    world.script.tick = None;
    let id = world.text("hello");
    world.run(32 * SECOND);
    let sent: Vec<_> = world.heard::<TxtMsg>().into_iter().map(|message| message.text.id).collect();
    assert_eq!(sent, [id, id]);
}

#[test]
fn the_queue_has_an_end() {
    let mut world = World::new(13);
    (0..QUEUE_MAX).for_each(|_| {
        world.text("x");
    });
    let body = PrivateText::new("one too many").unwrap();
    let refused = world.call(|machine, env, out| machine.send_text(env, Target::User(BOB), body, out));
    assert_eq!(refused, Err(TextError::QueueFull(QUEUE_MAX)));
}

#[test]
fn a_client_whose_journal_fails_confirms_nothing_and_ends() {
    let mut world = World::logged_in(14);
    world.held = Some(Vec::new());
    world.text_from_bob(1);
    world.run(SECOND);
    let failure = JournalError::Failed("journal".into());
    world.call(|machine, env, out| machine.stored(env, Err(failure), out));
    assert!(matches!(world.end(), End::Journal(_)));
    assert!(world.shown().is_empty() && world.heard::<TxtConfirm>().is_empty());
}

#[test]
fn a_volatile_client_needs_no_journal() {
    let mut world = World::with(15, |options| options.durability = Durability::Volatile);
    world.held = Some(Vec::new());
    world.start();
    world.run(SECOND);
    let derive = world.held.replace(Vec::new()).unwrap();
    assert!(matches!(derive[..], [Work::DeriveKey(_)]));
    world.held = Some(derive);
    world.release();
    world.held = Some(Vec::new());
    world.until_online();
    world.text("hello");
    world.text_from_bob(1);
    world.run(SECOND);
    assert_eq!((world.ticks().len(), world.shown().len(), world.heard::<TxtConfirm>().len()), (1, 1, 1));
    assert_eq!(world.held.map(|held| held.len()), Some(0), "no work for a journal");
}
