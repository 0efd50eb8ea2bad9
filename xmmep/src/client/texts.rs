//! Texts: those on their way out until their final tick, those that came in until they are confirmed and dealt with,
//! and what the journal has to be told about both. How they travel is `machine.rs`.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use crate::bounded::{List, PrivateText};
use crate::messages::chat::{
    CONFIRM_MAX, ConfirmLevel, Confirmed, Content, TargetKind, TextKind, Tick, TxtConfirm, TxtTickNotify,
};
use crate::result_code::ResultCode;
use crate::types::{MsgId, RoomId, Time, UserId, WallTime};

use super::error::TextError;
use super::journal::{Entry, Received, Remembered, Waiting};
use super::options::Durability;

/// Texts without a final tick that a client holds. With 8 KiB each some 8 MiB at the very most.
pub const QUEUE_MAX: usize = 1_000;

/// Texts sent and not ticked at a time. The server's side of the same window ([`CONFIRM_MAX`]): enough for any human, and a
/// long queue after an absence does not fill the session's send queue.
pub const UNTICKED_MAX: usize = 64;

/// How long a sent text waits for its first tick before it is sent again in the same session. The server answers within
/// 200 ms and an fsync, so after this long something is wrong there.
pub const TICK_PATIENCE: Duration = Duration::from_secs(30);

/// The shortest wait after a refusal that may pass, if the server names none.
pub const HOLD_MIN: Duration = Duration::from_secs(1);

/// How long news that may wait for company (a text has its final tick) waits before the journal gets it.
pub const LAZY_MAX: Duration = Duration::from_secs(1);

/// To whom a text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A user.
    User(UserId),
    /// A room.
    Room(RoomId),
}

impl Target {
    fn parts(self) -> (TargetKind, u64) {
        match self {
            Self::User(user) => (TargetKind::USER, user.0),
            Self::Room(room) => (TargetKind::ROOM, room.0),
        }
    }
}

/// How far a text has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Not safe in the journal yet.
    Unsafe,
    /// To be sent in this session.
    Waits,
    /// Sent in this session, at that time.
    Sent(Time),
}

#[derive(Debug)]
struct Leaving {
    text: Content,
    progress: Progress,
    tick: Tick,
    /// It was refused for a reason that may pass: "not now". It goes again, unless a later one overtook it.
    not_now: Option<TxtTickNotify>,
}

/// All texts of a client.
#[derive(Debug)]
pub(super) struct Texts {
    durability: Durability,
    leaving: VecDeque<Leaving>,
    orders: BTreeMap<(TargetKind, u64), u64>,
    shown: super::journal::Shown,
    /// Came in, handed to the application, not dealt with. Empty without a journal.
    waiting: Waiting,
    /// Came in, not safe yet.
    arriving: VecDeque<Received>,
    confirm: VecDeque<Confirmed>,
    confirm_read: VecDeque<Confirmed>,
    /// What the journal gets next.
    entries: Vec<Entry>,
    /// How many texts at the front of `arriving` and `Unsafe` ones of `leaving` are in the batch now being written.
    writing: Option<(usize, Vec<MsgId>)>,
    /// When `entries` have to be written even if nothing urgent comes.
    lazy_due: Option<Time>,
    urgent: bool,
    /// The server said "not now": nothing leaves before this.
    hold: Option<Time>,
    /// It said so since the queue was last empty: one text at a time, so that none overtakes another.
    one_at_a_time: bool,
}

impl Texts {
    pub(super) fn new(durability: Durability, remembered: Remembered) -> Self {
        let Remembered { outgoing, orders, waiting, shown, damage: _ } = remembered;
        let leaving = outgoing.into_iter().map(|text| Leaving::new(text, Progress::Waits));
        Self {
            durability,
            leaving: leaving.collect(),
            orders,
            shown,
            waiting,
            arriving: VecDeque::new(),
            confirm: VecDeque::new(),
            confirm_read: VecDeque::new(),
            entries: Vec::new(),
            writing: None,
            lazy_due: None,
            urgent: false,
            hold: None,
            one_at_a_time: false,
        }
    }

    /// Came in before this start and were not dealt with.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Received> {
        self.waiting.0.iter()
    }

    /// Texts without a final tick: id, target kind, target, and the tick they have.
    pub(super) fn leaving(&self) -> impl ExactSizeIterator<Item = (&Content, Tick)> {
        self.leaving.iter().map(|leaving| (&leaving.text, leaving.tick))
    }

    /// Takes a new text into the queue.
    pub(super) fn write(
        &mut self,
        id: MsgId,
        to: Target,
        sent: WallTime,
        kind: TextKind,
        body: PrivateText<8192>,
    ) -> Result<(), TextError> {
        if self.leaving.len() >= QUEUE_MAX {
            return Err(TextError::QueueFull(QUEUE_MAX));
        }
        let (target_kind, target) = to.parts();
        let order = self.orders.entry((target_kind, target)).or_default();
        *order = order.saturating_add(1);
        let text = Content { id, target_kind, target, order: *order, sent, kind, body };
        let progress = match self.durability {
            Durability::Volatile => Progress::Waits,
            Durability::Journal => {
                self.note(Entry::Outgoing(text.clone()));
                Progress::Unsafe
            }
        };
        self.leaving.push_back(Leaving::new(text, progress));
        Ok(())
    }

    /// The next text to send, if the window is open. Texts leave in the order in which they were written; those that
    /// the server has stored, and that go again only to ask how far they have come, after all others.
    pub(super) fn next_to_send(&self, now: Time) -> Option<&Content> {
        let mut unsent = self.leaving.iter().filter(|leaving| !leaving.is_sent());
        let next = unsent.clone().find(|leaving| leaving.tick == Tick::NONE).or_else(|| unsent.next())?;
        let window = if self.one_at_a_time { 1 } else { UNTICKED_MAX };
        let unticked = self.leaving.iter().filter(|leaving| leaving.is_sent() && leaving.tick == Tick::NONE).count();
        let held = self.hold.is_some_and(|until| until > now);
        (next.progress == Progress::Waits && unticked < window && !held).then_some(&next.text)
    }

    /// That one is on its way.
    pub(super) fn sent(&mut self, now: Time, id: MsgId) {
        if let Some(leaving) = self.leaving.iter_mut().find(|leaving| leaving.text.id == id) {
            leaving.progress = Progress::Sent(now);
            if self.one_at_a_time && leaving.tick == Tick::STORED {
                // No tick may come of this, so the window does not slow it down.
                self.hold = Some(now.after(HOLD_MIN));
            }
        }
    }

    /// A new session: all texts without a final tick go again, in order. Confirmations are void, for the server
    /// repeats what it has no confirmation for.
    pub(super) fn restart(&mut self) {
        self.confirm = VecDeque::new();
        (self.hold, self.one_at_a_time) = (None, false);
        for leaving in &mut self.leaving {
            leaving.not_now = None;
            if leaving.is_sent() {
                leaving.progress = Progress::Waits;
            }
        }
    }

    /// When [`Texts::on_deadline`] has something to do.
    pub(super) fn deadline(&self, online: bool) -> Option<Time> {
        let lazy = self.lazy_due.filter(|_| self.writing.is_none());
        let overdue = self.leaving.iter().filter_map(Leaving::overdue_at).min().filter(|_| online);
        let hold = self.hold.filter(|_| online);
        lazy.into_iter().chain(overdue).chain(hold).min()
    }

    /// Texts whose first tick is overdue go again.
    pub(super) fn on_deadline(&mut self, now: Time) {
        if self.lazy_due.is_some_and(|due| due <= now) {
            self.urgent = true;
        }
        self.hold = self.hold.filter(|until| *until > now);
        for leaving in &mut self.leaving {
            if leaving.overdue_at().is_some_and(|at| at <= now) {
                leaving.progress = Progress::Waits;
            }
        }
    }

    /// A tick came; returns what is news. Levels only rise, and nothing follows a final one.
    pub(super) fn ticked(&mut self, now: Time, notice: TxtTickNotify) -> Vec<TxtTickNotify> {
        let Some(at) = self.leaving.iter().position(|leaving| leaving.text.id == notice.id) else {
            // Of a text that is done only one thing can still be said.
            return if notice.tick == Tick::READ { vec![notice] } else { Vec::new() };
        };
        let known = self.leaving.get(at).map_or(Tick::NONE, |leaving| leaving.tick);
        if notice.tick <= known || notice.tick > Tick::EXPIRED {
            return Vec::new();
        }
        if notice.tick == Tick::REFUSED && may_pass(notice.result) {
            self.not_now(now, at, notice);
            return Vec::new();
        }
        let mut news = if notice.tick == Tick::REFUSED { Vec::new() } else { self.overtaken(now, at) };
        // Those before it may just have left the queue.
        if notice.tick == Tick::STORED {
            let leaving = self.leaving.iter_mut().find(|leaving| leaving.text.id == notice.id);
            leaving.into_iter().for_each(|leaving| leaving.tick = notice.tick);
        } else {
            self.finish(now, notice.id);
        }
        news.push(notice);
        self.one_at_a_time &= self.leaving.iter().any(|leaving| leaving.tick == Tick::NONE);
        news
    }

    /// The server cannot take a text at the moment: it goes again, with its id, and what is behind it waits.
    fn not_now(&mut self, now: Time, at: usize, notice: TxtTickNotify) {
        let wait = Duration::from_secs(notice.retry_after_s.into()).max(HOLD_MIN);
        self.hold = self.hold.max(Some(now.after(wait)));
        self.one_at_a_time = true;
        if let Some(leaving) = self.leaving.get_mut(at) {
            leaving.progress = Progress::Waits;
            // One that is stored already only asks how far it has come: that no is about the question, not the text.
            leaving.not_now = Some(notice).filter(|_| leaving.tick == Tick::NONE);
        }
    }

    /// A text was accepted. Earlier ones to the same target that were told "not now" would come after it: order is
    /// promised, so their refusal stands.
    fn overtaken(&mut self, now: Time, at: usize) -> Vec<TxtTickNotify> {
        let target = self.leaving.get(at).map(|leaving| (leaving.text.target_kind, leaving.text.target));
        let earlier = self.leaving.iter_mut().take(at).filter(|leaving| !leaving.is_sent());
        let same = earlier.filter(|leaving| Some((leaving.text.target_kind, leaving.text.target)) == target);
        let refused: Vec<_> = same.filter_map(|leaving| leaving.not_now.take()).collect();
        refused.iter().for_each(|notice| self.finish(now, notice.id));
        refused
    }

    /// A text has its final tick.
    fn finish(&mut self, now: Time, id: MsgId) {
        self.leaving.retain(|leaving| leaving.text.id != id);
        if self.durability == Durability::Journal {
            self.entries.push(Entry::Final(id));
            self.lazy_due.get_or_insert(now.after(LAZY_MAX));
        }
    }

    /// A text came in. Returned if it is new and may be shown at once; one that has to be made safe first comes back from
    /// [`Texts::written`].
    pub(super) fn arrived(&mut self, text: Received) -> Option<Received> {
        let (from, id) = (text.from, text.text.id);
        if !self.shown.insert(from, id) {
            // It is confirmed when it is safe, not because it came twice.
            let on_its_way = self.arriving.iter().any(|other| other.from == from && other.text.id == id);
            if !on_its_way {
                self.confirm(from, id);
            }
            return None;
        }
        match self.durability {
            Durability::Volatile => {
                self.confirm(from, id);
                Some(text)
            }
            Durability::Journal => {
                self.note(Entry::Received(text.clone()));
                self.arriving.push_back(text);
                None
            }
        }
    }

    fn confirm(&mut self, from: UserId, id: MsgId) {
        let confirmed = Confirmed { from, id };
        if !self.confirm.contains(&confirmed) {
            self.confirm.push_back(confirmed);
        }
    }

    /// The application has dealt with a text.
    pub(super) fn taken(&mut self, from: UserId, id: MsgId) {
        if self.waiting.take(from, id) {
            self.note(Entry::Taken(from, id));
        }
    }

    /// The user saw a text.
    pub(super) fn read(&mut self, from: UserId, id: MsgId) {
        if self.confirm_read.len() < QUEUE_MAX {
            self.confirm_read.push_back(Confirmed { from, id });
        }
    }

    /// The next confirmation to send; gone from here once [`Texts::confirmed`] is told.
    pub(super) fn next_confirmation(&self) -> Option<TxtConfirm> {
        let (level, list) = if self.confirm.is_empty() {
            (ConfirmLevel::READ, &self.confirm_read)
        } else {
            (ConfirmLevel::RECEIVED, &self.confirm)
        };
        let messages: Vec<_> = list.iter().take(CONFIRM_MAX).cloned().collect();
        let some = !messages.is_empty();
        List::new(messages).ok().filter(|_| some).map(|messages| TxtConfirm { level, messages })
    }

    /// That confirmation is on its way.
    pub(super) fn confirmed(&mut self, confirmation: &TxtConfirm) {
        let reading = confirmation.level == ConfirmLevel::READ;
        let list = if reading { &mut self.confirm_read } else { &mut self.confirm };
        list.drain(..confirmation.messages.len().min(list.len()));
    }

    fn note(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.urgent = true;
    }

    /// It is over: what the journal does not have yet goes at once.
    pub(super) fn hurry(&mut self) {
        self.urgent = true;
    }

    /// What the journal has to write now. One batch at a time: what comes meanwhile goes into the next.
    pub(super) fn next_batch(&mut self) -> Option<Vec<Entry>> {
        if self.writing.is_some() || !self.urgent || self.entries.is_empty() {
            return None;
        }
        (self.urgent, self.lazy_due) = (false, None);
        let leaving = self.leaving.iter().filter(|leaving| leaving.progress == Progress::Unsafe);
        self.writing = Some((self.arriving.len(), leaving.map(|leaving| leaving.text.id).collect()));
        Some(core::mem::take(&mut self.entries))
    }

    /// The batch is on stable storage. Returns the texts that came in and may now be shown; they will be confirmed.
    pub(super) fn written(&mut self) -> Vec<Received> {
        let Some((arrived, left)) = self.writing.take() else { return Vec::new() };
        for leaving in &mut self.leaving {
            if leaving.progress == Progress::Unsafe && left.contains(&leaving.text.id) {
                leaving.progress = Progress::Waits;
            }
        }
        let shown: Vec<Received> = self.arriving.drain(..arrived.min(self.arriving.len())).collect();
        for text in &shown {
            self.confirm(text.from, text.text.id);
            self.waiting.0.push_back(text.clone());
        }
        shown
    }
}

/// Whether a refusal is about the moment and not about the text.
fn may_pass(result: ResultCode) -> bool {
    matches!(result, ResultCode::RATE_LIMITED | ResultCode::SERVER_BUSY | ResultCode::SERVER_NOT_READY)
}

impl Leaving {
    fn new(text: Content, progress: Progress) -> Self {
        Self { text, progress, tick: Tick::NONE, not_now: None }
    }

    fn is_sent(&self) -> bool {
        matches!(self.progress, Progress::Sent(_))
    }

    /// When it has to be sent again for want of a tick.
    fn overdue_at(&self) -> Option<Time> {
        match self.progress {
            Progress::Sent(at) if self.tick == Tick::NONE => Some(at.after(TICK_PATIENCE)),
            _ => None,
        }
    }
}
