//! Cases of [`Contacts`]: every field at its ends.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use xmmep::types::UserId;

use super::contacts::{ANN, BOB, load, person, wish};
use super::{AWKWARD_NAMES, Open, TIMES, awkward_fields, name, text};
use crate::contacts::{Answer, Ask, Contacts};
use crate::records::Person;

pub async fn every_awkward_name_is_kept_at_both_ends_and_in_blocks(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let people: Vec<_> =
        (100..).zip(AWKWARD_NAMES).map(|(user, one)| Person { user: UserId(user), name: name(one) }).collect();
    for one in &people {
        store.ask(Ask { buddy: one.clone(), ..wish(ANN, one.user.0) }).await.unwrap();
        store.ask(Ask { me: one.clone(), ..wish(one.user.0, ANN) }).await.unwrap();
        store.ask(Ask { me: one.clone(), ..wish(one.user.0, BOB) }).await.unwrap();
        // Adds back by the name that the asker brought.
        store.answer(&person(BOB), one.user, Answer::AcceptAndAdd, TIMES[2]).await.unwrap();
        store.block(UserId(BOB), one, TIMES[2]).await.unwrap();
    }
    drop(store);
    let store = open.open().await;
    let (ann, bob) = (load(&*store, ANN).await, load(&*store, BOB).await);
    let spelled = |people: Vec<&Person>| people.into_iter().map(|one| one.name.as_str().to_owned()).collect::<Vec<_>>();
    for (list, seen) in [
        ("buddies", spelled(ann.buddies.iter().map(|entry| &entry.buddy).collect())),
        ("requests", spelled(ann.requests.iter().map(|request| &request.from).collect())),
        ("watchers", spelled(ann.watchers.iter().map(|watcher| &watcher.who).collect())),
        ("added back", spelled(bob.buddies.iter().map(|entry| &entry.buddy).collect())),
        ("blocked", spelled(bob.blocked.iter().collect())),
    ] {
        assert_eq!(seen, AWKWARD_NAMES, "{list}");
    }
}

pub async fn every_display_name_and_greeting_is_kept_byte_for_byte(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let texts: Vec<_> = (100..).zip(awkward_fields::<128>().into_iter().zip(awkward_fields::<256>())).collect();
    for (user, (display_name, greeting)) in &texts {
        let wish = Ask { display_name: display_name.clone(), greeting: greeting.clone(), ..wish(ANN, *user) };
        let asked = store.ask(wish).await.unwrap();
        assert_eq!((&asked.entry.display_name, &asked.entry.greeting), (display_name, greeting));
        store.ask(Ask { greeting: greeting.clone(), ..super::contacts::wish(*user, BOB) }).await.unwrap();
    }
    drop(store);
    let store = open.open().await;
    let (ann, bob) = (load(&*store, ANN).await, load(&*store, BOB).await);
    for ((_, (display_name, greeting)), (entry, request)) in texts.iter().zip(ann.buddies.iter().zip(&bob.requests)) {
        assert_eq!((&entry.display_name, &entry.greeting, &request.greeting), (display_name, greeting, greeting));
    }
    assert_eq!((ann.buddies.len(), bob.requests.len()), (texts.len(), texts.len()));
}

pub async fn every_new_display_name_and_group_name_is_kept_byte_for_byte(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let me = UserId(ANN);
    store.ask(wish(ANN, BOB)).await.unwrap();
    let (group, _) = store.create_group(me, text("to be renamed")).await.unwrap();
    for (display_name, group_name) in awkward_fields::<128>().into_iter().zip(awkward_fields::<64>()) {
        let before = load(&*store, ANN).await;
        let version = store.modify(me, UserId(BOB), Some(display_name.clone()), None).await.unwrap();
        let changed = u64::from(before.buddies[0].display_name != display_name);
        assert_eq!(
            version.0,
            before.version.0 + changed,
            "{display_name:?} after {:?}",
            before.buddies[0].display_name
        );
        let renamed = store.rename_group(me, group, group_name.clone()).await.unwrap();
        let changed = u64::from(before.groups[0].name != group_name);
        assert_eq!(renamed.0, version.0 + changed, "{group_name:?} after {:?}", before.groups[0].name);
        let after = load(&*store, ANN).await;
        assert_eq!((&after.buddies[0].display_name, &after.groups[0].name), (&display_name, &group_name));
    }
}

pub async fn every_group_name_is_a_group_of_its_own(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let mut names = awkward_fields::<64>();
    names.sort();
    names.dedup();
    assert!(names.len() <= crate::records::GROUPS_MAX, "they fit one user");
    let mut ids = std::collections::BTreeSet::new();
    for name in &names {
        ids.insert(store.create_group(UserId(ANN), name.clone()).await.unwrap().0);
    }
    assert_eq!(ids.len(), names.len());
    drop(store);
    let store = open.open().await;
    let mut found: Vec<_> = load(&*store, ANN).await.groups.into_iter().map(|group| group.name).collect();
    found.sort();
    assert_eq!(found, names);
}

pub async fn every_time_is_kept_at_its_ends(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    for (user, at) in (100..).zip(TIMES) {
        store.ask(Ask { at, ..wish(ANN, user) }).await.unwrap();
        store.ask(Ask { at, ..wish(user, BOB) }).await.unwrap();
        store.block(UserId(ANN), &person(user), at).await.unwrap();
    }
    let (ann, bob) = (load(&*store, ANN).await, load(&*store, BOB).await);
    assert_eq!(ann.buddies.iter().map(|entry| entry.asked_at).collect::<Vec<_>>(), TIMES);
    assert_eq!(bob.requests.iter().map(|request| request.asked_at).collect::<Vec<_>>(), TIMES);
    assert_eq!(ann.blocked.len(), TIMES.len());
}
