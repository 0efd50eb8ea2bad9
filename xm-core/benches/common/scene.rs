//! A scene: who there is, the clients, and the time. What they do is in `plots.rs`.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use xm_core::ctx::Now;
use xm_store::Stores;
use xm_store::contacts::{Answer, Ask};
use xm_store::records::{NewAccount, Person, Profile};
use xmmep::bounded::{List, Text};
use xmmep::frame::{self, Frame};
use xmmep::message::Message;
use xmmep::messages::DeviceClass;
use xmmep::messages::chat::{ConfirmLevel, Confirmed, Tick, TxtConfirm, TxtMsgFwd, TxtTickNotify};
use xmmep::messages::login::{ClientReady, LoginReq, LoginResEnd};
use xmmep::messages::status::StatusChangedNotifyFwd;
use xmmep::name::{Email, UserName};
use xmmep::secret::LoginKey;
use xmmep::session::{Admission, Config, Connecting, Event, Session, Step, Ticket, UserKind};
use xmmep::types::{DeviceId, GroupId, RosterVersion, Status, Time, UserId, WallTime};

use super::play::{self, HERE, Input, Recording, Server};

pub const SERVER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 1), 7_300));

/// When every scene begins.
pub const START: Now = Now { mono: Time::from_micros(1_000_000), wall: WallTime(1_795_000_000_000) };

/// Who there is before a scene begins.
#[derive(Clone)]
pub struct Plan {
    /// Users 1 to this.
    pub users: u64,
    /// Accepted requests: the first one has the second one on the list.
    pub buddies: Vec<(u64, u64)>,
}

impl Plan {
    pub async fn fill(&self, stores: &Stores) {
        for user in 1..=self.users {
            let account = NewAccount {
                user: UserId(user),
                name: name(user),
                email: Email::new(&format!("user{user}@example.org")).expect("an address"),
                key_hash: login_key(user).hash(),
                profile: Profile { personal_msg: Text::cut("gone fishing"), ..Profile::default() },
                created: START.wall,
            };
            stores.accounts.create(account).await.expect("there is room");
        }
        for (me, buddy) in &self.buddies {
            let person = |user: u64| Person { user: UserId(user), name: name(user) };
            let ask = Ask {
                me: person(*me),
                buddy: person(*buddy),
                display_name: Text::default(),
                group: GroupId::DEFAULT,
                greeting: Text::default(),
                at: START.wall,
            };
            stores.contacts.ask(ask).await.expect("there is room");
            let answered = stores.contacts.answer(&person(*buddy), UserId(*me), Answer::Accept, START.wall).await;
            answered.expect("there is such a request");
        }
    }
}

fn name(user: u64) -> UserName {
    UserName::new(&format!("user{user}")).expect("a name")
}

fn login_key(user: u64) -> LoginKey {
    let mut key = [9; 32];
    key[..8].copy_from_slice(&user.to_be_bytes());
    LoginKey::from_bytes(key)
}

fn address(user: u64) -> SocketAddr {
    let [.., high, middle, low] = user.to_be_bytes();
    SocketAddr::from(([10, high, middle, low], 40_000))
}

/// A client that confirms every text at once.
struct Client {
    user: u64,
    stage: Stage,
    heard: Heard,
}

enum Stage {
    Away,
    Connecting(Box<Connecting>),
    Open(Box<Session>),
}

/// What a client was told so far.
#[derive(Clone, Copy, Default)]
pub struct Heard {
    pub logins: usize,
    pub texts: usize,
    pub delivered: usize,
    pub statuses: usize,
}

/// A server, its clients and the network between them, which takes no time and loses nothing.
pub struct Scene {
    now: Now,
    server: Server,
    clients: Vec<Client>,
    to_server: VecDeque<(usize, Vec<u8>)>,
    recording: Recording,
    sent: usize,
    rng: StdRng,
    session: Arc<Config>,
}

impl Scene {
    pub fn new(plan: Plan) -> Self {
        let client = |user| Client { user, stage: Stage::Away, heard: Heard::default() };
        Self {
            now: START,
            server: Server::new(&plan),
            clients: (1..=plan.users).map(client).collect(),
            to_server: VecDeque::new(),
            recording: Recording::new(plan),
            sent: 0,
            rng: StdRng::seed_from_u64(2),
            session: Arc::default(),
        }
    }

    /// What the client of `user` was told so far.
    pub fn heard(&self, user: u64) -> Heard {
        self.clients[place(user)].heard
    }

    /// The preparations, or an item, are over.
    pub fn mark(&mut self) {
        self.recording.mark(self.sent);
    }

    /// What the driver did.
    pub fn end(self) -> Recording {
        self.recording
    }

    /// Opens a session with a ticket of a Router, logs in, and says that the client is ready.
    pub fn log_in(&mut self, user: u64) {
        let admission = Admission { kind: UserKind::Member, user: UserId(user), key_hash: login_key(user).hash() };
        let (expires, ip) = (self.now.wall.after(Duration::from_secs(60)), address(user).ip());
        let ticket = Ticket::seal(&admission, &play::ticket_key(), HERE, ip, expires, &mut self.rng);
        let (key, config) = (play::server_key().public(), self.session.clone());
        let opening = Connecting::open(self.now.mono, SERVER, &key, Some(ticket), b"", config, &mut self.rng);
        let (connecting, init) = opening.expect("there is no request that could be too long");
        self.clients[place(user)].stage = Stage::Connecting(Box::new(connecting));
        self.to_server.push_back((place(user), init));
        self.settle();
        assert_eq!(self.heard(user).logins, 1, "user {user} did not get in");
        self.say(user, &ClientReady {});
    }

    /// A client says something, and everybody what follows from it.
    pub fn say<M: Message>(&mut self, user: u64, message: &M) {
        let client = place(user);
        self.clients[client].session().send(frame::notice(message)).expect("there is room");
        self.transmit(client);
        self.settle();
    }

    /// Lets time pass, with all that becomes due.
    pub fn pass(&mut self, pause: Duration) {
        let end = self.now.mono.after(pause);
        while let Some(next) = self.next_deadline().filter(|next| *next <= end) {
            self.set_clock(next);
            if self.server.engine().deadline().is_some_and(|due| due <= next) {
                self.input(Input::Deadline(self.now));
            }
            for client in 0..self.clients.len() {
                if self.clients[client].deadline().is_some_and(|due| due <= next) {
                    let ended = self.clients[client].session().on_deadline(next);
                    assert!(ended.is_none(), "a client gave up: {ended:?}");
                    self.transmit(client);
                }
            }
            self.settle();
        }
        self.set_clock(end);
    }

    fn set_clock(&mut self, at: Time) {
        let mono = self.now.mono.max(at);
        self.now = Now { mono, wall: START.wall.after(mono.since(START.mono)) };
    }

    fn next_deadline(&self) -> Option<Time> {
        self.clients.iter().filter_map(Client::deadline).chain(self.server.engine().deadline()).min()
    }

    /// Carries datagrams to and fro until nobody has anything to say.
    fn settle(&mut self) {
        while let Some((client, datagram)) = self.to_server.pop_front() {
            self.input(Input::Datagram(self.now, address(self.clients[client].user), datagram.into()));
        }
    }

    fn input(&mut self, input: Input) {
        let out = match &input {
            Input::Datagram(now, from, bytes) => self.server.datagram(*now, *from, &mut bytes.clone()),
            Input::Deadline(now) => self.server.deadline(*now),
        };
        let datagrams = std::mem::take(&mut out.datagrams);
        self.recording.keep(input);
        self.sent += datagrams.len();
        for datagram in datagrams {
            let SocketAddr::V4(to) = datagram.to else { continue };
            let [_, high, middle, low] = to.ip().octets();
            let client = place(u64::from(u32::from_be_bytes([0, high, middle, low])));
            self.clients[client].receive(self.now.mono, &datagram.bytes);
            self.transmit(client);
        }
    }

    fn transmit(&mut self, client: usize) {
        let mut datagram = Vec::new();
        while self.clients[client].session().poll_transmit(self.now.mono, &mut datagram).is_some() {
            self.to_server.push_back((client, std::mem::take(&mut datagram)));
        }
    }
}

/// Where the client of a user is.
fn place(user: u64) -> usize {
    user as usize - 1
}

impl Client {
    fn session(&mut self) -> &mut Session {
        let Stage::Open(session) = &mut self.stage else { panic!("user {} has no session", self.user) };
        session
    }

    fn deadline(&self) -> Option<Time> {
        match &self.stage {
            Stage::Open(session) => session.deadline(),
            Stage::Away | Stage::Connecting(_) => None,
        }
    }

    fn receive(&mut self, now: Time, datagram: &[u8]) {
        if let Stage::Connecting(connecting) = &mut self.stage {
            let Step::Open(session, _) = connecting.handle(now, SERVER, datagram) else { panic!("a ticket opens") };
            self.stage = Stage::Open(session);
            let login = frame::notice(&login(self.user));
            return self.session().send(login).expect("there is room");
        }
        let mut events = Vec::new();
        self.session().receive(now, SERVER, &mut datagram.to_vec(), &mut events).expect("it is authentic");
        for event in events {
            if let Event::Message(message) = event {
                self.hear(&Frame::decode(message).expect("it is well-formed"));
            }
        }
    }

    fn hear(&mut self, frame: &Frame) {
        if let Ok(text) = frame.message::<TxtMsgFwd>() {
            self.heard.texts += 1;
            let confirmed = List::new(vec![Confirmed { from: text.from, id: text.text.id }]).expect("one fits");
            let confirm = frame::notice(&TxtConfirm { level: ConfirmLevel::RECEIVED, messages: confirmed });
            self.session().send(confirm).expect("there is room");
        } else if let Ok(tick) = frame.message::<TxtTickNotify>() {
            assert_eq!(tick.tick, Tick::DELIVERED);
            self.heard.delivered += 1;
        } else if frame.message::<StatusChangedNotifyFwd>().is_ok() {
            self.heard.statuses += 1;
        } else if frame.message::<LoginResEnd>().is_ok() {
            self.heard.logins += 1;
        }
    }
}

fn login(user: u64) -> LoginReq {
    LoginReq {
        name: name(user),
        login_key: login_key(user),
        status: Status::ONLINE,
        device: DeviceId(u128::from(user).to_be_bytes()),
        device_class: DeviceClass::COMPUTER,
        device_name: Text::cut("bench"),
        roster_version: RosterVersion(0),
        client: Text::cut("bench"),
    }
}
