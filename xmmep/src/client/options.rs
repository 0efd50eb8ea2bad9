//! What a client has to know before it starts, and the key it may keep for the next time.

use core::fmt;
use core::net::SocketAddr;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::bounded::Text;
use crate::messages::DeviceClass;
use crate::name::UserName;
use crate::secret::{BadKdfParams, KdfParams, LoginKey, Salt};
use crate::session;
use crate::types::{DeviceId, Status};

/// A password as typed. Never printed; wiped when dropped.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl Password {
    /// Takes it.
    #[must_use]
    pub fn new(password: &str) -> Self {
        Self(Zeroizing::new(password.to_owned()))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A login key with what it was derived with. Whoever has it can log in until the password changes: store it like
/// a password, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedKey {
    /// The key.
    pub key: LoginKey,
    /// The salt it was derived with. When the server has another one, the password was changed.
    pub salt: Salt,
    /// What it cost.
    pub params: KdfParams,
}

/// How the user proves to be the user.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// By a password. It is forgotten as soon as the key is derived from it.
    Password(Password),
    /// By a key from an earlier login.
    Key(DerivedKey),
}

/// The long work of turning a password into a login key: 15 ms and 19 MiB with today's parameters.
#[derive(Clone, Debug)]
pub struct DeriveKey {
    pub(super) password: Password,
    pub(super) salt: Salt,
    pub(super) params: KdfParams,
}

impl DeriveKey {
    /// Does it. Not on an event loop.
    ///
    /// # Errors
    /// If the parameters are out of bounds; the machine never asks for that.
    pub fn run(self) -> Result<DerivedKey, BadKdfParams> {
        let key = LoginKey::derive(&self.password.0, &self.salt, self.params)?;
        Ok(DerivedKey { key, salt: self.salt, params: self.params })
    }

    /// The salt.
    #[must_use]
    pub fn salt(&self) -> Salt {
        self.salt
    }

    /// The cost.
    #[must_use]
    pub fn params(&self) -> KdfParams {
        self.params
    }
}

/// What to do when the very first login fails for a reason that may pass. After a first success a client always tries again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstLogin {
    /// Try once, then end: there is a person who can mend the address or the network.
    #[default]
    Once,
    /// Go on trying, as after a lost connection.
    Patient,
}

/// Whether texts and ids outlive the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// They go to a journal: texts are sent, shown and confirmed only after [`Work::Store`](super::Work::Store) is done.
    #[default]
    Journal,
    /// They live in memory. If the process dies, texts without a tick are lost, and texts that were confirmed are shown
    /// nowhere. For load generators and for bots that can live with it.
    Volatile,
}

/// What a client has to know before it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the Routers are; tried in turn.
    pub routers: Vec<SocketAddr>,
    /// The static key that the Routers prove.
    pub server_key: [u8; 32],
    /// Who logs in.
    pub name: UserName,
    /// With what.
    pub credentials: Credentials,
    /// This device; drawn once when the client is installed and kept.
    pub device: DeviceId,
    /// Its kind.
    pub device_class: DeviceClass,
    /// Its name, for the user's other devices.
    pub device_name: Text<64>,
    /// Name and version of the client program, for the operator.
    pub client: Text<64>,
    /// The status to log in with.
    pub status: Status,
    /// What to do when the first login fails.
    pub first_login: FirstLogin,
    /// Whether texts outlive the process.
    pub durability: Durability,
    /// Timing of the session. Share one among many clients.
    pub session: Arc<session::Config>,
}

impl Options {
    /// The usual: a computer, online, one try, with a journal.
    #[must_use]
    pub fn new(
        routers: Vec<SocketAddr>,
        server_key: [u8; 32],
        name: UserName,
        credentials: Credentials,
        device: DeviceId,
    ) -> Self {
        Self {
            routers,
            server_key,
            name,
            credentials,
            device,
            device_class: DeviceClass::COMPUTER,
            device_name: Text::default(),
            client: Text::cut(concat!("xmmep ", env!("CARGO_PKG_VERSION"))),
            status: Status::ONLINE,
            first_login: FirstLogin::default(),
            durability: Durability::default(),
            session: Arc::default(),
        }
    }
}
