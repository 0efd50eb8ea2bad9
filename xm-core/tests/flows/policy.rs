//! Who may send what: every message of the catalogue, and every code nobody knows, from strangers, clients and servers.

use xm_core::origin::Sender;
use xm_core::presence;
use xm_core::testing::{ProbeId, World};
use xmmep::catalog;
use xmmep::frame::{Code, Frame};
use xmmep::messages::ResultMsg;
use xmmep::result_code::ResultCode;
use xmmep::sample::Sampler;

use crate::{ms, secs};

/// What the access policy makes of a code from a sender: refused like this, or heard.
fn expected(code: Code, sender: Sender) -> Option<ResultCode> {
    let policy = presence::handlers().policy();
    let Some((.., allowed)) = policy.iter().find(|(known, ..)| *known == code) else {
        return Some(ResultCode::UNKNOWN_CODE);
    };
    match (sender, *allowed) {
        (sender, allowed) if sender == allowed => None,
        (Sender::Stranger, Sender::Client) | (Sender::Client, Sender::Stranger) => Some(ResultCode::BAD_STATE),
        _ => Some(ResultCode::WRONG_ROLE),
    }
}

fn refusal(answer: &Frame) -> Option<ResultCode> {
    let by_policy = [ResultCode::UNKNOWN_CODE, ResultCode::BAD_STATE, ResultCode::WRONG_ROLE];
    answer.message::<ResultMsg>().ok().map(|message| message.result).filter(|result| by_policy.contains(result))
}

fn check(world: &mut World, probe: ProbeId, sender: Sender, code: Code, body: &[u8]) {
    let answer = world.ask_raw(probe, code, body);
    assert_eq!(refusal(&answer), expected(code, sender), "{code} from {sender:?}");
    let named = answer.message::<ResultMsg>().map_or(code, |message| message.answered);
    assert_eq!(named, code, "the refusal names what it refuses");
}

#[test]
fn each_message_is_heard_from_its_sender_and_refused_from_every_other() {
    for message in catalog::all() {
        let body = (message.sample)(&mut Sampler::new(1));
        let mut world = World::new(1);
        let ann = world.add_user("ann");
        let stranger = world.connect(0);
        if message.name != "LoginReq" {
            check(&mut world, stranger, Sender::Stranger, message.code, &body);
        }
        assert_eq!(world.probe(stranger).ended, None, "{} from a stranger ends nothing", message.name);
        let client = world.ready_probe_as(ann);
        check(&mut world, client, Sender::Client, message.code, &body);
        world.run(ms(100));
        let ended = world.probe(client).ended.is_some();
        assert_eq!(ended, message.name == "LogoutReq", "{} from a client", message.name);
    }
}

#[test]
fn the_policy_lists_what_this_page_was_written_for() {
    let strangers: Vec<_> = presence::handlers()
        .policy()
        .into_iter()
        .filter(|(.., sender)| *sender == Sender::Stranger)
        .map(|(_, name, _)| name)
        .collect();
    assert_eq!(strangers, ["LoginReq"], "whoever adds something for strangers says here why it is cheap and safe");
    let links: Vec<_> = presence::handlers()
        .policy()
        .into_iter()
        .filter(|(.., sender)| *sender == Sender::Link)
        .map(|(_, name, _)| name)
        .collect();
    assert_eq!(links, ["UserRegisteredNotify"]);
}

#[test]
fn codes_nobody_knows_get_a_defined_answer_and_the_session_lives() {
    let mut world = World::new(2);
    let ann = world.add_user("ann");
    let (stranger, client) = (world.connect(0), world.ready_probe_as(ann));
    for code in [0, 2, 99, 106, 999, 0x7fff, 0x8000, 0xffff] {
        for body in [&[][..], &[0xff; 500]] {
            check(&mut world, stranger, Sender::Stranger, Code(code), body);
            check(&mut world, client, Sender::Client, Code(code), body);
        }
    }
    assert_eq!((world.probe(stranger).ended, world.probe(client).ended), (None, None));
}

#[test]
fn bodies_cut_short_or_full_of_rubbish_are_refused_and_the_session_lives() {
    let mut world = World::new(3);
    let ann = world.add_user("ann");
    for (code, name, sender) in presence::handlers().policy() {
        if sender != Sender::Client || name == "LogoutReq" || name == "ClientReady" {
            continue;
        }
        let client = world.ready_probe_as(ann);
        for body in [&[][..], &[0xff; 3], &[0xff; 200]] {
            let answer = world.ask_raw(client, code, body);
            let result = answer.message::<ResultMsg>().map(|message| message.result);
            assert_eq!(result.ok(), Some(ResultCode::PARAM_ERROR), "{name} with {} bytes", body.len());
        }
        assert_eq!(world.probe(client).ended, None, "{name}");
    }
}

#[test]
fn a_frame_without_a_header_and_an_answer_to_nothing_are_not_answered() {
    let mut world = World::new(4);
    let ann = world.add_user("ann");
    let client = world.ready_probe_as(ann);
    world.probe_mut(client).forget();
    for frame in [&b""[..], b"\0", b"\0\x96\x01\0\0\0\x07", b"\0\x96\x80\0\0\0\x07body"] {
        if !frame.is_empty() {
            world.say_frame(client, frame.to_vec().into());
        }
    }
    world.run(secs(1));
    assert_eq!(world.probe(client).heard, []);
    assert_eq!(world.probe(client).ended, None);
}
