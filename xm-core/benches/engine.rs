//! What a server costs, sockets aside: a message in the registry, a text with its tick, a status change, a login. Servers
//! alone are timed, not the clients that talk to them; bytes and times are those of a recorded scene.
//!
//! `cargo bench -p xm-core --bench engine`. What a datagram costs is in `cargo bench -p xmmep`, what the stores cost in
//! `cargo bench -p xm-store`; instructions instead of time, in `instructions.rs`.

mod common;

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use common::{Pause, Recording};
use divan::Bencher;
use divan::counter::ItemsCount;
use rand::SeedableRng;
use rand::rngs::StdRng;
use xm_core::ctx::{Ctx, Now, Reply};
use xm_core::engine::{Engine, Output, Setup};
use xm_core::handlers::Handlers;
use xm_core::link::{AnswersOnly, Arrival, in_memory};
use xm_core::origin::Peer;
use xm_core::refusal::Refusal;
use xm_core::role::Role;
use xmmep::bounded::Text;
use xmmep::frame::{self, Sequence};
use xmmep::session::{ServerKey, Serves};
use xmmep::types::Time;

fn main() {
    divan::main();
}

xmmep::messages! {
    /// Server → server: a note, in messages of the size people send.
    0x8001 Note { pitch: u8, lyrics: Text<128> }
}

/// A role without a state.
struct Nothing;

impl Role for Nothing {}

async fn play(ctx: Ctx<Nothing>, note: Note) -> Result<Reply, Refusal> {
    black_box(note);
    ctx.done()
}

/// Letter box, frame, registry, body, handler: of a message from another server, so without a session. The argument is
/// the sequence number: 0 wants no answer.
#[divan::bench(args = [0, 1], sample_size = 1_000)]
fn dispatch(bencher: Bencher, sequence: u32) {
    let key = ServerKey::from_bytes([5; 32]);
    let handlers = Handlers::new().from_link(play).shared();
    let (serves, session) = (Serves::Sessions, Arc::default());
    let setup = Setup { role: Arc::new(Nothing), handlers, key, serves, tickets: None, session };
    let mut engine = Engine::lanes(Time::ZERO, setup, vec![Box::new(StdRng::seed_from_u64(1))]).remove(0);
    let here: Arc<dyn Arrival> = Arc::new(engine.outbox().clone());
    let (_, link) = in_memory((Peer::Router, Arc::new(AnswersOnly)), (Peer::Router, here.clone()));
    let note = Note { pitch: 60, lyrics: Text::cut(&"la ".repeat(33)) };
    let frame: Bytes = frame::request(&note, Sequence(sequence));
    let mut out = Output::default();
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        here.arrive(&link, black_box(frame.clone()));
        engine.mail(Now::default(), &mut out);
    });
    assert!(out.datagrams.is_empty() && out.tasks.is_empty());
}

/// Relayed, confirmed, and the tick is out: 1,000 texts.
#[divan::bench(args = [Pause::Busy, Pause::Quiet], sample_count = 30, sample_size = 1)]
fn text(bencher: Bencher, pause: Pause) {
    replay(bencher, &common::texts(pause, 1_100, 1_000));
}

/// Twenty changes of one user's status, for that many watchers.
#[divan::bench(args = [20, 1_000], sample_count = 30, sample_size = 1)]
fn status(bencher: Bencher, watchers: u64) {
    replay(bencher, &common::statuses(watchers, 20));
}

/// Twenty logins with a ticket and 20 buddies, from the handshake to the last acknowledgement, on stores in memory.
#[divan::bench(sample_count = 100, sample_size = 1)]
fn login(bencher: Bencher) {
    replay(bencher, &common::logins(20));
}

fn replay(bencher: Bencher, recording: &Recording) {
    bencher
        .counter(ItemsCount::new(recording.items()))
        .with_inputs(|| recording.player())
        .bench_local_refs(|player| player.play_all());
}
