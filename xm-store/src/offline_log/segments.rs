//! What the bytes of a segment mean: which records are promised, what is torn, what is damaged. Changes no file.
//!
//! Batch *k* + 1 is written only after batch *k* is on stable storage. So damage that can belong to the last batch alone
//! is a write that a crash tore: nobody was told that it is stored, and it is cut off at its first bad byte. Any other
//! damage destroyed something that was promised. Such a segment is never cut.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::disk::{segment_number, segment_path, unreachable};
use super::format::{BadHeader, Frame, HEADER_LEN, Header, Record, Scan, scan};
use crate::error::OpenError;

/// A segment of a directory: its name and its head.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) header: Result<Header, BadHeader>,
    /// Where the frames end, according to the segment behind it.
    pub(super) promised_end: Option<u64>,
    pub(super) is_last: bool,
}

impl Found {
    /// The stamp of the frames. Where the header is lost, that of the first frame.
    pub(super) fn stamp(&self, bytes: &[u8]) -> Option<u64> {
        let first = || Frame::read(bytes.get(HEADER_LEN..)?).map(|frame| frame.stamp);
        self.header.ok().map(|header| header.stamp).or_else(first)
    }
}

/// The numbers of the segments in a directory, ascending.
pub(super) fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        numbers.extend(entry?.file_name().to_str().and_then(segment_number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The segments in a directory, oldest first. Nothing is refused yet: see [`refusal`].
pub(super) fn list(directory: &Path) -> Result<Vec<Found>, OpenError> {
    let numbers = numbers(directory).map_err(|error| unreachable(directory, &error))?;
    let mut found: Vec<Found> = Vec::with_capacity(numbers.len());
    for number in numbers {
        let path = segment_path(directory, number);
        let header = read_header(&path).map_err(|error| unreachable(&path, &error))?;
        if let Some(previous) = found.last_mut() {
            previous.is_last = false;
            let follows = previous.number + 1 == number;
            previous.promised_end =
                header.ok().filter(|header| follows && header.segment == number).map(|header| header.previous_end);
        }
        found.push(Found { number, path, header, promised_end: None, is_last: true });
    }
    Ok(found)
}

fn read_header(path: &Path) -> io::Result<Result<Header, BadHeader>> {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    File::open(path)?.take(HEADER_LEN as u64).read_to_end(&mut bytes)?;
    Ok(Header::decode(&bytes))
}

/// Why a log with these segments must not be gone on with, if there is a reason.
///
/// Segments are deleted from the oldest on. One missing in the middle was taken away by somebody else: starting
/// without it would drop what it held as if it had never been.
pub(super) fn refusal(directory: &Path, found: &[Found]) -> Option<OpenError> {
    let renamed = found.iter().find_map(|one| match one.header {
        Ok(header) if header.segment != one.number => Some(OpenError::Foreign {
            path: one.path.clone(),
            why: format!("it is segment {:016x} under another name", header.segment),
        }),
        Err(BadHeader::Newer(version)) => {
            Some(OpenError::Newer { path: one.path.clone(), found: format!("format {version}") })
        }
        _ => None,
    });
    let gap = found.windows(2).find(|pair| pair[0].number + 1 != pair[1].number).map(|pair| OpenError::Foreign {
        path: segment_path(directory, pair[0].number + 1),
        why: "the file is missing while older and newer ones are there".into(),
    });
    gap.or(renamed)
}

/// The segment that was the newest is not there.
pub(super) fn missing_newest(directory: &Path, number: u64) -> OpenError {
    let path = segment_path(directory, number);
    OpenError::Foreign { path, why: "the file is missing: it was the newest".into() }
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(super) struct Judged<'a> {
    /// What was promised and is intact, in order.
    pub(super) records: Vec<(usize, Frame<'a>, Record<'a>)>,
    /// What was promised and cannot be read.
    pub(super) damage: Vec<Range<usize>>,
    /// Intact by its checksum, and still no record.
    pub(super) poison: Vec<Range<usize>>,
    /// Where a torn write begins, if there is one.
    pub(super) torn: Option<usize>,
    /// Bytes of it.
    pub(super) torn_bytes: usize,
    /// Where the frames end.
    pub(super) end: usize,
    /// The last batch before this segment.
    pub(super) batch_before: u64,
}

impl Judged<'_> {
    /// The last batch of the segment.
    pub(super) fn last_batch(&self) -> Option<u64> {
        self.records.last().map(|(_, frame, _)| frame.batch)
    }

    /// Whether it was closed in order.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.records.last(), Some((_, _, Record::Stop)))
    }
}

/// Judges the bytes of a segment. `batch` is the highest batch of those before.
pub(super) fn judge<'a>(found: &Found, bytes: &'a [u8], batch: u64) -> Judged<'a> {
    let before = found.header.map_or(batch, |header| header.batch);
    let stamp = found.stamp(bytes);
    let mut scanned = stamp.map(|stamp| scan(bytes, stamp, before)).unwrap_or_default();
    let mut judged = Judged { end: scanned.end(), batch_before: before, ..Judged::default() };
    let mut damage = std::mem::take(&mut scanned.damage);
    if let Some(cut) = torn_at(&scanned, &damage, before).filter(|_| found.is_last) {
        scanned.frames.retain(|(at, _)| *at < cut);
        damage.retain(|range| range.start < cut);
        judged.end = cut;
        judged.torn = Some(cut);
        judged.torn_bytes = bytes[cut..].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    }
    if found.header.is_err() {
        // Without a stamp nothing in the segment can be told from what a sender wrote into a body.
        damage.insert(0, 0..if stamp.is_some() { HEADER_LEN } else { bytes.len() });
    }
    if let Some(promised) = found.promised_end.map(|end| end as usize) {
        // Behind the promised end lies at most what a failed write left over: damaged or intact, nobody was told of it.
        damage.retain(|range| range.start < promised);
        scanned.frames.retain(|(at, _)| *at < promised);
        judged.end = scanned.end();
        if judged.end < promised && damage.last().is_none_or(|last| last.end < promised) {
            damage.push(judged.end..promised);
        }
    }
    for (at, frame) in scanned.frames {
        match frame.record() {
            Some(record) => judged.records.push((at, frame, record)),
            None => judged.poison.push(at..at + frame.len()),
        }
    }
    judged.damage = damage;
    judged
}

/// Where to cut the last segment, if its first damage can belong to the last batch alone. `before` is the last batch
/// of the segment before.
fn torn_at(found: &Scan<'_>, damage: &[Range<usize>], before: u64) -> Option<usize> {
    let last_batch = found.frames.last().map_or(before, |(_, frame)| frame.batch);
    damage.iter().find_map(|damage| {
        let earlier = found.frames.iter().rev().find(|(at, _)| *at < damage.start).map(|(_, frame)| frame);
        let later = found.frames.iter().find(|(at, _)| *at >= damage.end).map(|(_, frame)| frame);
        let (batch, left) = earlier.map_or((before, 0), |frame| (frame.batch, frame.left));
        // What a start wrote again was flushed before the segment had its name.
        let is_sealed = batch == before && (left > 0 || later.is_some_and(|later| later.batch == before));
        let is_torn = match later {
            None => true,
            // The mark of a clean stop is a batch of its own, written after all others were flushed.
            Some(later) if later.record() == Some(Record::Stop) => false,
            Some(_) if batch == last_batch => true,
            // The damage holds the first frames of the last batch, unless a whole batch could be missing in it.
            Some(later) => left == 0 && later.batch == last_batch && last_batch == batch + 1,
        };
        (is_torn && !is_sealed).then_some(damage.start)
    })
}
