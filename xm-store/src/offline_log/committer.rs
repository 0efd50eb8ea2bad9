//! The one thread that writes: collects what waits, writes it as one batch, flushes, answers. Compacts in between.

use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use xmmep::types::{UserId, WallTime};

use super::disk::{self, Calls};
use super::format::{FRAME_LEN, Frame, HEADER_LEN, Header, Record};
use super::index::{Fresh, Index, Location, Needed};
use super::recover::Segment;
use super::{Options, Shared};
use crate::error::StoreError;
use crate::offline::{Appended, Expired};
use crate::records::{Level, Parcel, ParcelId, Place};

/// Bytes in one batch: what one flush should carry on a slow disk, and far below a segment.
const BATCH_MAX: usize = 1024 * 1024;
/// Settled levels wait for the next append, but no longer than this: a crash costs only messages that come twice.
const SETTLED_WAIT: Duration = Duration::from_millis(200);

/// As many settled levels do not wait at all, whatever keeps the thread busy.
const UNSAVED_MAX: usize = 1_000;

/// Something to do, with where the answer goes. Nobody may be listening any more.
pub(super) enum Job {
    Append { to: UserId, parcels: Vec<Parcel>, reply: Reply<Vec<Appended>> },
    Settle { to: UserId, parcels: Vec<ParcelId>, level: Level, at: WallTime, reply: Reply<Vec<ParcelId>> },
    Expire { before: WallTime, now: WallTime, max: usize, reply: Reply<Vec<Expired>> },
    Forget { now: WallTime, reply: Reply<()> },
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// The state of the thread.
pub(super) struct Committer {
    pub(super) directory: PathBuf,
    pub(super) options: Options,
    pub(super) calls: Calls,
    pub(super) shared: Arc<Shared>,
    /// Oldest first; the last one is written to if `is_open`.
    pub(super) segments: VecDeque<Segment>,
    /// Whether the last segment was made by this run. What a start finds is never written to again.
    pub(super) is_open: bool,
    /// The stamp of the last segment.
    pub(super) stamp: u64,
    /// The last batch tried.
    pub(super) batch: u64,
    /// Settled since the last flush.
    pub(super) unsaved: BTreeSet<(UserId, ParcelId)>,
    /// Whether a segment was made since the log was compacted last.
    pub(super) has_grown: bool,
}

/// A batch on its way to the disk.
#[derive(Default)]
struct Batch {
    fresh: Vec<Fresh>,
    appends: Vec<(Reply<Vec<Appended>>, Vec<Appended>)>,
    bytes: usize,
}

impl Committer {
    /// Works until the log is dropped, then leaves everything flushed.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        loop {
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
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while batch.bytes < BATCH_MAX
                && let Ok(job) = jobs.try_recv()
            {
                self.take(job, &mut batch);
            }
            self.commit(batch, settled_due);
            if std::mem::take(&mut self.has_grown) {
                // Those who wait have their answers; a failure here is noted and met again by the next write.
                let _ = self.compact();
            }
        }
        self.stop();
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.shared.index()
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
                let expired = self.index().expire(before, now, max);
                self.unsaved.extend(expired.iter().map(|one| (one.to, one.parcel)));
                let _ = reply.send(Ok(expired));
            }
            Job::Forget { now, reply } => {
                // A level forgotten before it is on disk would bring its message back.
                let flushed = if self.unsaved.is_empty() { Ok(()) } else { self.write(&[]) };
                let flushed = self.stop_on(flushed).map(|()| self.index().forget(now));
                let _ = reply.send(flushed.and_then(|()| self.compact()));
            }
        }
    }

    /// Writes and flushes a batch, then answers. Without parcels the settled levels wait for company unless due.
    fn commit(&mut self, batch: Batch, settled_due: bool) {
        let result = if batch.fresh.is_empty() && !settled_due { Ok(()) } else { self.write(&batch.fresh) };
        match &result {
            Ok(()) if !batch.fresh.is_empty() => {
                let mut index = self.shared.index();
                index.durable = index.next_place;
            }
            Ok(()) => {}
            Err(StoreError::Full(_) | StoreError::Unavailable(_)) => {
                let mut index = self.shared.index();
                for fresh in &batch.fresh {
                    index.take_back(fresh);
                }
            }
            Err(error) => self.shared.stop(error),
        }
        for (reply, answers) in batch.appends {
            let _ = reply.send(result.clone().map(|()| answers));
        }
    }

    /// Writes parcels and all unsaved levels, in as many batches as they need.
    fn write(&mut self, fresh: &[Fresh]) -> Result<(), StoreError> {
        let mut records: Vec<Record<'_>> = fresh.iter().map(record).collect();
        let unsaved: Vec<_> = self.unsaved.iter().copied().collect();
        let index = self.shared.index();
        records.extend(unsaved.iter().filter_map(|(to, id)| index.settled_record(*to, *id)));
        drop(index);
        // Room for all of it first: a full disk is to refuse all or nothing.
        self.make_room(records.iter().map(Record::frame_len).sum())?;
        self.write_records(&records)?;
        self.unsaved.clear();
        Ok(())
    }

    /// Writes records in their order and notes where they went.
    fn write_records(&mut self, mut records: &[Record<'_>]) -> Result<(), StoreError> {
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
        for (record, left) in records.iter().zip((0..records.len() as u32).rev()) {
            record.encode(self.stamp, self.batch, left, &mut bytes);
        }
        let Some(segment) = self.segments.back_mut() else { return Err(StoreError::Stopped("no segment".into())) };
        (self.calls.write)(&segment.file, &bytes, segment.end).map_err(|error| disk::write_error(&error))?;
        (self.calls.sync)(&segment.file).map_err(|error| StoreError::Stopped(format!("a flush failed: {error}")))?;
        let mut index = self.shared.index();
        for record in records {
            let at = Location { segment: segment.number, offset: segment.end, len: record.frame_len() as u32 };
            segment.end += u64::from(at.len);
            match record {
                Record::Parcel { to, place, .. } => index.moved(*to, *place, at),
                Record::Settled { to, id, .. } => index.saved(*to, *id, at.segment),
                Record::Stop => {}
            }
        }
        Ok(())
    }

    /// Makes a new segment unless the open one has room for `len` bytes.
    fn make_room(&mut self, len: usize) -> Result<(), StoreError> {
        let previous = self.segments.back();
        if self.is_open && previous.is_some_and(|open| open.end as usize + len <= self.options.segment_bytes) {
            return Ok(());
        }
        let header = Header {
            segment: previous.map_or(1, |segment| segment.number + 1),
            stamp: random_stamp(),
            batch: self.batch,
            next_place: self.shared.index().next_place,
            previous_end: previous.map_or(0, |segment| segment.end),
        };
        let size = self.options.segment_bytes.max(HEADER_LEN + len);
        let file = Arc::new(disk::create_segment(&self.directory, &header, size, self.calls)?);
        if let Some(full) = previous
            && self.is_open
        {
            // Gives back what was taken in advance. If that fails, zeros stay behind, which do no harm.
            let _ = full.file.set_len(full.end);
        }
        self.shared.files().insert(header.segment, file.clone());
        self.segments.push_back(Segment { number: header.segment, file, end: HEADER_LEN as u64 });
        (self.is_open, self.has_grown, self.stamp) = (true, true, header.stamp);
        Ok(())
    }

    /// Frees the oldest segments if they are empty or more than half of the log is of no use: what is of use moves to
    /// the newest one, flushed, before its segment is deleted. Two segments of slack keep a small log from being
    /// rewritten all the time. Deleting in order matters: a level always outlives the parcel it is about.
    fn compact(&mut self) -> Result<(), StoreError> {
        // What this makes is not compacted in its turn: one round at most.
        let newest = self.segments.back().map_or(0, |segment| segment.number);
        while let Some(oldest) = self.segments.front().filter(|oldest| oldest.number < newest) {
            let needed = self.shared.index().needed_of(oldest.number);
            let is_empty = needed.waiting.is_empty() && needed.settled.is_empty();
            if !is_empty && !self.is_wasteful() {
                return Ok(());
            }
            let Some(frames) = self.read_all(&needed) else { return Ok(()) };
            let moved = self.move_out(&frames, &needed);
            self.stop_on(moved)?;
            self.delete_oldest()?;
        }
        Ok(())
    }

    /// Whether more than half of the frames are of no use any more.
    fn is_wasteful(&self) -> bool {
        let used: u64 = self.segments.iter().map(|segment| segment.end - HEADER_LEN as u64).sum();
        used > 2 * (self.shared.index().live_bytes() + self.options.segment_bytes as u64)
    }

    /// Reads the parcels to move. One that cannot be read keeps its segment, and those after it, where they are.
    fn read_all(&self, needed: &Needed) -> Option<Vec<Vec<u8>>> {
        let oldest = self.segments.front()?;
        needed.waiting.iter().map(|(_, _, at)| read_frame(&oldest.file, *at)).collect()
    }

    /// Copies what a segment still holds to the end of the log.
    fn move_out(&mut self, frames: &[Vec<u8>], needed: &Needed) -> Result<(), StoreError> {
        let parsed: Vec<_> = frames.iter().filter_map(|bytes| Frame::read(bytes)).collect();
        let mut records: Vec<_> = parsed.iter().filter_map(Frame::record).collect();
        let index = self.shared.index();
        records.extend(needed.settled.iter().filter_map(|(to, id)| index.settled_record(*to, *id)));
        drop(index);
        self.write_records(&records)
    }

    fn delete_oldest(&mut self) -> Result<(), StoreError> {
        let Some(oldest) = self.segments.front() else { return Ok(()) };
        let path = disk::segment_path(&self.directory, oldest.number);
        let removed = std::fs::remove_file(&path).and_then(|()| disk::sync_directory(&self.directory));
        let removed = removed.map_err(|error| StoreError::Stopped(format!("{} stays: {error}", path.display())));
        self.stop_on(removed)?;
        self.shared.files().remove(&oldest.number);
        self.segments.pop_front();
        Ok(())
    }

    /// Stops the log if the disk has failed.
    fn stop_on(&self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        if let Err(error @ StoreError::Stopped(_)) = &result {
            self.shared.stop(error);
        }
        result
    }

    /// Flushes what is left and marks the end as clean, so that damage found later is known to be damage.
    fn stop(mut self) {
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

fn record(fresh: &Fresh) -> Record<'_> {
    let id = ParcelId { from: fresh.parcel.from, id: fresh.parcel.id };
    Record::Parcel { to: fresh.to, place: fresh.place, id, sent: fresh.parcel.sent, body: &fresh.parcel.body }
}

/// Reads the bytes of one frame; `None` if they cannot be read or are no intact frame.
pub(super) fn read_frame(file: &std::fs::File, at: Location) -> Option<Vec<u8>> {
    let mut bytes = vec![0; (at.len as usize).max(FRAME_LEN)];
    disk::read_exact_at(file, &mut bytes, at.offset).ok()?;
    Frame::read(&bytes)?;
    Some(bytes)
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
fn refuse(job: Job, error: &StoreError) {
    match job {
        Job::Append { reply, .. } => drop(reply.send(Err(error.clone()))),
        Job::Settle { reply, .. } => drop(reply.send(Err(error.clone()))),
        Job::Expire { reply, .. } => drop(reply.send(Err(error.clone()))),
        Job::Forget { reply, .. } => drop(reply.send(Err(error.clone()))),
    }
}

/// 64 bits from the operating system, by way of the keys of a hash map. No secret: it only must not be guessed by who
/// sends messages.
fn random_stamp() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::hash::RandomState::new().build_hasher().finish()
}
