//! Logging: what is logged (a filter that can change while running), and how a line looks. Nothing here decides where an
//! event is worth logging.
//!
//! One event is one line, whatever its fields contain: text that users or peers wrote is escaped.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::LogFormat;

/// Our own crates, which follow `log.level`. All others log warnings and errors only: what a library prints at `debug`
/// (statements, headers) may hold what must not be in a log.
const OWN: [&str; 4] = ["xmd", "xm_core", "xm_store", "xmmep"];

/// A level or filter that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no log level")]
pub struct BadLevel(String);

/// Parses `log.level`: a level for everything of ours, then `part=level` for exceptions, separated by commas.
///
/// # Errors
/// If a level is none of `error`, `warning`, `info`, `debug`, or a part is not ours.
pub fn filter(text: &str) -> Result<Targets, BadLevel> {
    let mut targets = Targets::new().with_default(LevelFilter::WARN);
    for directive in text.split(',').map(str::trim) {
        let bad = || BadLevel(directive.to_owned());
        match directive.split_once('=') {
            None => {
                let level = level(directive).ok_or_else(bad)?;
                targets = targets.with_targets(OWN.map(|target| (target, level)));
            }
            Some((part, name)) => {
                let root = part.split("::").next().unwrap_or(part);
                if !OWN.contains(&root) {
                    return Err(bad());
                }
                targets = targets.with_target(part, level(name).ok_or_else(bad)?);
            }
        }
    }
    Ok(targets)
}

fn level(name: &str) -> Option<LevelFilter> {
    match name {
        "error" => Some(LevelFilter::ERROR),
        "warning" => Some(LevelFilter::WARN),
        "info" => Some(LevelFilter::INFO),
        "debug" => Some(LevelFilter::DEBUG),
        _ => None,
    }
}

/// Changes what is logged while the program runs.
#[derive(Clone)]
pub struct LogHandle(reload::Handle<Targets, Registry>);

impl LogHandle {
    /// Logs what `text` says from now on; see [`filter`].
    ///
    /// # Errors
    /// If it is no filter; then nothing changes.
    pub fn set(&self, text: &str) -> Result<(), BadLevel> {
        let filter = filter(text)?;
        self.0.reload(filter).map_err(|_| BadLevel(text.to_owned()))
    }
}

/// A subscriber that writes to `writer`, and the handle to change its filter.
///
/// # Errors
/// If `level` is no filter.
pub fn subscriber<W>(
    level: &str,
    format: LogFormat,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + use<W>, LogHandle), BadLevel>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let lines = match format {
        LogFormat::Text => layer.event_format(Lines).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    Ok((Registry::default().with(lines.with_filter(filter)), LogHandle(handle)))
}

/// One event, one line: `2026-11-23T08:00:00.000000Z INFO    xmd::mail: sent to="ann@example.org"`.
struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        let level = match *meta.level() {
            Level::ERROR => "ERROR  ",
            Level::WARN => "WARNING",
            Level::INFO => "INFO   ",
            _ => "DEBUG  ",
        };
        SystemTime.format_time(&mut writer)?;
        write!(writer, " {level} {}:", meta.target())?;
        let mut fields = Fields { message: String::new(), rest: String::new() };
        event.record(&mut fields);
        writeln!(writer, " {}{}", fields.message, fields.rest)
    }
}

/// The fields of an event, escaped.
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: &dyn fmt::Display) {
        let message = field.name() == "message";
        if !message {
            // Writing to a `String` cannot fail.
            let _ = write!(self.rest, " {}=", field.name());
        }
        let _ = write!(Escaped(if message { &mut self.message } else { &mut self.rest }), "{value}");
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.add(field, &value);
        } else {
            self.add(field, &format_args!("{value:?}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format_args!("{value:?}"));
    }
}

/// Passes text on with everything escaped that could start a new line, move a cursor or turn the reading direction.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let steers = character.is_control()
                || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}')
                || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if steers {
                self.0.extend(character.escape_unicode());
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Collects what is logged.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(level: &str, format: LogFormat, what: impl FnOnce(&LogHandle)) -> String {
        let sink = Sink::default();
        let for_writer = sink.clone();
        let (subscriber, handle) = subscriber(level, format, move || for_writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || what(&handle));
        sink.text()
    }

    #[test]
    fn one_event_is_one_line_whatever_a_user_is_called() {
        let name = "x\n{\"level\":\"ERROR\"}\x1b[2J\u{202e}\u{2028}y\r";
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged("info", format, |_| {
                tracing::info!(%name, "registered");
                tracing::info!(name, "registered {name}");
                tracing::info!(?name, "registered");
            });
            assert_eq!(text.lines().count(), 3, "{text}");
            assert!(!text.contains('\x1b') && !text.contains('\r'), "{text}");
        }
    }

    #[test]
    fn levels_have_the_names_of_the_manual() {
        let text = logged("debug", LogFormat::Text, |_| {
            tracing::error!("a");
            tracing::warn!("b");
            tracing::info!("c");
            tracing::debug!("d");
            tracing::trace!("e");
        });
        let levels: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(levels, ["ERROR", "WARNING", "INFO", "DEBUG"]);
    }

    #[test]
    fn the_filter_changes_while_running_and_a_bad_one_changes_nothing() {
        let text = logged("info", LogFormat::Text, |handle| {
            tracing::debug!("one");
            handle.set("warning,xmd::log=debug").unwrap();
            tracing::debug!("two");
            handle.set("loud").unwrap_err();
            tracing::debug!("three");
        });
        assert!(!text.contains("one") && text.contains("two") && text.contains("three"), "{text}");
    }

    #[test]
    fn libraries_never_log_below_warning() {
        let text = logged("debug", LogFormat::Text, |_| {
            tracing::debug!(target: "sqlx::query", "select * from accounts");
            tracing::warn!(target: "sqlx::pool", "slow");
        });
        assert!(!text.contains("select") && text.contains("slow"), "{text}");
    }

    #[test]
    fn levels_that_do_not_exist_are_named() {
        for text in ["", "loud", "info,", "xmd=loud", "hyper=debug", "INFO", "warn"] {
            assert!(filter(text).is_err(), "{text:?}");
        }
    }
}
