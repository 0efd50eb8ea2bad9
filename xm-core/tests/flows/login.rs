//! Login: from a session to "everybody may know", a second device, and leaving again.

use xm_core::testing::{ClientId, Cut, Node, World};
use xm_store::contacts::{Answer, Ask};
use xm_store::records::Person;
use xmmep::bounded::Text;
use xmmep::client::{ConnectError, End};
use xmmep::frame::{Code, Kind};
use xmmep::message::Message;
use xmmep::messages::chat::TxtTickNotify;
use xmmep::messages::login::{
    BuddyLoginNotify, ClientReady, LoginReq, LoginRes1, LoginRes2, LoginRes3, LoginRes4, LoginRes6, LoginResEnd,
    LogoutReq, LogoutRes, SessionReport,
};
use xmmep::messages::status::StatusChangedNotifyFwd;
use xmmep::result_code::ResultCode;
use xmmep::session::{CloseReason, Ended};
use xmmep::types::{GroupId, Status, UserId};

use crate::{friends, ms, result, secs, text};

fn codes(world: &World, probe: xm_core::testing::ProbeId) -> Vec<Code> {
    world.probe(probe).heard.iter().map(|(_, frame)| frame.header.code).collect()
}

fn person(world: &World, id: ClientId) -> Person {
    Person { user: world.client(id).user, name: world.client(id).name.clone() }
}

fn now<T>(call: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(call).expect("memory stores answer at once")
}

#[test]
fn a_login_of_somebody_with_nothing_has_a_beginning_and_an_end() {
    let mut world = World::new(1);
    let ann = world.add_user("ann");
    let a = world.probe_as(ann);
    assert_eq!(codes(&world, a), [LoginRes1::CODE, LoginResEnd::CODE]);
    assert_eq!(world.probe(a).heard[0].1.header.kind, Kind::Answer);
    let first = world.probe(a).last::<LoginRes1>().unwrap();
    assert_eq!((first.result, first.user), (ResultCode::SUCCESS, world.client(ann).user));
    assert_eq!((first.name.as_str(), first.profile.personal_msg.as_str()), ("ann", "I am ann"));
    assert!(first.server_time.0 > 0 && first.failed_attempts == 0 && !first.roster_unchanged);
    let end = world.probe(a).last::<LoginResEnd>().unwrap();
    assert_eq!((end.groups, end.buddies, end.blocked, end.rooms, end.online), (0, 0, 0, 0, 0));
}

#[test]
fn the_parts_come_in_order_and_the_end_has_the_totals() {
    let (mut world, ann, bob) = friends(2);
    let (eve, dan) = (world.add_user("eve"), world.add_user("dan"));
    world.befriend(ann, eve);
    let (me, dan) = (person(&world, ann), person(&world, dan));
    let contacts = world.stores(0).contacts.clone();
    now(contacts.create_group(me.user, Text::new("work").unwrap())).unwrap();
    now(contacts.block(me.user, &dan, world.now().wall)).unwrap();
    world.ready_probe_as(bob);
    let a = world.probe_as(ann);
    let parts =
        [LoginRes1::CODE, LoginRes2::CODE, LoginRes3::CODE, LoginRes4::CODE, LoginRes6::CODE, LoginResEnd::CODE];
    assert_eq!(codes(&world, a), parts);
    let end = world.probe(a).last::<LoginResEnd>().unwrap();
    assert_eq!((end.groups, end.buddies, end.blocked, end.rooms, end.online), (1, 2, 1, 0, 1));
    let online = world.probe(a).last::<LoginRes6>().unwrap().online;
    assert_eq!((online[0].user, online[0].status), (world.client(bob).user, Status::ONLINE));
    assert_eq!(online[0].personal_msg.as_str(), "I am bob");
}

fn befriend_crowd(world: &mut World, ann: ClientId, size: u64) {
    let (me, wall) = (person(world, ann), world.now().wall);
    for number in 0..size {
        let name = xmmep::name::UserName::new(&format!("buddy{number}")).unwrap();
        let buddy = Person { user: UserId(10_000 + number), name };
        let display_name = Text::new(&"x".repeat((number % 100) as usize)).unwrap();
        let greeting = Text::default();
        let ask =
            Ask { me: me.clone(), buddy: buddy.clone(), display_name, group: GroupId::DEFAULT, greeting, at: wall };
        now(world.stores(0).contacts.ask(ask)).unwrap();
        now(world.stores(0).contacts.answer(&buddy, me.user, Answer::Accept, wall)).unwrap();
    }
}

#[test]
fn a_long_list_comes_in_parts_that_fit_a_datagram_and_add_up() {
    let mut world = World::new(3);
    let ann = world.add_user("ann");
    befriend_crowd(&mut world, ann, 500);
    let a = world.probe_as(ann);
    let parts = world.probe(a).all::<LoginRes3>();
    assert!(parts.len() > 20);
    for (number, part) in parts.iter().enumerate() {
        assert_eq!((part.part.part as usize, part.part.parts as usize, part.part.total), (number, parts.len(), 500));
        let bytes = xmmep::message::body_of(part).len();
        assert!(bytes <= 1_100, "part {number} has {bytes} bytes");
    }
    assert_eq!(parts.iter().map(|part| part.buddies.len()).sum::<usize>(), 500);
    assert_eq!(world.probe(a).last::<LoginResEnd>().unwrap().buddies, 500);
}

#[test]
fn a_thousand_buddies_are_there_within_a_second_and_an_unchanged_roster_is_not_sent_again() {
    let mut world = World::new(4);
    let ann = world.add_user("ann");
    befriend_crowd(&mut world, ann, 1_000);
    let began = world.now().mono;
    world.log_in(ann);
    assert!(world.now().mono.since(began) <= secs(1), "{:?}", world.now().mono.since(began));
    assert_eq!(world.client(ann).machine().unwrap().roster().buddies().len(), 1_000);
    world.wire.cut(Node::Client(ann), Cut::Inbound);
    world.wire.cut(Node::Client(ann), Cut::Outbound);
    world.run(secs(100));
    let before = world.wire.bytes_to(world.client(ann).address());
    world.wire.heal();
    world.run_until(secs(100), |world| world.client(ann).is_online());
    world.run(ms(200));
    let moved = world.wire.bytes_to(world.client(ann).address()) - before;
    assert!(moved < 4_096, "{moved} bytes");
    assert_eq!(world.client(ann).machine().unwrap().roster().buddies().len(), 1_000);
}

#[test]
fn a_lost_datagram_of_a_login_is_repaired_without_a_new_request() {
    for lost in 0..12 {
        let mut world = World::new(5);
        let ann = world.add_user("ann");
        befriend_crowd(&mut world, ann, 100);
        let mut sent = 0;
        world.wire.filter = Some(Box::new(move |_| {
            sent += 1;
            sent != lost + 1
        }));
        world.log_in(ann);
        assert_eq!(world.client(ann).welcomes().count(), 1, "datagram {lost} lost");
        assert_eq!(world.client(ann).machine().unwrap().roster().buddies().len(), 100, "datagram {lost} lost");
    }
}

#[test]
fn watchers_are_told_after_client_ready_and_not_before() {
    let (mut world, ann, bob) = friends(6);
    let b = world.ready_probe_as(bob);
    let a = world.probe_as(ann);
    world.run(secs(5));
    assert_eq!(world.probe(b).all::<BuddyLoginNotify>(), []);
    world.tell(a, &ClientReady {});
    world.run(ms(100));
    let told = world.probe(b).all::<BuddyLoginNotify>();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].buddy.user, told[0].buddy.status), (world.client(ann).user, Status::ONLINE));
    world.tell(a, &ClientReady {});
    world.run(secs(2));
    assert_eq!(world.probe(b).all::<BuddyLoginNotify>().len(), 1, "once");
}

#[test]
fn a_login_cut_before_ready_is_never_announced() {
    let (mut world, ann, bob) = friends(7);
    let b = world.ready_probe_as(bob);
    let a = world.probe_as(ann);
    world.drop_probe(a);
    world.run(secs(120));
    assert_eq!(world.probe(b).all::<BuddyLoginNotify>(), []);
    assert_eq!(world.probe(b).all::<StatusChangedNotifyFwd>(), []);
    assert_eq!(world.sessions(0), 1, "the silent session is gone");
}

#[test]
fn the_router_has_its_copy_of_who_is_online() {
    let mut world = World::new(8);
    let ann = world.add_user("ann");
    world.log_in(ann);
    world.run(ms(50));
    assert_eq!(world.router().online(world.client(ann).user).unwrap().status, Status::ONLINE);
    world.log_out(ann);
    world.run(ms(200));
    assert_eq!(world.router().online(world.client(ann).user), None);
}

#[test]
fn a_second_device_ends_the_first_which_is_told_by_whom() {
    let (mut world, ann, bob) = friends(9);
    let other = world.add_device(ann);
    let b = world.ready_probe_as(bob);
    let old = world.ready_probe_as(ann);
    let new = world.ready_probe_as(other);
    let report = world.probe(old).last::<SessionReport>().unwrap();
    assert_eq!((report.result, report.may_reconnect), (ResultCode::DUPLICATE_SESSION, false));
    assert_eq!(report.device_name.as_str(), "device 2");
    assert_eq!(world.probe(old).ended, Some(Ended::ByPeer(CloseReason::REPLACED)));
    assert_eq!(world.probe(new).ended, None);
    assert!(world.probe(b).all::<StatusChangedNotifyFwd>().is_empty(), "nobody flickers");
    world.run(secs(1));
    assert_eq!(world.sessions(0), 2);
}

#[test]
fn a_replaced_session_is_dead_before_it_knows() {
    let (mut world, ann, bob) = friends(10);
    let other = world.add_device(ann);
    let (b, old) = (world.ready_probe_as(bob), world.ready_probe_as(ann));
    world.wire.cut(Node::Probe(old), Cut::Inbound);
    world.ready_probe_as(other);
    world.tell(old, &text(world.client(bob).user, 1, "from the grave"));
    world.run(secs(1));
    assert_eq!(crate::heard(&world, b), Vec::<String>::new());
    assert_eq!(world.probe(old).all::<TxtTickNotify>(), []);
}

#[test]
fn a_client_that_comes_back_on_the_same_device_takes_over_at_once() {
    let (mut world, ann, _) = friends(11);
    for _ in 0..5 {
        world.log_in(ann);
        world.crash(ann);
    }
    world.log_in(ann);
    world.run(secs(5));
    assert_eq!(world.sessions(0), 1);
}

#[test]
fn two_devices_that_throw_each_other_out_may_do_so_once_a_minute() {
    let mut world = World::new(12);
    let ann = world.add_user("ann");
    let other = world.add_device(ann);
    let first = world.ready_probe_as(ann);
    let second = world.ready_probe_as(other);
    let third = world.connect(0);
    let login = world.login_of(ann);
    let answer = world.ask_now(third, &login);
    assert_eq!(result(&answer), ResultCode::RATE_LIMITED);
    let wait = answer.message::<xmmep::messages::ResultMsg>().unwrap().retry_after_s;
    assert!((50..=61).contains(&wait), "{wait} s");
    assert_eq!((world.probe(second).ended, world.probe(first).ended.is_some()), (None, true));
    world.run(secs(61));
    let third = world.ready_probe_as(ann);
    assert_eq!(world.probe(third).ended, None);
    assert!(world.probe(second).ended.is_some());
}

#[test]
fn coming_back_on_the_same_device_does_not_lift_the_limit_on_throwing_out() {
    let mut world = World::new(13);
    let ann = world.add_user("ann");
    let other = world.add_device(ann);
    world.ready_probe_as(ann);
    world.ready_probe_as(other);
    let second = world.ready_probe_as(other);
    let third = world.connect(0);
    let login = world.login_of(ann);
    assert_eq!(result(&world.ask_now(third, &login)), ResultCode::RATE_LIMITED);
    assert_eq!(world.probe(second).ended, None);
}

#[test]
fn a_replaced_client_does_not_come_back_by_itself() {
    let mut world = World::new(14);
    let ann = world.add_user("ann");
    let other = world.add_device(ann);
    world.log_in(ann);
    world.log_in(other);
    world.run(secs(200));
    assert!(matches!(world.client(ann).end(), Some(End::Replaced { device, .. }) if device == "device 1"));
    assert!(world.client(other).is_online());
}

#[test]
fn logging_out_tells_others_within_a_second_and_ends_the_session() {
    let (mut world, ann, bob) = friends(15);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let answer = world.ask_now(a, &LogoutReq {});
    assert_eq!(answer.message::<LogoutRes>().unwrap().result, ResultCode::SUCCESS);
    world.run(secs(1));
    let told = world.probe(b).last::<StatusChangedNotifyFwd>().unwrap();
    assert_eq!((told.changes[0].user, told.changes[0].status), (world.client(ann).user, Status::OFFLINE));
    assert_eq!(world.probe(a).ended, Some(Ended::ByPeer(CloseReason::DONE)));
    assert_eq!(world.sessions(0), 1);
}

#[test]
fn a_client_that_falls_silent_is_offline_within_90_seconds() {
    let (mut world, ann, bob) = friends(16);
    world.log_in(ann);
    world.log_in(bob);
    world.run(secs(200));
    let (ann_id, last_sign) = (world.client(ann).user, world.now().mono);
    world.crash(ann);
    world.run_until(secs(300), |world| world.client(bob).sees(ann_id) == Status::OFFLINE);
    let silence = world.now().mono.since(last_sign);
    assert!(silence > secs(50) && silence <= secs(90), "{silence:?}");
}

#[test]
fn a_presence_that_stops_in_order_tells_its_clients_and_they_come_back() {
    let (mut world, ann, bob) = friends(17);
    world.log_in(ann);
    world.log_in(bob);
    world.stop_presence(0);
    world.run(ms(100));
    let offline =
        |event: &xmmep::client::Event| matches!(event, xmmep::client::Event::Offline { error: ConnectError::Lost, .. });
    assert!(world.client(ann).events.iter().any(|(_, event)| offline(event)), "at once, not after 80 s of silence");
    world.run(secs(5));
    world.start_presence(0);
    world.run(secs(100));
    assert!(world.client(ann).is_online() && world.client(bob).is_online());
    assert_eq!(world.client(ann).sees(world.client(bob).user), Status::ONLINE);
}

#[test]
fn a_login_goes_to_the_presence_with_a_ticket_and_needs_no_retry_there() {
    let mut world = World::new(18);
    let ann = world.add_user("ann");
    world.wire.record = true;
    world.log_in(ann);
    let presence = world.presence_address(0);
    let to_us: Vec<u8> = world
        .wire
        .recorded
        .iter()
        .filter(|crossing| crossing.from == presence)
        .map(|crossing| crossing.bytes[0])
        .collect();
    assert_eq!(to_us[0], 7, "the first answer is the RESPONSE, not a RETRY: {to_us:?}");
}

#[test]
fn the_login_key_crosses_the_wire_under_encryption_only() {
    let mut world = World::new(19);
    let ann = world.add_user("ann");
    world.wire.record = true;
    world.log_in(ann);
    let key = world.client(ann).key.expose().to_vec();
    let login = xmmep::message::body_of::<LoginReq>(&world.login_of(ann));
    assert!(login.windows(32).any(|window| window == key), "the search below looks for the right thing");
    assert!(world.wire.recorded.iter().all(|crossing| !crossing.bytes.windows(8).any(|window| window == &key[..8])));
}
