//! Search: users found by name, nickname, location or address. Who may search how often is not decided here.

use async_trait::async_trait;
use xmmep::types::UserId;

use crate::error::StoreError;
use crate::folding::{FOLDED_MAX, Folded, fold};
use crate::records::Card;

/// Conditions in one query.
pub const CONDITIONS_MAX: usize = 5;
/// Users on one page.
pub const PAGE_MAX: usize = 50;
/// Users that one query can reach, page by page, and up to which it counts them. A search that finds more asks for a
/// better question; without a bound, "a" would read a directory of all users to whoever turns its pages.
pub const HITS_MAX: usize = 1_000;
/// Bytes in the text of a condition: the longest address.
pub const TEXT_MAX: usize = 254;

/// The users of a Presence, to be found by each other.
#[async_trait]
pub trait Search: Send + Sync {
    /// Users who meet all conditions of `query`, by ascending id, from behind `after` on; at most `max` of them, and
    /// never more than [`PAGE_MAX`].
    ///
    /// To be correct:
    /// - texts are compared as [`Condition::matches`] does it, byte by byte in folded form, and by no rule of a
    ///   database: the same users in the same order from every store;
    /// - never found: users who do not want to be (see [`Findable`](crate::records::Findable)), and users who have
    ///   blocked the asker; neither shows in the total. Whom the asker has blocked is found, and so is the asker;
    /// - a change that a call of [`Accounts`](crate::Accounts) or [`Contacts`](crate::Contacts) has made counts from
    ///   then on;
    /// - a query reaches the first [`HITS_MAX`] users by id, and counts no further: [`Total`];
    /// - a page starts behind an *id*, so that users who come, go or rename themselves between two pages make no other
    ///   user appear twice or not at all.
    async fn find(&self, query: &Query, after: Option<UserId>, max: usize) -> Result<Hits, StoreError>;
}

/// One page of users found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hits {
    /// The users, by ascending id.
    pub cards: Vec<Card>,
    /// How many there are on all pages.
    pub total: Total,
    /// Where the next page starts; `None` after the last one.
    pub next: Option<UserId>,
}

/// How many users a query finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Total {
    /// So many.
    Exactly(usize),
    /// More than [`HITS_MAX`]; the pages end there.
    More,
}

/// A question that is worth asking: who asks, and one to [`CONDITIONS_MAX`] conditions, all of which must be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    asker: UserId,
    conditions: Vec<Condition>,
}

/// One condition: a text, where to look for it, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    key: Key,
    mode: Mode,
    folded: String,
}

/// Where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// In the user name.
    Name,
    /// In the nickname.
    Nickname,
    /// In the e-mail address, if its owner lets it be searched; with [`Mode::Whole`] only.
    Email,
    /// In the location.
    Location,
    /// In the user name or in the nickname.
    NameOrNickname,
}

/// How to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is the whole.
    Whole,
    /// It is how the whole begins.
    Prefix,
    /// It is anywhere in it. One character will do; two are found without reading every user.
    Part,
}

/// Why a query is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadQuery {
    /// No condition, or too many.
    #[error("a query has 1 to {CONDITIONS_MAX} conditions")]
    Conditions,
    /// Nothing is left of the text once space and invisible characters are taken away.
    #[error("there is nothing to look for")]
    Nothing,
    /// The text has more than [`TEXT_MAX`] bytes.
    #[error("a text to look for has at most {TEXT_MAX} bytes")]
    TooLong,
    /// A part of an address would let addresses be guessed piece by piece.
    #[error("an e-mail address is found as a whole only")]
    PartOfEmail,
}

impl Query {
    /// A query of `asker`, who is not told about users who have blocked him.
    ///
    /// # Errors
    /// [`BadQuery::Conditions`].
    pub fn new(asker: UserId, conditions: Vec<Condition>) -> Result<Self, BadQuery> {
        if (1..=CONDITIONS_MAX).contains(&conditions.len()) {
            return Ok(Self { asker, conditions });
        }
        Err(BadQuery::Conditions)
    }

    /// Who asks.
    #[must_use]
    pub fn asker(&self) -> UserId {
        self.asker
    }

    /// What must be met.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}

impl Condition {
    /// Checks and folds `text`.
    ///
    /// # Errors
    /// [`BadQuery::Nothing`], [`BadQuery::TooLong`], [`BadQuery::PartOfEmail`].
    pub fn new(key: Key, mode: Mode, text: &str) -> Result<Self, BadQuery> {
        if text.len() > TEXT_MAX {
            return Err(BadQuery::TooLong);
        }
        if key == Key::Email && mode != Mode::Whole {
            return Err(BadQuery::PartOfEmail);
        }
        let folded = fold(text);
        if folded.is_empty() {
            return Err(BadQuery::Nothing);
        }
        Ok(Self { key, mode, folded })
    }

    /// Where to look.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    /// How to look.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What to look for, folded: at least one character, at most [`FOLDED_MAX`] bytes.
    #[must_use]
    pub fn folded(&self) -> &str {
        debug_assert!(!self.folded.is_empty() && self.folded.len() <= FOLDED_MAX, "checked when it was made");
        &self.folded
    }

    /// Whether a user with these texts meets the condition. What a store does in its own language must say the same.
    #[must_use]
    pub fn matches(&self, user: &Folded) -> bool {
        let is_in = |text: &str| match self.mode {
            Mode::Whole => *text == self.folded,
            Mode::Prefix => text.starts_with(&self.folded),
            Mode::Part => text.contains(&self.folded),
        };
        match self.key {
            Key::Name => is_in(&user.name),
            Key::Nickname => is_in(&user.nickname),
            Key::Email => user.email.as_deref().is_some_and(is_in),
            Key::Location => is_in(&user.location),
            Key::NameOrNickname => is_in(&user.name) || is_in(&user.nickname),
        }
    }
}

impl Hits {
    /// The page behind `after` of `found`: the ids of the users who match, ascending, at least the first
    /// [`HITS_MAX`] + 1 of them if there are so many. Its cards are for the caller to fill in.
    ///
    /// Returns the ids on the page, the total and where the next page starts.
    #[must_use]
    pub fn page(found: &[UserId], after: Option<UserId>, max: usize) -> (&[UserId], Total, Option<UserId>) {
        let total = if found.len() > HITS_MAX { Total::More } else { Total::Exactly(found.len()) };
        let reach = found.get(..HITS_MAX).unwrap_or(found);
        let start = reach.partition_point(|user| after.is_some_and(|after| *user <= after));
        let rest = reach.get(start..).unwrap_or_default();
        let (page, left) = rest.split_at(rest.len().min(max.clamp(1, PAGE_MAX)));
        (page, total, page.last().copied().filter(|_| !left.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_without_a_question_is_refused() {
        let new = |key, mode, text: &str| Condition::new(key, mode, text).map(|_| ());
        assert_eq!(new(Key::Nickname, Mode::Part, " \u{3000}\u{200b}"), Err(BadQuery::Nothing));
        assert_eq!(new(Key::Nickname, Mode::Part, ""), Err(BadQuery::Nothing));
        assert_eq!(new(Key::Nickname, Mode::Part, &"x".repeat(254)), Ok(()));
        assert_eq!(new(Key::Nickname, Mode::Part, &"x".repeat(255)), Err(BadQuery::TooLong));
        for mode in [Mode::Prefix, Mode::Part] {
            assert_eq!(new(Key::Email, mode, "ann@example.org"), Err(BadQuery::PartOfEmail));
        }
        assert_eq!(new(Key::Email, Mode::Whole, "ann@example.org"), Ok(()));
    }

    #[test]
    fn a_query_has_one_to_five_conditions() {
        let ann = Condition::new(Key::Name, Mode::Whole, "ann").unwrap();
        for number in 0..=7 {
            let query = Query::new(UserId(1), vec![ann.clone(); number]);
            assert_eq!(query.is_ok(), (1..=5).contains(&number), "{number}");
        }
    }

    #[test]
    fn pages_end_where_the_query_does() {
        let ids = |range: std::ops::RangeInclusive<u64>| range.map(UserId).collect::<Vec<_>>();
        let found = ids(1..=1_001);
        assert_eq!(Hits::page(&found, None, 2), (&ids(1..=2)[..], Total::More, Some(UserId(2))));
        assert_eq!(Hits::page(&found, Some(UserId(990)), 50), (&ids(991..=1_000)[..], Total::More, None));
        assert_eq!(Hits::page(&found, Some(UserId(1_000)), 50), (&[][..], Total::More, None));
        assert_eq!(Hits::page(&found[..1_000], None, 1_000).1, Total::Exactly(1_000));
        assert_eq!(Hits::page(&found, None, 1_000).0.len(), PAGE_MAX);
        assert_eq!(Hits::page(&found, None, 0).0.len(), 1, "reading on always gets to the end");
        assert_eq!(Hits::page(&[], Some(UserId(u64::MAX)), 50), (&[][..], Total::Exactly(0), None));
    }
}
