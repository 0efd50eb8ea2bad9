//! How messages ended that never saw the store, for senders who missed the tick. A fixed number is remembered; for an
//! older one the message is relayed again and the recipient's device knows it.

use std::collections::VecDeque;

use hashbrown::HashMap;
use xm_store::records::ParcelId;
use xmmep::messages::chat::Tick;
use xmmep::types::UserId;

/// Messages remembered per shard: 64 shards × 1,024 × 100 B ≈ 6.5 MiB in all.
const REMEMBERED_MAX: usize = 1_024;

#[derive(Default)]
pub(super) struct Recent {
    ticks: HashMap<(UserId, ParcelId), Tick>,
    order: VecDeque<(UserId, ParcelId)>,
}

impl Recent {
    pub(super) fn remember(&mut self, to: UserId, parcel: ParcelId, tick: Tick) {
        if self.ticks.insert((to, parcel), tick).is_some() {
            return;
        }
        self.order.push_back((to, parcel));
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ticks.remove(&oldest);
        }
    }

    pub(super) fn recall(&self, to: UserId, parcel: ParcelId) -> Option<Tick> {
        self.ticks.get(&(to, parcel)).copied()
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
        assert_eq!((recent.ticks.len(), recent.order.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
    }
}
