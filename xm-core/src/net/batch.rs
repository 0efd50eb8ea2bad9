//! Many datagrams per system call, where the system has such calls: for the drivers here, and for programs that drive
//! clients of their own.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsFd;

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use xmmep::session::DATAGRAM_MAX;

use crate::engine::Datagram;

/// Datagrams, or runs of datagrams from one sender, received with one call.
const RECEIVE_SLOTS: usize = 32;

/// Datagrams sent with one call.
#[cfg(target_os = "linux")]
const SEND_BATCH: usize = 64;

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

/// Sends the first of these datagrams and as many more as one call takes; says how many.
///
/// # Errors
/// If the first one cannot be sent now, or at all.
#[cfg(target_os = "linux")]
pub fn send(socket: &impl AsFd, datagrams: &[Datagram]) -> io::Result<usize> {
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

    if let [single] = datagrams {
        return socket2::SockRef::from(socket).send_to(&single.bytes, &single.to.into()).map(|_| 1);
    }
    let batch = datagrams.get(..SEND_BATCH.min(datagrams.len())).unwrap_or_default();
    let slices: Vec<[IoSlice<'_>; 1]> = batch.iter().map(|datagram| [IoSlice::new(&datagram.bytes)]).collect();
    let addresses: Vec<Option<SockaddrStorage>> = batch.iter().map(|datagram| Some(datagram.to.into())).collect();
    // Holds raw pointers, so it cannot be kept across an await in a task that moves between threads.
    let mut headers = MultiHeaders::preallocate(batch.len(), None);
    let fd = socket.as_fd().as_raw_fd();
    let results = sendmmsg(fd, &mut headers, &slices, &addresses, [], MsgFlags::MSG_DONTWAIT)?;
    Ok(results.count())
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
