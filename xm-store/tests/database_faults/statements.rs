//! A connection is lost at every single statement, before or after the server has run it. The caller repeats its call,
//! and in the end everything is as if nothing had happened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use xm_store::memory::{MemoryMailQueue, MemoryPlacements};
use xm_store::sql::{SqlPresence, open_presence, open_register, open_router};
use xm_store::{MailQueue, Placements, Stores};

use super::scenario::{self, Step};
use super::{again, on_each_engine};
use crate::common::proxy::{Fault, Proxy};
use crate::common::servers::Server;

/// Scenarios at once, each in a database of its own.
const WORKERS: usize = 10;
/// More faults than a scenario has statements for.
const FAULTS_MAX: usize = 3_000;

on_each_engine!(
    router_bears_the_loss_of_a_connection_at_every_statement,
    presence_bears_the_loss_of_a_connection_at_every_statement,
    register_bears_the_loss_of_a_connection_at_every_statement,
);

/// The `number`-th statement and fault of a walk: each is lost before and after, a third also with all connections.
fn fault(number: usize) -> (usize, Fault) {
    let (n, which) = (number / 7 * 3 + 1, number % 7);
    match which {
        0..3 => (n + which, Fault::Before),
        3..6 => (n + which - 3, Fault::After),
        _ if number.is_multiple_of(2) => (n, Fault::BeforeAll),
        _ => (n, Fault::AfterAll),
    }
}

/// What is the same in all scenarios.
#[derive(Default)]
struct Walk {
    next: AtomicUsize,
    is_over: AtomicBool,
    struck: AtomicUsize,
}

impl Walk {
    /// The next statement and fault, until a scenario went through without being struck.
    fn next(&self) -> Option<(usize, Fault)> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        assert!(number < FAULTS_MAX, "the fault strikes for ever");
        (!self.is_over.load(Ordering::SeqCst)).then(|| fault(number))
    }

    /// Takes the steps until one meets the fault and comes through. All before it are answered as memory answers.
    async fn take(&self, proxy: &Proxy, steps: &[Step], memory: &[Step], n: usize, fault: &Fault) {
        proxy.at(n, fault.clone());
        for (step, undisturbed) in steps.iter().zip(memory) {
            let what = format!("{}, {fault:?} statement {n}", step.name);
            let expected = (undisturbed.call)().await.expect("memory fails never");
            let answer = again(&what, || (step.call)()).await;
            if !proxy.is_armed() {
                self.struck.fetch_add(1, Ordering::SeqCst);
                return;
            }
            assert_eq!(answer, expected, "{what}");
        }
        self.is_over.store(true, Ordering::SeqCst);
        proxy.disarm();
    }

    /// Every statement was met.
    fn assert_walked(&self, statements_min: usize) {
        let struck = self.struck.load(Ordering::SeqCst);
        assert!(struck >= 2 * statements_min, "only {struck} faults struck");
    }
}

macro_rules! walk {
    ($server:expr, $role:literal, $open:path, $scenario:path, $state:path, $memory:expr, $as_store:expr, $min:literal) => {{
        let walk = Arc::new(Walk::default());
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..WORKERS {
            let walk = walk.clone();
            let server: &'static Server = $server;
            // One after the other: logins are work.
            let database = server.database($role);
            let undisturbed = $as_store($open(&database.url()).await.expect("it opens"));
            let proxy = Proxy::of(server).await;
            let store = $as_store($open(&server.url_at(proxy.port(), database.name())).await.expect("it opens"));
            workers.spawn(async move {
                let _database = database;
                for run in 1.. {
                    let Some((n, fault)) = walk.next() else { return };
                    let memory = $memory;
                    walk.take(&proxy, &$scenario(&store, run), &$scenario(&memory, run), n, &fault).await;
                    assert_eq!($state(&undisturbed, run).await, $state(&memory, run).await, "{fault:?} {n}");
                }
            });
        }
        while let Some(ended) = workers.join_next().await {
            ended.expect("a walk goes through");
        }
        walk.assert_walked($min);
    }};
}

async fn router_bears_the_loss_of_a_connection_at_every_statement(server: &'static Server) {
    let memory = || Arc::new(MemoryPlacements::default()) as Arc<dyn Placements>;
    let store = |store| Arc::new(store) as Arc<dyn Placements>;
    async fn state(store: &Arc<dyn Placements>, run: u64) -> String {
        scenario::router_state(&**store, run).await
    }
    walk!(server, "RouterDB", open_router, scenario::router, state, memory(), store, 20);
}

async fn presence_bears_the_loss_of_a_connection_at_every_statement(server: &'static Server) {
    let store = |store: SqlPresence| Arc::new(store).stores();
    walk!(
        server,
        "PresenceDB_C1P1",
        open_presence,
        scenario::presence,
        scenario::presence_state,
        Stores::memory(),
        store,
        60
    );
}

async fn register_bears_the_loss_of_a_connection_at_every_statement(server: &'static Server) {
    let memory = || Arc::new(MemoryMailQueue::default()) as Arc<dyn MailQueue>;
    let store = |store| Arc::new(store) as Arc<dyn MailQueue>;
    async fn state(store: &Arc<dyn MailQueue>, run: u64) -> String {
        scenario::register_state(&**store, run).await
    }
    walk!(server, "RegisterDB", open_register, scenario::register, state, memory(), store, 15);
}
