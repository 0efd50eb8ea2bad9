//! Chat: text with ticks, online and offline.
//!
//! ```text
//! A                     Presence                         B
//! │ TxtMsg ───────────────►│── TxtMsgFwd ────────────────►│  shown once
//! │                        │◄─────────────── TxtConfirm ──│
//! │◄─ TxtTickNotify DELIVERED                             │  confirmed within 200 ms: no disk write
//!
//! │ TxtMsg ───────────────►│ append, fsync                │  away, or no confirmation within 200 ms
//! │◄─ TxtTickNotify STORED │                              │
//! │                        │── OfflineBeginNotify ───────►│  after B's ClientReady
//! │                        │── TxtMsgFwd … ──────────────►│  oldest first, at most 64 unconfirmed
//! │                        │◄─────────────── TxtConfirm ──│
//! │◄─ TxtTickNotify DELIVERED                             │
//! │                        │── OfflineEndNotify ─────────►│
//! ```

use core::fmt;

use bytes::Bytes;

use crate::block;
use crate::bounded::{List, PrivateText};
use crate::frame;
use crate::message::{Message, put, records};
use crate::result_code::ResultCode;
use crate::types::{MsgId, UserId, WallTime, open_enum};

/// Bytes in the body of a text.
pub const BODY_MAX: usize = 8 * 1024;
/// Ids in one confirmation.
pub const CONFIRM_MAX: usize = 64;

crate::messages! {
    /// `MSG_TXT_MSG`, client → Presence: a message. Every one ends with a final tick: DELIVERED, REFUSED or EXPIRED.
    170 TxtMsg {
        /// The message.
        text: Content,
    }
    /// `MSG_TXT_TICK_NOTIFY`, Presence → sender: where the message is. Levels only rise.
    171 TxtTickNotify {
        /// Which message.
        id: MsgId,
        /// Its level.
        tick: Tick,
        /// With REFUSED and EXPIRED: why.
        result: ResultCode,
        /// When the level was reached.
        at: WallTime,
        /// With REFUSED for `RATE_LIMITED`, `SERVER_BUSY` or `SERVER_NOT_READY`: seconds until it makes sense to try again.
        retry_after_s: u32,
    }
    /// `MSG_TXT_MSG_FWD`, Presence → recipient: a message for you. May come again until confirmed: show each id once.
    172 TxtMsgFwd {
        /// Who sent it.
        from: UserId,
        /// When the server got it.
        at: WallTime,
        /// Whether it waited in the offline store.
        from_store: bool,
        /// The message.
        text: Content,
    }
    /// `MSG_TXT_CONFIRM`, recipient → Presence: these messages are safe on my device.
    173 TxtConfirm {
        /// RECEIVED or READ.
        level: ConfirmLevel,
        /// Which.
        messages: List<Confirmed, 64>,
    }
    /// `MSG_OFFLINE_BEGIN_NOTIFY`, Presence → client: messages that waited for you follow.
    174 OfflineBeginNotify {
        /// How many.
        messages: u32,
        /// Their bytes.
        bytes: u64,
        /// When the oldest was stored.
        oldest: WallTime,
        /// Files that wait.
        files: u32,
    }
    /// `MSG_OFFLINE_END_NOTIFY`, Presence → client: that was all; from here on messages are live.
    175 OfflineEndNotify {
        /// How many were sent.
        sent: u32,
        /// How many could not be read on the server and were set aside.
        left: u32,
    }
}

/// A text on its way to its recipient, encoded once: the frame of a [`TxtMsgFwd`], which ends with the body of the
/// [`TxtMsg`] it forwards.
#[derive(Clone, PartialEq, Eq)]
pub struct Forward {
    frame: Bytes,
    body_at: usize,
}

impl Forward {
    /// The frame that forwards `message`, which came from `from` at `at`.
    #[must_use]
    pub fn new(from: UserId, at: WallTime, from_store: bool, message: &TxtMsg) -> Self {
        let mut body_at = 0;
        let frame = frame::notice_with(TxtMsgFwd::CODE, |out| {
            put(&from, out);
            put(&at, out);
            put(&from_store, out);
            body_at = out.len();
            message.encode_body(out);
        });
        Self { frame, body_at }
    }

    /// Moves to memory of its own, to stay for a while.
    pub fn keep(&mut self) {
        block::keep(&mut self.frame);
    }

    /// The frame, to send. A small one shares memory with others of its time.
    #[must_use]
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The body of the [`TxtMsg`], to keep.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.frame.get(self.body_at..).unwrap_or_default()
    }
}

impl fmt::Debug for Forward {
    /// Never prints the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forward({} bytes)", self.frame.len())
    }
}

records! {
    /// A message as its sender wrote it.
    Content {
        /// Drawn by the sender before the first try; all retries reuse it.
        id: MsgId,
        /// To what kind of target.
        target_kind: TargetKind,
        /// To whom: a user id or a room id.
        target: u64,
        /// Counts the sender's messages to this target from 1.
        order: u64,
        /// The sender's clock.
        sent: WallTime,
        /// What the body is.
        kind: TextKind,
        /// The body, byte for byte.
        body: PrivateText<8192>,
    }
    /// A message named from the recipient's side.
    Confirmed {
        /// Who sent it.
        from: UserId,
        /// Which.
        id: MsgId,
    }
}

open_enum! {
    /// Where a message is.
    Tick(u8) {
        /// Not used on the wire.
        0 NONE,
        /// On stable storage.
        1 STORED,
        /// Confirmed by the recipient's device.
        2 DELIVERED,
        /// Seen by the recipient.
        3 READ,
        /// Turned down; the result says why. Final.
        4 REFUSED,
        /// Kept for the server's limit and never fetched. Final.
        5 EXPIRED,
    }
}

open_enum! {
    /// What a recipient confirms.
    ConfirmLevel(u8) {
        /// It is on the device.
        0 RECEIVED,
        /// The user saw it.
        1 READ,
    }
}

open_enum! {
    /// What a message is addressed to.
    TargetKind(u8) {
        /// A user.
        0 USER,
        /// A room.
        1 ROOM,
    }
}

open_enum! {
    /// What the body of a message is. Unknown kinds are shown as a placeholder.
    TextKind(u16) {
        /// Plain text.
        0 TEXT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::body_of;
    use crate::sample::{Sample, Sampler};

    #[test]
    fn a_forwarded_text_is_the_frame_of_its_message_and_ends_with_the_body_that_came() {
        for seed in 0..50 {
            let message = TxtMsg::sample(&mut Sampler::new(seed));
            let (from, at, from_store) = (UserId(u64::MAX - seed), WallTime(seed << 40), seed % 2 == 0);
            let forward = Forward::new(from, at, from_store, &message);
            assert_eq!(forward.body(), body_of(&message), "seed {seed}");
            let anew = frame::notice(&TxtMsgFwd { from, at, from_store, text: message.text });
            assert_eq!(forward.frame(), &anew, "seed {seed}");
            assert_eq!(format!("{forward:?}"), format!("Forward({} bytes)", anew.len()));
        }
    }
}
