//! The sessions of one lane: found by receiver index, timed, and emptied into datagrams. What is in the messages is
//! nobody's business here.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use slab::Slab;
use xmmep::session::{Admission, CloseReason, DATAGRAM_MAX, Session};
use xmmep::types::{Time, UserId};

use crate::deadlines::{Deadlines, Registered};
use crate::engine::Datagram;
use crate::limits::{LINGER, LOGIN_TIMEOUT, SESSIONS_PER_LANE_MAX, STRANGERS_MAX};
use crate::outbox::{LaneId, SessionRef};

/// Bytes that are allocated at a time for datagrams: a batch of small ones.
const BLOCK: usize = 16 * 1024;

/// Places kept for those to come, beside three for each that is taken.
const SPARE_MAX: usize = 4_096;

/// The sessions of one lane.
pub(crate) struct Lane {
    id: LaneId,
    /// Each in a box, so that its memory is free when it leaves, whoever stays.
    sessions: Slab<Box<Entry>>,
    serial: u64,
    strangers: usize,
    /// Sessions with something to send or a new deadline; each once.
    touched: Vec<u32>,
    deadlines: Deadlines,
    buffer: Vec<u8>,
    /// Datagrams are parts of this, so that their memory is used again once they are sent.
    block: BytesMut,
}

/// A session and what the lane knows of it.
pub(crate) struct Entry {
    pub(crate) session: Session,
    serial: u64,
    /// Whose it is; 0 before login.
    pub(crate) user: UserId,
    /// `None` for those who have logged in and stay.
    passing: Option<Box<Passing>>,
    /// Messages that wait for the handler of an earlier one; `None` while no handler waits.
    #[expect(clippy::box_collection, reason = "8 bytes in each session instead of 32, for what few ever have")]
    pub(crate) waiting: Option<Box<VecDeque<Bytes>>>,
    registered: Registered,
    touched: bool,
}

/// What is to be known of a session without a login, or of one that is being closed.
struct Passing {
    admission: Option<Admission>,
    /// When it ends, whatever happens.
    ends_at: Time,
    /// Why it closes, once everything sent before was acknowledged.
    closing: Option<CloseReason>,
}

impl Entry {
    /// Whether the role still hears this session.
    pub(crate) fn is_open(&self) -> bool {
        self.closing().is_none() && !self.session.is_over()
    }

    /// What the Router said of whoever has not logged in yet.
    pub(crate) fn admission(&self) -> Option<&Admission> {
        self.passing.as_ref()?.admission.as_ref()
    }

    fn closing(&self) -> Option<CloseReason> {
        self.passing.as_ref()?.closing
    }

    fn ends_at(&self) -> Option<Time> {
        self.passing.as_ref().map(|passing| passing.ends_at)
    }

    fn deadline(&self) -> Option<Time> {
        match (self.session.deadline(), self.ends_at()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// What [`Lane::on_deadline`] found.
pub(crate) struct Gone {
    pub(crate) session: SessionRef,
    pub(crate) user: UserId,
}

impl Lane {
    pub(crate) fn new(id: LaneId) -> Self {
        Self {
            id,
            sessions: Slab::new(),
            serial: 0,
            strangers: 0,
            touched: Vec::new(),
            deadlines: Deadlines::new(),
            buffer: Vec::with_capacity(DATAGRAM_MAX),
            block: BytesMut::new(),
        }
    }

    /// How many sessions there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// The index of the next session, if there is room for one more stranger.
    pub(crate) fn next_index(&self) -> Option<u32> {
        let slot = u32::try_from(self.sessions.vacant_key()).ok().filter(|slot| *slot < SESSIONS_PER_LANE_MAX)?;
        (self.strangers < STRANGERS_MAX).then_some((u32::from(self.id.0) << 24) | slot)
    }

    /// Keeps a session that was opened under [`next_index`](Self::next_index).
    pub(crate) fn insert(&mut self, now: Time, session: Session, admission: Option<Admission>) {
        let index = session.index();
        self.serial += 1;
        self.strangers += 1;
        let slot = self.sessions.insert(Box::new(Entry {
            session,
            serial: self.serial,
            user: UserId(0),
            passing: Some(Box::new(Passing { admission, ends_at: now.after(LOGIN_TIMEOUT), closing: None })),
            waiting: None,
            registered: Registered::default(),
            touched: false,
        }));
        debug_assert_eq!(slot, slot_of(index), "the index given to the client names the slot");
        self.touch(index);
    }

    /// The session with that index.
    pub(crate) fn get(&mut self, index: u32) -> Option<&mut Entry> {
        let entry = self.sessions.get_mut(slot_of(index)).filter(|entry| entry.session.index() == index);
        entry.map(AsMut::as_mut)
    }

    /// The session, if it is still the same one.
    pub(crate) fn resolve(&mut self, session: SessionRef) -> Option<&mut Entry> {
        self.get(session.index).filter(|entry| entry.serial == session.serial)
    }

    /// How others may name the session with that index.
    pub(crate) fn reference(&self, index: u32) -> Option<SessionRef> {
        let entry = self.sessions.get(slot_of(index))?;
        Some(SessionRef { index, serial: entry.serial })
    }

    /// The session has something to send, or its deadline may have changed.
    pub(crate) fn touch(&mut self, index: u32) {
        if let Some(entry) = self.sessions.get_mut(slot_of(index))
            && !std::mem::replace(&mut entry.touched, true)
        {
            self.touched.push(index);
        }
    }

    /// The session now belongs to `user`; false if it is no longer there.
    pub(crate) fn bind(&mut self, session: SessionRef, user: UserId) -> bool {
        let Some(entry) = self.resolve(session) else { return false };
        let was_stranger = std::mem::replace(&mut entry.user, user) == UserId(0);
        entry.session.promote();
        entry.passing.take_if(|passing| passing.closing.is_none());
        self.strangers -= usize::from(was_stranger);
        self.touch(session.index);
        true
    }

    /// Ends a session: nothing is heard from it any more, and it goes once what was sent before has been acknowledged, or
    /// [`LINGER`] has passed.
    pub(crate) fn close(&mut self, now: Time, session: SessionRef, reason: CloseReason) {
        let Some(entry) = self.resolve(session) else { return };
        entry.waiting = None;
        let closing = Some(entry.closing().unwrap_or(reason));
        entry.passing = Some(Box::new(Passing { admission: None, ends_at: now.after(LINGER), closing }));
        self.touch(session.index);
    }

    /// Takes a session out.
    pub(crate) fn remove(&mut self, index: u32) -> Option<Gone> {
        let session = self.reference(index)?;
        let entry = self.sessions.try_remove(slot_of(index))?;
        self.strangers -= usize::from(entry.user == UserId(0));
        // The role closed it and knows; or nobody had logged in.
        (entry.closing().is_none() && entry.user != UserId(0)).then_some(Gone { session, user: entry.user })
    }

    /// When [`on_deadline`](Self::on_deadline) has something to do.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.deadlines.next()
    }

    /// Does what is due; `gone` gets the users whose session ended.
    pub(crate) fn on_deadline(&mut self, now: Time, gone: &mut Vec<Gone>) {
        while let Some(due) = self.deadlines.pop(now) {
            let index = due.index;
            let Some(entry) = self.sessions.get_mut(slot_of(index)) else { continue };
            if !entry.registered.take(due) {
                continue;
            }
            if let Some(later) = entry.deadline().filter(|deadline| *deadline > now) {
                self.deadlines.register(now, index, &mut entry.registered, later);
                continue;
            }
            let ended = entry.session.on_deadline(now).is_some();
            let closing_late = entry.ends_at().is_some_and(|ends_at| ends_at <= now);
            if ended {
                gone.extend(self.remove(index));
                continue;
            }
            if closing_late {
                entry.session.close(entry.closing().unwrap_or(CloseReason::NOT_LOGGED_IN));
            }
            self.touch(index);
        }
        self.deadlines.shrink();
        if self.sessions.capacity() > 4 * self.sessions.len() + SPARE_MAX {
            self.sessions.shrink_to_fit();
        }
    }

    /// Empties the touched sessions into datagrams and registers their deadlines; `gone` gets the users whose session
    /// ended meanwhile.
    pub(crate) fn flush(&mut self, now: Time, out: &mut Vec<Datagram>, gone: &mut Vec<Gone>) {
        let mut touched = std::mem::take(&mut self.touched);
        for index in touched.drain(..) {
            let Some(entry) = self.sessions.get_mut(slot_of(index)) else { continue };
            entry.touched = false;
            if let Some(reason) = entry.closing()
                && entry.session.unacknowledged() == 0
            {
                entry.session.close(reason);
            }
            while let Some(to) = entry.session.poll_transmit(now, &mut self.buffer) {
                if self.block.capacity() < self.buffer.len() {
                    self.block.reserve(BLOCK);
                }
                self.block.extend_from_slice(&self.buffer);
                out.push(Datagram { to, bytes: self.block.split().freeze() });
            }
            match entry.deadline() {
                _ if entry.session.is_over() && entry.session.deadline().is_none() => gone.extend(self.remove(index)),
                Some(deadline) => self.deadlines.register(now, index, &mut entry.registered, deadline),
                None => {}
            }
        }
        self.touched = touched;
    }

    /// Every session of a user or stranger, to close them at shutdown.
    pub(crate) fn all(&self) -> Vec<SessionRef> {
        let sessions = self.sessions.iter();
        sessions.map(|(_, entry)| SessionRef { index: entry.session.index(), serial: entry.serial }).collect()
    }
}

fn slot_of(index: u32) -> usize {
    (index & (SESSIONS_PER_LANE_MAX - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_with_all_the_lane_knows_of_it_fits_the_allocators_class_below_half_a_kibibyte() {
        assert!(size_of::<Entry>() <= 448, "{} bytes", size_of::<Entry>());
    }
}
