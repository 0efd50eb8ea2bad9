//! The server, and its part of a scene again.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::FutureExt;
use rand::SeedableRng;
use rand::rngs::StdRng;
use xm_core::ctx::Now;
use xm_core::engine::{Engine, Output, Setup};
use xm_core::presence::{self, Presence, PresenceConfig};
use xm_store::Stores;
use xmmep::secret::TicketKey;
use xmmep::session::{Config, ServerKey, Serves};
use xmmep::types::PresenceId;

use super::scene::{self, Plan};

pub const HERE: PresenceId = PresenceId { cluster: 1, presence: 1 };

/// One lane of a Presence, called as a driver calls it.
pub struct Server {
    engine: Engine<Presence>,
    out: Output,
}

/// A call of the engine by its driver.
pub enum Input {
    Datagram(Now, SocketAddr, Box<[u8]>),
    Deadline(Now),
}

impl Server {
    /// The same plan gives the same server: it answers the same datagrams with the same datagrams.
    pub fn new(plan: &Plan) -> Self {
        let mut rng = StdRng::seed_from_u64(1);
        let key = server_key();
        let mut config = PresenceConfig::new(HERE, vec![scene::SERVER], key.public(), ticket_key());
        // What is measured is the work, not how it is rationed.
        config.texts_burst = u32::MAX;
        config.status_interval = std::time::Duration::ZERO;
        let stores = Stores::memory();
        plan.fill(&stores).now_or_never().expect("stores in memory answer at once");
        let setup = Setup {
            role: Presence::new(config, stores),
            handlers: presence::handlers().shared(),
            key,
            serves: Serves::Sessions,
            tickets: Some((ticket_key(), HERE)),
            session: Arc::<Config>::default(),
        };
        let rng = Box::new(StdRng::from_rng(&mut rng));
        let engine = Engine::lanes(scene::START.mono, setup, vec![rng]).remove(0);
        Self { engine, out: Output::default() }
    }

    pub fn engine(&self) -> &Engine<Presence> {
        &self.engine
    }

    /// A datagram arrived; returns what is to be sent.
    pub fn datagram(&mut self, now: Now, from: SocketAddr, bytes: &mut [u8]) -> &mut Output {
        self.out.datagrams.clear();
        self.engine.datagram(now, from, bytes, &mut self.out);
        self.flush(now)
    }

    /// A deadline passed; returns what is to be sent.
    pub fn deadline(&mut self, now: Now) -> &mut Output {
        self.out.datagrams.clear();
        self.engine.on_deadline(now, &mut self.out);
        self.flush(now)
    }

    fn flush(&mut self, now: Now) -> &mut Output {
        self.engine.flush(now, &mut self.out);
        assert!(self.out.tasks.is_empty(), "stores in memory answer at once");
        // The driver sets its timer after each call.
        black_box(self.engine.deadline());
        &mut self.out
    }
}

pub fn server_key() -> ServerKey {
    ServerKey::from_bytes([5; 32])
}

pub fn ticket_key() -> TicketKey {
    TicketKey::from_bytes([6; 32])
}

/// What the driver of a server did in a scene, item by item.
pub struct Recording {
    plan: Plan,
    inputs: Vec<Input>,
    /// How many inputs, and datagrams out, there were when the first item began, and when each ended.
    marks: Vec<(usize, usize)>,
}

impl Recording {
    pub fn new(plan: Plan) -> Self {
        Self { plan, inputs: Vec::new(), marks: Vec::new() }
    }

    pub fn keep(&mut self, input: Input) {
        self.inputs.push(input);
    }

    /// An item ends here, and the next one begins; the first call ends the preparations.
    pub fn mark(&mut self, sent: usize) {
        self.marks.push((self.inputs.len(), sent));
    }

    /// Items recorded.
    pub fn items(&self) -> usize {
        self.marks.len() - 1
    }

    /// Datagrams in and out, per item.
    pub fn datagrams(&self) -> (f64, f64) {
        let (first, last) = (self.marks[0], self.marks[self.items()]);
        let inputs = self.inputs[first.0..last.0].iter();
        let received = inputs.filter(|input| matches!(input, Input::Datagram(..))).count();
        let per_item = |count: usize| count as f64 / self.items() as f64;
        (per_item(received), per_item(last.1 - first.1))
    }

    /// A server that has got as far as the first item.
    pub fn player(&self) -> Player<'_> {
        let server = Server::new(&self.plan);
        let buffer = Vec::with_capacity(xmmep::session::DATAGRAM_MAX);
        let mut player = Player { recording: self, server, buffer, at: 0, items: 0, sent: 0 };
        player.go_to(self.marks[0]);
        player
    }
}

/// A server to which a recorded scene happens again.
pub struct Player<'a> {
    recording: &'a Recording,
    server: Server,
    buffer: Vec<u8>,
    at: usize,
    items: usize,
    sent: usize,
}

impl Player<'_> {
    /// Plays the next items.
    pub fn play(&mut self, items: usize) {
        self.items += items;
        self.go_to(self.recording.marks[self.items]);
    }

    /// Plays all items.
    pub fn play_all(&mut self) {
        self.play(self.recording.items());
    }

    fn go_to(&mut self, (end, sent): (usize, usize)) {
        for input in &self.recording.inputs[self.at..end] {
            let out = match input {
                Input::Datagram(now, from, bytes) => {
                    // The engine decrypts in place; a driver has it in a buffer of its own, too.
                    self.buffer.clear();
                    self.buffer.extend_from_slice(bytes);
                    self.server.datagram(*now, *from, &mut self.buffer)
                }
                Input::Deadline(now) => self.server.deadline(*now),
            };
            self.sent += out.datagrams.len();
        }
        self.at = end;
        assert_eq!(self.sent, sent, "datagrams out: the scene went otherwise than recorded");
    }
}
