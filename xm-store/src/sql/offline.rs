//! [`Offline`] in PresenceDB: for deployments in which a spare must be able to take over.

use async_trait::async_trait;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::{Condition, Expr, ExprTrait, Func, SimpleExpr};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    Select,
};
use xmmep::types::{MsgId, UserId, WallTime};

use super::SqlPresence;
use super::decode::{bytes, corrupt, millis, number, signed, user, wall};
use super::entity::parcel::{ActiveModel, Column, Entity, Model};
use super::unique::Unique;
use crate::error::StoreError;
use crate::offline::{Appended, Erased, Expired, Offline};
use crate::records::{LEVEL_KEPT, Level, PARCEL_BODY_MAX, Parcel, ParcelId, Place, Quotas, Summary};

/// Levels, by column value.
const LEVELS: [Level; 5] = [Level::Stored, Level::Received, Level::Read, Level::Refused, Level::Expired];
/// Levels forgotten in one commit: each must end in the time that any change has, whatever has come together meanwhile.
const FORGOTTEN_MAX: usize = 1_024;
/// Rows read at once while filling a page.
const PAGE_ROWS: usize = 64;

pub(super) fn column(level: Level) -> i16 {
    match level {
        Level::Stored => 0,
        Level::Received => 1,
        Level::Read => 2,
        Level::Refused => 3,
        Level::Expired => 4,
    }
}

pub(super) fn level(row: &Model) -> Result<Level, StoreError> {
    let found = usize::try_from(row.level).ok().and_then(|index| LEVELS.get(index));
    found.copied().ok_or_else(|| corrupt(format_args!("the level {} of a parcel", row.level)))
}

fn place(row: &Model) -> Result<Place, StoreError> {
    number(row.place, "a place").map(Place)
}

fn parcel_id(row: &Model) -> Result<ParcelId, StoreError> {
    Ok(ParcelId { from: user(row.sender), id: MsgId(bytes(&row.msg, "a message id")?) })
}

pub(super) fn parcel(row: Model) -> Result<(Place, Parcel), StoreError> {
    let ParcelId { from, id } = parcel_id(&row)?;
    Ok((place(&row)?, Parcel { from, id, sent: wall(row.sent)?, body: row.body }))
}

/// The row of one parcel, whatever its level.
fn which(to: UserId, parcel: ParcelId) -> Condition {
    Condition::all()
        .add(Column::Recipient.eq(signed(to.0)))
        .add(Column::Sender.eq(signed(parcel.from.0)))
        .add(Column::Msg.eq(parcel.id.0.to_vec()))
}

/// What waits for `to`.
fn waiting(to: UserId) -> Select<Entity> {
    Entity::find().filter(Column::Recipient.eq(signed(to.0))).filter(Column::Level.eq(column(Level::Stored)))
}

/// Sums are wider than what is summed; each engine has its own name for 64 bits.
fn sum_of_bytes(db: &impl ConnectionTrait) -> SimpleExpr {
    let integer = if db.get_database_backend() == DbBackend::MySql { "SIGNED" } else { "BIGINT" };
    Func::coalesce([Column::Bytes.sum(), Expr::value(0_i64)]).cast_as(integer)
}

/// Messages and bytes that wait.
async fn totals(db: &impl ConnectionTrait, waiting: Select<Entity>) -> Result<(u64, u64), StoreError> {
    let totals = waiting.select_only().expr(Column::Place.count()).expr(sum_of_bytes(db));
    let (messages, bytes): (i64, i64) = totals.into_tuple().one(db).await?.unwrap_or_default();
    Ok((number(messages, "a count")?, number(bytes, "a sum of bytes")?))
}

async fn append(txn: &DatabaseTransaction, to: UserId, new: &Parcel, quotas: &Quotas) -> Result<Appended, StoreError> {
    if new.body.len() > PARCEL_BODY_MAX {
        return Ok(Appended::TooLarge);
    }
    let hash = blake3::hash(&new.body);
    let known = Entity::find().filter(which(to, ParcelId { from: new.from, id: new.id })).unique(txn).await?;
    if let Some(known) = known {
        let same = known.hash == hash.as_bytes();
        return Ok(if same { Appended::Already(place(&known)?, level(&known)?) } else { Appended::IdConflict });
    }
    let (messages, bytes) = totals(txn, waiting(to)).await?;
    let (from_sender, _) = totals(txn, waiting(to).filter(Column::Sender.eq(signed(new.from.0)))).await?;
    let fits = messages < quotas.messages
        && bytes + new.body.len() as u64 <= quotas.bytes
        && from_sender < quotas.messages_per_sender;
    if !fits {
        return Ok(Appended::QuotaFull);
    }
    let row = ActiveModel {
        place: NotSet,
        recipient: Set(signed(to.0)),
        sender: Set(signed(new.from.0)),
        msg: Set(new.id.0.to_vec()),
        sent: Set(millis(new.sent)),
        bytes: Set(new.body.len() as i64),
        body: Set(new.body.clone()),
        hash: Set(hash.as_bytes().to_vec()),
        level: Set(column(Level::Stored)),
        at: Set(millis(new.sent)),
    };
    let place = Entity::insert(row).exec(txn).await?.last_insert_id;
    Ok(Appended::Stored(Place(number(place, "a place")?)))
}

/// Raises one row, if its level can rise. Its body goes.
async fn raise(txn: &DatabaseTransaction, row: &Model, to: Level, at: WallTime) -> Result<bool, StoreError> {
    if !level(row)?.rises_to(to) {
        return Ok(false);
    }
    Entity::update_many()
        .col_expr(Column::Level, Expr::value(column(to)))
        .col_expr(Column::At, Expr::value(millis(at)))
        .col_expr(Column::Body, Expr::value(Vec::<u8>::new()))
        .col_expr(Column::Bytes, Expr::value(0_i64))
        .filter(Column::Place.eq(row.place))
        .exec(txn)
        .await?;
    Ok(true)
}

async fn append_all(
    txn: &DatabaseTransaction,
    to: UserId,
    parcels: &[Parcel],
    quotas: &Quotas,
) -> Result<Vec<Appended>, StoreError> {
    let mut answers = Vec::with_capacity(parcels.len());
    for parcel in parcels {
        answers.push(append(txn, to, parcel, quotas).await?);
    }
    Ok(answers)
}

/// A parcel whose level rose; an error is a row that no version of this code wrote, and stays as it is.
type Risen = Result<ParcelId, StoreError>;

async fn settle(
    txn: &DatabaseTransaction,
    to: UserId,
    parcels: &[ParcelId],
    risen_to: Level,
    at: WallTime,
) -> Result<Vec<Risen>, StoreError> {
    let mut raised = Vec::new();
    for parcel in parcels {
        let Some(row) = Entity::find().filter(which(to, *parcel)).unique(txn).await? else { continue };
        if let Err(unreadable) = level(&row) {
            raised.push(Err(unreadable));
        } else if raise(txn, &row, risen_to, at).await? {
            raised.push(Ok(*parcel));
        }
    }
    Ok(raised)
}

/// What expired, for whom, from whom, since when; an error is a row that no version of this code wrote, and expires all the
/// same.
type Old = Result<Expired, StoreError>;

async fn expire(
    txn: &DatabaseTransaction,
    before: WallTime,
    now: WallTime,
    max: usize,
) -> Result<Vec<Old>, StoreError> {
    let old = Entity::find().filter(Column::Level.eq(column(Level::Stored))).filter(Column::Sent.lt(millis(before)));
    let old = old.order_by_asc(Column::Sent).limit(max as u64).all(txn).await?;
    let mut expired = Vec::with_capacity(old.len());
    for row in &old {
        raise(txn, row, Level::Expired, now).await?;
        expired.push(expired_one(row));
    }
    Ok(expired)
}

fn expired_one(row: &Model) -> Old {
    Ok(Expired { to: user(row.recipient), parcel: parcel_id(row)?, sent: wall(row.sent)? })
}

/// Forgets some levels; returns whether there may be more.
async fn forget(txn: &DatabaseTransaction, kept_since: WallTime) -> Result<bool, StoreError> {
    let kept_since = millis(kept_since);
    // A message is sent before its level rises. That is for the index: without it all that is remembered would be read.
    let old = Entity::find()
        .filter(Column::Level.is_in(LEVELS.into_iter().map(column).filter(|level| *level != column(Level::Stored))))
        .filter(Column::Sent.lt(kept_since))
        .filter(Column::At.lt(kept_since));
    let mut places: Vec<i64> =
        old.select_only().column(Column::Place).limit(FORGOTTEN_MAX as u64).into_tuple().all(txn).await?;
    let Some(last) = places.last().copied() else { return Ok(false) };
    let more = places.len() == FORGOTTEN_MAX;
    places.resize(places.len().next_power_of_two(), last);
    Entity::delete_many().filter(Column::Place.is_in(places)).exec(txn).await?;
    Ok(more)
}

/// Places looked at by one statement that has no index to go by: few enough that it ends in time on any engine.
const STRETCH: i64 = 100_000;

/// The places of one stretch.
fn stretch(after: i64) -> Condition {
    Condition::all().add(Column::Place.gt(after)).add(Column::Place.lte(after.saturating_add(STRETCH)))
}

/// The place before the first that is taken, and the last.
async fn ends(db: &impl ConnectionTrait) -> Result<(i64, i64), StoreError> {
    let ends = Entity::find().select_only().expr(Column::Place.min()).expr(Column::Place.max());
    let (first, last) = ends.into_tuple::<(Option<i64>, Option<i64>)>().one(db).await?.unwrap_or_default();
    Ok((first.map_or(0, |first| first.saturating_sub(1)), last.unwrap_or(0)))
}

/// Settles what waits and meets `which` as refused. Returns how many.
async fn refuse(txn: &DatabaseTransaction, which: Condition, at: WallTime) -> Result<u64, StoreError> {
    let refused = Entity::update_many()
        .col_expr(Column::Level, Expr::value(column(Level::Refused)))
        .col_expr(Column::At, Expr::value(millis(at)))
        .col_expr(Column::Body, Expr::value(Vec::<u8>::new()))
        .col_expr(Column::Bytes, Expr::value(0_i64))
        .filter(which)
        .filter(Column::Level.eq(column(Level::Stored)));
    Ok(refused.exec(txn).await?.rows_affected)
}

#[async_trait]
impl Offline for SqlPresence {
    async fn append(&self, to: UserId, parcels: Vec<Parcel>) -> Result<Vec<Appended>, StoreError> {
        let wish = (to, parcels, self.quotas);
        self.database.write(wish, |txn, (to, parcels, quotas)| Box::pin(append_all(txn, *to, parcels, quotas))).await
    }

    async fn page(
        &self,
        to: UserId,
        after: Place,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Place, Parcel)>, StoreError> {
        let messages_max = messages_max.max(1);
        let (mut page, mut bytes) = (Vec::new(), 0_usize);
        let mut after = i64::try_from(after.0).unwrap_or(i64::MAX);
        loop {
            let wanted = PAGE_ROWS.min(messages_max - page.len());
            let next = waiting(to).filter(Column::Place.gt(after)).order_by_asc(Column::Place).limit(wanted as u64);
            let rows = next.all(&self.database.reader().await?).await?;
            let is_last = rows.len() < wanted;
            for row in rows {
                bytes = bytes.saturating_add(row.body.len());
                if bytes > bytes_max && !page.is_empty() {
                    return Ok(page);
                }
                after = row.place;
                page.extend(self.database.readable(std::iter::once(parcel(row))));
            }
            if is_last || page.len() >= messages_max {
                return Ok(page);
            }
        }
    }

    async fn summary(&self, to: UserId) -> Result<Summary, StoreError> {
        let reader = &self.database.reader().await?;
        let (messages, bytes) = totals(reader, waiting(to)).await?;
        let oldest = waiting(to).select_only().expr(Column::Sent.min()).into_tuple::<Option<i64>>().one(reader).await?;
        Ok(Summary { messages, bytes, oldest: oldest.flatten().map(wall).transpose()? })
    }

    async fn settle(
        &self,
        to: UserId,
        parcels: &[ParcelId],
        level: Level,
        at: WallTime,
    ) -> Result<Vec<ParcelId>, StoreError> {
        let wish = (to, parcels.to_vec(), level, at);
        let settle =
            self.database.write(wish, |txn, (to, parcels, level, at)| Box::pin(settle(txn, *to, parcels, *level, *at)));
        // Who confirms them again and again would have the same answer for ever.
        Ok(self.database.readable(settle.await?.into_iter()))
    }

    async fn level(&self, to: UserId, parcel: ParcelId) -> Result<Option<Level>, StoreError> {
        let row = Entity::find().filter(which(to, parcel)).unique(&self.database.reader().await?).await?;
        row.as_ref().map(level).transpose()
    }

    async fn expire(&self, before: WallTime, now: WallTime, max: usize) -> Result<Vec<Expired>, StoreError> {
        let wish = (before, now, max);
        loop {
            let expire = self.database.write(wish, |txn, &(before, now, max)| Box::pin(expire(txn, before, now, max)));
            let old = expire.await?;
            let had_none = old.is_empty();
            let expired = self.database.readable(old.into_iter());
            // "None" would end it, with more to come.
            if !expired.is_empty() || had_none || max == 0 {
                return Ok(expired);
            }
        }
    }

    async fn forget(&self, now: WallTime) -> Result<(), StoreError> {
        let kept_since = WallTime(now.0.saturating_sub(LEVEL_KEPT.as_millis() as u64));
        while self.database.write(kept_since, |txn, kept_since| Box::pin(forget(txn, *kept_since))).await? {}
        Ok(())
    }

    async fn sent_by(
        &self,
        from: UserId,
        after: Option<(UserId, Place)>,
        messages_max: usize,
    ) -> Result<Vec<(UserId, Place, Parcel)>, StoreError> {
        let reader = &self.database.reader().await?;
        let (first, last) = ends(reader).await?;
        let mut from_place = after.map_or(first, |(_, place)| i64::try_from(place.0).unwrap_or(i64::MAX));
        let mut sent = Vec::new();
        while from_place < last && sent.len() < messages_max {
            let stretch = stretch(from_place);
            let waiting = Entity::find()
                .filter(Column::Sender.eq(signed(from.0)))
                .filter(Column::Level.eq(column(Level::Stored)))
                .filter(stretch);
            let wanted = messages_max - sent.len();
            let rows = waiting.order_by_asc(Column::Place).limit(wanted as u64).all(reader).await?;
            from_place = match rows.last() {
                Some(row) if rows.len() == wanted => row.place,
                _ => from_place.saturating_add(STRETCH),
            };
            let found = rows.into_iter().map(|row| {
                let to = user(row.recipient);
                parcel(row).map(|(place, parcel)| (to, place, parcel))
            });
            sent.extend(self.database.readable(found));
        }
        Ok(sent)
    }

    async fn erase(&self, user: UserId, at: WallTime) -> Result<Erased, StoreError> {
        let mine = Condition::all().add(Column::Recipient.eq(signed(user.0)));
        let to = self.database.write((mine, at), |txn, (mine, at)| Box::pin(refuse(txn, mine.clone(), *at))).await?;
        let ((mut after, last), mut from) = (ends(&self.database.reader().await?).await?, 0);
        while after < last {
            let sent = stretch(after).add(Column::Sender.eq(signed(user.0)));
            from += self.database.write((sent, at), |txn, (sent, at)| Box::pin(refuse(txn, sent.clone(), *at))).await?;
            after += STRETCH;
        }
        self.database.scrub().await?;
        Ok(Erased { to, from, quarantined: 0 })
    }
}
