//! XMMEP, the message protocol of X-Messenger.
//!
//! | module | holds |
//! |---|---|
//! | [`types`], [`bounded`], [`name`], [`secret`] | ids, times, bounded text and lists, names, secrets: bytes become types once, here |
//! | [`frame`], [`message`], [`mod@messages`], [`catalog`] | what travels: a header and one postcard struct per code |
//! | [`session`] | the secure session: handshake, records, reliable delivery; no socket and no clock |
//! | `stream` (feature `tokio`) | frames on a byte stream, with a limit that rises after authentication |
//! | `client` (feature `client`) | the client: a machine without a socket, and one task with a socket that drives it |

mod block;
pub mod bounded;
pub mod catalog;
#[cfg(feature = "client")]
pub mod client;
pub mod error;
pub mod frame;
pub mod message;
pub mod messages;
pub mod name;
pub mod result_code;
pub mod sample;
pub mod secret;
pub mod session;
#[cfg(feature = "tokio")]
pub mod stream;
pub mod types;

#[doc(hidden)]
pub use bytes;
