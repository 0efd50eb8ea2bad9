//! Cases of [`Contacts`]: groups, limits, changes at once.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use std::sync::Arc;

use xmmep::types::{GroupId, UserId};

use super::contacts::{ANN, BOB, load, person, wish};
use super::{AWKWARD, Open, at, text};
use crate::contacts::{Answer, Ask, Contacts};
use crate::error::{RosterError, RosterRefusal};
use crate::records::{BLOCKED_MAX, BUDDIES_MAX, GROUPS_MAX};

const ME: UserId = UserId(ANN);

fn refused<T>(refusal: RosterRefusal) -> Result<T, RosterError> {
    Err(RosterError::Refused(refusal))
}

pub async fn groups_are_kept_with_their_buddies(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let (group, version) = store.create_group(ME, text("work")).await.unwrap();
    assert_eq!(version.0, 2);
    store.ask(Ask { group, ..wish(ANN, BOB) }).await.unwrap();
    drop(store);
    let store = open.open().await;
    let ann = load(&*store, ANN).await;
    assert_eq!((ann.groups[0].group, ann.groups[0].name.as_str()), (group, "work"));
    assert_eq!(ann.buddies[0].group, group);
    assert_ne!(group, GroupId::DEFAULT);
    let nowhere = store.ask(Ask { group: GroupId(77), ..wish(ANN, 9) }).await;
    assert_eq!(nowhere, refused(RosterRefusal::NoSuchGroup(GroupId(77))));
    assert_eq!(load(&*store, ANN).await, ann);
}

pub async fn a_group_of_the_same_name_is_the_same_group(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let first = store.create_group(ME, text("work")).await.unwrap();
    assert_eq!(store.create_group(ME, text("work")).await.unwrap(), first);
    assert_eq!(load(&*store, ANN).await.groups.len(), 1);
}

pub async fn group_names_are_compared_byte_for_byte(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let names = ["work", "Work", "wörk", "wo\u{308}rk", "work ", "w_rk", "w%k"];
    for (number, name) in (1_usize..).zip(names.into_iter().chain(AWKWARD.into_iter().filter(|name| name.len() <= 64)))
    {
        store.create_group(ME, text(name)).await.unwrap();
        let groups = load(&*store, ANN).await.groups;
        assert_eq!(groups.len(), number, "{name:?}");
        assert_eq!(groups[number - 1].name.as_str(), name);
    }
}

pub async fn renaming_touches_the_name_alone(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let (work, _) = store.create_group(ME, text("work")).await.unwrap();
    let (home, _) = store.create_group(ME, text("home")).await.unwrap();
    store.ask(Ask { group: work, ..wish(ANN, BOB) }).await.unwrap();
    assert_eq!(store.rename_group(ME, work, text("office")).await.unwrap().0, 5);
    assert_eq!(store.rename_group(ME, work, text("office")).await.unwrap().0, 5, "renaming again changes nothing");
    assert_eq!(store.rename_group(ME, home, text("office")).await, refused(RosterRefusal::GroupNameTaken));
    let nowhere = store.rename_group(ME, GroupId(77), text("x")).await;
    assert_eq!(nowhere, refused(RosterRefusal::NoSuchGroup(GroupId(77))));
    let ann = load(&*store, ANN).await;
    assert_eq!(ann.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(), ["office", "home"]);
    assert_eq!(ann.buddies[0].group, work);
}

pub async fn deleting_a_group_moves_its_buddies_to_the_default_group(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let (work, _) = store.create_group(ME, text("work")).await.unwrap();
    let (home, _) = store.create_group(ME, text("home")).await.unwrap();
    for (user, group) in [(10, work), (11, home), (12, work)] {
        store.ask(Ask { group, ..wish(ANN, user) }).await.unwrap();
    }
    assert_eq!(store.delete_group(ME, work).await.unwrap().0, 7);
    assert_eq!(store.delete_group(ME, work).await.unwrap().0, 7, "deleting again changes nothing");
    let ann = load(&*store, ANN).await;
    assert_eq!(ann.groups.len(), 1);
    let groups: Vec<_> = ann.buddies.iter().map(|entry| entry.group).collect();
    assert_eq!(groups, [GroupId::DEFAULT, home, GroupId::DEFAULT]);
}

pub async fn a_group_id_is_not_used_again(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let (first, _) = store.create_group(ME, text("work")).await.unwrap();
    store.delete_group(ME, first).await.unwrap();
    drop(store);
    let store = open.open().await;
    let (second, _) = store.create_group(ME, text("work")).await.unwrap();
    assert!(first < second, "{first} {second}");
}

pub async fn the_default_group_stays(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let renamed = store.rename_group(ME, GroupId::DEFAULT, text("x")).await;
    assert_eq!(renamed, refused(RosterRefusal::DefaultGroup));
    assert_eq!(store.delete_group(ME, GroupId::DEFAULT).await, refused(RosterRefusal::DefaultGroup));
}

pub async fn a_group_of_another_user_does_not_exist(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let (group, _) = store.create_group(UserId(BOB), text("work")).await.unwrap();
    let no_group = RosterRefusal::NoSuchGroup(group);
    assert_eq!(store.ask(Ask { group, ..wish(ANN, BOB) }).await, refused(no_group));
    assert_eq!(store.rename_group(ME, group, text("x")).await, refused(no_group));
    store.delete_group(ME, group).await.unwrap();
    assert_eq!(load(&*store, BOB).await.groups.len(), 1);
    store.ask(wish(ANN, BOB)).await.unwrap();
    assert_eq!(store.modify(ME, UserId(BOB), None, Some(group)).await, refused(no_group));
}

pub async fn each_list_ends_at_its_limit(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    for number in 0..GROUPS_MAX {
        store.create_group(ME, text(&format!("group {number}"))).await.unwrap();
    }
    let full = store.create_group(ME, text("one more")).await;
    assert_eq!(full, refused(RosterRefusal::LimitReached(GROUPS_MAX)));
    store.create_group(ME, text("group 7")).await.expect("it is there already");
    for user in 0..BUDDIES_MAX as u64 {
        store.ask(wish(ANN, 100 + user)).await.unwrap();
    }
    let full = refused(RosterRefusal::LimitReached(BUDDIES_MAX));
    assert_eq!(store.ask(wish(ANN, 9)).await, full);
    store.ask(wish(ANN, 100)).await.expect("that one is there already");
    store.ask(wish(9, ANN)).await.unwrap();
    let answered = store.answer(&person(ANN), UserId(9), Answer::AcceptAndAdd, at(1)).await;
    assert_eq!(answered.map(|_| ()), refused(RosterRefusal::LimitReached(BUDDIES_MAX)));
    assert_eq!(load(&*store, 9).await.version.0, 2, "nothing of it was done");
    store.answer(&person(ANN), UserId(9), Answer::Accept, at(1)).await.expect("accepting needs no room");
    for user in 0..BLOCKED_MAX as u64 {
        store.block(ME, &person(100 + user), at(0)).await.unwrap();
    }
    let full = refused(RosterRefusal::LimitReached(BLOCKED_MAX));
    assert_eq!(store.block(ME, &person(9), at(0)).await, full);
    let ann = load(&*store, ANN).await;
    let lengths = (ann.groups.len(), ann.buddies.len(), ann.blocked.len());
    assert_eq!(lengths, (GROUPS_MAX, BUDDIES_MAX, BLOCKED_MAX));
    assert_eq!(ann.version.0 as usize, 1 + GROUPS_MAX + BUDDIES_MAX + BLOCKED_MAX);
}

pub async fn changes_at_once_are_all_made(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let tasks = (10..26).map(|user| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.ask(wish(ANN, user)).await.unwrap().version.0 })
    });
    let mut versions = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        versions.push(task.await.expect("no call panics"));
    }
    versions.sort_unstable();
    assert_eq!(versions, (2..18).collect::<Vec<_>>());
    let ann = load(&*store, ANN).await;
    assert_eq!((ann.buddies.len(), ann.version.0), (16, 17));
}
