//! The servers of a world: real roles on their lanes, joined by links whose frames take a moment. What reaches them, and
//! when, is decided in `world.rs`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_core::CryptoRng;
use xm_store::Stores;
use xm_store::memory::MemoryPlacements;
use xmmep::secret::TicketKey;
use xmmep::session::{Config, ServerKey, Serves};
use xmmep::types::{PresenceId, Time};

use super::disk::{Disk, on_disk};
use super::tasks::Tasks;
use crate::ctx::Now;
use crate::engine::{Datagram, Engine, Output, Setup};
use crate::handlers::Handlers;
use crate::link::{Arrival, Link, LinkError, SendFrame, in_memory};
use crate::origin::Peer;
use crate::outbox::Outbox;
use crate::presence::{self, Presence, PresenceConfig};
use crate::role::Role;
use crate::router::{self, Router, RouterConfig};

/// A frame on its way between two servers.
pub(super) struct InFlight {
    pub(super) link: Arc<Link>,
    pub(super) frame: Bytes,
    pub(super) to: Outbox,
}

/// Where the frames of all links go first.
#[derive(Clone, Default)]
pub(super) struct Cables(Arc<Mutex<Vec<InFlight>>>);

impl Cables {
    /// Frames sent since the last call.
    pub(super) fn take(&self) -> Vec<InFlight> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One direction of a link.
struct Cable {
    cables: Cables,
    to: Outbox,
}

impl Arrival for Cable {
    fn arrive(&self, link: &Arc<Link>, frame: Bytes) {
        let frame = InFlight { link: link.clone(), frame, to: self.to.clone() };
        self.cables.0.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
    }
}

/// A role on its lanes, with the work it has under way.
pub(super) struct Lanes<R: Role> {
    pub(super) engines: Vec<Engine<R>>,
    pub(super) tasks: Tasks,
}

impl<R: Role> Lanes<R> {
    fn new(now: Time, setup: Setup<R>, lanes: usize, rng: &mut StdRng) -> Self {
        let rngs = (0..lanes).map(|_| Box::new(StdRng::from_rng(rng)) as Box<dyn CryptoRng + Send>).collect();
        Self { engines: Engine::lanes(now, setup, rngs), tasks: Tasks::default() }
    }

    pub(super) fn outbox(&self) -> &Outbox {
        self.engines[0].outbox()
    }

    pub(super) fn datagram(
        &mut self,
        now: Now,
        lane: usize,
        from: SocketAddr,
        bytes: &mut [u8],
        out: &mut Vec<Datagram>,
    ) {
        let mut output = Output::default();
        let lanes = self.engines.len();
        let engine = &mut self.engines[lane % lanes];
        engine.datagram(now, from, bytes, &mut output);
        engine.flush(now, &mut output);
        self.collect(output, out);
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.engines.iter().filter_map(Engine::deadline).min()
    }

    pub(super) fn on_deadline(&mut self, now: Now, out: &mut Vec<Datagram>) {
        let mut output = Output::default();
        for engine in &mut self.engines {
            if engine.deadline().is_some_and(|deadline| deadline <= now.mono) {
                engine.on_deadline(now, &mut output);
            }
        }
        self.collect(output, out);
    }

    /// Lets letter boxes and woken tasks have their turn until nothing is left to do; whether there was anything.
    pub(super) fn settle(&mut self, now: Now, out: &mut Vec<Datagram>) -> bool {
        let mut any = false;
        loop {
            let mut output = Output::default();
            let mut busy = self.tasks.run_woken();
            for engine in &mut self.engines {
                if !engine.mailbox().is_empty() {
                    busy = true;
                    engine.flush(now, &mut output);
                }
            }
            self.collect(output, out);
            if !busy {
                return any;
            }
            any = true;
        }
    }

    pub(super) fn shut_down(&mut self, now: Now, out: &mut Vec<Datagram>) {
        let mut output = Output::default();
        self.engines.iter_mut().for_each(|engine| engine.shut_down(now, &mut output));
        self.collect(output, out);
    }

    fn collect(&mut self, mut output: Output, out: &mut Vec<Datagram>) {
        out.append(&mut output.datagrams);
        output.tasks.into_iter().for_each(|task| self.tasks.spawn(task));
    }
}

/// Makes the handlers of a Presence; called once for each start.
pub type MakeHandlers = Box<dyn Fn() -> Handlers<Presence> + Send>;

/// The Router of the world.
pub(super) struct RouterNode {
    pub(super) address: SocketAddr,
    pub(super) key: ServerKey,
    pub(super) placements: Arc<MemoryPlacements>,
    pub(super) lanes: Lanes<Router>,
}

impl RouterNode {
    pub(super) fn new(now: Time, address: SocketAddr, rng: &mut StdRng) -> Self {
        let key = ServerKey::random(rng);
        Self::on(Arc::default(), key, now, address, rng)
    }

    /// Dies and is there again, with what its store has.
    pub(super) fn restart(&mut self, now: Time, rng: &mut StdRng) {
        *self = Self::on(self.placements.clone(), self.key.clone(), now, self.address, rng);
    }

    fn on(placements: Arc<MemoryPlacements>, key: ServerKey, now: Time, address: SocketAddr, rng: &mut StdRng) -> Self {
        let role = Router::new(&RouterConfig::new([7; 32]), placements.clone(), Box::new(StdRng::from_rng(rng)));
        let setup = Setup {
            role,
            handlers: router::handlers().shared(),
            key: key.clone(),
            serves: Serves::Lookups,
            tickets: None,
            session: Arc::default(),
        };
        Self { address, key, placements, lanes: Lanes::new(now, setup, 1, rng) }
    }
}

/// Where a Presence's frames go before it has a link.
struct Nowhere;

impl SendFrame for Nowhere {
    fn send(&self, _: Bytes) -> Result<(), LinkError> {
        Err(LinkError::Down)
    }
}

/// A Presence and what outlives it.
pub(super) struct PresenceNode {
    pub(super) address: SocketAddr,
    pub(super) key: ServerKey,
    pub(super) identity: PresenceId,
    pub(super) config: PresenceConfig,
    pub(super) session: Arc<Config>,
    pub(super) stores: Stores,
    pub(super) database: Disk,
    pub(super) disk: Disk,
    pub(super) handlers: MakeHandlers,
    pub(super) lane_count: usize,
    pub(super) running: Option<Running>,
}

/// A Presence that runs.
pub(super) struct Running {
    pub(super) role: Arc<Presence>,
    pub(super) lanes: Lanes<Presence>,
    /// Its end of the link to the Router, and the Router's.
    links: (Arc<Link>, Arc<Link>),
}

impl PresenceNode {
    pub(super) fn ticket_key(rng: &mut StdRng) -> TicketKey {
        let mut bytes = [0; 32];
        rand_core::Rng::fill_bytes(rng, &mut bytes);
        TicketKey::from_bytes(bytes)
    }

    /// Starts it and lets it make itself known to the Router.
    pub(super) fn start(&mut self, now: Now, router: &mut RouterNode, cables: &Cables, rng: &mut StdRng) {
        let role = Presence::new(self.config.clone(), on_disk(&self.stores, &self.database, &self.disk));
        let setup = Setup {
            role: role.clone(),
            handlers: (self.handlers)().shared(),
            key: self.key.clone(),
            serves: Serves::Sessions,
            tickets: Some((self.config.ticket_key.clone(), self.identity)),
            session: self.session.clone(),
        };
        let lanes = Lanes::new(now.mono, setup, self.lane_count, rng);
        let nobody = Link::new(Peer::Router, Box::new(Nowhere));
        self.running = Some(Running { role, lanes, links: (nobody.clone(), nobody) });
        self.link(now, router, cables);
    }

    /// Gives a running Presence a new link to the Router, over which it makes itself known.
    pub(super) fn link(&mut self, now: Now, router: &mut RouterNode, cables: &Cables) {
        let Some(running) = &mut self.running else { return };
        running.links.0.go_down();
        running.links.1.go_down();
        let cable = |to: &Outbox| Arc::new(Cable { cables: cables.clone(), to: to.clone() }) as Arc<dyn Arrival>;
        running.links = in_memory(
            (Peer::Presence(self.identity), cable(running.lanes.outbox())),
            (Peer::Router, cable(router.lanes.outbox())),
        );
        running.lanes.engines[0].add_link(running.links.0.clone());
        router.lanes.engines[0].add_link(running.links.1.clone());
        let (joining, link) = (running.role.clone(), running.links.0.clone());
        running.lanes.tasks.spawn(Box::pin(async move {
            if let Err(error) = presence::join(&joining, now.mono, link).await {
                tracing::warn!(%error, "a Presence of the simulated world could not join its Router");
            }
        }));
    }

    /// Ends it, as a power cut would: nothing is said, nothing is finished. What is on its stores stays.
    pub(super) fn kill(&mut self, now: Now, router: &RouterNode) {
        let Some(running) = self.running.take() else { return };
        running.links.0.go_down();
        running.links.1.go_down();
        router.lanes.engines[0].role().link_down(now, &running.links.1);
    }
}
