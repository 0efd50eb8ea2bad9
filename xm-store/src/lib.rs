//! What an X-Messenger server keeps: small storage traits and their implementations.
//!
//! | trait | holds | kept by |
//! |---|---|---|
//! | [`Placements`] | unique names and addresses, activation, where each user lives | Router |
//! | [`Accounts`] | users with key hash and profile | Presence |
//! | [`Contacts`] | buddies, groups, requests, blocks | Presence |
//! | [`Search`] | users, to be found by each other | Presence |
//! | [`Offline`] | messages that wait for their recipients | Presence |
//! | [`MailQueue`] | mails that wait for a relay | Register |
//!
//! | implementation | feature | keeps |
//! |---|---|---|
//! | [`memory`] | – | everything, until the process ends: the readable reference |
//! | `sql` | `sql` | everything, in SQLite, MariaDB, MySQL or PostgreSQL; a commit that returned survives a power cut |
//! | `offline_log` | `offline-log` | offline messages, in files on local disk, one flush for all who wait |
//!
//! They mix: [`Stores`] has one `Arc` per trait. A store of your own implements one trait and proves itself with one line
//! of the conformance suite (`testing`, feature of the same name).
//!
//! Every call may be repeated with the same arguments, whatever error came before: what was done is not done again, but for
//! counting a failed login. That is how callers get over a [`StoreError`] that leaves open whether something happened.
//!
//! Nothing here knows a message of the protocol or asks what time it is: ids and names come from [`xmmep`], times are
//! arguments.
//!
//! A message that waits while its recipient is away, and what becomes of it:
//!
//! ```
//! # async fn example() -> Result<(), xm_store::StoreError> {
//! use xm_store::offline::Appended;
//! use xm_store::records::{Level, Parcel, ParcelId, Place};
//! use xm_store::Stores;
//! use xmmep::types::{MsgId, UserId, WallTime};
//!
//! let (ann, bob, now) = (UserId(1), UserId(2), WallTime(1_790_000_000_000));
//! let stores = Stores::memory();
//! let hello = Parcel { from: ann, id: MsgId([7; 16]), sent: now, body: b"hello".to_vec() };
//!
//! // The sender did not hear the answer and tries again: the same message waits once.
//! let first = stores.offline.append(bob, vec![hello.clone()]).await?;
//! let again = stores.offline.append(bob, vec![hello.clone()]).await?;
//! let Appended::Stored(place) = first[0] else { panic!("there is room") };
//! assert_eq!(again, [Appended::Already(place, Level::Stored)]);
//!
//! // Bob comes back, reads, and confirms.
//! assert_eq!(stores.offline.page(bob, Place::START, 64, 64 * 1024).await?, [(place, hello)]);
//! let id = ParcelId { from: ann, id: MsgId([7; 16]) };
//! stores.offline.settle(bob, &[id], Level::Received, now).await?;
//!
//! // Nothing waits, and Ann can still ask how far it came.
//! assert_eq!(stores.offline.summary(bob).await?.messages, 0);
//! assert_eq!(stores.offline.level(bob, id).await?, Some(Level::Received));
//! # Ok(())
//! # }
//! # let mut example = Box::pin(example());
//! # let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
//! # assert_eq!(example.as_mut().poll(context), std::task::Poll::Ready(Ok(())), "the memory stores never wait");
//! ```

pub mod accounts;
pub mod contacts;
pub mod error;
pub mod folding;
pub mod mail_queue;
pub mod memory;
pub mod offline;
#[cfg(feature = "offline-log")]
pub mod offline_log;
pub mod placements;
pub mod records;
pub mod search;
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
pub use search::Search;

/// What a Presence keeps. One `Arc` each, so that backends mix: accounts in SQL, offline messages in a log.
#[derive(Clone)]
pub struct Stores {
    /// The users.
    pub accounts: Arc<dyn Accounts>,
    /// Their relations.
    pub contacts: Arc<dyn Contacts>,
    /// Who finds whom: the same users and blocks.
    pub search: Arc<dyn Search>,
    /// The messages that wait for them.
    pub offline: Arc<dyn Offline>,
}

impl Stores {
    /// Everything in memory, empty.
    #[must_use]
    pub fn memory() -> Self {
        let accounts = Arc::new(memory::MemoryAccounts::default());
        let contacts = Arc::new(memory::MemoryContacts::default());
        Self {
            search: Arc::new(memory::MemorySearch::new(accounts.clone(), contacts.clone())),
            accounts,
            contacts,
            offline: Arc::new(memory::MemoryOffline::default()),
        }
    }
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stores")
    }
}
