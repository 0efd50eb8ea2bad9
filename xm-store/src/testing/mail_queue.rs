//! Cases of [`MailQueue`].

#![allow(missing_docs, clippy::missing_panics_doc, reason = "the name of a case says what it proves")]
#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use xmmep::bounded::PrivateText;
use xmmep::name::Email;
use xmmep::types::{RequestId, WallTime};

use super::{AWKWARD, Open, TIMES, at, awkward_emails, awkward_fields, request_id, text};
use crate::mail_queue::MailQueue;
use crate::records::{Mail, MailState};

/// The cases.
#[doc(hidden)]
#[macro_export]
macro_rules! mail_queue_cases {
    ($name:ident, $open:expr) => {
        $crate::suite_cases!(
            $name,
            $open,
            mail_queue: [
                a_mail_waits_until_it_is_sent_also_after_a_restart,
                a_mail_put_off_waits_for_its_time,
                a_mail_given_up_says_why,
                a_mail_taken_twice_is_sent_once,
                what_no_longer_waits_stays_as_it_is,
                the_longest_due_comes_first_and_no_more_than_asked,
                awkward_mails_are_kept_byte_for_byte,
                every_field_of_a_mail_is_kept_at_its_ends,
                every_reason_is_kept_byte_for_byte,
                every_call_made_again_changes_nothing_but_the_attempts,
                housekeeping_forgets_only_what_is_done,
                an_unknown_mail_has_no_state,
                erased_mails_are_gone_whatever_the_address_is_spelled,
            ],
        );
    };
}

fn mail(number: u64, created: WallTime) -> Mail {
    Mail {
        id: request_id(number),
        to: Email::new(&format!("{number}@example.org")).unwrap(),
        subject: text("Welcome"),
        body: PrivateText::new("https://example.org/activate?t=…").unwrap(),
        created,
    }
}

/// The ids due at `now`, as far as `max` allows.
async fn due(store: &dyn MailQueue, now: WallTime, max: usize) -> Vec<u64> {
    let mails = store.due(now, max).await.unwrap();
    mails.iter().map(|(mail, _)| (1..100).find(|number| request_id(*number) == mail.id).unwrap()).collect()
}

pub async fn a_mail_waits_until_it_is_sent_also_after_a_restart(open: &Open<dyn MailQueue>) {
    let store = open.open().await;
    store.enqueue(mail(1, at(0))).await.unwrap();
    drop(store);
    let store = open.open().await;
    assert_eq!(store.due(at(0), 10).await.unwrap(), [(mail(1, at(0)), 0)]);
    store.sent(request_id(1), at(5)).await.unwrap();
    drop(store);
    let store = open.open().await;
    assert_eq!(store.due(at(1_000), 10).await.unwrap(), []);
    assert_eq!(store.state(request_id(1)).await.unwrap(), Some(MailState::Sent { at: at(5) }));
}

pub async fn a_mail_put_off_waits_for_its_time(open: &Open<dyn MailQueue>) {
    let store = open.open().await;
    store.enqueue(mail(1, at(0))).await.unwrap();
    store.retry_at(request_id(1), at(60), &text("450 later")).await.unwrap();
    store.retry_at(request_id(1), at(120), &text("421 busy")).await.unwrap();
    // Repeated, because the answer was lost.
    store.retry_at(request_id(1), at(120), &text("421 busy")).await.unwrap();
    drop(store);
    let store = open.open().await;
    assert_eq!(due(&*store, at(119), 10).await, [0_u64; 0]);
    assert_eq!(store.due(at(120), 10).await.unwrap(), [(mail(1, at(0)), 2)]);
    let state = MailState::Waiting { attempts: 2, due: at(120), reason: text("421 busy") };
    assert_eq!(store.state(request_id(1)).await.unwrap(), Some(state));
}

pub async fn a_mail_given_up_says_why(open: &Open<dyn MailQueue>) {
    let store = open.open().await;
    store.enqueue(mail(1, at(0))).await.unwrap();
    store.failed(request_id(1), at(9), &text("550 no such user")).await.unwrap();
    assert_eq!(due(&*store, at(1_000), 10).await, [0_u64; 0]);
    let state = MailState::Failed { at: at(9), reason: text("550 no such user") };
    assert_eq!(store.state(request_id(1)).await.unwrap(), Some(state));
}

pub async fn a_mail_taken_twice_is_sent_once(open: &Open<dyn MailQueue>) {
    let store = open.open().await;
    store.enqueue(mail(1, at(0))).await.unwrap();
    store.enqueue(Mail { subject: text("Again"), ..mail(1, at(1)) }).await.unwrap();
    assert_eq!(store.due(at(10), 10).await.unwrap(), [(mail(1, at(0)), 0)]);
    store.sent(request_id(1), at(2)).await.unwrap();
    store.enqueue(mail(1, at(0))).await.unwrap();
    assert_eq!(due(&*store, at(10), 10).await, [0_u64; 0]);
}

pub async fn what_no_longer_waits_stays_as_it_is(open: &Open<dyn MailQueue>) {
    let store = open.open().await;
    store.enqueue(mail(1, at(0))).await.unwrap();
    store.sent(request_id(1), at(5)).await.unwrap();
    store.retry_at(request_id(1), at(60), &text("450 later")).await.unwrap();
    store.failed(request_id(1), at(61), &text("550 no")).await.unwrap();
    store.sent(request_id(1), at(62)).await.unwrap();
    assert_eq!(store.state(request_id(1)).await.unwrap(), Some(MailState::Sent { at: at(5) }));
}

pub async fn the_longest_due_comes_first_and_no_more_than_asked(open: &Open<dyn MailQueue>) {
    let store = open.open().await;
    for (number, created) in [(1, 30), (2, 10), (3, 20), (4, 40)] {
        store.enqueue(mail(number, at(created))).await.unwrap();
    }
    store.retry_at(request_id(2), at(35), &text("450")).await.unwrap();
    assert_eq!(due(&*store, at(39), 10).await, [3, 1, 2]);
    assert_eq!(due(&*store, at(39), 2).await, [3, 1]);
    assert_eq!(due(&*store, at(39), 0).await, [0_u64; 0]);
}

pub async fn awkward_mails_are_kept_byte_for_byte(open: &Open<dyn MailQueue>) {
    let store = open.open().await;
    for (number, about) in (1..).zip(AWKWARD) {
        let mail = Mail { subject: text(about), body: PrivateText::new(about).unwrap(), ..mail(number, at(number)) };
        store.enqueue(mail.clone()).await.unwrap();
        let found = store.due(at(number), 100).await.unwrap();
        assert!(found.contains(&(mail, 0)), "{about:?}");
    }
}

pub async fn every_field_of_a_mail_is_kept_at_its_ends(open: &Open<dyn MailQueue>) {
    let store = open.open().await;
    let subjects = awkward_fields::<256>();
    let bodies = ["x".repeat(8_192), "𠜎".repeat(2_048), "\r\n.\r\n".repeat(1_000), " ".repeat(8_192), String::new()];
    let mut mails = Vec::new();
    for (number, (subject, to)) in (1..).zip(subjects.into_iter().zip(awkward_emails().into_iter().cycle())) {
        let body = PrivateText::new(&bodies[number as usize % bodies.len()]).unwrap();
        let created = TIMES[number as usize % TIMES.len()];
        mails.push(Mail { id: request_id(number), to, subject, body, created });
    }
    for (end, created) in [[0; 16], [0xff; 16]].into_iter().zip(TIMES) {
        mails.push(Mail { id: RequestId(end), ..mail(99, created) });
    }
    for mail in &mails {
        store.enqueue(mail.clone()).await.unwrap();
    }
    drop(store);
    let store = open.open().await;
    let mut found = store.due(TIMES[3], 100).await.unwrap();
    assert!(found.is_sorted_by_key(|(mail, _)| mail.created), "longest due first");
    found.sort_by_key(|(mail, _)| mail.id);
    mails.sort_by_key(|mail| mail.id);
    assert_eq!(found.len(), mails.len());
    for ((found, attempts), mail) in found.iter().zip(&mails) {
        assert_eq!((found, *attempts, found.to.as_str()), (mail, 0, mail.to.as_str()));
        assert!(found.body.expose() == mail.body.expose(), "byte for byte");
    }
}

pub async fn every_reason_is_kept_byte_for_byte(open: &Open<dyn MailQueue>) {
    let store = open.open().await;
    for (number, reason) in (1..).zip(awkward_fields::<256>()) {
        let id = request_id(number);
        store.enqueue(mail(number, at(0))).await.unwrap();
        store.retry_at(id, TIMES[3], &reason).await.unwrap();
        let waiting = MailState::Waiting { attempts: 1, due: TIMES[3], reason: reason.clone() };
        assert_eq!(store.state(id).await.unwrap(), Some(waiting));
        store.failed(id, TIMES[3], &reason).await.unwrap();
        assert_eq!(store.state(id).await.unwrap(), Some(MailState::Failed { at: TIMES[3], reason }));
    }
}

pub async fn every_call_made_again_changes_nothing_but_the_attempts(open: &Open<dyn MailQueue>) {
    let store = open.open().await;
    for number in 1..=3 {
        store.enqueue(mail(number, at(0))).await.unwrap();
        store.enqueue(mail(number, at(0))).await.unwrap();
    }
    assert_eq!(due(&*store, at(0), 10).await.len(), 3);
    // Whoever does not hear the answer says it again: a relay was asked once and is counted twice, which only makes the
    // next pause longer.
    store.retry_at(request_id(1), at(60), &text("450")).await.unwrap();
    store.retry_at(request_id(1), at(60), &text("450")).await.unwrap();
    assert_eq!(due(&*store, at(59), 10).await, [2, 3]);
    for _ in 0..2 {
        store.sent(request_id(2), at(5)).await.unwrap();
        store.failed(request_id(3), at(5), &text("550")).await.unwrap();
        assert_eq!(store.state(request_id(2)).await.unwrap(), Some(MailState::Sent { at: at(5) }));
        let failed = MailState::Failed { at: at(5), reason: text("550") };
        assert_eq!(store.state(request_id(3)).await.unwrap(), Some(failed));
    }
    assert_eq!((store.forget(at(6)).await.unwrap(), store.forget(at(6)).await.unwrap()), (2, 0));
    assert_eq!(due(&*store, at(60), 10).await, [1]);
}

pub async fn housekeeping_forgets_only_what_is_done(open: &Open<dyn MailQueue>) {
    let store = open.open().await;
    for number in 1..=4 {
        store.enqueue(mail(number, at(0))).await.unwrap();
    }
    store.sent(request_id(1), at(5)).await.unwrap();
    store.failed(request_id(2), at(5), &text("no")).await.unwrap();
    store.sent(request_id(3), at(6)).await.unwrap();
    assert_eq!(store.forget(at(6)).await.unwrap(), 2);
    assert_eq!(store.state(request_id(1)).await.unwrap(), None);
    assert_eq!(store.state(request_id(2)).await.unwrap(), None);
    assert!(store.state(request_id(3)).await.unwrap().is_some());
    assert_eq!(due(&*store, at(10), 10).await, [4]);
}

pub async fn an_unknown_mail_has_no_state(open: &Open<dyn MailQueue>) {
    let store = open.open().await;
    store.sent(request_id(1), at(1)).await.unwrap();
    store.retry_at(request_id(1), at(1), &text("")).await.unwrap();
    store.failed(request_id(1), at(1), &text("")).await.unwrap();
    assert_eq!(store.state(request_id(1)).await.unwrap(), None);
    assert_eq!(due(&*store, at(10), 10).await, [0_u64; 0]);
}

pub async fn erased_mails_are_gone_whatever_the_address_is_spelled(open: &Open<dyn MailQueue>) {
    let store = open.open().await;
    let to = |text: &str| Email::new(text).unwrap();
    for (number, address) in (1..).zip(["ann@example.org", "ANN@Example.org", "ann@example.net", "ann_@example.org"]) {
        store.enqueue(Mail { to: to(address), ..mail(number, at(0)) }).await.unwrap();
    }
    store.sent(request_id(2), at(1)).await.unwrap();
    assert_eq!(store.erase(&to("Ann@EXAMPLE.ORG")).await.unwrap(), 2);
    assert_eq!(store.erase(&to("Ann@EXAMPLE.ORG")).await.unwrap(), 0);
    assert_eq!(store.state(request_id(2)).await.unwrap(), None);
    assert_eq!(due(&*store, at(10), 10).await, [3, 4]);
}
