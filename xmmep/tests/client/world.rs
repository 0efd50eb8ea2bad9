//! One client machine, one scripted Router, one scripted Presence, a wire between them, and a clock that jumps.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use xmmep::bounded::{Blob, List};
use xmmep::client::{
    Credentials, DerivedKey, Durability, Env, Event, Journal, Machine, MemoryJournal, Options, Output, Password, Work,
};
use xmmep::frame::{self, Frame, Sequence};
use xmmep::message::{Message, Request};
use xmmep::messages::ResultMsg;
use xmmep::messages::chat::{Tick, TxtMsg};
use xmmep::messages::login::{GetLoginInfoReq, GetLoginInfoRes, LoginReq};
use xmmep::result_code::ResultCode;
use xmmep::secret::{KdfParams, KeyHash, Salt, TicketKey};
use xmmep::session::{
    Accept, Acceptor, Admission, CloseReason, Config, Event as SessionEvent, Peek, ServerKey, Serves, Session, Ticket,
    UserKind, peek,
};
use xmmep::types::{DeviceId, PresenceId, Time, WallTime};

use crate::script::{ME, PASSWORD, login_with_bob, refusal, right_key, tick_of};

const PRESENCE: PresenceId = PresenceId { cluster: 1, presence: 1 };

/// What the scripted servers do; tests change it before or between steps.
pub(crate) struct Script {
    pub(crate) info: Option<GetLoginInfoRes>,
    pub(crate) kdf: KdfParams,
    pub(crate) salt: Salt,
    pub(crate) ticket: Tickets,
    /// What the Presence sends when a right LoginReq came, before anything else; `None`: nothing at all.
    pub(crate) login: Option<Vec<Bytes>>,
    /// What the Presence answers instead of a login.
    pub(crate) refuse: Option<ResultMsg>,
    /// Whether texts get DELIVERED at once.
    pub(crate) tick: Option<Tick>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Tickets {
    Good,
    Missing,
    Forged,
}

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) key: ServerKey,
    pub(crate) acceptor: Acceptor,
    pub(crate) sessions: BTreeMap<u32, Session>,
    /// What clients said, with the session it came over.
    pub(crate) inbox: VecDeque<(u32, Frame)>,
    pub(crate) up: bool,
    next_index: u32,
}

type Lose = Box<dyn FnMut(&[u8], SocketAddr) -> bool>;

struct Packet {
    at: Time,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) rng: StdRng,
    pub(crate) client_addr: SocketAddr,
    pub(crate) machine: Machine,
    pub(crate) router: Server,
    pub(crate) presence: Server,
    pub(crate) script: Script,
    pub(crate) journal: MemoryJournal,
    pub(crate) events: Vec<Event>,
    /// Work that waits because the test said so.
    pub(crate) held: Option<Vec<Work>>,
    /// How many keys were derived.
    pub(crate) derived: usize,
    /// Whether the password is the right one, so that the key need not be derived for each world anew.
    pub(crate) right_password: bool,
    /// Says which packets get lost.
    pub(crate) lose: Lose,
    /// Every datagram the client sent, with its time.
    pub(crate) sent: Vec<(Time, SocketAddr, Vec<u8>)>,
    tickets: TicketKey,
    wire: Vec<Packet>,
}

impl Server {
    fn new(addr: &str, serves: Serves, tickets: Option<(TicketKey, PresenceId)>, rng: &mut StdRng) -> Self {
        let key = ServerKey::random(rng);
        let again = ServerKey::from_bytes(*key.expose());
        let acceptor = Acceptor::new(Time::ZERO, again, serves, tickets, Arc::new(Config::default()), rng);
        let addr = addr.parse().unwrap();
        Self { addr, key, acceptor, sessions: BTreeMap::new(), inbox: VecDeque::new(), up: true, next_index: 1 }
    }
}

impl World {
    /// Ann with a password and an empty journal.
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(seed, |_| {})
    }

    pub(crate) fn with(seed: u64, change: impl FnOnce(&mut Options)) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let tickets = TicketKey::from_bytes([9; 32]);
        let router = Server::new("192.0.2.1:7100", Serves::Lookups, None, &mut rng);
        let for_presence = Some((tickets.clone(), PRESENCE));
        let presence = Server::new("192.0.2.2:7101", Serves::Sessions, for_presence, &mut rng);
        let script = Script {
            info: None,
            kdf: KdfParams::RECOMMENDED,
            salt: Salt([3; 16]),
            ticket: Tickets::Good,
            login: Some(login_with_bob()),
            refuse: None,
            tick: Some(Tick::DELIVERED),
        };
        let mut options = Options::new(
            vec![router.addr],
            router.key.public().0,
            "ann".parse().unwrap(),
            Credentials::Password(Password::new(PASSWORD)),
            DeviceId([1; 16]),
        );
        change(&mut options);
        let mut journal = MemoryJournal::new();
        let remembered = journal.recover().unwrap();
        let machine = Machine::new(options, remembered);
        let client_addr = "198.51.100.1:5000".parse().unwrap();
        Self {
            now: Time::ZERO,
            rng,
            client_addr,
            machine,
            router,
            presence,
            script,
            journal,
            events: Vec::new(),
            held: None,
            derived: 0,
            right_password: true,
            lose: Box::new(|_, _| false),
            sent: Vec::new(),
            tickets,
            wire: Vec::new(),
        }
    }

    /// Ann, logged in.
    pub(crate) fn logged_in(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.start();
        world.until_online();
        world
    }

    pub(crate) fn wall(&self) -> WallTime {
        WallTime(1_700_000_000_000 + self.now.as_micros() / 1_000)
    }

    /// Calls the machine and deals with what it brings about.
    pub(crate) fn call<T>(&mut self, f: impl FnOnce(&mut Machine, &mut Env<'_>, &mut Output) -> T) -> T {
        let mut out = Output::default();
        let wall = self.wall();
        let result = f(&mut self.machine, &mut Env { now: self.now, wall, rng: &mut self.rng }, &mut out);
        self.settle(out);
        result
    }

    fn settle(&mut self, out: Output) {
        self.events.extend(out.events);
        for datagram in out.datagrams {
            assert!(datagram.bytes.len() <= 1_200, "{} bytes", datagram.bytes.len());
            self.sent.push((self.now, datagram.to, datagram.bytes.clone()));
            self.send(self.client_addr, datagram.to, datagram.bytes);
        }
        for work in out.work {
            match &mut self.held {
                Some(held) => held.push(work),
                None => self.work(work),
            }
        }
    }

    /// Does what was held back and holds back nothing more.
    pub(crate) fn release(&mut self) {
        self.held.take().unwrap_or_default().into_iter().for_each(|work| self.work(work));
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::DeriveKey(derive) => {
                let (salt, params) = (derive.salt(), derive.params());
                let key = if self.right_password {
                    DerivedKey { key: right_key(salt), salt, params }
                } else {
                    derive.run().unwrap()
                };
                self.derived += 1;
                self.call(|machine, env, out| machine.key_derived(env, key, out));
            }
            Work::Store(entries) => {
                let result = self.journal.append(&entries);
                self.call(|machine, env, out| machine.stored(env, result, out));
            }
        }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if !(self.lose)(&bytes, to) {
            self.wire.push(Packet { at: self.now.after(Duration::from_millis(10)), from, to, bytes });
        }
    }

    pub(crate) fn start(&mut self) {
        self.call(|machine, env, out| machine.start(env, out));
    }

    /// Lets time run until `done`; panics with what was going on if that takes longer than `limit`.
    pub(crate) fn until(&mut self, limit: Duration, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let end = self.now.after(limit);
        loop {
            self.drain();
            if done(self) {
                return;
            }
            match self.next().filter(|next| *next <= end) {
                Some(next) => self.now = next.max(self.now),
                None => panic!("{what} did not happen within {limit:?}; machine {:?}; {:?}", self.machine, self.events),
            }
            self.step();
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        self.drain();
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            self.step();
            self.drain();
        }
        self.now = end;
    }

    pub(crate) fn until_online(&mut self) {
        self.until(Duration::from_secs(120), "a login", |world| world.machine.is_online());
    }

    /// Runs until the client is over, and says why.
    pub(crate) fn end(&mut self) -> xmmep::client::End {
        self.until(Duration::from_secs(300), "an end", |world| world.machine.has_ended());
        match self.events.iter().rev().find(|event| matches!(event, Event::Ended(_))) {
            Some(Event::Ended(end)) => end.clone(),
            _ => panic!("no end told: {:?}", self.events),
        }
    }

    fn next(&self) -> Option<Time> {
        let servers = [&self.router, &self.presence];
        let sessions = servers.into_iter().flat_map(|server| server.sessions.values().filter_map(Session::deadline));
        self.wire.iter().map(|packet| packet.at).chain(self.machine.deadline()).chain(sessions).min()
    }

    fn step(&mut self) {
        if self.machine.deadline().is_some_and(|at| at <= self.now) {
            self.call(|machine, env, out| machine.on_deadline(env, out));
        }
        let now = self.now;
        let mut due: Vec<Packet> = Vec::new();
        self.wire.retain_mut(|packet| {
            let later = packet.at > now;
            if !later {
                let bytes = std::mem::take(&mut packet.bytes);
                due.push(Packet { at: packet.at, from: packet.from, to: packet.to, bytes });
            }
            later
        });
        for mut packet in due {
            if packet.to == self.client_addr {
                let (from, bytes) = (packet.from, &mut packet.bytes);
                self.call(|machine, env, out| machine.datagram(env, from, bytes, out));
            } else if packet.to == self.router.addr && self.router.up {
                self.router_receives(&packet);
            } else if packet.to == self.presence.addr && self.presence.up {
                self.presence_receives(packet);
            }
        }
        for session in self.presence.sessions.values_mut() {
            if session.deadline().is_some_and(|at| at <= now) {
                session.on_deadline(now);
            }
        }
    }

    fn router_receives(&mut self, packet: &Packet) {
        let wall = self.wall();
        let router = &mut self.router;
        let accept =
            router.acceptor.handle_init(self.now, wall, packet.from, &packet.bytes, b"", &mut self.rng, || None);
        match accept {
            Accept::Reply(reply) => self.send(self.router.addr, packet.from, reply.as_bytes().to_vec()),
            Accept::Lookup(pending, request) => {
                let frame = Frame::decode(request).unwrap();
                assert_eq!(frame.message::<GetLoginInfoReq>().unwrap().name.as_str(), "ann");
                let info = self.script.info.clone().unwrap_or_else(|| self.usual_info());
                let answer = pending.answer(self.now, &frame::answer(&info, frame.header.sequence)).unwrap();
                self.send(self.router.addr, packet.from, answer);
            }
            _ => {}
        }
    }

    pub(crate) fn usual_info(&mut self) -> GetLoginInfoRes {
        let admission = Admission { kind: UserKind::Member, user: ME, key_hash: KeyHash::from_bytes([0; 32]) };
        let expires = self.wall().after(Duration::from_secs(60));
        let ip = self.client_addr.ip();
        let ticket = Ticket::seal(&admission, &self.tickets, PRESENCE, ip, expires, &mut self.rng);
        let ticket = match self.script.ticket {
            Tickets::Good => Blob::new(ticket.as_bytes()).unwrap(),
            Tickets::Missing => Blob::default(),
            Tickets::Forged => Blob::new(&[5; xmmep::session::TICKET_LEN]).unwrap(),
        };
        GetLoginInfoRes {
            result: ResultCode::SUCCESS,
            addresses: List::new(vec![self.presence.addr.into()]).unwrap(),
            presence_key: self.presence.key.public().0,
            salt: self.script.salt,
            kdf: self.script.kdf,
            ticket,
        }
    }

    fn presence_receives(&mut self, mut packet: Packet) {
        let (now, wall) = (self.now, self.wall());
        let presence = &mut self.presence;
        match peek(&packet.bytes) {
            Some(Peek::Init) => {
                let index = &mut presence.next_index;
                let bytes = &packet.bytes;
                let accept = presence.acceptor.handle_init(now, wall, packet.from, bytes, b"hi", &mut self.rng, || {
                    *index += 1;
                    Some(*index)
                });
                match accept {
                    Accept::Reply(reply) => self.send(self.presence.addr, packet.from, reply.as_bytes().to_vec()),
                    Accept::Open(opened) => {
                        self.presence.sessions.insert(opened.session.index(), opened.session);
                        self.send(self.presence.addr, packet.from, opened.reply);
                    }
                    _ => {}
                }
            }
            Some(Peek::Record { receiver_index }) => {
                let Some(session) = presence.sessions.get_mut(&receiver_index) else { return };
                let mut events = Vec::new();
                let _ = session.receive(now, packet.from, &mut packet.bytes, &mut events);
                for event in events {
                    if let SessionEvent::Message(bytes) = event {
                        self.presence_hears(receiver_index, Frame::decode(bytes).unwrap());
                    }
                }
            }
            _ => {}
        }
    }

    fn presence_hears(&mut self, index: u32, frame: Frame) {
        match frame.header.code {
            LoginReq::CODE => {
                let request: LoginReq = frame.message().unwrap();
                let right = right_key(self.script.salt);
                let refusal = refusal(LoginReq::CODE.0, ResultCode::PASSWD_MISMATCH);
                let refuse = self.script.refuse.clone().or((request.login_key != right).then_some(refusal));
                if let Some(refusal) = refuse {
                    self.say_on(index, frame::answer(&refusal, frame.header.sequence));
                } else if let Some(parts) = self.script.login.clone() {
                    self.presence.sessions.get_mut(&index).unwrap().promote();
                    parts.into_iter().for_each(|part| self.say_on(index, part));
                }
            }
            TxtMsg::CODE => {
                let id = frame.message::<TxtMsg>().unwrap().text.id;
                if let Some(tick) = self.script.tick {
                    self.say_on(index, frame::notice(&tick_of(id, tick)));
                }
            }
            _ => {}
        }
        self.presence.inbox.push_back((index, frame));
    }

    fn say_on(&mut self, index: u32, frame: Bytes) {
        let _ = self.presence.sessions.get_mut(&index).expect("a session").send(frame);
    }

    /// The Presence says something over the newest session.
    pub(crate) fn say<M: Message>(&mut self, message: &M) {
        self.say_bytes(frame::notice(message));
    }

    pub(crate) fn say_bytes(&mut self, frame: Bytes) {
        let index = *self.presence.sessions.keys().last().expect("a session");
        self.say_on(index, frame);
    }

    /// The Presence answers the last request it heard.
    pub(crate) fn reply<R: Request>(&mut self, answer: &R::Answer) {
        let sequence = self.heard_frames::<R>().pop().expect("a request").header.sequence;
        self.say_bytes(frame::answer(answer, sequence));
    }

    pub(crate) fn reply_with(&mut self, sequence: Sequence, refusal: &ResultMsg) {
        self.say_bytes(frame::answer(refusal, sequence));
    }

    /// The Presence ends the newest session.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        let index = *self.presence.sessions.keys().last().expect("a session");
        self.presence.sessions.get_mut(&index).unwrap().close(reason);
    }

    /// The Presence crashes and comes back with the same key: no session survives, nobody is told.
    pub(crate) fn crash_presence(&mut self) {
        self.presence.sessions.clear();
    }

    fn drain(&mut self) {
        let mut out = Vec::new();
        for session in self.presence.sessions.values_mut() {
            let mut bytes = Vec::new();
            while let Some(to) = session.poll_transmit(self.now, &mut bytes) {
                out.push((to, std::mem::take(&mut bytes)));
            }
        }
        let from = self.presence.addr;
        out.into_iter().for_each(|(to, bytes)| self.send(from, to, bytes));
    }

    /// The client process dies and starts again with what its journal holds.
    pub(crate) fn crash_client(&mut self, change: impl FnOnce(&mut Options)) {
        let routers = vec![self.router.addr];
        let credentials = Credentials::Password(Password::new(PASSWORD));
        let key = self.router.key.public().0;
        let mut options = Options::new(routers, key, "ann".parse().unwrap(), credentials, DeviceId([1; 16]));
        change(&mut options);
        assert_eq!(options.durability, Durability::Journal);
        self.machine = Machine::new(options, self.journal.recover().unwrap());
        self.held = None;
        self.client_addr.set_port(self.client_addr.port() + 1);
        self.start();
    }
}
