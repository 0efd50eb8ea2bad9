//! Lookups through a real handshake: what a stranger learns about a name, and what not.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod registration_world;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use registration_world::{DAY, World, router_engine, token_in, user};
use xm_core::engine::Output;
use xm_core::router::TICKET_LIFE;
use xm_store::Placements;
use xmmep::bounded::List;
use xmmep::frame::{self, Frame, Sequence};
use xmmep::messages::login::{GetLoginInfoReq, GetLoginInfoRes};
use xmmep::messages::status::StatusChangedNotifyFwd;
use xmmep::messages::{ResultMsg, StatusChange};
use xmmep::name::UserName;
use xmmep::result_code::ResultCode;
use xmmep::secret::{KdfParams, KeyHash, Salt};
use xmmep::session::{Admission, Connecting, Event, LOOKUP_ANSWER_MAX, Serves, Step, Ticket, UserKind};
use xmmep::types::{Status, UserId};

/// What came back: the datagram as anybody on the way sees it, and the frame inside.
struct Answer {
    datagram_len: usize,
    frame: Frame,
}

impl Answer {
    fn info(&self) -> GetLoginInfoRes {
        self.frame.message().unwrap()
    }
}

fn client() -> SocketAddr {
    "198.51.100.7:40000".parse().unwrap()
}

fn server() -> SocketAddr {
    "192.0.2.1:7100".parse().unwrap()
}

/// Looks up with these bytes, through INIT, RETRY, INIT and RESPONSE.
fn look_up_bytes(world: &mut World, request: &[u8]) -> Answer {
    let now = world.now;
    let (mut connecting, mut datagram) =
        Connecting::lookup(now.mono, server(), &world.router_key, request, &mut world.rng).unwrap();
    for _ in 0..2 {
        let mut out = Output::default();
        world.router.datagram(now, client(), &mut datagram, &mut out);
        world.router.flush(now, &mut out);
        let [reply] = &*out.datagrams else { panic!("{} datagrams for one", out.datagrams.len()) };
        match connecting.handle(now.mono, server(), &reply.bytes) {
            Step::Send(again) => datagram = again,
            Step::Answer(answer) => {
                return Answer { datagram_len: reply.bytes.len(), frame: Frame::decode(answer).unwrap() };
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("no answer");
}

fn request(name: &str) -> Bytes {
    frame::request(&GetLoginInfoReq { name: user(name) }, Sequence(1))
}

fn look_up(world: &mut World, name: &str) -> Answer {
    // Handshakes are limited per address; the bucket fills while nobody asks.
    world.advance(Duration::from_secs(1));
    look_up_bytes(world, &request(name))
}

/// What the ticket in an answer tells the Presence.
fn admission(world: &World, info: &GetLoginInfoRes, home: usize, ip: IpAddr, later: Duration) -> Option<Admission> {
    let ticket = Ticket::from_bytes((*info.ticket).try_into().expect("the ticket has its length"));
    let home = &world.presences[home];
    ticket.open(&home.ticket_key, home.identity, ip, world.now.wall.after(later))
}

/// Active "Ann", waiting "Bob", stuck "Carl", and "Dora" whose registration has expired.
fn with_everybody(seed: u64) -> World {
    let mut world = World::new(seed).with_presence();
    world.member("Ann");
    world.register("Dora", "dora@example.org").unwrap();
    world.advance(7 * DAY - Duration::from_secs(1));
    world.register("Bob", "bob@example.org").unwrap();
    world.register("Carl", "carl@example.org").unwrap();
    let token = token_in(&world.mails_to("carl@example.org")[0]).unwrap();
    world.presences[0].inlet.lose(1_000);
    world.activate(token).unwrap_err();
    world
}

#[test]
fn every_name_gets_an_answer_of_one_size_and_shape() {
    let mut world = with_everybody(1);
    let answers: Vec<_> = ["Ann", "Bob", "Carl", "Dora", "Nobody", "李雷"].map(|name| look_up(&mut world, name)).into();
    for answer in &answers {
        let info = answer.info();
        assert_eq!(info.result, ResultCode::SUCCESS);
        assert_eq!(info.kdf, KdfParams::RECOMMENDED);
        assert_eq!(info.addresses, answers[0].info().addresses);
        assert_eq!(info.presence_key, answers[0].info().presence_key);
        assert_eq!(answer.frame.body.len(), answers[0].frame.body.len());
        assert_eq!(answer.datagram_len, answers[0].datagram_len);
    }
    assert!(answers[0].datagram_len > LOOKUP_ANSWER_MAX, "padded to the size of the longest answer");
}

#[test]
fn the_ticket_tells_the_presence_who_comes() {
    let mut world = with_everybody(2);
    let users = ["Ann", "Bob", "Carl"].map(|name| world.placement(name).unwrap().user);
    let form_hash = KeyHash::from_bytes([8; 32]);
    for (name, kind, user, hash_is_told) in [
        ("Ann", UserKind::Member, users[0], false),
        ("Bob", UserKind::NotActivated, users[1], true),
        ("Carl", UserKind::NotActivated, users[2], true),
        ("Dora", UserKind::Unknown, UserId(0), false),
        ("Nobody", UserKind::Unknown, UserId(0), false),
    ] {
        let info = look_up(&mut world, name).info();
        let admission = admission(&world, &info, 0, client().ip(), Duration::ZERO).expect(name);
        assert_eq!((admission.kind, admission.user), (kind, user), "{name}");
        assert_eq!(admission.key_hash == form_hash, hash_is_told, "{name}");
    }
}

#[test]
fn whom_the_router_has_just_sent_to_a_presence_is_online_there_without_a_look_into_the_store() {
    let mut world = World::new(9).with_presence().with_presence();
    world.member("Ann");
    let ann = world.placement("Ann").unwrap().user;
    look_up(&mut world, "Ann").info();
    // The store would say now that nobody lives anywhere.
    let placements = world.placements.clone();
    assert!(world.run(async move { placements.erase(ann).await }).unwrap());
    let is_online_as = |world: &mut World, home: usize, status: Status| {
        let link = world.presences[home].link.clone().unwrap().1;
        let change = StatusChange { user: ann, status };
        link.notice(&StatusChangedNotifyFwd { changes: List::one(change) }).unwrap();
        world.settle();
        world.router.role().online(ann).is_some()
    };
    assert!(!is_online_as(&mut world, 1, Status::ONLINE), "she was not sent there");
    assert!(is_online_as(&mut world, 0, Status::ONLINE));
    assert!(!is_online_as(&mut world, 0, Status::OFFLINE));
    world.advance(TICKET_LIFE);
    assert!(!is_online_as(&mut world, 0, Status::ONLINE), "what a lookup said counts as long as its ticket");
}

#[test]
fn a_ticket_is_good_for_a_minute_from_the_address_that_asked() {
    let mut world = World::new(3).with_presence().with_presence();
    let info = look_up(&mut world, "Nobody").info();
    let (ip, other) = (client().ip(), "198.51.100.8".parse().unwrap());
    let home = (0..2).find(|home| admission(&world, &info, *home, ip, Duration::ZERO).is_some()).unwrap();
    let last = TICKET_LIFE - Duration::from_millis(1);
    assert!(admission(&world, &info, home, ip, last).is_some());
    assert!(admission(&world, &info, home, ip, TICKET_LIFE).is_none());
    assert!(admission(&world, &info, home, other, Duration::ZERO).is_none());
    assert!(admission(&world, &info, 1 - home, ip, Duration::ZERO).is_none());
}

#[test]
fn a_name_has_one_salt_in_every_spelling_and_after_a_restart() {
    let mut world = with_everybody(4);
    assert_eq!(look_up(&mut world, "ann").info().salt, Salt([7; 16]), "that of the registration");
    let salt = look_up(&mut world, "Nobody").info().salt;
    for name in ["Nobody", "nobody", "NOBODY", "\u{ff2e}obody"] {
        assert_eq!(look_up(&mut world, name).info().salt, salt, "{name:?}");
    }
    assert_ne!(look_up(&mut world, "nobody1").info().salt, salt);
    assert_ne!(look_up(&mut world, "Dora").info().salt, Salt([7; 16]), "an expired registration is none");

    (world.router, world.router_key) =
        router_engine(world.now, world.placements.clone(), Serves::Lookups, &mut StdRng::seed_from_u64(99));
    world.presences[0].inlet.lose(0);
    world.connect(0).unwrap();
    assert_eq!(look_up(&mut world, "Nobody").info().salt, salt);
}

#[test]
fn two_lookups_of_a_name_have_tickets_that_look_nothing_like_each_other() {
    let mut world = with_everybody(5);
    for name in ["Ann", "Bob", "Nobody"] {
        let tickets = [look_up(&mut world, name).info().ticket, look_up(&mut world, name).info().ticket];
        let equal = tickets[0].iter().zip(tickets[1].iter()).filter(|(a, b)| a == b).count();
        assert!(equal < 10, "{equal} bytes of {} are the same for {name}", tickets[0].len());
    }
}

#[test]
fn while_presences_are_away_real_names_and_others_share_the_outage() {
    let mut world = World::new(6);
    let nowhere = look_up(&mut world, "Ann");
    assert_eq!(nowhere.info().result, ResultCode::SERVER_NOT_READY);
    let mut world = with_everybody(7);
    let ready = look_up(&mut world, "Nobody");
    assert_eq!(ready.datagram_len, nowhere.datagram_len);
    world.disconnect(0);
    for name in ["Ann", "Bob", "Carl", "Dora", "Nobody"] {
        let answer = look_up(&mut world, name);
        assert_eq!(answer.info().result, ResultCode::SERVER_NOT_READY, "{name}");
        assert_eq!(answer.datagram_len, ready.datagram_len, "{name}");
        assert_eq!(answer.frame.body.len(), nowhere.frame.body.len(), "{name}");
    }
}

#[test]
fn names_nobody_has_stay_where_they_are_when_a_presence_goes() {
    let mut world = World::new(8).with_presence().with_presence();
    world.disconnect(1);
    let mut results = [0, 0];
    for number in 0..40 {
        let info = look_up(&mut world, &format!("nobody{number}")).info();
        results[usize::from(info.result == ResultCode::SUCCESS)] += 1;
    }
    assert!(results.iter().all(|count| (8..=32).contains(count)), "about half live at each: {results:?}");
}

#[test]
fn a_request_that_is_none_gets_a_refusal_of_the_same_size() {
    let mut world = with_everybody(9);
    let fine = look_up(&mut world, "Ann");
    let no_name = Bytes::from_static(&[0, 110, 0, 0, 0, 0, 1, 3, b'a', b'@', b'b']);
    let other_code = frame::request(&xmmep::messages::login::LogoutReq {}, Sequence(1));
    for (request, result) in [(no_name, ResultCode::PARAM_ERROR), (other_code, ResultCode::UNKNOWN_CODE)] {
        world.advance(Duration::from_secs(1));
        let answer = look_up_bytes(&mut world, &request);
        assert_eq!(answer.frame.message::<ResultMsg>().unwrap().result, result);
        assert_eq!(answer.datagram_len, fine.datagram_len);
    }
}

#[test]
fn on_a_session_nobody_looks_up() {
    let mut world = World::new(10);
    (world.router, world.router_key) =
        router_engine(world.now, world.placements.clone(), Serves::Both, &mut StdRng::seed_from_u64(11));
    let (now, key) = (world.now, world.router_key);
    let (mut connecting, mut datagram) =
        Connecting::open(now.mono, server(), &key, None, b"", Arc::default(), &mut world.rng).unwrap();
    let mut session = loop {
        let mut out = Output::default();
        world.router.datagram(now, client(), &mut datagram, &mut out);
        world.router.flush(now, &mut out);
        match connecting.handle(now.mono, server(), &out.datagrams[0].bytes) {
            Step::Send(again) => datagram = again,
            Step::Open(session, _) => break session,
            other => panic!("{other:?}"),
        }
    };
    session.send(request("Ann")).unwrap();
    let (mut events, mut out) = (Vec::new(), Output::default());
    while session.poll_transmit(now.mono, &mut datagram).is_some() {
        world.router.datagram(now, client(), &mut datagram, &mut out);
    }
    world.router.flush(now, &mut out);
    for reply in out.datagrams {
        session.receive(now.mono, server(), &mut reply.bytes.to_vec(), &mut events).unwrap();
    }
    let answer = events.into_iter().find_map(|event| match event {
        Event::Message(message) => Some(Frame::decode(message).unwrap()),
        _ => None,
    });
    assert_eq!(answer.unwrap().message::<ResultMsg>().unwrap().result, ResultCode::BAD_STATE);
}

#[test]
fn a_server_looks_nobody_up_over_a_link() {
    let mut world = with_everybody(12);
    let link = world.peer(xm_core::origin::Peer::Register);
    let now = world.now.mono;
    let refused = world.run(link.request(now, &GetLoginInfoReq { name: UserName::new("Ann").unwrap() }));
    let Err(xm_core::link::LinkError::Refused(refused)) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.result, ResultCode::WRONG_ROLE);
}
