//! [`Placements`] in RouterDB.

use async_trait::async_trait;
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::sea_query::{Expr, IntoCondition};
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder};
use xmmep::name::{Email, UserName};
use xmmep::secret::{KdfParams, Salt, TokenHash};
use xmmep::types::{PresenceId, RequestId, UserId, WallTime};

use super::SqlPlacements;
use super::by_name::Named;
use super::decode::{bytes, corrupt, email, key_hash, millis, name, number, profile, signed, user, wall};
use super::entity::placement::{ActiveModel, Column, Entity, Model};
use super::entity::request;
use super::unique::Unique;
use crate::error::StoreError;
use crate::placements::{Activation, Placements, Registration, Renewal};
use crate::records::{Form, NewPlacement, Placement, PlacementState, REGISTRATION_KEPT};

const REGISTERED: i16 = 0;
pub(super) const ACTIVATING: i16 = 1;
pub(super) const ACTIVE: i16 = 2;

/// Kinds of requests whose answers are remembered.
const REGISTRATION: i16 = 0;
const RENEWAL: i16 = 1;

/// Answers: nothing granted, or granted to the user in the row; to a registration also what was taken.
const REFUSED: i16 = 0;
const GRANTED: i16 = 1;
const NAME_TAKEN: i16 = 2;
const EMAIL_TAKEN: i16 = 3;
const BOTH_TAKEN: i16 = 4;

pub(super) fn placement(row: &Model) -> Result<Placement, StoreError> {
    let presence = PresenceId {
        cluster: number(row.cluster.into(), "a cluster")?,
        presence: number(row.presence.into(), "a Presence")?,
    };
    let form = match &row.key_hash {
        Some(hash) => Some(Form { key_hash: key_hash(hash)?, profile: profile!(row) }),
        None => None,
    };
    Ok(Placement {
        user: user(row.user),
        name: name(&row.name)?,
        email: email(&row.email)?,
        salt: Salt(bytes(&row.salt, "a salt")?),
        kdf: KdfParams {
            memory_kib: number(row.kdf_memory_kib, "memory in KiB")?,
            passes: number(row.kdf_passes, "passes")?,
            lanes: number(row.kdf_lanes, "lanes")?,
        },
        form,
        state: match row.state {
            REGISTERED => PlacementState::Registered { expires: wall(row.expires)? },
            ACTIVATING => PlacementState::Activating { presence },
            ACTIVE => PlacementState::Active { presence },
            other => return Err(corrupt(format_args!("the state {other} of user {}", row.user))),
        },
        registered_at: wall(row.registered_at)?,
    })
}

pub(super) fn row(new: &NewPlacement, now: WallTime) -> ActiveModel {
    ActiveModel {
        user: NotSet,
        name: Set(new.name.as_str().to_owned()),
        name_folded: Set(new.name.folded().into_bytes()),
        email: Set(new.email.as_str().to_owned()),
        email_folded: Set(new.email.folded().into_bytes()),
        salt: Set(new.salt.0.to_vec()),
        kdf_memory_kib: Set(new.kdf.memory_kib.into()),
        kdf_passes: Set(new.kdf.passes.into()),
        kdf_lanes: Set(new.kdf.lanes.into()),
        token: Set(new.token.expose().to_vec()),
        state: Set(REGISTERED),
        expires: Set(millis(new.expires)),
        cluster: Set(0),
        presence: Set(0),
        registered_at: Set(millis(now)),
        key_hash: Set(Some(new.key_hash.expose().to_vec())),
        nickname: Set(new.profile.nickname.to_string()),
        personal_msg: Set(new.profile.personal_msg.to_string()),
        birthdate: Set(new.profile.birthdate.to_string()),
        location: Set(new.profile.location.to_string()),
        gender: Set(new.profile.gender.into()),
        avatar: Set(new.profile.avatar.map(Vec::from)),
    }
}

/// The answer given to this request before.
async fn remembered(
    txn: &DatabaseTransaction,
    request: RequestId,
    kind: i16,
) -> Result<Option<request::Model>, StoreError> {
    Ok(request::Entity::find_by_id((request.0.to_vec(), kind)).unique(txn).await?)
}

fn registration(row: &request::Model) -> Result<Registration, StoreError> {
    match row.answer {
        GRANTED => Ok(Registration::Registered(user(row.user))),
        NAME_TAKEN => Ok(Registration::NameTaken),
        EMAIL_TAKEN => Ok(Registration::EmailTaken),
        BOTH_TAKEN => Ok(Registration::BothTaken),
        other => Err(corrupt(format_args!("the answer {other} to a registration"))),
    }
}

/// Whether a remembered answer is one that this code gives.
pub(super) fn check_answer(row: &request::Model) -> Result<(), StoreError> {
    match (row.kind, row.answer) {
        (REGISTRATION, _) => registration(row).map(drop),
        (RENEWAL, GRANTED | REFUSED) => Ok(()),
        (RENEWAL, other) => Err(corrupt(format_args!("the answer {other} to a renewal"))),
        (other, _) => Err(corrupt(format_args!("a request of kind {other}"))),
    }
}

async fn remember(txn: &DatabaseTransaction, answer: request::Model) -> Result<(), StoreError> {
    request::Entity::insert(answer.into_active_model()).exec_without_returning(txn).await?;
    Ok(())
}

/// Whether somebody holds what `holder` asks for. A registration expired at `now` makes way.
async fn is_taken(txn: &DatabaseTransaction, holder: impl IntoCondition, now: WallTime) -> Result<bool, StoreError> {
    let Some(found) = Entity::find().filter(holder).unique(txn).await? else { return Ok(false) };
    if !placement(&found)?.is_expired(now) {
        return Ok(true);
    }
    Entity::delete_by_id(found.user).exec(txn).await?;
    Ok(false)
}

async fn register(txn: &DatabaseTransaction, new: &NewPlacement, now: WallTime) -> Result<Registration, StoreError> {
    if let Some(before) = remembered(txn, new.request, REGISTRATION).await? {
        return registration(&before);
    }
    let request = new.request.0.to_vec();
    let name_taken = is_taken(txn, Column::NameFolded.eq(new.name.folded().into_bytes()), now).await?;
    let email_taken = is_taken(txn, Column::EmailFolded.eq(new.email.folded().into_bytes()), now).await?;
    let (registration, answer, user) = match (name_taken, email_taken) {
        (true, true) => (Registration::BothTaken, BOTH_TAKEN, 0),
        (true, false) => (Registration::NameTaken, NAME_TAKEN, 0),
        (false, true) => (Registration::EmailTaken, EMAIL_TAKEN, 0),
        (false, false) => {
            let id = Entity::insert(row(new, now)).exec(txn).await?.last_insert_id;
            (Registration::Registered(user(id)), GRANTED, id)
        }
    };
    remember(txn, request::Model { request, kind: REGISTRATION, answer, user, at: millis(now) }).await?;
    Ok(registration)
}

async fn begin_activation(
    txn: &DatabaseTransaction,
    token: &[u8],
    presence: PresenceId,
    now: WallTime,
) -> Result<Activation, StoreError> {
    let of_token = Entity::find().filter(Column::Token.eq(token.to_vec()));
    let Some(found) = of_token.order_by_desc(Column::User).unique(txn).await? else {
        return Ok(Activation::Unknown);
    };
    let before = placement(&found)?;
    match before.state {
        PlacementState::Registered { expires } if expires <= now => return Ok(Activation::Expired),
        PlacementState::Registered { .. } => {}
        PlacementState::Activating { .. } => return Ok(Activation::Begun(before)),
        PlacementState::Active { .. } => return Ok(Activation::AlreadyActive(before)),
    }
    Entity::update_many()
        .col_expr(Column::State, Expr::value(ACTIVATING))
        .col_expr(Column::Cluster, Expr::value(i32::from(presence.cluster)))
        .col_expr(Column::Presence, Expr::value(i32::from(presence.presence)))
        .filter(Column::User.eq(found.user))
        .exec(txn)
        .await?;
    Ok(Activation::Begun(Placement { state: PlacementState::Activating { presence }, ..before }))
}

async fn finish_activation(txn: &DatabaseTransaction, user: UserId) -> Result<(), StoreError> {
    Entity::update_many()
        .col_expr(Column::State, Expr::value(ACTIVE))
        .col_expr(Column::KeyHash, Expr::value(Option::<Vec<u8>>::None))
        .col_expr(Column::Nickname, Expr::value(""))
        .col_expr(Column::PersonalMsg, Expr::value(""))
        .col_expr(Column::Birthdate, Expr::value(""))
        .col_expr(Column::Location, Expr::value(""))
        .col_expr(Column::Gender, Expr::value(0_i16))
        .col_expr(Column::Avatar, Expr::value(Option::<Vec<u8>>::None))
        .filter(Column::User.eq(signed(user.0)))
        .filter(Column::State.eq(ACTIVATING))
        .exec(txn)
        .await?;
    Ok(())
}

/// What [`Placements::renew_token`] is asked.
struct NewToken {
    email: Email,
    request: RequestId,
    token: Vec<u8>,
    expires: WallTime,
    now: WallTime,
}

async fn renew_token(txn: &DatabaseTransaction, new: &NewToken) -> Result<Renewal, StoreError> {
    if let Some(before) = remembered(txn, new.request, RENEWAL).await? {
        let granted = before.answer == GRANTED;
        return Ok(if granted { Renewal::Renewed(user(before.user)) } else { Renewal::NothingWaits });
    }
    let of_email = Entity::find().filter(Column::EmailFolded.eq(new.email.folded().into_bytes()));
    let waiting = of_email.filter(Column::State.eq(REGISTERED)).filter(Column::Expires.gt(millis(new.now)));
    let found = waiting.unique(txn).await?;
    if let Some(found) = &found {
        Entity::update_many()
            .col_expr(Column::Token, Expr::value(new.token.clone()))
            .col_expr(Column::Expires, Expr::value(millis(new.expires)))
            .filter(Column::User.eq(found.user))
            .exec(txn)
            .await?;
    }
    let answer = request::Model {
        request: new.request.0.to_vec(),
        kind: RENEWAL,
        answer: if found.is_some() { GRANTED } else { REFUSED },
        user: found.as_ref().map_or(0, |found| found.user),
        at: millis(new.now),
    };
    remember(txn, answer).await?;
    Ok(found.map_or(Renewal::NothingWaits, |found| Renewal::Renewed(user(found.user))))
}

async fn forget(txn: &DatabaseTransaction, now: WallTime) -> Result<u64, StoreError> {
    let expired = Entity::delete_many()
        .filter(Column::State.eq(REGISTERED))
        .filter(Column::Expires.lte(millis(now)))
        .exec(txn)
        .await?;
    let kept_since = now.0.saturating_sub(REGISTRATION_KEPT.as_millis() as u64);
    request::Entity::delete_many().filter(request::Column::At.lt(millis(WallTime(kept_since)))).exec(txn).await?;
    Ok(expired.rows_affected)
}

async fn erase(txn: &DatabaseTransaction, user: UserId) -> Result<bool, StoreError> {
    let erased = Entity::delete_by_id(signed(user.0)).exec(txn).await?.rows_affected > 0;
    request::Entity::delete_many().filter(request::Column::User.eq(signed(user.0))).exec(txn).await?;
    Ok(erased)
}

impl SqlPlacements {
    async fn one(&self, which: impl IntoCondition) -> Result<Option<Placement>, StoreError> {
        // Of several rows with one token, which only chance could bring about, the newest counts.
        let found =
            Entity::find().filter(which).order_by_desc(Column::User).unique(&self.database.reader().await?).await?;
        found.as_ref().map(placement).transpose()
    }
}

impl Named for Entity {
    type Record = Placement;
    const FOLDED: Column = Column::NameFolded;

    fn folded(row: &Model) -> &[u8] {
        &row.name_folded
    }

    fn decode(row: &Model) -> Result<Placement, StoreError> {
        placement(row)
    }
}

#[async_trait]
impl Placements for SqlPlacements {
    async fn register(&self, new: NewPlacement, now: WallTime) -> Result<Registration, StoreError> {
        self.database.write((new, now), |txn, (new, now)| Box::pin(register(txn, new, *now))).await
    }

    async fn by_name(&self, name: &UserName) -> Result<Option<Placement>, StoreError> {
        self.by_name.find(name.folded().into_bytes()).await
    }

    async fn by_user(&self, user: UserId) -> Result<Option<Placement>, StoreError> {
        self.one(Column::User.eq(signed(user.0))).await
    }

    async fn by_token(&self, token: &TokenHash) -> Result<Option<Placement>, StoreError> {
        self.one(Column::Token.eq(token.expose().to_vec())).await
    }

    async fn begin_activation(
        &self,
        token: &TokenHash,
        presence: PresenceId,
        now: WallTime,
    ) -> Result<Activation, StoreError> {
        let asked = (token.expose().to_vec(), presence, now);
        let begin = self
            .database
            .write(asked, |txn, (token, presence, now)| Box::pin(begin_activation(txn, token, *presence, *now)));
        begin.await
    }

    async fn finish_activation(&self, user: UserId) -> Result<(), StoreError> {
        self.database.write(user, |txn, user| Box::pin(finish_activation(txn, *user))).await
    }

    async fn activating(&self) -> Result<Vec<Placement>, StoreError> {
        let begun = Entity::find().filter(Column::State.eq(ACTIVATING)).order_by_asc(Column::User);
        let begun = begun.all(&self.database.reader().await?).await?;
        Ok(self.database.readable(begun.iter().map(placement)))
    }

    async fn renew_token(
        &self,
        email: &Email,
        request: RequestId,
        token: &TokenHash,
        expires: WallTime,
        now: WallTime,
    ) -> Result<Renewal, StoreError> {
        let new = NewToken { email: email.clone(), request, token: token.expose().to_vec(), expires, now };
        self.database.write(new, |txn, new| Box::pin(renew_token(txn, new))).await
    }

    async fn locate(&self, user: UserId) -> Result<Option<PresenceId>, StoreError> {
        Ok(self.by_user(user).await?.and_then(|placement| placement.home()))
    }

    async fn forget(&self, now: WallTime) -> Result<u64, StoreError> {
        self.database.write(now, |txn, now| Box::pin(forget(txn, *now))).await
    }

    async fn erase(&self, user: UserId) -> Result<bool, StoreError> {
        let erased = self.database.write(user, |txn, user| Box::pin(erase(txn, *user))).await?;
        self.database.scrub().await?;
        Ok(erased)
    }
}
