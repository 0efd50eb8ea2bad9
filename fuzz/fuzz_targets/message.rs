//! The body of every message, read by the codec and by the page's reader.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| xm_fuzz::common::bodies::message(input));
