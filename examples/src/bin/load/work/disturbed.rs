//! W3 with something else going on: pairs chat at a fixed rate, first undisturbed, then beside each [`Disturbance`], each time
//! on a server of its own. What others do may cost the server time, but nobody is to wait for it: the figures to compare are
//! the round trips at the same rate.

use std::time::{Duration, Instant};

use xmmep::frame::{self, Sequence};
use xmmep::messages::chat::Tick;
use xmmep::messages::login::LogoutReq;

use super::chat::{LOAD, Opened, Plan, Texts, USERS, WARM_UP, closed, open, partners};
use super::{Bench, bring_in, log_in, lost};
use crate::Failure;
use crate::crowd::{Crowd, Member, Who};
use crate::place::{BIG_BUDDIES, Population};
use crate::report::{Figure, percentile};
use crate::server::Server;
use crate::user::Happened;

/// Texts under way while the rate is looked for, as in W3.
const IN_FLIGHT: usize = 512;
/// Longer is not measured, whatever `--seconds` says: the server gives up a client who was silent for 80 seconds, and the
/// dead are to be taken for alive.
const TIME_MAX: Duration = Duration::from_secs(60);
/// The first of the users who disturb; no buddy of theirs chats.
const FIRST: u32 = 3_000;
/// Users who are written to, each by one writer.
const RECIPIENTS: u32 = 200;
/// Texts to them in a second, ten each: a busy group, and a small part of what the server can do.
const TEXTS_PER_SECOND: u32 = 2_000;
/// The recipients doze in so many groups, one of them awake at a time, so that this program never has many at once to wake.
const GROUPS: u32 = 100;
/// How long a group is awake. Then the others are, for 594 ms: longer than the 200 ms after which a text is stored, and
/// than the time after which it is sent again.
const AWAKE: Duration = Duration::from_millis(6);
/// Logins with big rosters in a second. A server of this size sees as many if each of 100,000 users comes every 80 minutes.
const LOGINS_PER_SECOND: u32 = 20;

/// What goes on beside the chat.
#[derive(Clone, Copy)]
enum Disturbance {
    Nothing,
    /// Texts to clients who neither confirm nor acknowledge: sent again and again, and stored after 200 ms.
    Dead,
    /// Texts to clients who confirm after half a second: sent again, stored, and then settled in the store.
    Slow,
    /// Texts to users who are away: the log is written and flushed all the time.
    Away,
    /// Users with 200 buddies log in and out.
    Rosters,
}

impl Disturbance {
    const ALL: [Self; 5] = [Self::Nothing, Self::Dead, Self::Slow, Self::Away, Self::Rosters];

    /// What a figure says of it, and how what it did is called.
    fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::Nothing => ("undisturbed", ""),
            Self::Dead => ("with dead recipients", "texts stored for the dead"),
            Self::Slow => ("with slow recipients", "texts stored for the slow"),
            Self::Away => ("with constant fsync", "texts stored for users who are away"),
            Self::Rosters => ("with big rosters", "logins with 200 buddies"),
        }
    }

    /// Brings in those who disturb.
    fn begin<'a>(self, bench: &Bench<'a>, server: &Server) -> Result<Option<Disturbing<'a>>, Failure> {
        let writers = |recipients| Writers::begin(bench, server, recipients).map(Disturbing::Writers).map(Some);
        match self {
            Self::Nothing => Ok(None),
            Self::Dead => writers(Recipients::Dead),
            Self::Slow => writers(Recipients::Slow),
            Self::Away => writers(Recipients::Away),
            Self::Rosters => Ok(Some(Disturbing::Rosters(Rosters::begin(bench, server)?))),
        }
    }
}

pub(crate) fn measure(bench: &mut Bench<'_>) -> Result<(), Failure> {
    let rate = f64::from(LOAD) / 100.0 * most(bench)?;
    for disturbance in Disturbance::ALL {
        if matches!(disturbance, Disturbance::Rosters) && bench.population.big == 0 {
            eprintln!(
                "  nobody here has {BIG_BUDDIES} buddies: left out; `load seed` now makes directories where some have"
            );
            continue;
        }
        beside(bench, disturbance, rate)?;
    }
    Ok(())
}

/// A server and the pairs who chat.
fn chat<'a>(bench: &Bench<'a>) -> Result<(Server, Crowd<'a>), Failure> {
    bench.place.let_nothing_wait()?;
    let server = bench.server()?;
    let mut crowd = bench.crowd(&server, Who { first: 0, step: 1, size: USERS })?;
    bring_in(&mut crowd)?;
    Ok((server, crowd))
}

/// How many texts the server delivers in a second when it does nothing else.
fn most(bench: &Bench<'_>) -> Result<f64, Failure> {
    let (server, mut crowd) = chat(bench)?;
    let mut texts = Texts::default();
    closed(&mut crowd, &mut texts, IN_FLIGHT, WARM_UP)?;
    let since = Instant::now();
    let delivered = closed(&mut crowd, &mut texts, IN_FLIGHT, bench.seconds())?.len();
    let rate = delivered as f64 / since.elapsed().as_secs_f64();
    server.stop()?;
    Ok(rate)
}

/// Measures round trips at this rate beside a disturbance.
fn beside(bench: &mut Bench<'_>, disturbance: Disturbance, rate: f64) -> Result<(), Failure> {
    let (server, mut crowd) = chat(bench)?;
    let mut disturbing = disturbance.begin(bench, &server)?;
    let mut texts = Texts::default();
    let mut turn = || disturbing.as_mut().map_or(Ok(()), Disturbing::turn);
    let to = partners(bench.population, crowd.who);
    let plan = |time| Plan { rate, time, to: &to, until: Tick::DELIVERED };
    open(&mut crowd, &mut texts, &plan(WARM_UP), &mut turn)?;
    let Opened { mut took, mut late } = open(&mut crowd, &mut texts, &plan(bench.seconds().min(TIME_MAX)), &mut turn)?;
    let (name, done) = disturbance.name();
    let of = |what: &str| format!("{what}, {LOAD} % load {name}, {}", bench.sockets());
    let mut figures = vec![
        Figure::new("W3", of("round trip, p50"), percentile(&mut took, 50) / 1e3, "ms"),
        Figure::new("W3", of("round trip, p99"), percentile(&mut took, 99) / 1e3, "ms"),
        Figure::new("W3", of("late in the generator, p99"), percentile(&mut late, 99) / 1e3, "ms"),
    ];
    if let Some(disturbing) = disturbing {
        let rate = disturbing.per_second();
        if rate == 0.0 {
            return Err(format!("{name}: nothing happened that could disturb").into());
        }
        figures.push(Figure::new("W3", format!("{done}, beside the chat, {}", bench.sockets()), rate, "/s"));
    }
    figures.into_iter().for_each(|figure| bench.note(figure));
    server.stop()
}

/// A disturbance that goes on.
enum Disturbing<'a> {
    Writers(Writers<'a>),
    Rosters(Rosters<'a>),
}

impl Disturbing<'_> {
    /// Does a little, and never waits.
    fn turn(&mut self) -> Result<(), Failure> {
        match self {
            Self::Writers(writers) => writers.turn(),
            Self::Rosters(rosters) => rosters.turn(),
        }
    }

    /// How often the server has done what is to disturb.
    fn per_second(&self) -> f64 {
        let (done, pace) = match self {
            Self::Writers(writers) => (writers.stored, &writers.pace),
            Self::Rosters(rosters) => (rosters.logins, &rosters.pace),
        };
        pace.since.map_or(0.0, |since| f64::from(done) / since.elapsed().as_secs_f64())
    }
}

/// Says when the next one is due, so that there are so many in a second, from the first question on.
struct Pace {
    pause: Duration,
    since: Option<Instant>,
    begun: u32,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { pause: Duration::from_secs(1) / per_second, since: None, begun: 0 }
    }

    fn is_due(&mut self) -> bool {
        let due = self.since.get_or_insert_with(Instant::now).elapsed() >= self.pause * self.begun;
        self.begun += u32::from(due);
        due
    }
}

/// How those who are written to behave.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recipients {
    Away,
    Dead,
    Slow,
}

/// Users who write to others, each to the next one in the population, all the time.
struct Writers<'a> {
    population: &'a Population,
    writers: Crowd<'a>,
    pace: Pace,
    texts: Texts,
    stored: u32,
    /// The recipients, if they are there.
    groups: Vec<Crowd<'a>>,
    recipients: Recipients,
    since: Instant,
    happened: Vec<(Member, Happened)>,
}

impl<'a> Writers<'a> {
    fn begin(bench: &Bench<'a>, server: &Server, recipients: Recipients) -> Result<Self, Failure> {
        let mut writers = bench.crowd(server, Who { first: FIRST, step: 2, size: RECIPIENTS })?;
        bring_in(&mut writers)?;
        let size = RECIPIENTS / GROUPS;
        let group = |group| bench.crowd(server, Who { first: FIRST + 1 + 2 * size * group, step: 2, size });
        let count = if recipients == Recipients::Away { 0 } else { GROUPS };
        let mut groups = (0..count).map(group).collect::<Result<Vec<_>, _>>()?;
        let order: Vec<_> = (0..size).collect();
        for group in &mut groups {
            log_in(group, &order)?;
            // That they are ready has left already; what the server says to that is acknowledged.
            group.turn(Duration::from_millis(20), &mut Vec::new())?;
        }
        let population = bench.population;
        Ok(Self {
            population,
            writers,
            pace: Pace::new(TEXTS_PER_SECOND),
            texts: Texts::default(),
            stored: 0,
            groups,
            recipients,
            since: Instant::now(),
            happened: Vec::new(),
        })
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let writer = self.pace.begun % RECIPIENTS;
        if self.pace.is_due() {
            let recipient = self.population.id(self.writers.who.number(writer) + 1);
            self.writers.send(writer, self.texts.next(0, recipient))?;
        }
        self.writers.turn(Duration::ZERO, &mut self.happened)?;
        if self.recipients == Recipients::Slow {
            let awake = self.since.elapsed().as_micros() / AWAKE.as_micros() % u128::from(GROUPS);
            if let Some(group) = self.groups.get_mut(awake as usize) {
                group.turn(Duration::ZERO, &mut self.happened)?;
            }
        }
        for (member, what) in self.happened.drain(..) {
            match what {
                Happened::Tick(_, Tick::STORED, _) => self.stored += 1,
                Happened::Tick(_, Tick::REFUSED, why) => return Err(format!("a text was refused: {why:?}").into()),
                Happened::Lost(why) => return Err(lost(member, &why)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Users with big rosters who log in, one after the other, and out again.
struct Rosters<'a> {
    crowd: Crowd<'a>,
    pace: Pace,
    logins: u32,
    /// Who is on the way in, and who is on the way out.
    stages: Vec<Stage>,
    happened: Vec<(Member, Happened)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Out,
    Coming,
    Leaving,
}

impl<'a> Rosters<'a> {
    fn begin(bench: &Bench<'a>, server: &Server) -> Result<Self, Failure> {
        let who = Who { first: bench.population.big().start, step: 1, size: bench.population.big };
        let crowd = bench.crowd(server, who)?;
        let stages = vec![Stage::Out; who.size as usize];
        Ok(Self { crowd, pace: Pace::new(LOGINS_PER_SECOND), logins: 0, stages, happened: Vec::new() })
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let next = self.pace.begun % self.crowd.who.size;
        if self.pace.is_due()
            && let Some(stage @ Stage::Out) = self.stages.get_mut(next as usize)
        {
            *stage = Stage::Coming;
            self.crowd.log_in(next);
        }
        self.crowd.turn(Duration::ZERO, &mut self.happened)?;
        for (member, what) in self.happened.drain(..) {
            let Some(stage) = self.stages.get_mut(member as usize) else { continue };
            *stage = match (what, *stage) {
                (Happened::LoggedIn, _) => {
                    self.logins += 1;
                    self.crowd.send(member, frame::request(&LogoutReq {}, Sequence(2)))?;
                    Stage::Leaving
                }
                (Happened::Lost(_), Stage::Leaving) => Stage::Out,
                (Happened::Lost(why), _) => return Err(lost(member, &why)),
                (_, stage) => stage,
            };
        }
        Ok(())
    }
}
