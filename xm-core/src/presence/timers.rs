//! What is to be done when, per lane. A timer belongs to the lane of the session it is about, whose driver looks at it
//! after each datagram.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use xmmep::types::{Time, UserId};

use crate::outbox::LaneId;

/// How often users nobody needs are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// How often the offline store is tidied up.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(3_600);

/// Lanes a role can have.
const LANES: usize = 256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// Messages relayed to this user were not confirmed in time.
    Store(UserId),
    /// This user's status changed again and may be told now.
    Announce(UserId),
    /// What is in memory of this user's roster may be older than what the store has.
    Refresh(UserId),
    /// Users nobody needs leave the memory.
    Sweep,
}

/// What a lane has to do, soonest first; so far apart that no two lanes write to one line of the processors' caches.
#[derive(Default)]
#[repr(align(128))]
struct Lane(Mutex<BTreeSet<(Time, Due)>>);

pub(super) struct Timers {
    lanes: Box<[Lane]>,
    /// When the offline store is tidied up next.
    housekeeping: Mutex<Time>,
}

impl Timers {
    pub(super) fn new() -> Self {
        let timers = Self { lanes: (0..LANES).map(|_| Lane::default()).collect(), housekeeping: Mutex::default() };
        timers.sweep_again(Time::ZERO);
        timers
    }

    pub(super) fn set(&self, lane: LaneId, at: Time, due: Due) {
        self.lane(lane).insert((at, due));
    }

    pub(super) fn sweep_again(&self, now: Time) {
        self.set(LaneId(0), now.after(SWEEP_INTERVAL), Due::Sweep);
    }

    pub(super) fn deadline(&self, lane: LaneId) -> Option<Time> {
        self.lane(lane).first().map(|(at, _)| *at)
    }

    /// The next thing that is due.
    pub(super) fn take_due(&self, lane: LaneId, now: Time) -> Option<Due> {
        let mut timers = self.lane(lane);
        timers.first().is_some_and(|(at, _)| *at <= now).then(|| timers.pop_first()).flatten().map(|(_, due)| due)
    }

    /// Whether the offline store is to be tidied up now; then it is not for an hour.
    pub(super) fn take_housekeeping(&self, now: Time) -> bool {
        let mut next = self.housekeeping.lock().unwrap_or_else(PoisonError::into_inner);
        let due = *next <= now;
        if due {
            *next = now.after(HOUSEKEEPING_INTERVAL);
        }
        due
    }

    fn lane(&self, lane: LaneId) -> MutexGuard<'_, BTreeSet<(Time, Due)>> {
        self.lanes[usize::from(lane.0)].0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
