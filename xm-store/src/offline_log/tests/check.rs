//! What `check` says of a log in every state, that `repair` makes it whole, and that `copy` follows one in use.

use super::super::format::{Header, Record, scan};
use super::*;

const AT: WallTime = WallTime(9);

/// A closed log of several segments, with parcels 1 to 199 for Bob, of which 1 to 20 are settled.
fn closed() -> tempfile::TempDir {
    let directory = scratch();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    block_on(async {
        append(&log, 1..200).await;
        let settled: Vec<_> = (1..21).map(|number| id(&parcel(number))).collect();
        log.settle(BOB, &settled, Level::Received, AT).await.unwrap();
    });
    drop(log);
    directory
}

/// Every file of a directory and those below it, with its bytes and when it was changed.
fn everything(directory: &Path) -> Vec<(std::path::PathBuf, Vec<u8>, std::time::SystemTime)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(everything(&path));
        } else {
            let changed = std::fs::metadata(&path).unwrap().modified().unwrap();
            files.push((path.clone(), std::fs::read(path).unwrap(), changed));
        }
    }
    files.sort();
    files
}

/// Checks it, and that this changed nothing.
fn checked(directory: &Path) -> Report {
    let before = everything(directory);
    let report = check(directory).unwrap();
    assert!(everything(directory) == before, "a check changes nothing");
    report
}

/// Repairs it; afterwards it is closed in order and opens without an alarm. Returns what waits then.
fn repaired(directory: &Path) -> (Repaired, Vec<u64>) {
    let repaired = repair(directory).unwrap();
    let report = checked(directory);
    assert_eq!((report.verdict, report.losses().count()), (Verdict::Closed, 0), "{report}");
    assert_eq!((report.waiting, report.settled), (repaired.before.waiting, repaired.before.settled));
    let log = OfflineLog::open(directory, small()).unwrap();
    assert_eq!((log.recovery().damage.len(), log.recovery().torn_bytes), (0, 0));
    let waiting = numbers(&block_on(waiting(&log)));
    block_on(append(&log, 1_000..1_001));
    (repaired, waiting)
}

fn damage(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Where the frame of this parcel begins.
fn frame_of(path: &Path, number: u64) -> usize {
    let bytes = std::fs::read(path).unwrap();
    let header = Header::decode(&bytes).unwrap();
    let found = scan(&bytes, header.stamp, header.batch);
    let is_it = |record| matches!(record, Some(Record::Parcel { id: its, .. }) if its == id(&parcel(number)));
    found.frames.iter().find(|(_, frame)| is_it(frame.record())).expect("it lies here").0
}

#[test]
fn a_closed_log_is_whole_and_left_as_it_is() {
    let directory = closed();
    let report = checked(directory.path());
    assert_eq!(report.verdict, Verdict::Closed, "{report}");
    assert_eq!((report.waiting, report.settled), (179, 20));
    assert!(report.segments.len() > 2);
    assert!(report.segments.iter().all(|segment| segment.version == Some(2) && segment.torn_bytes == 0));
    assert_eq!((report.contradictions.len(), report.others.len()), (0, 0), "{report}");
    let before = everything(directory.path());
    let repaired = repair(directory.path()).unwrap();
    assert_eq!((repaired.written.len(), repaired.quarantined.len()), (0, 0), "{repaired}");
    assert!(everything(directory.path()) == before, "nothing to repair, nothing changed");
}

#[test]
fn a_log_in_use_is_neither_checked_nor_repaired() {
    let directory = scratch();
    let _log = OfflineLog::open(directory.path(), small()).unwrap();
    let in_use = OpenError::InUse(directory.path().to_owned());
    assert_eq!(check(directory.path()), Err(in_use.clone()));
    assert_eq!(repair(directory.path()), Err(in_use));
}

#[test]
fn no_directory_is_an_error_and_an_empty_one_is_an_empty_log() {
    let directory = scratch();
    assert!(matches!(check(&directory.path().join("none")), Err(OpenError::Unreachable { .. })));
    assert_eq!(checked(directory.path()).verdict, Verdict::Closed);
}

#[test]
fn a_crash_is_told_from_damage_and_needs_no_repair() {
    let (bytes, starts) = three_batches();
    for cut in [bytes.len(), bytes.len() - 1, starts[4] + 5, starts[3] + 1] {
        let directory = scratch();
        std::fs::write(disk::segment_path(directory.path(), 1), &bytes[..cut]).unwrap();
        let report = checked(directory.path());
        assert_eq!(report.verdict, Verdict::Unclosed, "cut at {cut}: {report}");
        let torn = cut - starts.iter().rfind(|start| **start <= cut && cut != bytes.len()).unwrap_or(&cut);
        assert_eq!(report.segments[0].torn_bytes, torn as u64, "cut at {cut}");
        assert!(repair(directory.path()).unwrap().written.is_empty());
    }
}

#[test]
fn a_damaged_record_is_named_with_recipient_and_place_and_the_rest_is_kept() {
    let directory = closed();
    let first = disk::segment_path(directory.path(), 1);
    let at = frame_of(&first, 30);
    damage(&first, |bytes| bytes[at + 80] ^= 1);
    let report = checked(directory.path());
    assert_eq!(report.verdict, Verdict::Damaged, "{report}");
    let losses: Vec<_> = report.losses().collect();
    assert_eq!(losses.len(), 1);
    assert_eq!((losses[0].bytes.start, &losses[0].parcels), (at as u64, &vec![(BOB, Place(30))]));
    assert!(report.to_string().contains("for user 2 at place 30"), "{report}");
    let (repaired, waiting) = repaired(directory.path());
    assert_eq!(waiting, (21..200).filter(|number| *number != 30).collect::<Vec<_>>());
    assert_eq!(repaired.losses().count(), 1);
    assert_eq!(repaired.quarantined, [directory.path().join("quarantine").join("0000000000000001.seg")]);
    let after = checked(directory.path());
    assert_eq!(after.others, [Other::Quarantined(repaired.quarantined[0].clone())]);
}

#[test]
fn levels_survive_a_repair_and_so_does_the_place_to_go_on_from() {
    let directory = closed();
    let last = *segments::numbers(directory.path()).unwrap().last().unwrap();
    let path = disk::segment_path(directory.path(), last);
    let at = frame_of(&path, 199);
    damage(&path, |bytes| bytes[at + 80] ^= 1);
    repair(directory.path()).unwrap();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    block_on(async {
        assert_eq!(log.level(BOB, id(&parcel(7))).await.unwrap(), Some(Level::Received));
        let again = log.append(BOB, vec![parcel(7), parcel(199)]).await.unwrap();
        assert_eq!(again[0], Appended::Already(Place(7), Level::Received));
        assert!(
            matches!(again[1], Appended::Stored(Place(200..))),
            "the place that was lost is not used twice: {again:?}"
        );
    });
}

#[test]
fn poison_a_right_checksum_around_nonsense_is_quarantined_and_the_rest_flows() {
    let (bytes, _) = three_batches();
    let header = Header::decode(&bytes).unwrap();
    let directory = scratch();
    let path = disk::segment_path(directory.path(), 1);
    let poison = Record::Run { to: BOB, first: Place(9), last: Place(3), at: AT, level: Level::Read };
    let mut poisoned = bytes.clone();
    poison.encode(header.stamp, 4, 0, &mut poisoned);
    Record::Parcel { to: BOB, place: Place(7), id: id(&parcel(7)), sent: WallTime(7), body: b"behind" }.encode(
        header.stamp,
        5,
        0,
        &mut poisoned,
    );
    Record::Stop.encode(header.stamp, 6, 0, &mut poisoned);
    std::fs::write(&path, &poisoned).unwrap();
    let report = checked(directory.path());
    assert_eq!(report.verdict, Verdict::Damaged);
    assert!(report.losses().all(|loss| loss.is_poison && loss.bytes.start == bytes.len() as u64), "{report}");
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    assert_eq!(numbers(&block_on(waiting(&log))), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(log.recovery().damage.len(), 1);
    let kept =
        std::fs::read(directory.path().join(format!("quarantine/0000000000000001-{}.bad", bytes.len()))).unwrap();
    assert_eq!(kept.len(), poison.frame_len());
    drop(log);
    assert_eq!(repaired(directory.path()).1, [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn missing_and_renamed_segments_are_named_and_repaired_around() {
    let gap = closed();
    std::fs::remove_file(disk::segment_path(gap.path(), 2)).unwrap();
    let newest = closed();
    let last = *segments::numbers(newest.path()).unwrap().last().unwrap();
    std::fs::remove_file(disk::segment_path(newest.path(), last)).unwrap();
    let renamed = closed();
    let under = disk::segment_path(renamed.path(), 77);
    std::fs::rename(disk::segment_path(renamed.path(), 1), &under).unwrap();
    let cases = [(&gap, disk::segment_path(gap.path(), 2)), (&newest, disk::segment_path(newest.path(), last))];
    for (directory, missing) in cases {
        let error = OfflineLog::open(directory.path(), small()).unwrap_err();
        assert!(matches!(&error, OpenError::Foreign { path, .. } if *path == missing), "{error}");
        let report = checked(directory.path());
        assert_eq!((report.verdict, &report.refusal), (Verdict::Refused, &Some(error)));
        let (_, waiting) = repaired(directory.path());
        assert!(waiting.len() > 50 && waiting.len() < 199 && waiting.is_sorted(), "{waiting:?}");
    }
    assert_eq!(checked(renamed.path()).verdict, Verdict::Refused);
    let (repaired, waiting) = repaired(renamed.path());
    assert_eq!(waiting, (21..200).collect::<Vec<_>>(), "nothing is lost by a name");
    assert_eq!(repaired.losses().count(), 0);
}

#[test]
fn what_contradicts_itself_is_told() {
    let (bytes, _) = three_batches();
    let header = Header::decode(&bytes).unwrap();
    let at = |place, number: u64, out: &mut Vec<u8>, batch| {
        let record = Record::Parcel {
            to: BOB,
            place: Place(place),
            id: id(&parcel(number)),
            sent: AT,
            body: b"a contradiction",
        };
        record.encode(header.stamp, batch, 0, out);
    };
    for (place, number, what) in [(3, 50, "that of two parcels"), (9, 2, "waits at place"), (9, 50, "")] {
        let directory = scratch();
        let mut bytes = bytes.clone();
        at(place, number, &mut bytes, 4);
        std::fs::write(disk::segment_path(directory.path(), 1), &bytes).unwrap();
        let report = checked(directory.path());
        let told: Vec<_> = report.contradictions.iter().filter(|told| told.contains(what)).collect();
        assert_eq!(told.len(), usize::from(!what.is_empty()), "{report}");
        assert_eq!(report.verdict, if what.is_empty() { Verdict::Unclosed } else { Verdict::Damaged });
    }
}

#[test]
fn strange_files_are_named_and_left_alone() {
    let directory = closed();
    for name in ["unfinished", "notes.txt"] {
        std::fs::write(directory.path().join(name), b"?").unwrap();
    }
    let report = checked(directory.path());
    let [unknown, unfinished] = ["notes.txt", "unfinished"].map(|name| directory.path().join(name));
    assert_eq!(report.others, [Other::Unknown(unknown), Other::Unfinished(unfinished)]);
    assert_eq!(report.verdict, Verdict::Closed);
}

#[test]
fn a_later_version_is_neither_damage_nor_repaired() {
    let (mut bytes, _) = three_batches();
    let mut header = Header::decode(&bytes).unwrap();
    header.version = 3;
    bytes[..HEADER_LEN].copy_from_slice(&header.encode());
    let directory = scratch();
    std::fs::write(disk::segment_path(directory.path(), 1), &bytes).unwrap();
    let report = checked(directory.path());
    assert!(matches!(report.refusal, Some(OpenError::Newer { .. })), "{report}");
    assert!(matches!(repair(directory.path()), Err(OpenError::Newer { .. })));
}

#[test]
fn a_flipped_bit_at_every_byte_is_repaired_and_costs_at_most_its_own_record() {
    let (mut bytes, starts) = three_batches();
    let header = Header::decode(&bytes).unwrap();
    Record::Stop.encode(header.stamp, 4, 0, &mut bytes);
    for at in (HEADER_LEN..bytes.len() - 1).step_by(3) {
        let directory = scratch();
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        std::fs::write(disk::segment_path(directory.path(), 1), &damaged).unwrap();
        let (_, waiting) = match check(directory.path()).unwrap().verdict {
            // The mark of the clean stop itself.
            Verdict::Unclosed => continue,
            _ => repaired(directory.path()),
        };
        let hit = starts.iter().rposition(|start| *start <= at).unwrap() as u64 + 1;
        assert_eq!(waiting, (1..7).filter(|number| *number != hit).collect::<Vec<_>>(), "byte {at}");
    }
}

#[test]
fn a_copy_of_a_log_in_use_has_all_that_was_stored_before() {
    let directory = scratch();
    let quotas = Quotas { messages: 100_000, bytes: 100_000_000, messages_per_sender: 100_000 };
    let log = OfflineLog::open(directory.path(), Options { quotas, ..small() }).unwrap();
    // So many in one round: else the log grows faster than it is copied.
    let (tell, heard) = std::sync::mpsc::sync_channel(1_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            block_on(async {
                // Until nobody listens any more.
                for number in (1..).take_while(|number| tell.send(*number).is_ok()) {
                    let body = vec![number as u8; 900];
                    log.append(BOB, vec![Parcel { body, ..parcel(number) }]).await.unwrap();
                    // Half of it goes again at once, so that segments are compacted all the time.
                    if number % 2 == 0 {
                        log.settle(BOB, &[id(&parcel(number))], Level::Read, WallTime(1)).await.unwrap();
                    }
                    if number % 64 == 0 {
                        log.forget(WallTime(LEVEL_WEEK + 2)).await.unwrap();
                    }
                }
            });
        });
        let heard = heard;
        let mut before = 0;
        for round in 0..12 {
            // What is begun next has this one stored.
            before = heard.iter().find(|number| *number > before + 50).unwrap();
            before = heard.try_iter().last().unwrap_or(before) - 1;
            let to = scratch();
            let copied = copy(directory.path(), to.path()).unwrap();
            assert_eq!(copied.segments, segments::numbers(to.path()).unwrap().len());
            let report = check(to.path()).unwrap();
            assert_eq!(report.verdict, Verdict::Unclosed, "round {round}: {report}");
            let copy = OfflineLog::open(to.path(), small()).unwrap();
            let found = numbers(&block_on(waiting(&copy)));
            let expected: Vec<_> = (1..=before).filter(|number| number % 2 == 1).collect();
            let odd: Vec<_> = found.into_iter().filter(|number| number % 2 == 1).collect();
            assert_eq!(odd[..expected.len()], expected, "round {round}");
        }
    });
    assert!(segments::numbers(directory.path()).unwrap()[0] > 2, "segments were deleted meanwhile");
}

#[test]
fn a_segment_that_gives_its_space_back_while_it_is_copied_is_read_again() {
    let directory = closed();
    let path = disk::segment_path(directory.path(), 1);
    let used = std::fs::read(&path).unwrap();
    let reads = std::cell::Cell::new(0);
    let trimmed_meanwhile = |file: &File| {
        let end = if reads.replace(reads.get() + 1) == 0 { 8 * 1024 } else { file.metadata()?.len() };
        copy::read_backwards_from(file, end)
    };
    assert_eq!(copy::read_segment(&path, 1, false, trimmed_meanwhile).unwrap(), used);
    assert_eq!(reads.get(), 2);
    // What stays too short is an error, not waited for.
    let always = |file: &File| copy::read_backwards_from(file, 8 * 1024);
    let error = copy::read_segment(&path, 1, false, always).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_copy_goes_to_its_owner_alone_and_not_over_another_log() {
    let directory = closed();
    let to = scratch();
    let to = to.path().join("copy");
    copy(directory.path(), &to).unwrap();
    assert_eq!(checked(&to).verdict, Verdict::Closed);
    #[cfg(unix)]
    for file in std::fs::read_dir(&to).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o077, 0);
    }
    assert!(matches!(copy(directory.path(), &to), Err(OpenError::Foreign { .. })));
    assert!(matches!(copy(&to.join("none"), &to.join("other")), Err(OpenError::Unreachable { .. })));
}
