//! Messages on their way in: order, reassembly, what is acknowledged. The other end is `outgoing.rs`.

use bytes::Bytes;

use super::chunk::{Data, FIRST, LAST};
use super::{Event, FRAGMENT_MAX, FRAGMENTS_PER_MESSAGE, Limits, Violation};
use crate::block;

/// A fragment that arrived before its time.
struct Ahead {
    number: u32,
    flags: u8,
    bytes: Bytes,
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The one we were waiting for, and nothing waits behind it.
    InOrder,
    /// Kept for later, or filled a gap, or known already, or refused for lack of room: the sender should hear of it
    /// at once.
    Irregular,
}

/// Fragments of messages that are not complete.
#[derive(Default)]
pub(super) struct Incoming {
    /// The message being put together, if `pieces` is not 0.
    message: Vec<u8>,
    pieces: usize,
    /// At most [`Limits::ahead_max`], in no order.
    ahead: Vec<Ahead>,
}

impl Incoming {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces == 0 && self.ahead.is_empty()
    }

    /// Fragments beyond `next` that arrived, as in [`super::chunk::Ack::beyond`].
    pub(super) fn beyond(&self, next: u32) -> u64 {
        self.ahead.iter().fold(0, |bits, ahead| bits | 1_u64.wrapping_shl(ahead.number.wrapping_sub(next) - 1))
    }

    /// Takes in a fragment; messages it completes go to `events`, in order.
    ///
    /// A fragment already delivered is ignored, whatever it says now; one that contradicts another we still hold,
    /// or does not fit the message under construction, is a violation.
    pub(super) fn take(
        &mut self,
        next: &mut u32,
        limits: &Limits,
        data: Data<'_>,
        events: &mut Vec<Event>,
    ) -> Result<Arrival, Violation> {
        if data.bytes.len() > FRAGMENT_MAX {
            return Err(Violation::TooLarge);
        }
        let distance = data.number.wrapping_sub(*next) as i32;
        if distance < 0 || distance as usize > limits.ahead_max {
            return Ok(Arrival::Irregular);
        }
        if distance > 0 {
            return self.keep(data).map(|()| Arrival::Irregular);
        }
        self.append(limits, data, events)?;
        *next = next.wrapping_add(1);
        if self.ahead.is_empty() {
            return Ok(Arrival::InOrder);
        }
        while let Some(place) = self.ahead.iter().position(|ahead| ahead.number == *next) {
            let ahead = self.ahead.swap_remove(place);
            let data = Data { number: ahead.number, flags: ahead.flags, bytes: &ahead.bytes };
            self.append(limits, data, events)?;
            *next = next.wrapping_add(1);
        }
        Ok(Arrival::Irregular)
    }

    fn keep(&mut self, data: Data<'_>) -> Result<(), Violation> {
        match self.ahead.iter().find(|ahead| ahead.number == data.number) {
            Some(known) if known.flags == data.flags && known.bytes == data.bytes => Ok(()),
            Some(_) => Err(Violation::Contradiction),
            None => {
                let bytes = Bytes::copy_from_slice(data.bytes);
                self.ahead.push(Ahead { number: data.number, flags: data.flags, bytes });
                Ok(())
            }
        }
    }

    fn append(&mut self, limits: &Limits, data: Data<'_>, events: &mut Vec<Event>) -> Result<(), Violation> {
        let first = data.flags & FIRST != 0;
        if first != (self.pieces == 0) {
            return Err(Violation::Contradiction);
        }
        if self.pieces == FRAGMENTS_PER_MESSAGE || self.message.len() + data.bytes.len() > limits.message_max {
            return Err(Violation::TooLarge);
        }
        let last = data.flags & LAST != 0;
        if first && last {
            events.push(Event::Message(block::piece(data.bytes)));
            return Ok(());
        }
        self.message.reserve_exact(data.bytes.len());
        self.message.extend_from_slice(data.bytes);
        self.pieces += 1;
        if last {
            self.pieces = 0;
            events.push(Event::Message(Bytes::from(core::mem::take(&mut self.message))));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits::MEMBER;

    fn data(number: u32, flags: u8, bytes: &[u8]) -> Data<'_> {
        Data { number, flags, bytes }
    }

    fn take_all(incoming: &mut Incoming, next: &mut u32, all: &[Data<'_>]) -> Result<Vec<Event>, Violation> {
        let mut events = Vec::new();
        for data in all {
            incoming.take(next, &LIMITS, *data, &mut events)?;
        }
        Ok(events)
    }

    fn message(bytes: &'static [u8]) -> Event {
        Event::Message(Bytes::from_static(bytes))
    }

    #[test]
    fn fragments_in_any_order_make_the_messages_in_the_right_order() {
        let fragments =
            [data(9, FIRST, b"one "), data(10, 0, b"and "), data(11, LAST, b"half"), data(12, FIRST | LAST, b"two")];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
            let (mut incoming, mut next) = (Incoming::default(), 9);
            let shuffled = order.map(|index: usize| fragments[index]);
            let events = take_all(&mut incoming, &mut next, &shuffled).unwrap();
            assert_eq!(events, [message(b"one and half"), message(b"two")]);
            assert!(incoming.is_empty() && next == 13);
        }
    }

    #[test]
    fn numbers_wrap_around() {
        let (mut incoming, mut next) = (Incoming::default(), u32::MAX);
        let fragments = [data(0, FIRST | LAST, b"b"), data(u32::MAX, FIRST | LAST, b"a")];
        let events = take_all(&mut incoming, &mut next, &fragments).unwrap();
        assert_eq!((events, next), (vec![message(b"a"), message(b"b")], 1));
    }

    #[test]
    fn what_is_beyond_the_first_gap_is_told() {
        let (mut incoming, mut next) = (Incoming::default(), 0);
        let fragments = [data(1, FIRST, b"x"), data(3, FIRST, b"x"), data(64, FIRST, b"x")];
        take_all(&mut incoming, &mut next, &fragments).unwrap();
        assert_eq!(incoming.beyond(next), 0b101 | 1 << 63);
    }

    #[test]
    fn a_repeated_fragment_changes_nothing_but_one_with_other_content_is_a_violation() {
        let (mut incoming, mut next) = (Incoming::default(), 0);
        let same = [data(1, LAST, b"x"), data(1, LAST, b"x")];
        assert_eq!(take_all(&mut incoming, &mut next, &same), Ok(vec![]));
        for other in [data(1, LAST, b"y"), data(1, LAST, b"xx"), data(1, 0, b"x")] {
            assert_eq!(take_all(&mut incoming, &mut next, &[other]), Err(Violation::Contradiction));
        }
    }

    #[test]
    fn a_delivered_fragment_is_not_looked_at_again() {
        let (mut incoming, mut next) = (Incoming::default(), 0);
        let twice = [data(0, FIRST | LAST, b"x"), data(0, FIRST | LAST, b"other")];
        assert_eq!(take_all(&mut incoming, &mut next, &twice), Ok(vec![message(b"x")]));
    }

    #[test]
    fn a_message_without_its_first_or_with_two_first_fragments_is_a_violation() {
        let (mut incoming, mut next) = (Incoming::default(), 0);
        let headless = take_all(&mut incoming, &mut next, &[data(0, LAST, b"x")]);
        assert_eq!(headless, Err(Violation::Contradiction));
        let (mut incoming, mut next) = (Incoming::default(), 0);
        let two = take_all(&mut incoming, &mut next, &[data(0, FIRST, b"x"), data(1, FIRST | LAST, b"x")]);
        assert_eq!(two, Err(Violation::Contradiction));
    }

    #[test]
    fn a_message_of_seventeen_fragments_is_a_violation_even_if_they_are_empty() {
        let (mut incoming, mut next) = (Incoming::default(), 0);
        let many = (0..65_535).map(|number| data(number, if number == 0 { FIRST } else { 0 }, b""));
        let mut events = Vec::new();
        let taken: Vec<_> = many.map_while(|data| incoming.take(&mut next, &LIMITS, data, &mut events).ok()).collect();
        assert_eq!((taken.len(), events.len()), (FRAGMENTS_PER_MESSAGE, 0));
    }

    #[test]
    fn a_message_or_fragment_over_the_limit_is_a_violation() {
        let (mut incoming, mut next) = (Incoming::default(), 0);
        let long = [0; FRAGMENT_MAX + 1];
        let too_long = take_all(&mut incoming, &mut next, &[data(0, FIRST | LAST, &long)]);
        assert_eq!(too_long, Err(Violation::TooLarge));
        let full = [0; FRAGMENT_MAX];
        let mut events = Vec::new();
        let limits = Limits::STRANGER;
        let fits = (0..4).all(|number| {
            let flags = if number == 0 { FIRST } else { 0 };
            incoming.take(&mut next, &limits, data(number, flags, &full), &mut events).is_ok()
        });
        assert!(fits);
        assert_eq!(incoming.take(&mut next, &limits, data(4, LAST, b"x"), &mut events), Err(Violation::TooLarge));
    }

    #[test]
    fn no_flood_of_fragments_makes_us_hold_more_than_the_cap() {
        let (mut incoming, mut next) = (Incoming::default(), 0);
        let mut events = Vec::new();
        for number in 1..100_000 {
            incoming.take(&mut next, &LIMITS, data(number, FIRST, &[1; FRAGMENT_MAX]), &mut events).unwrap();
        }
        assert_eq!((incoming.ahead.len(), incoming.message.len(), events.len()), (LIMITS.ahead_max, 0, 0));
    }
}
