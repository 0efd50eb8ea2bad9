//! What a start finds: reads every segment, tells a torn end from damage, rebuilds the index.
//!
//! Batch *k* + 1 is written only after batch *k* is on stable storage. So damage that can belong to the last batch alone
//! is a write that the crash tore: nobody was told that it is stored, and it is cut off at its first bad byte. Any other
//! damage destroyed something that was promised: it is copied to `quarantine/`, reported, and everything else is kept.
//! Such a segment is never cut.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{self, UNFINISHED, segment_number, segment_path, sync_directory};
use super::format::{BadHeader, Frame, HEADER_LEN, Header, Scan, scan};
use super::index::{Index, Location};
use crate::error::OpenError;

/// What a start found. Empty damage and no torn bytes is the normal case after a clean stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments read.
    pub segments: usize,
    /// Parcels that wait.
    pub waiting: u64,
    /// Bytes cut off the end: a write that a crash tore, and that nobody was promised.
    pub torn_bytes: u64,
    /// Where promised records are lost. Somebody should look: the disk is failing.
    pub damage: Vec<Damage>,
}

/// A part of a segment that cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// Which bytes of it.
    pub bytes: Range<u64>,
}

/// A segment that is kept.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) file: Arc<File>,
    /// Where its frames end.
    pub(super) end: u64,
}

/// What the log goes on with.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: Index,
    /// Oldest first.
    pub(super) segments: Vec<Segment>,
    /// The highest batch seen.
    pub(super) batch: u64,
    pub(super) report: Recovery,
}

/// Reads everything in `directory`.
pub(super) fn recover(directory: &Path) -> Result<Recovered, OpenError> {
    let unreachable = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| OpenError::Unreachable { path, why: error.to_string() }
    };
    let unfinished = directory.join(UNFINISHED);
    if unfinished.exists() {
        std::fs::remove_file(&unfinished).map_err(unreachable(&unfinished))?;
    }
    let numbers = segment_numbers(directory).map_err(unreachable(directory))?;
    check_gaps(directory, &numbers)?;
    let mut recovered =
        Recovered { index: Index::default(), segments: Vec::new(), batch: 0, report: Recovery::default() };
    recovered.index.next_place = 1;
    // A segment says where the one before it ends, so they are read from the last to the first.
    let mut contents = Vec::new();
    let mut promised_end = None;
    for number in numbers.iter().rev() {
        let path = segment_path(directory, *number);
        let bytes = std::fs::read(&path).map_err(unreachable(&path))?;
        let header = read_header(&path, *number, &bytes)?;
        contents.push((path, bytes, header, promised_end));
        promised_end = header.map(|header| header.previous_end);
    }
    contents.reverse();
    for (number, (path, bytes, header, promised_end)) in numbers.iter().zip(contents) {
        let is_last = Some(number) == numbers.last();
        recovered.take(*number, &path, &bytes, header, promised_end, is_last).map_err(unreachable(&path))?;
    }
    recovered.index.durable = recovered.index.next_place;
    recovered.report.segments = recovered.segments.len();
    Ok(recovered)
}

impl Recovered {
    /// Takes the records of one segment.
    fn take(
        &mut self,
        number: u64,
        path: &Path,
        bytes: &[u8],
        header: Option<Header>,
        promised_end: Option<u64>,
        is_last: bool,
    ) -> io::Result<()> {
        let header_batch = header.map_or(self.batch, |header| header.batch);
        self.batch = self.batch.max(header_batch);
        self.index.next_place = self.index.next_place.max(header.map_or(0, |header| header.next_place));
        let stamp = header.map(|header| header.stamp).or_else(|| first_stamp(bytes));
        let mut found = stamp.map(|stamp| scan(bytes, stamp, header_batch)).unwrap_or_default();
        let mut damage = found.damage.clone();
        if header.is_none() {
            // Without a stamp nothing in the segment can be told from what a sender wrote into a body.
            damage.insert(0, 0..if stamp.is_some() { HEADER_LEN } else { bytes.len() });
        }
        let file = disk::private_file(path)?;
        let mut end = found.end();
        if let Some(cut) = torn_at(&found, header_batch).filter(|_| is_last) {
            found.frames.retain(|(at, _)| *at < cut);
            damage.retain(|range| range.start < cut);
            end = cut;
            let torn = bytes[cut..].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            self.report.torn_bytes += torn as u64;
            file.set_len(cut as u64)?;
            file.sync_all()?;
        }
        if let Some(promised) = promised_end.map(|end| end as usize) {
            // Behind the promised end lies at most what a failed write left over.
            damage.retain(|range| range.start < promised);
            if end < promised && damage.last().is_none_or(|last| last.end < promised) {
                damage.push(end..promised);
            }
        }
        if damage.is_empty() && header.is_some() && bytes.len() > end {
            // Nothing but zeros, taken in advance.
            file.set_len(end as u64)?;
        }
        for range in damage {
            quarantine(path, bytes, &range)?;
            self.report.damage.push(Damage { path: path.to_owned(), bytes: range.start as u64..range.end as u64 });
        }
        for (at, frame) in &found.frames {
            self.batch = self.batch.max(frame.batch);
            let at = Location { segment: number, offset: *at as u64, len: frame.len() as u32 };
            match frame.record() {
                Some(record) => self.index.replay(&record, at),
                // A right checksum around nonsense: written by a bug or by a later version within the same format.
                None => self
                    .report
                    .damage
                    .push(Damage { path: path.to_owned(), bytes: at.offset..at.offset + u64::from(at.len) }),
            }
        }
        self.segments.push(Segment { number, file: Arc::new(file), end: end as u64 });
        Ok(())
    }
}

/// The numbers of the segments in a directory, ascending.
fn segment_numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        numbers.extend(entry?.file_name().to_str().and_then(segment_number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Segments are deleted from the oldest on. One missing in the middle was taken away by somebody else: starting
/// without it would drop what it held as if it had never been.
fn check_gaps(directory: &Path, numbers: &[u64]) -> Result<(), OpenError> {
    let gap = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]);
    match gap {
        Some(pair) => Err(OpenError::Foreign {
            path: segment_path(directory, pair[0] + 1),
            why: "the file is missing while older and newer ones are there".into(),
        }),
        None => Ok(()),
    }
}

/// The header, or `None` if it is damaged.
fn read_header(path: &Path, number: u64, bytes: &[u8]) -> Result<Option<Header>, OpenError> {
    match Header::decode(bytes) {
        Ok(header) if header.segment == number => Ok(Some(header)),
        Ok(header) => Err(OpenError::Foreign {
            path: path.to_owned(),
            why: format!("it is segment {:016x} under another name", header.segment),
        }),
        Err(BadHeader::Newer(version)) => {
            Err(OpenError::Newer { path: path.to_owned(), found: format!("format {version}") })
        }
        Err(BadHeader::Damaged) => Ok(None),
    }
}

/// The stamp of the first frame, where the header is lost.
fn first_stamp(bytes: &[u8]) -> Option<u64> {
    Frame::read(bytes.get(HEADER_LEN..)?).map(|frame| frame.stamp)
}

/// Where to cut the last segment, if its first damage can belong to the last batch alone. `before` is the last batch
/// of the segment before.
fn torn_at(found: &Scan<'_>, before: u64) -> Option<usize> {
    let last_batch = found.frames.last().map_or(before, |(_, frame)| frame.batch);
    found.damage.iter().find_map(|damage| {
        let earlier = found.frames.iter().rev().find(|(at, _)| *at < damage.start).map(|(_, frame)| frame);
        let later = found.frames.iter().find(|(at, _)| *at >= damage.end).map(|(_, frame)| frame);
        let (batch, left) = earlier.map_or((before, 0), |frame| (frame.batch, frame.left));
        let is_torn = match later {
            None => true,
            Some(_) if batch == last_batch => true,
            // The damage holds the first frames of the last batch, unless a whole batch could be missing in it.
            Some(later) => left == 0 && later.batch == last_batch && last_batch == batch + 1,
        };
        is_torn.then_some(damage.start)
    })
}

/// Keeps a copy of damaged bytes for whoever looks into it. The name says where they were, so that the next start,
/// which finds the same, writes the same file.
fn quarantine(path: &Path, bytes: &[u8], range: &Range<usize>) -> io::Result<()> {
    let bytes = bytes.get(range.start.min(bytes.len())..range.end.min(bytes.len())).unwrap_or_default();
    let (Some(directory), Some(name)) = (path.parent(), path.file_stem()) else { return Ok(()) };
    let directory = directory.join("quarantine");
    disk::private_directory(&directory)?;
    let copy = disk::private_file(&directory.join(format!("{}-{}.bad", name.display(), range.start)))?;
    copy.set_len(0)?;
    disk::write_all_at(&copy, bytes, 0)?;
    copy.sync_all()?;
    sync_directory(&directory)
}
