//! Cases of [`Contacts`]: every change made again, every change refused.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use std::future::Future;
use std::pin::Pin;

use xmmep::types::{GroupId, RosterVersion, UserId};

use super::contacts::{ANN, BOB, EVE, load, person, wish};
use super::{Open, at, text};
use crate::contacts::{Answer, Contacts};
use crate::error::RosterError;
use crate::records::{BLOCKED_MAX, BUDDIES_MAX, GROUPS_MAX, Roster};

/// A change, to be made as often as wanted.
type Change = fn(&dyn Contacts) -> Pin<Box<dyn Future<Output = Result<(), RosterError>> + Send + '_>>;

macro_rules! changes {
    ($($what:literal: $store:ident => $call:expr),* $(,)?) => {
        [$(($what, (|$store: &dyn Contacts| Box::pin(async move { $call.await.map(|_| ()) })) as Change)),*]
    };
}

const ME: UserId = UserId(ANN);
const NOWHERE: GroupId = GroupId(77);

/// The people of the changes below: calls borrow them for as long as they like.
static PERSONS: std::sync::LazyLock<(crate::records::Person, crate::records::Person)> =
    std::sync::LazyLock::new(|| (person(ANN), person(BOB)));

/// What everybody sees.
async fn everything(store: &dyn Contacts) -> Vec<Roster> {
    let mut rosters = Vec::new();
    for user in [ANN, BOB, EVE] {
        rosters.push(load(store, user).await);
    }
    rosters
}

pub async fn every_change_made_again_changes_nothing(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    // In an order in which each of them changes something the first time.
    let changes = changes! {
        "create a group": store => store.create_group(ME, text("work")),
        "ask": store => store.ask(wish(ANN, BOB)),
        "ask back": store => store.ask(wish(BOB, ANN)),
        "ask somebody else": store => store.ask(wish(EVE, BOB)),
        "refuse": store => store.answer(&PERSONS.1, UserId(EVE), Answer::Refuse, at(1)),
        "accept after all": store => store.answer(&PERSONS.1, UserId(EVE), Answer::Accept, at(2)),
        "accept and add": store => store.answer(&PERSONS.1, ME, Answer::AcceptAndAdd, at(3)),
        "change both": store => store.modify(ME, UserId(BOB), Some(text("Bobby")), Some(GroupId(1))),
        "rename the group": store => store.rename_group(ME, GroupId(1), text("office")),
        "block": store => store.block(ME, &PERSONS.1, at(4)),
        "unblock": store => store.unblock(ME, UserId(BOB), Some(GroupId::DEFAULT)),
        "block again": store => store.block(UserId(BOB), &PERSONS.0, at(5)),
        "delete the group": store => store.delete_group(ME, GroupId(1)),
        "remove": store => store.remove(ME, UserId(BOB)),
    };
    for (what, change) in changes {
        let before = everything(&*store).await;
        change(&*store).await.expect(what);
        let after = everything(&*store).await;
        assert_ne!(after, before, "{what} changes something");
        change(&*store).await.expect(what);
        assert_eq!(everything(&*store).await, after, "{what}, again");
    }
    let after = everything(&*store).await;
    drop(store);
    assert_eq!(everything(&*open.open().await).await, after);
}

pub async fn every_change_refused_changes_nothing_at_either_end(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let (work, _) = store.create_group(ME, text("work")).await.unwrap();
    assert_eq!(work, GroupId(1), "the first one");
    store.create_group(ME, text("home")).await.unwrap();
    store.ask(wish(ANN, BOB)).await.unwrap();
    store.ask(wish(EVE, ANN)).await.unwrap();
    store.block(ME, &person(EVE), at(0)).await.unwrap();
    store.block(ME, &person(BOB), at(0)).await.unwrap();
    let refused = changes! {
        "ask oneself": store => store.ask(wish(ANN, ANN)),
        "ask into no group": store => store.ask(crate::contacts::Ask { group: NOWHERE, ..wish(ANN, EVE) }),
        "answer whom one has blocked": store => store.answer(&PERSONS.0, UserId(EVE), Answer::AcceptAndAdd, at(1)),
        "answer who has not asked": store => store.answer(&PERSONS.1, UserId(EVE), Answer::AcceptAndAdd, at(1)),
        "name a buddy one has not": store => store.modify(ME, UserId(EVE), Some(text("x")), Some(GroupId(1))),
        "name, and move to no group": store => store.modify(ME, UserId(BOB), Some(text("x")), Some(NOWHERE)),
        "block oneself": store => store.block(ME, &PERSONS.0, at(1)),
        "unblock into no group": store => store.unblock(ME, UserId(BOB), Some(NOWHERE)),
        "rename to a name that is taken": store => store.rename_group(ME, GroupId(1), text("home")),
        "rename no group": store => store.rename_group(ME, NOWHERE, text("x")),
        "rename the default group": store => store.rename_group(ME, GroupId::DEFAULT, text("x")),
        "delete the default group": store => store.delete_group(ME, GroupId::DEFAULT),
    };
    let before = everything(&*store).await;
    for (what, change) in refused {
        let result = change(&*store).await;
        assert!(matches!(result, Err(RosterError::Refused(_))), "{what}: {result:?}");
        assert_eq!(everything(&*store).await, before, "{what}");
    }
    drop(store);
    assert_eq!(everything(&*open.open().await).await, before);
}

pub async fn what_leaves_a_full_list_makes_room_for_one(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    for user in 100..100 + BUDDIES_MAX as u64 {
        store.ask(wish(ANN, user)).await.unwrap();
    }
    for number in 0..GROUPS_MAX {
        store.create_group(ME, text(&format!("group {number}"))).await.unwrap();
    }
    for user in 100..100 + BLOCKED_MAX as u64 {
        store.block(ME, &person(user), at(0)).await.unwrap();
    }
    store.ask(wish(BOB, ANN)).await.unwrap();
    let full = everything(&*store).await;
    let one_more = changes! {
        "ask": store => store.ask(wish(ANN, 9)),
        "accept and add": store => store.answer(&PERSONS.0, UserId(BOB), Answer::AcceptAndAdd, at(1)),
        "create a group": store => store.create_group(ME, text("one more")),
        "block": store => store.block(ME, &PERSONS.1, at(1)),
    };
    for (what, change) in one_more {
        assert!(matches!(change(&*store).await, Err(RosterError::Refused(_))), "{what}");
    }
    assert_eq!(everything(&*store).await, full, "nothing of it was done, at neither end");
    store.remove(ME, UserId(100)).await.unwrap();
    store.delete_group(ME, load(&*store, ANN).await.groups[0].group).await.unwrap();
    store.unblock(ME, UserId(100), None).await.unwrap();
    for (what, change) in &one_more[1..] {
        change(&*store).await.expect(what);
    }
    let ann = load(&*store, ANN).await;
    let lengths = (ann.buddies.len(), ann.groups.len(), ann.blocked.len());
    assert_eq!(lengths, (BUDDIES_MAX, GROUPS_MAX, BLOCKED_MAX));
    let changes = BUDDIES_MAX + GROUPS_MAX + BLOCKED_MAX + 6;
    assert_eq!(ann.version, RosterVersion(1 + changes as u64), "one for each change, none for a refusal");
}
