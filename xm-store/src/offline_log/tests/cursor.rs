//! Confirmations in runs: what they cost, that they say what one record for each would say, whatever is cut or flipped.

use super::super::format::{FRAME_LEN, Header, scan};
use super::super::index::{Index, Location};
use super::*;
use crate::memory::MemoryOffline;

const AT: WallTime = WallTime(5);

fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<ParcelId> {
    numbers.into_iter().map(|number| id(&parcel(number))).collect()
}

fn runs(directory: &Path) -> Vec<String> {
    let of_first = records(&disk::segment_path(directory, 1));
    of_first.into_iter().filter(|record| record.contains("Run {")).collect()
}

/// A log with parcels 1 to 9 for Bob, of which these were confirmed in these calls. Closed.
fn confirmed(calls: &[(&[u64], Level)]) -> tempfile::TempDir {
    let directory = scratch();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    block_on(async {
        append(&log, 1..10).await;
        for (numbers, level) in calls {
            let raised = log.settle(BOB, &ids(numbers.iter().copied()), *level, AT).await.unwrap();
            assert_eq!(raised.len(), numbers.len());
        }
    });
    drop(log);
    directory
}

/// What waits after a start, and the levels of all nine.
fn found(directory: &Path) -> (Vec<u64>, Vec<Level>) {
    let log = OfflineLog::open(directory, small()).unwrap();
    assert_eq!(log.recovery().damage, []);
    block_on(async {
        let mut levels = Vec::new();
        for number in 1..10 {
            levels.push(log.level(BOB, id(&parcel(number))).await.unwrap().expect("it is known"));
        }
        (numbers(&waiting(&log).await), levels)
    })
}

#[test]
fn what_is_confirmed_in_order_costs_one_record_however_many_calls_it_took() {
    for calls in
        [&[(&[1, 2, 3, 4, 5][..], Level::Received)][..], &[(&[1, 2, 3], Level::Received), (&[4, 5], Level::Received)]]
    {
        let directory = confirmed(calls);
        assert_eq!(runs(directory.path()).len(), 1, "{:?}", runs(directory.path()));
        let (waiting, levels) = found(directory.path());
        assert_eq!(waiting, [6, 7, 8, 9]);
        assert_eq!(levels[..5], [Level::Received; 5]);
        assert_eq!(levels[5..], [Level::Stored; 4]);
    }
}

#[test]
fn what_still_waits_in_between_is_not_confirmed_with_the_rest() {
    let directory = confirmed(&[(&[1, 2, 4, 7, 8], Level::Received)]);
    assert_eq!(runs(directory.path()).len(), 3, "{:?}", runs(directory.path()));
    assert_eq!(found(directory.path()).0, [3, 5, 6, 9]);
}

#[test]
fn places_of_others_in_between_do_not_break_a_run() {
    let directory = scratch();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    block_on(async {
        for number in 1..20 {
            log.append(UserId(2 + number % 2), vec![parcel(number)]).await.unwrap();
        }
        let odd = ids((1..20).filter(|number| number % 2 == 1));
        assert_eq!(log.settle(UserId(3), &odd, Level::Received, AT).await.unwrap().len(), 10);
    });
    drop(log);
    assert_eq!(runs(directory.path()).len(), 1);
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    assert_eq!(block_on(log.summary(UserId(3))).unwrap().messages, 0);
    assert_eq!(block_on(log.summary(BOB)).unwrap().messages, 9);
}

#[test]
fn reading_after_receiving_costs_one_record_too_and_leaves_others_alone() {
    let directory = confirmed(&[
        (&[1, 2, 3, 4, 5, 6], Level::Received),
        (&[2, 3, 4], Level::Read),
        (&[8], Level::Refused),
        (&[7], Level::Read),
    ]);
    let (waiting, levels) = found(directory.path());
    assert_eq!(waiting, [9]);
    use Level::{Read, Received, Refused, Stored};
    assert_eq!(levels, [Received, Read, Read, Read, Received, Received, Read, Refused, Stored]);
    // 1 received, 2-4 read, 5-6 received, 7 read, 8 refused.
    assert_eq!(runs(directory.path()).len(), 5, "{:?}", runs(directory.path()));
}

#[test]
fn settled_and_forgotten_in_the_same_breath_as_appended_is_written_in_that_order() {
    let directory = scratch();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    block_on(async {
        let (stored, settled, forgotten) = tokio::join!(
            log.append(BOB, vec![parcel(1)]),
            async { log.settle(BOB, &ids([1]), Level::Received, AT).await },
            log.forget(WallTime(6)),
        );
        assert_eq!((stored.unwrap().len(), settled.unwrap().len(), forgotten), (1, 1, Ok(())));
    });
    log.shared.reading().assert_sums();
    assert!(!log.shared.reading().is_needed(0), "there is no such segment");
    let crashed = crash_copy(directory.path());
    drop(log);
    for directory in [directory.path(), crashed.path()] {
        let log = OfflineLog::open(directory, small()).unwrap();
        assert_eq!(block_on(waiting(&log)), [], "the level was on disk before it could be forgotten");
    }
}

#[test]
fn settled_in_the_same_breath_as_appended_a_level_outlives_the_segment_of_its_parcel() {
    let directory = scratch();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    block_on(async {
        let (stored, settled) = tokio::join!(log.append(BOB, vec![parcel(1)]), async {
            log.settle(BOB, &ids([1]), Level::Received, AT).await
        });
        assert_eq!((stored.unwrap().len(), settled.unwrap().len()), (1, 1));
        for number in 100..500 {
            log.append(BOB, vec![Parcel { body: vec![7; 1_000], ..parcel(number) }]).await.unwrap();
            log.settle(BOB, &ids([number]), Level::Refused, WallTime(number)).await.unwrap();
        }
        // Waits until the log has been compacted.
        log.forget(WallTime(0)).await.unwrap();
    });
    log.shared.reading().assert_sums();
    assert!(!log.shared.reading().is_needed(0), "there is no such segment");
    assert!(!disk::segment_path(directory.path(), 1).exists(), "the segment of the first one has been compacted");
    drop(log);
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    assert_eq!(block_on(log.level(BOB, id(&parcel(1)))).unwrap(), Some(Level::Received));
}

#[test]
fn a_level_from_a_run_outlives_the_segment_of_its_parcel() {
    let directory = scratch();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    block_on(async {
        append(&log, 1..6).await;
        log.settle(BOB, &ids(1..4), Level::Received, AT).await.unwrap();
        for number in 100..500 {
            log.append(BOB, vec![Parcel { body: vec![7; 1_000], ..parcel(number) }]).await.unwrap();
            log.settle(BOB, &ids([number]), Level::Refused, WallTime(number)).await.unwrap();
        }
        // Levels follow the parcels by and by; this waits for them.
        log.forget(WallTime(0)).await.unwrap();
    });
    assert!(!disk::segment_path(directory.path(), 1).exists(), "the segment of the first ones has been compacted");
    for _ in 0..2 {
        let crashed = crash_copy(directory.path());
        let log = OfflineLog::open(crashed.path(), small()).unwrap();
        block_on(async {
            assert_eq!(numbers(&waiting(&log).await), [4, 5]);
            let again = log.append(BOB, vec![parcel(2)]).await.unwrap();
            assert_eq!(again, [Appended::Already(Place(2), Level::Received)]);
            let other = log.append(BOB, vec![Parcel { body: b"other".to_vec(), ..parcel(2) }]).await.unwrap();
            assert_eq!(other, [Appended::IdConflict]);
        });
    }
}

#[test]
fn a_run_cut_at_any_byte_brings_its_parcels_back_or_none() {
    let directory = confirmed(&[(&[1, 2, 3], Level::Received)]);
    let bytes = std::fs::read(disk::segment_path(directory.path(), 1)).unwrap();
    let header = Header::decode(&bytes).unwrap();
    let frames: Vec<_> =
        scan(&bytes, header.stamp, 0).frames.iter().map(|(at, frame)| *at..*at + frame.len()).collect();
    let run = frames[9].clone();
    assert_eq!(run.len(), FRAME_LEN + 34);
    for cut in run.start..=run.end {
        let mut torn = bytes[..cut].to_vec();
        torn.resize(cut + 700, 0);
        let (parcels, recovery, _) = reopened(&torn).unwrap();
        let expected: Vec<u64> = if cut == run.end { (4..10).collect() } else { (1..10).collect() };
        assert_eq!(numbers(&parcels), expected, "cut at {cut}");
        assert_eq!(recovery.damage, [], "cut at {cut}");
    }
    for at in run.clone() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let (parcels, recovery, _) = reopened(&damaged).unwrap();
        assert_eq!(numbers(&parcels), (1..10).collect::<Vec<_>>(), "byte {at}: they come twice, which devices know");
        assert_eq!((recovery.damage.len(), recovery.torn_bytes), (1, 0), "byte {at}: a clean stop follows it");
    }
}

#[test]
fn any_sectors_of_a_last_batch_with_runs_may_be_missing() {
    let (mut bytes, starts) = three_batches();
    bytes.truncate(starts[3]);
    let header = Header::decode(&bytes).unwrap();
    let large = |number| Parcel { body: vec![number as u8; 450], ..parcel(number) };
    let parcels: Vec<_> = (4..8).map(large).collect();
    let record = |one: &'static Parcel| format::Record::Parcel {
        to: BOB,
        place: Place(one.sent.0),
        id: id(one),
        sent: one.sent,
        body: &one.body,
    };
    let parcels: &'static [Parcel] = parcels.leak();
    let run = |first, last| format::Record::Run {
        to: BOB,
        first: Place(first),
        last: Place(last),
        at: AT,
        level: Level::Read,
    };
    // In an order that every prefix shows: a parcel, a run over what was there before, and so on.
    let batch = [
        record(&parcels[0]),
        run(1, 2),
        record(&parcels[1]),
        run(3, 4),
        record(&parcels[2]),
        record(&parcels[3]),
        run(5, 6),
    ];
    let prefixes: [&[u64]; 8] = [&[1, 2, 3], &[1, 2, 3, 4], &[3, 4], &[3, 4, 5], &[5], &[5, 6], &[5, 6, 7], &[7]];
    format::encode_batch(&batch, header.stamp, 3, &mut bytes);
    let first_sector = starts[3].div_ceil(512);
    let sectors = bytes.len().div_ceil(512) - first_sector;
    assert!((4..10).contains(&sectors));
    let mut seen = std::collections::BTreeSet::new();
    for kept in 0..1_u32 << sectors {
        let mut torn = bytes.clone();
        for sector in (0..sectors).filter(|sector| kept & 1 << sector == 0) {
            let start = (first_sector + sector) * 512;
            let end = torn.len().min(start + 512);
            torn[start..end].fill(0);
        }
        let (parcels, recovery, _) = reopened(&torn).unwrap();
        let found = numbers(&parcels);
        assert!(prefixes.contains(&&found[..]), "kept {kept:b}: {found:?}");
        assert_eq!(recovery.damage, [], "kept {kept:b}");
        seen.insert(found);
    }
    assert!(seen.len() > 3, "{seen:?}");
}

#[test]
fn a_parcel_left_over_from_a_failed_write_does_not_come_back_once_the_same_one_is_settled() {
    // A write that failed half-way left parcel 2 at place 2; it came again, got place 3, and was confirmed in a run.
    let mut index = Index::default();
    let at = |offset| Location { segment: 1, offset, len: 100 };
    let body = parcel(2).body;
    let parcel_at =
        |place| format::Record::Parcel { to: BOB, place: Place(place), id: id(&parcel(2)), sent: AT, body: &body };
    index.replay(&parcel_at(2), at(0));
    index.replay(&parcel_at(3), at(100));
    index
        .replay(&format::Record::Run { to: BOB, first: Place(3), last: Place(3), at: AT, level: Level::Read }, at(200));
    assert_eq!(index.waiting(), 0);
    assert_eq!(index.next_place, 4);
    index.assert_sums();
}

/// Draws numbers; the same for the same seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Time between one start and the next: levels are remembered across one, forgotten across two.
const ROUND: u64 = LEVEL_WEEK / 2 + 100_000;

/// Does one thing drawn to both stores, and expects the same answer.
async fn step(draw: &mut Draw, now: u64, log: &OfflineLog, model: &MemoryOffline) {
    let to = UserId(draw.below(3));
    match draw.below(10) {
        0..4 => {
            let parcels: Vec<_> = (0..=draw.below(4)).map(|_| parcel(draw.below(300))).collect();
            assert_eq!(log.append(to, parcels.clone()).await, model.append(to, parcels).await);
        }
        4..8 => {
            let level = [Level::Received, Level::Read, Level::Refused][draw.below(3) as usize];
            let first = draw.below(300);
            let chosen: Vec<_> = ids((first..first + 40).filter(|_| draw.below(5) > 0));
            let raised = log.settle(to, &chosen, level, WallTime(now)).await;
            assert_eq!(raised, model.settle(to, &chosen, level, WallTime(now)).await);
        }
        8 => {
            let before = WallTime(draw.below(20));
            let expired = |answer: Result<Vec<Expired>, _>| {
                let mut all: Vec<_> = answer.unwrap().into_iter().map(|one| (one.to, one.parcel)).collect();
                all.sort_unstable();
                all
            };
            let (of_log, of_model) =
                (log.expire(before, WallTime(now), 999).await, model.expire(before, WallTime(now), 999).await);
            assert_eq!(expired(of_log), expired(of_model));
        }
        _ => {
            let now = WallTime(now);
            assert_eq!(log.forget(now).await, model.forget(now).await);
        }
    }
}

#[test]
fn whatever_is_confirmed_in_whatever_order_a_start_finds_what_the_reference_has() {
    let tiny = || Options { segment_bytes: 3_000, ..Options::default() };
    for seed in 0..16 {
        let mut draw = Draw(seed);
        let directory = scratch();
        let model = MemoryOffline::with_quotas(Quotas::default());
        for round in 0..8 {
            let start = WallTime(round * ROUND);
            let log = OfflineLog::open(directory.path(), tiny()).unwrap();
            assert_eq!(log.recovery().damage, [], "seed {seed}");
            block_on(async {
                // What is forgotten may still be on disk.
                log.forget(start).await.unwrap();
                model.forget(start).await.unwrap();
                for to in (0..3).map(UserId) {
                    let page = |store: Result<Vec<(Place, Parcel)>, StoreError>| store.unwrap();
                    let (of_log, of_model) = (
                        log.page(to, Place::START, 999, usize::MAX).await,
                        model.page(to, Place::START, 999, usize::MAX).await,
                    );
                    assert_eq!(page(of_log), page(of_model), "seed {seed}");
                    for parcel in ids(0..300) {
                        let level = model.level(to, parcel).await.unwrap();
                        assert_eq!(log.level(to, parcel).await.unwrap(), level, "seed {seed}: {parcel:?}");
                    }
                }
                for second in 1..40 {
                    step(&mut draw, start.0 + second * 1_000, &log, &model).await;
                    log.shared.reading().assert_sums();
                }
            });
        }
    }
}
