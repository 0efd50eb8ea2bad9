//! A Router, Presences and a Register on memory stores, joined by in-memory links: no socket, no clock, one thread.
//! Everything runs until nothing moves any more; time passes only when a test says so.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails panics and shows its seed")]

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use xm_core::ctx::Now;
use xm_core::engine::{Engine, Output, Setup};
use xm_core::link::{AnswersOnly, Arrival, Link, LinkError, in_memory};
use xm_core::origin::Peer;
use xm_core::presence::{self, Presence, PresenceConfig};
use xm_core::register::{Register, RegisterConfig, RegisterForm, Registered, token_from_text};
use xm_core::role::Role;
use xm_core::router::{self, Router, RouterConfig};
use xm_store::memory::{MemoryMailQueue, MemoryPlacements};
use xm_store::records::{Account, Mail};
use xm_store::{MailQueue, Placements, Stores};
use xmmep::bounded::Text;
use xmmep::messages::{Gender, Profile, ResultMsg};
use xmmep::name::{Email, UserName};
use xmmep::result_code::ResultCode;
use xmmep::secret::{KdfParams, KeyHash, Salt, TicketKey, Token};
use xmmep::session::{ServerKey, ServerPublicKey, Serves};
use xmmep::types::{PresenceId, RequestId, Time, WallTime};

/// 2026-01-01.
pub(crate) const START: WallTime = WallTime(1_767_225_600_000);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3_600);
pub(crate) const SECRET: [u8; 32] = [42; 32];

pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) router: Engine<Router>,
    pub(crate) router_key: ServerPublicKey,
    pub(crate) placements: Arc<MemoryPlacements>,
    pub(crate) presences: Vec<Home>,
    pub(crate) register: Arc<Register>,
    pub(crate) mails: Arc<MemoryMailQueue>,
    /// What the Router says to Register passes here.
    pub(crate) to_register: Arc<Flaky>,
    pub(crate) output: Output,
    pub(crate) rng: StdRng,
}

/// A Presence and its link.
pub(crate) struct Home {
    pub(crate) identity: PresenceId,
    pub(crate) engine: Engine<Presence>,
    pub(crate) stores: Stores,
    pub(crate) ticket_key: TicketKey,
    /// What the Router says to this Presence passes here.
    pub(crate) inlet: Arc<Flaky>,
    /// The Router's end and the Presence's end of the link, once it was connected.
    pub(crate) link: Option<(Arc<Link>, Arc<Link>)>,
}

/// Loses the next so many frames.
pub(crate) struct Flaky {
    to: Arc<dyn Arrival>,
    pub(crate) lose: AtomicUsize,
}

impl Flaky {
    fn new(to: Arc<dyn Arrival>) -> Arc<Self> {
        Arc::new(Self { to, lose: AtomicUsize::new(0) })
    }

    pub(crate) fn lose(&self, frames: usize) {
        self.lose.store(frames, Ordering::Relaxed);
    }
}

impl Arrival for Flaky {
    fn arrive(&self, link: &Arc<Link>, frame: Bytes) {
        let lost = self.lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |lose| lose.checked_sub(1));
        if lost.is_err() {
            self.to.arrive(link, frame);
        }
    }
}

impl World {
    /// A Router and a Register. Presences come with [`World::presence`].
    pub(crate) fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        let now = Now { mono: Time::from_micros(1_000_000), wall: START };
        let placements = Arc::<MemoryPlacements>::default();
        let (mut router, router_key) = router_engine(now, placements.clone(), Serves::Lookups, &mut rng);
        let mails = Arc::<MemoryMailQueue>::default();
        let to_register = Flaky::new(Arc::new(AnswersOnly));
        let link = router_link(&mut router, Peer::Register, to_register.clone());
        let register = register_on(link, mails.clone(), &mut rng);
        let output = Output::default();
        let presences = Vec::new();
        let mut world =
            Self { now, router, router_key, placements, presences, register, mails, to_register, output, rng };
        world.advance(Duration::ZERO);
        world
    }

    /// One more Presence, connected and registered.
    pub(crate) fn with_presence(mut self) -> Self {
        let home = self.presence();
        self.connect(home).unwrap();
        self
    }

    /// One more Presence, not connected yet: its place in `presences`.
    pub(crate) fn presence(&mut self) -> usize {
        let number = u16::try_from(self.presences.len()).unwrap() + 1;
        let identity = PresenceId { cluster: 1, presence: number };
        let (key, ticket_key) =
            (ServerKey::random(&mut self.rng), TicketKey::from_bytes([number.to_be_bytes()[1]; 32]));
        let address = SocketAddr::from(([192, 0, 2, 1], 7_100 + number));
        let config = PresenceConfig::new(identity, vec![address], key.public(), ticket_key.clone());
        let stores = Stores::memory();
        let setup = Setup {
            role: Presence::new(config, stores.clone()),
            handlers: presence::handlers().shared(),
            key,
            serves: Serves::Sessions,
            tickets: Some((ticket_key.clone(), identity)),
            session: Arc::default(),
        };
        let engine = single_lane(self.now, setup, &mut self.rng);
        let inlet = Flaky::new(Arc::new(engine.outbox().clone()));
        self.presences.push(Home { identity, engine, stores, ticket_key, inlet, link: None });
        self.presences.len() - 1
    }

    /// Links a Presence to the Router and registers it.
    pub(crate) fn connect(&mut self, home: usize) -> Result<(), LinkError> {
        let Home { identity, engine, inlet, .. } = &self.presences[home];
        let router: Arc<dyn Arrival> = Arc::new(self.router.outbox().clone());
        let role = engine.role().clone();
        let (theirs, routers) = in_memory((Peer::Presence(*identity), inlet.clone()), (Peer::Router, router));
        self.router.add_link(routers.clone());
        self.router.add_link(theirs.clone());
        self.presences[home].link = Some((routers, theirs.clone()));
        let now = self.now.mono;
        self.run(async move { presence::join(&role, now, theirs).await })
    }

    /// A Presence's link breaks, and both sides notice.
    pub(crate) fn disconnect(&mut self, home: usize) {
        let (routers, theirs) = self.presences[home].link.take().expect("it was connected");
        routers.go_down();
        theirs.go_down();
        self.router.role().link_down(self.now, &routers);
        self.settle();
    }

    /// A peer that speaks to the Router by hand: its end of the link.
    pub(crate) fn peer(&mut self, peer: Peer) -> Arc<Link> {
        router_link(&mut self.router, peer, Arc::new(AnswersOnly))
    }

    /// Register is started anew: nothing in its memory survives.
    pub(crate) fn restart_register(&mut self) {
        let link = router_link(&mut self.router, Peer::Register, self.to_register.clone());
        self.register = register_on(link, self.mails.clone(), &mut self.rng);
    }

    /// Runs everything until nothing moves.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1_000 {
            self.router.flush(self.now, &mut self.output);
            self.presences.iter_mut().for_each(|home| home.engine.flush(self.now, &mut self.output));
            let tasks = self.output.tasks.len();
            self.output.tasks.retain_mut(|task| task.as_mut().poll(&mut context()).is_pending());
            let quiet = self.presences.iter().all(|home| home.engine.mailbox().is_empty());
            if quiet && self.router.mailbox().is_empty() && tasks == self.output.tasks.len() {
                return;
            }
        }
        panic!("something moves for ever");
    }

    /// Runs `work` to its end; panics if it waits for time to pass.
    pub(crate) fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        self.run_for(Duration::ZERO, work)
    }

    /// Runs `work`, and if it waits for time to pass, lets that much pass.
    pub(crate) fn run_for<T>(&mut self, patience: Duration, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        for attempt in 0..100 {
            if let Poll::Ready(result) = work.as_mut().poll(&mut context()) {
                self.settle();
                return result;
            }
            if attempt % 2 == 1 {
                self.advance(patience);
            }
            self.settle();
        }
        panic!("it waits for something that does not happen");
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, duration: Duration) {
        self.now = Now { mono: self.now.mono.after(duration), wall: self.now.wall.after(duration) };
        self.router.on_deadline(self.now, &mut self.output);
        for home in &mut self.presences {
            home.engine.on_deadline(self.now, &mut self.output);
        }
        self.settle();
    }

    /// Registers with a new request id.
    pub(crate) fn register(
        &mut self,
        name: &str,
        email: &str,
    ) -> Result<Registered, xm_core::register::RegisterRefusal> {
        let request = self.register.request_id();
        self.register_again(request, name, email)
    }

    /// Registers under a request id; no answer after 6 s counts as none.
    pub(crate) fn register_again(
        &mut self,
        request: RequestId,
        name: &str,
        email: &str,
    ) -> Result<Registered, xm_core::register::RegisterRefusal> {
        let (now, register) = (self.now, self.register.clone());
        self.run_for(Duration::from_secs(6), async move { register.register(now, request, form(name, email)).await })
    }

    /// Activates with a token; no answer after 6 s counts as none.
    pub(crate) fn activate(&mut self, token: Token) -> Result<UserName, xm_core::register::ActivateRefusal> {
        let (now, register) = (self.now, self.register.clone());
        self.run_for(Duration::from_secs(6), async move { register.activate(now, token).await })
    }

    /// Asks for the activation mail again.
    pub(crate) fn resend(&mut self, to: &str) {
        let (now, register) = (self.now, self.register.clone());
        self.run_for(Duration::from_secs(6), async move { register.resend(now, email(to)).await });
    }

    /// Registers and activates.
    pub(crate) fn member(&mut self, name: &str) -> UserName {
        let email = format!("{name}@example.org");
        self.register(name, &email).unwrap();
        let token = token_in(self.mails_to(&email).last().unwrap()).unwrap();
        self.activate(token).unwrap()
    }

    /// The mails that wait for an address, oldest first.
    pub(crate) fn mails_to(&mut self, to: &str) -> Vec<Mail> {
        let (mails, now) = (self.mails.clone(), self.now.wall);
        let due = self.run(async move { mails.due(now, 1_000).await.unwrap() });
        due.into_iter().map(|(mail, _)| mail).filter(|mail| mail.to == email(to)).collect()
    }

    /// The account of a name at a Presence.
    pub(crate) fn account(&mut self, home: usize, name: &str) -> Option<Account> {
        let accounts = self.presences[home].stores.accounts.clone();
        self.run(async move { accounts.by_name(&user(name)).await.unwrap() })
    }

    /// The Router's record of a name.
    pub(crate) fn placement(&mut self, name: &str) -> Option<xm_store::records::Placement> {
        let placements = self.placements.clone();
        self.run(async move { placements.by_name(&user(name)).await.unwrap() })
    }

    /// Whether the Router knows this token.
    pub(crate) fn is_current(&mut self, token: &Token) -> bool {
        let (placements, hash) = (self.placements.clone(), token.hash());
        self.run(async move { placements.by_token(&hash).await.unwrap().is_some() })
    }

    /// Asks the Router over `link`; says how it ended.
    pub(crate) fn ask<M>(&mut self, link: &Arc<Link>, message: &M) -> Result<(), ResultCode>
    where
        M: xmmep::message::Request<Answer = ResultMsg>,
    {
        let now = self.now.mono;
        match self.run(link.order(now, message)) {
            Ok(()) => Ok(()),
            Err(LinkError::Refused(no)) => Err(no.result),
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) fn router_engine(
    now: Now,
    placements: Arc<dyn Placements>,
    serves: Serves,
    rng: &mut StdRng,
) -> (Engine<Router>, ServerPublicKey) {
    let key = ServerKey::random(rng);
    let public = key.public();
    let role = Router::new(&RouterConfig::new(SECRET), placements, Box::new(StdRng::from_rng(rng)));
    let handlers = router::handlers().shared();
    let setup = Setup { role, handlers, key, serves, tickets: None, session: Arc::default() };
    (single_lane(now, setup, rng), public)
}

fn single_lane<R: Role>(now: Now, setup: Setup<R>, rng: &mut StdRng) -> Engine<R> {
    Engine::lanes(now.mono, setup, vec![Box::new(StdRng::from_rng(rng))]).remove(0)
}

fn router_link(router: &mut Engine<Router>, peer: Peer, to_peer: Arc<dyn Arrival>) -> Arc<Link> {
    let (theirs, routers) = in_memory((peer, to_peer), (Peer::Router, Arc::new(router.outbox().clone())));
    router.add_link(routers);
    router.add_link(theirs.clone());
    theirs
}

fn register_on(link: Arc<Link>, mails: Arc<MemoryMailQueue>, rng: &mut StdRng) -> Arc<Register> {
    let mut config = RegisterConfig::new(Text::cut("https://chat.example.org/"), SECRET);
    config.reserved = vec![user("Admin")];
    Arc::new(Register::new(link, mails, config, Box::new(StdRng::from_rng(rng))))
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

pub(crate) fn user(text: &str) -> UserName {
    UserName::new(text).unwrap()
}

pub(crate) fn email(text: &str) -> Email {
    Email::new(text).unwrap()
}

pub(crate) fn profile() -> Profile {
    Profile {
        nickname: Text::cut("Nick"),
        personal_msg: Text::cut("hello"),
        birthdate: Text::cut("2001-02-03"),
        location: Text::cut("Peking"),
        gender: Gender::NOT_STATED,
    }
}

pub(crate) fn form(name: &str, to: &str) -> RegisterForm {
    RegisterForm {
        name: user(name),
        email: email(to),
        salt: Salt([7; 16]),
        kdf: KdfParams::RECOMMENDED,
        key_hash: KeyHash::from_bytes([8; 32]),
        profile: profile(),
    }
}

/// The token in the link of a mail.
pub(crate) fn token_in(mail: &Mail) -> Option<Token> {
    let (_, rest) = mail.body.expose().split_once("https://chat.example.org/activate?token=")?;
    token_from_text(rest.lines().next()?)
}
