//! From a mail of the queue to the bytes a relay gets. All quoting and encoding is lettre's.

use std::time::{Duration, SystemTime};

use lettre::address::Envelope;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Body, Mailbox, Message};
use xm_store::records::Mail;

/// Bytes in a line that need no encoding for its length (RFC 5322 section 2.1.1).
const LINE_MAX: usize = 998;

/// What may carry a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A relay, which is promised ASCII.
    Relay,
    /// A file, which takes any UTF-8: whoever opens it finds links as they are.
    File,
}

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
    pub fn new(from: &Mailbox, mail: &Mail, carrier: Carrier) -> Result<Self, String> {
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
            .body(body(mail.body.expose(), carrier))
            .map_err(|error| format!("the mail cannot be made: {error}"))?;
        Ok(Self { envelope: message.envelope().clone(), bytes: message.formatted() })
    }
}

/// The text, as it is where the carrier allows: lettre on its own would encode every line over 76 bytes, and with it the
/// link that somebody copies out of a file.
fn body(text: &str, carrier: Carrier) -> Body {
    let lines: Vec<&str> = text.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    let short = lines.iter().all(|line| line.len() <= LINE_MAX && !line.contains(['\r', '\0']));
    let encoding = match (short, text.is_ascii(), carrier) {
        (true, true, _) => ContentTransferEncoding::SevenBit,
        (true, false, Carrier::File) => ContentTransferEncoding::EightBit,
        _ => return Body::new(text.to_owned()),
    };
    Body::dangerous_pre_encoded(lines.join("\r\n").into_bytes(), encoding)
}

/// A subject is one line, whatever was put into it.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}
