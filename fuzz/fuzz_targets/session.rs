//! Two honest sessions on a wire that the input controls.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| xm_fuzz::common::duo::session(input));
