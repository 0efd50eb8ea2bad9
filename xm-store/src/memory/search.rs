//! [`Search`] in memory: looks at every user.

use std::sync::Arc;

use async_trait::async_trait;
use xmmep::types::UserId;

use super::{MemoryAccounts, MemoryContacts};
use crate::error::StoreError;
use crate::folding::Folded;
use crate::search::{Hits, Query, Search};

/// [`Search`] in the accounts and blocks of two other memory stores.
#[derive(Clone, Debug, Default)]
pub struct MemorySearch {
    accounts: Arc<MemoryAccounts>,
    contacts: Arc<MemoryContacts>,
}

impl MemorySearch {
    /// Searches `accounts`, without those whom `contacts` knows to have blocked the asker.
    #[must_use]
    pub fn new(accounts: Arc<MemoryAccounts>, contacts: Arc<MemoryContacts>) -> Self {
        Self { accounts, contacts }
    }
}

#[async_trait]
impl Search for MemorySearch {
    async fn find(&self, query: &Query, after: Option<UserId>, max: usize) -> Result<Hits, StoreError> {
        let blocked_by = self.contacts.blocked_by(query.asker());
        let matching = self.accounts.cards(|account| {
            let meets_all = |user: Folded| query.conditions().iter().all(|condition| condition.matches(&user));
            blocked_by.binary_search(&account.user).is_err() && Folded::of(account).is_some_and(meets_all)
        });
        let found: Vec<_> = matching.iter().map(|card| card.user).collect();
        let (page, total, next) = Hits::page(&found, after, max);
        let cards = matching.iter().filter(|card| page.binary_search(&card.user).is_ok()).cloned().collect();
        Ok(Hits { cards, total, next })
    }
}
