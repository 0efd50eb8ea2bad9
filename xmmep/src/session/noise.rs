//! The Noise handshake: static keys, parameters, prologue, the RNG that snow may use. Who says what to whom lives in
//! `handshake.rs` (client) and `accept.rs` (server).

use core::fmt;
use std::sync::Arc;

use rand_core::CryptoRng;
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver, FallbackResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::wire::VERSION;
use super::x25519::{KeyPair, X25519};

/// The Noise protocol of client links.
pub const NOISE_NAME: &str = "Noise_NK_25519_ChaChaPoly_BLAKE2s";

/// A server's static private key. Prints as its name only, is wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ServerKey([u8; 32]);

/// A server's static public key, which clients must know beforehand.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerPublicKey(pub [u8; 32]);

impl ServerKey {
    /// Draws a key.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self(draw(rng))
    }

    /// Takes a key from where it is kept.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to keep them. Do not log them.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> ServerPublicKey {
        ServerPublicKey(KeyPair::new(self.0).public())
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKey(…)")
    }
}

impl fmt::Debug for ServerPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerPublicKey(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// 32 random bytes.
pub(super) fn draw(rng: &mut impl CryptoRng) -> [u8; 32] {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    bytes
}

fn params() -> NoiseParams {
    NOISE_NAME.parse().expect("a name snow knows")
}

/// What a server has ready for each handshake.
pub(super) struct Responder {
    params: NoiseParams,
    key: ServerKey,
    pair: Arc<KeyPair>,
}

impl Responder {
    pub(super) fn new(key: ServerKey) -> Self {
        Self { params: params(), pair: Arc::new(KeyPair::new(key.0)), key }
    }

    /// The server's state for one handshake.
    pub(super) fn start(&self, initiator_index: u32, rng: &mut impl CryptoRng) -> HandshakeState {
        let prologue = prologue(initiator_index);
        let resolver = resolver(draw(rng), Some(self.pair.clone()));
        let builder = Builder::with_resolver(self.params.clone(), resolver);
        let builder = builder.prologue(&prologue).and_then(|builder| builder.local_private_key(&self.key.0));
        builder.and_then(Builder::build_responder).expect("all that NK asks of a responder is given")
    }
}

/// The client's state. The ephemeral key is drawn from `rng` here and now: snow has no RNG of its own.
pub(super) fn initiator(key: &ServerPublicKey, initiator_index: u32, rng: &mut impl CryptoRng) -> HandshakeState {
    let prologue = prologue(initiator_index);
    let builder = Builder::with_resolver(params(), resolver(draw(rng), None));
    let builder = builder.prologue(&prologue).and_then(|builder| builder.remote_public_key(&key.0));
    builder.and_then(Builder::build_initiator).expect("all that NK asks of an initiator is given")
}

/// What both sides must agree on before the first message: protocol, version, and the index in clear.
fn prologue(initiator_index: u32) -> [u8; 10] {
    let mut prologue = *b"XMMEP\0\0\0\0\0";
    prologue[5] = VERSION;
    prologue[6..].copy_from_slice(&initiator_index.to_be_bytes());
    prologue
}

fn resolver(ephemeral: [u8; 32], known: Option<Arc<KeyPair>>) -> Box<FallbackResolver> {
    Box::new(FallbackResolver::new(Box::new(Own { ephemeral, known }), Box::new(DefaultResolver)))
}

/// Answers for randomness with 32 bytes drawn beforehand, and for X25519; the rest is snow's.
struct Own {
    ephemeral: [u8; 32],
    /// The server's static key.
    known: Option<Arc<KeyPair>>,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.ephemeral.zeroize();
    }
}

impl CryptoResolver for Own {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.ephemeral))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        (*choice == DHChoice::Curve25519).then(|| Box::new(X25519::new(self.known.clone())) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, _: &HashChoice) -> Option<Box<dyn Hash>> {
        None
    }

    fn resolve_cipher(&self, _: &CipherChoice) -> Option<Box<dyn Cipher>> {
        None
    }
}

/// Gives its bytes once; a second ephemeral key is never asked for, and would be an error.
#[derive(Zeroize, ZeroizeOnDrop)]
struct Once(Option<[u8; 32]>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        match self.0.take() {
            Some(bytes) if bytes.len() == dest.len() => {
                dest.copy_from_slice(&bytes);
                Ok(())
            }
            _ => Err(snow::Error::Rng),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{SeedableRng, rngs::StdRng};

    #[test]
    fn the_public_key_is_that_of_rfc_7748() {
        let nine = core::array::from_fn(|index| if index == 0 { 9 } else { 0 });
        let public = "ServerPublicKey(422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079)";
        assert_eq!(format!("{:?}", ServerKey::from_bytes(nine).public()), public, "section 5.2, after one iteration");
    }

    #[test]
    fn the_same_seed_gives_the_same_message_and_another_seed_another() {
        let key = ServerKey::from_bytes([7; 32]).public();
        let message = |seed| {
            let mut out = [0; 64];
            let mut state = initiator(&key, 5, &mut StdRng::seed_from_u64(seed));
            let len = state.write_message(b"", &mut out).unwrap();
            out[..len].to_vec()
        };
        assert_eq!(message(1), message(1));
        assert_ne!(message(1), message(2));
    }

    #[test]
    fn a_key_does_not_print() {
        assert_eq!(format!("{:?}", ServerKey::from_bytes([1; 32])), "ServerKey(…)");
    }
}
