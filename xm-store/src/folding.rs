//! Folding: the form in which texts are searched. Done here and never by a database, so that all stores find the same.
//!
//! User names and addresses have folded forms of their own, in [`xmmep::name`], which decide who is who. This one takes
//! any text and only decides who is found.

use unicode_normalization::UnicodeNormalization;

use crate::records::Account;

/// Bytes in a folded text; what is longer is cut, at a character. A few ligatures grow to eighteen letters each; nothing
/// else of 254 bytes gets near the bound.
pub const FOLDED_MAX: usize = 512;

/// The form of `text` in which case, width, normal form, invisible characters and the amount of space do not count.
///
/// In this order, until nothing changes any more: NFKC (full-width and half-width forms, ligatures, Hangul letters);
/// characters that are ignored in display go; a run of white space becomes one space, at the ends nothing; each
/// character becomes the lower case of its upper case, on its own. Accents count, simplified and traditional characters
/// stay different, and so do hiragana and katakana.
#[must_use]
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return cut(words(&text.to_ascii_lowercase()));
    }
    let mut folded = once(text);
    // Taking something away may bring two together that combine. Three rounds are enough for every character there is.
    for _ in 0..4 {
        let again = once(&folded);
        if again == folded {
            break;
        }
        folded = again;
    }
    cut(folded)
}

fn once(text: &str) -> String {
    let visible: String = text.nfkc().filter(|character| !is_ignored(*character)).collect();
    // Upper case first: it knows pairs that lower case alone misses (ſ and s, ς and σ, ß and ss).
    let cased = visible.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    words(&cased.nfkc().collect::<String>())
}

fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
    }
    words
}

fn cut(mut folded: String) -> String {
    if folded.len() > FOLDED_MAX {
        let end = (0..=FOLDED_MAX).rev().find(|end| folded.is_char_boundary(*end)).unwrap_or(0);
        folded.truncate(end);
    }
    folded
}

/// Unicode's `Default_Ignorable_Code_Point`: joiners, direction marks, variation selectors, fillers, tags.
fn is_ignored(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// What of a user is searched, folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// The user name.
    pub name: String,
    /// The nickname; may be empty.
    pub nickname: String,
    /// The location; may be empty.
    pub location: String,
    /// The address, if its owner lets it be searched.
    pub email: Option<String>,
}

impl Folded {
    /// What of `account` is searched; `None` if its owner does not want to be found.
    #[must_use]
    pub fn of(account: &Account) -> Option<Self> {
        account.findable.in_search.then(|| Self {
            name: fold(account.name.as_str()),
            nickname: fold(&account.profile.nickname),
            location: fold(&account.profile.location),
            email: account.findable.by_email.then(|| fold(account.email.as_str())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_width_normal_form_and_space_do_not_count() {
        for (text, folded) in [
            ("Ann  LEE ", "ann lee"),
            ("\u{3000}Ａｎｎ\tＬｅｅ\r\n", "ann lee"),
            ("Jo\u{308}rg", "jörg"),
            ("ＪÖＲＧ", "jörg"),
            ("ｶﾞﾝﾀﾞﾑ", "ガンダム"),
            ("Straße", "strasse"),
            ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
            ("σίσυφος", "σίσυφοσ"),
            ("ﬁsh ſea", "fish sea"),
            ("한글", "한글"),
            ("\u{1112}\u{1161}\u{11ab}글", "한글"),
            ("A\u{200b}n\u{ad}n\u{feff}", "ann"),
            ("👩\u{200d}👩🏳\u{fe0f}", "👩👩🏳"),
            ("İIiı", "i\u{307}iii"),
        ] {
            assert_eq!(fold(text), folded, "{text:?}");
        }
    }

    #[test]
    fn what_means_something_else_stays_different() {
        for (one, other) in
            [("jorg", "jörg"), ("发", "發"), ("か", "カ"), ("か", "が"), ("Ann", "Аnn"), ("a_b", "a b"), ("%", "")]
        {
            assert_ne!(fold(one), fold(other));
        }
    }

    #[test]
    fn folding_twice_changes_nothing_for_any_character() {
        // Not the ideographs and Hangul syllables: 100,000 characters that know no case and no width.
        let scripts = (0..0x3400).chain(0xa000..0xac00).chain(0xf900..0x1_8000).chain(0x1_d000..0x2_0000);
        for character in scripts.chain(0x2_f800..0x2_fa20).chain(0xe_0000..0xe_1000).filter_map(char::from_u32) {
            for text in [String::from(character), format!("a{character}\u{301}x"), format!("{character}\u{345}")] {
                let folded = fold(&text);
                assert_eq!(fold(&folded), folded, "{text:?}");
            }
        }
    }

    #[test]
    fn a_folded_text_keeps_its_bound() {
        let longest = "\u{fdfa}".repeat(84);
        let folded = fold(&longest);
        assert!(folded.len() <= FOLDED_MAX && folded.len() > FOLDED_MAX - 4, "{} bytes", folded.len());
        assert!(fold(&"Ⱥ".repeat(127)).len() < FOLDED_MAX, "letters are never cut");
    }
}
