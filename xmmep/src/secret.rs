//! Secrets: none of them can be printed, compared in variable time, or left behind in memory.

use core::fmt;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::sample::{Sample, Sampler};

/// Declares a 32-byte secret: prints as its name only, compares in constant time, is wiped when dropped.
macro_rules! secret {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Takes the bytes.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The bytes. Do not log them.
            #[must_use]
            pub fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }

        impl Sample for $name {
            fn sample(sampler: &mut Sampler) -> Self {
                Self(sampler.bytes())
            }
        }
    };
}

secret! {
    /// What the client derives from the password and proves inside the session; the server keeps only its
    /// [`KeyHash`]. Whoever has it can log in until the password changes.
    LoginKey
}
secret! {
    /// BLAKE3 of a [`LoginKey`]: what the database holds. Useless for logging in; each guess at the password
    /// behind it costs a full Argon2id.
    KeyHash
}
secret! {
    /// An activation or reset token: 256 bits from the operating system, in one mail and nowhere else.
    Token
}
secret! {
    /// BLAKE3 of a [`Token`]: what the database holds.
    TokenHash
}
secret! {
    /// The key a Presence gives its Routers to seal admission tickets with.
    TicketKey
}

impl LoginKey {
    /// Derives the key: Argon2id (RFC 9106, version 0x13) of the UTF-8 password with the user's salt, 32 bytes out.
    ///
    /// Takes as long as `params` say (some 15 ms for the defaults): not for a server's event loop.
    ///
    /// # Errors
    /// If the parameters are outside [`KdfParams::check`]: a server that asks for less wants the key to be guessable.
    pub fn derive(password: &str, salt: &Salt, params: KdfParams) -> Result<Self, BadKdfParams> {
        params.check()?;
        let parsed = argon2::Params::new(params.memory_kib, params.passes, params.lanes, Some(32));
        let parsed = parsed.map_err(|_| BadKdfParams(params))?;
        let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parsed);
        let mut key = [0; 32];
        argon2.hash_password_into(password.as_bytes(), &salt.0, &mut key).map_err(|_| BadKdfParams(params))?;
        Ok(Self(key))
    }

    /// The hash the server stores.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash(blake3::derive_key("XMMEP login key hash v1", &self.0))
    }
}

impl Token {
    /// Draws a token.
    pub fn random(rng: &mut impl rand_core::CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The hash the server stores.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(blake3::derive_key("XMMEP mail token hash v1", &self.0))
    }
}

/// The salt of a user's login key. Not secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Salt(pub [u8; 16]);

impl Sample for Salt {
    fn sample(sampler: &mut Sampler) -> Self {
        Self(sampler.bytes())
    }
}

/// How costly the derivation of a login key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KdfParams {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl KdfParams {
    /// What new passwords use: 19 MiB, two passes (OWASP's recommendation for Argon2id).
    pub const RECOMMENDED: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };

    /// Whether a client may use these: from 19 MiB and two passes up to 256 MiB, 16 passes and 4 lanes. Less would
    /// let a false server collect cheap hashes, more would let it stall the client.
    ///
    /// # Errors
    /// If not.
    pub fn check(self) -> Result<(), BadKdfParams> {
        let fine = (19_456..=262_144).contains(&self.memory_kib)
            && (2..=16).contains(&self.passes)
            && (1..=4).contains(&self.lanes);
        if fine { Ok(()) } else { Err(BadKdfParams(self)) }
    }
}

impl Default for KdfParams {
    fn default() -> Self {
        Self::RECOMMENDED
    }
}

impl Sample for KdfParams {
    fn sample(sampler: &mut Sampler) -> Self {
        Self { memory_kib: Sample::sample(sampler), passes: Sample::sample(sampler), lanes: Sample::sample(sampler) }
    }
}

/// Key derivation parameters that a client must not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server asks for Argon2id with {} KiB, {} passes, {} lanes: outside 19456–262144 KiB, 2–16 passes, 1–4 lanes",
    .0.memory_kib, .0.passes, .0.lanes
)]
pub struct BadKdfParams(pub KdfParams);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_key_is_the_argon2id_of_the_password() {
        let key = LoginKey::derive("correct horse", &Salt([7; 16]), KdfParams::RECOMMENDED).unwrap();
        let again = LoginKey::derive("correct horse", &Salt([7; 16]), KdfParams::RECOMMENDED).unwrap();
        let other = LoginKey::derive("correct horsf", &Salt([7; 16]), KdfParams::RECOMMENDED).unwrap();
        assert!(key == again && key != other);
    }

    #[test]
    fn parameters_under_the_floor_or_over_the_ceiling_are_refused_before_any_work() {
        for params in [
            KdfParams { memory_kib: 8, ..KdfParams::RECOMMENDED },
            KdfParams { memory_kib: u32::MAX, ..KdfParams::RECOMMENDED },
            KdfParams { passes: 1, ..KdfParams::RECOMMENDED },
            KdfParams { passes: 1_000, ..KdfParams::RECOMMENDED },
            KdfParams { lanes: 0, ..KdfParams::RECOMMENDED },
        ] {
            assert_eq!(LoginKey::derive("x", &Salt::default(), params), Err(BadKdfParams(params)));
        }
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", LoginKey::from_bytes([1; 32])), "LoginKey(…)");
    }
}
