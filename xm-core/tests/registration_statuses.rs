//! Presences at the Router: who may register as whom, and whose word counts in the copy of online statuses.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod registration_world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use registration_world::World;
use xm_core::link::Link;
use xm_core::origin::{Peer, Sender};
use xm_core::router::{self, STATUS_GRACE};
use xmmep::bounded::{List, Text};
use xmmep::messages::links::PresenceRegisterReq;
use xmmep::messages::login::{Address, BuddyLoginNotifyFwd};
use xmmep::messages::status::StatusChangedNotifyFwd;
use xmmep::messages::{DeviceClass, OnlineBuddy, StatusChange};
use xmmep::result_code::ResultCode;
use xmmep::secret::TicketKey;
use xmmep::types::{OwnerEpoch, PresenceId, Status, UserId};

const HERE: PresenceId = PresenceId { cluster: 1, presence: 1 };
const THERE: PresenceId = PresenceId { cluster: 1, presence: 2 };

fn registers_as(identity: PresenceId, owner_epoch: u64) -> PresenceRegisterReq {
    let address = Address::from(SocketAddr::from(([192, 0, 2, 1], 7_101)));
    PresenceRegisterReq {
        identity,
        addresses: List::new(vec![address]).unwrap(),
        static_key: [1; 32],
        owner_epoch: OwnerEpoch(owner_epoch),
        ticket_key: TicketKey::from_bytes([2; 32]),
    }
}

fn logged_in(user: UserId, status: Status) -> BuddyLoginNotifyFwd {
    let buddy = OnlineBuddy { user, status, personal_msg: Text::cut("at work"), device_class: DeviceClass::COMPUTER };
    BuddyLoginNotifyFwd { owner_epoch: OwnerEpoch(1), buddy }
}

fn changed(user: UserId, status: Status) -> StatusChangedNotifyFwd {
    StatusChangedNotifyFwd { changes: List::new(vec![StatusChange { user, status }]).unwrap() }
}

/// A world with an active user on C1P1, and a hand on the link of that Presence.
fn with_ann(seed: u64) -> (World, UserId, Arc<Link>) {
    let mut world = World::new(seed).with_presence().with_presence();
    world.member("Ann");
    let user = world.placement("Ann").unwrap().user;
    let link = world.presences[0].link.clone().unwrap().1;
    (world, user, link)
}

fn status(world: &World, user: UserId) -> Option<Status> {
    world.router.role().online(user).map(|online| online.status)
}

#[test]
fn the_policy_of_the_router_is_this_table() {
    let expected = [
        (100, "RegisterReq", Sender::Link),
        (102, "RegisterActivateReq", Sender::Link),
        (109, "ActivationResendReq", Sender::Link),
        (110, "GetLoginInfoReq", Sender::Stranger),
        (131, "BuddyLoginNotifyFwd", Sender::Link),
        (136, "StatusChangedNotifyFwd", Sender::Link),
        (212, "PresenceRegisterReq", Sender::Link),
    ];
    let policy: Vec<_> = router::handlers().policy().into_iter().map(|(code, name, who)| (code.0, name, who)).collect();
    assert_eq!(policy, expected);
}

#[test]
fn a_presence_registers_as_itself_and_nobody_else_as_it() {
    let mut world = World::new(1);
    for (peer, result) in [
        (Peer::Presence(HERE), Ok(())),
        (Peer::Presence(THERE), Err(ResultCode::NOT_PERMITTED)),
        (Peer::Register, Err(ResultCode::WRONG_ROLE)),
        (Peer::Router, Err(ResultCode::WRONG_ROLE)),
    ] {
        let link = world.peer(peer);
        assert_eq!(world.ask(&link, &registers_as(HERE, 1)), result, "{peer:?}");
    }
    assert_eq!(world.router.role().connected(), [HERE]);
}

#[test]
fn an_older_owner_is_refused_and_the_same_or_a_newer_one_takes_the_place() {
    let mut world = World::new(2);
    for (epoch, result) in [(5, Ok(())), (4, Err(ResultCode::STALE_EPOCH)), (5, Ok(())), (6, Ok(()))] {
        let link = world.peer(Peer::Presence(HERE));
        assert_eq!(world.ask(&link, &registers_as(HERE, epoch)), result, "epoch {epoch}");
    }
}

#[test]
fn a_presence_no_client_can_reach_is_refused() {
    let mut world = World::new(3);
    let link = world.peer(Peer::Presence(HERE));
    let address = |text: &str| Address::from(text.parse::<SocketAddr>().unwrap());
    for addresses in [vec![], vec![address("0.0.0.0:7101")], vec![address("192.0.2.1:0")], vec![address("[::]:1")]] {
        let req = PresenceRegisterReq { addresses: List::new(addresses).unwrap(), ..registers_as(HERE, 1) };
        assert_eq!(world.ask(&link, &req), Err(ResultCode::PARAM_ERROR), "{:?}", req.addresses);
    }
    assert!(world.router.role().connected().is_empty());
}

#[test]
fn the_copy_follows_what_the_users_presence_says() {
    let (mut world, ann, link) = with_ann(4);
    assert_eq!(status(&world, ann), None);
    let say = |world: &mut World, status: Status| {
        link.notice(&changed(ann, status)).unwrap();
        world.settle();
    };
    link.notice(&logged_in(ann, Status::ONLINE)).unwrap();
    world.settle();
    assert_eq!(status(&world, ann), Some(Status::ONLINE));
    say(&mut world, Status::AWAY);
    let online = world.router.role().online(ann).unwrap();
    assert_eq!((online.presence, online.status, &*online.personal_msg), (HERE, Status::AWAY, "at work"));
    for gone in [Status::OFFLINE, Status::INVISIBLE, Status(77)] {
        say(&mut world, Status::BUSY);
        assert_eq!(status(&world, ann), Some(Status::BUSY));
        say(&mut world, gone);
        assert_eq!(status(&world, ann), None, "{gone:?}");
    }
    assert_eq!(world.router.role().online_count(), 0);
}

#[test]
fn a_presence_does_not_speak_for_users_who_live_elsewhere() {
    let (mut world, ann, link) = with_ann(5);
    let elsewhere = world.presences[1].link.clone().unwrap().1;
    let nobody = UserId(999);
    for user in [ann, nobody] {
        elsewhere.notice(&logged_in(user, Status::ONLINE)).unwrap();
        elsewhere.notice(&changed(user, Status::BUSY)).unwrap();
        world.settle();
        assert_eq!(status(&world, user), None, "{user}");
    }
    link.notice(&logged_in(ann, Status::ONLINE)).unwrap();
    elsewhere.notice(&changed(ann, Status::BUSY)).unwrap();
    elsewhere.notice(&changed(ann, Status::OFFLINE)).unwrap();
    world.settle();
    assert_eq!(status(&world, ann), Some(Status::ONLINE));
}

#[test]
fn a_stranger_to_the_router_and_a_former_owner_say_nothing_that_counts() {
    let (mut world, ann, former) = with_ann(6);
    let newer = world.peer(Peer::Presence(HERE));
    newer.notice(&logged_in(ann, Status::ONLINE)).unwrap();
    world.settle();
    assert_eq!(status(&world, ann), None, "it has not registered");
    world.ask(&newer, &registers_as(HERE, 2)).unwrap();
    former.notice(&logged_in(ann, Status::ONLINE)).unwrap();
    former.notice(&changed(ann, Status::ONLINE)).unwrap();
    world.settle();
    assert_eq!(status(&world, ann), None, "another link has taken its place");
    newer.notice(&logged_in(ann, Status::ONLINE)).unwrap();
    world.settle();
    assert_eq!(status(&world, ann), None, "an order of an older epoch on the newer link");
    newer.notice(&BuddyLoginNotifyFwd { owner_epoch: OwnerEpoch(2), ..logged_in(ann, Status::ONLINE) }).unwrap();
    world.settle();
    assert_eq!(status(&world, ann), Some(Status::ONLINE));
    let register = world.peer(Peer::Register);
    register.notice(&changed(ann, Status::OFFLINE)).unwrap();
    world.settle();
    assert_eq!(status(&world, ann), Some(Status::ONLINE));
}

#[test]
fn statuses_outlive_a_short_absence_of_their_presence_and_not_a_long_one() {
    let (mut world, ann, link) = with_ann(7);
    world.member("Bob");
    world.member("Carl");
    let carl = world.placement("Carl").unwrap().user;
    assert_eq!(world.placement("Carl").unwrap().home(), Some(HERE));
    link.notice(&logged_in(ann, Status::ONLINE)).unwrap();
    link.notice(&logged_in(carl, Status::ONLINE)).unwrap();
    world.settle();

    world.disconnect(0);
    world.advance(Duration::from_secs(30));
    assert_eq!(status(&world, ann), Some(Status::ONLINE), "nobody flaps");
    world.connect(0).unwrap();
    let link = world.presences[0].link.clone().unwrap().1;
    link.notice(&changed(ann, Status::ONLINE)).unwrap();
    world.settle();
    world.advance(STATUS_GRACE);
    assert_eq!(status(&world, ann), Some(Status::ONLINE), "confirmed on the new link");
    assert_eq!(status(&world, carl), None, "not confirmed");

    world.disconnect(0);
    world.advance(STATUS_GRACE);
    assert_eq!(status(&world, ann), None);
}
