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
pub mod contacts;
pub mod contacts_groups;
pub mod mail_queue;
pub mod offline;
pub mod offline_limits;
pub mod placements;
pub mod placements_races;
pub mod search;
pub mod search_pages;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use xmmep::bounded::Text;
use xmmep::name::UserName;
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
            ("placements", concat!(include_str!("placements.rs"), include_str!("placements_races.rs"))),
            ("accounts", include_str!("accounts.rs")),
            ("contacts", concat!(include_str!("contacts.rs"), include_str!("contacts_groups.rs"))),
            ("offline", concat!(include_str!("offline.rs"), include_str!("offline_limits.rs"))),
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
}
