//! Where a server is and which key it must prove: `xm://host:port/key`. Looking the host up is the driver's work.

use core::fmt;
use core::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Bytes in the host part of a [`ServerAddress`]: the longest name DNS knows.
pub const HOST_MAX: usize = 253;

/// The address of a Router as operators hand it out: `xm://host:port/key`, the key being the Router's static public
/// key, 32 bytes, base64url without padding. Whoever has the right address talks to the right server or to nobody.
///
/// ```
/// use xmmep::client::ServerAddress;
///
/// let text = "xm://chat.example.org:7100/AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA";
/// let address: ServerAddress = text.parse().unwrap();
/// assert_eq!((address.host(), address.port(), address.key()[0]), ("chat.example.org", 7100, 1));
/// assert_eq!(address.to_string(), text);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    host: Box<str>,
    port: u16,
    key: [u8; 32],
}

/// What is wrong with the text of a [`ServerAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadServerAddress {
    /// It does not begin with `xm://`.
    #[error("a server address begins with \"xm://\" and looks like xm://host:port/key")]
    Scheme,
    /// No host, or one with characters no host has, or over [`HOST_MAX`] bytes.
    #[error("{0:?} is no host name or IP address (IPv6 addresses stand in brackets)")]
    Host(String),
    /// No port, or none between 1 and 65535.
    #[error("{0:?} is no port: expected a number from 1 to 65535 after the host")]
    Port(String),
    /// No key after the port.
    #[error("the server key is missing: expected \"/\" and 43 characters after the port")]
    NoKey,
    /// The key is not base64url.
    #[error("the server key has a character that base64url does not have, or a padding sign")]
    KeyEncoding,
    /// The key does not have 32 bytes.
    #[error("the server key has {0} characters instead of 43: copied in part?")]
    KeyLength(usize),
}

impl ServerAddress {
    /// Puts an address together.
    ///
    /// # Errors
    /// If `host` is no host name or IP address (IPv6 with or without brackets), or `port` is 0.
    pub fn new(host: &str, port: u16, key: [u8; 32]) -> Result<Self, BadServerAddress> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let v6 = bare.parse::<core::net::Ipv6Addr>().is_ok();
        let name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let fine = v6 || (bare == host && bare.chars().all(name));
        if bare.is_empty() || bare.len() > HOST_MAX || !fine {
            return Err(BadServerAddress::Host(cut(host)));
        }
        if port == 0 {
            return Err(BadServerAddress::Port("0".to_owned()));
        }
        Ok(Self { host: bare.into(), port, key })
    }

    /// The host: a name, or an IP address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The UDP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Router's static public key.
    #[must_use]
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }
}

/// What an error quotes of a text that may be of any length.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

impl FromStr for ServerAddress {
    type Err = BadServerAddress;

    fn from_str(text: &str) -> Result<Self, BadServerAddress> {
        let rest = text.trim().strip_prefix("xm://").ok_or(BadServerAddress::Scheme)?;
        let (place, key) = rest.split_once('/').map_or((rest, None), |(place, key)| (place, Some(key)));
        let (host, port) = match place.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').ok_or_else(|| BadServerAddress::Port(cut(port)))?),
            None => place.rsplit_once(':').ok_or_else(|| BadServerAddress::Port(String::new()))?,
        };
        // Brackets and colons belong together.
        if place.starts_with('[') != host.parse::<core::net::Ipv6Addr>().is_ok() || host.contains('[') {
            return Err(BadServerAddress::Host(cut(host)));
        }
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits).ok_or_else(|| BadServerAddress::Port(cut(port)))?;
        let key = key.filter(|key| !key.is_empty()).ok_or(BadServerAddress::NoKey)?;
        // The length first: a key cut off while copying is the likeliest mistake and deserves its own words.
        if key.chars().count() != 43 {
            return Err(BadServerAddress::KeyLength(key.chars().count()));
        }
        let bytes = URL_SAFE_NO_PAD.decode(key).map_err(|_| BadServerAddress::KeyEncoding)?;
        let key = bytes.try_into().map_err(|_| BadServerAddress::KeyEncoding)?;
        Self::new(host, port, key)
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = URL_SAFE_NO_PAD.encode(self.key);
        if self.host.contains(':') {
            write!(f, "xm://[{}]:{}/{key}", self.host, self.port)
        } else {
            write!(f, "xm://{}:{}/{key}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA";

    #[test]
    fn an_address_is_read_back_as_written() {
        for host in ["chat.example.org", "127.0.0.1", "[::1]", "a_b-c"] {
            let text = format!("xm://{host}:7100/{KEY}");
            assert_eq!(text.parse::<ServerAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_error_names_the_part_that_is_wrong() {
        let parse = |text: &str| text.parse::<ServerAddress>().expect_err(text);
        assert_eq!(parse("http://x:1/k"), BadServerAddress::Scheme);
        assert_eq!(parse(&format!("xm://:7100/{KEY}")), BadServerAddress::Host(String::new()));
        assert_eq!(parse(&format!("xm://a b:7100/{KEY}")), BadServerAddress::Host("a b".into()));
        assert_eq!(parse(&format!("xm://::1:7100/{KEY}")), BadServerAddress::Host("::1".into()));
        assert_eq!(parse(&format!("xm://[::1]7100/{KEY}")), BadServerAddress::Port("7100".into()));
        assert_eq!(parse(&format!("xm://[nonsense]:7100/{KEY}")), BadServerAddress::Host("nonsense".into()));
        for port in ["0", "65536", "+1", "", "x"] {
            assert_eq!(parse(&format!("xm://h:{port}/{KEY}")), BadServerAddress::Port(port.into()));
        }
        assert_eq!(parse("xm://h:1"), BadServerAddress::NoKey);
        assert_eq!(parse("xm://h:1/"), BadServerAddress::NoKey);
        assert_eq!(parse("xm://h:1/AAAA"), BadServerAddress::KeyLength(4));
        assert_eq!(parse(&format!("xm://h:1/{}", "*".repeat(43))), BadServerAddress::KeyEncoding);
        assert_eq!(parse(&format!("xm://h:1/{}9", "A".repeat(42))), BadServerAddress::KeyEncoding, "stray last bits");
    }

    #[test]
    fn text_of_any_length_is_refused_with_a_short_error() {
        let long = format!("xm://{}:1/{KEY}", "x".repeat(1_000_000));
        assert!(long.parse::<ServerAddress>().expect_err("too long").to_string().len() < 500);
    }
}
