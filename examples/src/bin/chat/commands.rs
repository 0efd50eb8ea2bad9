//! What can be typed, and what is done about what happens. How it looks is `screen.rs`.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use xmmep::bounded::Text;
use xmmep::client::{Client, Event, Received};
use xmmep::messages::buddies::BuddyAnswer;
use xmmep::messages::chat::{Tick, TxtTickNotify};
use xmmep::messages::login::BuddyState;
use xmmep::name::UserName;
use xmmep::result_code::ResultCode;
use xmmep::types::{MsgId, Status, UserId};

use crate::screen::{body, harmless, say, status_word, tick};

const HELP: &str = "\
  /add NAME [GREETING]     ask somebody to be your buddy
  /accept NAME             they asked: yes, and I want to see them too
  /refuse NAME             they asked: no; they are not told
  /remove NAME             take a buddy off your list
  /rename NAME NEW-NAME    your own name for a buddy
  /buddies                 buddies with their status, who asks, whom you blocked
  /to NAME TEXT            write; later lines without a slash go to the same person
  /status WORD             online, busy, away, invisible
  /block NAME, /unblock NAME
  /card NAME               what is known of somebody
  /wait login|stored|delivered [SECONDS]      a login; a tick for all you wrote
  /wait text PART          a text from somebody with PART in it
  /wait ask NAME, /wait buddy NAME            they asked; they are a buddy
  /wait status NAME WORD   a buddy's status
  /wait SECONDS            just that
  /quit                    leave
/wait gives up after 30 seconds, unless /timeout SECONDS said otherwise, and then the program ends with 1.";

/// Texts from others that a `/wait text` may still be about.
const UNHEARD_MAX: usize = 1_000;

/// What to do after a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Read the next one.
    Go,
    /// Leave; all went well.
    Quit,
    /// Leave; something was waited for in vain.
    Failed,
    /// The client has ended by itself.
    Over,
}

/// What a `/wait` waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Goal {
    Login,
    /// All texts have at least this tick, or a final one.
    Ticks(Tick),
    Text(String),
    Ask(String),
    Buddy(String),
    Status(String, Status),
    Time,
    /// The script is over; what it wrote gets a moment.
    LastTicks,
}

/// A text of ours, as long as its story goes on.
struct Sent {
    number: u32,
    to: String,
    tick: Tick,
}

pub(crate) struct Chat {
    client: Client,
    /// Names that are not in the roster: of people who have us as a buddy and not the other way round.
    names: HashMap<UserId, String>,
    sent: HashMap<MsgId, Sent>,
    count: u32,
    unheard: VecDeque<String>,
    last_to: Option<UserId>,
    online: bool,
    patience: Duration,
    waiting: Option<(Goal, Instant)>,
}

impl Chat {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            names: HashMap::new(),
            sent: HashMap::new(),
            count: 0,
            unheard: VecDeque::new(),
            last_to: None,
            online: false,
            patience: Duration::from_secs(30),
            waiting: None,
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    pub(crate) fn has_unticked(&self) -> bool {
        self.sent.values().any(|sent| sent.tick < Tick::STORED)
    }

    pub(crate) fn wait_for_ticks(&mut self, patience: Duration) {
        self.waiting = Some((Goal::LastTicks, Instant::now() + patience));
    }

    /// Waits until the wait is over.
    pub(crate) async fn timeout(&self) {
        match &self.waiting {
            Some((_, until)) => sleep_until(*until).await,
            None => pending().await,
        }
    }

    /// The time is over; whether that is a failure.
    pub(crate) fn gave_up(&mut self) -> bool {
        match self.waiting.take() {
            Some((Goal::Time, _)) | None => false,
            Some((Goal::LastTicks, _)) => {
                say("* what has no tick yet is sent the next time");
                self.sent.clear();
                false
            }
            Some((goal, _)) => {
                say(&format!("! waited in vain for {goal:?}"));
                true
            }
        }
    }

    pub(crate) async fn leave(&self) {
        self.client.clone().logout().await;
    }

    /// Something that happened while leaving. Texts are not shown any more: they come again the next time.
    pub(crate) fn after(&mut self, event: &Event) {
        match event {
            Event::Tick(notice) => self.ticked(notice),
            Event::Ended(end) => say(&format!("* {}", harmless(&end.to_string()))),
            _ => {}
        }
    }

    /// A line was typed.
    pub(crate) async fn typed(&mut self, line: &str) -> Next {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (name, more) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
        let more = more.trim();
        let done = match word {
            "" | "#" => Ok(()),
            "/quit" => return Next::Quit,
            "/help" => {
                say(HELP);
                Ok(())
            }
            "/add" => self.add(name, more).await,
            "/accept" => self.answer(name, BuddyAnswer::ACCEPT_AND_ADD).await,
            "/refuse" => self.answer(name, BuddyAnswer::REFUSE).await,
            "/remove" | "/block" | "/unblock" | "/rename" => self.change(word, name, more).await,
            "/buddies" => {
                self.buddies();
                Ok(())
            }
            "/card" => self.card(name).await,
            "/status" => self.set_status(name).await,
            "/to" => self.to(name, more).await,
            "/timeout" => seconds(name).map(|patience| self.patience = patience),
            "/wait" => self.wait(name, more),
            _ if word.starts_with('/') => Err(format!("no such command: {} (see /help)", harmless(word))),
            _ => match self.last_to {
                Some(to) => self.write(to, line).await,
                None => Err("to whom? /to NAME TEXT".to_owned()),
            },
        };
        if let Err(problem) = done {
            say(&format!("! {problem}"));
        }
        self.look();
        Next::Go
    }

    /// The user behind a name: of the roster, or somebody we heard from.
    fn find(&self, name: &str) -> Result<UserId, String> {
        let heard = || self.names.iter().find(|(_, other)| *other == name).map(|(user, _)| *user);
        let found = self.client.roster().find(name).or_else(heard);
        found.ok_or_else(|| format!("nobody called {:?} among your buddies and those who ask", harmless(name)))
    }

    fn name(&self, user: UserId) -> String {
        let roster = self.client.roster();
        let buddy = roster.buddy(user).map(|buddy| buddy.shown_name().to_owned());
        let known = || roster.name(user).map(|name| name.as_str().to_owned());
        let name = buddy.or_else(known).or_else(|| self.names.get(&user).cloned());
        harmless(&name.unwrap_or_else(|| format!("user {user}")))
    }

    async fn add(&mut self, name: &str, greeting: &str) -> Result<(), String> {
        let name = UserName::new(name).map_err(|error| error.to_string())?;
        let greeting = Text::new(greeting).map_err(|error| format!("the greeting: {error}"))?;
        let added =
            self.client.add_buddy(name.clone(), greeting).await.map_err(|error| harmless(&error.to_string()))?;
        if added.result == ResultCode::PENDING {
            say(&format!("* {name} was asked"));
        } else {
            say(&format!("* {name} is a buddy"));
        }
        Ok(())
    }

    async fn answer(&mut self, name: &str, answer: BuddyAnswer) -> Result<(), String> {
        let user = self.find(name)?;
        self.client.answer_buddy(user, answer).await.map_err(|error| harmless(&error.to_string()))?;
        say(&format!("* answered {}", self.name(user)));
        Ok(())
    }

    async fn change(&mut self, word: &str, name: &str, more: &str) -> Result<(), String> {
        let user = self.find(name)?;
        let done = match word {
            "/remove" => self.client.remove_buddy(user).await,
            "/block" => self.client.block(user).await,
            "/unblock" => self.client.unblock(user).await,
            _ => {
                let own = Text::new(more).map_err(|error| format!("the name: {error}"))?;
                self.client.modify_buddy(user, Some(own), None).await
            }
        };
        done.map_err(|error| harmless(&error.to_string()))?;
        say(&format!("* {}: done", harmless(name)));
        Ok(())
    }

    fn buddies(&self) {
        let roster = self.client.roster();
        if roster.buddies().len() == 0 {
            say("* no buddies yet: /add NAME");
        }
        for buddy in roster.buddies() {
            let waits = if buddy.entry.state == BuddyState::ACCEPTED { "" } else { " (asked, no answer yet)" };
            let message = buddy.online.map(|online| harmless(&online.personal_msg)).unwrap_or_default();
            let name = harmless(buddy.shown_name());
            say(format!("  {name:<20} {}{waits} {message}", status_word(buddy.status())).trim_end());
        }
        for asking in roster.asking() {
            let name = harmless(asking.card.name.as_str());
            say(&format!("  {name:<20} asks: {} (/accept or /refuse)", harmless(&asking.greeting)));
        }
        for blocked in roster.blocked() {
            say(&format!("  {:<20} blocked", harmless(blocked.name.as_str())));
        }
    }

    async fn card(&mut self, name: &str) -> Result<(), String> {
        let user = self.find(name)?;
        let found = self.client.card(user).await.map_err(|error| harmless(&error.to_string()))?;
        let card = &found.card;
        let lines = [
            ("name", card.name.as_str()),
            ("nickname", &card.nickname),
            ("says", &card.personal_msg),
            ("location", &card.location),
            ("birthdate", found.full.as_ref().map_or("", |full| &full.profile.birthdate)),
        ];
        for (label, text) in lines.into_iter().filter(|(_, text)| !text.is_empty()) {
            say(&format!("  {label:<10} {}", harmless(text)));
        }
        Ok(())
    }

    async fn set_status(&mut self, word: &str) -> Result<(), String> {
        let status = status(word)?;
        self.client.set_status(status).await;
        say(&format!("* you are {}", status_word(status)));
        Ok(())
    }

    async fn to(&mut self, name: &str, text: &str) -> Result<(), String> {
        let user = self.find(name)?;
        self.last_to = Some(user);
        if text.is_empty() { Ok(()) } else { self.write(user, text).await }
    }

    async fn write(&mut self, to: UserId, text: &str) -> Result<(), String> {
        let id = self.client.send_text(to, text).await.map_err(|error| error.to_string())?;
        self.count += 1;
        let (number, to) = (self.count, self.name(to));
        say(&format!("> #{number} to {to}: {}", harmless(text)));
        self.sent.insert(id, Sent { number, to, tick: Tick::NONE });
        Ok(())
    }

    fn wait(&mut self, what: &str, more: &str) -> Result<(), String> {
        let (first, second) = more.split_once(char::is_whitespace).unwrap_or((more, ""));
        let mut patience = self.patience;
        let goal = match what {
            "login" | "stored" | "delivered" => {
                if !more.is_empty() {
                    patience = seconds(more)?;
                }
                match what {
                    "login" => Goal::Login,
                    "stored" => Goal::Ticks(Tick::STORED),
                    _ => Goal::Ticks(Tick::DELIVERED),
                }
            }
            "text" => Goal::Text(more.to_owned()),
            "ask" if !more.is_empty() => Goal::Ask(more.to_owned()),
            "buddy" if !more.is_empty() => Goal::Buddy(more.to_owned()),
            "status" if !second.is_empty() => Goal::Status(first.to_owned(), status_seen(second.trim())?),
            _ => {
                patience = seconds(what).map_err(|_| "wait for what? (see /help)".to_owned())?;
                Goal::Time
            }
        };
        self.waiting = Some((goal, Instant::now() + patience));
        Ok(())
    }

    /// Looks whether what is waited for has come.
    fn look(&mut self) {
        let Some((goal, _)) = &self.waiting else { return };
        let roster = self.client.roster();
        let buddy = |name: &str| roster.find(name).and_then(|user| roster.buddy(user));
        let there = match goal {
            Goal::Login => self.online,
            Goal::Ticks(wanted) => self.sent.values().all(|sent| sent.tick >= *wanted),
            Goal::LastTicks => !self.has_unticked(),
            Goal::Text(part) => match self.unheard.iter().position(|text| text.contains(part.as_str())) {
                Some(at) => {
                    self.unheard.drain(..=at);
                    true
                }
                None => false,
            },
            Goal::Ask(name) => roster.asking().iter().any(|asking| roster.find(name) == Some(asking.card.user)),
            Goal::Buddy(name) => buddy(name).is_some_and(|buddy| buddy.entry.state == BuddyState::ACCEPTED),
            Goal::Status(name, status) => buddy(name).is_some_and(|buddy| buddy.status() == *status),
            Goal::Time => false,
        };
        if there {
            self.waiting = None;
        }
    }

    /// Something happened.
    pub(crate) async fn happened(&mut self, event: Event) {
        match event {
            Event::LoggedIn(welcome) => {
                self.online = true;
                say(&format!("* logged in as {}", harmless(welcome.name.as_str())));
                if welcome.failed_attempts > 0 {
                    say(&format!("* {} failed attempts to log in since the last time", welcome.failed_attempts));
                }
            }
            Event::Offline { error, retry_in } => {
                self.online = false;
                let error = harmless(&error.to_string());
                say(&format!("* offline: {error}; trying again in {:.1} s", retry_in.as_secs_f32()));
            }
            Event::Ended(end) => say(&format!("* {}", harmless(&end.to_string()))),
            Event::Status { user, status } => say(&format!("* {} is {}", self.name(user), status_word(status))),
            Event::Asks { card, greeting } => {
                let (name, greeting) = (harmless(card.name.as_str()), harmless(&greeting));
                say(&format!("* {name} asks to be your buddy: {greeting} (/accept {name} or /refuse {name})"));
            }
            Event::Answered { user, accepted } => {
                let verb = if accepted { "accepted" } else { "refused" };
                say(&format!("* {} {verb}", self.name(user)));
            }
            Event::Text(text) => self.heard(&text).await,
            Event::Tick(notice) => self.ticked(&notice),
            Event::WaitingBegin(notice) => say(&format!("* {} messages waited for you", notice.messages)),
            Event::WaitingEnd(notice) if notice.left > 0 => {
                say(&format!("* {} messages could not be read by the server", notice.left));
            }
            Event::Malformed(error) => say(&format!("! the server sent something strange: {error}")),
            _ => {}
        }
        self.look();
    }

    async fn heard(&mut self, received: &Received) {
        let from = received.from;
        if self.client.roster().name(from).is_none()
            && !self.names.contains_key(&from)
            && let Ok(found) = self.client.card(from).await
        {
            self.names.insert(from, found.card.name.as_str().to_owned());
        }
        let text = body(received.text.kind, received.text.body.expose());
        let waited = if received.from_store { " (while you were away)" } else { "" };
        say(&format!("< {}{waited}: {text}", self.name(from)));
        if self.unheard.len() >= UNHEARD_MAX {
            self.unheard.pop_front();
        }
        self.unheard.push_back(text);
    }

    fn ticked(&mut self, notice: &TxtTickNotify) {
        let (sign, word) = tick(notice);
        match self.sent.get_mut(&notice.id) {
            Some(sent) => {
                sent.tick = notice.tick;
                say(&format!("{sign} #{} to {} {word}", sent.number, sent.to));
            }
            None => say(&format!("{sign} a text from an earlier time {word}")),
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let fine = text.parse::<f64>().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    fine.map(Duration::from_secs_f64).ok_or_else(|| format!("{:?} is no number of seconds", harmless(text)))
}

/// The status of a word; for the command line too.
pub(crate) fn status(word: &str) -> Result<Status, String> {
    match word {
        "online" | "available" => Ok(Status::ONLINE),
        "busy" => Ok(Status::BUSY),
        "away" => Ok(Status::AWAY),
        "invisible" => Ok(Status::INVISIBLE),
        _ => Err("a status is online, busy, away or invisible".to_owned()),
    }
}

/// The status of a word, as seen by others.
fn status_seen(word: &str) -> Result<Status, String> {
    if word == "offline" { Ok(Status::OFFLINE) } else { status(word) }
}
