//! Whom the Router sent where a moment ago. When the Presence says such a user is online, the Router need not ask the
//! store once more.

use std::sync::Mutex;

use xmmep::types::{PresenceId, Time, UserId};

use super::lock;

/// Places in the table, 96 KiB: logins that are under way at once. Of two users in one place the earlier is forgotten,
/// and the store is asked about that one.
const PLACES: usize = 4_096;

#[derive(Clone, Copy)]
struct Admission {
    user: UserId,
    home: Option<PresenceId>,
    until: Time,
}

/// The last lookups of active users, each for as long as the ticket that was given out.
pub(super) struct Admitted(Mutex<Box<[Admission]>>);

impl Admitted {
    pub(super) fn new() -> Self {
        let nobody = Admission { user: UserId(0), home: None, until: Time::ZERO };
        Self(Mutex::new(vec![nobody; PLACES].into()))
    }

    /// A lookup found where `user` lives, or nobody. The same steps either way.
    pub(super) fn remember(&self, user: UserId, home: Option<PresenceId>, until: Time) {
        lock(&self.0)[place(user)] = Admission { user, home, until };
    }

    /// Whether `user` was sent to `presence` and the ticket is still good.
    pub(super) fn sent_to(&self, presence: PresenceId, user: UserId, now: Time) -> bool {
        let last = lock(&self.0)[place(user)];
        last.user == user && last.home == Some(presence) && now < last.until
    }
}

/// Always inside the table.
fn place(user: UserId) -> usize {
    user.0 as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: PresenceId = PresenceId { cluster: 1, presence: 1 };
    const THERE: PresenceId = PresenceId { cluster: 1, presence: 2 };
    const UNTIL: Time = Time::from_micros(1_000);

    #[test]
    fn a_user_counts_where_he_was_sent_until_the_ticket_is_used_up() {
        let admitted = Admitted::new();
        admitted.remember(UserId(7), Some(HERE), UNTIL);
        for (presence, user, now, sent) in [
            (HERE, 7, 999, true),
            (HERE, 7, 1_000, false),
            (THERE, 7, 999, false),
            (HERE, 8, 999, false),
            (HERE, 7 + PLACES as u64, 999, false),
            (HERE, 0, 999, false),
        ] {
            assert_eq!(
                admitted.sent_to(presence, UserId(user), Time::from_micros(now)),
                sent,
                "{presence} {user} {now}"
            );
        }
    }

    #[test]
    fn a_later_lookup_takes_the_place_of_an_earlier_one() {
        let admitted = Admitted::new();
        admitted.remember(UserId(7), Some(HERE), UNTIL);
        admitted.remember(UserId(7 + PLACES as u64), Some(HERE), UNTIL);
        assert!(!admitted.sent_to(HERE, UserId(7), Time::ZERO));
        assert!(admitted.sent_to(HERE, UserId(7 + PLACES as u64), Time::ZERO));
        admitted.remember(UserId(7), None, UNTIL);
        assert!(!admitted.sent_to(HERE, UserId(7), Time::ZERO), "who is not active lives nowhere");
    }
}
