//! `xmd store check` and `xmd store repair`: what is kept, read as a whole. What is right is `xm-store`'s to know.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use xm_store::OpenError;
use xm_store::offline_log::{self, Verdict};
use xm_store::sql::{Checked, Schema, check_homes};
use xmmep::types::PresenceId;

use crate::backup::{MANIFEST, Manifest};
use crate::cli::RunArgs;
use crate::config::{Config, OfflineIn};
use crate::data::DataDir;
use crate::databases::{Database, Databases};
use crate::run::{EXIT_USAGE, complain, configuration, say};
use crate::stores::{self, offline_directory};

/// How often a long table says how far it is.
const ROWS_SAID: u64 = 100_000;

/// `xmd store check`.
pub async fn check(args: &RunArgs) -> ExitCode {
    let config = match configuration(args) {
        Ok(config) => config,
        Err(why) => {
            complain(&why);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match check_directory(&config).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

async fn check_directory(config: &Config) -> Result<bool, String> {
    let directory = &config.data_dir;
    if directory.join(MANIFEST).exists() {
        let manifest = Manifest::read(directory)?;
        let differences = manifest.differences(directory);
        tell("files", &differences, 0);
        let kept = Contents::restored(directory, &manifest);
        return Ok(kept.check().await && differences.is_empty());
    }
    let data = existing(directory)?;
    let databases = Databases::find(config, data.path())?;
    stores::old_names(data.path()).map_err(|error| error.to_string())?;
    Ok(Contents::of(config, data.path(), databases).check().await)
}

/// The data directory, with its lock: who checks or repairs must be alone.
fn existing(directory: &Path) -> Result<DataDir, String> {
    if !directory.is_dir() {
        return Err(format!("there is no directory {}; see --data", directory.display()));
    }
    DataDir::open(directory).map_err(|error| error.to_string())
}

/// Everything that is kept, to be looked at.
pub(crate) struct Contents {
    router: Option<Database>,
    presence: Option<Database>,
    register: Option<Database>,
    offline: Option<PathBuf>,
    identity: PresenceId,
}

impl Contents {
    /// What a configuration names.
    fn of(config: &Config, data: &Path, databases: Databases) -> Self {
        let Databases { router, presence, register, .. } = databases;
        Self {
            router: Some(router),
            presence: Some(presence),
            register: Some(register),
            offline: (config.database.offline == OfflineIn::Log).then(|| offline_directory(data, config)),
            identity: config.presence.identity,
        }
    }

    /// What is in a backup, or in a directory made from it.
    pub(crate) fn restored(directory: &Path, manifest: &Manifest) -> Self {
        let identity = manifest.identity;
        let database = |name: String, schema| {
            let file = Path::new(&name).with_extension("db");
            let is_there = manifest.files.iter().any(|entry| entry.path == file);
            is_there.then(|| Database::file(name, schema, directory))
        };
        let offline = PathBuf::from(format!("offline-{identity}"));
        Self {
            router: database("RouterDB".into(), Schema::Router),
            presence: database(format!("PresenceDB_{identity}"), Schema::Presence),
            register: database("RegisterDB".into(), Schema::Register),
            offline: manifest.directories.contains(&offline).then(|| directory.join(&offline)),
            identity,
        }
    }

    /// Checks all of it, says what was found, and returns whether all is good.
    pub(crate) async fn check(&self) -> bool {
        let mut is_good = true;
        for database in [&self.router, &self.presence, &self.register].into_iter().flatten() {
            let checked = database.schema.check(database.url(), &mut progress(&database.name)).await;
            is_good &= report(&database.name, checked);
            if database.file.is_none() {
                say("  its files are the server's: mariadb-check, or pg_amcheck, looks at those\n");
            }
        }
        if let (Some(router), Some(presence)) = (&self.router, &self.presence) {
            let name = format!("{} and {}", router.name, presence.name);
            let checked = check_homes(router.url(), presence.url(), self.identity, &mut progress(&name)).await;
            is_good &= report(&name, checked);
        }
        if let Some(offline) = self.offline.clone() {
            is_good &= check_offline(offline).await;
        }
        say(if is_good {
            "everything is good\n"
        } else {
            "NOT everything is good; `xmd store repair` says what to do\n"
        });
        is_good
    }
}

/// Says now and then how far a table is.
fn progress(name: &str) -> impl FnMut(&'static str, u64) + Send {
    let name = name.to_owned();
    let mut said = 0;
    move |table, rows| {
        if rows / ROWS_SAID != said {
            said = rows / ROWS_SAID;
            if said > 0 {
                say(&format!("{name}: {rows} rows of {table} so far\n"));
            }
        }
    }
}

fn report(name: &str, checked: Result<Checked, OpenError>) -> bool {
    match checked {
        Ok(checked) => {
            let rows: Vec<_> = checked.rows.iter().map(|(table, rows)| format!("{rows} {table}")).collect();
            tell(&format!("{name} ({})", rows.join(", ")), &checked.findings, checked.untold);
            checked.is_good()
        }
        Err(error) => {
            tell(name, &[error.to_string()], 0);
            false
        }
    }
}

fn tell(name: &str, findings: &[String], untold: u64) {
    if findings.is_empty() {
        return say(&format!("{name}: good\n"));
    }
    let mut text = format!("{name}: {} findings\n", findings.len() as u64 + untold);
    findings.iter().for_each(|finding| text.push_str(&format!("  {finding}\n")));
    if untold > 0 {
        text.push_str(&format!("  and {untold} more\n"));
    }
    say(&text);
}

async fn check_offline(directory: PathBuf) -> bool {
    let path = directory.clone();
    match tokio::task::spawn_blocking(move || offline_log::check(&path)).await {
        Ok(Ok(report)) => {
            say(&format!("offline messages\n{}", indented(&report.to_string())));
            report.verdict <= Verdict::Unclosed
        }
        Ok(Err(error)) => {
            tell("offline messages", &[error.to_string()], 0);
            false
        }
        Err(error) => {
            tell("offline messages", &[error.to_string()], 0);
            false
        }
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// `xmd store repair`.
pub async fn repair(args: &RunArgs) -> ExitCode {
    let config = match configuration(args) {
        Ok(config) => config,
        Err(why) => {
            complain(&why);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match repair_directory(&config).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

async fn repair_directory(config: &Config) -> Result<bool, String> {
    if config.data_dir.join(MANIFEST).exists() {
        let why = "is a backup, which stays as it was made; restore it, then repair that";
        return Err(format!("{} {why}", config.data_dir.display()));
    }
    let data = existing(&config.data_dir)?;
    let databases = Databases::find(config, data.path())?;
    if config.database.offline == OfflineIn::Log {
        let directory = offline_directory(data.path(), config);
        let repaired = tokio::task::spawn_blocking(move || offline_log::repair(&directory)).await;
        let repaired = repaired.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        say(&format!("offline messages\n{}", indented(&repaired.to_string())));
    }
    let is_server = databases.server.is_some();
    let is_good = Contents::of(config, data.path(), databases).check().await;
    if !is_good {
        say(if is_server { SERVER_WAY_OUT } else { FILES_WAY_OUT });
    }
    Ok(is_good)
}

const FILES_WAY_OUT: &str = "\
Databases are not repaired: what is lost in one cannot be made up from the others. In this order:
  1. copy the directory as it is, before anything else happens to the disk;
  2. `xmd restore` the newest backup that `xmd store check` calls good, on a disk that works;
  3. without a backup: `sqlite3 FILE .recover | sqlite3 NEWFILE` saves what can be read of a file; check that, too.
";

const SERVER_WAY_OUT: &str = "\
Databases are not repaired: what is lost in one cannot be made up from the others. Restore all of them, to one moment,
from the server's own backup; its tools look at its files.
";
