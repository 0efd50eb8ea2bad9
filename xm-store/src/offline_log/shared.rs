//! What callers and the thread that writes both see.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use xmmep::types::UserId;

use super::committer;
use super::compact::read_frame;
use super::events::Counting;
use super::index::{Index, Location};
use crate::error::StoreError;
use crate::records::{Parcel, Place};

#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Callers read it on the threads of the runtime, so whoever changes it does so in small pieces.
    index: RwLock<Index>,
    /// Segments to read from, by number.
    files: RwLock<Files>,
    /// Why the log has stopped, while it has.
    stopped: Mutex<Option<StoreError>>,
    pub(super) counting: Counting,
}

type Files = BTreeMap<u64, Arc<File>>;

impl Shared {
    /// The index, whatever state the log is in. Only the thread that writes changes it.
    pub(super) fn index(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same to look at. For the thread that writes a look may take its time: as long as it looks, nobody waits to write,
    /// so other readers come and go.
    pub(super) fn reading(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index of a log that works. Checked while it is locked: a log that stops says so before it changes the index.
    pub(super) fn running(&self) -> Result<RwLockReadGuard<'_, Index>, StoreError> {
        let index = self.reading();
        self.check_running().map(|()| index)
    }

    pub(super) fn files(&self) -> RwLockWriteGuard<'_, Files> {
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check_running(&self) -> Result<(), StoreError> {
        self.stopped().clone().map_or(Ok(()), Err)
    }

    /// Only the first failure counts; those after it follow from it.
    pub(super) fn stop(&self, error: &StoreError) {
        let mut stopped = self.stopped();
        if stopped.is_none() {
            *stopped = Some(error.clone());
            Counting::add(&self.counting.stops, 1);
        }
    }

    pub(super) fn go_on(&self) {
        *self.stopped() = None;
        Counting::add(&self.counting.reopens, 1);
    }

    fn stopped(&self) -> MutexGuard<'_, Option<StoreError>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what waits for `to` at these locations.
    pub(super) fn read(&self, to: UserId, page: &[(Place, Location)]) -> Vec<(Place, Parcel)> {
        let mut parcels = Vec::with_capacity(page.len());
        for (place, location) in page {
            let mut at = *location;
            loop {
                if let Some(parcel) = self.read_one(*place, at) {
                    parcels.push((*place, parcel));
                    break;
                }
                match self.reading().location(to, *place) {
                    // A compaction has moved it since.
                    Some(now) if now != at => at = now,
                    Some(_) => {
                        Counting::add(&self.counting.unreadable, 1);
                        break;
                    }
                    // It has been settled since.
                    None => break,
                }
            }
        }
        parcels
    }

    fn read_one(&self, place: Place, at: Location) -> Option<Parcel> {
        let file = self.files.read().unwrap_or_else(PoisonError::into_inner).get(&at.segment).cloned()?;
        committer::parcel_in(&read_frame(&file, at)?, place)
    }
}
