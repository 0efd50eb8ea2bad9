//! A client of the world: the real client machine, the person in front of it, and the disk under it. A person here reads
//! at once and remembers everything.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use xm_store::contacts::{Answer, Ask};
use xm_store::placements::{Placements, Registration};
use xm_store::records::{NewAccount, NewPlacement, Person, Profile};
use xmmep::bounded::{PrivateText, Text};
use xmmep::client::{
    Credentials, Datagram, DeriveKey, DerivedKey, End, Entry, Env, Event, FirstLogin, Journal, Machine, MemoryJournal,
    Options, Output, Password, Received, RequestError, RequestHandle, Target, Welcome, Work,
};
use xmmep::frame::Frame;
use xmmep::message::Request;
use xmmep::messages::chat::Tick;
use xmmep::name::{Email, UserName};
use xmmep::secret::{KdfParams, LoginKey, Salt, Token};
use xmmep::types::{DeviceId, GroupId, MsgId, RequestId, Status, Time, UserId};

use super::wire::Node;
use super::world::World;

/// Names a client of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub usize);

/// A client.
pub struct Client {
    /// Its user's name.
    pub name: UserName,
    /// Its user's id.
    pub user: UserId,
    /// What the machine is given at the next start; change it before.
    pub options: Options,
    /// The key that stands for the password. With another one than the account's, the password is wrong.
    pub key: LoginKey,
    /// Whether texts are dealt with as soon as they are shown; true at first.
    pub takes: bool,
    /// Everything the machine reported, with the time.
    pub events: Vec<(Time, Event)>,
    pub(super) address: SocketAddr,
    pub(super) journal: MemoryJournal,
    pub(super) machine: Option<Machine>,
    /// Counts the starts: work of an earlier one is nobody's.
    pub(super) life: u64,
    pub(super) rng: StdRng,
}

impl Client {
    pub(super) fn new(options: Options, user: UserId, key: LoginKey, address: SocketAddr, rng: StdRng) -> Self {
        Self {
            name: options.name.clone(),
            user,
            options,
            key,
            takes: true,
            events: Vec::new(),
            address,
            journal: MemoryJournal::new(),
            machine: None,
            life: 0,
            rng,
        }
    }

    /// A machine that remembers what the journal says, as after a start of the program.
    pub(super) fn boot(&mut self) -> Machine {
        self.life += 1;
        let remembered = self.journal.recover().unwrap_or_default();
        Machine::new(self.options.clone(), remembered)
    }

    /// Where it is, as others see it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its machine, while it runs.
    #[must_use]
    pub fn machine(&self) -> Option<&Machine> {
        self.machine.as_ref()
    }

    /// Whether it runs and is logged in.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.machine.as_ref().is_some_and(Machine::is_online)
    }

    /// Its journal, which survives crashes.
    #[must_use]
    pub fn journal(&self) -> &MemoryJournal {
        &self.journal
    }

    /// The texts it was shown, oldest first.
    pub fn texts(&self) -> impl Iterator<Item = &Received> {
        self.events.iter().filter_map(|(_, event)| match event {
            Event::Text(text) => Some(&**text),
            _ => None,
        })
    }

    /// The bodies of the texts it was shown, oldest first.
    #[must_use]
    pub fn shown(&self) -> Vec<&str> {
        self.texts().map(|text| text.text.body.expose()).collect()
    }

    /// The ticks of a text it wrote, with the time of each.
    #[must_use]
    pub fn ticks(&self, id: MsgId) -> Vec<(Time, Tick)> {
        let tick = |(at, event): &(Time, Event)| match event {
            Event::Tick(notice) if notice.id == id => Some((*at, notice.tick)),
            _ => None,
        };
        self.events.iter().filter_map(tick).collect()
    }

    /// The last tick of a text it wrote; `NONE` before the first.
    #[must_use]
    pub fn tick(&self, id: MsgId) -> Tick {
        self.ticks(id).last().map_or(Tick::NONE, |(_, tick)| *tick)
    }

    /// The status it shows for a buddy.
    #[must_use]
    pub fn sees(&self, user: UserId) -> Status {
        let buddy = self.machine.as_ref().and_then(|machine| machine.roster().buddy(user));
        buddy.map_or(Status::OFFLINE, |buddy| buddy.status())
    }

    /// The changes of a user's status it was told of.
    #[must_use]
    pub fn told_of(&self, user: UserId) -> Vec<(Time, Status)> {
        let status = |(at, event): &(Time, Event)| match event {
            Event::Status { user: whose, status } if *whose == user => Some((*at, *status)),
            _ => None,
        };
        self.events.iter().filter_map(status).collect()
    }

    /// How a request ended, if it has.
    #[must_use]
    pub fn answer(&self, request: RequestHandle) -> Option<&Result<Frame, RequestError>> {
        self.events.iter().find_map(|(_, event)| match event {
            Event::Answer { request: answered, outcome } if *answered == request => Some(outcome),
            _ => None,
        })
    }

    /// What it was told at its logins.
    pub fn welcomes(&self) -> impl Iterator<Item = &Welcome> {
        self.events.iter().filter_map(|(_, event)| match event {
            Event::LoggedIn(welcome) => Some(&**welcome),
            _ => None,
        })
    }

    /// Why it ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.events.iter().rev().find_map(|(_, event)| match event {
            Event::Ended(end) => Some(end),
            _ => None,
        })
    }

    /// Notes the key for the next start, as a program does that offers to stay logged in.
    pub(super) fn keep(&mut self, key: &DerivedKey) {
        self.options.credentials = Credentials::Key(key.clone());
    }
}

/// The password all clients type; the world turns it into each client's key without the cost of Argon2id.
pub(super) fn password() -> Credentials {
    Credentials::Password(Password::new("correct horse"))
}

/// The device of the client with that number.
pub(super) fn device(number: usize) -> DeviceId {
    let mut bytes = [0xd0; 16];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    DeviceId(bytes)
}

impl World {
    /// Registers a user who lives on the first Presence, and gives him a client that does not run yet.
    ///
    /// # Panics
    /// If `name` is no name, or taken.
    pub fn add_user(&mut self, name: &str) -> ClientId {
        self.add_user_at(name, 0)
    }

    /// As [`add_user`](Self::add_user), on another Presence.
    ///
    /// # Panics
    /// If `name` is no name, or taken.
    pub fn add_user_at(&mut self, name: &str, presence: usize) -> ClientId {
        self.add(name, Some(presence))
    }

    /// As [`add_user`](Self::add_user), but the activation mail was never answered.
    ///
    /// # Panics
    /// If `name` is no name, or taken.
    pub fn add_applicant(&mut self, name: &str) -> ClientId {
        self.add(name, None)
    }

    fn add(&mut self, name: &str, presence: Option<usize>) -> ClientId {
        let mut key = [0; 32];
        self.rng.fill(&mut key[..]);
        let key = LoginKey::from_bytes(key);
        let name = UserName::new(name).expect("tests use valid names");
        let user = self.register(&name, presence, &key);
        self.add_client(name, user, key)
    }

    /// One more device of a user.
    pub fn add_device(&mut self, of: ClientId) -> ClientId {
        let Client { name, user, key, .. } = &self.clients[of.0];
        let (name, user, key) = (name.clone(), *user, key.clone());
        self.add_client(name, user, key)
    }

    fn add_client(&mut self, name: UserName, user: UserId, key: LoginKey) -> ClientId {
        let id = ClientId(self.clients.len());
        let router = (self.router.address, self.router.key.public().0);
        let mut options = Options::new(vec![router.0], router.1, name, password(), device(id.0));
        options.first_login = FirstLogin::Patient;
        options.session = self.session.clone();
        options.device_name = Text::cut(&format!("device {}", id.0));
        let address = home(id.0, 0);
        let rng = StdRng::from_rng(&mut self.rng);
        self.clients.push(Client::new(options, user, key, address, rng));
        self.wire.settle_at(Node::Client(id), address);
        id
    }

    /// What registration and activation leave behind: a placement at the Router and an account at the Presence.
    fn register(&mut self, name: &UserName, presence: Option<usize>, key: &LoginKey) -> UserId {
        let (wall, mut random) = (self.now().wall, [0; 32]);
        self.rng.fill(&mut random[..]);
        let token = Token::from_bytes(random).hash();
        let email = Email::new(&format!("{}@example.org", self.clients.len())).expect("that is an address");
        let mut salt = [0; 16];
        salt.copy_from_slice(&random[..16]);
        let new = NewPlacement {
            request: RequestId(salt),
            name: name.clone(),
            email: email.clone(),
            salt: Salt(salt),
            kdf: KdfParams::RECOMMENDED,
            key_hash: key.hash(),
            token: token.clone(),
            expires: wall.after(Duration::from_secs(3_600)),
            profile: Profile::default(),
        };
        let placements = self.router.placements.clone();
        let registration = now(placements.register(new, wall)).expect("the memory store works");
        let Registration::Registered(user) = registration else { panic!("{name} is taken") };
        let Some(presence) = presence else { return user };
        let node = &self.presences[presence];
        now(placements.begin_activation(&token, node.identity, wall)).expect("the memory store works");
        now(placements.finish_activation(user)).expect("the memory store works");
        let profile = Profile { personal_msg: Text::cut(&format!("I am {name}")), ..Profile::default() };
        let account = NewAccount { user, name: name.clone(), email, key_hash: key.hash(), profile, created: wall };
        now(node.stores.accounts.create(account)).expect("the memory store works");
        user
    }

    /// Makes two users of one Presence buddies of each other, as if both had asked and accepted long ago. Do it before they
    /// log in: nobody is told.
    pub fn befriend(&mut self, a: ClientId, b: ClientId) {
        let wall = self.now().wall;
        let contacts = &self.presences[0].stores.contacts;
        let person = |id: ClientId| Person { user: self.clients[id.0].user, name: self.clients[id.0].name.clone() };
        let (asker, asked) = (person(a), person(b));
        let ask = Ask {
            me: asker.clone(),
            buddy: asked.clone(),
            display_name: Text::default(),
            group: GroupId::DEFAULT,
            greeting: Text::default(),
            at: wall,
        };
        now(contacts.ask(ask)).expect("the memory store works");
        now(contacts.answer(&asked, asker.user, Answer::AcceptAndAdd, wall)).expect("the memory store works");
    }

    /// A client, to look at.
    #[must_use]
    pub fn client(&self, id: ClientId) -> &Client {
        &self.clients[id.0]
    }

    /// A client, to change what it does at its next start.
    pub fn client_mut(&mut self, id: ClientId) -> &mut Client {
        &mut self.clients[id.0]
    }

    /// All clients.
    pub fn client_ids(&self) -> impl Iterator<Item = ClientId> + use<> {
        (0..self.clients.len()).map(ClientId)
    }

    /// Starts a client's program. It remembers what its journal says.
    pub fn start(&mut self, id: ClientId) {
        let machine = self.clients[id.0].boot();
        self.clients[id.0].machine = Some(machine);
        self.call(id, true, |machine, env, out| machine.start(env, out));
    }

    /// Starts a client's program if it does not run, or has come to an end.
    pub fn start_if_down(&mut self, id: ClientId) {
        if self.clients[id.0].machine.as_ref().is_none_or(Machine::has_ended) {
            self.start(id);
        }
    }

    /// Starts a client and lets it log in.
    ///
    /// # Panics
    /// If it is not logged in within 30 s.
    pub fn log_in(&mut self, id: ClientId) {
        self.start(id);
        let online = self.run_until(Duration::from_secs(30), |world| world.client(id).is_online());
        assert!(online, "{} did not get in, seed {}: {:?}", self.client(id).name, self.seed, self.client(id).end());
    }

    /// Lets a client say goodbye.
    pub fn log_out(&mut self, id: ClientId) {
        self.call(id, false, |machine, env, out| machine.logout(env, out));
    }

    /// Kills a client's program. Its journal stays.
    pub fn crash(&mut self, id: ClientId) {
        self.clients[id.0].machine = None;
    }

    /// Gives a client another address, as a NAT does that has lost its table. Neither side is told.
    pub fn rebind(&mut self, id: ClientId) {
        let port = self.clients[id.0].address.port();
        let address = home(id.0, port.wrapping_sub(HOME_PORT).wrapping_add(1));
        self.clients[id.0].address = address;
        self.wire.settle_at(Node::Client(id), address);
    }

    /// Writes a text.
    ///
    /// # Panics
    /// If the client does not run, or takes no more.
    pub fn say(&mut self, from: ClientId, to: ClientId, body: &str) -> MsgId {
        self.try_say(from, to, body).expect("the client runs and takes another text")
    }

    /// Writes a text; `None` if the client does not run, or takes no more.
    ///
    /// # Panics
    /// If `body` does not fit into a text.
    pub fn try_say(&mut self, from: ClientId, to: ClientId, body: &str) -> Option<MsgId> {
        let target = Target::User(self.clients[to.0].user);
        let text = PrivateText::new(body).expect("tests use texts that fit");
        let id = self.call(from, false, |machine, env, out| machine.send_text(env, target, text, out))?.ok()?;
        self.oracle.sent(self.clients[from.0].user, self.clients[to.0].user, id, body);
        Some(id)
    }

    /// Changes a client's status.
    pub fn set_status(&mut self, id: ClientId, status: Status) {
        self.clients[id.0].options.status = status;
        self.call(id, false, |machine, env, out| machine.set_status(env, status, out));
    }

    /// Asks the server for something; the answer will be in [`Client::answer`].
    ///
    /// # Panics
    /// If nothing could be asked.
    pub fn request<M: Request>(&mut self, id: ClientId, request: &M) -> RequestHandle {
        let asked = self.call(id, false, |machine, env, out| machine.request(env, request, out));
        asked.expect("the client runs").expect("the client is logged in")
    }

    /// Does anything to a client's machine; `None` if it does not run. `again`: texts it reports now may have been
    /// shown before.
    pub(super) fn call<T>(
        &mut self,
        id: ClientId,
        again: bool,
        act: impl FnOnce(&mut Machine, &mut Env<'_>, &mut Output) -> T,
    ) -> Option<T> {
        let now = self.now();
        let client = &mut self.clients[id.0];
        let mut machine = client.machine.take()?;
        let mut out = Output::default();
        let result = act(&mut machine, &mut Env { now: now.mono, wall: now.wall, rng: &mut client.rng }, &mut out);
        self.clients[id.0].machine = Some(machine);
        self.after(id, again, out);
        Some(result)
    }

    /// Does what a machine asked for.
    fn after(&mut self, id: ClientId, again: bool, out: Output) {
        for Datagram { to, bytes } in out.datagrams {
            self.send(Node::Client(id), to, bytes);
        }
        let life = self.clients[id.0].life;
        for work in out.work {
            match work {
                Work::DeriveKey(work) => self.begin_deriving(id, life, work),
                Work::Store(entries) => self.begin_writing(id, life, entries),
            }
        }
        for event in out.events {
            self.on_event(id, again, event);
        }
    }

    fn on_event(&mut self, id: ClientId, again: bool, event: Event) {
        let (now, client) = (self.now, &mut self.clients[id.0]);
        client.events.push((now, event.clone()));
        let user = client.user;
        match event {
            Event::KeyDerived(key) => client.keep(&key),
            Event::Tick(notice) => self.oracle.ticked(user, &notice),
            Event::Text(received) => {
                let (from, text) = (received.from, received.text);
                let takes = client.takes;
                self.oracle.shown(user, from, text.id, text.body.expose(), again);
                if takes {
                    self.call(id, false, |machine, env, out| machine.taken(env, from, text.id, out));
                }
            }
            _ => {}
        }
    }

    pub(super) fn client_datagram(&mut self, id: ClientId, from: SocketAddr, bytes: &mut [u8]) {
        self.call(id, false, |machine, env, out| machine.datagram(env, from, bytes, out));
    }

    pub(super) fn client_deadline(&mut self, id: ClientId) {
        let due = self.clients[id.0].machine.as_ref().and_then(Machine::deadline).is_some_and(|at| at <= self.now);
        if due {
            self.call(id, false, |machine, env, out| machine.on_deadline(env, out));
        }
    }

    /// The journal of a client gets entries at once.
    pub(super) fn write(&mut self, id: ClientId, entries: Vec<Entry>) -> Option<Vec<Entry>> {
        self.clients[id.0].journal.append(&entries).expect("a journal in memory works");
        None
    }

    pub(super) fn written(&mut self, id: ClientId, life: u64, entries: Option<Vec<Entry>>) {
        if self.clients[id.0].life != life || self.clients[id.0].machine.is_none() {
            return;
        }
        if let Some(entries) = entries {
            self.write(id, entries);
        }
        self.call(id, false, |machine, env, out| machine.stored(env, Ok(()), out));
    }

    pub(super) fn derived(&mut self, id: ClientId, life: u64, work: &DeriveKey) {
        if self.clients[id.0].life == life {
            let key = self.clients[id.0].key.clone();
            let key = DerivedKey { key, salt: work.salt(), params: work.params() };
            self.call(id, false, |machine, env, out| machine.key_derived(env, key, out));
        }
    }
}

/// The port of a client until its NAT forgets it.
const HOME_PORT: u16 = 40_000;

/// Where the client with that number is, after so many changes of its NAT.
fn home(number: usize, rebinds: u16) -> SocketAddr {
    let [.., high, low] = (number as u64).to_be_bytes();
    super::world::address([203, 0, high, low], HOME_PORT.wrapping_add(rebinds))
}

/// The result of a call to a store in memory, which is there at once.
fn now<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("stores in memory answer at once")
}
