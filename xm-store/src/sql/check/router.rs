//! What holds in RouterDB.

use sea_orm::{ConnectionTrait, EntityTrait, QuerySelect};

use super::{Check, walk};
use crate::error::StoreError;
use crate::records::PlacementState;
use crate::sql::decode::wall;
use crate::sql::entity::{placement, request};
use crate::sql::placements;

pub(super) async fn check(check: &mut Check<'_>) -> Result<(), StoreError> {
    walk!(check, "placements", placement::Entity::find(), placement::Column::User, |row| row.user, |rows| {
        rows.iter().for_each(|row| placement(check, row));
    });
    walk!(
        check,
        "requests",
        request::Entity::find(),
        (request::Column::Request, request::Column::Kind),
        |row| (row.request.clone(), row.kind),
        |rows| {
            for row in &rows {
                let is_known = placements::check_answer(row).and_then(|()| wall(row.at));
                check.row("requests", is_known);
            }
        }
    );
    Ok(())
}

fn placement(check: &mut Check<'_>, row: &placement::Model) {
    let which = format!("placements, user {}", row.user);
    let Some(placement) = check.row(&which, placements::placement(row)) else { return };
    let folded = (placement.name.folded().into_bytes(), placement.email.folded().into_bytes());
    check.expect(folded.0 == row.name_folded, format_args!("{which}: the name is not what it is unique by"));
    check.expect(folded.1 == row.email_folded, format_args!("{which}: the address is not what it is unique by"));
    check.expect(row.token.len() == 32, format_args!("{which}: a token's hash of {} bytes", row.token.len()));
    let is_active = matches!(placement.state, PlacementState::Active { .. });
    let form = if is_active { "is active, but has its form still" } else { "waits for a Presence, but has no form" };
    check.expect(is_active != placement.form.is_some(), format_args!("{which}: it {form}"));
}

pub(super) async fn is_empty(db: &impl ConnectionTrait) -> Result<bool, StoreError> {
    let one = placement::Entity::find().select_only().column(placement::Column::User).limit(1).into_tuple::<i64>();
    Ok(one.one(db).await?.is_none())
}
