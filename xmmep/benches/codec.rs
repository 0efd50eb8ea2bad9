//! What a message costs: nanoseconds to encode and decode, bytes on the wire. Each result is dropped at once, as a server
//! does, so that its memory is used again.
//!
//! `cargo bench -p xmmep --bench codec`. The table of bytes per message is in `docs/PROTOCOL.md`, section 21.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::BytesCount;
use xmmep::bounded::{List, PrivateText, Text};
use xmmep::catalog;
use xmmep::frame::{self, Frame};
use xmmep::message::Message;
use xmmep::messages::buddies::AddBuddyReq;
use xmmep::messages::chat::{ConfirmLevel, Confirmed, Content, TargetKind, TextKind, Tick, TxtConfirm, TxtMsg};
use xmmep::messages::chat::{TxtMsgFwd, TxtTickNotify};
use xmmep::messages::login::{Buddy, BuddyState, LoginRes3};
use xmmep::messages::status::StatusChangedNotifyFwd;
use xmmep::messages::{Part, StatusChange};
use xmmep::name::UserName;
use xmmep::result_code::ResultCode;
use xmmep::types::{GroupId, MsgId, Status, UserId, WallTime};

fn main() {
    divan::main();
}

const AT: WallTime = WallTime(1_795_000_000_000);

/// A message of the size people send: 100 bytes of text.
fn text() -> Content {
    Content {
        id: MsgId([7; 16]),
        target_kind: TargetKind::USER,
        target: 1_234_567,
        order: 42,
        sent: AT,
        kind: TextKind::TEXT,
        body: PrivateText::new(&"x".repeat(100)).expect("100 bytes"),
    }
}

fn txt_msg() -> TxtMsg {
    TxtMsg { text: text() }
}

fn txt_msg_fwd() -> TxtMsgFwd {
    TxtMsgFwd { from: UserId(7_654_321), at: AT, from_store: false, text: text() }
}

fn tick() -> TxtTickNotify {
    TxtTickNotify { id: MsgId([7; 16]), tick: Tick::DELIVERED, result: ResultCode::SUCCESS, at: AT, retry_after_s: 0 }
}

fn confirm() -> TxtConfirm {
    let one = Confirmed { from: UserId(7_654_321), id: MsgId([7; 16]) };
    TxtConfirm { level: ConfirmLevel::RECEIVED, messages: List::new(vec![one]).expect("one") }
}

fn status() -> StatusChangedNotifyFwd {
    let one = StatusChange { user: UserId(7_654_321), status: Status::AWAY };
    StatusChangedNotifyFwd { changes: List::new(vec![one]).expect("one") }
}

fn add_buddy() -> AddBuddyReq {
    let name = UserName::new("Jörg").expect("a name");
    AddBuddyReq { name, display_name: Text::cut("J."), group: GroupId::DEFAULT, greeting: Text::cut("hello") }
}

/// Twenty buddies, as the design counts memory.
fn buddies() -> LoginRes3 {
    let buddy = |number: u64| Buddy {
        user: UserId(1_000_000 + number),
        name: UserName::new(&format!("buddy{number}")).expect("a name"),
        group: GroupId::DEFAULT,
        display_name: Text::default(),
        state: BuddyState::ACCEPTED,
    };
    let part = Part { part: 0, parts: 1, total: 20 };
    LoginRes3 { part, buddies: List::new((0..20).map(buddy).collect()).expect("twenty") }
}

fn encode<M: Message>(bencher: Bencher, message: M) {
    let bytes = frame::notice(&message).len();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| drop(black_box(frame::notice(black_box(&message)))));
}

fn decode<M: Message>(bencher: Bencher, message: M) {
    let bytes = frame::notice(&message);
    let read = |bytes: bytes::Bytes| Frame::decode(bytes).and_then(|frame| frame.message::<M>());
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| drop(black_box(read(black_box(bytes.clone())))));
}

fn both<M: Message>(bencher: Bencher, message: M) {
    let bytes = frame::notice(&message).len();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let frame = Frame::decode(frame::notice(black_box(&message)));
        drop(black_box(frame.and_then(|frame| frame.message::<M>())));
    });
}

/// A benchmark per message, the same three for each.
macro_rules! codec {
    ($($name:ident),*) => { $(
        mod $name {
            #[divan::bench]
            fn encode(bencher: divan::Bencher) {
                super::encode(bencher, super::$name());
            }

            #[divan::bench]
            fn decode(bencher: divan::Bencher) {
                super::decode(bencher, super::$name());
            }

            #[divan::bench]
            fn both(bencher: divan::Bencher) {
                super::both(bencher, super::$name());
            }
        }
    )* };
}

codec!(txt_msg, txt_msg_fwd, tick, confirm, status, add_buddy, buddies);

/// What the engine does first with every frame: the header, without the body.
#[divan::bench]
fn header_alone(bencher: Bencher) {
    let bytes = frame::notice(&txt_msg());
    bencher.bench_local(|| drop(black_box(Frame::decode(black_box(bytes.clone())))));
}

/// A code to its entry in the catalogue; servers use the handler table instead.
#[divan::bench]
fn find_in_catalogue() -> Option<&'static str> {
    catalog::find(black_box(TxtTickNotify::CODE)).map(|message| message.name)
}
