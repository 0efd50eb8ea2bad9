//! [`Offline`] in memory.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Mutex;

use async_trait::async_trait;
use xmmep::types::{UserId, WallTime};

use super::lock;
use crate::error::StoreError;
use crate::offline::{Appended, Erased, Expired, Offline};
use crate::records::{LEVEL_KEPT, Level, PARCEL_BODY_MAX, Parcel, ParcelId, Place, Quotas, Summary};

/// [`Offline`] in memory. Here "stable storage" is the process.
#[derive(Debug, Default)]
pub struct MemoryOffline {
    quotas: Quotas,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last_place: u64,
    queues: BTreeMap<UserId, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: BTreeMap<Place, Parcel>,
    known: BTreeMap<ParcelId, Known>,
}

#[derive(Debug)]
struct Known {
    place: Place,
    level: Level,
    /// Of the body, which itself is gone once settled.
    hash: blake3::Hash,
    /// When the level last rose.
    at: WallTime,
}

impl MemoryOffline {
    /// An empty store with these quotas.
    #[must_use]
    pub fn with_quotas(quotas: Quotas) -> Self {
        Self { quotas, state: Mutex::default() }
    }
}

impl Queue {
    fn append(&mut self, parcel: Parcel, quotas: &Quotas, last_place: &mut u64) -> Appended {
        if parcel.body.len() > PARCEL_BODY_MAX {
            return Appended::TooLarge;
        }
        let id = ParcelId { from: parcel.from, id: parcel.id };
        let hash = blake3::hash(&parcel.body);
        if let Some(known) = self.known.get(&id) {
            let same = known.hash == hash;
            return if same { Appended::Already(known.place, known.level) } else { Appended::IdConflict };
        }
        let bytes = self.bytes() + parcel.body.len() as u64;
        let from_sender = self.waiting.values().filter(|other| other.from == parcel.from).count() as u64;
        let fits = (self.waiting.len() as u64) < quotas.messages
            && bytes <= quotas.bytes
            && from_sender < quotas.messages_per_sender;
        if !fits {
            return Appended::QuotaFull;
        }
        *last_place += 1;
        let place = Place(*last_place);
        self.known.insert(id, Known { place, level: Level::Stored, hash, at: parcel.sent });
        self.waiting.insert(place, parcel);
        Appended::Stored(place)
    }

    fn bytes(&self) -> u64 {
        self.waiting.values().map(|parcel| parcel.body.len() as u64).sum()
    }

    fn settle(&mut self, id: &ParcelId, level: Level, at: WallTime) -> bool {
        let Some(known) = self.known.get_mut(id).filter(|known| known.level.rises_to(level)) else { return false };
        known.level = level;
        known.at = at;
        self.waiting.remove(&known.place);
        true
    }
}

#[async_trait]
impl Offline for MemoryOffline {
    async fn append(&self, to: UserId, parcels: Vec<Parcel>) -> Result<Vec<Appended>, StoreError> {
        let state = &mut *lock(&self.state);
        let queue = state.queues.entry(to).or_default();
        Ok(parcels.into_iter().map(|parcel| queue.append(parcel, &self.quotas, &mut state.last_place)).collect())
    }

    async fn page(
        &self,
        to: UserId,
        after: Place,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Place, Parcel)>, StoreError> {
        let state = lock(&self.state);
        let mut page = Vec::new();
        let mut bytes = 0;
        let waiting =
            state.queues.get(&to).into_iter().flat_map(|queue| queue.waiting.range((Excluded(after), Unbounded)));
        for (place, parcel) in waiting {
            bytes += parcel.body.len();
            if page.len() >= messages_max.max(1) || (bytes > bytes_max && !page.is_empty()) {
                break;
            }
            page.push((*place, parcel.clone()));
        }
        Ok(page)
    }

    async fn summary(&self, to: UserId) -> Result<Summary, StoreError> {
        let state = lock(&self.state);
        Ok(state.queues.get(&to).map_or_else(Summary::default, |queue| Summary {
            messages: queue.waiting.len() as u64,
            bytes: queue.bytes(),
            oldest: queue.waiting.values().map(|parcel| parcel.sent).min(),
        }))
    }

    async fn settle(
        &self,
        to: UserId,
        parcels: &[ParcelId],
        level: Level,
        at: WallTime,
    ) -> Result<Vec<ParcelId>, StoreError> {
        let mut state = lock(&self.state);
        let Some(queue) = state.queues.get_mut(&to) else { return Ok(Vec::new()) };
        Ok(parcels.iter().filter(|id| queue.settle(id, level, at)).copied().collect())
    }

    async fn level(&self, to: UserId, parcel: ParcelId) -> Result<Option<Level>, StoreError> {
        let state = lock(&self.state);
        Ok(state.queues.get(&to).and_then(|queue| queue.known.get(&parcel)).map(|known| known.level))
    }

    async fn expire(&self, before: WallTime, now: WallTime, max: usize) -> Result<Vec<Expired>, StoreError> {
        let mut state = lock(&self.state);
        let mut expired = Vec::new();
        for (to, queue) in &mut state.queues {
            let old = queue.waiting.values().filter(|parcel| parcel.sent < before).take(max - expired.len());
            let old: Vec<_> = old
                .map(|one| Expired { to: *to, parcel: ParcelId { from: one.from, id: one.id }, sent: one.sent })
                .collect();
            for one in &old {
                queue.settle(&one.parcel, Level::Expired, now);
            }
            expired.extend(old);
        }
        Ok(expired)
    }

    async fn forget(&self, now: WallTime) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        state.queues.retain(|_, queue| {
            queue.known.retain(|_, known| known.level == Level::Stored || known.at.after(LEVEL_KEPT) >= now);
            !queue.known.is_empty()
        });
        Ok(())
    }

    async fn sent_by(
        &self,
        from: UserId,
        after: Option<(UserId, Place)>,
        messages_max: usize,
    ) -> Result<Vec<(UserId, Place, Parcel)>, StoreError> {
        let state = lock(&self.state);
        let all = state
            .queues
            .iter()
            .flat_map(|(to, queue)| queue.waiting.iter().map(|(place, parcel)| (*to, *place, parcel)));
        let behind =
            all.filter(|(to, place, parcel)| parcel.from == from && after.is_none_or(|last| (*to, *place) > last));
        Ok(behind.take(messages_max).map(|(to, place, parcel)| (to, place, parcel.clone())).collect())
    }

    async fn erase(&self, user: UserId, at: WallTime) -> Result<Erased, StoreError> {
        let mut state = lock(&self.state);
        let mut erased = Erased::default();
        for (to, queue) in &mut state.queues {
            let about = |parcel: &&Parcel| *to == user || parcel.from == user;
            let ids = queue.waiting.values().filter(about).map(|parcel| ParcelId { from: parcel.from, id: parcel.id });
            let ids: Vec<_> = ids.collect();
            let count = if *to == user { &mut erased.to } else { &mut erased.from };
            *count += ids.len() as u64;
            for id in &ids {
                queue.settle(id, Level::Refused, at);
            }
        }
        Ok(erased)
    }
}
