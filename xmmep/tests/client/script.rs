//! What the scripted servers say: ready-made messages and the parts of a login.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use xmmep::bounded::{List, PrivateText, Text};
use xmmep::client::Received;
use xmmep::frame::{self, Sequence};
use xmmep::messages::chat::{Content, TargetKind, TextKind, Tick, TxtTickNotify};
use xmmep::messages::login::{
    Buddy, BuddyState, DevicePolicy, Group, LoginRes1, LoginRes2, LoginRes3, LoginRes6, LoginResEnd,
};
use xmmep::messages::{DeviceClass, Gender, OnlineBuddy, Part, Profile, ResultMsg};
use xmmep::result_code::ResultCode;
use xmmep::secret::{KdfParams, LoginKey, Salt};
use xmmep::types::{GroupId, MsgId, RosterVersion, Status, UserId, WallTime};

pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const ME: UserId = UserId(7);
pub(crate) const BOB: UserId = UserId(8);

/// The key of the right password: derived once per salt and run of the tests.
pub(crate) fn right_key(salt: Salt) -> LoginKey {
    static KEYS: Mutex<BTreeMap<[u8; 16], LoginKey>> = Mutex::new(BTreeMap::new());
    let mut keys = KEYS.lock().unwrap();
    let derive = || LoginKey::derive(PASSWORD, &salt, KdfParams::RECOMMENDED).unwrap();
    keys.entry(salt.0).or_insert_with(derive).clone()
}

pub(crate) fn content(n: u8) -> Content {
    Content {
        id: MsgId([n; 16]),
        target_kind: TargetKind::USER,
        target: ME.0,
        order: n.into(),
        sent: WallTime(1),
        kind: TextKind::TEXT,
        body: PrivateText::new(&format!("text {n}")).unwrap(),
    }
}

pub(crate) fn received(n: u8) -> Received {
    Received { from: BOB, at: WallTime(0), from_store: false, text: content(n) }
}

pub(crate) fn tick_of(id: MsgId, tick: Tick) -> TxtTickNotify {
    TxtTickNotify { id, tick, result: ResultCode::SUCCESS, at: WallTime(5), retry_after_s: 0 }
}

pub(crate) fn refusal(code: u16, result: ResultCode) -> ResultMsg {
    ResultMsg { result, answered: xmmep::frame::Code(code), retry_after_s: 0, detail: Text::default() }
}

pub(crate) fn first(roster_unchanged: bool) -> Bytes {
    let profile = Profile {
        nickname: Text::new("Ann").unwrap(),
        personal_msg: Text::default(),
        birthdate: Text::default(),
        location: Text::default(),
        gender: Gender::NOT_STATED,
    };
    let first = LoginRes1 {
        result: ResultCode::SUCCESS,
        user: ME,
        name: "Ann".parse().unwrap(),
        profile,
        server_time: WallTime(42),
        device_policy: DevicePolicy::ONE_PER_CLASS,
        failed_attempts: 3,
        roster_unchanged,
    };
    frame::answer(&first, Sequence(1))
}

pub(crate) fn bob() -> Buddy {
    Buddy {
        user: BOB,
        name: "bob".parse().unwrap(),
        group: GroupId::DEFAULT,
        display_name: Text::default(),
        state: BuddyState::ACCEPTED,
    }
}

pub(crate) fn online(user: UserId, status: Status) -> OnlineBuddy {
    OnlineBuddy { user, status, personal_msg: Text::default(), device_class: DeviceClass::PHONE }
}

pub(crate) fn part(part: u16, parts: u16, total: u32) -> Part {
    Part { part, parts, total }
}

pub(crate) fn end(groups: u32, buddies: u32, online: u32, version: u64) -> Bytes {
    let roster_version = RosterVersion(version);
    frame::notice(&LoginResEnd { groups, buddies, blocked: 0, rooms: 0, online, roster_version })
}

/// One group, Bob, who is busy.
pub(crate) fn login_with_bob() -> Vec<Bytes> {
    let group = Group { group: GroupId(1), name: Text::new("friends").unwrap() };
    let groups = LoginRes2 { part: part(0, 1, 1), groups: List::new(vec![group]).unwrap() };
    let buddies = LoginRes3 { part: part(0, 1, 1), buddies: List::new(vec![bob()]).unwrap() };
    let online = LoginRes6 { part: part(0, 1, 1), online: List::new(vec![online(BOB, Status::BUSY)]).unwrap() };
    vec![first(false), frame::notice(&groups), frame::notice(&buddies), frame::notice(&online), end(1, 1, 1, 5)]
}
