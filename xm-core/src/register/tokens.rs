//! Activation tokens: how Register makes them, and how they look in a link.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xmmep::name::{Email, UserName};
use xmmep::secret::Token;
use xmmep::types::RequestId;

/// Makes tokens. A token is a keyed hash of what it is for, so a request that is repeated after a lost answer, even by a
/// Register that was restarted meanwhile, gets the token whose hash the Router already holds. Without the key, 256 bits
/// have to be guessed.
pub(super) struct Tokens {
    activation: [u8; 32],
    renewal: [u8; 32],
    addresses: [u8; 32],
}

impl Tokens {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self {
            activation: blake3::derive_key("X-Messenger Register activation tokens v1", secret),
            renewal: blake3::derive_key("X-Messenger Register renewed tokens v1", secret),
            addresses: blake3::derive_key("X-Messenger Register address limits v1", secret),
        }
    }

    /// The token of a registration. Name and address are part of it: whoever repeats a request id with another form
    /// gets nothing that works.
    pub(super) fn activation(&self, request: RequestId, name: &UserName, email: &Email) -> Token {
        let mut hash = blake3::Hasher::new_keyed(&self.activation);
        let name = name.folded();
        hash.update(&request.0).update(&(name.len() as u64).to_be_bytes()).update(name.as_bytes());
        Token::from_bytes(*hash.update(email.folded().as_bytes()).finalize().as_bytes())
    }

    /// The token of a renewal.
    pub(super) fn renewal(&self, request: RequestId, email: &Email) -> Token {
        let mut hash = blake3::Hasher::new_keyed(&self.renewal);
        Token::from_bytes(*hash.update(&request.0).update(email.folded().as_bytes()).finalize().as_bytes())
    }

    /// A number that stands for an address and tells nobody which.
    pub(super) fn address(&self, email: &Email) -> u64 {
        let hash = blake3::keyed_hash(&self.addresses, email.folded().as_bytes());
        hash.as_bytes().iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }
}

/// A token as it stands in a link: 43 characters of base64url (RFC 4648 section 5) without padding.
#[must_use]
pub fn token_to_text(token: &Token) -> String {
    URL_SAFE_NO_PAD.encode(token.expose())
}

/// Reads a token out of a link; `None` if it is none.
#[must_use]
pub fn token_from_text(text: &str) -> Option<Token> {
    // Checked first: nothing longer is looked at.
    if text.len() != TOKEN_CHARS {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    Some(Token::from_bytes(bytes.try_into().ok()?))
}

/// Characters of a token in a link: 256 bits, six to a character.
const TOKEN_CHARS: usize = 43;

#[cfg(test)]
mod tests {
    use super::*;

    fn email(text: &str) -> Email {
        Email::new(text).unwrap()
    }

    fn name(text: &str) -> UserName {
        UserName::new(text).unwrap()
    }

    #[test]
    fn a_token_is_read_back_from_its_link() {
        for byte in [0, 1, 0x7f, 0xff] {
            let token = Token::from_bytes([byte; 32]);
            assert_eq!(token_from_text(&token_to_text(&token)), Some(token));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let fine = token_to_text(&Token::from_bytes([0xff; 32]));
        let (short, long) = (&fine[1..], format!("{fine}A"));
        let (plus, last_bits) = (fine.replacen('_', "+", 1), format!("{}9", &fine[..42]));
        for text in ["", short, &long, &plus, &last_bits, &"ä".repeat(21), &format!("{}=", &fine[..42])] {
            assert!(token_from_text(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_token_belongs_to_one_request_name_and_address_in_any_spelling() {
        let tokens = Tokens::new(&[1; 32]);
        let token = tokens.activation(RequestId([1; 16]), &name("Ann"), &email("Ann@example.org"));
        assert!(token == tokens.activation(RequestId([1; 16]), &name("aNN"), &email("ann@example.org")));
        for other in [
            tokens.activation(RequestId([2; 16]), &name("Ann"), &email("ann@example.org")),
            tokens.activation(RequestId([1; 16]), &name("Bob"), &email("ann@example.org")),
            tokens.activation(RequestId([1; 16]), &name("Ann"), &email("eve@example.org")),
            tokens.renewal(RequestId([1; 16]), &email("ann@example.org")),
            Tokens::new(&[2; 32]).activation(RequestId([1; 16]), &name("Ann"), &email("ann@example.org")),
        ] {
            assert!(token != other);
        }
    }
}
