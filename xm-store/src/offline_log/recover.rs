//! What a start finds: reads every segment, cuts what is torn, keeps copies of what is damaged, rebuilds the index.
//!
//! The batch written last may be in the page cache alone: a flush that failed leaves its pages there, marked as clean. So
//! unless the log was closed in order, that batch is in doubt: it is written once more, flushed, and only then trusted.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{self, Directory, QUARANTINE, UNFINISHED, unreachable};
use super::format::{PARCEL_FRAME_MIN, Record};
use super::index::{Index, Location};
use super::segments::{self, Found, Judged, judge};
use crate::error::OpenError;
use crate::records::Place;

/// What a start found. Empty damage and no torn bytes is the normal case after a clean stop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments read.
    pub segments: usize,
    /// Parcels that wait.
    pub waiting: u64,
    /// Bytes cut off the end: a write that a crash tore, and that nobody was promised.
    pub torn_bytes: u64,
    /// Records that were written once more, because the log was not closed in order and the disk may have lacked them.
    pub rewritten: usize,
    /// Where promised records are lost. Somebody should look: the disk is failing.
    pub damage: Vec<Damage>,
}

/// A part of a segment that cannot be read any more. A copy of it is in `quarantine/`.
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

/// The records of the last batch, which the disk may lack.
#[derive(Debug)]
pub(super) struct Doubt {
    /// In which segment, and where in it, the first of them lies.
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// As they were written.
    pub(super) payloads: Vec<Vec<u8>>,
    /// Once they are on stable storage, so is every place before this one.
    pub(super) durable: u64,
}

/// What the log goes on with.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) index: Index,
    /// Oldest first.
    pub(super) segments: Vec<Segment>,
    /// The highest batch seen.
    pub(super) batch: u64,
    pub(super) doubt: Option<Doubt>,
    pub(super) report: Recovery,
}

/// Reads everything in `directory`.
pub(super) fn recover(directory: &Path) -> Result<Recovered, OpenError> {
    let unfinished = directory.join(UNFINISHED);
    if unfinished.exists() {
        std::fs::remove_file(&unfinished).map_err(|error| unreachable(&unfinished, &error))?;
    }
    let found = segments::list(directory)?;
    if let Some(refusal) = segments::refusal(directory, &found) {
        return Err(refusal);
    }
    let mut recovered = Recovered::default();
    recovered.index.next_place = 1;
    for one in &found {
        recovered.take(one).map_err(|error| unreachable(&one.path, &error))?;
    }
    let next_place = recovered.index.next_place;
    match &mut recovered.doubt {
        // Readers do not see what is in doubt.
        Some(doubt) => recovered.index.durable = std::mem::replace(&mut doubt.durable, next_place),
        None => recovered.index.durable = next_place,
    }
    recovered.report.segments = recovered.segments.len();
    recovered.report.waiting = recovered.index.waiting();
    Ok(recovered)
}

impl Recovered {
    /// Takes the records of one segment.
    fn take(&mut self, found: &Found) -> io::Result<()> {
        let bytes = std::fs::read(&found.path)?;
        let file = disk::private_file(&found.path)?;
        let judged = judge(found, &bytes, self.batch);
        self.batch = self.batch.max(judged.batch_before);
        self.index.next_place = self.index.next_place.max(found.header.map_or(0, |header| header.next_place));
        if let Some(cut) = judged.torn {
            self.report.torn_bytes += judged.torn_bytes as u64;
            file.set_len(cut as u64)?;
            file.sync_all()?;
        } else if judged.damage.is_empty() && bytes.len() > judged.end {
            // Nothing but zeros, taken in advance, and what a failed write left over.
            file.set_len(judged.end as u64)?;
        }
        for range in judged.damage.iter().chain(&judged.poison) {
            quarantine(&found.path, &bytes, range)?;
            self.report.damage.push(Damage { path: found.path.clone(), bytes: range.start as u64..range.end as u64 });
        }
        let lowest_in_doubt = self.replay(found.number, &judged);
        self.note_doubt(found.number, &judged, lowest_in_doubt);
        self.index.next_place += places_lost(&judged);
        self.segments.push(Segment { number: found.number, file: Arc::new(file), end: judged.end as u64 });
        Ok(())
    }

    /// Replays the records of a segment. Returns the lowest place that is new in its last batch.
    fn replay(&mut self, segment: u64, judged: &Judged<'_>) -> Option<Place> {
        let last_batch = judged.last_batch();
        let mut lowest = None;
        for (at, frame, record) in &judged.records {
            self.batch = self.batch.max(frame.batch);
            if let Record::Parcel { to, place, id, .. } = record
                && Some(frame.batch) == last_batch
                && !self.index.knows(*to, *id)
            {
                lowest = Some(lowest.map_or(*place, |lowest: Place| lowest.min(*place)));
            }
            self.index.replay(record, Location { segment, offset: *at as u64, len: frame.len() as u32 });
        }
        lowest
    }

    /// The last batch of the last segment with any is in doubt, unless a clean stop follows it or it was written again
    /// before: then it was flushed before its segment had its name.
    fn note_doubt(&mut self, segment: u64, judged: &Judged<'_>, lowest: Option<Place>) {
        let Some(last) = judged.last_batch() else { return };
        self.doubt = (!judged.is_closed() && last > judged.batch_before).then(|| {
            let mut in_doubt = judged.records.iter().filter(|(_, frame, _)| frame.batch == last).peekable();
            Doubt {
                segment,
                offset: in_doubt.peek().map_or(judged.end, |(at, ..)| *at) as u64,
                payloads: in_doubt.map(|(_, frame, _)| frame.payload.to_vec()).collect(),
                durable: lowest.map_or(self.index.next_place, |place| place.0),
            }
        });
    }
}

/// How many places damage may have taken with it: they must not be given out again.
pub(super) fn places_lost(judged: &Judged<'_>) -> u64 {
    judged.damage.iter().map(|range| 1 + (range.len() / PARCEL_FRAME_MIN) as u64).sum()
}

/// Keeps a copy of damaged bytes for whoever looks into it. The name says where they were, so that the next start,
/// which finds the same, writes the same file.
fn quarantine(path: &Path, bytes: &[u8], range: &Range<usize>) -> io::Result<()> {
    let bytes = bytes.get(range.start.min(bytes.len())..range.end.min(bytes.len())).unwrap_or_default();
    let (Some(directory), Some(name)) = (path.parent(), path.file_stem()) else { return Ok(()) };
    let directory = directory.join(QUARANTINE);
    disk::private_directory(&directory)?;
    let copy = disk::private_file(&directory.join(format!("{}-{}.bad", name.display(), range.start)))?;
    copy.set_len(0)?;
    disk::write_all_at(&copy, bytes, 0)?;
    copy.sync_all()?;
    Directory::open(&directory)?.sync()
}
