//! Many datagrams per system call, where the system has such calls: for the drivers here, and for programs that drive
//! clients of their own.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsFd;
#[cfg(target_os = "linux")]
use std::sync::atomic::Ordering;

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use xmmep::session::DATAGRAM_MAX;

use crate::engine::Datagram;

/// Datagrams, or runs of datagrams from one sender, received with one call.
const RECEIVE_SLOTS: usize = 32;

/// Receives from one socket, in batches.
pub struct Receiver {
    state: UdpSocketState,
    buffer: Box<[u8]>,
    slot: usize,
}

impl Receiver {
    /// Prepares `socket`, which has to be non-blocking. The receiver may be used for others, too, if they had
    /// [`prepare_also`](Self::prepare_also).
    ///
    /// # Errors
    /// If the system refuses an option that every system has.
    pub fn new(socket: &impl AsFd) -> io::Result<Self> {
        let state = prepare(socket)?;
        let slot = state.gro_segments() * (DATAGRAM_MAX + 1);
        Ok(Self { state, buffer: vec![0; RECEIVE_SLOTS * slot].into(), slot })
    }

    /// Prepares one more socket, which shares the buffers of this receiver: some 2 MiB.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn prepare_also(&self, socket: &impl AsFd) -> io::Result<()> {
        prepare(socket).map(drop)
    }

    /// Takes one batch from the socket; `each` gets the sender and the bytes of every datagram.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there is none, else what the system says. [`is_harmless`] tells which of them are
    /// no failure of the socket.
    pub fn receive(&mut self, socket: &impl AsFd, mut each: impl FnMut(SocketAddr, &mut [u8])) -> io::Result<()> {
        let mut metas = [RecvMeta::default(); RECEIVE_SLOTS];
        let mut slots = self.buffer.chunks_mut(self.slot).map(IoSliceMut::new);
        let mut slots: [IoSliceMut<'_>; RECEIVE_SLOTS] =
            std::array::from_fn(|_| slots.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        let count = self.state.recv(UdpSockRef::from(socket), &mut slots, &mut metas)?;
        for (meta, slot) in metas.iter().zip(&mut slots).take(count) {
            let Some(bytes) = slot.get_mut(..meta.len) else { continue };
            bytes.chunks_mut(meta.stride.max(1)).for_each(|datagram| each(meta.addr, datagram));
        }
        Ok(())
    }
}

fn prepare(socket: &impl AsFd) -> io::Result<UdpSocketState> {
    UdpSocketState::new(UdpSockRef::from(socket))
}

/// Whether a socket goes on after this: nothing was there, or an earlier datagram had nobody to receive it.
#[must_use]
pub fn is_harmless(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

/// Puts datagrams to one address side by side, longest first: [`send`] hands those of one size, and a shorter one behind
/// them, to the kernel as one. The order in which datagrams arrive was never promised.
pub fn gather(datagrams: &mut [Datagram]) {
    datagrams.sort_by(|a, b| a.to.cmp(&b.to).then(b.bytes.len().cmp(&a.bytes.len())));
}

/// Sends the first of these datagrams and as many more as one call takes; says how many.
///
/// # Errors
/// If the first one cannot be sent now, or at all.
#[cfg(target_os = "linux")]
pub fn send(socket: &impl AsFd, datagrams: &[Datagram]) -> io::Result<usize> {
    let run = linux::run(datagrams);
    if run > 1 && linux::CUTS.load(Ordering::Relaxed) {
        match linux::send_run(socket, &datagrams[..run]) {
            // A device or a rule on the way cannot do it: from here on each goes by itself.
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EIO | nix::libc::EINVAL)) => {
                linux::CUTS.store(false, Ordering::Relaxed);
            }
            sent => return sent.map(|()| run),
        }
    }
    match datagrams {
        [] => Ok(0),
        [single] => socket2::SockRef::from(socket).send_to(&single.bytes, &single.to.into()).map(|_| 1),
        many => linux::send_many(socket, many),
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;
    use std::sync::atomic::AtomicBool;

    use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg, sendmsg};
    use smallvec::SmallVec;

    use super::{AsFd, Datagram, io};

    /// Whether the kernel cuts what it is given into datagrams (`UDP_SEGMENT`); until it turns out that it does not.
    pub(super) static CUTS: AtomicBool = AtomicBool::new(true);

    /// Datagrams sent with one call.
    const SEND_BATCH: usize = 64;
    /// Datagrams the kernel cuts from one piece, and bytes of such a piece.
    const RUN_MAX: usize = 64;
    const RUN_BYTES_MAX: usize = 65_000;

    /// How many datagrams at the beginning go to one address and have one size; the last may be shorter.
    pub(super) fn run(datagrams: &[Datagram]) -> usize {
        let Some(first) = datagrams.first() else { return 0 };
        let size = first.bytes.len().max(1);
        let same = |datagram: &&Datagram| datagram.to == first.to && datagram.bytes.len() == size;
        let most = RUN_MAX.min(RUN_BYTES_MAX / size);
        let equal = datagrams.iter().take(most).take_while(same).count();
        let shorter = |datagram: &Datagram| datagram.to == first.to && (1..size).contains(&datagram.bytes.len());
        equal + usize::from(equal < most && datagrams.get(equal).is_some_and(shorter))
    }

    pub(super) fn send_run(socket: &impl AsFd, run: &[Datagram]) -> io::Result<()> {
        let slices: SmallVec<[IoSlice<'_>; RUN_MAX]> = run.iter().map(|one| IoSlice::new(&one.bytes)).collect();
        let size = run.first().and_then(|first| u16::try_from(first.bytes.len()).ok()).unwrap_or(u16::MAX);
        let to: Option<SockaddrStorage> = run.first().map(|first| first.to.into());
        let cut = [ControlMessage::UdpGsoSegments(&size)];
        sendmsg(socket.as_fd().as_raw_fd(), &slices, &cut, MsgFlags::MSG_DONTWAIT, to.as_ref())?;
        Ok(())
    }

    /// Sends datagrams up to the next run.
    pub(super) fn send_many(socket: &impl AsFd, datagrams: &[Datagram]) -> io::Result<usize> {
        let end = (1..SEND_BATCH.min(datagrams.len())).find(|at| run(&datagrams[*at..]) > 1);
        let batch = &datagrams[..end.unwrap_or(SEND_BATCH.min(datagrams.len()))];
        let slices: SmallVec<[[IoSlice<'_>; 1]; SEND_BATCH]> =
            batch.iter().map(|datagram| [IoSlice::new(&datagram.bytes)]).collect();
        let addresses: SmallVec<[Option<SockaddrStorage>; SEND_BATCH]> =
            batch.iter().map(|datagram| Some(datagram.to.into())).collect();
        // Holds raw pointers, so it cannot be kept across an await in a task that moves between threads.
        let mut headers = MultiHeaders::preallocate(batch.len(), None);
        let fd = socket.as_fd().as_raw_fd();
        let addresses = addresses.as_slice();
        let results = sendmmsg(fd, &mut headers, slices.as_slice(), addresses, [], MsgFlags::MSG_DONTWAIT)?;
        Ok(results.count())
    }
}

/// Sends the first of these datagrams; says how many were sent.
///
/// # Errors
/// If it cannot be sent now, or at all.
#[cfg(not(target_os = "linux"))]
pub fn send(socket: &impl AsFd, datagrams: &[Datagram]) -> io::Result<usize> {
    let Some(first) = datagrams.first() else { return Ok(0) };
    socket2::SockRef::from(socket).send_to(&first.bytes, &first.to.into()).map(|_| 1)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use bytes::Bytes;

    use super::*;

    fn datagram(to: SocketAddr, len: usize, content: u8) -> Datagram {
        Datagram { to, bytes: Bytes::from(vec![content; len]) }
    }

    fn bound() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[test]
    fn each_datagram_arrives_whole_once_and_where_it_was_sent_however_many_go_with_one_call() {
        let sender = bound().0;
        let receivers = [bound(), bound(), bound()];
        // Full ones and a rest, as a list in parts; small ones of all sizes; one size many times.
        let lens = [1_200, 1_200, 300, 84, 186, 1, 186, 186, 7, 1_200, 84, 84];
        let to = |number: usize| receivers[number % 3].1;
        let mut datagrams: Vec<_> = (0..120).map(|n| datagram(to(n / 2), lens[n % lens.len()], n as u8)).collect();
        gather(&mut datagrams);
        let mut rest = datagrams.as_slice();
        let mut calls = 0;
        while !rest.is_empty() {
            rest = &rest[send(&sender, rest).unwrap()..];
            calls += 1;
        }
        assert!(calls < datagrams.len() / 2, "{calls} calls");
        let mut buffer = [0; 2_000];
        for (socket, address) in receivers {
            let sent = datagrams.iter().filter(|datagram| datagram.to == address);
            let mut sent: Vec<_> = sent.map(|datagram| datagram.bytes.to_vec()).collect();
            let receive = |_| {
                let len = socket.recv(&mut buffer).unwrap();
                buffer[..len].to_vec()
            };
            let mut received: Vec<_> = (0..sent.len()).map(receive).collect();
            sent.sort();
            received.sort();
            assert_eq!(received, sent);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_goes_as_one_has_one_size_and_one_address_but_for_a_shorter_last_one() {
        let (a, b) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
        let run = |datagrams: &[(SocketAddr, usize)]| {
            linux::run(&datagrams.iter().map(|(to, len)| datagram(*to, *len, 0)).collect::<Vec<_>>())
        };
        assert_eq!(run(&[]), 0);
        assert_eq!(run(&[(a, 9)]), 1);
        assert_eq!(run(&[(a, 9), (b, 9)]), 1);
        assert_eq!(run(&[(a, 9), (a, 10)]), 1, "a longer one would be cut elsewhere");
        assert_eq!(run(&[(a, 9), (a, 9), (a, 8), (a, 8)]), 3);
        assert_eq!(run(&[(a, 9), (a, 0)]), 1, "nothing is cut into nothing");
        assert_eq!(run(&[(a, 1); 100]), 64);
        assert_eq!(run(&[(a, 1_200); 100]), 54);
    }
}
