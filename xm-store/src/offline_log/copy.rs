//! A copy of a log that is in use, made without its lock and without stopping it.
//!
//! Two things help. Segments are deleted from the oldest on, and what of them is of use is by then on stable storage in
//! newer ones. And batches are written one after the other: whoever reads the open segment from its end to its beginning
//! sees all of every batch but the last one he sees anything of, which is a torn write to whoever opens the copy.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use super::disk::{self, Directory, unreachable};
use super::format::Header;
use super::segments::{self, Found, judge};
use crate::error::OpenError;

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;
/// How often the open segment is read again if a part of it changed under the eyes of the reader.
const READS: usize = 5;
/// How often the directory is looked at again. Each time, segments were made or deleted meanwhile.
const ROUNDS: usize = 100;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Segments.
    pub segments: usize,
    /// Bytes of them.
    pub bytes: u64,
}

/// Copies the log in `from`, which a server may have open, to the directory `to`, which is made or must hold no log. All
/// that was answered before the call is in the copy, on stable storage, for its owner alone. It opens like a log after a
/// crash; `quarantine/` is not copied.
///
/// # Errors
/// [`OpenError::Foreign`] if `to` holds segments, [`OpenError::Unreachable`] if something cannot be read or written; what is
/// in `to` then is no copy.
pub fn copy(from: &Path, to: &Path) -> Result<Copied, OpenError> {
    disk::private_directory(to).map_err(|error| unreachable(to, &error))?;
    if !segments::numbers(to).map_err(|error| unreachable(to, &error))?.is_empty() {
        return Err(OpenError::Foreign { path: to.to_owned(), why: "there is a log already".into() });
    }
    let mut copied: BTreeMap<u64, u64> = BTreeMap::new();
    // The newest one when it was copied. If it is not the newest any more, it has grown since.
    let mut open = None;
    for _ in 0..ROUNDS {
        let numbers = segments::numbers(from).map_err(|error| unreachable(from, &error))?;
        if numbers.last().copied() == open {
            Directory::open(to).and_then(|directory| directory.sync()).map_err(|error| unreachable(to, &error))?;
            return Ok(Copied { segments: copied.len(), bytes: copied.values().sum() });
        }
        copied.retain(|number, _| Some(*number) != open);
        let first = numbers.first().copied().unwrap_or(0);
        if copied.last_key_value().is_some_and(|(last, _)| last + 1 < first) {
            forget_before(first, to, &mut copied)?;
        }
        open = numbers.last().copied();
        for number in numbers {
            if copied.contains_key(&number) {
                continue;
            }
            match copy_segment(from, to, number, Some(number) == open)? {
                Some(bytes) => {
                    copied.insert(number, bytes);
                }
                None => forget_before(number + 1, to, &mut copied)?,
            }
        }
    }
    Err(OpenError::Unreachable { path: from.to_owned(), why: "it changes faster than it can be copied".into() })
}

/// Drops copies with a gap behind them: their originals were deleted before those in the gap.
fn forget_before(first: u64, to: &Path, copied: &mut BTreeMap<u64, u64>) -> Result<(), OpenError> {
    let kept = copied.split_off(&first);
    for (number, _) in std::mem::replace(copied, kept) {
        let path = disk::segment_path(to, number);
        std::fs::remove_file(&path).map_err(|error| unreachable(&path, &error))?;
    }
    Ok(())
}

/// Copies a segment; `None` if it has been deleted.
fn copy_segment(from: &Path, to: &Path, number: u64, is_open: bool) -> Result<Option<u64>, OpenError> {
    let path = disk::segment_path(from, number);
    let bytes = match read_segment(&path, number, is_open, read_backwards) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreachable(&path, &error)),
    };
    let copy = disk::segment_path(to, number);
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let written = (|| {
        let file = disk::private_file(&copy)?;
        file.set_len(0)?;
        disk::write_all_at(&file, &bytes[..used], 0)?;
        file.sync_all()
    })();
    written.map_err(|error| unreachable(&copy, &error))?;
    Ok(Some(used as u64))
}

/// The bytes of a segment, read with `read`. Those of the open one are read again while they look as if they changed
/// meanwhile; what stays damaged is damaged.
pub(super) fn read_segment(
    path: &Path,
    number: u64,
    is_open: bool,
    read: impl Fn(&File) -> io::Result<Vec<u8>>,
) -> io::Result<Vec<u8>> {
    let mut bytes = read(&File::open(path)?);
    for _ in 1..READS {
        let changes = match &bytes {
            Ok(bytes) => is_open && is_damaged(path, number, bytes),
            // It got shorter: a segment that is full gives back what it took in advance, once the next one has its name.
            Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        };
        if !changes {
            break;
        }
        bytes = read(&File::open(path)?);
    }
    bytes
}

fn is_damaged(path: &Path, number: u64, bytes: &[u8]) -> bool {
    let header = Header::decode(bytes);
    let found = Found { number, path: path.to_owned(), header, promised_end: None, is_last: true };
    !judge(&found, bytes, 0).damage.is_empty()
}

/// From the end to the beginning: see the top.
fn read_backwards(file: &File) -> io::Result<Vec<u8>> {
    read_backwards_from(file, file.metadata()?.len())
}

pub(super) fn read_backwards_from(file: &File, end: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end).map_err(io::Error::other)?];
    let mut end = bytes.len();
    while end > 0 {
        let start = end.saturating_sub(CHUNK);
        disk::read_exact_at(file, &mut bytes[start..end], start as u64)?;
        end = start;
    }
    Ok(bytes)
}
