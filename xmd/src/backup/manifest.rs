//! The manifest of a backup: what is in it and how it was. Written last, so that a backup without one is not finished.
//!
//! ```text
//! xmd-backup 1
//! made 1790000000000 by 0.1.0
//! identity C1P1
//! server postgres://xmd@db.example.org/         where the databases are, if they are not in it
//! directory <path>                              one line for each, also for those without files
//! file <64 hex digits of BLAKE3> <bytes> <path>  one line for each file
//! end <64 hex digits of BLAKE3 of all lines before>
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use xmmep::types::{PresenceId, WallTime};

use crate::data::write_durably;

/// The manifest's name in a backup.
pub(crate) const MANIFEST: &str = "backup.manifest";
const HEADER: &str = "xmd-backup 1";
/// A log of a million segments has a shorter one.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What is in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) made: WallTime,
    /// The version of xmd that made it.
    pub(crate) by: String,
    /// Whose Presence it is.
    pub(crate) identity: PresenceId,
    /// The server its databases are on; `None` if they are in it.
    pub(crate) server: Option<String>,
    /// From the backup's directory.
    pub(crate) directories: Vec<PathBuf>,
    pub(crate) files: Vec<Entry>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// From the backup's directory.
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) hash: blake3::Hash,
}

impl Manifest {
    /// Reads the manifest of the backup in `directory`. The error says what is wrong with the backup.
    pub(crate) fn read(directory: &Path) -> Result<Self, String> {
        let path = directory.join(MANIFEST);
        let shown = directory.display();
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                format!("{shown} is no finished backup: it has no {MANIFEST}, which is written last; take another one")
            }
            _ => format!("cannot read {}: {error}", path.display()),
        })?;
        let mut text = String::new();
        let damaged = |why: &str| format!("{} is damaged: {why}; take another backup", path.display());
        file.take(BYTES_MAX).read_to_string(&mut text).map_err(|error| damaged(&error.to_string()))?;
        Self::parse(&text).map_err(|why| damaged(&why))
    }

    /// Writes it into `directory`: it is there whole or not at all.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), String> {
        write_durably(&directory.join(MANIFEST), self.text().as_bytes()).map_err(|error| error.to_string())
    }

    fn text(&self) -> String {
        let mut text = format!("{HEADER}\nmade {} by {}\nidentity {}\n", self.made.0, self.by, self.identity);
        if let Some(server) = &self.server {
            text.push_str(&format!("server {server}\n"));
        }
        for path in &self.directories {
            text.push_str(&format!("directory {}\n", path.display()));
        }
        for Entry { path, bytes, hash } in &self.files {
            text.push_str(&format!("file {hash} {bytes} {}\n", path.display()));
        }
        let end = blake3::hash(text.as_bytes());
        text.push_str(&format!("end {end}\n"));
        text
    }

    fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with("xmd-backup ") {
            return Err("it is none of xmd".into());
        }
        let Some((body, end)) = text.rfind("\nend ").map(|at| text.split_at(at + 1)) else {
            return Err("it ends in the middle".into());
        };
        if end != format!("end {}\n", blake3::hash(body.as_bytes())) {
            return Err("its checksum does not match".into());
        }
        let mut lines = body.lines();
        if lines.next() != Some(HEADER) {
            return Err("a newer version wrote it; use that one".into());
        }
        let bad = |line: Option<&str>| format!("the line {:?}", line.unwrap_or_default());
        let line = lines.next();
        let made = line.and_then(|line| line.strip_prefix("made ")?.split_once(" by "));
        let (made, by) = made.ok_or_else(|| bad(line))?;
        let made = made.parse().map(WallTime).map_err(|_| bad(line))?;
        let line = lines.next();
        let identity = line.and_then(|line| line.strip_prefix("identity ")?.parse().ok()).ok_or_else(|| bad(line))?;
        let (directories, files) = (Vec::new(), Vec::new());
        let mut manifest = Self { made, by: by.to_owned(), identity, server: None, directories, files };
        for line in lines {
            match line.split_once(' ') {
                Some(("server", server)) => manifest.server = Some(server.to_owned()),
                Some(("directory", path)) => manifest.directories.push(inside(path).ok_or_else(|| bad(Some(line)))?),
                Some(("file", entry)) => manifest.files.push(parse_entry(entry).ok_or_else(|| bad(Some(line)))?),
                _ => return Err(bad(Some(line))),
            }
        }
        Ok(manifest)
    }

    /// Compares the files in `directory` with what they were. Returns what is wrong.
    pub(crate) fn differences(&self, directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in &self.files {
            let path = directory.join(&entry.path);
            match hash(&path) {
                Ok((bytes, hash)) if (bytes, hash) == (entry.bytes, entry.hash) => {}
                Ok((bytes, _)) if bytes != entry.bytes => {
                    found.push(format!("{} has {bytes} bytes, not {}", path.display(), entry.bytes));
                }
                Ok(_) => found.push(format!("{} is not what it was when the backup was made", path.display())),
                Err(error) => found.push(format!("cannot read {}: {error}", path.display())),
            }
        }
        found
    }
}

fn parse_entry(entry: &str) -> Option<Entry> {
    let (hash, rest) = entry.split_once(' ')?;
    let (bytes, path) = rest.split_once(' ')?;
    Some(Entry { path: inside(path)?, bytes: bytes.parse().ok()?, hash: blake3::Hash::from_hex(hash).ok()? })
}

/// Only what lies inside: a manifest names what is to be written.
fn inside(path: &str) -> Option<PathBuf> {
    let path = PathBuf::from(path);
    let is_inside = path.components().all(|part| matches!(part, Component::Normal(_))) && !path.as_os_str().is_empty();
    is_inside.then_some(path)
}

/// The length and hash of a file.
pub(crate) fn hash(path: &Path) -> io::Result<(u64, blake3::Hash)> {
    copy(&mut File::open(path)?, &mut io::sink())
}

/// Copies bytes and hashes them on the way.
pub(crate) fn copy(from: &mut impl Read, to: &mut impl io::Write) -> io::Result<(u64, blake3::Hash)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok((bytes, hasher.finalize())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        bytes += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let entry = |path: &str, content: &[u8]| Entry {
            path: path.into(),
            bytes: content.len() as u64,
            hash: blake3::hash(content),
        };
        Manifest {
            made: WallTime(1_790_000_000_000),
            by: "0.1.0".into(),
            identity: PresenceId { cluster: 1, presence: 2 },
            server: Some("postgres://xmd@db/".into()),
            directories: vec!["keys".into(), "offline-C1P2".into()],
            files: vec![entry("keys/router.key", b"key"), entry("RouterDB.db", b"names")],
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let temp = tempfile::tempdir().unwrap();
        manifest().write(temp.path()).unwrap();
        assert_eq!(Manifest::read(temp.path()), Ok(manifest()));
    }

    #[test]
    fn a_manifest_cut_or_changed_anywhere_is_refused() {
        let whole = manifest().text();
        for cut in 0..whole.len() {
            assert!(Manifest::parse(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone().into_bytes();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            assert!(Manifest::parse(&changed).is_err(), "byte {at}: {changed}");
        }
    }

    #[test]
    fn nothing_outside_the_directory_is_ever_named() {
        for path in ["../x", "/etc/passwd", "a/../../x", "", ".", "./a/.."] {
            let line = format!("{} 1 {path}", blake3::hash(b""));
            assert_eq!(parse_entry(&line), None, "{path}");
        }
    }

    #[test]
    fn files_that_are_missing_longer_or_other_are_named() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("keys")).unwrap();
        std::fs::write(temp.path().join("keys/router.key"), b"key").unwrap();
        std::fs::write(temp.path().join("RouterDB.db"), b"names").unwrap();
        assert_eq!(manifest().differences(temp.path()), [] as [String; 0]);
        for (content, words) in [(&b"nomes"[..], "is not what it was"), (b"name", "has 4 bytes, not 5")] {
            std::fs::write(temp.path().join("RouterDB.db"), content).unwrap();
            let found = manifest().differences(temp.path());
            assert!(found.len() == 1 && found[0].contains("RouterDB.db") && found[0].contains(words), "{found:?}");
        }
        std::fs::remove_file(temp.path().join("RouterDB.db")).unwrap();
        assert!(manifest().differences(temp.path())[0].contains("cannot read"));
    }
}
