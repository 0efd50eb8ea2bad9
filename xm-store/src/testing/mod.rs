//! The conformance suite: proves that a store keeps what its trait promises. One named test per case.
//!
//! In a test file of the implementation's crate:
//!
//! ```no_run
//! use std::sync::Arc;
//! use xm_store::memory::MemoryOffline;
//! use xm_store::testing::{Open, opener};
//! use xm_store::Offline;
//!
//! /// Called once per case. The [`Open`] it returns opens the *same* store each time: cases close a store by dropping
//! /// it and open it again to see what was kept.
//! fn store() -> Open<dyn Offline> {
//!     let store: Arc<dyn Offline> = Arc::new(MemoryOffline::default());
//!     opener(move || { let store = store.clone(); async move { store } })
//! }
//!
//! xm_store::suite!(offline, my_store, store());
//! # fn main() {}
//! ```
//!
//! The traits are `placements`, `accounts`, `contacts`, `offline`, `mail_queue` and `search`. Cases use fixed times and
//! drawn-up ids: nothing depends on the clock. The store must have the default quotas. The suite `search` wants an
//! `Open<Stores>`, because what is found is what accounts and contacts hold.

pub mod accounts;
pub mod accounts_fields;
pub mod contacts;
pub mod contacts_fields;
pub mod contacts_groups;
pub mod contacts_retries;
pub mod mail_queue;
pub mod offline;
pub mod offline_limits;
pub mod offline_paging;
pub mod placements;
pub mod placements_fields;
pub mod placements_races;
pub mod search;
pub mod search_pages;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use xmmep::bounded::Text;
use xmmep::name::{Email, UserName};
use xmmep::types::{MsgId, RequestId, WallTime};

use crate::records::Profile;

/// Opens the same store each time it is called.
pub struct Open<T: ?Sized>(Box<OpenFn<T>>);

type OpenFn<T> = dyn Fn() -> Pin<Box<dyn Future<Output = Arc<T>> + Send>> + Send + Sync;

impl<T: ?Sized> Open<T> {
    /// Opens the store. The one opened before must have been dropped.
    pub async fn open(&self) -> Arc<T> {
        (self.0)().await
    }
}

impl<T: ?Sized> std::fmt::Debug for Open<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Open")
    }
}

/// Makes an [`Open`] of a function that opens the store.
pub fn opener<T, F>(open: impl Fn() -> F + Send + Sync + 'static) -> Open<T>
where
    T: ?Sized + 'static,
    F: Future<Output = Arc<T>> + Send + 'static,
{
    Open(Box::new(move || Box::pin(open())))
}

/// Runs a case on two threads, so that calls at once are really at once.
///
/// # Panics
/// If the case fails.
pub fn run(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("the test has threads").block_on(case);
}

/// Makes all calls at once; what they answered, in their order.
///
/// # Panics
/// If one of them does.
pub(crate) async fn at_once<T: Send + 'static>(
    calls: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let calls: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.expect("no call panics"));
    }
    answers
}

/// Emits one `#[test]` per case of the named trait, in a module of the given name. See [`testing`](crate::testing).
///
/// Where a store needs what a machine may lack, its constructor returns `Option<Open<_>>`: with `None` the cases pass.
/// It should say so where people see it, once.
#[macro_export]
macro_rules! suite {
    (placements, $name:ident, $open:expr) => {
        $crate::placements_cases!($name, $open);
    };
    (accounts, $name:ident, $open:expr) => {
        $crate::accounts_cases!($name, $open);
    };
    (contacts, $name:ident, $open:expr) => {
        $crate::contacts_cases!($name, $open);
    };
    (offline, $name:ident, $open:expr) => {
        $crate::offline_cases!($name, $open);
    };
    (search, $name:ident, $open:expr) => {
        $crate::search_cases!($name, $open);
    };
    (mail_queue, $name:ident, $open:expr) => {
        $crate::mail_queue_cases!($name, $open);
    };
}

/// Emits the tests of one list of cases.
#[doc(hidden)]
#[macro_export]
macro_rules! suite_cases {
    ($name:ident, $open:expr, $($file:ident: [$($case:ident),* $(,)?]),* $(,)?) => {
        mod $name {
            #[allow(unused_imports, reason = "the constructor may be a path or a whole expression")]
            use super::*;
            $($(
                #[test]
                fn $case() {
                    let open: Option<$crate::testing::Open<_>> = ($open).into();
                    let Some(open) = open else { return };
                    $crate::testing::run(async move { $crate::testing::$file::$case(&open).await });
                }
            )*)*
        }
    };
}

/// Some wall time in 2026; cases count on from here.
pub const NOW: WallTime = WallTime(1_790_000_000_000);

/// `seconds` after [`NOW`].
#[must_use]
pub fn at(seconds: u64) -> WallTime {
    WallTime(NOW.0 + seconds * 1_000)
}

/// Texts that break careless stores: quotes, wildcards, escapes, comment marks, four-byte characters, joined emoji,
/// right-to-left and combining marks, look-alikes, spaces at the ends, line ends.
pub const AWKWARD: [&str; 12] = [
    "",
    " leading and trailing ",
    r#"'; DROP TABLE users; -- " ` '' \' \\"#,
    "100% _ %_ \\% \\_ * ?",
    "$1 :name ?1 {0} {} %s",
    "line\r\nbreak\ttab\u{7f}",
    "𠜎𠜱 漢字 かな 한글",
    "👩‍👩‍👧‍👦🏳️‍🌈👍🏽",
    "שלום עולם \u{202e}مرحبا",
    "e\u{301}é a\u{308}\u{323}\u{334}",
    "ß ſ ﬁ İ ı Ⅷ ①",
    "\u{feff}bom \u{200b}zero\u{200d}width\u{ffff}",
];

/// Names that are valid, and break careless stores.
pub const AWKWARD_NAMES: [&str; 20] = [
    "o'neil",
    r#""q""#,
    "a_b",
    r"a\b",
    "--",
    ";drop",
    "`x`",
    "$1?",
    "{0}:n",
    "null",
    "a",
    "á",
    "å",
    "ß",
    "ss",
    "李雷",
    "שלום",
    "مرحبا",
    "지훈",
    "𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎𠜎",
];

/// Addresses that are valid, and break careless stores. The last one is as long as they get.
#[must_use]
pub fn awkward_emails() -> Vec<Email> {
    let longest = format!("{}@{}", "l".repeat(64), ["d".repeat(63), "e".repeat(63), "f".repeat(61)].join("."));
    let local = ["o'neil", "a_b", "a%b", "a+b", "`x`", "{x}|~", "$1?", "!#&*/=^", "用户", "ß", "ss", "Ⱥb"];
    let addresses = local.iter().map(|local| format!("{local}@Example.org")).chain([longest]);
    addresses.map(|address| Email::new(&address).expect("cases use valid addresses")).collect()
}

/// What a text field of `N` bytes has to keep byte for byte: [`AWKWARD`] as far as it fits, what a collation takes for the
/// same, and the longest texts of one-byte and of four-byte characters.
#[must_use]
pub fn awkward_fields<const N: usize>() -> Vec<Text<N>> {
    let merged =
        ["a", "A", "a ", " a", "á", "a\u{301}", "ss", "ß", "ſ", "\u{1}\u{1b}[0m", "\u{fffe}", "0", "0.0", "NULL"];
    let longest = ["x".repeat(N), "'".repeat(N), "𠜎".repeat(N / 4), " ".repeat(N), "\u{301}".repeat(N / 2)];
    let all = AWKWARD.iter().chain(&merged).map(|text| Text::cut(text));
    all.chain(longest.iter().map(|longest| text(longest))).collect()
}

/// Times that a store keeps exactly: from the first to the last that databases have in common.
pub const TIMES: [WallTime; 4] = [WallTime(0), WallTime(1), NOW, WallTime(i64::MAX as u64)];

/// A message id made of a number.
#[must_use]
pub fn msg_id(number: u64) -> MsgId {
    MsgId(wide(number))
}

/// A request id made of a number.
#[must_use]
pub fn request_id(number: u64) -> RequestId {
    RequestId(wide(number))
}

fn wide(number: u64) -> [u8; 16] {
    (u128::from(number) << 64 | u128::from(!number)).to_be_bytes()
}

/// A valid name.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn name(text: &str) -> UserName {
    UserName::new(text).expect("cases use valid names")
}

/// Text of any bound.
///
/// # Panics
/// If it is longer than that.
#[must_use]
pub fn text<const N: usize>(text: &str) -> Text<N> {
    Text::new(text).expect("cases use texts that fit")
}

/// A profile with `about` in every field that can hold it.
#[must_use]
pub fn profile(about: &str) -> Profile {
    Profile {
        nickname: Text::cut(about),
        personal_msg: Text::cut(about),
        birthdate: text("1999-12-31"),
        location: Text::cut(about),
        gender: 1,
        avatar: Some([7; 32]),
    }
}

#[cfg(test)]
mod tests {
    /// Each suite lists its cases once, beside them; a case that is not listed would never run.
    #[test]
    fn every_case_is_listed() {
        let files = [
            (
                "placements",
                concat!(
                    include_str!("placements.rs"),
                    include_str!("placements_fields.rs"),
                    include_str!("placements_races.rs")
                ),
            ),
            ("accounts", concat!(include_str!("accounts.rs"), include_str!("accounts_fields.rs"))),
            (
                "contacts",
                concat!(
                    include_str!("contacts.rs"),
                    include_str!("contacts_fields.rs"),
                    include_str!("contacts_groups.rs"),
                    include_str!("contacts_retries.rs")
                ),
            ),
            (
                "offline",
                concat!(
                    include_str!("offline.rs"),
                    include_str!("offline_limits.rs"),
                    include_str!("offline_paging.rs")
                ),
            ),
            ("search", concat!(include_str!("search.rs"), include_str!("search_pages.rs"))),
            ("mail_queue", include_str!("mail_queue.rs")),
        ];
        for (file, source) in files {
            let list: String = source.lines().skip_while(|line| !line.contains("_cases {")).take(60).collect();
            let mut cases = 0;
            for line in source.lines() {
                if let Some((case, _)) = line.strip_prefix("pub async fn ").and_then(|rest| rest.split_once('(')) {
                    assert!(list.contains(&format!("{case},")), "{case} is not in the list of {file}");
                    cases += 1;
                }
            }
            assert!(cases > 0, "{file} has no case");
        }
    }

    /// Why no case stores U+0000 in a text: no text of a record can hold it. Bodies of parcels are bytes, and do.
    #[test]
    fn no_text_of_a_record_can_hold_nul() {
        use xmmep::bounded::{PrivateText, Text};
        use xmmep::name::{Email, UserName};
        for text in ["\0", "a\0", "\0b", "a\0b"] {
            assert!(Text::<256>::new(text).is_err() && PrivateText::<8192>::new(text).is_err(), "{text:?}");
            assert!(UserName::new(text).is_err() && Email::new(&format!("{text}@example.org")).is_err(), "{text:?}");
            assert!(!Text::<256>::cut(text).contains('\0'), "{text:?}");
        }
    }

    /// Every file of cases is in the list above, and so in the list of a suite.
    #[test]
    fn every_file_of_cases_is_listed() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/testing");
        let list = include_str!("mod.rs");
        for file in std::fs::read_dir(folder).expect("the sources are there") {
            let file = file.expect("an entry").file_name().into_string().expect("a name");
            assert!(file == "mod.rs" || list.contains(&format!("include_str!(\"{file}\")")), "{file} is not listed");
        }
    }
}
