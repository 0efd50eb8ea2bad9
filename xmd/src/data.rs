//! The data directory: who may use it, its lock, and the servers' keys. What the databases in it hold is the stores' affair.
//!
//! ```text
//! xmd-data/            0700
//!   xmd.lock           held by the process that uses the directory; holds its number
//!   keys/router.key    the Router's static key: clients pin its public half
//!   keys/presence.key  the Presence's static key
//!   keys/register.key  what Register makes tokens from
//!   mail/              .eml files, with mail.mode "directory"
//!   …                  databases and offline messages, see `stores.rs`
//! ```

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::CryptoRng;
use xmmep::session::ServerKey;

/// What the first line of a key file begins with.
const KEY_HEADER: &str = "xmd-server-key-v1";
/// Longer than any key file of ours.
const KEY_FILE_BYTES_MAX: u64 = 1_024;
/// The key files, in `keys/`.
pub(crate) const KEY_FILES: [&str; 3] = ["router.key", "presence.key", "register.key"];
/// There while a restore is under way: what is beside it is not whole.
pub(crate) const UNFINISHED: &str = "restore.unfinished";
/// Deeper than the data directory ever gets.
const DEPTH_MAX: usize = 4;

/// Files that say that no server may use the directory, and why.
const NOT_OURS: [(&str, &str); 2] = [
    (crate::backup::MANIFEST, "is a backup, which stays as it was made; make a directory of it with `xmd restore`"),
    (UNFINISHED, "is half restored: the restore was interrupted; empty the directory and restore again"),
];

/// Why the data directory cannot be used. Each message names the file and the way out.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system said no.
    #[error("cannot {what} {}: {why}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the operating system said.
        why: io::Error,
    },
    /// Something else is in the directory's place.
    #[error("{} is no directory; give another one with --data or data_dir", .0.display())]
    NotADirectory(PathBuf),
    /// It is a backup, or half a restored one.
    #[error("{} {why}", .path.display())]
    NotOurs {
        /// Which.
        path: PathBuf,
        /// What it is, and the way out.
        why: &'static str,
    },
    /// It belongs to another account.
    #[error("{} belongs to user {owner}, but xmd runs as user {us}; run it as its owner or change the owner", .path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// The owner's number.
        owner: u32,
        /// Ours.
        us: u32,
    },
    /// Another process uses it.
    #[error(
        "{} is in use by another xmd{}; stop that one, or give another directory with --data",
        .path.display(), .pid.map(|pid| format!(", process {pid}")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other process.
        pid: Option<u32>,
    },
    /// A key file is not as it was written.
    #[error("{} is damaged: {why}; restore it from a backup (a new key would lock out all clients)", .path.display())]
    BadKey {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A key file is missing although there are data.
    #[error(
        "{} is missing, but {} exists: restore the key from a backup (a new key would lock out all clients), or start \
         with an empty directory",
        .path.display(), .evidence.display()
    )]
    MissingKey {
        /// The key file.
        path: PathBuf,
        /// What shows that this is not the first start.
        evidence: PathBuf,
    },
    /// Others can read a key file.
    #[error(
        "{} can be read by others (mode {mode:04o}); if nobody did, `chmod 600` it, else restore a key nobody has seen",
        .path.display()
    )]
    LooseKey {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// The servers' keys. They do not print.
#[derive(Debug)]
pub struct Keys {
    /// The Router's.
    pub router: ServerKey,
    /// The Presence's.
    pub presence: ServerKey,
    /// No static key but 32 bytes from which Register makes tokens; kept like the others.
    pub register: ServerKey,
}

/// A data directory that nobody else uses, until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The lock lasts as long as this is open.
    _lock: File,
}

impl DataDir {
    /// Creates the directory if it is missing, takes its lock, and tightens modes that let others in.
    ///
    /// # Errors
    /// See [`DataError`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let fail = |what| move |why| DataError::Io { what, path: path.to_owned(), why };
        if !path.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail("create"))?;
            sync_parent(path)?;
        }
        let path = path.canonicalize().map_err(fail("open"))?;
        if !path.is_dir() {
            return Err(DataError::NotADirectory(path));
        }
        for (file, why) in NOT_OURS {
            if path.join(file).exists() {
                return Err(DataError::NotOurs { path, why });
            }
        }
        let lock = lock(&path)?;
        let us = lock.metadata().map_err(fail("look at"))?.uid();
        tighten(&path, us, 0)?;
        Ok(Self { path, _lock: lock })
    }

    /// The directory, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or directory in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether any key is here.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        KEY_FILES.iter().any(|name| self.join("keys").join(name).exists())
    }

    /// The servers' keys. Made at the first start, which is known by the absence of `evidence` (a database): where there
    /// are data, a missing key is an error, because clients would refuse a new one.
    ///
    /// # Errors
    /// If a key file is missing, damaged or can be read by others.
    pub fn keys(&self, rng: &mut impl CryptoRng, evidence: Option<&Path>) -> Result<Keys, DataError> {
        let directory = self.join("keys");
        make_private_dir(&directory)?;
        let mut key = |name: &str| {
            let path = directory.join(name);
            if path.exists() {
                return read_key(&path);
            }
            if let Some(evidence) = evidence {
                return Err(DataError::MissingKey { path, evidence: evidence.to_owned() });
            }
            let key = ServerKey::random(rng);
            write_durably(&path, key_text(&key).as_bytes())?;
            tracing::info!(file = %path.display(), "new server key");
            Ok(key)
        };
        let [router, presence, register] = KEY_FILES;
        Ok(Keys { router: key(router)?, presence: key(presence)?, register: key(register)? })
    }
}

/// Creates a directory only its owner can use, if it is missing.
///
/// # Errors
/// If the operating system says no.
pub fn make_private_dir(path: &Path) -> Result<(), DataError> {
    let fail = |why| DataError::Io { what: "create", path: path.to_owned(), why };
    if !path.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail)?;
        sync_parent(path)?;
    }
    Ok(())
}

/// Writes a file so that after any crash it is there whole or not at all: aside, fsync, rename, fsync of the directory.
///
/// # Errors
/// If the operating system says no; the file is then as it was.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    let aside = PathBuf::from(aside);
    let fail = |why| DataError::Io { what: "write", path: path.to_owned(), why };
    let write = || {
        // What a crash left behind may have another mode: it is not written to.
        std::fs::remove_file(&aside).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&aside, path)
    };
    write().map_err(fail)?;
    sync_parent(path)
}

fn sync_parent(path: &Path) -> Result<(), DataError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    sync_directory(parent).map_err(|why| DataError::Io { what: "write", path: parent.to_owned(), why })
}

/// Makes what was created, renamed or removed in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn lock(directory: &Path) -> Result<File, DataError> {
    let path = directory.join("xmd.lock");
    let fail = |what| {
        let path = path.clone();
        move |why| DataError::Io { what, path, why }
    };
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = open.map_err(fail("open"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(why)) => return Err(fail("lock")(why)),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = (&mut file).take(32).read_to_string(&mut text);
            return Err(DataError::InUse { path: directory.to_owned(), pid: text.trim().parse().ok() });
        }
    }
    let pid = format!("{}\n", std::process::id());
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(pid.as_bytes()));
    written.map_err(fail("write"))?;
    Ok(file)
}

/// Takes from group and others what they have in the directory. Key files stay as they are, so that
/// [`read_key`] can complain: a key that others could read may be known to them.
fn tighten(path: &Path, us: u32, depth: usize) -> Result<(), DataError> {
    let fail = |what| {
        let path = path.to_owned();
        move |why| DataError::Io { what, path, why }
    };
    let meta = path.symlink_metadata().map_err(fail("look at"))?;
    if meta.uid() != us {
        return Err(DataError::Foreign { path: path.to_owned(), owner: meta.uid(), us });
    }
    let is_key = path.extension().is_some_and(|extension| extension == "key");
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 && !is_key && !meta.is_symlink() {
        std::fs::set_permissions(path, Permissions::from_mode(mode & 0o700)).map_err(fail("change the mode of"))?;
        tracing::warn!(path = %path.display(), was = format!("{mode:04o}"), "others could use this; they no longer can");
    }
    if meta.is_dir() && depth < DEPTH_MAX {
        for entry in path.read_dir().map_err(fail("read"))? {
            tighten(&entry.map_err(fail("read"))?.path(), us, depth + 1)?;
        }
    }
    Ok(())
}

/// `xmd-server-key-v1 <64 hex digits> <16 hex digits of checksum>`, one line. The checksum tells a damaged key from another.
fn key_text(key: &ServerKey) -> String {
    let hex = hex(key.expose());
    format!("{KEY_HEADER} {hex} {}\n", checksum(&hex))
}

fn checksum(hex_key: &str) -> String {
    let hash = blake3::derive_key("xmd server key file checksum v1", hex_key.as_bytes());
    hex(&hash)[..16].to_owned()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_key(path: &Path) -> Result<ServerKey, DataError> {
    let fail = |why| DataError::Io { what: "read", path: path.to_owned(), why };
    let bad = |why| DataError::BadKey { path: path.to_owned(), why };
    let file = File::open(path).map_err(fail)?;
    let mode = file.metadata().map_err(fail)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(DataError::LooseKey { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    let read = file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| if error.kind() == io::ErrorKind::InvalidData { bad("it is no text") } else { fail(error) })?;
    let Some(line) = text.strip_suffix('\n') else { return Err(bad("it ends in the middle")) };
    let fields: Vec<&str> = line.split(' ').collect();
    let [header, key, sum] = fields[..] else { return Err(bad("it is not of the form xmd writes")) };
    if header != KEY_HEADER {
        return Err(bad("it is of another version or no key"));
    }
    let bytes = unhex(key).ok_or_else(|| bad("the key is not 64 hex digits"))?;
    if checksum(key) != sum {
        return Err(bad("its checksum does not match"));
    }
    Ok(ServerKey::from_bytes(bytes))
}

/// 32 bytes from 64 hex digits, lower case only, so that there is one way to write each.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o777
    }

    fn keys(data: &DataDir) -> Result<Keys, DataError> {
        let evidence = Some(data.join("RouterDB.db")).filter(|file| file.exists());
        data.keys(&mut StdRng::seed_from_u64(7), evidence.as_deref())
    }

    #[test]
    fn the_first_start_makes_a_private_directory_and_keys_that_stay() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let data = DataDir::open(&path).unwrap();
        let first = keys(&data).unwrap();
        assert_ne!(first.router.public(), first.presence.public());
        drop(data);
        let data = DataDir::open(&path).unwrap();
        let again = data.keys(&mut StdRng::seed_from_u64(8), None).unwrap();
        assert_eq!(first.router.public(), again.router.public());
        assert_eq!((mode(&path), mode(&path.join("keys")), mode(&path.join("keys/router.key"))), (0o700, 0o700, 0o600));
    }

    #[test]
    fn a_second_process_is_refused_and_told_which_the_first_is() {
        let temp = tempfile::tempdir().unwrap();
        let _first = DataDir::open(temp.path()).unwrap();
        let error = DataDir::open(temp.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains(temp.path().to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_key_file_cut_or_changed_anywhere_is_refused_and_left_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        keys(&data).unwrap();
        let path = data.join("keys/router.key");
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let error = keys(&data).unwrap_err();
            assert!(matches!(error, DataError::BadKey { .. }), "cut at {cut}: {error}");
            assert_eq!(std::fs::read(&path).unwrap(), &whole[..cut]);
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                std::fs::write(&path, &changed).unwrap();
                assert!(keys(&data).is_err(), "bit {bit} of byte {at}");
            }
        }
        std::fs::write(&path, &whole).unwrap();
        keys(&data).unwrap();
    }

    #[test]
    fn errors_about_keys_do_not_show_the_key() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        keys(&data).unwrap();
        let path = data.join("keys/router.key");
        let text = std::fs::read_to_string(&path).unwrap();
        let key = text.split(' ').nth(1).unwrap().to_owned();
        std::fs::write(&path, text.replace('\n', "x\n")).unwrap();
        let error = keys(&data).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(&key));
    }

    #[test]
    fn a_missing_key_is_not_made_anew_where_there_are_data() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        keys(&data).unwrap();
        std::fs::write(data.join("RouterDB.db"), b"data").unwrap();
        std::fs::remove_file(data.join("keys/presence.key")).unwrap();
        let error = keys(&data).unwrap_err().to_string();
        assert!(error.contains("presence.key is missing"), "{error}");
        assert!(!data.join("keys/presence.key").exists());
    }

    #[test]
    fn a_half_made_key_of_a_crashed_first_start_is_not_used() {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        make_private_dir(&data.join("keys")).unwrap();
        std::fs::write(data.join("keys/router.key.tmp"), b"xmd-server-key-v1 00").unwrap();
        keys(&data).unwrap();
        assert_eq!(read_key(&data.join("keys/router.key")).unwrap().public(), keys(&data).unwrap().router.public());
    }

    #[test]
    fn loose_modes_are_tightened_and_a_key_that_others_could_read_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let data = DataDir::open(&path).unwrap();
        keys(&data).unwrap();
        std::fs::write(data.join("RouterDB.db"), b"data").unwrap();
        drop(data);
        for (file, loose) in [("", 0o755), ("RouterDB.db", 0o666), ("keys/router.key", 0o644)] {
            std::fs::set_permissions(path.join(file), Permissions::from_mode(loose)).unwrap();
        }
        let data = DataDir::open(&path).unwrap();
        assert_eq!((mode(&path), mode(&path.join("RouterDB.db"))), (0o700, 0o600));
        let error = keys(&data).unwrap_err().to_string();
        assert!(error.contains("router.key can be read by others (mode 0644)"), "{error}");
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        std::fs::write(&path, b"").unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataError::NotADirectory(named)) if named == path));
    }
}
