//! What is known of every parcel: place, level, where its record lies. In memory; bodies stay on disk. No file is
//! touched here.
//!
//! Some 200 bytes per waiting parcel and per level remembered.

use std::collections::{BTreeMap, HashMap};

use xmmep::types::{UserId, WallTime};

use super::format::Record;
use crate::offline::{Appended, Expired};
use crate::records::{LEVEL_KEPT, Level, PARCEL_BODY_MAX, Parcel, ParcelId, Place, Quotas, Summary};

/// The first half of a body's BLAKE3 hash: tells whether a message that comes again is the same one.
pub(super) fn body_hash(body: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&blake3::hash(body).as_bytes()[..16]);
    half
}

/// All queues.
#[derive(Debug, Default)]
pub(super) struct Index {
    queues: HashMap<UserId, Queue>,
    /// The next place to give out.
    pub(super) next_place: u64,
    /// Places from this one on are not on stable storage yet; readers do not see them.
    pub(super) durable: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<Place, Waiting>,
    known: HashMap<ParcelId, Known>,
    /// Bodies of what waits.
    bytes: u64,
    from_sender: HashMap<UserId, u64>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    id: ParcelId,
    sent: WallTime,
    body_len: u32,
    at: Location,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    place: Place,
    level: Level,
    hash: [u8; 16],
    /// When the level last rose.
    at: WallTime,
    /// The segment with the newest record of this parcel.
    segment: u64,
}

/// Where a frame begins, and its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) len: u32,
}

/// A parcel accepted and not yet written.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) to: UserId,
    pub(super) place: Place,
    pub(super) parcel: Parcel,
}

/// What must move out of a segment before it can be deleted.
#[derive(Debug, Default)]
pub(super) struct Needed {
    /// Waiting parcels: who, where.
    pub(super) waiting: Vec<(UserId, Place, Location)>,
    /// Levels to remember.
    pub(super) settled: Vec<(UserId, ParcelId)>,
}

impl Index {
    /// Takes a parcel, or says why not. A parcel taken is handed back as [`Fresh`], to be written.
    pub(super) fn accept(&mut self, to: UserId, parcel: Parcel, quotas: &Quotas) -> (Appended, Option<Fresh>) {
        if parcel.body.len() > PARCEL_BODY_MAX {
            return (Appended::TooLarge, None);
        }
        let id = ParcelId { from: parcel.from, id: parcel.id };
        let hash = body_hash(&parcel.body);
        let queue = self.queues.entry(to).or_default();
        if let Some(known) = queue.known.get(&id) {
            let same = known.hash == hash;
            return (if same { Appended::Already(known.place, known.level) } else { Appended::IdConflict }, None);
        }
        let fits = (queue.waiting.len() as u64) < quotas.messages
            && queue.bytes + parcel.body.len() as u64 <= quotas.bytes
            && queue.from_sender.get(&parcel.from).copied().unwrap_or(0) < quotas.messages_per_sender;
        if !fits {
            self.drop_if_empty(to);
            return (Appended::QuotaFull, None);
        }
        let place = Place(self.next_place);
        self.next_place += 1;
        queue.insert(place, id, parcel.sent, hash, parcel.body.len(), Location::default());
        (Appended::Stored(place), Some(Fresh { to, place, parcel }))
    }

    /// Takes back what [`accept`](Self::accept) took: it could not be written. Its place stays unused.
    pub(super) fn take_back(&mut self, fresh: &Fresh) {
        if let Some(queue) = self.queues.get_mut(&fresh.to) {
            queue.stop_waiting(fresh.place);
            queue.known.remove(&ParcelId { from: fresh.parcel.from, id: fresh.parcel.id });
        }
        self.drop_if_empty(fresh.to);
    }

    /// Notes where the record of a waiting parcel lies now.
    pub(super) fn moved(&mut self, to: UserId, place: Place, at: Location) {
        let Some(queue) = self.queues.get_mut(&to) else { return };
        if let Some(waiting) = queue.waiting.get_mut(&place) {
            waiting.at = at;
            if let Some(known) = queue.known.get_mut(&waiting.id) {
                known.segment = at.segment;
            }
        }
    }

    /// Notes in which segment the level of a parcel is recorded now.
    pub(super) fn saved(&mut self, to: UserId, id: ParcelId, segment: u64) {
        if let Some(known) = self.queues.get_mut(&to).and_then(|queue| queue.known.get_mut(&id)) {
            known.segment = segment;
        }
    }

    /// Raises the level of a parcel. Returns whether it rose.
    pub(super) fn settle(&mut self, to: UserId, id: ParcelId, level: Level, at: WallTime) -> bool {
        let Some(queue) = self.queues.get_mut(&to) else { return false };
        let Some(known) = queue.known.get_mut(&id).filter(|known| known.level.rises_to(level)) else { return false };
        (known.level, known.at) = (level, at);
        let place = known.place;
        queue.stop_waiting(place);
        true
    }

    /// The record of a settled parcel; `None` if it waits or is not known.
    pub(super) fn settled_record(&self, to: UserId, id: ParcelId) -> Option<Record<'static>> {
        let known = self.queues.get(&to)?.known.get(&id).filter(|known| known.level != Level::Stored)?;
        Some(Record::Settled { to, place: known.place, id, at: known.at, level: known.level, hash: known.hash })
    }

    /// Applies a record read at start.
    pub(super) fn replay(&mut self, record: &Record<'_>, at: Location) {
        match *record {
            Record::Parcel { to, place, id, sent, body } => {
                self.next_place = self.next_place.max(place.0.saturating_add(1));
                let queue = self.queues.entry(to).or_default();
                if queue.known.contains_key(&id) {
                    // A copy that a compaction made. If the parcel is settled by now, it stays settled.
                    self.moved(to, place, at);
                } else {
                    queue.insert(place, id, sent, body_hash(body), body.len(), at);
                }
            }
            Record::Settled { to, place, id, at: when, level, hash } => {
                self.next_place = self.next_place.max(place.0.saturating_add(1));
                let queue = self.queues.entry(to).or_default();
                // By id too: a parcel refused in a write that failed half-way may lie in the log at an earlier place.
                if let Some(known) = queue.known.get(&id) {
                    let place = known.place;
                    queue.stop_waiting(place);
                }
                queue.stop_waiting(place);
                queue.known.insert(id, Known { place, level, hash, at: when, segment: at.segment });
            }
            Record::Stop => {}
        }
    }

    /// Where the parcels of a page lie, oldest first, and the places the page ends at.
    pub(super) fn page(
        &self,
        to: UserId,
        after: Place,
        messages_max: usize,
        bytes_max: usize,
    ) -> Vec<(Place, Location)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut page = Vec::new();
        let mut bytes = 0_usize;
        let Some(queue) = self.queues.get(&to) else { return page };
        for (place, waiting) in queue.waiting.range((Excluded(after), Unbounded)) {
            bytes = bytes.saturating_add(waiting.body_len as usize);
            let full = page.len() >= messages_max.max(1) || (bytes > bytes_max && !page.is_empty());
            if full || place.0 >= self.durable {
                break;
            }
            page.push((*place, waiting.at));
        }
        page
    }

    /// Where the record of a waiting parcel lies now.
    pub(super) fn location(&self, to: UserId, place: Place) -> Option<Location> {
        self.queues.get(&to)?.waiting.get(&place).map(|waiting| waiting.at)
    }

    /// How many parcels wait, for all recipients together.
    pub(super) fn waiting(&self) -> u64 {
        self.queues.values().map(|queue| queue.waiting.len() as u64).sum()
    }

    /// What waits for a recipient on stable storage.
    pub(super) fn summary(&self, to: UserId) -> Summary {
        let durable = self.queues.get(&to).into_iter().flat_map(|queue| queue.waiting.range(..Place(self.durable)));
        durable.fold(Summary::default(), |sum, (_, waiting)| Summary {
            messages: sum.messages + 1,
            bytes: sum.bytes + u64::from(waiting.body_len),
            oldest: Some(sum.oldest.map_or(waiting.sent, |oldest| oldest.min(waiting.sent))),
        })
    }

    pub(super) fn level(&self, to: UserId, id: ParcelId) -> Option<Level> {
        let known = self.queues.get(&to)?.known.get(&id)?;
        (known.place.0 < self.durable).then_some(known.level)
    }

    /// Settles as expired at most `max` parcels taken before `before`.
    pub(super) fn expire(&mut self, before: WallTime, now: WallTime, max: usize) -> Vec<Expired> {
        let mut expired = Vec::new();
        for (to, queue) in &self.queues {
            let old = queue.waiting.values().filter(|waiting| waiting.sent < before);
            let old = old.map(|waiting| Expired { to: *to, parcel: waiting.id, sent: waiting.sent });
            expired.extend(old.take(max - expired.len()));
        }
        for one in &expired {
            self.settle(one.to, one.parcel, Level::Expired, now);
        }
        expired
    }

    /// Forgets levels older than they must be kept.
    pub(super) fn forget(&mut self, now: WallTime) {
        self.queues.retain(|_, queue| {
            queue.known.retain(|_, known| known.level == Level::Stored || known.at.after(LEVEL_KEPT) >= now);
            !queue.known.is_empty()
        });
    }

    /// Bytes of records that are still of use.
    pub(super) fn live_bytes(&self) -> u64 {
        let settled_len = Record::Settled {
            to: UserId(0),
            place: Place(0),
            id: ParcelId { from: UserId(0), id: xmmep::types::MsgId([0; 16]) },
            at: WallTime(0),
            level: Level::Received,
            hash: [0; 16],
        };
        let settled_len = settled_len.frame_len() as u64;
        let live = |queue: &Queue| {
            let waiting: u64 = queue.waiting.values().map(|waiting| u64::from(waiting.at.len)).sum();
            waiting + (queue.known.len() - queue.waiting.len()) as u64 * settled_len
        };
        self.queues.values().map(live).sum()
    }

    /// What still needs a segment.
    pub(super) fn needed_of(&self, segment: u64) -> Needed {
        let mut needed = Needed::default();
        for (to, queue) in &self.queues {
            for (id, known) in queue.known.iter().filter(|(_, known)| known.segment == segment) {
                match queue.waiting.get(&known.place) {
                    Some(waiting) => needed.waiting.push((*to, known.place, waiting.at)),
                    None => needed.settled.push((*to, *id)),
                }
            }
        }
        // In the order of places, so that a copy reads like the original.
        needed.waiting.sort_unstable_by_key(|(_, place, _)| *place);
        needed
    }

    fn drop_if_empty(&mut self, user: UserId) {
        if self.queues.get(&user).is_some_and(|queue| queue.known.is_empty()) {
            self.queues.remove(&user);
        }
    }
}

impl Queue {
    fn insert(&mut self, place: Place, id: ParcelId, sent: WallTime, hash: [u8; 16], len: usize, at: Location) {
        self.known.insert(id, Known { place, level: Level::Stored, hash, at: sent, segment: at.segment });
        self.waiting.insert(place, Waiting { id, sent, body_len: len as u32, at });
        self.bytes += len as u64;
        *self.from_sender.entry(id.from).or_default() += 1;
    }

    fn stop_waiting(&mut self, place: Place) {
        let Some(waiting) = self.waiting.remove(&place) else { return };
        self.bytes -= u64::from(waiting.body_len);
        if let Some(count) = self.from_sender.get_mut(&waiting.id.from) {
            *count -= 1;
            if *count == 0 {
                self.from_sender.remove(&waiting.id.from);
            }
        }
    }
}
