//! Cases of [`Accounts`]: every field at its ends, and limits.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use xmmep::secret::KeyHash;
use xmmep::types::UserId;

use super::accounts::account;
use super::{AWKWARD_NAMES, Open, TIMES, at, awkward_emails, awkward_fields, name};
use crate::accounts::{Accounts, BY_USERS_MAX, Creation, LoginHistory, ProfileChanges};
use crate::records::{NewAccount, Profile};

pub async fn every_awkward_name_is_found_alone(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    for (user, one) in (1..).zip(AWKWARD_NAMES) {
        assert_eq!(store.create(account(user, one)).await.unwrap(), Creation::Created, "{one:?}");
    }
    drop(store);
    let store = open.open().await;
    for (user, one) in (1..).zip(AWKWARD_NAMES) {
        let found = store.by_name(&name(one)).await.unwrap().expect(one);
        assert_eq!((found.user, found.name.as_str()), (UserId(user), one));
    }
    for nobody in ["a%", "a__", "o''neil", "aa", "A1", "nul"].iter().filter_map(|nobody| nobody.parse().ok()) {
        assert_eq!(store.by_name(&nobody).await.unwrap(), None, "{nobody}");
    }
}

pub async fn every_awkward_address_is_kept_byte_for_byte(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    for (user, email) in (1..).zip(awkward_emails()) {
        store.create(NewAccount { email: email.clone(), ..account(user, &format!("u{user}")) }).await.unwrap();
        assert_eq!(store.by_user(UserId(user)).await.unwrap().expect("created").email.as_str(), email.as_str());
    }
}

pub async fn every_text_of_a_profile_is_kept_byte_for_byte_when_it_is_made_and_when_it_is_changed(
    open: &Open<dyn Accounts>,
) {
    let store = open.open().await;
    let texts = awkward_fields::<128>().into_iter().zip(awkward_fields::<256>()).zip(awkward_fields::<10>());
    let profiles = texts.map(|((nickname, personal_msg), birthdate)| Profile {
        location: nickname.clone(),
        nickname,
        personal_msg,
        birthdate,
        ..Profile::default()
    });
    let profiles: Vec<_> = profiles.collect();
    store.create(account(1_000, "changes")).await.unwrap();
    for (user, profile) in (1..).zip(&profiles) {
        let new = NewAccount { profile: profile.clone(), ..account(user, &format!("u{user}")) };
        store.create(new).await.unwrap();
        let changes = ProfileChanges {
            nickname: Some(profile.nickname.clone()),
            personal_msg: Some(profile.personal_msg.clone()),
            birthdate: Some(profile.birthdate.clone()),
            location: Some(profile.location.clone()),
            gender: Some(profile.gender),
            avatar: Some(profile.avatar),
            ..ProfileChanges::default()
        };
        let changed = store.update_profile(UserId(1_000), &changes).await.unwrap().expect("created");
        assert_eq!(changed.profile, *profile);
        assert_eq!(store.by_user(UserId(1_000)).await.unwrap(), Some(changed));
    }
    drop(store);
    let store = open.open().await;
    for (user, profile) in (1..).zip(profiles) {
        assert_eq!(store.by_user(UserId(user)).await.unwrap().expect("created").profile, profile);
    }
}

pub async fn every_number_and_time_is_kept_at_its_ends(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    for (user, time) in (1..).zip(TIMES) {
        store.create(NewAccount { created: time, ..account(user, &format!("u{user}")) }).await.unwrap();
        assert_eq!(store.login_failed(UserId(user), time).await.unwrap(), 1);
        let found = store.by_user(UserId(user)).await.unwrap().expect("created");
        assert_eq!((found.created, found.last_failed, found.last_login), (time, Some(time), None));
        let history = store.logged_in(UserId(user), found.history(), time).await.unwrap();
        assert_eq!(history, Some(LoginHistory { last_login: None, failed_attempts: 1 }));
        let found = store.by_user(UserId(user)).await.unwrap().expect("created");
        assert_eq!((found.last_failed, found.last_login), (None, Some(time)));
    }
    for (user, end) in (100..).zip([0, 1, 0x7f, 0x80, u8::MAX]) {
        let profile = Profile { gender: end, avatar: Some([end; 32]), ..Profile::default() };
        let key_hash = KeyHash::from_bytes([end; 32]);
        let new = NewAccount { profile: profile.clone(), key_hash, ..account(user, &format!("u{user}")) };
        store.create(new.clone()).await.unwrap();
        let found = store.by_user(UserId(user)).await.unwrap().expect("created");
        assert_eq!((found.profile, found.key_hash), (profile, new.key_hash));
    }
    for nobody in [0, u64::MAX, 1 << 63].map(UserId) {
        assert_eq!(store.by_user(nobody).await.unwrap(), None);
        assert_eq!(store.update_profile(nobody, &ProfileChanges::default()).await.unwrap(), None);
    }
}

pub async fn as_many_are_looked_up_at_once_as_promised_and_no_more(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    store.create(account(1, "first")).await.unwrap();
    store.create(account(2, "second")).await.unwrap();
    let mut wanted: Vec<_> = (10..).map(UserId).take(BY_USERS_MAX - 1).collect();
    wanted.push(UserId(1));
    let found = async |wanted: &[UserId]| {
        store.by_users(wanted).await.unwrap().into_iter().map(|account| account.user.0).collect::<Vec<_>>()
    };
    assert_eq!(found(&wanted).await, [1], "the last one that fits");
    wanted.push(UserId(2));
    assert_eq!(found(&wanted).await, [1], "and the first that does not");
    wanted.swap(0, BY_USERS_MAX);
    assert_eq!(found(&wanted).await, [1, 2]);
}

pub async fn a_creation_refused_changes_neither_account(open: &Open<dyn Accounts>) {
    let store = open.open().await;
    store.create(account(1, "ann")).await.unwrap();
    store.create(account(2, "bob")).await.unwrap();
    store.login_failed(UserId(1), at(1)).await.unwrap();
    let before = store.by_users(&[UserId(1), UserId(2)]).await.unwrap();
    for conflict in [account(1, "bob"), account(2, "ANN"), account(1, "new"), account(3, "Bob")] {
        assert_eq!(store.create(conflict).await.unwrap(), Creation::Conflict);
    }
    assert_eq!(store.by_users(&[UserId(1), UserId(2), UserId(3)]).await.unwrap(), before);
    assert_eq!(store.by_name(&name("new")).await.unwrap(), None);
    assert_eq!(store.create(account(3, "new")).await.unwrap(), Creation::Created);
}
