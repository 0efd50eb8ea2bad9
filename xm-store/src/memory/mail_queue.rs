//! [`MailQueue`] in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use xmmep::bounded::{PrivateText, Text};
use xmmep::name::Email;
use xmmep::types::{RequestId, WallTime};

use super::lock;
use crate::error::StoreError;
use crate::mail_queue::MailQueue;
use crate::records::{Mail, MailState};

/// [`MailQueue`] in memory.
#[derive(Debug, Default)]
pub struct MemoryMailQueue(Mutex<BTreeMap<RequestId, (Mail, MailState)>>);

impl MemoryMailQueue {
    /// Ends the waiting of a mail and erases its text.
    fn settle(&self, id: RequestId, state: MailState) {
        if let Some(entry) = lock(&self.0).get_mut(&id)
            && matches!(entry.1, MailState::Waiting { .. })
        {
            entry.0.body = PrivateText::default();
            entry.1 = state;
        }
    }
}

#[async_trait]
impl MailQueue for MemoryMailQueue {
    async fn enqueue(&self, mail: Mail) -> Result<(), StoreError> {
        let state = MailState::Waiting { attempts: 0, due: mail.created, reason: Text::default() };
        lock(&self.0).entry(mail.id).or_insert((mail, state));
        Ok(())
    }

    async fn due(&self, now: WallTime, max: usize) -> Result<Vec<(Mail, u32)>, StoreError> {
        let mails = lock(&self.0);
        let waiting = mails.values().filter_map(|(mail, state)| match state {
            MailState::Waiting { attempts, due, .. } if *due <= now => Some((*due, mail, *attempts)),
            _ => None,
        });
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by_key(|(due, mail, _)| (*due, mail.id));
        Ok(waiting.into_iter().take(max).map(|(_, mail, attempts)| (mail.clone(), attempts)).collect())
    }

    async fn sent(&self, id: RequestId, at: WallTime) -> Result<(), StoreError> {
        self.settle(id, MailState::Sent { at });
        Ok(())
    }

    async fn retry_at(&self, id: RequestId, again: WallTime, why: &Text<256>) -> Result<(), StoreError> {
        if let Some((_, MailState::Waiting { attempts, due, reason })) = lock(&self.0).get_mut(&id)
            && *due != again
        {
            *attempts = attempts.saturating_add(1);
            *due = again;
            *reason = why.clone();
        }
        Ok(())
    }

    async fn failed(&self, id: RequestId, at: WallTime, reason: &Text<256>) -> Result<(), StoreError> {
        self.settle(id, MailState::Failed { at, reason: reason.clone() });
        Ok(())
    }

    async fn state(&self, id: RequestId) -> Result<Option<MailState>, StoreError> {
        Ok(lock(&self.0).get(&id).map(|(_, state)| state.clone()))
    }

    async fn forget(&self, before: WallTime) -> Result<u64, StoreError> {
        let mut mails = lock(&self.0);
        let all = mails.len();
        mails.retain(|_, (_, state)| match state {
            MailState::Waiting { .. } => true,
            MailState::Sent { at } | MailState::Failed { at, .. } => *at >= before,
        });
        Ok((all - mails.len()) as u64)
    }

    async fn erase(&self, to: &Email) -> Result<u64, StoreError> {
        let mut mails = lock(&self.0);
        let before = mails.len();
        mails.retain(|_, (mail, _)| mail.to.folded() != to.folded());
        Ok((before - mails.len()) as u64)
    }
}
