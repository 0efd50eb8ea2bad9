//! A disk that takes ten seconds for what others wait milliseconds for.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use xmmep::client::{Event, Events};
use xmmep::messages::chat::Tick;
use xmmep::types::MsgId;

use crate::databases::not_exercised;
use crate::place::Place;
use crate::registration::{PASSWORD, befriend, enrol, login, wait};

/// Texts between two people while a third one's waits for the disk.
const MEANWHILE: usize = 20;

/// `strace` at work; ends with the test.
struct Slow(Child);

impl Slow {
    /// Makes every flush of the files in `directory` by that process take ten seconds, where the machine allows it.
    fn files_of(process: u32, directory: &Path) -> Result<Self, String> {
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=10s"]);
        command.args(["-p", &process.to_string()]);
        for file in directory.read_dir().unwrap() {
            command.arg("-P").arg(file.unwrap().path());
        }
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        let said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let slow = Self(child);
        let mut others = Vec::new();
        for line in said {
            if line.contains("attached") {
                return Ok(slow);
            }
            others.push(line);
        }
        Err(others.join("; "))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the tick of a text, which must come before the other text is stored.
async fn delivered_before(events: &mut Events, text: MsgId, stored: MsgId) {
    wait(events, |event| match event {
        Event::Tick(tick) if tick.id == stored => panic!("a tick before the disk has it: {tick:?}"),
        Event::Tick(tick) if tick.id == text && tick.tick == Tick::DELIVERED => Some(()),
        _ => None,
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_flush_of_waiting_messages_takes_ten_seconds_those_who_are_there_chat_on() {
    let place = Place::new("");
    let running = place.start();
    for name in ["ann", "bob", "cat"] {
        enrol(&place, &running, name);
    }
    let (ann, mut events) = login(&running, "ann", PASSWORD).await.unwrap();
    let (bob, mut bob_events) = login(&running, "bob", PASSWORD).await.unwrap();
    let (cat, mut cat_events) = login(&running, "cat", PASSWORD).await.unwrap();
    let (bob_id, cat_id) = (bob.welcome().user, cat.welcome().user);
    befriend(&ann, (&bob, &mut bob_events), "").await;
    befriend(&ann, (&cat, &mut cat_events), "").await;
    cat.logout().await;
    let is_stored = |id: MsgId| {
        move |event| matches!(event, Event::Tick(tick) if tick.id == id && tick.tick == Tick::STORED).then_some(())
    };
    let first = ann.send_text(cat_id, "the disk is still fast").await.unwrap();
    wait(&mut events, is_stored(first)).await;

    let slow = match Slow::files_of(running.child.id(), &place.data("offline-C1P1")) {
        Ok(slow) => slow,
        Err(why) => return not_exercised("strace", &why),
    };
    let waits = ann.send_text(cat_id, "now it is not").await.unwrap();
    for number in 0..MEANWHILE {
        let text = ann.send_text(bob_id, &format!("{number}")).await.unwrap();
        wait(&mut bob_events, |event| matches!(event, Event::Text(_)).then_some(())).await;
        bob_events.dealt_with().await;
        delivered_before(&mut events, text, waits).await;
    }
    wait(&mut events, is_stored(waits)).await;
    drop(slow);
    let (status, _, log) = running.stop("-TERM");
    assert!(
        status.success() && log.contains("WARN") && log.contains("a flush took 10"),
        "the operator hears of it: {log}"
    );
}
