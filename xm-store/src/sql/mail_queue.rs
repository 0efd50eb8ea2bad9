//! [`MailQueue`] in RegisterDB.

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect};
use xmmep::bounded::{PrivateText, Text};
use xmmep::name::Email;
use xmmep::types::{RequestId, WallTime};

use super::SqlMailQueue;
use super::decode::{bytes, corrupt, email, millis, number, text, wall};
use super::entity::mail::{Column, Entity, Model};
use super::unique::Unique;
use crate::error::StoreError;
use crate::mail_queue::MailQueue;
use crate::records::{Mail, MailState};

const WAITING: i16 = 0;
const SENT: i16 = 1;
const FAILED: i16 = 2;

pub(super) fn mail(row: &Model) -> Result<(Mail, u32), StoreError> {
    let mail = Mail {
        id: RequestId(bytes(&row.id, "a mail id")?),
        to: email(&row.recipient)?,
        subject: text(&row.subject)?,
        body: PrivateText::new(&row.body).map_err(corrupt)?,
        created: wall(row.created)?,
    };
    Ok((mail, number(row.attempts, "attempts")?))
}

pub(super) fn state(row: &Model) -> Result<MailState, StoreError> {
    let (at, reason) = (wall(row.due)?, text(&row.reason)?);
    match row.state {
        WAITING => Ok(MailState::Waiting { attempts: number(row.attempts, "attempts")?, due: at, reason }),
        SENT => Ok(MailState::Sent { at }),
        FAILED => Ok(MailState::Failed { at, reason }),
        other => Err(corrupt(format_args!("the state {other} of a mail"))),
    }
}

async fn enqueue(txn: &DatabaseTransaction, row: &Model) -> Result<(), StoreError> {
    if Entity::find_by_id(row.id.clone()).unique(txn).await?.is_none() {
        Entity::insert(row.clone().into_active_model()).exec_without_returning(txn).await?;
    }
    Ok(())
}

/// What is to be noted about a mail that waits.
struct Note {
    id: RequestId,
    at: WallTime,
    reason: String,
}

/// Ends the waiting of a mail and erases its text.
async fn settle(txn: &DatabaseTransaction, note: &Note, state: i16) -> Result<(), StoreError> {
    Entity::update_many()
        .col_expr(Column::State, Expr::value(state))
        .col_expr(Column::Due, Expr::value(millis(note.at)))
        .col_expr(Column::Reason, Expr::value(note.reason.as_str()))
        .col_expr(Column::Body, Expr::value(""))
        .filter(Column::Id.eq(note.id.0.to_vec()))
        .filter(Column::State.eq(WAITING))
        .exec(txn)
        .await?;
    Ok(())
}

async fn retry_at(txn: &DatabaseTransaction, note: &Note) -> Result<(), StoreError> {
    Entity::update_many()
        .col_expr(Column::Attempts, Expr::col(Column::Attempts).add(1))
        .col_expr(Column::Due, Expr::value(millis(note.at)))
        .col_expr(Column::Reason, Expr::value(note.reason.as_str()))
        .filter(Column::Id.eq(note.id.0.to_vec()))
        .filter(Column::State.eq(WAITING))
        .filter(Column::Due.ne(millis(note.at)))
        .exec(txn)
        .await?;
    Ok(())
}

async fn forget(txn: &DatabaseTransaction, before: WallTime) -> Result<u64, StoreError> {
    let done = Entity::delete_many().filter(Column::State.ne(WAITING)).filter(Column::Due.lt(millis(before)));
    Ok(done.exec(txn).await?.rows_affected)
}

/// Addresses are compared here: the column has them as they were typed.
async fn erase(txn: &DatabaseTransaction, folded: &str) -> Result<u64, StoreError> {
    let all = Entity::find().select_only().column(Column::Id).column(Column::Recipient);
    let all: Vec<(Vec<u8>, String)> = all.into_tuple().all(txn).await?;
    let mut erased = 0;
    for (id, recipient) in all {
        // What is no address is not this one.
        if email(&recipient).is_ok_and(|recipient| recipient.folded() == folded) {
            erased += Entity::delete_by_id(id).exec(txn).await?.rows_affected;
        }
    }
    Ok(erased)
}

#[async_trait]
impl MailQueue for SqlMailQueue {
    async fn enqueue(&self, mail: Mail) -> Result<(), StoreError> {
        let row = Model {
            id: mail.id.0.to_vec(),
            recipient: mail.to.as_str().to_owned(),
            subject: mail.subject.to_string(),
            body: mail.body.expose().to_owned(),
            created: millis(mail.created),
            state: WAITING,
            attempts: 0,
            due: millis(mail.created),
            reason: String::new(),
        };
        self.0.write(row, |txn, row| Box::pin(enqueue(txn, row))).await
    }

    async fn due(&self, now: WallTime, max: usize) -> Result<Vec<(Mail, u32)>, StoreError> {
        let waiting = Entity::find().filter(Column::State.eq(WAITING)).filter(Column::Due.lte(millis(now)));
        let waiting = waiting.order_by_asc(Column::Due).order_by_asc(Column::Id);
        let reader = &self.0.reader().await?;
        let (mut due, mut seen) = (Vec::new(), 0);
        // Mails that cannot be read stay first for ever: they must not keep those behind them from leaving.
        while due.len() < max {
            let rows = waiting.clone().offset(seen).limit((max - due.len()) as u64).all(reader).await?;
            if rows.is_empty() {
                break;
            }
            seen += rows.len() as u64;
            due.extend(self.0.readable(rows.iter().map(mail)));
        }
        Ok(due)
    }

    async fn sent(&self, id: RequestId, at: WallTime) -> Result<(), StoreError> {
        let note = Note { id, at, reason: String::new() };
        self.0.write(note, |txn, note| Box::pin(settle(txn, note, SENT))).await
    }

    async fn retry_at(&self, id: RequestId, due: WallTime, reason: &Text<256>) -> Result<(), StoreError> {
        let note = Note { id, at: due, reason: reason.to_string() };
        self.0.write(note, |txn, note| Box::pin(retry_at(txn, note))).await
    }

    async fn failed(&self, id: RequestId, at: WallTime, reason: &Text<256>) -> Result<(), StoreError> {
        let note = Note { id, at, reason: reason.to_string() };
        self.0.write(note, |txn, note| Box::pin(settle(txn, note, FAILED))).await
    }

    async fn state(&self, id: RequestId) -> Result<Option<MailState>, StoreError> {
        Entity::find_by_id(id.0.to_vec()).unique(&self.0.reader().await?).await?.as_ref().map(state).transpose()
    }

    async fn forget(&self, before: WallTime) -> Result<u64, StoreError> {
        self.0.write(before, |txn, before| Box::pin(forget(txn, *before))).await
    }

    async fn erase(&self, to: &Email) -> Result<u64, StoreError> {
        let erased = self.0.write(to.folded(), |txn, folded| Box::pin(erase(txn, folded))).await?;
        self.0.scrub().await?;
        Ok(erased)
    }
}
