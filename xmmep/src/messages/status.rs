//! Status: a user changes it, watchers see it.
//!
//! ```text
//! client                    Presence                      watchers
//!   │ StatusChangedNotify ─────►│── StatusChangedNotifyFwd ─►│   at most one a second per user
//! ```

use crate::bounded::List;
use crate::messages::StatusChange;
use crate::types::Status;

crate::messages! {
    /// `MSG_STATUS_CHANGED_NOTIFY`, client → Presence: my status is now this.
    135 StatusChangedNotify {
        /// ONLINE, BUSY, AWAY or INVISIBLE. Leaving is `LogoutReq`.
        status: Status,
    }
    /// `MSG_STATUS_CHANGED_NOTIFY_FWD`, Presence → watcher, Presence → Router: these statuses changed.
    136 StatusChangedNotifyFwd {
        /// Who, and what watchers see now.
        changes: List<StatusChange, 64>,
    }
}
