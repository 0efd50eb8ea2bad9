//! Register's outbox: which relay gets a mail, when it is tried again, when it is given up. Decisions alone: the daemon
//! takes mails from the queue, speaks SMTP and writes the verdict back.
//!
//! A round: take the mails that are due; give each to the relays in the order of [`Relays::order`] until one says
//! something other than [`Answer::PutOff`] or [`Answer::Unreachable`]; tell [`Relays::heard`] of each answer; then do
//! what [`verdict`] says.

use std::time::Duration;

use xm_store::records::Mail;
use xmmep::bounded::Text;
use xmmep::types::{Time, WallTime};

/// How long a mail is tried before it is given up (RFC 5321 section 4.5.4.1 asks for 4 to 5 days).
pub const TRIED_FOR: Duration = Duration::from_secs(5 * 24 * 3_600);
/// A mail is tried at least this often before it is given up, so that a clock that jumps ahead loses none.
pub const ATTEMPTS_MIN: u32 = 10;
/// The pause after the first attempt. Short, because somebody sits in front of a page and waits; greylisting relays
/// take a mail after a minute or five.
pub const PAUSE_FIRST: Duration = Duration::from_secs(60);
/// The longest pause; each is twice the one before, up to this.
pub const PAUSE_MAX: Duration = Duration::from_secs(4 * 3_600);
/// How long a relay that could not be reached is tried last. While it rests, mail goes out by the other one at once
/// instead of waiting for a time-out each.
pub const REST: Duration = Duration::from_secs(300);

/// What became of handing a mail to one relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has the mail: 250 after the final dot, or the file is written.
    Taken,
    /// It works, and does not want the mail now: 4xx to the recipient or the text.
    PutOff(Text<256>),
    /// It cannot be spoken to: no connection, time-out, no TLS, no login, 5xx before a recipient was named.
    Unreachable(Text<256>),
    /// The address or the mail is no good: 5xx to the recipient or the text. No relay is asked after that.
    Refused(Text<256>),
}

/// What is to be done with a mail after a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `MailQueue::sent`.
    Sent,
    /// `MailQueue::retry_at`, with the reason.
    RetryAt(WallTime, Text<256>),
    /// `MailQueue::failed`, with the reason. The operator counts these.
    GiveUp(Text<256>),
}

/// Decides what is to be done with a mail that has been put off `attempts` times before, after the relays gave these
/// answers. No answer at all (there is no relay) counts as being put off.
#[must_use]
pub fn verdict(mail: &Mail, attempts: u32, now: WallTime, answers: &[Answer]) -> Verdict {
    if answers.contains(&Answer::Taken) {
        return Verdict::Sent;
    }
    let reason = match answers.last() {
        Some(Answer::Refused(reason)) => return Verdict::GiveUp(reason.clone()),
        Some(Answer::PutOff(reason) | Answer::Unreachable(reason)) => reason.clone(),
        Some(Answer::Taken) | None => Text::cut("there is no mail relay"),
    };
    let end = mail.created.after(TRIED_FOR);
    let enough = attempts.saturating_add(1) >= ATTEMPTS_MIN;
    if enough && now >= end {
        return Verdict::GiveUp(reason);
    }
    let next = now.after(pause(mail, attempts));
    // The last attempt is made when the time is over, not up to four hours before.
    Verdict::RetryAt(if enough { next.min(end) } else { next }, reason)
}

/// The pause after `attempts` earlier attempts; up to an eighth longer, by the mail's id, so that what was put off
/// together does not come back together.
fn pause(mail: &Mail, attempts: u32) -> Duration {
    let pause = PAUSE_FIRST.saturating_mul(1_u32.checked_shl(attempts).unwrap_or(u32::MAX)).min(PAUSE_MAX);
    pause + pause * u32::from(mail.id.0[0]) / (8 * 256)
}

/// The relays, by their place in the configuration, and which of them rest.
#[derive(Clone, Debug)]
pub struct Relays {
    rests_until: Vec<Option<Time>>,
}

impl Relays {
    /// So many relays, all working as far as we know.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { rests_until: vec![None; count] }
    }

    /// In which order the relays are tried: as configured, those that rest last. A relay whose rest is over is first
    /// in line again and proves itself with the next mail.
    #[must_use]
    pub fn order(&self, now: Time) -> Vec<usize> {
        let rests = |relay: &usize| self.rests_until[*relay].is_some_and(|until| now < until);
        let mut order: Vec<usize> = (0..self.rests_until.len()).collect();
        order.sort_by_key(rests);
        order
    }

    /// A relay gave an answer. Returns whether the operator should be told: it has just begun to rest.
    pub fn heard(&mut self, now: Time, relay: usize, answer: &Answer) -> bool {
        let Some(rests_until) = self.rests_until.get_mut(relay) else { return false };
        let rested = rests_until.is_some();
        *rests_until = matches!(answer, Answer::Unreachable(_)).then(|| now.after(REST));
        rests_until.is_some() && !rested
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmmep::bounded::PrivateText;
    use xmmep::name::Email;
    use xmmep::types::RequestId;

    const CREATED: WallTime = WallTime(1_000_000_000_000);

    fn mail(id: u8) -> Mail {
        Mail {
            id: RequestId([id; 16]),
            to: Email::new("ann@example.org").unwrap(),
            subject: Text::cut("hello"),
            body: PrivateText::default(),
            created: CREATED,
        }
    }

    fn put_off() -> Answer {
        Answer::PutOff(Text::cut("450 try again"))
    }

    fn unreachable() -> Answer {
        Answer::Unreachable(Text::cut("connection refused"))
    }

    #[test]
    fn a_mail_that_one_relay_takes_is_sent() {
        assert_eq!(verdict(&mail(0), 3, CREATED, &[unreachable(), Answer::Taken]), Verdict::Sent);
    }

    #[test]
    fn a_refused_address_is_given_up_at_once() {
        let reason = Text::cut("550 no such user");
        let verdict = verdict(&mail(0), 0, CREATED, &[put_off(), Answer::Refused(reason.clone())]);
        assert_eq!(verdict, Verdict::GiveUp(reason));
    }

    #[test]
    fn a_mail_put_off_for_ever_is_tried_for_five_days_and_then_given_up() {
        for id in [0, 255] {
            let (mut now, mut attempts, mut pauses) = (CREATED, 0, Vec::new());
            let reason = loop {
                match verdict(&mail(id), attempts, now, &[put_off()]) {
                    Verdict::RetryAt(next, _) => {
                        assert!(next > now, "attempt {attempts} would be repeated at once");
                        pauses.push(next.0 - now.0);
                        (now, attempts) = (next, attempts + 1);
                    }
                    Verdict::GiveUp(reason) => break reason,
                    Verdict::Sent => panic!("nobody took it"),
                }
            };
            assert_eq!(&*reason, "450 try again");
            assert_eq!(now, CREATED.after(TRIED_FOR), "the last attempt is at the end of the time");
            assert!((30..60).contains(&attempts), "{attempts} attempts");
            assert!((60_000..=67_500).contains(&pauses[0]), "{} ms", pauses[0]);
            assert!(pauses.iter().all(|pause| *pause <= 16_200_000), "{pauses:?}");
        }
    }

    #[test]
    fn a_clock_that_jumps_ahead_by_a_year_does_not_give_a_mail_up() {
        let (mut now, mut attempts) = (CREATED.after(Duration::from_secs(365 * 24 * 3_600)), 0);
        let start = now;
        while let Verdict::RetryAt(next, _) = verdict(&mail(9), attempts, now, &[unreachable()]) {
            (now, attempts) = (next, attempts + 1);
        }
        assert_eq!(attempts + 1, ATTEMPTS_MIN);
        assert!(now.0 - start.0 > 8 * 3_600 * 1_000, "given up after {} ms", now.0 - start.0);
    }

    #[test]
    fn no_number_of_attempts_overflows_the_pause() {
        for attempts in [0, 1, 31, 32, 33, u32::MAX] {
            assert!(pause(&mail(255), attempts) <= PAUSE_MAX + PAUSE_MAX / 8);
        }
    }

    #[test]
    fn without_a_relay_a_mail_waits() {
        let Verdict::RetryAt(_, reason) = verdict(&mail(0), 0, CREATED, &[]) else { panic!() };
        assert_eq!(&*reason, "there is no mail relay");
    }

    #[test]
    fn an_unreachable_relay_is_tried_last_until_it_has_rested() {
        let mut relays = Relays::new(2);
        assert_eq!(relays.order(Time::ZERO), [0, 1]);
        assert!(relays.heard(Time::ZERO, 0, &unreachable()), "the operator is told once");
        assert!(!relays.heard(Time::ZERO, 0, &unreachable()));
        assert_eq!(relays.order(Time::ZERO), [1, 0]);
        assert_eq!(relays.order(Time::ZERO.after(REST)), [0, 1]);
        relays.heard(Time::ZERO, 1, &unreachable());
        assert_eq!(relays.order(Time::ZERO), [0, 1], "if all rest, the configured order counts");
        relays.heard(Time::ZERO, 0, &put_off());
        assert_eq!(relays.order(Time::ZERO), [0, 1], "one that answers does not rest");
    }
}
