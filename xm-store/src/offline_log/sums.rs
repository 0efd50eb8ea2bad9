//! Running sums over the index, so that no question about all of it takes a walk through all of it: what is of use, what each
//! segment is still needed for, what was sent first.

use std::collections::{BTreeSet, HashMap};

use xmmep::types::{UserId, WallTime};

use super::format::SETTLED_FRAME_LEN;
use super::index::Settled;
use crate::records::Place;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    known: u64,
    waiting: u64,
    /// Bytes of the frames of all that waits.
    waiting_bytes: u64,
    /// All that waits.
    by_sent: BTreeSet<(WallTime, UserId, Place)>,
    segments: HashMap<u64, Held>,
}

/// What a segment is needed for.
#[derive(Debug, Default)]
struct Held {
    count: u64,
    /// Every parcel that ever needed it since it was not needed at all: some need it no more, and one may be here twice.
    /// Cheaper than a set, and no longer than the segment has records.
    parcels: Vec<Settled>,
}

impl Sums {
    pub(super) fn learnt(&mut self, parcel: Settled, segment: u64) {
        self.known += 1;
        self.hold(parcel, segment);
    }

    pub(super) fn forgotten(&mut self, segment: u64) {
        self.known -= 1;
        self.release(segment);
    }

    /// A parcel needs another segment.
    pub(super) fn moved(&mut self, parcel: Settled, from: u64, to: u64) {
        if from != to {
            self.release(from);
            self.hold(parcel, to);
        }
    }

    pub(super) fn waits(&mut self, sent: WallTime, to: UserId, place: Place, frame_len: u32) {
        self.waiting += 1;
        self.waiting_bytes += u64::from(frame_len);
        self.by_sent.insert((sent, to, place));
    }

    /// The frame of a waiting parcel has another length: it had none before it was written.
    pub(super) fn resized(&mut self, from: u32, to: u32) {
        self.waiting_bytes = self.waiting_bytes - u64::from(from) + u64::from(to);
    }

    pub(super) fn waits_no_more(&mut self, sent: WallTime, to: UserId, place: Place, frame_len: u32) {
        self.waiting -= 1;
        self.waiting_bytes -= u64::from(frame_len);
        self.by_sent.remove(&(sent, to, place));
    }

    fn hold(&mut self, parcel: Settled, segment: u64) {
        let held = self.segments.entry(segment).or_default();
        held.count += 1;
        held.parcels.push(parcel);
    }

    fn release(&mut self, segment: u64) {
        let Some(held) = self.segments.get_mut(&segment) else { return };
        held.count -= 1;
        if held.count == 0 {
            self.segments.remove(&segment);
        }
    }

    /// How many parcels wait.
    pub(super) fn waiting(&self) -> u64 {
        self.waiting
    }

    /// Bytes of records that are still of use.
    pub(super) fn live_bytes(&self) -> u64 {
        self.waiting_bytes + (self.known - self.waiting) * SETTLED_FRAME_LEN as u64
    }

    /// Whether anything needs a segment.
    pub(super) fn is_needed(&self, segment: u64) -> bool {
        self.segments.contains_key(&segment)
    }

    /// All that may need a segment: see [`Held`].
    pub(super) fn candidates(&self, segment: u64) -> &[Settled] {
        self.segments.get(&segment).map_or(&[], |held| &held.parcels)
    }

    /// What waits and was sent before `before`, oldest first.
    pub(super) fn sent_before(&self, before: WallTime) -> impl Iterator<Item = (UserId, Place)> + '_ {
        self.by_sent.range(..(before, UserId(0), Place(0))).map(|(_, to, place)| (*to, *place))
    }
}

impl PartialEq for Held {
    /// Whatever else is among the candidates.
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count
    }
}

impl Eq for Held {}
