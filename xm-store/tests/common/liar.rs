//! A database server that logs clients in as any other would, and then lies.
//!
//! Every lie comes as the answer to a query for one column `n` of whole numbers, prepared in all honesty unless the lie
//! begins there.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::servers::Engine;
use super::wire::{Kind, Requests, mysql_packet, postgres_message};

/// An answer that is not true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lie {
    pub name: &'static str,
    /// What is said when the statement is prepared, instead of the truth.
    pub prepared: Option<Vec<u8>>,
    /// What is said when it is run. The connection is closed afterwards.
    pub answer: Vec<u8>,
}

/// What a value claims to be long.
pub const GIB: u32 = 1 << 30;
/// MySQL's longest packet.
const PACKET_MAX: [u8; 3] = [0xff; 3];

/// The lies told in an engine's protocol.
pub fn lies(engine: Engine) -> Vec<Lie> {
    let said = |name, answer: Vec<u8>| Lie { name, prepared: None, answer };
    let prepared = |name, answer: Vec<u8>| Lie { name, prepared: Some(answer), answer: Vec::new() };
    let mut lies = vec![said("nothing, and goodbye", Vec::new()), prepared("nothing when preparing", Vec::new())];
    for (name, seed) in [("noise", 1_u64), ("other noise", 2), ("more noise", 3)] {
        lies.push(said(name, noise(seed)));
        lies.push(prepared(name, noise(seed + 10)));
    }
    match engine {
        Engine::MariaDb => lies.extend(mysql_lies(said, prepared)),
        Engine::Postgres => lies.extend(postgres_lies(said, prepared)),
    }
    lies
}

fn mysql_lies(
    said: impl Fn(&'static str, Vec<u8>) -> Lie,
    prepared: impl Fn(&'static str, Vec<u8>) -> Lie,
) -> Vec<Lie> {
    let head = |kind| [mysql_packet(1, &[1]), mysql_packet(2, &mysql_column(kind))].concat();
    let row = |body: &[u8]| [head(MYSQL_BIGINT), mysql_packet(3, body)].concat();
    let text = |body: &[u8]| [head(MYSQL_TEXT), mysql_packet(3, &[&[0, 0], body].concat())].concat();
    let gib = [&[0xfe], &u64::from(GIB).to_le_bytes()[..]].concat();
    vec![
        said("half a header", vec![0x20, 0]),
        said("a header alone", vec![0x20, 0, 0, 1]),
        said("the longest packet, hardly begun", [&PACKET_MAX[..], &[1, 0, 0]].concat()),
        said("a row of which the end is missing", row(&[0, 0, 7])),
        said("an empty row", row(&[])),
        said("a row without its null bits", row(&[0])),
        said("a value of 1 GiB, declared", text(&gib)),
        said("a value longer than its packet", text(&[0xfc, 0xff, 0xff, b'x'])),
        said("a text for a number", [text(b"\x05seven"), mysql_end(4)].concat()),
        said("a text that is no text", [text(b"\x02\xff\xfe"), mysql_end(4)].concat()),
        said("a column of an unknown type", head(0x99)),
        said("a column cut short", [mysql_packet(1, &[1]), mysql_packet(2, &mysql_column(MYSQL_BIGINT)[..9])].concat()),
        said("more columns than described", mysql_packet(1, &[0xfc, 0xff, 0x00])),
        said("an error without its text", mysql_packet(1, &[0xff])),
        said("an error of no known kind", mysql_packet(1, b"\xff\xff\xff#\xff\xff\xff\xff\xff\xfe\xfd")),
        said("a packet out of turn", mysql_packet(77, &[0, 0, 0, 2, 0, 0, 0])),
        said("a file to send", mysql_packet(1, b"\xfb/etc/passwd")),
        prepared("a prepared statement cut short", mysql_packet(1, &[0, 1, 0])),
        prepared("more parameters than described", mysql_packet(1, &[0, 1, 0, 0, 0, 1, 0, 0xff, 0xff, 0, 0, 0])),
    ]
}

fn postgres_lies(
    said: impl Fn(&'static str, Vec<u8>) -> Lie,
    prepared: impl Fn(&'static str, Vec<u8>) -> Lie,
) -> Vec<Lie> {
    let bound = postgres_message(b'2', &[]);
    let row = |body: &[u8]| [bound.clone(), postgres_message(b'D', body)].concat();
    let end = [postgres_message(b'C', b"SELECT 1\0"), postgres_message(b'Z', b"I")].concat();
    let long = |length: u32| [bound.clone(), vec![b'D'], length.to_be_bytes().to_vec(), vec![0; 64]].concat();
    let value = |length: u32| row(&[&[0, 1], &length.to_be_bytes()[..], b"x"].concat());
    vec![
        said("half a header", vec![b'D', 0, 0]),
        said("a message of 1 GiB, hardly begun", long(GIB)),
        said("a message shorter than its own length", long(0)),
        said("a message of a negative length", long(u32::MAX - 8)),
        said("a row without columns", [row(&[0, 0]), end.clone()].concat()),
        said("a row that says nothing of columns", [row(&[]), end.clone()].concat()),
        said("a row of 65,535 columns, declared", [row(&[0xff, 0xff]), end.clone()].concat()),
        said("a value of 1 GiB, declared", [value(GIB), end.clone()].concat()),
        said("a value of a negative length", [value(u32::MAX - 5), end.clone()].concat()),
        said("a number of nine bytes", [row(b"\0\x01\0\0\0\x09123456789"), end.clone()].concat()),
        said("a number of no bytes", [row(b"\0\x01\0\0\0\0"), end.clone()].concat()),
        said("an unknown message", postgres_message(0xf7, b"?")),
        said("an error without its text", postgres_message(b'E', &[])),
        said("an error that is no text", postgres_message(b'E', b"S\xff\xfe\0C\xff\0M\xfe\0\0")),
        said("a count that is none", [bound.clone(), postgres_message(b'C', b"SELECT many\0")].concat()),
        said("a row before the statement is bound", postgres_message(b'D', &[0, 0])),
        said("a copy nobody asked for", [bound.clone(), postgres_message(b'G', &[0, 0, 0])].concat()),
        prepared("columns without their names", postgres_description(b"\0\x02", b"")),
        prepared("65,535 columns, declared", postgres_description(b"\xff\xff", b"")),
        prepared(
            "a column that is no text",
            postgres_description(b"\0\x01", b"\xff\xfe\0\0\0\0\0\0\0\0\0\0\x14\0\x08\0\0\0\0\0\0"),
        ),
        prepared(
            "a column of an unknown type",
            postgres_description(b"\0\x01", b"n\0\0\0\0\0\0\0\xff\xff\xff\xff\0\x08\0\0\0\0\0\0"),
        ),
    ]
}

/// The server. It ends when it is dropped.
#[derive(Debug)]
pub struct Liar {
    engine: Engine,
    port: u16,
    listener: AbortHandle,
}

impl Liar {
    /// Listens on a port of its own.
    pub async fn start(engine: Engine, lie: Lie) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let lie = lie.clone();
                tokio::spawn(async move {
                    // Clients that have heard enough hang up.
                    let _ = serve(engine, lie, client).await;
                });
            }
        });
        Self { engine, port, listener: task.abort_handle() }
    }

    pub fn url(&self, database: &str) -> String {
        self.engine.url("anybody", "anything", self.port, database)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

async fn serve(engine: Engine, lie: Lie, mut client: TcpStream) -> std::io::Result<()> {
    if engine == Engine::MariaDb {
        client.write_all(&mysql_greeting()).await?;
    }
    let mut requests = Requests::new(engine);
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = tokio::time::timeout(PATIENCE, client.read(&mut bytes)).await??;
        if read == 0 {
            return Ok(());
        }
        requests.push(&bytes[..read]);
        while let Some((request, sent)) = requests.next() {
            let Some(request) = request else { continue };
            let is_query = ["SELECT", "INSERT", "UPDATE", "DELETE"].iter().any(|verb| request.sql.starts_with(verb));
            let answer = match (request.kind, &lie.prepared) {
                (Kind::Login, _) => welcome(engine, &sent),
                (Kind::Prepare, Some(lie)) if is_query => return client.write_all(lie).await,
                (Kind::Prepare, _) => honest_preparation(engine, &request.sql),
                (Kind::Run, _) if is_query => return client.write_all(&lie.answer).await,
                (Kind::Run | Kind::Other, _) => done(engine),
            };
            requests.answered(&request, &answer);
            client.write_all(&answer).await?;
        }
    }
}

const MYSQL_BIGINT: u8 = 0x08;
const MYSQL_TEXT: u8 = 0xfd;

/// Of MariaDB 10.11, with the abilities that spare us the packets of old.
fn mysql_greeting() -> Vec<u8> {
    let abilities: u32 = 0x0100_0000 | 0x0028_0000 | 0x0007_0000 | 0xa20f;
    let (low, high) = (abilities as u16, (abilities >> 16) as u16);
    let mut body = b"\x0a10.11.6-MariaDB\0\x07\0\0\0saltsalt\0".to_vec();
    body.extend(low.to_le_bytes());
    body.extend(b"\x2d\x02\0");
    body.extend(high.to_le_bytes());
    body.extend(b"\x15\0\0\0\0\0\0\0\0\0\0saltsaltsalt\0mysql_native_password\0");
    mysql_packet(0, &body)
}

fn mysql_column(kind: u8) -> Vec<u8> {
    let mut column = b"\x03def\0\x01t\x01t\x01n\x01n\x0c\x2d\0\x14\0\0\0".to_vec();
    column.extend([kind, 0, 0, 0, 0, 0]);
    column
}

fn mysql_end(place: u8) -> Vec<u8> {
    mysql_packet(place, &[0xfe, 0, 0, 2, 0, 0, 0])
}

fn postgres_description(count: &[u8], columns: &[u8]) -> Vec<u8> {
    let described = [count, columns].concat();
    let parameters = postgres_message(b't', &[0, 0]);
    [postgres_message(b'1', &[]), parameters, postgres_message(b'T', &described), postgres_message(b'Z', b"I")].concat()
}

/// The next step of a login in which every password is right.
fn welcome(engine: Engine, sent: &[u8]) -> Vec<u8> {
    const TLS_WANTED: u32 = 80_877_103;
    match engine {
        Engine::MariaDb => mysql_packet(sent[3] + 1, &[0, 0, 0, 2, 0, 0, 0]),
        Engine::Postgres if sent.ends_with(&TLS_WANTED.to_be_bytes()) => b"N".to_vec(),
        Engine::Postgres => [
            postgres_message(b'R', &[0; 4]),
            postgres_message(b'S', b"server_version\x0015.0\0"),
            postgres_message(b'S', b"client_encoding\0UTF8\0"),
            postgres_message(b'K', &[0; 8]),
            postgres_message(b'Z', b"I"),
        ]
        .concat(),
    }
}

fn honest_preparation(engine: Engine, sql: &str) -> Vec<u8> {
    match engine {
        Engine::MariaDb => {
            let parameters = sql.matches('?').count() as u8;
            let mut answer = mysql_packet(1, &[0, 1, 0, 0, 0, 1, 0, parameters, 0, 0, 0, 0]);
            for place in 0..=parameters {
                answer.extend(mysql_packet(2 + place, &mysql_column(MYSQL_BIGINT)));
            }
            answer
        }
        Engine::Postgres => postgres_description(b"\0\x01", b"n\0\0\0\0\0\0\0\0\0\0\x14\0\x08\0\0\0\0\0\0"),
    }
}

fn done(engine: Engine) -> Vec<u8> {
    match engine {
        Engine::MariaDb => mysql_packet(1, &[0, 0, 0, 2, 0, 0, 0]),
        Engine::Postgres => [postgres_message(b'C', b"SET\0"), postgres_message(b'Z', b"I")].concat(),
    }
}

/// 4 KiB that mean nothing, always the same for a seed.
pub fn noise(seed: u64) -> Vec<u8> {
    let mut sampler = xmmep::sample::Sampler::new(seed);
    (0..512).flat_map(|_| sampler.next_u64().to_le_bytes()).collect()
}
