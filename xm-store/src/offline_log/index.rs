//! What is known of every parcel: place, level, where its record lies. In memory; bodies stay on disk. No file is
//! touched here.
//!
//! Some 340 bytes per waiting parcel, fewer per level remembered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included, Unbounded};

use xmmep::types::{UserId, WallTime};

use super::format::Record;
use super::sums::Sums;
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
    sums: Sums,
    /// The next place to give out.
    pub(super) next_place: u64,
    /// Places from this one on are not on stable storage yet; readers do not see them.
    pub(super) durable: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<Place, Waiting>,
    /// Received and not read: with those that wait, all that can rise.
    received: BTreeMap<Place, ParcelId>,
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
    /// The segment with the newest record that names this parcel. A run names none, and always lies behind it.
    segment: u64,
}

impl Known {
    fn can_be_forgotten(&self, now: WallTime) -> bool {
        self.level != Level::Stored && self.at.after(LEVEL_KEPT) < now
    }
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

/// A parcel with its recipient.
pub(super) type Settled = (UserId, ParcelId);

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
        let waiting = Waiting { id, sent: parcel.sent, body_len: parcel.body.len() as u32, at: Location::default() };
        queue.insert(&mut self.sums, to, place, waiting, hash);
        (Appended::Stored(place), Some(Fresh { to, place, parcel }))
    }

    /// Takes back what [`accept`](Self::accept) took: it could not be written. Its place stays unused.
    pub(super) fn take_back(&mut self, fresh: &Fresh) {
        if let Some(queue) = self.queues.get_mut(&fresh.to) {
            queue.stop_waiting(&mut self.sums, fresh.to, fresh.place);
            queue.forget(&mut self.sums, ParcelId { from: fresh.parcel.from, id: fresh.parcel.id });
        }
        self.drop_if_empty(fresh.to);
    }

    pub(super) fn knows(&self, to: UserId, id: ParcelId) -> bool {
        self.queues.get(&to).is_some_and(|queue| queue.known.contains_key(&id))
    }

    /// Notes where the record of a waiting parcel lies now.
    pub(super) fn moved(&mut self, to: UserId, place: Place, at: Location) {
        let Some(waiting) = self.queues.get_mut(&to).and_then(|queue| queue.waiting.get_mut(&place)) else { return };
        self.sums.resized(waiting.at.len, at.len);
        waiting.at = at;
        let id = waiting.id;
        self.saved(to, id, at.segment);
    }

    /// Notes where the record of a parcel was written, which may have been settled on its way to the disk.
    pub(super) fn written(&mut self, to: UserId, id: ParcelId, place: Place, at: Location) {
        self.moved(to, place, at);
        if self.queues.get(&to).and_then(|queue| queue.known.get(&id)).is_some_and(|known| known.place == place) {
            self.saved(to, id, at.segment);
        }
    }

    /// Notes which segment has the newest record that names a parcel now.
    pub(super) fn saved(&mut self, to: UserId, id: ParcelId, segment: u64) {
        if let Some(known) = self.queues.get_mut(&to).and_then(|queue| queue.known.get_mut(&id)) {
            self.sums.moved((to, id), known.segment, segment);
            known.segment = segment;
        }
    }

    /// Raises the level of a parcel. Returns whether it rose.
    pub(super) fn settle(&mut self, to: UserId, id: ParcelId, level: Level, at: WallTime) -> bool {
        self.queues.get_mut(&to).is_some_and(|queue| queue.raise(&mut self.sums, to, id, level, at))
    }

    /// The records that say how far these parcels have come: one for each run of places in which nothing else could rise
    /// to the same level. Their order does not matter.
    pub(super) fn runs(&self, raised: &BTreeSet<(UserId, ParcelId)>) -> Vec<Record<'static>> {
        let known = raised.iter().filter_map(|(to, id)| Some((*to, self.queues.get(to)?.known.get(id)?)));
        let mut risen: Vec<_> = known.filter(|(_, known)| known.level != Level::Stored).collect();
        risen.sort_unstable_by_key(|(to, known)| (*to, known.place));
        let mut runs: Vec<Record<'static>> = Vec::new();
        for (user, known) in risen {
            if let Some(Record::Run { to, last, at, level, .. }) = runs.last_mut()
                && (*to, *level) == (user, known.level)
                && *last < known.place
                && !self.can_any_rise(user, (Excluded(*last), Excluded(known.place)), *level)
            {
                // The later time for all: remembered too long is no harm.
                (*last, *at) = (known.place, known.at.max(*at));
            } else {
                let (first, last) = (known.place, known.place);
                runs.push(Record::Run { to: user, first, last, at: known.at, level: known.level });
            }
        }
        runs
    }

    fn can_any_rise(&self, to: UserId, places: Places, level: Level) -> bool {
        self.queues.get(&to).is_some_and(|queue| queue.rising(places, level).next().is_some())
    }

    /// What these parcels have come to, to be told to another index.
    pub(super) fn levels(&self, raised: &BTreeSet<(UserId, ParcelId)>) -> Vec<(UserId, ParcelId, Level, WallTime)> {
        let known = raised.iter().filter_map(|(to, id)| Some((*to, *id, self.queues.get(to)?.known.get(id)?)));
        known.map(|(to, id, known)| (to, id, known.level, known.at)).collect()
    }

    /// All that waits for `user`, and all of his that waits for others. Looks at everything.
    pub(super) fn waiting_of(&self, user: UserId) -> (Vec<Settled>, Vec<Settled>) {
        let waiting = self.queues.iter().flat_map(|(to, queue)| queue.waiting.values().map(|one| (*to, one.id)));
        let his = waiting.filter(|(to, id)| *to == user || id.from == user);
        his.partition(|(to, _)| *to == user)
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
                let waiting = Waiting { id, sent, body_len: body.len() as u32, at };
                match queue.known.get(&id).map(|known| known.place) {
                    // It came again: after a write that failed half-way and left the first one there, or long after it was
                    // settled and forgotten. Places are never used twice, so this is no copy.
                    Some(before) if before < place => {
                        queue.stop_waiting(&mut self.sums, to, before);
                        queue.received.remove(&before);
                        queue.insert(&mut self.sums, to, place, waiting, body_hash(body));
                    }
                    // A copy. If the parcel is settled by now, it stays settled.
                    Some(_) => self.moved(to, place, at),
                    None => queue.insert(&mut self.sums, to, place, waiting, body_hash(body)),
                }
            }
            Record::Settled { to, place, id, at: when, level, hash } => {
                self.next_place = self.next_place.max(place.0.saturating_add(1));
                let queue = self.queues.entry(to).or_default();
                // By id too: a parcel refused in a write that failed half-way may lie in the log at an earlier place.
                if let Some(known) = queue.known.get(&id) {
                    let place = known.place;
                    queue.stop_waiting(&mut self.sums, to, place);
                    queue.received.remove(&place);
                }
                queue.stop_waiting(&mut self.sums, to, place);
                queue.learn(&mut self.sums, to, id, Known { place, level, hash, at: when, segment: at.segment });
                if level == Level::Received {
                    queue.received.insert(place, id);
                }
            }
            Record::Run { to, first, last, at: when, level } => {
                self.next_place = self.next_place.max(last.0.saturating_add(1));
                let Some(queue) = self.queues.get_mut(&to) else { return };
                // A level that could have been forgotten when the run was written is none of those it is about.
                let is_known = |id: &ParcelId| queue.known.get(id).is_some_and(|known| !known.can_be_forgotten(when));
                let rising = queue.rising((Included(first), Included(last)), level).filter(is_known);
                for id in rising.collect::<Vec<_>>() {
                    queue.raise(&mut self.sums, to, id, level, when);
                }
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

    /// Where waiting parcels of `from` lie, by recipient and place, behind `after`. Looks at every queue.
    pub(super) fn sent_by(
        &self,
        from: UserId,
        after: Option<(UserId, Place)>,
        messages_max: usize,
    ) -> Vec<(UserId, Place, Location)> {
        let mut recipients: Vec<_> = self.queues.keys().filter(|to| after.is_none_or(|last| **to >= last.0)).collect();
        recipients.sort_unstable();
        let waiting = recipients.into_iter().filter_map(|to| Some((*to, self.queues.get(to)?)));
        let all = waiting.flat_map(|(to, queue)| queue.waiting.iter().map(move |(place, one)| (to, *place, one)));
        let behind = all.filter(|(to, place, one)| {
            one.id.from == from && place.0 < self.durable && after.is_none_or(|last| (*to, *place) > last)
        });
        behind.take(messages_max).map(|(to, place, one)| (to, place, one.at)).collect()
    }

    /// Where the record of a waiting parcel lies now.
    pub(super) fn location(&self, to: UserId, place: Place) -> Option<Location> {
        self.queues.get(&to)?.waiting.get(&place).map(|waiting| waiting.at)
    }

    /// How many parcels wait, for all recipients together.
    pub(super) fn waiting(&self) -> u64 {
        self.sums.waiting()
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

    /// Settles as expired at most `max` parcels taken before `before`, the oldest.
    pub(super) fn expire(&mut self, before: WallTime, now: WallTime, max: usize) -> Vec<Expired> {
        let old = self.sums.sent_before(before).filter_map(|(to, place)| {
            let waiting = self.queues.get(&to)?.waiting.get(&place)?;
            Some(Expired { to, parcel: waiting.id, sent: waiting.sent })
        });
        let expired: Vec<_> = old.take(max).collect();
        for one in &expired {
            self.settle(one.to, one.parcel, Level::Expired, now);
        }
        expired
    }

    /// Whose levels are older than they must be kept. Looks at everything.
    pub(super) fn forgettable(&self, now: WallTime) -> Vec<Settled> {
        let known = self.queues.iter().flat_map(|(to, queue)| queue.known.iter().map(|(id, known)| (*to, *id, known)));
        known.filter(|(.., known)| known.can_be_forgotten(now)).map(|(to, id, _)| (to, id)).collect()
    }

    /// Forgets levels.
    pub(super) fn forget(&mut self, levels: &[Settled]) {
        for (to, id) in levels {
            if let Some(queue) = self.queues.get_mut(to) {
                queue.forget(&mut self.sums, *id);
            }
            self.drop_if_empty(*to);
        }
    }

    /// Where a parcel stands that waits.
    pub(super) fn waiting_place(&self, to: UserId, id: ParcelId) -> Option<Place> {
        let known = self.queues.get(&to)?.known.get(&id)?;
        (known.level == Level::Stored).then_some(known.place)
    }

    /// Where everything lies that waits, in the order of places.
    pub(super) fn all_waiting(&self) -> Vec<Location> {
        let mut waiting: Vec<_> = self.queues.values().flat_map(|queue| &queue.waiting).collect();
        waiting.sort_unstable_by_key(|(place, _)| **place);
        waiting.into_iter().map(|(_, waiting)| waiting.at).collect()
    }

    /// The records of all that is settled.
    pub(super) fn all_settled(&self) -> impl Iterator<Item = Record<'static>> + '_ {
        let known = self.queues.iter().flat_map(|(to, queue)| queue.known.keys().map(|id| (*to, *id)));
        known.filter_map(|(to, id)| self.settled_record(to, id))
    }

    /// What lies in each segment: parcels that wait, and levels.
    pub(super) fn tally(&self) -> HashMap<u64, (u64, u64)> {
        let mut tally: HashMap<u64, (u64, u64)> = HashMap::new();
        for known in self.queues.values().flat_map(|queue| queue.known.values()) {
            let (waiting, settled) = tally.entry(known.segment).or_default();
            *(if known.level == Level::Stored { waiting } else { settled }) += 1;
        }
        tally
    }

    /// Bytes of records that are still of use.
    pub(super) fn live_bytes(&self) -> u64 {
        self.sums.live_bytes()
    }

    /// Whether anything still needs a segment.
    pub(super) fn is_needed(&self, segment: u64) -> bool {
        self.sums.is_needed(segment)
    }

    /// What still needs a segment.
    pub(super) fn needed_of(&self, segment: u64) -> Needed {
        let mut needed = Needed::default();
        for (to, id) in self.sums.candidates(segment) {
            let Some(queue) = self.queues.get(to) else { continue };
            let Some(known) = queue.known.get(id).filter(|known| known.segment == segment) else { continue };
            match queue.waiting.get(&known.place) {
                Some(waiting) => needed.waiting.push((*to, known.place, waiting.at)),
                None => needed.settled.push((*to, *id)),
            }
        }
        // In the order of places, so that a copy reads like the original.
        needed.waiting.sort_unstable_by_key(|(_, place, _)| *place);
        needed.waiting.dedup();
        needed.settled.sort_unstable();
        needed.settled.dedup();
        needed
    }

    /// Counts everything anew and compares.
    #[cfg(test)]
    pub(super) fn assert_sums(&self) {
        let mut counted = Sums::default();
        let mut needed: HashMap<u64, usize> = HashMap::new();
        for (to, queue) in &self.queues {
            for (id, known) in &queue.known {
                counted.learnt((*to, *id), known.segment);
                *needed.entry(known.segment).or_default() += 1;
            }
            queue.waiting.iter().for_each(|(place, one)| counted.waits(one.sent, *to, *place, one.at.len));
        }
        assert_eq!(self.sums, counted);
        for (segment, count) in needed {
            let found = self.needed_of(segment);
            assert_eq!(found.waiting.len() + found.settled.len(), count, "segment {segment}");
        }
    }

    fn drop_if_empty(&mut self, user: UserId) {
        if self.queues.get(&user).is_some_and(|queue| queue.known.is_empty()) {
            self.queues.remove(&user);
        }
    }
}

/// A range of places, which must not be empty by its ends.
type Places = (std::ops::Bound<Place>, std::ops::Bound<Place>);

impl Queue {
    fn raise(&mut self, sums: &mut Sums, to: UserId, id: ParcelId, level: Level, at: WallTime) -> bool {
        let Some(known) = self.known.get_mut(&id).filter(|known| known.level.rises_to(level)) else { return false };
        (known.level, known.at) = (level, at);
        let place = known.place;
        self.stop_waiting(sums, to, place);
        if level == Level::Received {
            self.received.insert(place, id);
        } else {
            self.received.remove(&place);
        }
        true
    }

    /// The parcels at these places that can rise to this level.
    fn rising(&self, places: Places, level: Level) -> impl Iterator<Item = ParcelId> + '_ {
        let waiting = self.waiting.range(places).map(|(_, waiting)| waiting.id);
        let received = self.received.range(places).map(|(_, id)| *id);
        let waiting = waiting.filter(move |_| Level::Stored.rises_to(level));
        waiting.chain(received.filter(move |_| Level::Received.rises_to(level)))
    }

    fn insert(&mut self, sums: &mut Sums, to: UserId, place: Place, waiting: Waiting, hash: [u8; 16]) {
        let Waiting { id, sent, body_len, at } = waiting;
        // Only a damaged log has two parcels at one place.
        self.stop_waiting(sums, to, place);
        self.learn(sums, to, id, Known { place, level: Level::Stored, hash, at: sent, segment: at.segment });
        self.waiting.insert(place, waiting);
        sums.waits(sent, to, place, at.len);
        self.bytes += u64::from(body_len);
        *self.from_sender.entry(id.from).or_default() += 1;
    }

    fn learn(&mut self, sums: &mut Sums, to: UserId, id: ParcelId, known: Known) {
        match self.known.insert(id, known) {
            Some(before) => sums.moved((to, id), before.segment, known.segment),
            None => sums.learnt((to, id), known.segment),
        }
    }

    fn forget(&mut self, sums: &mut Sums, id: ParcelId) {
        let Some(known) = self.known.remove(&id) else { return };
        self.received.remove(&known.place);
        sums.forgotten(known.segment);
    }

    fn stop_waiting(&mut self, sums: &mut Sums, to: UserId, place: Place) {
        let Some(waiting) = self.waiting.remove(&place) else { return };
        sums.waits_no_more(waiting.sent, to, place, waiting.at.len);
        self.bytes -= u64::from(waiting.body_len);
        if let Some(count) = self.from_sender.get_mut(&waiting.id.from) {
            *count -= 1;
            if *count == 0 {
                self.from_sender.remove(&waiting.id.from);
            }
        }
    }
}
