//! The X-Messenger servers, to embed in any Rust program.
//!
//! | start here | for |
//! |---|---|
//! | [`engine`] | the one way of a datagram: session, frame, handler, outbox, session, datagram |
//! | [`handlers`] | the registry: which function answers which message, and who may send it |
//! | [`router`], [`presence`], [`register`] | the roles |
//! | [`link`] | the seam between servers |
//! | `testing` (feature) | a simulated world: servers, clients, network and disks in virtual time |

pub mod ctx;
mod deadlines;
pub mod engine;
pub mod handlers;
mod lane;
pub mod limits;
pub mod link;
#[cfg(feature = "net")]
pub mod net;
pub mod origin;
pub mod outbox;
pub mod presence;
mod profile;
pub mod refusal;
pub mod register;
pub mod role;
pub mod router;
#[cfg(feature = "testing")]
pub mod testing;
