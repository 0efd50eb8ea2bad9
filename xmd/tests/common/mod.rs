//! What the tests of real daemons share: servers, people and their clients, and a record of what was seen.
#![allow(dead_code, unreachable_pub, reason = "shared: every user takes another part")]

pub mod record;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio::sync::oneshot;
use xm_store::contacts::{Answer, Ask};
use xm_store::records::{NewAccount, NewPlacement, Person, Profile};
use xm_store::sql;
use xm_store::{Accounts, Placements};
use xmmep::bounded::Text;
use xmmep::client::{Client, ClientOptions, Credentials, DerivedKey, Events, FileJournal, ServerAddress};
use xmmep::name::{Email, UserName};
use xmmep::secret::{KdfParams, LoginKey, Salt, Token};
use xmmep::types::{DeviceId, GroupId, PresenceId, RequestId, UserId, WallTime};

pub use record::Record;

/// Users of each server, all of them friends of the others.
pub const USERS: usize = 4;
/// A server that takes longer than this to come back, or to deliver what waits, has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a configuration, and people who are friends in its databases.
pub struct Home {
    directory: TempDir,
    config: String,
    pub address: ServerAddress,
    pub people: Vec<Person>,
}

impl Home {
    /// With databases in files.
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = directory.path().join("data");
        let url = move |name: &str| format!("sqlite:{}", data.join(format!("{name}.db")).display());
        Self::made(directory, String::new(), url).await
    }

    /// With databases on the server at `url`, which ends in a slash, and messages waiting in `offline`.
    pub async fn with_server(url: &str, offline: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("password");
        let section = database_section(url, &file, offline);
        let url = url.to_owned();
        Self::made(directory, section, move |name| format!("{url}{name}")).await
    }

    async fn made(directory: TempDir, database: String, url: impl Fn(&str) -> String) -> Self {
        let data = directory.path().join("data");
        let mut config = format!("data_dir = {data:?}\n[web]\nlisten = \"127.0.0.1:0\"\n{database}");
        config.push_str("[presence]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"error\"\n");
        config.push_str(&format!("[router]\nlisten = \"127.0.0.1:{}\"\n", free_port()));
        let first = Server::start(directory.path(), &config);
        let address = first.address.clone();
        first.stop();
        let people = enrol(&url("RouterDB"), &url("PresenceDB_C1P1")).await;
        Self { directory, config, address, people }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Logs one in, with a journal of that name.
    pub async fn log_in_one(&self, number: usize, journal: &str, record: &Arc<Record>) -> Session {
        let person = &self.people[number];
        let mut options = ClientOptions::new(self.address.clone(), person.name.clone(), Credentials::Key(key()));
        options.device = DeviceId([number as u8; 16]);
        let journal = FileJournal::open(self.path().join(format!("{journal}.journal")), person.name.as_str());
        options.journal = Some(Box::new(journal.expect("the journal opens")));
        let connected = tokio::time::timeout(PATIENCE, Client::connect(options)).await.expect("the server comes back");
        let (client, events) = connected.expect("the login succeeds");
        let (leave, left) = oneshot::channel();
        let listener = tokio::spawn(listen(person.user, events, record.clone(), left));
        Session { client, leave, listener }
    }

    /// Starts the server, always on the same port.
    pub fn start(&self) -> Server {
        Server::start(self.path(), &self.config)
    }
}

/// A port nobody uses, outside the range the system hands out by itself: no client gets it while the server is down.
fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(16_384..32_768);
        if std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The section of a configuration for the server at `url`, whose password goes into `file`.
pub fn database_section(url: &str, file: &Path, offline: &str) -> String {
    let (before, after) = url.split_once('@').expect("somebody logs in");
    let (user, password) = before.rsplit_once(':').expect("with a password");
    std::fs::write(file, format!("{password}\n")).expect("the file can be written");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    format!("[database]\nurl = \"{user}@{after}\"\npassword_file = {file:?}\noffline = {offline:?}\n")
}

/// The real daemon.
pub struct Server {
    process: Child,
    pub address: ServerAddress,
}

impl Server {
    pub fn start(home: &Path, config: &str) -> Self {
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
    pub fn kill(mut self) {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it has ended");
    }

    /// SIGTERM: it exits with 0.
    pub fn stop(mut self) {
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

/// A user who is logged in.
pub struct Session {
    pub client: Client,
    leave: oneshot::Sender<()>,
    listener: tokio::task::JoinHandle<()>,
}

impl Session {
    /// Leaves, whether or not the server is still there.
    pub async fn leave(self) {
        let _ = self.leave.send(());
        self.listener.await.expect("the listener does not panic");
        self.client.logout().await;
    }
}

pub async fn listen(me: UserId, mut events: Events, record: Arc<Record>, mut leave: oneshot::Receiver<()>) {
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

/// Logs everybody in but `away`, each with a journal that is kept.
pub async fn log_in(home: &Home, record: &Arc<Record>, away: Option<usize>) -> HashMap<usize, Session> {
    let mut sessions = HashMap::new();
    for (number, person) in home.people.iter().enumerate().filter(|(number, _)| Some(*number) != away) {
        sessions.insert(number, home.log_in_one(number, person.name.as_str(), record).await);
    }
    sessions
}

/// A key that is as good as any for people who live for a minute.
pub fn key() -> DerivedKey {
    DerivedKey { key: LoginKey::from_bytes([9; 32]), salt: Salt([9; 16]), params: KdfParams::RECOMMENDED }
}

/// Users straight in the databases of a server that does not run, all of them friends.
async fn enrol(router: &str, presence: &str) -> Vec<Person> {
    let router = sql::open_router(router).await.expect("the Router's database");
    let presence = sql::open_presence(presence).await.expect("the Presence's database");
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
