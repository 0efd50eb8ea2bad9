//! Bytes of a segment: header, frames, records. Pure functions; what a scan means for the log is in `recover.rs`.
//!
//! ```text
//! segment  header copy · zeros to 512 · header copy · zeros to 1,024 · frame · frame · … · zeros
//! header   "XMOFFLOG" · version u32 · segment u64 · stamp u64 · batch u64 · place u64 · previous end u64 · CRC-32
//! frame    stamp u64 · batch u64 · left u32 · length u32 · CRC-32 of these and the payload · payload
//! payload  1 · to u64 · place u64 · from u64 · id 16 · sent u64 · body                                  a parcel
//!          2 · to u64 · place u64 · from u64 · id 16 · at u64 · level u8 · hash 16                     a settled one
//!          3                                                                                         a clean stop
//!          4 · to u64 · first place u64 · last place u64 · at u64 · level u8            a run of settled ones
//! ```
//! All integers are little-endian. `stamp` is drawn for each segment: a body that looks like a frame, which its sender
//! could send, does not carry it, so a scan that looks for the next frame behind damage finds only real ones.
//! `left` counts the frames that follow in the same batch; a batch is written at once and flushed before the next.
//! Frames with the batch of their header were flushed before the segment had its name: a start wrote them again, because
//! it could not know whether the disk has the first copy.
//!
//! A run raises every parcel of `to` at these places that can rise to `level`, unless its level is so old that it could
//! have been forgotten before; and no others. What each is called, and its hash, say their own records, which lie before
//! the run. Version 1 had no runs. `vectors/` has a segment of each version, byte for byte.

use std::ops::Range;

use xmmep::types::{MsgId, UserId, WallTime};

use crate::records::{Level, PARCEL_BODY_MAX, ParcelId, Place};

/// Where the first frame begins. The copies of the header lie in different sectors.
pub(super) const HEADER_LEN: usize = 1_024;
const HEADER_COPIES: [usize; 2] = [0, 512];
const HEADER_BYTES: usize = 56;
const MAGIC: [u8; 8] = *b"XMOFFLOG";
/// The version this code writes and the highest it reads; it reads all before.
pub(super) const VERSION: u32 = 2;

/// Bytes of a frame before its payload.
pub(super) const FRAME_LEN: usize = 28;
/// Bytes of a parcel's payload before its body.
const PARCEL_LEN: usize = 49;
const SETTLED_LEN: usize = 66;
const RUN_LEN: usize = 34;
/// Bytes of a frame about one settled parcel.
pub(super) const SETTLED_FRAME_LEN: usize = FRAME_LEN + SETTLED_LEN;
/// Bytes of the shortest frame about a parcel: no damage can have destroyed more of them than fit into it.
pub(super) const PARCEL_FRAME_MIN: usize = FRAME_LEN + PARCEL_LEN;
/// The longest payload: nothing longer is believed, whatever a damaged length says.
const PAYLOAD_MAX: usize = PARCEL_LEN + PARCEL_BODY_MAX;

const PARCEL: u8 = 1;
const SETTLED: u8 = 2;
const STOP: u8 = 3;
const RUN: u8 = 4;

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Of the format.
    pub(super) version: u32,
    /// Counts the segments.
    pub(super) segment: u64,
    /// Drawn at random; in every frame of this segment and in no other.
    pub(super) stamp: u64,
    /// The last batch before this segment.
    pub(super) batch: u64,
    /// No place below this one is free.
    pub(super) next_place: u64,
    /// Where the frames of the segment before end, without those that this one begins with because the disk may lack them:
    /// a shorter one has lost some.
    pub(super) previous_end: u64,
}

/// Why a header was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// Intact, from a later version.
    Newer(u32),
    /// Neither copy is intact.
    Damaged,
}

impl Header {
    /// The first [`HEADER_LEN`] bytes of a segment.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut one = Vec::with_capacity(HEADER_BYTES);
        one.extend(MAGIC);
        one.extend(self.version.to_le_bytes());
        for number in [self.segment, self.stamp, self.batch, self.next_place, self.previous_end] {
            one.extend(number.to_le_bytes());
        }
        one.extend(crc32fast::hash(&one).to_le_bytes());
        let mut bytes = vec![0; HEADER_LEN];
        for at in HEADER_COPIES {
            bytes[at..at + HEADER_BYTES].copy_from_slice(&one);
        }
        bytes
    }

    /// Reads whichever copy is intact.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let mut result = Err(BadHeader::Damaged);
        for at in HEADER_COPIES {
            let Some(copy) = bytes.get(at..at + HEADER_BYTES) else { continue };
            let (body, crc) = copy.split_at(HEADER_BYTES - 4);
            if crc32fast::hash(body).to_le_bytes() != crc || !body.starts_with(&MAGIC) {
                continue;
            }
            let mut reader = Reader(&body[MAGIC.len()..]);
            let version = u32::from_le_bytes(reader.take().unwrap_or_default());
            if version > VERSION {
                result = Err(BadHeader::Newer(version));
                continue;
            }
            let mut number = || reader.u64().unwrap_or_default();
            let (segment, stamp, batch) = (number(), number(), number());
            return Ok(Self { version, segment, stamp, batch, next_place: number(), previous_end: number() });
        }
        result
    }
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// A message waits.
    Parcel { to: UserId, place: Place, id: ParcelId, sent: WallTime, body: &'a [u8] },
    /// A message waits no longer.
    Settled { to: UserId, place: Place, id: ParcelId, at: WallTime, level: Level, hash: [u8; 16] },
    /// Messages wait no longer: those of `to` at these places that can rise to this level.
    Run { to: UserId, first: Place, last: Place, at: WallTime, level: Level },
    /// The log was closed in order; nothing follows in this segment.
    Stop,
}

impl<'a> Record<'a> {
    /// The bytes of a frame that carries this record.
    pub(super) fn frame_len(&self) -> usize {
        FRAME_LEN
            + match self {
                Self::Parcel { body, .. } => PARCEL_LEN + body.len(),
                Self::Settled { .. } => SETTLED_LEN,
                Self::Run { .. } => RUN_LEN,
                Self::Stop => 1,
            }
    }

    /// Appends the frame that carries this record.
    pub(super) fn encode(&self, stamp: u64, batch: u64, left: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend(stamp.to_le_bytes());
        out.extend(batch.to_le_bytes());
        out.extend(left.to_le_bytes());
        out.extend(((self.frame_len() - FRAME_LEN) as u32).to_le_bytes());
        out.extend([0; 4]);
        match self {
            Self::Parcel { to, place, id, sent, body } => {
                out.push(PARCEL);
                encode_key(*to, *place, *id, out);
                out.extend(sent.0.to_le_bytes());
                out.extend(*body);
            }
            Self::Settled { to, place, id, at, level, hash } => {
                out.push(SETTLED);
                encode_key(*to, *place, *id, out);
                out.extend(at.0.to_le_bytes());
                out.push(encode_level(*level));
                out.extend(hash);
            }
            Self::Run { to, first, last, at, level } => {
                out.push(RUN);
                for number in [to.0, first.0, last.0, at.0] {
                    out.extend(number.to_le_bytes());
                }
                out.push(encode_level(*level));
            }
            Self::Stop => out.push(STOP),
        }
        let crc = frame_crc(&out[start..]);
        out[start + FRAME_LEN - 4..start + FRAME_LEN].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a payload whose checksum was right. `None` is a payload that no version of this code wrote.
    pub(super) fn decode(payload: &'a [u8]) -> Option<Self> {
        let (kind, rest) = payload.split_first()?;
        let mut reader = Reader(rest);
        match *kind {
            PARCEL => {
                let (to, place, id) = reader.key()?;
                let sent = WallTime(reader.u64()?);
                Some(Self::Parcel { to, place, id, sent, body: reader.0 })
            }
            SETTLED => {
                let (to, place, id) = reader.key()?;
                let at = WallTime(reader.u64()?);
                let level = decode_level(reader.take::<1>()?[0])?;
                Some(Self::Settled { to, place, id, at, level, hash: reader.take()? })
            }
            RUN => {
                let (to, first, last) = (UserId(reader.u64()?), Place(reader.u64()?), Place(reader.u64()?));
                let at = WallTime(reader.u64()?);
                let level = decode_level(reader.take::<1>()?[0])?;
                (first <= last && level > Level::Stored).then_some(Self::Run { to, first, last, at, level })
            }
            STOP => Some(Self::Stop),
            _ => None,
        }
    }
}

/// Appends the frames of a batch.
pub(super) fn encode_batch(records: &[Record<'_>], stamp: u64, batch: u64, out: &mut Vec<u8>) {
    for (record, left) in records.iter().zip((0..records.len() as u32).rev()) {
        record.encode(stamp, batch, left, out);
    }
}

fn encode_key(to: UserId, place: Place, id: ParcelId, out: &mut Vec<u8>) {
    for number in [to.0, place.0, id.from.0] {
        out.extend(number.to_le_bytes());
    }
    out.extend(id.id.0);
}

fn encode_level(level: Level) -> u8 {
    match level {
        Level::Stored => 0,
        Level::Received => 1,
        Level::Read => 2,
        Level::Refused => 3,
        Level::Expired => 4,
    }
}

fn decode_level(byte: u8) -> Option<Level> {
    Some(match byte {
        0 => Level::Stored,
        1 => Level::Received,
        2 => Level::Read,
        3 => Level::Refused,
        4 => Level::Expired,
        _ => return None,
    })
}

/// CRC-32 of a frame without its own field.
fn frame_crc(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..FRAME_LEN - 4]);
    hasher.update(&frame[FRAME_LEN..]);
    hasher.finalize()
}

/// Takes fixed pieces off the front; `None` once there is too little.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn key(&mut self) -> Option<(UserId, Place, ParcelId)> {
        let (to, place, from) = (self.u64()?, self.u64()?, self.u64()?);
        Some((UserId(to), Place(place), ParcelId { from: UserId(from), id: MsgId(self.take()?) }))
    }
}

/// A frame whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) stamp: u64,
    pub(super) batch: u64,
    /// Frames that follow in the same batch.
    pub(super) left: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes`, if an intact one is there.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let (stamp, batch) = (reader.u64()?, reader.u64()?);
        let (left, len) = (u32::from_le_bytes(reader.take()?), u32::from_le_bytes(reader.take()?) as usize);
        let crc = u32::from_le_bytes(reader.take()?);
        if len > PAYLOAD_MAX {
            return None;
        }
        let frame = bytes.get(..FRAME_LEN + len)?;
        (frame_crc(frame) == crc).then(|| Self { stamp, batch, left, payload: &frame[FRAME_LEN..] })
    }

    pub(super) fn len(&self) -> usize {
        FRAME_LEN + self.payload.len()
    }

    pub(super) fn record(&self) -> Option<Record<'a>> {
        Record::decode(self.payload)
    }
}

/// What lies in a segment.
#[derive(Debug, Default)]
pub(super) struct Scan<'a> {
    /// Intact frames with where they begin, in order.
    pub(super) frames: Vec<(usize, Frame<'a>)>,
    /// What lies between and behind them and is neither a frame nor zeros.
    pub(super) damage: Vec<Range<usize>>,
}

impl Scan<'_> {
    /// Where the last intact frame ends.
    pub(super) fn end(&self) -> usize {
        self.frames.last().map_or(HEADER_LEN, |(at, frame)| at + frame.len())
    }
}

/// Finds every intact frame of a segment, also behind damage. Frames of an earlier batch than the one before them are
/// left over from a write that failed and was overwritten: they count as damage.
pub(super) fn scan(bytes: &[u8], stamp: u64, first_batch: u64) -> Scan<'_> {
    let mut found = Scan::default();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let (mut at, mut batch) = (HEADER_LEN, first_batch);
    while at < used {
        let next = next_frame(bytes, at, stamp, batch);
        let damaged_to = next.map_or(used, |(next, _)| next);
        if damaged_to > at {
            found.damage.push(at..damaged_to);
        }
        let Some((next, frame)) = next else { break };
        found.frames.push((next, frame));
        batch = frame.batch;
        at = next + frame.len();
    }
    found
}

/// The first intact frame at `at` or behind it.
fn next_frame(bytes: &[u8], mut at: usize, stamp: u64, batch: u64) -> Option<(usize, Frame<'_>)> {
    let pattern = stamp.to_le_bytes();
    loop {
        let rest = bytes.get(at..)?;
        at += rest.windows(pattern.len()).position(|window| window == pattern)?;
        if let Some(frame) = Frame::read(&bytes[at..])
            && frame.batch >= batch
        {
            return Some((at, frame));
        }
        at += 1;
    }
}

/// The parcels that damaged bytes seem to have held. Where a frame begins, its head may be intact though its checksum is
/// wrong; the first one begins where the damage does.
pub(super) fn suspects(bytes: &[u8], damage: Range<usize>, stamp: u64) -> Vec<(UserId, Place)> {
    let bytes = bytes.get(damage.start.min(bytes.len())..damage.end.min(bytes.len())).unwrap_or_default();
    let pattern = stamp.to_le_bytes();
    let stamps = bytes.windows(pattern.len()).enumerate().filter(|(at, window)| *at > 0 && *window == pattern);
    let parcel_at = |at: usize| {
        let payload = bytes.get(at + FRAME_LEN..)?;
        let mut reader = Reader(payload.strip_prefix(&[PARCEL])?);
        reader.key().map(|(to, place, _)| (to, place))
    };
    std::iter::once(0).chain(stamps.map(|(at, _)| at)).filter_map(parcel_at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ParcelId = ParcelId { from: UserId(3), id: MsgId([4; 16]) };

    fn parcel(body: &[u8]) -> Record<'_> {
        Record::Parcel { to: UserId(1), place: Place(2), id: ID, sent: WallTime(5), body }
    }

    fn settled(level: Level) -> Record<'static> {
        Record::Settled { to: UserId(1), place: Place(2), id: ID, at: WallTime(6), level, hash: [7; 16] }
    }

    fn run(level: Level) -> Record<'static> {
        Record::Run { to: UserId(1), first: Place(2), last: Place(9), at: WallTime(6), level }
    }

    #[test]
    fn records_are_read_back_as_written() {
        let levels = [Level::Stored, Level::Received, Level::Read, Level::Refused, Level::Expired];
        let runs = [Level::Received, Level::Read, Level::Refused, Level::Expired].map(run);
        let records = [parcel(b""), parcel(b"hello"), Record::Stop].into_iter().chain(levels.map(settled)).chain(runs);
        for record in records {
            let mut bytes = Vec::new();
            record.encode(8, 9, 10, &mut bytes);
            assert_eq!(bytes.len(), record.frame_len());
            let frame = Frame::read(&bytes).expect("intact");
            assert_eq!((frame.stamp, frame.batch, frame.left), (8, 9, 10));
            assert_eq!(frame.record(), Some(record));
        }
    }

    #[test]
    fn every_truncation_and_every_bit_flip_of_a_frame_is_noticed() {
        for record in [parcel(b"hello"), settled(Level::Read), run(Level::Received), Record::Stop] {
            let mut bytes = Vec::new();
            record.encode(8, 9, 10, &mut bytes);
            for end in 0..bytes.len() {
                assert_eq!(Frame::read(&bytes[..end]), None, "{record:?} cut at {end}");
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Frame::read(&flipped), None, "{record:?}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_payload_no_version_wrote_is_no_record() {
        let cut_off = [&[PARCEL; PARCEL_LEN - 1][..], &[SETTLED; SETTLED_LEN - 1], &[RUN; RUN_LEN - 1]];
        for payload in [&[][..], &[0], &[9, 1], &[PARCEL]].into_iter().chain(cut_off) {
            assert_eq!(Record::decode(payload), None, "{payload:?}");
        }
        assert_eq!(
            Record::decode(&[SETTLED; SETTLED_LEN]),
            Some(Record::Settled {
                to: UserId(0x0202_0202_0202_0202),
                place: Place(0x0202_0202_0202_0202),
                id: ParcelId { from: UserId(0x0202_0202_0202_0202), id: MsgId([2; 16]) },
                at: WallTime(0x0202_0202_0202_0202),
                level: Level::Read,
                hash: [2; 16],
            })
        );
        let mut unknown_level = [SETTLED; SETTLED_LEN];
        unknown_level[49] = 5;
        assert_eq!(Record::decode(&unknown_level), None);
        let mut run = [RUN; RUN_LEN];
        assert!(matches!(Record::decode(&run), Some(Record::Run { level: Level::Expired, .. })));
        run[RUN_LEN - 1] = 0;
        assert_eq!(Record::decode(&run), None, "nothing rises to stored");
        run[RUN_LEN - 1] = 1;
        run[16] = RUN + 1;
        assert_eq!(Record::decode(&run), None, "it ends before it begins");
    }

    #[test]
    fn a_header_survives_the_loss_of_either_sector() {
        let header = Header { version: VERSION, segment: 1, stamp: 2, batch: 3, next_place: 4, previous_end: 5 };
        let bytes = header.encode();
        assert_eq!(bytes.len(), HEADER_LEN);
        for sector in [0..512, 512..1_024] {
            let mut damaged = bytes.clone();
            damaged[sector].fill(0xee);
            assert_eq!(Header::decode(&damaged), Ok(header));
        }
        assert_eq!(Header::decode(&vec![0xee; HEADER_LEN]), Err(BadHeader::Damaged));
        assert_eq!(Header::decode(b""), Err(BadHeader::Damaged));
    }

    #[test]
    fn a_header_of_a_newer_version_is_told_from_a_damaged_one() {
        let header = Header { version: VERSION, segment: 1, stamp: 2, batch: 3, next_place: 4, previous_end: 5 };
        let mut bytes = header.encode();
        for at in HEADER_COPIES {
            bytes[at + 8] = 3;
            let crc = crc32fast::hash(&bytes[at..at + HEADER_BYTES - 4]);
            bytes[at + HEADER_BYTES - 4..at + HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        }
        assert_eq!(Header::decode(&bytes), Err(BadHeader::Newer(3)));
    }

    #[test]
    fn a_body_that_looks_like_a_frame_is_not_found_behind_damage() {
        let mut forged = Vec::new();
        parcel(b"forged").encode(1234, 9, 0, &mut forged);
        let mut bytes = vec![0; HEADER_LEN];
        parcel(&forged).encode(8, 1, 1, &mut bytes);
        parcel(b"real").encode(8, 1, 0, &mut bytes);
        bytes[HEADER_LEN + 20] ^= 1;
        let found = scan(&bytes, 8, 0);
        assert_eq!(found.frames.len(), 1);
        assert_eq!(found.frames[0].1.record(), Some(parcel(b"real")));
        assert_eq!(found.damage.len(), 1);
    }
}
