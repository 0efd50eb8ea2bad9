//! Everything in memory: the readable reference, for tests, simulations and trials. Nothing outlives the process.
//!
//! Each future is ready at its first poll and nothing depends on hash order, so a simulation on these stores replays
//! exactly. No quota or limit differs from the durable stores.

mod accounts;
mod contacts;
mod mail_queue;
mod offline;
mod placements;
mod search;

use std::sync::{Mutex, MutexGuard};

pub use accounts::MemoryAccounts;
pub use contacts::MemoryContacts;
pub use mail_queue::MemoryMailQueue;
pub use offline::MemoryOffline;
pub use placements::MemoryPlacements;
pub use search::MemorySearch;

/// Locks, also after a panic elsewhere: every change below is complete before anything in it can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
