//! What an application holds: [`Client`] to ask, [`Events`] to listen. The task behind them is `task.rs`.

use core::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::bounded::{PrivateText, Text};
use crate::frame::{Frame, Sequence};
use crate::message::{Message, Request};
use crate::messages::DeviceClass;
use crate::messages::buddies::{
    AddBuddyReq, AddBuddyRes, BuddiedNotifyRes, BuddyAnswer, BuddyBlockedNotify, BuddyModifiedNotify,
    BuddyRemovedNotify, BuddyUnblockedNotify, RosterOpRes,
};
use crate::messages::profile::{GetBuddyInfoReq, GetBuddyInfoRes};
use crate::name::UserName;
use crate::types::{DeviceId, GroupId, MsgId, Status, UserId};

use super::address::ServerAddress;
use super::error::{ConnectError, RequestError, TextError};
use super::event::{Env, Event, Output, Welcome};
use super::journal::Journal;
use super::machine::Machine;
use super::options::{Credentials, Durability, FirstLogin, Options};
use super::requests::RequestHandle;
use super::roster::Roster;
use super::task::{self, Command};
use super::texts::Target;

/// Events that wait for the application in the channel.
pub const EVENTS_MAX: usize = 64;

/// Events that wait for a place in the channel. Beyond that the client stops listening to the network until the
/// application has caught up: if that takes minutes the session ends, and comes back. No text is lost by it.
pub const BACKLOG_MAX: usize = 4_096;

/// What a [`Client`] has to know.
pub struct ClientOptions {
    /// The server.
    pub server: ServerAddress,
    /// Who logs in.
    pub name: UserName,
    /// With what.
    pub credentials: Credentials,
    /// This device; drawn once when the client is installed, and kept. Default: drawn now.
    pub device: DeviceId,
    /// Its kind. Default: a computer.
    pub device_class: DeviceClass,
    /// Its name, for the user's other devices. Default: empty.
    pub device_name: Text<64>,
    /// Name and version of the program, for the operator.
    pub client: Text<64>,
    /// The status to log in with. Default: online.
    pub status: Status,
    /// What to do when the first login fails for a reason that may pass. Default: say so.
    pub first_login: FirstLogin,
    /// Where texts are kept. Without a journal (the default) they die with the process: see [`Durability::Volatile`].
    pub journal: Option<Box<dyn Journal>>,
}

impl ClientOptions {
    /// The usual, without a journal.
    #[must_use]
    pub fn new(server: ServerAddress, name: UserName, credentials: Credentials) -> Self {
        let device = DeviceId::random(&mut rand::make_rng::<rand::rngs::StdRng>());
        let usual = Options::new(Vec::new(), *server.key(), name, credentials, device);
        Self {
            server,
            name: usual.name,
            credentials: usual.credentials,
            device,
            device_class: usual.device_class,
            device_name: usual.device_name,
            client: usual.client,
            status: usual.status,
            first_login: usual.first_login,
            journal: None,
        }
    }

    pub(super) fn machine(self, routers: Vec<SocketAddr>) -> (Options, Option<Box<dyn Journal>>) {
        let mut options = Options::new(routers, *self.server.key(), self.name, self.credentials, self.device);
        options.device_class = self.device_class;
        options.device_name = self.device_name;
        options.client = self.client;
        options.status = self.status;
        options.first_login = self.first_login;
        options.durability = if self.journal.is_some() { Durability::Journal } else { Durability::Volatile };
        (options, self.journal)
    }
}

impl core::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ClientOptions").field("server", &self.server).field("name", &self.name).finish_non_exhaustive()
    }
}

/// A user's connection to X-Messenger: logged in when it is made, and again by itself after every loss.
///
/// Clones are the same connection. When the last one is dropped it logs out, though nobody waits for that:
/// [`Client::logout`] does.
///
/// ```no_run
/// use xmmep::client::{Client, ClientOptions, Credentials, Event, FileJournal, Password};
/// use xmmep::messages::chat::Tick;
///
/// # async fn chat() -> Result<(), Box<dyn std::error::Error>> {
/// let server = "xm://127.0.0.1:7100/AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA";
/// let password = Credentials::Password(Password::new("correct horse battery"));
/// let mut options = ClientOptions::new(server.parse()?, "ann".parse()?, password);
/// options.journal = Some(Box::new(FileJournal::open("ann.journal", &format!("ann at {server}"))?));
///
/// let (client, mut events) = Client::connect(options).await?;
/// let bob = client.roster().find("bob").ok_or("no buddy of that name")?;
/// let hello = client.send_text(bob, "hello").await?;
/// while let Some(event) = events.next().await {
///     match event {
///         Event::Text(text) => println!("{}: {}", text.from, text.text.body.expose()),
///         Event::Tick(tick) if tick.id == hello && tick.tick == Tick::DELIVERED => break,
///         _ => {}
///     }
/// }
/// client.logout().await;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    roster: watch::Receiver<Arc<Roster>>,
    welcome: Arc<Welcome>,
}

impl Client {
    /// Finds the server and logs in. Has to be called inside a tokio runtime with time and I/O switched on.
    ///
    /// # Errors
    /// If there is no login; with [`FirstLogin::Patient`] only for reasons that do not pass by themselves.
    pub async fn connect(options: ClientOptions) -> Result<(Self, Events), ConnectError> {
        let (commands, inbox) = mpsc::channel(EVENTS_MAX);
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let (first, logged_in) = oneshot::channel();
        let (roster_sender, roster) = watch::channel(Arc::default());
        task::spawn(options, inbox, sender, first, roster_sender).await?;
        // If this future is dropped here, so is `commands`: the task sees nobody left and ends.
        let welcome = logged_in.await.unwrap_or(Err(ConnectError::Ended))?;
        let events = Events { receiver, commands: commands.downgrade(), last_text: None };
        Ok((Self { commands, roster, welcome: Arc::new(*welcome) }, events))
    }

    /// Who one is, as the server said at the first login.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// The roster as of now; it does not change under the reader.
    #[must_use]
    pub fn roster(&self) -> Arc<Roster> {
        self.roster.borrow().clone()
    }

    /// Sends a text to a user, now or as soon as there is a login. Returns its id; what becomes of it is told by
    /// [`Event::Tick`].
    ///
    /// # Errors
    /// If it is over 8 KiB, the queue is full, or the client has ended.
    pub async fn send_text(&self, to: UserId, text: &str) -> Result<MsgId, TextError> {
        self.send_to(Target::User(to), text).await
    }

    /// As [`Client::send_text`], to a user or a room.
    ///
    /// # Errors
    /// As there.
    pub async fn send_to(&self, to: Target, text: &str) -> Result<MsgId, TextError> {
        let body = PrivateText::new(text)?;
        let sent = self.run(move |machine, env, out| machine.send_text(env, to, body, out)).await;
        sent.unwrap_or(Err(TextError::Ended))
    }

    /// The user saw a text; its sender may be told.
    pub async fn read(&self, from: UserId, id: MsgId) {
        self.run(move |machine, env, out| machine.read(env, from, id, out)).await;
    }

    /// Changes the status, now and for later logins.
    pub async fn set_status(&self, status: Status) {
        self.run(move |machine, env, out| machine.set_status(env, status, out)).await;
    }

    /// Asks a user to be a buddy. The answer says `PENDING` until they agree.
    ///
    /// # Errors
    /// If it was refused, or nothing is known of it.
    pub async fn add_buddy(&self, name: UserName, greeting: Text<256>) -> Result<AddBuddyRes, RequestError> {
        let (display_name, group) = (Text::default(), GroupId::DEFAULT);
        self.request(AddBuddyReq { name, display_name, group, greeting }).await
    }

    /// Answers somebody who asks to have us as a buddy.
    ///
    /// # Errors
    /// As [`Client::add_buddy`].
    pub async fn answer_buddy(&self, user: UserId, answer: BuddyAnswer) -> Result<RosterOpRes, RequestError> {
        self.request(BuddiedNotifyRes { user, answer }).await
    }

    /// Takes a buddy off the list.
    ///
    /// # Errors
    /// As [`Client::add_buddy`].
    pub async fn remove_buddy(&self, user: UserId) -> Result<RosterOpRes, RequestError> {
        self.request(BuddyRemovedNotify { user }).await
    }

    /// Changes one's own name for a buddy, or the group; `None` leaves it.
    ///
    /// # Errors
    /// As [`Client::add_buddy`].
    pub async fn modify_buddy(
        &self,
        user: UserId,
        display_name: Option<Text<128>>,
        group: Option<GroupId>,
    ) -> Result<RosterOpRes, RequestError> {
        self.request(BuddyModifiedNotify { user, display_name, group }).await
    }

    /// Wants nothing from that user any more.
    ///
    /// # Errors
    /// As [`Client::add_buddy`].
    pub async fn block(&self, user: UserId) -> Result<RosterOpRes, RequestError> {
        self.request(BuddyBlockedNotify { user }).await
    }

    /// Ends a block.
    ///
    /// # Errors
    /// As [`Client::add_buddy`].
    pub async fn unblock(&self, user: UserId) -> Result<RosterOpRes, RequestError> {
        self.request(BuddyUnblockedNotify { user, group: None }).await
    }

    /// A user's card: the full one of buddies who accepted, the public one of others.
    ///
    /// # Errors
    /// As [`Client::add_buddy`]; `NOT_FOUND` for users who hide as for those who do not exist.
    pub async fn card(&self, user: UserId) -> Result<GetBuddyInfoRes, RequestError> {
        self.request(GetBuddyInfoReq { user }).await
    }

    /// Asks the server for anything: also messages of one's own, declared with [`messages!`](crate::messages!).
    ///
    /// # Errors
    /// As [`Client::add_buddy`].
    pub async fn request<M: Request>(&self, request: M) -> Result<M::Answer, RequestError> {
        let (answer, answered) = oneshot::channel();
        let ask = Box::new(move |machine: &mut Machine, env: &mut Env<'_>, out: &mut Output| {
            machine.request(env, &request, out)
        });
        self.commands.send(Command::Ask(ask, answer)).await.map_err(|_| RequestError::NotConnected)?;
        let frame = answered.await.unwrap_or(Err(RequestError::Disconnected))?;
        frame.message().map_err(RequestError::BadAnswer)
    }

    /// Tells the server something that has no answer.
    ///
    /// # Errors
    /// If nothing was sent.
    pub async fn notice<M: Message>(&self, notice: M) -> Result<(), RequestError> {
        let sent = self.run(move |machine, env, out| machine.notice(env, &notice, out)).await;
        sent.unwrap_or(Err(RequestError::NotConnected))
    }

    /// Answers a request of the server that came as [`Event::Other`].
    ///
    /// # Errors
    /// If nothing was sent.
    pub async fn answer<M: Message>(&self, to: Sequence, answer: M) -> Result<(), RequestError> {
        let sent = self.run(move |machine, env, out| machine.answer(env, to, &answer, out)).await;
        sent.unwrap_or(Err(RequestError::NotConnected))
    }

    /// The network is back, or another one: try at once what would be tried later.
    pub async fn wake(&self) {
        self.run(|machine, env, out| machine.wake(env, out)).await;
    }

    /// Logs out and returns when it is done: buddies have been told, the journal is written. Texts without a tick stay
    /// there for the next time. Takes at most some seconds, with or without a network.
    pub async fn logout(self) {
        self.run(|machine, env, out| machine.logout(env, out)).await;
        self.commands.closed().await;
    }

    /// Calls the machine in its task; `None` if that has ended.
    async fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Machine, &mut Env<'_>, &mut Output) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Run(Box::new(move |machine, env, out| {
            // Whoever asked may have gone away meanwhile.
            let _ = answer.send(f(machine, env, out));
        }));
        self.commands.send(command).await.ok()?;
        answered.await.ok()
    }
}

/// What a [`Client`] tells its application, in order.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
    /// Does not keep the client alive.
    commands: mpsc::WeakSender<Command>,
    /// The text handed out last, if that was the last event: asking for the next one says that it was dealt with.
    last_text: Option<(UserId, MsgId)>,
}

impl Events {
    /// The next event; `None` after [`Event::Ended`].
    ///
    /// A text counts as dealt with when the event after it is asked for: shown, written down, passed on. If the process
    /// dies before that, the text is told again at the next start.
    ///
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.dealt_with().await;
        let event = self.receiver.recv().await?;
        if let Event::Text(text) = &event {
            self.last_text = Some((text.from, text.text.id));
        }
        Some(event)
    }

    /// The event handed out last is dealt with, and no other is wanted now: to be called before [`Client::logout`].
    pub async fn dealt_with(&mut self) {
        if let Some((from, id)) = self.last_text
            && let Some(commands) = self.commands.upgrade()
        {
            let taken = Command::Run(Box::new(move |machine, env, out| machine.taken(env, from, id, out)));
            // Fails only if the client has ended; then the text comes again at the next start.
            let _ = commands.send(taken).await;
        }
        self.last_text = None;
    }
}

/// A request on its way into the task.
pub(super) type Ask =
    Box<dyn FnOnce(&mut Machine, &mut Env<'_>, &mut Output) -> Result<RequestHandle, RequestError> + Send>;

/// Anything else on its way into the task.
pub(super) type Run = Box<dyn FnOnce(&mut Machine, &mut Env<'_>, &mut Output) + Send>;

/// Where the answer to a request goes.
pub(super) type AnswerSender = oneshot::Sender<Result<Frame, RequestError>>;
