//! What a stranger sends: to a server, to a client that connects, to an open session.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| xm_fuzz::common::bodies::datagram(input));
