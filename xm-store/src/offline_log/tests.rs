//! What only shows from inside: files cut and damaged at every byte, compaction, a full disk.

mod check;
mod cursor;
mod erase;
mod failed_flush;
mod kill_points;
mod next_segment;
mod stopped;
mod vectors;

use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use xmmep::types::MsgId;

use super::format::HEADER_LEN;
use super::*;

const BOB: UserId = UserId(2);

/// A directory in memory where there is one: these tests flush thousands of times, and what a disk does is tested elsewhere.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn parcel(number: u64) -> Parcel {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    Parcel { from: UserId(number % 7), id: MsgId(id), sent: WallTime(number), body: vec![number as u8; 40] }
}

fn id(parcel: &Parcel) -> ParcelId {
    ParcelId { from: parcel.from, id: parcel.id }
}

fn small() -> Options {
    Options { segment_bytes: 8 * 1024, ..Options::default() }
}

/// Ears for a log, and what they hear.
fn watched() -> (Receiver<Event>, Watch) {
    let (tell, events) = std::sync::mpsc::channel();
    // Nobody may be listening any more.
    (events, Box::new(move |event| drop(tell.send(event))))
}

/// Waits for the log to say that it works again.
fn reopened_event(events: &Receiver<Event>) -> Recovery {
    loop {
        match events.recv().expect("the log lives") {
            Event::Reopened(recovery) => return recovery,
            Event::Stopped(_) | Event::StillStopped(..) | Event::SlowFlush(_) => {}
            other => panic!("{other}"),
        }
    }
}

/// The directory as a crash at this moment would leave it.
fn crash_copy(directory: &Path) -> tempfile::TempDir {
    let copy = scratch();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

/// The records of a segment, whatever they are worth.
fn records(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap();
    let header = format::Header::decode(&bytes).unwrap();
    let found = format::scan(&bytes, header.stamp, header.batch);
    found.frames.iter().map(|(_, frame)| format!("{:?}", frame.record())).collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap().block_on(future)
}

/// Appends one parcel per call, so that each is a batch of its own.
async fn append(log: &OfflineLog, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let answers = log.append(BOB, vec![parcel(number)]).await.unwrap();
        assert!(matches!(answers[..], [Appended::Stored(_)]), "{answers:?}");
    }
}

async fn waiting(log: &OfflineLog) -> Vec<Parcel> {
    let page = log.page(BOB, Place::START, usize::MAX, usize::MAX).await.unwrap();
    page.into_iter().map(|(_, parcel)| parcel).collect()
}

/// A log with three batches: two parcels, then one, then three; and the bytes of its only segment up to the end, with
/// where each frame begins.
fn three_batches() -> (Vec<u8>, Vec<usize>) {
    let directory = scratch();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    block_on(async {
        for numbers in [1..3, 3..4, 4..7] {
            log.append(BOB, numbers.map(parcel).collect()).await.unwrap();
        }
    });
    // Without dropping the log: as a crash would leave it.
    let mut bytes = std::fs::read(disk::segment_path(directory.path(), 1)).unwrap();
    let header = format::Header::decode(&bytes).unwrap();
    let found = format::scan(&bytes, header.stamp, 0);
    let starts: Vec<_> = found.frames.iter().map(|(at, _)| *at).collect();
    let end = found.end();
    bytes.truncate(end);
    (bytes, starts)
}

/// Opens a log whose only segment has these bytes. Returns what waits, and the report.
fn reopened(bytes: &[u8]) -> Result<(Vec<Parcel>, Recovery, Vec<u8>), OpenError> {
    let directory = scratch();
    let path = disk::segment_path(directory.path(), 1);
    std::fs::write(&path, bytes).unwrap();
    let log = OfflineLog::open(directory.path(), small())?;
    let kept = std::fs::read(path).unwrap();
    let parcels = block_on(waiting(&log));
    let recovery = log.recovery().clone();
    // What was found can be gone on with.
    block_on(append(&log, 100..101));
    assert_eq!(block_on(waiting(&log)).len(), parcels.len() + 1);
    drop(log);
    let again = OfflineLog::open(directory.path(), small()).unwrap();
    assert_eq!(block_on(waiting(&again)).len(), parcels.len() + 1, "the second start finds the same");
    Ok((parcels, recovery, kept))
}

fn numbers(parcels: &[Parcel]) -> Vec<u64> {
    parcels.iter().map(|parcel| parcel.sent.0).collect()
}

#[test]
fn the_last_batch_cut_at_every_byte_leaves_every_earlier_one() {
    let (bytes, starts) = three_batches();
    let last_batch = starts[3];
    for cut in last_batch..=bytes.len() {
        // Cut short, and cut with the zeros behind it that were taken in advance.
        for zeros in [0, 3_000] {
            let mut torn = bytes[..cut].to_vec();
            torn.resize(cut + zeros, 0);
            let (parcels, recovery, _) = reopened(&torn).unwrap();
            let whole = starts.iter().filter(|start| **start > last_batch && **start <= cut).count();
            let whole = if cut == bytes.len() { 3 } else { whole };
            assert_eq!(numbers(&parcels), (1..4 + whole as u64).collect::<Vec<_>>(), "cut at {cut}");
            assert_eq!(recovery.damage, [], "a torn write is no damage: cut at {cut}");
        }
    }
}

#[test]
fn any_sectors_of_the_last_batch_may_be_missing() {
    let (mut bytes, starts) = three_batches();
    bytes.truncate(starts[3]);
    let directory = scratch();
    let path = disk::segment_path(directory.path(), 1);
    std::fs::write(&path, &bytes).unwrap();
    let large = |number| Parcel { body: vec![number as u8; 700], ..parcel(number) };
    // Write the same batch into the same segment by hand, so that its sectors can be taken away.
    let header = format::Header::decode(&bytes).unwrap();
    for (left, number) in (0..4_u32).rev().zip(4..) {
        let one = large(number);
        let place = Place(number);
        let record = format::Record::Parcel { to: BOB, place, id: id(&one), sent: one.sent, body: &one.body };
        record.encode(header.stamp, 3, left, &mut bytes);
    }
    let first_sector = starts[3].div_ceil(512);
    let sectors = bytes.len().div_ceil(512) - first_sector;
    assert!((5..10).contains(&sectors));
    for kept in 0..1_u32 << sectors {
        let mut torn = bytes.clone();
        for sector in (0..sectors).filter(|sector| kept & 1 << sector == 0) {
            let start = (first_sector + sector) * 512;
            let end = torn.len().min(start + 512);
            torn[start..end].fill(0);
        }
        let (parcels, recovery, _) = reopened(&torn).unwrap();
        let found = numbers(&parcels);
        assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>(), "kept {kept:b}: a prefix, in order");
        assert!(found.len() >= 3, "kept {kept:b}: what was flushed before is there");
        assert!(parcels.iter().all(|one| *one == parcel(one.sent.0) || *one == large(one.sent.0)), "kept {kept:b}");
        assert_eq!(recovery.damage, [], "kept {kept:b}");
    }
}

#[test]
fn a_flipped_bit_in_an_earlier_batch_costs_one_parcel_and_raises_the_alarm() {
    let (bytes, starts) = three_batches();
    for at in HEADER_LEN..starts[3] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let (parcels, recovery, kept) = reopened(&damaged).unwrap();
        let lost = starts.iter().rposition(|start| *start <= at).unwrap() as u64 + 1;
        let expected: Vec<_> = (1..7).filter(|number| *number != lost).collect();
        assert_eq!(numbers(&parcels), expected, "byte {at}");
        assert_eq!(recovery.damage.len(), 1, "byte {at}");
        assert!(recovery.damage[0].bytes.contains(&(at as u64)), "byte {at}: {:?}", recovery.damage);
        assert_eq!(recovery.torn_bytes, 0, "byte {at}");
        assert_eq!(kept, damaged, "byte {at}: nothing is cut");
    }
}

#[test]
fn a_flipped_bit_in_the_header_costs_nothing() {
    let (bytes, _) = three_batches();
    for at in 0..HEADER_LEN {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let (parcels, ..) = reopened(&damaged).unwrap();
        assert_eq!(numbers(&parcels), [1, 2, 3, 4, 5, 6], "byte {at}");
    }
}

#[test]
fn without_any_header_the_parcels_are_found_and_the_alarm_is_raised() {
    let (mut bytes, _) = three_batches();
    bytes[..HEADER_LEN].fill(0xa5);
    let (parcels, recovery, _) = reopened(&bytes).unwrap();
    assert_eq!(numbers(&parcels), [1, 2, 3, 4, 5, 6]);
    assert_eq!(recovery.damage.len(), 1);
}

#[test]
fn garbage_of_any_length_is_survived() {
    for len in (0..200).chain([1_023, 1_024, 1_025, 5_000, 20_000]) {
        let mut state = len as u64 + 1;
        let garbage = (0..len).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as u8
        });
        let (parcels, ..) = reopened(&garbage.collect::<Vec<_>>()).unwrap();
        assert_eq!(parcels, [], "{len} bytes");
    }
}

#[test]
fn after_a_clean_stop_damage_at_the_end_is_damage() {
    let directory = scratch();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    block_on(append(&log, 1..4));
    drop(log);
    let path = disk::segment_path(directory.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let header = format::Header::decode(&bytes).unwrap();
    let found = format::scan(&bytes, header.stamp, 0);
    let third = found.frames[2].0;
    bytes[third + 30] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    assert_eq!(numbers(&block_on(waiting(&log))), [1, 2]);
    assert_eq!((log.recovery().damage.len(), log.recovery().torn_bytes), (1, 0));
    let kept: Vec<_> = std::fs::read_dir(directory.path().join("quarantine")).unwrap().collect();
    assert_eq!(kept.len(), 1);
}

#[test]
fn a_sealed_segment_cut_short_raises_the_alarm() {
    let directory = scratch();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    block_on(append(&log, 1..150));
    drop(log);
    let path = disk::segment_path(directory.path(), 1);
    let bytes = std::fs::read(&path).unwrap();
    assert!(disk::segment_path(directory.path(), 2).exists());
    let header = format::Header::decode(&bytes).unwrap();
    let frames: Vec<_> = format::scan(&bytes, header.stamp, 0).frames.iter().map(|(at, _)| *at).collect();
    let last = *frames.last().unwrap();
    std::fs::write(&path, &bytes[..last]).unwrap();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    let lost = frames.len() as u64;
    let expected: Vec<_> = (1..150).filter(|number| *number != lost).collect();
    assert_eq!(numbers(&block_on(waiting(&log))), expected);
    assert_eq!(log.recovery().damage.len(), 1);
}

#[test]
fn a_segment_that_is_gone_or_renamed_is_named() {
    let directory = scratch();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    block_on(append(&log, 1..250));
    drop(log);
    let (second, fourth) = (disk::segment_path(directory.path(), 2), disk::segment_path(directory.path(), 40));
    std::fs::rename(&second, &fourth).unwrap();
    let error = OfflineLog::open(directory.path(), small()).unwrap_err();
    assert!(matches!(&error, OpenError::Foreign { path, .. } if *path == second), "{error}");
    std::fs::rename(disk::segment_path(directory.path(), 1), &second).unwrap();
    std::fs::remove_file(&fourth).unwrap();
    for number in 3..=9 {
        let _ = std::fs::remove_file(disk::segment_path(directory.path(), number));
    }
    let error = OfflineLog::open(directory.path(), small()).unwrap_err();
    assert!(matches!(&error, OpenError::Foreign { path, .. } if *path == second), "{error}");
}

#[test]
fn a_second_opening_is_refused_by_name() {
    let directory = scratch();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    let error = OfflineLog::open(directory.path(), small()).unwrap_err();
    assert_eq!(error, OpenError::InUse(directory.path().to_owned()));
    drop(log);
    OfflineLog::open(directory.path(), small()).unwrap();
}

#[cfg(unix)]
#[test]
fn the_files_belong_to_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = scratch();
    let path = directory.path().join("offline");
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
    let log = OfflineLog::open(&path, small()).unwrap();
    block_on(append(&log, 1..3));
    drop(log);
    // Somebody has opened them to all meanwhile.
    for file in std::fs::read_dir(&path).unwrap() {
        std::fs::set_permissions(file.unwrap().path(), PermissionsExt::from_mode(0o666)).unwrap();
    }
    let log = OfflineLog::open(&path, small()).unwrap();
    block_on(append(&log, 3..4));
    let files: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 3, "a lock, and a segment of each run");
    for file in files.into_iter().chain([path.clone()]) {
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", file.display());
    }
}

#[test]
fn space_is_freed_and_nothing_that_waits_is_lost() {
    let directory = scratch();
    let quotas = Quotas { messages: 10_000, bytes: 10_000_000, messages_per_sender: 10_000 };
    let options = || Options { quotas, ..small() };
    let log = OfflineLog::open(directory.path(), options()).unwrap();
    let week = LEVEL_WEEK;
    block_on(async {
        append(&log, 1..6).await;
        for round in 0..40_u64 {
            let numbers = 100 + round * 100..200 + round * 100;
            append(&log, numbers.clone()).await;
            let ids: Vec<_> = numbers.map(|number| id(&parcel(number))).collect();
            let at = WallTime((round + 1) * week);
            assert_eq!(log.settle(BOB, &ids, Level::Received, at).await.unwrap().len(), 100);
            log.forget(WallTime((round + 2) * week + 1)).await.unwrap();
        }
        assert_eq!(numbers(&waiting(&log).await), [1, 2, 3, 4, 5]);
        log.shared.reading().assert_sums();
    });
    let size = || -> u64 {
        let files = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
        files.filter(std::fs::Metadata::is_file).map(|file| file.len()).sum()
    };
    assert!(size() <= 4 * 8 * 1024, "{} bytes for five parcels", size());
    drop(log);
    let log = OfflineLog::open(directory.path(), options()).unwrap();
    assert_eq!(numbers(&block_on(waiting(&log))), [1, 2, 3, 4, 5]);
    assert_eq!(log.recovery().damage, []);
    let answers = block_on(log.append(BOB, vec![parcel(3)])).unwrap();
    assert!(matches!(answers[..], [Appended::Already(Place(3), Level::Stored)]), "{answers:?}");
}

/// A bit more than levels are kept.
const LEVEL_WEEK: u64 = 7 * 24 * 3_600 * 1_000;

#[test]
fn a_parcel_larger_than_a_segment_fits() {
    let directory = scratch();
    let options = Options { segment_bytes: 0, ..Options::default() };
    let log = OfflineLog::open(directory.path(), options.clone()).unwrap();
    block_on(append(&log, 1..5));
    drop(log);
    let log = OfflineLog::open(directory.path(), options).unwrap();
    assert_eq!(numbers(&block_on(waiting(&log))), [1, 2, 3, 4]);
}

static IS_FULL: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// A disk that, while full, takes half of what it is given.
fn full_write(file: &File, bytes: &[u8], at: u64) -> std::io::Result<()> {
    if !IS_FULL.load(Ordering::SeqCst) {
        return disk::write_all_at(file, bytes, at);
    }
    disk::write_all_at(file, &bytes[..bytes.len() / 2], at)?;
    Err(std::io::ErrorKind::StorageFull.into())
}

#[test]
fn a_full_disk_refuses_appends_and_nothing_else_and_passes() {
    let directory = scratch();
    let calls = disk::Calls { write: full_write, ..disk::Calls::REAL };
    let (events, watch) = watched();
    let log = OfflineLog::open_with(directory.path(), small(), watch, calls).unwrap();
    let set_full = |is_full| IS_FULL.store(is_full, Ordering::SeqCst);
    block_on(async {
        set_full(true);
        let first = log.append(BOB, vec![parcel(1)]).await;
        assert!(matches!(first, Err(StoreError::Full(_))), "no segment can be made: {first:?}");
        assert!(!directory.path().join(disk::UNFINISHED).exists(), "its space is given back");
        set_full(false);
        append(&log, 1..4).await;
        for round in 0..40 {
            set_full(true);
            let many = (10..15).map(parcel).collect();
            let refused = log.append(BOB, many).await;
            assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
            assert_eq!(log.level(BOB, id(&parcel(10))).await.unwrap(), None);
            assert_eq!(log.summary(BOB).await.unwrap().messages, 3 + round, "reading goes on");
            assert_eq!(waiting(&log).await.len() as u64, 3 + round);
            log.shared.reading().assert_sums();
            set_full(false);
            append(&log, 100 + round..101 + round).await;
        }
        set_full(true);
        let settled = log.settle(BOB, &[id(&parcel(1))], Level::Received, WallTime(1)).await.unwrap();
        assert_eq!(settled.len(), 1, "confirming goes on");
        set_full(false);
        append(&log, 10..12).await;
    });
    let told = events.try_iter().filter(|event| matches!(event, Event::Full(_))).count();
    assert_eq!(told, 41, "each time once");
    assert!(log.counters().full >= 41);
    let expected: Vec<u64> = (2..4).chain(100..140).chain(10..12).collect();
    assert_eq!(numbers(&block_on(waiting(&log))), expected);
    drop(log);
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    assert_eq!(numbers(&block_on(waiting(&log))), expected, "nothing refused comes back");
    assert_eq!(log.recovery().damage, [], "what half a write left over is no damage");
}
