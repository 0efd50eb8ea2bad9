//! The client machine against scripted servers, in memory and in virtual time.
#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod chat;
mod crash;
mod driver;
mod login;
mod reconnect;
mod requests;
mod script;
mod view;
mod world;
