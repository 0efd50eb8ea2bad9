//! W3: pairs of users write to each other. A message counts when its sender has DELIVERED from the recipient's client.

use std::time::{Duration, Instant};

use bytes::Bytes;
use xmmep::bounded::PrivateText;
use xmmep::frame;
use xmmep::messages::chat::{Content, TargetKind, TextKind, Tick, TxtMsg};
use xmmep::types::{MsgId, UserId, WallTime};

use super::beside::Host;
use super::{Bench, bring_in, each_us, lost, micros, settle};
use crate::Failure;
use crate::crowd::{Crowd, Member, Who};
use crate::place::Population;
use crate::report::{Figure, percentile};
use crate::user::Happened;

/// Users who chat, in pairs.
pub(super) const USERS: u32 = 2_000;
/// A hundred bytes.
const TEXT: &str =
    "a hundred bytes of text, as people write them to each other all day long, and then a little bit more";
/// Messages under way in the closed loops.
const IN_FLIGHT: [usize; 2] = [64, 512];
/// How loaded the server is for the latencies, in hundredths of what it can do.
pub(super) const LOAD: u32 = 30;
/// At the beginning of a measurement: not counted.
pub(super) const WARM_UP: Duration = Duration::from_secs(1);

pub(crate) fn measure(bench: &mut Bench<'_>, kept: &mut Option<Host>) -> Result<(), Failure> {
    let mut host = Host::begin(bench, kept)?;
    let mut crowd = bench.crowd(&host.server, Who { first: 0, step: 1, size: USERS })?;
    bring_in(&mut crowd)?;
    let mut texts = Texts::default();
    let shared = bench.args.sockets != crate::sockets::Sharing::Each;
    let mut most = 0.0_f64;
    for in_flight in IN_FLIGHT {
        host.keep_alive()?;
        closed(&mut crowd, &mut texts, in_flight, WARM_UP)?;
        let (before, since) = (host.server.usage()?, Instant::now());
        let mut took = closed(&mut crowd, &mut texts, in_flight, bench.seconds())?;
        let (cpu, rate) =
            (each_us(before, host.server.usage()?, took.len()), took.len() as f64 / since.elapsed().as_secs_f64());
        most = most.max(rate);
        let of = |what: &str| format!("{what}, {in_flight} in flight, {}", bench.surroundings());
        let figure = Figure::new("W3", of("text delivered and confirmed, server CPU"), cpu, "µs");
        let figures = [
            if in_flight == 512 { figure.at_most(if shared { 8.0 } else { 12.0 }) } else { figure },
            Figure::new("W3", of("texts delivered and confirmed"), rate, "/s"),
            Figure::new("W3", of("round trip, p50"), percentile(&mut took, 50) / 1e3, "ms"),
            Figure::new("W3", of("round trip, p99"), percentile(&mut took, 99) / 1e3, "ms"),
        ];
        figures.into_iter().for_each(|figure| bench.note(figure));
    }
    host.keep_alive()?;
    settle(&mut crowd)?;
    let before = host.server.usage()?;
    let rate = most * f64::from(LOAD) / 100.0;
    let plan = Plan { rate, time: bench.seconds(), to: &partners(bench.population, crowd.who), until: Tick::DELIVERED };
    let Opened { mut took, .. } = open(&mut crowd, &mut texts, &plan, &mut || Ok(()))?;
    let cpu = each_us(before, host.server.usage()?, took.len());
    let of = |what: &str| format!("{what}, {LOAD} % load, {}", bench.surroundings());
    let figures = [
        Figure::new("W3", of("round trip, p50"), percentile(&mut took, 50) / 1e3, "ms").at_most(0.2),
        Figure::new("W3", of("round trip, p99"), percentile(&mut took, 99) / 1e3, "ms").at_most(1.0),
        Figure::new("W3", of("text delivered and confirmed, server CPU"), cpu, "µs"),
    ];
    figures.into_iter().for_each(|figure| bench.note(figure));
    host.end(&mut crowd, kept)
}

/// Numbers the texts, so that a tick finds the one it is about.
#[derive(Default)]
pub(super) struct Texts {
    last: u64,
}

impl Texts {
    /// The next text, whose tick will name `slot`.
    pub(super) fn next(&mut self, slot: usize, to: UserId) -> Bytes {
        self.last += 1;
        let id = (slot as u128) << 64 | u128::from(self.last) | (u128::from(rand::random::<u16>()) << 48);
        let text = Content {
            id: MsgId(id.to_be_bytes()),
            target_kind: TargetKind::USER,
            target: to.0,
            order: self.last,
            sent: WallTime(1_700_000_000_000),
            kind: TextKind::TEXT,
            body: PrivateText::new(TEXT).unwrap_or_default(),
        };
        frame::notice(&TxtMsg { text })
    }
}

/// The slot a text was sent from.
pub(super) fn slot_of(id: MsgId) -> usize {
    (u128::from_be_bytes(id.0) >> 64) as usize
}

fn partner(member: Member) -> Member {
    member ^ 1
}

/// Keeps so many texts under way for some time; returns how long each took, in microseconds.
pub(super) fn closed(
    crowd: &mut Crowd<'_>,
    texts: &mut Texts,
    in_flight: usize,
    time: Duration,
) -> Result<Vec<u32>, Failure> {
    let (mut took, mut sent, mut happened) = (Vec::new(), vec![Instant::now(); in_flight], Vec::new());
    let mut senders = (0..crowd.who.size).cycle();
    let mut send = |crowd: &mut Crowd<'_>, slot: usize| -> Result<Instant, Failure> {
        let member = senders.next().ok_or("nobody chats")?;
        crowd.send(member, texts.next(slot, crowd.id(partner(member))))?;
        Ok(Instant::now())
    };
    let (start, mut under_way) = (Instant::now(), in_flight);
    for (slot, at) in sent.iter_mut().enumerate() {
        *at = send(crowd, slot)?;
    }
    while under_way > 0 {
        crowd.turn(Duration::from_millis(20), &mut happened)?;
        for (member, what) in happened.drain(..) {
            let Some(slot) = arrived(member, what, Tick::DELIVERED)? else { continue };
            let at = sent.get_mut(slot).ok_or("a tick for no text")?;
            took.push(micros(at.elapsed()));
            if start.elapsed() < time {
                *at = send(crowd, slot)?;
            } else {
                under_way -= 1;
            }
        }
    }
    Ok(took)
}

/// The slot of a text that has come so far.
fn arrived(member: Member, what: Happened, until: Tick) -> Result<Option<usize>, Failure> {
    match what {
        Happened::Tick(id, tick, _) if tick == until => Ok(Some(slot_of(id))),
        Happened::Tick(_, Tick::REFUSED, result) => {
            Err(format!("a text of client {member} was refused: {result:?}").into())
        }
        Happened::Lost(why) => Err(lost(member, &why)),
        _ => Ok(None),
    }
}

/// How long the texts of an open loop took, in microseconds.
pub(super) struct Opened {
    /// From when each was to be sent until its tick came.
    pub(super) took: Vec<u32>,
    /// From when each was to be sent until it was: what the generator itself adds.
    pub(super) late: Vec<u32>,
}

/// What an open loop sends.
pub(super) struct Plan<'t> {
    /// Texts in a second.
    pub(super) rate: f64,
    pub(super) time: Duration,
    /// To whom each member writes.
    pub(super) to: &'t dyn Fn(Member) -> UserId,
    /// The tick that is waited for.
    pub(super) until: Tick,
}

/// Everybody writes to the other one of the pair.
pub(super) fn partners(population: &Population, who: Who) -> impl Fn(Member) -> UserId {
    move |member| population.id(who.number(partner(member)))
}

/// Sends at a fixed rate for some time, whatever the server does. A text counts from when it was to be sent, so that waiting
/// in the generator counts, too. `beside` is done once a turn.
pub(super) fn open(
    crowd: &mut Crowd<'_>,
    texts: &mut Texts,
    plan: &Plan<'_>,
    beside: &mut dyn FnMut() -> Result<(), Failure>,
) -> Result<Opened, Failure> {
    let count = (plan.rate * plan.time.as_secs_f64()) as usize;
    let pause = Duration::from_secs_f64(1.0 / plan.rate);
    let (start, mut happened) = (Instant::now(), Vec::new());
    let (mut next, mut took, mut late) = (0, Vec::with_capacity(count), Vec::with_capacity(count));
    while took.len() < count {
        while next < count
            && let Some(waited) = start.elapsed().checked_sub(pause * next as u32)
        {
            late.push(micros(waited));
            let member = next as u32 % crowd.who.size;
            crowd.send(member, texts.next(next, (plan.to)(member)))?;
            next += 1;
        }
        // No sleep: waking up takes longer than what is measured.
        crowd.turn(Duration::ZERO, &mut happened)?;
        for (member, what) in happened.drain(..) {
            if let Some(number) = arrived(member, what, plan.until)? {
                took.push(micros(start.elapsed().saturating_sub(pause * number as u32)));
            }
        }
        beside()?;
    }
    Ok(Opened { took, late })
}
