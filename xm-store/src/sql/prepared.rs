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

/// The most keys in a list.
pub(super) const KEYS_MAX: usize = 16;
/// Lengths of lists: the powers of two up to [`KEYS_MAX`].
const LENGTHS: usize = KEYS_MAX.ilog2() as usize + 1;

/// Statements with a list of keys, by the length of that list. There are few lengths, so that databases know their texts
/// again.
#[derive(Default)]
pub(super) struct PreparedLists([Prepared; LENGTHS]);

impl PreparedLists {
    /// The statement for so many keys, and the keys, of which the last is repeated until there is a statement for so many.
    pub(super) fn with_keys(&self, keys: impl IntoIterator<Item = Value>) -> (&Prepared, Vec<Value>) {
        let mut keys: Vec<_> = keys.into_iter().collect();
        debug_assert!(keys.len() <= KEYS_MAX, "{} keys for a statement", keys.len());
        keys.truncate(KEYS_MAX);
        let length = keys.len().next_power_of_two();
        if let Some(last) = keys.last().cloned() {
            keys.resize(length, last);
        }
        (&self.0[length.ilog2() as usize], keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_any_length_has_a_statement() {
        let lists = PreparedLists::default();
        for wanted in 1..=KEYS_MAX as u64 {
            let (_, keys) = lists.with_keys((1..=wanted).map(Value::from));
            assert!(keys.len().is_power_of_two() && keys.len() < 2 * wanted as usize, "{wanted}: {}", keys.len());
            assert_eq!(keys[wanted as usize - 1..], vec![Value::from(wanted); keys.len() - wanted as usize + 1]);
        }
    }
}
