//! The task behind a [`Client`](super::Client): one machine, one UDP socket, the clocks. The only file here that
//! touches the outside world, beside the journal's.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;

use rand::rngs::StdRng;
use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};

use crate::secret::BadKdfParams;
use crate::session::DATAGRAM_MAX;
use crate::types::{Time, WallTime};

use super::address::ServerAddress;
use super::driver::{AnswerSender, Ask, BACKLOG_MAX, ClientOptions, Run};
use super::error::{ConnectError, End};
use super::event::{Env, Event, Output, Welcome, Work};
use super::journal::{Journal, JournalError, Remembered};
use super::machine::Machine;
use super::options::DerivedKey;
use super::requests::RequestHandle;
use super::roster::Roster;

/// Datagrams taken from the socket before anything else gets its turn.
const BATCH_MAX: usize = 32;

/// How long a socket that reports an error is left alone. Errors are about single datagrams or a network that is
/// down; neither is helped by asking at once.
const SOCKET_PAUSE: Duration = Duration::from_millis(50);

/// What the task is asked to do.
pub(super) enum Command {
    Run(Run),
    Ask(Ask, AnswerSender),
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run(_) => "Run",
            Self::Ask(..) => "Ask",
        })
    }
}

/// Who waits for the first login.
type First = oneshot::Sender<Result<Box<Welcome>, ConnectError>>;

/// The journal comes back with what became of the batch.
type Stored = (Box<dyn Journal>, Result<(), JournalError>);

struct Task {
    machine: Machine,
    socket: UdpSocket,
    server: ServerAddress,
    rng: StdRng,
    started: Instant,
    out: Output,
    commands: Option<mpsc::Receiver<Command>>,
    events: mpsc::Sender<Event>,
    backlog: VecDeque<Event>,
    first: Option<First>,
    roster: watch::Sender<Arc<Roster>>,
    waiting: HashMap<RequestHandle, AnswerSender>,
    journal: Option<Box<dyn Journal>>,
    storing: Option<JoinHandle<Stored>>,
    deriving: Option<JoinHandle<Result<DerivedKey, BadKdfParams>>>,
    resolving: Option<JoinHandle<Option<Vec<SocketAddr>>>>,
}

/// Finds the server, opens a socket and the journal, and starts the task.
pub(super) async fn spawn(
    options: ClientOptions,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    first: First,
    roster: watch::Sender<Arc<Roster>>,
) -> Result<(), ConnectError> {
    let server = options.server.clone();
    let mut routers = resolve(&server).await.ok_or_else(|| ConnectError::UnknownHost(server.host().to_owned()))?;
    let v4 = routers.first().is_some_and(SocketAddr::is_ipv4);
    routers.retain(|router| router.is_ipv4() == v4);
    let any = if v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = UdpSocket::bind((any, 0)).await.map_err(|error| ConnectError::Socket(error.to_string()))?;
    let (options, journal) = options.machine(routers);
    let (journal, remembered) = recover(journal).await?;
    let task = Task {
        machine: Machine::new(options, remembered),
        socket,
        server,
        rng: rand::make_rng(),
        started: Instant::now(),
        out: Output::default(),
        commands: Some(commands),
        events,
        backlog: VecDeque::new(),
        first: Some(first),
        roster,
        waiting: HashMap::new(),
        journal,
        storing: None,
        deriving: None,
        resolving: None,
    };
    tokio::spawn(task.run());
    Ok(())
}

/// The addresses of a server, in the order in which the system prefers them.
async fn resolve(server: &ServerAddress) -> Option<Vec<SocketAddr>> {
    let found: Vec<_> = lookup_host((server.host(), server.port())).await.ok()?.collect();
    (!found.is_empty()).then_some(found)
}

type Recovered = (Option<Box<dyn Journal>>, Remembered);

async fn recover(journal: Option<Box<dyn Journal>>) -> Result<Recovered, ConnectError> {
    let Some(mut journal) = journal else { return Ok((None, Remembered::default())) };
    let read = spawn_blocking(move || journal.recover().map(|remembered| (Some(journal), remembered))).await;
    let read = read.unwrap_or_else(|panic| Err(JournalError::Failed(panic.to_string())));
    let (journal, remembered) = read.map_err(|error| ConnectError::Journal(error.to_string()))?;
    if !remembered.damage().is_empty() {
        tracing::warn!(damage = remembered.damage(), "the journal was damaged");
    }
    Ok((journal, remembered))
}

/// What woke the task.
enum Woken {
    Datagram(usize, SocketAddr),
    SocketError,
    Deadline,
    Command(Option<Command>),
    Room,
    Nobody,
    Stored(Box<dyn Journal>, Result<(), JournalError>),
    StoreLost(String),
    Derived(DerivedKey),
    DeriveFailed(String),
    Resolved(Option<Vec<SocketAddr>>),
}

impl Task {
    async fn run(mut self) {
        let mut buffer = vec![0; DATAGRAM_MAX.saturating_add(1)];
        self.call(|machine, env, out| machine.start(env, out));
        loop {
            self.settle().await;
            if self.machine.has_ended() && self.storing.is_none() {
                break;
            }
            let woken = self.wait(&mut buffer).await;
            self.act(woken, &mut buffer).await;
        }
        // Nothing more can be asked; whoever waits for the end may go on, whether or not somebody reads the events.
        self.commands = None;
        self.waiting.clear();
        for event in core::mem::take(&mut self.backlog) {
            if self.events.send(event).await.is_err() {
                break;
            }
        }
    }

    fn call<T>(&mut self, f: impl FnOnce(&mut Machine, &mut Env<'_>, &mut Output) -> T) -> T {
        let now = Time::ZERO.after(self.started.elapsed());
        f(&mut self.machine, &mut Env { now, wall: wall(), rng: &mut self.rng }, &mut self.out)
    }

    async fn wait(&mut self, buffer: &mut [u8]) -> Woken {
        let deadline = self.machine.deadline().map(|at| self.started + Duration::from_micros(at.as_micros()));
        tokio::select! {
            received = self.socket.recv_from(buffer), if self.backlog.len() < BACKLOG_MAX => match received {
                Ok((len, from)) => Woken::Datagram(len, from),
                Err(_) => Woken::SocketError,
            },
            () = at(deadline) => Woken::Deadline,
            command = next(&mut self.commands) => Woken::Command(command),
            room = self.events.reserve(), if !self.backlog.is_empty() => match (room, self.backlog.pop_front()) {
                (Ok(room), Some(event)) => {
                    room.send(event);
                    Woken::Room
                }
                _ => Woken::Nobody,
            },
            stored = done(&mut self.storing) => match stored {
                Ok((journal, result)) => Woken::Stored(journal, result),
                Err(panic) => Woken::StoreLost(panic.to_string()),
            },
            derived = done(&mut self.deriving) => match derived {
                Ok(Ok(key)) => Woken::Derived(key),
                Ok(Err(bad)) => Woken::DeriveFailed(bad.to_string()),
                Err(panic) => Woken::DeriveFailed(panic.to_string()),
            },
            resolved = done(&mut self.resolving) => Woken::Resolved(resolved.unwrap_or(None)),
        }
    }

    async fn act(&mut self, woken: Woken, buffer: &mut [u8]) {
        match woken {
            Woken::Datagram(len, from) => self.receive(len, from, buffer),
            Woken::SocketError => sleep(SOCKET_PAUSE).await,
            Woken::Deadline => self.call(|machine, env, out| machine.on_deadline(env, out)),
            Woken::Command(Some(Command::Run(run))) => self.call(run),
            Woken::Command(Some(Command::Ask(ask, answer))) => match self.call(ask) {
                Ok(handle) => drop(self.waiting.insert(handle, answer)),
                Err(error) => drop(answer.send(Err(error))),
            },
            // The last `Client` is gone.
            Woken::Command(None) => {
                self.commands = None;
                self.call(|machine, env, out| machine.logout(env, out));
            }
            Woken::Room => {}
            // Nobody listens: the client lives on for those who ask.
            Woken::Nobody => self.backlog.clear(),
            Woken::Stored(journal, result) => {
                self.journal = Some(journal);
                self.call(|machine, env, out| machine.stored(env, result, out));
            }
            Woken::StoreLost(why) => {
                self.call(|machine, env, out| machine.stored(env, Err(JournalError::Failed(why)), out));
            }
            Woken::Derived(key) => self.call(|machine, env, out| machine.key_derived(env, key, out)),
            Woken::DeriveFailed(why) => {
                tracing::error!(why, "the login key cannot be derived");
                self.call(|machine, env, out| machine.logout(env, out));
            }
            Woken::Resolved(routers) => {
                let v4 = self.socket.local_addr().is_ok_and(|local| local.is_ipv4());
                let routers: Vec<_> = routers.into_iter().flatten().filter(|router| router.is_ipv4() == v4).collect();
                if !routers.is_empty() {
                    self.machine.set_routers(routers);
                }
            }
        }
    }

    /// Takes in a datagram, and those that wait behind it.
    fn receive(&mut self, len: usize, from: SocketAddr, buffer: &mut [u8]) {
        let (mut len, mut from) = (len, from);
        for _ in 0..BATCH_MAX {
            if let Some(datagram) = buffer.get_mut(..len) {
                self.call(|machine, env, out| machine.datagram(env, from, datagram, out));
            }
            match self.socket.try_recv_from(buffer) {
                Ok(next) => (len, from) = next,
                Err(_) => break,
            }
        }
    }

    /// Deals with what the machine brought about.
    async fn settle(&mut self) {
        let mut roster_changed = false;
        let mut out = core::mem::take(&mut self.out);
        for event in out.events.drain(..) {
            roster_changed |= self.tell(event);
        }
        if roster_changed {
            self.roster.send_replace(Arc::new(self.machine.roster().clone()));
        }
        for datagram in out.datagrams.drain(..) {
            // A network that is down is found out by silence, like a server that is down.
            let _ = self.socket.send_to(&datagram.bytes, datagram.to).await;
        }
        for work in out.work.drain(..) {
            match work {
                Work::DeriveKey(derive) => self.deriving = Some(spawn_blocking(move || derive.run())),
                Work::Store(entries) => {
                    let Some(mut journal) = self.journal.take() else { continue };
                    self.storing = Some(spawn_blocking(move || {
                        let result = journal.append(&entries);
                        (journal, result)
                    }));
                }
            }
        }
        // What came meanwhile cannot be lost: nothing calls the machine in between.
        self.out = out;
    }

    /// Passes an event on; whether the roster has to be published anew.
    fn tell(&mut self, event: Event) -> bool {
        let roster_changed = match &event {
            Event::LoggedIn(welcome) => {
                tracing::info!(user = %welcome.name, "logged in");
                if let Some(first) = self.first.take() {
                    // If nobody waits any more, `commands` is closed too, and that ends the client.
                    let _ = first.send(Ok(welcome.clone()));
                }
                true
            }
            Event::Offline { error, retry_in } => {
                tracing::info!(%error, ?retry_in, "offline");
                if self.resolving.is_none() {
                    let server = self.server.clone();
                    self.resolving = Some(tokio::spawn(async move { resolve(&server).await }));
                }
                true
            }
            Event::Ended(end) => {
                tracing::info!(%end, "ended");
                if let Some(first) = self.first.take() {
                    let _ = first.send(Err(match end {
                        End::NoLogin(error) => error.clone(),
                        End::Journal(error) => ConnectError::Journal(error.clone()),
                        _ => ConnectError::Ended,
                    }));
                }
                true
            }
            Event::Malformed(error) => {
                tracing::warn!(%error, "the server sent something that cannot be read");
                false
            }
            Event::RosterChanged | Event::Status { .. } | Event::Asks { .. } | Event::Answered { .. } => true,
            Event::Answer { .. } => return self.answer(event),
            _ => false,
        };
        self.backlog.push_back(event);
        roster_changed
    }

    /// Answers go to whoever asked, not to the listener.
    fn answer(&mut self, event: Event) -> bool {
        if let Event::Answer { request, outcome } = event
            && let Some(answer) = self.waiting.remove(&request)
        {
            let _ = answer.send(outcome);
        }
        false
    }
}

#[expect(clippy::disallowed_methods, reason = "the driver is where clocks are read")]
fn wall() -> WallTime {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    WallTime(u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX))
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

async fn next(commands: &mut Option<mpsc::Receiver<Command>>) -> Option<Command> {
    match commands {
        Some(commands) => commands.recv().await,
        None => pending().await,
    }
}

/// The result of work that is under way; then it is under way no more.
async fn done<T>(work: &mut Option<JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match work {
        Some(handle) => {
            let result = handle.await;
            *work = None;
            result
        }
        None => pending().await,
    }
}
