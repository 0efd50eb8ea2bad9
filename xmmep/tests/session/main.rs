//! The secure session from outside: two ends on a seeded wire in virtual time.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod delivery;
mod epochs;
mod handshake;
mod hostile;
mod path;
mod rhythm;
mod wire;
