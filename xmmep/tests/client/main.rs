//! The client machine against scripted servers, in memory and in virtual time.
#![cfg(feature = "client")]

mod chat;
mod crash;
mod login;
mod reconnect;
mod requests;
mod world;
