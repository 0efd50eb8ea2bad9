//! The real binary, from outside: processes, files, sockets, pages, mails and clients.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

#[path = "../../../xm-store/tests/common/mod.rs"]
mod databases;
mod engines;
mod erasure;
mod files;
mod place;
mod put_back;
mod registration;
mod slow_disk;
mod start;
mod tools;
