//! The flows of a Presence, each step and then each refusal, in the simulated world. One file per flow.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod buddies;
mod chat_offline;
mod chat_online;
mod database_away;
mod engine;
mod login;
mod login_refusals;
mod policy;
mod profile;
mod status;

use std::time::Duration;

use xm_core::testing::{ClientId, ProbeId, World};
use xmmep::bounded::{List, PrivateText};
use xmmep::frame::Frame;
use xmmep::messages::ResultMsg;
use xmmep::messages::chat::{
    ConfirmLevel, Confirmed, Content, TargetKind, TextKind, Tick, TxtConfirm, TxtMsg, TxtMsgFwd, TxtTickNotify,
};
use xmmep::result_code::ResultCode;
use xmmep::types::{MsgId, UserId, WallTime};

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A world with Ann and Bob, who are buddies and not logged in.
pub(crate) fn friends(seed: u64) -> (World, ClientId, ClientId) {
    let mut world = World::new(seed);
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    world.befriend(ann, bob);
    (world, ann, bob)
}

/// How a request ended that has no other answer.
pub(crate) fn result(answer: &Frame) -> ResultCode {
    answer.message::<ResultMsg>().map(|message| message.result).expect("the answer is a ResultMsg")
}

/// The message with that number.
pub(crate) fn id(number: u64) -> MsgId {
    MsgId((u128::from(number) + 1).to_be_bytes())
}

/// A text, with its number as id.
pub(crate) fn text(to: UserId, number: u64, body: &str) -> TxtMsg {
    TxtMsg {
        text: Content {
            id: id(number),
            target_kind: TargetKind::USER,
            target: to.0,
            order: number,
            sent: WallTime(0),
            kind: TextKind::TEXT,
            body: PrivateText::new(body).expect("tests use texts that fit"),
        },
    }
}

/// A confirmation of one text.
pub(crate) fn confirm(from: UserId, number: u64, level: ConfirmLevel) -> TxtConfirm {
    TxtConfirm { level, messages: List::new(vec![Confirmed { from, id: id(number) }]).expect("one fits") }
}

/// The ticks a probe got for a text, in order.
pub(crate) fn ticks(world: &World, probe: ProbeId, number: u64) -> Vec<(Tick, ResultCode)> {
    let notices = world.probe(probe).all::<TxtTickNotify>().into_iter();
    notices.filter(|notice| notice.id == id(number)).map(|notice| (notice.tick, notice.result)).collect()
}

/// The bodies of the texts a probe got, in order.
pub(crate) fn heard(world: &World, probe: ProbeId) -> Vec<String> {
    let texts = world.probe(probe).all::<TxtMsgFwd>().into_iter();
    texts.map(|message| message.text.body.expose().to_owned()).collect()
}

pub(crate) const STORED: (Tick, ResultCode) = (Tick::STORED, ResultCode::SUCCESS);
pub(crate) const DELIVERED: (Tick, ResultCode) = (Tick::DELIVERED, ResultCode::SUCCESS);
pub(crate) const READ: (Tick, ResultCode) = (Tick::READ, ResultCode::SUCCESS);

/// A tick that turns a text down.
pub(crate) const fn refused(why: ResultCode) -> (Tick, ResultCode) {
    (Tick::REFUSED, why)
}
