//! Files of the log: create, read and write at a position, flush. Every error keeps its kind.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::format::{HEADER_LEN, Header};
use crate::error::StoreError;

/// A file being made. What is found under this name at start was never finished.
pub(super) const UNFINISHED: &str = "unfinished";

/// The two calls on which promises rest. Values, so that tests can let them fail.
#[derive(Clone, Copy)]
pub(super) struct Calls {
    /// Writes all bytes at a position.
    pub(super) write: fn(&File, &[u8], u64) -> io::Result<()>,
    /// Makes what was written durable.
    pub(super) sync: fn(&File) -> io::Result<()>,
}

impl Calls {
    /// Those of the operating system.
    pub(super) const REAL: Self = Self { write: write_all_at, sync: File::sync_data };
}

pub(super) fn segment_path(directory: &Path, segment: u64) -> PathBuf {
    directory.join(format!("{segment:016x}.seg"))
}

/// The number of a segment's file name.
pub(super) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Makes a directory that only its owner may enter, or takes an existing one from everybody else.
pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    if !path.is_dir() {
        std::fs::create_dir_all(path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_directory(parent)?;
        }
    }
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(())
}

/// Opens a file for reading and writing that only its owner may read.
pub(super) fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes a segment of `size` bytes: written aside, flushed, renamed, the directory flushed. Its space is taken now,
/// so that a full disk is noticed here, where nothing is half done, and an append changes no file length.
pub(super) fn create_segment(directory: &Path, header: &Header, size: usize, calls: Calls) -> Result<File, StoreError> {
    let aside = directory.join(UNFINISHED);
    let written = (|| {
        let file = private_file(&aside)?;
        file.set_len(0)?;
        let mut bytes = header.encode();
        bytes.resize(size.max(HEADER_LEN), 0);
        (calls.write)(&file, &bytes, 0)?;
        Ok(file)
    })();
    let file = written.map_err(|error: io::Error| {
        // Gives the space back; failing that, the next start does.
        let _ = std::fs::remove_file(&aside);
        write_error(&error)
    })?;
    let finish = || {
        (calls.sync)(&file)?;
        std::fs::rename(&aside, segment_path(directory, header.segment))?;
        sync_directory(directory)
    };
    finish().map_err(|error| StoreError::Stopped(format!("a new segment was not flushed: {error}")))?;
    Ok(file)
}

/// What a failed write means: space comes back by itself, anything else does not.
pub(super) fn write_error(error: &io::Error) -> StoreError {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    match error.kind() {
        StorageFull | QuotaExceeded | ReadOnlyFilesystem | FileTooLarge => StoreError::Full(error.to_string()),
        // Out of descriptors or memory: nothing was written, and it passes.
        _ if matches!(error.raw_os_error(), Some(12 | 23 | 24)) => StoreError::Unavailable(error.to_string()),
        _ => StoreError::Stopped(error.to_string()),
    }
}

/// Makes renames and removals in a directory durable.
#[cfg(unix)]
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Directories cannot be flushed here; the file system orders its own changes.
#[cfg(not(unix))]
pub(super) fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
pub(super) fn write_all_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, at)
}

#[cfg(windows)]
pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, at)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => (bytes, at) = (&bytes[written..], at + written as u64),
        }
    }
    Ok(())
}

#[cfg(windows)]
pub(super) fn read_exact_at(file: &File, mut bytes: &mut [u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => (bytes, at) = (&mut bytes[read..], at + read as u64),
        }
    }
    Ok(())
}
