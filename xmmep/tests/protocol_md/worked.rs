//! The worked examples of `docs/PROTOCOL.md`. The client in them is written from the page: it lays out datagrams byte by
//! byte and uses a Noise library, but no code of our session; what it says to our server is understood.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce};
use rand_core::{TryCryptoRng, TryRng};
use xmmep::bounded::{Blob, List, Text};
use xmmep::frame::{self, Frame, Sequence};
use xmmep::messages::DeviceClass;
use xmmep::messages::login::{Address, GetLoginInfoReq, GetLoginInfoRes, LoginReq};
use xmmep::name::UserName;
use xmmep::result_code::ResultCode;
use xmmep::secret::{KdfParams, LoginKey, Salt};
use xmmep::session::{Accept, Acceptor, Config, Event, ServerKey, Serves};
use xmmep::types::{DeviceId, RosterVersion, Status, Time, WallTime};

use crate::common::{hex, noise};

const INITIATOR_INDEX: [u8; 4] = [1, 2, 3, 4];
const RECEIVER_INDEX: u32 = 0x0a0b_0c0d;
const NOW: Time = Time::from_micros(1_000_000);
const PASSWORD: &str = "correct horse battery staple";

/// 32 bytes that count upwards.
fn counting(first: u8) -> [u8; 32] {
    std::array::from_fn(|index| first.wrapping_add(index as u8))
}

fn salt() -> Salt {
    Salt(std::array::from_fn(|index| index as u8))
}

/// Randomness that a reader can see through: every draw of 32 bytes counts upwards from the first byte.
struct Script(u8);

impl TryRng for Script {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from(self.0))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from(self.0))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.iter_mut().zip(counting(self.0)).for_each(|(byte, value)| *byte = value);
        Ok(())
    }
}

impl TryCryptoRng for Script {}

/// What is printed: a name and its bytes, eight names wide, rows of 32 bytes.
#[derive(Default)]
struct Page(String);

impl Page {
    fn put(&mut self, name: &str, bytes: &[u8]) {
        let _ = writeln!(self.0, "{name}");
        for row in bytes.chunks(32) {
            let digits: String = row.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = writeln!(self.0, "    {digits}");
        }
    }

    /// As [`Page::put`], without the zeros at the end.
    fn put_padded(&mut self, name: &str, bytes: &[u8]) {
        let content = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let zeros = bytes.len() - content;
        self.put(&format!("{name}: {} bytes, of which the last {zeros} are zero", bytes.len()), &bytes[..content]);
    }

    fn finish(self) -> String {
        format!("```text\n{}```", self.0)
    }
}

/// A client written from the page, and the server it talks to.
struct Example {
    page: Page,
    acceptor: Acceptor,
    noise: snow::HandshakeState,
    message: Vec<u8>,
    client: SocketAddr,
}

impl Example {
    /// Draws everything, and sends the first INIT as far as the RETRY.
    fn begin(serves: Serves, payload: &[u8]) -> (Self, Vec<u8>) {
        let mut page = Page::default();
        let private = ServerKey::from_bytes(counting(0x01));
        let public = private.public().0;
        page.put("server static private key", private.expose());
        page.put("server static public key", &public);
        page.put("client ephemeral private key", &counting(0x41));
        page.put("initiator index", &INITIATOR_INDEX);
        let prologue = [&b"XMMEP\x01"[..], &INITIATOR_INDEX].concat();
        page.put("prologue", &prologue);
        page.put("payload of Noise message 1", payload);

        let mut noise = noise::initiator(&public, INITIATOR_INDEX, &counting(0x41));
        let mut message = vec![0; payload.len() + 48];
        assert_eq!(noise.write_message(payload, &mut message).expect("room"), message.len());
        page.put("Noise message 1", &message);

        let config = Arc::new(Config::default());
        let acceptor = Acceptor::new(NOW, private, serves, None, config, &mut Script(0xa0));
        let client = SocketAddr::from(([192, 0, 2, 1], 40_000));
        let mut example = Self { page, acceptor, noise, message, client };
        let init = example.init(0, &[]);
        example.page.put_padded("INIT without token, sent", &init);
        let Accept::Reply(retry) = example.handle(&init) else { panic!("no RETRY") };
        example.page.put("RETRY, received", retry.as_bytes());
        assert_eq!((&retry.as_bytes()[..5], retry.as_bytes().len()), (&[5, 1, 2, 3, 4][..], 29));
        let init = example.init(1, &retry.as_bytes()[5..]);
        example.page.put_padded("INIT with cookie, sent", &init);
        (example, init)
    }

    fn init(&self, kind: u8, token: &[u8]) -> Vec<u8> {
        let mut init = vec![4, 1];
        init.extend_from_slice(&INITIATOR_INDEX);
        init.extend_from_slice(&[kind, token.len() as u8]);
        init.extend_from_slice(token);
        init.extend_from_slice(&(self.message.len() as u16).to_be_bytes());
        init.extend_from_slice(&self.message);
        init.resize(1_200, 0);
        init
    }

    fn handle(&mut self, init: &[u8]) -> Accept {
        let wall = WallTime(0);
        let mut rng = Script(0x81);
        self.acceptor.handle_init(NOW, wall, self.client, init, b"", &mut rng, || Some(RECEIVER_INDEX))
    }

    /// Takes the RESPONSE apart; returns the payload of Noise message 2.
    fn response(&mut self, response: &[u8]) -> Vec<u8> {
        self.page.put("server ephemeral private key", &counting(0x81));
        self.page.put("RESPONSE, received", response);
        assert_eq!(response[..5], [7, 1, 2, 3, 4]);
        let ephemeral = ServerKey::from_bytes(counting(0x81)).public().0;
        assert_eq!(response[5..37], ephemeral, "the key that the page names");
        let mut payload = vec![0; response.len()];
        let len = self.noise.read_message(&response[5..], &mut payload).expect("authentic");
        payload.truncate(len);
        payload
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce.into()
}

fn login_request() -> LoginReq {
    LoginReq {
        name: UserName::new("ann").expect("a name"),
        login_key: LoginKey::derive(PASSWORD, &salt(), KdfParams::RECOMMENDED).expect("allowed parameters"),
        status: Status::ONLINE,
        device: DeviceId([0xd1; 16]),
        device_class: DeviceClass::COMPUTER,
        device_name: Text::cut("desk"),
        roster_version: RosterVersion(0),
        client: Text::cut("example 1"),
    }
}

/// A session is opened without a ticket, and the first record carries a PING and a login request.
pub(crate) fn open() -> String {
    let (mut example, init) = Example::begin(Serves::Sessions, &[2]);
    let Accept::Open(mut opened) = example.handle(&init) else { panic!("the session was not opened") };
    let payload = example.response(&opened.reply);
    example.page.put("payload of Noise message 2: the receiver index", &payload);
    assert_eq!(payload, RECEIVER_INDEX.to_be_bytes());
    let (to_server, to_client) = example.noise.dangerously_get_raw_split();
    example.page.put("key of records to the server, epoch 0", &to_server);
    example.page.put("key of records to the client, epoch 0", &to_client);
    let rekeyed = ChaCha20Poly1305::new(&to_server.into()).encrypt(&nonce(u64::MAX), &[0; 32][..]).expect("short");
    example.page.put("key of records to the server, epoch 1", &rekeyed[..32]);

    let frame = frame::request(&login_request(), Sequence(1));
    example.page.put("frame: LoginReq, sequence number 1", &frame);
    let mut plain = vec![0x01, 0x13, 0, 0, 0, 0];
    plain.extend_from_slice(&(frame.len() as u16).to_be_bytes());
    plain.extend_from_slice(&frame);
    example.page.put("plaintext: PING, DATA (first and last, fragment 0, length, frame)", &plain);
    let mut record = vec![8];
    record.extend_from_slice(&RECEIVER_INDEX.to_be_bytes());
    record.extend_from_slice(&0_u64.to_be_bytes());
    let sealed = Payload { msg: &plain, aad: &record };
    let sealed = ChaCha20Poly1305::new(&to_server.into()).encrypt(&nonce(0), sealed).expect("short");
    record.extend_from_slice(&sealed);
    example.page.put("RECORD, sent", &record);

    let mut events = Vec::new();
    opened.session.receive(NOW, example.client, &mut record, &mut events).expect("the record is authentic");
    assert_eq!(events, [Event::Confirmed, Event::Message(frame)]);

    let mut answer = Vec::new();
    assert_eq!(opened.session.poll_transmit(NOW, &mut answer), Some(example.client));
    example.page.put("RECORD, received: the acknowledgement", &answer);
    assert_eq!((answer[0], &answer[1..5]), (8, &INITIATOR_INDEX[..]));
    let sealed = Payload { msg: &answer[13..], aad: &answer[..13] };
    let counter = u64::from_be_bytes(answer[5..13].try_into().expect("eight bytes"));
    let plain = ChaCha20Poly1305::new(&to_client.into()).decrypt(&nonce(counter), sealed).expect("authentic");
    example.page.put("its plaintext: ACK (next fragment 1, nothing beyond, epoch 0), PING, padding", &plain);
    assert_eq!(plain[..6], [0x02, 0, 0, 0, 1, 0]);
    example.page.finish()
}

/// A Router is asked where a user lives.
pub(crate) fn lookup() -> String {
    let name = UserName::new("ann").expect("a name");
    let request = frame::request(&GetLoginInfoReq { name }, Sequence(1));
    let (mut example, init) = Example::begin(Serves::Lookups, &[&[1], &request[..]].concat());
    let Accept::Lookup(pending, asked) = example.handle(&init) else { panic!("no lookup") };
    assert_eq!(asked, request);
    let answer = GetLoginInfoRes {
        result: ResultCode::SUCCESS,
        addresses: List::new(vec![Address::from(SocketAddr::from(([192, 0, 2, 7], 7101)))]).expect("one"),
        presence_key: counting(0xc1),
        salt: salt(),
        kdf: KdfParams::RECOMMENDED,
        ticket: Blob::new(&[0x7e; 105]).expect("short"),
    };
    let answer = frame::answer(&answer, Sequence(1));
    let response = pending.answer(NOW, &answer).expect("in time");
    let payload = example.response(&response);
    example.page.put_padded("payload of Noise message 2: no receiver index, length, frame, zeros", &payload);
    assert_eq!((&payload[..4], payload.len()), (&[0; 4][..], 774));
    let len = usize::from(u16::from_be_bytes([payload[4], payload[5]]));
    let frame = Frame::decode(Bytes::copy_from_slice(&payload[6..6 + len])).expect("a frame");
    assert_eq!(frame.message::<GetLoginInfoRes>().expect("a body").salt, salt());
    example.page.finish()
}

/// A password becomes a login key and its hash.
pub(crate) fn login_key() -> String {
    let mut page = Page::default();
    let key = LoginKey::derive(PASSWORD, &salt(), KdfParams::RECOMMENDED).expect("allowed parameters");
    page.put(&format!("password: {PASSWORD:?}, as UTF-8"), PASSWORD.as_bytes());
    page.put("salt", &salt().0);
    page.put("login key: Argon2id, version 0x13, 19456 KiB, 2 passes, 1 lane, 32 bytes", key.expose());
    page.put("key hash, which is what a server stores", key.hash().expose());
    page.finish()
}

/// The address of a server.
pub(crate) fn address() -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let public = ServerKey::from_bytes(counting(0x01)).public().0;
    let mut text = String::new();
    for group in public.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for index in 0..=group.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * index)) as usize & 63]));
        }
    }
    let mut page = Page::default();
    page.put("server static public key", &public);
    format!("{}\n\n`xm://chat.example.org:7100/{text}`", page.finish())
}

/// A frame, byte by byte.
pub(crate) fn frame() -> String {
    let name = UserName::new("ann").expect("a name");
    let frame = frame::request(&GetLoginInfoReq { name }, Sequence(1));
    assert_eq!(&frame[..], [0, 110, 0, 0, 0, 0, 1, 3, b'a', b'n', b'n']);
    let mut out = String::from("```text\n");
    let parts: [(&[u8], &str); 5] = [
        (&frame[..2], "code: 110, GetLoginInfoReq"),
        (&frame[2..3], "flags: a request"),
        (&frame[3..7], "sequence number 1"),
        (&frame[7..8], "name: three bytes follow"),
        (&frame[8..], "\"ann\""),
    ];
    for (bytes, meaning) in parts {
        let _ = writeln!(out, "{:<12}{meaning}", hex::pairs(bytes));
    }
    out + "```"
}
