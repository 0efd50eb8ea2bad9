//! Profile cards: the public card for all, the full card for the user and accepted buddies.
//!
//! ```text
//! client                 Presence
//!   │ GetBuddyInfoReq ──────►│
//!   │◄──── GetBuddyInfoRes ──│
//! ```

use crate::messages::{FullCard, PublicCard};
use crate::result_code::ResultCode;
use crate::types::UserId;

crate::messages! {
    /// `MSG_GET_BUDDY_INFO_REQ`, client → Presence: who is this user?
    190 GetBuddyInfoReq -> GetBuddyInfoRes {
        /// Who.
        user: UserId,
    }
    /// `MSG_GET_BUDDY_INFO_RES`, Presence → client. A hidden and a missing user give the same refusal, `NOT_FOUND`.
    191 GetBuddyInfoRes {
        /// `SUCCESS`.
        result: ResultCode,
        /// What everybody may see.
        card: PublicCard,
        /// What accepted buddies may see, for them.
        full: Option<FullCard>,
    }
}
