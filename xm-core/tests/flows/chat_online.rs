//! Chat between users who are online: relayed, confirmed, ticked; and every reason to be turned down.

use xm_core::testing::Plan;
use xm_core::testing::World;
use xm_store::records::ParcelId;
use xmmep::messages::chat::{ConfirmLevel, TargetKind, Tick, TxtMsg, TxtMsgFwd, TxtTickNotify};
use xmmep::result_code::ResultCode;
use xmmep::types::UserId;

use crate::{DELIVERED, READ, STORED, confirm, friends, heard, id, ms, refused, secs, text, ticks};

#[test]
fn a_text_confirmed_in_time_is_delivered_without_a_disk_write() {
    let (mut world, ann, bob) = friends(1);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let (ann, bob) = (world.client(ann).user, world.client(bob).user);
    world.tell(a, &text(bob, 1, "hello"));
    world.run(ms(50));
    let forwarded = world.probe(b).last::<TxtMsgFwd>().unwrap();
    assert_eq!((forwarded.from, forwarded.from_store), (ann, false));
    assert_eq!(forwarded.text.body.expose(), "hello");
    assert_eq!(ticks(&world, a, 1), [], "no tick before the confirmation");
    world.tell(b, &confirm(ann, 1, ConfirmLevel::RECEIVED));
    world.run(secs(2));
    assert_eq!(ticks(&world, a, 1), [DELIVERED]);
    assert_eq!(world.disk(0).appends(), 0);
}

/// Bob's confirmation reaches the Presence so many ms after Bob's text left it.
fn confirmed_after(millis: u64) -> (World, Vec<(Tick, ResultCode)>) {
    let (mut world, ann, bob) = friends(2);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let (ann, bob) = (world.client(ann).user, world.client(bob).user);
    world.wire.faults.delay = ms(0);
    world.tell(a, &text(bob, 1, "hello"));
    world.run(ms(millis));
    world.tell(b, &confirm(ann, 1, ConfirmLevel::RECEIVED));
    world.run(secs(3));
    let ticks = ticks(&world, a, 1);
    assert_eq!(heard(&world, b), ["hello"], "relayed once");
    let left =
        futures_util::FutureExt::now_or_never(world.stores(0).offline.page(bob, xm_store::records::Place::START, 9, 9));
    assert_eq!(left.unwrap().unwrap(), [], "nothing is left in the store");
    (world, ticks)
}

#[test]
fn a_confirmation_just_before_200_ms_saves_the_disk_write() {
    let (world, ticks) = confirmed_after(199);
    assert_eq!((world.disk(0).appends(), ticks), (0, vec![DELIVERED]));
}

#[test]
fn a_confirmation_at_200_ms_or_later_follows_stored_and_clears_the_store() {
    for millis in [201, 250, 1_000, 60_000] {
        let (world, ticks) = confirmed_after(millis);
        assert_eq!((world.disk(0).appends(), ticks), (1, vec![STORED, DELIVERED]), "{millis} ms");
    }
    let (_, ticks) = confirmed_after(200);
    assert!(ticks == [DELIVERED] || ticks == [STORED, DELIVERED], "{ticks:?}");
}

#[test]
fn a_confirmation_while_the_text_is_being_stored_gives_delivered_alone() {
    let (mut world, ann, bob) = friends(3);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let (ann, bob) = (world.client(ann).user, world.client(bob).user);
    world.disk(0).set_latency(ms(400));
    world.tell(a, &text(bob, 1, "hello"));
    world.run(ms(300));
    world.tell(b, &confirm(ann, 1, ConfirmLevel::RECEIVED));
    world.run(secs(3));
    assert_eq!(ticks(&world, a, 1), [DELIVERED]);
    assert_eq!(heard(&world, b), ["hello"]);
    let parcel = ParcelId { from: ann, id: id(1) };
    let level = futures_util::FutureExt::now_or_never(world.stores(0).offline.level(bob, parcel)).unwrap().unwrap();
    assert_eq!(level, Some(xm_store::records::Level::Received), "the stored copy is settled, too");
}

#[test]
fn a_text_never_confirmed_is_stored_after_200_ms_and_comes_again_after_the_next_login() {
    let (mut world, ann, bob) = friends(4);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    world.tell(a, &text(world.client(bob).user, 1, "hello"));
    world.run(ms(205));
    assert_eq!(ticks(&world, a, 1), [], "200 ms are not over at the Presence");
    world.run(ms(95));
    assert_eq!(ticks(&world, a, 1), [STORED]);
    world.drop_probe(b);
    let again = world.ready_probe_as(bob);
    assert_eq!(heard(&world, again), ["hello"]);
    assert!(world.probe(again).last::<TxtMsgFwd>().unwrap().from_store);
}

#[test]
fn no_tick_says_stored_before_the_store_does() {
    let (mut world, ann, bob) = friends(5);
    let (a, _b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    world.disk(0).stop();
    world.tell(a, &text(world.client(bob).user, 1, "hello"));
    world.run(secs(20));
    assert_eq!(ticks(&world, a, 1), []);
    world.disk(0).resume();
    world.run(ms(100));
    assert_eq!(ticks(&world, a, 1), [STORED]);
}

#[test]
fn a_store_that_is_away_gives_no_tick_until_it_is_back() {
    let (mut world, ann, bob) = friends(6);
    let (a, _b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    world.disk(0).fail(Some(xm_store::StoreError::Unavailable("gone fishing".into())));
    world.tell(a, &text(world.client(bob).user, 1, "hello"));
    world.run(secs(10));
    assert_eq!(ticks(&world, a, 1), []);
    world.disk(0).fail(None);
    world.run(secs(2));
    assert_eq!(ticks(&world, a, 1), [STORED]);
}

#[test]
fn a_full_disk_turns_texts_to_the_absent_down_and_leaves_online_chat_alone() {
    let (mut world, ann, bob) = friends(7);
    let eve = world.add_user("eve");
    world.befriend(ann, eve);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let (ann, bob, eve) = (world.client(ann).user, world.client(bob).user, world.client(eve).user);
    world.disk(0).fail(Some(xm_store::StoreError::Full("disk".into())));
    world.tell(a, &text(eve, 1, "are you there?"));
    world.tell(a, &text(bob, 2, "hello"));
    world.run(ms(100));
    world.tell(b, &confirm(ann, 2, ConfirmLevel::RECEIVED));
    world.run(secs(1));
    assert_eq!(ticks(&world, a, 1), [refused(ResultCode::STORAGE_FULL)]);
    assert_eq!(ticks(&world, a, 2), [DELIVERED]);
}

#[test]
fn read_follows_delivered_and_levels_only_rise() {
    let (mut world, ann, bob) = friends(8);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let (ann, bob) = (world.client(ann).user, world.client(bob).user);
    world.tell(a, &text(bob, 1, "hello"));
    world.run(ms(50));
    for level in [ConfirmLevel::RECEIVED, ConfirmLevel::READ, ConfirmLevel::RECEIVED, ConfirmLevel::READ] {
        world.tell(b, &confirm(ann, 1, level));
        world.run(ms(100));
    }
    assert_eq!(ticks(&world, a, 1), [DELIVERED, READ]);
}

#[test]
fn nobody_but_the_recipient_can_confirm() {
    let (mut world, ann, bob) = friends(9);
    let eve = world.add_user("eve");
    world.befriend(ann, eve);
    let (a, _b, e) = (world.ready_probe_as(ann), world.ready_probe_as(bob), world.ready_probe_as(eve));
    let (ann, bob) = (world.client(ann).user, world.client(bob).user);
    world.tell(a, &text(bob, 1, "hello"));
    world.run(ms(50));
    for level in [ConfirmLevel::RECEIVED, ConfirmLevel::READ] {
        world.tell(e, &confirm(ann, 1, level));
        world.tell(a, &confirm(ann, 1, level));
    }
    world.run(secs(1));
    assert_eq!(ticks(&world, a, 1), [STORED]);
}

#[test]
fn a_burst_arrives_in_order_whole_and_byte_for_byte() {
    let (mut world, ann, bob) = friends(10);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let bob = world.client(bob).user;
    let bodies: Vec<String> = (0..50)
        .map(|n| format!("{n} {}", ["ä漢字👩\u{200d}👧", "\u{202e}rtl", "line\r\nline", "'; --"][n % 4].repeat(n)))
        .collect();
    for (number, body) in bodies.iter().enumerate() {
        world.tell(a, &text(bob, number as u64, body));
    }
    world.run(secs(2));
    assert_eq!(heard(&world, b), bodies);
}

#[test]
fn a_text_of_8_kib_is_delivered_whole() {
    let (mut world, ann, bob) = friends(11);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let body = "ß".repeat(4 * 1024);
    world.tell(a, &text(world.client(bob).user, 1, &body));
    world.run(secs(1));
    assert_eq!(heard(&world, b), [body]);
}

#[test]
fn a_text_over_8_kib_is_refused_before_anything_else_is_done() {
    let (mut world, ann, bob) = friends(12);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let fits = text(world.client(bob).user, 1, &"x".repeat(8 * 1024));
    let mut body = xmmep::message::body_of(&fits);
    // One byte more than the bound: the length before the text says 8,193.
    let at = body.len() - 8 * 1024 - 2;
    assert_eq!(body[at..at + 2], [0x80, 0x40]);
    body[at] = 0x81;
    body.push(b'x');
    let answer = world.ask_raw(a, <TxtMsg as xmmep::message::Message>::CODE, &body);
    assert_eq!(crate::result(&answer), ResultCode::PARAM_ERROR);
    world.run(secs(1));
    assert_eq!(heard(&world, b), Vec::<String>::new());
}

#[test]
fn strangers_blockers_and_nobody_at_all_refuse_alike() {
    let (mut world, ann, bob) = friends(13);
    let (eve, dan) = (world.add_user("eve"), world.add_user("dan"));
    world.befriend(ann, dan);
    let (a, d) = (world.ready_probe_as(ann), world.ready_probe_as(dan));
    let _b = world.ready_probe_as(bob);
    let block = xmmep::messages::buddies::BuddyBlockedNotify { user: world.client(ann).user };
    world.ask_now(d, &block);
    let (eve, dan) = (world.client(eve).user, world.client(dan).user);
    for (number, to) in [(1, eve), (2, dan), (3, UserId(999_999))] {
        world.tell(a, &text(to, number, "hello"));
        world.run(ms(500));
        assert_eq!(ticks(&world, a, number), [refused(ResultCode::BLOCKED)], "{to}");
    }
    let notices = world.probe(a).all::<TxtTickNotify>();
    assert!(notices.iter().all(|notice| notice.retry_after_s == 0));
}

#[test]
fn oneself_nobody_and_rooms_are_no_recipients() {
    let (mut world, ann, bob) = friends(14);
    let a = world.ready_probe_as(ann);
    world.tell(a, &text(world.client(ann).user, 1, "note to self"));
    world.tell(a, &text(UserId(0), 2, "nobody"));
    let mut to_room = text(world.client(bob).user, 3, "room");
    to_room.text.target_kind = TargetKind::ROOM;
    world.tell(a, &to_room);
    world.run(ms(200));
    assert_eq!(ticks(&world, a, 1), [refused(ResultCode::NOT_PERMITTED)]);
    assert_eq!(ticks(&world, a, 2), [refused(ResultCode::NOT_PERMITTED)]);
    assert_eq!(ticks(&world, a, 3), [refused(ResultCode::NOT_FOUND)]);
}

#[test]
fn the_same_id_with_another_body_is_a_conflict_on_every_road() {
    let (mut world, ann, bob) = friends(15);
    let eve = world.add_user("eve");
    world.befriend(ann, eve);
    let (a, _b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let (bob, eve) = (world.client(bob).user, world.client(eve).user);
    // Relayed and not confirmed; stored and still relayed; stored for somebody away.
    for (number, to, wait) in [(1, bob, 20), (2, bob, 500), (3, eve, 500)] {
        world.tell(a, &text(to, number, "hello"));
        world.run(ms(wait));
        world.tell(a, &text(to, number, "good bye"));
        world.run(ms(50));
        assert!(ticks(&world, a, number).contains(&refused(ResultCode::ID_CONFLICT)), "text {number}");
    }
}

#[test]
fn the_same_text_again_is_answered_and_not_relayed_again() {
    let (mut world, ann, bob) = friends(16);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let (ann, bob) = (world.client(ann).user, world.client(bob).user);
    world.tell(a, &text(bob, 1, "hello"));
    world.tell(a, &text(bob, 1, "hello"));
    world.run(ms(50));
    assert_eq!(heard(&world, b), ["hello"]);
    world.tell(b, &confirm(ann, 1, ConfirmLevel::RECEIVED));
    world.run(ms(100));
    world.tell(a, &text(bob, 1, "hello"));
    world.run(ms(500));
    assert_eq!(heard(&world, b), ["hello"]);
    assert_eq!(ticks(&world, a, 1), [DELIVERED, DELIVERED], "the sender who missed the tick is told again");
}

#[test]
fn more_texts_than_allowed_are_refused_with_a_wait_and_later_ones_pass() {
    let (mut world, ann, bob) = friends(17);
    let (a, _b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let bob = world.client(bob).user;
    for number in 0..70 {
        world.tell(a, &text(bob, number, "spam"));
        if number % 20 == 19 {
            world.run(ms(30));
        }
    }
    world.run(ms(500));
    let notices = world.probe(a).all::<TxtTickNotify>();
    let limited: Vec<_> = notices.iter().filter(|notice| notice.result == ResultCode::RATE_LIMITED).collect();
    assert!((9..=10).contains(&limited.len()), "{} refused", limited.len());
    assert!(limited.iter().all(|notice| notice.tick == Tick::REFUSED && notice.retry_after_s > 0));
    world.run(secs(2));
    world.tell(a, &text(bob, 100, "sorry"));
    world.run(ms(500));
    assert_eq!(ticks(&world, a, 100), [STORED]);
}

#[test]
fn a_text_from_a_session_that_is_not_ready_yet_is_still_sent() {
    let (mut world, ann, bob) = friends(18);
    let (a, b) = (world.probe_as(ann), world.ready_probe_as(bob));
    world.tell(a, &text(world.client(bob).user, 1, "early"));
    world.run(ms(100));
    assert_eq!(heard(&world, b), ["early"]);
}

#[test]
fn an_unknown_level_of_confirmation_is_refused() {
    let (mut world, ann, bob) = friends(19);
    let b = world.ready_probe_as(bob);
    let answer = world.ask_now(b, &confirm(world.client(ann).user, 1, ConfirmLevel(9)));
    assert_eq!(crate::result(&answer), ResultCode::PARAM_ERROR);
}

#[test]
fn a_slow_disk_slows_nobody_who_is_online() {
    let mut world = World::with(Plan::new(20));
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    let (eve, dan) = (world.add_user("eve"), world.add_user("dan"));
    world.befriend(ann, bob);
    world.befriend(eve, dan);
    let (a, b, e) = (world.ready_probe_as(ann), world.ready_probe_as(bob), world.ready_probe_as(eve));
    let (ann, bob, dan) = (world.client(ann).user, world.client(bob).user, world.client(dan).user);
    world.disk(0).stop();
    world.tell(e, &text(dan, 1, "waits for the disk"));
    world.run(ms(50));
    world.tell(a, &text(bob, 2, "hello"));
    world.run(ms(50));
    world.tell(b, &confirm(ann, 2, ConfirmLevel::RECEIVED));
    world.run(ms(50));
    assert_eq!((ticks(&world, e, 1), ticks(&world, a, 2)), (vec![], vec![DELIVERED]));
}
