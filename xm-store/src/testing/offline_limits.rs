//! Cases of [`Offline`]: quotas, and what comes at once.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use std::sync::Arc;

use xmmep::types::UserId;

use super::offline::{ANN, BOB, EVE, all, id, parcel, stored};
use super::{Open, at};
use crate::offline::{Appended, Offline};
use crate::records::{Level, PARCEL_BODY_MAX, Parcel, Place, Quotas};

/// Fills the store of Bob with parcels of many senders, as many as the quota allows, and returns how many.
async fn fill(store: &dyn Offline) -> u64 {
    let quotas = Quotas::default();
    for sender in 0..quotas.messages / quotas.messages_per_sender {
        let parcels = (0..quotas.messages_per_sender).map(|number| parcel(UserId(100 + sender), number)).collect();
        let answers = store.append(BOB, parcels).await.unwrap();
        assert!(answers.iter().all(|answer| matches!(answer, Appended::Stored(_))), "{answers:?}");
    }
    quotas.messages
}

pub async fn a_sender_cannot_fill_the_store_alone(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let quota = Quotas::default().messages_per_sender;
    let answers = store.append(BOB, (0..quota + 2).map(|number| parcel(ANN, number)).collect()).await.unwrap();
    let (stored_ones, refused) = answers.split_at(quota as usize);
    assert!(stored_ones.iter().all(|answer| matches!(answer, Appended::Stored(_))), "{answers:?}");
    assert_eq!(refused, [Appended::QuotaFull; 2]);
    stored(&*store, BOB, parcel(EVE, 1)).await;
    stored(&*store, EVE, parcel(ANN, 1)).await;
    assert_eq!(all(&*store, BOB).await.len() as u64, quota + 1);
}

pub async fn the_number_of_messages_is_limited(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let full = fill(&*store).await;
    assert_eq!(store.append(BOB, vec![parcel(ANN, 1)]).await.unwrap(), [Appended::QuotaFull]);
    assert_eq!(store.summary(BOB).await.unwrap().messages, full);
    stored(&*store, EVE, parcel(ANN, 1)).await;
}

pub async fn the_bytes_are_limited(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let full = Quotas::default().bytes / PARCEL_BODY_MAX as u64;
    let rest = (Quotas::default().bytes % PARCEL_BODY_MAX as u64) as usize;
    for number in 0..full {
        let large = Parcel { body: vec![7; PARCEL_BODY_MAX], ..parcel(UserId(100 + number / 100), number) };
        stored(&*store, BOB, large).await;
    }
    let over = Parcel { body: vec![7; rest + 1], ..parcel(ANN, 1) };
    let exact = Parcel { body: vec![7; rest], ..parcel(ANN, 2) };
    let answers = store.append(BOB, vec![over, exact, parcel(ANN, 3)]).await.unwrap();
    assert!(matches!(answers[..], [Appended::QuotaFull, Appended::Stored(_), Appended::QuotaFull]), "{answers:?}");
    assert_eq!(store.summary(BOB).await.unwrap().bytes, Quotas::default().bytes);
}

pub async fn what_is_settled_makes_room(open: &Open<dyn Offline>) {
    let store = open.open().await;
    fill(&*store).await;
    let first = UserId(100);
    store.settle(BOB, &[id(first, 0)], Level::Received, at(1)).await.unwrap();
    let answers = store.append(BOB, vec![parcel(first, 1_000), parcel(ANN, 1)]).await.unwrap();
    assert!(matches!(answers[..], [Appended::Stored(_), Appended::QuotaFull]), "{answers:?}");
    store.settle(BOB, &[id(first, 1)], Level::Read, at(1)).await.unwrap();
    stored(&*store, BOB, parcel(ANN, 1)).await;
}

pub async fn a_duplicate_needs_no_room(open: &Open<dyn Offline>) {
    let store = open.open().await;
    fill(&*store).await;
    let again = store.append(BOB, vec![parcel(UserId(100), 5)]).await.unwrap();
    assert!(matches!(again[..], [Appended::Already(_, Level::Stored)]), "{again:?}");
}

pub async fn a_parcel_over_its_bound_is_refused(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let large = Parcel { body: vec![7; PARCEL_BODY_MAX], ..parcel(ANN, 1) };
    let larger = Parcel { body: vec![7; PARCEL_BODY_MAX + 1], ..parcel(ANN, 2) };
    let answers = store.append(BOB, vec![larger, large.clone(), parcel(ANN, 3)]).await.unwrap();
    assert!(matches!(answers[..], [Appended::TooLarge, Appended::Stored(_), Appended::Stored(_)]), "{answers:?}");
    assert_eq!(all(&*store, BOB).await, [large, parcel(ANN, 3)]);
}

pub async fn quotas_count_after_a_restart(open: &Open<dyn Offline>) {
    let store = open.open().await;
    fill(&*store).await;
    store.settle(BOB, &[id(UserId(100), 0)], Level::Received, at(1)).await.unwrap();
    drop(store);
    let store = open.open().await;
    assert_eq!(store.append(BOB, vec![parcel(UserId(101), 1_000)]).await.unwrap(), [Appended::QuotaFull]);
    stored(&*store, BOB, parcel(UserId(100), 1_000)).await;
    assert_eq!(store.append(BOB, vec![parcel(ANN, 1)]).await.unwrap(), [Appended::QuotaFull]);
}

pub async fn appends_at_once_are_all_kept_in_order(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let tasks = (0..8).map(|sender| {
        let store = Arc::clone(&store);
        let from = UserId(100 + sender);
        tokio::spawn(async move {
            for number in 0..20 {
                stored(&*store, BOB, parcel(from, number)).await;
                let own = store.page(BOB, Place::START, usize::MAX, usize::MAX).await.unwrap();
                assert!(own.iter().any(|(_, one)| *one == parcel(from, number)), "what is stored is there to read");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no append fails");
    }
    drop(store);
    let store = open.open().await;
    let waiting = all(&*store, BOB).await;
    assert_eq!(waiting.len(), 160);
    for sender in 0..8 {
        let from = UserId(100 + sender);
        let own: Vec<_> = waiting.iter().filter(|parcel| parcel.from == from).cloned().collect();
        assert_eq!(own, (0..20).map(|number| parcel(from, number)).collect::<Vec<_>>());
    }
}

pub async fn a_duplicate_at_once_is_stored_once(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let tasks = (0..8).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.append(BOB, vec![parcel(ANN, 1)]).await.unwrap()[0] })
    });
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for task in tasks.collect::<Vec<_>>() {
        match task.await.expect("no append fails") {
            Appended::Stored(place) => first.push(place),
            Appended::Already(place, Level::Stored) => others.push(place),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(first.len(), 1);
    assert!(others.iter().all(|place| *place == first[0]), "{first:?} {others:?}");
    assert_eq!(all(&*store, BOB).await, [parcel(ANN, 1)]);
}
