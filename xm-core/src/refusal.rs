//! Refusals: legal requests turned down, and the one table that gives each its code on the wire. Malformed bytes are
//! `DecodeError`, bugs are panics.

use std::borrow::Cow;

use xm_store::{RosterError, RosterRefusal, StoreError};
use xmmep::bounded::Text;
use xmmep::frame::Code;
use xmmep::messages::ResultMsg;
use xmmep::result_code::ResultCode;

use crate::link::LinkError;

/// Why a request is turned down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A field breaks a rule; the text names it.
    #[error("{0}")]
    BadField(Cow<'static, str>),
    /// No such user. Never at lookup or login.
    #[error("no such user")]
    NoSuchUser,
    /// No such thing.
    #[error("not found")]
    NotFound,
    /// Wrong password or no such user.
    #[error("wrong user name or password")]
    WrongPassword,
    /// Right password, but the activation mail was not answered.
    #[error("the account waits for its activation mail to be answered")]
    NotActivated,
    /// Not allowed.
    #[error("not permitted")]
    NotPermitted,
    /// Not in this state of the session.
    #[error("not in this state of the session")]
    BadState,
    /// Not from this kind of sender.
    #[error("this side of the link may not send this")]
    WrongRole,
    /// No handler here.
    #[error("no handler is registered for this code")]
    UnknownCode,
    /// A list is full.
    #[error("the list is full: at most {0} entries")]
    LimitReached(u32),
    /// It exists.
    #[error("it exists already")]
    AlreadyExists,
    /// Too often.
    #[error("too often: try again in {retry_after_s} s")]
    RateLimited {
        /// Seconds to wait.
        retry_after_s: u32,
    },
    /// Too much to do.
    #[error("the server is busy: try again in {retry_after_s} s")]
    Busy {
        /// Seconds to wait.
        retry_after_s: u32,
    },
    /// A store or server is away; outcome unknown.
    #[error("the server cannot say now: repeat the request in {retry_after_s} s")]
    NotReady {
        /// Seconds to wait.
        retry_after_s: u32,
    },
    /// The store refused; nothing happened.
    #[error("the store refused; nothing was changed")]
    Database,
    /// The disk is full.
    #[error("the server's storage is full")]
    StorageFull,
    /// An order of a former owner.
    #[error("a newer owner epoch is known")]
    StaleEpoch,
    /// Any other code, from handlers of embedders.
    #[error("{1}")]
    Other(ResultCode, Cow<'static, str>),
}

/// How long to wait before repeating a request that met a store or server that was away.
const NOT_READY_RETRY_S: u32 = 2;

impl Refusal {
    /// A server or store is away for a moment.
    pub const NOT_READY: Self = Self::NotReady { retry_after_s: NOT_READY_RETRY_S };

    /// The code on the wire.
    #[must_use]
    pub fn code(&self) -> ResultCode {
        match self {
            Self::BadField(_) => ResultCode::PARAM_ERROR,
            Self::NoSuchUser => ResultCode::NO_SUCH_USER,
            Self::NotFound => ResultCode::NOT_FOUND,
            Self::WrongPassword => ResultCode::PASSWD_MISMATCH,
            Self::NotActivated => ResultCode::USER_NOT_ACTIVATED,
            Self::NotPermitted => ResultCode::NOT_PERMITTED,
            Self::BadState => ResultCode::BAD_STATE,
            Self::WrongRole => ResultCode::WRONG_ROLE,
            Self::UnknownCode => ResultCode::UNKNOWN_CODE,
            Self::LimitReached(_) => ResultCode::LIMIT_REACHED,
            Self::AlreadyExists => ResultCode::ALREADY_EXISTS,
            Self::RateLimited { .. } => ResultCode::RATE_LIMITED,
            Self::Busy { .. } => ResultCode::SERVER_BUSY,
            Self::NotReady { .. } => ResultCode::SERVER_NOT_READY,
            Self::Database => ResultCode::DATABASE_ERROR,
            Self::StorageFull => ResultCode::STORAGE_FULL,
            Self::StaleEpoch => ResultCode::STALE_EPOCH,
            Self::Other(code, _) => *code,
        }
    }

    /// Seconds to wait before trying again, 0 if waiting does not help.
    #[must_use]
    pub fn retry_after_s(&self) -> u32 {
        match self {
            Self::RateLimited { retry_after_s } | Self::Busy { retry_after_s } | Self::NotReady { retry_after_s } => {
                *retry_after_s
            }
            _ => 0,
        }
    }

    /// The message that tells the sender.
    #[must_use]
    pub fn message(&self, answered: Code) -> ResultMsg {
        ResultMsg {
            result: self.code(),
            answered,
            retry_after_s: self.retry_after_s(),
            detail: Text::cut(&self.to_string()),
        }
    }
}

impl From<LinkError> for Refusal {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Down | LinkError::TimedOut | LinkError::BadAnswer => Self::NOT_READY,
            LinkError::Refused(result) => Self::Other(result.result, result.detail.as_str().to_owned().into()),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "a store failed");
        match error {
            StoreError::Full(_) => Self::StorageFull,
            StoreError::Busy(_) | StoreError::Conflict(_) => Self::Busy { retry_after_s: NOT_READY_RETRY_S },
            StoreError::Fenced => Self::StaleEpoch,
            StoreError::Corrupt(_) | StoreError::Rejected(_) => Self::Database,
            _ => Self::NOT_READY,
        }
    }
}

impl From<RosterError> for Refusal {
    fn from(error: RosterError) -> Self {
        match error {
            RosterError::Store(error) => error.into(),
            RosterError::Refused(refusal) => refusal.into(),
        }
    }
}

impl From<RosterRefusal> for Refusal {
    fn from(refusal: RosterRefusal) -> Self {
        match refusal {
            RosterRefusal::LimitReached(max) => Self::LimitReached(u32::try_from(max).unwrap_or(u32::MAX)),
            RosterRefusal::NoSuchBuddy | RosterRefusal::NoSuchRequest | RosterRefusal::NoSuchGroup(_) => Self::NotFound,
            RosterRefusal::GroupNameTaken => Self::AlreadyExists,
            RosterRefusal::Oneself | RosterRefusal::DefaultGroup => Self::BadField(refusal.to_string().into()),
        }
    }
}
