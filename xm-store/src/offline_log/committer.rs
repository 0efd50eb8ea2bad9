//! The one thread that writes what is kept: collects what waits, writes it as one batch, flushes, answers. Compacts in between.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use xmmep::types::{UserId, WallTime};

use super::Options;
use super::disk::{self, Calls, Lock};
use super::events::{Counting, Event, SLOW_EVERY, SLOW_FLUSH};
use super::format::{Frame, HEADER_LEN, Header, Record, VERSION, encode_batch};
use super::index::{Fresh, Index, Location};
use super::recover::{Doubt, Segment};
use super::shared::Shared;
use super::spare::Spare;
use crate::error::StoreError;
use crate::offline::{Appended, Erased, Expired};
use crate::records::{Level, Parcel, ParcelId, Place};

/// Bytes in one batch: what one flush should carry on a slow disk, and far below a segment.
const BATCH_MAX: usize = 1024 * 1024;
/// Settled levels wait for the next append, but no longer than this: a crash costs only messages that come twice.
const SETTLED_WAIT: Duration = Duration::from_millis(200);

/// As many settled levels do not wait at all, whatever keeps the thread busy.
const UNSAVED_MAX: usize = 1_000;

/// Parcels changed in the index at once, if there are many to change. Readers wait for so long.
pub(super) const SLICE: usize = 512;

/// Something to do, with where the answer goes. Nobody may be listening any more.
pub(super) enum Job {
    Append { to: UserId, parcels: Vec<Parcel>, reply: Reply<Vec<Appended>> },
    Settle { to: UserId, parcels: Vec<ParcelId>, level: Level, at: WallTime, reply: Reply<Vec<ParcelId>> },
    Expire { before: WallTime, now: WallTime, max: usize, reply: Reply<Vec<Expired>> },
    Forget { now: WallTime, reply: Reply<()> },
    Erase { user: UserId, at: WallTime, reply: Reply<Erased> },
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// The state of the thread.
pub(super) struct Committer {
    pub(super) directory: PathBuf,
    pub(super) options: Options,
    pub(super) calls: Calls,
    pub(super) shared: Arc<Shared>,
    pub(super) lock: Arc<Lock>,
    /// Hears what an operator should.
    pub(super) watch: Watch,
    /// Oldest first; the last one is written to if `is_open`.
    pub(super) segments: VecDeque<Segment>,
    /// Whether the last segment was made by this run. What a start finds is never written to again.
    pub(super) is_open: bool,
    /// The file of the next segment.
    pub(super) spare: Spare,
    /// The stamp of the last segment.
    pub(super) stamp: u64,
    /// The last batch tried.
    pub(super) batch: u64,
    /// Settled since the last flush.
    pub(super) unsaved: BTreeSet<(UserId, ParcelId)>,
    /// Whether a segment was made since the log was compacted last.
    pub(super) has_grown: bool,
    /// What the next segment begins with, because the disk may lack it. Until then no append is answered.
    pub(super) doubt: Option<Doubt>,
    /// Whether the operator knows that space has run out.
    pub(super) is_full: bool,
    /// When the operator last heard of a slow flush, and the slowest one since.
    pub(super) slow: (Option<Instant>, Duration),
}

pub(super) type Watch = Box<dyn FnMut(Event) + Send>;

/// Why the thread has nothing to do any more.
pub(super) enum End {
    /// The log is being dropped.
    Dropped,
    /// The disk failed.
    Stopped,
}

/// A batch on its way to the disk.
#[derive(Default)]
struct Batch {
    fresh: Vec<Fresh>,
    appends: Vec<(Reply<Vec<Appended>>, Vec<Appended>)>,
    bytes: usize,
}

impl Committer {
    /// Of a log not read yet.
    pub(super) fn new(
        directory: &Path,
        options: Options,
        calls: Calls,
        shared: Arc<Shared>,
        lock: Arc<Lock>,
        watch: Watch,
    ) -> Self {
        Self {
            directory: directory.to_owned(),
            spare: Spare::new(directory, options.segment_bytes),
            options,
            calls,
            shared,
            lock,
            watch,
            segments: VecDeque::new(),
            is_open: false,
            stamp: 0,
            batch: 0,
            unsaved: BTreeSet::new(),
            has_grown: false,
            doubt: None,
            is_full: false,
            slow: (None, Duration::ZERO),
        }
    }

    /// Works until the log is dropped or the disk fails.
    pub(super) fn serve(&mut self, jobs: &Receiver<Job>) -> End {
        while self.shared.check_running().is_ok() {
            let first = if self.unsaved.is_empty() {
                jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                jobs.recv_timeout(SETTLED_WAIT)
            };
            let mut batch = Batch::default();
            let mut settled_due = self.unsaved.len() >= UNSAVED_MAX;
            match first {
                Ok(job) => self.take(job, &mut batch),
                Err(RecvTimeoutError::Timeout) => settled_due = true,
                Err(RecvTimeoutError::Disconnected) => return End::Dropped,
            }
            while batch.bytes < BATCH_MAX
                && let Ok(job) = jobs.try_recv()
            {
                self.take(job, &mut batch);
            }
            self.commit(batch, settled_due);
            if self.shared.check_running().is_ok() && std::mem::take(&mut self.has_grown) {
                // Those who wait have their answers; a failure here is noted and met again by the next write.
                let _ = self.compact();
            }
        }
        End::Stopped
    }

    pub(super) fn index(&self) -> RwLockWriteGuard<'_, Index> {
        self.shared.index()
    }

    pub(super) fn reading(&self) -> RwLockReadGuard<'_, Index> {
        self.shared.reading()
    }

    /// Does what needs no disk at once; what does joins the batch.
    fn take(&mut self, job: Job, batch: &mut Batch) {
        if let Err(stopped) = self.shared.check_running() {
            return refuse(job, &stopped);
        }
        match job {
            Job::Append { to, parcels, reply } => {
                let mut answers = Vec::with_capacity(parcels.len());
                let mut index = self.shared.index();
                for parcel in parcels {
                    let (answer, fresh) = index.accept(to, parcel, &self.options.quotas);
                    answers.push(answer);
                    batch.bytes += fresh.as_ref().map_or(0, |fresh| fresh.parcel.body.len());
                    batch.fresh.extend(fresh);
                }
                batch.appends.push((reply, answers));
            }
            Job::Settle { to, parcels, level, at, reply } => {
                let raised: Vec<_> = {
                    let mut index = self.index();
                    parcels.into_iter().filter(|id| index.settle(to, *id, level, at)).collect()
                };
                self.unsaved.extend(raised.iter().map(|id| (to, *id)));
                // Nobody listening is no reason to do less.
                let _ = reply.send(Ok(raised));
            }
            Job::Expire { before, now, max, reply } => {
                let mut expired = Vec::new();
                loop {
                    let some = self.index().expire(before, now, SLICE.min(max - expired.len()));
                    self.unsaved.extend(some.iter().map(|one| (one.to, one.parcel)));
                    if some.is_empty() {
                        break;
                    }
                    expired.extend(some);
                }
                let _ = reply.send(Ok(expired));
            }
            Job::Forget { now, reply } => {
                self.commit(std::mem::take(batch), false);
                let done = self.shared.check_running().and_then(|()| self.forget(now));
                let _ = reply.send(self.stop_on(done));
            }
            Job::Erase { user, at, reply } => {
                self.commit(std::mem::take(batch), false);
                let done = self.shared.check_running().and_then(|()| self.erase(user, at));
                let _ = reply.send(self.stop_on(done));
            }
        }
    }

    fn forget(&mut self, now: WallTime) -> Result<(), StoreError> {
        // A level forgotten before it is on disk would bring its message back.
        if !self.unsaved.is_empty() || self.doubt.is_some() {
            self.write(&[])?;
        }
        let levels = self.reading().forgettable(now);
        for some in levels.chunks(SLICE) {
            self.index().forget(some);
        }
        self.compact()
    }

    /// Writes and flushes a batch, then answers. Without parcels the settled levels wait for company unless due.
    fn commit(&mut self, batch: Batch, settled_due: bool) {
        // Parcels that came again must not be called stored while the disk may lack them.
        let is_asked = !batch.fresh.is_empty() || (self.doubt.is_some() && !batch.appends.is_empty());
        let result = if is_asked || settled_due { self.write(&batch.fresh) } else { Ok(()) };
        match &result {
            Ok(()) if !batch.fresh.is_empty() => {
                let mut index = self.shared.index();
                index.durable = index.next_place;
                self.is_full = false;
            }
            Ok(()) => {}
            Err(error @ (StoreError::Full(_) | StoreError::Unavailable(_))) => {
                let mut index = self.shared.index();
                for fresh in &batch.fresh {
                    index.take_back(fresh);
                }
                drop(index);
                self.note_full(error);
            }
            Err(error) => self.shared.stop(error),
        }
        for (reply, answers) in batch.appends {
            let _ = reply.send(result.clone().map(|()| answers));
        }
    }

    pub(super) fn note_full(&mut self, error: &StoreError) {
        if matches!(error, StoreError::Full(_)) {
            Counting::add(&self.shared.counting.full, 1);
            if !std::mem::replace(&mut self.is_full, true) {
                (self.watch)(Event::Full(error.clone()));
            }
        }
    }

    /// Writes parcels and all unsaved levels, in as many batches as they need.
    pub(super) fn write(&mut self, fresh: &[Fresh]) -> Result<(), StoreError> {
        let mut records: Vec<Record<'_>> = fresh.iter().map(record).collect();
        records.extend(self.reading().runs(&self.unsaved));
        // Room for all of it first: a full disk is to refuse all or nothing.
        self.make_room(records.iter().map(Record::frame_len).sum())?;
        self.write_records(&records)?;
        self.unsaved.clear();
        Ok(())
    }

    /// Writes records in their order and notes where they went.
    pub(super) fn write_records(&mut self, mut records: &[Record<'_>]) -> Result<(), StoreError> {
        while !records.is_empty() {
            let mut bytes = 0;
            let fit = records.iter().take_while(|record| {
                bytes += record.frame_len();
                bytes <= BATCH_MAX
            });
            let (now, later) = records.split_at(fit.count().max(1));
            self.write_batch(now)?;
            records = later;
        }
        Ok(())
    }

    /// One write, one flush.
    fn write_batch(&mut self, records: &[Record<'_>]) -> Result<(), StoreError> {
        let len: usize = records.iter().map(Record::frame_len).sum();
        self.make_room(len)?;
        self.batch += 1;
        let mut bytes = Vec::with_capacity(len);
        encode_batch(records, self.stamp, self.batch, &mut bytes);
        let Some(segment) = self.segments.back_mut() else { return Err(StoreError::Stopped("no segment".into())) };
        (self.calls.write)(&segment.file, &bytes, segment.end).map_err(|error| disk::write_error(&error))?;
        let before = Instant::now();
        let flushed = (self.calls.sync)(&segment.file);
        // Said at once, so that nothing the thread still has in hand is written behind it.
        let failed = |error| StoreError::Stopped(format!("a flush failed: {error}"));
        flushed.map_err(failed).inspect_err(|error| self.shared.stop(error))?;
        Counting::add(&self.shared.counting.batches, 1);
        Counting::add(&self.shared.counting.bytes, len as u64);
        note_places(&mut self.shared.index(), segment, records);
        let is_half_full = segment.end as usize > self.options.segment_bytes / 2;
        self.note_flush(before.elapsed());
        // A disk without space is not filled again and again.
        if is_half_full && !self.is_full {
            self.spare.begin();
        }
        Ok(())
    }

    fn note_flush(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.shared.counting.flush_us_max.fetch_max(micros, std::sync::atomic::Ordering::Relaxed);
        let (told, slowest) = &mut self.slow;
        *slowest = took.max(*slowest);
        if *slowest >= SLOW_FLUSH && told.is_none_or(|told| told.elapsed() >= SLOW_EVERY) {
            *told = Some(Instant::now());
            (self.watch)(Event::SlowFlush(std::mem::take(slowest)));
        }
    }

    /// Makes a new segment unless the open one has room for `len` bytes.
    ///
    /// Every write passes here. After a flush that failed there is none: the next flush of the same file would work,
    /// whether the disk has what was written before or not.
    fn make_room(&mut self, len: usize) -> Result<(), StoreError> {
        self.shared.check_running()?;
        let has_room = |open: &Segment| open.end as usize + len <= self.options.segment_bytes;
        if self.is_open && self.segments.back().is_some_and(has_room) { Ok(()) } else { self.make_segment(len) }
    }

    /// Makes a new segment with room for `len` bytes. It begins with what is in doubt, on stable storage from then on.
    pub(super) fn make_segment(&mut self, len: usize) -> Result<(), StoreError> {
        let previous = self.segments.back();
        // What is written again here is not promised there: the power may go and take it.
        let doubtful = |segment: &Segment| self.doubt.as_ref().filter(|doubt| doubt.segment == segment.number);
        let end_of = |segment: &Segment| doubtful(segment).map_or(segment.end, |doubt| doubt.offset);
        let header = Header {
            version: VERSION,
            segment: previous.map_or(1, |segment| segment.number + 1),
            stamp: random_stamp(),
            batch: self.batch,
            next_place: self.reading().next_place,
            previous_end: previous.map_or(0, end_of),
        };
        let payloads = self.doubt.as_ref().map_or(&[][..], |doubt| &doubt.payloads);
        let records: Vec<_> = payloads.iter().filter_map(|payload| Record::decode(payload)).collect();
        let mut frames = Vec::new();
        encode_batch(&records, header.stamp, header.batch, &mut frames);
        let size = self.options.segment_bytes.max(HEADER_LEN + frames.len() + len);
        if size > self.options.segment_bytes {
            // All its space is to be taken before it has its name.
            self.spare.give_up();
        }
        let spare = self.spare.take();
        let file = Arc::new(disk::create_segment(&self.directory, &header, &frames, size, spare, self.calls)?);
        if let Some(full) = previous
            && self.is_open
        {
            // Gives back what was taken in advance. If that fails, zeros stay behind, which do no harm.
            let _ = full.file.set_len(full.end);
        }
        self.shared.files().insert(header.segment, file.clone());
        let mut segment = Segment { number: header.segment, file, end: HEADER_LEN as u64 };
        let mut index = self.shared.index();
        note_places(&mut index, &mut segment, &records);
        if let Some(doubt) = self.doubt.take() {
            index.durable = doubt.durable;
        }
        drop(index);
        self.segments.push_back(segment);
        self.lock.note_newest(header.segment);
        (self.is_open, self.has_grown, self.stamp) = (true, true, header.stamp);
        Ok(())
    }

    /// Stops the log if the disk has failed.
    pub(super) fn stop_on<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Stopped(_)) = &result {
            self.shared.stop(error);
        }
        result
    }

    /// Flushes what is left and marks the end as clean, so that damage found later is known to be damage.
    pub(super) fn stop(mut self) {
        if self.shared.check_running().is_err() {
            return;
        }
        let flushed = if self.unsaved.is_empty() { Ok(()) } else { self.write(&[]) };
        if self.is_open && flushed.is_ok() {
            // Without the mark the next start is more careful, nothing else.
            let _ = self.write_batch(&[Record::Stop]);
        }
    }
}

/// Notes where records went that were written to the end of a segment.
fn note_places(index: &mut Index, segment: &mut Segment, records: &[Record<'_>]) {
    for record in records {
        let at = Location { segment: segment.number, offset: segment.end, len: record.frame_len() as u32 };
        segment.end += u64::from(at.len);
        match record {
            Record::Parcel { to, place, id, .. } => index.written(*to, *id, *place, at),
            Record::Settled { to, id, .. } => index.saved(*to, *id, at.segment),
            Record::Run { .. } | Record::Stop => {}
        }
    }
}

fn record(fresh: &Fresh) -> Record<'_> {
    let id = ParcelId { from: fresh.parcel.from, id: fresh.parcel.id };
    Record::Parcel { to: fresh.to, place: fresh.place, id, sent: fresh.parcel.sent, body: &fresh.parcel.body }
}

/// The parcel in a frame, if it is the one at `place`.
pub(super) fn parcel_in(bytes: &[u8], expected: Place) -> Option<Parcel> {
    match Frame::read(bytes)?.record()? {
        Record::Parcel { place, id, sent, body, .. } if place == expected => {
            Some(Parcel { from: id.from, id: id.id, sent, body: body.to_vec() })
        }
        _ => None,
    }
}

/// Answers a job with an error.
pub(super) fn refuse(job: Job, error: &StoreError) {
    match job {
        Job::Append { reply, .. } => drop(reply.send(Err(error.clone()))),
        Job::Settle { reply, .. } => drop(reply.send(Err(error.clone()))),
        Job::Expire { reply, .. } => drop(reply.send(Err(error.clone()))),
        Job::Forget { reply, .. } => drop(reply.send(Err(error.clone()))),
        Job::Erase { reply, .. } => drop(reply.send(Err(error.clone()))),
    }
}

/// 64 bits from the operating system, by way of the keys of a hash map. No secret: it only must not be guessed by who
/// sends messages.
pub(super) fn random_stamp() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
