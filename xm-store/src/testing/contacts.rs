//! Cases of [`Contacts`]: buddies, requests and blocks; groups are in `contacts_groups.rs`.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use std::sync::Arc;

use xmmep::types::{GroupId, UserId};

use super::{AWKWARD, Open, at, at_once, name, text};
use crate::contacts::{Answer, Ask, Asked, Contacts, Standing};
use crate::error::{RosterError, RosterRefusal};
use crate::records::{ASK_AGAIN_AFTER, BuddyState, Person, Roster};

/// The cases.
#[doc(hidden)]
#[macro_export]
macro_rules! contacts_cases {
    ($name:ident, $open:expr) => {
        $crate::suite_cases!(
            $name,
            $open,
            contacts: [
                a_user_without_relations_has_an_empty_roster,
                a_request_is_seen_at_both_ends_after_a_restart,
                an_accepted_request_is_seen_at_both_ends,
                accept_and_add_makes_both_buddies,
                a_refusal_looks_like_waiting,
                a_refused_request_is_put_again_a_day_later,
                a_refusal_can_be_taken_back_but_an_acceptance_cannot,
                asking_again_changes_nothing,
                a_request_taken_back_cannot_be_answered,
                two_who_ask_each_other_can_both_accept,
                removing_a_buddy_leaves_the_other_side_alone,
                changing_an_entry_changes_what_is_given,
                a_block_looks_like_a_pending_request,
                a_block_hides_requests_and_cuts_both_views,
                unblocking_restores_what_was_before,
                nobody_is_his_own_buddy,
                awkward_texts_are_kept_byte_for_byte,
                lists_are_sorted_and_separate,
                rosters_read_at_once_are_each_their_own,
                an_erased_user_is_on_nobodys_list,
            ],
            contacts_fields: [
                every_awkward_name_is_kept_at_both_ends_and_in_blocks,
                every_display_name_and_greeting_is_kept_byte_for_byte,
                every_new_display_name_and_group_name_is_kept_byte_for_byte,
                every_group_name_is_a_group_of_its_own,
                every_time_is_kept_at_its_ends,
            ],
            contacts_retries: [
                every_change_made_again_changes_nothing,
                every_change_refused_changes_nothing_at_either_end,
                what_leaves_a_full_list_makes_room_for_one,
            ],
            contacts_groups: [
                groups_are_kept_with_their_buddies,
                a_group_of_the_same_name_is_the_same_group,
                group_names_are_compared_byte_for_byte,
                renaming_touches_the_name_alone,
                deleting_a_group_moves_its_buddies_to_the_default_group,
                a_group_id_is_not_used_again,
                the_default_group_stays,
                a_group_of_another_user_does_not_exist,
                each_list_ends_at_its_limit,
                changes_at_once_are_all_made,
            ],
        );
    };
}

pub(super) const ANN: u64 = 1;
pub(super) const BOB: u64 = 2;
pub(super) const EVE: u64 = 3;

/// A user named after the id.
#[must_use]
pub fn person(user: u64) -> Person {
    Person { user: UserId(user), name: name(&format!("User{user}")) }
}

/// `me` wants `buddy` as a buddy.
#[must_use]
pub fn wish(me: u64, buddy: u64) -> Ask {
    Ask {
        me: person(me),
        buddy: person(buddy),
        display_name: text("my buddy"),
        group: GroupId::DEFAULT,
        greeting: text("hello"),
        at: at(0),
    }
}

/// `me` asks and `buddy` accepts.
pub(super) async fn befriend(store: &dyn Contacts, me: u64, buddy: u64) {
    store.ask(wish(me, buddy)).await.unwrap();
    store.answer(&person(buddy), UserId(me), Answer::Accept, at(1)).await.unwrap();
}

pub(super) async fn load(store: &dyn Contacts, user: u64) -> Roster {
    store.load(UserId(user)).await.unwrap()
}

/// Who asks, according to the roster.
fn asking(roster: &Roster) -> Vec<u64> {
    roster.requests.iter().map(|request| request.from.user.0).collect()
}

fn audience(roster: &Roster) -> Vec<u64> {
    roster.audience().map(|user| user.0).collect()
}

fn visible(roster: &Roster) -> Vec<u64> {
    roster.visible().map(|user| user.0).collect()
}

pub async fn a_user_without_relations_has_an_empty_roster(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let empty = Roster { version: xmmep::types::RosterVersion(1), ..Roster::default() };
    assert_eq!(load(&*store, ANN).await, empty);
    store.ask(wish(ANN, BOB)).await.unwrap();
    assert_eq!(load(&*store, EVE).await, empty);
}

pub async fn a_request_is_seen_at_both_ends_after_a_restart(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let asked = store.ask(wish(ANN, BOB)).await.unwrap();
    assert!(asked.is_heard());
    assert_eq!((asked.standing, asked.version.0), (Standing::New, 2));
    drop(store);
    let store = open.open().await;
    let ann = load(&*store, ANN).await;
    assert_eq!(ann.buddies, [asked.entry]);
    assert_eq!(ann.version.0, 2);
    let entry = &ann.buddies[0];
    assert_eq!((&entry.buddy, entry.group, entry.state), (&person(BOB), GroupId::DEFAULT, BuddyState::Pending));
    assert_eq!((&*entry.display_name, &*entry.greeting, entry.asked_at), ("my buddy", "hello", at(0)));
    assert_eq!((visible(&ann), audience(&ann)), (vec![], vec![]));
    let bob = load(&*store, BOB).await;
    assert_eq!(bob.requests.len(), 1);
    let request = &bob.requests[0];
    assert_eq!((&request.from, &*request.greeting, request.asked_at), (&person(ANN), "hello", at(0)));
    assert_eq!((&bob.watchers[0].who, bob.watchers[0].state), (&person(ANN), BuddyState::Pending));
    assert_eq!((bob.version.0, visible(&bob), audience(&bob)), (1, vec![], vec![]));
}

pub async fn an_accepted_request_is_seen_at_both_ends(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    store.ask(wish(ANN, BOB)).await.unwrap();
    let answered = store.answer(&person(BOB), UserId(ANN), Answer::Accept, at(1)).await.unwrap();
    assert_eq!((answered.version.0, answered.accepted.map(|version| version.0)), (1, Some(3)));
    let again = store.answer(&person(BOB), UserId(ANN), Answer::Accept, at(2)).await.unwrap();
    assert_eq!((again.version.0, again.accepted), (1, None));
    drop(store);
    let store = open.open().await;
    let (ann, bob) = (load(&*store, ANN).await, load(&*store, BOB).await);
    assert_eq!((ann.buddies[0].state, ann.version.0), (BuddyState::Accepted, 3));
    assert_eq!((visible(&ann), audience(&ann)), (vec![BOB], vec![]));
    assert_eq!((visible(&bob), audience(&bob)), (vec![], vec![ANN]));
    assert_eq!((asking(&bob), bob.buddies.len()), (vec![], 0));
}

pub async fn accept_and_add_makes_both_buddies(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    store.ask(wish(ANN, BOB)).await.unwrap();
    let answered = store.answer(&person(BOB), UserId(ANN), Answer::AcceptAndAdd, at(9)).await.unwrap();
    assert_eq!((answered.version.0, answered.accepted.map(|version| version.0)), (2, Some(3)));
    let again = store.answer(&person(BOB), UserId(ANN), Answer::AcceptAndAdd, at(10)).await.unwrap();
    assert_eq!((again.version.0, again.accepted), (2, None));
    let (ann, bob) = (load(&*store, ANN).await, load(&*store, BOB).await);
    assert_eq!((visible(&ann), audience(&ann)), (vec![BOB], vec![BOB]));
    assert_eq!((visible(&bob), audience(&bob)), (vec![ANN], vec![ANN]));
    let entry = &bob.buddies[0];
    assert_eq!((&entry.buddy, entry.group, &*entry.display_name), (&person(ANN), GroupId::DEFAULT, ""));
    assert_eq!((asking(&ann), asking(&bob)), (vec![], vec![]));
}

pub async fn a_refusal_looks_like_waiting(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    store.ask(wish(ANN, BOB)).await.unwrap();
    let before = load(&*store, ANN).await;
    let answered = store.answer(&person(BOB), UserId(ANN), Answer::Refuse, at(1)).await.unwrap();
    assert_eq!((answered.version.0, answered.accepted), (1, None));
    assert_eq!(load(&*store, ANN).await, before);
    drop(store);
    let store = open.open().await;
    assert_eq!(asking(&load(&*store, BOB).await), [0_u64; 0]);
    store.answer(&person(BOB), UserId(ANN), Answer::Refuse, at(2)).await.unwrap();
    assert_eq!(load(&*store, ANN).await, before);
}

pub async fn a_refused_request_is_put_again_a_day_later(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    store.ask(wish(ANN, BOB)).await.unwrap();
    store.answer(&person(BOB), UserId(ANN), Answer::Refuse, at(1)).await.unwrap();
    let day = at(0).after(ASK_AGAIN_AFTER);
    let early = store.ask(Ask { at: xmmep::types::WallTime(day.0 - 1), ..wish(ANN, BOB) }).await.unwrap();
    assert_eq!((early.standing, early.is_heard(), early.version.0), (Standing::Pending, false, 2));
    assert_eq!(asking(&load(&*store, BOB).await), [0_u64; 0]);
    let again = store.ask(Ask { at: day, greeting: text("please"), ..wish(ANN, BOB) }).await.unwrap();
    assert_eq!((again.standing, again.is_heard(), again.version.0), (Standing::Pending, true, 2));
    let bob = load(&*store, BOB).await;
    assert_eq!((asking(&bob), &*bob.requests[0].greeting, bob.requests[0].asked_at), (vec![ANN], "please", day));
}

pub async fn a_refusal_can_be_taken_back_but_an_acceptance_cannot(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    store.ask(wish(ANN, BOB)).await.unwrap();
    store.answer(&person(BOB), UserId(ANN), Answer::Refuse, at(1)).await.unwrap();
    let answered = store.answer(&person(BOB), UserId(ANN), Answer::Accept, at(2)).await.unwrap();
    assert!(answered.accepted.is_some());
    let refused = store.answer(&person(BOB), UserId(ANN), Answer::Refuse, at(3)).await.unwrap();
    assert_eq!(refused.accepted, None);
    assert_eq!(load(&*store, ANN).await.buddies[0].state, BuddyState::Accepted);
}

pub async fn asking_again_changes_nothing(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let first = store.ask(wish(ANN, BOB)).await.unwrap();
    let other = Ask { display_name: text("other"), greeting: text("other"), at: at(99), ..wish(ANN, BOB) };
    let again = store.ask(other.clone()).await.unwrap();
    assert_eq!((again.standing, again.is_heard(), again.version), (Standing::Pending, false, first.version));
    assert_eq!(again.entry, first.entry);
    store.answer(&person(BOB), UserId(ANN), Answer::Accept, at(100)).await.unwrap();
    let accepted = store.ask(other).await.unwrap();
    assert_eq!((accepted.standing, accepted.is_heard(), accepted.version.0), (Standing::Accepted, false, 3));
    assert_eq!(&*accepted.entry.display_name, "my buddy");
}

pub async fn a_request_taken_back_cannot_be_answered(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    store.ask(wish(ANN, BOB)).await.unwrap();
    store.remove(UserId(ANN), UserId(BOB)).await.unwrap();
    for answer in [Answer::Accept, Answer::AcceptAndAdd, Answer::Refuse] {
        let result = store.answer(&person(BOB), UserId(ANN), answer, at(1)).await;
        assert_eq!(result, Err(RosterError::Refused(RosterRefusal::NoSuchRequest)), "{answer:?}");
    }
    let bob = load(&*store, BOB).await;
    assert_eq!((bob.buddies.len(), bob.watchers.len(), bob.version.0), (0, 0, 1));
}

pub async fn two_who_ask_each_other_can_both_accept(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    store.ask(wish(ANN, BOB)).await.unwrap();
    store.ask(wish(BOB, ANN)).await.unwrap();
    assert_eq!((asking(&load(&*store, ANN).await), asking(&load(&*store, BOB).await)), (vec![BOB], vec![ANN]));
    let answered = store.answer(&person(BOB), UserId(ANN), Answer::AcceptAndAdd, at(1)).await.unwrap();
    assert_eq!((answered.version.0, answered.accepted.map(|version| version.0)), (3, Some(3)));
    let (ann, bob) = (load(&*store, ANN).await, load(&*store, BOB).await);
    assert_eq!((visible(&ann), visible(&bob), asking(&ann)), (vec![BOB], vec![ANN], vec![]));
    assert_eq!(&*bob.buddies[0].display_name, "my buddy", "the entry from before is kept");
}

pub async fn removing_a_buddy_leaves_the_other_side_alone(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    befriend(&*store, ANN, BOB).await;
    befriend(&*store, BOB, ANN).await;
    let bob_before = load(&*store, BOB).await;
    assert_eq!(store.remove(UserId(ANN), UserId(BOB)).await.unwrap().0, 4);
    assert_eq!(store.remove(UserId(ANN), UserId(BOB)).await.unwrap().0, 4, "removing again changes nothing");
    drop(store);
    let store = open.open().await;
    let (ann, bob) = (load(&*store, ANN).await, load(&*store, BOB).await);
    assert_eq!((ann.buddies.len(), visible(&ann), audience(&ann)), (0, vec![], vec![BOB]));
    assert_eq!((bob.buddies, bob.version), (bob_before.buddies, bob_before.version));
    assert_eq!(bob.watchers, []);
    assert_eq!(store.ask(wish(ANN, BOB)).await.unwrap().standing, Standing::New);
}

pub async fn changing_an_entry_changes_what_is_given(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let (ann, bob) = (UserId(ANN), UserId(BOB));
    store.ask(wish(ANN, BOB)).await.unwrap();
    let (group, _) = store.create_group(ann, text("work")).await.unwrap();
    assert_eq!(store.modify(ann, bob, Some(text("Bobby")), None).await.unwrap().0, 4);
    assert_eq!(store.modify(ann, bob, None, Some(group)).await.unwrap().0, 5);
    assert_eq!(store.modify(ann, bob, Some(text("Bobby")), Some(group)).await.unwrap().0, 5, "nothing changed");
    assert_eq!(store.modify(ann, bob, None, None).await.unwrap().0, 5);
    let entry = load(&*store, ANN).await.buddies.remove(0);
    assert_eq!((&*entry.display_name, entry.group, entry.state), ("Bobby", group, BuddyState::Pending));
    let nobody = store.modify(ann, UserId(EVE), Some(text("x")), None).await;
    assert_eq!(nobody, Err(RosterError::Refused(RosterRefusal::NoSuchBuddy)));
    let nowhere = store.modify(ann, bob, Some(text("x")), Some(GroupId(77))).await;
    assert_eq!(nowhere, Err(RosterError::Refused(RosterRefusal::NoSuchGroup(GroupId(77)))));
    assert_eq!(&*load(&*store, ANN).await.buddies[0].display_name, "Bobby", "half a change is none");
}

pub async fn a_block_looks_like_a_pending_request(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    store.block(UserId(BOB), &person(ANN), at(0)).await.unwrap();
    let blocked = store.ask(wish(ANN, BOB)).await.unwrap();
    let unblocked = store.ask(wish(ANN, EVE)).await.unwrap();
    assert!(!blocked.is_heard());
    assert!(unblocked.is_heard());
    let seen = |asked: &Asked| (asked.standing, asked.entry.state, asked.entry.asked_at, asked.entry.group);
    assert_eq!(seen(&blocked), seen(&unblocked));
    let ann = load(&*store, ANN).await;
    assert_eq!((ann.buddies.len(), ann.version.0), (2, 3));
    assert_eq!(asking(&load(&*store, BOB).await), [0_u64; 0], "the one who blocks is not asked");
    let guess = store.answer(&person(BOB), UserId(ANN), Answer::Accept, at(1)).await;
    assert_eq!(guess, Err(RosterError::Refused(RosterRefusal::NoSuchRequest)));
}

pub async fn a_block_hides_requests_and_cuts_both_views(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    befriend(&*store, ANN, BOB).await;
    befriend(&*store, BOB, ANN).await;
    store.ask(wish(EVE, BOB)).await.unwrap();
    assert_eq!(store.block(UserId(BOB), &person(ANN), at(2)).await.unwrap().0, 4);
    assert_eq!(store.block(UserId(BOB), &person(ANN), at(3)).await.unwrap().0, 4, "blocking again changes nothing");
    store.block(UserId(BOB), &person(EVE), at(2)).await.unwrap();
    drop(store);
    let store = open.open().await;
    let (ann, bob) = (load(&*store, ANN).await, load(&*store, BOB).await);
    assert_eq!(bob.blocked, [person(ANN), person(EVE)]);
    assert_eq!((visible(&bob), audience(&bob), asking(&bob)), (vec![], vec![], vec![]));
    assert_eq!((visible(&ann), audience(&ann), ann.blocked_by), (vec![], vec![], vec![UserId(BOB)]));
    assert_eq!(ann.version.0, 3, "the blocked user's roster shows no change");
    assert_eq!(ann.buddies[0].state, BuddyState::Accepted);
}

pub async fn unblocking_restores_what_was_before(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let bob_id = UserId(BOB);
    befriend(&*store, BOB, ANN).await;
    let (work, _) = store.create_group(bob_id, text("work")).await.unwrap();
    let (home, _) = store.create_group(bob_id, text("home")).await.unwrap();
    store.modify(bob_id, UserId(ANN), None, Some(work)).await.unwrap();
    store.ask(wish(ANN, BOB)).await.unwrap();
    let before = load(&*store, BOB).await;
    store.block(bob_id, &person(ANN), at(2)).await.unwrap();
    let version = store.unblock(bob_id, UserId(ANN), None).await.unwrap();
    let after = load(&*store, BOB).await;
    assert_eq!(after, Roster { version, ..before });
    assert_eq!(asking(&after), [ANN], "the hidden request shows again");
    assert_eq!(store.unblock(bob_id, UserId(ANN), Some(home)).await.unwrap(), version, "there is no block to end");
    assert_eq!(load(&*store, BOB).await.buddies[0].group, work);
    store.block(bob_id, &person(ANN), at(3)).await.unwrap();
    let nowhere = store.unblock(bob_id, UserId(ANN), Some(GroupId(77))).await;
    assert_eq!(nowhere, Err(RosterError::Refused(RosterRefusal::NoSuchGroup(GroupId(77)))));
    store.unblock(bob_id, UserId(ANN), Some(home)).await.unwrap();
    let moved = load(&*store, BOB).await;
    assert_eq!((moved.buddies[0].group, moved.blocked), (home, vec![]));
}

pub async fn nobody_is_his_own_buddy(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    let oneself = RosterError::Refused(RosterRefusal::Oneself);
    assert_eq!(store.ask(wish(ANN, ANN)).await.unwrap_err(), oneself);
    assert_eq!(store.block(UserId(ANN), &person(ANN), at(0)).await.unwrap_err(), oneself);
    assert_eq!(load(&*store, ANN).await.version.0, 1);
}

pub async fn awkward_texts_are_kept_byte_for_byte(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    for (user, about) in (10..).zip(AWKWARD) {
        let wish = Ask { display_name: text(about), greeting: text(about), ..wish(ANN, user) };
        store.ask(wish).await.unwrap();
        let entry = load(&*store, ANN).await.buddies.pop().expect("asked");
        assert_eq!((entry.display_name.as_str(), entry.greeting.as_str()), (about, about));
        let request = load(&*store, user).await.requests.pop().expect("asked");
        assert_eq!(request.greeting.as_str(), about);
    }
}

pub async fn lists_are_sorted_and_separate(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    for user in [30, u64::MAX, 10, 20] {
        store.ask(wish(ANN, user)).await.unwrap();
        store.ask(wish(user, ANN)).await.unwrap();
        store.block(UserId(ANN), &person(user), at(0)).await.unwrap();
        store.block(UserId(user), &person(ANN), at(0)).await.unwrap();
        store.ask(wish(user, BOB)).await.unwrap();
    }
    let ann = load(&*store, ANN).await;
    let sorted = [10, 20, 30, u64::MAX].map(UserId);
    assert_eq!(ann.buddies.iter().map(|entry| entry.buddy.user).collect::<Vec<_>>(), sorted);
    assert_eq!(ann.watchers.iter().map(|watcher| watcher.who.user).collect::<Vec<_>>(), sorted);
    assert_eq!(ann.blocked.iter().map(|person| person.user).collect::<Vec<_>>(), sorted);
    assert_eq!(ann.blocked_by, sorted);
    assert_eq!(asking(&load(&*store, BOB).await), [10, 20, 30, u64::MAX]);
}

pub async fn rosters_read_at_once_are_each_their_own(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    for user in 1..=20 {
        befriend(&*store, user, user + 1).await;
        store.ask(wish(user, user + 2)).await.unwrap();
        store.block(UserId(user), &person(user + 3), at(user)).await.unwrap();
        store.create_group(UserId(user), text(&format!("group of {user}"))).await.unwrap();
    }
    let mut alone = Vec::new();
    for user in 1..=30 {
        alone.push(load(&*store, user).await);
    }
    let twice: Vec<_> = (1..=30).chain((1..=30).rev()).collect();
    let read = at_once(twice.iter().map(|&user| {
        let store = Arc::clone(&store);
        async move { (user, load(&*store, user).await) }
    }));
    for (user, roster) in read.await {
        assert_eq!(roster, alone[user as usize - 1], "user {user}");
    }
}

pub async fn an_erased_user_is_on_nobodys_list(open: &Open<dyn Contacts>) {
    let store = open.open().await;
    befriend(&*store, ANN, BOB).await;
    store.ask(wish(BOB, ANN)).await.unwrap();
    store.create_group(UserId(ANN), text("work")).await.unwrap();
    store.ask(wish(4, ANN)).await.unwrap();
    store.block(UserId(ANN), &person(EVE), at(2)).await.unwrap();
    store.block(UserId(EVE), &person(ANN), at(2)).await.unwrap();
    store.ask(wish(5, BOB)).await.unwrap();
    let (bob, eve, five) = (load(&*store, BOB).await, load(&*store, EVE).await, load(&*store, 5).await);
    assert_eq!(store.erase(UserId(ANN)).await.unwrap(), [BOB, EVE, 4].map(UserId));
    assert_eq!(store.erase(UserId(ANN)).await.unwrap(), [], "erasing again changes nothing");
    drop(store);
    let store = open.open().await;
    let empty = Roster { version: xmmep::types::RosterVersion(1), ..Roster::default() };
    assert_eq!(load(&*store, ANN).await, empty);
    let after = load(&*store, BOB).await;
    assert_eq!((after.buddies.len(), after.watchers.len(), asking(&after)), (0, 1, vec![5]), "others stay");
    assert_eq!(after.version.0, bob.version.0 + 1, "so that the client loads its list again");
    let after = load(&*store, EVE).await;
    assert_eq!((after.blocked, after.blocked_by, after.version.0), (vec![], vec![], eve.version.0 + 1));
    assert_eq!(load(&*store, 5).await, five, "whoever had nothing to do with it sees no change");
}
