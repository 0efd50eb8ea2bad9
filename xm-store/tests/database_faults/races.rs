//! Several servers on one database, commits whose outcome nobody knows, and databases that are not ours.

use std::sync::Arc;

use xm_store::placements::{Activation, Registration};
use xm_store::sql::{Schema, open_presence, open_router};
use xm_store::testing::{at, name};
use xm_store::{OpenError, Placements, StoreError};
use xmmep::types::PresenceId;

use super::{Behind, again, form, on_each_engine, refusal, token};
use crate::common::proxy::{Fault, Proxy};
use crate::common::servers::{Engine, Server};
use crate::common::wire::Request;

const HOME: PresenceId = PresenceId { cluster: 1, presence: 1 };
const ELSEWHERE: PresenceId = PresenceId { cluster: 1, presence: 2 };

on_each_engine!(
    a_commit_of_unknown_outcome_makes_one_user_and_one_activation,
    one_name_in_many_spellings_at_two_servers_has_one_owner,
    one_address_at_two_servers_has_one_owner,
    many_who_open_a_new_database_at_once_all_find_it_ready,
    opening_bears_the_loss_of_a_connection_at_every_statement,
    a_database_of_a_newer_version_is_refused_by_name,
    a_database_of_another_role_is_refused_by_name,
    a_database_of_another_program_is_refused_by_name_and_left_alone,
);

async fn a_commit_of_unknown_outcome_makes_one_user_and_one_activation(server: &'static Server) {
    let behind = Behind::new(server).await;
    let beside = behind.beside().await;
    let store = &behind.store;
    for (number, fault) in (1..).zip([Fault::Before, Fault::After, Fault::BeforeAll, Fault::AfterAll]) {
        let what = format!("{fault:?}");
        let (form, token) = (form(number, &format!("Ann{number}")), token(number));
        let arm = || behind.proxy.when(Request::is_commit, fault.clone());

        arm();
        let lost = store.register(form.clone(), at(0)).await;
        assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{what}: {lost:?}");
        let first = again(&what, || store.register(form.clone(), at(1))).await;
        let found = beside.by_name(&form.name).await.unwrap().expect("he is there");
        assert_eq!(first, Registration::Registered(found.user), "{what}");
        assert_eq!(again(&what, || store.register(form.clone(), at(2))).await, first, "{what}");

        arm();
        let lost = store.begin_activation(&token, HOME, at(3)).await;
        assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{what}: {lost:?}");
        let begun = again(&what, || store.begin_activation(&token, HOME, at(3))).await;
        assert!(matches!(begun, Activation::Begun(_)), "{what}: {begun:?}");
        let twice = again(&what, || store.begin_activation(&token, ELSEWHERE, at(4))).await;
        assert_eq!(twice, begun, "{what}: the first Presence stays");

        arm();
        let lost = store.finish_activation(found.user).await;
        assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{what}: {lost:?}");
        again(&what, || store.finish_activation(found.user)).await;
        assert_eq!(beside.locate(found.user).await.unwrap(), Some(HOME), "{what}");
        assert_eq!(beside.activating().await.unwrap(), [], "{what}");
        let late = again(&what, || store.begin_activation(&token, HOME, at(5))).await;
        assert!(matches!(late, Activation::AlreadyActive(_)), "{what}: {late:?}");
    }
}

/// Registers everything at once, at one store and the other in turn. Returns how many were registered.
async fn race(stores: &[Arc<dyn Placements>], forms: Vec<xm_store::records::NewPlacement>) -> usize {
    let mut callers = tokio::task::JoinSet::new();
    let start = Arc::new(tokio::sync::Barrier::new(forms.len()));
    for (number, form) in forms.into_iter().enumerate() {
        let (store, start) = (stores[number % stores.len()].clone(), start.clone());
        callers.spawn(async move {
            start.wait().await;
            again("a registration", || store.register(form.clone(), at(0))).await
        });
    }
    let answers = callers.join_all().await;
    answers.iter().filter(|answer| matches!(answer, Registration::Registered(_))).count()
}

async fn two_stores(url: &str) -> [Arc<dyn Placements>; 2] {
    [Arc::new(open_router(url).await.expect("it opens")), Arc::new(open_router(url).await.expect("it opens"))]
}

async fn one_name_in_many_spellings_at_two_servers_has_one_owner(server: &'static Server) {
    let database = server.database("RouterDB");
    let stores = two_stores(&database.url()).await;
    for round in 0..4_u64 {
        // Case, composed and decomposed, compatibility forms of width and of the Ångström sign.
        let spellings = ["Åke", "åke", "ÅKE", "A\u{30a}ke", "a\u{30a}KE", "\u{212b}ke", "Ａ\u{30a}ｋｅ", "åｋe"];
        // Not all of them are names at all.
        let spellings = spellings.map(|spelling| format!("{spelling}{round}"));
        let valid: Vec<_> =
            spellings.iter().filter(|spelling| xmmep::name::UserName::new(spelling).is_ok()).cycle().take(16).collect();
        let different: std::collections::BTreeSet<_> = valid.iter().collect();
        assert!(different.len() >= 5, "{different:?}");
        let forms = (0..).zip(valid).map(|(number, spelling)| form(round * 100 + number, spelling));
        assert_eq!(race(&stores, forms.collect()).await, 1, "round {round}");
        let found = stores[0].by_name(&name(&format!("åke{round}"))).await.unwrap();
        assert!(found.is_some(), "round {round}");
    }
}

async fn one_address_at_two_servers_has_one_owner(server: &'static Server) {
    let database = server.database("RouterDB");
    let stores = two_stores(&database.url()).await;
    for round in 0..4_u64 {
        let forms = (0..16_u64).map(|number| {
            let address = if number.is_multiple_of(2) { "Ann@Example.org" } else { "ann@example.ORG" };
            let email = xmmep::name::Email::new(&format!("{round}{address}")).unwrap();
            let form = form(round * 100 + number, &format!("user{round}x{number}"));
            xm_store::records::NewPlacement { email, ..form }
        });
        assert_eq!(race(&stores, forms.collect()).await, 1, "round {round}");
    }
}

async fn many_who_open_a_new_database_at_once_all_find_it_ready(server: &'static Server) {
    for role in ["RouterDB", "PresenceDB_C1P1"] {
        let database = server.database(role);
        let mut openers = tokio::task::JoinSet::new();
        for _ in 0..6 {
            let url = database.url();
            openers.spawn(async move {
                match role {
                    "RouterDB" => open_router(&url).await.map(|_| ()),
                    _ => open_presence(&url).await.map(|_| ()),
                }
            });
        }
        assert_eq!(openers.join_all().await, vec![Ok(()); 6], "{role}");
        let schema = if role == "RouterDB" { Schema::Router } else { Schema::Presence };
        assert_eq!(schema.status(&database.url()).await.unwrap().pending, [""; 0], "{role}");
    }
}

async fn opening_bears_the_loss_of_a_connection_at_every_statement(server: &'static Server) {
    const AT_ONCE: usize = 16;
    let mut n = 0;
    loop {
        let mut openers = tokio::task::JoinSet::new();
        for fault in [Fault::Before, Fault::After] {
            for n in n + 1..=n + AT_ONCE / 2 {
                openers.spawn(open_cut(server, n, fault.clone()));
            }
        }
        n += AT_ONCE / 2;
        if openers.join_all().await.into_iter().any(|struck| !struck) {
            break;
        }
    }
    assert!(n > 10, "only {n} statements");
}

/// Makes a database over a connection lost at the `n`-th statement; then over one that holds. Returns whether the fault
/// struck.
async fn open_cut(server: &'static Server, n: usize, fault: Fault) -> bool {
    let (proxy, database) = (Proxy::of(server).await, server.database("RouterDB"));
    proxy.at(n, fault.clone());
    let first = super::in_time("opening", open_router(&server.url_at(proxy.port(), database.name()))).await;
    if let Err(error) = &first {
        assert!(matches!(error, OpenError::Unreachable { .. }), "{fault:?} {n}: {error}");
    }
    let second = open_router(&database.url()).await;
    let store = second.unwrap_or_else(|error| panic!("{fault:?} {n}: {error}"));
    let made = store.register(form(1, "Ann"), at(0)).await;
    assert!(matches!(made, Ok(Registration::Registered(_))), "{fault:?} {n}: {made:?}");
    proxy.disarm()
}

/// What the error must name.
fn assert_names(error: &OpenError, database: &str, server: &Server) {
    let text = error.to_string();
    assert!(text.contains(database), "{text}");
    assert!(!text.contains(&server.password()), "{text}");
}

async fn a_database_of_a_newer_version_is_refused_by_name(server: &'static Server) {
    let database = server.database("RouterDB");
    open_router(&database.url()).await.unwrap().close().await;
    server.execute(database.name(), &["INSERT INTO seaql_migrations VALUES ('router_9999', 0)".to_owned()]);
    let error = refusal(&database.url()).await;
    assert!(matches!(&error, OpenError::Newer { found, .. } if found == "router_9999"), "{error:?}");
    assert_names(&error, database.name(), server);
}

async fn a_database_of_another_role_is_refused_by_name(server: &'static Server) {
    let database = server.database("PresenceDB_C1P1");
    open_presence(&database.url()).await.unwrap().close().await;
    let error = refusal(&database.url()).await;
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
    assert_names(&error, database.name(), server);
}

async fn a_database_of_another_program_is_refused_by_name_and_left_alone(server: &'static Server) {
    let database = server.database("RouterDB");
    let create = match server.engine() {
        Engine::MariaDb => format!("CREATE DATABASE `{}`", database.name()),
        Engine::Postgres => format!("CREATE DATABASE \"{}\" OWNER messenger", database.name()),
    };
    server.execute(server.engine().home(), &[create]);
    server.execute(database.name(), &["CREATE TABLE cats (name TEXT)".to_owned()]);
    if server.engine() == Engine::Postgres {
        // Made by the administrator; the user of the stores must see it as a program's that shares its rights.
        server.execute(database.name(), &["GRANT ALL ON cats TO messenger".to_owned()]);
    }
    let error = refusal(&database.url()).await;
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
    assert_names(&error, database.name(), server);
    // A table of ours would be in the way of this one.
    server.execute(database.name(), &["CREATE TABLE placements (n BIGINT)".to_owned()]);
}
