//! The database of a Presence is away, slow or busy: whoever is loaded chats on, what needs it is refused and not half done,
//! and afterwards everything is as if nothing had been.

use xm_core::testing::{Plan, ProbeId, World};
use xm_store::StoreError;
use xm_store::records::Person;
use xmmep::message::Message;
use xmmep::messages::ResultMsg;
use xmmep::messages::buddies::{
    BuddiedNotifyRes, BuddyAnswer, BuddyBlockedNotify, BuddyModifiedNotify, BuddyRemovedNotify, BuddyUnblockedNotify,
    RosterOpRes,
};
use xmmep::messages::chat::ConfirmLevel;
use xmmep::messages::login::{LoginReq, LoginRes1};
use xmmep::messages::profile::GetBuddyInfoReq;
use xmmep::messages::status::{StatusChangedNotify, StatusChangedNotifyFwd};
use xmmep::result_code::ResultCode;
use xmmep::types::{Status, UserId, WallTime};

use crate::buddies::ask_for;
use crate::{DELIVERED, STORED, confirm, friends, heard, ms, refused, result, secs, text, ticks};

fn away() -> Option<StoreError> {
    Some(StoreError::Unavailable("gone fishing".into()))
}

/// How a request is answered that needs the database.
fn answer(world: &mut World, probe: ProbeId, request: &Request, other: UserId) -> ResultMsg {
    let frame = match request {
        Request::Add => world.ask_now(probe, &ask_for("eve")),
        Request::Answer => world.ask_now(probe, &BuddiedNotifyRes { user: other, answer: BuddyAnswer::ACCEPT_AND_ADD }),
        Request::Remove => world.ask_now(probe, &BuddyRemovedNotify { user: other }),
        Request::Modify => world.ask_now(probe, &BuddyModifiedNotify { user: other, display_name: None, group: None }),
        Request::Block => world.ask_now(probe, &BuddyBlockedNotify { user: other }),
        Request::Unblock => world.ask_now(probe, &BuddyUnblockedNotify { user: other, group: None }),
        Request::Card => world.ask_now(probe, &GetBuddyInfoReq { user: other }),
    };
    frame.message::<ResultMsg>().expect("a refusal")
}

#[derive(Debug)]
enum Request {
    Add,
    Answer,
    Remove,
    Modify,
    Block,
    Unblock,
    Card,
}

const REQUESTS: [Request; 7] =
    [Request::Add, Request::Answer, Request::Remove, Request::Modify, Request::Block, Request::Unblock, Request::Card];

#[test]
fn loaded_users_chat_and_change_status_while_the_database_is_away() {
    let (mut world, ann, bob) = friends(1);
    let eve = world.add_user("eve");
    world.befriend(ann, eve);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let (ann, bob, eve) = (world.client(ann).user, world.client(bob).user, world.client(eve).user);
    world.database(0).fail(away());
    world.tell(a, &text(bob, 1, "hello"));
    world.tell(a, &text(eve, 2, "for when you are back"));
    world.run(ms(50));
    world.tell(b, &confirm(ann, 1, ConfirmLevel::RECEIVED));
    world.run(secs(1));
    assert_eq!((heard(&world, b), ticks(&world, a, 1)), (vec!["hello".to_owned()], vec![DELIVERED]));
    assert_eq!(ticks(&world, a, 2), [STORED], "the log is on this machine");
    let status = world.ask_now(b, &StatusChangedNotify { status: Status::BUSY });
    assert_eq!(result(&status), ResultCode::SUCCESS);
    world.run(secs(2));
    assert!(world.probe(a).last::<StatusChangedNotifyFwd>().is_some());
}

#[test]
fn what_needs_the_database_is_told_when_to_try_again() {
    let (mut world, ann, bob) = friends(2);
    let a = world.ready_probe_as(ann);
    let bob = world.client(bob).user;
    world.add_user("eve");
    for (error, code) in [
        (StoreError::Unavailable("gone fishing".into()), ResultCode::SERVER_NOT_READY),
        (StoreError::Busy("too many".into()), ResultCode::SERVER_BUSY),
        (StoreError::Conflict("others".into()), ResultCode::SERVER_BUSY),
        (StoreError::Stopped("the disk".into()), ResultCode::SERVER_NOT_READY),
        (StoreError::Rejected("syntax".into()), ResultCode::DATABASE_ERROR),
        (StoreError::Full("disk".into()), ResultCode::STORAGE_FULL),
    ] {
        world.database(0).fail(Some(error));
        for request in &REQUESTS {
            let answer = answer(&mut world, a, request, bob);
            assert_eq!(answer.result, code, "{request:?}");
            let waiting_helps = [ResultCode::SERVER_NOT_READY, ResultCode::SERVER_BUSY].contains(&code);
            assert_eq!(answer.retry_after_s > 0, waiting_helps, "{request:?}");
        }
    }
    world.database(0).fail(None);
    let roster = futures_util::FutureExt::now_or_never(world.stores(0).contacts.load(bob)).unwrap().unwrap();
    assert_eq!((roster.buddies.len(), roster.watchers.len(), roster.blocked_by.len()), (1, 1, 0), "nothing half done");
}

#[test]
fn a_database_that_hangs_holds_up_nobody_who_does_not_need_it() {
    let mut world = World::with(Plan { lanes: 1, ..Plan::new(3) });
    let (ann, bob, eve) = (world.add_user("ann"), world.add_user("bob"), world.add_user("eve"));
    world.befriend(ann, bob);
    let (a, b, e) = (world.ready_probe_as(ann), world.ready_probe_as(bob), world.ready_probe_as(eve));
    let (ann, bob) = (world.client(ann).user, world.client(bob).user);
    world.database(0).stop();
    let asked = world.ask(e, &ask_for("bob"));
    world.run(ms(50));
    world.tell(a, &text(bob, 1, "hello"));
    world.run(ms(50));
    world.tell(b, &confirm(ann, 1, ConfirmLevel::RECEIVED));
    world.run(ms(50));
    assert_eq!(ticks(&world, a, 1), [DELIVERED]);
    assert!(world.probe(e).answer(asked).is_none());
    world.database(0).resume();
    world.run(ms(100));
    assert!(world.probe(e).answer(asked).is_some());
}

#[test]
fn a_block_that_was_committed_and_not_answered_holds_once_the_database_is_back() {
    let (mut world, ann, bob) = friends(4);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let (ann, bob) = (world.client(ann).user, world.client(bob).user);
    // The commit is made, and its answer is lost: the database is away from then on.
    world.database(0).set_latency(ms(100));
    let asked = world.ask(b, &BuddyBlockedNotify { user: ann });
    world.run(ms(230));
    world.database(0).fail(away());
    world.run(secs(5));
    let answer = world.probe(b).answer(asked).expect("it is answered");
    assert_eq!(result(answer), ResultCode::SERVER_NOT_READY);
    world.database(0).fail(None);
    world.run(secs(5));
    world.tell(a, &text(bob, 1, "do you hear me?"));
    world.run(secs(1));
    assert_eq!((ticks(&world, a, 1), heard(&world, b)), (vec![refused(ResultCode::BLOCKED)], vec![]));
    assert!(sees_offline(&world, a, bob) && sees_offline(&world, b, ann), "both were told");
    let again = world.ask_now(b, &BuddyBlockedNotify { user: ann });
    assert_eq!(again.message::<RosterOpRes>().unwrap().result, ResultCode::SUCCESS, "and may be repeated");
}

/// Whether the last that a client was told of others is that this one is offline.
fn sees_offline(world: &World, probe: ProbeId, other: UserId) -> bool {
    let told = world.probe(probe).last::<StatusChangedNotifyFwd>();
    told.is_some_and(|told| told.changes.iter().any(|one| (one.user, one.status) == (other, Status::OFFLINE)))
}

#[test]
fn a_change_that_is_committed_long_after_it_was_refused_is_found() {
    for seconds in [2, 20, 100] {
        let (mut world, ann, bob) = friends(7);
        let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
        let (ann, bob) = (world.client(ann).user, world.client(bob).user);
        // Bob's block is on its way to the database when that is lost.
        world.database(0).set_latency(ms(100));
        let asked = world.ask(b, &BuddyBlockedNotify { user: ann });
        world.run(ms(130));
        world.database(0).fail(away());
        world.run(ms(200));
        assert_eq!(result(world.probe(b).answer(asked).expect("it is answered")), ResultCode::SERVER_NOT_READY);
        world.database(0).fail(None);
        world.run(secs(seconds));
        assert!(!sees_offline(&world, a, bob), "nothing was committed yet");
        let person = Person { user: ann, name: xmmep::name::UserName::new("ann").unwrap() };
        let late = world.stores(0).contacts.block(bob, &person, WallTime(0));
        futures_util::FutureExt::now_or_never(late).unwrap().unwrap();
        world.run(secs(150));
        assert!(sees_offline(&world, a, bob) && sees_offline(&world, b, ann), "after {seconds} s");
        world.tell(a, &text(bob, 1, "do you hear me?"));
        world.run(secs(1));
        assert_eq!((ticks(&world, a, 1), heard(&world, b)), (vec![refused(ResultCode::BLOCKED)], vec![]));
    }
}

#[test]
fn who_comes_while_the_database_is_away_is_let_in_as_soon_as_it_is_back() {
    let (mut world, ann, bob) = friends(5);
    let _b = world.ready_probe_as(bob);
    world.database(0).fail(away());
    let p = world.connect(0);
    let login: LoginReq = world.login_of(ann);
    assert_eq!(result(&world.ask_now(p, &login)), ResultCode::SERVER_NOT_READY);
    world.database(0).fail(None);
    let answer = world.ask_now(p, &login);
    assert_eq!(answer.header.code, LoginRes1::CODE);
}

#[test]
fn a_user_who_leaves_memory_during_a_change_comes_back_with_it() {
    let (mut world, ann, bob_client) = friends(6);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob_client));
    let (ann, bob) = (world.client(ann).user, world.client(bob_client).user);
    world.database(0).stop();
    let asked = world.ask(a, &BuddyBlockedNotify { user: bob });
    world.run(ms(100));
    world.drop_probe(b);
    world.run(secs(100));
    assert_eq!((world.sessions(0), world.presence(0).unwrap().users_in_memory()), (1, 1), "Bob has left");
    world.database(0).resume();
    world.run(secs(1));
    let answer = world.probe(a).answer(asked).expect("it is answered");
    assert_eq!(answer.message::<RosterOpRes>().unwrap().result, ResultCode::SUCCESS);
    let b = world.ready_probe_as(bob_client);
    world.tell(b, &text(ann, 2, "do you hear me?"));
    world.run(secs(1));
    assert_eq!((ticks(&world, b, 2), heard(&world, a)), (vec![refused(ResultCode::BLOCKED)], vec![]));
}
