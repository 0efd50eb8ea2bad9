//! Sending in batches: one system call for many datagrams to many peers where the system has one.

use std::io;

use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::engine::Datagram;

/// Datagrams per system call.
#[cfg(target_os = "linux")]
const BATCH: usize = 64;

/// Sends all; a datagram the system refuses is lost like any other on the way, and the session repeats what matters.
pub(super) async fn send(socket: &UdpSocket, datagrams: &mut Vec<Datagram>) {
    let mut rest = datagrams.as_slice();
    while !rest.is_empty() {
        match socket.try_io(Interest::WRITABLE, || send_some(socket, rest)) {
            Ok(sent) => rest = rest.get(sent.max(1)..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if socket.writable().await.is_err() {
                    break;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a datagram could not be sent");
                rest = rest.get(1..).unwrap_or_default();
            }
        }
    }
    datagrams.clear();
}

#[cfg(target_os = "linux")]
fn send_some(socket: &UdpSocket, datagrams: &[Datagram]) -> io::Result<usize> {
    use std::io::IoSlice;
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};

    if let [single] = datagrams {
        return socket2::SockRef::from(socket).send_to(&single.bytes, &single.to.into()).map(|_| 1);
    }
    let batch = datagrams.get(..BATCH.min(datagrams.len())).unwrap_or_default();
    let slices: Vec<[IoSlice<'_>; 1]> = batch.iter().map(|datagram| [IoSlice::new(&datagram.bytes)]).collect();
    let addresses: Vec<Option<SockaddrStorage>> = batch.iter().map(|datagram| Some(datagram.to.into())).collect();
    // Holds raw pointers, so it cannot be kept across an await in a task that moves between threads.
    let mut headers = MultiHeaders::preallocate(batch.len(), None);
    let results = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &addresses, [], MsgFlags::MSG_DONTWAIT)?;
    Ok(results.count())
}

#[cfg(not(target_os = "linux"))]
fn send_some(socket: &UdpSocket, datagrams: &[Datagram]) -> io::Result<usize> {
    let Some(first) = datagrams.first() else { return Ok(0) };
    socket2::SockRef::from(socket).send_to(&first.bytes, &first.to.into()).map(|_| 1)
}
