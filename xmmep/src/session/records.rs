//! Records: keys and their epochs, counters, the replay window. What the plaintext means lives in `chunk.rs`.

use core::time::Duration;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Rejected;
use super::aead::{self, KEY};
use super::wire::{RECORD, RECORD_HEADER, TAG};
use crate::types::Time;

/// How far behind the newest counter a record may arrive.
pub const REPLAY_WINDOW: u64 = 1_024;

/// How long records of the last key epoch are still read after the first one of the next.
pub const PREVIOUS_KEY_AGE_MAX: Duration = Duration::from_secs(60);

/// Counters from here on are refused by both sides, so that none ever wraps; 2^62 records take longer than anybody has.
const COUNTER_END: u64 = 1 << 62;

/// A record key, wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Key(pub(super) [u8; KEY]);

impl Key {
    /// The key of the next epoch: Noise's REKEY, the first 32 bytes of encrypting 32 zeros with nonce 2^64−1.
    fn next(&self) -> Self {
        let mut next = Self([0; 32]);
        aead::seal(&self.0, u64::MAX, &[], &mut next.0);
        next
    }
}

/// The sending half: seals, counts, moves from epoch to epoch.
pub(super) struct SendKeys {
    key: Key,
    /// At most 2^32: with 2^20 records each, longer than anybody has.
    epoch: u32,
    /// The counter of the next record; only grows.
    counter: u64,
    epoch_began: Time,
    /// Whether the peer said that it read something of this epoch.
    confirmed: bool,
}

/// No counter is left in this epoch, and the peer has not confirmed it.
#[derive(Debug)]
pub(super) struct EpochUsedUp;

impl SendKeys {
    pub(super) fn new(key: Key, now: Time) -> Self {
        Self { key, epoch: 0, counter: 0, epoch_began: now, confirmed: false }
    }

    /// Records sealed so far, plus the counters skipped at changes of epoch.
    pub(super) fn counter(&self) -> u64 {
        self.counter
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.into()
    }

    /// Takes in that the peer's newest record is of the epoch whose low byte this is.
    pub(super) fn confirm(&mut self, epoch_low: u8) {
        self.confirmed |= epoch_low == self.epoch.to_le_bytes()[0];
    }

    /// Makes sure the next record may be sealed, moving to the next epoch if this one is full or too old.
    pub(super) fn prepare(&mut self, now: Time, epoch_bits: u8, epoch_age: Duration) -> Result<(), EpochUsedUp> {
        let end = (self.epoch() + 1) << epoch_bits;
        let full = self.counter >= end;
        if self.confirmed && (full || now.since(self.epoch_began) >= epoch_age) {
            self.epoch = self.epoch.checked_add(1).ok_or(EpochUsedUp)?;
            self.key = self.key.next();
            self.counter = end;
            self.epoch_began = now;
            self.confirmed = false;
        } else if full {
            return Err(EpochUsedUp);
        }
        if self.counter < COUNTER_END { Ok(()) } else { Err(EpochUsedUp) }
    }

    /// Whether the peer must be asked for a confirmation of this epoch: with its first record, and with every
    /// record of its second half.
    pub(super) fn wants_confirmation(&self, epoch_bits: u8) -> bool {
        let used = self.counter & ((1 << epoch_bits) - 1);
        !self.confirmed && (used == 0 || used >= 1 << (epoch_bits - 1))
    }

    /// Seals `out`, which holds [`RECORD_HEADER`] bytes of anything and the plaintext. Only after
    /// [`SendKeys::prepare`].
    pub(super) fn seal(&mut self, receiver_index: u32, out: &mut Vec<u8>) {
        let (header, plain) = out.split_at_mut(RECORD_HEADER);
        header[0] = RECORD;
        header[1..5].copy_from_slice(&receiver_index.to_be_bytes());
        header[5..].copy_from_slice(&self.counter.to_be_bytes());
        let tag = aead::seal(&self.key.0, self.counter, header, plain);
        out.extend_from_slice(&tag);
        self.counter += 1;
    }
}

/// The receiving half.
pub(super) struct ReceiveKeys {
    key: Key,
    epoch: u64,
    window: Window,
    previous: Option<Box<Previous>>,
}

/// What is kept of the last epoch for its stragglers.
struct Previous {
    key: Key,
    window: Window,
    until: Time,
}

/// An authenticated record.
#[derive(Debug)]
pub(super) struct OpenedRecord {
    /// Whether its counter is the highest so far.
    pub(super) newest: bool,
    /// Whether it is the first record of its epoch that arrived.
    pub(super) new_epoch: bool,
}

impl ReceiveKeys {
    pub(super) fn new(key: Key) -> Self {
        Self { key, epoch: 0, window: Window::new(0), previous: None }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The lowest counter higher than all seen.
    pub(super) fn next_counter(&self) -> u64 {
        self.window.next
    }

    /// Decrypts the record in place; its plaintext is then between header and tag.
    ///
    /// Changes nothing here unless the record is authentic and new. What `datagram` holds after an error is of no use.
    pub(super) fn open(&mut self, now: Time, epoch_bits: u8, datagram: &mut [u8]) -> Result<OpenedRecord, Rejected> {
        let Some((header, sealed)) = datagram.split_at_mut_checked(RECORD_HEADER) else {
            return Err(Rejected::Malformed);
        };
        if sealed.len() < TAG {
            return Err(Rejected::Malformed);
        }
        let counter = header.last_chunk().map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
        if counter >= COUNTER_END {
            return Err(Rejected::Epoch);
        }
        let mut decrypt = |key: &Key| aead::open(&key.0, counter, header, sealed).map_err(|_| Rejected::Forged);
        let epoch = counter >> epoch_bits;
        if epoch == self.epoch {
            self.window.check(counter)?;
            decrypt(&self.key)?;
            let newest = self.window.mark(counter);
            return Ok(OpenedRecord { newest, new_epoch: false });
        }
        if epoch == self.epoch + 1 {
            let next = self.key.next();
            decrypt(&next)?;
            let mut window = Window::new(epoch << epoch_bits);
            window.mark(counter);
            let old_key = core::mem::replace(&mut self.key, next);
            let old_window = core::mem::replace(&mut self.window, window);
            let until = now.after(PREVIOUS_KEY_AGE_MAX);
            self.previous = Some(Box::new(Previous { key: old_key, window: old_window, until }));
            self.epoch = epoch;
            return Ok(OpenedRecord { newest: true, new_epoch: true });
        }
        match &mut self.previous {
            Some(previous) if epoch + 1 == self.epoch && now <= previous.until => {
                previous.window.check(counter)?;
                decrypt(&previous.key)?;
                previous.window.mark(counter);
                Ok(OpenedRecord { newest: false, new_epoch: false })
            }
            _ => Err(Rejected::Epoch),
        }
    }

    /// When the key of the last epoch is to be wiped, if it is still here: once nothing is read with it any more.
    pub(super) fn expires(&self) -> Option<Time> {
        self.previous.as_ref().map(|previous| previous.until.after(Duration::from_micros(1)))
    }

    /// Wipes the key of the last epoch once its time is up.
    pub(super) fn expire(&mut self, now: Time) {
        if self.previous.as_ref().is_some_and(|previous| now > previous.until) {
            self.previous = None;
        }
    }
}

/// One word more than the window is long, so that a part-filled newest word does not shorten it.
const WORDS: u64 = REPLAY_WINDOW / 64 + 1;

/// Which of the last counters were seen.
pub(super) struct Window {
    /// One more than the highest counter seen, or where the epoch begins.
    next: u64,
    words: [u64; WORDS as usize],
}

impl Window {
    fn new(next: u64) -> Self {
        Self { next, words: [0; WORDS as usize] }
    }

    fn slot(counter: u64) -> (usize, u64) {
        ((counter / 64 % WORDS) as usize, 1 << (counter % 64))
    }

    fn check(&self, counter: u64) -> Result<(), Rejected> {
        if counter >= self.next {
            return Ok(());
        }
        if self.next - 1 - counter >= REPLAY_WINDOW {
            return Err(Rejected::TooOld);
        }
        let (word, bit) = Self::slot(counter);
        if self.words[word] & bit == 0 { Ok(()) } else { Err(Rejected::Replayed) }
    }

    /// Marks a checked counter; says whether it is the highest so far.
    fn mark(&mut self, counter: u64) -> bool {
        let newest = counter >= self.next;
        if newest {
            let last = self.next.saturating_sub(1) / 64;
            for word in (last + 1..=counter / 64).rev().take(WORDS as usize) {
                self.words[(word % WORDS) as usize] = 0;
            }
            self.next = counter + 1;
        }
        let (word, bit) = Self::slot(counter);
        self.words[word] |= bit;
        newest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    use std::collections::BTreeSet;

    const BITS: u8 = 5;
    const AGE: Duration = Duration::from_secs(120);
    const NOW: Time = Time::ZERO;

    fn pair() -> (SendKeys, ReceiveKeys) {
        (SendKeys::new(Key([7; 32]), NOW), ReceiveKeys::new(Key([7; 32])))
    }

    fn seal(keys: &mut SendKeys) -> Vec<u8> {
        keys.prepare(NOW, BITS, AGE).unwrap();
        let mut out = vec![0; RECORD_HEADER];
        out.extend_from_slice(b"sixteen bytes ok");
        keys.seal(3, &mut out);
        out
    }

    #[test]
    fn the_window_agrees_with_a_set_of_all_counters_seen() {
        let mut rng = StdRng::seed_from_u64(11);
        for _ in 0..20 {
            let mut window = Window::new(0);
            let mut seen = BTreeSet::new();
            let mut around = 0_u64;
            for _ in 0..5_000 {
                let step = match rng.random_range(0..100) {
                    0 => 5_000,
                    1..10 => 300,
                    _ => 3,
                };
                around += rng.random_range(0..=step);
                let counter = around.saturating_sub(rng.random_range(0..1_200));
                let top = seen.last().copied();
                let expected = match top {
                    Some(top) if top >= counter + REPLAY_WINDOW => Err(Rejected::TooOld),
                    _ if seen.contains(&counter) => Err(Rejected::Replayed),
                    _ => Ok(()),
                };
                assert_eq!(window.check(counter), expected, "counter {counter}, top {top:?}");
                if expected.is_ok() {
                    assert_eq!(window.mark(counter), top.is_none_or(|top| counter > top));
                    seen.insert(counter);
                }
            }
        }
    }

    #[test]
    fn the_next_key_is_the_rekey_of_noise() {
        let mut noise = snow::params::NoiseParams::clone(&"Noise_NK_25519_ChaChaPoly_BLAKE2s".parse().unwrap());
        noise.name.clear();
        let cipher = snow::resolvers::CryptoResolver::resolve_cipher(&snow::resolvers::DefaultResolver, &noise.cipher);
        let mut cipher = cipher.unwrap();
        cipher.set(&[9; 32]);
        cipher.rekey();
        let mut theirs = [0; 4 + 16];
        cipher.encrypt(1, &[], b"text", &mut theirs);
        let mut ours = *b"text";
        let tag = aead::seal(&Key([9; 32]).next().0, 1, &[], &mut ours);
        assert_eq!((&theirs[..4], &theirs[4..]), (ours.as_slice(), tag.as_slice()));
    }

    #[test]
    fn an_epoch_ends_only_when_the_peer_has_confirmed_it() {
        let (mut send, mut receive) = pair();
        for _ in 0..1 << BITS {
            receive.open(NOW, BITS, &mut seal(&mut send)).unwrap();
        }
        assert!(send.prepare(NOW, BITS, AGE).is_err(), "not confirmed");
        send.confirm(1);
        assert!(send.prepare(NOW, BITS, AGE).is_err(), "another epoch confirmed");
        send.confirm(0);
        let opened = receive.open(NOW, BITS, &mut seal(&mut send)).unwrap();
        assert!(opened.new_epoch && receive.epoch() == 1 && send.epoch() == 1);
    }

    #[test]
    fn an_old_epoch_is_left_with_the_next_record_and_skips_its_counters() {
        let (mut send, mut receive) = pair();
        receive.open(NOW, BITS, &mut seal(&mut send)).unwrap();
        send.confirm(0);
        send.prepare(NOW.after(AGE), BITS, AGE).unwrap();
        assert_eq!((send.epoch(), send.counter()), (1, 1 << BITS));
    }

    #[test]
    fn stragglers_of_the_last_epoch_are_read_once_and_for_sixty_seconds() {
        let (mut send, mut receive) = pair();
        let (mut first, mut second) = (seal(&mut send), seal(&mut send));
        let (first_again, mut late) = (first.clone(), seal(&mut send));
        send.confirm(0);
        send.prepare(NOW.after(AGE), BITS, AGE).unwrap();
        receive.open(NOW, BITS, &mut second).unwrap();
        assert!(receive.open(NOW, BITS, &mut seal(&mut send)).unwrap().new_epoch);
        assert!(!receive.open(NOW, BITS, &mut first).unwrap().newest);
        assert_eq!(receive.open(NOW, BITS, &mut first_again.clone()).unwrap_err(), Rejected::Replayed);
        let later = NOW.after(PREVIOUS_KEY_AGE_MAX + Duration::from_micros(1));
        assert_eq!(receive.open(later, BITS, &mut late).unwrap_err(), Rejected::Epoch);
        receive.expire(later);
        assert!(receive.previous.is_none());
    }

    #[test]
    fn a_forged_record_of_the_next_epoch_changes_neither_keys_nor_window() {
        let (mut send, mut receive) = pair();
        receive.open(NOW, BITS, &mut seal(&mut send)).unwrap();
        let mut forged = seal(&mut send);
        forged[5..13].copy_from_slice(&(1_u64 << BITS).to_be_bytes());
        assert_eq!(receive.open(NOW, BITS, &mut forged).unwrap_err(), Rejected::Forged);
        assert_eq!((receive.epoch(), receive.next_counter()), (0, 1));
    }

    #[test]
    fn a_counter_near_the_end_of_time_is_refused() {
        let (mut send, mut receive) = pair();
        for counter in [COUNTER_END, u64::MAX - 1, u64::MAX] {
            let mut forged = seal(&mut send);
            forged[5..13].copy_from_slice(&counter.to_be_bytes());
            assert_eq!(receive.open(NOW, BITS, &mut forged).unwrap_err(), Rejected::Epoch);
        }
        send.counter = COUNTER_END;
        send.epoch = u32::MAX;
        send.confirmed = true;
        assert!(send.prepare(NOW, BITS, AGE).is_err());
    }
}
