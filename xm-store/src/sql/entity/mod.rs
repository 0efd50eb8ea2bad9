//! One table, one file. Plain columns only: what they mean is decoded in `decode.rs` and the trait files.
//!
//! Conventions: user ids and other `u64` are stored as the `i64` of the same bits; times are milliseconds since 1970 as
//! `i64`; whatever is compared or unique is a binary column, because text columns compare differently per database.

#![allow(unreachable_pub, missing_docs, reason = "the derives of sea-orm want public items")]

pub(super) mod account;
pub(super) mod block;
pub(super) mod mail;
pub(super) mod owner;
pub(super) mod parcel;
pub(super) mod placement;
pub(super) mod relation;
pub(super) mod request;
pub(super) mod roster;
pub(super) mod roster_group;
pub(super) mod search_fill;
pub(super) mod search_pair;
pub(super) mod searchable;
