//! The owner epoch of a PresenceDB: who was replaced writes no more. It is compared inside every transaction that writes, and
//! nobody takes over between that and the commit.

use std::sync::atomic::{AtomicI64, Ordering};

use sea_orm::sea_query::Expr;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, QuerySelect};

use super::decode::corrupt;
use super::entity::owner::{Column, Entity};
use crate::error::StoreError;

/// The key of the only row.
const ROW: i16 = 1;

/// The epoch that a store acts under.
#[derive(Debug)]
pub(super) struct Fence(AtomicI64);

impl Fence {
    /// Acts under the epoch that the database has now.
    pub(super) fn at(epoch: i64) -> Self {
        Self(AtomicI64::new(epoch))
    }

    /// Refuses to go on in this transaction if somebody else has taken over, or if the database was put back to an older
    /// state behind our back.
    pub(super) async fn check(&self, txn: &DatabaseTransaction) -> Result<(), StoreError> {
        let (found, ours) = (epoch(txn).await?, self.0.load(Ordering::Acquire));
        match found.cmp(&ours) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(StoreError::Fenced),
            std::cmp::Ordering::Less => Err(corrupt(format_args!(
                "owner epoch {found} where {ours} was: the database was put back to an older state"
            ))),
        }
    }

    /// From now on we act under this epoch.
    pub(super) fn raise(&self, epoch: i64) {
        self.0.fetch_max(epoch, Ordering::AcqRel);
    }
}

/// The epoch of the database. Read by a transaction that writes it stays until that ends: SQLite lets one write at a time,
/// MariaDB and MySQL lock what a serializable transaction reads, and PostgreSQL is asked to.
pub(super) async fn epoch(db: &impl ConnectionTrait) -> Result<i64, StoreError> {
    let row = Entity::find_by_id(ROW);
    let row = if db.get_database_backend() == DbBackend::Postgres { row.lock_shared() } else { row };
    let row = row.one(db).await?.ok_or_else(|| corrupt("no owner epoch"))?;
    Ok(row.epoch)
}

/// Takes over under `to`, which must be higher than the present one; the present one again changes nothing. That it is
/// ours was compared before.
pub(super) async fn take_over(txn: &DatabaseTransaction, to: i64) -> Result<(), StoreError> {
    let found = epoch(txn).await?;
    if found > to {
        return Err(StoreError::Fenced);
    }
    if found < to {
        Entity::update_many().col_expr(Column::Epoch, Expr::value(to)).exec(txn).await?;
    }
    Ok(())
}
