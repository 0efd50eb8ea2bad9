//! The memory stores pass the conformance suite. What they "keep" over a restart is the same object.
#![cfg(feature = "testing")]

use std::sync::Arc;

use xm_store::memory::{MemoryAccounts, MemoryContacts, MemoryMailQueue, MemoryOffline, MemoryPlacements};
use xm_store::testing::{Open, opener};
use xm_store::{Accounts, Contacts, MailQueue, Offline, Placements, Stores};

fn kept<T: ?Sized + Send + Sync + 'static>(store: Arc<T>) -> Open<T> {
    opener(move || std::future::ready(Arc::clone(&store)))
}

xm_store::suite!(placements, placements, kept::<dyn Placements>(Arc::new(MemoryPlacements::default())));
xm_store::suite!(accounts, accounts, kept::<dyn Accounts>(Arc::new(MemoryAccounts::default())));
xm_store::suite!(contacts, contacts, kept::<dyn Contacts>(Arc::new(MemoryContacts::default())));
xm_store::suite!(offline, offline, kept::<dyn Offline>(Arc::new(MemoryOffline::default())));
xm_store::suite!(mail_queue, mail_queue, kept::<dyn MailQueue>(Arc::new(MemoryMailQueue::default())));
xm_store::suite!(search, search, kept::<Stores>(Arc::new(Stores::memory())));
