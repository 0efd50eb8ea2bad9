//! The wire: what becomes of a datagram on its way, as a seed says. When it arrives is decided here, that it does so in
//! `world.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use xmmep::types::Time;

/// Crossings remembered for a failure's report.
const RECENT_MAX: usize = 200;

/// How bad the wire is. Chances are in per cent and hold for each datagram by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Lost.
    pub loss: u32,
    /// Arrives twice.
    pub duplicates: u32,
    /// A damaged copy arrives, too: cut, lengthened, or with a bit flipped.
    pub damage: u32,
    /// Five seconds late.
    pub late: u32,
    /// Arrives at another lane than the one the kernel would choose for its sender.
    pub stray: u32,
    /// How long the way takes, at least.
    pub delay: Duration,
    /// And at most this much longer, so that datagrams overtake each other.
    pub jitter: Duration,
}

impl Faults {
    /// A good network: nothing is lost, 10 ms each way.
    pub const NONE: Self = Self {
        loss: 0,
        duplicates: 0,
        damage: 0,
        late: 0,
        stray: 0,
        delay: Duration::from_millis(10),
        jitter: Duration::ZERO,
    };
}

impl Default for Faults {
    fn default() -> Self {
        Self::NONE
    }
}

/// Somebody in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// The Router.
    Router,
    /// A Presence, from 0.
    Presence(usize),
    /// A client.
    Client(super::ClientId),
    /// A probe.
    Probe(super::ProbeId),
}

/// Which way is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cut {
    /// Nobody hears the node.
    Outbound,
    /// The node hears nobody.
    Inbound,
}

/// A datagram that left.
#[derive(Clone, PartialEq, Eq)]
pub struct Crossing {
    /// When it left.
    pub at: Time,
    /// Whence, as the receiver sees it.
    pub from: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
    /// The datagram.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Crossing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.bytes.first().copied().unwrap_or_default();
        let (at, len) = (self.at.as_micros(), self.bytes.len());
        write!(f, "{at:>12} µs  {} → {}  type {kind}, {len} bytes", self.from, self.to)
    }
}

/// Decides on each datagram; true lets it pass.
pub type Filter = Box<dyn FnMut(&Crossing) -> bool + Send>;

/// The network between everybody.
pub struct Wire {
    /// How bad it is now.
    pub faults: Faults,
    /// A test's own say, asked before the faults.
    pub filter: Option<Filter>,
    /// Keeps every datagram that leaves in [`recorded`](Self::recorded).
    pub record: bool,
    /// What left while [`record`](Self::record) was set, lost or not.
    pub recorded: Vec<Crossing>,
    rng: StdRng,
    homes: BTreeMap<SocketAddr, Node>,
    cuts: BTreeSet<(Node, Cut)>,
    bytes_to: BTreeMap<SocketAddr, u64>,
    trace: DefaultHasher,
    recent: VecDeque<Crossing>,
}

impl Wire {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        Self {
            faults: Faults::NONE,
            filter: None,
            record: false,
            recorded: Vec::new(),
            rng: StdRng::from_rng(rng),
            homes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            bytes_to: BTreeMap::new(),
            trace: DefaultHasher::new(),
            recent: VecDeque::new(),
        }
    }

    /// From now on `address` is where `node` is; nobody is where it was before.
    pub(super) fn settle_at(&mut self, node: Node, address: SocketAddr) {
        self.homes.retain(|_, home| *home != node);
        self.homes.insert(address, node);
    }

    /// Who is there.
    pub(super) fn at(&self, address: SocketAddr) -> Option<Node> {
        self.homes.get(&address).copied()
    }

    /// Cuts one way of a node's line.
    pub fn cut(&mut self, node: Node, way: Cut) {
        self.cuts.insert((node, way));
    }

    /// Mends both ways of a node's line.
    pub fn mend(&mut self, node: Node) {
        self.cuts.retain(|(cut, _)| *cut != node);
    }

    /// Mends everything: no faults, no cuts, no filter. What is still on its way arrives.
    pub fn heal(&mut self) {
        self.faults = Faults { delay: self.faults.delay, ..Faults::NONE };
        self.cuts.clear();
        self.filter = None;
    }

    /// Bytes that left for `address` so far, lost or not.
    #[must_use]
    pub fn bytes_to(&self, address: SocketAddr) -> u64 {
        self.bytes_to.get(&address).copied().unwrap_or_default()
    }

    /// A number that is the same for two runs only if the same datagrams left at the same times.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// The datagrams that left last, for a failure's report.
    pub fn recent(&self) -> impl Iterator<Item = &Crossing> {
        self.recent.iter()
    }

    /// A chance of so many per cent, drawn from the wire's own seed.
    pub(super) fn chance(&mut self, per_cent: u32) -> bool {
        per_cent > 0 && self.rng.random_range(0..100) < per_cent
    }

    /// A number below `end`, drawn from the wire's own seed.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end.max(1))
    }

    /// A datagram leaves; `arrives` gets whatever comes out at the other end, and when.
    pub(super) fn carry(&mut self, node: Node, crossing: Crossing, mut arrives: impl FnMut(Time, Crossing)) {
        crossing.at.hash(&mut self.trace);
        (crossing.from, crossing.to).hash(&mut self.trace);
        crossing.bytes.hash(&mut self.trace);
        *self.bytes_to.entry(crossing.to).or_default() += crossing.bytes.len() as u64;
        if self.record {
            self.recorded.push(crossing.clone());
        }
        self.recent.push_back(crossing.clone());
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        let passes = self.filter.as_mut().is_none_or(|filter| filter(&crossing));
        let inbound = self.at(crossing.to).is_some_and(|to| self.cuts.contains(&(to, Cut::Inbound)));
        if !passes || inbound || self.cuts.contains(&(node, Cut::Outbound)) || self.chance(self.faults.loss) {
            return;
        }
        if self.chance(self.faults.duplicates) {
            arrives(self.arrival(crossing.at), crossing.clone());
        }
        if self.chance(self.faults.damage) {
            let bytes = self.damage(&crossing.bytes);
            arrives(self.arrival(crossing.at), Crossing { bytes, ..crossing.clone() });
        }
        arrives(self.arrival(crossing.at), crossing);
    }

    fn arrival(&mut self, left: Time) -> Time {
        let jitter = u64::try_from(self.faults.jitter.as_micros()).unwrap_or(u64::MAX);
        let jitter = if jitter == 0 { 0 } else { self.rng.random_range(0..=jitter) };
        let late = if self.chance(self.faults.late) { Duration::from_secs(5) } else { Duration::ZERO };
        left.after(self.faults.delay + Duration::from_micros(jitter) + late)
    }

    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut damaged = bytes.to_vec();
        match self.below(3) {
            0 => damaged.truncate(self.below(bytes.len())),
            1 => damaged.resize(bytes.len() + 1 + self.below(40), 0),
            _ => {
                let bit = self.below(bytes.len() * 8);
                if let Some(byte) = damaged.get_mut(bit / 8) {
                    *byte ^= 1 << (bit % 8);
                }
            }
        }
        damaged
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("faults", &self.faults).field("cuts", &self.cuts).finish_non_exhaustive()
    }
}
