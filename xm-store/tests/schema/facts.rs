//! What a database says about its own schema, in one form for all engines.

use std::fmt::Write as _;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};

/// The table of the library that makes the steps: on the page, but no step's work.
pub const MIGRATIONS: &str = "seaql_migrations";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    /// What holds of the table as a whole: how it is kept, how it compares.
    pub traits: String,
    pub columns: Vec<Column>,
    pub indexes: Vec<Index>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: String,
    pub is_null: bool,
    /// Its default, and whether it counts by itself.
    pub traits: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// `primary key`, `unique` where the engine gives the name, else our name for it.
    pub name: String,
    pub is_unique: bool,
    pub columns: Vec<String>,
}

/// Table, what holds of it.
const TABLES: [&str; 3] = [
    "SELECT name, CASE WHEN sql LIKE '%WITHOUT ROWID%' THEN 'without rowid' ELSE '' END || \
     CASE WHEN sql LIKE '%AUTOINCREMENT%' THEN 'autoincrement' ELSE '' END \
     FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite~_%' ESCAPE '~'",
    "SELECT CAST(table_name AS CHAR), CAST(CONCAT(engine, ', ', table_collation) AS CHAR) FROM information_schema.tables \
     WHERE table_schema = DATABASE()",
    "SELECT relname::text, '' FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
];

/// Table, column, type, whether it may be NULL, default and the like.
const COLUMNS: [&str; 3] = [
    "SELECT t.name, c.name, c.type, CASE c.\"notnull\" WHEN 0 THEN 'null' ELSE '' END, COALESCE(c.dflt_value, '') \
     FROM sqlite_master t JOIN pragma_table_info(t.name) c WHERE t.type = 'table' ORDER BY t.name, c.cid",
    "SELECT CAST(table_name AS CHAR), CAST(column_name AS CHAR), CAST(column_type AS CHAR), \
     CAST(IF(is_nullable = 'YES', 'null', '') AS CHAR), CAST(CONCAT_WS(' ', NULLIF(column_default, 'NULL'), NULLIF(extra, ''), \
     collation_name) AS CHAR) FROM information_schema.columns WHERE table_schema = DATABASE() \
     ORDER BY table_name, ordinal_position",
    "SELECT t.relname::text, c.attname::text, format_type(c.atttypid, c.atttypmod), \
     CASE WHEN c.attnotnull THEN '' ELSE 'null' END, \
     COALESCE(pg_get_expr(d.adbin, d.adrelid), '') || CASE c.attidentity WHEN 'd' THEN 'identity' ELSE '' END \
     FROM pg_attribute c JOIN pg_class t ON t.oid = c.attrelid \
     LEFT JOIN pg_attrdef d ON d.adrelid = t.oid AND d.adnum = c.attnum \
     WHERE t.relkind = 'r' AND t.relnamespace = 'public'::regnamespace AND c.attnum > 0 AND NOT c.attisdropped \
     ORDER BY t.relname COLLATE \"C\", c.attnum",
];

/// Table, index, kind, column; the columns of an index in their order.
const INDEXES: [&str; 3] = [
    "SELECT t.name, 'primary', 'primary key', c.name, c.pk AS at FROM sqlite_master t JOIN pragma_table_info(t.name) c \
     WHERE t.type = 'table' AND c.pk > 0 UNION ALL \
     SELECT t.name, i.name, CASE i.\"unique\" WHEN 0 THEN '' ELSE 'unique' END, c.name, c.seqno \
     FROM sqlite_master t JOIN pragma_index_list(t.name) i JOIN pragma_index_info(i.name) c \
     WHERE t.type = 'table' AND i.origin <> 'pk' ORDER BY 1, 2, 5",
    "SELECT CAST(table_name AS CHAR), CAST(index_name AS CHAR), \
     CAST(IF(index_name = 'PRIMARY', 'primary key', IF(non_unique, '', 'unique')) AS CHAR), CAST(column_name AS CHAR) \
     FROM information_schema.statistics WHERE table_schema = DATABASE() ORDER BY table_name, index_name, seq_in_index",
    "SELECT t.relname::text, n.relname::text, CASE WHEN i.indisprimary THEN 'primary key' WHEN i.indisunique THEN 'unique' \
     ELSE '' END, c.attname::text FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_class n ON n.oid = i.indexrelid \
     CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, at) \
     JOIN pg_attribute c ON c.attrelid = t.oid AND c.attnum = k.number \
     WHERE t.relnamespace = 'public'::regnamespace ORDER BY t.relname COLLATE \"C\", n.relname COLLATE \"C\", k.at",
];

async fn rows<const N: usize>(db: &DatabaseConnection, statements: [&str; 3]) -> Vec<[String; N]> {
    let backend = db.get_database_backend();
    let sql = match backend {
        DbBackend::Sqlite => statements[0],
        DbBackend::MySql => statements[1],
        _ => statements[2],
    };
    let found = db.query_all_raw(Statement::from_string(backend, sql)).await.unwrap();
    found.iter().map(|row| std::array::from_fn(|at| row.try_get_by_index::<String>(at).unwrap())).collect()
}

/// The tables of the database at `url`, in one order.
pub async fn facts(url: &str) -> Vec<Table> {
    let db = sea_orm::Database::connect(url).await.unwrap();
    let mut tables = Vec::new();
    for [name, traits] in rows(&db, TABLES).await {
        tables.push(Table { name, traits, columns: Vec::new(), indexes: Vec::new() });
    }
    for [table, name, kind, null, traits] in rows(&db, COLUMNS).await {
        let Some(table) = tables.iter_mut().find(|one| one.name == table) else { continue };
        // MariaDB shows a width that means nothing, MySQL does not.
        let kind = if kind.contains("int(") { kind.split('(').next().unwrap().to_owned() } else { kind };
        table.columns.push(Column { name, kind, is_null: null == "null", traits });
    }
    tables.sort_by(|left, right| left.name.cmp(&right.name));
    let mut last = (String::new(), String::new());
    for [table, index, kind, column] in rows(&db, INDEXES).await {
        let Some(table) = tables.iter_mut().find(|one| one.name == table) else { continue };
        let this = (table.name.clone(), index.clone());
        if this != last {
            let name = if index.starts_with("ix_") { index } else { kind.clone() };
            table.indexes.push(Index { name, is_unique: kind == "unique", columns: Vec::new() });
        }
        last = this;
        table.indexes.last_mut().unwrap().columns.push(column);
    }
    for table in &mut tables {
        // The key first, then those the engines name, then ours.
        let rank = |name: &str| ["primary key", "unique"].iter().position(|one| *one == name).unwrap_or(2);
        table.indexes.sort_by_key(|index| (rank(&index.name), index.name.clone(), index.columns.clone()));
    }
    db.close().await.unwrap();
    tables
}

/// The tables as text, one fact a line: what a step has made.
pub fn described(tables: &[Table]) -> String {
    let mut text = String::new();
    for table in tables.iter().filter(|table| table.name != MIGRATIONS) {
        writeln!(text, "{} {}", table.name, table.traits).unwrap();
        for Column { name, kind, is_null, traits } in &table.columns {
            writeln!(text, "  {name} {kind} {} {traits}", if *is_null { "null" } else { "not null" }).unwrap();
        }
        for Index { name, is_unique, columns } in &table.indexes {
            let unique = if *is_unique && name != "unique" { "unique " } else { "" };
            writeln!(text, "  {unique}{name} ({})", columns.join(", ")).unwrap();
        }
    }
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
