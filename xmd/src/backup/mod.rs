//! `xmd backup`: copies what a server keeps, beside the server and without its lock.
//!
//! The order makes every copy one that a server can go on from:
//!
//! 1. offline messages: whoever they are from and to is in the databases that are copied later;
//! 2. all databases, at one moment of RouterDB (`xm_store::sql::copy_files`): an account is in PresenceDB's copy if and only
//!    if the Router's copy says so or is about to. The other way round there would be users with a home and no account, who
//!    can neither log in nor register again;
//! 3. keys, which never change;
//! 4. the manifest, when all else is on stable storage.

mod manifest;
pub(crate) mod restore;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use xm_store::offline_log;
use xm_store::sql::{self, FileCopy};
use xmmep::types::WallTime;

use crate::cli::BackupArgs;
use crate::config::{Config, OfflineIn};
use crate::data::{KEY_FILES, make_private_dir, sync_directory, write_durably};
use crate::databases::Databases;
use crate::run::{EXIT_USAGE, complain, configuration, say};
use crate::stores::offline_directory;

use manifest::Entry;
pub(crate) use manifest::{MANIFEST, Manifest};
pub use restore::restore;

/// Longer than any key file.
const KEY_BYTES_MAX: u64 = 1_024;

/// `xmd backup`.
pub async fn backup(args: &BackupArgs) -> ExitCode {
    let config = match configuration(&args.run) {
        Ok(config) => config,
        Err(why) => {
            complain(&why);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match copy_all(&config, &args.to).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

async fn copy_all(config: &Config, to: &Path) -> Result<(), String> {
    let data = &config.data_dir;
    let from = data.canonicalize().map_err(|error| format!("cannot open {}: {error}; see --data", data.display()))?;
    let databases = Databases::find(config, &from)?;
    let parts = Parts::find(config, &from, &databases)?;
    let to = empty_directory(&from, to)?;
    let unfinished = |why: String| format!("{why}; {} is unfinished: delete it", to.display());
    parts.copy(&to).await.map_err(unfinished)?;
    let (directories, files) = settle(&to).map_err(|error| unfinished(error.to_string()))?;
    let manifest = Manifest {
        made: WallTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)),
        by: env!("CARGO_PKG_VERSION").to_owned(),
        identity: config.presence.identity,
        server: databases.server.as_ref().map(ToString::to_string),
        directories,
        files,
    };
    manifest.write(&to).map_err(unfinished)?;
    let bytes: u64 = manifest.files.iter().map(|entry| entry.bytes).sum();
    say(&format!("{} files with {bytes} bytes are in {}\n", manifest.files.len(), to.display()));
    if databases.server.is_some() {
        say(&dump(&databases));
    }
    Ok(())
}

/// What there is to copy.
struct Parts {
    offline: Option<PathBuf>,
    /// RouterDB first; none if they are on a server.
    databases: Vec<PathBuf>,
    keys: Vec<PathBuf>,
}

impl Parts {
    /// All of it has to be there: half a backup is none.
    fn find(config: &Config, from: &Path, databases: &Databases) -> Result<Self, String> {
        let offline = match config.database.offline {
            OfflineIn::Log => Some(offline_directory(from, config)),
            OfflineIn::Sql => None,
        };
        let keys = KEY_FILES.map(|name| from.join("keys").join(name)).to_vec();
        let databases = [&databases.router, &databases.presence, &databases.register];
        let databases: Vec<_> = databases.into_iter().filter_map(|database| database.file.clone()).collect();
        for path in offline.iter().chain(&databases).chain(&keys) {
            if !path.exists() {
                let hint = "is this the directory of a server, and --config its configuration?";
                return Err(format!("{} is missing; {hint}", path.display()));
            }
        }
        Ok(Self { offline, databases, keys })
    }

    async fn copy(self, to: &Path) -> Result<(), String> {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_owned();
        if let Some(offline) = self.offline {
            let target = to.join(name(&offline));
            let copied = tokio::task::spawn_blocking(move || offline_log::copy(&offline, &target)).await;
            copied.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            say("offline messages: copied\n");
        }
        let copies: Vec<_> =
            self.databases.into_iter().map(|from| FileCopy { to: to.join(name(&from)), from }).collect();
        if let Some((router, others)) = copies.split_first() {
            sql::copy_files(router, others).await.map_err(|error| error.to_string())?;
            say("databases: copied\n");
        }
        let keys = to.join("keys");
        make_private_dir(&keys).map_err(|error| error.to_string())?;
        for key in self.keys {
            let mut bytes = Vec::new();
            let read = File::open(&key).and_then(|file| file.take(KEY_BYTES_MAX).read_to_end(&mut bytes));
            read.map_err(|error| format!("cannot read {}: {error}", key.display()))?;
            write_durably(&keys.join(name(&key)), &bytes).map_err(|error| error.to_string())?;
        }
        say("keys: copied\n");
        Ok(())
    }
}

/// The directory of the backup, made or empty, and not inside what is copied.
fn empty_directory(from: &Path, to: &Path) -> Result<PathBuf, String> {
    if !is_empty(to).map_err(|error| format!("cannot use {}: {error}", to.display()))? {
        return Err(format!("{} is not empty; give a directory that is, or none yet", to.display()));
    }
    make_private_dir(to).map_err(|error| error.to_string())?;
    let to = to.canonicalize().map_err(|error| format!("cannot use {}: {error}", to.display()))?;
    if to.starts_with(from) {
        // It was empty or not there.
        let _ = std::fs::remove_dir(&to);
        return Err(format!("{} is inside {}; give one elsewhere, best on another disk", to.display(), from.display()));
    }
    Ok(to)
}

/// Whether there is nothing under that name, or an empty directory.
fn is_empty(directory: &Path) -> io::Result<bool> {
    match directory.read_dir() {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Makes all directories and files under `root` durable, and lists them.
fn settle(root: &Path) -> io::Result<(Vec<PathBuf>, Vec<Entry>)> {
    let inside = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    let (mut directories, mut files) = (vec![root.to_owned()], Vec::new());
    let mut next = 0;
    while let Some(directory) = directories.get(next).cloned() {
        next += 1;
        for entry in directory.read_dir()? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            File::open(&path)?.sync_all()?;
            let (bytes, hash) = manifest::hash(&path)?;
            files.push(Entry { path: inside(&path), bytes, hash });
        }
        sync_directory(&directory)?;
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    Ok((directories[1..].iter().map(|directory| inside(directory)).collect(), files))
}

/// How to copy databases that are on a server.
fn dump(databases: &Databases) -> String {
    let names = [&databases.router, &databases.presence, &databases.register].map(|database| database.name.as_str());
    let is_mysql = databases.server.as_ref().is_some_and(sql::Server::is_mysql);
    let command = if is_mysql {
        format!("mariadb-dump --single-transaction --databases {} > xmd.sql", names.join(" "))
    } else {
        "pg_basebackup --pgdata=DIR --wal-method=stream   (or, with xmd stopped, pg_dump of each)".to_owned()
    };
    format!(
        "The databases {} are on {} and not in it. Copy them now, after this, all at one moment:\n  {command}\n",
        names.join(", "),
        databases.server.as_ref().map(ToString::to_string).unwrap_or_default()
    )
}
