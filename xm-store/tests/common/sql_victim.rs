//! A victim that changes a database in a file: buddy lists and waiting messages; and the ledger of what it was promised. An
//! error is answered like a client does: the same change again, a little later.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use xm_store::contacts::Ask;
use xm_store::error::{RosterError, StoreError};
use xm_store::offline::Appended;
use xm_store::records::{Parcel, Person, Place, Quotas};
use xm_store::sql::{SqlPresence, open_presence};
use xm_store::{Contacts, Offline};
use xmmep::bounded::Text;
use xmmep::name::UserName;
use xmmep::types::{GroupId, MsgId, UserId, WallTime};

use crate::child::{journal, task};

const BOB: UserId = UserId(2);
const WRITERS: u64 = 4;
/// Between an error and the next try.
const RETRY: Duration = Duration::from_millis(10);

async fn open(directory: &Path) -> SqlPresence {
    let quotas = Quotas { messages: u64::MAX, bytes: u64::MAX, messages_per_sender: u64::MAX };
    open_presence(&url(directory)).await.expect("the database opens").with_quotas(quotas)
}

fn url(directory: &Path) -> String {
    format!("sqlite:{}", file(directory).display())
}

fn file(directory: &Path) -> PathBuf {
    directory.join("PresenceDB_C1P1.db")
}

fn person(user: UserId) -> Person {
    Person { user, name: UserName::new(&format!("user{user}")).expect("a name") }
}

fn wish(number: u64) -> Ask {
    Ask {
        me: person(UserId(number)),
        buddy: person(BOB),
        display_name: Text::default(),
        group: GroupId::DEFAULT,
        greeting: Text::cut(&"x".repeat((number * 37 % 250) as usize)),
        at: WallTime(number),
    }
}

fn parcel(number: u64) -> Parcel {
    Parcel {
        from: UserId(100 + number % WRITERS),
        id: MsgId(u128::from(number).to_le_bytes()),
        sent: WallTime(number),
        body: vec![number as u8; (number * 37 % 3_000) as usize],
    }
}

/// Every other change is one of a buddy list.
fn is_roster(number: u64) -> bool {
    (number / WRITERS).is_multiple_of(2)
}

/// Not a test of its own: the victim, when started by another test.
#[test]
fn victim() {
    let Some((directory, first)) = task() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async move {
        let store = Arc::new(open(&directory).await);
        journal("opened", 0);
        let writers = (0..WRITERS).map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in (first..).filter(|number| number % WRITERS == writer) {
                    write(&store, number).await;
                    journal("stored", number);
                    if number.is_multiple_of(3) {
                        refused(&store, number).await;
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("a writer never ends");
        }
    });
}

/// A change that is not possible: its transaction is undone, and must leave nothing behind for those after it.
async fn refused(store: &SqlPresence, number: u64) {
    let nobody = UserId(u64::MAX - number);
    match store.modify(nobody, BOB, None, None).await {
        Err(RosterError::Refused(_)) => journal("refused:rightly", number),
        Err(RosterError::Store(_)) => journal("refused:failed", number),
        Ok(_) => panic!("nobody has a buddy"),
    }
}

/// Tries until it is done.
async fn write(store: &SqlPresence, number: u64) {
    loop {
        let done = if is_roster(number) {
            match store.ask(wish(number)).await {
                Ok(_) => Ok(()),
                Err(RosterError::Store(error)) => Err(error),
                Err(error) => panic!("{number}: {error}"),
            }
        } else {
            store.append(BOB, vec![parcel(number)]).await.map(|answers| {
                assert!(matches!(answers[..], [Appended::Stored(_) | Appended::Already(..)]), "{answers:?}");
            })
        };
        match done {
            Ok(()) => return,
            Err(StoreError::Full(_)) => journal("refused:full", number),
            Err(StoreError::Stopped(_)) => journal("refused:stopped", number),
            Err(StoreError::Unavailable(_)) => journal("refused:unavailable", number),
            Err(StoreError::Busy(_)) => journal("refused:busy", number),
            // Of a dead disk SQLite says many things.
            Err(_) => journal("refused:otherwise", number),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// All that was promised by victims of one database.
#[derive(Default)]
pub(crate) struct Ledger {
    stored: BTreeSet<u64>,
}

impl Ledger {
    /// A number for the next victim to begin with.
    pub(crate) fn next(&self) -> u64 {
        self.stored.last().copied().unwrap_or(0) + 10_000
    }

    pub(crate) fn count(&self) -> usize {
        self.stored.len()
    }

    pub(crate) fn take(&mut self, journal: &[(String, u64)]) {
        self.stored.extend(journal.iter().filter(|(what, _)| what == "stored").map(|(_, number)| number));
    }

    /// Opens the database and compares: lost 0, twice 0, order kept, SQLite content with it. `when` says after what.
    pub(crate) fn compare(&self, directory: &Path, when: &str) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let store = open(directory).await;
            let roster = store.load(BOB).await.expect("a roster");
            let watchers: BTreeSet<_> = roster.watchers.iter().map(|watcher| watcher.who.user.0).collect();
            let waiting = store.page(BOB, Place::START, usize::MAX, usize::MAX).await.expect("a page");
            for (_, one) in &waiting {
                assert_eq!(*one, parcel(one.sent.0), "{when}: whole and as sent");
            }
            let found: Vec<u64> = waiting.iter().map(|(_, parcel)| parcel.sent.0).collect();
            let unique: BTreeSet<_> = found.iter().copied().collect();
            assert_eq!(unique.len(), found.len(), "{when}: none twice");
            for writer in 0..WRITERS {
                let own: Vec<_> = found.iter().filter(|number| **number % WRITERS == writer).collect();
                assert!(own.is_sorted(), "{when}: in the sender's order: {own:?}");
            }
            for number in &self.stored {
                let there = if is_roster(*number) { watchers.contains(number) } else { unique.contains(number) };
                assert!(there, "{when}: {number} was promised and is lost");
            }
            store.close().await;
        });
        let checked = std::process::Command::new("sqlite3").arg(file(directory)).arg("PRAGMA integrity_check").output();
        if let Ok(checked) = checked {
            assert_eq!(checked.stdout.trim_ascii(), b"ok", "{when}");
        }
    }
}
