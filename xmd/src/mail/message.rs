//! From a mail of the queue to the bytes a relay gets. All quoting and encoding is lettre's.

use std::time::{Duration, SystemTime};

use lettre::address::Envelope;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue, MIME_VERSION_1_0};
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
            .header(MIME_VERSION_1_0)
            .header(ContentType::TEXT_PLAIN)
            .body(body(mail.body.expose(), carrier))
            .map_err(|error| format!("the mail cannot be made: {error}"))?;
        Ok(Self { envelope: message.envelope().clone(), bytes: message.formatted() })
    }
}

/// The text, as it is where the carrier allows: lettre on its own would encode every line over 76 bytes, and with it the
/// link that somebody copies out of a file.
fn body(text: &str, carrier: Carrier) -> Body {
    // A lone CR is a line's end to some relays and not to others: whoever writes one must not profit from that.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let short = text.split('\n').all(|line| line.len() <= LINE_MAX && !line.contains('\0'));
    let encoding = match (short, text.is_ascii(), carrier) {
        (true, true, _) => ContentTransferEncoding::SevenBit,
        (true, false, Carrier::File) => ContentTransferEncoding::EightBit,
        _ => return Body::new(text),
    };
    Body::dangerous_pre_encoded(text.replace('\n', "\r\n").into_bytes(), encoding)
}

/// A subject is one line, whatever was put into it.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use xmmep::bounded::{PrivateText, Text};
    use xmmep::name::Email;
    use xmmep::types::{RequestId, WallTime};

    use super::*;

    #[test]
    fn any_text_in_a_mail_stays_in_its_place() {
        let pieces = [
            "\r\n",
            "\n",
            "\r",
            ".",
            "Bcc: eve@example.org",
            ":",
            "=?utf-8?b?QmNjOg==?=",
            "=",
            "李",
            "\u{202e}",
            "\t",
            " ",
            "a",
            "\u{1}",
            "\u{feff}",
            "Content-Type: text/html",
            "--",
            "e\u{301}",
            "😀",
            "https://chat.example.org/activate?token=AAAA",
        ];
        let from = "Chat <chat@example.org>".parse().unwrap();
        let allowed = [
            "From",
            "To",
            "Subject",
            "Date",
            "Message-ID",
            "Auto-Submitted",
            "Content-Type",
            "Content-Transfer-Encoding",
            "MIME-Version",
        ];
        for seed in 0..3_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut text = |most: usize| {
                (0..rng.random_range(0..most)).map(|_| pieces[rng.random_range(0..pieces.len())]).collect::<String>()
            };
            let (subject, body) = (text(12), text(60));
            let mail = Mail {
                id: RequestId([1; 16]),
                to: Email::new("ann@example.org").unwrap(),
                subject: Text::cut(&subject),
                body: PrivateText::new(&body).unwrap(),
                created: WallTime(1_700_000_000_000),
            };
            let carrier = if seed % 2 == 0 { Carrier::Relay } else { Carrier::File };
            let letter = Letter::new(&from, &mail, carrier).unwrap();
            let raw = String::from_utf8(letter.bytes).unwrap();
            let (head, rest) = raw.split_once("\r\n\r\n").unwrap_or_else(|| panic!("seed {seed}: no body in {raw:?}"));
            let names = head
                .split("\r\n")
                .filter(|line| !line.starts_with([' ', '\t']))
                .map(|line| line.split(':').next().unwrap());
            let mut names: Vec<&str> = names.collect();
            assert!(names.iter().all(|name| allowed.contains(name)), "seed {seed}: {head:?}");
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), allowed.len(), "seed {seed}: each header once: {head:?}");
            assert!(head.is_ascii() && !head.replace("\r\n", "").contains(['\r', '\n']), "seed {seed}: {head:?}");
            assert!(carrier == Carrier::File || rest.is_ascii(), "seed {seed}: {rest:?}");
            assert!(!rest.replace("\r\n", "").contains(['\r', '\n']), "seed {seed}: a bare line break in {rest:?}");
            let to: Vec<String> = letter.envelope.to().iter().map(ToString::to_string).collect();
            assert_eq!(to, ["ann@example.org"], "seed {seed}");
        }
    }
}
