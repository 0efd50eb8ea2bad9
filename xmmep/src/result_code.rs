//! All answers a server can give, with the numbers of the first version (0–16) and ours.

use crate::types::open_enum;

open_enum! {
    /// How a request ended.
    ResultCode(u16) {
        /// Done; what had to be stored is committed.
        0 SUCCESS,
        /// Something went wrong that has no code of its own.
        1 ERROR,
        /// A field breaks a rule; the detail names it.
        2 PARAM_ERROR,
        /// A server could not reach another one.
        3 NETWORKING_ERROR,
        /// The database refused; nothing happened.
        4 DATABASE_ERROR,
        /// Too much to do; try again after `retry_after_s`.
        5 SERVER_BUSY,
        /// Not able to say now, outcome unknown; repeat with the same id after `retry_after_s`.
        6 SERVER_NOT_READY,
        /// No answer in time. Raised by clients, never sent.
        7 TIME_OUT,
        /// No such user. Never sent at lookup or login.
        8 NO_SUCH_USER,
        /// The name is taken.
        9 USER_EXISTS,
        /// The e-mail address is taken.
        10 MAIL_IN_USE,
        /// Both are taken.
        11 USER_MAIL_EXISTS,
        /// Wrong password, or no such user: the two are not told apart.
        12 PASSWD_MISMATCH,
        /// The activation code is wrong, used or expired.
        13 ACTIVATE_CODE_MISMATCH,
        /// The password is right, but the account waits for its activation mail.
        14 USER_NOT_ACTIVATED,
        /// The session is over.
        15 EXPIRED_SESSION,
        /// The user logged in somewhere else.
        16 DUPLICATE_SESSION,
        /// Not allowed to this user.
        17 NOT_PERMITTED,
        /// No such thing.
        18 NOT_FOUND,
        /// The recipient takes nothing from the sender: block list or "buddies only", not told apart.
        19 BLOCKED,
        /// The recipient's, or the sender's, share of storage is used up.
        20 QUOTA_FULL,
        /// Over the size limit.
        21 TOO_LARGE,
        /// Too often; try again after `retry_after_s`.
        22 RATE_LIMITED,
        /// Kept too long without being fetched.
        23 EXPIRED,
        /// The server's disk is full.
        24 STORAGE_FULL,
        /// The user lives on another Presence; ask the Router once.
        25 MOVED,
        /// An order or write of a former owner.
        26 STALE_EPOCH,
        /// No handler is registered for this code here.
        27 UNKNOWN_CODE,
        /// Not now: the session is in another state.
        28 BAD_STATE,
        /// This code may not be sent by this side of this link.
        29 WRONG_ROLE,
        /// No common protocol version.
        30 VERSION_UNSUPPORTED,
        /// It is there already.
        31 ALREADY_EXISTS,
        /// A list is at its limit.
        32 LIMIT_REACHED,
        /// The same id came before with other content.
        33 ID_CONFLICT,
        /// Given up by who asked.
        34 CANCELLED,
        /// The content is not what its hash says.
        35 HASH_MISMATCH,
        /// Waits for the other side.
        36 PENDING,
        /// The other side said no.
        37 DECLINED,
        /// The other side said nothing.
        38 NO_ANSWER,
        /// Closed by an administrator.
        39 SUSPENDED,
    }
}
