//! INIT, RETRY, RESPONSE on a bad wire and with bad intent; tickets; lookups.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use xmmep::secret::{KeyHash, TicketKey};
use xmmep::session::{
    Accept, Acceptor, Admission, Connecting, DATAGRAM_MAX, GaveUp, HANDSHAKE_AGE_MAX, HANDSHAKES_BURST, HANDSHAKES_MAX,
    INIT_TRIES_MAX, LOOKUP_ANSWER_MAX, LOOKUPS_MAX, Opened, PendingLookup, REQUEST_MAX, Reply, ServerKey, Serves,
    Session, Step, Ticket, UserKind, WELCOME_MAX, peek,
};
use xmmep::types::{PresenceId, Time, UserId, WallTime};

use crate::wire::{WALL, acceptor, client_address, ms, secs, server_address};

const HERE: PresenceId = PresenceId { cluster: 1, presence: 1 };
const START: Time = Time::ZERO;

struct Server {
    acceptor: Acceptor,
    key: ServerKey,
    rng: StdRng,
    next_index: u32,
}

impl Server {
    fn new(seed: u64, serves: Serves) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let (acceptor, key) = acceptor(&mut rng, serves, Arc::default());
        Self { acceptor, key, rng, next_index: 1 }
    }

    fn with_tickets(seed: u64, tickets: TicketKey) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let key = ServerKey::random(&mut rng);
        let tickets = Some((tickets, HERE));
        let acceptor = Acceptor::new(START, key.clone(), Serves::Sessions, tickets, Arc::default(), &mut rng);
        Self { acceptor, key, rng, next_index: 1 }
    }

    fn init(&mut self, now: Time, from: SocketAddr, datagram: &[u8]) -> Accept {
        self.next_index += 1;
        let index = self.next_index;
        self.acceptor.handle_init(now, WALL, from, datagram, b"welcome", &mut self.rng, || Some(index))
    }

    fn retry(&mut self, now: Time, from: SocketAddr, datagram: &[u8]) -> Reply {
        match self.init(now, from, datagram) {
            Accept::Reply(reply) => reply,
            other => panic!("{other:?} instead of RETRY"),
        }
    }

    fn open(&mut self, now: Time, from: SocketAddr, datagram: &[u8]) -> Box<Opened> {
        match self.init(now, from, datagram) {
            Accept::Open(opened) => opened,
            other => panic!("{other:?} instead of a session"),
        }
    }

    fn client(&mut self, ticket: Option<Ticket>) -> (Connecting, Vec<u8>) {
        let public = self.key.public();
        Connecting::open(START, server_address(), &public, ticket, b"hi", Arc::default(), &mut self.rng).unwrap()
    }

    fn lookup(&mut self, request: &[u8]) -> (Connecting, Vec<u8>) {
        Connecting::lookup(START, server_address(), &self.key.public(), request, &mut self.rng).unwrap()
    }

    /// The second INIT of a client, with a cookie.
    fn second_init(&mut self, connecting: &mut Connecting, init: &[u8]) -> Vec<u8> {
        let retry = self.retry(START, client_address(), init);
        send(connecting.handle(START, server_address(), retry.as_bytes()))
    }

    fn pending_lookup(&mut self, from: SocketAddr) -> Option<PendingLookup> {
        let (mut connecting, init) = self.lookup(b"ann");
        let retry = self.retry(START, from, &init);
        let init = send(connecting.handle(START, server_address(), retry.as_bytes()));
        match self.init(START, from, &init) {
            Accept::Lookup(pending, _) => Some(pending),
            _ => None,
        }
    }
}

fn send(step: Step) -> Vec<u8> {
    match step {
        Step::Send(datagram) => datagram,
        other => panic!("{other:?} instead of a datagram"),
    }
}

fn open(step: Step) -> Box<Session> {
    match step {
        Step::Open(session, _) => session,
        other => panic!("{other:?} instead of a session"),
    }
}

#[test]
fn a_lookup_is_answered_inside_the_handshake_in_two_round_trips() {
    let mut server = Server::new(1, Serves::Lookups);
    let (mut connecting, init) = server.lookup(b"where is ann?");
    let init = server.second_init(&mut connecting, &init);
    let Accept::Lookup(pending, request) = server.init(START, client_address(), &init) else { panic!("no lookup") };
    assert_eq!((pending.from(), &request[..]), (client_address(), b"where is ann?".as_slice()));
    let response = pending.answer(START.after(ms(200)), b"at C1P1").unwrap();
    match connecting.handle(START, server_address(), &response) {
        Step::Answer(answer) => assert_eq!(&answer[..], b"at C1P1"),
        other => panic!("{other:?}"),
    }
    assert_eq!(connecting.deadline(), None);
}

#[test]
fn all_answers_to_lookups_have_the_same_size_and_late_ones_are_not_given() {
    let mut server = Server::new(2, Serves::Both);
    let answer = |server: &mut Server, at: Time, len: usize| {
        server.pending_lookup(client_address()).unwrap().answer(at, &vec![1; len])
    };
    let sizes: Vec<_> = [0, 1, LOOKUP_ANSWER_MAX].map(|len| answer(&mut server, START, len).unwrap().len()).to_vec();
    assert!(sizes.iter().all(|size| *size == sizes[0] && *size <= DATAGRAM_MAX), "{sizes:?}");
    assert_eq!(answer(&mut server, START, LOOKUP_ANSWER_MAX + 1), None);
    assert_eq!(answer(&mut server, START.after(HANDSHAKE_AGE_MAX + ms(1)), 5), None);
}

#[test]
fn what_the_client_says_and_the_welcome_arrive_with_the_handshake() {
    let mut server = Server::new(3, Serves::Sessions);
    let (mut connecting, init) = server.client(None);
    let init = server.second_init(&mut connecting, &init);
    let opened = server.open(START, client_address(), &init);
    assert_eq!((&opened.payload[..], &opened.admission), (b"hi".as_slice(), &None));
    assert!(opened.reply.len() <= DATAGRAM_MAX);
    match connecting.handle(START, server_address(), &opened.reply) {
        Step::Open(session, welcome) => {
            assert_eq!((session.peer(), &welcome[..]), (server_address(), b"welcome".as_slice()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn first_contact_is_answered_with_at_most_a_ninth_of_its_bytes() {
    let mut server = Server::new(4, Serves::Both);
    let (_, init) = server.client(None);
    let retry = server.retry(START, client_address(), &init);
    assert!(retry.as_bytes().len() <= 128 && retry.as_bytes().len() * 100 <= init.len() * 11);
    let mut other = init.clone();
    other[1] = 99;
    let reply = server.retry(START, client_address(), &other);
    assert_eq!((reply.as_bytes()[0], reply.as_bytes().len()), (6, 6));
}

#[test]
fn a_cookie_from_elsewhere_or_long_ago_earns_another_retry() {
    let mut server = Server::new(5, Serves::Both);
    let (mut connecting, init) = server.client(None);
    let init = server.second_init(&mut connecting, &init);
    for from in ["192.0.2.2:1000", "192.0.2.1:1001", "[2001:db8::1]:1000"] {
        server.retry(START, from.parse().unwrap(), &init);
    }
    server.retry(START.after(secs(16)), client_address(), &init);
    let mut other_index = init.clone();
    other_index[2] ^= 1;
    server.retry(START, client_address(), &other_index);
    server.open(START, client_address(), &init);
    server.retry(START.after(secs(500)), client_address(), &init);
}

#[test]
fn a_server_with_another_key_is_not_understood() {
    let mut server = Server::new(6, Serves::Both);
    let mut other = Server::new(7, Serves::Both);
    let (mut connecting, init) = server.client(None);
    let init = other.second_init(&mut connecting, &init);
    assert!(matches!(other.init(START, client_address(), &init), Accept::Nothing));
    assert_eq!(other.acceptor.stats().forged, 1);
}

#[test]
fn a_purpose_not_served_is_refused_in_silence() {
    for (serves, lookups, sessions) in
        [(Serves::Lookups, true, false), (Serves::Sessions, false, true), (Serves::Both, true, true)]
    {
        let mut server = Server::new(8, serves);
        assert_eq!(server.pending_lookup(client_address()).is_some(), lookups);
        let (mut connecting, init) = server.client(None);
        let init = server.second_init(&mut connecting, &init);
        assert_eq!(matches!(server.init(START, client_address(), &init), Accept::Open(_)), sessions);
    }
}

#[test]
fn forged_and_damaged_answers_delay_a_handshake_but_cannot_spoil_it() {
    let mut server = Server::new(9, Serves::Both);
    let mut rng = StdRng::seed_from_u64(9);
    let (mut connecting, init) = server.client(None);
    let from = server_address();
    let good = server.retry(START, client_address(), &init);
    let mut followed = 0;
    for _ in 0..1_000 {
        let mut forged = good.as_bytes().to_vec();
        forged[5..].fill_with(|| rng.random());
        followed += usize::from(matches!(connecting.handle(START, from, &forged), Step::Send(_)));
    }
    assert_eq!(followed, 3, "forged RETRYs are followed a few times only");
    let again = connecting.on_deadline(START.after(secs(1))).unwrap().expect("a new try");
    let retry = server.retry(START.after(secs(1)), client_address(), &again);
    let init = send(connecting.handle(START, from, retry.as_bytes()));
    let opened = server.open(START.after(secs(1)), client_address(), &init);
    for bit in 40..opened.reply.len() * 8 {
        let mut forged = opened.reply.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(connecting.handle(START, from, &forged), Step::Ignore), "bit {bit}");
    }
    for len in 0..opened.reply.len() {
        assert!(matches!(connecting.handle(START, from, &opened.reply[..len]), Step::Ignore), "cut at {len}");
    }
    assert!(matches!(connecting.handle(START, client_address(), &opened.reply), Step::Ignore), "from elsewhere");
    open(connecting.handle(START, from, &opened.reply));
    assert!(matches!(connecting.handle(START, from, &opened.reply), Step::Ignore), "once is enough");
}

#[test]
fn a_hint_at_another_version_is_reported_only_if_nothing_better_comes() {
    for answered in [false, true] {
        let mut server = Server::new(10, Serves::Both);
        let (mut connecting, init) = server.client(None);
        let mut hint = vec![6];
        hint.extend_from_slice(&connecting.index().to_be_bytes());
        hint.push(9);
        assert!(matches!(connecting.handle(START, server_address(), &hint), Step::Ignore));
        if answered {
            let init = server.second_init(&mut connecting, &init);
            let opened = server.open(START, client_address(), &init);
            open(connecting.handle(START, server_address(), &opened.reply));
        } else {
            assert_eq!(give_up(&mut connecting).1, GaveUp::OtherVersion(9));
        }
    }
}

/// Answers nothing until the client gives up; how long that took, and why.
fn give_up(connecting: &mut Connecting) -> (Duration, GaveUp) {
    for tries in 1.. {
        let deadline = connecting.deadline().expect("still trying");
        match connecting.on_deadline(deadline) {
            Ok(datagram) => assert!(datagram.is_some_and(|d| d.len() == DATAGRAM_MAX) && tries < INIT_TRIES_MAX),
            Err(error) => return (deadline.since(START), error),
        }
    }
    unreachable!("it gives up after {INIT_TRIES_MAX} tries")
}

#[test]
fn without_an_answer_a_client_backs_off_and_gives_up() {
    let mut server = Server::new(11, Serves::Both);
    let (mut connecting, _) = server.client(None);
    let (took, why) = give_up(&mut connecting);
    assert_eq!((why, connecting.deadline()), (GaveUp::NoAnswer, None));
    assert!((secs(20)..secs(31)).contains(&took), "{took:?}");
}

#[test]
fn ninety_nine_of_a_hundred_handshakes_get_through_30_per_cent_loss_within_20_seconds() {
    let mut times: Vec<_> =
        (0..500).map(|seed| time_to_open_at_30_per_cent_loss(seed).unwrap_or(Duration::MAX)).collect();
    times.sort();
    assert!(times[times.len() * 99 / 100] < secs(20), "99th percentile {:?}", times[times.len() * 99 / 100]);
    assert!(times[times.len() / 2] < secs(3), "median {:?}", times[times.len() / 2]);
}

fn time_to_open_at_30_per_cent_loss(seed: u64) -> Option<Duration> {
    let mut server = Server::new(seed, Serves::Both);
    let mut wire = StdRng::seed_from_u64(seed);
    let (mut connecting, init) = server.client(None);
    let mut now = START;
    let mut to_server = vec![init];
    loop {
        while let Some(datagram) = to_server.pop() {
            for _ in 0..if wire.random_bool(0.3) { 0 } else { wire.random_range(1..3) } {
                let answer = match server.init(now, client_address(), &datagram) {
                    Accept::Reply(reply) => reply.as_bytes().to_vec(),
                    Accept::Open(opened) => opened.reply,
                    Accept::Nothing => continue,
                    Accept::Lookup(..) => panic!("seed {seed}: nobody looks anything up"),
                };
                if wire.random_bool(0.3) {
                    continue;
                }
                match connecting.handle(now, server_address(), &answer) {
                    Step::Send(datagram) => to_server.push(datagram),
                    Step::Open(..) => return Some(now.since(START)),
                    Step::Ignore => {}
                    Step::Answer(_) => panic!("seed {seed}: nobody asked"),
                }
            }
        }
        now = connecting.deadline()?;
        to_server.extend(connecting.on_deadline(now).ok()?);
    }
}

#[test]
fn a_repeated_init_opens_a_session_with_other_keys_that_nobody_can_use() {
    let mut server = Server::new(12, Serves::Both);
    let (mut connecting, init) = server.client(None);
    let init = server.second_init(&mut connecting, &init);
    let mut first = server.open(START, client_address(), &init);
    let mut second = server.open(START, client_address(), &init);
    assert_ne!(first.reply, second.reply);
    let mut session = open(connecting.handle(START, server_address(), &first.reply));
    let (mut datagram, mut events) = (Vec::new(), Vec::new());
    session.poll_transmit(START, &mut datagram).unwrap();
    let index = second.session.index().to_be_bytes();
    let mut replayed = datagram.clone();
    replayed[1..5].copy_from_slice(&index);
    assert!(second.session.receive(START, client_address(), &mut replayed, &mut events).is_err());
    assert_eq!(second.session.poll_transmit(START, &mut Vec::new()), None, "a half-open session says nothing");
    first.session.receive(START, client_address(), &mut datagram, &mut events).unwrap();
    assert!(first.session.is_confirmed() && !second.session.is_confirmed());
}

#[test]
fn the_same_seed_gives_the_same_handshake() {
    let run = |seed| {
        let mut server = Server::new(seed, Serves::Both);
        let (mut connecting, init) = server.client(None);
        let second = server.second_init(&mut connecting, &init);
        let opened = server.open(START, client_address(), &second);
        (init, second, opened.reply)
    };
    assert!(run(1) == run(1));
    assert!(run(1) != run(2));
}

#[test]
fn one_address_cannot_open_more_than_its_burst_at_once() {
    let mut server = Server::new(13, Serves::Both);
    let (mut connecting, init) = server.client(None);
    let init = server.second_init(&mut connecting, &init);
    let opened = (0..100).filter(|_| matches!(server.init(START, client_address(), &init), Accept::Open(_))).count();
    assert_eq!(opened, HANDSHAKES_BURST as usize);
    assert_eq!(server.acceptor.stats().limited, 95);
}

#[test]
fn the_oldest_half_open_session_leaves_first_and_settled_ones_do_not_count() {
    let mut server = Server::new(14, Serves::Both);
    let mut evicted = Vec::new();
    for host in 0..HANDSHAKES_MAX as u32 + 3 {
        let from = SocketAddr::from(([10, 0, (host >> 8) as u8, host as u8], 1));
        let (mut connecting, init) = server.client(None);
        let retry = server.retry(START, from, &init);
        let init = send(connecting.handle(START, server_address(), retry.as_bytes()));
        let opened = server.open(START, from, &init);
        evicted.extend(opened.evicted);
        if host == 1 {
            server.acceptor.settled(opened.session.index());
        }
    }
    assert_eq!(server.acceptor.pending().0, HANDSHAKES_MAX);
    assert_eq!(evicted, [3, 7], "the first, and the third because the second was settled");
}

#[test]
fn a_live_session_is_never_evicted_for_half_open_ones_that_are_gone() {
    let mut server = Server::new(18, Serves::Both);
    let (mut connecting, first) = server.client(None);
    let init = server.second_init(&mut connecting, &first);
    let mut open_at = |seconds: u64, host: u32, index: u32| {
        let now = START.after(secs(seconds));
        let from = SocketAddr::from(([10, 2, (host >> 8) as u8, host as u8], 1));
        let retry = server.retry(now, from, &first);
        let mut init = init.clone();
        init[8..32].copy_from_slice(&retry.as_bytes()[5..]);
        let accepted = server.acceptor.handle_init(now, WALL, from, &init, b"", &mut server.rng, || Some(index));
        let Accept::Open(opened) = accepted else { panic!("{accepted:?}") };
        (opened.evicted, server.acceptor.pending().0)
    };
    (0..100).for_each(|host| assert_eq!(open_at(0, host, host).0, None));
    assert_eq!(open_at(4, 100, 7), (None, 100), "an index in use again is another session");
    assert_eq!(open_at(6, 101, 200), (None, 2), "the first hundred ended by themselves");
}

#[test]
fn lookups_beyond_their_cap_are_refused_until_some_are_answered() {
    let mut server = Server::new(15, Serves::Lookups);
    let address = |host: usize| SocketAddr::from(([10, 1, (host >> 8) as u8, host as u8], 1));
    let mut pending: Vec<_> = (0..LOOKUPS_MAX).map(|host| server.pending_lookup(address(host)).unwrap()).collect();
    assert!(server.pending_lookup(address(LOOKUPS_MAX)).is_none());
    pending.pop().unwrap().answer(START, b"").unwrap();
    assert!(server.pending_lookup(address(LOOKUPS_MAX + 1)).is_some());
    drop(pending);
    assert_eq!(server.acceptor.pending().1, 0);
}

#[test]
fn what_does_not_fit_into_a_handshake_is_refused_where_it_begins() {
    let mut rng = StdRng::seed_from_u64(16);
    let key = ServerKey::random(&mut rng).public();
    let mut begin = |len: usize| {
        Connecting::open(START, server_address(), &key, None, &vec![0; len], Arc::default(), &mut rng).map(|(_, d)| d)
    };
    assert_eq!(begin(REQUEST_MAX).unwrap().len(), DATAGRAM_MAX);
    assert!(begin(REQUEST_MAX + 1).is_err());
    const { assert!(WELCOME_MAX > 1_000) };
}

mod tickets {
    use super::*;

    fn ticket_key() -> TicketKey {
        TicketKey::from_bytes([3; 32])
    }

    fn admission() -> Admission {
        Admission { kind: UserKind::Member, user: UserId(42), key_hash: KeyHash::from_bytes([9; 32]) }
    }

    fn ticket(key: &TicketKey, presence: PresenceId, ip: &str, expires: WallTime) -> Ticket {
        let mut rng = StdRng::seed_from_u64(1);
        Ticket::seal(&admission(), key, presence, ip.parse().unwrap(), expires, &mut rng)
    }

    #[test]
    fn a_ticket_saves_the_retry_and_says_who_comes() {
        let mut server = Server::with_tickets(1, ticket_key());
        let good = ticket(&ticket_key(), HERE, "192.0.2.1", WallTime(WALL.0 + 1));
        let (mut connecting, init) = server.client(Some(good));
        let opened = server.open(START, client_address(), &init);
        assert_eq!(opened.admission, Some(admission()));
        open(connecting.handle(START, server_address(), &opened.reply));
    }

    #[test]
    fn a_ticket_that_is_not_good_here_and_now_is_an_init_without_cookie() {
        let there = PresenceId { cluster: 1, presence: 2 };
        let later = WallTime(WALL.0 + 1);
        let bad = [
            ("expired", ticket(&ticket_key(), HERE, "192.0.2.1", WALL)),
            ("for another address", ticket(&ticket_key(), HERE, "192.0.2.9", later)),
            ("for another Presence", ticket(&ticket_key(), there, "192.0.2.1", later)),
            ("forged", ticket(&TicketKey::from_bytes([4; 32]), HERE, "192.0.2.1", later)),
        ];
        for (what, ticket) in bad {
            let mut server = Server::with_tickets(2, ticket_key());
            let (mut connecting, init) = server.client(Some(ticket));
            let retry = server.retry(START, client_address(), &init);
            let init = send(connecting.handle(START, server_address(), retry.as_bytes()));
            let opened = server.open(START, client_address(), &init);
            assert_eq!(opened.admission, None, "{what}");
        }
    }

    #[test]
    fn a_server_without_a_ticket_key_takes_no_tickets() {
        let mut server = Server::new(3, Serves::Sessions);
        let good = ticket(&ticket_key(), HERE, "192.0.2.1", WallTime(WALL.0 + 1));
        let (_, init) = server.client(Some(good));
        server.retry(START, client_address(), &init);
    }

    #[test]
    fn replayed_tickets_are_held_to_the_limit_of_their_address_and_disturb_nobody() {
        let mut server = Server::with_tickets(4, ticket_key());
        let good = ticket(&ticket_key(), HERE, "192.0.2.1", WallTime(WALL.0 + 1));
        let (mut connecting, init) = server.client(Some(good));
        let mut opened = server.open(START, client_address(), &init);
        let mut session = open(connecting.handle(START, server_address(), &opened.reply));
        for _ in 0..50 {
            server.init(START, client_address(), &init);
        }
        assert_eq!(server.acceptor.stats().opened, u64::from(HANDSHAKES_BURST));
        let (mut datagram, mut events) = (Vec::new(), Vec::new());
        session.poll_transmit(START, &mut datagram).unwrap();
        opened.session.receive(START, client_address(), &mut datagram, &mut events).unwrap();
    }
}

#[test]
fn answers_of_the_server_fed_back_to_it_die_at_once() {
    let mut server = Server::new(17, Serves::Both);
    let (mut connecting, init) = server.client(None);
    let retry = server.retry(START, client_address(), &init);
    let second = send(connecting.handle(START, server_address(), retry.as_bytes()));
    let opened = server.open(START, client_address(), &second);
    for answer in [retry.as_bytes(), &opened.reply] {
        assert_ne!(peek(answer), Some(xmmep::session::Peek::Init));
        assert!(matches!(server.init(START, server_address(), answer), Accept::Nothing));
    }
}
