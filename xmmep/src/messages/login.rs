//! Login: find the Presence, prove the key, get everything one has, tell the others.
//!
//! ```text
//! client                                Router                 Presence              watchers
//!   │ INIT [GetLoginInfoReq] ───────────►│                        │                     │
//!   │◄────── RESPONSE [GetLoginInfoRes] ─│                        │                     │
//!   │ INIT + ticket ─────────────────────────────────────────────►│                     │
//!   │◄────────────────────────────────────────────────── RESPONSE │                     │
//!   │ LoginReq ──────────────────────────────────────────────────►│ key hash equal      │
//!   │◄── LoginRes1 (profile), 2 groups, 3 buddies, 4 blocked, 5 rooms, 6 online, End ───│
//!   │ ClientReady ───────────────────────────────────────────────►│── BuddyLoginNotify ►│
//! ```
//! Parts 2 to 6 are sent only if there is something in them; `LoginResEnd` has the totals.

use crate::bounded::{Blob, List, Text};
use crate::message::records;
use crate::messages::{DeviceClass, OnlineBuddy, Part, Profile, Room};
use crate::name::UserName;
use crate::result_code::ResultCode;
use crate::secret::{KdfParams, LoginKey, Salt};
use crate::types::{DeviceId, GroupId, OwnerEpoch, RosterVersion, Status, UserId, WallTime, open_enum};

/// Bytes of a sealed admission ticket, at most.
pub const TICKET_MAX: usize = 192;

crate::messages! {
    /// `MSG_GET_LOGIN_INFO_REQ`, client → Router, inside handshake message 1: where does this user live?
    110 GetLoginInfoReq -> GetLoginInfoRes {
        /// Who.
        name: UserName,
    }
    /// `MSG_GET_LOGIN_INFO_RES`, Router → client, inside handshake message 2, padded to a fixed size.
    ///
    /// A name nobody has gets an answer of the same shape, size and time, with a salt that is always the same for
    /// that name; the login there ends in `PASSWD_MISMATCH`.
    111 GetLoginInfoRes {
        /// `SUCCESS`, or `SERVER_NOT_READY`.
        result: ResultCode,
        /// Where the Presence listens, best first.
        addresses: List<Address, 4>,
        /// The Presence's static key.
        presence_key: [u8; 32],
        /// Salt of the login key.
        salt: Salt,
        /// Cost of the login key.
        kdf: KdfParams,
        /// Admits this client's address to the Presence without a RETRY. Opaque to the client.
        ticket: Blob<192>,
    }
    /// `MSG_LOGIN_REQ`, client → Presence: the first message of a session.
    ///
    /// Refused with `PASSWD_MISMATCH` (wrong key or no such user), `USER_NOT_ACTIVATED` (right key, mail not answered),
    /// `RATE_LIMITED` (too many failures), `SERVER_NOT_READY`.
    112 LoginReq -> LoginRes1 {
        /// Who.
        name: UserName,
        /// Derived from the password with the salt and cost of `GetLoginInfoRes`.
        login_key: LoginKey,
        /// The status to start with.
        status: Status,
        /// The device.
        device: DeviceId,
        /// Its kind.
        device_class: DeviceClass,
        /// Its name, for the user's other devices.
        device_name: Text<64>,
        /// The roster version the client holds; 0 for none. If it is current, parts 2 to 4 are not sent.
        roster_version: RosterVersion,
        /// Name and version of the client, for the operator.
        client: Text<64>,
    }
    /// `MSG_LOGIN_RES1`, Presence → client: logged in.
    113 LoginRes1 {
        /// `SUCCESS`.
        result: ResultCode,
        /// The user's id.
        user: UserId,
        /// The name as registered.
        name: UserName,
        /// The profile.
        profile: Profile,
        /// The server's clock.
        server_time: WallTime,
        /// How many devices may be logged in.
        device_policy: DevicePolicy,
        /// Failed logins since the last good one.
        failed_attempts: u32,
        /// The client's roster is current; parts 2 to 4 are left out.
        roster_unchanged: bool,
    }
    /// `MSG_LOGIN_RES2`, Presence → client: groups.
    114 LoginRes2 {
        /// Which part of the list.
        part: Part,
        /// The groups.
        groups: List<Group, 100>,
    }
    /// `MSG_LOGIN_RES3`, Presence → client: buddies.
    115 LoginRes3 {
        /// Which part of the list.
        part: Part,
        /// The buddies.
        buddies: List<Buddy, 100>,
    }
    /// `MSG_LOGIN_RES4`, Presence → client: blocked users.
    116 LoginRes4 {
        /// Which part of the list.
        part: Part,
        /// The blocked.
        blocked: List<Blocked, 100>,
    }
    /// `MSG_LOGIN_RES5`, Presence → client: rooms one is in.
    117 LoginRes5 {
        /// Which part of the list.
        part: Part,
        /// The rooms.
        rooms: List<Room, 100>,
    }
    /// `MSG_LOGIN_RES6`, Presence → client: accepted buddies who are online.
    118 LoginRes6 {
        /// Which part of the list.
        part: Part,
        /// Who is online.
        online: List<OnlineBuddy, 100>,
    }
    /// `MSG_LOGOUT_REQ`, client → Presence: the clean end of a session.
    125 LogoutReq -> LogoutRes {}
    /// `MSG_LOGOUT_RES`, Presence → client: watchers have been told; the session closes.
    126 LogoutRes {
        /// `SUCCESS`.
        result: ResultCode,
    }
    /// `MSG_LOGIN_RES_END`, Presence → client: that was all.
    127 LoginResEnd {
        /// Groups in all parts 2.
        groups: u32,
        /// Buddies in all parts 3.
        buddies: u32,
        /// Blocked in all parts 4.
        blocked: u32,
        /// Rooms in all parts 5.
        rooms: u32,
        /// Online buddies in all parts 6.
        online: u32,
        /// The version of groups, buddies and blocked.
        roster_version: RosterVersion,
    }
    /// `MSG_CLIENT_READY`, client → Presence: everything arrived; watchers may be told, waiting messages may come.
    128 ClientReady {}
    /// `MSG_BUDDY_LOGIN_NOTIFY`, Presence → watcher: a buddy is online.
    130 BuddyLoginNotify {
        /// Who.
        buddy: OnlineBuddy,
    }
    /// `MSG_BUDDY_LOGIN_NOTIFY_FWD`, Presence → Router: a user is online, for the copy of statuses.
    131 BuddyLoginNotifyFwd {
        /// The sender's owner epoch; older ones are ignored.
        owner_epoch: OwnerEpoch,
        /// Who.
        buddy: OnlineBuddy,
    }
    /// `MSG_SESSION_REPORT`, Presence → client: this session is over; its keys are already dead for anything else.
    133 SessionReport {
        /// `DUPLICATE_SESSION` or `EXPIRED_SESSION`.
        result: ResultCode,
        /// The device that took over, empty if none did.
        device_name: Text<64>,
        /// When.
        at: WallTime,
        /// Whether the client may log in again by itself.
        may_reconnect: bool,
    }
}

records! {
    /// Where a server listens.
    Address {
        /// IPv6, or IPv4 mapped into it (`::ffff:a.b.c.d`).
        ip: [u8; 16],
        /// UDP port.
        port: u16,
    }
    /// A buddy group.
    Group {
        /// Which.
        group: GroupId,
        /// Its name.
        name: Text<64>,
    }
    /// An entry of the buddy list.
    Buddy {
        /// Who.
        user: UserId,
        /// The user name.
        name: UserName,
        /// The group it is in.
        group: GroupId,
        /// The owner's own name for the buddy, or empty.
        display_name: Text<128>,
        /// Whether the buddy agreed.
        state: BuddyState,
    }
    /// A blocked user.
    Blocked {
        /// Who.
        user: UserId,
        /// The user name.
        name: UserName,
    }
}

open_enum! {
    /// Whether a buddy agreed to be one.
    BuddyState(u8) {
        /// Not yet.
        0 PENDING,
        /// Yes: status and messages flow.
        1 ACCEPTED,
    }
}

open_enum! {
    /// How many devices of a user may be logged in.
    DevicePolicy(u8) {
        /// One; a new login ends the old one.
        0 SINGLE,
        /// One of each class.
        1 ONE_PER_CLASS,
        /// At most eight.
        2 MANY,
    }
}

impl From<core::net::SocketAddr> for Address {
    fn from(address: core::net::SocketAddr) -> Self {
        let ip = match address.ip() {
            core::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            core::net::IpAddr::V6(ip) => ip,
        };
        Self { ip: ip.octets(), port: address.port() }
    }
}

impl From<&Address> for core::net::SocketAddr {
    fn from(address: &Address) -> Self {
        Self::new(core::net::Ipv6Addr::from(address.ip).to_canonical(), address.port)
    }
}
