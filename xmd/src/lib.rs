//! The parts of `xmd`, the X-Messenger daemon, as a library for its own binary and tests. To run servers in a program of
//! your own take `xm-core`: nothing here is meant for a second daemon.

pub mod backup;
pub mod check;
pub mod cli;
pub mod config;
pub mod data;
mod databases;
pub mod db;
pub mod demo;
pub mod log;
pub mod mail;
mod memory;
mod password;
mod places;
mod roles;
pub mod run;
pub mod server;
mod stores;
pub mod threads;
pub mod user;
pub mod web;
mod witness;
