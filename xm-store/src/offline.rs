//! Offline messages: opaque parcels that wait for their recipients. When to store one is not decided here.

use async_trait::async_trait;
use xmmep::types::{UserId, WallTime};

use crate::error::StoreError;
use crate::records::{Level, Parcel, ParcelId, Place, Summary};

/// The queue of parcels of each recipient.
///
/// A tick stands on [`append`](Self::append) alone. Forgetting is lazy: [`settle`](Self::settle) may be lost in a crash
/// and costs a message that the recipient's device sees twice, never one that nobody sees.
#[async_trait]
pub trait Offline: Send + Sync {
    /// Appends parcels for `to`, in this order; returns once those stored are on stable storage. One answer per
    /// parcel, in the same order.
    ///
    /// To be correct:
    /// - an error promises nothing: the sender is told and tries again with the same id;
    /// - a second append of the same `(from, id)` stores nothing and returns the first place and its present level,
    ///   for as long as the parcel waits and [`LEVEL_KEPT`](crate::records::LEVEL_KEPT) longer; with another body it is
    ///   an [`IdConflict`](Appended::IdConflict);
    /// - places grow per recipient, in the order of calls and within a call, and are never used twice, whatever
    ///   crashed in between;
    /// - a parcel over quota is refused alone; others of the same call are not affected;
    /// - a failed flush to disk stops the store: no later call may succeed as if nothing had happened.
    async fn append(&self, to: UserId, parcels: Vec<Parcel>) -> Result<Vec<Appended>, StoreError>;

    /// Parcels of `to` that wait at places after `after`, oldest first: at most `messages_max` of them and at most
    /// `bytes_max` bytes of bodies, but always one if one is there, so that reading on gets to the end.
    ///
    /// A parcel that cannot be read is left out, counted by the implementation, and never stops the rest.
    async fn page(
        &self,
        to: UserId,
        after: Place,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Place, Parcel)>, StoreError>;

    /// What waits for `to`.
    async fn summary(&self, to: UserId) -> Result<Summary, StoreError>;

    /// Raises parcels of `to` to `level`, at `at`: they no longer wait. Unknown ids are passed over, and so are parcels
    /// whose level cannot rise to this one. Returns those that this call raised.
    ///
    /// Need not be on stable storage when it returns. Once it is, the parcels never come back in a page.
    async fn settle(
        &self,
        to: UserId,
        parcels: &[ParcelId],
        level: Level,
        at: WallTime,
    ) -> Result<Vec<ParcelId>, StoreError>;

    /// How far the parcel has come; `None` if it was never stored or was settled too long ago.
    async fn level(&self, to: UserId, parcel: ParcelId) -> Result<Option<Level>, StoreError>;

    /// Settles as [`Level::Expired`], at `now`, at most `max` parcels that the server took before `before`, and returns
    /// them so that their senders can be told. Call again while it returns some.
    async fn expire(&self, before: WallTime, now: WallTime, max: usize) -> Result<Vec<Expired>, StoreError>;

    /// Messages of `from` that wait for anybody, in some order of the implementation's that stays: at most
    /// `messages_max`, those behind `after`, which is where the last one of the page before was.
    async fn sent_by(
        &self,
        from: UserId,
        after: Option<(UserId, Place)>,
        messages_max: usize,
    ) -> Result<Vec<(UserId, Place, Parcel)>, StoreError>;

    /// Erases what waits for `user` and what `user` sent and waits for others. Once it returns, no body of it is left on
    /// the storage.
    ///
    /// They end as [`Level::Refused`], which is told to whoever asks; nothing else than ids and hashes remains of them, for
    /// as long as of any other.
    async fn erase(&self, user: UserId, at: WallTime) -> Result<Erased, StoreError>;

    /// Housekeeping, to be called now and then: forgets the levels of parcels settled longer than
    /// [`LEVEL_KEPT`](crate::records::LEVEL_KEPT) before `now`, and frees their space.
    async fn forget(&self, now: WallTime) -> Result<(), StoreError>;
}

/// How the append of one parcel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// On stable storage, here.
    Stored(Place),
    /// It was stored before, here, and has come this far.
    Already(Place, Level),
    /// Another parcel of this sender to this recipient has the id: its body differs. Nothing was stored.
    IdConflict,
    /// The recipient's store is full, or full for this sender. Nothing was stored.
    QuotaFull,
    /// The body is over [`PARCEL_BODY_MAX`](crate::records::PARCEL_BODY_MAX). Nothing was stored.
    TooLarge,
}

/// How many messages were erased while they waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Those for the user.
    pub to: u64,
    /// Those of the user, for others.
    pub from: u64,
    /// Files put aside because they were damaged, in which there may be more. They are kept for whoever looks into the
    /// damage, and must be deleted by hand.
    pub quarantined: u64,
}

/// A parcel nobody fetched in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// For whom it was.
    pub to: UserId,
    /// Who sent it, and its id.
    pub parcel: ParcelId,
    /// When the server took it.
    pub sent: WallTime,
}
