//! Cases of [`Placements`] in which calls come at once or again.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use std::sync::Arc;

use xmmep::types::PresenceId;

use super::placements::{email, form, registered, token};
use super::{Open, at, at_once, name};
use crate::placements::{Activation, Placements, Registration};
use crate::records::NewPlacement;

/// Registers all at once and returns the answers.
async fn registered_at_once(store: &Arc<dyn Placements>, forms: Vec<NewPlacement>) -> Vec<Registration> {
    let register = |new| {
        let store = Arc::clone(store);
        async move { store.register(new, at(0)).await.unwrap() }
    };
    at_once(forms.into_iter().map(register)).await
}

fn winners(answers: &[Registration]) -> usize {
    answers.iter().filter(|answer| matches!(answer, Registration::Registered(_))).count()
}

pub async fn of_many_registrations_of_one_name_at_once_one_wins(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let spellings = ["Jörg", "jörg", "JÖRG", "Jo\u{308}rg", "Ｊörg", "jÖrg", "JÖRg", "jörG"];
    let answers =
        registered_at_once(&store, (1..).zip(spellings).map(|(number, name)| form(number, name)).collect()).await;
    assert_eq!(winners(&answers), 1, "{answers:?}");
    let losers = answers.iter().filter(|answer| **answer == Registration::NameTaken).count();
    assert_eq!(losers, answers.len() - 1, "{answers:?}");
}

pub async fn of_many_registrations_of_one_address_at_once_one_wins(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let forms = (1..=8).map(|number| NewPlacement {
        email: email(if number % 2 == 0 { "ann@example.org" } else { "ANN@example.org" }),
        ..form(number, &format!("user{number}"))
    });
    let answers = registered_at_once(&store, forms.collect()).await;
    assert_eq!(winners(&answers), 1, "{answers:?}");
    let losers = answers.iter().filter(|answer| **answer == Registration::EmailTaken).count();
    assert_eq!(losers, answers.len() - 1, "{answers:?}");
}

pub async fn one_request_sent_many_times_at_once_makes_one_user(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let answers = registered_at_once(&store, vec![form(1, "ann"); 8]).await;
    assert_eq!(winners(&answers), 8, "{answers:?}");
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}

pub async fn names_looked_for_at_once_find_each_their_own(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let mut users = Vec::new();
    for number in 0..40 {
        users.push(registered(&*store, form(number, &format!("user{number}"))).await);
    }
    // Some are nobody's, some are looked for twice.
    let wanted: Vec<_> = (20..60).chain(30..50).collect();
    let found = at_once(wanted.iter().map(|number| {
        let (store, name) = (Arc::clone(&store), name(&format!("USER{number}")));
        async move { store.by_name(&name).await.unwrap().map(|placement| placement.user) }
    }));
    let expected: Vec<_> = wanted.iter().map(|number| users.get(*number).copied()).collect();
    assert_eq!(found.await, expected);
}

pub async fn a_repeated_request_gets_the_first_answer_also_after_a_restart(open: &Open<dyn Placements>) {
    let store = open.open().await;
    let user = registered(&*store, form(1, "ann")).await;
    let refused = NewPlacement { email: email("1@example.org"), ..form(2, "Ann") };
    let first = [
        store.register(refused.clone(), at(1)).await.unwrap(),
        store.register(form(3, "Ann"), at(1)).await.unwrap(),
        store.register(NewPlacement { email: email("1@example.org"), ..form(4, "bob") }, at(1)).await.unwrap(),
    ];
    assert_eq!(first, [Registration::BothTaken, Registration::NameTaken, Registration::EmailTaken]);
    drop(store);
    let store = open.open().await;
    let six_days = 6 * 24 * 3600;
    store.forget(at(six_days)).await.unwrap();
    assert_eq!(store.register(form(1, "ann"), at(six_days)).await.unwrap(), Registration::Registered(user));
    assert_eq!(store.register(refused, at(six_days)).await.unwrap(), Registration::BothTaken);
    let other_words = NewPlacement { email: email("new@example.org"), ..form(3, "new") };
    assert_eq!(store.register(other_words, at(six_days)).await.unwrap(), Registration::NameTaken);
    assert_eq!(store.register(form(4, "bob"), at(six_days)).await.unwrap(), Registration::EmailTaken);
}

pub async fn one_token_at_once_for_two_presences_names_one(open: &Open<dyn Placements>) {
    let store = open.open().await;
    registered(&*store, form(1, "ann")).await;
    let tasks = (1..=6).map(|presence| {
        let store = Arc::clone(&store);
        let presence = PresenceId { cluster: 1, presence };
        tokio::spawn(async move { store.begin_activation(&token(1), presence, at(1)).await.unwrap() })
    });
    let mut answers = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        answers.push(task.await.expect("no activation panics"));
    }
    assert!(matches!(answers[0], Activation::Begun(_)), "{:?}", answers[0]);
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
}
