//! The users in memory: those who are online, and those somebody just wrote to. Names and rosters stay in the store; what
//! is kept per user is small: who may see and write to him, his session, his inbox.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use xm_store::records::{ParcelId, Roster};
use xm_store::{Contacts, StoreError};
use xmmep::bounded::Text;
use xmmep::messages::DeviceClass;
use xmmep::messages::chat::Tick;
use xmmep::types::{DeviceId, Status, Time, UserId};

use super::inbox::Inbox;
use super::recent::Recent;
use crate::outbox::SessionRef;

/// Shards of the table. Enough that lanes seldom meet at one lock.
const SHARDS: usize = 64;

/// Room in a shard that is kept however few are in it.
const SPARE: usize = 64;

/// How long a user stays in memory after nobody used him.
pub(super) const KEPT: Duration = Duration::from_secs(300);

/// The users in memory.
pub(super) struct Users {
    shards: Box<[Locked]>,
}

/// So far apart that lanes at different shards do not write to one line of the processors' caches.
#[derive(Default)]
#[repr(align(128))]
struct Locked(Mutex<Shard>);

#[derive(Default)]
struct Shard {
    /// Each in a box: the table has places for those to come, and they are to be small.
    users: HashMap<UserId, Box<User>>,
    /// Rosters that are being read.
    reading: HashMap<UserId, Reading>,
    recent: Recent,
}

/// A roster that is being read.
#[derive(Default)]
struct Reading {
    readers: usize,
    /// Counts what others changed since the first of them began: whoever has read meanwhile may have read what was before.
    changes: u64,
}

/// Somebody who reads a roster, until he has it or gives up.
struct Reader<'a> {
    users: &'a Users,
    user: UserId,
}

/// A user in memory.
pub(super) struct User {
    /// Who may see him and write to him, sorted: accepted in either direction, no block in either direction. `None` if the
    /// roster was not read: somebody who is written to while away needs none.
    friends: Option<Box<[UserId]>>,
    /// Whom he has blocked, sorted.
    pub(super) blocked: Box<[UserId]>,
    pub(super) online: Option<Online>,
    /// Messages on their way to him, if there are any.
    inbox: Option<Box<Inbox>>,
    pub(super) used: Time,
}

/// The session of a user.
pub(super) struct Online {
    pub(super) session: SessionRef,
    pub(super) device: DeviceId,
    pub(super) device_class: DeviceClass,
    /// The client has everything; others may be told and messages may come.
    pub(super) ready: bool,
    /// Whether the last inbox, now put away, was [live](Inbox::is_live).
    pub(super) live: bool,
    /// Others had asked to be buddies before the login: shown once the client is ready.
    pub(super) was_asked: bool,
    pub(super) status: Status,
    /// `None` if it is empty.
    pub(super) personal_msg: Option<Box<Text<256>>>,
    /// When watchers were told last, if ever.
    pub(super) announced: Option<Time>,
    /// What watchers were told last.
    pub(super) told: Status,
    /// A change waits for the merge interval to pass.
    pub(super) announce_due: bool,
    /// When this session took another one's place, if it did.
    pub(super) replaced_at: Option<Time>,
    /// How many texts may be sent, in thousandths, and when that was computed.
    pub(super) allowance: (u64, Time),
}

/// What a roster read again has changed between a user in memory and others.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Friends from now on.
    pub(super) gained: Vec<UserId>,
    /// Friends no more.
    pub(super) lost: Vec<UserId>,
}

impl User {
    fn absent(now: Time) -> Self {
        Self { friends: None, blocked: Box::default(), online: None, inbox: None, used: now }
    }

    /// Returns whose friend he became, or was: nobody, if he had not been known.
    fn take(&mut self, roster: &Roster) -> Changed {
        let mut friends: Vec<_> = roster.audience().chain(roster.visible()).collect();
        friends.sort_unstable();
        friends.dedup();
        let only = |these: &[UserId], those: &[UserId]| -> Vec<UserId> {
            these.iter().filter(|one| those.binary_search(one).is_err()).copied().collect()
        };
        let changed = |before: &[UserId]| Changed { gained: only(&friends, before), lost: only(before, &friends) };
        let changed = self.friends.as_deref().map(changed).unwrap_or_default();
        self.friends = Some(friends.into());
        self.blocked = roster.blocked.iter().map(|person| person.user).collect();
        changed
    }

    /// Whether the roster was read.
    pub(super) fn is_known(&self) -> bool {
        self.friends.is_some()
    }

    /// His friends, to tell them something once his lock is let go.
    pub(super) fn watchers(&self) -> Box<[UserId]> {
        self.friends.clone().unwrap_or_default()
    }

    /// Whether status and messages flow between the two.
    pub(super) fn is_friend(&self, other: UserId) -> bool {
        self.friends.as_ref().is_some_and(|friends| friends.binary_search(&other).is_ok())
    }

    /// The session, once its client is ready.
    pub(super) fn ready_session(&self) -> Option<SessionRef> {
        self.online.as_ref().filter(|online| online.ready).map(|online| online.session)
    }

    /// The user's inbox, made on first use.
    pub(super) fn inbox(&mut self) -> &mut Inbox {
        let live = self.online.as_ref().is_some_and(|online| online.live);
        self.inbox.get_or_insert_with(|| Box::new(Inbox::new(live)))
    }

    /// The user's inbox, if something is on its way to him, or was a moment ago.
    pub(super) fn open_inbox(&mut self) -> Option<&mut Inbox> {
        self.inbox.as_deref_mut()
    }

    /// Puts away an inbox that holds nothing: most users get nothing most of the time.
    pub(super) fn put_away_inbox(&mut self) {
        if let Some(inbox) = self.inbox.take_if(|inbox| inbox.is_empty())
            && let Some(online) = &mut self.online
        {
            online.live = inbox.is_live();
        }
    }

    /// Whether nobody needs him: no session and nothing on its way.
    fn is_idle(&self) -> bool {
        self.online.is_none() && self.inbox.as_ref().is_none_or(|inbox| inbox.is_empty())
    }
}

impl Users {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Locked::default()).collect() }
    }

    fn shard(&self, user: UserId) -> MutexGuard<'_, Shard> {
        // The number of shards is a power of two and never zero, so the index is always inside.
        let index = (user.0 as usize) & (SHARDS - 1);
        self.shards[index].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change` on a user in memory; `None` if he is not.
    pub(super) fn with<T>(&self, user: UserId, change: impl FnOnce(&mut User) -> T) -> Option<T> {
        self.shard(user).users.get_mut(&user).map(|user| change(user))
    }

    /// Runs `change` on a user without reading the store: somebody who is not in memory is not here, and that is all that
    /// is known of him.
    pub(super) fn with_absent<T>(&self, now: Time, user: UserId, change: impl FnOnce(&mut User) -> T) -> T {
        let mut shard = self.shard(user);
        let user = shard.users.entry(user).or_insert_with(|| Box::new(User::absent(now)));
        user.used = user.used.max(now);
        change(user)
    }

    /// Reads a user's roster and runs `change` on him, under a short lock, at most once: nothing that others changed and
    /// followed up happened in between.
    pub(super) async fn enter<T>(
        &self,
        contacts: &dyn Contacts,
        now: Time,
        user: UserId,
        change: impl FnOnce(&mut User, &Roster) -> T,
    ) -> Result<(Roster, T), StoreError> {
        let enter = |shard: &mut Shard, roster: Roster| {
            let user = shard.users.entry(user).or_insert_with(|| Box::new(User::absent(now)));
            user.used = user.used.max(now);
            if !user.is_known() {
                user.take(&roster);
            }
            let changed = change(user, &roster);
            (roster, changed)
        };
        self.read(contacts, user, enter).await
    }

    /// A roster was changed and committed: what is in memory follows.
    pub(super) async fn refresh(&self, contacts: &dyn Contacts, user: UserId) -> Result<Changed, StoreError> {
        {
            let mut shard = self.shard(user);
            if let Some(reading) = shard.reading.get_mut(&user) {
                reading.changes += 1;
            }
            if !shard.users.contains_key(&user) {
                return Ok(Changed::default());
            }
        }
        let take = |shard: &mut Shard, roster: Roster| shard.users.get_mut(&user).map(|user| user.take(&roster));
        Ok(self.read(contacts, user, take).await?.unwrap_or_default())
    }

    /// Reads a user's roster, anew if it was changed meanwhile; runs `with` on it under the lock under which that was found
    /// out.
    async fn read<T>(
        &self,
        contacts: &dyn Contacts,
        user: UserId,
        with: impl FnOnce(&mut Shard, Roster) -> T,
    ) -> Result<T, StoreError> {
        let _reader = Reader::begin(self, user);
        loop {
            let changes = self.shard(user).changes_of(user);
            let roster = contacts.load(user).await?;
            let mut shard = self.shard(user);
            if shard.changes_of(user) == changes {
                return Ok(with(&mut shard, roster));
            }
        }
    }

    /// Remembers how a message that never saw the store ended.
    pub(super) fn remember(&self, to: UserId, parcel: ParcelId, tick: Tick) {
        self.shard(to).recent.remember(to, parcel, tick);
    }

    /// How a message ended that never saw the store, if that was recently.
    pub(super) fn recall(&self, to: UserId, parcel: ParcelId) -> Option<Tick> {
        self.shard(to).recent.recall(to, parcel)
    }

    /// Forgets a user nobody needs: no session and nothing on its way.
    pub(super) fn forget_idle(&self, user: UserId) {
        let mut shard = self.shard(user);
        if shard.users.get(&user).is_some_and(|user| user.is_idle()) {
            shard.users.remove(&user);
            give_back(&mut shard.users);
        }
    }

    /// Forgets everybody whom nobody needed for [`KEPT`], and inboxes that hold nothing.
    pub(super) fn sweep(&self, now: Time) {
        for shard in &self.shards {
            let mut shard = shard.0.lock().unwrap_or_else(PoisonError::into_inner);
            shard.users.retain(|_, user| {
                user.put_away_inbox();
                !user.is_idle() || now.since(user.used) < KEPT
            });
            give_back(&mut shard.users);
        }
    }

    /// Runs `look` on everybody in memory, under a short lock each shard.
    pub(super) fn each(&self, mut look: impl FnMut(UserId, &User)) {
        for shard in &self.shards {
            let shard = shard.0.lock().unwrap_or_else(PoisonError::into_inner);
            shard.users.iter().for_each(|(id, user)| look(*id, user));
        }
    }

    /// How many users are in memory.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().unwrap_or_else(PoisonError::into_inner).users.len()).sum()
    }
}

impl Shard {
    /// Changes of a roster that is being read.
    fn changes_of(&self, user: UserId) -> u64 {
        self.reading.get(&user).map_or(0, |reading| reading.changes)
    }
}

impl<'a> Reader<'a> {
    fn begin(users: &'a Users, user: UserId) -> Self {
        users.shard(user).reading.entry(user).or_default().readers += 1;
        Self { users, user }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut shard = self.users.shard(self.user);
        if let Entry::Occupied(mut reading) = shard.reading.entry(self.user) {
            reading.get_mut().readers -= 1;
            if reading.get().readers == 0 {
                reading.remove();
            }
        }
    }
}

/// Gives the room of those who left back, long before it is several times what those who stay need.
fn give_back(users: &mut HashMap<UserId, Box<User>>) {
    if users.capacity() > 4 * users.len() + SPARE {
        users.shrink_to(2 * users.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_his_friends_takes_an_eighth_of_a_kibibyte() {
        assert!(size_of::<User>() <= 128, "{} bytes", size_of::<User>());
        assert!(size_of::<Inbox>() <= 96, "{} bytes", size_of::<Inbox>());
    }
}

/// With stores that take their time.
#[cfg(all(test, feature = "testing"))]
mod reading {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use xm_store::Stores;

    use super::*;
    use crate::testing::Disk;

    const ANN: UserId = UserId(1);
    /// Somebody in the same shard.
    const BOB: UserId = UserId(1 + SHARDS as u64);

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// How often Ann's roster is read if that of `changed` is changed while the first reading is under way.
    fn reads_when_changed_meanwhile(changed: UserId) -> u64 {
        let (users, disk) = (Users::new(), Disk::default());
        let stores = crate::testing::on_disk(&Stores::memory(), &disk, &disk);
        disk.stop();
        let mut enters = pin!(users.enter(&*stores.contacts, Time::ZERO, ANN, |_, _| ()));
        assert!(poll(enters.as_mut()).is_pending());
        assert!(poll(pin!(users.refresh(&*stores.contacts, changed))).is_ready(), "who is not in memory is not read");
        disk.resume();
        assert!(poll(enters).is_ready());
        assert!(users.shard(ANN).reading.is_empty());
        disk.calls()
    }

    #[test]
    fn a_roster_is_read_anew_if_it_was_changed_meanwhile_and_not_because_another_one_was() {
        assert_eq!(reads_when_changed_meanwhile(ANN), 2);
        assert_eq!(reads_when_changed_meanwhile(BOB), 1);
    }

    #[test]
    fn whoever_gives_up_reading_leaves_nothing_behind() {
        let (users, disk) = (Users::new(), Disk::default());
        let stores = crate::testing::on_disk(&Stores::memory(), &disk, &disk);
        disk.stop();
        {
            let enters = || users.enter(&*stores.contacts, Time::ZERO, ANN, |_, _| ());
            let (mut first, mut second) = (pin!(enters()), pin!(enters()));
            assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
            assert_eq!(users.shard(ANN).reading[&ANN].readers, 2);
        }
        assert!(users.shard(ANN).reading.is_empty());
    }
}
