//! Small messages share blocks of memory, which a thread uses again and again: in steady state none is allocated for a message
//! that is passed on. Whoever keeps a piece for long copies it first, because it holds its whole block.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Bytes of a block: some ten texts with all that belongs to them.
const BLOCK: usize = 4 * 1024;

/// What is larger gets memory of its own.
const PIECE_MAX: usize = BLOCK / 4;

/// Blocks not worth giving up.
const SPARE_MIN: usize = 2;

/// Full blocks a thread keeps an eye on, to use them again once their pieces are gone: 256 KiB.
const KEPT_MAX: usize = 64;

struct Blocks {
    open: BytesMut,
    /// Oldest first.
    full: VecDeque<BytesMut>,
}

thread_local! {
    static BLOCKS: RefCell<Blocks> = RefCell::new(Blocks::new());
}

/// A copy of `content`, in a block of this thread.
pub(crate) fn piece(content: &[u8]) -> Bytes {
    let own = || Bytes::copy_from_slice(content);
    if content.is_empty() || content.len() > PIECE_MAX {
        return own();
    }
    // A thread that ends has no block any more.
    BLOCKS.try_with(|blocks| blocks.borrow_mut().piece(content)).unwrap_or_else(|_| own())
}

/// Moves what is going to stay for a while to memory of its own. What is larger than a piece has that already.
pub(crate) fn keep(piece: &mut Bytes) {
    if piece.len() <= PIECE_MAX {
        *piece = Bytes::copy_from_slice(piece);
    }
}

impl Blocks {
    fn new() -> Self {
        Self { open: BytesMut::with_capacity(BLOCK), full: VecDeque::new() }
    }

    fn piece(&mut self, content: &[u8]) -> Bytes {
        if self.open.capacity() < content.len() {
            self.turn();
        }
        self.open.extend_from_slice(content);
        self.open.split().freeze()
    }

    /// Goes on with the oldest block if all its pieces are gone, or with a new one.
    fn turn(&mut self) {
        let free = self.full.front_mut().is_some_and(|oldest| oldest.try_reclaim(BLOCK));
        let oldest = free.then(|| self.full.pop_front()).flatten();
        let next = oldest.unwrap_or_else(|| BytesMut::with_capacity(BLOCK));
        self.full.push_back(std::mem::replace(&mut self.open, next));
        // Twice as many as are in use: less is under way than there was, and few blocks stay in the processor's cache.
        let half = self.full.len() / 2;
        let spare = self.full.get_mut(half).is_some_and(|middle| half >= SPARE_MIN && middle.try_reclaim(BLOCK));
        if spare || self.full.len() > KEPT_MAX {
            // Its memory goes with its last piece.
            self.full.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of a quarter of a block, all different.
    fn content(number: usize) -> Vec<u8> {
        vec![number as u8; PIECE_MAX]
    }

    #[test]
    fn a_piece_says_what_it_was_made_from_whatever_is_made_and_dropped_beside_it() {
        let mut blocks = Blocks::new();
        let mut held = VecDeque::new();
        for number in 0..10_000 {
            held.push_back((number, blocks.piece(&content(number))));
            // Some go soon, some late, in another order than they came.
            if number % 3 > 0 {
                let (number, piece) = held.remove(number % held.len()).unwrap();
                assert_eq!(piece, content(number));
            }
        }
        assert!(held.iter().all(|(number, piece)| *piece == content(*number)));
    }

    #[test]
    fn blocks_whose_pieces_are_gone_are_used_again() {
        let mut blocks = Blocks::new();
        let mut under_way = VecDeque::new();
        let mut step = |number| {
            under_way.push_back(blocks.piece(&content(number)));
            if under_way.len() > 100 {
                under_way.pop_front();
            }
        };
        (0..1_000).for_each(&mut step);
        let again = allocation_counter::measure(|| (0..1_000).for_each(|_| step(1)));
        assert_eq!(again.count_total, 1_000, "only what the test itself makes");
    }

    #[test]
    fn blocks_that_are_needed_no_more_are_given_up() {
        let mut blocks = Blocks::new();
        let burst: Vec<_> = (0..4 * KEPT_MAX).map(|number| blocks.piece(&content(number))).collect();
        assert_eq!(blocks.full.len(), KEPT_MAX - 1);
        drop(burst);
        (0..1_000).for_each(|number| drop(blocks.piece(&content(number))));
        assert!(blocks.full.len() <= 2 * SPARE_MIN, "{}", blocks.full.len());
    }

    #[test]
    fn pieces_that_are_held_for_ever_cost_their_own_blocks_and_no_others() {
        let mut blocks = Blocks::new();
        let held: Vec<_> = (0..40 * KEPT_MAX).map(|_| blocks.piece(b"held")).collect();
        (0..10_000).for_each(|number| drop(blocks.piece(&content(number))));
        assert!(blocks.full.len() <= KEPT_MAX);
        assert!(held.iter().all(|piece| piece == "held"));
    }

    #[test]
    fn what_is_kept_leaves_its_block() {
        let mut blocks = Blocks::new();
        let mut kept = blocks.piece(b"kept");
        keep(&mut kept);
        assert_eq!(kept, "kept");
        assert!(blocks.open.try_reclaim(BLOCK), "the block is free");
    }

    #[test]
    fn what_is_larger_than_a_piece_has_memory_of_its_own() {
        assert!(piece(&[1; PIECE_MAX + 1]).is_unique());
        assert!(!piece(&[1; PIECE_MAX]).is_unique());
    }
}
