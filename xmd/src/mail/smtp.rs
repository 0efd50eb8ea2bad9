//! Mails to relays: two at most, tried in order, one connection to each per batch. The protocol's words are lettre's.
//!
//! What a relay's no means depends on where it comes: to the recipient or the text it is about this mail; to the greeting,
//! TLS, the login or the sender it is about us or the relay, and the mail waits.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials as SmtpCredentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};

use super::{Letter, Outcome};
use crate::config::{MailTls, RelayAddress};

/// A user name and password at the relays. Prints as its name only.
#[derive(Clone)]
pub struct Credentials(SmtpCredentials);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Reads the password for `user` from the first line of a file that others cannot read.
///
/// # Errors
/// What is wrong with the file, and the way out.
pub fn read_credentials(user: &str, file: &Path) -> Result<Credentials, String> {
    let password = crate::password::read(file, "mail.password_file")?;
    Ok(Credentials(SmtpCredentials::new(user.to_owned(), password)))
}

/// How long a relay may take.
#[derive(Clone, Copy, Debug)]
pub struct RelayTimeouts {
    /// From connecting to being logged in. Short enough that the second relay has the mail within 30 s.
    pub greeting: Duration,
    /// For one mail, after that.
    pub mail: Duration,
}

impl Default for RelayTimeouts {
    fn default() -> Self {
        Self { greeting: Duration::from_secs(15), mail: Duration::from_secs(60) }
    }
}

/// One relay.
#[derive(Clone, Debug)]
pub struct Relay {
    /// Where it is.
    pub address: RelayAddress,
    /// How it is spoken to.
    pub tls: MailTls,
    /// The login, if there is one.
    pub credentials: Option<Credentials>,
}

/// The relays in the order in which they are tried.
#[derive(Debug)]
pub struct Relays {
    relays: Vec<Relay>,
    timeouts: RelayTimeouts,
}

impl Relays {
    /// The relays in order.
    #[must_use]
    pub fn new(relays: Vec<Relay>, timeouts: RelayTimeouts) -> Self {
        Self { relays, timeouts }
    }

    /// Lines for one batch of mails; none is open yet.
    pub(super) fn lines(&self) -> Lines<'_> {
        let states = self.relays.iter().map(|_| LineState::Closed).collect();
        Lines { relays: self, states }
    }
}

/// The connections of one batch.
pub(super) struct Lines<'a> {
    relays: &'a Relays,
    states: Vec<LineState>,
}

enum LineState {
    Closed,
    Open(Box<AsyncSmtpConnection>),
    /// Did not work in this batch: not tried again for each of its mails.
    Down,
}

impl Lines<'_> {
    /// Hands a mail to the first relay that takes it.
    pub(super) async fn deliver(&mut self, letter: &Letter) -> Outcome {
        let mut last = "no relay is configured".to_owned();
        for (relay, state) in self.relays.relays.iter().zip(&mut self.states) {
            match over(relay, state, self.relays.timeouts, letter).await {
                Ok(()) => return Outcome::Sent,
                Err(Failed::Mail(reason)) => return Outcome::Refused(reason),
                Err(Failed::MailForNow(reason)) => last = reason,
                Err(Failed::Line(reason)) => {
                    // Somebody must look: a relay is down, misconfigured or somebody strips its encryption.
                    tracing::error!(relay = %relay.address, %reason, "a relay cannot be used; the next one is tried");
                    *state = LineState::Down;
                    last = reason;
                }
                Err(Failed::Down) => {}
            }
        }
        Outcome::Later(last)
    }

    /// Says goodbye, without waiting long for an answer.
    pub(super) async fn close(self) {
        for state in self.states {
            if let LineState::Open(mut connection) = state {
                let _ = tokio::time::timeout(Duration::from_secs(2), connection.quit()).await;
            }
        }
    }
}

enum Failed {
    /// The relay refuses this mail for good.
    Mail(String),
    /// The relay does not want this mail now.
    MailForNow(String),
    /// The relay, or the way to it, does not work.
    Line(String),
    /// It did not work before, in the same batch.
    Down,
}

/// One mail over one relay. A connection left from the mail before may have died meanwhile: then once more over a new one.
async fn over(relay: &Relay, state: &mut LineState, times: RelayTimeouts, letter: &Letter) -> Result<(), Failed> {
    let was_open = match state {
        LineState::Down => return Err(Failed::Down),
        LineState::Open(_) => true,
        LineState::Closed => false,
    };
    match once(relay, state, times, letter).await {
        Err(Failed::Line(_)) if was_open => {
            *state = LineState::Closed;
            once(relay, state, times, letter).await
        }
        done => done,
    }
}

async fn once(relay: &Relay, state: &mut LineState, times: RelayTimeouts, letter: &Letter) -> Result<(), Failed> {
    if matches!(state, LineState::Closed) {
        let connection = in_time(times.greeting, connect(relay, times)).await.map_err(Failed::Line)?;
        *state = LineState::Open(Box::new(connection));
    }
    let LineState::Open(connection) = state else { return Err(Failed::Down) };
    let sent = tokio::time::timeout(times.mail, transact(connection, letter)).await;
    let sent = sent.unwrap_or_else(|_| Err(Failed::Line("the relay takes too long".to_owned())));
    if connection.has_broken() {
        // After a no, lettre has said goodbye on this connection.
        *state = LineState::Closed;
    }
    sent
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = Result<T, SmtpError>>) -> Result<T, String> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done.map_err(|error| in_words(&error)),
        Err(_) => Err("the relay takes too long".to_owned()),
    }
}

async fn connect(relay: &Relay, times: RelayTimeouts) -> Result<AsyncSmtpConnection, SmtpError> {
    let address = (relay.address.host.as_str(), relay.address.port);
    let hello = ClientId::default();
    let tls = || TlsParameters::new(relay.address.host.clone());
    let wrapped = if relay.tls == MailTls::Tls { Some(tls()?) } else { None };
    let mut connection =
        AsyncSmtpConnection::connect_tokio1(address, Some(times.greeting), &hello, wrapped, None).await?;
    if relay.tls == MailTls::StartTls {
        // Fails if the relay, or somebody in between, does not offer it: nothing has been said yet.
        connection.starttls(tls()?, &hello).await?;
    }
    if let Some(Credentials(credentials)) = &relay.credentials {
        connection.auth(DEFAULT_MECHANISMS, credentials).await?;
    }
    Ok(connection)
}

async fn transact(connection: &mut AsyncSmtpConnection, letter: &Letter) -> Result<(), Failed> {
    let envelope = &letter.envelope;
    let international = envelope.to().iter().chain(envelope.from()).any(|address| !address.to_string().is_ascii());
    let mut options = Vec::new();
    if international {
        if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
            return Err(Failed::Mail("the relay does not take addresses beyond ASCII".to_owned()));
        }
        options.push(MailParameter::SmtpUtfEight);
    }
    // The sender is ours: a no to it is about the configuration, not about this mail.
    let from = connection.command(Mail::new(envelope.from().cloned(), options)).await;
    from.map_err(|error| Failed::Line(in_words(&error)))?;
    for to in envelope.to() {
        connection.command(Rcpt::new(to.clone(), Vec::new())).await.map_err(about_the_mail)?;
    }
    connection.command(Data).await.map_err(about_the_mail)?;
    connection.message(&letter.bytes).await.map_err(about_the_mail)?;
    Ok(())
}

/// A failure once the relay knows the recipient. 421 is the relay closing down, not an opinion on the mail.
fn about_the_mail(error: SmtpError) -> Failed {
    let closing = error.status().is_some_and(|code| u16::from(code) == 421);
    let reason = in_words(&error);
    if error.is_permanent() {
        Failed::Mail(reason)
    } else if error.is_transient() && !closing {
        Failed::MailForNow(reason)
    } else {
        Failed::Line(reason)
    }
}

/// The error and what caused it, on one line.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).take(240).collect()
}
