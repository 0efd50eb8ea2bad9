//! Register: what stands behind the web pages. Forms, browsers and SMTP are the daemon's; unique names are the Router's.
//! Here: tokens, mails, who is told what, and what happens after a lost answer.
//!
//! Not an engine: a [`Register`] is called by the pages and asks its Router over a link.

mod limits;
mod mails;
pub mod outbox;
mod tokens;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand_core::CryptoRng;
use xm_store::records::{Mail, MailState};
use xm_store::{MailQueue, StoreError};
use xmmep::bounded::Text;
use xmmep::messages::Profile;
use xmmep::messages::registration::{ActivationResendReq, RegisterActivateReq, RegisterReq};
use xmmep::name::{Email, UserName};
use xmmep::result_code::ResultCode;
use xmmep::secret::{KdfParams, KeyHash, Salt, Token};
use xmmep::types::RequestId;

use crate::ctx::Now;
use crate::link::{Link, LinkError};
use limits::Addresses;
pub use limits::MailLimits;
use tokens::Tokens;
pub use tokens::{token_from_text, token_to_text};

/// How long an activation link works, unless configured otherwise.
pub const TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Seconds a visitor is asked to wait before trying again.
const RETRY_AFTER_S: u32 = 2;

/// What a Register has to be told.
#[derive(Clone)]
pub struct RegisterConfig {
    /// What links in mails begin with, without a slash at the end: `https://chat.example.org`. From the configuration,
    /// never from a request.
    pub public_url: Text<1024>,
    /// What the service calls itself in mails; default `X-Messenger`.
    pub service: Text<64>,
    /// How long an activation link works; default [`TOKEN_LIFE`], at most
    /// [`TOKEN_LIFE_MAX`](crate::router::TOKEN_LIFE_MAX) less the difference of the servers' clocks.
    pub token_life: Duration,
    /// Names that nobody gets, compared in folded form; default none.
    pub reserved: Vec<UserName>,
    /// How often mail goes to one address on demand.
    pub mail_limits: MailLimits,
    /// See [`RegisterConfig::new`].
    pub secret: [u8; 32],
}

impl RegisterConfig {
    /// The defaults. `secret`: 32 random bytes that nobody else knows and that stay the same over restarts: tokens are
    /// made from it, through a derivation of their own. Whoever knows it can activate what others registered.
    #[must_use]
    pub fn new(public_url: Text<1024>, secret: [u8; 32]) -> Self {
        Self {
            public_url: Text::cut(public_url.trim_end_matches('/')),
            service: Text::cut("X-Messenger"),
            token_life: TOKEN_LIFE,
            reserved: Vec::new(),
            mail_limits: MailLimits::default(),
            secret,
        }
    }
}

impl fmt::Debug for RegisterConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterConfig")
            .field("public_url", &self.public_url)
            .field("service", &self.service)
            .field("token_life", &self.token_life)
            .field("reserved", &self.reserved)
            .field("mail_limits", &self.mail_limits)
            .finish_non_exhaustive()
    }
}

/// A registration form, checked field by field, and the login key derived from its password.
#[derive(Clone, Debug)]
pub struct RegisterForm {
    /// The name asked for.
    pub name: UserName,
    /// The address of the visitor.
    pub email: Email,
    /// A random salt.
    pub salt: Salt,
    /// The cost of the login key.
    pub kdf: KdfParams,
    /// Hash of the login key derived from the password with these.
    pub key_hash: KeyHash,
    /// The rest of the form.
    pub profile: Profile,
}

/// A registration as the visitor may know of it: "check your mail". It says the same if the address was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    /// The mail to look for with [`Register::mail_state`].
    pub mail: RequestId,
}

/// Why a form was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterRefusal {
    /// Somebody has the name, or nobody may have it.
    #[error("the name is taken")]
    NameTaken,
    /// A field breaks a rule of the Router's that the form did not check; the text names it.
    #[error("not accepted: {0}")]
    Rejected(Text<256>),
    /// A server or store is away. The registration may have happened: repeat it with the same request id.
    #[error("cannot say now: try again in {retry_after_s} s")]
    NotReady {
        /// Seconds to wait.
        retry_after_s: u32,
    },
}

/// Why a token did not activate an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActivateRefusal {
    /// The token is wrong, used or expired; which of these is not told.
    #[error("the activation link is wrong, used or expired")]
    BadToken,
    /// A server or store is away. A good token has been taken note of: the account will be there soon, and the token
    /// can be tried again.
    #[error("cannot say now: try again in {retry_after_s} s")]
    NotReady {
        /// Seconds to wait.
        retry_after_s: u32,
    },
}

/// A Register.
pub struct Register {
    config: RegisterConfig,
    link: Mutex<Arc<Link>>,
    mails: Arc<dyn MailQueue>,
    tokens: Tokens,
    addresses: Mutex<Addresses>,
    rng: Mutex<Box<dyn CryptoRng + Send>>,
}

impl Register {
    /// A Register that asks the Router at the other end of `link` and leaves mails in `mails`.
    ///
    /// Somebody has to call [`Link::on_deadline`] for `link`; in a process with an engine,
    /// [`Engine::add_link`](crate::engine::Engine::add_link) sees to that.
    #[must_use]
    pub fn new(
        link: Arc<Link>,
        mails: Arc<dyn MailQueue>,
        config: RegisterConfig,
        rng: Box<dyn CryptoRng + Send>,
    ) -> Self {
        Self {
            tokens: Tokens::new(&config.secret),
            addresses: Mutex::new(Addresses::new(config.mail_limits)),
            link: Mutex::new(link),
            mails,
            config,
            rng: Mutex::new(rng),
        }
    }

    /// From now on the Router is at the other end of `link`: the old link broke.
    pub fn set_link(&self, link: Arc<Link>) {
        *lock(&self.link) = link;
    }

    /// Draws the id of a new registration. Keep it with the form until the visitor has an answer.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        RequestId::random(&mut *lock(&self.rng))
    }

    /// Registers a user and leaves the activation mail in the outbox; returns once both are on stable storage.
    ///
    /// A taken address looks exactly like success; its owner gets a mail instead, unless there were too many. That is
    /// one write less, so a page that is asked about addresses should round its answer time up.
    ///
    /// After `NotReady`, repeat with the same `request` and form. With another form (a corrected name, another
    /// password) draw a new one: the first form counts for its request.
    ///
    /// # Errors
    /// See [`RegisterRefusal`].
    pub async fn register(
        &self,
        now: Now,
        request: RequestId,
        form: RegisterForm,
    ) -> Result<Registered, RegisterRefusal> {
        if self.config.reserved.contains(&form.name) {
            return Err(RegisterRefusal::NameTaken);
        }
        let token = self.tokens.activation(request, &form.name, &form.email);
        let reserve = RegisterReq {
            request,
            name: form.name,
            email: form.email,
            salt: form.salt,
            kdf: form.kdf,
            key_hash: form.key_hash,
            token_hash: token.hash(),
            token_expires: now.wall.after(self.config.token_life),
            profile: form.profile,
        };
        let answer = self.router().request(now.mono, &reserve).await.map_err(refused)?;
        let (name, email) = (&reserve.name, &reserve.email);
        match answer.result {
            ResultCode::SUCCESS => {
                let mail = mails::activation(&self.config, (request, now.wall), email, Some(name), &token);
                self.leave(mail).await?;
                Ok(Registered { mail: request })
            }
            ResultCode::MAIL_IN_USE => {
                let address = self.tokens.address(email);
                if let Err(earlier) = lock(&self.addresses).count(now.mono, address, request) {
                    return Ok(Registered { mail: earlier });
                }
                let mail = mails::somebody_tried(&self.config, (request, now.wall), email);
                self.leave(mail).await?;
                Ok(Registered { mail: request })
            }
            ResultCode::USER_EXISTS | ResultCode::USER_MAIL_EXISTS => Err(RegisterRefusal::NameTaken),
            result => {
                tracing::error!(?result, "the Router gives an answer that registration does not have");
                Err(RegisterRefusal::NotReady { retry_after_s: RETRY_AFTER_S })
            }
        }
    }

    /// Activates the account whose token came back; to be called for a POST only. Returns its name, once the Presence
    /// has committed the account.
    ///
    /// # Errors
    /// See [`ActivateRefusal`].
    pub async fn activate(&self, now: Now, token: Token) -> Result<UserName, ActivateRefusal> {
        let not_ready = ActivateRefusal::NotReady { retry_after_s: RETRY_AFTER_S };
        let answer = match self.router().request(now.mono, &RegisterActivateReq { token }).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, "an activation has no answer");
                return Err(ActivateRefusal::NotReady { retry_after_s: wait_for(&error) });
            }
        };
        match answer.result {
            ResultCode::SUCCESS => UserName::new(&answer.name).map_err(|error| {
                tracing::error!(%error, "the Router activates a name that is none");
                not_ready
            }),
            ResultCode::ACTIVATE_CODE_MISMATCH => Err(ActivateRefusal::BadToken),
            result => {
                tracing::error!(?result, "the Router gives an answer that activation does not have");
                Err(not_ready)
            }
        }
    }

    /// "Send it again": if a registration with this address waits for its mail, a new token takes the place of the old
    /// one and goes out, as often as [`MailLimits`] allow. Nobody is told whether that happened, so the page should
    /// answer at once and let this run beside it.
    pub async fn resend(&self, now: Now, email: Email) {
        let request = self.request_id();
        let address = self.tokens.address(&email);
        if lock(&self.addresses).count(now.mono, address, request).is_err() {
            tracing::debug!("an activation mail is not sent again: too often");
            return;
        }
        let token = self.tokens.renewal(request, &email);
        let renew = ActivationResendReq {
            request,
            email,
            token_hash: token.hash(),
            token_expires: now.wall.after(self.config.token_life),
        };
        let mut renewed = self.router().order(now.mono, &renew).await;
        if matches!(renewed, Err(LinkError::Down | LinkError::TimedOut)) {
            // If it happened, the old token is dead and the new one in no mail yet.
            renewed = self.router().order(now.mono, &renew).await;
        }
        let left = match renewed {
            Ok(()) => {
                let mail = mails::activation(&self.config, (request, now.wall), &renew.email, None, &token);
                self.leave(mail).await.is_ok()
            }
            Err(LinkError::Refused(no)) if no.result == ResultCode::NOT_FOUND => false,
            Err(error) => {
                tracing::warn!(%error, "an activation mail could not be sent again");
                false
            }
        };
        if !left {
            lock(&self.addresses).uncount(address, request);
        }
    }

    /// Where a mail is, for the page that shows it; `None` if there is none of that id.
    ///
    /// # Errors
    /// If the store is away.
    pub async fn mail_state(&self, mail: RequestId) -> Result<Option<MailState>, StoreError> {
        self.mails.state(mail).await
    }

    fn router(&self) -> Arc<Link> {
        lock(&self.link).clone()
    }

    async fn leave(&self, mail: Mail) -> Result<(), RegisterRefusal> {
        self.mails.enqueue(mail).await.map_err(|error| {
            tracing::error!(%error, "a mail could not be left in the outbox");
            RegisterRefusal::NotReady { retry_after_s: RETRY_AFTER_S }
        })
    }
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register").field("config", &self.config).finish_non_exhaustive()
    }
}

fn refused(error: LinkError) -> RegisterRefusal {
    match error {
        LinkError::Refused(no) if no.result == ResultCode::PARAM_ERROR => RegisterRefusal::Rejected(no.detail),
        error => {
            tracing::warn!(%error, "a registration has no answer");
            RegisterRefusal::NotReady { retry_after_s: wait_for(&error) }
        }
    }
}

/// How long the Router asks us to wait; a little while if it does not say.
fn wait_for(error: &LinkError) -> u32 {
    match error {
        LinkError::Refused(no) => no.retry_after_s.max(RETRY_AFTER_S),
        _ => RETRY_AFTER_S,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
