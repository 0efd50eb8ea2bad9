//! The terminal client as people and scripts use it: the real program, a real server, real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use examples::{Embedded, embed, enrol};
use xm_core::presence;
use xm_store::Stores;
use xmmep::client::DerivedKey;
use xmmep::secret::{KdfParams, LoginKey, Salt};

const PASSWORD: &str = "correct horse battery";

struct Server {
    running: Embedded,
    data: tempfile::TempDir,
}

impl Server {
    /// A server with Ann and Bob.
    async fn start() -> Self {
        let placements = Arc::new(xm_store::memory::MemoryPlacements::default());
        let stores = Stores::memory();
        let running = embed(placements.clone(), stores.clone(), presence::handlers(), |_| {}).await.unwrap();
        let (salt, params) = (Salt([7; 16]), KdfParams::RECOMMENDED);
        let key = DerivedKey { key: LoginKey::derive(PASSWORD, &salt, params).unwrap(), salt, params };
        for name in ["ann", "bob"] {
            enrol(&*placements, &stores, &name.parse().unwrap(), &key).await.unwrap();
        }
        Self { running, data: tempfile::tempdir().unwrap() }
    }

    /// Starts the program with a script.
    fn chat(&self, user: &str, password: &str, script: &str) -> Child {
        let mut chat = command(self.data.path());
        chat.args(["--server", &self.running.address.to_string(), "--user", user]).env("XM_PASSWORD", password);
        let mut child = chat.spawn().unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        child
    }
}

fn command(data: &Path) -> Command {
    let mut chat = Command::new(env!("CARGO_BIN_EXE_chat"));
    chat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).env("XM_DATA", data);
    chat
}

/// Waits for the program without holding up the server, which runs on other threads.
async fn finished(child: Child) -> (String, Option<i32>) {
    let waited = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap();
    let Output { stdout, status, stderr } = waited.unwrap();
    assert_eq!(String::from_utf8_lossy(&stderr), "");
    (String::from_utf8(stdout).unwrap(), status.code())
}

/// That these lines are there, in this order, others in between.
fn has_in_order(said: &str, wanted: &[&str]) {
    let mut lines = said.lines();
    for line in wanted {
        assert!(lines.any(|said| said.contains(line)), "{line:?} is missing, or out of order, in:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_become_buddies_chat_and_leave_messages() {
    let server = Server::start().await;
    let ann = server.chat(
        "ann",
        PASSWORD,
        "/wait login\n/add bob Hi, it's Ann!\n/wait buddy bob\n/wait status bob online\n/to bob Dinner at eight?\n\
         /wait delivered\n/wait text Yes\n/wait status bob busy\nI see\n/wait delivered\n/wait status bob offline\nAre you there?\n/wait stored\n/quit\n",
    );
    let bob = server.chat(
        "bob",
        PASSWORD,
        "/wait ask ann\n/accept ann\n/wait text Dinner\n/to ann Yes\u{1b}[2J!\n/wait delivered\n/status busy\n/wait text I see\n/buddies\n/quit\n",
    );
    let ((ann, ann_code), (bob, bob_code)) = tokio::join!(finished(ann), finished(bob));
    assert_eq!((ann_code, bob_code), (Some(0), Some(0)), "{ann}\n{bob}");
    has_in_order(
        &ann,
        &[
            "* logged in as ann",
            "* bob was asked",
            "* bob accepted",
            "> #1 to bob: Dinner at eight?",
            "✓✓ #1 to bob delivered",
            "* bob is busy",
            "* bob is offline",
            "> #3 to bob: Are you there?",
            "✓ #3 to bob stored",
            "* logged out",
        ],
    );
    assert!(ann.contains("< bob: Yes�[2J!") && !ann.contains('\u{1b}'), "{ann}");
    has_in_order(&bob, &["* ann asks to be your buddy: Hi, it's Ann!", "< ann: Dinner at eight?", "ann   "]);

    // Bob comes back: what waited is there, and is not there again when he comes back once more.
    let (again, code) = finished(server.chat("bob", PASSWORD, "/wait text Are you there\n/quit\n")).await;
    assert_eq!(code, Some(0), "{again}");
    has_in_order(&again, &["* 1 messages waited for you", "< ann (while you were away): Are you there?"]);
    let ann = server.chat("ann", PASSWORD, "/wait login\n/to bob That was all\n/wait delivered\n/quit\n");
    let third = server.chat("bob", PASSWORD, "/wait text That was all\n/quit\n");
    let ((ann, _), (third, code)) = tokio::join!(finished(ann), finished(third));
    assert_eq!(code, Some(0), "{third}");
    assert!(!third.contains("Are you there"), "{third}");
    has_in_order(&ann, &["✓✓ a text from an earlier time delivered", "✓✓ #1 to bob delivered"]);
    server.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocking_is_seen_as_a_refusal_by_who_writes() {
    let server = Server::start().await;
    let ann = server.chat(
        "ann",
        PASSWORD,
        "/add bob\n/wait buddy bob\n/to bob one\n/wait delivered\n/wait status bob offline\n/to bob two\n/wait delivered\n/quit\n",
    );
    let bob = server.chat("bob", PASSWORD, "/wait ask ann\n/accept ann\n/wait text one\n/block ann\n/buddies\n/quit\n");
    let ((ann, _), (bob, _)) = tokio::join!(finished(ann), finished(bob));
    has_in_order(&bob, &["< ann: one", "* ann: done", "blocked"]);
    has_in_order(&ann, &["✓✓ #1 to bob delivered", "✗ #2 to bob refused: BLOCKED"]);
    let (bob, _) = finished(server.chat("bob", PASSWORD, "/wait login\n/unblock ann\n/card ann\n/quit\n")).await;
    has_in_order(&bob, &["* ann: done", "name       ann"]);
    assert!(!bob.contains("two"), "{bob}");
    server.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_said_in_one_line_and_by_the_exit_code() {
    let server = Server::start().await;
    let (said, code) = finished(server.chat("ann", "wrong", "")).await;
    assert_eq!((said.as_str(), code), ("! wrong user name or password\n", Some(1)));
    let (said, code) = finished(server.chat("ann", PASSWORD, "/timeout 0.2\n/wait text never\n")).await;
    assert_eq!(code, Some(1));
    has_in_order(&said, &["* logged in as ann", "! waited in vain for Text(\"never\")"]);
    let (said, code) =
        finished(server.chat("ann", PASSWORD, "/to nobody hi\nhi\n/frobnicate\n/add a b\n/wait what\n")).await;
    assert_eq!(code, Some(0));
    has_in_order(
        &said,
        &[
            "! nobody called \"nobody\"",
            "! to whom?",
            "! no such command: /frobnicate",
            "! refused:",
            "! wait for what?",
        ],
    );
    server.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_program_at_any_moment_loses_doubles_and_reorders_nothing_that_was_ticked() {
    let server = Server::start().await;
    let hello = server.chat("ann", PASSWORD, "/add bob\n/wait buddy bob\n/quit\n");
    let (_, (_, code)) =
        tokio::join!(finished(hello), finished(server.chat("bob", PASSWORD, "/wait ask ann\n/accept ann\n/quit\n")));
    assert_eq!(code, Some(0));

    let mut ticked = Vec::new();
    for round in 0..6 {
        let script: String = (0..6).map(|n| format!("/to bob round {round} text {n}\n")).collect();
        let mut ann = server.chat("ann", PASSWORD, &(script + "/wait 60\n"));
        // Killed at the first tick, the second, and so on; in the last round after all of them.
        let said = ann.stdout.take().unwrap();
        let seen = tokio::task::spawn_blocking(move || {
            let mut lines = std::io::BufRead::lines(std::io::BufReader::new(said)).map_while(Result::ok);
            let ticks = lines.by_ref().filter(|line| line.starts_with("✓ #")).take(round + 1).collect::<Vec<_>>();
            ann.kill().unwrap();
            ann.wait().unwrap();
            ticks
        });
        let numbers = seen.await.unwrap();
        let number = |line: &String| line.split(['#', ' ']).find_map(|word| word.parse::<u32>().ok()).unwrap();
        ticked.extend(numbers.iter().map(|line| format!("round {round} text {}", number(line) - 1)));
    }
    let (_, code) = finished(server.chat("ann", PASSWORD, "/to bob the end\n/wait stored\n/quit\n")).await;
    assert_eq!(code, Some(0));

    let (said, code) = finished(server.chat("bob", PASSWORD, "/wait text the end\n/quit\n")).await;
    assert_eq!(code, Some(0), "{said}");
    let shown: Vec<_> = said.lines().filter_map(|line| line.split_once("away): ").map(|(_, text)| text)).collect();
    let mut in_order = shown.clone();
    in_order.sort_unstable();
    in_order.dedup();
    assert_eq!(shown, in_order, "doubled or out of order");
    let lost: Vec<_> = ticked.iter().filter(|text| !shown.contains(&text.as_str())).collect();
    assert!(lost.is_empty() && ticked.len() == 21, "{lost:?} of {}", ticked.len());
    server.running.stop().await;
}

#[tokio::test]
async fn bad_arguments_are_named_and_help_teaches() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| command(dir.path()).args(arguments).output().unwrap();
    let bad = run(&["--server", "xm://h:1/AAAA", "--user", "ann"]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("4 characters instead of 43"));
    let bad = run(&["--server", "xm://h:1/AAAA", "--user", "a b"]);
    assert!(String::from_utf8_lossy(&bad.stderr).contains("--"));
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    for taught in ["/to bob", "XM_PASSWORD", "--password-file", "/wait delivered", "✓✓", "xm://"] {
        assert!(help.contains(taught), "{taught}");
    }
}
