//! The world: virtual time, one event heap, and everybody in it. Who they are lives in `servers.rs`, `client.rs` and
//! `probe.rs`; what the network does to datagrams in `wire.rs`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use xm_store::Stores;
use xm_store::memory::MemoryOffline;
use xm_store::records::Quotas;
use xmmep::client::{DeriveKey, Entry};
use xmmep::session::{Config, ServerKey};
use xmmep::types::{PresenceId, Time, WallTime};

use super::client::{Client, ClientId};
use super::disk::Disk;
use super::oracle::Oracle;
use super::probe::{Probe, ProbeId};
use super::servers::{Cables, InFlight, MakeHandlers, PresenceNode, RouterNode};
use super::wire::{Crossing, Node, Wire};
use crate::ctx::Now;
use crate::engine::Datagram;
use crate::handlers::Handlers;
use crate::link::Arrival;
use crate::presence::{self, Presence, PresenceConfig};

/// How long a frame takes from one server to another.
const LINK_DELAY: Duration = Duration::from_micros(300);

/// How long a client's program takes to write its journal.
const JOURNAL_DELAY: Duration = Duration::from_millis(2);

/// How long a client's program takes to derive a login key.
const DERIVE_DELAY: Duration = Duration::from_millis(15);

/// Happenings at one instant before the world is taken to be stuck.
const STANDSTILL: u32 = 100_000;

/// What a world is made of. Change fields, then call [`World::with`].
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// Presences.
    pub presences: usize,
    /// Lanes of each Presence.
    pub lanes: usize,
    /// Changes the configuration of each Presence before its first start.
    pub configure: Box<dyn Fn(&mut PresenceConfig)>,
    /// Makes the handlers of each Presence at each start.
    pub handlers: MakeHandlers,
    /// Limits of the offline store.
    pub quotas: Quotas,
    /// How sessions behave, on both sides.
    pub session: Config,
}

impl Plan {
    /// One Presence with two lanes, and nothing changed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            presences: 1,
            lanes: 2,
            configure: Box::new(|_| {}),
            handlers: Box::new(presence::handlers),
            quotas: Quotas::default(),
            session: Config::default(),
        }
    }

    /// With messages of the test's own: `|handlers| handlers.from_client(play_note)`.
    #[must_use]
    pub fn handlers(self, add: impl Fn(Handlers<Presence>) -> Handlers<Presence> + Send + 'static) -> Self {
        Self { handlers: Box::new(move || add(presence::handlers())), ..self }
    }
}

/// Something that will happen.
pub(super) enum Happening {
    Datagram(Crossing),
    Frame(InFlight),
    /// A client's program has written its journal, or is about to: then with the entries.
    Written {
        client: ClientId,
        life: u64,
        entries: Option<Vec<Entry>>,
    },
    Derived {
        client: ClientId,
        life: u64,
        work: DeriveKey,
    },
}

/// A Router, Presences, clients and the network between them, in one thread and virtual time. The same seed and the same
/// calls give the same run, datagram for datagram.
pub struct World {
    /// The network.
    pub wire: Wire,
    /// What the wall clocks show more than time has passed; change it to make them jump.
    pub wall_offset_ms: u64,
    pub(super) seed: u64,
    pub(super) now: Time,
    pub(super) rng: StdRng,
    pub(super) agenda: BTreeMap<(Time, u64), Happening>,
    entered: u64,
    pub(super) router: RouterNode,
    pub(super) presences: Vec<PresenceNode>,
    cables: Cables,
    pub(super) clients: Vec<Client>,
    pub(super) probes: Vec<Probe>,
    pub(super) oracle: Oracle,
    pub(super) session: Arc<Config>,
}

impl World {
    /// A world as [`Plan::new`] has it.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(Plan::new(seed))
    }

    /// A world as planned. Its servers run and know each other.
    #[must_use]
    pub fn with(plan: Plan) -> Self {
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let mut wire = Wire::new(&mut rng);
        let router_address = address([198, 51, 100, 1], 7_100);
        wire.settle_at(Node::Router, router_address);
        let session = Arc::new(plan.session.clone());
        let mut world = Self {
            wire,
            wall_offset_ms: 1_790_000_000_000,
            seed: plan.seed,
            now: Time::from_micros(1),
            router: RouterNode::new(Time::from_micros(1), router_address, &mut rng),
            rng,
            agenda: BTreeMap::new(),
            entered: 0,
            presences: Vec::new(),
            cables: Cables::default(),
            clients: Vec::new(),
            probes: Vec::new(),
            oracle: Oracle::default(),
            session,
        };
        let handlers = Arc::new(std::sync::Mutex::new(plan.handlers));
        for number in 0..plan.presences {
            let handlers = handlers.clone();
            let make: MakeHandlers =
                Box::new(move || (handlers.lock().unwrap_or_else(std::sync::PoisonError::into_inner))());
            world.add_presence(number, plan.lanes, &*plan.configure, plan.quotas, make);
            world.start_presence(number);
        }
        world.run(Duration::from_millis(10));
        world
    }

    fn add_presence(
        &mut self,
        number: usize,
        lanes: usize,
        configure: &dyn Fn(&mut PresenceConfig),
        quotas: Quotas,
        handlers: MakeHandlers,
    ) {
        let here = address([198, 51, 100, u8::try_from(10 + number).unwrap_or(u8::MAX)], 7_200);
        self.wire.settle_at(Node::Presence(number), here);
        let key = ServerKey::random(&mut self.rng);
        let identity = PresenceId { cluster: 1, presence: u16::try_from(number + 1).unwrap_or(u16::MAX) };
        let ticket_key = PresenceNode::ticket_key(&mut self.rng);
        let mut config = PresenceConfig::new(identity, vec![here], key.public(), ticket_key);
        configure(&mut config);
        self.presences.push(PresenceNode {
            address: here,
            key,
            identity,
            config,
            session: self.session.clone(),
            stores: Stores { offline: Arc::new(MemoryOffline::with_quotas(quotas)), ..Stores::memory() },
            database: Disk::default(),
            disk: Disk::default(),
            handlers,
            lane_count: lanes,
            running: None,
        });
    }

    /// The seed, to print when something fails.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { mono: self.now, wall: WallTime(self.wall_offset_ms + self.now.as_micros() / 1_000) }
    }

    /// A number below `end`, for tests that let chance decide what happens next.
    pub fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end.max(1))
    }

    /// What everybody wrote and was shown.
    #[must_use]
    pub fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    /// A Presence, while it runs.
    #[must_use]
    pub fn presence(&self, number: usize) -> Option<&Arc<Presence>> {
        self.presences[number].running.as_ref().map(|running| &running.role)
    }

    /// Where a Presence is.
    #[must_use]
    pub fn presence_address(&self, number: usize) -> SocketAddr {
        self.presences[number].address
    }

    /// Where the Router is.
    #[must_use]
    pub fn router_address(&self) -> SocketAddr {
        self.router.address
    }

    /// The Router.
    #[must_use]
    pub fn router(&self) -> &Arc<crate::router::Router> {
        self.router.lanes.engines[0].role()
    }

    /// The database of a Presence: accounts and contacts.
    #[must_use]
    pub fn database(&self, number: usize) -> &Disk {
        &self.presences[number].database
    }

    /// The disk of a Presence: offline messages.
    #[must_use]
    pub fn disk(&self, number: usize) -> &Disk {
        &self.presences[number].disk
    }

    /// What a Presence keeps, past its disk: for a test to look and to prepare.
    #[must_use]
    pub fn stores(&self, number: usize) -> &Stores {
        &self.presences[number].stores
    }

    /// Sessions a Presence has, on all lanes.
    #[must_use]
    pub fn sessions(&self, number: usize) -> usize {
        let running = self.presences[number].running.as_ref();
        running.map_or(0, |running| running.lanes.engines.iter().map(crate::engine::Engine::sessions).sum())
    }

    /// Work of a Presence that waits for something.
    #[must_use]
    pub fn tasks(&self, number: usize) -> usize {
        self.presences[number].running.as_ref().map_or(0, |running| running.lanes.tasks.len())
    }

    /// Starts a Presence on what its stores hold.
    pub fn start_presence(&mut self, number: usize) {
        let now = self.now();
        let node = &mut self.presences[number];
        if node.running.is_none() {
            node.start(now, &mut self.router, &self.cables, &mut self.rng);
            self.settle();
        }
    }

    /// Kills a Presence, as a power cut would. Its stores keep what they have.
    pub fn kill_presence(&mut self, number: usize) {
        let now = self.now();
        self.presences[number].kill(now, &self.router);
        self.settle();
    }

    /// Kills the Router and starts it again on what its store has. The Presences notice at once and make new links.
    pub fn restart_router(&mut self) {
        let now = self.now();
        self.router.restart(now.mono, &mut self.rng);
        for node in &mut self.presences {
            node.link(now, &mut self.router, &self.cables);
        }
        self.settle();
    }

    /// Stops a Presence in order: its clients are told.
    pub fn stop_presence(&mut self, number: usize) {
        let now = self.now();
        let mut out = Vec::new();
        if let Some(running) = &mut self.presences[number].running {
            running.lanes.shut_down(now, &mut out);
        }
        self.send_all(Node::Presence(number), out);
        self.settle();
        self.presences[number].kill(now, &self.router);
        self.settle();
    }

    /// A datagram arrives somewhere, now, from wherever the test says.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.deliver(Crossing { at: self.now, from, to, bytes: bytes.to_vec() });
        self.settle();
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        self.run_to(end, |_| false);
        self.now = end;
        self.advance_disks();
        self.settle();
    }

    /// Lets time pass until `enough`, but no longer than `at_most`; whether it came to that.
    pub fn run_until(&mut self, at_most: Duration, enough: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now.after(at_most);
        self.run_to(end, enough)
    }

    fn run_to(&mut self, end: Time, mut enough: impl FnMut(&Self) -> bool) -> bool {
        let mut standing = 0;
        self.settle();
        loop {
            if enough(self) {
                return true;
            }
            let Some(next) = self.next_time().filter(|next| *next <= end) else { return false };
            standing = if next > self.now { 0 } else { standing + 1 };
            assert!(standing < STANDSTILL, "time stands still at {:?}, seed {}", self.now, self.seed);
            self.now = self.now.max(next);
            self.step();
        }
    }

    fn next_time(&self) -> Option<Time> {
        let agenda = self.agenda.keys().next().map(|(at, _)| *at);
        let presences = self.presences.iter().filter_map(|node| {
            let running = node.running.as_ref()?.lanes.deadline();
            running.into_iter().chain(node.disk.deadline()).chain(node.database.deadline()).min()
        });
        let clients = self.clients.iter().filter_map(|client| client.machine.as_ref()?.deadline());
        let probes = self.probes.iter().filter_map(Probe::deadline);
        agenda.into_iter().chain(self.router.lanes.deadline()).chain(presences).chain(clients).chain(probes).min()
    }

    /// Does everything that is due now.
    fn step(&mut self) {
        self.advance_disks();
        self.settle();
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let happening = entry.remove();
            self.happen(happening);
            self.settle();
        }
        let now = self.now();
        let mut out = Vec::new();
        self.router.lanes.on_deadline(now, &mut out);
        self.send_all(Node::Router, out);
        for number in 0..self.presences.len() {
            let mut out = Vec::new();
            if let Some(running) = &mut self.presences[number].running {
                running.lanes.on_deadline(now, &mut out);
            }
            self.send_all(Node::Presence(number), out);
        }
        self.settle();
        for number in 0..self.clients.len() {
            self.client_deadline(ClientId(number));
        }
        for number in 0..self.probes.len() {
            self.probe_deadline(ProbeId(number));
        }
        self.settle();
    }

    fn advance_disks(&mut self) {
        self.presences.iter().flat_map(|node| [&node.database, &node.disk]).for_each(|disk| disk.advance(self.now));
    }

    pub(super) fn enter(&mut self, at: Time, happening: Happening) {
        self.entered += 1;
        self.agenda.insert((at, self.entered), happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Datagram(crossing) => self.deliver(crossing),
            Happening::Frame(InFlight { link, frame, to }) => to.arrive(&link, frame),
            Happening::Written { client, life, entries } => self.written(client, life, entries),
            Happening::Derived { client, life, work } => self.derived(client, life, &work),
        }
    }

    fn deliver(&mut self, crossing: Crossing) {
        let Crossing { from, to, mut bytes, .. } = crossing;
        let now = self.now();
        let Some(node) = self.wire.at(to) else { return };
        let mut out = Vec::new();
        match node {
            Node::Router => self.router.lanes.datagram(now, 0, from, &mut bytes, &mut out),
            Node::Presence(number) => {
                let stray = self.wire.faults.stray;
                let lane = if self.wire.chance(stray) { self.wire.below(usize::MAX) } else { lane_of(from) };
                if let Some(running) = &mut self.presences[number].running {
                    running.lanes.datagram(now, lane, from, &mut bytes, &mut out);
                }
            }
            Node::Client(id) => self.client_datagram(id, from, &mut bytes),
            Node::Probe(id) => self.probe_datagram(id, from, &mut bytes),
        }
        self.send_all(node, out);
    }

    fn send_all(&mut self, node: Node, datagrams: Vec<Datagram>) {
        for Datagram { to, bytes } in datagrams {
            self.send(node, to, bytes.to_vec());
        }
    }

    /// A datagram leaves a node.
    pub(super) fn send(&mut self, node: Node, to: SocketAddr, bytes: Vec<u8>) {
        let from = match node {
            Node::Router => self.router.address,
            Node::Presence(number) => self.presences[number].address,
            Node::Client(ClientId(number)) => self.clients[number].address,
            Node::Probe(ProbeId(number)) => self.probes[number].address,
        };
        let mut arrivals = Vec::new();
        self.wire.carry(node, Crossing { at: self.now, from, to, bytes }, |at, crossing| arrivals.push((at, crossing)));
        for (at, crossing) in arrivals {
            self.enter(at, Happening::Datagram(crossing));
        }
    }

    /// Lets servers finish what they have at hand.
    pub(super) fn settle(&mut self) {
        let now = self.now();
        loop {
            let mut out = Vec::new();
            let mut busy = self.router.lanes.settle(now, &mut out);
            self.send_all(Node::Router, out);
            for number in 0..self.presences.len() {
                let mut out = Vec::new();
                if let Some(running) = &mut self.presences[number].running {
                    busy |= running.lanes.settle(now, &mut out);
                }
                self.send_all(Node::Presence(number), out);
            }
            for frame in self.cables.take() {
                self.enter(self.now.after(LINK_DELAY), Happening::Frame(frame));
            }
            if !busy {
                return;
            }
        }
    }

    /// Work of a client's program begins: it takes its time, and a crash may come before it is done or right after.
    pub(super) fn begin_writing(&mut self, client: ClientId, life: u64, entries: Vec<Entry>) {
        let at = self.now.after(JOURNAL_DELAY);
        let entries = if self.wire.chance(50) { Some(entries) } else { self.write(client, entries) };
        self.enter(at, Happening::Written { client, life, entries });
    }

    pub(super) fn begin_deriving(&mut self, client: ClientId, life: u64, work: DeriveKey) {
        self.enter(self.now.after(DERIVE_DELAY), Happening::Derived { client, life, work });
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("seed", &self.seed).field("now", &self.now).finish_non_exhaustive()
    }
}

pub(super) fn address(ip: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port)
}

/// The lane the kernel chooses for a sender: any, but always the same.
fn lane_of(from: SocketAddr) -> usize {
    let IpAddr::V4(ip) = from.ip() else { return 0 };
    ip.octets().iter().map(|octet| usize::from(*octet)).sum::<usize>() + usize::from(from.port())
}
