//! Many users at once: people who come from another system, or who exist to measure with. Each call is one transaction
//! with a few large statements, where the flows of the Router and the Presence take a handful of small ones per user.

use std::collections::{BTreeSet, HashMap};

use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect};
use xmmep::types::{GroupId, PresenceId, UserId, WallTime};

use super::accounts::{account, row as account_row};
use super::contacts::ACCEPTED;
use super::decode::{corrupt, millis, signed, user};
use super::entity::{account as accounts, placement, relation, search_pair};
use super::placements::{ACTIVE, row as placement_row};
use super::search_index::{self, all_pairs, insert_rows};
use super::{SqlPlacements, SqlPresence};
use crate::error::StoreError;
use crate::folding::Folded;
use crate::records::{NewAccount, NewPlacement, Person};

/// Entries that one call takes, at most. A change has five seconds on a server.
pub const IMPORT_MAX: usize = 1_000;

impl SqlPlacements {
    /// Adds users who are active at `presence` already. Returns their ids, in order.
    ///
    /// All or nothing: a name or address that is taken is a [`StoreError::Conflict`]. `request` and `token` are not
    /// remembered, because nobody has them.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] over [`IMPORT_MAX`] entries; what any change may answer.
    pub async fn import(
        &self,
        presence: PresenceId,
        people: Vec<NewPlacement>,
        now: WallTime,
    ) -> Result<Vec<UserId>, StoreError> {
        check(people.len())?;
        let work = (presence, people, now);
        self.database.write(work, |txn, (presence, people, now)| Box::pin(place(txn, *presence, people, *now))).await
    }
}

impl SqlPresence {
    /// Adds accounts, so that they can log in, and be found.
    ///
    /// All or nothing: one that exists, or whose name does, is a [`StoreError::Conflict`].
    ///
    /// # Errors
    /// [`StoreError::Rejected`] over [`IMPORT_MAX`] entries; what any change may answer.
    pub async fn import_accounts(&self, people: Vec<NewAccount>) -> Result<(), StoreError> {
        check(people.len())?;
        self.database.write(people, |txn, people| Box::pin(enrol(txn, people))).await
    }

    /// Makes pairs of people buddies of each other, accepted on both sides, in their default groups.
    ///
    /// For rosters nobody has seen yet: versions stay as they are. All or nothing: two who are related already are a
    /// [`StoreError::Conflict`].
    ///
    /// # Errors
    /// [`StoreError::Rejected`] over [`IMPORT_MAX`] entries; what any change may answer.
    pub async fn import_friends(&self, pairs: Vec<(Person, Person)>, at: WallTime) -> Result<(), StoreError> {
        check(pairs.len())?;
        self.database.write((pairs, at), |txn, (pairs, at)| Box::pin(befriend(txn, pairs, *at))).await
    }
}

fn check(entries: usize) -> Result<(), StoreError> {
    if entries <= IMPORT_MAX {
        return Ok(());
    }
    Err(StoreError::Rejected(format!("{entries} entries to import at once: give at most {IMPORT_MAX}")))
}

async fn place(
    txn: &DatabaseTransaction,
    presence: PresenceId,
    people: &[NewPlacement],
    now: WallTime,
) -> Result<Vec<UserId>, StoreError> {
    let rows = people.iter().map(|new| {
        let mut row = placement_row(new, now);
        row.state = Set(ACTIVE);
        (row.cluster, row.presence) = (Set(presence.cluster.into()), Set(presence.presence.into()));
        row.key_hash = Set(None);
        row
    });
    placement::Entity::insert_many(rows).exec_without_returning(txn).await?;
    // Which ids a large insert gives out, and in which order, every engine does in its own way: ask.
    let names: Vec<_> = people.iter().map(|new| new.name.folded().into_bytes()).collect();
    let given = placement::Entity::find()
        .filter(placement::Column::NameFolded.is_in(names.clone()))
        .select_only()
        .columns([placement::Column::NameFolded, placement::Column::User])
        .into_tuple::<(Vec<u8>, i64)>();
    let given: HashMap<_, _> = given.all(txn).await?.into_iter().collect();
    let id = |name: &Vec<u8>| {
        given.get(name).copied().map(user).ok_or_else(|| corrupt("a user that was just added is gone"))
    };
    names.iter().map(id).collect()
}

async fn enrol(txn: &DatabaseTransaction, people: &[NewAccount]) -> Result<(), StoreError> {
    let rows: Vec<_> = people.iter().map(account_row).collect();
    let (mut pairs, mut searchables) = (BTreeSet::new(), Vec::new());
    for row in &rows {
        if let Some(texts) = Folded::of(&account(row)?) {
            pairs.extend(all_pairs(Some(&texts)).into_iter().map(|pair| (pair, row.user)));
            searchables.push(search_index::row(row.user, &texts));
        }
    }
    accounts::Entity::insert_many(rows.into_iter().map(IntoActiveModel::into_active_model))
        .exec_without_returning(txn)
        .await?;
    insert_rows(txn, searchables).await?;
    insert_rows(txn, pairs.into_iter().map(|(pair, user)| search_pair::Model { pair, user }).collect()).await
}

async fn befriend(txn: &DatabaseTransaction, pairs: &[(Person, Person)], at: WallTime) -> Result<(), StoreError> {
    let row = |owner: &Person, buddy: &Person| relation::Model {
        owner: signed(owner.user.0),
        buddy: signed(buddy.user.0),
        owner_name: owner.name.as_str().to_owned(),
        buddy_name: buddy.name.as_str().to_owned(),
        group_id: GroupId::DEFAULT.0.into(),
        display_name: String::new(),
        state: ACCEPTED,
        asked_at: millis(at),
        greeting: String::new(),
    };
    let rows = pairs.iter().flat_map(|(a, b)| [row(a, b), row(b, a)]).collect();
    insert_rows(txn, rows).await
}
