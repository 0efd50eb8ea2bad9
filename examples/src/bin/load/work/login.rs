//! W1: a login storm. Lookup at the Router, handshake, everything a login has, READY; each with 20 buddies, half of whom are
//! there already on average and are told.

use std::time::{Duration, Instant};

use rand::seq::SliceRandom;

use super::{Bench, each_us, log_in, lost, micros, settle};
use crate::Failure;
use crate::crowd::{Crowd, Who};
use crate::report::{Figure, percentile};
use crate::user::Happened;

/// Who logs in: so many as fast as they can, and as many others at a fixed rate.
const USERS: u32 = 4_000;
/// That rate, in hundredths of what the server can do.
const LOAD: u32 = 50;

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

    let mut others = bench.crowd(&server, Who { first: USERS, step: 1, size: USERS })?;
    let mut took = open(&mut others, f64::from(USERS) / elapsed * f64::from(LOAD) / 100.0)?;
    let of = |what: &str| format!("login at {LOAD} % of that rate, {what}");
    bench.note(Figure::new("W1", of("p50"), percentile(&mut took, 50) / 1e3, "ms"));
    bench.note(Figure::new("W1", of("p99"), percentile(&mut took, 99) / 1e3, "ms"));
    server.stop()
}

/// Logs everybody in at a fixed rate, whatever the server does; returns how long each took, in microseconds, from when it was
/// to begin.
fn open(crowd: &mut Crowd<'_>, rate: f64) -> Result<Vec<u32>, Failure> {
    let pause = Duration::from_secs_f64(1.0 / rate);
    let (start, mut happened) = (Instant::now(), Vec::new());
    let (mut next, mut took) = (0, Vec::with_capacity(crowd.who.size as usize));
    while took.len() < crowd.who.size as usize {
        while next < crowd.who.size && start.elapsed() >= pause * next {
            crowd.log_in(next);
            next += 1;
        }
        // No sleep: waking up would be measured, too.
        crowd.turn(Duration::ZERO, &mut happened)?;
        for (member, what) in happened.drain(..) {
            match what {
                Happened::LoggedIn => took.push(micros(start.elapsed().saturating_sub(pause * member))),
                Happened::Lost(why) => return Err(lost(member, &why)),
                _ => {}
            }
        }
    }
    Ok(took)
}
