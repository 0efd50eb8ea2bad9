//! Placements: who exists, under which unique name and address, and where each user lives. The Router's.

use async_trait::async_trait;
use xmmep::name::{Email, UserName};
use xmmep::secret::TokenHash;
use xmmep::types::{PresenceId, RequestId, UserId, WallTime};

use crate::error::StoreError;
use crate::records::{NewPlacement, Placement};

/// Unique names, activation, and the home of each user.
///
/// ```text
/// register ──► Registered ── begin_activation ──► Activating ── finish_activation ──► Active
///                  └── expires: name and address are free again
/// ```
///
/// A change is on stable storage before its call returns. Two calls at once behave as if one came after the other.
#[async_trait]
pub trait Placements: Send + Sync {
    /// Reserves a name and an address.
    ///
    /// To be correct:
    /// - of two registrations of one name or one address, in any spelling with the same folded form, one wins;
    /// - a repeated request id gets the first answer again, a refusal too, whatever else the repetition says, for at
    ///   least [`REGISTRATION_KEPT`](crate::records::REGISTRATION_KEPT), restarts included;
    /// - a registration whose token has expired at `now` stands in nobody's way;
    /// - a user id is never given out twice, not even after its registration expired.
    async fn register(&self, new: NewPlacement, now: WallTime) -> Result<Registration, StoreError>;

    /// The user of this name, compared in folded form. Expired registrations are found until the name is taken anew
    /// or [`forget`](Self::forget) removes them: see [`Placement::is_expired`].
    async fn by_name(&self, name: &UserName) -> Result<Option<Placement>, StoreError>;

    /// The user of this id.
    async fn by_user(&self, user: UserId) -> Result<Option<Placement>, StoreError>;

    /// The user to whom this token was mailed last, however far the registration is.
    async fn by_token(&self, token: &TokenHash) -> Result<Option<Placement>, StoreError>;

    /// The token came back: the user shall live at `presence`.
    ///
    /// To be correct:
    /// - the first Presence named stays: a retry gets the placement with the Presence chosen before;
    /// - an expired token changes nothing;
    /// - until [`finish_activation`](Self::finish_activation) the token can be repeated, so that a crash in between
    ///   strands nobody.
    async fn begin_activation(
        &self,
        token: &TokenHash,
        presence: PresenceId,
        now: WallTime,
    ) -> Result<Activation, StoreError>;

    /// The Presence has committed the account. Forgets the form. Repeating it changes nothing, and neither does
    /// calling it for a user who is not activating.
    async fn finish_activation(&self, user: UserId) -> Result<(), StoreError>;

    /// Activations begun and not finished, oldest user id first: what to resume after a restart.
    async fn activating(&self) -> Result<Vec<Placement>, StoreError>;

    /// Replaces the token of a registration that waits for its mail; the old token dies, the new expiry counts.
    ///
    /// To be correct:
    /// - repeating a request id changes nothing and gets the first answer again;
    /// - an expired registration at `now` is none; one that is activating or active keeps its token.
    async fn renew_token(
        &self,
        email: &Email,
        request: RequestId,
        token: &TokenHash,
        expires: WallTime,
        now: WallTime,
    ) -> Result<Renewal, StoreError>;

    /// Where an active user lives; `None` for everybody else.
    async fn locate(&self, user: UserId) -> Result<Option<PresenceId>, StoreError>;

    /// Erases a user: name and address are free, the id is never given out again, and answers to requests about this
    /// user are forgotten. Returns whether there was one. To be called last, when no Presence has anything of the user
    /// any more: until then the name still leads to what is left.
    async fn erase(&self, user: UserId) -> Result<bool, StoreError>;

    /// Housekeeping, to be called now and then: removes registrations expired at `now`, and answers to requests
    /// older than [`REGISTRATION_KEPT`](crate::records::REGISTRATION_KEPT). Returns how many registrations went.
    async fn forget(&self, now: WallTime) -> Result<u64, StoreError>;
}

/// How a registration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Reserved, for this user id.
    Registered(UserId),
    /// Somebody has the name.
    NameTaken,
    /// Somebody has the address.
    EmailTaken,
    /// Both are taken, perhaps by two users.
    BothTaken,
}

/// What a token that came back leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activation {
    /// On the way: hand the account to the Presence in the placement's state, then finish.
    Begun(Placement),
    /// This token has done its work before. It activates nothing again.
    AlreadyActive(Placement),
    /// Too late.
    Expired,
    /// Nobody was ever mailed this token, or a newer one has replaced it.
    Unknown,
}

/// How the renewal of a token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The new token counts.
    Renewed(UserId),
    /// Nobody with this address waits for a mail.
    NothingWaits,
}
