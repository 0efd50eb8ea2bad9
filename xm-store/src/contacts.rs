//! Contacts: buddy lists, groups, requests and blocks, seen from both ends. Who is online is not here.

use async_trait::async_trait;
use xmmep::bounded::Text;
use xmmep::types::{GroupId, RosterVersion, UserId, WallTime};

use crate::error::{RosterError, StoreError};
use crate::records::{BuddyEntry, Person, Roster};

/// The relations between users.
///
/// A relation is one record, *owner has buddy*. The owner's home keeps it for the buddy list, the buddy's home
/// because the owner watches; where both live in one database it is one row, and the two ends cannot disagree.
///
/// To be correct, every method:
/// - is on stable storage before it returns, all of it or nothing;
/// - may be repeated: a change already made returns the present version and changes nothing;
/// - raises the version by one for each roster (groups, buddies, blocked) that it changed, and only then;
/// - returns the caller's own version unless it says otherwise.
#[async_trait]
pub trait Contacts: Send + Sync {
    /// All relations of `user`. A user without any has an empty roster of version 1.
    async fn load(&self, user: UserId) -> Result<Roster, StoreError>;

    /// `ask.me` wants `ask.buddy` as a buddy: an entry that is pending until the other side answers.
    ///
    /// To be correct:
    /// - a buddy who has blocked the asker looks to the asker exactly like one who has not answered yet, and is not
    ///   asked: [`Asked::is_heard`];
    /// - asking somebody who is on the list already changes neither group nor display name;
    /// - a refused request is put again after [`ASK_AGAIN_AFTER`](crate::records::ASK_AGAIN_AFTER), not before, and
    ///   the asker cannot tell the difference.
    ///
    /// # Errors
    /// Refused: `Oneself`, `LimitReached`, `NoSuchGroup`.
    async fn ask(&self, ask: Ask) -> Result<Asked, RosterError>;

    /// `me` answers the request of `asker`.
    ///
    /// To be correct:
    /// - accepting twice is accepting once; accepting after refusing counts; refusing after accepting changes
    ///   nothing, for the asker may already have been told: remove or block instead;
    /// - to accept *and add* puts the asker on `me`'s list, in the default group, accepted, in the same commit; if
    ///   that list is full nothing is done;
    /// - after a refusal the asker sees "waiting" as before.
    ///
    /// # Errors
    /// Refused: `NoSuchRequest`, also while `asker` is blocked; `LimitReached`.
    async fn answer(&self, me: &Person, asker: UserId, answer: Answer, at: WallTime) -> Result<Answered, RosterError>;

    /// Takes `buddy` off the list of `me`. What `buddy` has of `me` stays.
    async fn remove(&self, me: UserId, buddy: UserId) -> Result<RosterVersion, RosterError>;

    /// Changes the display name, the group or both of an entry, in one step.
    ///
    /// # Errors
    /// Refused: `NoSuchBuddy`, `NoSuchGroup`.
    async fn modify(
        &self,
        me: UserId,
        buddy: UserId,
        display_name: Option<Text<128>>,
        group: Option<GroupId>,
    ) -> Result<RosterVersion, RosterError>;

    /// `me` wants nothing from `other`. Entries of both sides stay as they are, so that unblocking restores them; a
    /// request of `other` is hidden while the block stands.
    ///
    /// # Errors
    /// Refused: `Oneself`, `LimitReached`.
    async fn block(&self, me: UserId, other: &Person, at: WallTime) -> Result<RosterVersion, RosterError>;

    /// Ends a block. If `other` is on the list of `me` and `group` is given, the entry moves there; without `group`
    /// it is where it was before.
    ///
    /// # Errors
    /// Refused: `NoSuchGroup`.
    async fn unblock(&self, me: UserId, other: UserId, group: Option<GroupId>) -> Result<RosterVersion, RosterError>;

    /// Creates a group. A group of the same name, byte for byte, is returned instead of making a second one.
    ///
    /// # Errors
    /// Refused: `LimitReached`.
    async fn create_group(&self, me: UserId, name: Text<64>) -> Result<(GroupId, RosterVersion), RosterError>;

    /// Renames a group.
    ///
    /// # Errors
    /// Refused: `DefaultGroup`, `NoSuchGroup`, `GroupNameTaken`.
    async fn rename_group(&self, me: UserId, group: GroupId, name: Text<64>) -> Result<RosterVersion, RosterError>;

    /// Deletes a group and moves its buddies to the default group, in one commit. Its id is never used again.
    ///
    /// # Errors
    /// Refused: `DefaultGroup`.
    async fn delete_group(&self, me: UserId, group: GroupId) -> Result<RosterVersion, RosterError>;

    /// Erases everything that says something about `user`: the roster, and what others have of this user on their lists,
    /// among their requests and among those they blocked. Returns the others whose roster changed, by id.
    async fn erase(&self, user: UserId) -> Result<Vec<UserId>, StoreError>;
}

/// A wish to have somebody as a buddy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who asks.
    pub me: Person,
    /// Who is asked.
    pub buddy: Person,
    /// The asker's own name for the buddy, or empty.
    pub display_name: Text<128>,
    /// The group to put the buddy in.
    pub group: GroupId,
    /// What the buddy reads.
    pub greeting: Text<256>,
    /// When.
    pub at: WallTime,
}

/// How asking ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whether this call made the request.
    pub standing: Standing,
    /// The entry as stored.
    pub entry: BuddyEntry,
    /// The asker's version now.
    pub version: RosterVersion,
    /// Whether the other side is to be asked now. Read it through [`is_heard`](Self::is_heard).
    pub heard: Heard,
}

impl Asked {
    /// Whether the other side is to be asked now: the request is new and no block keeps it from being shown.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.heard == Heard::Yes
    }
}

/// Whether a request is to be shown to whom it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Show it.
    Yes,
    /// It was shown before, or a block is in the way. The asker must not learn which.
    No,
}

/// How a request stood when somebody asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The entry is new.
    New,
    /// It waits for the answer already.
    Pending,
    /// It was accepted before.
    Accepted,
}

/// An answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes: the asker sees me.
    Accept,
    /// Yes, and I want to see the asker too.
    AcceptAndAdd,
    /// No. The asker is not told.
    Refuse,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The version of the one who answered.
    pub version: RosterVersion,
    /// The asker's new version if this call made the asker's entry accepted; `None` if it changed nothing there.
    pub accepted: Option<RosterVersion>,
}
