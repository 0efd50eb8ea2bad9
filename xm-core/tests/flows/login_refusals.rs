//! Logins that are turned down, and what each kind of failure tells whoever tries.

use xm_core::testing::World;
use xmmep::client::{ConnectError, End};
use xmmep::frame::{self, Sequence};
use xmmep::messages::ResultMsg;
use xmmep::messages::login::{ClientReady, LoginReq, LoginRes1, LoginResEnd, SessionReport};
use xmmep::name::UserName;
use xmmep::result_code::ResultCode;
use xmmep::secret::LoginKey;
use xmmep::session::{CloseReason, Ended};
use xmmep::types::Status;

use crate::{friends, ms, result, secs};

fn wrong(login: LoginReq) -> LoginReq {
    LoginReq { login_key: LoginKey::from_bytes([0x55; 32]), ..login }
}

#[test]
fn a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    let mut world = World::new(1);
    let ann = world.add_user("ann");
    let login = world.login_of(ann);
    let (p, q) = (world.connect(0), world.connect(0));
    let mismatch = world.ask_now(p, &wrong(login.clone()));
    let nobody = world.ask_now(q, &LoginReq { name: UserName::new("nobody").unwrap(), ..login });
    assert_eq!(result(&mismatch), ResultCode::PASSWD_MISMATCH);
    assert_eq!(mismatch, nobody);
}

#[test]
fn a_session_whose_login_failed_may_try_again() {
    let mut world = World::new(2);
    let ann = world.add_user("ann");
    let login = world.login_of(ann);
    let p = world.connect(0);
    world.ask_now(p, &wrong(login.clone()));
    assert_eq!(world.ask_now(p, &login).message::<LoginRes1>().unwrap().failed_attempts, 1);
}

#[test]
fn the_client_says_wrong_password_and_ends() {
    let mut world = World::new(3);
    let ann = world.add_user("ann");
    world.client_mut(ann).key = LoginKey::from_bytes([0x55; 32]);
    world.start(ann);
    world.run(secs(5));
    assert_eq!(world.client(ann).end(), Some(&End::NoLogin(ConnectError::WrongPassword)));
}

#[test]
fn ten_failures_are_free_the_next_waits_and_the_owner_reads_how_many_there_were() {
    let mut world = World::new(4);
    let ann = world.add_user("ann");
    let login = world.login_of(ann);
    let p = world.connect(0);
    for attempt in 1..=10 {
        assert_eq!(result(&world.ask_now(p, &wrong(login.clone()))), ResultCode::PASSWD_MISMATCH, "attempt {attempt}");
    }
    for login in [wrong(login.clone()), login.clone()] {
        let limited = world.ask_now(p, &login).message::<ResultMsg>().unwrap();
        assert_eq!(limited.result, ResultCode::RATE_LIMITED);
        assert!(limited.retry_after_s >= 1);
    }
    world.run(secs(3));
    let p = world.connect(0);
    let first = world.ask_now(p, &login).message::<LoginRes1>().unwrap();
    assert_eq!(first.failed_attempts, 10);
    let p = world.connect(0);
    assert_eq!(world.ask_now(p, &login).message::<LoginRes1>().unwrap().failed_attempts, 0, "counted anew");
}

#[test]
fn guessing_at_one_name_does_not_slow_another() {
    let mut world = World::new(5);
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    let (login, bobs) = (world.login_of(ann), world.login_of(bob));
    let p = world.connect(0);
    for _ in 0..11 {
        world.ask_now(p, &wrong(login.clone()));
    }
    assert!(world.ask_now(p, &bobs).message::<LoginRes1>().is_ok());
}

#[test]
fn before_activation_the_right_password_says_so_and_a_wrong_one_gets_what_everybody_gets() {
    for (right, expected) in [
        (true, ConnectError::NotActivated("the account waits for its activation mail to be answered".into())),
        (false, ConnectError::WrongPassword),
    ] {
        let mut world = World::new(6);
        let ann = world.add_applicant("ann");
        if !right {
            world.client_mut(ann).key = LoginKey::from_bytes([0x55; 32]);
        }
        world.start(ann);
        world.run(secs(5));
        assert_eq!(world.client(ann).end(), Some(&End::NoLogin(expected)));
    }
}

#[test]
fn a_second_login_on_a_session_is_refused_and_the_first_stands() {
    let mut world = World::new(7);
    let ann = world.add_user("ann");
    let login = world.login_of(ann);
    let a = world.ready_probe_as(ann);
    assert_eq!(result(&world.ask_now(a, &login)), ResultCode::BAD_STATE);
    world.run(secs(5));
    assert_eq!((world.probe(a).ended, world.sessions(0)), (None, 1));
}

#[test]
fn two_logins_in_one_datagram_are_one_login_and_one_refusal() {
    let mut world = World::new(8);
    let ann = world.add_user("ann");
    let login = world.login_of(ann);
    let p = world.connect(0);
    world.queue_frame(p, frame::request(&login, Sequence(1)));
    world.say_frame(p, frame::request(&login, Sequence(2)));
    world.run(secs(5));
    assert_eq!(world.probe(p).all::<LoginRes1>().len(), 1);
    assert_eq!(world.probe(p).all::<LoginResEnd>().len(), 1);
    assert_eq!(result(world.probe(p).answer(Sequence(2)).unwrap()), ResultCode::BAD_STATE);
    assert_eq!(world.probe(p).all::<SessionReport>(), []);
    assert_eq!(world.probe(p).ended, None);
}

#[test]
fn a_second_login_while_the_first_waits_for_the_disk_is_refused() {
    let mut world = World::new(9);
    let ann = world.add_user("ann");
    let login = world.login_of(ann);
    let p = world.connect(0);
    world.database(0).set_latency(ms(500));
    world.queue_frame(p, frame::request(&login, Sequence(1)));
    world.say_frame(p, frame::request(&login, Sequence(2)));
    world.run(secs(5));
    assert_eq!(result(world.probe(p).answer(Sequence(2)).unwrap()), ResultCode::BAD_STATE);
    assert_eq!((world.probe(p).ended, world.sessions(0)), (None, 1));
}

#[test]
fn client_ready_before_the_login_is_refused() {
    let mut world = World::new(10);
    world.add_user("ann");
    let p = world.connect(0);
    assert_eq!(result(&world.ask_now(p, &ClientReady {})), ResultCode::BAD_STATE);
}

#[test]
fn a_status_nobody_can_log_in_with_is_refused() {
    let mut world = World::new(11);
    let ann = world.add_user("ann");
    let p = world.connect(0);
    for status in [Status::OFFLINE, Status(5), Status(255)] {
        let login = LoginReq { status, ..world.login_of(ann) };
        assert_eq!(result(&world.ask_now(p, &login)), ResultCode::PARAM_ERROR, "{status:?}");
    }
}

#[test]
fn a_store_that_is_away_says_not_ready_and_counts_no_failure() {
    let mut world = World::new(12);
    let ann = world.add_user("ann");
    let p = world.connect(0);
    world.database(0).fail(Some(xm_store::StoreError::Unavailable("gone fishing".into())));
    let login = world.login_of(ann);
    let answer = world.ask_now(p, &login).message::<ResultMsg>().unwrap();
    assert_eq!(answer.result, ResultCode::SERVER_NOT_READY);
    assert!(answer.retry_after_s > 0);
    world.database(0).fail(None);
    assert_eq!(world.ask_now(p, &login).message::<LoginRes1>().unwrap().failed_attempts, 0);
}

#[test]
fn a_session_without_a_login_ends_after_ten_seconds() {
    let mut world = World::new(13);
    let p = world.connect(0);
    world.run(secs(9));
    assert_eq!((world.probe(p).ended, world.sessions(0)), (None, 1));
    world.run(secs(2));
    assert_eq!(world.probe(p).ended, Some(Ended::ByPeer(CloseReason::NOT_LOGGED_IN)));
    assert_eq!(world.sessions(0), 0);
}

#[test]
fn a_login_under_way_when_its_session_ends_leaves_nobody_online() {
    let (mut world, ann, bob) = friends(14);
    let b = world.ready_probe_as(bob);
    let login = world.login_of(ann);
    let p = world.connect(0);
    world.database(0).set_latency(secs(40));
    world.ask(p, &login);
    world.run(ms(100));
    world.drop_probe(p);
    world.run(secs(600));
    assert_eq!((world.sessions(0), world.presence(0).unwrap().users_in_memory()), (1, 1), "bob's");
    assert_eq!(world.probe(b).ended, None);
    world.database(0).set_latency(ms(0));
    let a = world.ready_probe_as(ann);
    assert_eq!(world.probe(a).ended, None);
}
