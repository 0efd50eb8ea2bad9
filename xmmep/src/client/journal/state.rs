//! What all entries of a journal add up to. How they are kept is `file.rs`.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::{Entry, Received};
use crate::messages::chat::{Content, TargetKind};
use crate::types::{MsgId, UserId};

/// Ids remembered per sender. The server repeats a text until it is confirmed and holds at most 1,000 per user; ten times that
/// covers every repetition a confirmed text can still have on its way.
pub const SHOWN_MAX: usize = 10_000;

/// Senders whose ids are remembered; beyond that the one who wrote nothing for the longest time is forgotten. Four
/// times as many as a buddy list has room for.
pub const CONVERSATIONS_MAX: usize = 4_096;

/// What a journal holds.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// Texts without a final tick, in the order they were written.
    pub(in crate::client) outgoing: VecDeque<Content>,
    /// The order number last used per target.
    pub(in crate::client) orders: BTreeMap<(TargetKind, u64), u64>,
    /// Texts that came in and that the application has not dealt with, oldest first.
    pub(in crate::client) waiting: Waiting,
    /// Ids that came in.
    pub(in crate::client) shown: Shown,
    /// What was wrong with the file, for people; empty if nothing was.
    pub(in crate::client) damage: String,
}

impl Remembered {
    /// Texts without a final tick, in the order they were written.
    pub fn outgoing(&self) -> impl ExactSizeIterator<Item = &Content> {
        self.outgoing.iter()
    }

    /// Texts that came in and that the application has not dealt with, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Received> {
        self.waiting.0.iter()
    }

    /// Whether that text came in before.
    #[must_use]
    pub fn has_shown(&self, from: UserId, id: MsgId) -> bool {
        self.shown.contains(from, id)
    }

    /// What was wrong with the journal and what was done about it, for people; empty if nothing was.
    #[must_use]
    pub fn damage(&self) -> &str {
        &self.damage
    }

    /// Adds one fact.
    pub fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Outgoing(text) => {
                let last = self.orders.entry((text.target_kind, text.target)).or_default();
                *last = text.order.max(*last);
                if !self.outgoing.iter().any(|other| other.id == text.id) {
                    self.outgoing.push_back(text);
                }
            }
            Entry::Final(id) => self.outgoing.retain(|text| text.id != id),
            Entry::Received(text) => {
                if self.shown.insert(text.from, text.text.id) {
                    self.waiting.0.push_back(text);
                }
            }
            Entry::Taken(from, id) => {
                self.waiting.take(from, id);
            }
            Entry::Shown(from, ids) => ids.into_iter().for_each(|id| {
                self.shown.insert(from, id);
            }),
            Entry::Order(kind, target, order) => {
                let last = self.orders.entry((kind, target)).or_default();
                *last = order.max(*last);
            }
        }
    }

    /// The fewest entries that add up to the same.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let orders = self.orders.iter().map(|((kind, target), order)| Entry::Order(*kind, *target, *order));
        // In the order in which they were last heard, so that who was silent longest is still the first to be forgotten.
        // Ids of texts that wait come back with the texts, behind those that were taken: a little later than in truth.
        let shown = self.shown.oldest_first().into_iter().map(|(from, ids)| {
            let waits = |id: &&MsgId| self.waiting.0.iter().any(|text| text.from == from && text.text.id == **id);
            Entry::Shown(from, ids.iter().filter(|id| !waits(id)).copied().collect())
        });
        let received = self.waiting.0.iter().cloned().map(Entry::Received);
        let outgoing = self.outgoing.iter().cloned().map(Entry::Outgoing);
        orders.chain(shown).chain(received).chain(outgoing).collect()
    }
}

/// Texts that came in and that the application has not dealt with.
#[derive(Clone, Debug, Default)]
pub struct Waiting(pub(in crate::client) VecDeque<Received>);

impl Waiting {
    /// Forgets one; whether it was there.
    pub(in crate::client) fn take(&mut self, from: UserId, id: MsgId) -> bool {
        let Some(at) = self.0.iter().position(|text| text.from == from && text.text.id == id) else { return false };
        self.0.remove(at);
        true
    }
}

/// Ids that came in, per sender.
#[derive(Clone, Debug, Default)]
pub(in crate::client) struct Shown {
    senders: HashMap<UserId, Ids>,
    clock: u64,
}

#[derive(Clone, Debug, Default)]
struct Ids {
    order: VecDeque<MsgId>,
    set: HashSet<MsgId>,
    heard: u64,
}

impl Shown {
    /// Whether that text came in before.
    pub(in crate::client) fn contains(&self, from: UserId, id: MsgId) -> bool {
        self.senders.get(&from).is_some_and(|ids| ids.set.contains(&id))
    }

    /// Remembers a text; whether it is new.
    pub(in crate::client) fn insert(&mut self, from: UserId, id: MsgId) -> bool {
        if !self.senders.contains_key(&from) && self.senders.len() >= CONVERSATIONS_MAX {
            let silent = self.senders.iter().min_by_key(|(_, ids)| ids.heard).map(|(user, _)| *user);
            silent.and_then(|user| self.senders.remove(&user));
        }
        self.clock = self.clock.saturating_add(1);
        let ids = self.senders.entry(from).or_default();
        ids.heard = self.clock;
        if !ids.set.insert(id) {
            return false;
        }
        ids.order.push_back(id);
        if ids.order.len() > SHOWN_MAX {
            ids.order.pop_front().inspect(|oldest| {
                ids.set.remove(oldest);
            });
        }
        true
    }

    fn oldest_first(&self) -> Vec<(UserId, &VecDeque<MsgId>)> {
        let mut senders: Vec<_> = self.senders.iter().collect();
        senders.sort_by_key(|(_, ids)| ids.heard);
        senders.into_iter().map(|(user, ids)| (*user, &ids.order)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Sample, Sampler};

    fn id(n: usize) -> MsgId {
        MsgId((n as u128).to_be_bytes())
    }

    #[test]
    fn ten_thousand_ids_of_a_sender_are_remembered_and_the_oldest_leaves_first() {
        let mut shown = Shown::default();
        assert!((0..=SHOWN_MAX).all(|n| shown.insert(UserId(1), id(n))));
        assert!(!shown.contains(UserId(1), id(0)));
        assert!((1..=SHOWN_MAX).all(|n| shown.contains(UserId(1), id(n))));
        assert!(!shown.contains(UserId(2), id(1)), "another sender's id is another id");
    }

    #[test]
    fn many_senders_cannot_make_it_grow_and_the_silent_one_is_forgotten() {
        let mut shown = Shown::default();
        (0..CONVERSATIONS_MAX as u64).for_each(|user| assert!(shown.insert(UserId(user), id(1))));
        assert!(!shown.insert(UserId(0), id(1)), "heard again");
        assert!(shown.insert(UserId(1_000_000), id(1)));
        assert_eq!(shown.senders.len(), CONVERSATIONS_MAX);
        assert!(shown.contains(UserId(0), id(1)) && !shown.contains(UserId(1), id(1)));
    }

    #[test]
    fn compacting_keeps_what_was_remembered() {
        let mut sampler = Sampler::new(7);
        let mut remembered = Remembered::default();
        let texts: Vec<Content> = (0..20).map(|_| Content::sample(&mut sampler)).collect();
        for (n, text) in texts.iter().enumerate() {
            remembered.apply(Entry::Outgoing(text.clone()));
            let text = Content { id: id(n), ..text.clone() };
            let received = Received { from: UserId(n as u64 % 3), at: Default::default(), from_store: false, text };
            remembered.apply(Entry::Received(received));
        }
        texts.iter().step_by(2).for_each(|text| remembered.apply(Entry::Final(text.id)));
        (0..7).for_each(|n| remembered.apply(Entry::Taken(UserId(n as u64 % 3), id(n))));

        let mut again = Remembered::default();
        remembered.entries().into_iter().for_each(|entry| again.apply(entry));
        assert_eq!(again.outgoing, remembered.outgoing);
        assert_eq!(again.orders, remembered.orders);
        assert_eq!(again.waiting.0, remembered.waiting.0);
        assert!((0..20).all(|n| again.has_shown(UserId(n as u64 % 3), id(n))));
    }
}
