//! The courier: takes mails that are due from the queue and hands them to a relay or writes them as files. What stands in
//! a mail, and that there is one, was decided by Register.
//!
//! A mail is sent at least once: a crash between a relay's yes and our note of it sends it again, under the same Message-ID.

mod files;
mod message;
mod smtp;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lettre::message::Mailbox;
use tokio::sync::Notify;
use xm_store::records::Mail;
use xm_store::{MailQueue, StoreError};
use xmmep::bounded::Text;
use xmmep::types::WallTime;

pub use files::write_eml;
pub use message::{Carrier, Letter};
pub use smtp::{Credentials, Relay, RelayTimeouts, Relays, read_credentials};

/// Mails taken from the queue at once.
const BATCH: usize = 32;
/// How often the queue is looked at when nobody says that there is something.
const IDLE: Duration = Duration::from_secs(5);
/// A mail nobody took for so long is given up.
pub const KEPT_TRYING: Duration = Duration::from_secs(5 * 24 * 3600);
/// The wait after the first failure; doubled each time.
pub const RETRY_FIRST: Duration = Duration::from_secs(60);
/// The longest wait between two tries.
pub const RETRY_MAX: Duration = Duration::from_secs(3600);
/// What is remembered of mails that are done, so that the page can show it.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often mails that are done are forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(3600);

/// What became of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken.
    Sent,
    /// Turned down for good, by the relay's words.
    Refused(String),
    /// Not now.
    Later(String),
}

/// Where mails go.
pub enum Road {
    /// Into `.eml` files in this directory.
    Directory(PathBuf),
    /// To relays.
    Relays(Relays),
}

/// Takes mails from the queue and sends them.
pub struct Courier {
    queue: Arc<dyn MailQueue>,
    from: Mailbox,
    road: Road,
    /// Rung by whoever enqueued something.
    bell: Arc<Notify>,
}

impl Courier {
    /// A courier for `queue`, whose mails come from `from`.
    #[must_use]
    pub fn new(queue: Arc<dyn MailQueue>, from: Mailbox, road: Road) -> Self {
        Self { queue, from, road, bell: Arc::new(Notify::new()) }
    }

    /// Ring it after enqueueing, and the mail leaves at once instead of within five seconds.
    #[must_use]
    pub fn bell(&self) -> Arc<Notify> {
        self.bell.clone()
    }

    /// Sends what is due until `stop` resolves; a batch in progress is finished first.
    pub async fn run(self, clock: impl Fn() -> WallTime + Send, stop: impl Future<Output = ()> + Send) {
        let mut stop = std::pin::pin!(stop);
        let mut housekeeping = WallTime::default();
        loop {
            let now = clock();
            let sent = self.round(now).await.unwrap_or_else(|error| {
                tracing::error!(%error, "the mail queue cannot be used; mails wait");
                0
            });
            if now >= housekeeping {
                housekeeping = now.after(HOUSEKEEPING);
                self.forget(now).await;
            }
            // A full batch means that there may be more.
            let pause = if sent < BATCH { IDLE } else { Duration::ZERO };
            tokio::select! {
                () = &mut stop => return,
                () = self.bell.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn forget(&self, now: WallTime) {
        let before = WallTime(now.0.saturating_sub(WallTime(0).after(REMEMBERED).0));
        if let Err(error) = self.queue.forget(before).await {
            tracing::warn!(%error, "mails that are done could not be forgotten; trying again later");
        }
    }

    /// Tries each mail that is due at `now` once. Returns how many there were.
    ///
    /// # Errors
    /// If the queue fails. A mail that was sent but could not be noted will be sent again.
    pub async fn round(&self, now: WallTime) -> Result<usize, StoreError> {
        let due = self.queue.due(now, BATCH).await?;
        let count = due.len();
        let (mut lines, carrier) = match &self.road {
            Road::Directory(_) => (None, Carrier::File),
            Road::Relays(relays) => (Some(relays.lines()), Carrier::Relay),
        };
        for (mail, attempts) in due {
            let outcome = match Letter::new(&self.from, &mail, carrier) {
                Err(reason) => Outcome::Refused(reason),
                Ok(letter) => match (&self.road, &mut lines) {
                    (Road::Relays(_), Some(lines)) => lines.deliver(&letter).await,
                    (Road::Directory(directory), _) => files::deliver(directory, &mail, letter).await,
                    (Road::Relays(_), None) => Outcome::Later("no line to a relay".to_owned()),
                },
            };
            self.note(&mail, attempts, now, outcome).await?;
        }
        if let Some(lines) = lines {
            lines.close().await;
        }
        Ok(count)
    }

    async fn note(&self, mail: &Mail, attempts: u32, now: WallTime, outcome: Outcome) -> Result<(), StoreError> {
        let id = mail.id;
        let given_up = mail.created.after(KEPT_TRYING);
        match outcome {
            Outcome::Sent => {
                tracing::info!(mail = %id, "mail sent");
                self.queue.sent(id, now).await
            }
            Outcome::Refused(reason) => {
                tracing::warn!(mail = %id, %reason, "mail refused for good; its sender is told on the page");
                self.queue.failed(id, now, &Text::cut(&reason)).await
            }
            Outcome::Later(reason) if now >= given_up => {
                tracing::warn!(mail = %id, %reason, "mail given up after five days");
                self.queue.failed(id, now, &Text::cut(&format!("given up after five days: {reason}"))).await
            }
            Outcome::Later(reason) => {
                let due = now.after(back_off(attempts)).min(given_up);
                tracing::warn!(mail = %id, attempts = attempts + 1, %reason, "mail not sent; it is tried again");
                self.queue.retry_at(id, due, &Text::cut(&reason)).await
            }
        }
    }
}

/// How long to wait after `attempts` failures and one more: a minute, two, four, … an hour.
fn back_off(attempts: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1_u32.checked_shl(attempts.min(31)).unwrap_or(u32::MAX)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour() {
        let minutes: Vec<_> = (0..8).map(|attempts| back_off(attempts).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(back_off(u32::MAX), RETRY_MAX);
    }
}
