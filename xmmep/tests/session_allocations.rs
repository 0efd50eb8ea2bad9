//! What may touch the heap: nothing a stranger sends, and no message in steady state.

use std::net::SocketAddr;
use std::sync::Arc;

use allocation_counter::measure;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use xmmep::secret::TicketKey;
use xmmep::session::{Accept, Acceptor, Config, Connecting, Event, ServerKey, Serves, Session, Step, Ticket, peek};
use xmmep::types::{PresenceId, Time, WallTime};

const NOW: Time = Time::ZERO;
const WALL: WallTime = WallTime(0);

fn allocations(work: impl FnOnce()) -> u64 {
    measure(work).count_total
}

#[test]
fn strangers_cannot_touch_the_heap_and_a_message_that_is_not_kept_needs_nothing_new() {
    let mut rng = StdRng::seed_from_u64(1);
    let (client, server): (SocketAddr, SocketAddr) = (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 2], 2).into());
    let key = ServerKey::random(&mut rng);
    let here = PresenceId { cluster: 1, presence: 1 };
    let tickets = Some((TicketKey::from_bytes([1; 32]), here));
    let config = Arc::<Config>::default();
    let mut acceptor = Acceptor::new(NOW, key.clone(), Serves::Both, tickets, config.clone(), &mut rng);
    let forged = Ticket::from_bytes([7; xmmep::session::TICKET_LEN]);
    let begin = |ticket: Option<Ticket>, rng: &mut StdRng| {
        Connecting::open(NOW, server, &key.public(), ticket, b"", config.clone(), rng).expect("it is short")
    };
    let (mut connecting, init) = begin(None, &mut rng);
    let (_, with_ticket) = begin(Some(forged), &mut rng);
    let mut garbage = vec![0; 1_200];
    let mut other_version = init.clone();
    other_version[1] = 2;

    let strangers = allocations(|| {
        for number in 0..100_000_u32 {
            let from = SocketAddr::from((number.to_be_bytes(), number as u16));
            let later = NOW.after(core::time::Duration::from_millis(number.into()));
            let datagram = match number % 4 {
                0 => &init,
                1 => &with_ticket,
                2 => &other_version,
                _ => {
                    rng.fill(&mut garbage[..64]);
                    &garbage
                }
            };
            assert!(peek(datagram).is_some() || datagram[0] != 4);
            let accepted = acceptor.handle_init(later, WALL, from, datagram, b"", &mut rng, || None);
            assert!(matches!(accepted, Accept::Reply(_) | Accept::Nothing));
        }
    });
    assert_eq!(strangers, 0, "allocations for 100,000 INITs without a cookie");

    let (mut ours, mut theirs) = open(&mut acceptor, &mut connecting, &init, client, server, &mut rng);
    let (mut datagram, mut events) = (Vec::with_capacity(1_200), Vec::with_capacity(8));
    let text = Bytes::from_static(b"hello");
    let mut relay = |from: &mut Session, to: &mut Session, address: SocketAddr, now: Time| {
        from.send(text.clone()).expect("the queue is short");
        while from.poll_transmit(now, &mut datagram).is_some() {
            to.receive(now, address, &mut datagram, &mut events).expect("it is authentic");
        }
        assert!(events.iter().any(|event| matches!(event, Event::Message(_))));
        events.clear();
    };
    for _ in 0..1_000 {
        relay(&mut ours, &mut theirs, client, NOW);
        relay(&mut theirs, &mut ours, server, NOW);
    }
    let messages = allocations(|| {
        for _ in 0..1_000 {
            relay(&mut ours, &mut theirs, client, NOW);
            relay(&mut theirs, &mut ours, server, NOW);
        }
    });
    assert_eq!(messages, 0, "allocations for 2,000 messages");

    let mut record = Vec::with_capacity(1_200);
    ours.probe();
    ours.poll_transmit(NOW, &mut record).expect("a PING");
    let forgeries = allocations(|| {
        for bit in 40..record.len() * 8 {
            record[bit / 8] ^= 1 << (bit % 8);
            theirs.receive(NOW, client, &mut record, &mut events).expect_err("it is forged");
            record[bit / 8] ^= 1 << (bit % 8);
        }
    });
    assert_eq!(forgeries, 0, "allocations for forged records");
}

fn open(
    acceptor: &mut Acceptor,
    connecting: &mut Connecting,
    init: &[u8],
    client: SocketAddr,
    server: SocketAddr,
    rng: &mut StdRng,
) -> (Session, Session) {
    let late = NOW.after(core::time::Duration::from_secs(200));
    let Accept::Reply(retry) = acceptor.handle_init(late, WALL, client, init, b"", rng, || None) else {
        panic!("no RETRY")
    };
    let Step::Send(init) = connecting.handle(late, server, retry.as_bytes()) else { panic!("no second INIT") };
    let Accept::Open(opened) = acceptor.handle_init(late, WALL, client, &init, b"", rng, || Some(1)) else {
        panic!("not opened")
    };
    let Step::Open(ours, _) = connecting.handle(late, server, &opened.reply) else { panic!("not open") };
    let mut theirs = opened.session;
    theirs.promote();
    (*ours, theirs)
}
