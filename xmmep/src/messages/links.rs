//! Links between servers.
//!
//! ```text
//! Presence                        Router
//!   │ PresenceRegisterReq ──────────►│   on every new link
//!   │◄──────────────────── ResultMsg │
//! ```

use crate::bounded::List;
use crate::messages::ResultMsg;
use crate::messages::login::Address;
use crate::secret::TicketKey;
use crate::types::{OwnerEpoch, PresenceId};

crate::messages! {
    /// `MSG_PRESENCE_REGISTER_REQ`, Presence → Router: I serve this identity, here. A lower owner epoch than the
    /// Router knows is refused with `STALE_EPOCH`.
    212 PresenceRegisterReq -> ResultMsg {
        /// Which Presence.
        identity: PresenceId,
        /// Where clients reach it, best first.
        addresses: List<Address, 4>,
        /// Its static key.
        static_key: [u8; 32],
        /// How often the identity changed owner.
        owner_epoch: OwnerEpoch,
        /// Seals the admission tickets of clients sent there.
        ticket_key: TicketKey,
    }
}
