//! Register's web pages: registration, activation, "send it again", health. What registering means is behind
//! [`Registrations`]; which mail goes out when is `mail.rs`.
//!
//! ```text
//! GET  /          the form                        POST /register   checks, Argon2id, then 303 to /sent?mail=…
//! GET  /sent      where the activation mail is
//! GET  /activate  a page with a button            POST /activate   spends the token
//! GET  /resend    asks for the address            POST /resend     the same answer whoever asks
//! GET  /healthz   200 while the process lives     GET  /readyz     503 before it serves and once it stops
//! ```

mod form;
mod hashing;
mod limit;
mod pages;
mod serve;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::csrf::CsrfLayer;
use tower_http::timeout::TimeoutLayer;
use xm_core::register::{ActivateRefusal, RegisterForm, RegisterRefusal, Registered};
use xm_store::records::MailState;
use xmmep::name::{Email, UserName};
use xmmep::secret::Token;
use xmmep::types::{RequestId, Time};

use crate::config::RegistrationMode;
use hashing::Hashing;
use limit::Limiter;

pub use form::{GUESSES_MIN, PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN};
pub use serve::serve;

/// Bytes of a request body. The longest honest form is under 2 KiB, encoded.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// From the first byte of a request's body to the last of its answer. The Router answers within 5 s or not at all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the pages ask of Register. Names and addresses that are taken, tokens that are spent: decided there.
#[async_trait]
pub trait Registrations: Send + Sync + 'static {
    /// Registers a user and sends the activation mail. An address that is taken succeeds as well: its owner gets a
    /// mail saying that somebody tried. The same `request` with the same form may be repeated.
    async fn register(&self, request: RequestId, form: RegisterForm) -> Result<Registered, RegisterRefusal>;

    /// Spends a token of an activation mail.
    async fn activate(&self, token: Token) -> Result<UserName, ActivateRefusal>;

    /// Sends a new activation mail, if an account waits for one and the last is old enough. Nobody is told whether.
    async fn resend(&self, email: Email);

    /// Where a mail is.
    async fn mail_state(&self, mail: RequestId) -> Option<MailState>;
}

/// What the pages need to know beside [`Registrations`].
#[derive(Clone)]
pub struct Settings {
    /// What this site is called from outside, without a slash at the end; its origin may send forms.
    pub public_url: String,
    /// What people give their client: `xm://host:port/key`.
    pub client_address: String,
    /// Whether the last address of X-Forwarded-For is the visitor's.
    pub behind_proxy: bool,
    /// Who may register.
    pub mode: RegistrationMode,
    /// For the text of the pages.
    pub token_days: u32,
    /// 32 bytes nobody else knows, the same over restarts: names of requests are made from it, so that a form that is sent
    /// twice registers once.
    pub secret: [u8; 32],
}

/// The site: its settings, Register, and what it holds against floods.
pub struct Site {
    settings: Settings,
    register: Arc<dyn Registrations>,
    hashing: Hashing,
    registrations: Limiter,
    resends: Limiter,
    activations: Limiter,
    request_key: [u8; 32],
    ready: AtomicBool,
    started: Instant,
}

impl Site {
    /// A site that is not ready yet.
    #[must_use]
    pub fn new(settings: Settings, register: Arc<dyn Registrations>) -> Arc<Self> {
        Arc::new(Self {
            register,
            hashing: Hashing::new(),
            // The default limits of a registration form that is open to everybody.
            registrations: Limiter::new(6, Duration::from_secs(30)),
            // Register itself limits each account; this keeps one visitor from going through many addresses.
            resends: Limiter::new(6, Duration::from_secs(30)),
            // Nobody guesses 256 bits; this only keeps the guessing off the database.
            activations: Limiter::new(20, Duration::from_secs(3)),
            request_key: blake3::derive_key("xmd registration form requests v1", &settings.secret),
            settings,
            ready: AtomicBool::new(false),
            started: Instant::now(),
        })
    }

    /// What `/readyz` answers.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn now(&self) -> Time {
        Time::from_micros(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Who is asking. Behind a proxy its last word counts: what stands before it in the header, the visitor can write.
    fn visitor(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        let forwarded = || {
            let line = headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
            line.rsplit(',').next()?.trim().parse().ok()
        };
        self.settings.behind_proxy.then(forwarded).flatten().unwrap_or(peer.ip())
    }
}

/// The routes with all that guards them. Requests need the [`SocketAddr`] of their peer as an extension.
pub fn routes(site: Arc<Site>) -> Router {
    let csrf = CsrfLayer::new();
    // A proxy may change Host on the way here; the public origin is known anyway.
    let csrf = csrf.clone().add_trusted_origin(origin(&site.settings.public_url)).unwrap_or(csrf);
    Router::new()
        .route("/", get(pages::register_form))
        .route("/register", post(pages::register))
        .route("/sent", get(pages::sent))
        .route("/activate", get(pages::activate_form).post(pages::activate))
        .route("/resend", get(pages::resend_form).post(pages::resend))
        .route("/style.css", get(pages::style))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(pages::not_found)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(csrf)
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST_TIMEOUT))
        .layer(CatchPanicLayer::new())
        .layer(middleware::from_fn(guard))
        .with_state(site)
}

/// Scheme and authority of a URL.
fn origin(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(after_scheme..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| after_scheme + at);
    url.get(..end).unwrap_or(url)
}

async fn ready(State(site): State<Arc<Site>>) -> (StatusCode, &'static str) {
    if site.is_ready() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}

/// Headers of every answer: nothing is kept, framed, sniffed, referred to or loaded from elsewhere. Tokens stand in
/// addresses, so the browser must not tell them to anybody.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
