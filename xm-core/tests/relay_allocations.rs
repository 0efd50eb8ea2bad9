//! What a text may touch the heap on its way through a Presence: not at all.

#[path = "../benches/common/mod.rs"]
mod common;

use allocation_counter::measure;
use common::{Pause, texts};

#[test]
fn a_relayed_message_allocates_nothing_in_steady_state() {
    const TEXTS: usize = 1_000;
    // Tables and trees change their shape.
    const NOW_AND_THEN: u64 = 10;
    // When every acknowledgement rides on a message, and when the last one travels alone.
    for pause in [Pause::Busy, Pause::Quiet] {
        // The Presence remembers how the last 1,024 texts to somebody ended: until then its memory grows.
        let recording = texts(pause, 1_100, TEXTS);
        let mut player = recording.player();
        let allocations = measure(|| player.play_all()).count_total;
        assert!(allocations <= NOW_AND_THEN, "{pause:?}: {allocations} allocations for {TEXTS} texts");
    }
}
