//! A TCP proxy in front of a database server that breaks the connection exactly where a test wants it broken.
//!
//! A client talks in requests, each followed by an answer. The proxy can lose the connection before the server has heard
//! the n-th request, or after it has done it and before the client hears so; hold or delay answers, fall silent, refuse,
//! or answer in the server's place. Nothing depends on time, except delays that are asked for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use xmmep::sample::Sampler;

use super::servers::{Engine, Server};
use super::wire::{Kind, Request, Requests};

/// What happens to everything that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It passes.
    Pass,
    /// Answers are kept until the mode changes.
    Hold,
    /// Each answer comes this much later.
    Delay(Duration),
    /// Nothing passes in either direction, and no connection is closed: a cable is cut.
    Silent,
    /// Connections are closed as they come, and those there are.
    Refuse,
}

/// What happens at a request that a test waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is lost; the server never hears the request.
    Before,
    /// The server answers; then the connection is lost, and the client never hears the answer.
    After,
    /// As `After`, with all other connections.
    AfterAll,
    /// As `Before`, with all other connections.
    BeforeAll,
    /// The client hears this in place of the answer, and nothing more on this connection.
    Answer(Vec<u8>),
    /// The same, and the connection is closed.
    LastWords(Vec<u8>),
    /// The answer arrives damaged, in a way that the number decides; what follows is passed on.
    Damaged(u64),
}

type Trigger = Box<dyn FnMut(&Request) -> bool + Send>;

/// The proxy. It ends, with all connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    listener: AbortHandle,
}

struct Shared {
    engine: Engine,
    server: u16,
    mode: watch::Sender<Mode>,
    /// Counts on to cut all connections.
    cuts: watch::Sender<u64>,
    armed: Mutex<Option<(Trigger, Fault)>>,
    open: AtomicUsize,
    requests: Mutex<Vec<Request>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Listens on a port of its own, in front of a server.
    pub async fn of(server: &Server) -> Self {
        Self::before(server.engine(), server.port()).await
    }

    /// Listens in front of whatever speaks the engine's protocol on a port of 127.0.0.1.
    pub async fn before(engine: Engine, server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared {
            engine,
            server,
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            armed: Mutex::new(None),
            open: AtomicUsize::new(0),
            requests: Mutex::new(Vec::new()),
        });
        let accepting = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let cuts = accepting.cuts.subscribe();
                tokio::spawn(accepting.clone().serve(client, cuts));
            }
        });
        Self { port, shared, listener: task.abort_handle() }
    }

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Cuts all connections now.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Arms a fault for the `n`-th request from now on, counted from 1 over all connections. Pings do not count: pools
    /// send them when they please.
    pub fn at(&self, n: usize, fault: Fault) {
        let mut count = 0;
        self.when(
            move |request| {
                count += usize::from(request.kind != Kind::Other);
                count == n
            },
            fault,
        );
    }

    /// Arms a fault for the first request that `trigger` likes.
    pub fn when(&self, trigger: impl FnMut(&Request) -> bool + Send + 'static, fault: Fault) {
        *self.shared.armed.lock().expect("no trigger panics") = Some((Box::new(trigger), fault));
    }

    /// Whether the fault is still to come.
    pub fn is_armed(&self) -> bool {
        self.shared.armed.lock().expect("no trigger panics").is_some()
    }

    /// Takes the fault away again. Returns whether it had come to pass.
    pub fn disarm(&self) -> bool {
        self.shared.armed.lock().expect("no trigger panics").take().is_none()
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// All requests since this was last asked.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.shared.requests.lock().expect("nothing panics with it in hand"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

/// How a connection ends that a fault has not ended.
type Ended = std::io::Result<()>;

impl Shared {
    async fn serve(self: Arc<Self>, client: TcpStream, mut cuts: watch::Receiver<u64>) {
        self.open.fetch_add(1, Ordering::SeqCst);
        tokio::select! {
            // How it ends is told to nobody: the test looks at its own side.
            _ = self.pass(client) => {}
            _ = cuts.changed() => {}
            () = self.until(|mode| *mode == Mode::Refuse) => {}
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    async fn pass(&self, mut client: TcpStream) -> Ended {
        self.until(|mode| *mode != Mode::Silent).await;
        let mut server = TcpStream::connect(("127.0.0.1", self.server)).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let mut requests = Requests::new(self.engine);
        let mut last = None;
        let (mut up, mut down) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        loop {
            tokio::select! {
                read = client.read(&mut up) => {
                    let read = read?;
                    if read == 0 {
                        return Ok(());
                    }
                    requests.push(&up[..read]);
                    while let Some((request, bytes)) = requests.next() {
                        self.until(|mode| *mode != Mode::Silent).await;
                        let fault = request.as_ref().and_then(|request| self.fault(request));
                        if let Some(fault) = fault {
                            return self.strike(fault, &bytes, &mut client, &mut server).await;
                        }
                        server.write_all(&bytes).await?;
                        last = request.or(last);
                    }
                }
                read = server.read(&mut down) => {
                    let read = read?;
                    if read == 0 {
                        return Ok(());
                    }
                    if let Some(request) = last.take() {
                        requests.answered(&request, &down[..read]);
                        let mode = *self.mode.borrow();
                        if let Mode::Delay(delay) = mode {
                            tokio::time::sleep(delay).await;
                        }
                    }
                    self.until(|mode| !matches!(mode, Mode::Silent | Mode::Hold)).await;
                    client.write_all(&down[..read]).await?;
                }
            }
        }
    }

    /// Waits for a mode.
    async fn until(&self, wanted: impl FnMut(&Mode) -> bool) {
        // The sender is ours: there is always a next one.
        let _ = self.mode.subscribe().wait_for(wanted).await;
    }

    /// The fault this request sets off, if any.
    fn fault(&self, request: &Request) -> Option<Fault> {
        self.requests.lock().expect("nothing panics with it in hand").push(request.clone());
        let mut armed = self.armed.lock().expect("no trigger panics");
        let (trigger, _) = armed.as_mut()?;
        if !trigger(request) {
            return None;
        }
        armed.take().map(|(_, fault)| fault)
    }

    async fn strike(&self, fault: Fault, bytes: &[u8], client: &mut TcpStream, server: &mut TcpStream) -> Ended {
        if matches!(fault, Fault::After | Fault::AfterAll) {
            server.write_all(bytes).await?;
            // The first byte of the answer says that the request has been done.
            let mut first = [0];
            server.read_exact(&mut first).await?;
        }
        match fault {
            Fault::Damaged(seed) => {
                server.write_all(bytes).await?;
                let mut answer = vec![0; 64 * 1024];
                let read = server.read(&mut answer).await?;
                answer.truncate(read);
                client.write_all(&damaged(answer, seed)).await?;
                tokio::io::copy_bidirectional(client, server).await?;
            }
            Fault::BeforeAll | Fault::AfterAll => self.cuts.send_modify(|cuts| *cuts += 1),
            Fault::Answer(answer) => {
                client.write_all(&answer).await?;
                // Nothing more is said; whatever still comes is not heard.
                tokio::io::copy(client, &mut tokio::io::sink()).await?;
            }
            Fault::LastWords(answer) => client.write_all(&answer).await?,
            Fault::Before | Fault::After => {}
        }
        Ok(())
    }
}

/// Bits turned, bytes lost, doubled or invented, numbers made huge: a few of these at places that the seed decides.
fn damaged(mut bytes: Vec<u8>, seed: u64) -> Vec<u8> {
    let mut sampler = Sampler::new(seed);
    for _ in 0..=sampler.up_to(3) {
        let Some(last) = bytes.len().checked_sub(1) else { break };
        let at = sampler.up_to(last);
        let end = (at + 1 + sampler.up_to(7)).min(bytes.len());
        match sampler.up_to(6) {
            0 => bytes[at] ^= 1 << sampler.up_to(7),
            1 => bytes[at..end].fill(0xff),
            2 => bytes[at..end].fill(0),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.truncate(at),
            5 => bytes.splice(at..at, sampler.bytes::<8>()).for_each(drop),
            _ => bytes.extend_from_within(at..end),
        }
    }
    bytes
}
