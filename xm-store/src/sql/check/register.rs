//! What holds in RegisterDB.

use sea_orm::{ConnectionTrait, EntityTrait, QuerySelect};

use super::{Check, walk};
use crate::error::StoreError;
use crate::records::MailState;
use crate::sql::entity::mail;
use crate::sql::mail_queue;

pub(super) async fn check(check: &mut Check<'_>) -> Result<(), StoreError> {
    walk!(check, "mails", mail::Entity::find(), mail::Column::Id, |row| row.id.clone(), |rows| {
        for row in &rows {
            let which = format!("mails, {}", row.id.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            check.row(&which, mail_queue::mail(row));
            let Some(state) = check.row(&which, mail_queue::state(row)) else { continue };
            let waits = matches!(state, MailState::Waiting { .. });
            check.expect(waits != row.body.is_empty(), format_args!("{which}: only what waits has its text"));
        }
    });
    Ok(())
}

pub(super) async fn is_empty(db: &impl ConnectionTrait) -> Result<bool, StoreError> {
    let one = mail::Entity::find().select_only().column(mail::Column::State).limit(1).into_tuple::<i16>();
    Ok(one.one(db).await?.is_none())
}
