//! Days in the life of a RouterDB, a PresenceDB and a RegisterDB: every method that a server calls, in an order that
//! means something, and what must be there in the end. Many can share a database: each has a number.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use xm_store::accounts::LoginHistory;
use xm_store::contacts::{Answer, Ask};
use xm_store::records::{Account, Level, Mail, NewAccount, Parcel, ParcelId, Person, Place};
use xm_store::testing::{at, msg_id, name, profile, request_id, text};
use xm_store::{MailQueue, Placements, RosterError, StoreError, Stores};
use xmmep::bounded::PrivateText;
use xmmep::name::Email;
use xmmep::secret::KeyHash;
use xmmep::types::{GroupId, PresenceId, UserId};

use super::{again, form, token};

type Called = Pin<Box<dyn Future<Output = Result<String, StoreError>> + Send>>;

/// One call.
pub struct Step {
    pub name: &'static str,
    pub call: Box<dyn Fn() -> Called + Send + Sync>,
}

/// Answers as text, without what a repetition may change: ids and places given out by the database.
trait Said {
    fn said(self) -> Result<String, StoreError>;
}

impl<T: Debug> Said for Result<T, StoreError> {
    fn said(self) -> Result<String, StoreError> {
        self.map(|answer| without_ids(&format!("{answer:?}")))
    }
}

impl<T: Debug> Said for Result<T, RosterError> {
    fn said(self) -> Result<String, StoreError> {
        match self {
            Ok(answer) => Ok(format!("{answer:?}")),
            Err(RosterError::Refused(refusal)) => Ok(format!("{refusal:?}")),
            Err(RosterError::Store(error)) => Err(error),
        }
    }
}

/// Numbers of `UserId(…)` and `Place(…)` taken out.
fn without_ids(text: &str) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some(at) = ["UserId(", "Place("].iter().filter_map(|word| Some(rest.find(word)? + word.len())).min() {
        out.push_str(&rest[..at]);
        rest = rest[at..].trim_start_matches(|digit: char| digit.is_ascii_digit());
    }
    out + rest
}

macro_rules! step {
    ($name:literal, $store:ident, $call:expr) => {{
        let $store = $store.clone();
        Step {
            name: $name,
            call: Box::new(move || {
                let $store = $store.clone();
                Box::pin(async move { $call.await.said() })
            }),
        }
    }};
}

const HOME: PresenceId = PresenceId { cluster: 1, presence: 1 };

/// Two registrations and an activation.
pub fn router(store: &Arc<dyn Placements>, run: u64) -> Vec<Step> {
    let ann = move || form(run * 10, &format!("Ann{run}"));
    let bob = move || form(run * 10 + 1, &format!("Bob{run}"));
    // The same name for another person.
    let other = move || form(run * 10 + 2, &format!("aNN{run}"));
    vec![
        step!("register", store, store.register(ann(), at(0))),
        step!("register, name taken", store, store.register(other(), at(0))),
        step!("register another", store, store.register(bob(), at(0))),
        step!("by_name", store, store.by_name(&ann().name)),
        step!("by_token", store, store.by_token(&token(run * 10))),
        step!(
            "renew_token",
            store,
            store.renew_token(&ann().email, request_id(run * 10 + 3), &token(run * 10 + 3), at(9_000), at(10))
        ),
        step!("begin_activation, old token", store, store.begin_activation(&token(run * 10), HOME, at(20))),
        step!("begin_activation", store, store.begin_activation(&token(run * 10 + 3), HOME, at(20))),
        step!("activating", store, activating(&*store, &ann().name)),
        step!("finish_activation", store, finish(&*store, &ann().name)),
        step!("locate", store, locate(&*store, &ann().name)),
        step!("forget", store, store.forget(at(1))),
    ]
}

async fn activating(store: &dyn Placements, who: &xmmep::name::UserName) -> Result<bool, StoreError> {
    Ok(store.activating().await?.iter().any(|placement| placement.name == *who))
}

async fn finish(store: &dyn Placements, who: &xmmep::name::UserName) -> Result<(), StoreError> {
    let placement = store.by_name(who).await?.expect("it is registered");
    store.finish_activation(placement.user).await
}

async fn locate(store: &dyn Placements, who: &xmmep::name::UserName) -> Result<Option<PresenceId>, StoreError> {
    let placement = store.by_name(who).await?.expect("it is registered");
    store.locate(placement.user).await
}

/// What a store says that nothing stands in front of: but the machine may be busy.
async fn read<T, F: Future<Output = Result<T, StoreError>>>(call: impl Fn() -> F) -> T {
    again("reading", call).await
}

/// All that RouterDB knows of a run.
pub async fn router_state(store: &dyn Placements, run: u64) -> String {
    let mut state = Vec::new();
    for who in ["Ann", "Bob"] {
        let who = name(&format!("{who}{run}"));
        state.push(read(|| async { store.by_name(&who).await.said() }).await);
    }
    for number in 0..4 {
        let token = token(run * 10 + number);
        let found = read(|| store.by_token(&token)).await;
        state.push(format!("{:?}", found.map(|placement| placement.name)));
    }
    state.join("\n")
}

/// The users of a run.
fn user(run: u64, number: u64) -> UserId {
    UserId(run * 10 + number)
}

fn person(run: u64, number: u64) -> Person {
    Person { user: user(run, number), name: name(&format!("user{number}x{run}")) }
}

fn account(run: u64, number: u64) -> NewAccount {
    NewAccount {
        user: user(run, number),
        name: person(run, number).name,
        email: Email::new(&format!("user{number}x{run}@example.org")).expect("an address"),
        key_hash: KeyHash::from_bytes([1; 32]),
        profile: profile("about"),
        created: at(0),
    }
}

fn wish(run: u64, me: u64, buddy: u64) -> Ask {
    Ask {
        me: person(run, me),
        buddy: person(run, buddy),
        display_name: text("my buddy"),
        group: GroupId::DEFAULT,
        greeting: text("hello"),
        at: at(1),
    }
}

fn parcel(run: u64, number: u64) -> Parcel {
    let body = vec![number as u8; 100 * number as usize];
    Parcel { from: user(run, 1), id: msg_id(number), sent: at(number), body }
}

/// Three users who meet, fall out and write.
pub fn presence(store: &Stores, run: u64) -> Vec<Step> {
    let [accounts, contacts, offline] = [store; 3];
    let id = move |number| ParcelId { from: user(run, 1), id: msg_id(number) };
    vec![
        step!("create 1", accounts, accounts.accounts.create(account(run, 1))),
        step!("create 2", accounts, accounts.accounts.create(account(run, 2))),
        step!("create 3", accounts, accounts.accounts.create(account(run, 3))),
        step!("by_name", accounts, accounts.accounts.by_name(&person(run, 1).name)),
        step!("by_user", accounts, accounts.accounts.by_user(user(run, 2))),
        step!("by_users", accounts, accounts.accounts.by_users(&[user(run, 2), user(run, 1)])),
        step!("login_failed", accounts, accounts.accounts.login_failed(user(run, 2), at(5))),
        step!("logged_in", accounts, {
            // How many failures there were may be one too many: see `Accounts::login_failed`.
            let history = accounts.accounts.logged_in(user(run, 2), LoginHistory::default(), at(6));
            async { history.await.map(|before| before.map(|before| before.last_login)) }
        }),
        step!("login_failed, for the next login", accounts, accounts.accounts.login_failed(user(run, 9), at(5))),
        step!("ask", contacts, contacts.contacts.ask(wish(run, 1, 2))),
        step!("load", contacts, contacts.contacts.load(user(run, 2))),
        step!("answer, accept and add", contacts, {
            let me = person(run, 2);
            async move { contacts.contacts.answer(&me, user(run, 1), Answer::AcceptAndAdd, at(7)).await }
        }),
        step!("ask 3", contacts, contacts.contacts.ask(wish(run, 3, 1))),
        step!("answer, refuse", contacts, {
            let me = person(run, 1);
            async move { contacts.contacts.answer(&me, user(run, 3), Answer::Refuse, at(8)).await }
        }),
        step!("create_group", contacts, contacts.contacts.create_group(user(run, 1), text("friends"))),
        step!("create_group 2", contacts, contacts.contacts.create_group(user(run, 1), text("others"))),
        step!(
            "modify",
            contacts,
            contacts.contacts.modify(user(run, 1), user(run, 2), Some(text("Bobby")), Some(GroupId(1)))
        ),
        step!("rename_group", contacts, contacts.contacts.rename_group(user(run, 1), GroupId(1), text("best friends"))),
        step!("block", contacts, {
            let other = person(run, 3);
            async move { contacts.contacts.block(user(run, 1), &other, at(9)).await }
        }),
        step!("block 2", contacts, {
            let other = person(run, 1);
            async move { contacts.contacts.block(user(run, 2), &other, at(9)).await }
        }),
        step!("unblock", contacts, contacts.contacts.unblock(user(run, 2), user(run, 1), Some(GroupId::DEFAULT))),
        step!("delete_group", contacts, contacts.contacts.delete_group(user(run, 1), GroupId(2))),
        step!("remove", contacts, contacts.contacts.remove(user(run, 2), user(run, 1))),
        step!("append", offline, offline.offline.append(user(run, 2), vec![parcel(run, 1), parcel(run, 2)])),
        step!("append again", offline, offline.offline.append(user(run, 2), vec![parcel(run, 2), parcel(run, 3)])),
        step!("page", offline, offline.offline.page(user(run, 2), Place::START, 10, usize::MAX)),
        step!("summary", offline, offline.offline.summary(user(run, 2))),
        step!("settle", offline, offline.offline.settle(user(run, 2), &[id(1), id(9)], Level::Received, at(10))),
        step!("level", offline, offline.offline.level(user(run, 2), id(1))),
        step!("expire", offline, offline.offline.expire(at(0), at(20), 10)),
        step!("forget", offline, offline.offline.forget(at(20))),
    ]
}

/// All that PresenceDB knows of a run.
pub async fn presence_state(store: &Stores, run: u64) -> String {
    let mut state = Vec::new();
    for number in 1..=3 {
        // Of failed logins there may be one too many: see `Accounts::login_failed`.
        let account = read(|| store.accounts.by_user(user(run, number))).await;
        let account = account.map(|account| Account { failed_attempts: account.failed_attempts.min(1), ..account });
        state.push(format!("{account:?}"));
        state.push(format!("{:?}", read(|| store.contacts.load(user(run, number))).await));
        let page = || store.offline.page(user(run, number), Place::START, 10, usize::MAX);
        state.push(read(|| async { page().await.said() }).await);
    }
    for number in 1..=3 {
        let parcel = ParcelId { from: user(run, 1), id: msg_id(number) };
        state.push(read(|| async { store.offline.level(user(run, 2), parcel).await.said() }).await);
    }
    state.join("\n")
}

fn mail(run: u64, number: u64) -> Mail {
    Mail {
        id: request_id(run * 10 + number),
        to: Email::new("ann@example.org").expect("an address"),
        subject: text("subject"),
        body: PrivateText::new("body").expect("a short text"),
        created: at(number),
    }
}

/// Three mails: one sent, one put off, one given up.
pub fn register(store: &Arc<dyn MailQueue>, run: u64) -> Vec<Step> {
    let id = move |number| request_id(run * 10 + number);
    vec![
        step!("enqueue 1", store, store.enqueue(mail(run, 1))),
        step!("enqueue 2", store, store.enqueue(mail(run, 2))),
        step!("enqueue 3", store, store.enqueue(mail(run, 3))),
        step!("due", store, due(&*store, run)),
        step!("sent", store, store.sent(id(1), at(10))),
        step!("retry_at", store, store.retry_at(id(2), at(60), &text("later"))),
        step!("failed", store, store.failed(id(3), at(10), &text("never"))),
        step!("state", store, store.state(id(1))),
        step!("forget", store, store.forget(at(0))),
    ]
}

/// Those of this run that are due.
async fn due(store: &dyn MailQueue, run: u64) -> Result<Vec<Mail>, StoreError> {
    let mails = store.due(at(20), usize::from(u16::MAX)).await?;
    let own = [1, 2, 3].map(|number| request_id(run * 10 + number));
    Ok(mails.into_iter().map(|(mail, _)| mail).filter(|mail| own.contains(&mail.id)).collect())
}

/// All that RegisterDB knows of a run.
pub async fn register_state(store: &dyn MailQueue, run: u64) -> String {
    let mut state = Vec::new();
    for number in 1..=3 {
        state.push(read(|| async { store.state(request_id(run * 10 + number)).await.said() }).await);
    }
    state.push(read(|| async { due(store, run).await.said() }).await);
    state.join("\n")
}
