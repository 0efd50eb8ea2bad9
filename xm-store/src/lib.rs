//! What an X-Messenger server keeps: small storage traits and their implementations.
//!
//! | trait | holds | kept by |
//! |---|---|---|
//! | [`Placements`] | unique names and addresses, activation, where each user lives | Router |
//! | [`Accounts`] | users with key hash and profile | Presence |
//! | [`Contacts`] | buddies, groups, requests, blocks | Presence |
//! | [`Offline`] | messages that wait for their recipients | Presence |
//! | [`MailQueue`] | mails that wait for a relay | Register |
//!
//! [`memory`] implements all of them in a readable way; what is feature-gated is listed in the manifest. A store of your
//! own implements one trait and proves itself with one line of the conformance suite (feature `testing`).
//!
//! Nothing here knows a message of the protocol, opens a socket or reads a clock: ids and names come from
//! [`xmmep`], times are arguments.

pub mod accounts;
pub mod contacts;
pub mod error;
pub mod mail_queue;
pub mod memory;
pub mod offline;
pub mod placements;
pub mod records;
#[cfg(feature = "sql")]
pub mod sql;
#[cfg(feature = "testing")]
pub mod testing;

use std::sync::Arc;

pub use accounts::Accounts;
pub use contacts::Contacts;
pub use error::{OpenError, RosterError, RosterRefusal, StoreError};
pub use mail_queue::MailQueue;
pub use offline::Offline;
pub use placements::Placements;

/// What a Presence keeps. One `Arc` each, so that backends mix: accounts in SQL, offline messages in a log.
#[derive(Clone)]
pub struct Stores {
    /// The users.
    pub accounts: Arc<dyn Accounts>,
    /// Their relations.
    pub contacts: Arc<dyn Contacts>,
    /// The messages that wait for them.
    pub offline: Arc<dyn Offline>,
}

impl Stores {
    /// Everything in memory, empty.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            accounts: Arc::new(memory::MemoryAccounts::default()),
            contacts: Arc::new(memory::MemoryContacts::default()),
            offline: Arc::new(memory::MemoryOffline::default()),
        }
    }
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stores")
    }
}
