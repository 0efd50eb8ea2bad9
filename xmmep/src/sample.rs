//! Example values for tests, golden vectors and fuzz seeds: any message can be made from a number.
//! Never used by a running server or client.

use crate::bounded::{Blob, List, PrivateText, Text};
use crate::types::{
    DeviceId, GroupId, MsgId, OwnerEpoch, PresenceId, RequestId, RoomId, RosterVersion, Time, UserId, WallTime,
};

/// A small reproducible source of numbers (SplitMix64). The same seed always gives the same values.
#[derive(Clone, Debug)]
pub struct Sampler(u64);

impl Sampler {
    /// Starts at `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `max`, both included.
    pub fn up_to(&mut self, max: usize) -> usize {
        let span = (max as u64).saturating_add(1).max(1);
        usize::try_from(self.next_u64().checked_rem(span).unwrap_or(0)).unwrap_or(0)
    }

    /// `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.next_u64().to_le_bytes()[0])
    }
}

/// A type with example values.
pub trait Sample: Sized {
    /// The next example.
    fn sample(sampler: &mut Sampler) -> Self;
}

macro_rules! sample_integers {
    ($($ty:ty),*) => { $(
        impl Sample for $ty {
            fn sample(sampler: &mut Sampler) -> Self {
                // Small values and the ends of the range are where encodings go wrong.
                let number = sampler.next_u64();
                match number & 0x7 {
                    0 => 0,
                    1 => <$ty>::MAX,
                    2 => 0x7f,
                    3 => 0x80,
                    _ => (number >> 8) as $ty,
                }
            }
        }
    )* };
}
sample_integers!(u8, u16, u32, u64);

macro_rules! sample_wrapped {
    ($($ty:ident),*) => { $(
        impl Sample for $ty {
            fn sample(sampler: &mut Sampler) -> Self {
                Self(Sample::sample(sampler))
            }
        }
    )* };
}
sample_wrapped!(UserId, GroupId, RoomId, OwnerEpoch, RosterVersion, MsgId, RequestId, DeviceId, WallTime);

impl Sample for bool {
    fn sample(sampler: &mut Sampler) -> Self {
        sampler.next_u64() & 1 == 1
    }
}

impl<const N: usize> Sample for [u8; N] {
    fn sample(sampler: &mut Sampler) -> Self {
        sampler.bytes()
    }
}

impl Sample for Time {
    fn sample(sampler: &mut Sampler) -> Self {
        Self::from_micros(sampler.next_u64() >> 16)
    }
}

impl Sample for PresenceId {
    fn sample(sampler: &mut Sampler) -> Self {
        Self { cluster: u16::sample(sampler).max(1), presence: u16::sample(sampler).max(1) }
    }
}

impl<T: Sample> Sample for Option<T> {
    fn sample(sampler: &mut Sampler) -> Self {
        bool::sample(sampler).then(|| T::sample(sampler))
    }
}

impl<const N: usize> Sample for Text<N> {
    fn sample(sampler: &mut Sampler) -> Self {
        const WORDS: [&str; 8] = ["", "hello", "größe", "你好", "a b", "👩‍👩‍👧", "line\nline", "\u{202e}x\u{301}"];
        let word = WORDS.get(sampler.up_to(7)).copied().unwrap_or_default();
        Self::cut(word)
    }
}

impl<const N: usize> Sample for PrivateText<N> {
    fn sample(sampler: &mut Sampler) -> Self {
        Self::new(&Text::<N>::sample(sampler)).unwrap_or_default()
    }
}

impl<const N: usize> Sample for Blob<N> {
    fn sample(sampler: &mut Sampler) -> Self {
        let bytes: [u8; 24] = sampler.bytes();
        let len = sampler.up_to(N.min(24));
        Self::new(bytes.get(..len).unwrap_or_default()).unwrap_or_default()
    }
}

impl<T: Sample, const N: usize> Sample for List<T, N> {
    fn sample(sampler: &mut Sampler) -> Self {
        let len = sampler.up_to(N.min(3));
        Self::new((0..len).map(|_| T::sample(sampler)).collect()).unwrap_or_default()
    }
}
