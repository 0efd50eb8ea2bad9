//! The inbox against a plain model, with random events: what a sender is told, what a device is sent, and what is left.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use xmmep::bounded::PrivateText;
use xmmep::frame::Frame;
use xmmep::message::body_of;
use xmmep::messages::chat::{Content, TargetKind, TextKind, TxtMsg, TxtMsgFwd};
use xmmep::types::{MsgId, UserId};

use super::*;

const BOUND: Duration = Duration::from_millis(200);

/// A device, a store and senders, as simple as can be.
#[derive(Default)]
struct Model {
    inbox: Inbox,
    now: Time,
    sessions: u64,
    /// The session the device is on.
    online: Option<SessionRef>,
    /// What the device was sent on this session and has not confirmed.
    to_confirm: Vec<ParcelId>,
    /// What the device ever got, in the order it first got it.
    shown: Vec<ParcelId>,
    /// Waiting in the store, and the level of everything that ever was there.
    waiting: BTreeMap<Place, Parcel>,
    levels: BTreeMap<ParcelId, Level>,
    last_place: u64,
    /// What senders were told, and the ids of what they wrote, in order.
    ticks: BTreeMap<ParcelId, Vec<Tick>>,
    written: Vec<ParcelId>,
    /// Work under way.
    appending: Option<Vec<Parcel>>,
    append_wanted: bool,
    reading: Vec<(SessionRef, Place, usize)>,
    settling: Vec<Settling>,
}

/// What the sender of `parcel` wrote.
fn message(parcel: ParcelId) -> TxtMsg {
    let text = Content {
        id: parcel.id,
        target_kind: TargetKind::USER,
        target: 1,
        order: 1,
        sent: WallTime(0),
        kind: TextKind::TEXT,
        body: PrivateText::default(),
    };
    TxtMsg { text }
}

impl Model {
    fn write(&mut self, from: u64) {
        let number = self.written.len() as u128;
        let parcel = ParcelId { from: UserId(from), id: MsgId(number.to_be_bytes()) };
        self.written.push(parcel);
        self.send(parcel);
    }

    fn send(&mut self, parcel: ParcelId) {
        let mut effects = Effects::new();
        let text = Forward::new(parcel.from, WallTime(0), false, &message(parcel));
        self.inbox.accept(self.now, BOUND, parcel, WallTime(0), text, &mut effects);
        self.carry_out(effects);
    }

    fn show(&mut self, parcel: ParcelId) {
        assert!(self.online.is_some(), "sent to nobody");
        self.to_confirm.push(parcel);
        if !self.shown.contains(&parcel) {
            self.shown.push(parcel);
        }
    }

    fn carry_out(&mut self, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Relay(text) => {
                    let frame = Frame::decode(text.frame().clone()).unwrap();
                    let text: TxtMsgFwd = frame.message().unwrap();
                    self.show(ParcelId { from: text.from, id: text.text.id });
                }
                Effect::RelayStored(Parcel { from, id, body, .. }) => {
                    let parcel = ParcelId { from, id };
                    assert_eq!(body, body_of(&message(parcel)), "another body");
                    self.show(parcel);
                }
                Effect::Tick { parcel, tick, result, .. } => {
                    assert_eq!((tick == Tick::REFUSED, result), (false, ResultCode::SUCCESS), "{parcel:?}");
                    let stored = self.levels.contains_key(&parcel);
                    assert!(tick != Tick::STORED || stored, "STORED without the store");
                    assert!(tick != Tick::DELIVERED || self.shown.contains(&parcel), "DELIVERED and never sent");
                    self.ticks.entry(parcel).or_default().push(tick);
                }
                Effect::Append => {
                    assert!(!self.append_wanted && self.appending.is_none(), "two appends at once");
                    self.append_wanted = true;
                }
                Effect::Read { after, messages, .. } => {
                    let session = self.online.expect("read for nobody");
                    self.reading.push((session, after, messages));
                }
                Effect::Settle(settling) => self.settling.push(settling),
                Effect::Drained { .. } => {
                    assert!(self.waiting.values().all(|parcel| self.is_sent(parcel)), "live too early");
                }
            }
        }
        let for_the_store = self.inbox.pending.iter().filter(|pending| !matches!(pending.stage, Stage::Relayed { .. }));
        for pending in for_the_store {
            assert!(pending.text.frame().is_unique(), "{pending:?} shares its memory while it waits for the store");
        }
    }

    fn is_sent(&self, parcel: &Parcel) -> bool {
        self.shown.contains(&ParcelId { from: parcel.from, id: parcel.id })
    }

    fn log_in(&mut self) {
        self.log_out();
        self.sessions += 1;
        let session = SessionRef { index: 1, serial: self.sessions };
        self.online = Some(session);
        let mut effects = Effects::new();
        self.inbox.session_ready(session, &mut effects);
        self.carry_out(effects);
    }

    fn log_out(&mut self) {
        self.online = None;
        self.to_confirm.clear();
        let mut effects = Effects::new();
        self.inbox.session_lost(&mut effects);
        self.carry_out(effects);
    }

    fn confirm(&mut self, at: usize) {
        if self.to_confirm.is_empty() {
            return;
        }
        let parcel = self.to_confirm.remove(at % self.to_confirm.len());
        let mut effects = Effects::new();
        self.inbox.confirm(parcel, Level::Received, &mut effects);
        self.carry_out(effects);
    }

    fn pass_time(&mut self, millis: u64) {
        self.now = self.now.after(Duration::from_millis(millis));
        let mut effects = Effects::new();
        self.inbox.overdue(self.now, &mut effects);
        self.carry_out(effects);
        assert!(self.inbox.deadline().is_none_or(|deadline| deadline > self.now), "overdue twice");
    }

    fn begin_append(&mut self) {
        if self.append_wanted && self.appending.is_none() {
            self.appending = self.inbox.take_batch();
            self.append_wanted = self.appending.is_some();
        }
    }

    fn append(&mut self, parcel: &Parcel) -> Appended {
        let id = ParcelId { from: parcel.from, id: parcel.id };
        if let Some(level) = self.levels.get(&id) {
            return Appended::Already(Place(0), *level);
        }
        self.last_place += 1;
        self.waiting.insert(Place(self.last_place), parcel.clone());
        self.levels.insert(id, Level::Stored);
        Appended::Stored(Place(self.last_place))
    }

    /// The store answers, or fails: before or after it did its work.
    fn end_append(&mut self, fails: bool, done: bool) {
        let Some(batch) = self.appending.take() else { return };
        let results: Vec<_> = if done || !fails { batch.iter().map(|p| self.append(p)).collect() } else { Vec::new() };
        if fails {
            self.inbox.append_failed();
            self.append_wanted = false;
            return;
        }
        let mut effects = Effects::new();
        self.inbox.appended(Ok(results), &mut effects);
        self.carry_out(effects);
        self.begin_append();
    }

    fn end_read(&mut self, fails: bool) {
        let Some((session, after, messages)) = self.reading.pop() else { return };
        if fails {
            return self.inbox.page_failed(session);
        }
        let later = self.waiting.iter().filter(|(place, _)| **place > after).take(messages);
        let page: Vec<_> = later.map(|(place, parcel)| (*place, parcel.clone())).collect();
        let mut effects = Effects::new();
        self.inbox.page_read(session, page, |_| false, &mut effects);
        self.carry_out(effects);
    }

    fn end_settle(&mut self, fails: bool) {
        let settling = std::mem::take(&mut self.settling);
        if fails {
            return self.inbox.settle_failed(settling);
        }
        for Settling { parcel, level, told } in settling {
            let known = self.levels.get_mut(&parcel).filter(|known| known.rises_to(level));
            let raised = known.map(|known| *known = level).is_some();
            self.waiting.retain(|_, waiting| (waiting.from, waiting.id) != (parcel.from, parcel.id));
            if raised && !told {
                self.ticks.entry(parcel).or_default().push(Tick::DELIVERED);
            }
        }
    }

    /// Users without anything on its way have no inbox; the next one goes on where it ended.
    fn put_away(&mut self) {
        if self.inbox.is_empty() {
            self.inbox = Inbox::new(self.inbox.is_live());
        }
    }

    fn step(&mut self, rng: &mut StdRng) {
        match rng.random_range(0..100) {
            0..25 => self.write(rng.random_range(1..4)),
            25..30 if !self.written.is_empty() => {
                let again = self.written[rng.random_range(0..self.written.len())];
                // As clients do: only what has no final tick.
                if !self.is_final(again) {
                    self.send(again);
                }
            }
            30..50 => self.confirm(rng.random_range(0..8)),
            50..60 => self.pass_time(rng.random_range(0..150)),
            60..70 => self.begin_append(),
            70..80 => self.end_append(rng.random_range(0..5) == 0, rng.random_range(0..2) == 0),
            80..88 => self.end_read(rng.random_range(0..5) == 0),
            88..94 => self.end_settle(rng.random_range(0..5) == 0),
            94..97 => self.log_in(),
            97..98 => self.log_out(),
            _ => self.put_away(),
        }
    }

    fn is_final(&self, parcel: ParcelId) -> bool {
        self.ticks.get(&parcel).is_some_and(|ticks| ticks.contains(&Tick::DELIVERED))
    }

    /// Everything works and the device confirms all it gets.
    fn drain(&mut self) {
        if self.online.is_none() {
            self.log_in();
        }
        for _ in 0..20 * (self.written.len() + 10) {
            self.pass_time(50);
            self.begin_append();
            self.end_append(false, true);
            self.end_read(false);
            self.end_settle(false);
            self.confirm(0);
        }
    }

    fn check(&self) {
        let unticked: Vec<_> = self.written.iter().filter(|parcel| !self.is_final(**parcel)).collect();
        assert!(unticked.is_empty(), "never delivered: {unticked:?} in {:?}", self.inbox);
        assert!(self.waiting.is_empty(), "left in the store: {:?}", self.waiting);
        assert!(self.inbox.pending.is_empty() && self.inbox.unsettled.is_empty(), "{:?}", self.inbox);
        for from in 1..4 {
            let of = |list: &[ParcelId]| -> Vec<_> { list.iter().filter(|p| p.from.0 == from).map(|p| p.id).collect() };
            assert_eq!(of(&self.shown), of(&self.written), "the order of sender {from}");
        }
        for (parcel, ticks) in &self.ticks {
            let delivered = ticks.iter().position(|tick| *tick == Tick::DELIVERED);
            let after: BTreeSet<_> = ticks[delivered.unwrap_or(ticks.len())..].iter().collect();
            assert!(after.len() <= 1, "{parcel:?} fell back: {ticks:?}");
        }
    }
}

#[test]
fn random_events_lose_nothing_reorder_nothing_and_never_tick_too_early() {
    for seed in 0..2_000 {
        let run = std::panic::catch_unwind(|| {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut model = Model::default();
            (0..rng.random_range(20..300)).for_each(|_| model.step(&mut rng));
            model.drain();
            model.check();
        });
        if let Err(panic) = run {
            eprintln!("failed with seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn a_recipient_cannot_make_us_hold_more_than_the_limit() {
    let mut model = Model::default();
    model.log_in();
    model.end_read(false);
    for _ in 0..PENDING_MAX {
        model.write(1);
    }
    let mut effects = Effects::new();
    let one_more = ParcelId { from: UserId(1), id: MsgId([0xff; 16]) };
    let text = Forward::new(one_more.from, WallTime(0), false, &message(one_more));
    model.inbox.accept(model.now, BOUND, one_more, WallTime(0), text, &mut effects);
    assert_eq!(effects[..], [refused(one_more, ResultCode::SERVER_BUSY, 1)]);
}

#[test]
fn a_page_that_could_not_be_read_is_read_again_though_nothing_else_happens() {
    let mut model = Model::default();
    model.write(1);
    model.begin_append();
    model.end_append(false, true);
    model.log_in();
    model.end_read(true);
    assert!(model.shown.is_empty());
    model.pass_time(1_000);
    model.end_read(false);
    assert_eq!(model.shown, model.written);
}
