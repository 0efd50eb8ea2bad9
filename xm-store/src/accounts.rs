//! Accounts: the users who live at a Presence, with key hash and profile. Relations between them are in `contacts.rs`.

use async_trait::async_trait;
use xmmep::bounded::Text;
use xmmep::name::UserName;
use xmmep::types::{UserId, WallTime};

use crate::error::StoreError;
use crate::records::{Account, NewAccount};

/// Users in one [`Accounts::by_users`] call.
pub const BY_USERS_MAX: usize = 1_000;

/// The users of a Presence. A change is on stable storage before its call returns.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Takes an account.
    ///
    /// To be correct:
    /// - taking the same user of the same name again changes nothing, so that the Router may repeat itself;
    /// - a user id or a folded name that belongs to another account is a conflict and changes nothing.
    async fn create(&self, new: NewAccount) -> Result<Creation, StoreError>;

    /// The account of this name, compared in folded form.
    async fn by_name(&self, name: &UserName) -> Result<Option<Account>, StoreError>;

    /// The account of this id.
    async fn by_user(&self, user: UserId) -> Result<Option<Account>, StoreError>;

    /// The accounts of these ids, by ascending id, each once; ids without an account are left out. At most
    /// [`BY_USERS_MAX`] ids a call; ids beyond that are not looked up.
    async fn by_users(&self, users: &[UserId]) -> Result<Vec<Account>, StoreError>;

    /// Changes what is given of profile and switches. Returns the account as it is then; `None` if there is none.
    ///
    /// To be correct:
    /// - all of it is done or nothing; what is `None` stays as it is, also if two calls at once change different fields;
    /// - the version rises by one if anything is different, and only then: a repetition changes nothing;
    /// - [`Search`](crate::Search) finds the user by the new values, and no longer by the old ones, from the same
    ///   commit on.
    async fn update_profile(&self, user: UserId, changes: &ProfileChanges) -> Result<Option<Account>, StoreError>;

    /// Notes a good login at `at` and starts counting failures anew. Returns how it was before; `None` if there is
    /// no such account. `read` is what the caller read of it before: while that is still so, it need not be read again.
    async fn logged_in(
        &self,
        user: UserId,
        read: LoginHistory,
        at: WallTime,
    ) -> Result<Option<LoginHistory>, StoreError>;

    /// Notes a failed login at `at`. Returns how many there have been since the last good one, this one included;
    /// 0 if there is no such account. Two failures at once count as two; so may one whose call is repeated after an error,
    /// for they cannot be told apart.
    async fn login_failed(&self, user: UserId, at: WallTime) -> Result<u32, StoreError>;

    /// Erases the account: nothing of it is left, also in what [`Search`](crate::Search) looks at. Returns whether there was one.
    async fn erase(&self, user: UserId) -> Result<bool, StoreError>;
}

/// How the taking of an account ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// It is new.
    Created,
    /// It was there.
    Already,
    /// The id or the name belongs to another account: Router and Presence disagree, somebody must look.
    Conflict,
}

/// What was known before a good login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoginHistory {
    /// The good login before, if there was one.
    pub last_login: Option<WallTime>,
    /// Failed logins in between.
    pub failed_attempts: u32,
}

/// What a user changes about himself. What is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProfileChanges {
    /// See [`nickname`](crate::records::Profile::nickname); empty takes it away. The same goes for the other texts.
    pub nickname: Option<Text<128>>,
    /// See [`personal_msg`](crate::records::Profile::personal_msg).
    pub personal_msg: Option<Text<256>>,
    /// See [`birthdate`](crate::records::Profile::birthdate).
    pub birthdate: Option<Text<10>>,
    /// See [`location`](crate::records::Profile::location).
    pub location: Option<Text<128>>,
    /// See [`gender`](crate::records::Profile::gender).
    pub gender: Option<u8>,
    /// See [`avatar`](crate::records::Profile::avatar); `Some(None)` takes the picture away.
    pub avatar: Option<Option<[u8; 32]>>,
    /// See [`in_search`](crate::records::Findable::in_search).
    pub in_search: Option<bool>,
    /// See [`by_email`](crate::records::Findable::by_email).
    pub by_email: Option<bool>,
}

impl Account {
    /// What it says of logins.
    #[must_use]
    pub fn history(&self) -> LoginHistory {
        LoginHistory { last_login: self.last_login, failed_attempts: self.failed_attempts }
    }

    /// Makes the changes. Returns whether anything is different now; then the version is one higher.
    pub fn change(&mut self, changes: &ProfileChanges) -> bool {
        fn set<T: Clone + PartialEq>(field: &mut T, new: Option<&T>) -> bool {
            let Some(new) = new.filter(|new| *new != field) else { return false };
            *field = new.clone();
            true
        }
        let (profile, findable) = (&mut self.profile, &mut self.findable);
        let changed = [
            set(&mut profile.nickname, changes.nickname.as_ref()),
            set(&mut profile.personal_msg, changes.personal_msg.as_ref()),
            set(&mut profile.birthdate, changes.birthdate.as_ref()),
            set(&mut profile.location, changes.location.as_ref()),
            set(&mut profile.gender, changes.gender.as_ref()),
            set(&mut profile.avatar, changes.avatar.as_ref()),
            set(&mut findable.in_search, changes.in_search.as_ref()),
            set(&mut findable.by_email, changes.by_email.as_ref()),
        ];
        let changed = changed.contains(&true);
        self.profile_version = self.profile_version.saturating_add(u64::from(changed));
        changed
    }
}
