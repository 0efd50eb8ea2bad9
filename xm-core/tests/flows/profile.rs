//! Profile cards: the public one for all, the full one for oneself and for friends.

use xm_core::testing::World;
use xmmep::messages::buddies::BuddyBlockedNotify;
use xmmep::messages::profile::{GetBuddyInfoReq, GetBuddyInfoRes};
use xmmep::result_code::ResultCode;
use xmmep::types::UserId;

use crate::{friends, result};

fn card(world: &mut World, probe: xm_core::testing::ProbeId, user: UserId) -> GetBuddyInfoRes {
    world.ask_now(probe, &GetBuddyInfoReq { user }).message().unwrap()
}

#[test]
fn everybody_sees_the_public_card_and_only_friends_and_oneself_the_full_one() {
    let (mut world, ann, bob) = friends(1);
    let eve = world.add_user("eve");
    let (a, b, e) = (world.ready_probe_as(ann), world.ready_probe_as(bob), world.ready_probe_as(eve));
    let ann = world.client(ann).user;
    for (probe, full) in [(a, true), (b, true), (e, false)] {
        let answer = card(&mut world, probe, ann);
        assert_eq!((answer.result, answer.card.user, answer.card.name.as_str()), (ResultCode::SUCCESS, ann, "ann"));
        assert_eq!(answer.card.personal_msg.as_str(), "I am ann");
        assert_eq!(answer.full.is_some(), full);
    }
}

#[test]
fn a_block_takes_the_full_card_away() {
    let (mut world, ann, bob) = friends(2);
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let (ann, bob) = (world.client(ann).user, world.client(bob).user);
    world.ask_now(a, &BuddyBlockedNotify { user: bob });
    assert_eq!(card(&mut world, b, ann).full, None);
    assert_eq!(card(&mut world, a, bob).full, None);
}

#[test]
fn a_user_who_does_not_exist_is_not_found() {
    let mut world = World::new(3);
    let ann = world.add_user("ann");
    let a = world.ready_probe_as(ann);
    for user in [UserId(0), UserId(4_711), UserId(u64::MAX)] {
        assert_eq!(result(&world.ask_now(a, &GetBuddyInfoReq { user })), ResultCode::NOT_FOUND);
    }
}
