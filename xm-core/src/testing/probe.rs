//! A probe: a session that says exactly what a test says, in whatever order, and keeps everything it hears. For what a
//! well-behaved client never does, and for moments a client decides by itself.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use xmmep::bounded::Text;
use xmmep::frame::{self, Code, Frame, Kind, Sequence};
use xmmep::message::Message;
use xmmep::messages::login::{ClientReady, LoginReq, LoginResEnd};
use xmmep::session::{Connecting, Ended, Event, Session, Step};
use xmmep::types::{RosterVersion, Time};

use super::client::ClientId;
use super::wire::Node;
use super::world::{World, address};

/// Names a probe of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub usize);

/// A session in a test's hands.
pub struct Probe {
    /// Every frame it heard, with the time.
    pub heard: Vec<(Time, Frame)>,
    /// How its session ended, if it has.
    pub ended: Option<Ended>,
    pub(super) address: SocketAddr,
    pub(super) state: State,
    pub(super) sequence: Sequence,
}

/// How far a probe is.
pub(super) enum State {
    Connecting(Box<Connecting>),
    Open(Box<Session>),
    Over,
}

impl Probe {
    pub(super) fn new(address: SocketAddr, connecting: Connecting) -> Self {
        Self {
            heard: Vec::new(),
            ended: None,
            address,
            state: State::Connecting(Box::new(connecting)),
            sequence: Sequence::NONE,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its session, once it is open.
    #[must_use]
    pub fn session(&self) -> Option<&Session> {
        match &self.state {
            State::Open(session) => Some(session),
            _ => None,
        }
    }

    /// The messages of one kind it heard, oldest first.
    #[must_use]
    pub fn all<M: Message>(&self) -> Vec<M> {
        self.heard.iter().filter_map(|(_, frame)| frame.message().ok()).collect()
    }

    /// How many frames of one kind it heard, whether they can be read or not.
    #[must_use]
    pub fn count<M: Message>(&self) -> usize {
        self.heard.iter().filter(|(_, frame)| frame.header.code == M::CODE).count()
    }

    /// The last message of one kind it heard.
    #[must_use]
    pub fn last<M: Message>(&self) -> Option<M> {
        self.all().pop()
    }

    /// The answer to the request with that number.
    #[must_use]
    pub fn answer(&self, sequence: Sequence) -> Option<&Frame> {
        let answers = |frame: &&Frame| frame.header.kind == Kind::Answer && frame.header.sequence == sequence;
        self.heard.iter().map(|(_, frame)| frame).find(answers)
    }

    /// Forgets what it heard so far.
    pub fn forget(&mut self) {
        self.heard.clear();
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match &self.state {
            State::Connecting(connecting) => connecting.deadline(),
            State::Open(session) => session.deadline(),
            State::Over => None,
        }
    }
}

impl World {
    /// Opens a session with a Presence, without a ticket, and lets time pass until it is open.
    ///
    /// # Panics
    /// If it is not open within 10 s.
    pub fn connect(&mut self, presence: usize) -> ProbeId {
        let id = self.connect_quietly(presence);
        let open = self.run_until(Duration::from_secs(10), |world| world.probe(id).session().is_some());
        assert!(open, "no session for a probe, seed {}", self.seed);
        id
    }

    /// Begins to open a session with a Presence; time does not pass.
    pub fn connect_quietly(&mut self, presence: usize) -> ProbeId {
        let id = ProbeId(self.probes.len());
        let mut rng = StdRng::from_rng(&mut self.rng);
        let [.., high, low] = (id.0 as u64).to_be_bytes();
        let address = address([192, 0, high, low], 50_000);
        let server = (self.presences[presence].address, self.presences[presence].key.public());
        let session = self.session.clone();
        let opening = Connecting::open(self.now, server.0, &server.1, None, &[], session, &mut rng);
        let (connecting, init) = opening.expect("an empty payload fits");
        self.probes.push(Probe::new(address, connecting));
        self.wire.settle_at(Node::Probe(id), address);
        self.send(Node::Probe(id), server.0, init);
        id
    }

    /// Opens a session and logs in, with the device of the client; stops before `ClientReady`.
    ///
    /// # Panics
    /// If the login is not complete within 10 s.
    pub fn probe_as(&mut self, client: ClientId) -> ProbeId {
        let id = self.connect(0);
        let login = self.login_of(client);
        self.ask(id, &login);
        let complete = self.run_until(Duration::from_secs(10), |world| world.probe(id).last::<LoginResEnd>().is_some());
        assert!(complete, "no login for a probe, seed {}: {:?}", self.seed, self.probe(id).heard);
        id
    }

    /// As [`probe_as`](Self::probe_as), and says `ClientReady`.
    ///
    /// # Panics
    /// If the login is not complete within 10 s.
    pub fn ready_probe_as(&mut self, client: ClientId) -> ProbeId {
        let id = self.probe_as(client);
        self.tell(id, &ClientReady {});
        self.run(Duration::from_millis(50));
        id
    }

    /// The login a client would send.
    #[must_use]
    pub fn login_of(&self, client: ClientId) -> LoginReq {
        let client = self.client(client);
        LoginReq {
            name: client.name.clone(),
            login_key: client.key.clone(),
            status: client.options.status,
            device: client.options.device,
            device_class: client.options.device_class,
            device_name: client.options.device_name.clone(),
            roster_version: RosterVersion(0),
            client: Text::cut("probe"),
        }
    }

    /// A probe, to look at.
    #[must_use]
    pub fn probe(&self, id: ProbeId) -> &Probe {
        &self.probes[id.0]
    }

    /// A probe, to let it forget.
    pub fn probe_mut(&mut self, id: ProbeId) -> &mut Probe {
        &mut self.probes[id.0]
    }

    /// Says something that wants no answer.
    pub fn tell<M: Message>(&mut self, id: ProbeId, message: &M) {
        self.say_frame(id, frame::notice(message));
    }

    /// Asks something; the number is that of the answer.
    pub fn ask<M: Message>(&mut self, id: ProbeId, message: &M) -> Sequence {
        let sequence = self.next_sequence(id);
        self.say_frame(id, frame::request(message, sequence));
        sequence
    }

    /// Asks something and waits for the answer.
    ///
    /// # Panics
    /// If none comes within 5 s.
    pub fn ask_now<M: Message>(&mut self, id: ProbeId, message: &M) -> Frame {
        let sequence = self.ask(id, message);
        self.await_answer(id, sequence)
    }

    /// Asks with any code and body and waits for the answer.
    ///
    /// # Panics
    /// If none comes within 5 s.
    pub fn ask_raw(&mut self, id: ProbeId, code: Code, body: &[u8]) -> Frame {
        let sequence = self.next_sequence(id);
        let mut bytes = code.0.to_be_bytes().to_vec();
        bytes.push(0);
        bytes.extend(sequence.0.to_be_bytes());
        bytes.extend(body);
        self.say_frame(id, bytes.into());
        self.await_answer(id, sequence)
    }

    fn await_answer(&mut self, id: ProbeId, sequence: Sequence) -> Frame {
        self.run_until(Duration::from_secs(5), |world| world.probe(id).answer(sequence).is_some());
        let answer = self.probe(id).answer(sequence).cloned();
        answer.unwrap_or_else(|| panic!("no answer to request {} of a probe, seed {}", sequence.0, self.seed))
    }

    fn next_sequence(&mut self, id: ProbeId) -> Sequence {
        let probe = &mut self.probes[id.0];
        probe.sequence = probe.sequence.next();
        probe.sequence
    }

    /// Puts a frame, of whatever bytes, on its way.
    ///
    /// # Panics
    /// If the session is not open, or takes no more.
    pub fn say_frame(&mut self, id: ProbeId, frame: Bytes) {
        self.queue_frame(id, frame);
        self.flush_probe(id);
    }

    /// As [`say_frame`](Self::say_frame), but nothing leaves before the next one that does: so that several share a
    /// datagram.
    ///
    /// # Panics
    /// If the session is not open, or takes no more.
    pub fn queue_frame(&mut self, id: ProbeId, frame: Bytes) {
        let State::Open(session) = &mut self.probes[id.0].state else { panic!("the probe's session is not open") };
        session.send(frame).expect("the probe's session takes another frame");
    }

    /// Ends a probe without a word.
    pub fn drop_probe(&mut self, id: ProbeId) {
        self.probes[id.0].state = State::Over;
    }

    fn flush_probe(&mut self, id: ProbeId) {
        let mut bytes = Vec::new();
        while let State::Open(session) = &mut self.probes[id.0].state {
            let Some(to) = session.poll_transmit(self.now, &mut bytes) else { break };
            self.send(Node::Probe(id), to, std::mem::take(&mut bytes));
        }
    }

    pub(super) fn probe_datagram(&mut self, id: ProbeId, from: SocketAddr, bytes: &mut [u8]) {
        let now = self.now;
        let probe = &mut self.probes[id.0];
        match &mut probe.state {
            State::Connecting(connecting) => {
                let server = connecting.server();
                match connecting.handle(now, from, bytes) {
                    Step::Send(datagram) => self.send(Node::Probe(id), server, datagram),
                    Step::Open(mut session, _) => {
                        session.promote();
                        probe.state = State::Open(session);
                    }
                    Step::Ignore | Step::Answer(_) => {}
                }
            }
            State::Open(session) => {
                let mut events = Vec::new();
                // What is rejected has no effect, and none is what the test sees.
                let _ = session.receive(now, from, bytes, &mut events);
                for event in events {
                    match event {
                        Event::Message(message) => probe.heard.extend(Frame::decode(message).map(|frame| (now, frame))),
                        Event::Ended(ended) => probe.ended = Some(ended),
                        Event::Confirmed | Event::Datagram(_) | Event::AddressChanged(_) => {}
                    }
                }
            }
            State::Over => {}
        }
        self.flush_probe(id);
    }

    pub(super) fn probe_deadline(&mut self, id: ProbeId) {
        let now = self.now;
        let probe = &mut self.probes[id.0];
        if probe.deadline().is_none_or(|at| at > now) {
            return;
        }
        match &mut probe.state {
            State::Connecting(connecting) => {
                let server = connecting.server();
                match connecting.on_deadline(now) {
                    Ok(Some(datagram)) => self.send(Node::Probe(id), server, datagram),
                    Ok(None) => {}
                    Err(_) => probe.state = State::Over,
                }
            }
            State::Open(session) => {
                if let Some(ended) = session.on_deadline(now) {
                    probe.ended = Some(ended);
                }
            }
            State::Over => {}
        }
        self.flush_probe(id);
    }
}
