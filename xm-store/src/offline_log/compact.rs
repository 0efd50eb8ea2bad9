//! Space comes back, and bodies go for good: what is of use moves from the oldest segments to the newest.

use xmmep::types::{UserId, WallTime};

use super::committer::{Committer, SLICE};
use super::disk::{self, Directory};
use super::format::{Frame, HEADER_LEN, Header, Record, scan};
use super::index::{Location, Needed};
use crate::error::StoreError;
use crate::offline::Erased;
use crate::records::Level;

impl Committer {
    /// Frees the oldest segments if they are empty or more than half of the log is of no use: what is of use moves to
    /// the newest one, flushed, before its segment is deleted. Two segments of slack keep a small log from being
    /// rewritten all the time. Deleting in order matters: a level always outlives the parcel it is about. A run lies
    /// behind the parcels it is about, so what it says of one goes into a record of its own when the parcel's is deleted.
    pub(super) fn compact(&mut self) -> Result<(), StoreError> {
        // What this makes is not compacted in its turn: one round at most.
        let newest = self.segments.back().map_or(0, |segment| segment.number);
        while let Some(oldest) = self.segments.front().filter(|oldest| oldest.number < newest) {
            if self.reading().is_needed(oldest.number) && !self.is_wasteful() {
                return Ok(());
            }
            let needed = self.reading().needed_of(oldest.number);
            // A parcel that cannot be read keeps its segment, and those after it, where they are.
            let Some(frames) = self.read_all(&needed) else { return Ok(()) };
            self.free_oldest(&frames, &needed)?;
        }
        Ok(())
    }

    /// Whether more than half of the frames are of no use any more.
    fn is_wasteful(&self) -> bool {
        let used: u64 = self.segments.iter().map(|segment| segment.end - HEADER_LEN as u64).sum();
        used > 2 * (self.reading().live_bytes() + self.options.segment_bytes as u64)
    }

    /// Reads the parcels to move, if all of them can be read.
    fn read_all(&self, needed: &Needed) -> Option<Vec<Vec<u8>>> {
        let oldest = self.segments.front()?;
        needed.waiting.iter().map(|(_, _, at)| read_frame(&oldest.file, *at)).collect()
    }

    /// Moves to the end of the log what the oldest segment still holds, and deletes it.
    fn free_oldest(&mut self, frames: &[Vec<u8>], needed: &Needed) -> Result<(), StoreError> {
        let moved = self.move_out(frames, needed);
        self.stop_on(moved)?;
        self.delete_oldest()
    }

    fn move_out(&mut self, frames: &[Vec<u8>], needed: &Needed) -> Result<(), StoreError> {
        let parsed: Vec<_> = frames.iter().filter_map(|bytes| Frame::read(bytes)).collect();
        let mut records: Vec<_> = parsed.iter().filter_map(Frame::record).collect();
        let index = self.shared.reading();
        records.extend(needed.settled.iter().filter_map(|(to, id)| index.settled_record(*to, *id)));
        drop(index);
        self.write_records(&records)
    }

    fn delete_oldest(&mut self) -> Result<(), StoreError> {
        let Some(oldest) = self.segments.front() else { return Ok(()) };
        self.shared.check_running()?;
        // First, so that a lack of descriptors is met before anything is done.
        let directory = Directory::open(&self.directory).map_err(|error| disk::write_error(&error))?;
        let path = disk::segment_path(&self.directory, oldest.number);
        let removed = (self.calls.remove)(&path).and_then(|()| (self.calls.sync_directory)(&directory));
        let removed = removed.map_err(|error| StoreError::Stopped(format!("{} stays: {error}", path.display())));
        self.stop_on(removed)?;
        self.shared.files().remove(&oldest.number);
        self.segments.pop_front();
        Ok(())
    }

    /// Settles as refused what waits for `user` and what of his waits for others, then rewrites the log until no segment
    /// has a body to or from him.
    pub(super) fn erase(&mut self, user: UserId, at: WallTime) -> Result<Erased, StoreError> {
        let (to, from) = self.reading().waiting_of(user);
        for some in [&to, &from].into_iter().flat_map(|all| all.chunks(SLICE)) {
            let mut index = self.index();
            for (to, id) in some {
                index.settle(*to, *id, Level::Refused, at);
            }
        }
        let mut erased = Erased { to: to.len() as u64, from: from.len() as u64, quarantined: 0 };
        self.unsaved.extend(to.into_iter().chain(from));
        // What is in doubt is written again before the segments are looked at, so that none of it comes after.
        let written = if self.unsaved.is_empty() && self.doubt.is_none() { Ok(()) } else { self.write(&[]) };
        self.stop_on(written)?;
        if let Some(last) = self.last_with_body_of(user)? {
            if self.segments.back().is_some_and(|newest| newest.number == last) {
                let made = self.make_segment(0);
                self.stop_on(made)?;
            }
            while let Some(oldest) = self.segments.front().filter(|oldest| oldest.number <= last) {
                let number = oldest.number;
                let needed = self.reading().needed_of(number);
                let unreadable = || StoreError::Corrupt(format!("segment {number:016x} has a parcel nobody can read"));
                let frames = self.read_all(&needed).ok_or_else(unreadable)?;
                self.free_oldest(&frames, &needed)?;
            }
        }
        let quarantine = std::fs::read_dir(self.directory.join(disk::QUARANTINE));
        erased.quarantined = quarantine.map_or(0, |files| files.count() as u64);
        Ok(erased)
    }

    /// The newest segment that holds a body to or from `user`, whether it waits or not. One that cannot be read as a
    /// whole may hold one.
    fn last_with_body_of(&self, user: UserId) -> Result<Option<u64>, StoreError> {
        for segment in self.segments.iter().rev() {
            let path = disk::segment_path(&self.directory, segment.number);
            let bytes = std::fs::read(&path).map_err(|error| StoreError::Unavailable(error.to_string()))?;
            if may_hold_body_of(user, &bytes) {
                return Ok(Some(segment.number));
            }
        }
        Ok(None)
    }
}

fn may_hold_body_of(user: UserId, bytes: &[u8]) -> bool {
    let Ok(header) = Header::decode(bytes) else { return true };
    let found = scan(bytes, header.stamp, header.batch);
    let is_his = |record| matches!(record, Some(Record::Parcel { to, id, .. }) if to == user || id.from == user);
    !found.damage.is_empty() || found.frames.iter().any(|(_, frame)| is_his(frame.record()))
}

/// Reads the bytes of one frame; `None` if they cannot be read or are no intact frame.
pub(super) fn read_frame(file: &std::fs::File, at: Location) -> Option<Vec<u8>> {
    let mut bytes = vec![0; at.len as usize];
    disk::read_exact_at(file, &mut bytes, at.offset).ok()?;
    Frame::read(&bytes)?;
    Some(bytes)
}
