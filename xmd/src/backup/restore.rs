//! `xmd restore`: a data directory from a backup. Until it is whole, no server starts in it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use xm_store::sql;

use super::manifest::{self, Entry};
use super::{Manifest, is_empty};
use crate::check::Contents;
use crate::cli::RestoreArgs;
use crate::data::{DataDir, UNFINISHED, make_private_dir, sync_directory, write_durably};
use crate::run::{complain, say};

/// User ids that are passed over. Those given out since the backup must not be given to others, whom the devices of third
/// ones would take for the ones before; there are enough of them for 10^12 restores.
pub(crate) const USERS_SKIPPED: u32 = 1_000_000;
/// Versions of each buddy list that are passed over, for the same reason: a device that has a later one would not ask for
/// the list.
pub(crate) const VERSIONS_SKIPPED: u32 = 1_000_000;
/// Ids of groups that are passed over in each buddy list; they end after 10^6 restores.
pub(crate) const GROUPS_SKIPPED: u16 = 1_000;

/// `xmd restore`.
pub async fn restore(args: &RestoreArgs) -> ExitCode {
    match put_back(&args.from, &args.data).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all of it is good.
async fn put_back(from: &Path, data: &Path) -> Result<bool, String> {
    let manifest = Manifest::read(from)?;
    let differences = manifest.differences(from);
    if !differences.is_empty() {
        return Err(format!("{} is damaged; take another backup:\n{}", from.display(), differences.join("\n")));
    }
    say(&format!("{} is whole: {} files, made by xmd {}\n", from.display(), manifest.files.len(), manifest.by));
    // Looked at before it is opened, which takes what is in it from other users.
    if !is_empty(data).map_err(|error| format!("cannot use {}: {error}", data.display()))? {
        return Err(format!("{} is not empty; give a directory that is, or none yet", data.display()));
    }
    let directory = DataDir::open(data).map_err(|error| error.to_string())?;
    let unfinished = directory.join(UNFINISHED);
    write_durably(&unfinished, b"").map_err(|error| error.to_string())?;
    for path in &manifest.directories {
        make_private_dir(&directory.path().join(path)).map_err(|error| error.to_string())?;
    }
    for entry in &manifest.files {
        copy(from, directory.path(), entry)?;
    }
    say(&format!("all files are copied to {}\n", directory.path().display()));
    let router = directory.join("RouterDB.db");
    if manifest.server.is_none() {
        sql::skip_users(&router, USERS_SKIPPED).await.map_err(|error| error.to_string())?;
        let presence = directory.join(&format!("PresenceDB_{}.db", manifest.identity));
        let skipped = sql::skip_versions(&presence, VERSIONS_SKIPPED, GROUPS_SKIPPED).await;
        skipped.map_err(|error| error.to_string())?;
    }
    std::fs::remove_file(&unfinished)
        .and_then(|()| sync_directory(directory.path()))
        .map_err(|error| format!("cannot finish {}: {error}", directory.path().display()))?;
    let is_good = Contents::restored(directory.path(), &manifest).check().await;
    if let Some(server) = &manifest.server {
        say(&format!("The databases are on {server}: put them back with its own tools, see docs/OPERATING.md.\n"));
    }
    Ok(is_good)
}

/// Copies a file so that it is there after a power cut, and is what it was.
fn copy(from: &Path, to: &Path, entry: &Entry) -> Result<(), String> {
    let target = to.join(&entry.path);
    let failed = |error: io::Error| format!("cannot write {}: {error}", target.display());
    let directory = target.parent().unwrap_or(to);
    let source = from.join(&entry.path);
    let mut source = File::open(&source).map_err(|error| format!("cannot read {}: {error}", source.display()))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target).map_err(failed)?;
    let copied = manifest::copy(&mut source, &mut file).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    sync_directory(directory).map_err(failed)?;
    if copied == (entry.bytes, entry.hash) {
        return Ok(());
    }
    Err(format!("{} changed while it was copied; take another backup", from.join(&entry.path).display()))
}
