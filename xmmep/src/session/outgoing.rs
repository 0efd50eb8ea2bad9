//! Messages on their way out: queue, fragments, acknowledgement, retransmission. How fast is decided in `pace.rs`,
//! the other end is `incoming.rs`.

use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;

use super::chunk::{self, Ack, DATA_HEADER, Data, FIRST, LAST};
use super::pace::{Pace, WINDOW_MAX};
use super::{FRAGMENT_MAX, Limits, SendError, Violation};
use crate::block;
use crate::types::Time;

/// What each queued message counts on top of its bytes, so that empty ones do not come for free.
pub const MESSAGE_OVERHEAD: usize = 64;

/// Later transmissions acknowledged before a fragment counts as lost (RFC 5681's three).
const LATER_ACKS: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be sent, for the first time or again.
    Due,
    UnderWay,
    Acknowledged,
}

struct Fragment {
    bytes: Bytes,
    sent_at: Time,
    /// The number of the datagram it was last in.
    order: u32,
    flags: u8,
    state: State,
    tries: u8,
    /// Fragments acknowledged that were sent after this one.
    later: u8,
}

/// The messages that are not acknowledged yet.
#[derive(Default)]
pub(super) struct Outgoing {
    waiting: VecDeque<Bytes>,
    /// The first waiting message is the rest of one whose beginning was cut off.
    cut: bool,
    /// Consecutive fragments from [`Pace::base`] on; at most [`WINDOW_MAX`].
    flight: VecDeque<Fragment>,
    under_way: usize,
    due: usize,
    /// What the caps count: bytes and overhead of all messages not acknowledged.
    charged: usize,
    order: u32,
    /// Fragments sent before this order were lost together with one that halved the window already.
    recovered: u32,
    timer: Option<Time>,
}

impl Outgoing {
    /// Takes a message into the queue.
    pub(super) fn push(&mut self, mut message: Bytes, limits: &Limits) -> Result<(), SendError> {
        if message.len() > limits.message_max {
            return Err(SendError::TooLarge);
        }
        let charged = self.charged + message.len() + MESSAGE_OVERHEAD;
        if charged > limits.queue_max {
            return Err(SendError::Full);
        }
        self.charged = charged;
        // Behind more than a window it waits for long, however diligently the peer acknowledges.
        if self.flight.len() + self.waiting.len() >= usize::from(WINDOW_MAX) {
            block::keep(&mut message);
        }
        if self.waiting.is_empty() && self.flight.len() < usize::from(WINDOW_MAX) && message.len() <= FRAGMENT_MAX {
            self.add(message, FIRST | LAST);
        } else {
            self.waiting.push_back(message);
        }
        Ok(())
    }

    /// Bytes not acknowledged, [`MESSAGE_OVERHEAD`] per message included.
    pub(super) fn charged(&self) -> usize {
        self.charged
    }

    pub(super) fn is_drained(&self) -> bool {
        self.waiting.is_empty() && self.flight.is_empty()
    }

    /// Whether [`Outgoing::write`] has something to write.
    pub(super) fn is_ready(&self, pace: &Pace) -> bool {
        self.under_way < pace.window() && (self.due > 0 || self.can_cut())
    }

    fn can_cut(&self) -> bool {
        !self.waiting.is_empty() && self.flight.len() < usize::from(WINDOW_MAX)
    }

    /// When to call [`Outgoing::on_timeout`].
    pub(super) fn timer(&self) -> Option<Time> {
        self.timer
    }

    /// Appends DATA chunks to `out` as long as window and `limit` (of `out.len()`) allow. Returns how many of them
    /// were sent before.
    pub(super) fn write(&mut self, now: Time, pace: &Pace, limit: usize, out: &mut Vec<u8>) -> u32 {
        let mut again = 0;
        let mut wrote = false;
        while self.is_ready(pace) {
            if self.due == 0 {
                self.cut();
            }
            let due = self.flight.iter_mut().zip(0_u32..).find(|(fragment, _)| fragment.state == State::Due);
            let (fragment, place) = due.expect("counted in `due`");
            let number = pace.base.wrapping_add(place);
            if out.len() + DATA_HEADER + fragment.bytes.len() > limit {
                break;
            }
            chunk::put_data(out, Data { number, flags: fragment.flags, bytes: &fragment.bytes });
            again += u32::from(fragment.tries > 0);
            fragment.state = State::UnderWay;
            fragment.sent_at = now;
            fragment.order = self.order;
            fragment.later = 0;
            fragment.tries = fragment.tries.saturating_add(1);
            self.due -= 1;
            self.under_way += 1;
            wrote = true;
        }
        if wrote {
            self.order = self.order.wrapping_add(1);
            self.timer = self.timer.or_else(|| Some(now.after(pace.timeout())));
        }
        again
    }

    /// Cuts the next fragment off the first waiting message.
    fn cut(&mut self) {
        let Some(mut bytes) = self.waiting.pop_front() else { return };
        let mut flags = if self.cut { 0 } else { FIRST };
        if bytes.len() > FRAGMENT_MAX {
            self.waiting.push_front(bytes.split_off(FRAGMENT_MAX));
            self.cut = true;
        } else {
            flags |= LAST;
            self.cut = false;
        }
        self.add(bytes, flags);
    }

    /// Adds a fragment to those that may be sent.
    fn add(&mut self, bytes: Bytes, flags: u8) {
        let (sent_at, state) = (Time::ZERO, State::Due);
        self.flight.push_back(Fragment { bytes, sent_at, order: 0, flags, state, tries: 0, later: 0 });
        self.due += 1;
    }

    /// Takes in an acknowledgement. One that is older than another has its say too; one for what was never sent is
    /// a violation.
    pub(super) fn on_ack(&mut self, now: Time, pace: &mut Pace, ack: Ack) -> Result<(), Violation> {
        let next = i64::from(ack.next.wrapping_sub(pace.base) as i32);
        let sent = self.flight.iter().take_while(|fragment| fragment.tries > 0).count() as i64;
        let highest_bit = 63 - i64::from(ack.beyond.leading_zeros());
        if next > sent || (ack.beyond != 0 && next + 1 + highest_bit >= sent) {
            return Err(Violation::AckOfNothing);
        }
        let window_used = self.under_way + 1 >= pace.window();
        let mut orders = [0; WINDOW_MAX as usize];
        let mut arrived = 0;
        let mut newest: Option<(u32, Time)> = None;
        let mut progress = false;
        for (index, fragment) in (0_i64..).zip(self.flight.iter_mut()) {
            let bit = index - next - 1;
            let acknowledged = index < next || ((0..64).contains(&bit) && ack.beyond >> bit & 1 == 1);
            if !acknowledged || fragment.state == State::Acknowledged {
                continue;
            }
            match fragment.state {
                State::UnderWay => self.under_way -= 1,
                _ => self.due -= 1,
            }
            fragment.state = State::Acknowledged;
            progress = true;
            pace.acknowledged(window_used);
            if fragment.tries == 1 {
                orders[arrived] = fragment.order;
                arrived += 1;
                if newest.is_none_or(|(order, _)| is_later(fragment.order, order)) {
                    newest = Some((fragment.order, fragment.sent_at));
                }
            }
        }
        if !progress {
            return Ok(());
        }
        if let Some((_, sent_at)) = newest {
            pace.measured(now.since(sent_at));
        }
        self.find_lost(pace, &orders[..arrived]);
        self.forget_acknowledged(pace);
        self.timer = (self.under_way > 0).then(|| now.after(pace.timeout()));
        Ok(())
    }

    /// Marks fragments as lost after three that were sent later, and only once, have arrived.
    fn find_lost(&mut self, pace: &mut Pace, orders: &[u32]) {
        let mut halve = false;
        for fragment in self.flight.iter_mut().filter(|fragment| fragment.state == State::UnderWay) {
            let later = orders.iter().filter(|order| is_later(**order, fragment.order)).count();
            fragment.later = fragment.later.saturating_add(later as u8);
            if fragment.later >= LATER_ACKS {
                fragment.state = State::Due;
                self.under_way -= 1;
                self.due += 1;
                halve |= !is_later(self.recovered, fragment.order);
            }
        }
        if halve {
            pace.lost();
            self.recovered = self.order;
        }
    }

    fn forget_acknowledged(&mut self, pace: &mut Pace) {
        while let Some(first) = self.flight.front() {
            if first.state != State::Acknowledged {
                break;
            }
            self.charged -= first.bytes.len();
            if first.flags & LAST != 0 {
                self.charged -= MESSAGE_OVERHEAD;
            }
            self.flight.pop_front();
            pace.base = pace.base.wrapping_add(1);
        }
        if self.flight.is_empty() {
            // The next one starts at the front again, which is still in the processor's cache.
            self.flight.clear();
        }
    }

    /// Nothing came back in time: all that is under way goes again. Says whether the peer counts as gone.
    pub(super) fn on_timeout(&mut self, pace: &mut Pace) -> bool {
        self.send_all_again();
        self.settle_down();
        pace.timed_out()
    }

    /// The peer may be slow, or gone: what is here stays for a while.
    fn settle_down(&mut self) {
        // Those tried more often were moved the last time.
        let not_yet = self.flight.iter_mut().filter(|fragment| fragment.tries <= 1);
        not_yet.for_each(|fragment| block::keep(&mut fragment.bytes));
        self.waiting.iter_mut().take(WINDOW_MAX.into()).for_each(block::keep);
    }

    /// Everything under way was sent on a path that is no more.
    pub(super) fn send_all_again(&mut self) {
        for fragment in self.flight.iter_mut().filter(|fragment| fragment.state == State::UnderWay) {
            fragment.state = State::Due;
            fragment.later = 0;
            self.due += 1;
        }
        self.under_way = 0;
        self.timer = None;
        self.recovered = self.order;
    }
}

fn is_later(order: u32, than: u32) -> bool {
    order.wrapping_sub(than) as i32 > 0
}

/// How long a session that has nothing under way keeps its buffers.
pub(super) const BUFFERS_KEPT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    /// A sender with `count` messages of one full fragment each.
    fn sender(count: u8) -> (Outgoing, Pace) {
        let mut outgoing = Outgoing::default();
        for number in 0..count {
            outgoing.push(Bytes::from(vec![number; FRAGMENT_MAX]), &Limits::MEMBER).unwrap();
        }
        (outgoing, Pace::new())
    }

    /// Sends what may be sent, one fragment a datagram; says which.
    fn send(outgoing: &mut Outgoing, pace: &Pace, now: Time) -> Vec<u8> {
        let mut numbers = Vec::new();
        let mut out = Vec::new();
        loop {
            outgoing.write(now, pace, DATA_HEADER + FRAGMENT_MAX, &mut out);
            let Some(number) = out.last() else { return numbers };
            numbers.push(*number);
            out.clear();
        }
    }

    fn ack(outgoing: &mut Outgoing, pace: &mut Pace, now: Time, next: u32, beyond: u64) {
        outgoing.on_ack(now, pace, Ack { next, beyond, epoch_low: 0 }).unwrap();
    }

    #[test]
    fn ten_fragments_leave_before_the_first_acknowledgement_and_two_more_for_each_one_acknowledged() {
        let (mut outgoing, mut pace) = sender(30);
        assert_eq!(send(&mut outgoing, &pace, at(0)), (0..10).collect::<Vec<_>>());
        ack(&mut outgoing, &mut pace, at(50), 2, 0);
        assert_eq!(send(&mut outgoing, &pace, at(50)), [10, 11, 12, 13]);
        assert_eq!(pace.rtt(), Some(Duration::from_millis(50)));
    }

    #[test]
    fn never_more_than_64_fragments_are_unacknowledged() {
        let (mut outgoing, mut pace) = sender(60);
        for number in 60..200 {
            let _ = outgoing.push(Bytes::from(vec![number]), &Limits { queue_max: usize::MAX, ..Limits::MEMBER });
        }
        for next in 1..40 {
            send(&mut outgoing, &pace, at(0));
            ack(&mut outgoing, &mut pace, at(1), next, 0);
        }
        send(&mut outgoing, &pace, at(1));
        assert_eq!((outgoing.flight.len(), outgoing.under_way, pace.window()), (49, 49, 49));
        for next in 40..100 {
            ack(&mut outgoing, &mut pace, at(1), next, 0);
            send(&mut outgoing, &pace, at(1));
            assert!(outgoing.flight.len() <= 64);
        }
    }

    #[test]
    fn a_fragment_is_lost_when_three_later_ones_have_arrived_and_all_of_a_round_halve_the_window_once() {
        let (mut outgoing, mut pace) = sender(20);
        send(&mut outgoing, &pace, at(0));
        ack(&mut outgoing, &mut pace, at(10), 0, 0b1_1000);
        assert!(send(&mut outgoing, &pace, at(10)).iter().all(|number| *number >= 10), "two later ones: reordered");
        let before = pace.window();
        ack(&mut outgoing, &mut pace, at(11), 0, 0b11_1000);
        let halved = pace.window();
        assert!(halved <= before / 2 + 1, "{before} became {halved}");
        for beyond in [0b111_1000, 0b1111_1000, 0b1_1111_1000] {
            ack(&mut outgoing, &mut pace, at(12), 0, beyond);
            assert_eq!(pace.window(), halved, "all that was lost belongs to one round");
        }
        assert_eq!(send(&mut outgoing, &pace, at(13))[..2], [0, 1], "lost ones go before new ones");
    }

    #[test]
    fn a_timeout_sends_everything_again_in_order_and_starts_from_a_small_window() {
        let (mut outgoing, mut pace) = sender(5);
        send(&mut outgoing, &pace, at(0));
        assert_eq!(outgoing.timer(), Some(at(1_000)));
        ack(&mut outgoing, &mut pace, at(100), 0, 0b10);
        assert!(!outgoing.on_timeout(&mut pace));
        assert_eq!(send(&mut outgoing, &pace, at(2_000)), [0, 1]);
        ack(&mut outgoing, &mut pace, at(2_100), 3, 0);
        assert_eq!(send(&mut outgoing, &pace, at(2_100)), [3, 4]);
        ack(&mut outgoing, &mut pace, at(2_200), 5, 0);
        assert!(outgoing.is_drained() && outgoing.charged() == 0 && outgoing.timer().is_none());
    }

    #[test]
    fn what_a_slow_peer_leaves_waiting_moves_out_of_the_memory_it_shares_with_others() {
        let (mut outgoing, mut pace) = (Outgoing::default(), Pace::new());
        let pieces: Vec<_> = (0..200).map(|number| block::piece(&[number; 10])).collect();
        for piece in &pieces {
            outgoing.push(piece.clone(), &Limits::MEMBER).unwrap();
        }
        let shared = |outgoing: &Outgoing| {
            let all = outgoing.flight.iter().map(|fragment| &fragment.bytes).chain(&outgoing.waiting);
            all.filter(|bytes| pieces.iter().any(|piece| piece.as_ptr() == bytes.as_ptr())).count()
        };
        send(&mut outgoing, &pace, at(0));
        assert_eq!(shared(&outgoing), usize::from(WINDOW_MAX), "the others have too many before them");
        outgoing.on_timeout(&mut pace);
        assert_eq!(shared(&outgoing), 0);
    }

    #[test]
    fn a_fragment_sent_twice_says_nothing_about_the_round_trip() {
        let (mut outgoing, mut pace) = sender(1);
        send(&mut outgoing, &pace, at(0));
        outgoing.on_timeout(&mut pace);
        send(&mut outgoing, &pace, at(1_000));
        ack(&mut outgoing, &mut pace, at(1_001), 1, 0);
        assert_eq!(pace.rtt(), None);
    }

    #[test]
    fn fragment_numbers_wrap_around() {
        let (mut outgoing, mut pace) = sender(6);
        pace.base = u32::MAX - 2;
        assert_eq!(send(&mut outgoing, &pace, at(0)), [0, 1, 2, 3, 4, 5]);
        ack(&mut outgoing, &mut pace, at(1), u32::MAX, 0b101);
        ack(&mut outgoing, &mut pace, at(2), 1, 0b1);
        assert_eq!((pace.base, outgoing.under_way), (1, 1));
        ack(&mut outgoing, &mut pace, at(3), u32::MAX - 10, 0b11);
        ack(&mut outgoing, &mut pace, at(3), 3, 0);
        assert!(outgoing.is_drained() && outgoing.charged() == 0);
    }

    #[test]
    fn a_message_is_cut_into_slices_of_itself() {
        let mut outgoing = Outgoing::default();
        let message = Bytes::from((0..2_500_u32).map(|index| index as u8).collect::<Vec<_>>());
        outgoing.push(message.clone(), &Limits::MEMBER).unwrap();
        send(&mut outgoing, &Pace::new(), at(0));
        let pieces: Vec<_> = outgoing.flight.iter().map(|fragment| (fragment.bytes.len(), fragment.flags)).collect();
        assert_eq!(pieces, [(1_024, FIRST), (1_024, 0), (452, LAST)]);
        assert_eq!(outgoing.flight[1].bytes.as_ptr(), message[1_024..].as_ptr(), "nothing is copied");
    }
}
