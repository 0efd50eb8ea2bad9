//! What is printed, and how text from other people is kept from playing tricks with the terminal.

use std::io::Write;

use xmmep::messages::chat::{TextKind, Tick, TxtTickNotify};
use xmmep::types::Status;

/// Prints a line. When nobody reads any more (`chat | head`), there is nothing left to do.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

/// Text from elsewhere, on one line and without characters that a terminal would obey: controls (escape sequences begin
/// with one), and the invisible ones that turn the direction of text around.
pub(crate) fn harmless(text: &str) -> String {
    let visible = |c: char| match c {
        '\n' | '\u{2028}' | '\u{2029}' => '⏎',
        '\t' => ' ',
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => '�',
        c if c.is_control() => '�',
        c => c,
    };
    text.replace("\r\n", "\n").chars().map(visible).collect()
}

/// The word for a status.
pub(crate) fn status_word(status: Status) -> String {
    status.known_name().map_or_else(|| format!("status {}", status.0), str::to_lowercase)
}

/// What to show of a text.
pub(crate) fn body(kind: TextKind, body: &str) -> String {
    if kind == TextKind::TEXT {
        harmless(body)
    } else {
        format!("[something that this program cannot show: kind {}]", kind.0)
    }
}

/// The sign for a tick, and a word.
pub(crate) fn tick(notice: &TxtTickNotify) -> (&'static str, String) {
    match notice.tick {
        Tick::STORED => ("✓", "stored".to_owned()),
        Tick::DELIVERED => ("✓✓", "delivered".to_owned()),
        Tick::READ => ("✓✓", "read".to_owned()),
        Tick::EXPIRED => ("✗", "expired: it was never fetched".to_owned()),
        _ => ("✗", format!("refused: {:?}", notice.result)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_direction_tricks_are_made_harmless() {
        assert_eq!(harmless("a\x1b[2Jb\u{9b}31mc\x07\x7f"), "a�[2Jb�31mc��");
        assert_eq!(harmless("one\r\ntwo\nthree\rfour"), "one⏎two⏎three�four");
        assert_eq!(harmless("abc\u{202e}fdp.exe\u{2069}"), "abc�fdp.exe�");
    }

    #[test]
    fn ordinary_text_of_any_language_is_left_alone() {
        for text in ["héllo", "李雷 さくら 지훈", "👩‍👩‍👧 🏳️‍🌈", "שלום", "a  b"] {
            assert_eq!(harmless(text), text);
        }
    }
}
