//! The floor: the datagrams of a chat through a loop that receives, opens, seals and sends, and does nothing else. No
//! handshake, no order, no retransmission, no roster, no inbox. What a text costs here is what no server can do without.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use xm_core::engine::Datagram;
use xm_core::net::batch::{self, Receiver};

use crate::report::Figure;
use crate::server::{Usage, first_line_with, on_cores};
use crate::sockets::{Sharing, Sockets};
use crate::{Failure, RunArgs};

/// As in W3.
const USERS: u32 = 2_000;
const IN_FLIGHT: u32 = 512;
/// Datagrams of a session with a text of 100 bytes, and with a confirmation or a tick.
const TEXT: usize = 186;
const TICK: usize = 84;
/// Who sent it, a counter; the tag stands at the end.
const HEADER: usize = 13;
const TAG: usize = 16;

fn cipher() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).expect("a key of that cipher has 32 bytes"))
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn number_of(datagram: &[u8]) -> u32 {
    datagram.get(1..5).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn seal(cipher: &LessSafeKey, number: u32, counter: u64, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + plain.len() + TAG);
    out.push(8);
    out.extend_from_slice(&number.to_be_bytes());
    out.extend_from_slice(&counter.to_be_bytes());
    out.extend_from_slice(plain);
    let (header, body) = out.split_at_mut(HEADER);
    let tag = cipher.seal_in_place_separate_tag(nonce(counter), Aad::from(header), body);
    out.extend_from_slice(tag.expect("a datagram is not too long").as_ref());
    out
}

/// Opens a datagram; the plaintext, if it is authentic.
fn open<'a>(cipher: &LessSafeKey, datagram: &'a mut [u8]) -> Option<&'a [u8]> {
    let (header, sealed) = datagram.split_at_mut_checked(HEADER)?;
    let counter = u64::from_be_bytes(*header.last_chunk()?);
    Some(cipher.open_in_place(nonce(counter), Aad::from(header), sealed).ok()?)
}

/// The loop, as a process of its own.
pub(crate) fn serve() -> Result<(), Failure> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    for_bursts(&socket);
    socket.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    println!("Relay at {}", socket.local_addr()?);
    let mut receiver = Receiver::new(&socket)?;
    let mut addresses: Vec<Option<SocketAddr>> = vec![None; USERS as usize];
    let (mut out, mut counter, cipher) = (Vec::new(), 0, cipher());
    loop {
        epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE)?;
        receiver.receive(&socket, |from, datagram| {
            let number = number_of(datagram);
            if let Some(place) = addresses.get_mut(number as usize) {
                *place = Some(from);
            }
            let to = addresses.get((number ^ 1) as usize).copied().flatten();
            if let (Some(plain), Some(to)) = (open(&cipher, datagram), to) {
                counter += 1;
                out.push(Datagram { to, bytes: Bytes::from(seal(&cipher, number ^ 1, counter, plain)) });
            }
        })?;
        batch::gather(&mut out);
        let mut rest = out.as_slice();
        while !rest.is_empty() {
            rest = rest.get(batch::send(&socket, rest)?.max(1)..).unwrap_or_default();
        }
        out.clear();
    }
}

fn for_bursts(socket: &UdpSocket) {
    // A smaller one loses more and nothing else.
    let _ = socket2::SockRef::from(socket).set_recv_buffer_size(4 * 1024 * 1024);
}

/// What a text costs there: a socket per user, 512 texts in flight, each a datagram in and out, and the same for its answer.
pub(crate) fn measure(args: &RunArgs) -> Result<Figure, Failure> {
    let mut command = on_cores(&std::env::current_exe()?, &args.server_cores);
    command.arg("relay");
    let (mut child, address) = first_line_with(command, "Relay at")?;
    let measured = rounds(address.parse()?, child.id(), args);
    child.kill()?;
    child.wait()?;
    let sockets = if args.sockets == Sharing::Each { "a socket per user" } else { "shared sockets" };
    Ok(Figure::new("floor", format!("the same datagrams through a bare relay, CPU, {sockets}"), measured?, "µs"))
}

fn rounds(relay: SocketAddr, process: u32, args: &RunArgs) -> Result<f64, Failure> {
    let (mut sockets, cipher) = (Sockets::open(args.sockets, USERS)?, cipher());
    // The relay learns where everybody is.
    for number in 0..USERS {
        sockets.send(sockets.of(number), relay, &seal(&cipher, number, 0, &[0; TICK - HEADER - TAG]));
        sockets.flush();
    }
    let quiet = Instant::now();
    while quiet.elapsed() < Duration::from_millis(500) {
        sockets.receive(Duration::from_millis(10), |_, _, _| {})?;
    }
    let texts: Vec<_> = (0..USERS).map(|number| seal(&cipher, number, 1, &[0; TEXT - HEADER - TAG])).collect();
    let ticks: Vec<_> = (0..USERS).map(|number| seal(&cipher, number, 2, &[0; TICK - HEADER - TAG])).collect();
    let (before, start, mut done, mut last) = (Usage::of(process)?, Instant::now(), 0_u32, Instant::now());
    let mut to_send: Vec<(u32, &Vec<u8>)> =
        texts.iter().zip(0..).step_by(2).take(IN_FLIGHT as usize).map(|(t, n)| (n, t)).collect();
    let mut next = (0..USERS).cycle().skip(IN_FLIGHT as usize * 2).step_by(2);
    while start.elapsed() < Duration::from_secs(args.seconds.min(5)) {
        for (number, datagram) in to_send.drain(..) {
            sockets.send(sockets.of(number), relay, datagram);
        }
        sockets.flush();
        sockets.receive(Duration::from_millis(20), |_, _, datagram| {
            let (number, is_text) = (number_of(datagram), datagram.len() == TEXT);
            last = Instant::now();
            if is_text {
                to_send.extend(ticks.get(number as usize).map(|tick| (number, tick)));
            } else {
                done += 1;
                let sender = next.next().unwrap_or_default();
                to_send.extend(texts.get(sender as usize).map(|text| (sender, text)));
            }
        })?;
        if last.elapsed() > Duration::from_secs(2) {
            return Err("the relay lost all that was under way".into());
        }
    }
    Ok((Usage::of(process)?.cpu - before.cpu) * 1e6 / f64::from(done.max(1)))
}
