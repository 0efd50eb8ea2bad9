//! Opens what a process keeps, and refuses what would quietly begin anew beside data that are there. What is in the stores
//! is `xm-store`'s.
//!
//! ```text
//! RouterDB.db          names, addresses, where each user lives     (SQLite, with -wal and -shm beside it)
//! PresenceDB_C1P1.db   accounts and rosters of one identity        (SQLite)
//! offline-C1P1/        messages that wait for their recipients     (a log in segments)
//! RegisterDB.db        mails that wait for a relay                 (SQLite)
//! seen-C1P1            how far PresenceDB had come, see `witness.rs`
//! ```
//! With `database.url` the databases are on that server, under the same names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xm_store::offline_log::{Event, OfflineLog, Options, Recovery};
use xm_store::records::Quotas;
use xm_store::sql::{self, SqlMailQueue, SqlPlacements, SqlPresence};
use xm_store::{MailQueue, Offline, OpenError, Placements, StoreError, Stores};

use crate::backup::restore::{GROUPS_SKIPPED, USERS_SKIPPED, VERSIONS_SKIPPED};
use crate::config::{Config, OfflineIn};
use crate::data::{DataDir, DataError};
use crate::databases::{Database, Databases};
use crate::witness::Witness;

/// Why the stores did not open. Each message names the file or database and the way out.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// A file or directory.
    #[error("{0}; restore it from a backup, or start with another directory (--data)")]
    File(OpenError),
    /// A database on a server.
    #[error("{0}; see [database] in the configuration")]
    Server(OpenError),
    /// Something was read from an open store.
    #[error("{0}: {1}")]
    Store(String, StoreError),
    /// What was given out since the state that is there might be given out again.
    #[error(
        "what was given out since must not be given out again, but cannot be passed over: {why}; do it by hand, see \
         \"after going back\" in docs/DATABASE.md, then remove {}",
        .file.display()
    )]
    GivenOut {
        /// What the database says.
        why: StoreError,
        /// What shows that the database is older.
        file: PathBuf,
    },
    /// Something beside them.
    #[error(transparent)]
    Beside(#[from] DataError),
    /// A file has the name it had in an early version.
    #[error("{} has an old name; with no xmd running: cd {} && {}", .file.display(), .directory.display(), .commands)]
    OldName {
        /// Which.
        file: PathBuf,
        /// Where.
        directory: PathBuf,
        /// What gives it and what belongs to it the new one.
        commands: String,
    },
    /// Part of what belongs together is gone.
    #[error(
        "{missing} is missing, but {evidence} exists: restore it from a backup; if it is lost for good, an empty {kind} in \
         its place is filled anew"
    )]
    Missing {
        /// What.
        missing: String,
        /// What shows that this is not the first start.
        evidence: String,
        /// What it is.
        kind: &'static str,
    },
    /// The Router's part is gone or empty, and the Presence's is not.
    #[error("{router} is missing or empty, but {presence} has accounts: restore both from one backup")]
    Forgotten {
        /// The Router's database.
        router: String,
        /// The Presence's.
        presence: String,
    },
    /// There are accounts in files, and the configuration names a server.
    #[error(
        "database.url names a server, but {} exists: its accounts would not be found; take out database.url, or start with \
         an empty directory (--data)",
        .0.display()
    )]
    OtherPlace(PathBuf),
    /// Messages wait where nobody would look for them.
    #[error("database.offline = {wanted:?}, but messages wait in {place}; put {other:?} back until they are delivered")]
    Stranded {
        /// What the configuration says.
        wanted: &'static str,
        /// What it should say.
        other: &'static str,
        /// Where they are.
        place: String,
    },
}

impl StoresError {
    /// What `error` means for `database`.
    pub(crate) fn of(database: &Database, error: OpenError) -> Self {
        if database.file.is_some() { Self::File(error) } else { Self::Server(error) }
    }
}

/// Everything a single process keeps.
pub(crate) struct Kept {
    /// The Router's.
    pub(crate) placements: Arc<dyn Placements>,
    /// The Presence's.
    pub(crate) stores: Stores,
    /// Register's.
    pub(crate) mails: Arc<dyn MailQueue>,
    router: Arc<SqlPlacements>,
    pub(crate) presence: Arc<SqlPresence>,
    pub(crate) witness: Arc<Witness>,
    register: Arc<SqlMailQueue>,
}

impl Kept {
    /// Opens all stores, and makes them at the first start.
    pub(crate) async fn open(
        data: &DataDir,
        config: &Config,
        databases: &Databases,
        evidence: &Evidence,
    ) -> Result<Self, StoresError> {
        let Databases { router, presence, register, .. } = databases;
        let limits = &config.limits;
        let quotas = Quotas {
            messages: limits.offline_messages,
            bytes: limits.offline_bytes,
            messages_per_sender: limits.offline_per_sender,
        };
        let directory = offline_directory(data.path(), config);
        match &evidence.used {
            Some(evidence) => {
                nothing_is_missing(databases, evidence, (config.database.offline, &directory)).await?;
            }
            None => nobody_is_missing(router, presence).await?,
        }
        // The Router's comes last: where it exists, everything else was made before.
        let log = match config.database.offline {
            OfflineIn::Log => Some(open_offline(&directory, quotas).await.map_err(StoresError::File)?),
            OfflineIn::Sql => None,
        };
        let of = |database| move |error| StoresError::of(database, error);
        let opened = sql::open_presence(presence.url()).await.map_err(of(presence))?;
        let store = Arc::new(opened.with_quotas(quotas));
        let witness = Arc::new(Witness::of(data.path(), config.presence.identity, &presence.shown));
        let is_older = witness.is_older(store.mark());
        nothing_is_stranded(&store, presence, config.database.offline, &directory).await?;
        let register = Arc::new(sql::open_register(register.url()).await.map_err(of(register))?);
        let router = Arc::new(sql::open_router(router.url()).await.map_err(of(router))?);
        if is_older {
            let passed = async {
                router.pass_over_users(USERS_SKIPPED).await?;
                store.pass_over_versions(VERSIONS_SKIPPED, GROUPS_SKIPPED).await
            };
            passed.await.map_err(|why| StoresError::GivenOut { why, file: witness.file().to_owned() })?;
        }
        witness.keep(store.mark())?;
        for risk in router.warnings() {
            tracing::warn!("the database server is not safe: {risk}");
        }
        let offline: Arc<dyn Offline> = match log {
            Some(log) => Arc::new(log),
            None => store.clone(),
        };
        Ok(Self {
            placements: router.clone(),
            stores: Stores { offline, ..store.stores() },
            mails: register.clone(),
            router,
            presence: store,
            witness,
            register,
        })
    }

    /// Closes them; what was answered with success is in their files already.
    pub(crate) async fn close(self) {
        self.presence.close().await;
        if let Err(error) = self.witness.keep(self.presence.mark()) {
            tracing::warn!(%error, "what the database has had is not noted");
        }
        self.register.close().await;
        self.router.close().await;
        // The offline log writes the last levels when it is dropped, and waits for the disk.
        let Self { stores, .. } = self;
        let _ = tokio::task::spawn_blocking(move || drop(stores)).await;
    }
}

/// The directory of the offline log.
pub(crate) fn offline_directory(data: &Path, config: &Config) -> PathBuf {
    data.join(format!("offline-{}", config.presence.identity))
}

/// What shows that this is not the first start.
pub(crate) struct Evidence {
    /// The Router's database, if it has been made.
    pub(crate) made: Option<PathBuf>,
    /// The same, if anybody has registered.
    pub(crate) used: Option<PathBuf>,
}

/// Looks whether this is the first start. Files nobody would look at any more are an error.
pub(crate) async fn evidence(data: &DataDir, databases: &Databases) -> Result<Evidence, StoresError> {
    old_names(data.path())?;
    let file = data.join("RouterDB.db");
    if databases.server.is_some() && file.exists() {
        return Err(StoresError::OtherPlace(file));
    }
    let router = &databases.router;
    let of = |error| StoresError::of(router, error);
    let is_made = router.exists().await.map_err(of)?;
    let is_used = is_made && !router.schema.is_unused(router.url()).await.map_err(of)?;
    let shown = || PathBuf::from(&router.shown);
    Ok(Evidence { made: is_made.then(shown), used: is_used.then(shown) })
}

/// Refuses databases named as before, instead of making empty ones beside them.
pub(crate) fn old_names(data: &Path) -> Result<(), StoresError> {
    let mut commands = Vec::new();
    let mut first = None;
    for entry in data.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(new) = new_name(&name) else { continue };
        commands.push(format!("mv {name} {new}"));
        first = first.or(Some(entry.path()));
    }
    commands.sort();
    match first {
        None => Ok(()),
        Some(file) => Err(StoresError::OldName { file, directory: data.to_owned(), commands: commands.join(" && ") }),
    }
}

/// What a database of an early version, or a file beside it, is called now.
fn new_name(name: &str) -> Option<String> {
    let (stem, rest) = name.split_at_checked(name.find(".db")?)?;
    let new = match stem {
        "router" => "RouterDB".to_owned(),
        "register" => "RegisterDB".to_owned(),
        _ => format!("PresenceDB_{}", stem.strip_prefix("presence-")?),
    };
    [".db", ".db-wal", ".db-shm"].contains(&rest).then(|| format!("{new}{rest}"))
}

fn missing(database: &Database, evidence: &str) -> StoresError {
    let kind = if database.file.is_some() { "file" } else { "database" };
    StoresError::Missing { missing: database.shown.clone(), evidence: evidence.to_owned(), kind }
}

/// Refuses accounts that the Router has forgotten.
async fn nobody_is_missing(router: &Database, presence: &Database) -> Result<(), StoresError> {
    let of = |error| StoresError::of(presence, error);
    if presence.exists().await.map_err(of)? && !presence.schema.is_unused(presence.url()).await.map_err(of)? {
        return Err(StoresError::Forgotten { router: router.shown.clone(), presence: presence.shown.clone() });
    }
    Ok(())
}

/// Refuses to go on with an empty part where the rest has data.
async fn nothing_is_missing(
    databases: &Databases,
    evidence: &Path,
    (offline, directory): (OfflineIn, &Path),
) -> Result<(), StoresError> {
    let evidence = evidence.display().to_string();
    for database in [&databases.presence, &databases.register] {
        if !database.exists().await.map_err(|error| StoresError::of(database, error))? {
            return Err(missing(database, &evidence));
        }
    }
    // With a server the directory comes and goes with the machine that has the identity.
    if offline == OfflineIn::Log && databases.server.is_none() && !directory.exists() {
        let missing = directory.display().to_string();
        return Err(StoresError::Missing { missing, evidence, kind: "directory" });
    }
    Ok(())
}

/// Refuses to leave messages where nobody looks for them.
async fn nothing_is_stranded(
    store: &SqlPresence,
    presence: &Database,
    wanted: OfflineIn,
    directory: &Path,
) -> Result<(), StoresError> {
    match wanted {
        OfflineIn::Log => {
            let waits = store.has_waiting().await.map_err(|why| StoresError::Store(presence.shown.clone(), why))?;
            if waits {
                return Err(StoresError::Stranded { wanted: "log", other: "sql", place: presence.shown.clone() });
            }
        }
        OfflineIn::Sql if directory.exists() => {
            let log = open_offline(directory, Quotas::default()).await.map_err(StoresError::File)?;
            if log.recovery().waiting > 0 {
                let place = directory.display().to_string();
                return Err(StoresError::Stranded { wanted: "sql", other: "log", place });
            }
        }
        OfflineIn::Sql => {}
    }
    Ok(())
}

/// Opens the offline messages, which reads all that wait, and says what a crash or a failing disk has left there.
async fn open_offline(directory: &Path, quotas: Quotas) -> Result<OfflineLog, OpenError> {
    let options = Options { quotas, ..Options::default() };
    let path = directory.to_owned();
    let opened = tokio::task::spawn_blocking(move || OfflineLog::open_watched(&path, options, tell)).await;
    let log =
        opened.map_err(|error| OpenError::Unreachable { path: directory.to_owned(), why: error.to_string() })??;
    let found = log.recovery();
    tracing::info!(
        waiting = found.waiting,
        segments = found.segments,
        torn_bytes = found.torn_bytes,
        "offline messages"
    );
    tell_damage(found);
    Ok(log)
}

fn tell_damage(found: &Recovery) {
    for damage in &found.damage {
        let (file, bytes) = (damage.path.display(), &damage.bytes);
        tracing::error!(%file, ?bytes, "offline messages are lost: the disk is failing; a copy is in quarantine/");
    }
}

/// Says what happens to the offline messages while the server runs.
fn tell(event: Event) {
    match &event {
        Event::Stopped(_) | Event::StillStopped(..) => tracing::error!("offline messages: {event}"),
        Event::Reopened(found) => {
            tracing::warn!("offline messages: {event}");
            tell_damage(found);
        }
        _ => tracing::warn!("offline messages: {event}"),
    }
}
