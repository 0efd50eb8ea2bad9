//! How often mail goes to an address because somebody asked for it, in fixed memory.

use std::time::Duration;

use xmmep::types::{RequestId, Time};

/// How often an address is written to on somebody's demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailLimits {
    /// The time between two mails.
    pub pause: Duration,
    /// Mails in 24 hours.
    pub per_day: u8,
}

impl Default for MailLimits {
    /// One in 5 minutes, 3 a day: enough for somebody who waits for a mail, too few to annoy anybody with.
    fn default() -> Self {
        Self { pause: Duration::from_secs(300), per_day: 3 }
    }
}

/// Sets of addresses remembered. 2,048 sets of 8 × 56 bytes are 896 KiB, all there is at any time.
const SETS: usize = 2_048;
/// Addresses in a set. When more come within a day, the one written to longest ago is forgotten. Which addresses share
/// a set only the holder of the key knows, so filling one on purpose takes a flood past the limits of the web pages.
const WAYS: usize = 8;
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Which addresses were written to.
pub(super) struct Addresses {
    limits: MailLimits,
    slots: Vec<Option<Slot>>,
}

#[derive(Clone, Copy)]
struct Slot {
    address: u64,
    last: Time,
    day_began: Time,
    today: u8,
    mail: RequestId,
}

impl Addresses {
    pub(super) fn new(limits: MailLimits) -> Self {
        Self { limits, slots: vec![None; SETS * WAYS] }
    }

    /// Counts a mail to an address.
    ///
    /// # Errors
    /// If that is too often: the id of the last mail that counted.
    pub(super) fn count(&mut self, now: Time, address: u64, mail: RequestId) -> Result<(), RequestId> {
        let limits = self.limits;
        let set = self.set(address);
        if let Some(slot) = set.iter_mut().flatten().find(|slot| slot.address == address) {
            if now.since(slot.day_began) >= DAY {
                (slot.day_began, slot.today) = (now, 0);
            }
            if slot.mail == mail {
                return Ok(());
            }
            if now.since(slot.last) < limits.pause || slot.today >= limits.per_day {
                return Err(slot.mail);
            }
            (slot.last, slot.today, slot.mail) = (now, slot.today + 1, mail);
            return Ok(());
        }
        let place = set.iter_mut().min_by_key(|slot| slot.map(|slot| slot.last));
        if let Some(place) = place {
            *place = Some(Slot { address, last: now, day_began: now, today: 1, mail });
        }
        Ok(())
    }

    /// Takes back a mail that was counted and not written, if it was the first that day; else it stays counted.
    pub(super) fn uncount(&mut self, address: u64, mail: RequestId) {
        for place in self.set(address) {
            if place.is_some_and(|slot| slot.address == address && slot.mail == mail && slot.today <= 1) {
                *place = None;
            }
        }
    }

    fn set(&mut self, address: u64) -> &mut [Option<Slot>] {
        let set = usize::try_from(address % (SETS as u64)).unwrap_or_default();
        &mut self.slots[set * WAYS..(set + 1) * WAYS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(300);

    fn id(number: u8) -> RequestId {
        RequestId([number; 16])
    }

    #[test]
    fn an_address_gets_one_mail_in_five_minutes_and_three_a_day() {
        let mut addresses = Addresses::new(MailLimits::default());
        let mut now = Time::ZERO;
        assert_eq!(addresses.count(now, 7, id(1)), Ok(()));
        assert_eq!(addresses.count(now.after(PAUSE - Duration::from_micros(1)), 7, id(2)), Err(id(1)));
        for number in [2, 3] {
            now = now.after(PAUSE);
            assert_eq!(addresses.count(now, 7, id(number)), Ok(()));
        }
        assert_eq!(addresses.count(now.after(PAUSE), 7, id(4)), Err(id(3)));
        assert_eq!(addresses.count(now.after(PAUSE), 8, id(4)), Ok(()), "another address is another matter");
        assert_eq!(addresses.count(Time::ZERO.after(DAY), 7, id(4)), Ok(()));
    }

    #[test]
    fn the_same_mail_counts_once() {
        let mut addresses = Addresses::new(MailLimits::default());
        for _ in 0..10 {
            assert_eq!(addresses.count(Time::ZERO, 7, id(1)), Ok(()));
        }
    }

    #[test]
    fn a_mail_not_written_does_not_count() {
        let mut addresses = Addresses::new(MailLimits::default());
        addresses.count(Time::ZERO, 7, id(1)).unwrap();
        addresses.uncount(7, id(2));
        assert_eq!(addresses.count(Time::ZERO, 7, id(2)), Err(id(1)), "another mail was taken back");
        addresses.uncount(7, id(1));
        assert_eq!(addresses.count(Time::ZERO, 7, id(2)), Ok(()));
    }

    #[test]
    fn memory_is_fixed_and_the_oldest_address_makes_way() {
        let mut addresses = Addresses::new(MailLimits::default());
        let size = addresses.slots.len();
        for number in 0..=WAYS as u64 {
            addresses.count(Time::from_micros(number), number * SETS as u64, id(1)).unwrap();
        }
        assert_eq!(addresses.slots.len(), size);
        let now = Time::from_micros(100);
        assert_eq!(addresses.count(now, SETS as u64, id(2)), Err(id(1)), "the second oldest is still known");
        assert_eq!(addresses.count(now, 0, id(2)), Ok(()), "the oldest was forgotten");
        assert!(size_of::<Option<Slot>>() <= 56);
    }
}
