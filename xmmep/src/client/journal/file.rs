//! The journal on disk: one file, appended to and fsynced batch by batch, rewritten when it has grown. What the entries
//! add up to is `state.rs`.
//!
//! ```text
//! file   header  batch …
//! header "XMMEP journal 1\n" (16)  owner: BLAKE3 of whose it is (32)
//! batch  "batc" (4)  length (4)  number (8)  BLAKE3 of owner, length, number, entries: first half (16)  entries: postcard
//! ```
//!
//! Integers are little-endian. Batches are numbered without gaps. One is written only after the one before it was
//! fsynced, so at most the last one can be torn by a crash: bad bytes with nothing good behind them are cut off, bad
//! bytes in front of a good batch are damage, kept aside and told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Entry, Journal, JournalError, Remembered};

/// The file is rewritten when it is larger than this and has doubled since the last time. 4 MiB: read in a few
/// milliseconds, and rewritten at most once per some ten thousand texts.
pub const COMPACT_ABOVE: u64 = 4 * 1024 * 1024;

/// Most bytes of entries in a batch: far more than a client ever has on its way, far less than memory.
const BATCH_MAX: usize = 64 * 1024 * 1024;

const MAGIC: &[u8; 16] = b"XMMEP journal 1\n";
const HEADER: usize = 16 + 32;
const MARK: &[u8; 4] = b"batc";
const BATCH_HEADER: usize = 4 + 4 + 8 + 16;

/// A [`Journal`] in a file. Survives `kill -9` and power loss in the middle of anything.
///
/// ```
/// use xmmep::client::{FileJournal, Journal};
///
/// let dir = tempfile::tempdir().unwrap();
/// let path = dir.path().join("ann.journal");
/// let mut journal = FileJournal::open(&path, "ann at xm://…").unwrap();
/// assert_eq!(journal.recover().unwrap().outgoing().len(), 0);
/// assert!(FileJournal::open(&path, "ann at xm://…").is_err(), "one at a time");
/// ```
#[derive(Debug)]
pub struct FileJournal {
    path: PathBuf,
    owner: [u8; 32],
    file: File,
    len: u64,
    compacted_len: u64,
    next_batch: u64,
    recovered: Remembered,
    failed: bool,
    /// Held for as long as the journal is open; beside the journal, because that one is replaced now and then.
    _lock: File,
}

impl FileJournal {
    /// Opens the journal at `path`, or makes one; the directory has to exist. `owner` says whose it is (user and server):
    /// ids of one account mean nothing to another.
    ///
    /// Blocks: reads the whole file.
    ///
    /// # Errors
    /// If another process has it open, it belongs to another owner, or the system says no.
    pub fn open(path: impl Into<PathBuf>, owner: &str) -> Result<Self, JournalError> {
        let path = path.into();
        let lock = lock(&path)?;
        let key = blake3::derive_key("XMMEP client journal owner v1", owner.as_bytes());
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failure(&path, &error)),
        };
        let header = header(&key);
        let Some(batches) = bytes.strip_prefix(&header[..]) else {
            // Headers arrive by rename, whole. The start of one means that a foreign hand cut the file: nothing was in it.
            if header.starts_with(&bytes) {
                return Self::rewrite(path, key, lock, Remembered::default(), 0);
            }
            return Err(JournalError::NotOurs { file: path.display().to_string(), owner: owner.to_owned() });
        };
        let mut found = read_batches(batches, &key);
        if let Some(at) = found.damaged_at {
            let aside = sibling(&path, &format!("damaged-{}", found.next_batch));
            fs::copy(&path, &aside).map_err(|error| failure(&aside, &error))?;
            found.remembered.damage = format!(
                "{} was damaged at byte {}: what could be read was kept, the file as it was is {}",
                path.display(),
                HEADER.saturating_add(at),
                aside.display()
            );
        }
        if found.damaged_at.is_some() || found.good != batches.len() || bytes.len() as u64 > COMPACT_ABOVE {
            return Self::rewrite(path, key, lock, found.remembered, found.next_batch);
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(|error| failure(&path, &error))?;
        let len = bytes.len() as u64;
        let (owner, recovered, next_batch) = (key, found.remembered, found.next_batch);
        Ok(Self { path, owner, file, len, compacted_len: len, next_batch, recovered, failed: false, _lock: lock })
    }

    /// Puts a fresh file with the same content in the place of the journal.
    fn rewrite(
        path: PathBuf,
        owner: [u8; 32],
        lock: File,
        remembered: Remembered,
        next_batch: u64,
    ) -> Result<Self, JournalError> {
        let (file, len) = replace(&path, &owner, &remembered, next_batch).map_err(|error| failure(&path, &error))?;
        Ok(Self {
            path,
            owner,
            file,
            len,
            compacted_len: len,
            next_batch: next_batch.saturating_add(1),
            recovered: remembered,
            failed: false,
            _lock: lock,
        })
    }

    fn write(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        let batch = batch(&self.owner, self.next_batch, entries)?;
        let written = self.file.write_all(&batch).and_then(|()| self.file.sync_data());
        written.map_err(|error| failure(&self.path, &error))?;
        self.next_batch = self.next_batch.saturating_add(1);
        self.len = self.len.saturating_add(batch.len() as u64);
        if self.len > COMPACT_ABOVE && self.len / 2 > self.compacted_len {
            self.compact().map_err(|error| failure(&self.path, &error))?;
        }
        Ok(())
    }

    /// Reads the file back rather than keeping its content in memory a second time.
    fn compact(&mut self) -> io::Result<()> {
        let bytes = fs::read(&self.path)?;
        let batches = bytes.strip_prefix(&header(&self.owner)[..]).ok_or(io::ErrorKind::InvalidData)?;
        let found = read_batches(batches, &self.owner);
        if found.good != batches.len() || found.damaged_at.is_some() || found.next_batch != self.next_batch {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what was written does not read back"));
        }
        let (file, len) = replace(&self.path, &self.owner, &found.remembered, self.next_batch)?;
        self.next_batch = self.next_batch.saturating_add(1);
        (self.file, self.len, self.compacted_len) = (file, len, len);
        Ok(())
    }
}

impl Journal for FileJournal {
    fn recover(&mut self) -> Result<Remembered, JournalError> {
        Ok(core::mem::take(&mut self.recovered))
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), JournalError> {
        if self.failed {
            return Err(JournalError::Failed(self.path.display().to_string()));
        }
        // An fsync that failed may have thrown the pages away: trying again would "succeed" and prove nothing.
        self.write(entries).inspect_err(|_| self.failed = true)
    }
}

/// What the batches of a file say.
struct Found {
    remembered: Remembered,
    next_batch: u64,
    /// Where the last good batch ends.
    good: usize,
    /// Where bad bytes stand in front of a good batch.
    damaged_at: Option<usize>,
}

fn read_batches(bytes: &[u8], owner: &[u8; 32]) -> Found {
    let mut found = Found { remembered: Remembered::default(), next_batch: 0, good: 0, damaged_at: None };
    let mut at = 0_usize;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some((number, entries, len)) = read_batch(rest, owner).filter(|(number, ..)| *number >= found.next_batch)
        else {
            // Look for a good batch behind the bad bytes.
            let next = rest.get(1..).and_then(|rest| rest.windows(MARK.len()).position(|window| window == MARK));
            match next {
                Some(skip) => at = at.saturating_add(skip).saturating_add(1),
                None => break,
            }
            continue;
        };
        // The first batch of a file may have any number: the file was rewritten then. Later gaps are damage.
        if at != found.good || (found.good != 0 && number != found.next_batch) {
            found.damaged_at.get_or_insert(found.good);
        }
        entries.into_iter().for_each(|entry| found.remembered.apply(entry));
        at = at.saturating_add(len);
        (found.next_batch, found.good) = (number.saturating_add(1), at);
    }
    found
}

/// The batch that `bytes` begin with: its number, its entries, its length; `None` if it is not whole and good.
fn read_batch(bytes: &[u8], owner: &[u8; 32]) -> Option<(u64, Vec<Entry>, usize)> {
    let rest = bytes.strip_prefix(MARK)?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let (sum, rest) = rest.split_first_chunk::<16>()?;
    let payload = rest.get(..usize::try_from(u32::from_le_bytes(*len)).ok()?)?;
    if payload.len() > BATCH_MAX || checksum(owner, *len, *number, payload) != *sum {
        return None;
    }
    let mut entries = Vec::new();
    let mut left = payload;
    while !left.is_empty() {
        let (entry, rest) = postcard::take_from_bytes(left).ok()?;
        entries.push(entry);
        left = rest;
    }
    Some((u64::from_le_bytes(*number), entries, BATCH_HEADER.saturating_add(payload.len())))
}

fn batch(owner: &[u8; 32], number: u64, entries: &[Entry]) -> Result<Vec<u8>, JournalError> {
    let mut payload = Vec::new();
    for entry in entries {
        // Serializing into a vector fails for no type that is in an entry.
        payload = postcard::to_extend(entry, payload).map_err(|_| JournalError::TooLarge(BATCH_MAX))?;
    }
    let len = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= BATCH_MAX);
    let len = len.ok_or(JournalError::TooLarge(payload.len()))?.to_le_bytes();
    let number = number.to_le_bytes();
    Ok([&MARK[..], &len, &number, &checksum(owner, len, number, &payload), &payload].concat())
}

fn checksum(owner: &[u8; 32], len: [u8; 4], number: [u8; 8], payload: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(owner);
    hasher.update(&len).update(&number).update(payload);
    let mut sum = [0; 16];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

fn header(owner: &[u8; 32]) -> Vec<u8> {
    [&MAGIC[..], owner].concat()
}

/// Writes a new file aside and moves it into place: whatever happens in between, one of the two is whole.
fn replace(path: &Path, owner: &[u8; 32], remembered: &Remembered, number: u64) -> io::Result<(File, u64)> {
    let aside = sibling(path, "new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    let mut file = private(&mut options).open(&aside)?;
    let batch = batch(owner, number, &remembered.entries());
    let bytes = [header(owner), batch.map_err(io::Error::other)?].concat();
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    // The rename itself has to reach the disk, or a crash brings the old file back with the new batches gone.
    #[cfg(unix)]
    File::open(path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()?;
    Ok((file, bytes.len() as u64))
}

fn lock(path: &Path) -> Result<File, JournalError> {
    let beside = sibling(path, "lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let file = private(&mut options).open(&beside).map_err(|error| failure(&beside, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(JournalError::InUse(path.display().to_string())),
        Err(fs::TryLockError::Error(error)) => Err(failure(&beside, &error)),
    }
}

/// What people write to each other is nobody else's business on the same machine.
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

fn failure(path: &Path, error: &io::Error) -> JournalError {
    JournalError::Io { file: path.display().to_string(), error: error.to_string() }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
