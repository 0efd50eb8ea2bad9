//! Requests that wait for their answer. Each ends exactly once: answered, refused, timed out, or disconnected.

use core::time::Duration;
use std::collections::VecDeque;

use crate::frame::{Code, Frame, Sequence};
use crate::message::Message;
use crate::messages::ResultMsg;
use crate::messages::buddies::{AddBuddyRes, RosterOpRes};
use crate::messages::profile::GetBuddyInfoRes;
use crate::result_code::ResultCode;
use crate::types::Time;

use super::error::RequestError;
use super::roster::Change;

/// Requests that may wait for an answer at a time.
pub const REQUESTS_MAX: usize = 64;

/// How long a request waits for its answer. Longer than any time-out inside the servers, shorter than patience.
pub const REQUEST_PATIENCE: Duration = Duration::from_secs(20);

/// Names a request from when it is made until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestHandle(pub u64);

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: RequestHandle,
    sequence: Sequence,
    answer: Code,
    deadline: Time,
    pub(super) change: Option<Change>,
}

/// Requests that wait, oldest first; all have the same patience, so the first is also the first to time out.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pending: VecDeque<Pending>,
    sequence: Sequence,
    last: u64,
}

impl Requests {
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= REQUESTS_MAX
    }

    /// The sequence number of the next request in this session.
    pub(super) fn next_sequence(&mut self) -> Sequence {
        self.sequence = self.sequence.next();
        self.sequence
    }

    pub(super) fn sent(
        &mut self,
        now: Time,
        sequence: Sequence,
        answer: Code,
        change: Option<Change>,
    ) -> RequestHandle {
        self.last = self.last.saturating_add(1);
        let id = RequestHandle(self.last);
        self.pending.push_back(Pending { id, sequence, answer, deadline: now.after(REQUEST_PATIENCE), change });
        id
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.pending.front().map(|pending| pending.deadline)
    }

    /// One whose time is over.
    pub(super) fn timed_out(&mut self, now: Time) -> Option<Pending> {
        let due = self.pending.front().is_some_and(|pending| pending.deadline <= now);
        if due { self.pending.pop_front() } else { None }
    }

    /// The session is over: numbers start again, and nobody answers any more.
    pub(super) fn restart(&mut self) -> VecDeque<Pending> {
        self.sequence = Sequence::NONE;
        core::mem::take(&mut self.pending)
    }

    /// The request that a frame answers, and how it ended.
    pub(super) fn answered(&mut self, frame: &Frame) -> Option<(Pending, Result<(), RequestError>)> {
        let at = self.pending.iter().position(|pending| pending.sequence == frame.header.sequence)?;
        let pending = self.pending.remove(at)?;
        let outcome = judge(frame, pending.answer);
        Some((pending, outcome))
    }
}

/// Whether an answer is a yes. Answers of the protocol itself say so in a field; those of embedders are for them to read.
fn judge(frame: &Frame, wanted: Code) -> Result<(), RequestError> {
    let code = frame.header.code;
    if code != wanted && code != ResultMsg::CODE {
        return Err(RequestError::OtherAnswer(code));
    }
    let unreadable = RequestError::BadAnswer;
    let result = match code {
        ResultMsg::CODE => {
            let message: ResultMsg = frame.message().map_err(unreadable)?;
            if message.result != ResultCode::SUCCESS {
                return Err(RequestError::Refused(message.into()));
            }
            if code != wanted {
                return Err(RequestError::OtherAnswer(code));
            }
            message.result
        }
        RosterOpRes::CODE => frame.message::<RosterOpRes>().map_err(unreadable)?.result,
        AddBuddyRes::CODE => frame.message::<AddBuddyRes>().map_err(unreadable)?.result,
        GetBuddyInfoRes::CODE => frame.message::<GetBuddyInfoRes>().map_err(unreadable)?.result,
        _ => ResultCode::SUCCESS,
    };
    match result {
        ResultCode::SUCCESS | ResultCode::PENDING => Ok(()),
        result => Err(RequestError::Refused(result.into())),
    }
}
