//! What a text may touch the heap on its way through a Presence.

#[path = "../benches/common/mod.rs"]
mod common;

use allocation_counter::measure;
use common::{Pause, texts};

/// Allocations for a text that is relayed, confirmed and ticked, when every acknowledgement rides on a message, and when the
/// last one travels alone. The design wants none; these are left, and may only shrink: the text as it arrives, its decoded body,
/// the frame that is forwarded and its count of users, the confirmation, its list, the tick.
const PER_TEXT: [(Pause, u64); 2] = [(Pause::Busy, 7), (Pause::Quiet, 8)];

#[test]
fn a_relayed_message_allocates_as_often_as_the_ratchet_says_in_steady_state() {
    const TEXTS: u64 = 1_000;
    for (pause, ratchet) in PER_TEXT {
        // The Presence remembers how the last 1,024 texts to somebody ended: until then its memory grows.
        let recording = texts(pause, 1_100, TEXTS as usize);
        let mut player = recording.player();
        let allocations = measure(|| player.play_all()).count_total;
        // Trees and tables grow and shrink now and then: that is rounded away.
        let per_text = (allocations + TEXTS / 2) / TEXTS;
        assert!(per_text <= ratchet, "{pause:?}: {per_text} allocations per text, there were {ratchet}");
        assert_eq!(per_text, ratchet, "{pause:?}: fewer than before, so lower PER_TEXT, and they stay away");
    }
}
