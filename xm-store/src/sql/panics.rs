//! Panics of the drivers. Of an answer that no server gives, sqlx reads what is not there; here that becomes an error.
//! The connection it happened on must not be used again: who catches a panic renews the pool.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;

use sea_orm::sqlx::postgres::{PgRow, PgValueFormat};
use sea_orm::sqlx::{Row, TypeInfo, ValueRef};
use sea_orm::{DbErr, QueryResult};

use super::address::Address;
use crate::error::OpenError;

/// Runs `work`; what it panics with is returned.
pub(super) async fn caught<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let mut work = std::pin::pin!(work);
    // After a panic it is never polled again.
    poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Poll::Ready(Err(format!("the driver does not understand the database: {text}")))
        }
    })
    .await
}

/// Runs what opens a database.
pub(super) async fn caught_opening<T>(
    address: &Address,
    // Boxed: the layers below are so many that callers' callers would reach the compiler's limit.
    work: Pin<Box<dyn Future<Output = Result<T, OpenError>> + Send + '_>>,
) -> Result<T, OpenError> {
    caught(work).await.unwrap_or_else(|why| Err(OpenError::Foreign { path: address.shown(), why }))
}

/// Checks what will be decoded after the statement, where nobody catches anything: rows have all their columns, numbers
/// their length.
pub(super) fn check<'a>(rows: impl IntoIterator<Item = &'a QueryResult>) -> Result<(), DbErr> {
    rows.into_iter().filter_map(QueryResult::try_as_pg_row).try_for_each(check_postgres)
}

fn check_postgres(row: &PgRow) -> Result<(), DbErr> {
    for column in 0..row.len() {
        let value = row.try_get_raw(column).map_err(|error| DbErr::Type(error.to_string()))?;
        if value.is_null() || value.format() != PgValueFormat::Binary {
            continue;
        }
        let wanted = match value.type_info().name() {
            "INT8" => 8,
            "INT4" => 4,
            "INT2" => 2,
            _ => continue,
        };
        let length = value.as_bytes().map_err(|error| DbErr::Type(error.to_string()))?.len();
        if length != wanted {
            return Err(DbErr::Type(format!("a number of {length} bytes in place of {wanted}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_returned_and_everything_else_passes() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let pausing = async {
            tokio::task::yield_now().await;
            assert!(String::new().len() > 7, "too {}", "short");
        };
        assert!(caught(pausing).await.is_err_and(|why| why.ends_with("too short")));
    }
}
