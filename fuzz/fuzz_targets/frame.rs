//! A frame: its header, and the body by its code.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| xm_fuzz::common::bodies::frame(input));
