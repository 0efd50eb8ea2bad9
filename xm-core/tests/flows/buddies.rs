//! Buddies: asking, answering, removing, changing, blocking; what the other side sees of it, and what it must not.

use xm_core::testing::{ClientId, ProbeId, World};
use xmmep::bounded::Text;
use xmmep::messages::buddies::{
    AddBuddyReq, AddBuddyRes, BuddiedNotify, BuddiedNotifyRes, BuddyAnswer, BuddyAnsweredNotify, BuddyBlockedNotify,
    BuddyModifiedNotify, BuddyRemovedNotify, BuddyUnblockedNotify, RosterOpRes,
};
use xmmep::messages::login::{BuddyLoginNotify, BuddyState, LoginRes3, LoginRes4};
use xmmep::messages::status::StatusChangedNotifyFwd;
use xmmep::name::UserName;
use xmmep::result_code::ResultCode;
use xmmep::types::{GroupId, Status, UserId};

use crate::{friends, heard, ms, refused, result, secs, text, ticks};

pub(crate) fn ask_for(name: &str) -> AddBuddyReq {
    AddBuddyReq {
        name: UserName::new(name).unwrap(),
        display_name: Text::default(),
        group: GroupId::DEFAULT,
        greeting: Text::new("hi").unwrap(),
    }
}

fn strangers(seed: u64) -> (World, [(ClientId, UserId); 2], ProbeId, ProbeId) {
    let mut world = World::new(seed);
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let users = [(ann, world.client(ann).user), (bob, world.client(bob).user)];
    (world, users, a, b)
}

fn answer(world: &mut World, probe: ProbeId, user: UserId, answer: BuddyAnswer) -> ResultCode {
    let answer = world.ask_now(probe, &BuddiedNotifyRes { user, answer });
    answer.message::<RosterOpRes>().map_or_else(|_| result(&answer), |done| done.result)
}

fn online(world: &World, probe: ProbeId) -> Vec<UserId> {
    world.probe(probe).all::<BuddyLoginNotify>().into_iter().map(|notice| notice.buddy.user).collect()
}

#[test]
fn a_request_is_pending_and_the_other_one_is_asked_within_a_second() {
    let (mut world, [_, (_, bob)], a, b) = strangers(1);
    let added = world.ask_now(a, &ask_for("BOB")).message::<AddBuddyRes>().unwrap();
    assert_eq!((added.result, added.buddy.user, added.buddy.state), (ResultCode::PENDING, bob, BuddyState::PENDING));
    assert_eq!(added.buddy.name.as_str(), "bob", "as registered, not as typed");
    world.run(secs(1));
    let asked = world.probe(b).last::<BuddiedNotify>().unwrap();
    assert_eq!((asked.card.name.as_str(), asked.greeting.as_str()), ("ann", "hi"));
    assert_eq!((online(&world, a), online(&world, b)), (vec![], vec![]), "nobody sees anything yet");
}

#[test]
fn a_request_to_somebody_away_waits_for_the_next_login() {
    let mut world = World::new(2);
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    let a = world.ready_probe_as(ann);
    world.ask_now(a, &ask_for("bob"));
    for login in 0..2 {
        let b = world.ready_probe_as(bob);
        assert_eq!(world.probe(b).all::<BuddiedNotify>().len(), 1, "until it is answered; login {login}");
        world.drop_probe(b);
    }
}

#[test]
fn accepting_tells_the_asker_and_both_see_each_other() {
    let (mut world, [(_, ann), (_, bob)], a, b) = strangers(3);
    world.ask_now(a, &ask_for("bob"));
    assert_eq!(answer(&mut world, b, ann, BuddyAnswer::ACCEPT), ResultCode::SUCCESS);
    world.run(ms(200));
    let answered = world.probe(a).last::<BuddyAnsweredNotify>().unwrap();
    assert_eq!((answered.user, answered.accepted), (bob, true));
    assert_eq!(online(&world, a), [bob]);
    world.tell(a, &text(bob, 1, "thanks"));
    world.run(ms(100));
    assert_eq!(heard(&world, b), ["thanks"]);
    let again = answer(&mut world, b, ann, BuddyAnswer::ACCEPT);
    world.run(ms(200));
    assert_eq!(again, ResultCode::SUCCESS);
    assert_eq!(world.probe(a).all::<BuddyAnsweredNotify>().len(), 1, "accepting twice is accepting once");
}

#[test]
fn accepting_and_adding_puts_each_on_the_list_of_the_other() {
    let (mut world, [(ann_client, ann), (bob_client, bob)], a, b) = strangers(4);
    world.ask_now(a, &ask_for("bob"));
    assert_eq!(answer(&mut world, b, ann, BuddyAnswer::ACCEPT_AND_ADD), ResultCode::SUCCESS);
    world.run(ms(200));
    assert_eq!((online(&world, a), online(&world, b)), (vec![bob], vec![ann]));
    for (client, buddy) in [(ann_client, bob), (bob_client, ann)] {
        let probe = world.probe_as(client);
        let list = world.probe(probe).last::<LoginRes3>().unwrap().buddies;
        assert_eq!((list.len(), list[0].user, list[0].state), (1, buddy, BuddyState::ACCEPTED));
    }
}

#[test]
fn a_refusal_is_silent_and_looks_like_waiting() {
    let (mut world, [(ann_client, ann), (_, bob)], a, b) = strangers(5);
    let before = world.ask_now(a, &ask_for("bob")).message::<AddBuddyRes>().unwrap();
    assert_eq!(answer(&mut world, b, ann, BuddyAnswer::REFUSE), ResultCode::SUCCESS);
    world.run(secs(2));
    assert_eq!(world.probe(a).all::<BuddyAnsweredNotify>(), []);
    assert_eq!((online(&world, a), online(&world, b)), (vec![], vec![]));
    let again = world.ask_now(a, &ask_for("bob")).message::<AddBuddyRes>().unwrap();
    assert_eq!(again, before);
    world.run(secs(1));
    assert_eq!(world.probe(b).all::<BuddiedNotify>().len(), 1, "asked once a day");
    world.tell(a, &text(bob, 1, "please"));
    world.run(ms(200));
    assert_eq!(ticks(&world, a, 1), [refused(ResultCode::BLOCKED)]);
    let relogin = world.probe_as(ann_client);
    assert_eq!(world.probe(relogin).last::<LoginRes3>().unwrap().buddies[0].state, BuddyState::PENDING);
}

#[test]
fn adding_twice_is_success_once_and_says_how_it_stands() {
    let (mut world, [(_, ann), _], a, b) = strangers(6);
    let first = world.ask_now(a, &ask_for("bob")).message::<AddBuddyRes>().unwrap();
    let second = world.ask_now(a, &ask_for("bob")).message::<AddBuddyRes>().unwrap();
    assert_eq!(first, second);
    answer(&mut world, b, ann, BuddyAnswer::ACCEPT);
    let third = world.ask_now(a, &ask_for("bob")).message::<AddBuddyRes>().unwrap();
    assert_eq!((third.result, third.buddy.state), (ResultCode::SUCCESS, BuddyState::ACCEPTED));
    world.run(secs(1));
    assert_eq!(world.probe(b).all::<BuddiedNotify>().len(), 1);
}

#[test]
fn oneself_nobody_and_a_missing_group_each_have_their_own_answer() {
    let (mut world, _, a, _) = strangers(7);
    assert_eq!(result(&world.ask_now(a, &ask_for("ann"))), ResultCode::PARAM_ERROR);
    assert_eq!(result(&world.ask_now(a, &ask_for("nobody"))), ResultCode::NO_SUCH_USER);
    let no_group = AddBuddyReq { group: GroupId(77), ..ask_for("bob") };
    assert_eq!(result(&world.ask_now(a, &no_group)), ResultCode::NOT_FOUND);
}

#[test]
fn answers_to_nothing_and_unknown_answers_are_refused() {
    let (mut world, [(_, ann), _], a, b) = strangers(8);
    assert_eq!(answer(&mut world, b, ann, BuddyAnswer::ACCEPT), ResultCode::NOT_FOUND);
    world.ask_now(a, &ask_for("bob"));
    assert_eq!(answer(&mut world, b, ann, BuddyAnswer(3)), ResultCode::PARAM_ERROR);
    assert_eq!(answer(&mut world, b, UserId(4_711), BuddyAnswer::ACCEPT), ResultCode::NOT_FOUND);
}

/// Everything the asker hears, from the request on, with bob having blocked her or not.
fn what_the_asker_hears(blocked: bool) -> (Vec<(u16, Vec<u8>)>, usize) {
    let (mut world, [(ann_client, ann), (_, bob)], a, b) = strangers(9);
    if blocked {
        world.ask_now(b, &BuddyBlockedNotify { user: ann });
    }
    world.run(secs(1));
    world.probe_mut(a).forget();
    world.ask_now(a, &ask_for("bob"));
    world.run(secs(2));
    world.ask_now(a, &ask_for("bob"));
    world.tell(a, &text(bob, 1, "hello?"));
    world.run(secs(2));
    let relogin = world.probe_as(ann_client);
    world.run(secs(1));
    let heard = world.probe(a).heard.iter().chain(&world.probe(relogin).heard);
    // Times differ by the moment the block took; nothing else may.
    let frames = heard.filter(|(_, frame)| ![113, 133, 171].contains(&frame.header.code.0));
    let frames: Vec<_> = frames.map(|(_, frame)| (frame.header.code.0, frame.body.to_vec())).collect();
    assert_eq!(ticks(&world, a, 1), [refused(ResultCode::BLOCKED)]);
    (frames, world.probe(b).all::<BuddiedNotify>().len())
}

#[test]
fn a_block_looks_like_a_pending_request_byte_for_byte() {
    let (pending, asked) = what_the_asker_hears(false);
    let (blocked, not_asked) = what_the_asker_hears(true);
    assert_eq!(blocked, pending);
    assert_eq!((asked, not_asked), (1, 0));
}

#[test]
fn removing_takes_the_entry_off_and_ends_the_view() {
    let (mut world, [(ann_client, ann), (_, bob)], a, b) = strangers(10);
    world.ask_now(a, &ask_for("bob"));
    answer(&mut world, b, ann, BuddyAnswer::ACCEPT);
    world.run(secs(2));
    for _ in 0..2 {
        let removed = world.ask_now(a, &BuddyRemovedNotify { user: bob }).message::<RosterOpRes>().unwrap();
        assert_eq!(removed.result, ResultCode::SUCCESS, "twice is once");
    }
    world.run(ms(200));
    let gone = world.probe(a).last::<StatusChangedNotifyFwd>().unwrap();
    assert_eq!((gone.changes[0].user, gone.changes[0].status), (bob, Status::OFFLINE));
    world.tell(a, &text(bob, 1, "hello?"));
    world.run(ms(200));
    assert_eq!(ticks(&world, a, 1), [refused(ResultCode::BLOCKED)]);
    let relogin = world.probe_as(ann_client);
    assert_eq!(world.probe(relogin).all::<LoginRes3>(), []);
}

#[test]
fn display_name_and_group_change_in_one_step() {
    let (mut world, ann, bob) = friends(11);
    let a = world.ready_probe_as(ann);
    let (ann_id, bob_id) = (world.client(ann).user, world.client(bob).user);
    let contacts = world.stores(0).contacts.clone();
    let made = futures_util::FutureExt::now_or_never(contacts.create_group(ann_id, Text::new("work").unwrap()));
    let group = made.unwrap().unwrap().0;
    let change =
        BuddyModifiedNotify { user: bob_id, display_name: Some(Text::new("Bobby").unwrap()), group: Some(group) };
    assert_eq!(world.ask_now(a, &change).message::<RosterOpRes>().unwrap().result, ResultCode::SUCCESS);
    let relogin = world.probe_as(ann);
    let list = world.probe(relogin).last::<LoginRes3>().unwrap().buddies;
    assert_eq!((list[0].display_name.as_str(), list[0].group), ("Bobby", group));
    let nowhere = BuddyModifiedNotify { group: Some(GroupId(99)), ..change.clone() };
    assert_eq!(result(&world.ask_now(relogin, &nowhere)), ResultCode::NOT_FOUND);
    let nobody = BuddyModifiedNotify { user: UserId(4_711), ..change };
    assert_eq!(result(&world.ask_now(relogin, &nobody)), ResultCode::NOT_FOUND);
}

#[test]
fn a_block_ends_status_and_text_both_ways_and_unblocking_brings_them_back() {
    let (mut world, ann, bob) = friends(12);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let (ann_id, bob_id) = (world.client(ann).user, world.client(bob).user);
    let blocked = world.ask_now(b, &BuddyBlockedNotify { user: ann_id }).message::<RosterOpRes>().unwrap();
    assert_eq!(blocked.result, ResultCode::SUCCESS);
    world.run(ms(200));
    for (probe, gone) in [(a, bob_id), (b, ann_id)] {
        let told = world.probe(probe).last::<StatusChangedNotifyFwd>().unwrap();
        assert_eq!((told.changes[0].user, told.changes[0].status), (gone, Status::OFFLINE));
    }
    world.tell(a, &text(bob_id, 1, "hello?"));
    world.tell(b, &text(ann_id, 2, "go away"));
    world.tell(a, &xmmep::messages::status::StatusChangedNotify { status: Status::BUSY });
    world.probe_mut(b).forget();
    world.run(secs(2));
    assert_eq!(ticks(&world, a, 1), [refused(ResultCode::BLOCKED)]);
    assert_eq!((heard(&world, a).len(), heard(&world, b).len()), (0, 0));
    assert_eq!(world.probe(b).all::<StatusChangedNotifyFwd>(), []);
    let relogin = world.probe_as(bob);
    assert_eq!(world.probe(relogin).last::<LoginRes4>().unwrap().blocked[0].user, ann_id);
    world.tell(relogin, &xmmep::messages::login::ClientReady {});
    world.run(ms(100));
    world.probe_mut(a).forget();
    world.ask_now(relogin, &BuddyUnblockedNotify { user: ann_id, group: None });
    world.run(ms(200));
    assert_eq!((online(&world, a), online(&world, relogin)), (vec![bob_id], vec![ann_id]));
    world.tell(a, &text(bob_id, 3, "friends again"));
    world.run(ms(200));
    assert_eq!(heard(&world, relogin), ["friends again"]);
}

#[test]
fn a_block_tells_a_stranger_nothing() {
    let (mut world, [(_, ann), _], a, b) = strangers(15);
    world.probe_mut(a).forget();
    world.ask_now(b, &BuddyBlockedNotify { user: ann });
    world.ask_now(b, &BuddyUnblockedNotify { user: ann, group: None });
    world.ask_now(b, &BuddyRemovedNotify { user: ann });
    world.run(secs(2));
    assert_eq!(world.probe(a).heard, []);
}

#[test]
fn an_answer_while_a_login_is_under_way_is_not_missed() {
    let mut world = World::new(16);
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    world.ask_now(a, &ask_for("bob"));
    world.drop_probe(a);
    let a = world.probe_as(ann);
    let asker = world.client(ann).user;
    answer(&mut world, b, asker, BuddyAnswer::ACCEPT);
    world.tell(a, &xmmep::messages::login::ClientReady {});
    world.run(secs(1));
    assert_eq!(world.probe(a).all::<BuddyAnsweredNotify>().len(), 1);
    assert_eq!(online(&world, a), [world.client(bob).user]);
}

#[test]
fn nobody_blocks_himself_or_nobody() {
    let (mut world, [(_, ann), _], a, _) = strangers(13);
    assert_eq!(result(&world.ask_now(a, &BuddyBlockedNotify { user: ann })), ResultCode::PARAM_ERROR);
    assert_eq!(result(&world.ask_now(a, &BuddyBlockedNotify { user: UserId(4_711) })), ResultCode::NOT_FOUND);
}

#[test]
fn success_means_committed() {
    let (mut world, _, a, b) = strangers(14);
    world.database(0).fail(Some(xm_store::StoreError::Unavailable("gone fishing".into())));
    assert_eq!(result(&world.ask_now(a, &ask_for("bob"))), ResultCode::SERVER_NOT_READY);
    world.database(0).fail(None);
    world.run(secs(2));
    assert_eq!(world.probe(b).all::<BuddiedNotify>(), [], "nothing half done");
    let added = world.ask_now(a, &ask_for("bob")).message::<AddBuddyRes>().unwrap();
    assert_eq!(added.result, ResultCode::PENDING);
    world.kill_presence(0);
    world.start_presence(0);
    let bob = world.client_ids().nth(1).unwrap();
    let b = world.ready_probe_as(bob);
    assert_eq!(world.probe(b).all::<BuddiedNotify>().len(), 1, "and it survives a crash");
}
