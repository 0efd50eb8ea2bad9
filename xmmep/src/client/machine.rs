//! The machine: what it remembers, what can be put into it. How it gets to a login is `connect.rs`; what it does
//! with one is `online.rs`.

use core::net::SocketAddr;

use crate::bounded::PrivateText;
use crate::frame::{self, Code, FRAME_MAX_CLIENT, Sequence};
use crate::message::{Message, Request};
use crate::messages::chat::{Content, TextKind, Tick};
use crate::messages::status::StatusChangedNotify;
use crate::session::{CloseReason, Connecting, SendError, Session};
use crate::types::{MsgId, Status, Time, UserId};

use super::connect::Place;
use super::error::{End, RequestError, TextError};
use super::event::{Datagram, Env, Event, Output, Work};
use super::journal::{JournalError, Remembered};
use super::login::Login;
use super::options::{Credentials, DerivedKey, Durability, Options, Password};
use super::requests::{RequestHandle, Requests};
use super::roster::{Change, Roster};
use super::texts::{Target, Texts};

/// A client without a socket, a clock or a file.
///
/// Call [`Machine::start`] once, then [`Machine::datagram`] for each datagram that arrives and [`Machine::on_deadline`]
/// at [`Machine::deadline`], which every call may move. After each call empty the [`Output`]: send the datagrams, tell
/// the events, do the work and bring back its result with [`Machine::key_derived`] or [`Machine::stored`].
///
/// ```
/// use rand::{SeedableRng, rngs::StdRng};
/// use xmmep::client::{Credentials, Env, Event, Machine, Options, Output, Password, Remembered};
/// use xmmep::types::{DeviceId, Time, WallTime};
///
/// let router = "192.0.2.1:7100".parse().unwrap();
/// let password = Credentials::Password(Password::new("correct horse"));
/// let options = Options::new(vec![router], [7; 32], "ann".parse().unwrap(), password, DeviceId([1; 16]));
/// let mut machine = Machine::new(options, Remembered::default());
/// let (mut rng, mut out) = (StdRng::seed_from_u64(1), Output::default());
///
/// machine.start(&mut Env { now: Time::ZERO, wall: WallTime(0), rng: &mut rng }, &mut out);
/// assert_eq!((out.datagrams[0].to, out.datagrams[0].bytes.len()), (router, 1_200));
///
/// // Nobody answers.
/// while let Some(now) = machine.deadline() {
///     machine.on_deadline(&mut Env { now, wall: WallTime(0), rng: &mut rng }, &mut out);
/// }
/// let Some(Event::Ended(why)) = out.events.pop() else { panic!() };
/// assert_eq!(why.to_string(), "no answer from 192.0.2.1:7100: no server there, no network, or UDP is blocked");
/// ```
#[derive(Debug)]
pub struct Machine {
    pub(super) options: Options,
    /// Gone as soon as the key is derived.
    pub(super) password: Option<Password>,
    pub(super) key: Option<DerivedKey>,
    pub(super) stage: Stage,
    /// Where the user lived when last asked.
    pub(super) place: Option<Box<Place>>,
    pub(super) roster: Roster,
    pub(super) texts: Texts,
    pub(super) requests: Requests,
    pub(super) user: UserId,
    /// Failed attempts in a row.
    pub(super) attempt: u32,
    /// Which Router is next.
    pub(super) turn: usize,
    /// The Presence said once that it is the wrong one.
    pub(super) moved: bool,
    /// There has been a login.
    pub(super) was_in: bool,
    journal_failed: bool,
}

/// How far the client is.
#[derive(Debug)]
pub(super) enum Stage {
    New,
    /// Asks a Router where the user lives.
    LookingUp(Box<Connecting>, Heard),
    /// Waits for the key.
    Deriving,
    /// Opens a session at an address of the Presence, since a given time.
    Opening(Box<Connecting>, Heard, Trying),
    /// Collects the parts of the login.
    LoggingIn(Box<Session>, Box<LoggingIn>),
    /// Logged in, since a given time.
    Ready(Box<Session>, Time),
    /// Said goodbye; waits for the answer until a given time.
    LoggingOut(Box<Session>, Sequence, Time),
    /// Between two attempts.
    Pausing(Time),
    Ended,
}

/// Whether anybody answered a handshake, if only with a RETRY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Heard {
    #[default]
    Nothing,
    Something,
}

/// Which address is being tried, and until when if there are others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trying {
    pub(super) index: usize,
    pub(super) move_on: Option<Time>,
}

#[derive(Debug)]
pub(super) struct LoggingIn {
    pub(super) login: Login,
    pub(super) sequence: Sequence,
    pub(super) deadline: Time,
    /// The status it was asked with.
    pub(super) status: Status,
    /// What came between the parts and is no part: its turn comes after the end.
    pub(super) early: Vec<frame::Frame>,
}

impl Machine {
    /// A client that remembers what its journal says. [`Remembered::default`] if there is none.
    #[must_use]
    pub fn new(mut options: Options, remembered: Remembered) -> Self {
        let (password, key) = match options.credentials.clone() {
            Credentials::Password(password) => (Some(password), None),
            Credentials::Key(key) => (None, Some(key)),
        };
        // Kept once, above, where it can be forgotten.
        options.credentials = Credentials::Password(Password::new(""));
        let texts = Texts::new(options.durability, remembered);
        Self {
            options,
            password,
            key,
            stage: Stage::New,
            place: None,
            roster: Roster::default(),
            texts,
            requests: Requests::default(),
            user: UserId(0),
            attempt: 0,
            turn: 0,
            moved: false,
            was_in: false,
            journal_failed: false,
        }
    }

    /// Begins. Texts that came in before and were not dealt with are told first.
    pub fn start(&mut self, env: &mut Env<'_>, out: &mut Output) {
        if matches!(self.stage, Stage::New) {
            out.events.extend(self.texts.waiting().cloned().map(|text| Event::Text(Box::new(text))));
            self.look_up(env, out);
        }
    }

    /// Takes in a datagram that came from `from`; decrypts it in place. What is not for this client is ignored.
    pub fn datagram(&mut self, env: &mut Env<'_>, from: SocketAddr, datagram: &mut [u8], out: &mut Output) {
        match &mut self.stage {
            Stage::LookingUp(connecting, heard) => {
                let step = connecting.handle(env.now, from, datagram);
                let server = connecting.server();
                *heard = step.heard(*heard);
                self.looked_up(env, server, step, out);
            }
            Stage::Opening(connecting, heard, _) => {
                let step = connecting.handle(env.now, from, datagram);
                let server = connecting.server();
                *heard = step.heard(*heard);
                self.opened(env, server, step, out);
            }
            _ => {
                let mut events = Vec::new();
                if let Some(session) = self.session() {
                    // Rejected datagrams are counted by the session; there is nobody to tell.
                    let _ = session.receive(env.now, from, datagram, &mut events);
                }
                events.into_iter().for_each(|event| self.on_session_event(env, event, out));
            }
        }
        self.flush(env, out);
    }

    /// When [`Machine::on_deadline`] has to be called; `None` if time alone changes nothing.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let stage = match &self.stage {
            Stage::New | Stage::Deriving | Stage::Ended => None,
            Stage::LookingUp(connecting, _) => connecting.deadline(),
            Stage::Opening(connecting, _, trying) => connecting.deadline().into_iter().chain(trying.move_on).min(),
            Stage::LoggingIn(session, logging_in) => session.deadline().into_iter().chain([logging_in.deadline]).min(),
            Stage::Ready(session, _) => session.deadline().into_iter().chain(self.requests.deadline()).min(),
            Stage::LoggingOut(session, _, until) => session.deadline().into_iter().chain([*until]).min(),
            Stage::Pausing(until) => Some(*until),
        };
        if matches!(self.stage, Stage::New | Stage::Ended) {
            return None;
        }
        stage.into_iter().chain(self.texts.deadline(self.is_online())).min()
    }

    /// Does what is due. Calling it early does nothing.
    pub fn on_deadline(&mut self, env: &mut Env<'_>, out: &mut Output) {
        match &self.stage {
            Stage::LookingUp(..) | Stage::Opening(..) => self.on_handshake_deadline(env, out),
            Stage::Pausing(until) if *until <= env.now => self.look_up(env, out),
            _ => self.on_session_deadline(env, out),
        }
        self.texts.on_deadline(env.now);
        self.flush(env, out);
    }

    /// Brings back the result of [`Work::DeriveKey`].
    pub fn key_derived(&mut self, env: &mut Env<'_>, key: DerivedKey, out: &mut Output) {
        if self.has_ended() {
            return;
        }
        self.password = None;
        self.key = Some(key.clone());
        out.events.push(Event::KeyDerived(key));
        if matches!(self.stage, Stage::Deriving) {
            self.open_at(env, 0, out);
        }
        self.flush(env, out);
    }

    /// Brings back the result of [`Work::Store`]. If it failed the client ends: what it may no longer promise, it no
    /// longer does.
    pub fn stored(&mut self, env: &mut Env<'_>, result: Result<(), JournalError>, out: &mut Output) {
        match result {
            Ok(()) => {
                let shown = self.texts.written();
                // After the end nothing is told: these come at the next start.
                if !self.has_ended() {
                    out.events.extend(shown.into_iter().map(|text| Event::Text(Box::new(text))));
                }
            }
            Err(error) => {
                self.journal_failed = true;
                self.end(env, End::Journal(error.to_string()), out);
            }
        }
        self.flush(env, out);
    }

    /// Sends a text, now or as soon as there is a login. Its id names it in [`Event::Tick`].
    ///
    /// # Errors
    /// If the queue is full, or the client has ended.
    pub fn send_text(
        &mut self,
        env: &mut Env<'_>,
        to: Target,
        body: PrivateText<8192>,
        out: &mut Output,
    ) -> Result<MsgId, TextError> {
        if matches!(self.stage, Stage::Ended | Stage::LoggingOut(..)) {
            return Err(TextError::Ended);
        }
        let id = MsgId::random(&mut env.rng);
        self.texts.write(id, to, env.wall, TextKind::TEXT, body)?;
        self.flush(env, out);
        Ok(id)
    }

    /// The application has dealt with a text; it will not come again.
    pub fn taken(&mut self, env: &mut Env<'_>, from: UserId, id: MsgId, out: &mut Output) {
        self.texts.taken(from, id);
        self.flush(env, out);
    }

    /// The user saw a text: its sender may be told. Lost if there is no login before the client ends.
    pub fn read(&mut self, env: &mut Env<'_>, from: UserId, id: MsgId, out: &mut Output) {
        self.texts.read(from, id);
        self.flush(env, out);
    }

    /// Changes the status, now and for later logins. May get lost with the session; the next login repeats it.
    pub fn set_status(&mut self, env: &mut Env<'_>, status: Status, out: &mut Output) {
        self.options.status = status;
        // Not logged in, or too much to send: the next login says it.
        let _ = self.notice(env, &StatusChangedNotify { status }, out);
    }

    /// Asks the server for something: a built-in request (`AddBuddyReq`, `BuddyBlockedNotify`, `GetBuddyInfoReq`, …) or
    /// an embedder's. Ends in exactly one [`Event::Answer`]. The roster follows by itself.
    ///
    /// # Errors
    /// If nothing was sent.
    pub fn request<M: Request>(
        &mut self,
        env: &mut Env<'_>,
        request: &M,
        out: &mut Output,
    ) -> Result<RequestHandle, RequestError> {
        let Stage::Ready(session, _) = &mut self.stage else { return Err(RequestError::NotConnected) };
        if self.requests.is_full() {
            return Err(RequestError::TooMany);
        }
        let sequence = self.requests.next_sequence();
        let frame = frame::request(request, sequence);
        let change = Change::of(M::CODE, frame.get(frame::HEADER_LEN..).unwrap_or_default());
        send(session, frame)?;
        let handle = self.requests.sent(env.now, sequence, M::Answer::CODE, change);
        self.flush(env, out);
        Ok(handle)
    }

    /// Tells the server something that has no answer.
    ///
    /// # Errors
    /// If nothing was sent.
    pub fn notice<M: Message>(&mut self, env: &mut Env<'_>, notice: &M, out: &mut Output) -> Result<(), RequestError> {
        self.send_frame(env, frame::notice(notice), out)
    }

    /// Answers a request of the server that came as [`Event::Other`].
    ///
    /// # Errors
    /// If nothing was sent.
    pub fn answer<M: Message>(
        &mut self,
        env: &mut Env<'_>,
        sequence: Sequence,
        answer: &M,
        out: &mut Output,
    ) -> Result<(), RequestError> {
        self.send_frame(env, frame::answer(answer, sequence), out)
    }

    fn send_frame(&mut self, env: &mut Env<'_>, frame: bytes::Bytes, out: &mut Output) -> Result<(), RequestError> {
        let Stage::Ready(session, _) = &mut self.stage else { return Err(RequestError::NotConnected) };
        send(session, frame)?;
        self.flush(env, out);
        Ok(())
    }

    /// Leaves. Buddies are told at once; the end comes with [`Event::Ended`]. Texts without a tick stay in the journal.
    pub fn logout(&mut self, env: &mut Env<'_>, out: &mut Output) {
        match &self.stage {
            Stage::Ready(..) => self.say_goodbye(env, out),
            Stage::LoggingOut(..) | Stage::Ended => {}
            _ => self.end(env, End::LoggedOut, out),
        }
        self.flush(env, out);
    }

    /// The network is back, or another one: try at once what would be tried later.
    pub fn wake(&mut self, env: &mut Env<'_>, out: &mut Output) {
        if matches!(self.stage, Stage::Pausing(_)) {
            self.look_up(env, out);
        } else if let Some(session) = self.session() {
            session.probe();
        }
        self.flush(env, out);
    }

    /// The Routers are now at these addresses: the next lookup goes there.
    pub fn set_routers(&mut self, routers: Vec<SocketAddr>) {
        self.options.routers = routers;
        self.turn = 0;
    }

    /// The buddies, groups and so on.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Texts of ours without a final tick, in the order they were written, with the tick they have.
    pub fn outgoing(&self) -> impl ExactSizeIterator<Item = (&Content, Tick)> {
        self.texts.leaving()
    }

    /// The user's id, once logged in; 0 before.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.user
    }

    /// Whether there is a login.
    #[must_use]
    pub fn is_online(&self) -> bool {
        matches!(self.stage, Stage::Ready(..))
    }

    /// Whether it is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    /// The index in all datagrams for this client now; for sockets that several clients share.
    #[must_use]
    pub fn index(&self) -> Option<u32> {
        match &self.stage {
            Stage::LookingUp(connecting, _) | Stage::Opening(connecting, ..) => Some(connecting.index()),
            Stage::LoggingIn(session, _) | Stage::Ready(session, _) | Stage::LoggingOut(session, ..) => {
                Some(session.index())
            }
            _ => None,
        }
    }

    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::LoggingIn(session, _) | Stage::Ready(session, _) | Stage::LoggingOut(session, ..) => Some(session),
            _ => None,
        }
    }

    /// Sends what can be sent and hands out what has to be written.
    pub(super) fn flush(&mut self, env: &mut Env<'_>, out: &mut Output) {
        if let Stage::Ready(session, _) = &mut self.stage {
            while let Some(text) = self.texts.next_to_send(env.now) {
                let message = crate::messages::chat::TxtMsg { text: text.clone() };
                if session.send(frame::notice(&message)).is_err() {
                    break;
                }
                self.texts.sent(env.now, message.text.id);
            }
            while let Some(confirmation) = self.texts.next_confirmation() {
                if session.send(frame::notice(&confirmation)).is_err() {
                    break;
                }
                self.texts.confirmed(&confirmation);
            }
        }
        if let Some(session) = self.session() {
            transmit(session, env.now, out);
        }
        if self.options.durability == Durability::Journal
            && !self.journal_failed
            && let Some(batch) = self.texts.next_batch()
        {
            out.work.push(Work::Store(batch));
        }
    }

    /// The end. Requests end with it; the session is closed.
    pub(super) fn end(&mut self, env: &mut Env<'_>, why: End, out: &mut Output) {
        if self.has_ended() {
            return;
        }
        self.leave_session(env, out);
        self.stage = Stage::Ended;
        (self.password, self.key) = (None, None);
        self.texts.hurry();
        out.events.push(Event::Ended(why));
    }

    /// Closes the session, if there is one, and ends what depended on it.
    pub(super) fn leave_session(&mut self, env: &mut Env<'_>, out: &mut Output) {
        if let Some(session) = self.session() {
            session.close(CloseReason::DONE);
            transmit(session, env.now, out);
        }
        for pending in self.requests.restart() {
            let outcome = Err(RequestError::Disconnected);
            out.events.push(Event::Answer { request: pending.id, outcome });
        }
        self.texts.restart();
        if self.roster.all_offline() {
            out.events.push(Event::RosterChanged);
        }
    }

    /// For the answer to a code nobody here knows.
    pub(super) fn is_ours(code: Code) -> bool {
        code < Code::EMBEDDER_FIRST
    }
}

/// Queues a frame.
fn send(session: &mut Session, frame: bytes::Bytes) -> Result<(), RequestError> {
    let len = frame.len();
    session.send(frame).map_err(|error| match error {
        SendError::Full => RequestError::TooMany,
        SendError::TooLarge => RequestError::TooLarge { len, max: FRAME_MAX_CLIENT },
        SendError::Over => RequestError::NotConnected,
    })
}

/// Hands out every datagram a session has to send now.
pub(super) fn transmit(session: &mut Session, now: Time, out: &mut Output) {
    let mut bytes = Vec::new();
    while let Some(to) = session.poll_transmit(now, &mut bytes) {
        out.datagrams.push(Datagram { to, bytes: core::mem::take(&mut bytes) });
    }
}
