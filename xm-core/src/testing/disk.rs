//! Disks and databases that take their time, stand still or fail: stores behind a gate that a test holds. What is stored,
//! and how, is the store's own affair.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use xm_store::accounts::{Accounts, Creation, LoginHistory, ProfileChanges};
use xm_store::contacts::{Answer, Answered, Ask, Asked, Contacts};
use xm_store::offline::{Appended, Erased, Expired, Offline};
use xm_store::records::{Account, Level, NewAccount, Parcel, ParcelId, Person, Place, Roster, Summary};
use xm_store::search::{Hits, Query, Search};
use xm_store::{RosterError, StoreError, Stores};
use xmmep::bounded::Text;
use xmmep::name::UserName;
use xmmep::types::{GroupId, RosterVersion, Time, UserId, WallTime};

/// What is under some stores of a Presence: the disk with the offline messages, or the database. Clones are the same one.
///
/// A call takes half of [`set_latency`](Self::set_latency) before it does its work and half after it, so that a crash
/// finds some calls done and not yet answered.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    now: Time,
    latency: Duration,
    stopped: bool,
    fails: Option<StoreError>,
    calls: u64,
    appends: u64,
    waiting: Vec<(Time, Waker)>,
}

impl Disk {
    /// How long each call takes; nothing at first.
    pub fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// From now on no call comes back.
    pub fn stop(&self) {
        self.state().stopped = true;
    }

    /// The calls that did not come back do.
    pub fn resume(&self) {
        self.state().stopped = false;
        self.wake(Time::from_micros(u64::MAX));
    }

    /// From now on every call fails like this, having done nothing; `None` ends that.
    pub fn fail(&self, error: Option<StoreError>) {
        self.state().fails = error;
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Calls so far that appended offline messages.
    #[must_use]
    pub fn appends(&self) -> u64 {
        self.state().appends
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the next call goes on.
    pub(super) fn deadline(&self) -> Option<Time> {
        let state = self.state();
        if state.stopped { None } else { state.waiting.iter().map(|(at, _)| *at).min() }
    }

    pub(super) fn advance(&self, now: Time) {
        self.state().now = now;
        self.wake(now);
    }

    fn wake(&self, now: Time) {
        let mut state = self.state();
        if state.stopped {
            return;
        }
        let due: Vec<_> = state.waiting.extract_if(.., |(at, _)| *at <= now).collect();
        drop(state);
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Half of the way there.
    async fn begin(&self) -> Result<(), StoreError> {
        self.state().calls += 1;
        self.half().await;
        self.state().fails.clone().map_or(Ok(()), Err)
    }

    /// And half of the way back.
    async fn half(&self) {
        let mut due = None;
        poll_fn(|context| {
            let mut state = self.state();
            let at = *due.get_or_insert(state.now.after(state.latency / 2));
            if !state.stopped && at <= state.now {
                return Poll::Ready(());
            }
            state.waiting.push((at, context.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// `stores`, with accounts, contacts and search in `database` and offline messages on `disk`.
#[must_use]
pub fn on_disk(stores: &Stores, database: &Disk, disk: &Disk) -> Stores {
    Stores {
        accounts: Arc::new(Gated { inner: stores.accounts.clone(), disk: database.clone() }),
        contacts: Arc::new(Gated { inner: stores.contacts.clone(), disk: database.clone() }),
        search: Arc::new(Gated { inner: stores.search.clone(), disk: database.clone() }),
        offline: Arc::new(Gated { inner: stores.offline.clone(), disk: disk.clone() }),
    }
}

struct Gated<T: ?Sized> {
    inner: Arc<T>,
    disk: Disk,
}

/// Runs one call of the inner store between the two halves of the way.
macro_rules! gated {
    ($self:ident, $call:ident($($argument:expr),*)) => {{
        $self.disk.begin().await?;
        let result = $self.inner.$call($($argument),*).await;
        $self.disk.half().await;
        result
    }};
}

#[async_trait]
impl Accounts for Gated<dyn Accounts> {
    async fn create(&self, new: NewAccount) -> Result<Creation, StoreError> {
        gated!(self, create(new))
    }

    async fn by_name(&self, name: &UserName) -> Result<Option<Account>, StoreError> {
        gated!(self, by_name(name))
    }

    async fn by_user(&self, user: UserId) -> Result<Option<Account>, StoreError> {
        gated!(self, by_user(user))
    }

    async fn by_users(&self, users: &[UserId]) -> Result<Vec<Account>, StoreError> {
        gated!(self, by_users(users))
    }

    async fn update_profile(&self, user: UserId, changes: &ProfileChanges) -> Result<Option<Account>, StoreError> {
        gated!(self, update_profile(user, changes))
    }

    async fn logged_in(
        &self,
        user: UserId,
        read: LoginHistory,
        at: WallTime,
    ) -> Result<Option<LoginHistory>, StoreError> {
        gated!(self, logged_in(user, read, at))
    }

    async fn login_failed(&self, user: UserId, at: WallTime) -> Result<u32, StoreError> {
        gated!(self, login_failed(user, at))
    }

    async fn erase(&self, user: UserId) -> Result<bool, StoreError> {
        gated!(self, erase(user))
    }
}

#[async_trait]
impl Contacts for Gated<dyn Contacts> {
    async fn load(&self, user: UserId) -> Result<Roster, StoreError> {
        gated!(self, load(user))
    }

    async fn ask(&self, ask: Ask) -> Result<Asked, RosterError> {
        gated!(self, ask(ask))
    }

    async fn answer(&self, me: &Person, asker: UserId, answer: Answer, at: WallTime) -> Result<Answered, RosterError> {
        gated!(self, answer(me, asker, answer, at))
    }

    async fn remove(&self, me: UserId, buddy: UserId) -> Result<RosterVersion, RosterError> {
        gated!(self, remove(me, buddy))
    }

    async fn modify(
        &self,
        me: UserId,
        buddy: UserId,
        display_name: Option<Text<128>>,
        group: Option<GroupId>,
    ) -> Result<RosterVersion, RosterError> {
        gated!(self, modify(me, buddy, display_name, group))
    }

    async fn block(&self, me: UserId, other: &Person, at: WallTime) -> Result<RosterVersion, RosterError> {
        gated!(self, block(me, other, at))
    }

    async fn unblock(&self, me: UserId, other: UserId, group: Option<GroupId>) -> Result<RosterVersion, RosterError> {
        gated!(self, unblock(me, other, group))
    }

    async fn create_group(&self, me: UserId, name: Text<64>) -> Result<(GroupId, RosterVersion), RosterError> {
        gated!(self, create_group(me, name))
    }

    async fn rename_group(&self, me: UserId, group: GroupId, name: Text<64>) -> Result<RosterVersion, RosterError> {
        gated!(self, rename_group(me, group, name))
    }

    async fn delete_group(&self, me: UserId, group: GroupId) -> Result<RosterVersion, RosterError> {
        gated!(self, delete_group(me, group))
    }

    async fn erase(&self, user: UserId) -> Result<Vec<UserId>, StoreError> {
        gated!(self, erase(user))
    }
}

#[async_trait]
impl Search for Gated<dyn Search> {
    async fn find(&self, query: &Query, after: Option<UserId>, max: usize) -> Result<Hits, StoreError> {
        gated!(self, find(query, after, max))
    }
}

#[async_trait]
impl Offline for Gated<dyn Offline> {
    async fn append(&self, to: UserId, parcels: Vec<Parcel>) -> Result<Vec<Appended>, StoreError> {
        self.disk.state().appends += 1;
        gated!(self, append(to, parcels))
    }

    async fn page(
        &self,
        to: UserId,
        after: Place,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Place, Parcel)>, StoreError> {
        gated!(self, page(to, after, messages_max, bytes_max))
    }

    async fn summary(&self, to: UserId) -> Result<Summary, StoreError> {
        gated!(self, summary(to))
    }

    async fn settle(
        &self,
        to: UserId,
        parcels: &[ParcelId],
        level: Level,
        at: WallTime,
    ) -> Result<Vec<ParcelId>, StoreError> {
        gated!(self, settle(to, parcels, level, at))
    }

    async fn level(&self, to: UserId, parcel: ParcelId) -> Result<Option<Level>, StoreError> {
        gated!(self, level(to, parcel))
    }

    async fn expire(&self, before: WallTime, now: WallTime, max: usize) -> Result<Vec<Expired>, StoreError> {
        gated!(self, expire(before, now, max))
    }

    async fn sent_by(
        &self,
        from: UserId,
        after: Option<(UserId, Place)>,
        messages_max: usize,
    ) -> Result<Vec<(UserId, Place, Parcel)>, StoreError> {
        gated!(self, sent_by(from, after, messages_max))
    }

    async fn erase(&self, user: UserId, at: WallTime) -> Result<Erased, StoreError> {
        gated!(self, erase(user, at))
    }

    async fn forget(&self, now: WallTime) -> Result<(), StoreError> {
        gated!(self, forget(now))
    }
}
