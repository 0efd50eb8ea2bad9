//! A client that holds its session's keys and keeps no rule, against a server's session.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| xm_fuzz::common::hostile::hostile(input));
