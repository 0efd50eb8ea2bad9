//! User names and e-mail addresses: whoever holds one holds a valid one.

use core::fmt;

use precis_profiles::precis_core::profile::Profile;
use precis_profiles::{UsernameCaseMapped, UsernameCasePreserved};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::sample::{Sample, Sampler};

/// The name of a user as its owner writes it: 1 to 32 characters of RFC 8265's `UsernameCasePreserved` profile
/// (letters, digits, ASCII punctuation; full-width forms are mapped; NFC), without `* % # + / @`.
///
/// Two names are the same user if their [`folded`](Self::folded) forms are equal.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct UserName(Box<str>);

/// Why a text is no [`UserName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUserName {
    /// Nothing.
    #[error("a user name cannot be empty")]
    Empty,
    /// Too long.
    #[error("a user name has at most 32 characters")]
    TooLong,
    /// One of `* % # + / @`.
    #[error("a user name cannot contain {0:?}")]
    Forbidden(char),
    /// Spaces, control characters, symbols, compatibility forms, mixed directions: what RFC 8264 refuses in identifiers.
    #[error("a user name has letters, digits and punctuation only (RFC 8265)")]
    Disallowed,
}

/// The most characters in a name.
pub const NAME_CHARS_MAX: usize = 32;

impl UserName {
    /// Checks and normalises `text`.
    ///
    /// # Errors
    /// See [`BadUserName`].
    pub fn new(text: &str) -> Result<Self, BadUserName> {
        if text.is_empty() {
            return Err(BadUserName::Empty);
        }
        // Counted before anything else looks at it: a megabyte of input costs 33 steps.
        if text.chars().take(NAME_CHARS_MAX.saturating_add(1)).count() > NAME_CHARS_MAX {
            return Err(BadUserName::TooLong);
        }
        if text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Self::from_ascii(text);
        }
        let name = UsernameCasePreserved::new().enforce(text).map_err(|_| BadUserName::Disallowed)?;
        if let Some(character) = forbidden(&name) {
            return Err(BadUserName::Forbidden(character));
        }
        let folded = UsernameCaseMapped::new().enforce(&*name).map_err(|_| BadUserName::Disallowed)?;
        if name.chars().count() > NAME_CHARS_MAX || folded.chars().count() > NAME_CHARS_MAX {
            return Err(BadUserName::TooLong);
        }
        Ok(Self(name.into()))
    }

    /// Most names, without the work: of the visible ASCII characters RFC 8265 allows all and maps none but case.
    fn from_ascii(text: &str) -> Result<Self, BadUserName> {
        match forbidden(text) {
            Some(character) => Err(BadUserName::Forbidden(character)),
            None => Ok(Self(text.into())),
        }
    }

    /// The name as its owner writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which names are compared and kept unique (RFC 8265 `UsernameCaseMapped`).
    #[must_use]
    pub fn folded(&self) -> String {
        if self.0.is_ascii() {
            return self.0.to_ascii_lowercase();
        }
        // Enforcing is idempotent and was done in `new`, so the fallback is never taken.
        UsernameCaseMapped::new().enforce(&*self.0).map_or_else(|_| self.0.to_string(), |folded| folded.into_owned())
    }
}

fn forbidden(name: &str) -> Option<char> {
    name.chars().find(|c| "*%#+/@".contains(*c))
}

impl PartialEq for UserName {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0 || self.folded() == other.folded()
    }
}

impl Eq for UserName {}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, f)
    }
}

impl core::str::FromStr for UserName {
    type Err = BadUserName;

    fn from_str(text: &str) -> Result<Self, BadUserName> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for UserName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(<&str>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Sample for UserName {
    fn sample(sampler: &mut Sampler) -> Self {
        const NAMES: [&str; 6] = ["ann", "Bob", "李雷", "지훈", "Jörg", "o.k_1"];
        let name = NAMES.get(sampler.up_to(5)).copied().unwrap_or("ann");
        Self(name.into())
    }
}

/// An e-mail address: one `@`, a local part of up to 64 bytes without spaces, quotes or controls, a domain with at
/// least one dot-separated label; at most 254 bytes (RFC 5321). Compared in lower case as a whole.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct Email(Box<str>);

/// Why a text is no [`Email`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEmail {
    /// Over 254 bytes, or over 64 before the `@`.
    #[error("an e-mail address has at most 254 bytes, 64 of them before the @")]
    TooLong,
    /// Not of the form `local@domain`, or with a character that has no business in a mail header.
    #[error("this is no e-mail address of the form name@domain")]
    Malformed,
}

impl Email {
    /// Checks `text`. Quoted local parts, comments, address literals and everything else that could steer a mail
    /// header or a relay's command line are refused.
    ///
    /// # Errors
    /// See [`BadEmail`].
    pub fn new(text: &str) -> Result<Self, BadEmail> {
        if text.len() > 254 {
            return Err(BadEmail::TooLong);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(BadEmail::Malformed)?;
        if local.len() > 64 {
            return Err(BadEmail::TooLong);
        }
        let local_char = |c: char| c.is_alphanumeric() || "!#$&'*+-/=?^_`{|}~.%".contains(c);
        let local_fine = !local.is_empty()
            && local.chars().all(local_char)
            && !local.starts_with(['.', '-'])
            && !local.ends_with('.')
            && !local.contains("..");
        let label_fine = |label: &str| {
            (1..=63).contains(&label.len())
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if local_fine && domain.split('.').all(label_fine) { Ok(Self(text.into())) } else { Err(BadEmail::Malformed) }
    }

    /// The address as its owner writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form in which addresses are compared and kept unique.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0.to_lowercase()
    }
}

impl PartialEq for Email {
    fn eq(&self, other: &Self) -> bool {
        self.folded() == other.folded()
    }
}

impl Eq for Email {}

impl fmt::Debug for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, f)
    }
}

impl<'de> Deserialize<'de> for Email {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(<&str>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Sample for Email {
    fn sample(sampler: &mut Sampler) -> Self {
        const MAILS: [&str; 3] = ["ann@example.org", "b.o+b@mail.example", "x@y"];
        Self(MAILS.get(sampler.up_to(2)).copied().unwrap_or("x@y").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_other_case_width_or_normal_form_are_the_same_name() {
        let name = UserName::new("Jörg").unwrap();
        for variant in ["jörg", "JÖRG", "Jo\u{308}rg", "Ｊörg"] {
            assert_eq!(UserName::new(variant).unwrap(), name, "{variant:?}");
        }
        assert_ne!(UserName::new("jorg").unwrap(), name);
    }

    #[test]
    fn chinese_japanese_and_korean_names_of_32_characters_are_welcome() {
        for name in ["李雷", "さくら", "지훈", &"字".repeat(32)] {
            assert_eq!(UserName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_malformed_name_is_refused_with_its_reason() {
        assert_eq!(UserName::new(""), Err(BadUserName::Empty));
        assert_eq!(UserName::new(&"x".repeat(33)), Err(BadUserName::TooLong));
        for character in "*%#+/@".chars() {
            assert_eq!(UserName::new(&format!("a{character}b")), Err(BadUserName::Forbidden(character)));
        }
        for name in ["a b", "a\0b", "a\nb", "a\u{202e}b", "ﬁsh", "a\u{200d}b", "😀"] {
            assert_eq!(UserName::new(name), Err(BadUserName::Disallowed), "{name:?}");
        }
    }

    #[test]
    fn folding_twice_changes_nothing() {
        for name in ["Ann", "ΣΊΣΥΦΟΣ", "İstanbul", "straße", "ǅ"] {
            if let Ok(name) = UserName::new(name) {
                let folded = name.folded();
                assert_eq!(UserName::new(&folded).unwrap().folded(), folded);
            }
        }
    }

    #[test]
    fn every_character_stays_the_same_name_however_often_it_is_written_or_folded() {
        let mut names = 0;
        // Not the ideographs and Hangul syllables: 100,000 characters that know no case.
        let scripts = (0..0x3400).chain(0xa000..0xac00).chain(0xf900..0x1_8000).chain(0x1_d000..0x2_0000);
        for character in scripts.filter_map(char::from_u32) {
            for text in [String::from(character), format!("a{character}"), format!("{character}\u{301}x")] {
                let Ok(name) = UserName::new(&text) else { continue };
                names += 1;
                assert_eq!(
                    UserName::new(name.as_str()).map(|again| again.0),
                    Ok(name.0.clone()),
                    "{text:?} written again"
                );
                // Some folded forms are no names (Cherokee: its small letters are too young for the tables of RFC 8264).
                let folded = name.folded();
                let again = UserName::new(&folded).map_or_else(|_| folded.clone(), |again| again.folded());
                assert_eq!(again, folded, "{text:?} folded again");
            }
        }
        assert!(names > 10_000, "only {names} names");
    }

    #[test]
    fn the_short_way_for_ascii_says_the_same_as_rfc_8265() {
        for first in 0..0x80_u8 {
            for second in 0..0x80_u8 {
                let text = String::from_utf8(vec![first, second]).unwrap();
                let profile = UsernameCasePreserved::new().enforce(&*text).ok().map(|name| name.into_owned());
                let allowed = profile.clone().filter(|name| forbidden(name).is_none());
                let name = UserName::new(&text).ok();
                assert_eq!(name.as_ref().map(|name| name.as_str().to_owned()), allowed, "{text:?}");
                if let Some(name) = name {
                    let folded = UsernameCaseMapped::new().enforce(&*text).unwrap();
                    assert_eq!(name.folded(), folded, "{text:?}");
                }
            }
        }
    }

    #[test]
    fn addresses_that_could_steer_a_mail_are_refused() {
        for text in [
            "",
            "@",
            "a@",
            "@b",
            "a b@c.d",
            "a@b..c",
            "a\r\nBcc: x@y.z",
            "\"a\"@b.c",
            "a@[127.0.0.1]",
            "-oQ/tmp@b.c",
            ".a@b.c",
            "a@b@c",
            "a@-b.c",
            "a@b.c\n",
            "a\0@b.c",
        ] {
            assert_eq!(Email::new(text), Err(BadEmail::Malformed), "{text:?}");
        }
        assert_eq!(Email::new(&format!("{}@b.c", "a".repeat(65))), Err(BadEmail::TooLong));
        assert_eq!(Email::new(&format!("a@{}", "b.".repeat(200))), Err(BadEmail::TooLong));
        assert_eq!(Email::new("Ann.Lee+x@Example.org").unwrap(), Email::new("ann.lee+x@example.ORG").unwrap());
    }
}
