//! ChaCha20-Poly1305 (RFC 8439), the cipher of records. The same bytes from either of two libraries: RustCrypto's, which
//! builds everywhere, or, with feature `aws-lc`, one in assembly that takes a fraction of the time.

use super::wire::TAG;

/// Bytes of a key.
pub(super) const KEY: usize = 32;

/// It does not authenticate.
#[derive(Debug)]
pub(super) struct Forged;

/// Encrypts `plain` in place; `header` is authenticated with it.
#[cfg(not(feature = "aws-lc"))]
pub(super) fn seal(key: &[u8; KEY], counter: u64, header: &[u8], plain: &mut [u8]) -> [u8; TAG] {
    use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
    let cipher = ChaCha20Poly1305::new(key.into());
    let tag = cipher.encrypt_inout_detached(&nonce(counter).into(), header, plain.into());
    tag.expect("a datagram is not too long").into()
}

/// Decrypts `sealed`, which ends in a tag, in place. What it holds after an error is of no use.
#[cfg(not(feature = "aws-lc"))]
pub(super) fn open(key: &[u8; KEY], counter: u64, header: &[u8], sealed: &mut [u8]) -> Result<(), Forged> {
    use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
    let len = sealed.len().checked_sub(TAG).ok_or(Forged)?;
    let (body, tag) = sealed.split_at_mut(len);
    let tag = (&*tag).try_into().map_err(|_| Forged)?;
    let cipher = ChaCha20Poly1305::new(key.into());
    cipher.decrypt_inout_detached(&nonce(counter).into(), header, body.into(), &tag).map_err(|_| Forged)
}

#[cfg(feature = "aws-lc")]
fn cipher(key: &[u8; KEY]) -> aws_lc_rs::aead::LessSafeKey {
    use aws_lc_rs::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key of that cipher has 32 bytes"))
}

/// Encrypts `plain` in place; `header` is authenticated with it.
#[cfg(feature = "aws-lc")]
pub(super) fn seal(key: &[u8; KEY], counter: u64, header: &[u8], plain: &mut [u8]) -> [u8; TAG] {
    use aws_lc_rs::aead::{Aad, Nonce};
    let nonce = Nonce::assume_unique_for_key(nonce(counter));
    let tag = cipher(key).seal_in_place_separate_tag(nonce, Aad::from(header), plain);
    tag.ok().and_then(|tag| tag.as_ref().try_into().ok()).expect("a datagram is not too long")
}

/// Decrypts `sealed`, which ends in a tag, in place. What it holds after an error is of no use.
#[cfg(feature = "aws-lc")]
pub(super) fn open(key: &[u8; KEY], counter: u64, header: &[u8], sealed: &mut [u8]) -> Result<(), Forged> {
    use aws_lc_rs::aead::{Aad, Nonce};
    let nonce = Nonce::assume_unique_for_key(nonce(counter));
    cipher(key).open_in_place(nonce, Aad::from(header), sealed).map(drop).map_err(|_| Forged)
}

/// As Noise has it: four zeros and the counter, little-endian.
fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_what_another_implementation_says() {
        use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit};
        for len in [0, 1, 16, 63, 64, 65, 150, 1_100] {
            let (key, mut ours): ([u8; KEY], Vec<u8>) = ([len as u8; KEY], (0..len).map(|byte| byte as u8).collect());
            let mut theirs = ours.clone();
            let tag = seal(&key, 77, b"header", &mut ours);
            let cipher = ChaCha20Poly1305::new(&key.into());
            let expected = cipher.encrypt_inout_detached(&nonce(77).into(), b"header", theirs.as_mut_slice().into());
            assert_eq!((&ours, &tag[..]), (&theirs, &expected.unwrap()[..]), "{len} bytes");
            ours.extend_from_slice(&tag);
            open(&key, 77, b"header", &mut ours).unwrap();
            assert!(ours[..len].iter().enumerate().all(|(place, byte)| *byte == place as u8));
        }
    }

    #[test]
    fn another_counter_header_tag_or_byte_is_a_forgery_and_so_is_less_than_a_tag() {
        let mut sealed = b"sixteen bytes ok".to_vec();
        let tag = seal(&[7; KEY], 1, b"header", &mut sealed);
        sealed.extend_from_slice(&tag);
        assert!(open(&[7; KEY], 2, b"header", &mut sealed.clone()).is_err());
        assert!(open(&[7; KEY], 1, b"Header", &mut sealed.clone()).is_err());
        assert!(open(&[8; KEY], 1, b"header", &mut sealed.clone()).is_err());
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert!(open(&[7; KEY], 1, b"header", &mut changed).is_err(), "byte {place}");
        }
        assert!(open(&[7; KEY], 1, b"header", &mut sealed[..TAG - 1]).is_err());
        open(&[7; KEY], 1, b"header", &mut sealed).unwrap();
    }
}
