//! The workloads, and `load run`, which runs them one after the other, each on a server of its own.

mod beside;
mod chat;
mod disturbed;
mod idle;
mod login;
mod offline;
pub(crate) mod silent;
mod start;
mod status;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use xmmep::frame::{self, Sequence};
use xmmep::messages::login::LogoutReq;

use crate::crowd::{Crowd, Member, Who};
use crate::place::{Place, Population};
use crate::report::{Figure, medians, table};
use crate::server::{Server, Usage, program};
use crate::sockets::Sharing;
use crate::user::Happened;
use crate::{Failure, RunArgs, relay};

/// Logins under way at a time while a crowd comes in.
const LOGINS_AT_ONCE: u32 = 64;
/// Nothing happened for so long: the server is done.
const QUIET: Duration = Duration::from_millis(400);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// W1: many users log in at once.
    Login,
    /// W2: many users are online and do nothing.
    Idle,
    /// W3: pairs of users chat.
    Chat,
    /// W4: users change their status.
    Status,
    /// W5: texts to users who are away, and their delivery.
    Offline,
    /// W6: from nothing to the first login.
    Start,
    /// W3 while recipients are dead or slow, big rosters are read, the log flushes: are others delayed?
    Disturbed,
}

/// What every workload is given.
pub(crate) struct Bench<'a> {
    pub(crate) args: &'a RunArgs,
    pub(crate) place: &'a Place,
    pub(crate) population: &'a Population,
    pub(crate) xmd: PathBuf,
    figures: Vec<Figure>,
}

/// `load run`.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    beside::check(args)?;
    stay_on(&args.own_core)?;
    let place = Place::at(&args.dir)?;
    let population = place.population()?;
    let xmd = program(args.xmd.as_ref())?;
    let mut bench = Bench { args, place: &place, population: &population, xmd, figures: Vec::new() };
    let workloads = if args.workloads.is_empty() { Workload::value_variants() } else { &args.workloads };
    for run in 1..=args.runs {
        let mut kept = None;
        for workload in workloads {
            eprintln!("run {run} of {}: {workload:?}", args.runs);
            match workload {
                Workload::Login => login::measure(&mut bench)?,
                Workload::Idle => idle::measure(&mut bench)?,
                Workload::Chat => {
                    chat::measure(&mut bench, &mut kept)?;
                    let floor = relay::measure(args)?;
                    bench.note(floor);
                }
                Workload::Status => status::measure(&mut bench, &mut kept)?,
                Workload::Offline => offline::measure(&mut bench)?,
                Workload::Start => start::measure(&mut bench)?,
                Workload::Disturbed => disturbed::measure(&mut bench)?,
            }
        }
        kept.map_or(Ok(()), |host| host.server.stop())?;
    }
    let medians = medians(&bench.figures);
    print!("{}", table(&medians));
    if let Some(file) = &args.json {
        let lines: Result<Vec<_>, _> = medians.iter().map(serde_json::to_string).collect();
        std::fs::write(file, lines?.join("\n") + "\n")?;
    }
    Ok(())
}

fn stay_on(core: &str) -> Result<(), Failure> {
    use nix::sched::{CpuSet, sched_setaffinity};
    if core.is_empty() {
        return Ok(());
    }
    let number: usize = core.parse().map_err(|_| format!("--own-core {core:?}: it must be the number of a core"))?;
    let mut cores = CpuSet::new();
    cores.set(number)?;
    sched_setaffinity(nix::unistd::Pid::from_raw(0), &cores)
        .map_err(|error| format!("--own-core {core}: {error}; give a core of this machine, or \"\"").into())
}

impl<'a> Bench<'a> {
    /// Starts a server on the seeded directory.
    pub(crate) fn server(&self) -> Result<Server, Failure> {
        let config = self.place.configure(&self.place.data(), self.args.lanes)?;
        Server::start(&self.xmd, &config, &self.args.server_cores)
    }

    pub(crate) fn note(&mut self, figure: Figure) {
        eprintln!("  {}: {} {:.4} {}", figure.workload, figure.what, figure.value, figure.unit);
        self.figures.push(figure);
    }

    pub(crate) fn seconds(&self) -> Duration {
        Duration::from_secs(self.args.seconds)
    }

    /// A crowd that is to be logged in, with sockets as the command line says.
    pub(crate) fn crowd(&self, server: &Server, who: Who) -> Result<Crowd<'a>, Failure> {
        Crowd::gather(self.population, &server.address, who, self.args.sockets)
    }

    /// How the sockets are, for the name of a figure.
    pub(crate) fn sockets(&self) -> String {
        match self.args.sockets {
            Sharing::Each => "a socket per user".to_owned(),
            Sharing::Shared(count) => format!("{count} sockets shared"),
        }
    }

    /// How the sockets are and who else is there, for the name of a figure.
    pub(crate) fn surroundings(&self) -> String {
        match self.args.beside {
            0 => self.sockets(),
            beside => format!("{}, {beside} more online", self.sockets()),
        }
    }
}

/// Logs everybody in, in this order; returns how long each login took, in microseconds.
pub(crate) fn log_in(crowd: &mut Crowd<'_>, order: &[Member]) -> Result<Vec<u32>, Failure> {
    let (mut begun, mut took) = (vec![None; order.len()], Vec::with_capacity(order.len()));
    let (mut next, mut happened) = (order.iter(), Vec::new());
    while took.len() < order.len() {
        while (order.len() - next.len() - took.len()) < LOGINS_AT_ONCE as usize
            && let Some(member) = next.next()
        {
            crowd.log_in(*member);
            begun[*member as usize] = Some(Instant::now());
        }
        crowd.turn(Duration::from_millis(20), &mut happened)?;
        for (member, what) in happened.drain(..) {
            match what {
                Happened::LoggedIn => {
                    let since = begun.get(member as usize).copied().flatten().ok_or("a login nobody began")?;
                    took.push(micros(since.elapsed()));
                }
                Happened::Lost(why) => return Err(lost(member, &why)),
                _ => {}
            }
        }
    }
    Ok(took)
}

/// Waits until nothing happens any more.
pub(crate) fn settle(crowd: &mut Crowd<'_>) -> Result<(), Failure> {
    let (mut happened, mut last) = (Vec::new(), Instant::now());
    while last.elapsed() < QUIET {
        crowd.turn(Duration::from_millis(20), &mut happened)?;
        if !happened.is_empty() {
            last = Instant::now();
        }
        if let Some((member, Happened::Lost(why))) = happened.iter().find(|what| matches!(what.1, Happened::Lost(_))) {
            return Err(lost(*member, why));
        }
        happened.clear();
    }
    Ok(())
}

/// Logs everybody in, in their order, and waits until the server is done with it.
pub(crate) fn bring_in(crowd: &mut Crowd<'_>) -> Result<(), Failure> {
    let order: Vec<_> = (0..crowd.who.size).collect();
    log_in(crowd, &order)?;
    settle(crowd)
}

/// Lets time pass, in which clients send their keep-alives.
pub(crate) fn pass(crowd: &mut Crowd<'_>, time: Duration) -> Result<(), Failure> {
    let (since, mut happened) = (Instant::now(), Vec::new());
    while since.elapsed() < time {
        crowd.turn(Duration::from_millis(50), &mut happened)?;
        for (member, what) in happened.drain(..) {
            if let Happened::Lost(why) = what {
                return Err(lost(member, &why));
            }
        }
    }
    Ok(())
}

/// Everybody logs out.
pub(crate) fn leave(crowd: &mut Crowd<'_>) -> Result<(), Failure> {
    let (mut out, mut happened) = (0, Vec::new());
    let mut members = 0..crowd.who.size;
    while out < crowd.who.size {
        for member in members.by_ref().take(256) {
            crowd.send(member, frame::request(&LogoutReq {}, Sequence(2)))?;
        }
        crowd.turn(Duration::from_millis(1), &mut happened)?;
        out += happened.drain(..).filter(|(_, what)| matches!(what, Happened::Lost(_))).count() as u32;
    }
    Ok(())
}

/// A client that was lost makes a figure worthless.
pub(crate) fn lost(member: Member, why: &str) -> Failure {
    format!("client {member} was lost: {why}").into()
}

/// Processor time between two looks, in microseconds for each of `count`.
pub(crate) fn each_us(before: Usage, after: Usage, count: usize) -> f64 {
    (after.cpu - before.cpu) * 1e6 / count.max(1) as f64
}

pub(crate) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
