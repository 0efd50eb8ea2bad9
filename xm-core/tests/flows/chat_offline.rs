//! Chat with users who are away, or seem to be there and are not: stored, drained in order, confirmed, settled.

use futures_util::FutureExt;
use xm_core::testing::{Cut, Node, Plan, World};
use xm_store::StoreError;
use xm_store::records::{Parcel, Quotas};
use xmmep::bounded::List;
use xmmep::messages::buddies::{BuddyBlockedNotify, BuddyUnblockedNotify};
use xmmep::messages::chat::{
    ConfirmLevel, Confirmed, OfflineBeginNotify, OfflineEndNotify, Tick, TxtConfirm, TxtMsgFwd,
};
use xmmep::result_code::ResultCode;
use xmmep::types::{Status, WallTime};

use crate::{DELIVERED, READ, STORED, confirm, friends, heard, id, ms, refused, secs, text, ticks};

#[test]
fn a_text_to_somebody_away_is_stored_and_waits() {
    let (mut world, ann, bob) = friends(1);
    let a = world.ready_probe_as(ann);
    let (ann_id, bob_id) = (world.client(ann).user, world.client(bob).user);
    world.tell(a, &text(bob_id, 1, "hello"));
    world.run(ms(100));
    assert_eq!(ticks(&world, a, 1), [STORED]);
    let b = world.ready_probe_as(bob);
    let begin = world.probe(b).last::<OfflineBeginNotify>().unwrap();
    assert_eq!((begin.messages, begin.files), (1, 0));
    assert!(begin.bytes > 5);
    assert_eq!(heard(&world, b), ["hello"]);
    world.tell(b, &confirm(ann_id, 1, ConfirmLevel::RECEIVED));
    world.run(ms(100));
    assert_eq!(world.probe(b).last::<OfflineEndNotify>().unwrap(), OfflineEndNotify { sent: 1, left: 0 });
    assert_eq!(ticks(&world, a, 1), [STORED, DELIVERED]);
    world.tell(b, &confirm(ann_id, 1, ConfirmLevel::READ));
    world.run(ms(100));
    assert_eq!(ticks(&world, a, 1), [STORED, DELIVERED, READ]);
}

#[test]
fn nothing_comes_before_the_client_is_ready() {
    let (mut world, ann, bob) = friends(2);
    let a = world.ready_probe_as(ann);
    world.tell(a, &text(world.client(bob).user, 1, "one"));
    world.run(ms(100));
    let b = world.probe_as(bob);
    world.tell(a, &text(world.client(bob).user, 2, "two"));
    world.run(secs(3));
    assert_eq!(heard(&world, b), Vec::<String>::new());
    world.tell(b, &xmmep::messages::login::ClientReady {});
    world.run(ms(200));
    assert_eq!(heard(&world, b), ["one", "two"]);
}

#[test]
fn many_texts_drain_oldest_first_with_at_most_64_unconfirmed() {
    let mut world = World::with(Plan { quotas: Quotas { messages_per_sender: 500, ..Quotas::default() }, ..plan(3) });
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    world.befriend(ann, bob);
    let a = world.ready_probe_as(ann);
    let (ann_id, bob_id) = (world.client(ann).user, world.client(bob).user);
    for number in 0..300 {
        world.tell(a, &text(bob_id, number, &format!("text {number}")));
        if number % 20 == 19 {
            world.run(ms(100));
        }
    }
    world.run(secs(1));
    let b = world.ready_probe_as(bob);
    world.run(secs(1));
    let mut confirmed = 0;
    while confirmed < 300 {
        let came = heard(&world, b).len();
        assert!(came - confirmed <= 64, "{came} came, {confirmed} were confirmed");
        assert!(came > confirmed, "nothing came after {confirmed}");
        for number in confirmed..came {
            let number = number as u64;
            // Reading at once must not open the window twice as fast.
            world.tell(b, &confirm(ann_id, number, ConfirmLevel::RECEIVED));
            world.tell(b, &confirm(ann_id, number, ConfirmLevel::READ));
            if number % 10 == 9 {
                world.run(ms(30));
                let came = heard(&world, b).len();
                assert!(came <= number as usize + 1 + 64, "{came} came, {} were confirmed", number + 1);
            }
        }
        confirmed = came;
        world.run(ms(200));
    }
    let expected: Vec<String> = (0..300).map(|number| format!("text {number}")).collect();
    assert_eq!(heard(&world, b), expected);
    assert_eq!(world.probe(b).all::<OfflineEndNotify>(), [OfflineEndNotify { sent: 300, left: 0 }]);
}

fn plan(seed: u64) -> Plan {
    Plan { configure: Box::new(|config| config.texts_burst = 10_000), ..Plan::new(seed) }
}

#[test]
fn a_live_text_does_not_overtake_stored_ones() {
    let mut world = World::with(plan(4));
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    world.befriend(ann, bob);
    let a = world.ready_probe_as(ann);
    let (ann_id, bob_id) = (world.client(ann).user, world.client(bob).user);
    for number in 0..90 {
        world.tell(a, &text(bob_id, number, &format!("{number}")));
        if number % 20 == 19 {
            world.run(ms(100));
        }
    }
    world.run(secs(1));
    let b = world.ready_probe_as(bob);
    // 64 are there and unconfirmed; 26 wait; the next one is live.
    world.tell(a, &text(bob_id, 90, "90"));
    world.run(secs(1));
    assert_eq!(heard(&world, b).len(), 64);
    assert_eq!(ticks(&world, a, 90), [STORED]);
    for number in 0..64 {
        world.tell(b, &confirm(ann_id, number, ConfirmLevel::RECEIVED));
        if number % 16 == 0 {
            world.run(ms(50));
        }
    }
    world.run(secs(1));
    assert_eq!(heard(&world, b), (0..91).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn confirmations_in_batches_of_64_are_taken() {
    let mut world = World::with(plan(5));
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    world.befriend(ann, bob);
    let a = world.ready_probe_as(ann);
    let (ann_id, bob_id) = (world.client(ann).user, world.client(bob).user);
    for number in 0..80 {
        world.tell(a, &text(bob_id, number, "x"));
        if number % 20 == 19 {
            world.run(ms(100));
        }
    }
    world.run(secs(1));
    let b = world.ready_probe_as(bob);
    for range in [0..64, 64..80] {
        let all: Vec<_> = range.map(|number| Confirmed { from: ann_id, id: id(number) }).collect();
        world.tell(b, &TxtConfirm { level: ConfirmLevel::RECEIVED, messages: List::new(all).unwrap() });
        world.run(secs(1));
    }
    assert!((0..80).all(|number| ticks(&world, a, number) == [STORED, DELIVERED]));
}

#[test]
fn a_store_that_refuses_confirmations_for_good_is_not_asked_for_ever() {
    for (error, is_asked_again) in [
        (StoreError::Fenced, false),
        (StoreError::Corrupt("what is this?".into()), false),
        (StoreError::Rejected("no".into()), false),
        (StoreError::Unavailable("gone fishing".into()), true),
        (StoreError::Full("disk".into()), true),
    ] {
        let (mut world, ann, bob) = friends(7);
        let a = world.ready_probe_as(ann);
        let (ann_id, bob_id) = (world.client(ann).user, world.client(bob).user);
        world.tell(a, &text(bob_id, 1, "hello"));
        world.run(secs(1));
        let b = world.ready_probe_as(bob);
        assert_eq!(heard(&world, b), ["hello"]);
        world.disk(0).fail(Some(error.clone()));
        world.tell(b, &confirm(ann_id, 1, ConfirmLevel::RECEIVED));
        world.run(secs(1));
        let calls = world.disk(0).calls();
        world.run(secs(10));
        assert_eq!(world.disk(0).calls() > calls, is_asked_again, "{error:?}");
        world.disk(0).fail(None);
        world.run(secs(2));
        let b = if is_asked_again { b } else { world.ready_probe_as(bob) };
        world.tell(b, &confirm(ann_id, 1, ConfirmLevel::RECEIVED));
        world.run(secs(1));
        assert_eq!(ticks(&world, a, 1), [STORED, DELIVERED], "{error:?}");
    }
}

#[test]
fn a_text_that_a_fenced_store_does_not_take_is_to_be_sent_again() {
    let (mut world, ann, bob) = friends(8);
    let a = world.ready_probe_as(ann);
    world.disk(0).fail(Some(StoreError::Fenced));
    world.tell(a, &text(world.client(bob).user, 1, "hello"));
    world.run(secs(1));
    assert_eq!(ticks(&world, a, 1), [refused(ResultCode::SERVER_NOT_READY)]);
}

#[test]
fn a_lost_confirmation_brings_the_text_again_and_it_is_shown_once() {
    let (mut world, ann, bob) = friends(6);
    world.log_in(ann);
    let hello = world.say(ann, bob, "hello");
    world.run(secs(1));
    assert_eq!(world.client(ann).tick(hello), Tick::STORED);
    world.log_in(bob);
    world.wire.cut(Node::Client(bob), Cut::Outbound);
    world.run(secs(1));
    assert_eq!(world.client(bob).shown(), ["hello"]);
    world.crash(bob);
    world.wire.heal();
    assert_eq!(world.client(ann).tick(hello), Tick::STORED, "not confirmed");
    world.log_in(bob);
    world.run(secs(5));
    assert_eq!(world.client(ann).tick(hello), Tick::DELIVERED);
    assert_eq!(world.client(bob).shown(), ["hello"]);
    world.oracle().assert_kept();
}

#[test]
fn one_sender_can_fill_his_share_and_no_more() {
    let mut world = World::with(plan(7));
    let (ann, bob, eve) = (world.add_user("ann"), world.add_user("bob"), world.add_user("eve"));
    world.befriend(ann, bob);
    world.befriend(eve, bob);
    let (a, e) = (world.ready_probe_as(ann), world.ready_probe_as(eve));
    let bob_id = world.client(bob).user;
    for number in 0..101 {
        world.tell(a, &text(bob_id, number, "x"));
        if number % 20 == 19 {
            world.run(ms(100));
        }
    }
    world.run(secs(1));
    assert!((0..100).all(|number| ticks(&world, a, number) == [STORED]));
    assert_eq!(ticks(&world, a, 100), [refused(ResultCode::QUOTA_FULL)]);
    world.tell(e, &text(bob_id, 1_000, "others are not affected"));
    world.run(ms(200));
    assert_eq!(ticks(&world, e, 1_000), [STORED]);
}

#[test]
fn texts_nobody_fetches_for_30_days_expire_and_the_sender_is_told() {
    let (mut world, ann, bob) = friends(8);
    let a = world.ready_probe_as(ann);
    world.tell(a, &text(world.client(bob).user, 1, "hello"));
    world.run(secs(1));
    world.wall_offset_ms += 31 * 24 * 3_600 * 1_000;
    world.run(secs(3_700));
    assert_eq!(ticks(&world, a, 1), [STORED, (Tick::EXPIRED, ResultCode::EXPIRED)]);
    let b = world.ready_probe_as(bob);
    world.run(secs(1));
    assert_eq!(heard(&world, b), Vec::<String>::new());
}

#[test]
fn a_sender_who_missed_the_tick_learns_it_by_sending_again() {
    let (mut world, ann, bob) = friends(9);
    let a = world.ready_probe_as(ann);
    let (ann_id, bob_id) = (world.client(ann).user, world.client(bob).user);
    world.tell(a, &text(bob_id, 1, "hello"));
    world.run(ms(100));
    world.drop_probe(a);
    let b = world.ready_probe_as(bob);
    world.tell(b, &confirm(ann_id, 1, ConfirmLevel::RECEIVED));
    world.run(ms(100));
    world.drop_probe(b);
    for after_a_crash in [false, true] {
        if after_a_crash {
            world.kill_presence(0);
            world.start_presence(0);
        }
        let a = world.ready_probe_as(ann);
        world.tell(a, &text(bob_id, 1, "hello"));
        world.run(secs(1));
        assert_eq!(ticks(&world, a, 1), [DELIVERED], "after a crash: {after_a_crash}");
        world.drop_probe(a);
    }
}

#[test]
fn a_block_refuses_what_still_waits_and_unblocking_does_not_bring_it_back() {
    let (mut world, ann, bob) = friends(10);
    let eve = world.add_user("eve");
    world.befriend(eve, bob);
    let (a, e) = (world.ready_probe_as(ann), world.ready_probe_as(eve));
    let (ann_id, bob_id) = (world.client(ann).user, world.client(bob).user);
    world.tell(a, &text(bob_id, 1, "from ann"));
    world.tell(e, &text(bob_id, 2, "from eve"));
    world.run(ms(200));
    let b = world.probe_as(bob);
    world.ask_now(b, &BuddyBlockedNotify { user: ann_id });
    world.tell(b, &xmmep::messages::login::ClientReady {});
    world.run(ms(500));
    assert_eq!(heard(&world, b), ["from eve"]);
    assert_eq!(ticks(&world, a, 1), [STORED, refused(ResultCode::BLOCKED)]);
    world.ask_now(b, &BuddyUnblockedNotify { user: ann_id, group: None });
    world.drop_probe(b);
    let b = world.ready_probe_as(bob);
    world.run(secs(1));
    assert_eq!(heard(&world, b), ["from eve"], "hers was not confirmed, his is gone");
}

/// Bob's line is cut when so many texts of a burst of 50 have left.
fn dead_link(cut_after: usize) {
    let (mut world, ann, bob) = friends(cut_after as u64);
    world.log_in(ann);
    world.log_in(bob);
    world.run(secs(1));
    let mut written = Vec::new();
    for number in 0..50 {
        if number == cut_after {
            world.wire.cut(Node::Client(bob), Cut::Inbound);
            world.wire.cut(Node::Client(bob), Cut::Outbound);
        }
        let said = world.say(ann, bob, &format!("{number}"));
        written.push((world.now().mono, said));
        world.run(ms(7));
    }
    world.run(ms(300));
    for (number, (at, said)) in written.iter().enumerate() {
        let first = world.client(ann).ticks(*said).first().copied();
        let (ticked, tick) = first.unwrap_or_else(|| panic!("cut at {cut_after}: no tick for text {number}"));
        let took = ticked.since(*at);
        assert!(took <= ms(300), "cut at {cut_after}: text {number} was {tick:?} after {took:?}");
        assert!(number < cut_after || tick == Tick::STORED, "cut at {cut_after}: text {number} was {tick:?}");
    }
    world.crash(bob);
    world.wire.heal();
    world.run(secs(100));
    assert_eq!(world.client(ann).sees(world.client(bob).user), Status::OFFLINE);
    world.log_in(bob);
    world.run(secs(10));
    let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(world.client(bob).shown(), expected, "cut at {cut_after}");
    assert!(written.iter().all(|(_, said)| world.client(ann).tick(*said) == Tick::DELIVERED), "cut at {cut_after}");
    world.oracle().assert_kept();
}

#[test]
fn a_recipient_silently_gone_at_any_text_of_a_burst_loses_and_repeats_nothing() {
    (0..=50).for_each(dead_link);
}

#[test]
fn a_text_waits_through_a_crash_of_the_presence() {
    let (mut world, ann, bob) = friends(11);
    world.log_in(ann);
    let hello = world.say(ann, bob, "hello");
    world.run(secs(1));
    assert_eq!(world.client(ann).tick(hello), Tick::STORED);
    world.kill_presence(0);
    world.run(secs(5));
    world.start_presence(0);
    world.log_in(bob);
    world.run(secs(120));
    assert_eq!(world.client(bob).shown(), ["hello"]);
    assert_eq!(world.client(ann).tick(hello), Tick::DELIVERED);
}

#[test]
fn asking_for_the_level_of_many_stored_texts_after_a_cut_turns_none_down_and_lets_new_ones_pass() {
    let (mut world, ann, bob) = friends(15);
    let eve = world.add_user("eve");
    world.befriend(ann, eve);
    world.log_in(ann);
    world.log_in(eve);
    for number in 0..90 {
        world.say(ann, bob, &format!("{number}"));
        world.run(secs(1));
    }
    world.wire.cut(Node::Client(ann), Cut::Outbound);
    world.run(secs(100));
    world.wire.heal();
    world.run_until(secs(100), |world| world.client(ann).is_online());
    world.run(secs(2));
    let news = world.say(ann, eve, "something new");
    world.run(secs(5));
    assert_eq!(world.client(ann).tick(news), Tick::DELIVERED);
    world.log_in(bob);
    world.run(secs(60));
    assert_eq!(world.client(bob).shown(), (0..90).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(world.oracle().refused(), []);
    assert_eq!(world.client(ann).machine().unwrap().outgoing().len(), 0);
    world.oracle().assert_kept();
}

#[test]
fn a_thousand_texts_drain_within_two_seconds() {
    let quotas = Quotas { messages_per_sender: 1_000, ..Quotas::default() };
    let mut world = World::with(Plan { quotas, ..plan(12) });
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    world.befriend(ann, bob);
    let a = world.ready_probe_as(ann);
    let bob_id = world.client(bob).user;
    for number in 0..1_000 {
        world.tell(a, &text(bob_id, number, &format!("{number}")));
        if number % 20 == 19 {
            world.run(ms(60));
        }
    }
    world.run(secs(2));
    world.log_in(bob);
    let at = world.now().mono;
    world.run_until(secs(10), |world| world.client(bob).texts().count() == 1_000);
    let took = world.now().mono.since(at);
    assert!(took <= secs(2), "{took:?}");
    assert_eq!(world.client(bob).shown(), (0..1_000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn only_a_ready_session_receives_and_a_replaced_one_nothing_more() {
    let (mut world, ann, bob) = friends(13);
    let other = world.add_device(bob);
    let (a, old) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let bob_id = world.client(bob).user;
    world.tell(a, &text(bob_id, 1, "one"));
    world.run(ms(50));
    let new = world.ready_probe_as(other);
    world.tell(a, &text(bob_id, 2, "two"));
    world.run(secs(1));
    assert_eq!(heard(&world, old), ["one"]);
    assert_eq!(heard(&world, new), ["one", "two"], "what the old one had not confirmed comes again, in order");
    assert!(world.probe(new).all::<TxtMsgFwd>()[0].from_store);
}

#[test]
fn a_damaged_text_in_the_store_is_not_sent_and_holds_up_no_other() {
    let (mut world, ann, bob) = friends(1);
    let a = world.ready_probe_as(ann);
    let (ann_id, bob_id) = (world.client(ann).user, world.client(bob).user);
    let damaged = Parcel { from: ann_id, id: id(7), sent: WallTime(0), body: vec![0xff; 40] };
    world.stores(0).offline.append(bob_id, vec![damaged]).now_or_never().unwrap().unwrap();
    world.tell(a, &text(bob_id, 1, "hello"));
    world.run(ms(100));
    let b = world.ready_probe_as(bob);
    assert_eq!((heard(&world, b), world.probe(b).count::<TxtMsgFwd>()), (vec!["hello".to_owned()], 1));
}
