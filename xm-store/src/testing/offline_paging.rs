//! Cases of [`Offline`]: reading while others write, bodies and numbers at their ends, calls made again.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;

use xmmep::types::{MsgId, UserId};

use super::offline::{ANN, BOB, EVE, all, id, parcel, stored};
use super::{Open, TIMES, at};
use crate::offline::{Appended, Offline};
use crate::records::{LEVEL_KEPT, Level, PARCEL_BODY_MAX, Parcel, ParcelId, Place, Quotas};

/// All that waits for Bob, page by page; no place twice, in order.
async fn read(store: &dyn Offline, messages_max: usize, bytes_max: usize) -> Vec<Parcel> {
    let (mut parcels, mut after) = (Vec::new(), Place::START);
    loop {
        let page = store.page(BOB, after, messages_max, bytes_max).await.unwrap();
        if page.is_empty() {
            return parcels;
        }
        for (place, parcel) in page {
            assert!(place > after, "{place:?} after {after:?}");
            after = place;
            parcels.push(parcel);
        }
    }
}

pub async fn reading_on_misses_nothing_while_others_append_and_settle(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let steady: Vec<_> = (0..60).map(|number| parcel(ANN, number)).collect();
    store.append(BOB, steady.clone()).await.unwrap();
    let passing: Vec<_> = (0..60).map(|number| parcel(EVE, number)).collect();
    store.append(BOB, passing.clone()).await.unwrap();
    let settling = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in 0..60 {
                store.settle(BOB, &[id(EVE, number)], Level::Received, at(1)).await.unwrap();
            }
        })
    };
    let appending = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for number in 0..60 {
                stored(&*store, BOB, parcel(UserId(9), number)).await;
            }
        })
    };
    for (messages_max, bytes_max) in [(1, 10_000), (7, 10_000), (64, 100), (64, 10_000)] {
        let parcels = read(&*store, messages_max, bytes_max).await;
        let from_ann: Vec<_> = parcels.iter().filter(|parcel| parcel.from == ANN).cloned().collect();
        assert_eq!(from_ann, steady, "what waits the whole time is read once, in order");
        for from in [EVE, UserId(9)] {
            let ids: Vec<_> = parcels.iter().filter(|parcel| parcel.from == from).map(|parcel| parcel.sent).collect();
            assert!(ids.is_sorted(), "{ids:?}");
            assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "none twice");
        }
    }
    settling.await.expect("it goes through");
    appending.await.expect("it goes through");
    let left = read(&*store, 64, 10_000).await;
    let new = (0..60).map(|number| parcel(UserId(9), number));
    assert_eq!(left, steady.into_iter().chain(new).collect::<Vec<_>>());
}

pub async fn pages_end_at_the_byte(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let sizes = [10, 0, 20, 30, 0, 0, PARCEL_BODY_MAX, 1];
    let parcels = (1..).zip(sizes).map(|(number, size)| Parcel { body: vec![1; size], ..parcel(ANN, number) });
    store.append(BOB, parcels.collect()).await.unwrap();
    for (bytes_max, expected) in [
        (0, 1),
        (9, 1),
        (10, 2),
        (29, 2),
        (30, 3),
        (59, 3),
        (60, 6),
        (60 + PARCEL_BODY_MAX - 1, 6),
        (60 + PARCEL_BODY_MAX, 7),
        (61 + PARCEL_BODY_MAX, 8),
        (usize::MAX, 8),
    ] {
        let page = store.page(BOB, Place::START, usize::MAX, bytes_max).await.unwrap();
        assert_eq!(page.len(), expected, "{bytes_max} bytes");
    }
    for messages_max in 1..=9 {
        let page = store.page(BOB, Place::START, messages_max, usize::MAX).await.unwrap();
        assert_eq!(page.len(), messages_max.min(8));
    }
}

pub async fn bodies_of_every_byte_and_every_size_are_kept(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let mut bodies: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte; 3]).collect();
    bodies.extend(
        [0, 1, 255, 256, 4_095, 4_096, PARCEL_BODY_MAX - 1, PARCEL_BODY_MAX]
            .map(|size| (0..=u8::MAX).cycle().take(size).collect()),
    );
    let per_sender = Quotas::default().messages_per_sender as usize;
    let parcels = (0..).zip(bodies);
    let parcels: Vec<_> = parcels
        .map(|(number, body)| Parcel { body, ..parcel(UserId(100 + number / per_sender as u64), number) })
        .collect();
    for chunk in parcels.chunks(50) {
        let answers = store.append(BOB, chunk.to_vec()).await.unwrap();
        assert!(answers.iter().all(|answer| matches!(answer, Appended::Stored(_))), "{answers:?}");
    }
    drop(store);
    let store = open.open().await;
    assert!(all(&*store, BOB).await == parcels, "byte for byte");
}

pub async fn ids_and_times_are_kept_at_their_ends(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let users = [0, 1, (1 << 63) - 1, 1 << 63, u64::MAX].map(UserId);
    let ids = [[0; 16], [0x7f; 16], [0x80; 16], [0xff; 16]].map(MsgId);
    let mut expected = Vec::new();
    for (from, to) in users.iter().flat_map(|from| users.iter().map(move |to| (*from, *to))) {
        for (id, sent) in ids.into_iter().zip(TIMES) {
            let one = Parcel { from, id, sent, body: format!("{from} to {to}").into_bytes() };
            stored(&*store, to, one.clone()).await;
            expected.push((to, one));
        }
    }
    drop(store);
    let store = open.open().await;
    for to in users {
        let own: Vec<_> = expected.iter().filter(|(other, _)| *other == to).map(|(_, parcel)| parcel.clone()).collect();
        assert_eq!(all(&*store, to).await, own);
        let summary = store.summary(to).await.unwrap();
        assert_eq!((summary.messages as usize, summary.oldest), (own.len(), Some(TIMES[0])));
        for one in own {
            let id = ParcelId { from: one.from, id: one.id };
            assert_eq!(store.settle(to, &[id], Level::Read, TIMES[3]).await.unwrap(), [id]);
            assert_eq!(store.level(to, id).await.unwrap(), Some(Level::Read));
        }
    }
    store.forget(TIMES[3]).await.unwrap();
    assert_eq!(store.level(users[4], ParcelId { from: users[4], id: ids[3] }).await.unwrap(), Some(Level::Read));
}

pub async fn every_call_made_again_changes_nothing(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let parcels: Vec<_> = (1..=6).map(|number| parcel(ANN, number)).collect();
    let first = store.append(BOB, parcels.clone()).await.unwrap();
    let again = store.append(BOB, parcels.clone()).await.unwrap();
    for (first, again) in first.iter().zip(again) {
        let Appended::Stored(place) = *first else { panic!("{first:?}") };
        assert_eq!(again, Appended::Already(place, Level::Stored));
    }
    assert_eq!(all(&*store, BOB).await, parcels);
    let settled = [id(ANN, 1), id(ANN, 2)];
    assert_eq!(store.settle(BOB, &settled, Level::Received, at(10)).await.unwrap(), settled);
    assert_eq!(store.settle(BOB, &settled, Level::Received, at(11)).await.unwrap(), []);
    let twice = [id(ANN, 3), id(ANN, 3)];
    assert_eq!(store.settle(BOB, &twice, Level::Received, at(10)).await.unwrap(), [id(ANN, 3)]);
    assert_eq!(store.expire(at(5), at(20), 100).await.unwrap().len(), 1);
    assert_eq!(store.expire(at(5), at(21), 100).await.unwrap(), []);
    assert_eq!(store.expire(at(100), at(21), 0).await.unwrap(), [], "none were asked for");
    for _ in 0..2 {
        store.forget(at(10).after(LEVEL_KEPT)).await.unwrap();
        assert_eq!(all(&*store, BOB).await, parcels[4..]);
        let levels = [1, 3, 4, 5].map(|number| store.level(BOB, id(ANN, number)));
        let mut found = Vec::new();
        for level in levels {
            found.push(level.await.unwrap());
        }
        let received = Some(Level::Received);
        assert_eq!(found, [received, received, Some(Level::Expired), Some(Level::Stored)]);
    }
}
