//! Many users at once: who was imported is there as if each had come by the usual way, on every engine of this machine.
#![cfg(all(unix, feature = "testing", feature = "sql"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use common::servers::{mariadb, postgres};
use xm_store::placements::Registration;
use xm_store::records::{NewAccount, NewPlacement, Person, PlacementState, Profile};
use xm_store::sql::{IMPORT_MAX, SqlPlacements, SqlPresence, open_presence, open_router};
use xm_store::{Accounts, Contacts, Placements, StoreError};
use xmmep::name::{Email, UserName};
use xmmep::secret::{KdfParams, KeyHash, Salt, TokenHash};
use xmmep::types::{PresenceId, RequestId, UserId, WallTime};

const HOME: PresenceId = PresenceId { cluster: 1, presence: 1 };
const AT: WallTime = WallTime(1_700_000_000_000);

struct Stores {
    router: SqlPlacements,
    presence: Arc<SqlPresence>,
}

/// Runs a test on each engine there is, with empty databases.
async fn on_each<F: Future<Output = ()>>(test: impl Fn(Stores) -> F) {
    let open = async |router: String, presence: String| Stores {
        router: open_router(&router).await.unwrap(),
        presence: Arc::new(open_presence(&presence).await.unwrap()),
    };
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| format!("sqlite:{}", directory.path().join(name).display());
    test(open(file("RouterDB.db"), file("PresenceDB_C1P1.db")).await).await;
    for server in [mariadb(), postgres()].into_iter().flatten() {
        let [router, presence] = ["RouterDB", "PresenceDB_C1P1"].map(|name| server.database(name));
        test(open(router.url(), presence.url()).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn user_ids_that_are_passed_over_go_to_nobody() {
    on_each(|stores| async move {
        let register = async |number: usize| {
            let new = NewPlacement { request: RequestId([number as u8; 16]), ..placement(number) };
            match stores.router.register(new, AT).await.unwrap() {
                Registration::Registered(user) => user.0,
                other => panic!("{other:?}"),
            }
        };
        let first = register(1).await;
        stores.router.pass_over_users(1_000_000).await.unwrap();
        let second = register(2).await;
        assert!(second > first + 1_000_000, "{first} {second}");
        stores.router.pass_over_users(1_000_000).await.unwrap();
        assert!(register(3).await > second + 1_000_000);
        assert_eq!(stores.router.locate(UserId(first + 1_000_000)).await, Ok(None));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_passed_over_once_for_every_user_however_many_there_are() {
    const USERS: usize = 2_100;
    on_each(|stores| async move {
        let user = |number: usize| UserId(10 + 3 * number as u64);
        let person = |number: usize| Person { user: user(number), name: name(number) };
        for first in (0..USERS).step_by(IMPORT_MAX) {
            let some = first..USERS.min(first + IMPORT_MAX);
            stores.presence.import_accounts(some.map(|number| account(number, user(number))).collect()).await.unwrap();
        }
        // Some have lists, and others do not yet.
        let pairs = (0..USERS - 1).step_by(70).map(|number| (person(number), person(number + 1)));
        stores.presence.import_friends(pairs.collect(), AT).await.unwrap();
        let versions = async || {
            let mut versions = Vec::new();
            for number in [0, 1, 2, 69, 70, 999, 1_000, 1_001, 1_960, 1_999, 2_000, 2_001, USERS - 1] {
                versions.push(stores.presence.load(user(number)).await.unwrap().version.0);
            }
            versions
        };
        let before = versions().await;
        stores.presence.pass_over_versions(7, 5).await.unwrap();
        assert_eq!(versions().await, before.iter().map(|version| version + 7).collect::<Vec<_>>());
    })
    .await;
}

fn name(number: usize) -> UserName {
    UserName::new(&format!("Imported{number}")).unwrap()
}

fn email(number: usize) -> Email {
    Email::new(&format!("imported{number}@example.org")).unwrap()
}

fn placement(number: usize) -> NewPlacement {
    NewPlacement {
        request: RequestId([0; 16]),
        name: name(number),
        email: email(number),
        salt: Salt([1; 16]),
        kdf: KdfParams::RECOMMENDED,
        key_hash: KeyHash::from_bytes([2; 32]),
        token: TokenHash::from_bytes([3; 32]),
        expires: AT,
        profile: Profile::default(),
    }
}

fn account(number: usize, user: UserId) -> NewAccount {
    let key_hash = KeyHash::from_bytes([2; 32]);
    NewAccount { user, name: name(number), email: email(number), key_hash, profile: Profile::default(), created: AT }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_imported_is_active_has_an_account_is_found_and_has_buddies() {
    on_each(|stores| async move {
        let ids = stores.router.import(HOME, (0..300).map(placement).collect(), AT).await.unwrap();
        stores.presence.import_accounts((0..300).map(|number| account(number, ids[number])).collect()).await.unwrap();
        let person = |number: usize| Person { user: ids[number], name: name(number) };
        let pairs = (0..299).map(|number| (person(number), person(number + 1))).collect();
        stores.presence.import_friends(pairs, AT).await.unwrap();

        for number in [0, 1, 150, 299] {
            let found = stores.router.by_name(&name(number)).await.unwrap().unwrap();
            assert_eq!((found.user, found.state), (ids[number], PlacementState::Active { presence: HOME }));
            assert!(stores.router.by_token(&TokenHash::from_bytes([3; 32])).await.unwrap().is_some());
            let account = stores.presence.by_name(&name(number)).await.unwrap().unwrap();
            assert_eq!((account.user, account.email), (ids[number], email(number)));
            let roster = stores.presence.load(ids[number]).await.unwrap();
            let buddies: Vec<_> = roster.buddies.iter().map(|entry| entry.buddy.user).collect();
            let neighbours = [number.checked_sub(1), (number < 299).then_some(number + 1)];
            assert_eq!(buddies, neighbours.into_iter().flatten().map(|number| ids[number]).collect::<Vec<_>>());
            assert_eq!(roster.watchers.len(), buddies.len());
            assert!(roster.requests.is_empty());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_turns_the_whole_import_down() {
    on_each(|stores| async move {
        stores.router.import(HOME, vec![placement(5)], AT).await.unwrap();
        let error = stores.router.import(HOME, (0..10).map(placement).collect(), AT).await.unwrap_err();
        assert!(matches!(error, StoreError::Conflict(_)), "{error}");
        assert_eq!(stores.router.by_name(&name(0)).await.unwrap(), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_change_can_take_is_refused_and_an_empty_import_does_nothing() {
    on_each(|stores| async move {
        let error = stores.router.import(HOME, (0..=IMPORT_MAX).map(placement).collect(), AT).await.unwrap_err();
        assert_eq!(error.to_string(), "the database refuses: 1001 entries to import at once: give at most 1000");
        assert_eq!(stores.router.import(HOME, Vec::new(), AT).await, Ok(Vec::new()));
        assert_eq!(stores.presence.import_accounts(Vec::new()).await, Ok(()));
        assert_eq!(stores.presence.import_friends(Vec::new(), AT).await, Ok(()));
        let most = stores.router.import(HOME, (0..IMPORT_MAX).map(placement).collect(), AT).await.unwrap();
        assert_eq!(most.len(), IMPORT_MAX);
    })
    .await;
}
