//! [`Accounts`] in PresenceDB.

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, ExprTrait, Func};
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, IntoActiveModel};
use sea_orm::{QueryFilter, QuerySelect, QueryTrait, UpdateMany};
use xmmep::name::UserName;
use xmmep::types::{UserId, WallTime};

use super::SqlPresence;
use super::by_name::Named;
use super::decode::{email, key_hash, millis, name, number, profile, signed, user, wall};
use super::entity::account::{Column, Entity, Model};
use super::prepared::Prepared;
use super::search_index;
use super::unique::Unique;
use crate::accounts::{Accounts, BY_USERS_MAX, Creation, LoginHistory, ProfileChanges};
use crate::error::StoreError;
use crate::records::{Account, Findable, NewAccount};

pub(super) fn account(row: &Model) -> Result<Account, StoreError> {
    Ok(Account {
        user: user(row.user),
        name: name(&row.name)?,
        email: email(&row.email)?,
        key_hash: key_hash(&row.key_hash)?,
        profile: profile!(row),
        findable: Findable { in_search: row.in_search != 0, by_email: row.by_email != 0 },
        profile_version: number(row.profile_version, "a profile's version")?,
        created: wall(row.created)?,
        last_login: row.last_login.map(wall).transpose()?,
        failed_attempts: number(row.failed_attempts, "failed logins")?,
        last_failed: row.last_failed.map(wall).transpose()?,
    })
}

pub(super) fn row(new: &NewAccount) -> Model {
    Model {
        user: signed(new.user.0),
        name: new.name.as_str().to_owned(),
        name_folded: new.name.folded().into_bytes(),
        email: new.email.as_str().to_owned(),
        key_hash: new.key_hash.expose().to_vec(),
        nickname: new.profile.nickname.to_string(),
        personal_msg: new.profile.personal_msg.to_string(),
        birthdate: new.profile.birthdate.to_string(),
        location: new.profile.location.to_string(),
        gender: new.profile.gender.into(),
        avatar: new.profile.avatar.map(Vec::from),
        created: millis(new.created),
        last_login: None,
        failed_attempts: 0,
        last_failed: None,
        in_search: Findable::default().in_search.into(),
        by_email: Findable::default().by_email.into(),
        profile_version: 1,
    }
}

async fn create(txn: &DatabaseTransaction, row: &Model) -> Result<Creation, StoreError> {
    let rivals = Entity::find().filter(Column::User.eq(row.user).or(Column::NameFolded.eq(row.name_folded.clone())));
    match &rivals.all(txn).await?[..] {
        [] => {}
        [one] if one.user == row.user && one.name_folded == row.name_folded => return Ok(Creation::Already),
        _ => return Ok(Creation::Conflict),
    }
    Entity::insert(row.clone().into_active_model()).exec_without_returning(txn).await?;
    search_index::update(txn, None, Some(&account(row)?)).await?;
    Ok(Creation::Created)
}

async fn update_profile(
    txn: &DatabaseTransaction,
    who: UserId,
    changes: &ProfileChanges,
) -> Result<Option<Account>, StoreError> {
    let Some(found) = Entity::find_by_id(signed(who.0)).unique(txn).await? else { return Ok(None) };
    let before = account(&found)?;
    let mut after = before.clone();
    if !after.change(changes) {
        return Ok(Some(before));
    }
    Entity::update_many()
        .col_expr(Column::Nickname, Expr::value(after.profile.nickname.to_string()))
        .col_expr(Column::PersonalMsg, Expr::value(after.profile.personal_msg.to_string()))
        .col_expr(Column::Birthdate, Expr::value(after.profile.birthdate.to_string()))
        .col_expr(Column::Location, Expr::value(after.profile.location.to_string()))
        .col_expr(Column::Gender, Expr::value(i16::from(after.profile.gender)))
        .col_expr(Column::Avatar, Expr::value(after.profile.avatar.map(Vec::from)))
        .col_expr(Column::InSearch, Expr::value(i16::from(after.findable.in_search)))
        .col_expr(Column::ByEmail, Expr::value(i16::from(after.findable.by_email)))
        .col_expr(Column::ProfileVersion, Expr::value(signed(after.profile_version)))
        .filter(Column::User.eq(found.user))
        .exec(txn)
        .await?;
    search_index::update(txn, Some(&before), Some(&after)).await?;
    Ok(Some(after))
}

async fn logged_in(
    txn: &DatabaseTransaction,
    user: UserId,
    read: LoginHistory,
    at: WallTime,
) -> Result<Option<LoginHistory>, StoreError> {
    static BEFORE: Prepared = Prepared::new();
    static NOTE: Prepared = Prepared::new();
    let (who, when, backend) = (signed(user.0), millis(at), txn.get_database_backend());
    if note_if_unchanged(txn, who, read, when).await? {
        return Ok(Some(read));
    }
    let before = BEFORE.with(backend, vec![who.into()], || {
        Entity::find_by_id(who).select_only().columns([Column::LastLogin, Column::FailedAttempts]).into_query()
    });
    let before = txn.query_all_raw(before).await?;
    let Some(before) = before.first() else { return Ok(None) };
    let (last_login, failed_attempts): (Option<i64>, i64) = before.try_get_many_by_index()?;
    let note = NOTE.with(backend, vec![when.into(), who.into()], || note(who, when).into_query());
    txn.execute_raw(note).await?;
    let last_login = last_login.map(wall).transpose()?;
    Ok(Some(LoginHistory { last_login, failed_attempts: number(failed_attempts, "failed attempts")? }))
}

/// Notes a good login of an account that is still as it was read. Returns whether it is.
async fn note_if_unchanged(
    txn: &DatabaseTransaction,
    who: i64,
    read: LoginHistory,
    at: i64,
) -> Result<bool, StoreError> {
    static NOTE: Prepared = Prepared::new();
    /// In place of no login at all: before all time.
    const NEVER: i64 = -1;
    let (last, failed) = (read.last_login.map_or(NEVER, millis), i64::from(read.failed_attempts));
    let values = vec![at.into(), who.into(), failed.into(), NEVER.into(), last.into()];
    let note = NOTE.with(txn.get_database_backend(), values, || {
        let last_login = Func::coalesce([Expr::col(Column::LastLogin), Expr::value(NEVER)]);
        let unchanged = Column::FailedAttempts.eq(failed).and(Expr::expr(last_login).eq(last));
        note(who, at).filter(unchanged).into_query()
    });
    Ok(txn.execute_raw(note).await?.rows_affected() > 0)
}

fn note(who: i64, at: i64) -> UpdateMany<Entity> {
    let note = Entity::update_many().col_expr(Column::LastLogin, Expr::value(at)).filter(Column::User.eq(who));
    note.col_expr(Column::FailedAttempts, Expr::cust("0")).col_expr(Column::LastFailed, Expr::cust("NULL"))
}

async fn login_failed(txn: &DatabaseTransaction, who: UserId, at: WallTime) -> Result<u32, StoreError> {
    let Some(found) = Entity::find_by_id(signed(who.0)).unique(txn).await? else { return Ok(0) };
    let attempts = account(&found)?.failed_attempts.saturating_add(1);
    Entity::update_many()
        .col_expr(Column::FailedAttempts, Expr::value(i64::from(attempts)))
        .col_expr(Column::LastFailed, Expr::value(millis(at)))
        .filter(Column::User.eq(found.user))
        .exec(txn)
        .await?;
    Ok(attempts)
}

async fn erase(txn: &DatabaseTransaction, user: UserId) -> Result<bool, StoreError> {
    search_index::erase(txn, signed(user.0)).await?;
    Ok(Entity::delete_by_id(signed(user.0)).exec(txn).await?.rows_affected > 0)
}

impl Named for Entity {
    type Record = Account;
    const FOLDED: Column = Column::NameFolded;

    fn folded(row: &Model) -> &[u8] {
        &row.name_folded
    }

    fn decode(row: &Model) -> Result<Account, StoreError> {
        account(row)
    }
}

#[async_trait]
impl Accounts for SqlPresence {
    async fn create(&self, new: NewAccount) -> Result<Creation, StoreError> {
        self.database.write(row(&new), |txn, row| Box::pin(create(txn, row))).await
    }

    async fn by_name(&self, name: &UserName) -> Result<Option<Account>, StoreError> {
        self.by_name.find(name.folded().into_bytes()).await
    }

    async fn by_user(&self, user: UserId) -> Result<Option<Account>, StoreError> {
        let found = Entity::find_by_id(signed(user.0)).unique(&self.database.reader().await?).await?;
        found.as_ref().map(account).transpose()
    }

    async fn by_users(&self, users: &[UserId]) -> Result<Vec<Account>, StoreError> {
        let mut wanted: Vec<_> = users.iter().take(BY_USERS_MAX).map(|user| signed(user.0)).collect();
        let Some(last) = wanted.last().copied() else { return Ok(Vec::new()) };
        // Statements are cached by their text: a few lengths instead of a thousand.
        wanted.resize(wanted.len().next_power_of_two(), last);
        let found = Entity::find().filter(Column::User.is_in(wanted)).all(&self.database.reader().await?).await?;
        let mut accounts: Vec<_> = found.iter().map(account).collect::<Result<_, _>>()?;
        accounts.sort_unstable_by_key(|account| account.user);
        Ok(accounts)
    }

    async fn update_profile(&self, user: UserId, changes: &ProfileChanges) -> Result<Option<Account>, StoreError> {
        let data = (user, changes.clone());
        self.database.write(data, |txn, (user, changes)| Box::pin(update_profile(txn, *user, changes))).await
    }

    async fn logged_in(
        &self,
        user: UserId,
        read: LoginHistory,
        at: WallTime,
    ) -> Result<Option<LoginHistory>, StoreError> {
        self.database.write((user, read, at), |txn, &(user, read, at)| Box::pin(logged_in(txn, user, read, at))).await
    }

    async fn login_failed(&self, user: UserId, at: WallTime) -> Result<u32, StoreError> {
        self.database.write((user, at), |txn, &(user, at)| Box::pin(login_failed(txn, user, at))).await
    }

    async fn erase(&self, user: UserId) -> Result<bool, StoreError> {
        let erased = self.database.write(user, |txn, user| Box::pin(erase(txn, *user))).await?;
        self.database.scrub().await?;
        Ok(erased)
    }
}
