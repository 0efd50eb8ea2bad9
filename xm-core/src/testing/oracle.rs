//! The oracle: an observer who sees what every sender wrote and what every recipient was shown, and says whether the
//! delivery promise was kept. Knows nothing of how.

use std::collections::{BTreeMap, BTreeSet};

use xmmep::messages::chat::{Tick, TxtTickNotify};
use xmmep::result_code::ResultCode;
use xmmep::types::{MsgId, UserId};

/// Everything that was written, ticked and shown.
#[derive(Debug, Default)]
pub struct Oracle {
    sent: BTreeMap<MsgId, Sent>,
    last_number: u64,
    /// The number of the text shown last, per sender and recipient.
    order: BTreeMap<(UserId, UserId), u64>,
    violations: Vec<String>,
}

#[derive(Debug)]
struct Sent {
    from: UserId,
    to: UserId,
    number: u64,
    body: Box<str>,
    tick: Tick,
    why: ResultCode,
    shown: bool,
}

impl Oracle {
    pub(super) fn sent(&mut self, from: UserId, to: UserId, id: MsgId, body: &str) {
        self.last_number += 1;
        let (tick, why) = (Tick::NONE, ResultCode::SUCCESS);
        let sent = Sent { from, to, number: self.last_number, body: body.into(), tick, why, shown: false };
        if self.sent.insert(id, sent).is_some() {
            self.violations.push(format!("the id {id} was drawn twice"));
        }
    }

    /// A text was shown. `again`: to an application that died before it said it had dealt with it.
    pub(super) fn shown(&mut self, by: UserId, from: UserId, id: MsgId, body: &str, again: bool) {
        let Some(sent) = self.sent.get_mut(&id) else {
            self.violations.push(format!("{by} was shown {id}, which nobody sent"));
            return;
        };
        if (sent.from, sent.to, &*sent.body) != (from, by, body) {
            self.violations.push(format!("{by} was shown {id} from {from}, which is not as {} wrote it", sent.from));
        }
        if sent.shown {
            if !again {
                self.violations.push(format!("{by} was shown {id} (text {}) twice", sent.number));
            }
            return;
        }
        sent.shown = true;
        let last = self.order.entry((from, by)).or_default();
        if *last > sent.number {
            self.violations.push(format!("{by} was shown text {} of {from} after text {last}", sent.number));
        }
        *last = sent.number.max(*last);
    }

    pub(super) fn ticked(&mut self, by: UserId, notice: &TxtTickNotify) {
        let (id, tick) = (notice.id, notice.tick);
        let Some(sent) = self.sent.get_mut(&id).filter(|sent| sent.from == by) else {
            self.violations.push(format!("{by} got a tick for {id}, which he did not send"));
            return;
        };
        if matches!(sent.tick, Tick::REFUSED | Tick::EXPIRED) && tick != sent.tick {
            self.violations.push(format!("{id} (text {}) was {:?} and then {tick:?}", sent.number, sent.tick));
        }
        (sent.tick, sent.why) = (sent.tick.max(tick), notice.result);
    }

    /// What went wrong so far, whatever comes: shown twice, shown without being sent, shown out of order, a tick that
    /// took back another.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Ticked, not reported as refused or expired, and not shown. Once all is healed and drained there must be none.
    #[must_use]
    pub fn lost(&self) -> Vec<MsgId> {
        let lost = |sent: &Sent| matches!(sent.tick, Tick::STORED | Tick::DELIVERED | Tick::READ) && !sent.shown;
        self.sent.iter().filter(|(_, sent)| lost(sent)).map(|(id, _)| *id).collect()
    }

    /// Texts whose sender was told that they are not delivered, with the reason.
    #[must_use]
    pub fn refused(&self) -> Vec<(MsgId, ResultCode)> {
        let refused = self.sent.iter().filter(|(_, sent)| sent.tick == Tick::REFUSED);
        refused.map(|(id, sent)| (*id, sent.why)).collect()
    }

    /// Texts that were shown although their sender was told that they are not delivered. A block that meets a text on
    /// its way may do that; nothing else should.
    #[must_use]
    pub fn refused_and_shown(&self) -> Vec<MsgId> {
        let both = |sent: &Sent| sent.shown && matches!(sent.tick, Tick::REFUSED | Tick::EXPIRED);
        self.sent.iter().filter(|(_, sent)| both(sent)).map(|(id, _)| *id).collect()
    }

    /// Texts written so far.
    #[must_use]
    pub fn written(&self) -> usize {
        self.sent.len()
    }

    /// Texts shown so far.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.sent.values().filter(|sent| sent.shown).count()
    }

    /// Pairs of users between whom something was shown.
    #[must_use]
    pub fn pairs(&self) -> BTreeSet<(UserId, UserId)> {
        self.order.keys().copied().collect()
    }

    /// Fails if the promise was broken.
    ///
    /// # Panics
    /// Then, with what was broken.
    pub fn assert_kept(&self) {
        assert!(self.violations.is_empty(), "the delivery promise was broken: {:#?}", self.violations);
        let lost = self.lost();
        assert!(lost.is_empty(), "{} texts were ticked and never shown: {lost:?}", lost.len());
    }
}
