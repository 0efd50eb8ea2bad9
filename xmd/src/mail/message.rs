//! From a mail of the queue to the bytes a relay gets. All quoting and encoding is lettre's.

use std::time::{Duration, SystemTime};

use lettre::address::Envelope;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use xm_store::records::Mail;

/// A mail ready to be sent.
pub struct Letter {
    /// From whom, to whom.
    pub envelope: Envelope,
    /// Headers and body as they travel, before SMTP's dot stuffing.
    pub bytes: Vec<u8>,
}

impl Letter {
    /// Renders `mail`. The same mail renders to the same bytes each time.
    ///
    /// # Errors
    /// If the address is one that mail cannot reach.
    pub fn new(from: &Mailbox, mail: &Mail) -> Result<Self, String> {
        let to = mail.to.as_str().parse().map_err(|error| format!("the address cannot be used: {error}"))?;
        let automatic = HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
        let message = Message::builder()
            .from(from.clone())
            .to(Mailbox::new(None, to))
            .subject(one_line(&mail.subject))
            .date(SystemTime::UNIX_EPOCH + Duration::from_millis(mail.created.0))
            .message_id(Some(format!("<{}@{}>", mail.id, from.email.domain())))
            // Tells holiday responders to keep quiet.
            .raw_header(automatic)
            .header(ContentType::TEXT_PLAIN)
            .body(mail.body.expose().to_owned())
            .map_err(|error| format!("the mail cannot be made: {error}"))?;
        Ok(Self { envelope: message.envelope().clone(), bytes: message.formatted() })
    }
}

/// A subject is one line, whatever was put into it.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}
