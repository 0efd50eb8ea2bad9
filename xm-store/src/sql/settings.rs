//! Settings of a server under which it may lose what it has committed. They are its owner's to change, so they are
//! reported and not overridden; what a connection can set for itself is in `connect.rs`.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement};

/// The settings that are not as they should be, in words.
pub(super) async fn unsafe_ones(db: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    let checks: &[(&str, &str, &str)] = match db.get_database_backend() {
        DbBackend::MySql => &[
            ("SELECT CAST(@@innodb_flush_log_at_trx_commit AS CHAR) AS value", "1", "innodb_flush_log_at_trx_commit"),
            ("SELECT CAST(@@innodb_doublewrite AS CHAR) AS value", "1", "innodb_doublewrite"),
            // With a binary log, a crash undoes what that has not got.
            ("SELECT CAST(IF(@@log_bin, @@sync_binlog, 1) AS CHAR) AS value", "1", "sync_binlog"),
        ],
        DbBackend::Postgres => &[
            ("SELECT current_setting('fsync') AS value", "on", "fsync"),
            ("SELECT current_setting('full_page_writes') AS value", "on", "full_page_writes"),
        ],
        // Everything is set per connection.
        _ => &[],
    };
    let mut found = Vec::new();
    for (sql, wanted, name) in checks {
        let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), *sql)).await?;
        let value: String = row.map(|row| row.try_get("", "value")).transpose()?.unwrap_or_default();
        let value = if value.eq_ignore_ascii_case("on") { "on" } else { &value };
        if value != *wanted && !(*wanted == "1" && value == "on") {
            found.push(format!("{name} is {value}, not {wanted}: a power cut can lose what was committed"));
        }
    }
    Ok(found)
}
