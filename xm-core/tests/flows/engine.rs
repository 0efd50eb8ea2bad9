//! The engine, seen from outside: hostile datagrams, handlers that wait or panic, messages of embedders, lanes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use xm_core::ctx::{Ctx, Reply};
use xm_core::presence::Presence;
use xm_core::refusal::Refusal;
use xm_core::testing::{Faults, Plan, World};
use xmmep::bounded::Text;
use xmmep::messages::ResultMsg;
use xmmep::messages::chat::Tick;
use xmmep::messages::profile::{GetBuddyInfoReq, GetBuddyInfoRes};
use xmmep::result_code::ResultCode;
use xmmep::types::{Status, UserId};

use crate::{friends, heard, ms, result, secs, text};

xmmep::messages! {
    /// Client → Presence: play a note.
    0x8001 PlayNote -> NotePlayed { pitch: u8, lyrics: Text<64> }
    /// Presence → client: it was played.
    0x8002 NotePlayed { pitch: u8, heard_by: u64 }
    /// Client → Presence: something nobody can do.
    0x8003 Explode -> NotePlayed { after_waiting: bool }
    0x8004 Burst -> NotePlayed {}
}

async fn play(ctx: Ctx<Presence>, note: PlayNote) -> Result<Reply, Refusal> {
    if note.pitch > 127 {
        return Err(Refusal::BadField("pitch: 0 to 127".into()));
    }
    ctx.reply(NotePlayed { pitch: note.pitch, heard_by: ctx.user().0 })
}

async fn explode(ctx: Ctx<Presence>, message: Explode) -> Result<Reply, Refusal> {
    if message.after_waiting {
        let _ = ctx.role().stores().accounts.by_user(ctx.user()).await;
    }
    panic!("a bug in a handler");
}

/// A handler that never waits, with another bug.
fn burst(_: Ctx<Presence>, _: Burst) -> Result<Reply, Refusal> {
    panic!("a bug in a plain function");
}

/// Waits for the database, then answers: with how many were answered before.
fn count_slowly(
    counter: Arc<AtomicU32>,
) -> impl Fn(Ctx<Presence>, PlayNote) -> futures_util::future::BoxFuture<'static, Result<Reply, Refusal>> {
    move |ctx, note| {
        let counter = counter.clone();
        Box::pin(async move {
            let _ = ctx.role().stores().accounts.by_user(ctx.user()).await;
            let before = counter.fetch_add(1, Ordering::Relaxed);
            ctx.reply(NotePlayed { pitch: note.pitch, heard_by: before.into() })
        })
    }
}

fn note(pitch: u8) -> PlayNote {
    PlayNote { pitch, lyrics: Text::default() }
}

#[test]
fn a_message_from_outside_takes_one_struct_and_one_function() {
    let mut world = World::with(Plan::new(1).handlers(|handlers| handlers.from_client(play)));
    let ann = world.add_user("ann");
    let a = world.ready_probe_as(ann);
    let played = world.ask_now(a, &note(60)).message::<NotePlayed>().unwrap();
    assert_eq!(played, NotePlayed { pitch: 60, heard_by: world.client(ann).user.0 });
    assert_eq!(result(&world.ask_now(a, &note(128))), ResultCode::PARAM_ERROR);
    let stranger = world.connect(0);
    assert_eq!(result(&world.ask_now(stranger, &note(60))), ResultCode::BAD_STATE);
}

#[test]
fn the_client_machine_carries_messages_it_does_not_know() {
    let mut world = World::with(Plan::new(2).handlers(|handlers| handlers.from_client(play)));
    let ann = world.add_user("ann");
    world.log_in(ann);
    let asked = world.request(ann, &note(60));
    world.run(ms(100));
    let answer = world.client(ann).answer(asked).unwrap().as_ref().unwrap();
    assert_eq!(answer.message::<NotePlayed>().unwrap().pitch, 60);
}

#[test]
fn a_handler_that_panics_is_answered_with_error_and_nobody_else_notices() {
    let (mut world, ann, bob) = {
        let mut world = World::with(Plan::new(3).handlers(|handlers| handlers.from_client(explode).from_client(burst)));
        let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
        world.befriend(ann, bob);
        (world, ann, bob)
    };
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    let bob = world.client(bob).user;
    for (number, (after_waiting, latency)) in [(false, 0), (true, 0), (true, 100)].into_iter().enumerate() {
        world.database(0).set_latency(ms(latency));
        assert_eq!(result(&world.ask_now(a, &Explode { after_waiting })), ResultCode::ERROR);
        assert_eq!(result(&world.ask_now(a, &Burst {})), ResultCode::ERROR);
        world.database(0).set_latency(ms(0));
        world.tell(a, &text(bob, number as u64, "still alive"));
        world.run(ms(50));
        assert_eq!(heard(&world, b).len(), number + 1);
    }
    assert_eq!(world.tasks(0), 0);
}

#[test]
fn a_handler_that_waits_keeps_the_order_of_its_session_and_holds_up_nobody_else() {
    let counter = Arc::new(AtomicU32::new(0));
    let plan = Plan::new(4).handlers(move |handlers| handlers.from_client(count_slowly(counter.clone())));
    let mut world = World::with(Plan { lanes: 1, ..plan });
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    let (a, b) = (world.ready_probe_as(ann), world.ready_probe_as(bob));
    world.database(0).stop();
    let asked: Vec<_> = (0..20).map(|pitch| world.ask(a, &note(pitch))).collect();
    world.run(secs(1));
    assert!(asked.iter().all(|sequence| world.probe(a).answer(*sequence).is_none()));
    let status = xmmep::messages::status::StatusChangedNotify { status: Status::BUSY };
    assert_eq!(result(&world.ask_now(b, &status)), ResultCode::SUCCESS, "bob is on the same lane");
    world.database(0).resume();
    world.run(secs(1));
    for (number, sequence) in asked.into_iter().enumerate() {
        let played = world.probe(a).answer(sequence).unwrap().message::<NotePlayed>().unwrap();
        assert_eq!((played.pitch as usize, played.heard_by as usize), (number, number));
    }
}

#[test]
fn what_waits_behind_a_slow_handler_is_bounded_and_texts_are_not_lost_by_it() {
    let counter = Arc::new(AtomicU32::new(0));
    let mut world =
        World::with(Plan::new(5).handlers(move |handlers| handlers.from_client(count_slowly(counter.clone()))));
    let ann = world.add_user("ann");
    let a = world.ready_probe_as(ann);
    world.database(0).stop();
    let mut asked = Vec::new();
    for pitch in 0..100 {
        asked.push(world.ask(a, &note(pitch)));
        world.run(ms(20));
    }
    world.run(secs(2));
    let busy = asked.iter().filter(|sequence| world.probe(a).answer(**sequence).is_some());
    assert_eq!(busy.count(), 100 - 65, "one runs, 64 wait, the others were told at once");
    let answer = world.probe(a).answer(asked[99]).unwrap().message::<ResultMsg>().unwrap();
    assert_eq!((answer.result, answer.retry_after_s > 0), (ResultCode::SERVER_BUSY, true));
    world.database(0).resume();
    world.run(secs(2));
    assert!(asked[..65].iter().all(|sequence| world.probe(a).answer(*sequence).is_some()));
}

#[test]
fn a_text_that_finds_no_room_behind_a_slow_handler_ends_the_session_and_comes_again_in_order() {
    let counter = Arc::new(AtomicU32::new(0));
    let mut world =
        World::with(Plan::new(6).handlers(move |handlers| handlers.from_client(count_slowly(counter.clone()))));
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    world.befriend(ann, bob);
    world.log_in(ann);
    world.log_in(bob);
    world.database(0).stop();
    for _ in 0..40 {
        world.request(ann, &note(1));
    }
    for number in 0..40 {
        world.say(ann, bob, &format!("{number}"));
        world.run(ms(20));
    }
    world.run(secs(1));
    world.database(0).resume();
    world.run(secs(120));
    assert_eq!(world.client(bob).shown(), (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
    world.oracle().assert_kept();
}

#[test]
fn garbage_gets_no_answer_and_changes_nothing() {
    let (mut world, ann, _) = friends(7);
    let a = world.ready_probe_as(ann);
    let (presence, router) = (world.presence_address(0), world.router_address());
    let attacker = "192.0.2.66:6666".parse().unwrap();
    for server in [presence, router] {
        for first in 0..=255_u8 {
            for len in [1, 2, 5, 13, 45, 100, 1_199, 1_200, 1_201, 1_500] {
                if (first, len) == (4, 1_200) {
                    // That may be an INIT of another version, which is told ours, in 6 bytes.
                    continue;
                }
                let bytes: Vec<u8> = (0..len).map(|at| if at == 0 { first } else { world.below(256) as u8 }).collect();
                world.inject(attacker, server, &bytes);
            }
        }
        world.inject(attacker, server, &[]);
    }
    world.run(secs(10));
    assert_eq!(world.wire.bytes_to(attacker), 0);
    assert_eq!(world.sessions(0), 1);
    let me = world.client(ann).user;
    assert!(world.ask_now(a, &GetBuddyInfoReq { user: me }).message::<GetBuddyInfoRes>().is_ok());
}

#[test]
fn first_contact_gets_at_most_a_ninth_of_its_bytes_back_and_leaves_nothing() {
    let mut world = World::new(8);
    world.wire.record = true;
    let p = world.connect(0);
    let init = world.wire.recorded.iter().find(|crossing| crossing.to == world.presence_address(0)).unwrap().clone();
    assert_eq!((init.bytes.len(), init.bytes[0]), (1_200, 4));
    world.drop_probe(p);
    let attacker = "192.0.2.66:6666".parse().unwrap();
    let (before, presence) = (world.sessions(0), world.presence_address(0));
    for _ in 0..50 {
        world.inject(attacker, presence, &init.bytes);
    }
    assert!(world.wire.bytes_to(attacker) * 9 <= 50 * 1_200, "{} bytes", world.wire.bytes_to(attacker));
    assert_eq!(world.sessions(0), before);
}

#[test]
fn replayed_cut_and_flipped_datagrams_of_a_whole_conversation_have_no_effect() {
    let (mut world, ann, bob) = friends(9);
    world.wire.record = true;
    world.log_in(ann);
    world.log_in(bob);
    world.say(ann, bob, "hello");
    world.run(secs(1));
    world.wire.record = false;
    let recorded = std::mem::take(&mut world.wire.recorded);
    let attacker = "192.0.2.66:6666".parse().unwrap();
    let (presence, sessions) = (world.presence_address(0), world.sessions(0));
    let to_us: Vec<_> = recorded.into_iter().filter(|crossing| crossing.to == presence).collect();
    for crossing in &to_us {
        for from in [crossing.from, attacker] {
            let is_record = crossing.bytes[0] == 8;
            let bytes_before = world.wire.bytes_to(from);
            world.inject(from, presence, &crossing.bytes);
            let answered = world.wire.bytes_to(from) - bytes_before;
            assert!(!is_record || answered == 0, "a replayed record was answered with {answered} bytes");
            assert!(answered <= 1_200, "{answered} bytes");
            for cut in [0, 1, 12, 44, crossing.bytes.len() - 1] {
                world.inject(from, presence, &crossing.bytes[..cut.min(crossing.bytes.len())]);
            }
            for _ in 0..8 {
                let bit = world.below(crossing.bytes.len() * 8);
                let mut flipped = crossing.bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                world.inject(from, presence, &flipped);
            }
        }
    }
    world.run(secs(20));
    assert_eq!(world.sessions(0), sessions, "half-open sessions of replayed handshakes are gone");
    assert_eq!(world.client(bob).shown(), ["hello"]);
    assert!(world.client(ann).is_online() && world.client(bob).is_online());
    let again = world.say(ann, bob, "again");
    world.run(secs(1));
    assert_eq!(world.client(ann).tick(again), Tick::DELIVERED);
    assert_eq!(world.client(ann).welcomes().count(), 1, "nobody had to log in again");
}

#[test]
fn a_datagram_at_any_lane_reaches_its_session() {
    let mut world = World::with(Plan { lanes: 8, ..Plan::new(10) });
    let (ann, bob) = (world.add_user("ann"), world.add_user("bob"));
    world.befriend(ann, bob);
    world.log_in(ann);
    world.log_in(bob);
    world.wire.faults = Faults { stray: 100, ..Faults::NONE };
    for number in 0..30 {
        world.say(ann, bob, &format!("{number}"));
        world.run(ms(20));
    }
    world.run(secs(1));
    assert_eq!(world.client(bob).shown().len(), 30);
    assert!(world.client(ann).ticks(world.client(bob).texts().last().unwrap().text.id).len() == 1);
}

#[test]
fn strangers_from_many_addresses_fill_a_fixed_table_and_members_stay() {
    let mut world = World::with(Plan { lanes: 1, ..Plan::new(11) });
    let ann = world.add_user("ann");
    let a = world.ready_probe_as(ann);
    let max = xm_core::limits::STRANGERS_MAX;
    for _ in 0..max + 50 {
        world.connect_quietly(0);
    }
    world.run(ms(500));
    let sessions = world.sessions(0);
    assert!((max..=max + 1).contains(&sessions), "{sessions} sessions");
    let me = world.client(ann).user;
    assert!(world.ask_now(a, &GetBuddyInfoReq { user: me }).message::<GetBuddyInfoRes>().is_ok());
    world.run(secs(30));
    assert_eq!(world.sessions(0), 1, "they did not log in");
}

#[test]
fn nobody_speaks_for_another_whatever_the_fields_say() {
    let (mut world, ann, bob) = friends(12);
    let eve = world.add_user("eve");
    let (a, b, e) = (world.ready_probe_as(ann), world.ready_probe_as(bob), world.ready_probe_as(eve));
    let (ann, bob) = (world.client(ann).user, world.client(bob).user);
    let removed = world.ask_now(e, &xmmep::messages::buddies::BuddyRemovedNotify { user: bob });
    assert!(removed.message::<ResultMsg>().is_ok() || removed.header.code.0 == 143);
    world.ask_now(e, &xmmep::messages::buddies::BuddyBlockedNotify { user: ann });
    world.tell(a, &text(bob, 1, "hello"));
    world.run(ms(100));
    assert_eq!(heard(&world, b), ["hello"], "what eve did was hers alone");
    assert_ne!(ann, UserId(0));
}
