//! Cases of [`Search`](crate::Search) and of profile changes: what changes, pages, limits.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use std::sync::Arc;

use xmmep::name::Email;
use xmmep::types::UserId;

use super::search::{ASKER, account, change, create, found, query};
use super::{Open, at, name, text};
use crate::Stores;
use crate::accounts::ProfileChanges;
use crate::records::{NewAccount, Person, Profile};
use crate::search::{Condition, HITS_MAX, Key, Mode, PAGE_MAX, Query, TEXT_MAX, Total};

const NOBODY: [u64; 0] = [];

fn nickname(new: &str) -> ProfileChanges {
    ProfileChanges { nickname: Some(text(new)), ..ProfileChanges::default() }
}

/// All pages of a query, `max` users at a time.
async fn read(stores: &Stores, query: &Query, max: usize) -> Vec<u64> {
    let (mut users, mut after) = (Vec::new(), None);
    loop {
        let hits = stores.search.find(query, after, max).await.unwrap();
        assert!(hits.cards.len() <= max.clamp(1, PAGE_MAX), "{} on a page of {max}", hits.cards.len());
        assert_eq!(hits.next.is_some(), hits.next == hits.cards.last().map(|card| card.user));
        users.extend(hits.cards.iter().map(|card| card.user.0));
        after = hits.next;
        if after.is_none() {
            return users;
        }
    }
}

pub async fn a_new_user_is_found_at_once(open: &Open<Stores>) {
    let stores = open.open().await;
    assert_eq!(found(&stores, Key::Nickname, Mode::Part, "nn").await, NOBODY);
    create(&stores, account(1, "ann")).await;
    assert_eq!(found(&stores, Key::Nickname, Mode::Part, "nn").await, [1]);
    stores.accounts.create(account(1, "ann")).await.expect("creating again changes nothing");
    stores.accounts.create(account(1, "bob")).await.expect("nor does a repetition in other words");
    let conflict = NewAccount { name: name("0-1-0"), ..account(2, "nnn") };
    stores.accounts.create(conflict).await.expect("an answer");
    drop(stores);
    let stores = open.open().await;
    assert_eq!(found(&stores, Key::Nickname, Mode::Part, "nn").await, [1]);
    assert_eq!(found(&stores, Key::Nickname, Mode::Whole, "ann").await, [1]);
    assert_eq!(found(&stores, Key::Nickname, Mode::Prefix, "b").await, NOBODY);
}

pub async fn a_changed_profile_is_found_by_its_new_values_alone(open: &Open<Stores>) {
    let stores = open.open().await;
    create(&stores, account(1, "Annabel Lee")).await;
    create(&stores, account(2, "Annabel")).await;
    change(&stores, 1, nickname("Belle 小明")).await;
    for (text, expected) in
        [("annabel", &[2][..]), ("nn", &[2]), ("lee", &[]), ("bel", &[1, 2]), ("小明", &[1]), ("lle", &[1])]
    {
        assert_eq!(found(&stores, Key::Nickname, Mode::Part, text).await, expected, "{text:?}");
    }
    drop(stores);
    let stores = open.open().await;
    assert_eq!(found(&stores, Key::Nickname, Mode::Prefix, "ann").await, [2]);
    assert_eq!(found(&stores, Key::Nickname, Mode::Whole, "BELLE 小明").await, [1]);
    change(&stores, 1, nickname("")).await;
    assert_eq!(found(&stores, Key::NameOrNickname, Mode::Part, "小").await, NOBODY);
    assert_eq!(found(&stores, Key::Name, Mode::Part, "-1-").await, [1], "the name is as it was");
}

pub async fn an_erased_user_is_found_no_more(open: &Open<Stores>) {
    let stores = open.open().await;
    create(&stores, account(1, "Annabel Lee")).await;
    create(&stores, account(2, "Annabel")).await;
    assert!(stores.accounts.erase(UserId(1)).await.unwrap());
    for (mode, text) in [(Mode::Whole, "annabel lee"), (Mode::Prefix, "annabel l"), (Mode::Part, "lee")] {
        assert_eq!(found(&stores, Key::Nickname, mode, text).await, NOBODY, "{mode:?}");
    }
    assert_eq!(found(&stores, Key::Nickname, Mode::Part, "bel").await, [2]);
    drop(stores);
    let stores = open.open().await;
    create(&stores, account(1, "Bella")).await;
    assert_eq!(found(&stores, Key::Nickname, Mode::Part, "bel").await, [1, 2]);
    assert_eq!(found(&stores, Key::Nickname, Mode::Part, "lee").await, NOBODY);
}

pub async fn a_change_leaves_alone_what_it_does_not_name(open: &Open<Stores>) {
    let stores = open.open().await;
    let profile = Profile {
        nickname: text("ann"),
        personal_msg: text("hello"),
        birthdate: text("1999-12-31"),
        location: text("Berlin"),
        gender: 0,
        avatar: Some([1; 32]),
    };
    create(&stores, NewAccount { profile, ..account(1, "") }).await;
    stores.accounts.login_failed(UserId(1), at(5)).await.unwrap();
    let mut expected = stores.accounts.by_user(UserId(1)).await.unwrap().expect("created");
    assert_eq!((expected.profile_version, expected.findable.in_search, expected.findable.by_email), (1, true, false));
    let none = ProfileChanges::default();
    for changes in [
        ProfileChanges { nickname: Some(text("Annie")), ..none.clone() },
        ProfileChanges { personal_msg: Some(text("")), ..none.clone() },
        ProfileChanges { birthdate: Some(text("2000-01-01")), ..none.clone() },
        ProfileChanges { location: Some(text("北京")), ..none.clone() },
        ProfileChanges { gender: Some(2), ..none.clone() },
        ProfileChanges { avatar: Some(None), ..none.clone() },
        ProfileChanges { avatar: Some(Some([0xff; 32])), ..none.clone() },
        ProfileChanges { in_search: Some(false), ..none.clone() },
        ProfileChanges { by_email: Some(true), ..none.clone() },
        ProfileChanges { gender: Some(255), in_search: Some(true), ..none.clone() },
        none.clone(),
    ] {
        let differs = expected.change(&changes);
        assert_eq!(differs, changes != none, "each of these is a change");
        let now = stores.accounts.update_profile(UserId(1), &changes).await.unwrap();
        assert_eq!(now.as_ref(), Some(&expected), "{changes:?}");
        assert_eq!(stores.accounts.by_user(UserId(1)).await.unwrap().as_ref(), Some(&expected));
    }
    drop(stores);
    let stores = open.open().await;
    assert_eq!(expected.profile_version, 11);
    assert_eq!(stores.accounts.by_user(UserId(1)).await.unwrap(), Some(expected));
}

pub async fn a_change_made_twice_is_made_once(open: &Open<Stores>) {
    let stores = open.open().await;
    create(&stores, account(1, "ann")).await;
    let first = stores.accounts.update_profile(UserId(1), &nickname("bob")).await.unwrap();
    let again = stores.accounts.update_profile(UserId(1), &nickname("bob")).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(first.expect("created").profile_version, 2);
    assert_eq!(stores.accounts.update_profile(UserId(2), &nickname("bob")).await.unwrap(), None);
    assert_eq!(found(&stores, Key::Nickname, Mode::Part, "bo").await, [1], "who is not there is not found either");
}

pub async fn changes_of_different_fields_at_once_are_both_made(open: &Open<Stores>) {
    let stores = open.open().await;
    create(&stores, account(1, "ann")).await;
    let fields: [fn(&str) -> ProfileChanges; 4] = [
        |value| ProfileChanges { nickname: Some(text(value)), ..ProfileChanges::default() },
        |value| ProfileChanges { location: Some(text(value)), ..ProfileChanges::default() },
        |value| ProfileChanges { personal_msg: Some(text(value)), ..ProfileChanges::default() },
        |value| ProfileChanges { birthdate: Some(text(value)), ..ProfileChanges::default() },
    ];
    let tasks = fields.map(|field| {
        let stores = Arc::clone(&stores);
        tokio::spawn(async move {
            for number in 0..5 {
                change(&stores, 1, field(&format!("value {number}"))).await;
            }
        })
    });
    for task in tasks {
        task.await.expect("no change is refused");
    }
    let now = stores.accounts.by_user(UserId(1)).await.unwrap().expect("created");
    let (one, two) = (now.profile.nickname.as_str(), now.profile.location.as_str());
    let (three, four) = (now.profile.personal_msg.as_str(), now.profile.birthdate.as_str());
    assert_eq!([one, two, three, four], ["value 4"; 4]);
    assert_eq!(now.profile_version, 21);
}

pub async fn changes_at_once_leave_one_of_them_to_be_found(open: &Open<Stores>) {
    let stores = open.open().await;
    create(&stores, account(1, "ann")).await;
    let names = ["kobold", "golden", "silver", "bronze", "copper", "cobalt"];
    let tasks = names.map(|name| {
        let stores = Arc::clone(&stores);
        tokio::spawn(async move { change(&stores, 1, nickname(name)).await })
    });
    for task in tasks {
        task.await.expect("no change is refused");
    }
    let now = stores.accounts.by_user(UserId(1)).await.unwrap().expect("created").profile.nickname;
    for name in names {
        let expected = if *name == *now { &[1][..] } else { &[] };
        assert_eq!(found(&stores, Key::Nickname, Mode::Part, name).await, expected, "{name}, and it is {now}");
        assert_eq!(found(&stores, Key::Nickname, Mode::Whole, name).await, expected, "{name}, and it is {now}");
    }
}

pub async fn pages_bring_everybody_once(open: &Open<Stores>) {
    let stores = open.open().await;
    for user in 1..=120 {
        // Made in an order that is none.
        let user = user * 37 % 121;
        create(&stores, account(user, if user % 3 == 0 { "bob" } else { "ann" })).await;
    }
    let expected: Vec<_> = (1..=120).filter(|user| user % 3 != 0).collect();
    for mode in [Mode::Whole, Mode::Prefix, Mode::Part] {
        let query = query(ASKER, &[(Key::Nickname, mode, "ann")]);
        for max in [1, 7, 49, 50, 51, usize::MAX] {
            assert_eq!(read(&stores, &query, max).await, expected, "{mode:?} {max}");
        }
        let page = stores.search.find(&query, Some(UserId(100)), 3).await.unwrap();
        assert_eq!(page.cards.iter().map(|card| card.user.0).collect::<Vec<_>>(), [101, 103, 104]);
        assert_eq!((page.total, page.next), (Total::Exactly(80), Some(UserId(104))), "the total is that of all pages");
        let end = stores.search.find(&query, Some(UserId(u64::MAX)), 3).await.unwrap();
        assert_eq!((end.cards.len(), end.total, end.next), (0, Total::Exactly(80), None));
    }
}

pub async fn pages_stay_in_step_while_users_come_and_go(open: &Open<Stores>) {
    let stores = open.open().await;
    for user in 1..=40 {
        create(&stores, account(user * 10, "ann")).await;
    }
    let query = query(ASKER, &[(Key::Nickname, Mode::Part, "nn")]);
    let first = stores.search.find(&query, None, 10).await.unwrap();
    assert_eq!(first.next, Some(UserId(100)));
    // The one at the seam leaves, as does one behind it; one joins on each side.
    change(&stores, 100, nickname("bob")).await;
    change(&stores, 150, ProfileChanges { in_search: Some(false), ..ProfileChanges::default() }).await;
    create(&stores, account(55, "anna")).await;
    create(&stores, account(105, "anna")).await;
    let second = stores.search.find(&query, first.next, 10).await.unwrap();
    let users: Vec<_> = second.cards.iter().map(|card| card.user.0).collect();
    assert_eq!(users, [105, 110, 120, 130, 140, 160, 170, 180, 190, 200]);
    assert_eq!(second.total, Total::Exactly(40));
}

pub async fn no_page_is_longer_than_its_bound(open: &Open<Stores>) {
    let stores = open.open().await;
    for user in 1..=PAGE_MAX as u64 + 1 {
        create(&stores, account(user, "ann")).await;
    }
    let query = query(ASKER, &[(Key::Nickname, Mode::Whole, "ann")]);
    for max in [PAGE_MAX, PAGE_MAX + 1, usize::MAX] {
        let hits = stores.search.find(&query, None, max).await.unwrap();
        assert_eq!((hits.cards.len(), hits.total), (PAGE_MAX, Total::Exactly(PAGE_MAX + 1)));
        assert_eq!(hits.next, Some(UserId(PAGE_MAX as u64)));
    }
    let one = stores.search.find(&query, None, 0).await.unwrap();
    assert_eq!(one.cards.len(), 1, "reading on always gets to the end");
}

pub async fn ids_from_end_to_end_are_found_in_order(open: &Open<Stores>) {
    let stores = open.open().await;
    let ids = [1, u64::from(u32::MAX) + 1, (1 << 63) - 1, 1 << 63, u64::MAX];
    for (number, user) in (1..).zip([3, 0, 4, 2, 1].map(|index: usize| ids[index])) {
        let new = NewAccount { name: name(&format!("user{number}")), ..account(1, "annnn") };
        create(&stores, NewAccount { user: UserId(user), ..new }).await;
    }
    for mode in [Mode::Whole, Mode::Prefix, Mode::Part] {
        let query = query(ASKER, &[(Key::Nickname, mode, "annnn")]);
        for max in [1, 2, 50] {
            assert_eq!(read(&stores, &query, max).await, ids, "{mode:?} {max}");
        }
    }
}

pub async fn a_query_reaches_a_thousand_users_and_says_that_there_are_more(open: &Open<Stores>) {
    let stores = open.open().await;
    for user in 1..=HITS_MAX as u64 {
        create(&stores, account(user, "ann")).await;
    }
    let modes = [(Mode::Whole, "ann"), (Mode::Prefix, "an"), (Mode::Part, "nn"), (Mode::Part, "n")];
    for (mode, text) in modes {
        let hits = stores.search.find(&query(ASKER, &[(Key::Nickname, mode, text)]), None, 1).await.unwrap();
        assert_eq!(hits.total, Total::Exactly(HITS_MAX), "{mode:?}");
    }
    create(&stores, account(HITS_MAX as u64 + 1, "ann")).await;
    for (mode, text) in modes {
        let query = query(ASKER, &[(Key::Nickname, mode, text)]);
        assert_eq!(stores.search.find(&query, None, 1).await.unwrap().total, Total::More, "{mode:?}");
        assert_eq!(read(&stores, &query, 50).await, (1..=HITS_MAX as u64).collect::<Vec<_>>(), "{mode:?}");
    }
}

pub async fn a_rare_text_made_of_frequent_pairs_is_found(open: &Open<Stores>) {
    let stores = open.open().await;
    for user in 1..=300 {
        create(&stores, account(user, ["banan", "anab", "nabana", "ba na", "nab"][user as usize % 5])).await;
    }
    create(&stores, account(301, "x banabanan")).await;
    create(&stores, NewAccount { name: name("BANABANAN"), ..account(302, "") }).await;
    assert_eq!(found(&stores, Key::Nickname, Mode::Part, "banabanan").await, [301]);
    assert_eq!(found(&stores, Key::Nickname, Mode::Part, "anabanan").await, [301]);
    assert_eq!(found(&stores, Key::NameOrNickname, Mode::Part, "banabanan").await, [301, 302]);
    assert_eq!(found(&stores, Key::Nickname, Mode::Part, "bananabanab").await, NOBODY);
}

pub async fn the_longest_texts_are_found(open: &Open<Stores>) {
    let stores = open.open().await;
    let letters: String = ('a'..='z').cycle().take(127).collect();
    // Grows while it is folded, and over the bound of folded texts.
    let ligatures = "\u{fdfa}".repeat(42);
    let long = |start: &str| format!("{start}{}", &letters[start.len()..]);
    let address = format!("{}@{}", "l".repeat(64), ["d".repeat(63), "e".repeat(63), "f".repeat(61)].join("."));
    assert_eq!(address.len(), TEXT_MAX);
    let profile = Profile { nickname: text(&long("1")), location: text(&long("2")), ..Profile::default() };
    let new =
        NewAccount { name: name(&"語".repeat(32)), email: Email::new(&address).unwrap(), profile, ..account(1, "") };
    create(&stores, new).await;
    create(&stores, account(2, &ligatures)).await;
    change(&stores, 1, ProfileChanges { by_email: Some(true), ..ProfileChanges::default() }).await;
    for (key, whole) in [(Key::Name, "語".repeat(32)), (Key::Nickname, long("1")), (Key::Location, long("2"))] {
        for mode in [Mode::Whole, Mode::Prefix, Mode::Part] {
            assert_eq!(found(&stores, key, mode, &whole).await, [1], "{key:?} {mode:?}");
        }
        assert_eq!(found(&stores, key, Mode::Part, &format!("{whole}a")).await, NOBODY, "{key:?}");
        let end = whole.char_indices().nth(1).map_or("", |(at, _)| &whole[at..]);
        assert_eq!(found(&stores, key, Mode::Part, end).await, [1], "{key:?}");
    }
    assert_eq!(found(&stores, Key::Email, Mode::Whole, &address).await, [1]);
    for mode in [Mode::Whole, Mode::Prefix, Mode::Part] {
        assert_eq!(found(&stores, Key::Nickname, mode, &ligatures).await, [2], "{mode:?}");
    }
}

/// Splitmix64: the same users and questions in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// A text of few characters, so that many texts have parts in common.
    fn text(&mut self, length_max: u64) -> String {
        const CHARACTERS: [&str; 14] =
            ["a", "A", "Ａ", "b", "ß", "ss", "é", "e\u{301}", "明", "小", "%", "_", " ", "𠜎"];
        let characters = (0..=self.below(length_max)).map(|_| CHARACTERS[self.below(14) as usize]);
        characters.collect()
    }

    fn changes(&mut self) -> ProfileChanges {
        ProfileChanges {
            nickname: (self.below(2) == 0).then(|| text(&self.text(8))),
            location: (self.below(2) == 0).then(|| text(&self.text(5))),
            in_search: (self.below(4) == 0).then(|| self.below(2) == 0),
            by_email: (self.below(2) == 0).then(|| self.below(2) == 0),
            ..ProfileChanges::default()
        }
    }

    fn question(&mut self) -> Query {
        let keys = [Key::Name, Key::Nickname, Key::Email, Key::Location, Key::NameOrNickname];
        let mut conditions = Vec::new();
        while conditions.is_empty() || self.below(3) == 0 && conditions.len() < 5 {
            let (key, mode) =
                (keys[self.below(5) as usize], [Mode::Whole, Mode::Prefix, Mode::Part][self.below(3) as usize]);
            let asked = if key == Key::Email { format!("{}@example.org", self.below(50)) } else { self.text(2) };
            conditions.extend(Condition::new(key, mode, &asked));
        }
        Query::new(UserId(1 + self.below(40)), conditions).expect("one to five conditions")
    }
}

pub async fn random_questions_get_the_answers_of_the_reference(open: &Open<Stores>) {
    const SEED: u64 = 20_261_126;
    let (stores, reference) = (open.open().await, Stores::memory());
    let mut random = Random(SEED);
    for user in 1..=40 {
        create(&stores, account(user, "")).await;
        create(&reference, account(user, "")).await;
    }
    let mut found = 0;
    for round in 0..40 {
        for _ in 0..4 {
            let (user, changes) = (1 + random.below(40), random.changes());
            change(&stores, user, changes.clone()).await;
            change(&reference, user, changes).await;
        }
        let (owner, other) = (1 + random.below(40), 1 + random.below(40));
        let blocked = Person { user: UserId(other), name: name(&format!("0-{other}-0")) };
        for stores in [&*stores, &reference] {
            // Nobody blocks himself; that is refused by both.
            let _ = stores.contacts.block(UserId(owner), &blocked, at(0)).await;
        }
        for _ in 0..15 {
            let (question, after) =
                (random.question(), [None, Some(UserId(random.below(20)))][random.below(2) as usize]);
            let expected = reference.search.find(&question, after, 5).await.unwrap();
            let hits = stores.search.find(&question, after, 5).await.unwrap();
            assert_eq!(hits, expected, "seed {SEED}, round {round}, behind {after:?}: {question:?}");
            found += hits.cards.len();
        }
    }
    assert!(found > 200, "only {found} users were found: the questions are too hard");
}
