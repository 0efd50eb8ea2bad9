//! The SQL stores pass the conformance suite on real servers, each case in a database of its own.
#![cfg(all(unix, feature = "testing", feature = "sql"))]

mod common;

use std::sync::Arc;

use common::servers::{Server, mariadb, postgres};
use xm_store::sql::{open_presence, open_register, open_router};
use xm_store::testing::{Open, opener};
use xm_store::{Accounts, Contacts, MailQueue, Offline, Placements, Stores};

fn router(server: Option<&'static Server>) -> Option<Open<dyn Placements>> {
    let database = Arc::new(server?.database("RouterDB"));
    Some(opener(move || {
        let database = database.clone();
        async move { Arc::new(open_router(&database.url()).await.expect("it opens")) as Arc<dyn Placements> }
    }))
}

/// Opens PresenceDB as one of the traits it implements.
macro_rules! presence {
    ($store:ty, $server:expr) => {
        $server.map(|server| {
            let database = Arc::new(server.database("PresenceDB_C1P1"));
            opener(move || {
                let database = database.clone();
                async move { Arc::new(open_presence(&database.url()).await.expect("it opens")) as Arc<$store> }
            })
        })
    };
}

fn register(server: Option<&'static Server>) -> Option<Open<dyn MailQueue>> {
    let database = Arc::new(server?.database("RegisterDB"));
    Some(opener(move || {
        let database = database.clone();
        async move { Arc::new(open_register(&database.url()).await.expect("it opens")) as Arc<dyn MailQueue> }
    }))
}

/// All that PresenceDB holds.
fn stores(server: Option<&'static Server>) -> Option<Open<Stores>> {
    let database = Arc::new(server?.database("PresenceDB_C1P1"));
    Some(opener(move || {
        let database = database.clone();
        async move { Arc::new(Arc::new(open_presence(&database.url()).await.expect("it opens")).stores()) }
    }))
}

xm_store::suite!(placements, mariadb_placements, router(mariadb()));
xm_store::suite!(accounts, mariadb_accounts, presence!(dyn Accounts, mariadb()));
xm_store::suite!(contacts, mariadb_contacts, presence!(dyn Contacts, mariadb()));
xm_store::suite!(offline, mariadb_offline, presence!(dyn Offline, mariadb()));
xm_store::suite!(mail_queue, mariadb_mail_queue, register(mariadb()));
xm_store::suite!(search, mariadb_search, stores(mariadb()));

xm_store::suite!(placements, postgres_placements, router(postgres()));
xm_store::suite!(accounts, postgres_accounts, presence!(dyn Accounts, postgres()));
xm_store::suite!(contacts, postgres_contacts, presence!(dyn Contacts, postgres()));
xm_store::suite!(offline, postgres_offline, presence!(dyn Offline, postgres()));
xm_store::suite!(mail_queue, postgres_mail_queue, register(postgres()));
xm_store::suite!(search, postgres_search, stores(postgres()));
