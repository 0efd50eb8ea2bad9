//! From nothing to a login: ask a Router, derive the key, open a session at the Presence, collect the parts; and what
//! to do when that fails. What follows a login is `online.rs`.

use core::net::SocketAddr;
use core::time::Duration;

use crate::frame::{self, Frame, Kind};
use crate::message::Message;
use crate::messages::ResultMsg;
use crate::messages::login::{ClientReady, GetLoginInfoReq, GetLoginInfoRes, LoginReq, SessionReport};
use crate::messages::status::StatusChangedNotify;
use crate::result_code::ResultCode;
use crate::secret::{KdfParams, Salt};
use crate::session::{Connecting, GaveUp, ServerPublicKey, Session, Step, Ticket};

use super::error::{ConnectError, End, Refusal};
use super::event::{Datagram, Env, Event, Output, Welcome, Work};
use super::login::Login;
use super::machine::{Heard, LoggingIn, Machine, Stage, Trying, transmit};
use super::options::{DeriveKey, FirstLogin};

/// How long a login may take from its first message to its last. At 30 % loss one in a hundred takes 20 s.
pub const LOGIN_PATIENCE: Duration = Duration::from_secs(30);

/// When an address of a server is given up for the next one, if there is one. Enough for three tries.
pub const MOVE_ON_AFTER: Duration = Duration::from_secs(4);

/// The first pause between two attempts, less a random part of up to all of it: ten thousand clients of a server that
/// restarts come back spread over a second.
pub const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest pause between two attempts, unless a server asks for more: a minute after a network comes back nobody is
/// still offline, and a server that is down is asked once a minute.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The longest pause a server may ask for.
const PAUSE_ASKED_MAX: Duration = Duration::from_secs(15 * 60);

/// How long a login has to stand before the next pause is the first one again. A server that breaks off each login at
/// once is not asked every second.
pub const STEADY_AFTER: Duration = Duration::from_secs(10);

/// Most messages other than its parts that may come in the middle of a login.
const EARLY_MAX: usize = 64;

/// Where the user lives, as the Router says.
#[derive(Clone, Debug)]
pub(super) struct Place {
    addresses: Vec<SocketAddr>,
    key: ServerPublicKey,
    ticket: Option<Ticket>,
    salt: Salt,
    kdf: KdfParams,
}

impl Place {
    /// The addresses to try: those of the family over which the Router was reached come first, because the ticket is
    /// bound to our address of that family.
    fn new(info: &GetLoginInfoRes, router: SocketAddr) -> Self {
        let mut addresses: Vec<SocketAddr> = info.addresses.iter().map(SocketAddr::from).collect();
        addresses.sort_by_key(|address| address.is_ipv4() != router.is_ipv4());
        let ticket = <[u8; crate::session::TICKET_LEN]>::try_from(&*info.ticket).ok().map(Ticket::from_bytes);
        Self { addresses, key: ServerPublicKey(info.presence_key), ticket, salt: info.salt, kdf: info.kdf }
    }
}

impl Step {
    /// Whether there was an answer of any kind.
    pub(super) fn heard(&self, before: Heard) -> Heard {
        if matches!(self, Self::Ignore) { before } else { Heard::Something }
    }
}

impl Machine {
    /// Asks the next Router where the user lives.
    pub(super) fn look_up(&mut self, env: &mut Env<'_>, out: &mut Output) {
        let routers = &self.options.routers;
        let Some(router) = routers.get(self.turn.checked_rem(routers.len()).unwrap_or(0)).copied() else {
            return self.end(env, End::NoLogin(ConnectError::UnknownHost(String::new())), out);
        };
        self.turn = self.turn.wrapping_add(1);
        let request = GetLoginInfoReq { name: self.options.name.clone() };
        let request = frame::request(&request, frame::Sequence(1));
        let key = ServerPublicKey(self.options.server_key);
        match Connecting::lookup(env.now, router, &key, &request, &mut env.rng) {
            Ok((connecting, bytes)) => {
                out.datagrams.push(Datagram { to: router, bytes });
                self.stage = Stage::LookingUp(Box::new(connecting), Heard::default());
            }
            Err(too_long) => self.fail(env, ConnectError::BadAnswer(too_long.to_string()), out),
        }
    }

    /// A step of the handshake with a Router.
    pub(super) fn looked_up(&mut self, env: &mut Env<'_>, router: SocketAddr, step: Step, out: &mut Output) {
        match step {
            Step::Send(bytes) => out.datagrams.push(Datagram { to: router, bytes }),
            Step::Answer(answer) => match read_answer(answer) {
                Ok(info) => self.located(env, &info, router, out),
                Err(error) => self.fail(env, error, out),
            },
            Step::Ignore | Step::Open(..) => {}
        }
    }

    fn located(&mut self, env: &mut Env<'_>, info: &GetLoginInfoRes, router: SocketAddr, out: &mut Output) {
        // Before anything is derived, let alone sent: a key made the cheap way is a gift to whoever asked for it.
        if let Err(error) = info.kdf.check() {
            return self.fail(env, error.into(), out);
        }
        let place = Place::new(info, router);
        let (salt, params) = (place.salt, place.kdf);
        self.place = Some(Box::new(place));
        let fits = self.key.as_ref().is_some_and(|key| key.salt == salt && key.params == params);
        match (&self.password, fits) {
            (_, true) => self.open_at(env, 0, out),
            (Some(password), false) => {
                out.work.push(Work::DeriveKey(DeriveKey { password: password.clone(), salt, params }));
                self.stage = Stage::Deriving;
            }
            (None, false) => self.fail(env, ConnectError::PasswordChanged, out),
        }
    }

    /// Opens a session at one of the Presence's addresses.
    pub(super) fn open_at(&mut self, env: &mut Env<'_>, index: usize, out: &mut Output) {
        let Some(place) = &self.place else { return };
        let Some(address) = place.addresses.get(index).copied() else {
            return self.fail(env, ConnectError::BadAnswer("the Router knows no address of the Presence".into()), out);
        };
        let others = place.addresses.len() > index.saturating_add(1);
        let trying = Trying { index, move_on: others.then(|| env.now.after(MOVE_ON_AFTER)) };
        let session = self.options.session.clone();
        match Connecting::open(env.now, address, &place.key, place.ticket, &[], session, &mut env.rng) {
            Ok((connecting, bytes)) => {
                out.datagrams.push(Datagram { to: address, bytes });
                self.stage = Stage::Opening(Box::new(connecting), Heard::default(), trying);
            }
            Err(too_long) => self.fail(env, ConnectError::BadAnswer(too_long.to_string()), out),
        }
    }

    /// A step of the handshake with a Presence.
    pub(super) fn opened(&mut self, env: &mut Env<'_>, server: SocketAddr, step: Step, out: &mut Output) {
        match step {
            Step::Send(bytes) => out.datagrams.push(Datagram { to: server, bytes }),
            Step::Open(session, _) => self.log_in(env, session, out),
            Step::Ignore | Step::Answer(_) => {}
        }
    }

    /// Sends the login.
    fn log_in(&mut self, env: &mut Env<'_>, mut session: Box<Session>, out: &mut Output) {
        let Some(key) = &self.key else {
            return self.fail(env, ConnectError::PasswordChanged, out);
        };
        let request = LoginReq {
            name: self.options.name.clone(),
            login_key: key.key.clone(),
            status: self.options.status,
            device: self.options.device,
            device_class: self.options.device_class,
            device_name: self.options.device_name.clone(),
            roster_version: self.roster.version,
            client: self.options.client.clone(),
        };
        let sequence = self.requests.next_sequence();
        if let Err(error) = session.send(frame::request(&request, sequence)) {
            return self.fail(env, ConnectError::BadAnswer(error.to_string()), out);
        }
        let deadline = env.now.after(LOGIN_PATIENCE);
        let status = self.options.status;
        let logging_in = LoggingIn { login: Login::new(), sequence, deadline, status, early: Vec::new() };
        self.stage = Stage::LoggingIn(session, Box::new(logging_in));
    }

    /// Time passed in a handshake.
    pub(super) fn on_handshake_deadline(&mut self, env: &mut Env<'_>, out: &mut Output) {
        let (connecting, heard, trying) = match &mut self.stage {
            Stage::LookingUp(connecting, heard) => (connecting, *heard, None),
            Stage::Opening(connecting, heard, trying) => (connecting, *heard, Some(*trying)),
            _ => return,
        };
        let server = connecting.server();
        let step = connecting.on_deadline(env.now);
        if let Some(trying) = trying
            && (step.is_err() || trying.move_on.is_some_and(|at| at <= env.now))
            && trying.move_on.is_some()
        {
            return self.open_at(env, trying.index.saturating_add(1), out);
        }
        let error = match step {
            Ok(datagram) => {
                out.datagrams.extend(datagram.map(|bytes| Datagram { to: server, bytes }));
                return;
            }
            Err(GaveUp::OtherVersion(_)) => ConnectError::Version(server),
            Err(GaveUp::NoAnswer) if heard == Heard::Something => ConnectError::WrongServerKey(server),
            Err(GaveUp::NoAnswer) => ConnectError::NotReachable(server),
        };
        // Without a Router, a user who was logged in goes back to where that was: the Presence asks for a cookie
        // instead of the ticket, which by now has expired.
        match &mut self.place {
            Some(place) if trying.is_none() && self.was_in && self.key.is_some() => {
                place.ticket = None;
                self.open_at(env, 0, out);
            }
            _ => self.fail(env, error, out),
        }
    }

    /// A message in the middle of a login.
    pub(super) fn on_login_frame(&mut self, env: &mut Env<'_>, frame: Frame, out: &mut Output) {
        let Stage::LoggingIn(_, logging_in) = &mut self.stage else { return };
        let answers = frame.header.kind == Kind::Answer;
        if answers && frame.header.sequence != logging_in.sequence {
            return;
        }
        match frame.header.code {
            ResultMsg::CODE if answers => match frame.message::<ResultMsg>() {
                Ok(refusal) => self.refused(env, refusal.into(), out),
                Err(error) => self.fail(env, ConnectError::BadAnswer(error.to_string()), out),
            },
            SessionReport::CODE => self.on_frame(env, frame, out),
            _ => match logging_in.login.take(&frame) {
                Some(Ok(None)) => {}
                Some(Ok(Some(end))) => self.logged_in(env, &end, out),
                Some(Err(error)) => self.fail(env, ConnectError::BadAnswer(error.to_string()), out),
                None if logging_in.early.len() < EARLY_MAX => logging_in.early.push(frame),
                None => self.fail(env, ConnectError::BadAnswer("no end of the login in sight".into()), out),
            },
        }
    }

    fn refused(&mut self, env: &mut Env<'_>, refusal: Refusal, out: &mut Output) {
        // Moved once is the ordinary fate of a user whose Presence was replaced; moved in circles is not.
        if refusal.result == ResultCode::MOVED && !self.moved {
            self.moved = true;
            self.leave_session(env, out);
            return self.look_up(env, out);
        }
        let error = match refusal.result {
            ResultCode::MOVED => ConnectError::BadAnswer("sent from one Presence to another and back".into()),
            _ => ConnectError::refused(refusal),
        };
        self.fail(env, error, out);
    }

    fn logged_in(&mut self, env: &mut Env<'_>, end: &crate::messages::login::LoginResEnd, out: &mut Output) {
        let Stage::LoggingIn(mut session, logging_in) = core::mem::replace(&mut self.stage, Stage::New) else { return };
        let first = match logging_in.login.finish(end, &mut self.roster) {
            Ok(first) => first,
            Err(error) => {
                self.stage = Stage::LoggingIn(session, Box::new(LoggingIn { login: Login::new(), ..*logging_in }));
                // Whatever was held before is no longer to be trusted either.
                self.roster.version = crate::types::RosterVersion(0);
                return self.fail(env, ConnectError::BadAnswer(error.to_string()), out);
            }
        };
        session.promote();
        // The queue is empty but for acknowledgements: this cannot be refused.
        let _ = session.send(frame::notice(&ClientReady {}));
        if logging_in.status != self.options.status {
            // Changed while the login was under way.
            let _ = session.send(frame::notice(&StatusChangedNotify { status: self.options.status }));
        }
        self.stage = Stage::Ready(session, env.now);
        (self.was_in, self.moved, self.user) = (true, false, first.user);
        out.events.push(Event::LoggedIn(Box::new(Welcome {
            user: first.user,
            name: first.name,
            profile: first.profile,
            server_time: first.server_time,
            device_policy: first.device_policy,
            failed_attempts: first.failed_attempts,
        })));
        logging_in.early.into_iter().for_each(|frame| self.on_frame(env, frame, out));
    }

    /// No login, or no longer: ends, or tries again later.
    pub(super) fn fail(&mut self, env: &mut Env<'_>, error: ConnectError, out: &mut Output) {
        let steady = matches!(&self.stage, Stage::Ready(_, since) if env.now.since(*since) >= STEADY_AFTER);
        let patient = self.was_in || self.options.first_login == FirstLogin::Patient;
        if !error.is_temporary() || !patient {
            return self.end(env, End::NoLogin(error), out);
        }
        self.leave_session(env, out);
        self.moved = false;
        self.attempt = if steady { 0 } else { self.attempt.saturating_add(1) };
        let retry_in = pause(self.attempt, env).max(error.wait().min(PAUSE_ASKED_MAX));
        self.stage = Stage::Pausing(env.now.after(retry_in));
        out.events.push(Event::Offline { error, retry_in });
    }

    /// Time passed in a session, or nowhere in particular.
    pub(super) fn on_session_deadline(&mut self, env: &mut Env<'_>, out: &mut Output) {
        if let Some(session) = self.session()
            && let Some(ended) = session.on_deadline(env.now)
        {
            return self.on_session_ended(env, ended, out);
        }
        match &mut self.stage {
            Stage::LoggingIn(_, logging_in) if logging_in.deadline <= env.now => {
                self.fail(env, ConnectError::TimedOut, out);
            }
            Stage::LoggingOut(_, _, until) if *until <= env.now => self.end(env, End::LoggedOut, out),
            Stage::Ready(session, _) => {
                transmit(session, env.now, out);
                self.expire_requests(env, out);
            }
            _ => {}
        }
    }
}

fn read_answer(answer: bytes::Bytes) -> Result<GetLoginInfoRes, ConnectError> {
    let bad = |error: crate::error::FrameError| ConnectError::BadAnswer(error.to_string());
    let frame = Frame::decode(answer).map_err(bad)?;
    if frame.header.code == ResultMsg::CODE {
        return Err(ConnectError::refused(frame.message::<ResultMsg>().map_err(bad)?.into()));
    }
    let info: GetLoginInfoRes = frame.message().map_err(bad)?;
    match info.result {
        ResultCode::SUCCESS => Ok(info),
        result => Err(ConnectError::refused(result.into())),
    }
}

/// A random pause: up to [`PAUSE_MIN`] at first, then twice as long each time, at least half of it.
fn pause(attempt: u32, env: &mut Env<'_>) -> Duration {
    let whole = PAUSE_MIN.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(PAUSE_MAX);
    let least = if attempt == 0 { Duration::ZERO } else { whole / 2 };
    let spread = u64::try_from(whole.saturating_sub(least).as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    least.saturating_add(Duration::from_millis(env.rng.next_u64().checked_rem(spread).unwrap_or(0)))
}
