//! The people of the demonstration: what they do at the pages, with their mails, and with their clients.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use xmmep::bounded::Text;
use xmmep::client::{Client, ClientOptions, Credentials, Event, Events, FileJournal, Password};
use xmmep::messages::buddies::BuddyAnswer;
use xmmep::messages::chat::Tick;
use xmmep::name::UserName;
use xmmep::types::{MsgId, Status, UserId};

use super::{PATIENCE, http};
use crate::server::Places;

/// How often the mail directory is looked at, as a person would, only faster.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Somebody who does not have an account yet.
pub(super) struct Person {
    pub(super) name: &'static str,
    pub(super) email: &'static str,
    pub(super) password: &'static str,
}

pub(super) const ANN: Person = Person { name: "ann", email: "ann@example.org", password: "plum tractor 9 sky" };
pub(super) const BOB: Person = Person { name: "bob", email: "bob@example.org", password: "seven quiet otters" };

/// Where the pages of a server on this machine are.
pub(super) fn web_address(places: &Places) -> Result<SocketAddr, String> {
    let address = places.web.strip_prefix("http://").and_then(|address| address.parse().ok());
    address.ok_or_else(|| format!("{} is not on this machine", places.web))
}

impl Person {
    /// Fills in the form; returns the page the answer leads to.
    pub(super) async fn register(&self, web: SocketAddr) -> Result<String, String> {
        let form = http::get(web, "/").await?;
        let nonce = http::field(&form.body, "nonce")?;
        let fields = [
            ("nonce", nonce.as_str()),
            ("name", self.name),
            ("email", self.email),
            ("password", self.password),
            ("again", self.password),
        ];
        let answer = http::post(web, "/register", &fields).await?;
        if answer.status == 303 { Ok(answer.location) } else { Err(format!("the form gets {}", answer.status)) }
    }

    /// Waits for the mail, and takes the path and query of the link from it.
    pub(super) async fn link_from_mail(&self, places: &Places) -> Result<String, String> {
        let directory = places.mails.as_deref().ok_or("mails do not go to a directory")?;
        let look = async {
            loop {
                if let Some(link) = newest_link(directory, self.email, &places.web) {
                    return link;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, look).await;
        found.map_err(|_| format!("no mail for {} in {}", self.email, directory.display()))
    }

    /// Opens the link, which changes nothing, and sends the form on that page.
    pub(super) async fn press_the_button(&self, web: SocketAddr, link: &str) -> Result<(), String> {
        let page = http::get(web, link).await?;
        let token = http::field(&page.body, "token")?;
        let answer = http::post(web, "/activate", &[("token", token.as_str())]).await?;
        if answer.status == 200 && answer.body.contains("is ready") {
            return Ok(());
        }
        Err(format!("activating {} gets {}", self.name, answer.status))
    }

    /// Logs in with a client that keeps its journal in `directory`.
    pub(super) async fn login(&self, places: &Places, directory: &Path) -> Result<Session, String> {
        let failed = |why: String| format!("{} cannot log in: {why}", self.name);
        let name = UserName::new(self.name).map_err(|error| failed(error.to_string()))?;
        let credentials = Credentials::Password(Password::new(self.password));
        let mut options = ClientOptions::new(places.client.clone(), name, credentials);
        let journal = directory.join(format!("{}.journal", self.name));
        let journal = FileJournal::open(&journal, &format!("{} at {}", self.name, places.client));
        options.journal = Some(Box::new(journal.map_err(|error| failed(error.to_string()))?));
        let connected = tokio::time::timeout(PATIENCE, Client::connect(options)).await;
        let (client, events) = connected
            .map_err(|_| failed("it takes too long".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        Ok(Session { name: self.name, client, events })
    }
}

/// The path and query of the link in the newest mail to `email`.
fn newest_link(directory: &Path, email: &str, web: &str) -> Option<String> {
    let mut files: Vec<_> = directory.read_dir().ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
    // Names begin with the time.
    files.sort();
    let mails = files.iter().rev().filter_map(|path| std::fs::read_to_string(path).ok());
    let mail = mails.into_iter().find(|mail| mail.contains(&format!("To: {email}\r\n")))?;
    let link = mail.lines().find(|line| line.starts_with(web) && line.contains("/activate?token="))?;
    link.strip_prefix(web).map(|link| link.trim_end().to_owned())
}

/// Somebody who is logged in.
pub(super) struct Session {
    name: &'static str,
    client: Client,
    events: Events,
}

impl Session {
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn user(&self) -> UserId {
        self.client.welcome().user
    }

    pub(super) async fn logout(mut self) {
        self.events.dealt_with().await;
        self.client.logout().await;
    }

    pub(super) async fn add_buddy(&self, name: &str, greeting: &str) -> Result<(), String> {
        let name = UserName::new(name).map_err(|error| error.to_string())?;
        let asked = self.client.add_buddy(name, Text::cut(greeting)).await;
        asked.map(drop).map_err(|error| format!("{} cannot add a buddy: {error}", self.name))
    }

    pub(super) async fn is_asked(&mut self) -> Result<UserId, String> {
        self.wait("to be asked", |event| match event {
            Event::Asks { card, .. } => Some(card.user),
            _ => None,
        })
        .await
    }

    pub(super) async fn answer(&self, user: UserId, answer: BuddyAnswer) -> Result<(), String> {
        let answered = self.client.answer_buddy(user, answer).await;
        answered.map(drop).map_err(|error| format!("{} cannot answer: {error}", self.name))
    }

    pub(super) async fn is_accepted(&mut self) -> Result<(), String> {
        self.wait("an answer", |event| matches!(event, Event::Answered { accepted: true, .. }).then_some(())).await
    }

    pub(super) async fn set_status(&self, status: Status) {
        self.client.set_status(status).await;
    }

    pub(super) async fn sees(&mut self, whose: UserId, wanted: Status) -> Result<(), String> {
        self.wait("a change of status", |event| {
            matches!(event, Event::Status { user, status } if *user == whose && *status == wanted).then_some(())
        })
        .await
    }

    pub(super) async fn send(&self, to: UserId, text: &str) -> Result<MsgId, String> {
        self.client.send_text(to, text).await.map_err(|error| format!("{} cannot write: {error}", self.name))
    }

    pub(super) async fn hears(&mut self, writer: UserId) -> Result<String, String> {
        let text = self.wait("a message", |event| match event {
            Event::Text(text) if text.from == writer => Some(text.text.body.expose().to_owned()),
            _ => None,
        });
        let text = text.await?;
        self.events.dealt_with().await;
        Ok(text)
    }

    /// Waits for a tick of this level.
    pub(super) async fn gets(&mut self, id: MsgId, level: Tick) -> Result<(), String> {
        self.wait("a tick", |event| match event {
            Event::Tick(news) if news.id == id && news.tick == level => Some(()),
            _ => None,
        })
        .await
    }

    /// Waits for an event; others are passed over.
    async fn wait<T>(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> Option<T>) -> Result<T, String> {
        let events = &mut self.events;
        let look = async {
            while let Some(event) = events.next().await {
                if let Some(found) = wanted(&event) {
                    return Some(found);
                }
            }
            None
        };
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(format!("{}'s client ended while waiting for {what}", self.name)),
            Err(_) => Err(format!("{} waited {} s for {what}", self.name, PATIENCE.as_secs())),
        }
    }
}
