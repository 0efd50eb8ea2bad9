//! What a text may touch the heap on its way through a Presence. The allocator counts for the whole process, so this file
//! has one test.

#[path = "../benches/common/mod.rs"]
mod common;

use std::alloc::System;

use common::{Pause, texts};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations for a text that is relayed, confirmed and ticked, when every acknowledgement rides on a message, and when the
/// last one travels alone. The design wants none; these are what is left, and they may only shrink.
const PER_TEXT: [(Pause, usize); 2] = [(Pause::Busy, 21), (Pause::Quiet, 22)];

#[test]
fn a_relayed_message_allocates_as_often_as_the_ratchet_says_in_steady_state() {
    const TEXTS: usize = 1_000;
    for (pause, ratchet) in PER_TEXT {
        // The Presence remembers how the last 1,024 texts to somebody ended: until then its memory grows.
        let recording = texts(pause, 1_100, TEXTS);
        let mut player = recording.player();
        let region = Region::new(COUNTING);
        player.play_all();
        let change = region.change();
        // Trees and tables grow and shrink now and then: that is rounded away.
        let per_text = (change.allocations + change.reallocations + TEXTS / 2) / TEXTS;
        assert!(per_text <= ratchet, "{pause:?}: {per_text} allocations per text, there were {ratchet}");
        assert_eq!(per_text, ratchet, "{pause:?}: fewer than before, so lower PER_TEXT, and they stay away");
    }
}
