//! A Presence in memory and clients that talk to it, without a socket and in virtual time: what the benchmarks of the
//! engine, the instruction counts and the test of allocations run. No Router: users are in the store from the start.
//!
//! A [`scene::Scene`] is played once with real clients and recorded: every call of the engine, with its time. A [`play::Player`]
//! repeats these calls on a server that is the same to the last random number, so what is measured is the server alone.
#![allow(dead_code, unreachable_pub, unused_imports, reason = "shared: every user takes another part")]

mod play;
mod plots;
mod scene;

pub use play::Recording;
pub use plots::{Pause, logins, statuses, text, texts};
