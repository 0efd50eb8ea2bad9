//! Requests and their one answer; the roster that follows; messages of embedders and of newer servers.

use std::time::Duration;

use bytes::Bytes;
use xmmep::bounded::{List, Text};
use xmmep::client::{Event, REQUESTS_MAX, RequestError, RequestHandle};
use xmmep::frame::{self, Code, Frame, Sequence};
use xmmep::message::Request;
use xmmep::messages::buddies::{
    AddBuddyReq, AddBuddyRes, BuddiedNotify, BuddiedNotifyRes, BuddyAnswer, BuddyAnsweredNotify, BuddyBlockedNotify,
    BuddyModifiedNotify, BuddyRemovedNotify, BuddyUnblockedNotify, RosterOpRes,
};
use xmmep::messages::login::{Buddy, BuddyLoginNotify, BuddyState, LoginReq};
use xmmep::messages::status::{StatusChangedNotify, StatusChangedNotifyFwd};
use xmmep::messages::{PublicCard, ResultMsg, StatusChange};
use xmmep::result_code::ResultCode;
use xmmep::session::CloseReason;
use xmmep::types::{GroupId, RosterVersion, Status, UserId};

use crate::script::{BOB, bob, online, refusal};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const CAT: UserId = UserId(9);

xmmep::messages! {
    /// Client → Presence: an embedder's request.
    0x8001 DiceReq -> DiceRes { sides: u8 }
    /// Presence → client: its answer.
    0x8002 DiceRes { shows: u8 }
    /// Presence → client: an embedder's notice.
    0x8003 DiceNotify { shows: u8 }
}

fn ask<M: Request>(world: &mut World, request: &M) -> RequestHandle {
    let handle = world.call(|machine, env, out| machine.request(env, request, out)).unwrap();
    world.until(SECOND, M::NAME, |world| !world.heard_frames::<M>().is_empty());
    handle
}

fn answers(world: &World) -> Vec<(RequestHandle, Result<Frame, RequestError>)> {
    let answer = |event: &Event| match event {
        Event::Answer { request, outcome } => Some((*request, outcome.clone())),
        _ => None,
    };
    world.events.iter().filter_map(answer).collect()
}

/// Asks, answers Success with that roster version, and waits for the answer.
fn done<M: Request<Answer = RosterOpRes>>(world: &mut World, request: &M, version: u64) {
    ask(world, request);
    let roster_version = RosterVersion(version);
    world.reply::<M>(&RosterOpRes { result: ResultCode::SUCCESS, roster_version });
    world.run(SECOND);
}

/// The roster version the client says it has at its next login.
fn version_held(world: &mut World) -> u64 {
    let logins = world.heard::<LoginReq>().len();
    world.close(CloseReason::GOING_AWAY);
    world.until(10 * SECOND, "a login", |world| world.heard::<LoginReq>().len() > logins);
    world.heard::<LoginReq>().last().unwrap().roster_version.0
}

fn add_cat() -> AddBuddyReq {
    let (name, greeting) = ("cat".parse().unwrap(), Text::new("hi").unwrap());
    AddBuddyReq { name, display_name: Text::default(), group: GroupId::DEFAULT, greeting }
}

fn cat(state: BuddyState) -> Buddy {
    Buddy { user: CAT, name: "cat".parse().unwrap(), state, ..bob() }
}

#[test]
fn a_buddy_who_was_asked_is_pending_until_the_yes() {
    let mut world = World::logged_in(1);
    let handle = ask(&mut world, &add_cat());
    let (result, roster_version) = (ResultCode::PENDING, RosterVersion(6));
    let buddy = cat(BuddyState::PENDING);
    world.reply::<AddBuddyReq>(&AddBuddyRes { result, buddy, roster_version });
    world.run(SECOND);
    assert!(matches!(&answers(&world)[..], [(request, Ok(_))] if *request == handle));
    assert_eq!(world.machine.roster().buddy(CAT).unwrap().entry.state, BuddyState::PENDING);

    world.say(&BuddyAnsweredNotify { user: CAT, accepted: true, roster_version: RosterVersion(7) });
    world.say(&BuddyLoginNotify { buddy: online(CAT, Status::AWAY) });
    world.run(SECOND);
    let buddy = world.machine.roster().buddy(CAT).unwrap();
    assert_eq!((buddy.entry.state, buddy.status()), (BuddyState::ACCEPTED, Status::AWAY));
    assert!(world.events.contains(&Event::Answered { user: CAT, accepted: true }));
    assert!(world.events.contains(&Event::Status { user: CAT, status: Status::AWAY }));
    assert_eq!(version_held(&mut world), 7, "each step was seen");
}

#[test]
fn changes_of_the_roster_follow_their_success() {
    let mut world = World::logged_in(2);
    let display_name = Some(Text::new("Bobby").unwrap());
    done(&mut world, &BuddyModifiedNotify { user: BOB, display_name, group: Some(GroupId(1)) }, 6);
    let buddy = world.machine.roster().buddy(BOB).unwrap();
    assert_eq!((buddy.shown_name(), buddy.entry.group), ("Bobby", GroupId(1)));
    assert_eq!(world.machine.roster().find("Bobby"), Some(BOB));

    done(&mut world, &BuddyBlockedNotify { user: BOB }, 7);
    assert_eq!(world.machine.roster().blocked()[0].user, BOB);
    assert_eq!(world.machine.roster().buddy(BOB).unwrap().status(), Status::OFFLINE);
    done(&mut world, &BuddyUnblockedNotify { user: BOB, group: None }, 8);
    assert!(world.machine.roster().blocked().is_empty());

    done(&mut world, &BuddyRemovedNotify { user: BOB }, 9);
    assert_eq!(world.machine.roster().buddies().len(), 0);
}

#[test]
fn a_roster_that_may_differ_from_the_servers_is_asked_for_again() {
    let mut exact = World::logged_in(3);
    done(&mut exact, &BuddyRemovedNotify { user: BOB }, 6);
    assert_eq!(version_held(&mut exact), 6);

    let mut skipped = World::logged_in(3);
    done(&mut skipped, &BuddyRemovedNotify { user: BOB }, 7);
    assert_eq!(version_held(&mut skipped), 0, "another device changed something in between");
}

#[test]
fn a_refused_change_changes_nothing() {
    let mut world = World::logged_in(4);
    let handle = ask(&mut world, &BuddyRemovedNotify { user: BOB });
    let sequence = world.heard_frames::<BuddyRemovedNotify>()[0].header.sequence;
    world.reply_with(sequence, &ResultMsg { retry_after_s: 9, ..refusal(154, ResultCode::SERVER_NOT_READY) });
    world.run(SECOND);
    let [(request, Err(RequestError::Refused(refusal)))] = &answers(&world)[..] else { panic!("{:?}", world.events) };
    assert_eq!((*request, refusal.result, refusal.retry_after), (handle, ResultCode::SERVER_NOT_READY, 9 * SECOND));
    assert_eq!(world.machine.roster().buddies().len(), 1);

    ask(&mut world, &BuddyBlockedNotify { user: BOB });
    let (result, roster_version) = (ResultCode::LIMIT_REACHED, RosterVersion(5));
    world.reply::<BuddyBlockedNotify>(&RosterOpRes { result, roster_version });
    world.run(SECOND);
    assert!(matches!(&answers(&world)[1].1, Err(RequestError::Refused(refusal)) if refusal.result == result));
    assert!(world.machine.roster().blocked().is_empty());
}

#[test]
fn somebody_who_asks_is_listed_until_answered() {
    let mut world = World::logged_in(5);
    let nickname = Text::default();
    let card = PublicCard {
        user: CAT,
        name: "cat".parse().unwrap(),
        personal_msg: Text::default(),
        location: Text::default(),
        nickname,
    };
    let notice = BuddiedNotify { card, greeting: Text::new("me!").unwrap() };
    world.say(&notice);
    world.say(&notice);
    world.run(SECOND);
    let asks = world.events.iter().filter(|event| matches!(event, Event::Asks { .. })).count();
    assert_eq!((asks, world.machine.roster().find("cat")), (1, Some(CAT)));
    done(&mut world, &BuddiedNotifyRes { user: CAT, answer: BuddyAnswer::ACCEPT_AND_ADD }, 6);
    assert!(world.machine.roster().asking().is_empty());
    assert!(world.machine.roster().buddy(CAT).is_some());
}

#[test]
fn statuses_follow_the_notices() {
    let mut world = World::logged_in(6);
    let change = |user, status| StatusChange { user, status };
    let changes = vec![change(BOB, Status::AWAY), change(BOB, Status::AWAY), change(CAT, Status::INVISIBLE)];
    world.say(&StatusChangedNotifyFwd { changes: List::new(changes).unwrap() });
    world.run(SECOND);
    let told: Vec<_> = world.events.iter().filter(|event| matches!(event, Event::Status { .. })).collect();
    assert_eq!(told, [&Event::Status { user: BOB, status: Status::AWAY }], "news only");
    world.say(&StatusChangedNotifyFwd { changes: List::new(vec![change(BOB, Status::OFFLINE)]).unwrap() });
    world.run(SECOND);
    assert_eq!(world.machine.roster().buddy(BOB).unwrap().status(), Status::OFFLINE);

    world.call(|machine, env, out| machine.set_status(env, Status::BUSY, out));
    world.run(SECOND);
    assert_eq!(world.heard::<StatusChangedNotify>()[0].status, Status::BUSY);
}

#[test]
fn a_request_without_an_answer_times_out_and_a_late_answer_is_ignored() {
    let mut world = World::logged_in(7);
    let handle = ask(&mut world, &DiceReq { sides: 6 });
    world.run(21 * SECOND);
    assert_eq!(answers(&world), [(handle, Err(RequestError::TimedOut))]);
    world.reply::<DiceReq>(&DiceRes { shows: 4 });
    world.run(SECOND);
    assert_eq!(answers(&world).len(), 1);
}

#[test]
fn a_request_ends_with_the_session() {
    let mut world = World::logged_in(8);
    let handle = ask(&mut world, &DiceReq { sides: 6 });
    world.close(CloseReason::GOING_AWAY);
    world.run(SECOND);
    assert_eq!(answers(&world), [(handle, Err(RequestError::Disconnected))]);
}

#[test]
fn without_a_login_and_beyond_the_limit_nothing_is_asked() {
    let mut world = World::new(9);
    let refused = world.call(|machine, env, out| machine.request(env, &DiceReq { sides: 6 }, out));
    assert_eq!(refused, Err(RequestError::NotConnected));
    world.start();
    world.until_online();
    for n in 0..=REQUESTS_MAX {
        let asked = world.call(|machine, env, out| machine.request(env, &DiceReq { sides: 6 }, out));
        assert_eq!(asked.is_ok(), n < REQUESTS_MAX);
    }
}

#[test]
fn messages_of_embedders_pass_both_ways() {
    let mut world = World::logged_in(10);
    let handle = ask(&mut world, &DiceReq { sides: 6 });
    world.reply::<DiceReq>(&DiceRes { shows: 4 });
    world.say(&DiceNotify { shows: 2 });
    world.run(SECOND);
    let (request, frame) = answers(&world).pop().unwrap();
    assert_eq!((request, frame.unwrap().message::<DiceRes>().unwrap().shows), (handle, 4));
    let Some(Event::Other(frame)) = world.events.last() else { panic!("{:?}", world.events) };
    assert_eq!(frame.message::<DiceNotify>().unwrap().shows, 2);
}

#[test]
fn an_answer_of_another_kind_is_an_error_and_not_a_success() {
    let mut world = World::logged_in(11);
    ask(&mut world, &BuddyRemovedNotify { user: BOB });
    let sequence = world.heard_frames::<BuddyRemovedNotify>()[0].header.sequence;
    world.say_bytes(frame::answer(&DiceRes { shows: 1 }, sequence));
    world.run(SECOND);
    assert_eq!(answers(&world)[0].1, Err(RequestError::OtherAnswer(Code(0x8002))));
    assert_eq!(world.machine.roster().buddies().len(), 1);
}

#[test]
fn an_unknown_question_of_a_newer_server_is_answered_and_told() {
    let mut world = World::logged_in(12);
    world.say_bytes(Bytes::from_static(&[0x01, 0x70, 0, 0, 0, 0, 9, 1, 2, 3]));
    world.run(SECOND);
    assert!(matches!(world.events.last(), Some(Event::Other(frame)) if frame.header.code == Code(0x170)));
    let answer = world.heard_frames::<ResultMsg>().pop().unwrap();
    assert_eq!(answer.header.sequence, Sequence(9));
    assert_eq!(answer.message::<ResultMsg>().unwrap().result, ResultCode::UNKNOWN_CODE);
}

#[test]
fn what_cannot_be_read_is_dropped_and_told_and_the_session_lives() {
    let mut world = World::logged_in(13);
    for bytes in [&[][..], &[1], &[0, 171, 0xff, 0, 0, 0, 0], &[0, 172, 0, 0, 0, 0, 0, 1], &[0, 133, 0, 0, 0, 0, 0]] {
        world.say_bytes(Bytes::copy_from_slice(bytes));
        world.run(SECOND);
        assert!(matches!(world.events.last(), Some(Event::Malformed(_))), "{bytes:?}");
    }
    assert!(world.machine.is_online());
}

#[test]
fn a_message_of_every_kind_with_any_content_does_no_harm() {
    let mut sampler = xmmep::sample::Sampler::new(14);
    for descriptor in xmmep::catalog::all() {
        for kind in [0, 1] {
            let mut world = World::logged_in(14);
            let [high, low] = descriptor.code.0.to_be_bytes();
            let body = (descriptor.sample)(&mut sampler);
            world.say_bytes([&[high, low, kind, 0, 0, 0, 2][..], &body].concat().into());
            world.run(SECOND);
            let over = world.machine.has_ended();
            assert!(!over || descriptor.name == "SessionReport", "{} ended the client", descriptor.name);
        }
    }
}
