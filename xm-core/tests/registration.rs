//! Registration from the form to the account, across Register, Router and Presence; then what is refused, and what
//! happens when one of them is away or an answer is lost.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod registration_world;

use std::time::Duration;

use registration_world::{DAY, SECRET, START, World, email, form, profile, token_in, user};
use xm_core::link::LinkError;
use xm_core::origin::Peer;
use xm_core::register::{ActivateRefusal, RegisterRefusal};
use xm_store::records::{MailState, PlacementState};
use xmmep::bounded::Text;
use xmmep::messages::registration::{ActivationResendReq, RegisterActivateReq, RegisterReq};
use xmmep::result_code::ResultCode;
use xmmep::secret::{KdfParams, KeyHash, Salt, Token, TokenHash};
use xmmep::types::{PresenceId, RequestId, WallTime};

const NOT_READY: ActivateRefusal = ActivateRefusal::NotReady { retry_after_s: 2 };

#[test]
fn a_form_becomes_a_mail_and_its_token_an_account() {
    let mut world = World::new(1).with_presence();

    let registered = world.register("Ann", "ann@example.org").unwrap();
    let mails = world.mails_to("ann@example.org");
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].id, registered.mail);
    assert!(mails[0].body.expose().contains("the name Ann"), "the mail says for which name");
    assert_eq!(world.account(0, "ann"), None, "nothing exists before the token came back");
    let token = token_in(&mails[0]).expect("the mail has a link with a token");
    assert_eq!(world.activate(token), Ok(user("Ann")));

    let account = world.account(0, "ann").expect("the Presence has the account");
    let placement = world.placement("ann").unwrap();
    assert_eq!((account.user, account.email, account.created), (placement.user, email("ann@example.org"), START));
    assert!(account.key_hash == KeyHash::from_bytes([8; 32]));
    assert_eq!(account.profile.nickname, profile().nickname);
    assert_eq!(account.profile.gender, profile().gender.0);
    assert_eq!(placement.state, PlacementState::Active { presence: PresenceId { cluster: 1, presence: 1 } });
    assert!(placement.form.is_none(), "the Router forgets the form");
}

#[test]
fn a_registration_repeated_after_a_lost_answer_makes_one_user_and_one_mail_whose_token_works() {
    for restart in [false, true] {
        let mut world = World::new(2).with_presence();
        let request = world.register.request_id();

        world.to_register.lose(1);
        let lost = world.register_again(request, "Ann", "ann@example.org");
        assert_eq!(lost, Err(RegisterRefusal::NotReady { retry_after_s: 2 }));
        assert!(world.mails_to("ann@example.org").is_empty());
        if restart {
            world.restart_register();
        }
        for _ in 0..3 {
            assert_eq!(world.register_again(request, "Ann", "ann@example.org").unwrap().mail, request);
        }

        let mails = world.mails_to("ann@example.org");
        assert_eq!(mails.len(), 1);
        assert_eq!(world.activate(token_in(&mails[0]).unwrap()), Ok(user("Ann")), "restart: {restart}");
    }
}

#[test]
fn a_request_id_repeated_with_somebody_elses_address_mails_nothing_that_works() {
    let mut world = World::new(3).with_presence();
    let request = world.register.request_id();
    world.register_again(request, "Ann", "ann@example.org").unwrap();
    world.register_again(request, "Ann", "eve@example.org").unwrap();

    assert!(world.mails_to("eve@example.org").is_empty(), "the mail of that id is the first one");
    assert!(world.placement("ann").unwrap().email == email("ann@example.org"));
}

#[test]
fn a_taken_name_is_told_in_any_spelling() {
    let mut world = World::new(4);
    world.register("Jörg", "one@example.org").unwrap();
    for name in ["Jörg", "jörg", "JÖRG", "Jo\u{308}rg", "\u{ff2a}örg"] {
        assert_eq!(world.register(name, "two@example.org"), Err(RegisterRefusal::NameTaken), "{name:?}");
    }
    assert!(world.mails_to("two@example.org").is_empty());
}

#[test]
fn a_reserved_name_is_taken_in_any_spelling() {
    let mut world = World::new(5);
    for name in ["Admin", "aDMIN", "\u{ff21}dmin"] {
        assert_eq!(world.register(name, "ann@example.org"), Err(RegisterRefusal::NameTaken), "{name:?}");
    }
    assert_eq!(world.placement("admin"), None);
}

#[test]
fn a_taken_address_looks_like_success_and_its_owner_is_told_now_and_then() {
    let mut world = World::new(6);
    world.register("Ann", "Ann@example.org").unwrap();
    let before = world.mails_to("ann@example.org").len();

    let request = world.register.request_id();
    let registered = world.register_again(request, "Bob", "aNN@Example.ORG").expect("it looks like success");
    assert_eq!(registered.mail, request);
    let told = world.mails_to("ann@example.org").split_off(before);
    assert_eq!(told.len(), 1);
    assert!(told[0].body.expose().contains("Somebody has tried to register"));
    assert!(token_in(&told[0]).is_none() && !told[0].body.expose().contains("Bob"), "nothing of the form is in it");
    assert_eq!(world.placement("bob"), None);

    let again = world.register("Carl", "ann@example.org").expect("it still looks like success");
    assert_eq!(world.mails_to("ann@example.org").len(), before + 1, "but its owner is not flooded");
    let state = world.register.clone();
    let state = world.run(async move { state.mail_state(again.mail).await.unwrap() });
    assert!(
        matches!(state, Some(MailState::Waiting { .. })),
        "the status page finds a mail as for everybody: {state:?}"
    );
}

#[test]
fn of_a_taken_name_and_address_only_the_name_is_told() {
    let mut world = World::new(7);
    world.register("Ann", "ann@example.org").unwrap();
    world.register("Bob", "bob@example.org").unwrap();
    for address in ["ann@example.org", "bob@example.org", "new@example.org"] {
        assert_eq!(world.register("Ann", address), Err(RegisterRefusal::NameTaken), "{address}");
        assert_eq!(world.mails_to(address).len(), usize::from(address != "new@example.org"), "{address}");
    }
}

#[test]
fn a_token_works_once() {
    let mut world = World::new(8).with_presence();
    world.register("Ann", "ann@example.org").unwrap();
    let token = token_in(&world.mails_to("ann@example.org")[0]).unwrap();
    assert!(world.activate(token.clone()).is_ok());
    assert_eq!(world.activate(token), Err(ActivateRefusal::BadToken));
}

#[test]
fn a_token_of_nobody_activates_nothing_whoever_is_away() {
    let mut world = World::new(9);
    world.register("Ann", "ann@example.org").unwrap();
    let token = token_in(&world.mails_to("ann@example.org")[0]).unwrap();
    let mut foreign = *token.expose();
    foreign[31] ^= 1;
    assert_eq!(world.activate(Token::from_bytes(foreign)), Err(ActivateRefusal::BadToken));
    assert_eq!(world.activate(Token::from_bytes([0; 32])), Err(ActivateRefusal::BadToken));
    assert!(matches!(world.placement("ann").unwrap().state, PlacementState::Registered { .. }));
}

#[test]
fn an_expired_token_activates_nothing_and_frees_name_and_address() {
    let mut world = World::new(10).with_presence();
    world.register("Ann", "ann@example.org").unwrap();
    let token = token_in(&world.mails_to("ann@example.org")[0]).unwrap();

    world.advance(7 * DAY);
    assert_eq!(world.activate(token.clone()), Err(ActivateRefusal::BadToken));
    assert_eq!(world.placement("ann"), None, "housekeeping has removed it");
    world.register("ann", "Ann@example.org").unwrap();
    let new = token_in(world.mails_to("ann@example.org").last().unwrap()).unwrap();
    assert_eq!(world.activate(token), Err(ActivateRefusal::BadToken));
    assert_eq!(world.activate(new), Ok(user("ann")));
}

#[test]
fn a_mail_sent_again_has_a_new_token_and_the_old_one_is_dead() {
    let mut world = World::new(11).with_presence();
    world.register("Ann", "ann@example.org").unwrap();
    world.resend("ANN@example.org");
    let mails = world.mails_to("ann@example.org");
    assert_eq!(mails.len(), 2);
    let mut tokens: Vec<_> = mails.iter().map(|mail| token_in(mail).unwrap()).collect();
    tokens.sort_by_key(|token| world.is_current(token));
    let [dead, new] = <[Token; 2]>::try_from(tokens).unwrap();
    assert_eq!(world.activate(dead), Err(ActivateRefusal::BadToken));
    assert_eq!(world.activate(new), Ok(user("Ann")));
}

#[test]
fn a_mail_is_sent_again_once_in_five_minutes_and_three_times_a_day() {
    let mut world = World::new(12);
    world.register("Ann", "ann@example.org").unwrap();
    let mut counts = Vec::new();
    for _ in 0..6 {
        world.resend("ann@example.org");
        world.resend("ann@example.org");
        counts.push(world.mails_to("ann@example.org").len());
        world.advance(Duration::from_secs(300));
    }
    assert_eq!(counts, [2, 3, 4, 4, 4, 4]);
    world.advance(DAY);
    world.resend("ann@example.org");
    assert_eq!(world.mails_to("ann@example.org").len(), 5);
}

#[test]
fn a_mail_whose_renewal_got_no_answer_is_sent_with_the_token_that_counts() {
    let mut world = World::new(13).with_presence();
    world.register("Ann", "ann@example.org").unwrap();
    let old = token_in(&world.mails_to("ann@example.org")[0]).unwrap();
    world.to_register.lose(1);
    world.resend("ann@example.org");
    assert_eq!(world.activate(old.clone()), Err(ActivateRefusal::BadToken));
    let new = world.mails_to("ann@example.org").iter().filter_map(token_in).find(|token| *token != old).unwrap();
    assert_eq!(world.activate(new), Ok(user("Ann")));
}

#[test]
fn nobody_without_a_waiting_registration_gets_a_mail_again() {
    let mut world = World::new(14).with_presence();
    world.member("Ann");
    let before = world.mails_to("ann@example.org").len();
    world.resend("ann@example.org");
    world.resend("nobody@example.org");
    assert_eq!(world.mails_to("ann@example.org").len(), before);
    assert!(world.mails_to("nobody@example.org").is_empty());
}

#[test]
fn without_a_presence_an_activation_waits_and_nothing_is_lost() {
    let mut world = World::new(15);
    let home = world.presence();
    world.register("Ann", "ann@example.org").unwrap();
    let token = token_in(&world.mails_to("ann@example.org")[0]).unwrap();
    assert_eq!(world.activate(token.clone()), Err(NOT_READY));
    world.connect(home).unwrap();
    assert_eq!(world.activate(token), Ok(user("Ann")));
}

#[test]
fn an_activation_whose_presence_goes_away_is_finished_when_it_registers_again() {
    let mut world = World::new(16).with_presence();
    world.register("Ann", "ann@example.org").unwrap();
    let token = token_in(&world.mails_to("ann@example.org")[0]).unwrap();
    world.presences[0].inlet.lose(1);
    assert_eq!(world.activate(token.clone()), Err(NOT_READY));
    assert_eq!(world.account(0, "ann"), None);
    world.disconnect(0);
    assert_eq!(world.activate(token), Err(NOT_READY), "its Presence is chosen, and away");

    world.connect(0).unwrap();
    assert!(world.account(0, "ann").is_some());
    assert_eq!(world.placement("ann").unwrap().home(), Some(world.presences[0].identity));
}

#[test]
fn an_activation_that_got_stuck_is_finished_within_half_a_minute() {
    let mut world = World::new(17).with_presence();
    world.register("Ann", "ann@example.org").unwrap();
    let token = token_in(&world.mails_to("ann@example.org")[0]).unwrap();
    world.presences[0].inlet.lose(1);
    assert_eq!(world.activate(token), Err(NOT_READY));
    world.advance(Duration::from_secs(30));
    assert!(world.account(0, "ann").is_some());
}

#[test]
fn an_activation_whose_last_answer_is_lost_makes_one_account_and_the_token_is_spent() {
    let mut world = World::new(18).with_presence();
    world.register("Ann", "ann@example.org").unwrap();
    let token = token_in(&world.mails_to("ann@example.org")[0]).unwrap();
    world.to_register.lose(1);
    assert_eq!(world.activate(token.clone()), Err(NOT_READY));
    assert!(world.account(0, "ann").is_some());
    assert_eq!(world.activate(token), Err(ActivateRefusal::BadToken));
}

#[test]
fn new_users_go_to_the_presence_that_was_given_the_fewest() {
    let mut world = World::new(19).with_presence().with_presence();
    for name in ["u1", "u2", "u3", "u4"] {
        world.member(name);
    }
    for home in 0..2 {
        let identity = world.presences[home].identity;
        let names = ["u1", "u2", "u3", "u4"];
        let here = names.iter().filter(|name| world.account(home, name).is_some()).count();
        assert_eq!(here, 2, "at {identity}");
    }
    world.disconnect(0);
    world.member("u5");
    assert!(world.account(1, "u5").is_some(), "one that is away gets nobody");
}

#[test]
fn only_a_register_may_register_and_activate() {
    let mut world = World::new(20).with_presence();
    let form = form("Ann", "ann@example.org");
    let (request, token_hash, token_expires) = (RequestId([1; 16]), TokenHash::from_bytes([1; 32]), in_days(1));
    let reserve = RegisterReq {
        request,
        name: form.name,
        email: form.email,
        salt: form.salt,
        kdf: form.kdf,
        key_hash: form.key_hash,
        token_hash: token_hash.clone(),
        token_expires,
        profile: form.profile,
    };
    let activate = RegisterActivateReq { token: Token::from_bytes([1; 32]) };
    let renew = ActivationResendReq { request, email: email("ann@example.org"), token_hash, token_expires };
    for peer in [Peer::Presence(PresenceId { cluster: 1, presence: 1 }), Peer::Router] {
        let link = world.peer(peer);
        let now = world.now.mono;
        let codes = [
            code(world.run(link.request(now, &reserve))),
            code(world.run(link.request(now, &activate))),
            code(world.run(link.order(now, &renew))),
        ];
        assert_eq!(codes, [ResultCode::WRONG_ROLE; 3], "{peer:?}");
    }
    assert_eq!(world.placement("ann"), None);
}

#[test]
fn what_breaks_a_rule_is_refused_by_name_and_nothing_is_stored() {
    let mut world = World::new(21);
    let link = world.peer(Peer::Register);
    let now = world.now.mono;
    let fine = form("Ann", "ann@example.org");
    let fine = RegisterReq {
        request: RequestId([1; 16]),
        name: fine.name,
        email: fine.email,
        salt: Salt([1; 16]),
        kdf: KdfParams::RECOMMENDED,
        key_hash: fine.key_hash,
        token_hash: TokenHash::from_bytes([1; 32]),
        token_expires: in_days(7),
        profile: fine.profile,
    };
    let weak = KdfParams { memory_kib: 8, ..KdfParams::RECOMMENDED };
    for (field, bad) in [
        ("kdf", RegisterReq { kdf: weak, ..fine.clone() }),
        ("token_expires", RegisterReq { token_expires: START, ..fine.clone() }),
        ("token_expires", RegisterReq { token_expires: in_days(32), ..fine.clone() }),
        ("token_expires", RegisterReq { token_expires: WallTime(u64::MAX), ..fine.clone() }),
    ] {
        let refused = match world.run(link.request(now, &bad)) {
            Err(LinkError::Refused(refused)) => refused,
            other => panic!("{field}: {other:?}"),
        };
        assert_eq!(refused.result, ResultCode::PARAM_ERROR);
        assert!(refused.detail.starts_with(field), "{}", refused.detail);
    }
    assert_eq!(world.placement("ann"), None);
    assert_eq!(world.run(link.request(now, &fine)).unwrap().result, ResultCode::SUCCESS);
}

#[test]
fn secrets_do_not_print() {
    let config = xm_core::register::RegisterConfig::new(Text::cut("https://x"), SECRET);
    let router = xm_core::router::RouterConfig::new(SECRET);
    let printed = format!("{config:?} {router:?} {:?}", form("Ann", "ann@example.org"));
    assert!(!printed.contains("42, 42") && !printed.contains("8, 8"), "{printed}");
}

fn in_days(days: u32) -> WallTime {
    START.after(days * DAY)
}

fn code<T: std::fmt::Debug>(answer: Result<T, LinkError>) -> ResultCode {
    match answer {
        Err(LinkError::Refused(refused)) => refused.result,
        other => panic!("not refused: {other:?}"),
    }
}
