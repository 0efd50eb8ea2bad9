//! The owner epoch of a PresenceDB: who was replaced writes no more. It is compared inside every transaction that writes, and
//! nobody takes over between that and the commit. So is the number of commits: a database that has fewer than it had was put
//! back to an older state.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, QueryFilter, QueryTrait};

use super::decode::corrupt;
use super::entity::owner::{Column, Entity, Model};
use super::prepared::Prepared;
use super::unique::Unique;
use crate::error::StoreError;

/// The key of the only row.
const ROW: i16 = 1;

/// How far a database has come: under which owner epoch, and how many commits there were. What was committed once stays, so
/// a lower mark than one seen before means that the last changes are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The owner epoch.
    pub epoch: u64,
    /// Commits so far, whoever made them.
    pub changes: u64,
}

/// The epoch that a store acts under.
#[derive(Debug)]
pub(super) struct Fence {
    epoch: AtomicI64,
    /// What this store writes beside an epoch, and no other: so it knows its own takeover when nobody heard that it was
    /// made. The epoch alone does not tell: two may be ordered to take over under the same one.
    claim: i64,
    /// Commits that are there for certain.
    changes: AtomicI64,
    /// How it showed that the database was put back, once it did.
    put_back: OnceLock<String>,
}

impl Fence {
    /// Acts under the epoch that the database has now.
    pub(super) async fn read(db: &impl ConnectionTrait) -> Result<Self, StoreError> {
        let found = owner(db).await?;
        Ok(Self {
            epoch: found.epoch.into(),
            // 64 bits from the operating system, by way of the keys of a hash map. No secret: it only must not come twice.
            claim: RandomState::new().build_hasher().finish().cast_signed(),
            changes: found.changes.into(),
            put_back: OnceLock::new(),
        })
    }

    pub(super) fn claim(&self) -> i64 {
        self.claim
    }

    pub(super) fn mark(&self) -> Mark {
        let read = |number: &AtomicI64| number.load(Ordering::Acquire).cast_unsigned();
        Mark { epoch: read(&self.epoch), changes: read(&self.changes) }
    }

    pub(super) fn put_back(&self) -> Option<&str> {
        self.put_back.get().map(String::as_str)
    }

    /// Begins a transaction that writes: counts it, and refuses to go on if somebody else has taken over, or if the database
    /// was put back to an older state behind our back. Holds the row until the transaction ends.
    pub(super) async fn enter(&self, txn: &DatabaseTransaction) -> Result<(), StoreError> {
        if txn.get_database_backend() == DbBackend::Postgres {
            // Before the snapshot, which the first query takes: whoever waits for another process then sees what that did,
            // instead of failing for it.
            txn.execute_unprepared("LOCK TABLE owners IN SHARE ROW EXCLUSIVE MODE").await?;
        }
        if self.count(txn).await? {
            return Ok(());
        }
        let (found, ours) = (owner(txn).await?, self.mark());
        if found.epoch.cast_unsigned() > ours.epoch {
            if found.claim != self.claim {
                return Err(StoreError::Fenced);
            }
            // A takeover whose answer was lost, or whose caller had gone.
            self.raise(found.epoch);
            if self.count(txn).await? {
                return Ok(());
            }
        }
        let why = if found.epoch.cast_unsigned() < ours.epoch {
            format!("owner epoch {} where {} was", found.epoch, ours.epoch)
        } else {
            format!("{} commits where {} were", found.changes, ours.changes)
        };
        let why = self.put_back.get_or_init(|| format!("{why}: the database was put back to an older state"));
        Err(corrupt(why))
    }

    /// One commit more, if the database is as we left it. In one statement, so that no change costs more than one.
    async fn count(&self, txn: &DatabaseTransaction) -> Result<bool, StoreError> {
        static COUNT: Prepared = Prepared::new();
        let (epoch, changes) = (self.epoch.load(Ordering::Acquire), self.changes.load(Ordering::Acquire));
        let values = vec![1.into(), ROW.into(), epoch.into(), changes.into()];
        let counted = COUNT.with(txn.get_database_backend(), values, || {
            let one_more = Expr::col(Column::Changes).add(1);
            let counted = Entity::update_many().col_expr(Column::Changes, one_more).filter(Column::Id.eq(ROW));
            counted.filter(Column::Epoch.eq(epoch)).filter(Column::Changes.gte(changes)).into_query()
        });
        Ok(txn.execute_raw(counted).await?.rows_affected() > 0)
    }

    /// The transaction that [`enter`](Self::enter) began was committed. The one writer of a store calls it.
    pub(super) fn committed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// From now on we act under this epoch.
    pub(super) fn raise(&self, epoch: i64) {
        self.epoch.fetch_max(epoch, Ordering::AcqRel);
    }
}

/// The row. Behind [`Fence::enter`] it stays as it is until the transaction ends.
async fn owner(db: &impl ConnectionTrait) -> Result<Model, StoreError> {
    Entity::find_by_id(ROW).unique(db).await?.ok_or_else(|| corrupt("no owner epoch"))
}

/// Takes over under `to`, which must be higher than the present one; the present one again changes nothing. That it is
/// ours was compared before.
pub(super) async fn take_over(txn: &DatabaseTransaction, to: i64, claim: i64) -> Result<(), StoreError> {
    let found = owner(txn).await?.epoch;
    if found > to {
        return Err(StoreError::Fenced);
    }
    if found < to {
        let taken = Entity::update_many().col_expr(Column::Epoch, Expr::value(to));
        taken.col_expr(Column::Claim, Expr::value(claim)).exec(txn).await?;
    }
    Ok(())
}
