//! The pages, asked as a browser asks, over a Register that the tests control; then over a real connection.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use xm_core::register::{ActivateRefusal, RegisterForm, RegisterRefusal, Registered, token_to_text};
use xm_store::records::MailState;
use xmd::config::RegistrationMode;
use xmd::web::{Registrations, Settings, Site, routes, serve};
use xmmep::bounded::Text;
use xmmep::name::{Email, UserName};
use xmmep::secret::{LoginKey, Token};
use xmmep::types::{RequestId, WallTime};

const PASSWORD: &str = "plum tractor 9 sky";

/// A Register with a list of taken names, which notes what it is asked.
#[derive(Default)]
struct FakeRegister {
    registered: Mutex<Vec<(RequestId, RegisterForm)>>,
    activated: Mutex<Vec<Token>>,
    resent: Mutex<Vec<Email>>,
    mails: Mutex<HashMap<RequestId, MailState>>,
    refuse: Mutex<Option<RegisterRefusal>>,
}

#[async_trait]
impl Registrations for FakeRegister {
    async fn register(&self, request: RequestId, form: RegisterForm) -> Result<Registered, RegisterRefusal> {
        self.registered.lock().unwrap().push((request, form));
        match self.refuse.lock().unwrap().clone() {
            Some(refusal) => Err(refusal),
            None => Ok(Registered { mail: request }),
        }
    }

    async fn activate(&self, token: Token) -> Result<UserName, ActivateRefusal> {
        let good = token == Token::from_bytes([7; 32]);
        let mut activated = self.activated.lock().unwrap();
        let spent = activated.contains(&token);
        activated.push(token);
        if good && !spent { Ok(UserName::new("Ann").unwrap()) } else { Err(ActivateRefusal::BadToken) }
    }

    async fn resend(&self, email: Email) {
        self.resent.lock().unwrap().push(email);
    }

    async fn mail_state(&self, mail: RequestId) -> Option<MailState> {
        self.mails.lock().unwrap().get(&mail).cloned()
    }
}

fn settings() -> Settings {
    Settings {
        public_url: "https://chat.example.org/x".to_owned(),
        client_address: "xm://chat.example.org:7100/KEY".to_owned(),
        behind_proxy: false,
        mode: RegistrationMode::Open,
        token_days: 7,
        secret: [1; 32],
    }
}

struct Browser {
    register: Arc<FakeRegister>,
    routes: Router,
    from: SocketAddr,
}

struct Page {
    status: StatusCode,
    response: Response<()>,
    text: String,
}

impl Page {
    fn header(&self, name: header::HeaderName) -> &str {
        self.response.headers().get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Browser {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        let register = Arc::<FakeRegister>::default();
        let site = Site::new(settings, register.clone());
        Self { register, routes: routes(site), from: SocketAddr::from(([192, 0, 2, 1], 4000)) }
    }

    async fn send(&self, mut request: Request<Body>) -> Page {
        request.extensions_mut().insert(self.from);
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Page { status: parts.status, response: Response::from_parts(parts, ()), text }
    }

    async fn get(&self, path: &str) -> Page {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    fn form(path: &str) -> axum::http::request::Builder {
        Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.send(Self::form(path).body(Body::from(encode(fields))).unwrap()).await
    }

    fn registered(&self) -> Vec<(RequestId, RegisterForm)> {
        self.register.registered.lock().unwrap().clone()
    }
}

fn encode(fields: &[(&str, &str)]) -> String {
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    fields.iter().map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&")
}

fn ann() -> Vec<(&'static str, &'static str)> {
    vec![("name", "Ann"), ("email", "ann@example.org"), ("password", PASSWORD), ("again", PASSWORD), ("nonce", "n")]
}

fn changed(field: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    ann().into_iter().map(|(name, old)| (name, if name == field { value } else { old })).collect()
}

#[tokio::test]
async fn a_good_form_reaches_register_with_the_hash_and_not_the_password() {
    let browser = Browser::new();
    let page = browser.post("/register", &ann()).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    let registered = browser.registered();
    let [(request, form)] = &registered[..] else { panic!("{}", registered.len()) };
    assert_eq!(page.header(header::LOCATION), format!("/sent?mail={request}"));
    let key = LoginKey::derive(PASSWORD, &form.salt, form.kdf).unwrap();
    assert!(form.key_hash == key.hash());
    assert!(!format!("{form:?}").contains(PASSWORD));
}

#[tokio::test]
async fn the_same_form_sent_twice_is_one_request_and_a_changed_one_is_another() {
    let browser = Browser::new();
    for form in
        [ann(), ann(), changed("name", "Anna"), changed("nonce", "other"), changed("nonce", ""), changed("nonce", "")]
    {
        assert_eq!(browser.post("/register", &form).await.status, StatusCode::SEE_OTHER);
    }
    let ids: Vec<RequestId> = browser.registered().iter().map(|(request, _)| *request).collect();
    assert_eq!(ids[0], ids[1]);
    let different: std::collections::BTreeSet<_> = ids[1..].iter().collect();
    assert_eq!(different.len(), 5);
    let form = browser.get("/").await.text;
    assert_ne!(form, browser.get("/").await.text, "each form has a nonce of its own");
}

#[tokio::test]
async fn each_broken_rule_names_its_field_and_reaches_nobody() {
    let browser = Browser::new();
    for (field, value, words) in [
        ("name", "", "cannot be empty"),
        ("name", "a b", "letters, digits and punctuation"),
        ("name", "a*b", "cannot contain"),
        ("name", "x123456789012345678901234567890123", "at most 32 characters"),
        ("email", "nobody", "no e-mail address"),
        ("email", "a@b.c\r\nBcc: d@e.f", "no e-mail address"),
        ("password", "short", "at least 8"),
        ("again", "something else", "passwords differ"),
    ] {
        let page = browser.post("/register", &changed(field, value)).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY, "{field} = {value:?}");
        let error = format!("id=\"{field}-error\">");
        let at = page.text.find(&error).unwrap_or_else(|| panic!("{field} = {value:?}: {}", page.text));
        assert!(page.text[at..].lines().next().unwrap().contains(words), "{field} = {value:?}: {}", &page.text[at..]);
        assert!(!page.text.contains(PASSWORD), "the password is in the page");
    }
    assert!(browser.registered().is_empty());
}

#[tokio::test]
async fn a_common_password_is_refused() {
    let browser = Browser::new();
    let fields = [("name", "Ann"), ("email", "ann@example.org"), ("password", "iloveyou1"), ("again", "iloveyou1")];
    let page = browser.post("/register", &fields).await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(page.text.contains("first that somebody would guess"), "{}", page.text);
    assert!(browser.registered().is_empty());
}

#[tokio::test]
async fn refusals_of_the_router_become_pages() {
    let browser = Browser::new();
    for (refusal, status, words) in [
        (RegisterRefusal::NameTaken, StatusCode::CONFLICT, "This name is taken."),
        (RegisterRefusal::Rejected(Text::cut("no <cats>")), StatusCode::UNPROCESSABLE_ENTITY, "no &#60;cats&#62;"),
        (RegisterRefusal::NotReady { retry_after_s: 9 }, StatusCode::SERVICE_UNAVAILABLE, "in 9 seconds"),
    ] {
        *browser.register.refuse.lock().unwrap() = Some(refusal.clone());
        let page = browser.post("/register", &ann()).await;
        assert_eq!(page.status, status);
        assert!(page.text.contains(words), "{refusal}: {}", page.text);
        let busy = status == StatusCode::SERVICE_UNAVAILABLE;
        assert_eq!(page.header(header::RETRY_AFTER), if busy { "9" } else { "" });
        // Only after an answer that may have got lost is the next form the same request.
        assert_eq!(page.text.contains("name=\"nonce\" value=\"n\""), busy);
        assert!(page.text.contains("value=\"ann@example.org\"") && !page.text.contains(PASSWORD));
    }
}

#[tokio::test]
async fn six_registrations_per_address_then_a_pause_and_other_addresses_go_on() {
    let mut browser = Browser::new();
    *browser.register.refuse.lock().unwrap() = Some(RegisterRefusal::NameTaken);
    for _ in 0..6 {
        assert_eq!(browser.post("/register", &ann()).await.status, StatusCode::CONFLICT);
    }
    let page = browser.post("/register", &ann()).await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = page.header(header::RETRY_AFTER).parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(browser.registered().len(), 6);
    browser.from = SocketAddr::from(([192, 0, 2, 2], 4000));
    assert_eq!(browser.post("/register", &ann()).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn only_behind_a_proxy_does_its_header_say_who_is_asking() {
    for behind_proxy in [false, true] {
        let browser = Browser::with(Settings { behind_proxy, ..settings() });
        *browser.register.refuse.lock().unwrap() = Some(RegisterRefusal::NameTaken);
        let mut last = StatusCode::OK;
        for visitor in 0..7 {
            // What the visitor wrote comes first, what the proxy saw comes last.
            let forwarded = format!("203.0.113.{visitor}, 198.51.100.{visitor}");
            let request = Browser::form("/register").header("x-forwarded-for", forwarded);
            last = browser.send(request.body(Body::from(encode(&ann()))).unwrap()).await.status;
        }
        let expected = if behind_proxy { StatusCode::CONFLICT } else { StatusCode::TOO_MANY_REQUESTS };
        assert_eq!(last, expected, "behind a proxy: {behind_proxy}");
    }
}

#[tokio::test]
async fn a_link_opened_five_times_activates_nobody_and_the_button_does_it_once() {
    let browser = Browser::new();
    let token = token_to_text(&Token::from_bytes([7; 32]));
    let link = format!("/activate?token={token}");
    for _ in 0..5 {
        let page = browser.get(&link).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.text.contains("<button>"), "{}", page.text);
    }
    let head = browser.send(Request::head(&link).body(Body::empty()).unwrap()).await;
    assert_eq!(head.status, StatusCode::OK);
    assert!(browser.register.activated.lock().unwrap().is_empty());
    let page = browser.post("/activate", &[("token", &token)]).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text.contains("Your account Ann is ready") && page.text.contains("xm://chat.example.org:7100/KEY"));
    let page = browser.post("/activate", &[("token", &token)]).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn tokens_that_are_none_reach_nobody_and_are_in_no_page() {
    let browser = Browser::new();
    let good = token_to_text(&Token::from_bytes([7; 32]));
    let long = "A".repeat(1_000);
    for bad in ["", "x", "\"><script>", &good[1..], &format!("{good}A"), &long, "../../etc", "\u{202e}"] {
        let page = browser.get(&format!("/activate?token={}", encode(&[("", bad)]).trim_start_matches('='))).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{bad:?}");
        assert!(!page.text.contains("script") && !page.text.contains("AAAA"), "{}", page.text);
        assert_eq!(browser.post("/activate", &[("token", bad)]).await.status, StatusCode::BAD_REQUEST, "{bad:?}");
    }
    assert_eq!(browser.get("/activate").await.status, StatusCode::BAD_REQUEST);
    assert!(browser.register.activated.lock().unwrap().is_empty());
}

#[tokio::test]
async fn guesses_at_tokens_are_limited() {
    let browser = Browser::new();
    let token = token_to_text(&Token::from_bytes([9; 32]));
    let mut statuses = Vec::new();
    for _ in 0..21 {
        statuses.push(browser.post("/activate", &[("token", &token)]).await.status);
    }
    assert_eq!(statuses[19], StatusCode::BAD_REQUEST);
    assert_eq!(statuses[20], StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn sending_again_looks_the_same_whoever_asks() {
    let browser = Browser::new();
    let known = browser.post("/resend", &[("email", "ann@example.org")]).await;
    let unknown = browser.post("/resend", &[("email", "nobody@example.org")]).await;
    assert_eq!((known.status, &known.text), (unknown.status, &unknown.text));
    while browser.register.resent.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    let malformed = browser.post("/resend", &[("email", "ann")]).await;
    assert_eq!(malformed.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(browser.get("/resend").await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_page_after_registering_says_where_the_mail_is() {
    let browser = Browser::new();
    let (at, reason) = (WallTime(1), Text::cut("550 no such user"));
    for (number, state, words) in [
        (1, MailState::Waiting { attempts: 0, due: at, reason: Text::default() }, "about to leave"),
        (2, MailState::Waiting { attempts: 3, due: at, reason: reason.clone() }, "could not be handed over yet"),
        (3, MailState::Sent { at }, "on its way"),
        (4, MailState::Failed { at, reason }, "The address was rejected"),
    ] {
        let id = RequestId([number; 16]);
        browser.register.mails.lock().unwrap().insert(id, state);
        let page = browser.get(&format!("/sent?mail={id}")).await;
        assert!(page.text.contains(words), "{words}: {}", page.text);
        assert!(!page.text.contains("550"), "the relay's words are for the operator");
    }
    for id in ["", "zz", "00000000000000000000000000000009", &"0".repeat(33), "+0000000000000000000000000000001"] {
        let page = browser.get(&format!("/sent?mail={id}")).await;
        assert!(page.text.contains("If you have just registered"), "{id:?}: {}", page.text);
    }
}

#[tokio::test]
async fn every_answer_forbids_keeping_framing_sniffing_and_telling() {
    let browser = Browser::new();
    for path in ["/", "/sent", "/activate?token=x", "/resend", "/style.css", "/healthz", "/nowhere", "/register"] {
        let page = browser.get(path).await;
        assert_eq!(page.header(header::CACHE_CONTROL), "no-store", "{path}");
        assert_eq!(page.header(header::REFERRER_POLICY), "no-referrer", "{path}");
        assert_eq!(page.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff", "{path}");
        let policy = page.header(header::CONTENT_SECURITY_POLICY);
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert!(!page.text.contains("<script") && !page.text.contains(" style="), "{path}");
    }
}

#[tokio::test]
async fn forms_of_other_sites_are_refused_and_our_own_are_not() {
    let browser = Browser::new();
    *browser.register.refuse.lock().unwrap() = Some(RegisterRefusal::NameTaken);
    for (name, value, status) in [
        ("origin", "https://evil.example", StatusCode::FORBIDDEN),
        ("sec-fetch-site", "cross-site", StatusCode::FORBIDDEN),
        ("sec-fetch-site", "same-site", StatusCode::FORBIDDEN),
        ("sec-fetch-site", "same-origin", StatusCode::CONFLICT),
        ("origin", "https://chat.example.org", StatusCode::CONFLICT),
        ("origin", "http://localhost:7180", StatusCode::CONFLICT),
    ] {
        let request = Browser::form("/register").header(header::HOST, "localhost:7180").header(name, value);
        let page = browser.send(request.body(Body::from(encode(&ann()))).unwrap()).await;
        assert_eq!(page.status, status, "{name}: {value}");
    }
}

#[tokio::test]
async fn what_is_typed_comes_back_escaped() {
    let browser = Browser::new();
    let page = browser.post("/register", &changed("name", "\"><script>alert(1)</script>")).await;
    assert!(!page.text.contains("<script"), "{}", page.text);
}

#[tokio::test]
async fn bodies_that_are_too_long_or_no_form_are_refused() {
    let browser = Browser::new();
    let send = |body: Vec<u8>, kind: &'static str| {
        let request = Request::post("/register").header(header::CONTENT_TYPE, kind).body(Body::from(body)).unwrap();
        browser.send(request)
    };
    let form = "application/x-www-form-urlencoded";
    let long = send(vec![b'a'; 17 * 1024], form).await;
    assert_eq!(long.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(send(b"{}".to_vec(), "application/json").await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    for body in [&b""[..], b"name=%ff%fe", b"name", b"=&=&=", b"name=a&name=b", b"%00=%00"] {
        let status = send(body.to_vec(), form).await.status;
        assert!(status.is_client_error(), "{body:?}: {status}");
    }
    assert!(browser.registered().is_empty());
}

#[tokio::test]
async fn a_closed_registration_says_so_and_takes_nothing() {
    let browser = Browser::with(Settings { mode: RegistrationMode::Closed, ..settings() });
    assert_eq!(browser.get("/").await.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.post("/register", &ann()).await.status, StatusCode::FORBIDDEN);
    assert!(browser.registered().is_empty());
}

#[tokio::test]
async fn readiness_is_told_and_withdrawn() {
    let register = Arc::<FakeRegister>::default();
    let site = Site::new(settings(), register.clone());
    let browser = Browser { register, routes: routes(site.clone()), from: SocketAddr::from(([127, 0, 0, 1], 1)) };
    assert_eq!(browser.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    site.set_ready(true);
    assert_eq!(browser.get("/readyz").await.status, StatusCode::OK);
    site.set_ready(false);
    assert_eq!(browser.get("/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(browser.get("/healthz").await.status, StatusCode::OK);
}

/// The pages behind a real socket, with a way to stop them.
async fn real_server(
    connections_max: usize,
) -> (SocketAddr, tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let site = Site::new(settings(), Arc::<FakeRegister>::default());
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let server = serve(listener, routes(site), connections_max, async { drop(stopped.await) });
    (address, stop, tokio::spawn(server))
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

const GET_HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_real_connection_is_served_and_a_stop_is_not_held_up_by_a_silent_one() {
    let (address, stop, server) = real_server(8).await;
    let silent = TcpStream::connect(address).await.unwrap();
    assert!(ask(address, GET_HEALTH).await.starts_with("HTTP/1.1 200 OK"));
    let garbage = ask(address, "\u{1}\u{2}\u{3} garbage\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    let head = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(64 * 1024));
    let too_long = ask(address, &head).await;
    assert!(too_long.is_empty() || too_long.starts_with("HTTP/1.1 4"), "{too_long}");
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(4), server).await.expect("stops within four seconds").unwrap();
    drop(silent);
}

#[tokio::test]
async fn connections_over_the_limit_wait_until_another_ends() {
    let (address, _stop, _server) = real_server(1).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    // Once this is answered, the only place is taken.
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let second = tokio::spawn(ask(address, GET_HEALTH));
    drop(first);
    assert!(second.await.unwrap().starts_with("HTTP/1.1 200"));
}
