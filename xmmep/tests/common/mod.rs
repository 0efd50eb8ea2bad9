//! What the tests of this crate and the fuzz targets share. Each uses a part of it.
#![allow(dead_code, unreachable_pub, reason = "shared: every user takes another part")]

pub mod bodies;
pub mod duo;
pub mod hex;
pub mod hostile;
pub mod noise;
pub mod schema;
pub mod vector;

use std::convert::Infallible;
use std::path::PathBuf;

use rand_core::{TryCryptoRng, TryRng};
use xmmep::sample::Sampler;

/// Randomness for what wants a cryptographic generator, reproducible from a seed.
pub struct Seeded(pub Sampler);

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.next_u64() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        bytes.fill_with(|| self.0.next_u64() as u8);
        Ok(())
    }
}

impl TryCryptoRng for Seeded {}

/// A seeded generator.
pub fn seeded(seed: u64) -> Seeded {
    Seeded(Sampler::new(seed))
}

/// A file or folder of this crate, whoever runs the test.
pub fn path(relative: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../xmmep")).join(relative)
}

/// What `XM_BLESS` asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bless {
    /// Compare only.
    No,
    /// Write what is missing or generated.
    Missing,
    /// Write golden files anew, too.
    Rewrite,
}

/// Reads `XM_BLESS`: unset, `rewrite`, or anything else for "write what is missing".
#[allow(clippy::disallowed_methods, reason = "how tests are told to write; no code of the crate reads it")]
pub fn bless() -> Bless {
    match std::env::var("XM_BLESS").as_deref() {
        Err(_) => Bless::No,
        Ok("rewrite") => Bless::Rewrite,
        Ok(_) => Bless::Missing,
    }
}
