//! The messages, one file per flow. Here: what any link carries, and records that several flows share.

pub mod buddies;
pub mod chat;
pub mod links;
pub mod login;
pub mod profile;
pub mod registration;
pub mod status;

use crate::bounded::Text;
use crate::frame::Code;
use crate::message::records;
use crate::name::UserName;
use crate::result_code::ResultCode;
use crate::types::{Status, UserId, WallTime, open_enum};

/// Bytes in a nickname, a display name, a location.
pub const NICKNAME_MAX: usize = 128;
/// Bytes in a personal message or a greeting.
pub const GREETING_MAX: usize = 256;

crate::messages! {
    /// Any side → any side: how a request ended that has no answer of its own, or why it was refused.
    ///
    /// Sent as an answer, matched by the sequence number. An answer is never answered.
    1 ResultMsg {
        /// How it ended.
        result: ResultCode,
        /// The code of the request.
        answered: Code,
        /// With `SERVER_BUSY`, `SERVER_NOT_READY` and `RATE_LIMITED`: seconds to wait before trying again; else 0.
        retry_after_s: u32,
        /// For people and logs; programs look at `result`.
        detail: Text<256>,
    }
}

records! {
    /// The head of an answer in several messages. Parts are cut by encoded size (at most 1,100 bytes).
    Part {
        /// This part, from 0.
        part: u16,
        /// How many parts there are.
        parts: u16,
        /// How many entries all parts have together.
        total: u32,
    }
    /// What a user tells about himself. Every field may be empty.
    Profile {
        /// Shown instead of the user name.
        nickname: Text<128>,
        /// A line of free text beside the status.
        personal_msg: Text<256>,
        /// `YYYY-MM-DD`, or empty.
        birthdate: Text<10>,
        /// Free text.
        location: Text<128>,
        /// Gender.
        gender: Gender,
    }
    /// What everybody may see of a user.
    PublicCard {
        /// Who.
        user: UserId,
        /// The user name.
        name: UserName,
        /// The nickname.
        nickname: Text<128>,
        /// The line beside the status.
        personal_msg: Text<256>,
        /// The location.
        location: Text<128>,
    }
    /// An online buddy: what changes while one is logged in. Never an address.
    OnlineBuddy {
        /// Who.
        user: UserId,
        /// What watchers see.
        status: Status,
        /// The line beside the status.
        personal_msg: Text<256>,
        /// The device in use.
        device_class: DeviceClass,
    }
    /// A room in which the user is.
    Room {
        /// Which.
        room: crate::types::RoomId,
        /// Its name.
        name: Text<128>,
        /// Its owner.
        owner: UserId,
        /// The user's role in it.
        role: u8,
        /// How many members it has.
        members: u32,
        /// Whether only the invited may join.
        invited_only: bool,
    }
    /// A change of status.
    StatusChange {
        /// Who.
        user: UserId,
        /// What watchers see now.
        status: Status,
    }
    /// What only the user and accepted buddies may see.
    FullCard {
        /// The profile.
        profile: Profile,
        /// Last login, 0 if never.
        last_login: WallTime,
    }
}

open_enum! {
    /// Gender, as in the first version, which had a `bool`.
    Gender(u8) {
        /// Female.
        0 FEMALE,
        /// Male.
        1 MALE,
        /// Not stated.
        2 NOT_STATED,
    }
}

open_enum! {
    /// What kind of device a session is on.
    DeviceClass(u8) {
        /// Not stated.
        0 OTHER,
        /// A phone.
        1 PHONE,
        /// A tablet.
        2 TABLET,
        /// A computer.
        3 COMPUTER,
        /// A web page.
        4 WEB,
    }
}
