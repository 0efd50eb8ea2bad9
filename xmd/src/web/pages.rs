//! The pages and what their forms do. Passwords and tokens are in no log and no address we make.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;
use xm_core::register::{ActivateRefusal, RegisterForm, RegisterRefusal, token_from_text};
use xm_store::records::MailState;
use xmmep::name::Email;
use xmmep::secret::{KdfParams, KeyHash, LoginKey, Salt};
use xmmep::types::RequestId;

use super::Site;
use super::form::{self, Checked, FieldErrors, Fields};
use crate::config::RegistrationMode;

#[derive(Template)]
#[template(path = "register.html")]
struct RegisterPage {
    nonce: String,
    fields: Fields,
    errors: FieldErrors,
    notice: String,
}

impl RegisterPage {
    fn new(nonce: String, fields: Fields) -> Self {
        // Passwords are typed anew: they are in no page we send.
        let fields = Fields { password: String::new(), again: String::new(), ..fields };
        Self { nonce, fields, errors: FieldErrors::default(), notice: String::new() }
    }
}

#[derive(Template)]
#[template(path = "sent.html")]
struct SentPage {
    progress: Progress,
    token_days: u32,
}

enum Progress {
    Waiting,
    Delayed,
    Sent,
    Rejected,
    Unknown,
}

#[derive(Template)]
#[template(path = "activate.html")]
struct ActivatePage {
    token: String,
}

#[derive(Template, Default)]
#[template(path = "resend.html")]
struct ResendPage {
    email: String,
    error: String,
}

#[derive(Template, Default)]
#[template(path = "message.html")]
struct MessagePage {
    title: &'static str,
    text: String,
    client_address: String,
}

/// A field of an address or a form that may be missing.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Given {
    token: String,
    email: String,
    mail: String,
}

/// Answers to forms that were taken leave at multiples of this after they came: whether an address was known shows in how
/// much was written, and that must not show in the time.
const ANSWER_STEP: Duration = Duration::from_millis(250);

pub(super) async fn register_form(State(site): State<Arc<Site>>) -> Response {
    closed(&site).unwrap_or_else(|| page(StatusCode::OK, &RegisterPage::new(new_nonce(), Fields::default())))
}

pub(super) async fn register(
    State(site): State<Arc<Site>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    form: Result<Form<Fields>, FormRejection>,
) -> Response {
    if let Some(closed) = closed(&site) {
        return closed;
    }
    let started = site.now();
    let fields = match form {
        Ok(Form(fields)) => fields,
        Err(rejection) => return bad_form(&rejection),
    };
    let mut again = RegisterPage::new(new_nonce(), fields.clone());
    let checked = match form::check(fields.clone()) {
        Ok(checked) => checked,
        Err(errors) => return page(StatusCode::UNPROCESSABLE_ENTITY, &RegisterPage { errors, ..again }),
    };
    if let Err(wait) = site.registrations.take(site.visitor(peer, &headers), site.now()) {
        again.notice = format!("Too many registrations from your network. Try again {}.", in_words(wait));
        return later(StatusCode::TOO_MANY_REQUESTS, wait, &again);
    }
    // Goes on when the visitor goes away: a name must not be reserved without its mail.
    let enrolling = enrol(site.clone(), request_of(&site, &fields), checked);
    let enrolled = tokio::spawn(enrolling).await;
    let refused = match enrolled.unwrap_or(Err(Refused::NotReady(seconds(5)))) {
        Ok(mail) => {
            let steps = site.now().since(started).as_micros() / ANSWER_STEP.as_micros() + 1;
            let answer_at = started.after(ANSWER_STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX)));
            tokio::time::sleep(answer_at.since(site.now())).await;
            return Redirect::to(&format!("/sent?mail={mail}")).into_response();
        }
        Err(refused) => refused,
    };
    match refused {
        Refused::Guessable => {
            again.errors.password = "This password is one of the first that somebody would guess.".to_owned();
            page(StatusCode::UNPROCESSABLE_ENTITY, &again)
        }
        Refused::NameTaken => {
            again.errors.name = "This name is taken.".to_owned();
            page(StatusCode::CONFLICT, &again)
        }
        Refused::Rejected(why) => {
            again.notice = format!("The server does not take this: {why}.");
            page(StatusCode::UNPROCESSABLE_ENTITY, &again)
        }
        Refused::NotReady(wait) => {
            // The first try may have succeeded: the same form under the same nonce is the same request.
            again.nonce = fields.nonce;
            again.notice = format!("We are busy. Send the form once more {}.", in_words(wait));
            later(StatusCode::SERVICE_UNAVAILABLE, wait, &again)
        }
    }
}

enum Refused {
    Guessable,
    NameTaken,
    Rejected(String),
    NotReady(Duration),
}

/// The part of a registration that costs something: the estimate, Argon2id, the Router.
async fn enrol(site: Arc<Site>, request: RequestId, checked: Checked) -> Result<RequestId, Refused> {
    let salt = Salt(rand::random());
    let kdf = KdfParams::RECOMMENDED;
    let hashed = site.hashing.run(move || {
        let hash = if form::guessable(&checked) { None } else { key_hash(&checked.password, &salt, kdf) };
        (checked, hash)
    });
    let Some((checked, hash)) = hashed.await else { return Err(Refused::NotReady(seconds(5))) };
    let Some(key_hash) = hash else { return Err(Refused::Guessable) };
    let Checked { name, email, profile, .. } = checked;
    let form = RegisterForm { name, email, salt, kdf, key_hash, profile };
    match site.register.register(request, form).await {
        Ok(registered) => Ok(registered.mail),
        Err(RegisterRefusal::NameTaken) => Err(Refused::NameTaken),
        Err(RegisterRefusal::Rejected(why)) => Err(Refused::Rejected(why.as_str().to_owned())),
        Err(RegisterRefusal::NotReady { retry_after_s }) => Err(Refused::NotReady(seconds(retry_after_s))),
    }
}

/// Names the request of a form: the same for the same form, so that a double click or a second try after a lost answer
/// registers once; another as soon as a field was changed. Without the site's secret nothing can be learnt from it.
fn request_of(site: &Site, fields: &Fields) -> RequestId {
    let mut hash = blake3::Hasher::new_keyed(&site.request_key);
    for field in [&fields.nonce, &fields.name, &fields.email, &fields.password, &fields.nickname] {
        hash.update(&(field.len() as u64).to_be_bytes()).update(field.as_bytes());
    }
    if fields.nonce.is_empty() {
        hash.update(&rand::random::<[u8; 16]>());
    }
    let mut id = [0; 16];
    hash.finalize_xof().fill(&mut id);
    RequestId(id)
}

fn new_nonce() -> String {
    crate::data::hex(&rand::random::<[u8; 16]>())
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

fn key_hash(password: &str, salt: &Salt, kdf: KdfParams) -> Option<KeyHash> {
    LoginKey::derive(password, salt, kdf).ok().map(|key| key.hash())
}

pub(super) async fn sent(State(site): State<Arc<Site>>, given: Result<Query<Given>, QueryRejection>) -> Response {
    let id = given.ok().and_then(|Query(given)| request_id(&given.mail));
    let state = match id {
        Some(id) => site.register.mail_state(id).await,
        None => None,
    };
    let progress = match state {
        None => Progress::Unknown,
        Some(MailState::Waiting { attempts: 0, .. }) => Progress::Waiting,
        Some(MailState::Waiting { .. }) => Progress::Delayed,
        Some(MailState::Sent { .. }) => Progress::Sent,
        Some(MailState::Failed { .. }) => Progress::Rejected,
    };
    page(StatusCode::OK, &SentPage { progress, token_days: site.settings.token_days })
}

/// Shows a button and changes nothing: scanners that open every link of a mail activate nobody.
pub(super) async fn activate_form(given: Result<Query<Given>, QueryRejection>) -> Response {
    match given {
        Ok(Query(Given { token, .. })) if token_from_text(&token).is_some() => {
            page(StatusCode::OK, &ActivatePage { token })
        }
        _ => bad_token(),
    }
}

pub(super) async fn activate(
    State(site): State<Arc<Site>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    form: Result<Form<Given>, FormRejection>,
) -> Response {
    let token = match form {
        Ok(Form(given)) => token_from_text(&given.token),
        Err(rejection) => return bad_form(&rejection),
    };
    let wait_page = |wait| MessagePage {
        title: "A moment",
        text: format!("We are busy, and your link still works. Try again {}.", in_words(wait)),
        ..MessagePage::default()
    };
    if let Err(wait) = site.activations.take(site.visitor(peer, &headers), site.now()) {
        return later(StatusCode::TOO_MANY_REQUESTS, wait, &wait_page(wait));
    }
    let Some(token) = token else { return bad_token() };
    let register = site.register.clone();
    let activated = tokio::spawn(async move { register.activate(token).await }).await;
    match activated.unwrap_or(Err(ActivateRefusal::NotReady { retry_after_s: 5 })) {
        Ok(name) => {
            let text = format!("Your account {} is ready.", name.as_str());
            let client_address = site.settings.client_address.clone();
            page(StatusCode::OK, &MessagePage { title: "Welcome", text, client_address })
        }
        Err(ActivateRefusal::BadToken) => bad_token(),
        Err(ActivateRefusal::NotReady { retry_after_s }) => {
            let wait = seconds(retry_after_s);
            later(StatusCode::SERVICE_UNAVAILABLE, wait, &wait_page(wait))
        }
    }
}

pub(super) async fn resend_form() -> Response {
    page(StatusCode::OK, &ResendPage::default())
}

pub(super) async fn resend(
    State(site): State<Arc<Site>>,
    Extension(peer): Extension<SocketAddr>,
    headers: HeaderMap,
    form: Result<Form<Given>, FormRejection>,
) -> Response {
    let given = match form {
        Ok(Form(given)) => given,
        Err(rejection) => return bad_form(&rejection),
    };
    let Ok(email) = Email::new(given.email.trim()) else {
        let error = "This is no e-mail address.".to_owned();
        return page(StatusCode::UNPROCESSABLE_ENTITY, &ResendPage { email: given.email, error });
    };
    let again = |wait| ResendPage {
        email: email.as_str().to_owned(),
        error: format!("We are busy. Try again {}.", in_words(wait)),
    };
    if let Err(wait) = site.resends.take(site.visitor(peer, &headers), site.now()) {
        return later(StatusCode::TOO_MANY_REQUESTS, wait, &again(wait));
    }
    // Beside this answer: how long it takes would tell whether the address is known.
    tokio::spawn(async move { site.register.resend(email).await });
    let text = "If an account waits for this address, a mail with a new link is on its way.".to_owned();
    page(StatusCode::OK, &MessagePage { title: "Check your mail", text, ..MessagePage::default() })
}

pub(super) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../../templates/style.css"))
}

pub(super) async fn not_found() -> Response {
    let text = "There is no such page here.".to_owned();
    page(StatusCode::NOT_FOUND, &MessagePage { title: "Not found", text, ..MessagePage::default() })
}

fn closed(site: &Site) -> Option<Response> {
    let closed = site.settings.mode == RegistrationMode::Closed;
    let text = "New accounts cannot be made here at present.".to_owned();
    let title = "Registration is closed";
    closed.then(|| page(StatusCode::FORBIDDEN, &MessagePage { title, text, ..MessagePage::default() }))
}

fn bad_token() -> Response {
    let text = "This link is incomplete, too old, or was used before. If your account does not work yet, register again \
                or have the mail sent again.";
    let message = MessagePage { title: "This link does nothing", text: text.to_owned(), ..MessagePage::default() };
    page(StatusCode::BAD_REQUEST, &message)
}

/// A body that is too long, of another type or no UTF-8: no browser of ours sent it.
fn bad_form(rejection: &FormRejection) -> Response {
    let text = "The form did not arrive as it should. Go back and try again.".to_owned();
    page(rejection.status(), &MessagePage { title: "Not understood", text, ..MessagePage::default() })
}

fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be made; the visitor gets an empty one");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn later(status: StatusCode, wait: Duration, template: &impl Template) -> Response {
    let retry_after = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1).to_string();
    ([(header::RETRY_AFTER, retry_after)], page(status, template)).into_response()
}

fn in_words(wait: Duration) -> String {
    match wait.as_secs() + u64::from(wait.subsec_nanos() > 0) {
        0 | 1 => "in a second".to_owned(),
        seconds @ 2..=90 => format!("in {seconds} seconds"),
        seconds => format!("in {} minutes", seconds.div_ceil(60)),
    }
}

fn request_id(text: &str) -> Option<RequestId> {
    let fine = text.len() == 32 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let number = fine.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
    Some(RequestId(number.to_be_bytes()))
}
