//! Registration: from the web form to an account that can log in.
//!
//! ```text
//! browser      Register                       Router                     Presence
//!   │ form ──────►│ Argon2id, draws a token      │                          │
//!   │             │─ RegisterReq ───────────────►│ name, e-mail unique      │
//!   │             │◄────────────── RegisterRes ──│ committed                │
//!   │◄─ "check your mail"; mail with the token   │                          │
//!   │ button ────►│─ RegisterActivateReq ───────►│ token spent              │
//!   │             │                              │─ UserRegisteredNotify ──►│ account
//!   │             │                              │◄ UserRegisteredNotifyRes │ committed
//!   │◄─ "welcome" │◄────── RegisterActivateRes ──│                          │
//! ```

use crate::messages::{Profile, ResultMsg};
use crate::name::{Email, UserName};
use crate::result_code::ResultCode;
use crate::secret::{KdfParams, KeyHash, Salt, Token, TokenHash};
use crate::types::{OwnerEpoch, RequestId, UserId, WallTime};

crate::messages! {
    /// `MSG_REGISTER_REQ`, Register → Router: reserve a name and an e-mail address.
    ///
    /// Repeating a request id gives the first answer again.
    100 RegisterReq -> RegisterRes {
        /// Names this registration in all retries.
        request: RequestId,
        /// The name asked for.
        name: UserName,
        /// The address the activation mail goes to.
        email: Email,
        /// Salt of the login key.
        salt: Salt,
        /// Cost of the login key.
        kdf: KdfParams,
        /// Hash of the login key that Register derived from the form's password.
        key_hash: KeyHash,
        /// Hash of the token in the activation mail.
        token_hash: TokenHash,
        /// When the token, and an account never activated, expires.
        token_expires: WallTime,
        /// The rest of the form.
        profile: Profile,
    }
    /// `MSG_REGISTER_RES`, Router → Register: `SUCCESS`, `USER_EXISTS`, `MAIL_IN_USE` or `USER_MAIL_EXISTS`.
    101 RegisterRes {
        /// How it ended.
        result: ResultCode,
    }
    /// `MSG_REGISTER_ACTIVATE_REQ`, Register → Router: the token of an activation mail came back.
    102 RegisterActivateReq -> RegisterActivateRes {
        /// The token.
        token: Token,
    }
    /// `MSG_REGISTER_ACTIVATE_RES`, Router → Register: `SUCCESS` once the Presence has the account, else
    /// `ACTIVATE_CODE_MISMATCH` for a token that is wrong, used or expired.
    103 RegisterActivateRes {
        /// How it ended.
        result: ResultCode,
        /// The account's name, empty unless `SUCCESS`.
        name: crate::bounded::Text<128>,
    }
    /// `MSG_USER_REGISTERED_NOTIFY`, Router → Presence: take this account. Repeated until answered.
    104 UserRegisteredNotify -> UserRegisteredNotifyRes {
        /// The user's id for ever.
        user: UserId,
        /// The owner epoch under which the Router believes the Presence to act.
        owner_epoch: OwnerEpoch,
        /// The name.
        name: UserName,
        /// The e-mail address.
        email: Email,
        /// Hash of the login key.
        key_hash: KeyHash,
        /// The rest of the form.
        profile: Profile,
        /// When the form was sent.
        registered_at: WallTime,
    }
    /// `MSG_USER_REGISTERED_NOTIFY_RES`, Presence → Router: the account is committed.
    105 UserRegisteredNotifyRes {
        /// Which.
        user: UserId,
        /// How it ended.
        result: ResultCode,
    }
    /// `MSG_ACTIVATION_RESEND_REQ`, Register → Router: a new token for an account that waits; the old one dies.
    /// Answered by `ResultMsg`; the page says the same whatever it is.
    109 ActivationResendReq -> ResultMsg {
        /// Names this request in all retries.
        request: RequestId,
        /// The account's address.
        email: Email,
        /// Hash of the new token.
        token_hash: TokenHash,
        /// When it expires.
        token_expires: WallTime,
    }
}
