//! Frames on a byte stream, however it is cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| xm_fuzz::common::bodies::stream(input));
