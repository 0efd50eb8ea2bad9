//! From columns to types and back. A column that no version of this code wrote is [`StoreError::Corrupt`], never a panic.

use xmmep::bounded::Text;
use xmmep::name::{Email, UserName};
use xmmep::secret::KeyHash;
use xmmep::types::{UserId, WallTime};

use crate::error::StoreError;
use crate::records::Person;

pub(super) fn corrupt(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(what.to_string())
}

/// The `i64` of the same bits: databases have no unsigned 64-bit integer in common. Order is lost above `i64::MAX`.
pub(super) fn signed(number: u64) -> i64 {
    number.cast_signed()
}

pub(super) fn user(column: i64) -> UserId {
    UserId(column.cast_unsigned())
}

/// Times keep their order: what is later than 292 million years from now becomes just that.
pub(super) fn millis(time: WallTime) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

pub(super) fn wall(column: i64) -> Result<WallTime, StoreError> {
    u64::try_from(column).map(WallTime).map_err(|_| corrupt(format_args!("a time before 1970: {column}")))
}

pub(super) fn number<T: TryFrom<i64>>(column: i64, what: &str) -> Result<T, StoreError> {
    T::try_from(column).map_err(|_| corrupt(format_args!("{what} out of range: {column}")))
}

pub(super) fn bytes<const N: usize>(column: &[u8], what: &str) -> Result<[u8; N], StoreError> {
    column.try_into().map_err(|_| corrupt(format_args!("{what} of {} bytes, not {N}", column.len())))
}

pub(super) fn text<const N: usize>(column: &str) -> Result<Text<N>, StoreError> {
    Text::new(column).map_err(corrupt)
}

pub(super) fn name(column: &str) -> Result<UserName, StoreError> {
    UserName::new(column).map_err(|error| corrupt(format_args!("the user name {column:?}: {error}")))
}

pub(super) fn email(column: &str) -> Result<Email, StoreError> {
    Email::new(column).map_err(|error| corrupt(format_args!("an e-mail address: {error}")))
}

pub(super) fn key_hash(column: &[u8]) -> Result<KeyHash, StoreError> {
    bytes(column, "a key hash").map(KeyHash::from_bytes)
}

pub(super) fn person(user_column: i64, name_column: &str) -> Result<Person, StoreError> {
    Ok(Person { user: user(user_column), name: name(name_column)? })
}

/// The profile in a row that has its columns.
macro_rules! profile {
    ($row:expr) => {
        $crate::records::Profile {
            nickname: $crate::sql::decode::text(&$row.nickname)?,
            personal_msg: $crate::sql::decode::text(&$row.personal_msg)?,
            birthdate: $crate::sql::decode::text(&$row.birthdate)?,
            location: $crate::sql::decode::text(&$row.location)?,
            gender: $crate::sql::decode::number(i64::from($row.gender), "a gender")?,
            avatar: $row
                .avatar
                .as_ref()
                .map(|hash| $crate::sql::decode::bytes(hash, "a picture's hash"))
                .transpose()?,
        }
    };
}
pub(super) use profile;
