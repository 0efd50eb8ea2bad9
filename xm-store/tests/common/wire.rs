//! As much of the MySQL and PostgreSQL protocols as it takes to break them on purpose: what a client asks, and when it
//! waits for an answer.

use std::collections::HashMap;

use super::servers::Engine;

/// Something a client sends before it waits for an answer: one step at which a connection can be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub kind: Kind,
    /// The statement, where there is one.
    pub sql: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A step of the login.
    Login,
    /// A statement is to be prepared, not yet run.
    Prepare,
    /// A statement is to be run.
    Run,
    /// Anything else, such as a ping.
    Other,
}

impl Request {
    /// Whether a transaction is to be committed.
    pub fn is_commit(&self) -> bool {
        self.kind == Kind::Run && self.sql.trim_start().to_ascii_uppercase().starts_with("COMMIT")
    }
}

/// What a client has sent, cut into requests.
#[derive(Debug)]
pub struct Requests {
    engine: Engine,
    /// PostgreSQL's first messages have no type.
    is_started: bool,
    /// Prepared statements, by PostgreSQL's name or MySQL's number.
    prepared: HashMap<Vec<u8>, String>,
    /// Arrived, not yet taken.
    waiting: Vec<u8>,
    /// Messages that go with the next request.
    batch: Vec<u8>,
    kind: Kind,
    sql: String,
}

impl Requests {
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            is_started: false,
            prepared: HashMap::new(),
            waiting: Vec::new(),
            batch: Vec::new(),
            kind: Kind::Other,
            sql: String::new(),
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// The next whole request, with its bytes. Without a request the bytes want no answer and are merely passed on.
    pub fn next(&mut self) -> Option<(Option<Request>, Vec<u8>)> {
        match self.engine {
            Engine::MariaDb => self.next_mysql(),
            Engine::Postgres => self.next_postgres(),
        }
    }

    /// Remembers under which number MySQL has prepared a statement: the first bytes of its answer tell.
    pub fn answered(&mut self, request: &Request, answer: &[u8]) {
        if self.engine == Engine::MariaDb && request.kind == Kind::Prepare && answer.get(4) == Some(&0) {
            let number = answer.get(5..9).unwrap_or_default().to_vec();
            self.prepared.insert(number, request.sql.clone());
        }
    }

    fn next_mysql(&mut self) -> Option<(Option<Request>, Vec<u8>)> {
        let head: [u8; 4] = self.waiting.get(..4)?.try_into().expect("four bytes");
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        self.waiting.get(4..4 + length)?;
        let packet: Vec<u8> = self.waiting.drain(..4 + length).collect();
        let body = &packet[4..];
        let text = || String::from_utf8_lossy(body.get(1..).unwrap_or_default()).into_owned();
        let (kind, sql) = match body.first() {
            // Commands count from zero; whatever counts on belongs to the login.
            _ if head[3] != 0 => (Kind::Login, String::new()),
            // Quit, close a statement, send a part of a parameter: nothing comes back.
            Some(0x01 | 0x19 | 0x18) => return Some((None, packet)),
            Some(0x03) => (Kind::Run, text()),
            Some(0x16) => (Kind::Prepare, text()),
            Some(0x17) => {
                let number = body.get(1..5).unwrap_or_default();
                (Kind::Run, self.prepared.get(number).cloned().unwrap_or_default())
            }
            _ => (Kind::Other, String::new()),
        };
        Some((Some(Request { kind, sql }), packet))
    }

    fn next_postgres(&mut self) -> Option<(Option<Request>, Vec<u8>)> {
        loop {
            let typed = usize::from(self.is_started);
            let head: [u8; 4] = self.waiting.get(typed..typed + 4)?.try_into().expect("four bytes");
            let end = typed + u32::from_be_bytes(head) as usize;
            self.waiting.get(..end)?;
            let message: Vec<u8> = self.waiting.drain(..end).collect();
            let body = &message[typed + 4..];
            self.batch.extend_from_slice(&message);
            let mut strings = body.split(|byte| *byte == 0);
            let mut string = || strings.next().unwrap_or_default().to_vec();
            match (typed, message[0]) {
                (0, _) => {
                    // Before the startup message itself a client may ask for TLS.
                    self.is_started = body.starts_with(&196_608_u32.to_be_bytes());
                    self.kind = Kind::Login;
                }
                (_, b'p') => self.kind = Kind::Login,
                (_, b'Q') => (self.kind, self.sql) = (Kind::Run, String::from_utf8_lossy(&string()).into_owned()),
                (_, b'P') => {
                    let (name, sql) = (string(), String::from_utf8_lossy(&string()).into_owned());
                    self.prepared.insert(name, sql.clone());
                    (self.kind, self.sql) = (Kind::Prepare, sql);
                    continue;
                }
                (_, b'B') => {
                    let (_portal, name) = (string(), string());
                    self.sql = self.prepared.get(&name).cloned().unwrap_or_default();
                    continue;
                }
                (_, b'E') => {
                    self.kind = Kind::Run;
                    continue;
                }
                // Sync: the client waits now.
                (_, b'S') => {}
                (_, b'X') => return Some((None, std::mem::take(&mut self.batch))),
                _ => continue,
            }
            let request = Request { kind: self.kind, sql: std::mem::take(&mut self.sql) };
            self.kind = Kind::Other;
            return Some((Some(request), std::mem::take(&mut self.batch)));
        }
    }
}

/// A packet of MySQL, at its place in the exchange.
pub fn mysql_packet(place: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a packet is short").to_le_bytes();
    [&length[..3], &[place], body].concat()
}

/// A message of PostgreSQL.
pub fn postgres_message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a message is short").to_be_bytes();
    [&[kind], &length[..], body].concat()
}
