//! Cases of [`Placements`]: registration, activation, tokens. What happens at once is in `placements_races.rs`.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use xmmep::name::Email;
use xmmep::secret::{KdfParams, KeyHash, Salt, TokenHash};
use xmmep::types::{PresenceId, UserId};

use super::{AWKWARD, Open, at, name, profile, request_id};
use crate::placements::{Activation, Placements, Registration, Renewal};
use crate::records::{NewPlacement, PlacementState, REGISTRATION_KEPT};

/// The cases.
#[doc(hidden)]
#[macro_export]
macro_rules! placements_cases {
    ($name:ident, $open:expr) => {
        $crate::suite_cases!(
            $name,
            $open,
            placements: [
                a_registration_is_found_by_name_id_and_token,
                a_name_is_taken_whatever_its_case_and_normal_form,
                names_that_merely_look_alike_are_different,
                an_address_is_taken_whatever_its_case,
                a_name_and_an_address_of_two_users_are_both_reported,
                awkward_profiles_are_kept_byte_for_byte,
                an_expired_registration_makes_way_and_its_id_is_not_used_again,
                activation_goes_through_after_a_restart_at_any_step,
                the_first_presence_named_stays,
                a_used_token_activates_nothing_again,
                an_expired_or_unknown_token_activates_nothing,
                finishing_who_is_not_activating_changes_nothing,
                a_renewed_token_kills_the_old_one,
                a_renewal_repeated_gets_the_first_answer,
                only_who_waits_for_a_mail_gets_a_new_token,
                housekeeping_removes_what_expired_and_nothing_else,
                an_erased_user_frees_name_and_address_but_not_the_id,
            ],
            placements_fields: [
                every_awkward_name_is_a_name_of_its_own,
                every_awkward_address_is_an_address_of_its_own,
                every_text_of_a_form_is_kept_byte_for_byte,
                every_number_of_a_form_is_kept_at_its_ends,
                a_home_is_kept_at_both_ends_of_its_numbers,
                every_change_made_again_gets_the_same_answer_and_changes_nothing,
                a_registration_refused_reserves_nothing,
            ],
            placements_races: [
                of_many_registrations_of_one_name_at_once_one_wins,
                of_many_registrations_of_one_address_at_once_one_wins,
                one_request_sent_many_times_at_once_makes_one_user,
                names_looked_for_at_once_find_each_their_own,
                a_repeated_request_gets_the_first_answer_also_after_a_restart,
                one_token_at_once_for_two_presences_names_one,
            ],
        );
    };
}

const HOME: PresenceId = PresenceId { cluster: 1, presence: 1 };
const ELSEWHERE: PresenceId = PresenceId { cluster: 1, presence: 2 };

/// A token hash made of a number.
pub(super) fn token(number: u8) -> TokenHash {
    TokenHash::from_bytes([number; 32])
}

/// A registration that expires 7 days from the start; its address is `name@example.org` unless changed.
pub(super) fn form(number: u64, user_name: &str) -> NewPlacement {
    NewPlacement {
        request: request_id(number),
        name: name(user_name),
        email: email(&format!("{number}@example.org")),
        salt: Salt([number as u8; 16]),
        kdf: KdfParams::RECOMMENDED,
        key_hash: KeyHash::from_bytes([number as u8 ^ 0xff; 32]),
        token: token(number as u8),
        expires: at(0).after(REGISTRATION_KEPT),
        profile: profile(user_name),
    }
}

pub(super) fn email(text: &str) -> Email {
    Email::new(text).expect("cases use valid addresses")
}

/// Registers and returns the id.
pub(super) async fn registered(store: &dyn Placements, new: NewPlacement) -> UserId {
    match store.register(new, at(0)).await {
        Ok(Registration::Registered(user)) => user,
        other => panic!("expected a registration, not {other:?}"),
    }
}

pub async fn a_registration_is_found_by_name_id_and_token(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let new = form(1, "Jörg_1");
    let user = registered(&*store, new.clone()).await;
    drop(store);
    let store = open.open().await;
    let found = store.by_user(user).await.unwrap().expect("registered");
    assert_eq!(found.name.as_str(), "Jörg_1");
    assert_eq!(found.email.as_str(), "1@example.org");
    assert_eq!((found.salt, found.kdf), (new.salt, new.kdf));
    let kept = found.form.as_ref().expect("the form is kept until activation");
    assert_eq!((&kept.key_hash, &kept.profile), (&new.key_hash, &new.profile));
    assert_eq!(found.state, PlacementState::Registered { expires: new.expires });
    assert_eq!(found.registered_at, at(0));
    assert_eq!(store.by_name(&name("JÖRG_1")).await.unwrap().as_ref(), Some(&found));
    assert_eq!(store.by_token(&new.token).await.unwrap().as_ref(), Some(&found));
    assert_eq!(store.locate(user).await.unwrap(), None);
    assert_eq!(store.by_user(UserId(user.0 + 1)).await.unwrap(), None);
    assert_eq!(store.by_name(&name("Jorg_1")).await.unwrap(), None);
    assert_eq!(store.by_token(&token(99)).await.unwrap(), None);
}

pub async fn a_name_is_taken_whatever_its_case_and_normal_form(open: &Open<dyn Placements>) {
    let store = open.open().await;
    registered(&*store, form(1, "Jörg")).await;
    for (number, spelling) in (2..).zip(["Jörg", "jörg", "JÖRG", "Jo\u{308}rg", "Ｊörg"]) {
        let answer = store.register(form(number, spelling), at(0)).await.unwrap();
        assert_eq!(answer, Registration::NameTaken, "{spelling:?}");
    }
}

pub async fn names_that_merely_look_alike_are_different(open: &Open<dyn Placements>) {
    let store = open.open().await;
    for (number, one) in (1..).zip(["ann", "änn", "a.n", "a_n", "axn", "strasse", "strase", "李雷", "李雪"]) {
        registered(&*store, form(number, one)).await;
        let found = store.by_name(&name(one)).await.unwrap().expect(one);
        assert_eq!(found.name.as_str(), one);
    }
}

pub async fn an_address_is_taken_whatever_its_case(open: &Open<dyn Placements>) {
    let store = open.open().await;
    registered(&*store, NewPlacement { email: email("Ann.B+c@Example.org"), ..form(1, "ann") }).await;
    let other = NewPlacement { email: email("aNN.b+C@example.ORG"), ..form(2, "bob") };
    assert_eq!(store.register(other, at(0)).await.unwrap(), Registration::EmailTaken);
    let different = NewPlacement { email: email("annxb+c@example.org"), ..form(3, "bob") };
    registered(&*store, different).await;
}

pub async fn a_name_and_an_address_of_two_users_are_both_reported(open: &Open<dyn Placements>) {
    let store = open.open().await;
    registered(&*store, form(1, "ann")).await;
    registered(&*store, form(2, "bob")).await;
    let both = NewPlacement { email: email("2@example.org"), ..form(3, "ANN") };
    assert_eq!(store.register(both, at(0)).await.unwrap(), Registration::BothTaken);
}

pub async fn awkward_profiles_are_kept_byte_for_byte(open: &Open<dyn Placements>) {
    let store = open.open().await;
    for (number, about) in (1..).zip(AWKWARD) {
        let new = NewPlacement { profile: profile(about), ..form(number, &format!("u{number}")) };
        let user = registered(&*store, new.clone()).await;
        let found = store.by_user(user).await.unwrap().expect("registered");
        assert_eq!(found.form.expect("kept").profile, new.profile, "{about:?}");
    }
}

pub async fn an_expired_registration_makes_way_and_its_id_is_not_used_again(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let first = registered(&*store, NewPlacement { expires: at(100), ..form(1, "ann") }).await;
    let early = NewPlacement { email: email("1@example.org"), ..form(2, "Ann") };
    assert_eq!(store.register(early, at(99)).await.unwrap(), Registration::BothTaken);
    let by_name = store.register(NewPlacement { expires: at(200), ..form(3, "Ann") }, at(100)).await.unwrap();
    let Registration::Registered(second) = by_name else { panic!("the name is free: {by_name:?}") };
    assert_ne!(second, first);
    assert_eq!(store.by_user(first).await.unwrap(), None);
    let by_email = NewPlacement { email: email("3@example.org"), ..form(4, "bob") };
    let by_email = store.register(by_email, at(200)).await.unwrap();
    let Registration::Registered(third) = by_email else { panic!("the address is free: {by_email:?}") };
    assert_eq!(store.forget(at(10_000_000)).await.unwrap(), 1);
    drop(store);
    let store = open.open().await;
    let fourth = registered(&*store, form(5, "eve")).await;
    assert!(first < second && second < third && third < fourth, "{first} {second} {third} {fourth}");
}

pub async fn activation_goes_through_after_a_restart_at_any_step(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let new = form(1, "ann");
    let user = registered(&*store, new.clone()).await;
    drop(store);
    let store = open.open().await;
    let Activation::Begun(begun) = store.begin_activation(&new.token, HOME, at(1)).await.unwrap() else {
        panic!("the token is good")
    };
    assert_eq!(begun.state, PlacementState::Activating { presence: HOME });
    assert_eq!(begun.form.as_ref().expect("needed by the Presence").profile, new.profile);
    drop(store);
    let store = open.open().await;
    assert_eq!(store.activating().await.unwrap(), [begun]);
    assert_eq!(store.locate(user).await.unwrap(), None, "nobody lives where he may not have arrived");
    store.finish_activation(user).await.unwrap();
    drop(store);
    let store = open.open().await;
    store.finish_activation(user).await.unwrap();
    assert_eq!(store.activating().await.unwrap(), []);
    assert_eq!(store.locate(user).await.unwrap(), Some(HOME));
    let active = store.by_user(user).await.unwrap().expect("active");
    assert_eq!(active.state, PlacementState::Active { presence: HOME });
    assert_eq!(active.form, None, "what the Presence has, the Router forgets");
}

pub async fn the_first_presence_named_stays(open: &Open<dyn Placements>) {
    let store = open.open().await;
    registered(&*store, form(1, "ann")).await;
    let first = store.begin_activation(&token(1), HOME, at(1)).await.unwrap();
    let again = store.begin_activation(&token(1), ELSEWHERE, at(2)).await.unwrap();
    assert_eq!(first, again);
    let late = store.begin_activation(&token(1), ELSEWHERE, at(10_000_000)).await.unwrap();
    assert_eq!(first, late, "what has begun does not expire");
}

pub async fn a_used_token_activates_nothing_again(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let user = registered(&*store, form(1, "ann")).await;
    store.begin_activation(&token(1), HOME, at(1)).await.unwrap();
    store.finish_activation(user).await.unwrap();
    let active = store.by_user(user).await.unwrap().expect("active");
    let again = store.begin_activation(&token(1), ELSEWHERE, at(2)).await.unwrap();
    assert_eq!(again, Activation::AlreadyActive(active.clone()));
    assert_eq!(store.by_user(user).await.unwrap(), Some(active));
}

pub async fn an_expired_or_unknown_token_activates_nothing(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let user = registered(&*store, NewPlacement { expires: at(100), ..form(1, "ann") }).await;
    let before = store.by_user(user).await.unwrap();
    assert_eq!(store.begin_activation(&token(1), HOME, at(100)).await.unwrap(), Activation::Expired);
    assert_eq!(store.begin_activation(&token(2), HOME, at(1)).await.unwrap(), Activation::Unknown);
    assert_eq!(store.by_user(user).await.unwrap(), before);
    assert_eq!(store.activating().await.unwrap(), []);
}

pub async fn finishing_who_is_not_activating_changes_nothing(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let user = registered(&*store, form(1, "ann")).await;
    let before = store.by_user(user).await.unwrap();
    store.finish_activation(user).await.unwrap();
    store.finish_activation(UserId(user.0 + 7)).await.unwrap();
    assert_eq!(store.by_user(user).await.unwrap(), before);
}

pub async fn a_renewed_token_kills_the_old_one(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let user = registered(&*store, form(1, "ann")).await;
    let address = email("1@EXAMPLE.org");
    let renewal = store.renew_token(&address, request_id(50), &token(2), at(9_000), at(10)).await.unwrap();
    assert_eq!(renewal, Renewal::Renewed(user));
    assert_eq!(store.begin_activation(&token(1), HOME, at(11)).await.unwrap(), Activation::Unknown);
    assert_eq!(store.begin_activation(&token(2), HOME, at(9_000)).await.unwrap(), Activation::Expired);
    let begun = store.begin_activation(&token(2), HOME, at(8_999)).await.unwrap();
    assert!(matches!(begun, Activation::Begun(placement) if placement.user == user));
}

pub async fn a_renewal_repeated_gets_the_first_answer(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let user = registered(&*store, form(1, "ann")).await;
    let address = email("1@example.org");
    store.renew_token(&address, request_id(50), &token(2), at(9_000), at(10)).await.unwrap();
    store.renew_token(&address, request_id(51), &token(3), at(9_000), at(11)).await.unwrap();
    drop(store);
    let store = open.open().await;
    let again = store.renew_token(&address, request_id(50), &token(2), at(9_000), at(12)).await.unwrap();
    assert_eq!(again, Renewal::Renewed(user));
    assert_eq!(store.by_token(&token(2)).await.unwrap(), None, "a late repetition does not bring an old token back");
    assert!(store.by_token(&token(3)).await.unwrap().is_some());
}

pub async fn only_who_waits_for_a_mail_gets_a_new_token(open: &Open<dyn Placements>) {
    let store = open.open().await;
    registered(&*store, form(1, "ann")).await;
    registered(&*store, NewPlacement { expires: at(5), ..form(2, "bob") }).await;
    store.begin_activation(&token(1), HOME, at(1)).await.unwrap();
    for (number, address) in (50..).zip(["1@example.org", "2@example.org", "nobody@example.org"]) {
        let renewal =
            store.renew_token(&email(address), request_id(number), &token(9), at(9_000), at(5)).await.unwrap();
        assert_eq!(renewal, Renewal::NothingWaits, "{address}");
    }
    assert_eq!(store.by_token(&token(9)).await.unwrap(), None);
}

pub async fn housekeeping_removes_what_expired_and_nothing_else(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let expired = registered(&*store, NewPlacement { expires: at(100), ..form(1, "ann") }).await;
    let waiting = registered(&*store, NewPlacement { expires: at(101), ..form(2, "bob") }).await;
    let begun = registered(&*store, NewPlacement { expires: at(100), ..form(3, "eve") }).await;
    store.begin_activation(&token(3), HOME, at(1)).await.unwrap();
    assert_eq!(store.forget(at(100)).await.unwrap(), 1);
    assert_eq!(store.forget(at(100)).await.unwrap(), 0);
    assert_eq!(store.by_user(expired).await.unwrap(), None);
    assert!(store.by_user(waiting).await.unwrap().is_some());
    assert!(store.by_user(begun).await.unwrap().is_some());
    let again = store.register(form(1, "ann"), at(100)).await.unwrap();
    assert_eq!(again, Registration::Registered(expired), "the answer to the request is still remembered");
}

pub async fn an_erased_user_frees_name_and_address_but_not_the_id(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let ann = registered(&*store, form(1, "ann")).await;
    store.begin_activation(&token(1), HOME, at(1)).await.unwrap();
    store.finish_activation(ann).await.unwrap();
    let bob = registered(&*store, form(2, "bob")).await;
    assert!(store.erase(ann).await.unwrap());
    assert!(!store.erase(ann).await.unwrap(), "erasing again changes nothing");
    drop(store);
    let store = open.open().await;
    assert_eq!(store.by_user(ann).await.unwrap(), None);
    assert_eq!(store.by_token(&token(1)).await.unwrap(), None);
    assert_eq!(store.locate(ann).await.unwrap(), None);
    let again = registered(&*store, NewPlacement { email: email("1@example.org"), ..form(3, "Ann") }).await;
    assert!(again != ann && again != bob, "{again}");
    assert!(store.by_user(bob).await.unwrap().is_some());
}
