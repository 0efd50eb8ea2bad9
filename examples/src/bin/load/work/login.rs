//! W1: a login storm. Lookup at the Router, handshake, everything a login has, READY; each with 20 buddies, half of whom are
//! there already on average and are told.

use std::time::Instant;

use rand::seq::SliceRandom;

use super::{Bench, each_us, log_in, settle};
use crate::Failure;
use crate::crowd::Who;
use crate::report::{Figure, percentile};

/// Who logs in.
const USERS: u32 = 4_000;

pub(crate) fn measure(bench: &mut Bench<'_>) -> Result<(), Failure> {
    let server = bench.server()?;
    let mut crowd = bench.crowd(&server, Who { first: 0, step: 1, size: USERS })?;
    let mut order: Vec<_> = (0..USERS).collect();
    order.shuffle(&mut rand::rng());
    let (before, since) = (server.usage()?, Instant::now());
    let mut took = log_in(&mut crowd, &order)?;
    let elapsed = since.elapsed().as_secs_f64();
    settle(&mut crowd)?;
    let cpu = each_us(before, server.usage()?, order.len()) / 1e3;
    bench.note(Figure::new("W1", "login with 20 buddies, server CPU", cpu, "ms").at_most(0.5));
    bench.note(Figure::new("W1", "logins, 64 under way", f64::from(USERS) / elapsed, "/s"));
    bench.note(Figure::new("W1", "login, p50", percentile(&mut took, 50) / 1e3, "ms"));
    bench.note(Figure::new("W1", "login, p99", percentile(&mut took, 99) / 1e3, "ms"));
    server.stop()
}
