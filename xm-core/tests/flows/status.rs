//! Status: who sees what, when, and what nobody sees.

use xm_core::testing::{ProbeId, World};
use xmmep::messages::login::{BuddyLoginNotify, ClientReady, LoginReq, LoginRes6};
use xmmep::messages::status::{StatusChangedNotify, StatusChangedNotifyFwd};
use xmmep::result_code::ResultCode;
use xmmep::types::{Status, UserId};

use crate::{friends, ms, result, secs};

/// Every status of `user` that was told to a probe, in order.
fn told(world: &World, probe: ProbeId, user: UserId) -> Vec<Status> {
    let mut told = Vec::new();
    for (_, frame) in &world.probe(probe).heard {
        if let Ok(notice) = frame.message::<BuddyLoginNotify>() {
            told.extend((notice.buddy.user == user).then_some(notice.buddy.status));
        }
        if let Ok(notice) = frame.message::<StatusChangedNotifyFwd>() {
            told.extend(notice.changes.iter().filter(|change| change.user == user).map(|change| change.status));
        }
    }
    told
}

fn set(world: &mut World, probe: ProbeId, status: Status) {
    world.tell(probe, &StatusChangedNotify { status });
}

/// Opens a session that logs in with a status and is ready.
fn log_in_as(world: &mut World, client: xm_core::testing::ClientId, status: Status) -> ProbeId {
    let probe = world.connect(0);
    let login = LoginReq { status, ..world.login_of(client) };
    world.ask_now(probe, &login);
    world.run(ms(50));
    world.tell(probe, &ClientReady {});
    world.run(ms(50));
    probe
}

#[test]
fn a_change_reaches_friends_at_once_if_the_last_one_is_a_second_old() {
    let (mut world, ann, bob) = friends(1);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let ann = world.client(ann).user;
    world.run(secs(2));
    for status in [Status::BUSY, Status::AWAY, Status::ONLINE] {
        world.probe_mut(b).forget();
        set(&mut world, a, status);
        world.run(ms(50));
        assert_eq!(told(&world, b, ann), [status]);
        world.run(secs(2));
    }
}

#[test]
fn a_flapping_status_is_merged_to_one_update_a_second_and_the_last_one_counts() {
    let (mut world, ann, bob) = friends(2);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let ann = world.client(ann).user;
    world.run(secs(2));
    world.probe_mut(b).forget();
    for number in 0..50 {
        set(&mut world, a, [Status::BUSY, Status::AWAY][number % 2]);
        world.run(ms(100));
    }
    set(&mut world, a, Status::BUSY);
    world.run(secs(3));
    let told = told(&world, b, ann);
    assert!((4..=7).contains(&told.len()), "{told:?}");
    assert_eq!(told.last(), Some(&Status::BUSY));
}

#[test]
fn somebody_invisible_looks_offline_from_login_to_logout() {
    let (mut world, ann, bob) = friends(3);
    let b = world.ready_probe_as(bob);
    let a = log_in_as(&mut world, ann, Status::INVISIBLE);
    world.run(secs(2));
    let ann_id = world.client(ann).user;
    let b2 = world.ready_probe_as(bob);
    assert_eq!(world.probe(b2).all::<LoginRes6>(), [], "not among those online");
    world.ask(a, &xmmep::messages::login::LogoutReq {});
    world.run(secs(2));
    assert_eq!(told(&world, b, ann_id), []);
    assert_eq!(told(&world, b2, ann_id), []);
    assert_eq!(world.router().online(ann_id), None);
}

#[test]
fn becoming_invisible_looks_like_leaving_and_coming_back_like_a_change() {
    let (mut world, ann, bob) = friends(4);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let ann = world.client(ann).user;
    world.run(secs(2));
    for status in [Status::INVISIBLE, Status::BUSY] {
        set(&mut world, a, status);
        world.run(secs(2));
    }
    assert_eq!(told(&world, b, ann), [Status::OFFLINE, Status::BUSY]);
}

#[test]
fn what_somebody_invisible_does_shows_nothing() {
    let (mut world, ann, bob) = friends(5);
    let b = world.ready_probe_as(bob);
    let a = log_in_as(&mut world, ann, Status::INVISIBLE);
    // Visible for less than the merge interval: friends were told OFFLINE before and after, so they are told nothing.
    set(&mut world, a, Status::ONLINE);
    world.run(ms(100));
    set(&mut world, a, Status::INVISIBLE);
    world.run(secs(5));
    assert_eq!(told(&world, b, world.client(ann).user), []);
}

#[test]
fn a_change_back_within_the_interval_is_no_news() {
    let (mut world, ann, bob) = friends(6);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    set(&mut world, a, Status::BUSY);
    set(&mut world, a, Status::ONLINE);
    world.run(secs(3));
    assert_eq!(told(&world, b, world.client(ann).user), []);
}

#[test]
fn a_friend_who_logs_in_while_a_change_waits_sees_what_all_see() {
    let (mut world, ann, bob) = friends(11);
    let a = world.ready_probe_as(ann);
    set(&mut world, a, Status::BUSY);
    world.run(ms(50));
    let b = world.ready_probe_as(bob);
    set(&mut world, a, Status::ONLINE);
    world.run(secs(3));
    let listed = world.probe(b).last::<LoginRes6>().unwrap().online[0].status;
    assert_eq!((listed, told(&world, b, world.client(ann).user)), (Status::ONLINE, vec![]));
}

#[test]
fn a_change_while_a_login_is_under_way_is_not_missed() {
    let (mut world, ann, bob) = friends(12);
    let a = world.ready_probe_as(ann);
    world.run(secs(2));
    let b = world.probe_as(bob);
    set(&mut world, a, Status::BUSY);
    world.run(secs(2));
    world.tell(b, &ClientReady {});
    world.run(secs(2));
    assert_eq!(told(&world, b, world.client(ann).user), [Status::BUSY]);
}

#[test]
fn leaving_right_after_becoming_invisible_is_told() {
    let (mut world, ann, bob) = friends(13);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    set(&mut world, a, Status::INVISIBLE);
    world.ask(a, &xmmep::messages::login::LogoutReq {});
    world.run(secs(3));
    assert_eq!(told(&world, b, world.client(ann).user), [Status::OFFLINE]);
}

#[test]
fn a_second_device_that_comes_invisible_takes_the_first_ones_status_away() {
    let (mut world, ann, bob) = friends(14);
    let other = world.add_device(ann);
    let (_, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    log_in_as(&mut world, other, Status::INVISIBLE);
    world.run(secs(2));
    assert_eq!(told(&world, b, world.client(ann).user), [Status::OFFLINE]);
}

#[test]
fn a_second_device_that_never_gets_ready_takes_the_first_ones_status_away_when_it_goes() {
    let (mut world, ann, bob) = friends(15);
    let other = world.add_device(ann);
    let (_, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let half = world.probe_as(other);
    world.run(secs(5));
    assert_eq!(told(&world, b, world.client(ann).user), []);
    world.drop_probe(half);
    world.run(secs(100));
    assert_eq!(told(&world, b, world.client(ann).user), [Status::OFFLINE]);
}

#[test]
fn strangers_and_those_who_wait_for_an_answer_see_nothing() {
    let mut world = World::new(7);
    let (ann, bob, eve) = (world.add_user("ann"), world.add_user("bob"), world.add_user("eve"));
    let (b, e) = (world.ready_probe_as(bob), world.ready_probe_as(eve));
    world.ask_now(e, &crate::buddies::ask_for("ann"));
    let a = world.ready_probe_as(ann);
    set(&mut world, a, Status::BUSY);
    world.run(secs(3));
    let ann = world.client(ann).user;
    assert_eq!((told(&world, b, ann), told(&world, e, ann)), (vec![], vec![]));
    let e = world.ready_probe_as(eve);
    assert_eq!(world.probe(e).all::<LoginRes6>(), []);
}

#[test]
fn a_status_chosen_before_ready_is_the_first_one_told() {
    let (mut world, ann, bob) = friends(8);
    let (b, a) = (world.ready_probe_as(bob), world.probe_as(ann));
    set(&mut world, a, Status::AWAY);
    world.run(secs(2));
    assert_eq!(told(&world, b, world.client(ann).user), []);
    world.tell(a, &ClientReady {});
    world.run(secs(2));
    assert_eq!(told(&world, b, world.client(ann).user), [Status::AWAY]);
}

#[test]
fn offline_and_unknown_statuses_are_refused() {
    let (mut world, ann, bob) = friends(9);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    for status in [Status::OFFLINE, Status(5), Status(255)] {
        assert_eq!(result(&world.ask_now(a, &StatusChangedNotify { status })), ResultCode::PARAM_ERROR);
    }
    world.run(secs(2));
    assert_eq!(told(&world, b, world.client(ann).user), [], "bob came second and was told at login");
}

#[test]
fn a_status_chosen_at_any_moment_of_a_login_counts() {
    for moment in 0..150 {
        let (mut world, ann, bob) = friends(17);
        world.log_in(bob);
        world.start(ann);
        world.run(ms(moment));
        world.set_status(ann, Status::BUSY);
        world.run(secs(3));
        assert_eq!(world.client(bob).sees(world.client(ann).user), Status::BUSY, "after {moment} ms");
    }
}

#[test]
fn a_router_that_comes_back_learns_who_is_online_and_what_changes() {
    let (mut world, ann, bob) = friends(16);
    let (a, _) = (world.ready_probe_as(ann), log_in_as(&mut world, bob, Status::INVISIBLE));
    let (ann, bob) = (world.client(ann).user, world.client(bob).user);
    world.run(secs(2));
    for status in [Status::BUSY, Status::AWAY] {
        world.restart_router();
        world.run(ms(50));
        assert_eq!((world.router().online_count(), world.router().online(bob)), (1, None));
        set(&mut world, a, status);
        world.run(secs(2));
        assert_eq!(world.router().online(ann).unwrap().status, status);
    }
}

#[test]
fn a_status_survives_a_crash_of_the_presence() {
    let (mut world, ann, bob) = friends(10);
    world.log_in(ann);
    world.log_in(bob);
    world.set_status(ann, Status::BUSY);
    world.run(secs(2));
    world.kill_presence(0);
    world.run(secs(1));
    world.start_presence(0);
    world.run(secs(120));
    assert_eq!(world.client(bob).sees(world.client(ann).user), Status::BUSY);
    assert_eq!(world.router().online(world.client(ann).user).unwrap().status, Status::BUSY);
}
