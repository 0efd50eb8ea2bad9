//! All clients and the loop that drives them: what arrives goes to its client, what is due is done, what clients have to say
//! is sent. One thread; a workload calls [`Crowd::turn`] again and again.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use xmmep::client::ServerAddress;
use xmmep::name::UserName;
use xmmep::session::{Peek, SendError, ServerPublicKey, peek};
use xmmep::types::{Time, UserId};

use crate::Failure;
use crate::place::Population;
use crate::sockets::{Sharing, Sockets};
use crate::user::{Happened, Shared, User};

/// The longest turn while nothing is due.
const TURN_MAX: Duration = Duration::from_millis(50);
/// Clients who do what is due in one turn. When many have waited, they are not to speak all at once: most would be lost.
const DUE_MAX: usize = 1_000;

/// A client's place in the crowd.
pub(crate) type Member = u32;

/// Which users of the population are in a crowd.
#[derive(Clone, Copy)]
pub(crate) struct Who {
    /// The first of them.
    pub(crate) first: u32,
    /// Every so manieth user.
    pub(crate) step: u32,
    /// How many.
    pub(crate) size: u32,
}

impl Who {
    /// The user behind a member.
    pub(crate) fn number(self, member: Member) -> u32 {
        self.first + member * self.step
    }
}

pub(crate) struct Crowd<'a> {
    population: &'a Population,
    pub(crate) who: Who,
    sockets: Sockets,
    members: Members,
}

/// The clients, without their sockets.
struct Members {
    clock: Instant,
    shared: Shared,
    all: Vec<Place>,
    by_index: Option<ByIndex>,
    due: BinaryHeap<Reverse<(Time, Member)>>,
    touched: Vec<Member>,
    /// Datagrams of handshakes.
    out: Vec<(Member, SocketAddr, Vec<u8>)>,
    happened: Vec<(Member, Happened)>,
}

/// A client and what the loop knows of it.
struct Place {
    user: User,
    name: UserName,
    registered: Option<Time>,
    touched: bool,
    /// Under which index it is found.
    index: Option<u32>,
}

impl<'a> Crowd<'a> {
    /// Clients for these users, none of them logged in.
    pub(crate) fn gather(
        population: &'a Population,
        server: &ServerAddress,
        who: Who,
        sharing: Sharing,
    ) -> Result<Self, Failure> {
        let needed = who.number(who.size - 1) + 1;
        if needed > population.users {
            return Err(format!("{needed} users are needed and {} there; seed more", population.users).into());
        }
        let router = (server.host(), server.port()).to_socket_addrs()?.next().ok_or("the server has no address")?;
        let shared = Shared {
            router,
            router_key: ServerPublicKey(*server.key()),
            key: population.key(),
            config: Arc::default(),
            rng: rand::make_rng(),
            events: Vec::new(),
        };
        let place = |member| Place {
            user: User::new(),
            name: population.name(who.number(member)),
            registered: None,
            touched: false,
            index: None,
        };
        let sockets = Sockets::open(sharing, who.size)?;
        let members = Members {
            clock: Instant::now(),
            shared,
            all: (0..who.size).map(place).collect(),
            by_index: sockets.are_shared().then(HashMap::new),
            due: BinaryHeap::new(),
            touched: Vec::new(),
            out: Vec::new(),
            happened: Vec::new(),
        };
        Ok(Self { population, who, sockets, members })
    }

    /// The id of the user behind a member.
    pub(crate) fn id(&self, member: Member) -> UserId {
        self.population.id(self.who.number(member))
    }

    /// The member that user is, in a crowd of neighbours.
    pub(crate) fn member(&self, user: UserId) -> Option<Member> {
        let number = u32::try_from(user.0.checked_sub(self.population.first_id)?).ok()?;
        (self.who.step == 1).then(|| number.checked_sub(self.who.first)).flatten()
    }

    /// Begins a member's login.
    pub(crate) fn log_in(&mut self, member: Member) {
        self.members.log_in(member, self.sockets.of(member));
    }

    /// Gives a member's session something to send.
    pub(crate) fn send(&mut self, member: Member, frame: Bytes) -> Result<(), SendError> {
        let place = self.members.all.get_mut(member as usize);
        place.and_then(|place| place.user.session()).ok_or(SendError::Over)?.send(frame)?;
        self.members.touch(member);
        Ok(())
    }

    /// Takes what arrived meanwhile, or arrives within `wait`; says what it meant. Whatever was given to
    /// [`send`](Self::send) leaves first.
    pub(crate) fn turn(&mut self, wait: Duration, happened: &mut Vec<(Member, Happened)>) -> Result<(), Failure> {
        self.members.flush(&mut self.sockets);
        let wait = wait.min(TURN_MAX).min(self.members.until_due());
        let (sockets, members) = (&mut self.sockets, &mut self.members);
        sockets.receive(wait, |socket, from, bytes| members.datagram(socket, from, bytes))?;
        members.on_deadlines();
        members.flush(sockets);
        happened.append(&mut members.happened);
        Ok(())
    }

    /// Whether somebody has something to do by now.
    pub(crate) fn is_overdue(&self) -> bool {
        self.members.until_due().is_zero()
    }
}

/// Who gets what comes to a shared socket, by the socket and the index of the client.
type ByIndex = HashMap<(u32, u32), Member>;

/// Whether no other client behind that socket has this index. Each draws its own at random; among a million, some two draw the
/// same, and one of them would never hear anything again.
fn is_free(by_index: Option<&ByIndex>, member: Member, socket: u32, index: Option<u32>) -> bool {
    let holder = by_index.zip(index).and_then(|(by_index, index)| by_index.get(&(socket, index)));
    holder.is_none_or(|holder| *holder == member)
}

impl Members {
    fn now(&self) -> Time {
        Time::from_micros(u64::try_from(self.clock.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn log_in(&mut self, member: Member, socket: u32) {
        let now = self.now();
        let Some(place) = self.all.get_mut(member as usize) else { return };
        let datagram = loop {
            let datagram = place.user.log_in(now, &place.name, &mut self.shared);
            if is_free(self.by_index.as_ref(), member, socket, place.user.index()) {
                break datagram;
            }
        };
        self.out.push((member, self.shared.router, datagram));
        self.find_under_its_index(member, socket);
        self.touch(member);
    }

    fn touch(&mut self, member: Member) {
        if let Some(place) = self.all.get_mut(member as usize)
            && !std::mem::replace(&mut place.touched, true)
        {
            self.touched.push(member);
        }
    }

    /// A client has begun a handshake: what comes for it has another index from now on.
    fn find_under_its_index(&mut self, member: Member, socket: u32) {
        let (Some(by_index), Some(place)) = (&mut self.by_index, self.all.get_mut(member as usize)) else { return };
        let index = place.user.index();
        if index == place.index {
            return;
        }
        if let Some(before) = place.index.and_then(|before| by_index.remove(&(socket, before))) {
            debug_assert_eq!(before, member);
        }
        place.index = index;
        index.map(|index| by_index.insert((socket, index), member));
    }

    fn datagram(&mut self, socket: u32, from: SocketAddr, bytes: &mut [u8]) {
        let member = match &self.by_index {
            None => Some(socket),
            Some(by_index) => match peek(bytes) {
                Some(Peek::Record { receiver_index: index } | Peek::Handshake { initiator_index: index }) => {
                    by_index.get(&(socket, index)).copied()
                }
                _ => None,
            },
        };
        let now = self.now();
        let Some((member, place)) = member.and_then(|member| Some((member, self.all.get_mut(member as usize)?))) else {
            return;
        };
        let happened = &mut |what| self.happened.push((member, what));
        let reply = place.user.datagram(now, from, bytes, &place.name, &mut self.shared, happened);
        let index = place.user.index();
        if index != place.index && !is_free(self.by_index.as_ref(), member, socket, index) {
            return self.log_in(member, socket);
        }
        self.out.extend(reply.map(|(to, bytes)| (member, to, bytes)));
        self.find_under_its_index(member, socket);
        self.touch(member);
    }

    fn until_due(&self) -> Duration {
        self.due.peek().map_or(Duration::MAX, |Reverse((time, _))| time.since(self.now()))
    }

    fn on_deadlines(&mut self) {
        let now = self.now();
        for _ in 0..DUE_MAX {
            let Some(Reverse((time, member))) = self.due.peek().copied().filter(|Reverse((time, _))| *time <= now)
            else {
                break;
            };
            self.due.pop();
            let Some(place) = self.all.get_mut(member as usize).filter(|place| place.registered == Some(time)) else {
                continue;
            };
            place.registered = None;
            let again = place.user.on_deadline(now, &mut |what| self.happened.push((member, what)));
            self.out.extend(again.map(|(to, bytes)| (member, to, bytes)));
            self.touch(member);
        }
    }

    /// Sends what clients have to say, and notes when they want to be woken.
    fn flush(&mut self, sockets: &mut Sockets) {
        for (member, to, bytes) in self.out.drain(..) {
            sockets.send(sockets.of(member), to, &bytes);
        }
        let now = self.now();
        let mut datagram = Vec::new();
        for member in std::mem::take(&mut self.touched) {
            let Some(place) = self.all.get_mut(member as usize) else { continue };
            place.touched = false;
            place.user.confirm();
            if let Some(session) = place.user.session() {
                while let Some(to) = session.poll_transmit(now, &mut datagram) {
                    sockets.send(sockets.of(member), to, &datagram);
                }
            }
            if let Some(deadline) = place.user.deadline()
                && place.registered.is_none_or(|registered| deadline < registered)
            {
                place.registered = Some(deadline);
                self.due.push(Reverse((deadline, member)));
            }
        }
        sockets.flush();
    }
}
