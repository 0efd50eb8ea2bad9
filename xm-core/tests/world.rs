//! The simulated world itself: it is quick, it repeats itself exactly, and its oracle sees what it is there to see.

use std::time::Duration;

use xm_core::testing::{Cut, Node, Plan, World};
use xmmep::messages::chat::Tick;
use xmmep::types::Status;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn two_clients_log_in_see_each_other_and_chat() {
    let mut world = World::new(1);
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    world.befriend(ann, bob);
    world.log_in(ann);
    world.log_in(bob);
    world.run(ms(50));
    assert_eq!(world.client(ann).sees(world.client(bob).user), Status::ONLINE);
    assert_eq!(world.client(bob).sees(world.client(ann).user), Status::ONLINE);
    let hello = world.say(ann, bob, "hello");
    world.run(ms(150));
    assert_eq!(world.client(bob).shown(), ["hello"]);
    assert_eq!(world.client(ann).tick(hello), Tick::DELIVERED);
    assert_eq!(world.disk(0).appends(), 0, "online chat costs no disk write");
    assert_eq!(world.router().online_count(), 2);
    world.oracle().assert_kept();
}

fn a_bad_day(seed: u64) -> (u64, usize) {
    let mut world = World::new(seed);
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    world.befriend(ann, bob);
    world.log_in(ann);
    world.log_in(bob);
    world.wire.faults.loss = 20;
    world.wire.faults.duplicates = 20;
    world.wire.faults.damage = 5;
    world.wire.faults.stray = 20;
    world.wire.faults.jitter = ms(50);
    for number in 0..20 {
        world.say(ann, bob, &format!("text {number}"));
        world.run(ms(100));
    }
    world.kill_presence(0);
    world.run(secs(5));
    world.start_presence(0);
    world.run(secs(150));
    world.oracle().assert_kept();
    (world.wire.trace(), world.oracle().seen())
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let (trace, seen) = a_bad_day(5);
    assert_eq!(a_bad_day(5), (trace, seen));
    assert_eq!(seen, 20);
    assert_ne!(a_bad_day(6).0, trace);
}

#[test]
fn a_client_behind_a_cut_line_comes_back_when_it_is_mended() {
    let mut world = World::new(3);
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    world.befriend(ann, bob);
    world.log_in(ann);
    world.log_in(bob);
    for way in [Cut::Inbound, Cut::Outbound] {
        world.wire.cut(Node::Client(bob), way);
        let text = world.say(ann, bob, "can you hear me?");
        world.run(secs(200));
        assert_eq!(world.client(ann).tick(text), Tick::STORED, "{way:?}");
        assert_eq!(world.client(ann).sees(world.client(bob).user), Status::OFFLINE, "{way:?}");
        world.wire.mend(Node::Client(bob));
        world.run(secs(120));
        assert_eq!(world.client(ann).tick(text), Tick::DELIVERED, "{way:?}");
    }
    assert_eq!(world.client(bob).shown().len(), 2);
    world.oracle().assert_kept();
}

#[test]
fn a_client_that_dies_before_and_after_its_journal_loses_and_repeats_nothing() {
    for after in 0..40 {
        let mut world = World::new(after);
        let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
        world.befriend(ann, bob);
        world.log_in(ann);
        world.log_in(bob);
        world.say(ann, bob, "one");
        world.say(ann, bob, "two");
        world.run(ms(after));
        world.crash(bob);
        world.run(secs(1));
        world.log_in(bob);
        world.run(secs(60));
        assert!(world.oracle().violations().is_empty(), "{after} ms: {:?}", world.oracle().violations());
        assert_eq!(world.oracle().seen(), 2, "{after} ms: shown {:?}", world.client(bob).shown());
        world.oracle().assert_kept();
    }
}

#[test]
fn a_nat_that_forgets_costs_no_login() {
    let mut world = World::new(4);
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    world.befriend(ann, bob);
    world.log_in(ann);
    world.log_in(bob);
    world.rebind(bob);
    world.run(secs(30));
    let text = world.say(ann, bob, "still there?");
    world.run(secs(1));
    assert_eq!(world.client(ann).tick(text), Tick::DELIVERED);
    assert_eq!(world.client(bob).welcomes().count(), 1, "one login");
}

#[test]
fn a_world_with_two_presences_sends_each_user_home() {
    let mut world = World::with(Plan { presences: 2, ..Plan::new(8) });
    let (ann, bob) = (world.add_user("ann"), world.add_user_at("bob", 1));
    world.log_in(ann);
    world.log_in(bob);
    world.run(ms(100));
    assert_eq!((world.sessions(0), world.sessions(1)), (1, 1));
}
