//! Collecting the parts of a login: LoginRes1, the lists, LoginResEnd with the totals. What becomes of them is
//! `roster.rs`; who asks for them is `machine.rs`.

use crate::error::FrameError;
use crate::frame::Frame;
use crate::message::Message;
use crate::messages::login::{Blocked, Buddy, Group};
use crate::messages::login::{LoginRes1, LoginRes2, LoginRes3, LoginRes4, LoginRes5, LoginRes6, LoginResEnd};
use crate::messages::{OnlineBuddy, Part, Room};

use super::roster::Roster;

/// Most entries of any list in a login: what the largest of them may have on the server, twice. A list that says
/// it is longer ends the login.
pub const LIST_MAX: u32 = 2_000;

/// Why the parts do not make a login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("{0} came before LoginRes1, or twice")]
    OutOfTurn(&'static str),
    #[error("the list of {list} has {got} entries where {announced} were announced")]
    Total { list: &'static str, got: usize, announced: u32 },
    #[error("part {got} of the list of {list} came where {expected} was due")]
    Part { list: &'static str, expected: u16, got: u16 },
    #[error("the list of {list} changed its mind about its length, or has more than {LIST_MAX} entries")]
    Length { list: &'static str },
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// One list on its way.
#[derive(Debug)]
struct Parts<T> {
    name: &'static str,
    entries: Vec<T>,
    next: u16,
    head: Option<(u16, u32)>,
}

impl<T> Parts<T> {
    fn new(name: &'static str) -> Self {
        Self { name, entries: Vec::new(), next: 0, head: None }
    }

    fn add(&mut self, part: Part, entries: Vec<T>) -> Result<(), Broken> {
        let head = *self.head.get_or_insert((part.parts, part.total));
        if part.part != self.next || part.part >= part.parts {
            return Err(Broken::Part { list: self.name, expected: self.next, got: part.part });
        }
        let len = self.entries.len().saturating_add(entries.len());
        if head != (part.parts, part.total) || part.total > LIST_MAX || len > LIST_MAX as usize {
            return Err(Broken::Length { list: self.name });
        }
        self.next = self.next.saturating_add(1);
        self.entries.extend(entries);
        Ok(())
    }

    /// The list, if it is whole.
    fn finish(self, announced: u32) -> Result<Vec<T>, Broken> {
        let got = self.entries.len();
        if let Some((parts, total)) = self.head {
            if self.next != parts {
                return Err(Broken::Part { list: self.name, expected: self.next, got: parts });
            }
            if total != announced {
                return Err(Broken::Total { list: self.name, got, announced: total });
            }
        }
        let whole = u32::try_from(got).is_ok_and(|got| got == announced);
        if whole { Ok(self.entries) } else { Err(Broken::Total { list: self.name, got, announced }) }
    }
}

/// A login on its way.
#[derive(Debug)]
pub(super) struct Login {
    first: Option<LoginRes1>,
    groups: Parts<Group>,
    buddies: Parts<Buddy>,
    blocked: Parts<Blocked>,
    rooms: Parts<Room>,
    online: Parts<OnlineBuddy>,
}

impl Login {
    pub(super) fn new() -> Self {
        Self {
            first: None,
            groups: Parts::new("groups"),
            buddies: Parts::new("buddies"),
            blocked: Parts::new("blocked"),
            rooms: Parts::new("rooms"),
            online: Parts::new("online buddies"),
        }
    }

    /// Whether LoginRes1 is there: from then on the server takes us for the user.
    pub(super) fn is_admitted(&self) -> bool {
        self.first.is_some()
    }

    /// Takes a message in; the end, once it is there. Messages that are no part of a login are left alone: `None`.
    pub(super) fn take(&mut self, frame: &Frame) -> Option<Result<Option<LoginResEnd>, Broken>> {
        let code = frame.header.code;
        if code == LoginRes1::CODE {
            if self.is_admitted() {
                return Some(Err(Broken::OutOfTurn(LoginRes1::NAME)));
            }
            let first = frame.message().map_err(Broken::from);
            return Some(first.map(|first| self.first = Some(first)).map(|()| None));
        }
        let taken = match code {
            LoginRes2::CODE => self.part(frame, |login, m: LoginRes2| login.groups.add(m.part, m.groups.into_vec())),
            LoginRes3::CODE => self.part(frame, |login, m: LoginRes3| login.buddies.add(m.part, m.buddies.into_vec())),
            LoginRes4::CODE => self.part(frame, |login, m: LoginRes4| login.blocked.add(m.part, m.blocked.into_vec())),
            LoginRes5::CODE => self.part(frame, |login, m: LoginRes5| login.rooms.add(m.part, m.rooms.into_vec())),
            LoginRes6::CODE => self.part(frame, |login, m: LoginRes6| login.online.add(m.part, m.online.into_vec())),
            LoginResEnd::CODE if self.is_admitted() => return Some(frame.message().map(Some).map_err(Broken::from)),
            LoginResEnd::CODE => Err(Broken::OutOfTurn(LoginResEnd::NAME)),
            _ => return None,
        };
        Some(taken.map(|()| None))
    }

    fn part<M: Message>(
        &mut self,
        frame: &Frame,
        add: impl FnOnce(&mut Self, M) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        if !self.is_admitted() {
            return Err(Broken::OutOfTurn(M::NAME));
        }
        add(self, frame.message()?)
    }

    /// Everything arrived: checks the totals and brings the roster up to date.
    pub(super) fn finish(self, end: &LoginResEnd, roster: &mut Roster) -> Result<LoginRes1, Broken> {
        let first = self.first.ok_or(Broken::OutOfTurn(LoginResEnd::NAME))?;
        let rooms = self.rooms.finish(end.rooms)?;
        let online = self.online.finish(end.online)?;
        if !first.roster_unchanged {
            roster.groups = sorted(self.groups.finish(end.groups)?, |group| group.group);
            roster.buddies = sorted(self.buddies.finish(end.buddies)?, |buddy| buddy.user);
            roster.blocked = sorted(self.blocked.finish(end.blocked)?, |blocked| blocked.user);
        } else if end.roster_version != roster.version {
            return Err(Broken::OutOfTurn("\"roster unchanged\" for another version"));
        }
        roster.version = end.roster_version;
        roster.rooms = sorted(rooms, |room| room.room);
        roster.online = sorted(online, |online| online.user);
        // Whoever still asks is told again after ClientReady.
        roster.asking = Vec::new();
        Ok(first)
    }
}

fn sorted<T, K: Ord>(mut list: Vec<T>, key_of: impl Fn(&T) -> K) -> Vec<T> {
    list.sort_by_key(&key_of);
    list.dedup_by_key(|entry| key_of(entry));
    list.shrink_to_fit();
    list
}
