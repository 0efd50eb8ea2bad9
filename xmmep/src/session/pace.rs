//! How fast to send: round-trip time (RFC 6298) and congestion window (RFC 8085 asks for one; ours halves and creeps
//! like RFC 5681). Counts in fragments. Which fragments are lost is decided in `outgoing.rs`.

use core::time::Duration;

/// The congestion window of a new path, in fragments (RFC 6928).
pub const WINDOW_INITIAL: u8 = 10;

/// The largest congestion window, in fragments: what the selective acknowledgement can describe.
pub const WINDOW_MAX: u8 = 64;

/// The window after a timeout. Two, not one, so that the second fragment's acknowledgement shows whether the first
/// got lost again.
const WINDOW_MIN: u8 = 2;

/// Retransmission timeout before the first round trip was measured.
pub const RTO_INITIAL: Duration = Duration::from_secs(1);

/// Least retransmission timeout: eight times the longest delay of an acknowledgement. RFC 6298 says one second; 200 ms
/// is what TCP stacks have used for decades.
pub const RTO_MIN: Duration = Duration::from_millis(200);

/// Largest retransmission timeout, back-off included. RFC 6298 allows a ceiling of no less than 60 s; a chat that was
/// cut off must notice within seconds that the way is clear again, and one small datagram in 8 s congests nothing.
pub const RTO_MAX: Duration = Duration::from_secs(8);

/// Timeouts in a row after which the peer counts as gone.
pub const TIMEOUTS_MAX: u8 = 14;

/// The pace of one direction. Kept while nothing is under way, so it is small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Number of the first fragment not acknowledged.
    pub(super) base: u32,
    /// Smoothed round-trip time in microseconds; 0: not measured.
    srtt: u32,
    rttvar: u32,
    window: u8,
    threshold: u8,
    /// Fragments acknowledged towards the next step of the window.
    grown: u8,
    backoff: u8,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { base: 0, srtt: 0, rttvar: 0, window: WINDOW_INITIAL, threshold: WINDOW_MAX, grown: 0, backoff: 0 }
    }

    /// Fragments that may be under way.
    pub(super) fn window(&self) -> usize {
        self.window.into()
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        (self.srtt > 0).then(|| Duration::from_micros(self.srtt.into()))
    }

    /// When to give up on an acknowledgement, counted from sending.
    pub(super) fn timeout(&self) -> Duration {
        let first = match self.rtt() {
            None => RTO_INITIAL,
            Some(rtt) => (rtt + Duration::from_micros(u64::from(self.rttvar) * 4)).max(RTO_MIN),
        };
        (first * (1 << self.backoff.min(6))).min(RTO_MAX)
    }

    /// Takes in a round trip of a fragment that was sent once (Karn).
    pub(super) fn measured(&mut self, round_trip: Duration) {
        let sample = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX).clamp(1, 60_000_000);
        if self.srtt == 0 {
            self.srtt = sample;
            self.rttvar = sample / 2;
        } else {
            self.rttvar = self.rttvar - self.rttvar / 4 + self.srtt.abs_diff(sample) / 4;
            self.srtt = self.srtt - self.srtt / 8 + sample / 8;
        }
        self.srtt = self.srtt.max(1);
    }

    /// Takes in that one more fragment arrived. `window_used`: the window was what held us back.
    pub(super) fn acknowledged(&mut self, window_used: bool) {
        self.backoff = 0;
        if !window_used || self.window >= WINDOW_MAX {
            return;
        }
        if self.window < self.threshold {
            self.window += 1;
            return;
        }
        self.grown += 1;
        if self.grown >= self.window {
            self.grown = 0;
            self.window += 1;
        }
    }

    /// Halves the window; called once for all losses of one round trip.
    pub(super) fn lost(&mut self) {
        self.threshold = (self.window / 2).max(WINDOW_MIN);
        self.window = self.threshold;
        self.grown = 0;
    }

    /// Nothing was acknowledged in time. Says whether that happened too often.
    pub(super) fn timed_out(&mut self) -> bool {
        if self.backoff == 0 {
            self.threshold = (self.window / 2).max(WINDOW_MIN);
        }
        self.window = WINDOW_MIN;
        self.grown = 0;
        self.backoff += 1;
        self.backoff >= TIMEOUTS_MAX
    }

    /// Forgets what was learnt of the path, because there is a new one.
    pub(super) fn new_path(&mut self) {
        *self = Self { base: self.base, ..Self::new() };
    }

    /// Forgets a window larger than the initial one, because it was not used for a while.
    pub(super) fn idle(&mut self) {
        self.window = self.window.min(WINDOW_INITIAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_rfc_6298_between_floor_and_ceiling() {
        let mut pace = Pace::new();
        assert_eq!(pace.timeout(), RTO_INITIAL);
        pace.measured(Duration::from_millis(400));
        assert_eq!(pace.timeout(), Duration::from_millis(400 + 4 * 200));
        for _ in 0..100 {
            pace.measured(Duration::from_millis(1));
        }
        assert_eq!(pace.timeout(), RTO_MIN);
        pace.measured(Duration::from_secs(1_000_000));
        assert_eq!(pace.timeout(), RTO_MAX);
    }

    #[test]
    fn timeouts_back_off_and_fourteen_in_a_row_are_too_many() {
        let mut pace = Pace::new();
        let timeouts: Vec<_> = (0..5)
            .map(|_| {
                pace.timed_out();
                pace.timeout().as_secs()
            })
            .collect();
        assert_eq!(timeouts, [2, 4, 8, 8, 8]);
        let more = (0..).take_while(|_| !pace.timed_out()).count();
        assert_eq!(more + 1, usize::from(TIMEOUTS_MAX) - 5);
        pace.acknowledged(true);
        assert_eq!(pace.timeout(), RTO_INITIAL);
    }

    #[test]
    fn the_window_starts_at_ten_halves_on_loss_and_stays_within_64() {
        let mut pace = Pace::new();
        (0..1_000).for_each(|_| pace.acknowledged(false));
        assert_eq!(pace.window(), 10);
        (0..1_000).for_each(|_| pace.acknowledged(true));
        assert_eq!(pace.window(), 64);
        pace.lost();
        assert_eq!(pace.window(), 32);
        (0..32).for_each(|_| pace.acknowledged(true));
        assert_eq!(pace.window(), 33);
        (0..10).for_each(|_| pace.lost());
        assert_eq!(pace.window(), 2);
    }
}
