//! X25519 (RFC 7748) for snow: the same results from either of two libraries, see `aead.rs`. A server's static key is
//! prepared once; snow by itself would derive its public half anew in each handshake.

use std::sync::Arc;

use snow::types::{Dh, Random};
use zeroize::{Zeroize, Zeroizing};

/// A private key, its public half, and what the library makes of them.
pub(super) struct KeyPair {
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
    #[cfg(feature = "aws-lc")]
    prepared: aws_lc_rs::agreement::PrivateKey,
}

impl KeyPair {
    #[cfg(not(feature = "aws-lc"))]
    pub(super) fn new(private: [u8; 32]) -> Self {
        let public = curve25519_dalek::MontgomeryPoint::mul_base_clamped(private).to_bytes();
        Self { private: Zeroizing::new(private), public }
    }

    #[cfg(feature = "aws-lc")]
    pub(super) fn new(private: [u8; 32]) -> Self {
        use aws_lc_rs::agreement::{PrivateKey, X25519};
        let prepared = PrivateKey::from_private_key(&X25519, &private).expect("any 32 bytes are a private key");
        let public = prepared.compute_public_key().expect("a private key has a public half");
        let public = public.as_ref().try_into().expect("an X25519 key has 32 bytes");
        Self { private: Zeroizing::new(private), public, prepared }
    }

    pub(super) fn public(&self) -> [u8; 32] {
        self.public
    }

    #[cfg(not(feature = "aws-lc"))]
    fn agree(&self, peer: [u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let shared = curve25519_dalek::MontgomeryPoint(peer).mul_clamped(*self.private).to_bytes();
        // A peer that sends a point of small order fixes the result, whatever our key: nothing is agreed with it.
        (shared != [0; 32]).then(|| Zeroizing::new(shared))
    }

    #[cfg(feature = "aws-lc")]
    fn agree(&self, peer: [u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        use aws_lc_rs::agreement::{UnparsedPublicKey, X25519, agree};
        let copy = |shared: &[u8]| Ok(Zeroizing::new(shared.try_into().map_err(drop)?));
        agree(&self.prepared, UnparsedPublicKey::new(&X25519, peer), (), copy).ok()
    }
}

/// What snow computes with.
pub(super) struct X25519 {
    /// A key that was prepared, in case snow is going to set it.
    known: Option<Arc<KeyPair>>,
    pair: Option<Arc<KeyPair>>,
}

impl X25519 {
    pub(super) fn new(known: Option<Arc<KeyPair>>) -> Self {
        Self { known, pair: None }
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        let known = self.known.take().filter(|known| known.private[..] == *privkey);
        let new = || privkey.try_into().ok().map(|private| Arc::new(KeyPair::new(private)));
        self.pair = known.or_else(new);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut private = [0; 32];
        rng.try_fill_bytes(&mut private)?;
        self.pair = Some(Arc::new(KeyPair::new(private)));
        private.zeroize();
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.pair.as_ref().map_or(&[0; 32], |pair| &pair.public)
    }

    fn privkey(&self) -> &[u8] {
        self.pair.as_ref().map_or(&[0; 32], |pair| &pair.private[..])
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let peer = pubkey.first_chunk().ok_or(snow::Error::Dh)?;
        let shared = self.pair.as_ref().and_then(|pair| pair.agree(*peer)).ok_or(snow::Error::Dh)?;
        out.get_mut(..32).ok_or(snow::Error::Dh)?.copy_from_slice(&*shared);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> [u8; 32] {
        core::array::from_fn(|place| u8::from_str_radix(&text[2 * place..2 * place + 2], 16).unwrap())
    }

    #[test]
    fn keys_and_secrets_are_those_of_rfc_7748() {
        let bob = KeyPair::new(hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
        let public = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
        let alice = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!((bob.public(), bob.agree(alice).as_deref()), (public, Some(&shared)), "section 6.1");
    }

    #[test]
    fn a_point_of_small_order_agrees_on_nothing() {
        let pair = KeyPair::new([9; 32]);
        let one = core::array::from_fn(|place| u8::from(place == 0));
        assert!(pair.agree([0; 32]).is_none() && pair.agree(one).is_none());
    }
}
