//! What a user interface has to tell: why there is no login, why a request was not done, why it is over.

use core::net::SocketAddr;
use core::time::Duration;

use crate::bounded::BoundError;
use crate::error::FrameError;
use crate::frame::Code;
use crate::messages::ResultMsg;
use crate::result_code::ResultCode;
use crate::secret::BadKdfParams;
use crate::types::WallTime;

/// A server's "no".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub result: ResultCode,
    /// What the server adds, for people. Comes from the server: show it as text only.
    pub detail: String,
    /// How long to wait before another try makes sense; zero if the server does not say.
    pub retry_after: Duration,
}

impl From<ResultMsg> for Refusal {
    fn from(message: ResultMsg) -> Self {
        let retry_after = Duration::from_secs(u64::from(message.retry_after_s));
        Self { result: message.result, detail: message.detail.as_str().to_owned(), retry_after }
    }
}

impl From<ResultCode> for Refusal {
    fn from(result: ResultCode) -> Self {
        Self { result, detail: String::new(), retry_after: Duration::ZERO }
    }
}

impl core::fmt::Display for Refusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}", self.result)?;
        if !self.detail.is_empty() {
            write!(f, " ({})", self.detail)?;
        }
        if !self.retry_after.is_zero() {
            write!(f, ", try again in {} s", self.retry_after.as_secs())?;
        }
        Ok(())
    }
}

/// Why there is no login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The host of the server's address has no IP address, or the name service did not answer.
    #[error("no IP address found for {0}")]
    UnknownHost(String),
    /// No socket could be opened on this machine.
    #[error("cannot open a UDP socket: {0}")]
    Socket(String),
    /// Nothing answered: no server there, no network, or UDP is blocked.
    #[error("no answer from {0}: no server there, no network, or UDP is blocked")]
    NotReachable(SocketAddr),
    /// Something answered, but did not prove that it owns the expected key.
    #[error(
        "a server answers at {0}, but not with the expected key: the address is out of date, or this is not the server it names"
    )]
    WrongServerKey(SocketAddr),
    /// The server speaks no version that we speak.
    #[error("the server at {0} speaks another version of the protocol")]
    Version(SocketAddr),
    /// Wrong password, or no such user: servers do not tell these apart.
    #[error("wrong user name or password")]
    WrongPassword,
    /// The password is no longer the one that the stored login key was derived from.
    #[error("the password was changed: it has to be typed again")]
    PasswordChanged,
    /// The password is right, but the activation mail has not been answered.
    #[error("the account is not activated yet: follow the link in the activation mail{}", hint(.0))]
    NotActivated(String),
    /// The account was closed by an administrator.
    #[error("the account is suspended{}", hint(.0))]
    Suspended(String),
    /// Too many tries.
    #[error("too many tries: try again in {} s", .0.as_secs())]
    RateLimited(Duration),
    /// The server is there, but cannot log anybody in now.
    #[error("the server cannot log in anybody at the moment: try again in {} s", .0.as_secs())]
    NotReady(Duration),
    /// The server asks for a key derivation that is too cheap to be safe or too expensive to be honest. No key was sent.
    #[error(transparent)]
    Kdf(#[from] BadKdfParams),
    /// Turned down for another reason.
    #[error("the server refuses the login: {0}")]
    Refused(Refusal),
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    BadAnswer(String),
    /// The login began but was never completed.
    #[error("the login was not completed in time")]
    TimedOut,
    /// The session broke off.
    #[error("the connection was lost")]
    Lost,
    /// The journal cannot be read or written.
    #[error("the journal: {0}")]
    Journal(String),
    /// The client ended before it was logged in: it was told to, or the user logged in on another device.
    #[error("ended before the login")]
    Ended,
}

fn hint(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(" ({text})") }
}

impl ConnectError {
    /// Whether another try, with nothing changed, may succeed.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::NotReachable(_)
            | Self::WrongServerKey(_)
            | Self::RateLimited(_)
            | Self::NotReady(_)
            | Self::BadAnswer(_)
            | Self::TimedOut
            | Self::Lost => true,
            Self::Refused(refusal) => !refusal.retry_after.is_zero(),
            _ => false,
        }
    }

    /// How long the server asked us to wait.
    pub(super) fn wait(&self) -> Duration {
        match self {
            Self::RateLimited(wait) | Self::NotReady(wait) => *wait,
            Self::Refused(refusal) => refusal.retry_after,
            _ => Duration::ZERO,
        }
    }

    /// What a refused lookup or login means.
    pub(super) fn refused(refusal: Refusal) -> Self {
        match refusal.result {
            ResultCode::PASSWD_MISMATCH | ResultCode::NO_SUCH_USER => Self::WrongPassword,
            ResultCode::USER_NOT_ACTIVATED => Self::NotActivated(refusal.detail),
            ResultCode::SUSPENDED => Self::Suspended(refusal.detail),
            ResultCode::RATE_LIMITED => Self::RateLimited(refusal.retry_after),
            ResultCode::SERVER_BUSY | ResultCode::SERVER_NOT_READY => Self::NotReady(refusal.retry_after),
            _ => Self::Refused(refusal),
        }
    }
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no login at the moment; nothing was sent.
    #[error("not logged in at the moment")]
    NotConnected,
    /// Too many requests wait for their answer, or too much waits to be sent; nothing was sent.
    #[error("too many requests at a time")]
    TooMany,
    /// The request does not fit a frame; nothing was sent.
    #[error("a request of {len} bytes where at most {max} are allowed")]
    TooLarge {
        /// What it has.
        len: usize,
        /// What is allowed.
        max: usize,
    },
    /// The server said no.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// No answer in time. Whether it was done is not known; repeating is safe for every request of the protocol.
    #[error("no answer in time")]
    TimedOut,
    /// The connection broke before the answer came. As with a time-out, repeating is safe.
    #[error("the connection broke before the answer came")]
    Disconnected,
    /// The answer cannot be read.
    #[error("the server's answer cannot be read: {0}")]
    BadAnswer(FrameError),
    /// The answer is not the one this request has.
    #[error("the server answered with code {0}")]
    OtherAnswer(Code),
}

/// Why a text was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// As many messages as the queue holds wait for their tick.
    #[error("{0} messages wait to be sent: the queue is full")]
    QueueFull(usize),
    /// Over the bound, or with a character that no text may have.
    #[error(transparent)]
    Text(#[from] BoundError),
    /// The client has ended.
    #[error("the client has ended")]
    Ended,
}

/// Why a client is over. It does nothing any more; a new one may be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The user logged out.
    #[error("logged out")]
    LoggedOut,
    /// There is no login, and trying again would not help or was not wanted.
    #[error(transparent)]
    NoLogin(ConnectError),
    /// The user logged in on another device.
    #[error("logged in on another device: {device:?}")]
    Replaced {
        /// Its name. Comes from another client: show it as text only.
        device: String,
        /// When, by the server's clock.
        at: WallTime,
    },
    /// The server ended the session for good: the password was changed or the account closed.
    #[error("the server ended the session: {0:?}")]
    Expired(ResultCode),
    /// The journal cannot be written. Going on would break the promise that what is confirmed is kept.
    #[error("the journal cannot be written: {0}")]
    Journal(String),
}
