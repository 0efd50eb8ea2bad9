//! [`Placements`] in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use xmmep::name::{Email, UserName};
use xmmep::secret::TokenHash;
use xmmep::types::{PresenceId, RequestId, UserId, WallTime};

use super::lock;
use crate::error::StoreError;
use crate::placements::{Activation, Placements, Registration, Renewal};
use crate::records::{Form, NewPlacement, Placement, PlacementState, REGISTRATION_KEPT};

/// [`Placements`] in memory.
#[derive(Debug, Default)]
pub struct MemoryPlacements(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    users: BTreeMap<UserId, Row>,
    names: BTreeMap<String, UserId>,
    emails: BTreeMap<String, UserId>,
    last_user: u64,
    registrations: BTreeMap<RequestId, (Registration, WallTime)>,
    renewals: BTreeMap<RequestId, (Renewal, WallTime)>,
}

#[derive(Debug)]
struct Row {
    placement: Placement,
    token: TokenHash,
}

impl State {
    /// Who holds `key`, after an expired registration has made way.
    fn holder(&mut self, index: fn(&Self) -> &BTreeMap<String, UserId>, key: &str, now: WallTime) -> Option<UserId> {
        let user = *index(self).get(key)?;
        if self.users.get(&user).is_some_and(|row| !row.placement.is_expired(now)) {
            return Some(user);
        }
        self.remove(user);
        None
    }

    fn remove(&mut self, user: UserId) {
        if let Some(row) = self.users.remove(&user) {
            self.names.remove(&row.placement.name.folded());
            self.emails.remove(&row.placement.email.folded());
        }
    }

    fn register(&mut self, new: NewPlacement, now: WallTime) -> Registration {
        let by_name = self.holder(|state| &state.names, &new.name.folded(), now);
        let by_email = self.holder(|state| &state.emails, &new.email.folded(), now);
        match (by_name, by_email) {
            (Some(_), Some(_)) => return Registration::BothTaken,
            (Some(_), None) => return Registration::NameTaken,
            (None, Some(_)) => return Registration::EmailTaken,
            (None, None) => {}
        }
        self.last_user += 1;
        let user = UserId(self.last_user);
        self.names.insert(new.name.folded(), user);
        self.emails.insert(new.email.folded(), user);
        let placement = Placement {
            user,
            name: new.name,
            email: new.email,
            salt: new.salt,
            kdf: new.kdf,
            form: Some(Form { key_hash: new.key_hash, profile: new.profile }),
            state: PlacementState::Registered { expires: new.expires },
            registered_at: now,
        };
        self.users.insert(user, Row { placement, token: new.token });
        Registration::Registered(user)
    }

    fn row_of(&mut self, token: &TokenHash) -> Option<&mut Row> {
        self.users.values_mut().rev().find(|row| row.token == *token)
    }
}

#[async_trait]
impl Placements for MemoryPlacements {
    async fn register(&self, new: NewPlacement, now: WallTime) -> Result<Registration, StoreError> {
        let mut state = lock(&self.0);
        if let Some((answer, _)) = state.registrations.get(&new.request) {
            return Ok(*answer);
        }
        let request = new.request;
        let answer = state.register(new, now);
        state.registrations.insert(request, (answer, now));
        Ok(answer)
    }

    async fn by_name(&self, name: &UserName) -> Result<Option<Placement>, StoreError> {
        let state = lock(&self.0);
        let user = state.names.get(&name.folded());
        Ok(user.and_then(|user| state.users.get(user)).map(|row| row.placement.clone()))
    }

    async fn by_user(&self, user: UserId) -> Result<Option<Placement>, StoreError> {
        Ok(lock(&self.0).users.get(&user).map(|row| row.placement.clone()))
    }

    async fn by_token(&self, token: &TokenHash) -> Result<Option<Placement>, StoreError> {
        Ok(lock(&self.0).row_of(token).map(|row| row.placement.clone()))
    }

    async fn begin_activation(
        &self,
        token: &TokenHash,
        presence: PresenceId,
        now: WallTime,
    ) -> Result<Activation, StoreError> {
        let mut state = lock(&self.0);
        let Some(Row { placement, .. }) = state.row_of(token) else { return Ok(Activation::Unknown) };
        Ok(match placement.state {
            PlacementState::Registered { expires } if expires <= now => Activation::Expired,
            PlacementState::Registered { .. } => {
                placement.state = PlacementState::Activating { presence };
                Activation::Begun(placement.clone())
            }
            PlacementState::Activating { .. } => Activation::Begun(placement.clone()),
            PlacementState::Active { .. } => Activation::AlreadyActive(placement.clone()),
        })
    }

    async fn finish_activation(&self, user: UserId) -> Result<(), StoreError> {
        if let Some(Row { placement, .. }) = lock(&self.0).users.get_mut(&user)
            && let PlacementState::Activating { presence } = placement.state
        {
            placement.state = PlacementState::Active { presence };
            placement.form = None;
        }
        Ok(())
    }

    async fn activating(&self) -> Result<Vec<Placement>, StoreError> {
        let state = lock(&self.0);
        let placements = state.users.values().map(|row| &row.placement);
        Ok(placements.filter(|one| matches!(one.state, PlacementState::Activating { .. })).cloned().collect())
    }

    async fn renew_token(
        &self,
        email: &Email,
        request: RequestId,
        token: &TokenHash,
        expires: WallTime,
        now: WallTime,
    ) -> Result<Renewal, StoreError> {
        let state = &mut *lock(&self.0);
        if let Some((answer, _)) = state.renewals.get(&request) {
            return Ok(*answer);
        }
        let user = state.emails.get(&email.folded());
        let answer = match user.and_then(|user| state.users.get_mut(user)) {
            Some(row)
                if matches!(row.placement.state, PlacementState::Registered { .. })
                    && !row.placement.is_expired(now) =>
            {
                row.token = token.clone();
                row.placement.state = PlacementState::Registered { expires };
                Renewal::Renewed(row.placement.user)
            }
            _ => Renewal::NothingWaits,
        };
        state.renewals.insert(request, (answer, now));
        Ok(answer)
    }

    async fn locate(&self, user: UserId) -> Result<Option<PresenceId>, StoreError> {
        Ok(lock(&self.0).users.get(&user).and_then(|row| row.placement.home()))
    }

    async fn forget(&self, now: WallTime) -> Result<u64, StoreError> {
        let mut state = lock(&self.0);
        let expired = state.users.values().filter(|row| row.placement.is_expired(now));
        let expired: Vec<_> = expired.map(|row| row.placement.user).collect();
        for user in &expired {
            state.remove(*user);
        }
        state.registrations.retain(|_, (_, at)| at.after(REGISTRATION_KEPT) >= now);
        state.renewals.retain(|_, (_, at)| at.after(REGISTRATION_KEPT) >= now);
        Ok(expired.len() as u64)
    }

    async fn erase(&self, user: UserId) -> Result<bool, StoreError> {
        let mut state = lock(&self.0);
        let known = state.users.contains_key(&user);
        state.remove(user);
        state.registrations.retain(|_, (answer, _)| *answer != Registration::Registered(user));
        state.renewals.retain(|_, (answer, _)| *answer != Renewal::Renewed(user));
        Ok(known)
    }
}
