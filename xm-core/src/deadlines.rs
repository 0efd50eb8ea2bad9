//! Which session wants to be called when. Most deadlines are seconds away and put off long before they come: those wait
//! unsorted in the slot of time they fall into. Only those of slots that have begun are in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::mem::take;

use xmmep::types::Time;

/// A slot is 2^16 µs, some 66 ms: an acknowledgement that is owed mostly goes straight into order, and what begins at a time
/// with a million sessions that are heard every half minute is looked through in about a millisecond.
const SLOT_BITS: u32 = 16;

/// Slots ahead, some 33 s. What is due later is looked at in the last one.
const SLOTS: u32 = 512;

/// Places kept for deadlines to come, beside three for each that is there.
const SPARE_MAX: usize = 4_096;

/// Places in a slot that are there from the start and kept.
const SPARE_IN_SLOT: usize = 32;

/// The deadlines of many sessions.
pub(crate) struct Deadlines {
    /// Of slots that have begun; those no longer registered are skipped when their time comes.
    near: BinaryHeap<Reverse<(Time, u32)>>,
    /// The newest slot that has begun.
    begun: u32,
    /// Whom to look at when one of the next slots begins, if he is still registered for it: a ring.
    far: Box<[Vec<u32>]>,
    /// Slots with somebody in them.
    taken: BinaryHeap<Reverse<u32>>,
    /// A slot that has begun, and who is left in it.
    opened: (u32, Vec<u32>),
}

/// What is registered for one session; kept with it. Never later than its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registered {
    at: Option<Time>,
    /// 0 if it is none: that slot has always begun.
    slot: u32,
}

/// A session whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) index: u32,
    when: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    At(Time),
    Slot(u32),
}

impl Registered {
    /// Whether a session is meant by what is due. Then it is registered no more: it is called if its deadline has come, and
    /// registered again.
    pub(crate) fn take(&mut self, due: Due) -> bool {
        match due.when {
            When::At(time) => self.at.take_if(|at| *at == time).is_some(),
            When::Slot(slot) if self.slot == slot => {
                self.slot = 0;
                true
            }
            When::Slot(_) => false,
        }
    }
}

impl Deadlines {
    pub(crate) fn new() -> Self {
        let far = (0..SLOTS).map(|_| Vec::with_capacity(SPARE_IN_SLOT)).collect();
        Self {
            near: BinaryHeap::new(),
            begun: 0,
            far,
            taken: BinaryHeap::new(),
            opened: (0, Vec::with_capacity(SPARE_IN_SLOT)),
        }
    }

    /// The session with that index, of which `registered` is known, has that deadline from `now` on.
    pub(crate) fn register(&mut self, now: Time, index: u32, registered: &mut Registered, deadline: Time) {
        if self.taken.is_empty() {
            // Nobody was waiting, and time went on.
            self.begun = self.begun.max(slot_of(now));
        }
        let slot = slot_of(deadline).min(self.begun.saturating_add(SLOTS - 1));
        if slot <= self.begun {
            if registered.at.is_none_or(|at| deadline < at) {
                registered.at = Some(deadline);
                self.near.push(Reverse((deadline, index)));
            }
        } else if registered.at.is_none() && (registered.slot == 0 || slot < registered.slot) {
            registered.slot = slot;
            let place = &mut self.far[place(slot)];
            if place.is_empty() {
                self.taken.push(Reverse(slot));
            }
            place.push(index);
        }
    }

    /// When there is something to [`pop`](Self::pop).
    pub(crate) fn next(&self) -> Option<Time> {
        let near = self.near.peek().map(|Reverse((time, _))| *time);
        let slot = if self.opened.1.is_empty() { self.taken.peek().map(|taken| taken.0) } else { Some(self.opened.0) };
        let far = slot.map(|slot| Time::from_micros(u64::from(slot) << SLOT_BITS));
        near.into_iter().chain(far).min()
    }

    /// Somebody who may be due: see [`Registered::take`].
    pub(crate) fn pop(&mut self, now: Time) -> Option<Due> {
        while self.opened.1.is_empty() {
            let Some(slot) = self.taken.peek().map(|taken| taken.0).filter(|slot| *slot <= slot_of(now)) else {
                self.begun = self.begun.max(slot_of(now));
                break;
            };
            self.taken.pop();
            // However late it is, slots begin one after the other: the ring has no room for more than are ahead of this one.
            self.begun = slot;
            let next = take(&mut self.far[place(slot)]);
            let mut used = std::mem::replace(&mut self.opened, (slot, next)).1;
            // The memory of few serves again, that of a crowd goes with it.
            used.shrink_to(SPARE_IN_SLOT);
            self.far[place(slot)] = used;
        }
        if let Some(index) = self.opened.1.pop() {
            return Some(Due { index, when: When::Slot(self.opened.0) });
        }
        let Reverse((time, index)) = *self.near.peek().filter(|Reverse((time, _))| *time <= now)?;
        self.near.pop();
        Some(Due { index, when: When::At(time) })
    }

    /// Gives back the room of those who are gone.
    pub(crate) fn shrink(&mut self) {
        if self.near.capacity() > 4 * self.near.len() + SPARE_MAX {
            self.near.shrink_to_fit();
        }
        if self.opened.1.is_empty() {
            self.opened.1.shrink_to(SPARE_IN_SLOT);
        }
    }
}

/// Where in the ring a slot is.
fn place(slot: u32) -> usize {
    (slot % SLOTS) as usize
}

/// After nine years the last slot begins, and all that is due later is in order from the start.
fn slot_of(time: Time) -> u32 {
    u32::try_from(time.as_micros() >> SLOT_BITS).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Sessions that do nothing but have a deadline.
    struct World {
        deadlines: Deadlines,
        sessions: Vec<(Registered, Option<Time>)>,
        now: Time,
    }

    impl World {
        fn new(sessions: usize) -> Self {
            Self { deadlines: Deadlines::new(), sessions: vec![Default::default(); sessions], now: Time::ZERO }
        }

        /// Gives a session a deadline so many microseconds from now.
        fn set(&mut self, index: usize, micros: u64) {
            let deadline = Time::from_micros(self.now.as_micros().saturating_add(micros));
            let (registered, of) = &mut self.sessions[index];
            *of = Some(deadline);
            self.deadlines.register(self.now, index as u32, registered, deadline);
        }

        /// Whose deadline comes until then, in order, and when each was called.
        fn run(&mut self, until: Time) -> Vec<(Time, u32)> {
            let mut called = Vec::new();
            while let Some(next) = self.deadlines.next().filter(|next| *next <= until) {
                self.now = self.now.max(next);
                self.call(&mut called);
            }
            self.now = until;
            called
        }

        /// Calls everybody whose time has come, however long ago.
        fn call(&mut self, called: &mut Vec<(Time, u32)>) {
            while let Some(due) = self.deadlines.pop(self.now) {
                let (registered, deadline) = &mut self.sessions[due.index as usize];
                if !registered.take(due) {
                    continue;
                }
                match *deadline {
                    Some(at) if at <= self.now => {
                        called.push((self.now, due.index));
                        *deadline = None;
                    }
                    Some(at) => self.deadlines.register(self.now, due.index, registered, at),
                    None => {}
                }
            }
        }
    }

    const SECOND: u64 = 1_000_000;

    fn after(micros: u64) -> Time {
        Time::from_micros(micros)
    }

    #[test]
    fn each_is_called_at_its_deadline_whether_that_is_near_or_far() {
        let mut world = World::new(4);
        for (index, micros) in [25 * SECOND, 10, 3 * 3600 * SECOND, 200_000].into_iter().enumerate() {
            world.set(index, micros);
        }
        let called = world.run(after(4 * 3600 * SECOND));
        let expected = [(10, 1), (200_000, 3), (25 * SECOND, 0), (3 * 3600 * SECOND, 2)];
        assert_eq!(called, expected.map(|(micros, index)| (after(micros), index)));
    }

    #[test]
    fn a_deadline_that_is_put_off_again_and_again_takes_one_place() {
        let mut world = World::new(1);
        for _ in 0..1_000 {
            world.set(0, 25 * SECOND);
            assert_eq!(world.run(Time::from_micros(world.now.as_micros() + 1_000)), []);
        }
        assert_eq!(world.deadlines.far.iter().map(Vec::len).sum::<usize>() + world.deadlines.near.len(), 1);
    }

    #[test]
    fn when_a_crowd_has_gone_its_room_is_given_back() {
        let mut world = World::new(100_000);
        (0..100_000).for_each(|index| world.set(index, 25 * SECOND));
        assert_eq!(world.run(after(26 * SECOND)).len(), 100_000);
        world.deadlines.shrink();
        let kept = world.deadlines.far.iter().chain([&world.deadlines.opened.1]).map(Vec::capacity).sum::<usize>();
        let kept = kept + world.deadlines.near.capacity();
        let own = SLOTS as usize * SPARE_IN_SLOT;
        assert!(kept <= own + SPARE_MAX, "{kept} places");
    }

    #[test]
    fn at_the_end_of_time_deadlines_are_still_in_order() {
        let mut world = World::new(2);
        world.now = Time::from_micros(u64::MAX - 10 * SECOND);
        world.set(0, 5 * SECOND);
        world.set(1, 3 * SECOND);
        let called = world.run(Time::from_micros(u64::MAX));
        assert_eq!(called.iter().map(|(_, index)| *index).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn after_a_pause_of_any_length_whoever_is_there_is_called_if_his_deadline_has_passed_and_not_forgotten() {
        for seed in 0..500 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut world = World::new(8);
            for step in 0..100 {
                (0..8).for_each(|index| {
                    if rng.random_ratio(1, 8) {
                        // It leaves, and the next one gets its index.
                        world.sessions[index] = Default::default();
                    }
                    if world.sessions[index].1.is_none() || rng.random_ratio(1, 3) {
                        world.set(index, rng.random_range(0..60 * SECOND));
                    }
                });
                world.now = Time::from_micros(world.now.as_micros() + rng.random_range(0..50 * SECOND));
                let mut called = Vec::new();
                world.call(&mut called);
                let late = world.sessions.iter().filter(|(_, of)| of.is_some_and(|at| at <= world.now)).count();
                assert_eq!(late, 0, "seed {seed}, step {step}");
            }
            let left = world.sessions.iter().filter(|(_, of)| of.is_some()).count();
            assert_eq!(world.run(Time::from_micros(world.now.as_micros() + 60 * SECOND)).len(), left, "seed {seed}");
        }
    }

    #[test]
    fn nobody_is_called_early_late_or_twice() {
        for seed in 0..500 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut world = World::new(8);
            for step in 0..100 {
                // Many are near.
                let longest = if rng.random_ratio(1, 3) { 40 * SECOND } else { 150_000 };
                let micros = rng.random_range(0..longest);
                world.set(rng.random_range(0..8), micros);
                let until = Time::from_micros(world.now.as_micros() + rng.random_range(0..2 * SECOND));
                let due = |deadline: Option<Time>| deadline.filter(|at| *at <= until);
                let mut expected: Vec<_> =
                    (0_u32..).zip(&world.sessions).filter_map(|(index, (_, of))| Some((due(*of)?, index))).collect();
                expected.sort_unstable();
                let mut called = world.run(until);
                called.sort_unstable();
                assert_eq!(called, expected, "seed {seed}, step {step}");
            }
        }
    }
}
