//! One client, without socket or clock: looks up, opens a session, logs in, confirms what it receives. The protocol is
//! `xmmep`'s; what a person would see is left out.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use xmmep::bounded::{List, Text};
use xmmep::client::DerivedKey;
use xmmep::frame::{self, Frame, Sequence};
use xmmep::message::Message;
use xmmep::messages::chat::{
    CONFIRM_MAX, ConfirmLevel, Confirmed, OfflineEndNotify, Tick, TxtConfirm, TxtMsgFwd, TxtTickNotify,
};
use xmmep::messages::login::{
    BuddyLoginNotify, ClientReady, GetLoginInfoReq, GetLoginInfoRes, LoginReq, LoginRes1, LoginResEnd,
};
use xmmep::messages::status::StatusChangedNotifyFwd;
use xmmep::messages::{DeviceClass, ResultMsg};
use xmmep::name::UserName;
use xmmep::result_code::ResultCode;
use xmmep::session::{Config, Connecting, Event, ServerPublicKey, Session, Step, TICKET_LEN, Ticket};
use xmmep::types::{DeviceId, MsgId, RosterVersion, Status, Time, UserId};

/// What all clients have in common.
pub(crate) struct Shared {
    pub(crate) router: SocketAddr,
    pub(crate) router_key: ServerPublicKey,
    pub(crate) key: DerivedKey,
    pub(crate) config: Arc<Config>,
    pub(crate) rng: StdRng,
    /// Empty; its memory is used again.
    pub(crate) events: Vec<Event>,
}

/// What a workload wants to know.
#[derive(Clone, Debug)]
pub(crate) enum Happened {
    /// The login is complete, and the server knows that.
    LoggedIn,
    /// A text arrived; it is being confirmed.
    Text,
    /// A text that was sent got this far.
    Tick(MsgId, Tick, ResultCode),
    /// A buddy's status.
    Notified(UserId),
    /// All that waited has arrived.
    Drained,
    /// The client is out, and why.
    Lost(String),
}

/// How far a client is.
pub(crate) enum Stage {
    Out,
    LookingUp(Box<Connecting>),
    Opening(Box<Connecting>),
    LoggingIn(Box<Session>),
    Ready(Box<Session>),
}

pub(crate) struct User {
    pub(crate) stage: Stage,
    /// Texts that came and are confirmed with the next datagram.
    confirm: Vec<Confirmed>,
}

impl User {
    pub(crate) fn new() -> Self {
        Self { stage: Stage::Out, confirm: Vec::new() }
    }

    /// Begins a login; returns the first datagram, for the Router.
    pub(crate) fn log_in(&mut self, now: Time, name: &UserName, shared: &mut Shared) -> Vec<u8> {
        let request = frame::request(&GetLoginInfoReq { name: name.clone() }, Sequence(1));
        let begun = Connecting::lookup(now, shared.router, &shared.router_key, &request, &mut shared.rng);
        let (connecting, datagram) = begun.expect("a name fits into a handshake");
        self.stage = Stage::LookingUp(Box::new(connecting));
        datagram
    }

    /// Under which index datagrams come for this client.
    pub(crate) fn index(&self) -> Option<u32> {
        match &self.stage {
            Stage::Out => None,
            Stage::LookingUp(connecting) | Stage::Opening(connecting) => Some(connecting.index()),
            Stage::LoggingIn(session) | Stage::Ready(session) => Some(session.index()),
        }
    }

    pub(crate) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::LoggingIn(session) | Stage::Ready(session) => Some(session),
            _ => None,
        }
    }

    /// Takes in a datagram. What it has to send at once, outside the session, is returned with its address.
    pub(crate) fn datagram(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &mut [u8],
        name: &UserName,
        shared: &mut Shared,
        happened: &mut dyn FnMut(Happened),
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let step = match &mut self.stage {
            Stage::LookingUp(connecting) | Stage::Opening(connecting) => connecting.handle(now, from, bytes),
            Stage::LoggingIn(session) | Stage::Ready(session) => {
                // What is not for this session is counted there.
                let _ = session.receive(now, from, bytes, &mut shared.events);
                let mut events = std::mem::take(&mut shared.events);
                events.drain(..).for_each(|event| self.event(event, happened));
                shared.events = events;
                return None;
            }
            Stage::Out => return None,
        };
        match step {
            Step::Ignore => None,
            Step::Send(bytes) => Some((from, bytes)),
            Step::Answer(answer) => self.found(now, answer, shared, happened),
            Step::Open(mut session, _) => {
                let request = LoginReq {
                    name: name.clone(),
                    login_key: shared.key.key.clone(),
                    status: Status::ONLINE,
                    device: DeviceId([1; 16]),
                    device_class: DeviceClass::COMPUTER,
                    device_name: Text::default(),
                    roster_version: RosterVersion(0),
                    client: Text::default(),
                };
                session.send(frame::request(&request, Sequence(1))).expect("the first message fits");
                self.stage = Stage::LoggingIn(session);
                None
            }
        }
    }

    /// The Router has answered: on to the Presence.
    fn found(
        &mut self,
        now: Time,
        answer: Bytes,
        shared: &mut Shared,
        happened: &mut dyn FnMut(Happened),
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let info = Frame::decode(answer).ok().and_then(|frame| frame.message::<GetLoginInfoRes>().ok());
        let address = info.as_ref().and_then(|info| info.addresses.iter().next().map(SocketAddr::from));
        let (Some(info), Some(address)) = (info, address) else {
            self.stage = Stage::Out;
            happened(Happened::Lost("the Router gave no address".to_owned()));
            return None;
        };
        let ticket = <[u8; TICKET_LEN]>::try_from(&*info.ticket).ok().map(Ticket::from_bytes);
        let key = ServerPublicKey(info.presence_key);
        let begun = Connecting::open(now, address, &key, ticket, &[], shared.config.clone(), &mut shared.rng);
        let (connecting, datagram) = begun.expect("nothing fits into a handshake");
        self.stage = Stage::Opening(Box::new(connecting));
        Some((address, datagram))
    }

    fn event(&mut self, event: Event, happened: &mut dyn FnMut(Happened)) {
        match event {
            Event::Message(message) => match Frame::decode(message) {
                Ok(frame) => self.frame(&frame, happened),
                Err(error) => happened(Happened::Lost(format!("a frame that is none: {error}"))),
            },
            Event::Ended(why) => {
                self.stage = Stage::Out;
                happened(Happened::Lost(format!("{why:?}")));
            }
            _ => {}
        }
    }

    fn frame(&mut self, frame: &Frame, happened: &mut dyn FnMut(Happened)) {
        match frame.header.code {
            TxtMsgFwd::CODE => {
                let Ok(text) = frame.message::<TxtMsgFwd>() else { return };
                self.confirm.push(Confirmed { from: text.from, id: text.text.id });
                happened(Happened::Text);
            }
            TxtTickNotify::CODE => {
                let Ok(tick) = frame.message::<TxtTickNotify>() else { return };
                happened(Happened::Tick(tick.id, tick.tick, tick.result));
            }
            StatusChangedNotifyFwd::CODE => {
                let Ok(notify) = frame.message::<StatusChangedNotifyFwd>() else { return };
                notify.changes.iter().for_each(|change| happened(Happened::Notified(change.user)));
            }
            BuddyLoginNotify::CODE => {
                let Ok(notify) = frame.message::<BuddyLoginNotify>() else { return };
                happened(Happened::Notified(notify.buddy.user));
            }
            OfflineEndNotify::CODE => happened(Happened::Drained),
            LoginRes1::CODE => {
                if let Stage::LoggingIn(session) = &mut self.stage {
                    session.promote();
                }
            }
            LoginResEnd::CODE => {
                let Stage::LoggingIn(mut session) = std::mem::replace(&mut self.stage, Stage::Out) else { return };
                // The queue is empty: this cannot be refused.
                let _ = session.send(frame::notice(&ClientReady {}));
                self.stage = Stage::Ready(session);
                happened(Happened::LoggedIn);
            }
            ResultMsg::CODE => {
                let result = frame.message::<ResultMsg>().map(|refusal| refusal.result);
                if result != Ok(ResultCode::SUCCESS) {
                    happened(Happened::Lost(format!("refused: {result:?}")));
                }
            }
            _ => {}
        }
    }

    /// Puts the confirmations of what came into the session.
    pub(crate) fn confirm(&mut self) {
        if self.confirm.is_empty() {
            return;
        }
        let Stage::Ready(session) = &mut self.stage else { return };
        for some in self.confirm.chunks(CONFIRM_MAX) {
            let messages = List::new(some.to_vec()).unwrap_or_default();
            // A queue that is full holds confirmations enough; the server repeats the rest.
            let _ = session.send(frame::notice(&TxtConfirm { level: ConfirmLevel::RECEIVED, messages }));
        }
        self.confirm.clear();
    }

    pub(crate) fn deadline(&self) -> Option<Time> {
        match &self.stage {
            Stage::Out => None,
            Stage::LookingUp(connecting) | Stage::Opening(connecting) => connecting.deadline(),
            Stage::LoggingIn(session) | Stage::Ready(session) => session.deadline(),
        }
    }

    /// Does what is due; returns a datagram of the handshake that goes out again, and where.
    pub(crate) fn on_deadline(
        &mut self,
        now: Time,
        happened: &mut dyn FnMut(Happened),
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let lost = match &mut self.stage {
            Stage::Out => None,
            Stage::LookingUp(connecting) | Stage::Opening(connecting) => match connecting.on_deadline(now) {
                Ok(datagram) => return datagram.map(|datagram| (connecting.server(), datagram)),
                Err(gave_up) => Some(gave_up.to_string()),
            },
            Stage::LoggingIn(session) | Stage::Ready(session) => {
                session.on_deadline(now).map(|ended| format!("{ended:?}"))
            }
        };
        if let Some(why) = lost {
            self.stage = Stage::Out;
            happened(Happened::Lost(why));
        }
        None
    }
}
