//! Statements that are made again and again. Putting one together takes longer than carrying its values over; its text is
//! kept, so that only the first call does.

use std::sync::OnceLock;

use sea_orm::{DbBackend, Statement, StatementBuilder, Value};

/// A statement of which only the values change. Lives beside its one use.
#[derive(Default)]
pub(super) struct Prepared {
    sqlite: OnceLock<String>,
    mysql: OnceLock<String>,
    postgres: OnceLock<String>,
}

impl Prepared {
    pub(super) const fn new() -> Self {
        Self { sqlite: OnceLock::new(), mysql: OnceLock::new(), postgres: OnceLock::new() }
    }

    /// The statement with `values`, which are all of what `build` makes, in order.
    pub(super) fn with<S: StatementBuilder>(
        &self,
        backend: DbBackend,
        values: Vec<Value>,
        build: impl FnOnce() -> S,
    ) -> Statement {
        let text = match backend {
            DbBackend::MySql => &self.mysql,
            DbBackend::Postgres => &self.postgres,
            _ => &self.sqlite,
        };
        let text = text.get_or_init(|| {
            let built = StatementBuilder::build(&build(), &backend);
            debug_assert_eq!(built.values.map(|values| values.0).unwrap_or_default(), values, "{}", built.sql);
            built.sql
        });
        Statement::from_sql_and_values(backend, text, values)
    }
}
