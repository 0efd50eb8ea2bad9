//! What a test itself saw of a chat, apart from anything a client or server remembers.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use tokio::sync::{Notify, watch};
use xmmep::client::Event;
use xmmep::messages::chat::Tick;
use xmmep::types::{MsgId, UserId};

/// All of it.
#[derive(Default)]
pub struct Record {
    state: Mutex<Seen>,
    pub kill_now: Notify,
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct Seen {
    sent: Vec<(UserId, UserId, MsgId)>,
    ticks: HashMap<MsgId, Tick>,
    shown: Vec<(UserId, UserId, MsgId)>,
    ticks_left: usize,
}

/// A message its sender has seen a tick of.
#[derive(Clone, Copy, Debug)]
pub struct Ticked {
    pub from: UserId,
    pub to: UserId,
    pub id: MsgId,
    pub tick: Tick,
}

impl Record {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.state.lock().expect("no holder panics")
    }

    pub fn sent(&self, from: UserId, to: UserId, id: MsgId) {
        self.seen().sent.push((from, to, id));
    }

    pub fn ticks_until_kill(&self, ticks: usize) {
        self.seen().ticks_left = ticks;
    }

    pub fn event(&self, me: UserId, event: &Event) {
        let mut seen = self.seen();
        match event {
            Event::Text(text) => seen.shown.push((text.from, me, text.text.id)),
            Event::Tick(tick) => {
                let known = seen.ticks.entry(tick.id).or_insert(Tick::NONE);
                *known = tick.tick.max(*known);
                seen.ticks_left = seen.ticks_left.saturating_sub(1);
                if seen.ticks_left == 0 {
                    self.kill_now.notify_one();
                }
            }
            _ => return,
        }
        drop(seen);
        self.news.send_modify(|news| *news += 1);
    }

    pub fn undelivered(&self) -> Vec<(UserId, UserId, MsgId, Tick)> {
        let seen = self.seen();
        let tick = |id| seen.ticks.get(id).copied().unwrap_or_default();
        let open = seen.sent.iter().filter(|(.., id)| tick(id) != Tick::DELIVERED);
        open.map(|(from, to, id)| (*from, *to, *id, tick(id))).collect()
    }

    pub async fn wait_until_all_is_delivered(&self) {
        self.until(|record| record.undelivered().is_empty()).await;
    }

    /// Waits until it is so.
    pub async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        let mut news = self.news.subscribe();
        while !is_so(self) {
            news.changed().await.expect("the sender is in the record");
        }
    }

    pub fn ticked(&self) -> Vec<Ticked> {
        let seen = self.seen();
        let ticked = seen.sent.iter().filter_map(|(from, to, id)| {
            let tick = seen.ticks.get(id).copied().filter(|tick| *tick > Tick::NONE)?;
            Some(Ticked { from: *from, to: *to, id: *id, tick })
        });
        ticked.collect()
    }

    pub async fn wait_for_ticks(&self, count: usize) {
        self.until(|record| record.ticked().len() >= count).await;
    }

    pub async fn wait_until_ticked(&self) {
        self.until(|record| record.ticked().len() >= record.seen().sent.len()).await;
    }

    pub async fn wait_until_shown(&self, count: usize) {
        self.until(|record| record.seen().shown.len() >= count).await;
    }

    pub fn was_shown(&self, from: UserId, to: UserId, id: MsgId) -> bool {
        self.seen().shown.contains(&(from, to, id))
    }

    /// What was shown here was shown once, and in the order in which it was sent.
    pub fn check_order(&self, sent: &Self) {
        let order: HashMap<MsgId, usize> =
            sent.seen().sent.iter().enumerate().map(|(place, (.., id))| (*id, place)).collect();
        let mut last: HashMap<(UserId, UserId), usize> = HashMap::new();
        for (from, to, id) in &self.seen().shown {
            let place = order[id];
            let before = last.insert((*from, *to), place);
            assert!(before.is_none_or(|before| before < place), "from {from} to {to}: {id} comes late or again");
        }
    }

    /// Everything sent was shown once, in its sender's order, and nothing else was.
    pub fn check(&self) -> String {
        let seen = self.seen();
        let mut pairs: HashMap<(UserId, UserId), (Vec<MsgId>, Vec<MsgId>)> = HashMap::new();
        for (from, to, id) in &seen.sent {
            pairs.entry((*from, *to)).or_default().0.push(*id);
        }
        for (from, to, id) in &seen.shown {
            pairs.entry((*from, *to)).or_default().1.push(*id);
        }
        for ((from, to), (sent, shown)) in &pairs {
            let twice: Vec<_> =
                shown.iter().filter(|id| shown.iter().filter(|other| other == id).count() > 1).collect();
            assert!(twice.is_empty(), "shown twice from {from} to {to}: {twice:?}");
            let known: HashSet<_> = shown.iter().collect();
            let lost: Vec<_> = sent.iter().filter(|id| !known.contains(id)).collect();
            assert!(lost.is_empty(), "lost from {from} to {to}: {lost:?}");
            assert_eq!(sent, shown, "another order from {from} to {to}");
        }
        format!("{} texts delivered, once and in order", seen.sent.len())
    }
}
