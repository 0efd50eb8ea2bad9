//! The simulated world: servers, clients and the network between them, in one thread, without a socket or a clock.
//! A dev-dependency for whoever writes a client, a handler or a store (feature `testing`).
//!
//! Time is virtual: a minute takes milliseconds. All chance comes from one seed: a run that failed can be watched again.
//! The roles are the real ones, on real lanes, joined by links; the clients are the real machine of `xmmep::client`.
//! Only the network, the disks, the price of Argon2id and the people are made up.
//!
//! ```
//! use std::time::Duration;
//! use xm_core::testing::World;
//! use xmmep::messages::chat::Tick;
//! use xmmep::types::Status;
//!
//! let mut world = World::new(7);
//! let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
//! world.befriend(ann, bob);
//! world.log_in(ann);
//! world.log_in(bob);
//! world.run(Duration::from_millis(50));
//! assert_eq!(world.client(ann).sees(world.client(bob).user), Status::ONLINE);
//!
//! // Three in ten datagrams are lost, and it does not matter.
//! world.wire.faults.loss = 30;
//! let hello = world.say(ann, bob, "hello");
//! world.run_until(Duration::from_secs(60), |world| world.client(ann).tick(hello) == Tick::DELIVERED);
//! assert_eq!(world.client(bob).shown(), ["hello"]);
//!
//! // The Presence dies and comes back; so do its clients, by themselves.
//! world.wire.heal();
//! world.kill_presence(0);
//! world.say(ann, bob, "are you there?");
//! world.run(Duration::from_secs(10));
//! world.start_presence(0);
//! world.run(Duration::from_secs(120));
//! assert_eq!(world.client(bob).shown(), ["hello", "are you there?"]);
//! world.oracle().assert_kept();
//! ```

mod client;
mod disk;
mod oracle;
mod probe;
mod servers;
mod tasks;
mod wire;
mod world;

pub use client::{Client, ClientId};
pub use disk::{Disk, on_disk};
pub use oracle::Oracle;
pub use probe::{Probe, ProbeId};
pub use servers::MakeHandlers;
pub use wire::{Crossing, Cut, Faults, Filter, Node, Wire};
pub use world::{Plan, World};
