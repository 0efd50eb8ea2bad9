//! The UDP driver of one lane: receives in batches, runs the engine, sends in batches. What the datagrams mean is the
//! engine's.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use xmmep::session::DATAGRAM_MAX;

use super::Clock;
use super::send::send;
use crate::engine::{Engine, Output};
use crate::role::Role;

/// Datagrams, or runs of datagrams from one sender, received with one call.
const RECEIVE_SLOTS: usize = 32;

/// Bytes of the kernel's buffers we ask for: some 3,000 datagrams, so that a burst meets a busy lane without loss. The
/// kernel gives what it is configured to give.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// How long tasks may go on after shutdown: appends that are under way finish, a store that hangs does not hold us.
const TASKS_AFTER_SHUTDOWN: Duration = Duration::from_secs(4);

/// Binds one socket per lane to the same address; the kernel spreads clients over them. With port 0 the first lane's
/// free port is used for all.
///
/// # Errors
/// If the address cannot be bound.
pub fn bind_lanes(address: SocketAddr, lanes: usize) -> io::Result<Vec<std::net::UdpSocket>> {
    let first = bind(address, lanes > 1)?;
    let address = first.local_addr()?;
    let others = (1..lanes).map(|_| bind(address, true));
    std::iter::once(Ok(first)).chain(others).collect()
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    #[cfg(unix)]
    socket.set_reuse_port(shared)?;
    #[cfg(not(unix))]
    let _ = shared;
    // Smaller buffers lose more under load and nothing else.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Runs one lane until `shutdown` is ready; then closes its sessions, lets running tasks finish, and returns.
///
/// # Errors
/// If the socket fails for good. A single datagram that cannot be sent or received is no such failure.
pub async fn serve<R: Role>(
    mut engine: Engine<R>,
    socket: std::net::UdpSocket,
    clock: Clock,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mail = Arc::new(Notify::new());
    let waker = mail.clone();
    engine.mailbox().on_mail(move || waker.notify_one());
    let mut receiver = Receiver::new(socket)?;
    let mut tasks = JoinSet::new();
    let mut out = Output::default();
    let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        if let Some(deadline) = engine.deadline() {
            timer.as_mut().reset(clock.instant(deadline));
        }
        tokio::select! {
            () = &mut shutdown => break,
            ready = receiver.socket.readable() => {
                ready?;
                receiver.receive(|from, bytes| engine.datagram(clock.now(), from, bytes, &mut out))?;
            }
            () = mail.notified() => engine.mail(clock.now(), &mut out),
            () = &mut timer, if engine.deadline().is_some() => engine.on_deadline(clock.now(), &mut out),
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
        engine.flush(clock.now(), &mut out);
        out.tasks.drain(..).for_each(|task| drop(tasks.spawn(task)));
        send(&receiver.socket, &mut out.datagrams).await;
    }
    engine.shut_down(clock.now(), &mut out);
    send(&receiver.socket, &mut out.datagrams).await;
    finish(engine, out, tasks, &clock).await;
    Ok(())
}

/// Runs what is left to its end: messages on their way to the store get there.
async fn finish<R: Role>(mut engine: Engine<R>, mut out: Output, mut tasks: JoinSet<()>, clock: &Clock) {
    let all = async {
        loop {
            out.tasks.drain(..).for_each(|task| drop(tasks.spawn(task)));
            if tasks.join_next().await.is_none() {
                return;
            }
            engine.flush(clock.now(), &mut out);
        }
    };
    if tokio::time::timeout(TASKS_AFTER_SHUTDOWN, all).await.is_err() {
        tracing::warn!("some work did not finish in time; senders of affected messages got no tick");
    }
}

struct Receiver {
    socket: UdpSocket,
    state: UdpSocketState,
    buffer: Box<[u8]>,
    slot: usize,
}

impl Receiver {
    fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let slot = state.gro_segments() * (DATAGRAM_MAX + 1);
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self { socket, state, buffer: vec![0; RECEIVE_SLOTS * slot].into(), slot })
    }

    /// Takes one batch; `each` gets the sender and the bytes of every datagram.
    fn receive(&mut self, mut each: impl FnMut(SocketAddr, &mut [u8])) -> io::Result<()> {
        let mut metas = [RecvMeta::default(); RECEIVE_SLOTS];
        let mut slots = self.buffer.chunks_mut(self.slot).map(IoSliceMut::new);
        let mut slots: [IoSliceMut<'_>; RECEIVE_SLOTS] =
            std::array::from_fn(|_| slots.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
        let (socket, state) = (&self.socket, &self.state);
        let received = socket.try_io(Interest::READABLE, || state.recv(socket.into(), &mut slots, &mut metas));
        let count = match received {
            Ok(count) => count,
            // Nothing there, or an ICMP error of something sent before: neither is ours to act on.
            Err(error) if is_harmless(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        for (meta, slot) in metas.iter().zip(&mut slots).take(count) {
            let Some(bytes) = slot.get_mut(..meta.len) else { continue };
            bytes.chunks_mut(meta.stride.max(1)).for_each(|datagram| each(meta.addr, datagram));
        }
        Ok(())
    }
}

fn is_harmless(error: &io::Error) -> bool {
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
