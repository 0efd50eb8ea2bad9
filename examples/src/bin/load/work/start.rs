//! W6: from the start of the process to the first accepted login; the size of the program; the memory of an empty server.

use std::time::Duration;

use super::{Bench, log_in};
use crate::Failure;
use crate::crowd::Who;
use crate::report::Figure;
use crate::server::Server;

pub(crate) fn measure(bench: &mut Bench<'_>) -> Result<(), Failure> {
    bench.place.let_nothing_wait()?;
    let server = bench.server()?;
    let mut crowd = bench.crowd(&server, Who { first: 0, step: 1, size: 1 })?;
    log_in(&mut crowd, &[0])?;
    let took = server.since.elapsed().as_secs_f64() * 1e3;
    bench.note(Figure::new("W6", "start to the first login", took, "ms").at_most(100.0));
    server.stop()?;
    let size = std::fs::metadata(&bench.xmd)?.len() as f64 / 1_048_576.0;
    bench.note(Figure::new("W6", "size of the program", size, "MiB"));
    let empty = tempfile::tempdir()?;
    let config = bench.place.configure(&empty.path().join("data"), bench.args.lanes)?;
    let server = Server::start(&bench.xmd, &config, &bench.args.server_cores)?;
    std::thread::sleep(Duration::from_secs(2));
    let resident = server.usage()?.resident as f64 / 1_048_576.0;
    bench.note(Figure::new("W6", "resident memory of an empty server", resident, "MiB"));
    server.stop()
}
