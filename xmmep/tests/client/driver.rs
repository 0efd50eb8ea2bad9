//! The tokio driver over loopback: one real socket on each side, a server that knows one user and echoes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};
use xmmep::bounded::{Blob, List};
use xmmep::client::{
    Client, ClientOptions, ConnectError, Credentials, End, Event, FileJournal, Password, RequestError, ServerAddress,
};
use xmmep::frame::{self, Frame};
use xmmep::message::Message;
use xmmep::messages::buddies::BuddyRemovedNotify;
use xmmep::messages::chat::{Tick, TxtConfirm, TxtMsg, TxtMsgFwd};
use xmmep::messages::login::{GetLoginInfoRes, LoginReq, LogoutReq, LogoutRes};
use xmmep::result_code::ResultCode;
use xmmep::secret::{KdfParams, LoginKey, Salt};
use xmmep::session::{Accept, Acceptor, Config, Event as SessionEvent, Peek, ServerKey, Serves, Session, peek};
use xmmep::types::{Time, WallTime};

use crate::script::{BOB, PASSWORD, content, login_with_bob, refusal, tick_of};

const SALT: Salt = Salt([3; 16]);

/// A Router and a Presence on one socket. Runs until dropped.
struct Loopback {
    socket: UdpSocket,
    acceptor: Acceptor,
    key: [u8; 32],
    sessions: BTreeMap<u32, Session>,
    rng: StdRng,
    started: Instant,
}

impl Loopback {
    async fn spawn() -> (ServerAddress, tokio::task::JoinHandle<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut rng = StdRng::seed_from_u64(1);
        let key = ServerKey::random(&mut rng);
        let public = key.public().0;
        let acceptor = Acceptor::new(Time::ZERO, key, Serves::Both, None, Arc::new(Config::default()), &mut rng);
        let (sessions, started) = (BTreeMap::new(), Instant::now());
        let server = Self { socket, acceptor, key: public, sessions, rng, started };
        (ServerAddress::new("127.0.0.1", port, public).unwrap(), tokio::spawn(server.run()))
    }

    fn now(&self) -> Time {
        Time::ZERO.after(self.started.elapsed())
    }

    async fn run(mut self) {
        let mut buffer = [0; 2_048];
        loop {
            let deadline = self.sessions.values().filter_map(Session::deadline).min();
            let deadline = deadline.map_or(Duration::from_secs(3_600), |at| at.since(Time::ZERO));
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    let (len, from) = received.unwrap();
                    self.receive(&mut buffer[..len], from).await;
                }
                () = sleep_until(self.started + deadline) => {
                    let now = self.now();
                    self.sessions.values_mut().for_each(|session| _ = session.on_deadline(now));
                }
            }
            let (now, mut bytes) = (self.now(), Vec::new());
            for session in self.sessions.values_mut() {
                while let Some(to) = session.poll_transmit(now, &mut bytes) {
                    self.socket.send_to(&bytes, to).await.unwrap();
                }
            }
        }
    }

    async fn receive(&mut self, datagram: &mut [u8], from: std::net::SocketAddr) {
        let now = self.now();
        match peek(datagram) {
            Some(Peek::Init) => {
                let index = u32::try_from(self.sessions.len()).unwrap() + 1;
                let (wall, rng) = (WallTime(0), &mut self.rng);
                let reply = match self.acceptor.handle_init(now, wall, from, datagram, b"", rng, || Some(index)) {
                    Accept::Nothing => return,
                    Accept::Reply(reply) => reply.as_bytes().to_vec(),
                    Accept::Lookup(pending, request) => {
                        let sequence = Frame::decode(request).unwrap().header.sequence;
                        pending.answer(now, &frame::answer(&self.info(), sequence)).unwrap()
                    }
                    Accept::Open(opened) => {
                        self.sessions.insert(index, opened.session);
                        opened.reply
                    }
                };
                self.socket.send_to(&reply, from).await.unwrap();
            }
            Some(Peek::Record { receiver_index }) => {
                let Some(session) = self.sessions.get_mut(&receiver_index) else { return };
                let mut events = Vec::new();
                let _ = session.receive(now, from, datagram, &mut events);
                for event in events {
                    if let SessionEvent::Message(bytes) = event {
                        hear(session, &Frame::decode(bytes).unwrap());
                    }
                }
            }
            _ => {}
        }
    }

    fn info(&self) -> GetLoginInfoRes {
        GetLoginInfoRes {
            result: ResultCode::SUCCESS,
            addresses: List::new(vec![self.socket.local_addr().unwrap().into()]).unwrap(),
            presence_key: self.key,
            salt: SALT,
            kdf: KdfParams::RECOMMENDED,
            ticket: Blob::default(),
        }
    }
}

fn hear(session: &mut Session, frame: &Frame) {
    let sequence = frame.header.sequence;
    match frame.header.code {
        LoginReq::CODE => {
            let right = LoginKey::derive(PASSWORD, &SALT, KdfParams::RECOMMENDED).unwrap();
            if frame.message::<LoginReq>().unwrap().login_key == right {
                session.promote();
                login_with_bob().into_iter().for_each(|part| session.send(part).unwrap());
            } else {
                session.send(frame::answer(&refusal(112, ResultCode::PASSWD_MISMATCH), sequence)).unwrap();
            }
        }
        TxtMsg::CODE => {
            let text = frame.message::<TxtMsg>().unwrap().text;
            session.send(frame::notice(&tick_of(text.id, Tick::STORED))).unwrap();
            let echo = TxtMsgFwd { from: BOB, at: WallTime(1), from_store: false, text: content(1) };
            session.send(frame::notice(&echo)).unwrap();
            session.send(frame::notice(&tick_of(text.id, Tick::DELIVERED))).unwrap();
        }
        TxtConfirm::CODE => {}
        LogoutReq::CODE => {
            session.send(frame::answer(&LogoutRes { result: ResultCode::SUCCESS }, sequence)).unwrap();
        }
        code if sequence != frame::Sequence::NONE => {
            session.send(frame::answer(&refusal(code.0, ResultCode::NOT_FOUND), sequence)).unwrap();
        }
        _ => {}
    }
}

fn options(server: ServerAddress, password: &str) -> ClientOptions {
    ClientOptions::new(server, "ann".parse().unwrap(), Credentials::Password(Password::new(password)))
}

#[tokio::test]
async fn a_whole_chat_over_loopback_with_a_journal() {
    let (server, running) = Loopback::spawn().await;
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let mut first = options(server.clone(), PASSWORD);
    first.journal = Some(Box::new(FileJournal::open(&journal, "ann").unwrap()));
    let (client, mut events) = Client::connect(first).await.unwrap();
    assert_eq!(client.welcome().name.as_str(), "Ann");
    let bob = client.roster().find("bob").unwrap();

    let id = client.send_text(bob, "hello").await.unwrap();
    let (mut ticks, mut texts) = (Vec::new(), Vec::new());
    while ticks.len() < 2 || texts.is_empty() {
        match events.next().await.unwrap() {
            Event::Tick(tick) => ticks.push((tick.id, tick.tick)),
            Event::Text(text) => texts.push(text.text.body.expose().to_owned()),
            _ => {}
        }
    }
    assert_eq!(ticks, [(id, Tick::STORED), (id, Tick::DELIVERED)]);
    assert_eq!(texts, ["text 1"]);

    let refused = client.request(BuddyRemovedNotify { user: bob }).await;
    assert!(matches!(refused, Err(RequestError::Refused(refusal)) if refusal.result == ResultCode::NOT_FOUND));

    client.logout().await;
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    assert_eq!(last, Some(Event::Ended(End::LoggedOut)));

    // The next start knows what this one saw.
    let mut again = FileJournal::open(&journal, "ann").unwrap();
    let remembered = xmmep::client::Journal::recover(&mut again).unwrap();
    assert!(remembered.has_shown(BOB, content(1).id));
    assert_eq!(remembered.outgoing().len(), 0);
    running.abort();
}

#[tokio::test]
async fn a_wrong_password_and_a_wrong_server_name_are_told_by_connect() {
    let (server, running) = Loopback::spawn().await;
    assert_eq!(Client::connect(options(server, "wrong")).await.err(), Some(ConnectError::WrongPassword));
    let nowhere = ServerAddress::new("no-such-host.invalid", 1, [0; 32]).unwrap();
    let error = Client::connect(options(nowhere, PASSWORD)).await.err();
    assert!(matches!(error, Some(ConnectError::UnknownHost(host)) if host == "no-such-host.invalid"));
    running.abort();
}

#[tokio::test]
async fn dropping_the_last_client_logs_out_and_ends_the_events() {
    let (server, running) = Loopback::spawn().await;
    let (client, mut events) = Client::connect(options(server, PASSWORD)).await.unwrap();
    drop(client);
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    assert_eq!(last, Some(Event::Ended(End::LoggedOut)));
    running.abort();
}

#[tokio::test]
async fn an_application_that_reads_no_events_can_still_log_out() {
    let (server, running) = Loopback::spawn().await;
    let (client, _events) = Client::connect(options(server, PASSWORD)).await.unwrap();
    for n in 0..200 {
        client.send_text(BOB, &format!("{n}")).await.unwrap();
    }
    client.logout().await;
    running.abort();
}
