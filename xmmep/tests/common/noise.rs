//! A Noise initiator for tests that lay out handshakes by hand, with the ephemeral key they want.

use snow::resolvers::{CryptoResolver, DefaultResolver, FallbackResolver};

/// Noise NK as section 4 of the page says; `ephemeral` is the private key.
pub fn initiator(server_key: &[u8; 32], initiator_index: [u8; 4], ephemeral: &[u8; 32]) -> snow::HandshakeState {
    let prologue = [&b"XMMEP\x01"[..], &initiator_index].concat();
    let params = "Noise_NK_25519_ChaChaPoly_BLAKE2s".parse().expect("a Noise name");
    let resolver = FallbackResolver::new(Box::new(NoRandomness), Box::new(DefaultResolver));
    let builder = snow::Builder::with_resolver(params, Box::new(resolver));
    let builder = builder.prologue(&prologue).and_then(|builder| builder.remote_public_key(server_key));
    let state = builder.map(|builder| builder.fixed_ephemeral_key_for_testing_only(ephemeral));
    state.and_then(snow::Builder::build_initiator).expect("all that NK asks for")
}

/// snow asks for a random source even if the ephemeral key is given.
struct NoRandomness;

impl snow::types::Random for NoRandomness {
    fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), snow::Error> {
        Err(snow::Error::Rng)
    }
}

impl CryptoResolver for NoRandomness {
    fn resolve_rng(&self) -> Option<Box<dyn snow::types::Random>> {
        Some(Box::new(Self))
    }

    fn resolve_dh(&self, _: &snow::params::DHChoice) -> Option<Box<dyn snow::types::Dh>> {
        None
    }

    fn resolve_hash(&self, _: &snow::params::HashChoice) -> Option<Box<dyn snow::types::Hash>> {
        None
    }

    fn resolve_cipher(&self, _: &snow::params::CipherChoice) -> Option<Box<dyn snow::types::Cipher>> {
        None
    }
}
