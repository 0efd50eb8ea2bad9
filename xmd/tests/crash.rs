//! `kill -9` of the server at any moment loses no ticked message, shows none twice and keeps each sender's order. The real
//! daemon on a real disk, real clients with journals on disk.
//!
//! More kills: `XM_KILLS=100 cargo test -p xmd --test crash`

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Notify, oneshot};
use xm_store::contacts::{Answer, Ask};
use xm_store::records::{NewAccount, NewPlacement, Person, Profile};
use xm_store::sql;
use xm_store::{Accounts, Placements};
use xmmep::bounded::Text;
use xmmep::client::{Client, ClientOptions, Credentials, DerivedKey, Event, Events, FileJournal, ServerAddress};
use xmmep::messages::chat::Tick;
use xmmep::name::{Email, UserName};
use xmmep::secret::{KdfParams, LoginKey, Salt, Token};
use xmmep::types::{DeviceId, GroupId, MsgId, PresenceId, RequestId, UserId, WallTime};

/// Servers that are killed independently of each other, at the same time.
const SERVERS: u64 = 5;
/// Users of each, all of them friends of the others.
const USERS: usize = 4;
/// Texts that each user sends to each other one between two kills.
const TEXTS: usize = 4;
/// A server that takes longer than this to come back, or to deliver what waits, has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_at_any_moment_loses_no_ticked_message_and_shows_none_twice() {
    let kills: u64 = std::env::var("XM_KILLS").map_or(25, |text| text.parse().expect("XM_KILLS is a number"));
    let worlds = (1..=SERVERS).map(|seed| tokio::spawn(world(seed, kills.div_ceil(SERVERS))));
    for (seed, world) in (1..).zip(worlds.collect::<Vec<_>>()) {
        let told = world.await.unwrap_or_else(|panic| panic!("seed {seed}: {panic}"));
        println!("seed {seed}: {told}");
    }
}

/// One server and its users through some kills; says what happened.
async fn world(seed: u64, kills: u64) -> String {
    let mut rng = StdRng::seed_from_u64(seed);
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut config = format!("data_dir = {:?}\n[web]\nlisten = \"127.0.0.1:0\"\n", home.path().join("data"));
    config.push_str("[presence]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"error\"\n[router]\nlisten = ");
    let first = Server::start(home.path(), &format!("{config}\"127.0.0.1:0\"\n"));
    let address = first.address.clone();
    config.push_str(&format!("\"127.0.0.1:{}\"\n", address.port()));
    first.stop();
    let people = enrol(&home.path().join("data")).await;

    let record = Arc::new(Record::default());
    for _ in 0..kills {
        let server = Server::start(home.path(), &config);
        let away = rng.random_range(0..USERS);
        let mut sessions = log_in(&people, &address, home.path(), &record, Some(away)).await;
        record.ticks_until_kill(rng.random_range(1..=TEXTS * (USERS - 1) * (USERS - 1)));
        for number in 0..TEXTS {
            for (from, session) in &sessions {
                for (to, person) in people.iter().enumerate().filter(|(to, _)| to != from) {
                    let id =
                        session.client.send_text(person.user, &format!("{number}")).await.expect("the queue has room");
                    record.sent(people[*from].user, people[to].user, id);
                }
            }
        }
        // Whatever is under way at that tick, it ends here.
        tokio::time::timeout(PATIENCE, record.kill_now.notified()).await.expect("ticks come");
        server.kill();
        futures_util::future::join_all(sessions.drain().map(|(_, session)| session.leave())).await;
    }

    let server = Server::start(home.path(), &config);
    let sessions = log_in(&people, &address, home.path(), &record, None).await;
    let all = tokio::time::timeout(PATIENCE, record.wait_until_all_is_delivered()).await;
    assert!(all.is_ok(), "not delivered: {:?}", record.undelivered());
    futures_util::future::join_all(sessions.into_values().map(Session::leave)).await;
    server.stop();
    record.check()
}

/// What the test itself saw, apart from anything a client or server remembers.
#[derive(Default)]
struct Record {
    state: Mutex<Seen>,
    kill_now: Notify,
    news: Notify,
}

#[derive(Default)]
struct Seen {
    sent: Vec<(UserId, UserId, MsgId)>,
    ticks: HashMap<MsgId, Tick>,
    shown: Vec<(UserId, UserId, MsgId)>,
    ticks_left: usize,
}

impl Record {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.state.lock().expect("no holder panics")
    }

    fn sent(&self, from: UserId, to: UserId, id: MsgId) {
        self.seen().sent.push((from, to, id));
    }

    fn ticks_until_kill(&self, ticks: usize) {
        self.seen().ticks_left = ticks;
    }

    fn event(&self, me: UserId, event: &Event) {
        let mut seen = self.seen();
        match event {
            Event::Text(text) => seen.shown.push((text.from, me, text.text.id)),
            Event::Tick(tick) => {
                let known = seen.ticks.entry(tick.id).or_insert(Tick::NONE);
                *known = tick.tick.max(*known);
                seen.ticks_left = seen.ticks_left.saturating_sub(1);
                if seen.ticks_left == 0 {
                    self.kill_now.notify_one();
                }
            }
            _ => return,
        }
        drop(seen);
        self.news.notify_one();
    }

    fn undelivered(&self) -> Vec<(UserId, UserId, MsgId, Tick)> {
        let seen = self.seen();
        let tick = |id| seen.ticks.get(id).copied().unwrap_or_default();
        let open = seen.sent.iter().filter(|(.., id)| tick(id) != Tick::DELIVERED);
        open.map(|(from, to, id)| (*from, *to, *id, tick(id))).collect()
    }

    async fn wait_until_all_is_delivered(&self) {
        while !self.undelivered().is_empty() {
            self.news.notified().await;
        }
    }

    /// Everything sent was shown once, in its sender's order, and nothing else was.
    fn check(&self) -> String {
        let seen = self.seen();
        let mut pairs: HashMap<(UserId, UserId), (Vec<MsgId>, Vec<MsgId>)> = HashMap::new();
        for (from, to, id) in &seen.sent {
            pairs.entry((*from, *to)).or_default().0.push(*id);
        }
        for (from, to, id) in &seen.shown {
            pairs.entry((*from, *to)).or_default().1.push(*id);
        }
        for ((from, to), (sent, shown)) in &pairs {
            let twice: Vec<_> =
                shown.iter().filter(|id| shown.iter().filter(|other| other == id).count() > 1).collect();
            assert!(twice.is_empty(), "shown twice from {from} to {to}: {twice:?}");
            let known: HashSet<_> = shown.iter().collect();
            let lost: Vec<_> = sent.iter().filter(|id| !known.contains(id)).collect();
            assert!(lost.is_empty(), "lost from {from} to {to}: {lost:?}");
            assert_eq!(sent, shown, "another order from {from} to {to}");
        }
        format!("{} texts delivered, once and in order", seen.sent.len())
    }
}

/// A user who is logged in.
struct Session {
    client: Client,
    leave: oneshot::Sender<()>,
    listener: tokio::task::JoinHandle<()>,
}

impl Session {
    /// Leaves, whether or not the server is still there.
    async fn leave(self) {
        let _ = self.leave.send(());
        self.listener.await.expect("the listener does not panic");
        self.client.logout().await;
    }
}

async fn listen(me: UserId, mut events: Events, record: Arc<Record>, mut leave: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => record.event(me, &event),
                None => return,
            },
            _ = &mut leave => break,
        }
    }
    events.dealt_with().await;
    // Until the client ends, somebody has to listen, or it would wait for room.
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            record.event(me, &event)
        }
    });
}

async fn log_in(
    people: &[Person],
    address: &ServerAddress,
    home: &Path,
    record: &Arc<Record>,
    away: Option<usize>,
) -> HashMap<usize, Session> {
    let mut sessions = HashMap::new();
    for (number, person) in people.iter().enumerate().filter(|(number, _)| Some(*number) != away) {
        let mut options = ClientOptions::new(address.clone(), person.name.clone(), Credentials::Key(key()));
        options.device = DeviceId([number as u8; 16]);
        let journal = FileJournal::open(home.join(format!("{}.journal", person.name)), person.name.as_str());
        options.journal = Some(Box::new(journal.expect("the journal opens")));
        let connected = tokio::time::timeout(PATIENCE, Client::connect(options)).await.expect("the server comes back");
        let (client, events) = connected.expect("the login succeeds");
        let (leave, left) = oneshot::channel();
        let listener = tokio::spawn(listen(person.user, events, record.clone(), left));
        sessions.insert(number, Session { client, leave, listener });
    }
    sessions
}

/// The real daemon.
struct Server {
    process: Child,
    address: ServerAddress,
}

impl Server {
    fn start(home: &Path, config: &str) -> Self {
        let file: PathBuf = home.join("xmd.toml");
        std::fs::write(&file, config).expect("the configuration can be written");
        let mut process = Command::new(env!("CARGO_BIN_EXE_xmd"))
            .arg("run")
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the daemon can be started");
        let mut lines = BufReader::new(process.stdout.take().expect("its output is ours")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_whitespace().find(|word| word.starts_with("xm://")).map(str::to_owned));
        let address = address.expect("the daemon starts and says its address").parse().expect("it is one");
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it has ended");
    }

    /// SIGTERM: it exits with 0.
    fn stop(mut self) {
        let told = Command::new("kill").arg(self.process.id().to_string()).status().expect("kill exists");
        assert!(told.success() && self.process.wait().expect("it has ended").success(), "it stops in order");
    }
}

/// A test that fails leaves no server behind.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A key that is as good as any for people who live for a minute.
fn key() -> DerivedKey {
    DerivedKey { key: LoginKey::from_bytes([9; 32]), salt: Salt([9; 16]), params: KdfParams::RECOMMENDED }
}

/// Users straight in the databases of a server that does not run, all of them friends.
async fn enrol(data: &Path) -> Vec<Person> {
    let url = |file: &str| format!("sqlite:{}", data.join(file).display());
    let router = sql::open_router(&url("router.db")).await.expect("the Router's database");
    let presence = sql::open_presence(&url("presence-C1P1.db")).await.expect("the Presence's database");
    let presence = Arc::new(presence);
    let stores = presence.stores();
    let mut people: Vec<Person> = Vec::new();
    for number in 0..USERS {
        let name = UserName::new(&format!("user{number}")).expect("it is valid");
        let user = make_account(&router, &*stores.accounts, number, &name).await;
        let me = Person { user, name };
        for other in &people {
            let ask = Ask {
                me: me.clone(),
                buddy: other.clone(),
                display_name: Text::default(),
                group: GroupId::DEFAULT,
                greeting: Text::default(),
                at: WallTime(1),
            };
            stores.contacts.ask(ask).await.expect("asking works");
            stores.contacts.answer(other, user, Answer::AcceptAndAdd, WallTime(1)).await.expect("answering works");
        }
        people.push(me);
    }
    presence.close().await;
    router.close().await;
    people
}

async fn make_account(router: &dyn Placements, accounts: &dyn Accounts, number: usize, name: &UserName) -> UserId {
    let email = Email::new(&format!("user{number}@example.org")).expect("it is valid");
    let token = Token::random(&mut StdRng::seed_from_u64(number as u64)).hash();
    let (created, profile) = (WallTime(1), Profile::default());
    let new = NewPlacement {
        request: RequestId([number as u8; 16]),
        name: name.clone(),
        email: email.clone(),
        salt: key().salt,
        kdf: key().params,
        key_hash: key().key.hash(),
        token: token.clone(),
        expires: WallTime(u64::MAX >> 1),
        profile: profile.clone(),
    };
    let user = match router.register(new, created).await.expect("registering works") {
        xm_store::placements::Registration::Registered(user) => user,
        taken => panic!("{name}: {taken:?}"),
    };
    let home = PresenceId { cluster: 1, presence: 1 };
    router.begin_activation(&token, home, created).await.expect("activating works");
    let key_hash = key().key.hash();
    let account = NewAccount { user, name: name.clone(), email, key_hash, profile, created };
    accounts.create(account).await.expect("the account is taken");
    router.finish_activation(user).await.expect("activating ends");
    user
}
