//! The seam between servers: frames both ways, requests with answers. In memory here; TCP drivers live in `net/`.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use hashbrown::HashMap;
use xmmep::frame::{self, Frame, Kind, Sequence};
use xmmep::message::{Message, Request};
use xmmep::messages::ResultMsg;
use xmmep::result_code::ResultCode;
use xmmep::types::Time;

use crate::origin::Peer;
use crate::outbox::{Command, LaneId, Outbox};

/// How long a request between servers may take. Longer than a database's statement time-out, shorter than a user's patience.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Requests that may wait for an answer at one time on one link; more are refused at once.
pub const REQUESTS_MAX: usize = 4_096;

/// One side's end of a link to another server.
pub struct Link {
    peer: Peer,
    to_peer: Box<dyn SendFrame>,
    waiting: Mutex<HashMap<u32, Waiting>>,
    next: AtomicU32,
    down: AtomicBool,
}

struct Waiting {
    deadline: Time,
    answer: oneshot::Sender<Result<Frame, LinkError>>,
}

/// What carries frames to the other end. Frames arrive in order, or the link goes down.
pub trait SendFrame: Send + Sync {
    /// Sends one frame.
    ///
    /// # Errors
    /// If the link is down; then nothing more will arrive.
    fn send(&self, frame: Bytes) -> Result<(), LinkError>;
}

/// Why a request over a link has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The link is down. The request may have been carried out.
    #[error("the link is down")]
    Down,
    /// No answer in time. The request may have been carried out.
    #[error("no answer in time")]
    TimedOut,
    /// The peer answered with something else.
    #[error("the answer is malformed")]
    BadAnswer,
    /// The peer said no.
    #[error("refused: {:?} {}", .0.result, .0.detail)]
    Refused(ResultMsg),
}

impl Link {
    /// This side's end of a link to `peer`.
    #[must_use]
    pub fn new(peer: Peer, to_peer: Box<dyn SendFrame>) -> Arc<Self> {
        Arc::new(Self {
            peer,
            to_peer,
            waiting: Mutex::default(),
            next: AtomicU32::new(0),
            down: AtomicBool::new(false),
        })
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Sends a message that wants no answer.
    ///
    /// # Errors
    /// If the link is down.
    pub fn notice<M: Message>(&self, message: &M) -> Result<(), LinkError> {
        self.send(frame::notice(message))
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// See [`LinkError`]. After [`LinkError::Down`] and [`LinkError::TimedOut`] nobody knows whether it was carried
    /// out: repeat it with the same request id.
    pub async fn request<M: Request>(&self, now: Time, message: &M) -> Result<M::Answer, LinkError> {
        let (answer, answered) = oneshot::channel();
        let sequence = self.wait(now.after(REQUEST_TIMEOUT), answer)?;
        self.send(frame::request(message, sequence))?;
        let frame = answered.await.map_err(|_| LinkError::Down)??;
        if frame.header.code == <M::Answer as Message>::CODE {
            return frame.message().map_err(|_| LinkError::BadAnswer);
        }
        Err(frame.message().map_or(LinkError::BadAnswer, LinkError::Refused))
    }

    /// As [`request`](Self::request), for requests that are answered by [`ResultMsg`]: anything but SUCCESS is an error.
    ///
    /// # Errors
    /// See [`request`](Self::request).
    pub async fn order<M: Request<Answer = ResultMsg>>(&self, now: Time, message: &M) -> Result<(), LinkError> {
        match self.request(now, message).await? {
            ResultMsg { result: ResultCode::SUCCESS, .. } => Ok(()),
            refused => Err(LinkError::Refused(refused)),
        }
    }

    fn wait(&self, deadline: Time, answer: oneshot::Sender<Result<Frame, LinkError>>) -> Result<Sequence, LinkError> {
        if self.down.load(Ordering::Acquire) {
            return Err(LinkError::Down);
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= REQUESTS_MAX {
            return Err(LinkError::TimedOut);
        }
        loop {
            let sequence = Sequence(self.next.fetch_add(1, Ordering::Relaxed)).next();
            if let hashbrown::hash_map::Entry::Vacant(place) = waiting.entry(sequence.0) {
                place.insert(Waiting { deadline, answer });
                return Ok(sequence);
            }
        }
    }

    pub(crate) fn send(&self, frame: Bytes) -> Result<(), LinkError> {
        self.to_peer.send(frame)
    }

    /// Takes a frame that arrived: answers go to the request they belong to, anything else is given back.
    pub fn receive(&self, frame: Frame) -> Option<Frame> {
        if frame.header.kind == Kind::Ask {
            return Some(frame);
        }
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&frame.header.sequence.0);
        if let Some(waiting) = waiting {
            // A caller who no longer waits has no use for the answer.
            let _ = waiting.answer.send(Ok(frame));
        }
        None
    }

    /// When the first waiting request times out.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).values().map(|waiting| waiting.deadline).min()
    }

    /// Ends the requests whose time is over.
    pub fn on_deadline(&self, now: Time) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, late) in waiting.extract_if(|_, request| request.deadline <= now) {
            let _ = late.answer.send(Err(LinkError::TimedOut));
        }
    }

    /// Whether [`go_down`](Self::go_down) was called. A link never comes up again; a new one takes its place.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// The link broke: whoever waits is told, and so is whoever asks later.
    pub fn go_down(&self) {
        self.down.store(true, Ordering::Release);
        for (_, request) in self.waiting.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            let _ = request.answer.send(Err(LinkError::Down));
        }
    }
}

/// Where the frames of an in-memory link arrive.
pub trait Arrival: Send + Sync + 'static {
    /// Takes a frame that came on `link`.
    fn arrive(&self, link: &Arc<Link>, frame: Bytes);
}

/// A role's lanes take frames through their letter box.
impl Arrival for Outbox {
    fn arrive(&self, link: &Arc<Link>, frame: Bytes) {
        self.command(LaneId(0), Command::Link(link.clone(), frame));
    }
}

/// For servers that only ask: answers go to their requests, everything else is refused.
pub struct AnswersOnly;

impl Arrival for AnswersOnly {
    fn arrive(&self, link: &Arc<Link>, frame: Bytes) {
        if let Ok(frame) = Frame::decode(frame)
            && let Some(unexpected) = link.receive(frame)
        {
            let refusal = crate::refusal::Refusal::UnknownCode.message(unexpected.header.code);
            let _ = link.send(frame::answer(&refusal, unexpected.header.sequence));
        }
    }
}

/// Joins two servers in one process, each given as its role and where its frames arrive. Returns the first one's end
/// and the second one's.
pub fn in_memory(a: (Peer, Arc<dyn Arrival>), b: (Peer, Arc<dyn Arrival>)) -> (Arc<Link>, Arc<Link>) {
    let (end_of_a, end_of_b) = (Arc::<FarEnd>::default(), Arc::<FarEnd>::default());
    let a_end = Link::new(b.0, Box::new(InMemory { far_end: end_of_b.clone(), arrival: b.1 }));
    let b_end = Link::new(a.0, Box::new(InMemory { far_end: end_of_a.clone(), arrival: a.1 }));
    let _ = end_of_a.set(Arc::downgrade(&a_end));
    let _ = end_of_b.set(Arc::downgrade(&b_end));
    (a_end, b_end)
}

/// The other server's end, which is made after this one's.
type FarEnd = OnceLock<Weak<Link>>;

struct InMemory {
    far_end: Arc<FarEnd>,
    arrival: Arc<dyn Arrival>,
}

impl SendFrame for InMemory {
    fn send(&self, frame: Bytes) -> Result<(), LinkError> {
        let far_end = self.far_end.get().and_then(Weak::upgrade).ok_or(LinkError::Down)?;
        self.arrival.arrive(&far_end, frame);
        Ok(())
    }
}
