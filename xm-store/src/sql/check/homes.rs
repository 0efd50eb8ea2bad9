//! What holds between RouterDB and the PresenceDB of an identity: who lives there by one has an account in the other.

use std::collections::HashMap;

use sea_orm::{ColumnTrait, DatabaseConnection, EntityTrait, QueryFilter};
use xmmep::types::PresenceId;

use super::{Check, Checked, Progress, close, open, walk};
use crate::error::{OpenError, StoreError};
use crate::sql::address::Address;
use crate::sql::entity::{account, placement};
use crate::sql::placements::{ACTIVATING, ACTIVE};

/// Checks RouterDB against the PresenceDB of `home`; nobody may write to either meanwhile. Changes nothing.
///
/// # Errors
/// If one cannot be opened or stops answering. What is wrong is no error but a finding.
pub async fn check_homes<'a>(
    router: &str,
    presence: &str,
    home: PresenceId,
    progress: &'a mut Progress<'a>,
) -> Result<Checked, OpenError> {
    let (router, presence) = (Address::parse(router)?, Address::parse(presence)?);
    let (routers, presences) = (open(&router).await?, open(&presence).await?);
    let mut check = Check { db: routers.clone(), checked: Checked::default(), progress };
    let mut result = active_ones_have_accounts(&mut check, &presences, home).await;
    if result.is_ok() {
        check.db = presences.clone();
        result = accounts_are_placed(&mut check, &routers, home).await;
    }
    close(routers).await;
    close(presences).await;
    result.map_err(|error| OpenError::Unreachable { path: presence.shown(), why: error.to_string() })?;
    Ok(check.checked)
}

/// A user is active once the Presence has said that it has the account.
async fn active_ones_have_accounts(
    check: &mut Check<'_>,
    presence: &DatabaseConnection,
    home: PresenceId,
) -> Result<(), StoreError> {
    use placement::Column;
    let active = || {
        placement::Entity::find()
            .filter(Column::State.eq(ACTIVE))
            .filter(Column::Cluster.eq(i32::from(home.cluster)))
            .filter(Column::Presence.eq(i32::from(home.presence)))
    };
    walk!(check, "placements", active(), Column::User, |row| row.user, |rows| {
        let users = rows.iter().map(|row| row.user);
        let found = account::Entity::find().filter(account::Column::User.is_in(users)).all(presence).await?;
        let names: HashMap<i64, &str> = found.iter().map(|row| (row.user, row.name.as_str())).collect();
        for row in &rows {
            let (user, name) = (row.user, &row.name);
            match names.get(&user) {
                None => {
                    check.checked.find(format_args!("user {user} ({name}) lives at {home}, but has no account there"))
                }
                Some(other) => {
                    check.expect(
                        other == name,
                        format_args!("user {user} is {name} to the Router and {other} at {home}"),
                    );
                }
            }
        }
    });
    Ok(())
}

/// An account is made only for somebody whom the Router has sent there.
async fn accounts_are_placed(
    check: &mut Check<'_>,
    router: &DatabaseConnection,
    home: PresenceId,
) -> Result<(), StoreError> {
    let home_columns = (i32::from(home.cluster), i32::from(home.presence));
    walk!(check, "accounts", account::Entity::find(), account::Column::User, |row| row.user, |rows| {
        let users = rows.iter().map(|row| row.user);
        let found = placement::Entity::find().filter(placement::Column::User.is_in(users)).all(router).await?;
        let found: HashMap<i64, &placement::Model> = found.iter().map(|row| (row.user, row)).collect();
        for row in &rows {
            let is_sent = found.get(&row.user).is_some_and(|placement| {
                [ACTIVATING, ACTIVE].contains(&placement.state)
                    && (placement.cluster, placement.presence) == home_columns
            });
            let (user, name) = (row.user, &row.name);
            check.expect(
                is_sent,
                format_args!("user {user} ({name}) has an account at {home}, but the Router knows of none"),
            );
        }
    });
    Ok(())
}
