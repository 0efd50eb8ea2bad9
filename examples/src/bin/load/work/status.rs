//! W4: users with 20 buddies online change their status. Counts the notifications that arrive, and at a fixed rate how long
//! each takes.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use xmmep::frame;
use xmmep::messages::status::StatusChangedNotify;
use xmmep::types::{Status, UserId};

use super::beside::Host;
use super::chat::LOAD;
use super::{Bench, bring_in, each_us, lost, micros, settle};
use crate::Failure;
use crate::crowd::{Crowd, Member, Who};
use crate::report::{Figure, percentile};
use crate::user::Happened;

/// Who is online.
const USERS: u32 = 4_000;
/// A server tells a user's buddies at most once in a second; a little longer, so that no change is merged.
const BETWEEN_CHANGES: Duration = Duration::from_millis(1_050);
/// Notifications under way.
const IN_FLIGHT: usize = 2_000;

pub(crate) fn measure(bench: &mut Bench<'_>, kept: &mut Option<Host>) -> Result<(), Failure> {
    let mut host = Host::begin(bench, kept)?;
    let mut crowd = bench.crowd(&host.server, Who { first: 0, step: 1, size: USERS })?;
    // Before the others come: when these have rested, too, a notification costs twice as much, however few are beside them.
    host.keep_alive()?;
    bring_in(&mut crowd)?;
    let watchers = bench.population.buddies;
    // Those in the middle, all of whose buddies are there.
    let changing = watchers / 2..USERS - watchers / 2;
    let mut round = Round { changing, watchers: watchers as usize, number: 0 };

    let (before, since) = (host.server.usage()?, Instant::now());
    let arrived = closed(&mut crowd, &mut round, bench.seconds())?;
    let cpu = each_us(before, host.server.usage()?, arrived);
    let rate = arrived as f64 / since.elapsed().as_secs_f64();
    let of = |what: &str| format!("{what}, {}", bench.surroundings());
    let figures = [
        Figure::new("W4", of("status notification delivered, server CPU"), cpu, "µs").at_most(3.0),
        Figure::new("W4", of("status notifications delivered"), rate, "/s"),
    ];
    figures.into_iter().for_each(|figure| bench.note(figure));

    host.keep_alive()?;
    settle(&mut crowd)?;
    let changes = rate / f64::from(watchers) * f64::from(LOAD) / 100.0;
    let mut took = open(&mut crowd, &mut round, changes, bench.seconds())?;
    let of = |what: &str| {
        format!("status change until a buddy has it, {what}, {LOAD} % of that rate, {}", bench.surroundings())
    };
    let figures = [
        Figure::new("W4", of("p50"), percentile(&mut took, 50) / 1e3, "ms"),
        Figure::new("W4", of("p99"), percentile(&mut took, 99) / 1e3, "ms"),
    ];
    figures.into_iter().for_each(|figure| bench.note(figure));
    host.end(&mut crowd, kept)
}

/// Who changes the status, one after the other, again and again.
struct Round {
    changing: Range<Member>,
    /// Notifications each change makes.
    watchers: usize,
    /// Changes made so far.
    number: usize,
}

impl Round {
    /// Whose turn it is.
    fn member(&self) -> Member {
        self.changing.start + (self.number % self.changing.len()) as Member
    }

    /// The next change, to another status than the one of the round before.
    fn change(&mut self) -> Bytes {
        let status = [Status::BUSY, Status::AWAY, Status::ONLINE][self.number / self.changing.len() % 3];
        self.number += 1;
        frame::notice(&StatusChangedNotify { status })
    }
}

/// Keeps up to [`IN_FLIGHT`] notifications under way for some time; returns how many arrived.
fn closed(crowd: &mut Crowd<'_>, round: &mut Round, time: Duration) -> Result<usize, Failure> {
    let mut last = vec![None::<Instant>; USERS as usize];
    let (mut expected, mut arrived, mut happened, start) = (0, 0, Vec::new(), Instant::now());
    while start.elapsed() < time || arrived < expected {
        while start.elapsed() < time && expected - arrived < IN_FLIGHT {
            let member = round.member();
            let last = last.get_mut(member as usize).ok_or("nobody there")?;
            if last.is_some_and(|at| at.elapsed() < BETWEEN_CHANGES) {
                break;
            }
            *last = Some(Instant::now());
            crowd.send(member, round.change())?;
            expected += round.watchers;
        }
        crowd.turn(Duration::from_millis(1), &mut happened)?;
        for (member, what) in happened.drain(..) {
            arrived += usize::from(notified(member, what)?.is_some());
        }
        give_up(start, time, arrived, expected)?;
    }
    Ok(arrived)
}

/// Makes so many changes in a second for some time, whatever the server does; returns how long each notification took, in
/// microseconds, from when the change was to be made.
fn open(crowd: &mut Crowd<'_>, round: &mut Round, rate: f64, time: Duration) -> Result<Vec<u32>, Failure> {
    let count = (rate * time.as_secs_f64()) as usize;
    let pause = Duration::from_secs_f64(1.0 / rate);
    let mut began = vec![Duration::ZERO; USERS as usize];
    let (mut made, mut took, mut happened, start) = (0, Vec::new(), Vec::new(), Instant::now());
    while took.len() < count * round.watchers {
        while made < count && start.elapsed() >= pause * made as u32 {
            let member = round.member();
            *began.get_mut(member as usize).ok_or("nobody there")? = pause * made as u32;
            crowd.send(member, round.change())?;
            made += 1;
        }
        // No sleep: waking up takes longer than what is measured.
        crowd.turn(Duration::ZERO, &mut happened)?;
        for (member, what) in happened.drain(..) {
            let Some(changed) = notified(member, what)?.and_then(|user| crowd.member(user)) else { continue };
            let began = began.get(changed as usize).ok_or("nobody there")?;
            took.push(micros(start.elapsed().saturating_sub(*began)));
        }
        give_up(start, time, took.len(), count * round.watchers)?;
    }
    Ok(took)
}

/// Whose status a notification is about.
fn notified(member: Member, what: Happened) -> Result<Option<UserId>, Failure> {
    match what {
        Happened::Notified(user) => Ok(Some(user)),
        Happened::Lost(why) => Err(lost(member, &why)),
        _ => Ok(None),
    }
}

/// An error if notifications are missing long after the end.
fn give_up(start: Instant, time: Duration, arrived: usize, expected: usize) -> Result<(), Failure> {
    if start.elapsed() > time * 3 && arrived < expected {
        return Err(format!("{arrived} of {expected} notifications arrived").into());
    }
    Ok(())
}
