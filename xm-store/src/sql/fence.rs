//! The owner epoch of a PresenceDB: who was replaced writes no more. It is compared inside every transaction that writes, and
//! nobody takes over between that and the commit.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicI64, Ordering};

use sea_orm::sea_query::Expr;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, QuerySelect};

use super::decode::corrupt;
use super::entity::owner::{Column, Entity, Model};
use super::unique::Unique;
use crate::error::StoreError;

/// The key of the only row.
const ROW: i16 = 1;

/// The epoch that a store acts under.
#[derive(Debug)]
pub(super) struct Fence {
    epoch: AtomicI64,
    /// What this store writes beside an epoch, and no other: so it knows its own takeover when nobody heard that it was
    /// made. The epoch alone does not tell: two may be ordered to take over under the same one.
    claim: i64,
}

impl Fence {
    /// Acts under the epoch that the database has now.
    pub(super) fn at(epoch: i64) -> Self {
        // 64 bits from the operating system, by way of the keys of a hash map. No secret: it only must not come twice.
        Self { epoch: AtomicI64::new(epoch), claim: RandomState::new().build_hasher().finish().cast_signed() }
    }

    pub(super) fn claim(&self) -> i64 {
        self.claim
    }

    /// Refuses to go on in this transaction if somebody else has taken over, or if the database was put back to an older
    /// state behind our back.
    pub(super) async fn check(&self, txn: &DatabaseTransaction) -> Result<(), StoreError> {
        let (found, ours) = (owner(txn).await?, self.epoch.load(Ordering::Acquire));
        match found.epoch.cmp(&ours) {
            std::cmp::Ordering::Equal => Ok(()),
            // A takeover whose answer was lost, or whose caller had gone.
            std::cmp::Ordering::Greater if found.claim == self.claim => {
                self.raise(found.epoch);
                Ok(())
            }
            std::cmp::Ordering::Greater => Err(StoreError::Fenced),
            std::cmp::Ordering::Less => Err(corrupt(format_args!(
                "owner epoch {} where {ours} was: the database was put back to an older state",
                found.epoch
            ))),
        }
    }

    /// From now on we act under this epoch.
    pub(super) fn raise(&self, epoch: i64) {
        self.epoch.fetch_max(epoch, Ordering::AcqRel);
    }
}

/// The epoch of the database.
pub(super) async fn epoch(db: &impl ConnectionTrait) -> Result<i64, StoreError> {
    Ok(owner(db).await?.epoch)
}

/// The row. Read by a transaction that writes it stays until that ends: SQLite lets one write at a time, MariaDB and MySQL
/// lock what a serializable transaction reads, and PostgreSQL is asked to.
async fn owner(db: &impl ConnectionTrait) -> Result<Model, StoreError> {
    let row = Entity::find_by_id(ROW);
    let row = if db.get_database_backend() == DbBackend::Postgres { row.lock_shared() } else { row };
    row.unique(db).await?.ok_or_else(|| corrupt("no owner epoch"))
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
