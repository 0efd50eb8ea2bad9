//! What a client must remember to keep the delivery promise: texts on their way, texts received, ids shown. The
//! journal on disk is `file.rs`; the one in memory is here.

mod file;
mod state;

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

pub use file::{COMPACT_ABOVE, FileJournal};
pub(in crate::client) use state::Shown;
pub use state::{CONVERSATIONS_MAX, Remembered, SHOWN_MAX, Waiting};

use crate::messages::chat::{Content, TargetKind, TxtMsgFwd};
use crate::types::{MsgId, UserId, WallTime};

/// A text from somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Who sent it, as the server knows it.
    pub from: UserId,
    /// When the server got it.
    pub at: WallTime,
    /// Whether it waited on the server.
    pub from_store: bool,
    /// The text as its sender wrote it.
    pub text: Content,
}

impl From<TxtMsgFwd> for Received {
    fn from(message: TxtMsgFwd) -> Self {
        Self { from: message.from, at: message.at, from_store: message.from_store, text: message.text }
    }
}

/// One fact in a journal. New kinds go to the end: files hold their number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// A text was written; it may be on its way from now on.
    Outgoing(Content),
    /// A text has its final tick; it needs no repetition.
    Final(MsgId),
    /// A text came in. From now on it may be confirmed to the server, and is never taken in again.
    Received(Received),
    /// The application has dealt with a text that came in; its content may go, its id stays.
    Taken(UserId, MsgId),
    /// Ids that came in before, oldest first, with nothing left to show. Written when a journal is compacted.
    Shown(UserId, Vec<MsgId>),
    /// The order number last given to a text for that target. Written when a journal is compacted.
    Order(TargetKind, u64, u64),
}

/// Keeps [`Entry`]s.
///
/// To be correct:
/// - `append` returns success only when all entries will survive a crash of the process and of the machine;
/// - after an error nothing is promised about them, and no later call may succeed;
/// - a batch cut short by a crash comes back in part or not at all, but nothing after the cut does;
/// - `recover` gives back what all successful appends said, in their order.
pub trait Journal: Send {
    /// Reads back what is remembered. Called once, before the first append.
    ///
    /// # Errors
    /// If it cannot be read.
    fn recover(&mut self) -> Result<Remembered, JournalError>;

    /// Appends entries; returns once they are on stable storage. May take long: never call it on an event loop.
    ///
    /// # Errors
    /// If that failed. The journal takes nothing from then on.
    fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError>;
}

/// Why a journal cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// The operating system says no.
    #[error("{file}: {error}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        error: String,
    },
    /// Another process has it open.
    #[error("{0} is in use by another process")]
    InUse(String),
    /// It was written for another user or server, or is no journal at all.
    #[error("{file} is no journal of {owner}")]
    NotOurs {
        /// The file.
        file: String,
        /// Whose it should be.
        owner: String,
    },
    /// An append failed before.
    #[error("{0} failed before and takes nothing more")]
    Failed(String),
    /// One batch is larger than a journal can hold.
    #[error("a batch of {0} bytes is too large for a journal")]
    TooLarge(usize),
}

/// A journal that lasts as long as the process. Clones share it: keep one to play the disk of a client that crashes.
#[derive(Clone, Debug, Default)]
pub struct MemoryJournal(Arc<Mutex<Remembered>>);

impl MemoryJournal {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Journal for MemoryJournal {
    fn recover(&mut self) -> Result<Remembered, JournalError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().for_each(|entry| remembered.apply(entry.clone()));
        Ok(())
    }
}
