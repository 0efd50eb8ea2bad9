//! Register's outbox: mails that wait for a relay. Which relay and when is not decided here.

use async_trait::async_trait;
use xmmep::bounded::Text;
use xmmep::name::Email;
use xmmep::types::{RequestId, WallTime};

use crate::error::StoreError;
use crate::records::{Mail, MailState};

/// The mails to send. A change is on stable storage before its call returns.
///
/// A mail is sent at least once: a crash between a relay's yes and [`sent`](Self::sent) sends it again, under the same
/// id.
#[async_trait]
pub trait MailQueue: Send + Sync {
    /// Takes a mail, due at once. A mail of the same id is kept as it is, however far it has come.
    async fn enqueue(&self, mail: Mail) -> Result<(), StoreError>;

    /// At most `max` mails that are due at `now`, longest due first, with the number of attempts made.
    async fn due(&self, now: WallTime, max: usize) -> Result<Vec<(Mail, u32)>, StoreError>;

    /// A relay has taken the mail. Its text is erased. A mail that no longer waits stays as it is.
    async fn sent(&self, id: RequestId, at: WallTime) -> Result<(), StoreError>;

    /// A relay has put us off: not before `due`. Counts an attempt, unless the mail is put off until then already: a call
    /// repeated after an error counts once. A mail that no longer waits stays as it is.
    async fn retry_at(&self, id: RequestId, due: WallTime, reason: &Text<256>) -> Result<(), StoreError>;

    /// The mail is given up. Its text is erased. A mail that no longer waits stays as it is.
    async fn failed(&self, id: RequestId, at: WallTime, reason: &Text<256>) -> Result<(), StoreError>;

    /// Where the mail is; `None` if there was none of that id or it has been forgotten.
    async fn state(&self, id: RequestId) -> Result<Option<MailState>, StoreError>;

    /// Erases all mails to this address, compared in folded form, however far they have come. Returns how many.
    async fn erase(&self, to: &Email) -> Result<u64, StoreError>;

    /// Housekeeping: forgets mails sent or given up before `before`. Returns how many.
    async fn forget(&self, before: WallTime) -> Result<u64, StoreError>;
}
