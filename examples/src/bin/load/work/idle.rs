//! W2: users who are online and do nothing, each with 20 buddies of whom half are online. What they occupy once their buffers
//! are gone, what their keep-alives cost, and what is given back when they leave.

use std::time::Duration;

use super::{Bench, bring_in, leave, pass};
use crate::Failure;
use crate::crowd::Who;
use crate::report::Figure;

/// Sessions drop their buffers five seconds after the last traffic; the allocator gives memory back after ten.
const BUFFERS_GONE: Duration = Duration::from_secs(20);
/// Users who were there before.
const FIRST: u32 = 1_000;
/// Deadlines of those who left are forgotten when they come due, tables are looked through once a minute, and the allocator
/// takes ten seconds.
const GIVEN_BACK: Duration = Duration::from_secs(100);
/// Two rounds of keep-alives and a little.
const KEEP_ALIVES: Duration = Duration::from_secs(52);

pub(crate) fn measure(bench: &mut Bench<'_>) -> Result<(), Failure> {
    let size = bench.args.idle;
    let server = bench.server()?;
    // Those who come and go first bring into memory what the server has once: its code, caches of its databases.
    let mut first = bench.crowd(&server, Who { first: 1, step: 2, size: FIRST })?;
    bring_in(&mut first)?;
    leave(&mut first)?;
    pass(&mut first, BUFFERS_GONE)?;
    let empty = server.usage()?;
    let mut crowd = bench.crowd(&server, Who { first: 0, step: 2, size })?;
    bring_in(&mut crowd)?;
    pass(&mut crowd, BUFFERS_GONE)?;
    let full = server.usage()?;
    let each = full.resident.saturating_sub(empty.resident) as f64 / f64::from(size) / 1024.0;
    let of = |what: &str| format!("{what}, {size} online");
    bench.note(Figure::new("W2", of("resident memory per idle user"), each, "KiB").at_most(1.0));
    bench.note(Figure::new("W2", of("resident memory in all"), full.resident as f64 / 1048576.0, "MiB"));
    pass(&mut crowd, KEEP_ALIVES)?;
    let cpu = (server.usage()?.cpu - full.cpu) / KEEP_ALIVES.as_secs_f64() * 100.0;
    bench.note(Figure::new("W2", of("keep-alives"), cpu, "% of a core"));
    leave(&mut crowd)?;
    for _ in 1..bench.args.waves {
        bring_in(&mut crowd)?;
        leave(&mut crowd)?;
    }
    pass(&mut first, GIVEN_BACK)?;
    let left = server.usage()?.resident as f64 / empty.resident as f64 * 100.0 - 100.0;
    let after = match bench.args.waves {
        1 => "resident memory after all have left, above the start, was".to_owned(),
        waves => format!("resident memory after all have come and left {waves} times, above the start, were"),
    };
    bench.note(Figure::new("W2", of(&after), left, "%").at_most(20.0));
    server.stop()
}
