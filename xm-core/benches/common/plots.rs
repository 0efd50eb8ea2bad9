//! What happens in the scenes.

use std::time::Duration;

use xmmep::bounded::PrivateText;
use xmmep::messages::chat::{Content, TargetKind, TextKind, TxtMsg};
use xmmep::messages::status::StatusChangedNotify;
use xmmep::types::{MsgId, Status, UserId, WallTime};

use super::play::Recording;
use super::scene::{Plan, Scene};

/// How long two people wait before the next text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// 1 ms: every acknowledgement rides on the next message, four datagrams a text. What a loaded pair looks like.
    Busy,
    /// 100 ms: the last acknowledgements travel alone, six datagrams a text. What people look like.
    Quiet,
}

/// One user writes to another, who confirms at once; an item is a text, its confirmation and its tick.
pub fn texts(pause: Pause, warm_up: usize, items: usize) -> Recording {
    let mut scene = Scene::new(Plan { users: 2, buddies: vec![(1, 2)] });
    scene.log_in(1);
    scene.log_in(2);
    scene.pass(Duration::from_secs(1));
    if warm_up == 0 {
        scene.mark();
    }
    for number in 1..=warm_up + items {
        scene.say(1, &text(UserId(2), number as u64));
        scene.pass(Duration::from_millis(if pause == Pause::Busy { 1 } else { 100 }));
        if number >= warm_up {
            scene.mark();
        }
    }
    assert_eq!((scene.heard(2).texts, scene.heard(1).delivered), (warm_up + items, warm_up + items));
    scene.end()
}

/// One user's status changes ten times a second, and so many others see it; an item is a change, all it sets off, and the
/// acknowledgements.
pub fn statuses(watchers: u64, items: usize) -> Recording {
    const WARM_UP: usize = 4;
    let star = watchers + 1;
    let mut scene = Scene::new(Plan { users: star, buddies: (1..star).map(|watcher| (watcher, star)).collect() });
    for user in 1..=star {
        scene.log_in(user);
    }
    scene.pass(Duration::from_secs(1));
    for number in 1..=WARM_UP + items {
        let status = if number % 2 == 1 { Status::AWAY } else { Status::BUSY };
        scene.say(star, &StatusChangedNotify { status });
        scene.pass(Duration::from_millis(100));
        if number >= WARM_UP {
            scene.mark();
        }
    }
    assert!((1..star).all(|watcher| scene.heard(watcher).statuses == WARM_UP + items));
    scene.end()
}

/// Users log in, one after the other, each with twenty buddies who are away; an item is the handshake, the login with its
/// lists, and what follows until all is acknowledged.
pub fn logins(items: usize) -> Recording {
    const WARM_UP: usize = 4;
    const BUDDIES: u64 = 20;
    let users = (WARM_UP + items) as u64;
    let buddies = (1..=users).flat_map(|user| (users + 1..=users + BUDDIES).map(move |buddy| (user, buddy)));
    let mut scene = Scene::new(Plan { users: users + BUDDIES, buddies: buddies.collect() });
    for user in 1..=users {
        scene.log_in(user);
        scene.pass(Duration::from_millis(50));
        if user >= WARM_UP as u64 {
            scene.mark();
        }
    }
    scene.end()
}

/// A text of the size people send: 100 bytes.
pub fn text(to: UserId, number: u64) -> TxtMsg {
    TxtMsg {
        text: Content {
            id: MsgId(u128::from(number).to_be_bytes()),
            target_kind: TargetKind::USER,
            target: to.0,
            order: number,
            sent: WallTime(0),
            kind: TextKind::TEXT,
            body: PrivateText::new(&"x".repeat(100)).expect("100 bytes fit"),
        },
    }
}
