//! What a log on disk is worth, without changing a byte of it.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use xmmep::types::UserId;

use super::disk::{self, Lock, unreachable};
use super::format::{Header, Record, suspects};
use super::index::{Index, Location};
use super::recover::places_lost;
use super::segments::{self, Found, Judged, judge};
use crate::error::OpenError;
use crate::records::{ParcelId, Place};

/// What [`check`] found. Its text is a page for an operator, one fact a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Where.
    pub directory: PathBuf,
    /// All of it in a word.
    pub verdict: Verdict,
    /// Why the log would not open, if it would not.
    pub refusal: Option<OpenError>,
    /// Oldest first.
    pub segments: Vec<SegmentReport>,
    /// Parcels that wait.
    pub waiting: u64,
    /// Levels remembered of parcels that wait no longer.
    pub settled: u64,
    /// Records that contradict each other, which no crash and no failing disk explains: one sentence each.
    pub contradictions: Vec<String>,
    /// Files that are no segment.
    pub others: Vec<Other>,
}

/// What a log is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Closed in order, and whole.
    Closed,
    /// Not closed in order: a crash, or a copy of a log in use. Nothing promised is missing; opening it cuts what is torn.
    Unclosed,
    /// Promised records are lost, or contradict each other. It opens, with an alarm each time; [`repair`](super::repair)
    /// ends that.
    Damaged,
    /// It does not open. [`repair`](super::repair) helps unless a later version wrote it.
    Refused,
}

/// What is in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// The file.
    pub path: PathBuf,
    /// Of the format; `None` if the header is lost.
    pub version: Option<u32>,
    /// Intact records.
    pub frames: u64,
    /// Parcels that wait, and lie here.
    pub waiting: u64,
    /// Settled parcels whose level needs this segment.
    pub settled: u64,
    /// Bytes of a write that a crash tore, and that nobody was promised.
    pub torn_bytes: u64,
    /// What was promised and cannot be read.
    pub losses: Vec<Loss>,
}

/// A part of a segment that cannot be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The segment.
    pub path: PathBuf,
    /// Which bytes of it.
    pub bytes: Range<u64>,
    /// Whether the checksum is right around something that is no record: a bug wrote it, not the disk.
    pub is_poison: bool,
    /// The parcels it seems to have held: recipient and place. From damaged bytes, so neither certain nor complete.
    pub parcels: Vec<(UserId, Place)>,
}

/// A file in the directory that is no segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Other {
    /// A segment that was never finished. The next start deletes it.
    Unfinished(PathBuf),
    /// A copy of something damaged. Nothing reads it again.
    Quarantined(PathBuf),
    /// Nothing of ours. Left alone.
    Unknown(PathBuf),
}

impl Report {
    /// All that is lost, oldest first.
    pub fn losses(&self) -> impl Iterator<Item = &Loss> {
        self.segments.iter().flat_map(|segment| &segment.losses)
    }
}

/// Reads the log in `directory`, and changes nothing. For a stopped server; takes as long as a start.
///
/// # Errors
/// [`OpenError::InUse`] while a server has it open, [`OpenError::Unreachable`] if it cannot be read. Whatever is wrong
/// with what can be read is in the report.
pub fn check(directory: &Path) -> Result<Report, OpenError> {
    let lock = Lock::borrow(directory)?;
    Ok(survey(directory, lock.and_then(|lock| lock.newest()))?.report)
}

/// A log as a whole.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) report: Report,
    pub(super) index: Index,
    /// Oldest first, with where the frames end.
    pub(super) found: Vec<(Found, u64)>,
    pub(super) batch: u64,
}

/// Reads everything, whatever is wrong with it. `newest` is the segment that was the newest, if that is known.
pub(super) fn survey(directory: &Path, newest: Option<u64>) -> Result<Survey, OpenError> {
    let mut found = segments::list(directory)?;
    let missing = newest.filter(|newest| found.last().is_none_or(|last| last.number < *newest));
    let missing = missing.map(|newest| segments::missing_newest(directory, newest));
    let refusal = segments::refusal(directory, &found).or(missing);
    found.sort_by_key(|one| one.header.map_or(one.number, |header| header.segment));
    let mut reader = Reader::default();
    reader.index.next_place = 1;
    let mut ends = Vec::with_capacity(found.len());
    let mut segments = Vec::with_capacity(found.len());
    for one in &found {
        let bytes = std::fs::read(&one.path).map_err(|error| unreachable(&one.path, &error))?;
        let judged = judge(one, &bytes, reader.batch);
        segments.push(reader.take(one, &bytes, &judged));
        ends.push(judged.end as u64);
    }
    let tally = reader.index.tally();
    for (segment, one) in segments.iter_mut().zip(&found) {
        (segment.waiting, segment.settled) = tally.get(&one.number).copied().unwrap_or_default();
    }
    let is_damaged = !reader.contradictions.is_empty() || segments.iter().any(|segment| !segment.losses.is_empty());
    let verdict = match () {
        () if refusal.is_some() => Verdict::Refused,
        () if is_damaged => Verdict::Damaged,
        () if reader.is_closed || found.is_empty() => Verdict::Closed,
        () => Verdict::Unclosed,
    };
    let report = Report {
        directory: directory.to_owned(),
        verdict,
        refusal,
        waiting: segments.iter().map(|segment| segment.waiting).sum(),
        settled: segments.iter().map(|segment| segment.settled).sum(),
        segments,
        contradictions: reader.contradictions,
        others: others(directory)?,
    };
    Ok(Survey { report, index: reader.index, found: found.into_iter().zip(ends).collect(), batch: reader.batch })
}

/// Reads segment after segment, and notes what does not fit together.
#[derive(Debug, Default)]
struct Reader {
    index: Index,
    batch: u64,
    is_closed: bool,
    /// Whose each place is.
    places: HashMap<Place, (UserId, ParcelId)>,
    highest: Place,
    contradictions: Vec<String>,
}

impl Reader {
    fn take(&mut self, found: &Found, bytes: &[u8], judged: &Judged<'_>) -> SegmentReport {
        if let Ok(header) = found.header {
            self.check_header(found, &header);
        }
        self.batch = self.batch.max(judged.batch_before);
        let mut last = None;
        for (at, frame, record) in &judged.records {
            if let Record::Parcel { to, place, id, .. } = record {
                self.check_parcel(&found.path, *to, *place, *id);
                if last.is_some_and(|(batch, before)| batch == frame.batch && before >= *place) {
                    self.contradict(&found.path, format_args!("place {} follows a higher one in its batch", place.0));
                }
                last = Some((frame.batch, *place));
            }
            self.batch = self.batch.max(frame.batch);
            let at = Location { segment: found.number, offset: *at as u64, len: frame.len() as u32 };
            self.index.replay(record, at);
        }
        if !judged.records.is_empty() || judged.torn.is_some() {
            self.is_closed = judged.is_closed() && judged.torn.is_none();
        }
        self.index.next_place += places_lost(judged);
        let loss = |range: &Range<usize>, is_poison| Loss {
            path: found.path.clone(),
            bytes: range.start as u64..range.end as u64,
            is_poison,
            parcels: found.stamp(bytes).map_or(Vec::new(), |stamp| suspects(bytes, range.clone(), stamp)),
        };
        let damaged = judged.damage.iter().map(|range| loss(range, false));
        SegmentReport {
            path: found.path.clone(),
            version: found.header.ok().map(|header| header.version),
            frames: judged.records.len() as u64,
            waiting: 0,
            settled: 0,
            torn_bytes: judged.torn_bytes as u64,
            losses: damaged.chain(judged.poison.iter().map(|range| loss(range, true))).collect(),
        }
    }

    fn check_header(&mut self, found: &Found, header: &Header) {
        if header.batch < self.batch {
            let (batch, before) = (header.batch, self.batch);
            self.contradict(
                &found.path,
                format_args!("it begins after batch {batch}, the one before ends with {before}"),
            );
        }
        if header.next_place <= self.highest.0 {
            let highest = self.highest.0;
            self.contradict(&found.path, format_args!("place {highest} is taken, and its header calls it free"));
        }
        self.index.next_place = self.index.next_place.max(header.next_place);
    }

    fn check_parcel(&mut self, path: &Path, to: UserId, place: Place, id: ParcelId) {
        self.highest = self.highest.max(place);
        if *self.places.entry(place).or_insert((to, id)) != (to, id) {
            self.contradict(path, format_args!("place {} is that of two parcels", place.0));
        }
        if let Some(before) = self.index.waiting_place(to, id).filter(|before| *before != place) {
            self.contradict(path, format_args!("the parcel at place {} waits at place {}, too", before.0, place.0));
        }
    }

    fn contradict(&mut self, path: &Path, what: fmt::Arguments<'_>) {
        self.contradictions.push(format!("{}: {what}", path.display()));
    }
}

/// The files that are no segments.
fn others(directory: &Path) -> Result<Vec<Other>, OpenError> {
    let names = |directory: &Path| -> Result<Vec<PathBuf>, OpenError> {
        let entries = std::fs::read_dir(directory).map_err(|error| unreachable(directory, &error))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
        let mut paths = paths.map_err(|error| unreachable(directory, &error))?;
        paths.sort();
        Ok(paths)
    };
    let mut others = Vec::new();
    for path in names(directory)? {
        match path.file_name().and_then(|name| name.to_str()).unwrap_or_default() {
            disk::LOCK => {}
            name if disk::segment_number(name).is_some() => {}
            disk::UNFINISHED => others.push(Other::Unfinished(path)),
            disk::QUARANTINE if path.is_dir() => others.extend(names(&path)?.into_iter().map(Other::Quarantined)),
            _ => others.push(Other::Unknown(path)),
        }
    }
    Ok(others)
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed in order, nothing is missing",
            Self::Unclosed => "not closed in order, nothing that was promised is missing; it opens",
            Self::Damaged => "damaged; it opens, without what is lost",
            Self::Refused => "does not open",
        })
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Range { start, end }, what) = (&self.bytes, if self.is_poison { "no record" } else { "damaged" });
        write!(f, "{}: bytes {start} to {end} are {what}", self.path.display())?;
        for (to, place) in &self.parcels {
            write!(f, "; it seems the parcel for user {to} at place {}", place.0)?;
        }
        Ok(())
    }
}

impl fmt::Display for SegmentReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.version.map_or("lost".to_owned(), |version| version.to_string());
        write!(f, "{}: version {version}, {} records, ", self.path.display(), self.frames)?;
        write!(f, "{} parcels wait, {} levels", self.waiting, self.settled)?;
        if self.torn_bytes > 0 {
            write!(f, ", {} torn bytes at the end", self.torn_bytes)?;
        }
        Ok(())
    }
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfinished(path) => write!(f, "{}: never finished, the next start deletes it", path.display()),
            Self::Quarantined(path) => write!(f, "{}: a copy of something damaged", path.display()),
            Self::Unknown(path) => write!(f, "{}: no file of the log", path.display()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            writeln!(f, "{segment}")?;
            for loss in &segment.losses {
                writeln!(f, "{loss}")?;
            }
        }
        for other in &self.others {
            writeln!(f, "{other}")?;
        }
        for contradiction in &self.contradictions {
            writeln!(f, "{contradiction}")?;
        }
        if let Some(refusal) = &self.refusal {
            writeln!(f, "{refusal}")?;
        }
        write!(f, "{}: {}; ", self.directory.display(), self.verdict)?;
        writeln!(f, "{} parcels wait, {} levels are remembered", self.waiting, self.settled)
    }
}
