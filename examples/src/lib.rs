//! A Router and a Presence inside your own program: what `embed.rs` and the tests share. Copy it and change it.

use std::net::SocketAddr;
use std::sync::Arc;

use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use xm_core::engine::{Engine, Setup};
use xm_core::handlers::Handlers;
use xm_core::link::{Arrival, in_memory};
use xm_core::net::{Clock, udp};
use xm_core::origin::Peer;
use xm_core::presence::{self, Presence, PresenceConfig};
use xm_core::role::Role;
use xm_core::router::{self, Router, RouterConfig};
use xm_store::contacts::{Answer, Ask};
use xm_store::placements::Registration;
use xm_store::records::{NewAccount, NewPlacement, Person, Profile};
use xm_store::{Placements, Stores};
use xmmep::bounded::Text;
use xmmep::client::{DerivedKey, ServerAddress};
use xmmep::name::{Email, UserName};
use xmmep::secret::{TicketKey, Token};
use xmmep::session::{ServerKey, Serves};
use xmmep::types::{GroupId, PresenceId, RequestId, WallTime};

/// Which Presence it is; a cluster has several.
pub const IDENTITY: PresenceId = PresenceId { cluster: 1, presence: 1 };

/// A server that runs until [`stop`](Self::stop).
pub struct Embedded {
    /// What clients are given.
    pub address: ServerAddress,
    /// The Presence, for your own code.
    pub presence: Arc<Presence>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// Starts a Router and a Presence with these stores and handlers on free ports of loopback. `configure` may change what
/// the Presence does by default.
///
/// # Errors
/// If a socket cannot be bound, or the two roles do not come together.
pub async fn embed(
    placements: Arc<dyn Placements>,
    stores: Stores,
    handlers: Handlers<Presence>,
    configure: impl FnOnce(&mut PresenceConfig),
) -> Result<Embedded, Box<dyn std::error::Error>> {
    let (clock, tasks, shutdown) = (Clock::start(), TaskTracker::new(), CancellationToken::new());
    let loopback: SocketAddr = "127.0.0.1:0".parse()?;
    let rng = || Box::new(rand::make_rng::<StdRng>());
    let (router_key, presence_key) = (ServerKey::random(&mut rng()), ServerKey::random(&mut rng()));
    let ticket_key = TicketKey::from_bytes(*ServerKey::random(&mut rng()).expose());
    let [router_socket, presence_socket] =
        [udp::bind_lanes(loopback, 1)?.remove(0), udp::bind_lanes(loopback, 1)?.remove(0)];
    let address = ServerAddress::new("127.0.0.1", router_socket.local_addr()?.port(), router_key.public().0)?;

    let mut config =
        PresenceConfig::new(IDENTITY, vec![presence_socket.local_addr()?], presence_key.public(), ticket_key.clone());
    configure(&mut config);
    let presence = Presence::new(config, stores);
    let router = Router::new(&RouterConfig::new(*router_key.expose()), placements, rng());
    let mut router_engine = engine(&clock, router, router::handlers(), router_key, Serves::Lookups, None);
    let tickets = Some((ticket_key, IDENTITY));
    let mut presence_engine = engine(&clock, presence.clone(), handlers, presence_key, Serves::Sessions, tickets);

    let arrival = |outbox: &xm_core::outbox::Outbox| Arc::new(outbox.clone()) as Arc<dyn Arrival>;
    let (at_router, at_presence) = in_memory(
        (Peer::Router, arrival(router_engine.outbox())),
        (Peer::Presence(IDENTITY), arrival(presence_engine.outbox())),
    );
    router_engine.add_link(at_router);
    presence_engine.add_link(at_presence.clone());
    tasks.spawn(udp::serve(router_engine, router_socket, clock, shutdown.clone().cancelled_owned()));
    tasks.spawn(udp::serve(presence_engine, presence_socket, clock, shutdown.clone().cancelled_owned()));
    presence::join(&presence, clock.now().mono, at_presence).await?;
    tasks.close();
    Ok(Embedded { address, presence, tasks, shutdown })
}

/// One lane of a role.
fn engine<R: Role>(
    clock: &Clock,
    role: Arc<R>,
    handlers: Handlers<R>,
    key: ServerKey,
    serves: Serves,
    tickets: Option<(TicketKey, PresenceId)>,
) -> Engine<R> {
    let setup = Setup { role, handlers: handlers.shared(), key, serves, tickets, session: Arc::default() };
    let rngs: Vec<Box<dyn rand::CryptoRng + Send>> = vec![Box::new(rand::make_rng::<StdRng>())];
    Engine::lanes(clock.now().mono, setup, rngs).remove(0)
}

impl Embedded {
    /// Closes all sessions and waits until what was promised is stored.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.wait().await;
    }
}

/// Makes an account straight in the stores: what Register, Router, a mail and the user do otherwise.
///
/// # Errors
/// If a store fails or has the name already.
pub async fn enrol(
    placements: &dyn Placements,
    stores: &Stores,
    name: &UserName,
    key: &DerivedKey,
) -> Result<Person, Box<dyn std::error::Error>> {
    let mut rng = rand::make_rng::<StdRng>();
    let (salt, kdf, key_hash) = (key.salt, key.params, key.key.hash());
    let email = Email::new(&format!("{name}@example.org"))?;
    let token = Token::random(&mut rng).hash();
    let (request, profile) = (RequestId::random(&mut rng), Profile::default());
    let expires = WallTime(u64::MAX);
    let new = NewPlacement {
        request,
        name: name.clone(),
        email: email.clone(),
        salt,
        kdf,
        key_hash: key_hash.clone(),
        token: token.clone(),
        expires,
        profile: profile.clone(),
    };
    let Registration::Registered(user) = placements.register(new, WallTime(0)).await? else {
        return Err(format!("the name {name} is taken").into());
    };
    placements.begin_activation(&token, IDENTITY, WallTime(0)).await?;
    let created = WallTime(0);
    stores.accounts.create(NewAccount { user, name: name.clone(), email, key_hash, profile, created }).await?;
    placements.finish_activation(user).await?;
    Ok(Person { user, name: name.clone() })
}

/// One asks to have the other as a buddy, the other accepts and adds back.
///
/// # Errors
/// If a store fails.
pub async fn befriend(stores: &Stores, asks: &Person, accepts: &Person) -> Result<(), Box<dyn std::error::Error>> {
    let (me, buddy) = (asks.clone(), accepts.clone());
    let (group, at) = (GroupId::DEFAULT, WallTime(0));
    stores.contacts.ask(Ask { me, buddy, display_name: Text::default(), group, greeting: Text::default(), at }).await?;
    stores.contacts.answer(accepts, asks.user, Answer::AcceptAndAdd, at).await?;
    Ok(())
}

/// The code on the pages is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/EMBEDDING.md")]
struct Embedding;

/// The code on the pages is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
