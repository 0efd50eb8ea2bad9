//! [`Accounts`] in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use xmmep::name::UserName;
use xmmep::types::{UserId, WallTime};

use super::lock;
use crate::accounts::{Accounts, BY_USERS_MAX, Creation, LoginHistory, ProfileChanges};
use crate::error::StoreError;
use crate::records::{Account, Card, Findable, NewAccount};

/// [`Accounts`] in memory.
#[derive(Debug, Default)]
pub struct MemoryAccounts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    accounts: BTreeMap<UserId, Account>,
    names: BTreeMap<String, UserId>,
}

impl MemoryAccounts {
    /// The cards of the accounts that pass, by ascending id.
    pub(super) fn cards(&self, pass: impl Fn(&Account) -> bool) -> Vec<Card> {
        lock(&self.0).accounts.values().filter(|account| pass(account)).map(Account::card).collect()
    }
}

#[async_trait]
impl Accounts for MemoryAccounts {
    async fn create(&self, new: NewAccount) -> Result<Creation, StoreError> {
        let mut state = lock(&self.0);
        let by_name = state.names.get(&new.name.folded()).copied();
        if by_name == Some(new.user) {
            return Ok(Creation::Already);
        }
        if by_name.is_some() || state.accounts.contains_key(&new.user) {
            return Ok(Creation::Conflict);
        }
        state.names.insert(new.name.folded(), new.user);
        let account = Account {
            user: new.user,
            name: new.name,
            email: new.email,
            key_hash: new.key_hash,
            profile: new.profile,
            findable: Findable::default(),
            profile_version: 1,
            created: new.created,
            last_login: None,
            failed_attempts: 0,
            last_failed: None,
        };
        state.accounts.insert(new.user, account);
        Ok(Creation::Created)
    }

    async fn by_name(&self, name: &UserName) -> Result<Option<Account>, StoreError> {
        let state = lock(&self.0);
        Ok(state.names.get(&name.folded()).and_then(|user| state.accounts.get(user)).cloned())
    }

    async fn by_user(&self, user: UserId) -> Result<Option<Account>, StoreError> {
        Ok(lock(&self.0).accounts.get(&user).cloned())
    }

    async fn by_users(&self, users: &[UserId]) -> Result<Vec<Account>, StoreError> {
        let state = lock(&self.0);
        let wanted: std::collections::BTreeSet<_> = users.iter().take(BY_USERS_MAX).collect();
        Ok(wanted.into_iter().filter_map(|user| state.accounts.get(user)).cloned().collect())
    }

    async fn update_profile(&self, user: UserId, changes: &ProfileChanges) -> Result<Option<Account>, StoreError> {
        let mut state = lock(&self.0);
        let Some(account) = state.accounts.get_mut(&user) else { return Ok(None) };
        account.change(changes);
        Ok(Some(account.clone()))
    }

    async fn logged_in(&self, user: UserId, _: LoginHistory, at: WallTime) -> Result<Option<LoginHistory>, StoreError> {
        let mut state = lock(&self.0);
        let Some(account) = state.accounts.get_mut(&user) else { return Ok(None) };
        let before = account.history();
        account.last_login = Some(at);
        account.failed_attempts = 0;
        account.last_failed = None;
        Ok(Some(before))
    }

    async fn login_failed(&self, user: UserId, at: WallTime) -> Result<u32, StoreError> {
        let mut state = lock(&self.0);
        let Some(account) = state.accounts.get_mut(&user) else { return Ok(0) };
        account.failed_attempts = account.failed_attempts.saturating_add(1);
        account.last_failed = Some(at);
        Ok(account.failed_attempts)
    }

    async fn erase(&self, user: UserId) -> Result<bool, StoreError> {
        let mut state = lock(&self.0);
        let Some(account) = state.accounts.remove(&user) else { return Ok(false) };
        state.names.remove(&account.name.folded());
        Ok(true)
    }
}
