//! After the login: what each message of the server does, and how it all ends. How texts are kept is `texts.rs`.

use core::time::Duration;

use crate::bounded::Text;
use crate::error::FrameError;
use crate::frame::{self, Code, Frame, Kind, Sequence};
use crate::message::Message;
use crate::messages::ResultMsg;
use crate::messages::buddies::{AddBuddyRes, BuddiedNotify, BuddyAnsweredNotify, RosterOpRes};
use crate::messages::chat::{OfflineBeginNotify, OfflineEndNotify, TxtMsgFwd, TxtTickNotify};
use crate::messages::login::{BuddyLoginNotify, LogoutReq, SessionReport};
use crate::messages::status::StatusChangedNotifyFwd;
use crate::result_code::ResultCode;
use crate::session::{CloseReason, Ended, Event as SessionEvent};
use crate::types::WallTime;

use super::error::{ConnectError, End, RequestError};
use super::event::{Env, Event, Output};
use super::machine::{Machine, Stage};
use super::requests::Pending;
use super::roster::Change;

/// How long a logout waits for the server's goodbye. After that the server finds out by itself.
pub const LOGOUT_PATIENCE: Duration = Duration::from_secs(5);

impl Machine {
    /// The session reports something.
    pub(super) fn on_session_event(&mut self, env: &mut Env<'_>, event: SessionEvent, out: &mut Output) {
        match event {
            SessionEvent::Message(bytes) => match Frame::decode(bytes) {
                Ok(frame) if matches!(self.stage, Stage::LoggingIn(..)) => self.on_login_frame(env, frame, out),
                Ok(frame) => self.on_frame(env, frame, out),
                Err(error) => out.events.push(Event::Malformed(error)),
            },
            SessionEvent::Datagram(bytes) => out.events.push(match Frame::decode(bytes) {
                Ok(frame) => Event::Unreliable(frame),
                Err(error) => Event::Malformed(error),
            }),
            SessionEvent::Ended(ended) => self.on_session_ended(env, ended, out),
            SessionEvent::Confirmed | SessionEvent::AddressChanged(_) => {}
        }
    }

    /// The session is over.
    pub(super) fn on_session_ended(&mut self, env: &mut Env<'_>, ended: Ended, out: &mut Output) {
        match (&self.stage, ended) {
            (Stage::LoggingOut(..), _) => self.end(env, End::LoggedOut, out),
            // The report with the name of the other device got lost; that there is one is enough to stay away.
            (_, Ended::ByPeer(CloseReason::REPLACED)) => {
                self.end(env, End::Replaced { device: String::new(), at: WallTime(0) }, out);
            }
            _ => self.fail(env, ConnectError::Lost, out),
        }
    }

    /// A message of the server.
    pub(super) fn on_frame(&mut self, env: &mut Env<'_>, frame: Frame, out: &mut Output) {
        if frame.header.kind == Kind::Answer {
            return self.on_answer(env, frame, out);
        }
        if matches!(self.stage, Stage::Ended | Stage::Pausing(_)) {
            return;
        }
        let done = match frame.header.code {
            TxtMsgFwd::CODE => frame.message::<TxtMsgFwd>().map(|text| self.on_text(text, out)),
            TxtTickNotify::CODE => frame.message().map(|tick| self.on_tick(env, tick, out)),
            BuddyLoginNotify::CODE => frame.message().map(|notice| self.on_buddy_login(notice, out)),
            StatusChangedNotifyFwd::CODE => frame.message().map(|notice| self.on_statuses(notice, out)),
            BuddiedNotify::CODE => frame.message().map(|notice| self.on_asked(notice, out)),
            BuddyAnsweredNotify::CODE => frame.message().map(|notice| self.on_buddy_answered(&notice, out)),
            OfflineBeginNotify::CODE => frame.message().map(|notice| out.events.push(Event::WaitingBegin(notice))),
            OfflineEndNotify::CODE => frame.message().map(|notice| out.events.push(Event::WaitingEnd(notice))),
            SessionReport::CODE => frame.message().map(|report| self.on_report(env, report, out)),
            code => {
                self.on_unknown(env, code, frame.header.sequence, out);
                out.events.push(Event::Other(frame));
                Ok(())
            }
        };
        if let Err(error) = done {
            self.on_malformed(error, out);
        }
    }

    fn on_malformed(&mut self, error: FrameError, out: &mut Output) {
        out.events.push(Event::Malformed(error));
    }

    fn on_text(&mut self, text: TxtMsgFwd, out: &mut Output) {
        let shown = self.texts.arrived(text.into());
        out.events.extend(shown.map(|text| Event::Text(Box::new(text))));
    }

    fn on_tick(&mut self, env: &mut Env<'_>, tick: TxtTickNotify, out: &mut Output) {
        out.events.extend(self.texts.ticked(env.now, tick).into_iter().map(Event::Tick));
    }

    fn on_buddy_login(&mut self, notice: BuddyLoginNotify, out: &mut Output) {
        let (user, status) = (notice.buddy.user, notice.buddy.status.seen_by_others());
        if self.roster.came_online(notice.buddy) {
            out.events.push(Event::Status { user, status });
        }
    }

    fn on_statuses(&mut self, notice: StatusChangedNotifyFwd, out: &mut Output) {
        for change in notice.changes.into_vec() {
            let (user, status) = (change.user, change.status.seen_by_others());
            if self.roster.status_changed(change) {
                out.events.push(Event::Status { user, status });
            }
        }
    }

    fn on_asked(&mut self, notice: BuddiedNotify, out: &mut Output) {
        let (card, greeting) = (Box::new(notice.card.clone()), notice.greeting.as_str().into());
        if self.roster.asks(notice) {
            out.events.push(Event::Asks { card, greeting });
        }
    }

    fn on_buddy_answered(&mut self, notice: &BuddyAnsweredNotify, out: &mut Output) {
        self.roster.answered(notice);
        out.events.push(Event::Answered { user: notice.user, accepted: notice.accepted });
    }

    /// The server says why this session is over.
    fn on_report(&mut self, env: &mut Env<'_>, report: SessionReport, out: &mut Output) {
        if report.may_reconnect {
            self.fail(env, ConnectError::Lost, out);
        } else if report.result == ResultCode::DUPLICATE_SESSION {
            let device = report.device_name.as_str().to_owned();
            self.end(env, End::Replaced { device, at: report.at }, out);
        } else {
            self.end(env, End::Expired(report.result), out);
        }
    }

    /// A request that nobody here understands gets its answer; embedders answer theirs themselves.
    fn on_unknown(&mut self, env: &mut Env<'_>, code: Code, sequence: Sequence, out: &mut Output) {
        if sequence != Sequence::NONE && Self::is_ours(code) {
            let result = ResultCode::UNKNOWN_CODE;
            let answer = ResultMsg { result, answered: code, retry_after_s: 0, detail: Text::default() };
            // If the queue is full the server's own time-out has to do.
            let _ = self.answer(env, sequence, &answer, out);
        }
    }

    fn on_answer(&mut self, env: &mut Env<'_>, frame: Frame, out: &mut Output) {
        if let Stage::LoggingOut(_, sequence, _) = &self.stage
            && *sequence == frame.header.sequence
        {
            return self.end(env, End::LoggedOut, out);
        }
        // Answers to what timed out before are late, not wrong.
        let Some((pending, outcome)) = self.requests.answered(&frame) else { return };
        if outcome.is_ok() {
            self.apply(&pending, &frame, out);
        }
        out.events.push(Event::Answer { request: pending.id, outcome: outcome.map(|()| frame) });
    }

    /// A change of the roster was committed.
    fn apply(&mut self, pending: &Pending, frame: &Frame, out: &mut Output) {
        let Some(change) = pending.change.clone() else { return };
        if let Change::Add = change {
            if let Ok(answer) = frame.message::<AddBuddyRes>() {
                self.roster.added(answer);
            }
        } else if let Ok(answer) = frame.message::<RosterOpRes>() {
            self.roster.changed(change, &answer);
        }
        out.events.push(Event::RosterChanged);
    }

    pub(super) fn expire_requests(&mut self, env: &mut Env<'_>, out: &mut Output) {
        while let Some(pending) = self.requests.timed_out(env.now) {
            let outcome = Err(RequestError::TimedOut);
            out.events.push(Event::Answer { request: pending.id, outcome });
        }
    }

    pub(super) fn say_goodbye(&mut self, env: &mut Env<'_>, out: &mut Output) {
        let Stage::Ready(session, since) = core::mem::replace(&mut self.stage, Stage::New) else { return };
        let sequence = self.requests.next_sequence();
        let mut session = session;
        if session.send(frame::request(&LogoutReq {}, sequence)).is_ok() {
            self.stage = Stage::LoggingOut(session, sequence, env.now.after(LOGOUT_PATIENCE));
        } else {
            self.stage = Stage::Ready(session, since);
            self.end(env, End::LoggedOut, out);
        }
    }
}
