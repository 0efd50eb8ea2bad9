//! Threads: on a single core everything shares one; with more, each lane has its own, and the rest those of tokio.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Cores this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What the program runs on. On a single core threads would only take turns, and wake each other for it.
///
/// # Errors
/// If the system has no threads left.
pub fn runtime() -> io::Result<Runtime> {
    let mut builder = if cores() == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    builder.enable_all().build()
}
