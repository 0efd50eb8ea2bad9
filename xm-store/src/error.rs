//! What can go wrong in a store. Answers a caller must branch on are not errors: each trait has its own types for them.

use std::path::PathBuf;

use xmmep::types::GroupId;

/// A call that gave no answer.
///
/// Every call of this crate may be repeated with the same arguments, whatever error came first: what was already
/// done is not done again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store did not answer in time or lost its connection. Whether the change was made is unknown until the
    /// same call, repeated, succeeds. Answer `SERVER_NOT_READY` and try again later.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// Too many calls wait already. Nothing was done. Answer `SERVER_BUSY` and try again later.
    #[error("the store is busy: {0}")]
    Busy(String),
    /// Somebody else changed the same data at the same time, again and again. Nothing was done; the same call, repeated,
    /// sees what they did.
    #[error("others change the same data: {0}")]
    Conflict(String),
    /// Another owner has taken this identity over. Nothing was done; the caller must stop acting as the owner.
    #[error("another owner has taken over")]
    Fenced,
    /// What was read is not what any version of this code wrote. Nothing was done. Somebody must look.
    #[error("the stored data is damaged: {0}")]
    Corrupt(String),
    /// The database refuses what it should take. Nothing was done. Somebody must look.
    #[error("the database refuses: {0}")]
    Rejected(String),
    /// No space is left. Nothing was done; the store works again by itself once there is space.
    #[error("no space is left: {0}")]
    Full(String),
    /// The disk failed while making data durable. The store stays stopped until it is opened again and reads back
    /// what the disk really has: a retry might succeed and hide a loss.
    #[error("the store has stopped: {0}")]
    Stopped(String),
}

/// A store that did not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Another process (or another part of this one) has it open.
    #[error("{} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// A later version of this program wrote it.
    #[error("{} was written by a newer version: {found}", .path.display())]
    Newer {
        /// Where.
        path: PathBuf,
        /// What was found.
        found: String,
    },
    /// Something else is in its place.
    #[error("{} is no X-Messenger store: {why}", .path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What gave it away.
        why: String,
    },
    /// The file or the database server cannot be reached, read or written.
    #[error("cannot open {}: {why}", .path.display())]
    Unreachable {
        /// Where.
        path: PathBuf,
        /// What the operating system or the database said.
        why: String,
    },
}

/// A change of a roster that was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store works; the change is not possible. Nothing was done.
    #[error(transparent)]
    Refused(#[from] RosterRefusal),
}

/// Why a change of a roster is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterRefusal {
    /// The list is as long as it may get.
    #[error("the list is full: {0} entries")]
    LimitReached(usize),
    /// Nobody is his own buddy, or blocks himself.
    #[error("one cannot do that to oneself")]
    Oneself,
    /// That user is not on the buddy list.
    #[error("no such buddy")]
    NoSuchBuddy,
    /// Nobody of that id has asked, or the asker has taken the request back.
    #[error("no such request")]
    NoSuchRequest,
    /// There is no group of that id.
    #[error("no group {0}")]
    NoSuchGroup(GroupId),
    /// Another group has that name.
    #[error("a group of that name exists")]
    GroupNameTaken,
    /// The default group is neither renamed nor deleted.
    #[error("the default group stays as it is")]
    DefaultGroup,
}
