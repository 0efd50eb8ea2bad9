//! The roles of one process and the in-memory links between them. What the roles do is `xm-core`'s.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rand::CryptoRng;
use rand::rngs::StdRng;
use tokio::sync::Notify;
use xm_core::engine::{Engine, Setup};
use xm_core::handlers::Handlers;
use xm_core::link::{AnswersOnly, Arrival, Link, in_memory};
use xm_core::net::Clock;
use xm_core::origin::Peer;
use xm_core::outbox::Outbox;
use xm_core::presence::{self, Presence, PresenceConfig};
use xm_core::register::{ActivateRefusal, Register, RegisterConfig, RegisterForm, RegisterRefusal, Registered};
use xm_core::role::Role;
use xm_core::router::{self, Router, RouterConfig};
use xm_store::records::MailState;
use xmmep::bounded::Text;
use xmmep::name::{Email, UserName};
use xmmep::secret::{TicketKey, Token};
use xmmep::session::{ServerKey, Serves};
use xmmep::types::{PresenceId, RequestId};

use crate::config::Config;
use crate::data::Keys;
use crate::places::Places;
use crate::stores::Kept;
use crate::web::Registrations;

/// The roles, joined and ready to be served.
pub(crate) struct Roles {
    /// The Router's lane.
    pub(crate) router: Engine<Router>,
    /// The Presence's lanes.
    pub(crate) lanes: Vec<Engine<Presence>>,
    /// The Presence, to make it known to the Router over the link.
    pub(crate) presence: Arc<Presence>,
    pub(crate) to_router: Arc<Link>,
    pub(crate) register: Register,
}

impl Roles {
    pub(crate) fn new(config: &Config, keys: &Keys, places: &Places, kept: &Kept, clock: Clock, lanes: usize) -> Self {
        let identity = config.presence.identity;
        // Made from the Presence's key, so that tickets given out before a restart still open its door.
        let ticket_key = TicketKey::from_bytes(blake3::derive_key("xmd admission tickets v1", keys.presence.expose()));
        let settings = PresenceConfig {
            retention: days(config.limits.offline_days),
            texts_burst: config.limits.texts_at_once,
            texts_per_second: config.limits.texts_per_second,
            ..PresenceConfig::new(identity, places.presence.clone(), keys.presence.public(), ticket_key.clone())
        };
        let presence = Presence::new(settings, kept.stores.clone());
        let router = Router::new(&RouterConfig::new(*keys.router.expose()), kept.placements.clone(), rng());
        let tickets = Some((ticket_key, identity));
        let mut router = one(engines(clock, router, router::handlers(), (&keys.router, Serves::Lookups), None, 1));
        let mut lanes =
            engines(clock, presence.clone(), presence::handlers(), (&keys.presence, Serves::Sessions), tickets, lanes);

        let arrival = |outbox: &Outbox| Arc::new(outbox.clone()) as Arc<dyn Arrival>;
        let (to_presence, to_router) =
            in_memory((Peer::Router, arrival(router.outbox())), (Peer::Presence(identity), arrival(lanes[0].outbox())));
        let (to_register, from_register) =
            in_memory((Peer::Router, arrival(router.outbox())), (Peer::Register, Arc::new(AnswersOnly)));
        // An engine watches over the time-outs of its links. Register has none: the Router's does it for its end, too.
        [to_presence, to_register, from_register.clone()].into_iter().for_each(|link| router.add_link(link));
        lanes[0].add_link(to_router.clone());
        let register = Register::new(from_register, kept.mails.clone(), register_config(config, keys, places), rng());
        Self { router, lanes, presence, to_router, register }
    }
}

fn register_config(config: &Config, keys: &Keys, places: &Places) -> RegisterConfig {
    let reserved = config.registration.reserved.iter();
    let mut register = RegisterConfig::new(Text::cut(&places.web), *keys.register.expose());
    register.token_life = days(config.registration.token_days);
    register.reserved = reserved.filter_map(|name| UserName::new(name).ok()).collect();
    register
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 3600)
}

fn rng() -> Box<dyn CryptoRng + Send> {
    Box::new(rand::make_rng::<StdRng>())
}

fn engines<R: Role>(
    clock: Clock,
    role: Arc<R>,
    handlers: Handlers<R>,
    (key, serves): (&ServerKey, Serves),
    tickets: Option<(TicketKey, PresenceId)>,
    lanes: usize,
) -> Vec<Engine<R>> {
    let setup = Setup { role, handlers: handlers.shared(), key: key.clone(), serves, tickets, session: Arc::default() };
    Engine::lanes(clock.now().mono, setup, (0..lanes).map(|_| rng()).collect())
}

fn one<R: Role>(engines: Vec<Engine<R>>) -> Engine<R> {
    engines.into_iter().next().expect("one was asked for")
}

/// Register as the pages see it: with the time, and with the courier told that there may be a mail.
pub(crate) struct Registering {
    pub(crate) register: Register,
    pub(crate) clock: Clock,
    pub(crate) bell: Arc<Notify>,
}

#[async_trait]
impl Registrations for Registering {
    async fn register(&self, request: RequestId, form: RegisterForm) -> Result<Registered, RegisterRefusal> {
        let result = self.register.register(self.clock.now(), request, form).await;
        self.bell.notify_one();
        result
    }

    async fn activate(&self, token: Token) -> Result<UserName, ActivateRefusal> {
        self.register.activate(self.clock.now(), token).await
    }

    async fn resend(&self, email: Email) {
        self.register.resend(self.clock.now(), email).await;
        self.bell.notify_one();
    }

    async fn mail_state(&self, mail: RequestId) -> Option<MailState> {
        self.register.mail_state(mail).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the mail queue does not answer; the page says nothing about the mail");
            None
        })
    }
}
