//! The courier against relays that behave, refuse, hang up, stall and lie; and mails that try to be more than one.
//!
//! The relays are scripts on loopback; times are arguments, so retries need no waiting.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use xm_store::MailQueue;
use xm_store::memory::MemoryMailQueue;
use xm_store::records::{Mail, MailState};
use xmd::config::{MailTls, RelayAddress};
use xmd::mail::{Courier, KEPT_TRYING, Relay, RelayTimeouts, Relays, Road};
use xmmep::bounded::{PrivateText, Text};
use xmmep::name::Email;
use xmmep::types::{RequestId, WallTime};

const NOW: WallTime = WallTime(1_700_000_000_000);
const TIMEOUTS: RelayTimeouts =
    RelayTimeouts { greeting: Duration::from_millis(400), mail: Duration::from_millis(400) };

/// What a scripted relay does with one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Takes every mail.
    Take,
    /// Answers the command that starts so with this line, and everything else well.
    Answer(&'static str, &'static str),
    /// Says nothing at all.
    Silent,
    /// Sends its greeting forever, a byte at a time.
    Drip,
    /// Hangs up after the final dot, before its answer.
    CutAfterDot,
    /// Takes one mail, then hangs up.
    CutAfterMail,
    /// Says no in its greeting.
    Closed,
}

/// A relay that plays one act per connection and repeats the last one. Keeps what it was told.
struct FakeRelay {
    address: RelayAddress,
    transcript: Arc<Mutex<Vec<String>>>,
}

impl FakeRelay {
    async fn start(acts: &[Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let transcript = Arc::<Mutex<Vec<String>>>::default();
        let (acts, heard) = (acts.to_vec(), transcript.clone());
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let act = acts[connection.min(acts.len() - 1)];
                tokio::spawn(play(stream, act, heard.clone()));
            }
        });
        Self { address: RelayAddress { host: "127.0.0.1".to_owned(), port: address.port() }, transcript }
    }

    fn relay(&self) -> Relay {
        Relay { address: self.address.clone(), tls: MailTls::None, credentials: None }
    }

    /// Everything clients said, line by line.
    fn heard(&self) -> Vec<String> {
        self.transcript.lock().unwrap().clone()
    }

    fn count(&self, line: &str) -> usize {
        self.heard().iter().filter(|heard| heard.starts_with(line)).count()
    }
}

async fn play(stream: TcpStream, act: Act, heard: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let say = async |stream: &mut BufReader<TcpStream>, line: &str| {
        stream.write_all(format!("{line}\r\n").as_bytes()).await.ok()
    };
    match act {
        Act::Silent => std::future::pending().await,
        Act::Drip => loop {
            stream.write_all(b"2").await.ok()?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        },
        Act::Closed => return say(&mut stream, "554 no service here").await,
        _ => say(&mut stream, "220 relay ready").await?,
    }
    let mut in_data = false;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let text = line.trim_end_matches("\r\n").to_owned();
        heard.lock().unwrap().push(text.clone());
        let end = in_data && text == ".";
        if in_data && !end {
            continue;
        }
        let command = if end { "." } else { text.as_str() };
        in_data = command == "DATA";
        match act {
            Act::CutAfterDot if end => return None,
            Act::Answer(begin, answer) if command.starts_with(begin) => {
                in_data = false;
                say(&mut stream, answer).await?;
                continue;
            }
            _ => {}
        }
        let answer = match command.get(..4).unwrap_or(command) {
            "EHLO" => "250-relay\r\n250-8BITMIME\r\n250 SMTPUTF8",
            "DATA" => "354 go on",
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        say(&mut stream, answer).await?;
        if act == Act::CutAfterMail && end {
            return None;
        }
    }
}

fn mail(number: u8, to: &str, subject: &str, body: &str) -> Mail {
    Mail {
        id: RequestId([number; 16]),
        to: Email::new(to).expect("an address"),
        subject: Text::new(subject).expect("a subject"),
        body: PrivateText::new(body).expect("a body"),
        created: NOW,
    }
}

fn ordinary() -> Mail {
    mail(7, "ann@example.org", "Welcome", "Open https://chat.example.org/activate?token=abc\n")
}

async fn queue_of(mails: &[Mail]) -> Arc<MemoryMailQueue> {
    let queue = Arc::new(MemoryMailQueue::default());
    for mail in mails {
        queue.enqueue(mail.clone()).await.expect("memory");
    }
    queue
}

fn courier(queue: &Arc<MemoryMailQueue>, road: Road) -> Courier {
    Courier::new(queue.clone(), "Chat <chat@example.org>".parse().expect("a mailbox"), road)
}

fn by(relays: &[&FakeRelay]) -> Road {
    Road::Relays(Relays::new(relays.iter().map(|relay| relay.relay()).collect(), TIMEOUTS))
}

async fn state(queue: &MemoryMailQueue) -> MailState {
    queue.state(ordinary().id).await.expect("memory").expect("a mail")
}

fn minutes(minutes: u64) -> WallTime {
    NOW.after(Duration::from_secs(60 * minutes))
}

#[tokio::test]
async fn a_mail_reaches_the_relay_as_written() {
    let relay = FakeRelay::start(&[Act::Take]).await;
    let queue = queue_of(&[ordinary()]).await;
    assert_eq!(courier(&queue, by(&[&relay])).round(NOW).await, Ok(1));
    assert_eq!(state(&queue).await, MailState::Sent { at: NOW });
    let heard = relay.heard();
    for line in [
        "MAIL FROM:<chat@example.org>",
        "RCPT TO:<ann@example.org>",
        "From: Chat <chat@example.org>",
        "To: ann@example.org",
        "Subject: Welcome",
        "Message-ID: <07070707070707070707070707070707@example.org>",
        "Auto-Submitted: auto-generated",
        "Date: Tue, 14 Nov 2023 22:13:20 +0000",
        "Open https://chat.example.org/activate?token=abc",
        "QUIT",
    ] {
        assert!(heard.iter().any(|said| said == line), "no {line:?} in {heard:#?}");
    }
}

#[tokio::test]
async fn a_relay_that_is_down_is_passed_over_for_the_second() {
    let second = FakeRelay::start(&[Act::Take]).await;
    let closed_port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let down = Relay {
        address: RelayAddress { host: "127.0.0.1".to_owned(), port: closed_port },
        tls: MailTls::None,
        credentials: None,
    };
    let queue = queue_of(&[ordinary()]).await;
    let road = Road::Relays(Relays::new(vec![down, second.relay()], TIMEOUTS));
    courier(&queue, road).round(NOW).await.unwrap();
    assert_eq!(state(&queue).await, MailState::Sent { at: NOW });
}

#[tokio::test]
async fn relays_that_stall_in_their_greeting_are_left_after_the_time_out() {
    for act in [Act::Silent, Act::Drip, Act::Closed, Act::Answer("EHLO", "550 go away")] {
        let (first, second) = (FakeRelay::start(&[act]).await, FakeRelay::start(&[Act::Take]).await);
        let mails = [ordinary(), mail(8, "bob@example.org", "Hi", "x"), mail(9, "cat@example.org", "Hi", "x")];
        let queue = queue_of(&mails).await;
        let started = std::time::Instant::now();
        courier(&queue, by(&[&first, &second])).round(NOW).await.unwrap();
        // One time-out for the batch, not one per mail.
        assert!(started.elapsed() < 3 * TIMEOUTS.greeting, "{act:?}: {:?}", started.elapsed());
        assert_eq!(second.count("DATA"), 3, "{act:?}");
        assert_eq!(state(&queue).await, MailState::Sent { at: NOW }, "{act:?}");
    }
}

#[tokio::test]
async fn both_relays_down_is_a_later_mail_and_not_a_lost_one() {
    let (first, second) = (FakeRelay::start(&[Act::Closed, Act::Take]).await, FakeRelay::start(&[Act::Silent]).await);
    let queue = queue_of(&[ordinary()]).await;
    let courier = courier(&queue, by(&[&first, &second]));
    courier.round(NOW).await.unwrap();
    assert!(matches!(state(&queue).await, MailState::Waiting { attempts: 1, due, .. } if due == minutes(1)));
    assert_eq!(courier.round(NOW).await, Ok(0), "not before it is due");
    courier.round(minutes(1)).await.unwrap();
    assert_eq!(state(&queue).await, MailState::Sent { at: minutes(1) });
}

#[tokio::test]
async fn a_temporary_no_is_tried_again_later_and_longer_each_time() {
    let busy = Act::Answer("RCPT", "450 mailbox busy");
    let relay = FakeRelay::start(&[busy, busy, Act::Take]).await;
    let queue = queue_of(&[ordinary()]).await;
    let courier = courier(&queue, by(&[&relay]));
    courier.round(NOW).await.unwrap();
    let MailState::Waiting { attempts: 1, due, reason } = state(&queue).await else { panic!("not waiting") };
    assert_eq!(due, minutes(1));
    assert!(reason.contains("450"), "{reason}");
    courier.round(minutes(1)).await.unwrap();
    assert!(matches!(state(&queue).await, MailState::Waiting { attempts: 2, due, .. } if due == minutes(3)));
    courier.round(minutes(3)).await.unwrap();
    assert_eq!(state(&queue).await, MailState::Sent { at: minutes(3) });
    let ids: Vec<_> = relay.heard().into_iter().filter(|line| line.starts_with("Message-ID")).collect();
    assert_eq!(ids.len(), 1, "only the mail that was taken was ever written out");
}

#[tokio::test]
async fn a_permanent_no_to_the_address_or_the_text_ends_it_with_the_relays_words() {
    for act in [Act::Answer("RCPT", "550 no such user"), Act::Answer(".", "554 looks like spam")] {
        let (first, second) = (FakeRelay::start(&[act]).await, FakeRelay::start(&[Act::Take]).await);
        let queue = queue_of(&[ordinary()]).await;
        courier(&queue, by(&[&first, &second])).round(NOW).await.unwrap();
        let MailState::Failed { at: NOW, reason } = state(&queue).await else { panic!("{act:?}: not failed") };
        let Act::Answer(_, words) = act else { unreachable!() };
        assert!(reason.contains(&words[4..]), "{reason}");
        assert_eq!(second.count("DATA"), 0, "a refused mail is not carried to the next relay");
    }
}

#[tokio::test]
async fn a_no_to_the_greeting_or_to_our_own_address_is_not_the_recipients_fault() {
    for act in [
        Act::Closed,
        Act::Answer("EHLO", "550 no"),
        Act::Answer("MAIL", "550 sender unknown"),
        Act::Answer("RCPT", "421 closing"),
    ] {
        let relay = FakeRelay::start(&[act]).await;
        let queue = queue_of(&[ordinary()]).await;
        courier(&queue, by(&[&relay])).round(NOW).await.unwrap();
        assert!(matches!(state(&queue).await, MailState::Waiting { attempts: 1, .. }), "{act:?}");
    }
}

#[tokio::test]
async fn a_cut_after_the_final_dot_means_at_most_one_mail_more_with_the_same_id() {
    let relay = FakeRelay::start(&[Act::CutAfterDot, Act::Take]).await;
    let queue = queue_of(&[ordinary()]).await;
    let courier = courier(&queue, by(&[&relay]));
    courier.round(NOW).await.unwrap();
    assert!(matches!(state(&queue).await, MailState::Waiting { attempts: 1, .. }));
    courier.round(minutes(1)).await.unwrap();
    assert_eq!(state(&queue).await, MailState::Sent { at: minutes(1) });
    let heard = relay.heard();
    let ids: Vec<_> = heard.iter().filter(|line| line.starts_with("Message-ID")).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_connection_that_died_between_two_mails_is_replaced_once() {
    let relay = FakeRelay::start(&[Act::CutAfterMail, Act::Take]).await;
    let queue = queue_of(&[ordinary(), mail(8, "bob@example.org", "Hi", "x")]).await;
    courier(&queue, by(&[&relay])).round(NOW).await.unwrap();
    assert_eq!(state(&queue).await, MailState::Sent { at: NOW });
    let second = queue.state(RequestId([8; 16])).await.unwrap();
    assert_eq!(second, Some(MailState::Sent { at: NOW }));
    assert_eq!(relay.count("EHLO"), 2);
}

#[tokio::test]
async fn a_relay_that_does_not_offer_tls_is_told_nothing() {
    for tls in [MailTls::StartTls, MailTls::Tls] {
        let fake = FakeRelay::start(&[Act::Take]).await;
        let queue = queue_of(&[ordinary()]).await;
        let road = Road::Relays(Relays::new(vec![Relay { tls, ..fake.relay() }], TIMEOUTS));
        courier(&queue, road).round(NOW).await.unwrap();
        assert!(matches!(state(&queue).await, MailState::Waiting { attempts: 1, .. }), "{tls:?}");
        assert_eq!(fake.count("MAIL") + fake.count("AUTH") + fake.count("RCPT"), 0, "{tls:?}");
    }
}

#[tokio::test]
async fn after_five_days_a_mail_is_given_up_and_says_why() {
    let relay = FakeRelay::start(&[Act::Answer("RCPT", "450 later")]).await;
    let queue = queue_of(&[ordinary()]).await;
    let courier = courier(&queue, by(&[&relay]));
    let mut now = NOW;
    let mut tries = 0;
    while let MailState::Waiting { due, .. } = state(&queue).await {
        now = due.max(now);
        courier.round(now).await.unwrap();
        tries += 1;
        assert!(tries < 200, "no end");
    }
    assert_eq!(now, NOW.after(KEPT_TRYING));
    let MailState::Failed { reason, .. } = state(&queue).await else { panic!("not failed") };
    assert!(reason.contains("five days") && reason.contains("450"), "{reason}");
    assert!(tries > 100, "tried each hour: {tries}");
}

#[tokio::test]
async fn what_a_mail_contains_cannot_add_a_header_a_recipient_or_an_end() {
    let relay = FakeRelay::start(&[Act::Take]).await;
    let evil = [
        mail(1, "ann@example.org", "a\r\nBcc: eve@example.org", "x"),
        mail(2, "ann@example.org", "a\nX-Evil: 1", "x"),
        mail(
            3,
            "ann@example.org",
            "a",
            "x\r\n.\r\nMAIL FROM:<eve@example.org>\r\nRCPT TO:<eve@example.org>\r\nDATA\r\n",
        ),
        mail(4, "ann@example.org", "a", "..\n.leading\n.\n"),
        mail(5, "ann@example.org", &"s".repeat(256), &"b".repeat(8_000)),
        mail(6, "ann@example.org", "=?utf-8?q?x=0D=0ABcc:_eve?=", "\u{202e}\r\r\n\n"),
    ];
    let queue = queue_of(&evil).await;
    courier(&queue, by(&[&relay])).round(NOW).await.unwrap();
    let heard = relay.heard();
    let mut in_data = false;
    let mut in_headers = false;
    let (mut commands, mut headers) = (Vec::new(), Vec::new());
    for line in &heard {
        match (in_data, line.as_str()) {
            (false, command) => {
                commands.push(command.to_owned());
                (in_data, in_headers) = (command == "DATA", true);
            }
            (true, ".") => in_data = false,
            (true, "") => in_headers = false,
            (true, header) if in_headers && !header.starts_with(' ') => headers.push(header.to_owned()),
            (true, _) => {}
        }
        assert!(line.len() <= 998, "a line of {} bytes", line.len());
    }
    let one_mail = ["MAIL FROM:<chat@example.org>", "RCPT TO:<ann@example.org>", "DATA"];
    let mails: Vec<&str> = commands[1..commands.len() - 1].iter().map(String::as_str).collect();
    assert_eq!(mails, one_mail.repeat(evil.len()), "{heard:#?}");
    let allowed = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-", "MIME-Version"];
    for header in &headers {
        assert!(allowed.iter().any(|name| header.starts_with(name)), "{header:?}");
    }
    assert!(
        heard.contains(&"...".to_owned()) && heard.contains(&"..leading".to_owned()),
        "dots are doubled: {heard:#?}"
    );
}

#[tokio::test]
async fn a_directory_gets_each_mail_once_whole_and_private() {
    use std::os::unix::fs::MetadataExt;
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path().join("mail");
    let queue = queue_of(&[ordinary()]).await;
    courier(&queue, Road::Directory(directory.clone())).round(NOW).await.unwrap();
    assert_eq!(state(&queue).await, MailState::Sent { at: NOW });
    // As after a crash between writing and noting: the same mail again.
    courier(&queue_of(&[ordinary()]).await, Road::Directory(directory.clone())).round(NOW).await.unwrap();
    let files: Vec<_> = directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    assert_eq!(file.extension().and_then(|extension| extension.to_str()), Some("eml"));
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(directory.metadata().unwrap().mode() & 0o777, 0o700);
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("To: ann@example.org\r\n") && text.contains("token=abc"), "{text}");
}

#[tokio::test]
async fn a_link_stands_in_a_file_as_it_is_also_beside_a_chinese_name() {
    let temp = tempfile::tempdir().unwrap();
    let link = format!("https://chat.example.org/activate?token={}", "A".repeat(43));
    let text = format!("Welcome, 李雷!\n\n{link}\n");
    let queue = queue_of(&[mail(7, "ann@example.org", "Welcome", &text)]).await;
    courier(&queue, Road::Directory(temp.path().to_owned())).round(NOW).await.unwrap();
    let file = temp.path().read_dir().unwrap().next().unwrap().unwrap().path();
    let eml = std::fs::read_to_string(file).unwrap();
    assert!(eml.lines().any(|line| line == link) && eml.contains("李雷"), "{eml}");
    // A relay is promised ASCII.
    let relay = FakeRelay::start(&[Act::Take]).await;
    let queue = queue_of(&[mail(7, "ann@example.org", "Welcome", &text)]).await;
    courier(&queue, by(&[&relay])).round(NOW).await.unwrap();
    assert!(relay.heard().iter().all(|line| line.is_ascii()));
    assert!(relay.heard().contains(&"Content-Transfer-Encoding: quoted-printable".to_owned()), "{:#?}", relay.heard());
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_makes_the_mail_wait() {
    let temp = tempfile::tempdir().unwrap();
    let in_the_way = temp.path().join("mail");
    std::fs::write(&in_the_way, b"").unwrap();
    let queue = queue_of(&[ordinary()]).await;
    courier(&queue, Road::Directory(in_the_way)).round(NOW).await.unwrap();
    assert!(matches!(state(&queue).await, MailState::Waiting { attempts: 1, .. }));
}

#[test]
fn a_password_file_must_be_private_and_have_a_first_line() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("password");
    let read = |path: &Path| xmd::mail::read_credentials("chat", path);
    assert!(read(&file).unwrap_err().contains("mail.password_file"));
    let set = |text: &str, mode| {
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set("swordfish\n", 0o644);
    assert!(read(&file).unwrap_err().contains("0644"));
    set("\n", 0o600);
    assert!(read(&file).unwrap_err().contains("first line"));
    set("swordfish\nnot this\n", 0o600);
    assert_eq!(format!("{:?}", read(&file).unwrap()), "Credentials(…)");
}
