//! W4: users with 20 buddies online change their status. Counts the notifications that arrive.

use std::time::{Duration, Instant};

use xmmep::frame;
use xmmep::messages::status::StatusChangedNotify;
use xmmep::types::Status;

use super::beside::Host;
use super::{Bench, bring_in, each_us, lost};
use crate::Failure;
use crate::crowd::Who;
use crate::report::Figure;
use crate::user::Happened;

/// Who is online.
const USERS: u32 = 4_000;
/// A server tells a user's buddies at most once in a second; a little longer, so that no change is merged.
const BETWEEN_CHANGES: Duration = Duration::from_millis(1_050);
/// Notifications under way.
const IN_FLIGHT: usize = 2_000;

pub(crate) fn measure<'a>(bench: &mut Bench<'a>, kept: &mut Option<Host<'a>>) -> Result<(), Failure> {
    let mut host = Host::begin(bench, kept)?;
    let mut crowd = bench.crowd(&host.server, Who { first: 0, step: 1, size: USERS })?;
    // Before the others come: when these have rested, too, a notification costs twice as much, however few are beside them.
    host.keep_alive()?;
    bring_in(&mut crowd)?;
    let buddies = bench.population.buddies;
    // Those in the middle, all of whose buddies are there.
    let changing = buddies / 2..USERS - buddies / 2;
    let mut last = vec![None::<Instant>; USERS as usize];
    let mut round = changing.clone().cycle().peekable();
    let (mut expected, mut arrived, mut changes, mut happened) = (0_usize, 0_usize, 0_usize, Vec::new());
    let (before, start) = (host.server.usage()?, Instant::now());
    while start.elapsed() < bench.seconds() || arrived < expected {
        while start.elapsed() < bench.seconds()
            && expected - arrived < IN_FLIGHT
            && let Some(member) = round.next_if(|member| {
                last.get(*member as usize).copied().flatten().is_none_or(|at| at.elapsed() >= BETWEEN_CHANGES)
            })
        {
            let at = last.get_mut(member as usize).ok_or("nobody there")?;
            *at = Some(Instant::now());
            let status = [Status::BUSY, Status::AWAY, Status::ONLINE][changes / changing.len() % 3];
            crowd.send(member, frame::notice(&StatusChangedNotify { status }))?;
            expected += buddies as usize;
            changes += 1;
        }
        crowd.turn(Duration::from_millis(1), &mut happened)?;
        for (member, what) in happened.drain(..) {
            match what {
                Happened::Notified => arrived += 1,
                Happened::Lost(why) => return Err(lost(member, &why)),
                _ => {}
            }
        }
        if start.elapsed() > bench.seconds() * 3 {
            return Err(format!("{arrived} of {expected} notifications arrived").into());
        }
    }
    let cpu = each_us(before, host.server.usage()?, arrived);
    let rate = arrived as f64 / start.elapsed().as_secs_f64();
    let of = |what: &str| format!("{what}, {}", bench.surroundings());
    let figures = [
        Figure::new("W4", of("status notification delivered, server CPU"), cpu, "µs").at_most(3.0),
        Figure::new("W4", of("status notifications delivered"), rate, "/s"),
    ];
    figures.into_iter().for_each(|figure| bench.note(figure));
    host.end(&mut crowd, kept)
}
