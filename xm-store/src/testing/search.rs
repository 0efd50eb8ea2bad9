//! Cases of [`Search`](crate::Search): who is found by what. Pages, limits and what changes in between are in
//! `search_pages.rs`.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use xmmep::name::Email;
use xmmep::secret::KeyHash;
use xmmep::types::UserId;

use super::{AWKWARD, Open, at, name, text};
use crate::Stores;
use crate::accounts::{Creation, ProfileChanges};
use crate::contacts::{Answer, Ask};
use crate::folding::fold;
use crate::records::{Card, NewAccount, Person, Profile};
use crate::search::{Condition, Key, Mode, Query, Total};

/// The cases.
#[doc(hidden)]
#[macro_export]
macro_rules! search_cases {
    ($name:ident, $open:expr) => {
        $crate::suite_cases!(
            $name,
            $open,
            search: [
                each_key_is_looked_for_in_its_own_place,
                whole_prefix_and_part_mean_what_they_say,
                two_neighbouring_characters_find_chinese_japanese_and_korean_names,
                one_character_is_enough,
                case_width_and_normal_form_do_not_count,
                what_a_collation_would_merge_stays_different,
                wildcards_quotes_and_escapes_are_characters_like_others,
                every_awkward_text_is_found_by_itself,
                all_conditions_must_be_met,
                an_address_finds_its_owner_as_a_whole_and_if_allowed,
                who_does_not_want_to_be_found_is_not,
                who_has_blocked_the_asker_is_not_found,
                a_card_shows_what_everybody_may_see,
            ],
            search_pages: [
                a_new_user_is_found_at_once,
                a_changed_profile_is_found_by_its_new_values_alone,
                an_erased_user_is_found_no_more,
                a_change_leaves_alone_what_it_does_not_name,
                a_change_made_twice_is_made_once,
                changes_of_different_fields_at_once_are_both_made,
                changes_at_once_leave_one_of_them_to_be_found,
                pages_bring_everybody_once,
                pages_stay_in_step_while_users_come_and_go,
                no_page_is_longer_than_its_bound,
                ids_from_end_to_end_are_found_in_order,
                a_query_reaches_a_thousand_users_and_says_that_there_are_more,
                a_rare_text_made_of_frequent_pairs_is_found,
                the_longest_texts_are_found,
                random_questions_get_the_answers_of_the_reference,
            ],
        );
    };
}

pub(super) const ASKER: u64 = 1_000_000;

/// An account whose nickname is `nickname` and whose name says nothing.
pub(super) fn account(user: u64, nickname: &str) -> NewAccount {
    NewAccount {
        user: UserId(user),
        name: name(&format!("0-{user}-0")),
        email: Email::new(&format!("{user}@example.org")).unwrap(),
        key_hash: KeyHash::from_bytes([7; 32]),
        profile: Profile { nickname: text(nickname), gender: 2, ..Profile::default() },
        created: at(0),
    }
}

pub(super) async fn create(stores: &Stores, new: NewAccount) {
    assert_eq!(stores.accounts.create(new).await.unwrap(), Creation::Created);
}

/// Makes a user of each nickname, with the ids 1, 2, 3 ….
async fn nicknames(stores: &Stores, nicknames: &[&str]) {
    for (user, nickname) in (1..).zip(nicknames) {
        create(stores, account(user, nickname)).await;
    }
}

pub(super) async fn change(stores: &Stores, user: u64, changes: ProfileChanges) {
    stores.accounts.update_profile(UserId(user), &changes).await.unwrap().expect("the account is there");
}

pub(super) fn query(asker: u64, conditions: &[(Key, Mode, &str)]) -> Query {
    let conditions = conditions.iter().map(|(key, mode, text)| Condition::new(*key, *mode, text).expect("a condition"));
    Query::new(UserId(asker), conditions.collect()).expect("a query")
}

/// The ids that a query finds, which fit one page.
pub(super) async fn found_by(stores: &Stores, asker: u64, conditions: &[(Key, Mode, &str)]) -> Vec<u64> {
    let hits = stores.search.find(&query(asker, conditions), None, 50).await.unwrap();
    assert_eq!((hits.total, hits.next), (Total::Exactly(hits.cards.len()), None), "{conditions:?}");
    hits.cards.iter().map(|card| card.user.0).collect()
}

pub(super) async fn found(stores: &Stores, key: Key, mode: Mode, text: &str) -> Vec<u64> {
    found_by(stores, ASKER, &[(key, mode, text)]).await
}

const NOBODY: [u64; 0] = [];

pub async fn each_key_is_looked_for_in_its_own_place(open: &Open<Stores>) {
    let stores = open.open().await;
    let about = |nickname: &str, location: &str| Profile {
        nickname: text(nickname),
        location: text(location),
        personal_msg: text("berlin"),
        birthdate: text("berlin"),
        ..Profile::default()
    };
    create(&stores, NewAccount { name: name("berlin"), profile: about("one", "here"), ..account(1, "") }).await;
    create(&stores, NewAccount { profile: about("Berlin", "there"), ..account(2, "") }).await;
    create(&stores, NewAccount { profile: about("three", "Berlin"), ..account(3, "") }).await;
    create(&stores, NewAccount { email: Email::new("berlin@berlin").unwrap(), ..account(4, "") }).await;
    for mode in [Mode::Whole, Mode::Prefix, Mode::Part] {
        assert_eq!(found(&stores, Key::Name, mode, "berlin").await, [1], "{mode:?}");
        assert_eq!(found(&stores, Key::Nickname, mode, "berlin").await, [2], "{mode:?}");
        assert_eq!(found(&stores, Key::Location, mode, "berlin").await, [3], "{mode:?}");
        assert_eq!(found(&stores, Key::NameOrNickname, mode, "berlin").await, [1, 2], "{mode:?}");
    }
    assert_eq!(found(&stores, Key::Email, Mode::Whole, "berlin").await, NOBODY);
}

pub async fn whole_prefix_and_part_mean_what_they_say(open: &Open<Stores>) {
    let stores = open.open().await;
    nicknames(&stores, &["anna", "ann", "joanna", "hannah lee", "na", "an na", "ana", "banana"]).await;
    for (mode, text, expected) in [
        (Mode::Whole, "anna", &[1][..]),
        (Mode::Whole, "an", &[]),
        (Mode::Whole, "hannah  lee ", &[4]),
        (Mode::Prefix, "ann", &[1, 2]),
        (Mode::Prefix, "an", &[1, 2, 6, 7]),
        (Mode::Prefix, "anna ", &[1]),
        (Mode::Prefix, "annab", &[]),
        (Mode::Part, "ann", &[1, 2, 3, 4]),
        (Mode::Part, "anna", &[1, 3, 4]),
        (Mode::Part, "h l", &[4]),
        (Mode::Part, "n n", &[6]),
        (Mode::Part, "ana", &[7, 8]),
        (Mode::Part, "anan", &[8]),
        (Mode::Part, "ananan", &[]),
        (Mode::Part, "nanna", &[]),
    ] {
        assert_eq!(found(&stores, Key::Nickname, mode, text).await, expected, "{mode:?} {text:?}");
    }
}

pub async fn two_neighbouring_characters_find_chinese_japanese_and_korean_names(open: &Open<Stores>) {
    let stores = open.open().await;
    nicknames(&stores, &["王小明同学", "山田太郎", "さくらもも", "김지훈입니다", "𠜎𠜱𠝹", "王明小", "小王明"]).await;
    for (text, expected) in [
        ("小明", &[1][..]),
        ("同学", &[1]),
        ("王小", &[1]),
        ("王明", &[6, 7]),
        ("田太", &[2]),
        ("らも", &[3]),
        ("지훈", &[4]),
        ("𠜎𠜱", &[5]),
        ("𠜱𠝹", &[5]),
        ("𠜎𠝹", &[]),
        ("明同学", &[1]),
        ("学同", &[]),
        ("張三", &[]),
    ] {
        for key in [Key::Nickname, Key::NameOrNickname] {
            assert_eq!(found(&stores, key, Mode::Part, text).await, expected, "{text:?}");
        }
    }
}

pub async fn one_character_is_enough(open: &Open<Stores>) {
    let stores = open.open().await;
    nicknames(&stores, &["王小明", "明", "x", "xyz", "zyx", "𠜎", "Ｘ光", ""]).await;
    for (mode, text, expected) in [
        (Mode::Whole, "明", &[2][..]),
        (Mode::Part, "明", &[1, 2]),
        (Mode::Prefix, "明", &[2]),
        (Mode::Part, "x", &[3, 4, 5, 7]),
        (Mode::Prefix, "X", &[3, 4, 7]),
        (Mode::Part, "𠜎", &[6]),
        (Mode::Part, "q", &[]),
    ] {
        assert_eq!(found(&stores, Key::Nickname, mode, text).await, expected, "{mode:?} {text:?}");
    }
}

pub async fn case_width_and_normal_form_do_not_count(open: &Open<Stores>) {
    let stores = open.open().await;
    nicknames(&stores, &["Jörg Ａｎｎ", "jo\u{308}rg ann", "ｶﾞﾝﾀﾞﾑ", "STRASSE", "Str\u{430}ße", "ΣΊΣΥΦΟΣ", "한국"]).await;
    for (text, expected) in [
        ("JÖRG ann", &[1, 2][..]),
        ("ｊöｒｇ\u{3000}ＡＮＮ", &[1, 2]),
        ("ガンダム", &[3]),
        ("ｶﾞﾝﾀﾞﾑ", &[3]),
        ("straße", &[4]),
        ("σίσυφος", &[6]),
        ("\u{1112}\u{1161}\u{11ab}국", &[7]),
    ] {
        for mode in [Mode::Whole, Mode::Prefix, Mode::Part] {
            assert_eq!(found(&stores, Key::Nickname, mode, text).await, expected, "{mode:?} {text:?}");
        }
    }
    create(&stores, NewAccount { name: name("Jörg"), ..account(50, "") }).await;
    assert_eq!(found(&stores, Key::Name, Mode::Whole, "ＪＯ\u{308}ＲＧ").await, [50]);
    assert_eq!(found(&stores, Key::Name, Mode::Part, "ÖR").await, [50]);
}

pub async fn what_a_collation_would_merge_stays_different(open: &Open<Stores>) {
    let stores = open.open().await;
    let different =
        ["jorg", "jörg", "jørg", "か", "カ", "が", "发", "發", "a-b", "ab", "a b", "а", "a", "æ", "ae", "ن", "ي", "ى"];
    nicknames(&stores, &different).await;
    for (user, text) in (1..).zip(different) {
        assert_eq!(found(&stores, Key::Nickname, Mode::Whole, text).await, [user], "{text:?}");
    }
    assert_eq!(found(&stores, Key::Nickname, Mode::Prefix, "jo").await, [1]);
    assert_eq!(found(&stores, Key::Nickname, Mode::Part, "ör").await, [2]);
}

pub async fn wildcards_quotes_and_escapes_are_characters_like_others(open: &Open<Stores>) {
    let stores = open.open().await;
    nicknames(
        &stores,
        &["100% sure", "100 sure", "a_b", "axb", r"back\slash", "back/slash", "it's", r#""q""#, "[a-z]"],
    )
    .await;
    for (text, expected) in [
        ("100%", &[1][..]),
        ("%", &[1]),
        ("a_b", &[3]),
        ("_", &[3]),
        ("a?b", &[]),
        ("a*", &[]),
        (r"k\s", &[5]),
        (r"\", &[5]),
        ("t's", &[7]),
        ("'", &[7]),
        (r#""q"#, &[8]),
        ("[a-z]", &[9]),
        ("[a", &[9]),
        ("' OR 1=1 --", &[]),
        ("%%", &[]),
    ] {
        assert_eq!(found(&stores, Key::Nickname, Mode::Part, text).await, expected, "{text:?}");
    }
    assert_eq!(found(&stores, Key::Nickname, Mode::Prefix, "100%").await, [1]);
    assert_eq!(found(&stores, Key::Nickname, Mode::Whole, "a_b").await, [3]);
}

pub async fn every_awkward_text_is_found_by_itself(open: &Open<Stores>) {
    let stores = open.open().await;
    for (user, about) in (1..).zip(AWKWARD) {
        let profile = Profile { nickname: text(about), location: text(about), ..Profile::default() };
        create(&stores, NewAccount { profile, ..account(user, "") }).await;
    }
    for (user, about) in (1..).zip(AWKWARD).filter(|(_, about)| !fold(about).is_empty()) {
        let second = about.char_indices().nth(1).map_or(0, |(at, _)| at);
        for key in [Key::Nickname, Key::Location, Key::NameOrNickname] {
            for mode in [Mode::Whole, Mode::Prefix, Mode::Part] {
                assert_eq!(found(&stores, key, mode, about).await, [user], "{key:?} {mode:?} {about:?}");
            }
            if fold(about).contains(&fold(&about[second..])) {
                assert_eq!(found(&stores, key, Mode::Part, &about[second..]).await, [user], "{key:?} {about:?}");
            }
        }
    }
}

pub async fn all_conditions_must_be_met(open: &Open<Stores>) {
    let stores = open.open().await;
    for (user, user_name, nickname, location) in [
        (1, "ann.lee", "Annie", "Berlin, Mitte"),
        (2, "ann.kim", "Annie", "Seoul"),
        (3, "bob", "Ann", "Berlin"),
        (4, "annika", "anna", "Bern"),
    ] {
        let profile = Profile { nickname: text(nickname), location: text(location), ..Profile::default() };
        create(&stores, NewAccount { name: name(user_name), profile, ..account(user, "") }).await;
    }
    let both = |location| [(Key::Nickname, Mode::Part, "ann"), (Key::Location, Mode::Prefix, location)];
    assert_eq!(found_by(&stores, ASKER, &both("ber")).await, [1, 3, 4]);
    assert_eq!(found_by(&stores, ASKER, &both("berlin")).await, [1, 3]);
    assert_eq!(found_by(&stores, ASKER, &both("paris")).await, NOBODY);
    let five = [
        (Key::Name, Mode::Prefix, "ann"),
        (Key::Nickname, Mode::Whole, "annie"),
        (Key::NameOrNickname, Mode::Part, "lee"),
        (Key::Location, Mode::Part, "tt"),
        (Key::Location, Mode::Part, "b"),
    ];
    assert_eq!(found_by(&stores, ASKER, &five).await, [1]);
    let twice = [(Key::Nickname, Mode::Part, "nn"), (Key::Nickname, Mode::Part, "ie")];
    assert_eq!(found_by(&stores, ASKER, &twice).await, [1, 2], "the same key twice: both must be met");
}

pub async fn an_address_finds_its_owner_as_a_whole_and_if_allowed(open: &Open<Stores>) {
    let stores = open.open().await;
    create(&stores, NewAccount { email: Email::new("O'Ann+x@Example.org").unwrap(), ..account(1, "ann") }).await;
    let by_email = |text: &'static str| found(&stores, Key::Email, Mode::Whole, text);
    assert_eq!(by_email("o'ann+x@example.org").await, NOBODY, "nobody is asked for permission after the fact");
    change(&stores, 1, ProfileChanges { by_email: Some(true), ..ProfileChanges::default() }).await;
    assert_eq!(by_email("o'ann+x@example.org").await, [1]);
    assert_eq!(by_email("O'ANN+X@EXAMPLE.ORG").await, [1]);
    for other in ["ann+x@example.org", "o'ann+x@example.or", "o'ann_x@example.org", "%", "o'ann+x@example.org.x"] {
        assert_eq!(by_email(other).await, NOBODY, "{other:?}");
    }
    let also = [(Key::Email, Mode::Whole, "o'ann+x@example.org"), (Key::Nickname, Mode::Whole, "bob")];
    assert_eq!(found_by(&stores, ASKER, &also).await, NOBODY);
    change(&stores, 1, ProfileChanges { by_email: Some(false), ..ProfileChanges::default() }).await;
    assert_eq!(by_email("o'ann+x@example.org").await, NOBODY);
    assert_eq!(found(&stores, Key::Nickname, Mode::Whole, "ann").await, [1]);
}

pub async fn who_does_not_want_to_be_found_is_not(open: &Open<Stores>) {
    let stores = open.open().await;
    nicknames(&stores, &["ann", "ann", "ann"]).await;
    let hide = ProfileChanges {
        in_search: Some(false),
        by_email: Some(true),
        location: Some(text("here")),
        ..Default::default()
    };
    change(&stores, 2, hide).await;
    drop(stores);
    let stores = open.open().await;
    for mode in [Mode::Whole, Mode::Prefix, Mode::Part] {
        assert_eq!(found(&stores, Key::Nickname, mode, "ann").await, [1, 3], "{mode:?}: not in the total either");
    }
    assert_eq!(found(&stores, Key::Email, Mode::Whole, "2@example.org").await, NOBODY);
    change(&stores, 2, ProfileChanges { in_search: Some(true), ..Default::default() }).await;
    assert_eq!(found(&stores, Key::Nickname, Mode::Part, "nn").await, [1, 2, 3]);
    assert_eq!(found(&stores, Key::Email, Mode::Whole, "2@example.org").await, [2]);
    assert_eq!(found(&stores, Key::Location, Mode::Part, "her").await, [2]);
}

pub async fn who_has_blocked_the_asker_is_not_found(open: &Open<Stores>) {
    let stores = open.open().await;
    nicknames(&stores, &["ann", "anna", "annie"]).await;
    create(&stores, account(ASKER, "ann the asker")).await;
    let person = |user: u64| Person { user: UserId(user), name: name(&format!("0-{user}-0")) };
    let ann = (Key::Nickname, Mode::Prefix, "ann");
    let wish = Ask {
        me: person(ASKER),
        buddy: person(2),
        display_name: text(""),
        group: xmmep::types::GroupId::DEFAULT,
        greeting: text(""),
        at: at(0),
    };
    stores.contacts.ask(wish).await.unwrap();
    stores.contacts.answer(&person(2), UserId(ASKER), Answer::AcceptAndAdd, at(0)).await.unwrap();
    stores.contacts.block(UserId(2), &person(ASKER), at(1)).await.unwrap();
    stores.contacts.block(UserId(ASKER), &person(3), at(1)).await.unwrap();
    assert_eq!(found_by(&stores, ASKER, &[ann]).await, [1, 3, ASKER], "also a buddy; whom one blocked is found");
    assert_eq!(found_by(&stores, 3, &[ann]).await, [1, 2, 3], "who was blocked does not find the blocker");
    assert_eq!(found_by(&stores, 77, &[ann]).await, [1, 2, 3, ASKER]);
    for (mode, text) in [(Mode::Whole, "anna"), (Mode::Part, "nna"), (Mode::Part, "a")] {
        assert!(!found(&stores, Key::Nickname, mode, text).await.contains(&2), "{mode:?} {text:?}");
    }
    stores.contacts.unblock(UserId(2), UserId(ASKER), None).await.unwrap();
    assert_eq!(found_by(&stores, ASKER, &[ann]).await, [1, 2, 3, ASKER]);
}

pub async fn a_card_shows_what_everybody_may_see(open: &Open<Stores>) {
    let stores = open.open().await;
    let profile = Profile {
        nickname: text("Ann \"Lee\""),
        personal_msg: text("'tis me %"),
        birthdate: text("1999-12-31"),
        location: text("北京 "),
        gender: 0,
        avatar: Some([9; 32]),
    };
    let new = NewAccount { name: name("Ann_Lee"), profile: profile.clone(), ..account(1, "") };
    create(&stores, new.clone()).await;
    let card = Card {
        user: UserId(1),
        name: new.name,
        nickname: profile.nickname,
        personal_msg: profile.personal_msg,
        location: profile.location,
        avatar: Some([9; 32]),
    };
    let hits = stores.search.find(&query(ASKER, &[(Key::Location, Mode::Part, "北京")]), None, 50).await.unwrap();
    assert_eq!(hits.cards, [card]);
    assert_eq!(hits.cards[0].name.as_str(), "Ann_Lee", "as its owner writes it");
}
