//! Which store is where in the data directory. What is in them is `xm-store`'s.
//!
//! ```text
//! router.db           names, addresses, where each user lives     (SQLite, with -wal and -shm beside it)
//! presence-C1P1.db    accounts and rosters of one identity        (SQLite)
//! offline-C1P1/       messages that wait for their recipients     (a log in segments)
//! register.db         mails that wait for a relay                 (SQLite)
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use xm_store::offline_log::{Event, OfflineLog, Options, Recovery};
use xm_store::records::Quotas;
use xm_store::sql::{self, SqlMailQueue, SqlPlacements, SqlPresence};
use xm_store::{MailQueue, OpenError, Placements, Stores};

use crate::config::Config;
use crate::data::DataDir;

/// The Router's database. Where it exists, this is not the first start.
pub(crate) const ROUTER_DB: &str = "router.db";
/// Register's database.
const REGISTER_DB: &str = "register.db";

/// Everything a single process keeps.
pub(crate) struct Kept {
    /// The Router's.
    pub(crate) placements: Arc<dyn Placements>,
    /// The Presence's.
    pub(crate) stores: Stores,
    /// Register's.
    pub(crate) mails: Arc<dyn MailQueue>,
    router: Arc<SqlPlacements>,
    presence: Arc<SqlPresence>,
    register: Arc<SqlMailQueue>,
}

impl Kept {
    /// Opens all stores, and makes them at the first start.
    pub(crate) async fn open(data: &DataDir, config: &Config) -> Result<Self, OpenError> {
        let limits = &config.limits;
        let quotas = Quotas {
            messages: limits.offline_messages,
            bytes: limits.offline_bytes,
            messages_per_sender: limits.offline_per_sender,
        };
        // The Router's comes last: where it exists, everything else was made before.
        let identity = config.presence.identity;
        let offline = open_offline(data.join(&format!("offline-{identity}")), quotas).await?;
        let presence = Arc::new(sql::open_presence(&url(&data.join(&format!("presence-{identity}.db")))).await?);
        let register = Arc::new(sql::open_register(&url(&data.join(REGISTER_DB))).await?);
        let router = Arc::new(sql::open_router(&url(&data.join(ROUTER_DB))).await?);
        Ok(Self {
            placements: router.clone(),
            stores: Stores { offline: Arc::new(offline), ..presence.stores() },
            mails: register.clone(),
            router,
            presence,
            register,
        })
    }

    /// Closes them; what was answered with success is in their files already.
    pub(crate) async fn close(self) {
        self.presence.close().await;
        self.register.close().await;
        self.router.close().await;
        // The offline log writes the last levels when it is dropped, and waits for the disk.
        let Self { stores, .. } = self;
        let _ = tokio::task::spawn_blocking(move || drop(stores)).await;
    }
}

/// Opens the offline messages, which reads all that wait, and says what a crash or a failing disk has left there.
async fn open_offline(directory: PathBuf, quotas: Quotas) -> Result<OfflineLog, OpenError> {
    let options = Options { quotas, ..Options::default() };
    let path = directory.clone();
    let opened = tokio::task::spawn_blocking(move || OfflineLog::open_watched(&path, options, tell)).await;
    let log = opened.map_err(|error| OpenError::Unreachable { path: directory, why: error.to_string() })??;
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

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}
