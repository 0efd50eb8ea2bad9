//! Segments as they were written by each version, byte for byte. The format has a description so that others can read
//! it; these are its examples, made by other code than ours.

use super::super::format::{FRAME_LEN, Header, Record, VERSION, scan};
use super::*;

const V1: &str = include_str!("../../../vectors/offline_log_v1.hex");
const V2: &str = include_str!("../../../vectors/offline_log_v2.hex");
const STAMP: u64 = 0xa1a2_a3a4_a5a6_a7a8;
const DAY: u64 = 1_790_000_000_000;

/// Commented hex: pairs of digits, `00*n` for n zeros, `#` up to the end of the line.
fn parse(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace()) {
        let (pair, times) = word.split_once('*').map_or((word, 1), |(pair, times)| (pair, times.parse().unwrap()));
        let byte = u8::from_str_radix(pair, 16).unwrap();
        bytes.extend(std::iter::repeat_n(byte, times));
    }
    bytes
}

fn id(from: u64, byte: u8) -> ParcelId {
    ParcelId { from: UserId(from), id: MsgId([byte; 16]) }
}

fn record(to: u64, place: u64, id: ParcelId, sent: u64, body: &[u8]) -> Record<'_> {
    Record::Parcel { to: UserId(to), place: Place(place), id, sent: WallTime(DAY + sent), body }
}

fn settled(at: u64) -> Record<'static> {
    let hash = index::body_hash(b"hello");
    let (to, place, at) = (UserId(2), Place(1), WallTime(DAY + at));
    Record::Settled { to, place, id: id(1, 0x11), at, level: Level::Received, hash }
}

fn run(first: u64, last: u64, at: u64, level: Level) -> Record<'static> {
    Record::Run { to: UserId(2), first: Place(first), last: Place(last), at: WallTime(DAY + at), level }
}

/// A segment written from these records, each with its batch and `left`.
fn written(header: &Header, records: &[(u64, u32, Record<'_>)]) -> Vec<u8> {
    let mut bytes = header.encode();
    for (batch, left, record) in records {
        record.encode(header.stamp, *batch, *left, &mut bytes);
    }
    bytes
}

fn opened(name: &str, bytes: &[u8]) -> (tempfile::TempDir, OfflineLog) {
    let directory = scratch();
    std::fs::write(directory.path().join(name), bytes).unwrap();
    let log = OfflineLog::open(directory.path(), small()).unwrap();
    assert_eq!(log.recovery().damage, []);
    assert_eq!((log.recovery().torn_bytes, log.recovery().rewritten), (0, 0), "it was closed in order");
    (directory, log)
}

#[test]
fn version_1_is_what_it_always_was_and_is_read() {
    let bytes = parse(V1);
    let header = Header { version: 1, segment: 1, stamp: STAMP, batch: 0, next_place: 1, previous_end: 0 };
    assert_eq!(Header::decode(&bytes), Ok(header));
    let records = [
        (1, 1, record(2, 1, id(1, 0x11), 0, b"hello")),
        (1, 0, record(2, 2, id(3, 0x22), 1, b"two")),
        (2, 0, settled(2)),
        (3, 0, Record::Stop),
    ];
    assert_eq!(bytes, written(&header, &records));
    let (_directory, log) = opened("0000000000000001.seg", &bytes);
    block_on(async {
        let page = log.page(BOB, Place::START, 9, 999).await.unwrap();
        let two = Parcel { from: UserId(3), id: MsgId([0x22; 16]), sent: WallTime(DAY + 1), body: b"two".to_vec() };
        assert_eq!(page, [(Place(2), two)]);
        assert_eq!(log.level(BOB, id(1, 0x11)).await.unwrap(), Some(Level::Received));
        let hello = Parcel { from: UserId(1), id: MsgId([0x11; 16]), sent: WallTime(0), body: b"hello".to_vec() };
        let again = log.append(BOB, vec![hello]).await.unwrap();
        assert_eq!(again, [Appended::Already(Place(1), Level::Received)]);
        append(&log, 1..2).await;
    });
}

#[test]
fn version_2_is_what_we_write_and_read() {
    let bytes = parse(V2);
    let header = Header { version: 2, segment: 5, stamp: STAMP, batch: 7, next_place: 3, previous_end: 1_101 };
    assert_eq!((Header::decode(&bytes), VERSION), (Ok(header), 2));
    let records = [
        (7, 0, record(2, 3, id(1, 0x33), 0, b"three")),
        (8, 2, record(2, 4, id(1, 0x44), 1, b"four")),
        (8, 1, record(9, 5, id(1, 0x55), 2, b"five")),
        (8, 0, record(2, 6, id(3, 0x66), 3, b"six")),
        (9, 0, run(3, 4, 4, Level::Received)),
        (10, 1, run(4, 4, 5, Level::Read)),
        (10, 0, settled(6)),
        (11, 0, Record::Stop),
    ];
    assert_eq!(bytes, written(&header, &records));
    let (_directory, log) = opened("0000000000000005.seg", &bytes);
    block_on(async {
        assert_eq!(numbers(&waiting(&log).await), [DAY + 3]);
        assert_eq!(log.summary(UserId(9)).await.unwrap().messages, 1, "a run is of one recipient");
        let levels = [(id(1, 0x33), Level::Received), (id(1, 0x44), Level::Read), (id(1, 0x11), Level::Received)];
        for (parcel, level) in levels {
            assert_eq!(log.level(BOB, parcel).await.unwrap(), Some(level), "{parcel:?}");
        }
    });
}

#[test]
fn a_flipped_bit_anywhere_in_a_closed_segment_of_either_version_is_noticed_and_nothing_is_cut() {
    for (name, text) in [("0000000000000001.seg", V1), ("0000000000000005.seg", V2)] {
        let bytes = parse(text);
        let header = Header::decode(&bytes).unwrap();
        let intact: Vec<_> = scan(&bytes, header.stamp, header.batch).frames.iter().map(|(at, _)| *at).collect();
        // The mark of the clean stop is the last frame: without it, what is torn is the mark itself.
        let stop = *intact.last().unwrap();
        for at in HEADER_LEN..stop {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let directory = scratch();
            std::fs::write(directory.path().join(name), &damaged).unwrap();
            let log = OfflineLog::open(directory.path(), small()).unwrap();
            let found = log.recovery();
            assert_eq!((found.damage.len(), found.torn_bytes), (1, 0), "{name}, byte {at}");
            assert!(found.damage[0].bytes.contains(&(at as u64)), "{name}, byte {at}: {:?}", found.damage);
            drop(log);
            assert!(std::fs::read(directory.path().join(name)).unwrap() == damaged, "{name}, byte {at}");
        }
        assert_eq!(bytes.len(), stop + FRAME_LEN + 1);
    }
}
