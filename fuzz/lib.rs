//! The bodies of the fuzz targets: the same files that `xmmep/tests/corpus.rs` runs over the committed corpus.

#[path = "../xmmep/tests/common/mod.rs"]
pub mod common;
