//! Cases of [`Offline`]: what is kept, in which order, and what is forgotten. Quotas are in `offline_limits.rs`.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use xmmep::types::UserId;

use super::{AWKWARD, Open, at, msg_id};
use crate::offline::{Appended, Erased, Offline};
use crate::records::{LEVEL_KEPT, Level, Parcel, ParcelId, Place, Summary};

/// The cases.
#[doc(hidden)]
#[macro_export]
macro_rules! offline_cases {
    ($name:ident, $open:expr) => {
        $crate::suite_cases!(
            $name,
            $open,
            offline: [
                a_parcel_waits_after_a_restart,
                parcels_come_back_in_the_order_they_were_accepted,
                places_are_never_used_again,
                a_second_append_stores_nothing,
                a_second_append_within_one_call_stores_nothing,
                the_same_id_with_another_body_is_a_conflict,
                the_same_id_of_another_sender_or_recipient_is_another_parcel,
                awkward_bodies_are_kept_byte_for_byte,
                pages_reach_the_end_within_their_bounds,
                a_settled_parcel_does_not_come_back,
                levels_only_rise,
                settling_the_unknown_changes_nothing,
                recipients_are_separate,
                what_is_too_old_expires_once,
                levels_are_remembered_for_seven_days,
                what_a_user_sent_and_waits_is_read_page_by_page,
                of_an_erased_user_no_message_waits_anywhere,
            ],
            offline_limits: [
                a_sender_cannot_fill_the_store_alone,
                the_number_of_messages_is_limited,
                the_bytes_are_limited,
                what_is_settled_makes_room,
                a_duplicate_needs_no_room,
                a_parcel_over_its_bound_is_refused,
                quotas_count_after_a_restart,
                appends_at_once_are_all_kept_in_order,
                a_duplicate_at_once_is_stored_once,
            ],
            offline_paging: [
                reading_on_misses_nothing_while_others_append_and_settle,
                pages_end_at_the_byte,
                bodies_of_every_byte_and_every_size_are_kept,
                ids_and_times_are_kept_at_their_ends,
                every_call_made_again_changes_nothing,
            ],
        );
    };
}

pub(super) const ANN: UserId = UserId(1);
pub(super) const BOB: UserId = UserId(2);
pub(super) const EVE: UserId = UserId(u64::MAX);

/// A parcel whose body names it.
pub(super) fn parcel(from: UserId, number: u64) -> Parcel {
    Parcel { from, id: msg_id(number), sent: at(number), body: format!("{from} says {number}").into_bytes() }
}

pub(super) fn id(from: UserId, number: u64) -> ParcelId {
    ParcelId { from, id: msg_id(number) }
}

/// Appends one parcel and returns its place.
pub(super) async fn stored(store: &dyn Offline, to: UserId, parcel: Parcel) -> Place {
    match store.append(to, vec![parcel]).await.unwrap()[..] {
        [Appended::Stored(place)] => place,
        ref other => panic!("expected it stored, not {other:?}"),
    }
}

/// All that waits, in one page.
pub(super) async fn all(store: &dyn Offline, to: UserId) -> Vec<Parcel> {
    let page = store.page(to, Place::START, usize::MAX, usize::MAX).await.unwrap();
    assert!(page.windows(2).all(|pair| pair[0].0 < pair[1].0), "places grow: {page:?}");
    page.into_iter().map(|(_, parcel)| parcel).collect()
}

pub async fn a_parcel_waits_after_a_restart(open: &Open<dyn Offline>) {
    let store = open.open().await;
    assert_eq!(store.summary(BOB).await.unwrap(), Summary::default());
    let first = parcel(ANN, 7);
    let place = stored(&*store, BOB, first.clone()).await;
    assert!(place > Place::START);
    drop(store);
    let store = open.open().await;
    assert_eq!(store.page(BOB, Place::START, 10, 10_000).await.unwrap(), [(place, first.clone())]);
    let summary = Summary { messages: 1, bytes: first.body.len() as u64, oldest: Some(at(7)) };
    assert_eq!(store.summary(BOB).await.unwrap(), summary);
    assert_eq!(store.level(BOB, id(ANN, 7)).await.unwrap(), Some(Level::Stored));
    assert_eq!(store.append(BOB, vec![]).await.unwrap(), []);
}

pub async fn parcels_come_back_in_the_order_they_were_accepted(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let order = [5, 3, 9, 1, 8, 2, 7];
    let parcels: Vec<_> = order.map(|number| parcel(if number % 2 == 0 { ANN } else { EVE }, number)).into();
    store.append(BOB, parcels[..3].to_vec()).await.unwrap();
    store.append(ANN, vec![parcel(EVE, 100)]).await.unwrap();
    store.append(BOB, parcels[3..6].to_vec()).await.unwrap();
    drop(store);
    let store = open.open().await;
    store.append(BOB, parcels[6..].to_vec()).await.unwrap();
    assert_eq!(all(&*store, BOB).await, parcels);
}

pub async fn places_are_never_used_again(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let mut last = Place::START;
    for number in 1..=5 {
        let place = stored(&*store, BOB, parcel(ANN, number)).await;
        assert!(place > last, "{place:?} after {last:?}");
        last = place;
    }
    let ids: Vec<_> = (1..=5).map(|number| id(ANN, number)).collect();
    store.settle(BOB, &ids, Level::Received, at(1)).await.unwrap();
    store.forget(at(2).after(LEVEL_KEPT)).await.unwrap();
    drop(store);
    let store = open.open().await;
    let place = stored(&*store, BOB, parcel(ANN, 6)).await;
    assert!(place > last, "{place:?} after {last:?}");
}

pub async fn a_second_append_stores_nothing(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let place = stored(&*store, BOB, parcel(ANN, 1)).await;
    let later = Parcel { sent: at(500), ..parcel(ANN, 1) };
    let again = store.append(BOB, vec![later.clone(), parcel(ANN, 2)]).await.unwrap();
    assert_eq!(again[0], Appended::Already(place, Level::Stored));
    drop(store);
    let store = open.open().await;
    assert_eq!(store.append(BOB, vec![later.clone()]).await.unwrap(), [Appended::Already(place, Level::Stored)]);
    assert_eq!(all(&*store, BOB).await, [parcel(ANN, 1), parcel(ANN, 2)]);
    store.settle(BOB, &[id(ANN, 1)], Level::Received, at(9)).await.unwrap();
    assert_eq!(store.append(BOB, vec![later]).await.unwrap(), [Appended::Already(place, Level::Received)]);
    assert_eq!(all(&*store, BOB).await, [parcel(ANN, 2)]);
}

pub async fn a_second_append_within_one_call_stores_nothing(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let conflict = Parcel { body: b"other".to_vec(), ..parcel(ANN, 1) };
    let answers = store.append(BOB, vec![parcel(ANN, 1), parcel(ANN, 1), conflict]).await.unwrap();
    let Appended::Stored(place) = answers[0] else { panic!("{answers:?}") };
    assert_eq!(answers[1..], [Appended::Already(place, Level::Stored), Appended::IdConflict]);
    assert_eq!(all(&*store, BOB).await, [parcel(ANN, 1)]);
}

pub async fn the_same_id_with_another_body_is_a_conflict(open: &Open<dyn Offline>) {
    let store = open.open().await;
    stored(&*store, BOB, parcel(ANN, 1)).await;
    let others = [&b"other"[..], b"", b"1 says 1 ", b"1 says 2"];
    for body in others {
        let other = Parcel { body: body.to_vec(), ..parcel(ANN, 1) };
        assert_eq!(store.append(BOB, vec![other]).await.unwrap(), [Appended::IdConflict]);
    }
    store.settle(BOB, &[id(ANN, 1)], Level::Received, at(9)).await.unwrap();
    drop(store);
    let store = open.open().await;
    let other = Parcel { body: b"other".to_vec(), ..parcel(ANN, 1) };
    assert_eq!(store.append(BOB, vec![other]).await.unwrap(), [Appended::IdConflict]);
    assert_eq!(all(&*store, BOB).await, []);
}

pub async fn the_same_id_of_another_sender_or_recipient_is_another_parcel(open: &Open<dyn Offline>) {
    let store = open.open().await;
    stored(&*store, BOB, parcel(ANN, 1)).await;
    stored(&*store, BOB, parcel(EVE, 1)).await;
    stored(&*store, EVE, Parcel { body: b"other".to_vec(), ..parcel(ANN, 1) }).await;
    assert_eq!(store.settle(BOB, &[id(ANN, 1)], Level::Received, at(1)).await.unwrap(), [id(ANN, 1)]);
    assert_eq!(all(&*store, BOB).await, [parcel(EVE, 1)]);
    assert_eq!(all(&*store, EVE).await.len(), 1);
}

pub async fn awkward_bodies_are_kept_byte_for_byte(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let mut bodies: Vec<Vec<u8>> = AWKWARD.iter().map(|text| text.as_bytes().to_vec()).collect();
    bodies.extend([vec![0; 100], vec![0xff; 100], (0..=255).collect(), b"\0\xed\xa0\x80".to_vec()]);
    let parcels: Vec<_> = (1..).zip(bodies).map(|(number, body)| Parcel { body, ..parcel(ANN, number) }).collect();
    store.append(BOB, parcels.clone()).await.unwrap();
    drop(store);
    let store = open.open().await;
    assert_eq!(all(&*store, BOB).await, parcels);
}

pub async fn pages_reach_the_end_within_their_bounds(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let parcels: Vec<_> = (1..=10)
        .map(|number| Parcel { body: vec![number as u8; 100 * number as usize], ..parcel(ANN, number) })
        .collect();
    store.append(BOB, parcels.clone()).await.unwrap();
    store.settle(BOB, &[id(ANN, 2), id(ANN, 9)], Level::Received, at(1)).await.unwrap();
    let waiting: Vec<_> = [0, 2, 3, 4, 5, 6, 7, 9].map(|index| parcels[index].clone()).into();
    for (messages_max, bytes_max) in [(1, 10_000), (3, 10_000), (100, 700), (100, 1), (2, 0), (0, 0), (100, 10_000)] {
        let (mut read, mut after) = (Vec::new(), Place::START);
        loop {
            let page = store.page(BOB, after, messages_max, bytes_max).await.unwrap();
            let Some((last, _)) = page.last() else { break };
            assert!(page.len() <= messages_max.max(1));
            let bytes: usize = page.iter().map(|(_, parcel)| parcel.body.len()).sum();
            assert!(bytes <= bytes_max || page.len() == 1, "{bytes} bytes of {bytes_max}");
            after = *last;
            read.extend(page.into_iter().map(|(_, parcel)| parcel));
        }
        assert_eq!(read, waiting, "pages of {messages_max} messages, {bytes_max} bytes");
    }
    assert_eq!(store.page(BOB, Place(u64::MAX), 10, 10).await.unwrap(), []);
}

pub async fn a_settled_parcel_does_not_come_back(open: &Open<dyn Offline>) {
    let store = open.open().await;
    store.append(BOB, (1..=4).map(|number| parcel(ANN, number)).collect()).await.unwrap();
    let settled = store.settle(BOB, &[id(ANN, 3), id(ANN, 1)], Level::Received, at(1)).await.unwrap();
    assert_eq!(settled, [id(ANN, 3), id(ANN, 1)]);
    assert_eq!(all(&*store, BOB).await, [parcel(ANN, 2), parcel(ANN, 4)]);
    let left = (parcel(ANN, 2).body.len() + parcel(ANN, 4).body.len()) as u64;
    let summary = Summary { messages: 2, bytes: left, oldest: Some(at(2)) };
    assert_eq!(store.summary(BOB).await.unwrap(), summary);
    drop(store);
    let store = open.open().await;
    assert_eq!(all(&*store, BOB).await, [parcel(ANN, 2), parcel(ANN, 4)], "a clean stop loses no settling");
    assert_eq!(store.level(BOB, id(ANN, 1)).await.unwrap(), Some(Level::Received));
}

pub async fn levels_only_rise(open: &Open<dyn Offline>) {
    let levels = [Level::Stored, Level::Received, Level::Read, Level::Refused, Level::Expired];
    let store = open.open().await;
    for (number, (first, second)) in
        (1..).zip(levels.iter().flat_map(|first| levels.iter().map(move |second| (*first, *second))))
    {
        store.append(BOB, vec![parcel(ANN, number)]).await.unwrap();
        let one = [id(ANN, number)];
        let raised = store.settle(BOB, &one, first, at(1)).await.unwrap();
        assert_eq!(raised.len(), usize::from(first != Level::Stored));
        let raised = store.settle(BOB, &one, second, at(2)).await.unwrap();
        let expected = if first.rises_to(second) { second } else { first };
        assert_eq!(raised.len(), usize::from(first.rises_to(second)), "{first:?} to {second:?}");
        assert_eq!(store.level(BOB, one[0]).await.unwrap(), Some(expected), "{first:?} to {second:?}");
    }
}

pub async fn settling_the_unknown_changes_nothing(open: &Open<dyn Offline>) {
    let store = open.open().await;
    stored(&*store, BOB, parcel(ANN, 1)).await;
    let unknown = [id(ANN, 2), id(EVE, 1)];
    assert_eq!(store.settle(BOB, &unknown, Level::Received, at(1)).await.unwrap(), []);
    assert_eq!(store.settle(EVE, &[id(ANN, 1)], Level::Received, at(1)).await.unwrap(), []);
    assert_eq!(store.level(BOB, id(ANN, 2)).await.unwrap(), None);
    assert_eq!(all(&*store, BOB).await, [parcel(ANN, 1)]);
    stored(&*store, BOB, parcel(ANN, 2)).await;
}

pub async fn recipients_are_separate(open: &Open<dyn Offline>) {
    let store = open.open().await;
    for number in 1..=6 {
        let to = if number % 2 == 0 { BOB } else { EVE };
        stored(&*store, to, parcel(ANN, number)).await;
    }
    drop(store);
    let store = open.open().await;
    assert_eq!(all(&*store, BOB).await, [2, 4, 6].map(|number| parcel(ANN, number)));
    assert_eq!(all(&*store, EVE).await, [1, 3, 5].map(|number| parcel(ANN, number)));
    assert_eq!(all(&*store, ANN).await, []);
}

pub async fn what_is_too_old_expires_once(open: &Open<dyn Offline>) {
    let store = open.open().await;
    for number in 1..=4 {
        stored(&*store, if number % 2 == 0 { BOB } else { EVE }, parcel(ANN, number)).await;
    }
    stored(&*store, BOB, parcel(ANN, 5)).await;
    store.settle(BOB, &[id(ANN, 2)], Level::Received, at(9)).await.unwrap();
    let mut expired = Vec::new();
    for _ in 0..10 {
        let some = store.expire(at(5), at(1_000), 2).await.unwrap();
        assert!(some.len() <= 2);
        expired.extend(some.into_iter().map(|one| (one.to, one.parcel, one.sent)));
    }
    expired.sort_by_key(|one| one.2);
    assert_eq!(expired, [(EVE, id(ANN, 1), at(1)), (EVE, id(ANN, 3), at(3)), (BOB, id(ANN, 4), at(4))]);
    drop(store);
    let store = open.open().await;
    assert_eq!(all(&*store, BOB).await, [parcel(ANN, 5)], "what the server took at the limit stays");
    assert_eq!(all(&*store, EVE).await, []);
    assert_eq!(store.level(EVE, id(ANN, 1)).await.unwrap(), Some(Level::Expired));
    assert_eq!(store.level(BOB, id(ANN, 2)).await.unwrap(), Some(Level::Received));
}

pub async fn levels_are_remembered_for_seven_days(open: &Open<dyn Offline>) {
    let store = open.open().await;
    let place = stored(&*store, BOB, parcel(ANN, 1)).await;
    stored(&*store, BOB, parcel(ANN, 2)).await;
    store.settle(BOB, &[id(ANN, 1)], Level::Received, at(10)).await.unwrap();
    store.forget(at(10).after(LEVEL_KEPT)).await.unwrap();
    drop(store);
    let store = open.open().await;
    assert_eq!(store.level(BOB, id(ANN, 1)).await.unwrap(), Some(Level::Received));
    let again = store.append(BOB, vec![parcel(ANN, 1)]).await.unwrap();
    assert_eq!(again, [Appended::Already(place, Level::Received)]);
    store.forget(at(11).after(LEVEL_KEPT)).await.unwrap();
    assert_eq!(store.level(BOB, id(ANN, 1)).await.unwrap(), None);
    assert_eq!(store.level(BOB, id(ANN, 2)).await.unwrap(), Some(Level::Stored), "what waits is never forgotten");
    drop(store);
    let store = open.open().await;
    assert_eq!(all(&*store, BOB).await, [parcel(ANN, 2)], "what is forgotten does not come back");
}

pub async fn what_a_user_sent_and_waits_is_read_page_by_page(open: &Open<dyn Offline>) {
    let store = open.open().await;
    for to in [BOB, EVE, UserId(9)] {
        for number in 0..3 {
            stored(&*store, to, parcel(ANN, number + 10 * (to.0 % 10))).await;
            stored(&*store, to, parcel(UserId(77), number)).await;
        }
    }
    store.settle(BOB, &[id(ANN, 20)], Level::Received, at(1)).await.unwrap();
    let (mut sent, mut after) = (Vec::new(), None);
    loop {
        let page = store.sent_by(ANN, after, 3).await.unwrap();
        let Some((to, place, _)) = page.last() else { break };
        assert!(page.len() <= 3);
        after = Some((*to, *place));
        sent.extend(page);
    }
    assert!(sent.iter().all(|(_, _, parcel)| parcel.from == ANN));
    let mut ids: Vec<_> = sent.iter().map(|(to, _, parcel)| (*to, parcel.id)).collect();
    assert_eq!(ids.len(), 8, "each once");
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 8);
    assert_eq!(store.sent_by(EVE, None, 10).await.unwrap(), []);
}

pub async fn of_an_erased_user_no_message_waits_anywhere(open: &Open<dyn Offline>) {
    let store = open.open().await;
    for number in 0..2 {
        stored(&*store, BOB, parcel(ANN, number)).await;
        stored(&*store, EVE, parcel(BOB, number)).await;
    }
    stored(&*store, EVE, parcel(ANN, 1)).await;
    store.settle(BOB, &[id(ANN, 0)], Level::Received, at(1)).await.unwrap();
    assert_eq!(store.erase(BOB, at(2)).await.unwrap(), Erased { to: 1, from: 2, quarantined: 0 });
    assert_eq!(store.erase(BOB, at(2)).await.unwrap(), Erased::default());
    drop(store);
    let store = open.open().await;
    assert_eq!(all(&*store, BOB).await, []);
    assert_eq!(all(&*store, EVE).await, [parcel(ANN, 1)], "what others sent stays");
    assert_eq!(store.summary(EVE).await.unwrap().messages, 1);
    assert_eq!(store.sent_by(BOB, None, 10).await.unwrap(), []);
    assert_eq!(store.level(BOB, id(ANN, 0)).await.unwrap(), Some(Level::Received), "what was delivered was");
    assert_eq!(store.level(BOB, id(ANN, 1)).await.unwrap(), Some(Level::Refused), "who wrote can learn it");
    assert_eq!(store.level(EVE, id(BOB, 0)).await.unwrap(), Some(Level::Refused), "and no client shows it");
}
