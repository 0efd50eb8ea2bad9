//! W5: texts to users who are away, each answered with STORED once it is on the disk; then users with a hundred texts
//! waiting log in.

use std::time::{Duration, Instant};

use xmmep::messages::chat::Tick;

use super::chat::{LOAD, Opened, Plan, Texts, open, slot_of};
use super::{Bench, bring_in, each_us, log_in, lost, settle};
use crate::Failure;
use crate::crowd::{Crowd, Who};
use crate::report::{Figure, percentile};
use crate::user::Happened;

/// Who writes. Nobody of their buddies is online.
const SENDERS: u32 = 1_000;
/// Texts under way.
const IN_FLIGHT: usize = 512;
/// Users who come back, each to so many texts.
const COMING_BACK: u32 = 200;
const WAITING: u32 = 100;

pub(crate) fn measure(bench: &mut Bench<'_>) -> Result<(), Failure> {
    bench.place.let_nothing_wait()?;
    let server = bench.server()?;
    let after = bench.population.buddies / 2;
    let step = bench.population.buddies + 1;
    let mut crowd = bench.crowd(&server, Who { first: 0, step, size: SENDERS })?;
    bring_in(&mut crowd)?;
    let who = crowd.who;

    let (before, since) = (server.usage()?, Instant::now());
    let end = since + bench.seconds();
    let mut next = (0..SENDERS).cycle().zip((1..after).cycle());
    let stored = store(bench, &mut crowd, &mut || (Instant::now() < end).then(|| next.next()).flatten())?;
    let (cpu, rate) = (each_us(before, server.usage()?, stored), stored as f64 / since.elapsed().as_secs_f64());
    bench.note(Figure::new("W5", "text stored with fsync, server CPU, 512 in flight", cpu, "µs").at_most(15.0));
    bench.note(Figure::new("W5", "texts stored, 512 in flight", rate, "/s"));

    let to = |member| bench.population.id(who.number(member) + 1 + member % (after - 1));
    let plan = Plan { rate: rate * f64::from(LOAD) / 100.0, time: bench.seconds(), to: &to, until: Tick::STORED };
    let Opened { mut took, .. } = open(&mut crowd, &mut Texts::default(), &plan, &mut || Ok(()))?;
    let of = |what: &str| format!("text stored at {LOAD} % of that rate, {what}");
    let figures = [
        Figure::new("W5", of("p50"), percentile(&mut took, 50) / 1e3, "ms"),
        Figure::new("W5", of("p99"), percentile(&mut took, 99) / 1e3, "ms"),
    ];
    figures.into_iter().for_each(|figure| bench.note(figure));

    let mut waiting = (0..WAITING).flat_map(|_| (0..COMING_BACK).map(|member| (member, after)));
    store(bench, &mut crowd, &mut || waiting.next())?;
    settle(&mut crowd)?;
    let mut back = bench.crowd(&server, Who { first: after, step, size: COMING_BACK })?;
    let before = server.usage()?;
    let since = Instant::now();
    let order: Vec<_> = (0..COMING_BACK).collect();
    log_in(&mut back, &order)?;
    let texts = (COMING_BACK * WAITING) as usize;
    collect(&mut crowd, &mut back, texts)?;
    let (cpu, rate) = (each_us(before, server.usage()?, texts), texts as f64 / since.elapsed().as_secs_f64());
    bench.note(Figure::new("W5", "waiting text delivered after a login, server CPU, all included", cpu, "µs"));
    bench.note(Figure::new("W5", "waiting texts delivered", rate, "/s"));
    server.stop()
}

/// Sends what `next` says, sender and distance of the recipient, until it says nothing; returns how many were stored.
fn store(
    bench: &Bench<'_>,
    crowd: &mut Crowd<'_>,
    next: &mut dyn FnMut() -> Option<(u32, u32)>,
) -> Result<usize, Failure> {
    let (mut texts, mut happened) = (Texts::default(), Vec::new());
    let (mut stored, mut under_way) = (0, 0);
    let mut send = |crowd: &mut Crowd<'_>| -> Result<usize, Failure> {
        let Some((sender, distance)) = next() else { return Ok(0) };
        let to = bench.population.id(crowd.who.number(sender) + distance);
        crowd.send(sender, texts.next(0, to))?;
        Ok(1)
    };
    for _ in 0..IN_FLIGHT {
        under_way += send(crowd)?;
    }
    while under_way > 0 {
        crowd.turn(Duration::from_millis(20), &mut happened)?;
        for (member, what) in happened.drain(..) {
            match what {
                Happened::Tick(id, Tick::STORED, _) if slot_of(id) == 0 => {
                    stored += 1;
                    under_way -= 1;
                    under_way += send(crowd)?;
                }
                Happened::Tick(_, Tick::REFUSED, result) => {
                    return Err(format!("a text was refused: {result:?}").into());
                }
                Happened::Lost(why) => return Err(lost(member, &why)),
                _ => {}
            }
        }
    }
    Ok(stored)
}

/// Lets both crowds go on until so many ticks have come.
fn collect(senders: &mut Crowd<'_>, back: &mut Crowd<'_>, texts: usize) -> Result<(), Failure> {
    let (mut delivered, mut happened) = (0, Vec::new());
    while delivered < texts {
        back.turn(Duration::from_millis(1), &mut happened)?;
        senders.turn(Duration::ZERO, &mut happened)?;
        for (member, what) in happened.drain(..) {
            match what {
                Happened::Tick(_, Tick::DELIVERED, _) => delivered += 1,
                Happened::Lost(why) => return Err(lost(member, &why)),
                _ => {}
            }
        }
    }
    Ok(())
}
