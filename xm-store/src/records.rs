//! What is stored, as plain data. What may be done with it is in the traits; nothing here travels on a wire.

use std::time::Duration;

use xmmep::bounded::{PrivateText, Text};
use xmmep::name::{Email, UserName};
use xmmep::secret::{KdfParams, KeyHash, Salt, TokenHash};
use xmmep::types::{GroupId, MsgId, PresenceId, RequestId, RosterVersion, UserId, WallTime};

/// A registration never activated frees its name and address after this, and answers to requests are remembered for
/// at least this long.
pub const REGISTRATION_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the level of a settled message can be asked for: a sender who was away learns it at the next login.
pub const LEVEL_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// A refused request may be asked again after this. Sooner, the asker sees "waiting" as before and nobody is asked.
pub const ASK_AGAIN_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Buddies of one user.
pub const BUDDIES_MAX: usize = 1_000;
/// Blocked users of one user.
pub const BLOCKED_MAX: usize = 1_000;
/// Groups of one user, the default group not counted.
pub const GROUPS_MAX: usize = 100;
/// Bytes in the body of a parcel: the largest text with its envelope, and room to grow.
pub const PARCEL_BODY_MAX: usize = 12 * 1024;

/// What a user tells about himself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Shown instead of the user name.
    pub nickname: Text<128>,
    /// A line of free text beside the status.
    pub personal_msg: Text<256>,
    /// `YYYY-MM-DD`, or empty.
    pub birthdate: Text<10>,
    /// Free text.
    pub location: Text<128>,
    /// The number of the protocol's `Gender`: 0 female, 1 male, 2 not stated.
    pub gender: u8,
    /// Hash of the picture, if there is one.
    pub avatar: Option<[u8; 32]>,
}

/// Whether others may find a user. The owner's own switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Findable {
    /// Whether searches find the user at all. Yes, unless the owner says no.
    pub in_search: bool,
    /// Whether the whole e-mail address finds the user, while `in_search` is on. No, unless the owner says yes.
    pub by_email: bool,
}

impl Default for Findable {
    fn default() -> Self {
        Self { in_search: true, by_email: false }
    }
}

/// What everybody may see of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The id.
    pub user: UserId,
    /// The name.
    pub name: UserName,
    /// See [`Profile::nickname`].
    pub nickname: Text<128>,
    /// See [`Profile::personal_msg`].
    pub personal_msg: Text<256>,
    /// See [`Profile::location`].
    pub location: Text<128>,
    /// See [`Profile::avatar`].
    pub avatar: Option<[u8; 32]>,
}

/// A user and the name that goes with the id for ever. Stored with each relation, because the other side may live
/// in another database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The id.
    pub user: UserId,
    /// The name as registered.
    pub name: UserName,
}

/// A registration, as it comes from the form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPlacement {
    /// Names this registration in all retries.
    pub request: RequestId,
    /// The name asked for.
    pub name: UserName,
    /// The address the activation mail goes to.
    pub email: Email,
    /// Salt of the login key.
    pub salt: Salt,
    /// Cost of the login key.
    pub kdf: KdfParams,
    /// Hash of the login key.
    pub key_hash: KeyHash,
    /// Hash of the token in the activation mail.
    pub token: TokenHash,
    /// When the token, and a registration never activated, expires.
    pub expires: WallTime,
    /// The rest of the form.
    pub profile: Profile,
}

/// A user as the Router knows him: unique name and address, how to derive the login key, where he lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The id, never used for anybody else.
    pub user: UserId,
    /// The name, unique in its folded form.
    pub name: UserName,
    /// The address, unique in its folded form.
    pub email: Email,
    /// Salt of the login key.
    pub salt: Salt,
    /// Cost of the login key.
    pub kdf: KdfParams,
    /// What the Presence has not got yet; `None` once it has.
    pub form: Option<Form>,
    /// How far the registration is.
    pub state: PlacementState,
    /// When the form was sent.
    pub registered_at: WallTime,
}

/// The part of a registration that the Router keeps only until a Presence has the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// Hash of the login key.
    pub key_hash: KeyHash,
    /// The rest of the form.
    pub profile: Profile,
}

/// How far a registration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementState {
    /// The activation mail is unanswered.
    Registered {
        /// From then on name and address may go to somebody else.
        expires: WallTime,
    },
    /// The token came back; `presence` may or may not have the account yet.
    Activating {
        /// Where the user will live.
        presence: PresenceId,
    },
    /// The account exists.
    Active {
        /// Where the user lives.
        presence: PresenceId,
    },
}

impl Placement {
    /// Whether nobody answered the activation mail in time: the name is free for the next who asks.
    #[must_use]
    pub fn is_expired(&self, now: WallTime) -> bool {
        matches!(self.state, PlacementState::Registered { expires } if expires <= now)
    }

    /// Where the user lives, once activated.
    #[must_use]
    pub fn home(&self) -> Option<PresenceId> {
        match self.state {
            PlacementState::Active { presence } => Some(presence),
            PlacementState::Registered { .. } | PlacementState::Activating { .. } => None,
        }
    }
}

/// An account that a Presence is told to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAccount {
    /// The id from the Router.
    pub user: UserId,
    /// The name.
    pub name: UserName,
    /// The address.
    pub email: Email,
    /// Hash of the login key.
    pub key_hash: KeyHash,
    /// The rest of the form.
    pub profile: Profile,
    /// When the form was sent.
    pub created: WallTime,
}

/// A user as his Presence knows him.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The id.
    pub user: UserId,
    /// The name.
    pub name: UserName,
    /// The address.
    pub email: Email,
    /// Hash of the login key.
    pub key_hash: KeyHash,
    /// What the user tells about himself.
    pub profile: Profile,
    /// Whether others may find the user.
    pub findable: Findable,
    /// 1 at first; each change of `profile` or `findable` raises it by one.
    pub profile_version: u64,
    /// When the form was sent.
    pub created: WallTime,
    /// The last good login, if there was one.
    pub last_login: Option<WallTime>,
    /// Failed logins since then.
    pub failed_attempts: u32,
    /// The last failed login since then, if there was one.
    pub last_failed: Option<WallTime>,
}

impl Account {
    /// What everybody may see.
    #[must_use]
    pub fn card(&self) -> Card {
        Card {
            user: self.user,
            name: self.name.clone(),
            nickname: self.profile.nickname.clone(),
            personal_msg: self.profile.personal_msg.clone(),
            location: self.profile.location.clone(),
            avatar: self.profile.avatar,
        }
    }
}

/// A buddy group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The id, unique for its owner and never used again. The default group, 0, is not stored.
    pub group: GroupId,
    /// The name, unique for its owner, byte for byte.
    pub name: Text<64>,
}

/// Whether the other side of a relation agreed to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuddyState {
    /// Not yet, or refused, or blocked: for the asker these look alike.
    Pending,
    /// Yes: status and messages flow.
    Accepted,
}

/// An entry of a buddy list, as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuddyEntry {
    /// The buddy.
    pub buddy: Person,
    /// The group it is in.
    pub group: GroupId,
    /// The owner's own name for the buddy, or empty.
    pub display_name: Text<128>,
    /// Whether the buddy agreed.
    pub state: BuddyState,
    /// When the owner asked last.
    pub asked_at: WallTime,
    /// What the buddy reads or read when asked.
    pub greeting: Text<256>,
}

/// Somebody who has the user as a buddy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watcher {
    /// Who.
    pub who: Person,
    /// Whether the user agreed. A watcher still pending sees nothing.
    pub state: BuddyState,
}

/// A request that waits for the user's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuddyRequest {
    /// Who asks.
    pub from: Person,
    /// What they wrote.
    pub greeting: Text<256>,
    /// When.
    pub asked_at: WallTime,
}

/// All relations of a user. Each list is sorted by user id or group id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The version of groups, buddies and blocked: 1 for a user who never changed them.
    pub version: RosterVersion,
    /// The groups, without the default group.
    pub groups: Vec<Group>,
    /// The buddy list.
    pub buddies: Vec<BuddyEntry>,
    /// Who has this user as a buddy, blocked users included.
    pub watchers: Vec<Watcher>,
    /// Whom this user has blocked.
    pub blocked: Vec<Person>,
    /// Who has blocked this user. For the server alone, never shown to the user.
    pub blocked_by: Vec<UserId>,
    /// Requests that wait for an answer, without those of blocked users.
    pub requests: Vec<BuddyRequest>,
}

impl Roster {
    /// Whether a block stands between this user and `other`, in either direction: nothing flows then.
    #[must_use]
    pub fn is_cut_off(&self, other: UserId) -> bool {
        self.blocked.binary_search_by_key(&other, |person| person.user).is_ok()
            || self.blocked_by.binary_search(&other).is_ok()
    }

    /// Who may see this user's status: accepted watchers with no block in either direction.
    pub fn audience(&self) -> impl Iterator<Item = UserId> + '_ {
        let accepted = self.watchers.iter().filter(|watcher| watcher.state == BuddyState::Accepted);
        accepted.map(|watcher| watcher.who.user).filter(|user| !self.is_cut_off(*user))
    }

    /// Whose status this user may see: accepted buddies with no block in either direction.
    pub fn visible(&self) -> impl Iterator<Item = UserId> + '_ {
        let accepted = self.buddies.iter().filter(|entry| entry.state == BuddyState::Accepted);
        accepted.map(|entry| entry.buddy.user).filter(|user| !self.is_cut_off(*user))
    }
}

/// A message that waits for its recipient. The store neither reads nor changes the body.
#[derive(Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Who sent it.
    pub from: UserId,
    /// The message, named by its sender.
    pub id: MsgId,
    /// When the server took it. Not compared when a message comes twice.
    pub sent: WallTime,
    /// The message, at most [`PARCEL_BODY_MAX`] bytes. Never printed.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Parcel {{ from: {}, id: {}, sent: {}, body: {} bytes }}",
            self.from,
            self.id,
            self.sent.0,
            self.body.len()
        )
    }
}

/// Where a parcel stands in the queue of its recipient. Grows with every parcel accepted and is never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u64);

impl Place {
    /// Before the first parcel.
    pub const START: Self = Self(0);
}

/// How far a stored message has come. Levels only rise; `Refused` and `Expired` are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// On stable storage, waiting.
    Stored,
    /// The recipient's device has it.
    Received,
    /// The recipient has seen it.
    Read,
    /// Turned down after it was stored, for example by a block.
    Refused,
    /// Nobody fetched it in time.
    Expired,
}

impl Level {
    /// Whether a message at this level may rise to `next`.
    #[must_use]
    pub fn rises_to(self, next: Self) -> bool {
        match self {
            Self::Stored => next > Self::Stored,
            Self::Received => next == Self::Read,
            Self::Read | Self::Refused | Self::Expired => false,
        }
    }
}

/// A stored message, named from its recipient's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParcelId {
    /// Who sent it.
    pub from: UserId,
    /// The message.
    pub id: MsgId,
}

/// What waits for a recipient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many messages.
    pub messages: u64,
    /// Their bodies together, in bytes.
    pub bytes: u64,
    /// When the server took the oldest, if there is one.
    pub oldest: Option<WallTime>,
}

/// How much may wait for one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Messages in all.
    pub messages: u64,
    /// Bytes of their bodies in all.
    pub bytes: u64,
    /// Messages from one sender, so that nobody fills another's store alone.
    pub messages_per_sender: u64,
}

impl Default for Quotas {
    /// 1,000 messages, 4 MiB, 100 messages from one sender.
    fn default() -> Self {
        Self { messages: 1_000, bytes: 4 * 1024 * 1024, messages_per_sender: 100 }
    }
}

/// A mail that Register has to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Names the mail in all retries and on the wire (`Message-ID`).
    pub id: RequestId,
    /// To whom.
    pub to: Email,
    /// The subject line.
    pub subject: Text<256>,
    /// The text. Holds a token: never printed, erased once sent or given up.
    pub body: PrivateText<8192>,
    /// When it was written.
    pub created: WallTime,
}

/// Where a mail is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailState {
    /// To be sent.
    Waiting {
        /// How often a relay has put us off.
        attempts: u32,
        /// Not before then.
        due: WallTime,
        /// What the relay said last.
        reason: Text<256>,
    },
    /// A relay has taken it.
    Sent {
        /// When.
        at: WallTime,
    },
    /// Given up: the address or the mail was turned down for good.
    Failed {
        /// When.
        at: WallTime,
        /// What the relay said.
        reason: Text<256>,
    },
}
