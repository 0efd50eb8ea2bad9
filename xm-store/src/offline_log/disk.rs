//! Files of the log: create, read and write at a position, flush. Every error keeps its kind.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::format::Header;
use crate::error::{OpenError, StoreError};

/// A file being made. What is found under this name at start was never finished.
pub(super) const UNFINISHED: &str = "unfinished";

/// Locked by the process that has the log open; names the newest segment.
pub(super) const LOCK: &str = "LOCK";

/// Where copies of what is damaged are kept.
pub(super) const QUARANTINE: &str = "quarantine";

/// The calls on which promises rest. Values, so that tests can let them fail, or end the process around them.
#[derive(Clone, Copy)]
pub(super) struct Calls {
    /// Writes all bytes at a position.
    pub(super) write: fn(&File, &[u8], u64) -> io::Result<()>,
    /// Makes what was written durable.
    pub(super) sync: fn(&File) -> io::Result<()>,
    /// Gives a file its name.
    pub(super) rename: fn(&Path, &Path) -> io::Result<()>,
    /// Makes names and removals durable.
    pub(super) sync_directory: fn(&Directory) -> io::Result<()>,
    /// Deletes a file.
    pub(super) remove: fn(&Path) -> io::Result<()>,
}

impl Calls {
    /// Those of the operating system.
    pub(super) const REAL: Self = Self {
        write: write_all_at,
        sync: File::sync_data,
        rename: |from, to| std::fs::rename(from, to),
        sync_directory: Directory::sync,
        remove: |path| std::fs::remove_file(path),
    };
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
            Directory::open(parent)?.sync()?;
        }
    }
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(())
}

/// Opens a file for reading and writing that only its owner may read; takes an existing one from everybody else.
pub(super) fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions()) & 0o077 != 0 {
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    Ok(file)
}

/// The directory, taken for one process, for as long as this lives.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    pub(super) fn take(directory: &Path) -> Result<Self, OpenError> {
        let path = directory.join(LOCK);
        let file = private_file(&path).map_err(|error| unreachable(&path, &error))?;
        Self::on(file, directory)
    }

    /// The same without changing anything. `None` if nobody ever took it.
    pub(super) fn borrow(directory: &Path) -> Result<Option<Self>, OpenError> {
        let path = directory.join(LOCK);
        match File::open(&path) {
            Ok(file) => Self::on(file, directory).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreachable(&path, &error)),
        }
    }

    fn on(file: File, directory: &Path) -> Result<Self, OpenError> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(directory.to_owned())),
            Err(TryLockError::Error(error)) => Err(unreachable(&directory.join(LOCK), &error)),
        }
    }

    /// The newest segment there was when somebody looked last, if that is known: one that was taken away since is missed.
    pub(super) fn newest(&self) -> Option<u64> {
        let mut digits = [0; 16];
        read_exact_at(&self.0, &mut digits, 0).ok()?;
        u64::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()
    }

    /// Notes the newest segment, once it is on stable storage. Not flushed: an older note is as good as none.
    pub(super) fn note_newest(&self, segment: u64) {
        let _ = write_all_at(&self.0, format!("{segment:016x}\n").as_bytes(), 0);
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would do, but for a child process that was forked and has not closed its copy yet.
        let _ = self.0.unlock();
    }
}

/// The error of an operation on this file.
pub(super) fn unreachable(path: &Path, error: &io::Error) -> OpenError {
    OpenError::Unreachable { path: path.to_owned(), why: error.to_string() }
}

/// Makes a segment of `size` bytes with these frames at its start: written aside, flushed, renamed, the directory
/// flushed. Its space is taken now, so that a full disk is noticed here, where nothing is half done, and an append changes
/// no file length; a `spare` file of that size has its space already.
pub(super) fn create_segment(
    directory: &Path,
    header: &Header,
    frames: &[u8],
    size: usize,
    spare: Option<File>,
    calls: Calls,
) -> Result<File, StoreError> {
    let aside = directory.join(UNFINISHED);
    let written = (|| {
        // First, so that a lack of descriptors is met before anything is done.
        let opened = Directory::open(directory)?;
        let mut bytes = header.encode();
        bytes.extend(frames);
        let file = if let Some(spare) = spare {
            spare
        } else {
            bytes.resize(size.max(bytes.len()), 0);
            let file = private_file(&aside)?;
            file.set_len(0)?;
            file
        };
        (calls.write)(&file, &bytes, 0)?;
        Ok((file, opened))
    })();
    let (file, opened) = written.map_err(|error: io::Error| {
        // Gives the space back; failing that, the next start does.
        let _ = std::fs::remove_file(&aside);
        write_error(&error)
    })?;
    let finish = || {
        (calls.sync)(&file)?;
        (calls.rename)(&aside, &segment_path(directory, header.segment))?;
        (calls.sync_directory)(&opened)
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

/// A directory, opened to flush it.
pub(super) struct Directory(Option<File>);

impl Directory {
    #[cfg(unix)]
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(Some(File::open(path)?)))
    }

    /// Directories cannot be flushed here; the file system orders its own changes.
    #[cfg(not(unix))]
    pub(super) fn open(_path: &Path) -> io::Result<Self> {
        Ok(Self(None))
    }

    /// Makes renames and removals in it durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), File::sync_all)
    }
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
