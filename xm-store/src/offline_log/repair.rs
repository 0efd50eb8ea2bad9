//! Makes a damaged log whole again: what is intact goes into fresh segments, what is not into quarantine.
//!
//! Like a compaction of everything: the fresh segments are copies that lie behind the old ones, so at any moment, also if
//! the power goes, the directory holds a log with everything in it that was intact, and the repair can begin again.

use std::fmt;
use std::path::{Path, PathBuf};

use super::check::{Loss, Report, Survey, Verdict, survey};
use super::committer::random_stamp;
use super::compact::read_frame;
use super::disk::{self, Calls, Directory, Lock, unreachable};
use super::format::{BadHeader, FRAME_LEN, HEADER_LEN, Header, Record, VERSION, encode_batch};
use super::index::Location;
use crate::error::OpenError;

/// Bytes of a fresh segment; reached, not exceeded by more than one record.
const SEGMENT_BYTES: usize = 8 * 1024 * 1024;

/// What [`repair`] did. Its text is a page for an operator, one fact a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// What was there before. What is lost is in it.
    pub before: Report,
    /// The segments written; none if nothing had to be done.
    pub written: Vec<PathBuf>,
    /// Where damaged originals are now. Nothing reads them again; delete them once nobody wants to look into it.
    pub quarantined: Vec<PathBuf>,
}

impl Repaired {
    /// All that is lost, oldest first.
    pub fn losses(&self) -> impl Iterator<Item = &Loss> {
        self.before.losses()
    }
}

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.written.is_empty() {
            return writeln!(f, "nothing to repair: {}", self.before.verdict);
        }
        for loss in self.losses() {
            writeln!(f, "lost: {loss}")?;
        }
        for path in &self.quarantined {
            writeln!(f, "{}: the damaged original", path.display())?;
        }
        for path in &self.written {
            writeln!(f, "{}: written", path.display())?;
        }
        let Report { waiting, settled, .. } = &self.before;
        writeln!(f, "kept {waiting} parcels that wait and {settled} levels; the log opens")
    }
}

/// Makes the log in `directory` open without an alarm: writes everything that is intact into fresh segments, keeps the
/// damaged originals in `quarantine/`, deletes those of which everything was kept. A log that opens by itself, torn end
/// or not, is left as it is. Needs as much space again as what waits.
///
/// # Errors
/// [`OpenError::InUse`] while a server has it open; [`OpenError::Newer`] if a later version wrote it, which is no damage;
/// [`OpenError::Unreachable`] if a file cannot be read or written: what was there is still there, begin again.
pub fn repair(directory: &Path) -> Result<Repaired, OpenError> {
    let lock = Lock::take(directory)?;
    let survey = survey(directory, lock.newest())?;
    let newer = survey.found.iter().find_map(|(one, _)| match one.header {
        Err(BadHeader::Newer(version)) => Some((one.path.clone(), version)),
        _ => None,
    });
    if let Some((path, version)) = newer {
        return Err(OpenError::Newer { path, found: format!("format {version}") });
    }
    if survey.report.verdict <= Verdict::Unclosed {
        return Ok(Repaired { before: survey.report, written: Vec::new(), quarantined: Vec::new() });
    }
    let written = write_fresh(directory, &survey, &lock)?;
    let quarantined = clear_away(directory, &survey)?;
    Ok(Repaired { before: survey.report, written, quarantined })
}

/// Writes everything that is intact behind what is there.
fn write_fresh(directory: &Path, survey: &Survey, lock: &Lock) -> Result<Vec<PathBuf>, OpenError> {
    let named = survey.found.iter().map(|(one, _)| one.number.max(one.header.map_or(0, |header| header.segment)));
    let newest = named.max().unwrap_or(0).max(lock.newest().unwrap_or(0));
    let previous_end = survey.found.iter().find(|(one, _)| one.number == newest).map_or(0, |(_, end)| *end);
    let mut fresh = Fresh {
        directory,
        header: Header {
            version: VERSION,
            segment: newest + 1,
            stamp: random_stamp(),
            batch: survey.batch,
            next_place: survey.index.next_place,
            previous_end,
        },
        payloads: Vec::new(),
        bytes: 0,
        written: Vec::new(),
    };
    for at in survey.index.all_waiting() {
        let bytes = read_at(directory, at)?;
        fresh.push(bytes[FRAME_LEN..].to_vec())?;
    }
    for record in survey.index.all_settled() {
        let mut bytes = Vec::with_capacity(record.frame_len());
        record.encode(0, 0, 0, &mut bytes);
        fresh.push(bytes.split_off(FRAME_LEN))?;
    }
    fresh.finish(&[Record::Stop])?;
    lock.note_newest(fresh.header.segment - 1);
    Ok(fresh.written)
}

/// The segment being filled.
struct Fresh<'a> {
    directory: &'a Path,
    header: Header,
    payloads: Vec<Vec<u8>>,
    bytes: usize,
    written: Vec<PathBuf>,
}

impl Fresh<'_> {
    fn push(&mut self, payload: Vec<u8>) -> Result<(), OpenError> {
        if self.bytes >= SEGMENT_BYTES {
            self.finish(&[])?;
        }
        self.bytes += payload.len();
        self.payloads.push(payload);
        Ok(())
    }

    /// Writes it aside, flushes it, gives it its name; begins the next.
    fn finish(&mut self, last: &[Record<'_>]) -> Result<(), OpenError> {
        let Header { segment, stamp, batch, .. } = self.header;
        let records: Vec<_> = self.payloads.iter().filter_map(|payload| Record::decode(payload)).collect();
        let mut frames = Vec::new();
        // With the batch of the header: flushed before the segment has its name.
        encode_batch(&records, stamp, batch, &mut frames);
        encode_batch(last, stamp, batch + 1, &mut frames);
        let path = disk::segment_path(self.directory, segment);
        let written = disk::create_segment(self.directory, &self.header, &frames, 0, None, Calls::REAL);
        written.map_err(|error| OpenError::Unreachable { path: path.clone(), why: error.to_string() })?;
        self.written.push(path);
        let previous_end = (HEADER_LEN + frames.len()) as u64;
        self.header = Header { segment: segment + 1, stamp: random_stamp(), previous_end, ..self.header };
        self.payloads.clear();
        self.bytes = 0;
        Ok(())
    }
}

fn read_at(directory: &Path, at: Location) -> Result<Vec<u8>, OpenError> {
    let path = disk::segment_path(directory, at.segment);
    let file = std::fs::File::open(&path).map_err(|error| unreachable(&path, &error))?;
    read_frame(&file, at).ok_or_else(|| OpenError::Unreachable {
        path,
        why: format!("the record at byte {} could be read before and cannot now", at.offset),
    })
}

/// Moves the damaged originals aside and deletes the others, oldest first.
fn clear_away(directory: &Path, survey: &Survey) -> Result<Vec<PathBuf>, OpenError> {
    let quarantine = directory.join(disk::QUARANTINE);
    let mut quarantined = Vec::new();
    for ((one, _), report) in survey.found.iter().zip(&survey.report.segments) {
        let is_own_name = one.header.is_ok_and(|header| header.segment == one.number);
        let cleared = (|| {
            if report.losses.is_empty() && is_own_name {
                std::fs::remove_file(&one.path)?;
            } else {
                disk::private_directory(&quarantine)?;
                let to = quarantine.join(format!("{:016x}.seg", one.number));
                std::fs::rename(&one.path, &to)?;
                Directory::open(&quarantine)?.sync()?;
                quarantined.push(to);
            }
            Directory::open(directory)?.sync()
        })();
        cleared.map_err(|error| unreachable(&one.path, &error))?;
    }
    Ok(quarantined)
}
