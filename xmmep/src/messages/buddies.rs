//! Buddies: ask, answer, remove, change, block, unblock.
//!
//! ```text
//! A                         Presence                              B
//! │ AddBuddyReq ─────────────►│ committed as PENDING                │
//! │◄──── AddBuddyRes PENDING ─│── BuddiedNotify ───────────────────►│   now or at B's next login
//! │                           │◄────────────── BuddiedNotifyRes ────│   accept, accept and add, refuse
//! │◄──── BuddyAnsweredNotify ─│── RosterOpRes ─────────────────────►│   committed
//! │◄──── BuddyLoginNotify ────│                                     │   A may see B now
//! ```
//! If B has blocked A, A sees exactly the first two lines and B sees nothing.

use crate::bounded::Text;
use crate::messages::PublicCard;
use crate::messages::login::Buddy;
use crate::name::UserName;
use crate::result_code::ResultCode;
use crate::types::{GroupId, RosterVersion, UserId, open_enum};

crate::messages! {
    /// `MSG_ROSTER_OP_RES`, Presence → client: the change of the roster is committed.
    143 RosterOpRes {
        /// How it ended.
        result: ResultCode,
        /// The roster's version now.
        roster_version: RosterVersion,
    }
    /// `MSG_ADD_BUDDY_REQ`, client → Presence: may I have this user as a buddy?
    150 AddBuddyReq -> AddBuddyRes {
        /// Whom.
        name: UserName,
        /// The asker's own name for the buddy, or empty.
        display_name: Text<128>,
        /// The group to put the buddy in.
        group: GroupId,
        /// What the other one reads when asked.
        greeting: Text<256>,
    }
    /// `MSG_ADD_BUDDY_RES`, Presence → client: `PENDING` until the other one answers, `SUCCESS` if that happened before.
    151 AddBuddyRes {
        /// How it stands.
        result: ResultCode,
        /// The entry as stored.
        buddy: Buddy,
        /// The roster's version now.
        roster_version: RosterVersion,
    }
    /// `MSG_BUDDIED_NOTIFY`, Presence → client: somebody asks to have you as a buddy.
    152 BuddiedNotify {
        /// Who asks.
        card: PublicCard,
        /// What they wrote.
        greeting: Text<256>,
    }
    /// `MSG_BUDDIED_NOTIFY_RES`, client → Presence: the answer. Repeating it changes nothing.
    153 BuddiedNotifyRes -> RosterOpRes {
        /// Who asked.
        user: UserId,
        /// The answer.
        answer: BuddyAnswer,
    }
    /// `MSG_BUDDY_REMOVED_NOTIFY`, client → Presence: take this buddy off my list.
    154 BuddyRemovedNotify -> RosterOpRes {
        /// Whom.
        user: UserId,
    }
    /// `MSG_BUDDY_MODIFIED_NOTIFY`, client → Presence: change my entry for this buddy.
    155 BuddyModifiedNotify -> RosterOpRes {
        /// Whose.
        user: UserId,
        /// The new own name, if it changes.
        display_name: Option<Text<128>>,
        /// The new group, if it changes.
        group: Option<GroupId>,
    }
    /// `MSG_BUDDY_BLOCKED_NOTIFY`, client → Presence: I want nothing from this user.
    156 BuddyBlockedNotify -> RosterOpRes {
        /// Whom.
        user: UserId,
    }
    /// `MSG_BUDDY_UNBLOCKED_NOTIFY`, client → Presence: end a block.
    157 BuddyUnblockedNotify -> RosterOpRes {
        /// Whose.
        user: UserId,
        /// The group to put the buddy in; the one from before if absent.
        group: Option<GroupId>,
    }
    /// `MSG_BUDDY_ANSWERED_NOTIFY`, Presence → client: a user you asked said yes.
    158 BuddyAnsweredNotify {
        /// Who.
        user: UserId,
        /// Whether they accepted. Refusals are silent unless the server is configured to tell.
        accepted: bool,
        /// The roster's version now.
        roster_version: RosterVersion,
    }
}

open_enum! {
    /// The answer to a buddy request.
    BuddyAnswer(u8) {
        /// Yes: the asker sees me.
        0 ACCEPT,
        /// Yes, and I want to see the asker too.
        1 ACCEPT_AND_ADD,
        /// No. The asker is not told.
        2 REFUSE,
    }
}
