//! The UDP driver of one lane: receives in batches, runs the engine, sends in batches. What the datagrams mean is the
//! engine's.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::Clock;
use super::batch::{self, Receiver, is_harmless};
use crate::engine::{Datagram, Engine, Output};
use crate::role::Role;

/// Bytes of the kernel's buffers we ask for: some 3,000 datagrams, so that a burst meets a busy lane without loss. The
/// kernel gives what it is configured to give.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// How long tasks may go on after shutdown: appends that are under way finish, a store that hangs does not hold us.
const TASKS_AFTER_SHUTDOWN: Duration = Duration::from_secs(4);

/// Batches that are taken one after the other, however many wait. Then the tasks beside the lane, and the clock, have their turn.
const BATCHES_AT_ONCE: u32 = 8;

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
    let socket = UdpSocket::from_std(socket)?;
    let mut receiver = Receiver::new(&socket)?;
    let mut tasks = JoinSet::new();
    let mut out = Output::default();
    let mut timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut shutdown = std::pin::pin!(shutdown);
    let mut batches = 0;
    loop {
        if let Some(deadline) = engine.deadline() {
            timer.as_mut().reset(clock.instant(deadline));
        }
        tokio::select! {
            () = &mut shutdown => break,
            ready = socket.readable() => {
                ready?;
                let each = |from, bytes: &mut [u8]| engine.datagram(clock.now(), from, bytes, &mut out);
                match socket.try_io(Interest::READABLE, || receiver.receive(&socket, each)) {
                    Err(error) if !is_harmless(&error) => return Err(error),
                    // Nothing there, or an ICMP error of something sent before: neither is ours to act on.
                    _ => {}
                }
            }
            () = mail.notified() => engine.mail(clock.now(), &mut out),
            () = &mut timer, if engine.deadline().is_some() => engine.on_deadline(clock.now(), &mut out),
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
        engine.flush(clock.now(), &mut out);
        out.tasks.drain(..).for_each(|task| drop(tasks.spawn(task)));
        send_all(&socket, &mut out.datagrams).await;
        batches += 1;
        if batches == BATCHES_AT_ONCE {
            tokio::task::yield_now().await;
            batches = 0;
        }
    }
    engine.shut_down(clock.now(), &mut out);
    send_all(&socket, &mut out.datagrams).await;
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

/// Sends all; a datagram the system refuses is lost like any other on the way, and the session repeats what matters.
async fn send_all(socket: &UdpSocket, datagrams: &mut Vec<Datagram>) {
    batch::gather(datagrams);
    let mut rest = datagrams.as_slice();
    while !rest.is_empty() {
        match socket.try_io(Interest::WRITABLE, || batch::send(socket, rest)) {
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

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use tokio::sync::oneshot;
    use xmmep::session::{ServerKey, Serves};

    use super::*;
    use crate::engine::Setup;
    use crate::handlers::Handlers;

    /// A role that does nothing.
    struct Idle;

    impl Role for Idle {}

    #[tokio::test]
    async fn other_tasks_have_their_turn_while_datagrams_wait() {
        let socket = bind_lanes("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let (at, waiting) = (socket.local_addr().unwrap(), socket.try_clone().unwrap());
        // As many as there is room for, and no fewer than some turns take.
        for _ in 0..2_000 {
            waiting.send_to(b"nothing of ours", at).unwrap();
        }
        let clock = Clock::start();
        let key = ServerKey::random(&mut rand::make_rng::<StdRng>());
        let setup = Setup {
            role: Arc::new(Idle),
            handlers: Handlers::new().shared(),
            key,
            serves: Serves::Lookups,
            tickets: None,
            session: Arc::default(),
        };
        let engine = Engine::lanes(clock.now().mono, setup, vec![Box::new(rand::make_rng::<StdRng>())]).remove(0);
        let (stop, stopped) = oneshot::channel::<()>();
        let lane = serve(engine, socket, clock, async move { drop(stopped.await) });
        // Both hear of the datagrams in one moment, the lane first.
        let hears = UdpSocket::from_std(waiting.try_clone().unwrap()).unwrap();
        let other = async move {
            hears.readable().await.unwrap();
            let left = waiting.peek_from(&mut [0; 64]).is_ok();
            stop.send(()).unwrap();
            left
        };
        let (served, left) = futures_util::future::join(lane, other).await;
        served.unwrap();
        assert!(left, "the lane took all that waited before anybody else had a turn");
    }
}
