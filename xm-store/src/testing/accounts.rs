//! Cases of [`Accounts`].

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use std::sync::Arc;

use xmmep::name::Email;
use xmmep::secret::KeyHash;
use xmmep::types::UserId;

use super::{AWKWARD, Open, at, at_once, name, profile};
use crate::accounts::{Accounts, Creation, LoginHistory};
use crate::records::NewAccount;

/// The cases.
#[doc(hidden)]
#[macro_export]
macro_rules! accounts_cases {
    ($name:ident, $open:expr) => {
        $crate::suite_cases!(
            $name,
            $open,
            accounts: [
                an_account_is_found_by_name_and_id_after_a_restart,
                taking_an_account_again_changes_nothing,
                an_id_or_a_name_of_another_account_is_a_conflict,
                of_many_accounts_of_one_name_at_once_one_is_taken,
                many_accounts_are_found_in_one_call,
                names_looked_for_at_once_find_each_their_own,
                awkward_profiles_are_kept_byte_for_byte,
                failures_are_counted_until_the_next_good_login,
                what_happened_after_the_caller_read_counts,
                failures_at_once_are_all_counted,
                logins_of_nobody_change_nothing,
                ids_from_end_to_end_are_kept,
                an_erased_account_is_gone_and_its_name_free,
            ],
            accounts_fields: [
                every_awkward_name_is_found_alone,
                every_awkward_address_is_kept_byte_for_byte,
                every_text_of_a_profile_is_kept_byte_for_byte_when_it_is_made_and_when_it_is_changed,
                every_number_and_time_is_kept_at_its_ends,
                as_many_are_looked_up_at_once_as_promised_and_no_more,
                a_creation_refused_changes_neither_account,
            ],
        );
    };
}

pub(super) fn account(user: u64, user_name: &str) -> NewAccount {
    NewAccount {
        user: UserId(user),
        name: name(user_name),
        email: Email::new("Someone@Example.org").unwrap(),
        key_hash: KeyHash::from_bytes([user as u8; 32]),
        profile: profile(user_name),
        created: at(user % 1_000),
    }
}

pub async fn an_account_is_found_by_name_and_id_after_a_restart(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    let new = account(7, "Jörg");
    assert_eq!(store.create(new.clone()).await.unwrap(), Creation::Created);
    drop(store);
    let store = open.open().await;
    let found = store.by_user(UserId(7)).await.unwrap().expect("created");
    assert_eq!((found.user, found.name.as_str(), found.email.as_str()), (UserId(7), "Jörg", "Someone@Example.org"));
    assert_eq!((&found.key_hash, &found.profile, found.created), (&new.key_hash, &new.profile, new.created));
    assert_eq!((found.last_login, found.failed_attempts, found.last_failed), (None, 0, None));
    assert_eq!(store.by_name(&name("JÖRG")).await.unwrap(), Some(found));
    assert_eq!(store.by_name(&name("Jorg")).await.unwrap(), None);
    assert_eq!(store.by_name(&name("J_rg")).await.unwrap(), None);
    assert_eq!(store.by_user(UserId(8)).await.unwrap(), None);
}

pub async fn taking_an_account_again_changes_nothing(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    store.create(account(7, "ann")).await.unwrap();
    store.login_failed(UserId(7), at(1)).await.unwrap();
    let before = store.by_user(UserId(7)).await.unwrap();
    assert_eq!(store.create(account(7, "ann")).await.unwrap(), Creation::Already);
    assert_eq!(store.by_user(UserId(7)).await.unwrap(), before);
}

pub async fn an_id_or_a_name_of_another_account_is_a_conflict(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    store.create(account(7, "ann")).await.unwrap();
    assert_eq!(store.create(account(7, "bob")).await.unwrap(), Creation::Conflict);
    assert_eq!(store.create(account(8, "ANN")).await.unwrap(), Creation::Conflict);
    assert_eq!(store.by_user(UserId(7)).await.unwrap().expect("kept").name.as_str(), "ann");
    assert_eq!(store.by_user(UserId(8)).await.unwrap(), None);
    assert_eq!(store.by_name(&name("bob")).await.unwrap(), None);
}

pub async fn of_many_accounts_of_one_name_at_once_one_is_taken(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    let tasks = (1..=8).map(|user| {
        let store = Arc::clone(&store);
        let spelling = if user % 2 == 0 { "Ann" } else { "aNN" };
        tokio::spawn(async move { store.create(account(user, spelling)).await.unwrap() })
    });
    let mut created = 0;
    for task in tasks.collect::<Vec<_>>() {
        match task.await.expect("no creation panics") {
            Creation::Created => created += 1,
            Creation::Conflict => {}
            Creation::Already => panic!("each task brings another user"),
        }
    }
    assert_eq!(created, 1);
}

pub async fn many_accounts_are_found_in_one_call(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    for user in 1..=40 {
        store.create(account(user, &format!("user{user}"))).await.unwrap();
    }
    let wanted: Vec<_> = [40, 3, 999, 17, 3, 1].map(UserId).into();
    let found: Vec<_> = store.by_users(&wanted).await.unwrap().into_iter().map(|one| one.user.0).collect();
    assert_eq!(found, [1, 3, 17, 40], "each once, by id, without the unknown");
    let all: Vec<_> = (1..=900).map(UserId).collect();
    assert_eq!(store.by_users(&all).await.unwrap().len(), 40);
    assert_eq!(store.by_users(&[]).await.unwrap(), []);
}

pub async fn names_looked_for_at_once_find_each_their_own(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    for user in 1..=40 {
        store.create(account(user, &format!("user{user}"))).await.unwrap();
    }
    // Some are nobody's, some are looked for three times.
    let wanted: Vec<_> = (20..60).chain(30..50).chain([30; 20]).collect();
    let found = at_once(wanted.iter().map(|user| {
        let (store, name) = (Arc::clone(&store), name(&format!("USER{user}")));
        async move { store.by_name(&name).await.unwrap().map(|account| account.user.0) }
    }));
    let expected: Vec<_> = wanted.iter().map(|user| Some(*user).filter(|user| *user <= 40)).collect();
    assert_eq!(found.await, expected);
}

pub async fn awkward_profiles_are_kept_byte_for_byte(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    for (user, about) in (1..).zip(AWKWARD) {
        let new = NewAccount { profile: profile(about), ..account(user, &format!("user{user}")) };
        store.create(new.clone()).await.unwrap();
        assert_eq!(store.by_user(UserId(user)).await.unwrap().expect("created").profile, new.profile, "{about:?}");
    }
}

pub async fn failures_are_counted_until_the_next_good_login(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    let user = UserId(7);
    store.create(account(7, "ann")).await.unwrap();
    let never = LoginHistory::default();
    assert_eq!(store.logged_in(user, never, at(1)).await.unwrap(), Some(never));
    assert_eq!(store.login_failed(user, at(2)).await.unwrap(), 1);
    drop(store);
    let store = open.open().await;
    assert_eq!(store.login_failed(user, at(3)).await.unwrap(), 2);
    let found = store.by_user(user).await.unwrap().expect("created");
    assert_eq!((found.last_login, found.failed_attempts, found.last_failed), (Some(at(1)), 2, Some(at(3))));
    let before = LoginHistory { last_login: Some(at(1)), failed_attempts: 2 };
    assert_eq!(found.history(), before);
    assert_eq!(store.logged_in(user, before, at(4)).await.unwrap(), Some(before));
    let found = store.by_user(user).await.unwrap().expect("created");
    assert_eq!((found.last_login, found.failed_attempts, found.last_failed), (Some(at(4)), 0, None));
}

pub async fn what_happened_after_the_caller_read_counts(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    let user = UserId(7);
    store.create(account(7, "ann")).await.unwrap();
    let never = LoginHistory::default();
    // Another device was faster, somebody guessed a password, both.
    store.logged_in(user, never, at(1)).await.unwrap();
    let other = LoginHistory { last_login: Some(at(1)), failed_attempts: 0 };
    assert_eq!(store.logged_in(user, never, at(2)).await.unwrap(), Some(other));
    let read = store.by_user(user).await.unwrap().expect("created").history();
    store.login_failed(user, at(3)).await.unwrap();
    let guessed = LoginHistory { last_login: Some(at(2)), failed_attempts: 1 };
    assert_eq!(store.logged_in(user, read, at(4)).await.unwrap(), Some(guessed));
    let found = store.by_user(user).await.unwrap().expect("created");
    assert_eq!((found.last_login, found.failed_attempts, found.last_failed), (Some(at(4)), 0, None));
    let wrong = LoginHistory { last_login: None, failed_attempts: 9 };
    assert_eq!(store.logged_in(user, wrong, at(5)).await.unwrap(), Some(found.history()));
}

pub async fn failures_at_once_are_all_counted(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    store.create(account(7, "ann")).await.unwrap();
    let tasks = (0..8).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.login_failed(UserId(7), at(1)).await.unwrap() })
    });
    let mut counts = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        counts.push(task.await.expect("no call panics"));
    }
    counts.sort_unstable();
    assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8]);
}

pub async fn logins_of_nobody_change_nothing(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    assert_eq!(store.logged_in(UserId(7), LoginHistory::default(), at(1)).await.unwrap(), None);
    assert_eq!(store.login_failed(UserId(7), at(1)).await.unwrap(), 0);
    assert_eq!(store.by_user(UserId(7)).await.unwrap(), None);
}

pub async fn ids_from_end_to_end_are_kept(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    let ids = [1, u64::MAX, 1 << 63, (1 << 63) - 1, u64::from(u32::MAX) + 1];
    for (number, user) in (1..).zip(ids) {
        store.create(account(user, &format!("user{number}"))).await.unwrap();
    }
    let found = store.by_users(&ids.map(UserId)).await.unwrap();
    let mut sorted = ids;
    sorted.sort_unstable();
    assert_eq!(found.iter().map(|one| one.user.0).collect::<Vec<_>>(), sorted);
}

pub async fn an_erased_account_is_gone_and_its_name_free(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    store.create(account(7, "ann")).await.unwrap();
    store.create(account(8, "bob")).await.unwrap();
    assert!(store.erase(UserId(7)).await.unwrap());
    assert!(!store.erase(UserId(7)).await.unwrap(), "erasing again changes nothing");
    drop(store);
    let store = open.open().await;
    assert_eq!(store.by_user(UserId(7)).await.unwrap(), None);
    assert_eq!(store.by_name(&name("ann")).await.unwrap(), None);
    assert_eq!(store.by_users(&[UserId(7), UserId(8)]).await.unwrap().len(), 1);
    assert_eq!(store.create(account(9, "Ann")).await.unwrap(), Creation::Created);
}
