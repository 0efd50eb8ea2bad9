//! The sockets of the clients: one each, or few for many; waited for and emptied with few system calls.
//!
//! Each socket has an address of its own in 127.0.0.0/8, as users elsewhere have, because a server limits handshakes per
//! address.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};
use xm_core::engine::Datagram;
use xm_core::net::batch::{self, Receiver, is_harmless};
use xmmep::session::DATAGRAM_MAX;

use crate::Failure;

/// Whether users share sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// A socket each, as on real devices.
    Each,
    /// So many for all of them, emptied in batches: what the generator saves goes to the load.
    Shared(u32),
}

impl FromStr for Sharing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "each" => Ok(Self::Each),
            Ok(count @ 1..=65_536) => Ok(Self::Shared(count)),
            _ => Err("give \"each\", or a number of sockets from 1 to 65536".to_owned()),
        }
    }
}

/// Events taken from epoll at a time.
const EVENTS: usize = 256;
/// Bytes of the kernel's buffers of a shared socket.
const SHARED_BUFFER: usize = 4 * 1024 * 1024;
/// Files a process may yet open beside its sockets.
const OTHER_FILES: u64 = 64;

pub(crate) struct Sockets {
    sharing: Sharing,
    sockets: Vec<UdpSocket>,
    epoll: Epoll,
    /// What waits to be sent, per shared socket.
    queues: Vec<Vec<Datagram>>,
    receiver: Option<Receiver>,
    buffer: Vec<u8>,
    ready: Vec<EpollEvent>,
}

impl Sockets {
    /// Sockets for so many users.
    pub(crate) fn open(sharing: Sharing, users: u32) -> Result<Self, Failure> {
        let count = match sharing {
            Sharing::Each => users,
            Sharing::Shared(count) => count.min(users),
        };
        allow_files(std::fs::read_dir("/proc/self/fd")?.count() as u64 + u64::from(count) + OTHER_FILES)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut sockets = Vec::with_capacity(count as usize);
        for number in 0..count {
            let socket = bind(number, sharing != Sharing::Each)?;
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, number.into()))?;
            sockets.push(socket);
        }
        let receiver = match (sharing, sockets.first()) {
            (Sharing::Shared(_), Some(first)) => Some(Receiver::new(first)?),
            _ => None,
        };
        for socket in &sockets {
            receiver.as_ref().map_or(Ok(()), |receiver| receiver.prepare_also(socket))?;
        }
        let queues = match sharing {
            Sharing::Each => Vec::new(),
            Sharing::Shared(_) => (0..count).map(|_| Vec::new()).collect(),
        };
        let (buffer, ready) = (vec![0; DATAGRAM_MAX + 1], vec![EpollEvent::empty(); EVENTS]);
        Ok(Self { sharing, sockets, epoll, queues, receiver, buffer, ready })
    }

    /// Which socket a user has.
    pub(crate) fn of(&self, user: u32) -> u32 {
        user % self.sockets.len() as u32
    }

    /// Sends a datagram now, or with others of its socket.
    pub(crate) fn send(&mut self, socket: u32, to: SocketAddr, bytes: &[u8]) {
        if let Some(queue) = self.queues.get_mut(socket as usize) {
            queue.push(Datagram { to, bytes: Bytes::copy_from_slice(bytes) });
        } else if let Some(socket) = self.sockets.get(socket as usize) {
            // What cannot be sent is lost like any other datagram.
            let _ = socket.send_to(bytes, to);
        }
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) {
        for (queue, socket) in self.queues.iter_mut().zip(&self.sockets) {
            batch::gather(queue);
            let mut rest = queue.as_slice();
            while !rest.is_empty() {
                let sent = batch::send(socket, rest).unwrap_or(1);
                rest = rest.get(sent.max(1)..).unwrap_or_default();
            }
            queue.clear();
        }
    }

    /// Waits for datagrams at most this long; `each` gets the socket, the sender and the bytes of each that came.
    pub(crate) fn receive(
        &mut self,
        wait: Duration,
        mut each: impl FnMut(u32, SocketAddr, &mut [u8]),
    ) -> io::Result<()> {
        let millis = u16::try_from(wait.as_millis()).unwrap_or(u16::MAX);
        let count = match self.epoll.wait(&mut self.ready, millis) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in self.ready.iter().take(count) {
            let number = event.data() as u32;
            let Some(socket) = self.sockets.get(number as usize) else { continue };
            let received = match &mut self.receiver {
                Some(receiver) => receiver.receive(socket, |from, bytes| each(number, from, bytes)),
                // Once per call is enough: what is still there is told again.
                None => socket.recv_from(&mut self.buffer).map(|(len, from)| {
                    each(number, from, self.buffer.get_mut(..len).unwrap_or_default());
                }),
            };
            match received {
                Err(error) if !is_harmless(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether several users may have the same socket.
    pub(crate) fn are_shared(&self) -> bool {
        self.sharing != Sharing::Each
    }
}

fn bind(number: u32, shared: bool) -> Result<UdpSocket, Failure> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    if shared {
        // Smaller ones lose more and nothing else.
        let _ = socket.set_recv_buffer_size(SHARED_BUFFER);
        let _ = socket.set_send_buffer_size(SHARED_BUFFER);
    }
    socket.set_nonblocking(true)?;
    // 127.1.0.0 and up: away from the server's own.
    let address = Ipv4Addr::from_bits(0x7f01_0000 + number);
    socket.bind(&SocketAddr::from((address, 0)).into())?;
    Ok(socket.into())
}

/// Raises the number of files this process may have open.
fn allow_files(needed: u64) -> Result<(), Failure> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= needed {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).map_err(|error| {
        format!("{needed} open files are needed, and {hard} allowed ({error}): let users share sockets with --sockets")
            .into()
    })
}
