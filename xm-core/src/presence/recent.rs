//! How messages ended that never saw the store, for senders who missed the tick. A fixed number is remembered; for an
//! older one the message is relayed again and the recipient's device knows it.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use xm_store::records::ParcelId;
use xmmep::messages::chat::Tick;
use xmmep::types::UserId;

/// Messages remembered per shard: 64 shards × 1,024 × 46 B ≈ 3 MiB in all.
const REMEMBERED_MAX: usize = 1_024;
const _: () = assert!(REMEMBERED_MAX < u16::MAX as usize, "places are 16 bits");

/// How a message ended.
struct Ending {
    message: (UserId, ParcelId),
    tick: Tick,
}

#[derive(Default)]
pub(super) struct Recent {
    /// A ring, once there are [`REMEMBERED_MAX`].
    endings: Vec<Ending>,
    /// Where the ring goes on: the place of the oldest.
    next: u16,
    /// Places in the ring, by message. Those of all shards together stay in the processor's cache, as the rings would not.
    places: HashTable<u16>,
    hasher: DefaultHashBuilder,
}

impl Recent {
    pub(super) fn remember(&mut self, to: UserId, parcel: ParcelId, tick: Tick) {
        let ending = Ending { message: (to, parcel), tick };
        if let Some(place) = self.place(to, parcel) {
            self.endings[place] = ending;
            return;
        }
        let place = self.next;
        let hash = self.hasher.hash_one(ending.message);
        match self.endings.get_mut(usize::from(place)) {
            Some(oldest) => {
                let forgotten = std::mem::replace(oldest, ending);
                let entry = self.places.find_entry(self.hasher.hash_one(forgotten.message), |known| *known == place);
                entry.expect("every place in the ring is known").remove();
            }
            None => self.endings.push(ending),
        }
        let (endings, hasher) = (&self.endings, &self.hasher);
        self.places.insert_unique(hash, place, |place| hasher.hash_one(endings[usize::from(*place)].message));
        self.next = (place + 1) % REMEMBERED_MAX as u16;
    }

    pub(super) fn recall(&self, to: UserId, parcel: ParcelId) -> Option<Tick> {
        self.place(to, parcel).map(|place| self.endings[place].tick)
    }

    /// Where in the ring a message is.
    fn place(&self, to: UserId, parcel: ParcelId) -> Option<usize> {
        let message = (to, parcel);
        let known = |place: &u16| self.endings[usize::from(*place)].message == message;
        self.places.find(self.hasher.hash_one(message), known).copied().map(usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmmep::types::MsgId;

    #[test]
    fn the_newest_are_remembered_and_the_number_is_bounded() {
        let mut recent = Recent::default();
        let parcel = |n: usize| ParcelId { from: UserId(1), id: MsgId((n as u128).to_be_bytes()) };
        for n in 0..=REMEMBERED_MAX {
            recent.remember(UserId(2), parcel(n), Tick::DELIVERED);
        }
        assert_eq!(recent.recall(UserId(2), parcel(0)), None);
        assert_eq!(recent.recall(UserId(2), parcel(1)), Some(Tick::DELIVERED));
        assert_eq!((recent.places.len(), recent.endings.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    }

    #[test]
    fn the_last_word_on_each_of_the_newest_is_remembered_however_often_the_ring_goes_round() {
        let mut recent = Recent::default();
        let parcel = |n: usize| ParcelId { from: UserId(1), id: MsgId((n as u128).to_be_bytes()) };
        for n in 0..5 * REMEMBERED_MAX {
            recent.remember(UserId(2), parcel(n), Tick::DELIVERED);
            recent.remember(UserId(2), parcel(n / 2), Tick::READ);
            assert_eq!(recent.recall(UserId(2), parcel(n / 2)), Some(Tick::READ), "message {n}");
            assert_eq!(recent.recall(UserId(3), parcel(n / 2)), None, "nobody wrote to 3");
            assert_eq!(recent.places.len(), recent.endings.len());
        }
    }
}
