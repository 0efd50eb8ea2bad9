//! What a hostile body can make the decoder allocate.

mod common;

use allocation_counter::measure;
use common::schema::{self, Wire, varint};
use common::vector;
use xmmep::catalog;
use xmmep::message::Descriptor;

/// Held at one time while decoding and encoding again: this many times the body, plus [`BASE`].
const FACTOR: usize = 4;
/// For every body, in bytes. A list of 100 of the shortest buddies is 612 bytes on the wire and about 5 KiB in memory; while
/// it grows, both copies are there.
const BASE: usize = 8 * 1024;

fn allocated(message: &Descriptor, body: &[u8]) -> usize {
    let bytes = measure(|| drop((message.recode)(body))).bytes_max;
    usize::try_from(bytes).expect("memory fits")
}

#[test]
fn no_body_makes_the_decoder_allocate_out_of_proportion() {
    let mut worst = (0, String::new());
    let mut check = |message: &Descriptor, body: &[u8], what: String| {
        let bytes = allocated(message, body);
        let allowed = BASE + FACTOR * body.len();
        assert!(bytes <= allowed, "{}: {what}: {bytes} bytes for a body of {}", message.name, body.len());
        worst = worst.clone().max((bytes * 100 / (BASE + body.len()), format!("{} {what}", message.name)));
    };
    for message in catalog::all() {
        let golden = vector::body(message);
        check(message, &golden, "golden".to_owned());
        for length in schema::walk(message.fields, &golden).unwrap().lengths {
            let (before, after) = (&golden[..length.at.start], &golden[length.content.end..]);
            for lie in [1 << 14, 1 << 24, 1 << 31, (1 << 32) - 1, 1 << 40, u64::MAX] {
                let bytes = [before, &varint(lie), &golden[length.content.clone()], after].concat();
                check(message, &bytes, format!("{} says {lie}", length.path));
            }
            if let (Wire::List(entry, _), Some(golden_entry)) = (&length.wire, length.first_entry) {
                for one in [&golden[golden_entry], &schema::shortest(entry).unwrap()] {
                    let full = one.repeat(length.max);
                    let bytes = [before, &varint(length.max as u64), &full, after].concat();
                    check(message, &bytes, format!("{} is full of {} bytes each", length.path, one.len()));
                }
            }
        }
    }
    println!("worst: {} % of 8 KiB + the body, {}", worst.0, worst.1);
}
