//! The client: log in, keep the roster current, send and receive texts under the delivery promise, come back after any loss.
//!
//! [`Machine`] is all of it without a socket, a clock or a file: datagrams, times and finished work go in, datagrams,
//! [`Event`]s and [`Work`] come out. [`Client`] drives one with tokio: one task, one UDP socket.
//!
//! | file | holds |
//! |---|---|
//! | `machine.rs`, `connect.rs`, `online.rs` | the machine: its inputs; from the Router to a login; what follows |
//! | `login.rs`, `roster.rs`, `requests.rs`, `texts.rs` | what it remembers, each without knowing of the others |
//! | `journal/` | what survives a crash |
//! | `driver.rs`, `task.rs` | the tokio side: what applications hold; the task with the socket |
//! | `address.rs`, `options.rs`, `event.rs`, `error.rs` | the words it speaks with its user |

mod address;
mod connect;
mod driver;
mod error;
mod event;
mod journal;
mod login;
mod machine;
mod online;
mod options;
mod requests;
mod roster;
mod task;
mod texts;

pub use address::{BadServerAddress, HOST_MAX, ServerAddress};
pub use connect::{LOGIN_PATIENCE, MOVE_ON_AFTER, PAUSE_MAX, PAUSE_MIN, STEADY_AFTER};
pub use driver::{BACKLOG_MAX, Client, ClientOptions, EVENTS_MAX, Events};
pub use error::{ConnectError, End, Refusal, RequestError, TextError};
pub use event::{Datagram, Env, Event, Output, Welcome, Work};
pub use journal::{
    COMPACT_ABOVE, CONVERSATIONS_MAX, Entry, FileJournal, Journal, JournalError, MemoryJournal, Received, Remembered,
    SHOWN_MAX, Waiting,
};
pub use login::LIST_MAX;
pub use machine::Machine;
pub use online::LOGOUT_PATIENCE;
pub use options::{Credentials, DeriveKey, DerivedKey, Durability, FirstLogin, Options, Password};
pub use requests::{REQUEST_PATIENCE, REQUESTS_MAX, RequestHandle};
pub use roster::{ASKING_MAX, Asking, BuddyView, Roster};
pub use texts::{HOLD_MIN, LAZY_MAX, QUEUE_MAX, TICK_PATIENCE, Target, UNTICKED_MAX};
