//! From the text of a file to a configuration, with messages that name file, line, key, value and the way out.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Config;
use super::keys::{KEY_NAMES, KEYS};

/// A file of more bytes is no configuration; refused before it is parsed.
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// A configuration that is not used. Nothing falls back to a default because of an error.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {why}; give another file with --config, or none for the defaults", .file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// What the operating system said.
        why: String,
    },
    /// Some of it is wrong.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
    Wrong(Vec<Problem>),
}

/// One thing that is wrong in a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which file.
    pub file: PathBuf,
    /// Where in it, from 1; `None` if the key is not there at all.
    pub line: Option<usize>,
    /// The key, if it is about one.
    pub key: Option<String>,
    /// Its value as written, shortened.
    pub value: Option<String>,
    /// What is wrong, and the way out.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => write!(f, ": {key} = {value}: ")?,
            (Some(key), None) => write!(f, ": {key}: ")?,
            _ => write!(f, ": ")?,
        }
        f.write_str(&self.why)
    }
}

pub(super) fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let mut reader = Reader { text, path, config: Config::default(), seen: Vec::new(), problems: Vec::new() };
    if text.len() > FILE_BYTES_MAX {
        reader.problem(None, None, format!("over {FILE_BYTES_MAX} bytes; this is no configuration of xmd"));
        return Err(ConfigError::Wrong(reader.problems));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        // `port = 71` may be the beginning of `port = 7100`: without the line's end nobody can tell.
        let why = "the last line does not end; if the file is complete, add a line break".to_owned();
        reader.problem(Some(text.len()..text.len()), None, why);
        return Err(ConfigError::Wrong(reader.problems));
    }
    match DeTable::parse(text) {
        Ok(table) => reader.table("", table.get_ref()),
        Err(error) => {
            let why = format!("{}; the file is damaged or half written", error.message());
            reader.problem(error.span(), None, why);
        }
    }
    if reader.problems.is_empty() {
        for (key, why) in reader.config.conflicts() {
            let span = reader.seen.iter().find(|(seen, _)| *seen == key).map(|(_, span)| span.clone());
            reader.problem(span, Some(key.to_owned()), why);
        }
    }
    if reader.problems.is_empty() { Ok(reader.config) } else { Err(ConfigError::Wrong(reader.problems)) }
}

struct Reader<'a> {
    text: &'a str,
    path: &'a Path,
    config: Config,
    /// The keys of the file, with the place of their values.
    seen: Vec<(&'static str, Range<usize>)>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// Walks one table. Tables of the configuration are one deep, so this recurses once; whatever is deeper is unknown.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            let is_section = KEY_NAMES.iter().any(|known| known.strip_prefix(&key).is_some_and(|r| r.starts_with('.')));
            match (KEYS.iter().find(|(known, _)| *known == key), value.get_ref()) {
                (Some((known, take)), value_ref) => {
                    self.seen.push((known, value.span()));
                    if let Err(why) = take(&mut self.config, value_ref) {
                        self.problem(Some(value.span()), Some(key), why);
                    }
                }
                (None, DeValue::Table(inner)) if is_section && prefix.is_empty() => {
                    self.table(&format!("{key}."), inner);
                }
                _ => {
                    let known = if is_section { format!("[{key}] is a section") } else { suggestion(&key) };
                    self.problem(Some(name.span()), None, format!("unknown key {key:?}; {known}"));
                }
            }
        }
    }

    fn problem(&mut self, span: Option<Range<usize>>, key: Option<String>, why: String) {
        let before = span.as_ref().and_then(|span| self.text.get(..span.start));
        let line = before.map(|before| before.matches('\n').count() + 1);
        let value = key.as_ref().and(span).and_then(|span| self.text.get(span)).map(shortened);
        let value = if key.as_deref() == Some("database.url") { value.map(without_secrets) } else { value };
        self.problems.push(Problem { file: self.path.to_owned(), line, key, value, why });
    }
}

/// The value as written, cut to what fits in a message, without line breaks.
fn shortened(value: &str) -> String {
    let mut short: String = value.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if value.chars().count() > 60 {
        short.push('…');
    }
    short
}

/// A URL up to its scheme: where somebody has put a password into it, nobody can say where in it that is.
fn without_secrets(url: String) -> String {
    url.split_once(':').map_or_else(|| url.clone(), |(scheme, _)| format!("{scheme}:…"))
}

/// What somebody who wrote `key` may have meant.
fn suggestion(key: &str) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    let similar = |name: &&&str| {
        let name_last = name.rsplit('.').next().unwrap_or(name);
        name_last == last || distance(name, key) <= 2
    };
    match KEY_NAMES.iter().find(similar) {
        Some(name) => format!("perhaps {name:?} is meant"),
        None => "`xmd config` prints all that exist".to_owned(),
    }
}

/// Levenshtein distance. Keys are short; longer ones are compared by their first 40 characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(40).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(40).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (cb, above) in b.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(ca != *cb)).min(above + 1).min(left + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
