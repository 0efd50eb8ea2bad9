//! Accounts: the users who live at a Presence, with key hash and profile. Relations between them are in `contacts.rs`.

use async_trait::async_trait;
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

    /// Notes a good login at `at` and starts counting failures anew. Returns how it was before; `None` if there is
    /// no such account.
    async fn logged_in(&self, user: UserId, at: WallTime) -> Result<Option<LoginHistory>, StoreError>;

    /// Notes a failed login at `at`. Returns how many there have been since the last good one, this one included;
    /// 0 if there is no such account. Two failures at once count as two.
    async fn login_failed(&self, user: UserId, at: WallTime) -> Result<u32, StoreError>;

    /// Erases the account: nothing of it is left. Returns whether there was one.
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
