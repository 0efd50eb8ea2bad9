//! A database that is older than what the server remembers of it: a copy put in its place, or a replica that took over without
//! the last commits.

use std::io::Read;

use xmmep::client::{Client, Event};
use xmmep::messages::chat::Tick;

use crate::engines::{BOTH, alone, place_on};
use crate::place::{Place, Running, ended};
use crate::registration::{PASSWORD, befriend, enrol, login, options, wait};

const ALARM: &str = "the database was put back to an older state";

/// The id that the next user gets.
async fn id_of_new(place: &Place, running: &Running) -> u64 {
    enrol(place, running, "cat");
    let (cat, _events) = login(running, "cat", PASSWORD).await.unwrap();
    let id = cat.welcome().user.0;
    cat.logout().await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_put_in_place_of_the_database_is_told_at_the_next_start_and_messages_that_wait_are_kept() {
    let place = Place::new("");
    let running = place.start();
    enrol(&place, &running, "ann");
    enrol(&place, &running, "bob");
    let (bob, mut bob_events) = login(&running, "bob", PASSWORD).await.unwrap();
    let (ann, _events) = login(&running, "ann", PASSWORD).await.unwrap();
    let bob_id = bob.welcome().user;
    befriend(&ann, (&bob, &mut bob_events), "").await;
    bob.logout().await;
    ann.logout().await;
    let (status, _, log) = running.stop("-TERM");
    assert!(status.success() && !log.contains(ALARM), "{log}");
    let (database, copy) = (place.data("PresenceDB_C1P1.db"), place.data("copy"));
    std::fs::copy(&database, &copy).unwrap();

    let running = place.start();
    let (ann, mut events) = login(&running, "ann", PASSWORD).await.unwrap();
    let id = ann.send_text(bob_id, "for later").await.unwrap();
    wait(&mut events, |event| {
        matches!(event, Event::Tick(tick) if tick.id == id && tick.tick == Tick::STORED).then_some(())
    })
    .await;
    ann.logout().await;
    let (_, _, log) = running.stop("-TERM");
    assert!(!log.contains(ALARM), "{log}");
    assert!(!place.data("PresenceDB_C1P1.db-wal").exists(), "all of it is in the file");
    std::fs::rename(&copy, &database).unwrap();

    let running = place.start();
    let (bob, mut events) = login(&running, "bob", PASSWORD).await.unwrap();
    let shown = wait(&mut events, |event| match event {
        Event::Text(text) => Some(text.text.id),
        _ => None,
    });
    assert_eq!(shown.await, id);
    events.dealt_with().await;
    bob.logout().await;
    assert!(id_of_new(&place, &running).await > 1_000_000, "somebody who was lost may have had it");
    let (status, _, log) = running.stop("-TERM");
    assert!(status.success() && log.contains("ERROR") && log.contains(ALARM), "{log}");
    assert!(log.contains("PresenceDB_C1P1.db") && log.contains("bring back the newest copy"), "{log}");
    let (_, _, log) = place.start().stop("-TERM");
    assert!(!log.contains(ALARM), "once is enough: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_database_lost_its_last_commits_stops_and_the_next_start_says_so_and_goes_on() {
    for engine in BOTH {
        let Some((server, _alone)) = alone(engine).await else { continue };
        let place = place_on(&server.url(""), "log");
        let mut running = place.start();
        enrol(&place, &running, "ann");
        server.execute("PresenceDB_C1P1", &["UPDATE owners SET changes = changes - 1".to_owned()]);
        // Logging in is the next change. It is refused; whether the client hears of it before the server is gone is chance.
        let coming = tokio::spawn(Client::connect(options(&running, "ann", PASSWORD)));
        let status = tokio::task::block_in_place(|| ended(&mut running.child));
        coming.abort();
        let mut log = String::new();
        running.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert!(!status.success() && log.contains("commits where"), "{engine:?}: {log}");

        let running = place.start();
        let (ann, _events) = login(&running, "ann", PASSWORD).await.unwrap();
        ann.logout().await;
        assert!(id_of_new(&place, &running).await > 1_000_000, "{engine:?}: somebody who was lost may have had it");
        let (status, _, log) = running.stop("-TERM");
        assert!(status.success() && log.contains(ALARM), "{engine:?}: {log}");
    }
}
