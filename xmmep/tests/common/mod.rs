//! What the tests of this crate and the fuzz targets share. Each uses a part of it.
#![allow(dead_code, unreachable_pub, reason = "shared: every user takes another part")]

pub mod hex;
pub mod schema;
pub mod vector;

use std::path::PathBuf;

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
pub fn bless() -> Bless {
    match std::env::var("XM_BLESS").as_deref() {
        Err(_) => Bless::No,
        Ok("rewrite") => Bless::Rewrite,
        Ok(_) => Bless::Missing,
    }
}
