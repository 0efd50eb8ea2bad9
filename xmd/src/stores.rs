//! Which store is where in the data directory. What is in them is `xm-store`'s.

use std::path::Path;
use std::sync::Arc;

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
        let presence_db = format!("presence-{}.db", config.presence.identity);
        let presence = Arc::new(sql::open_presence(&url(&data.join(&presence_db))).await?.with_quotas(quotas));
        let register = Arc::new(sql::open_register(&url(&data.join(REGISTER_DB))).await?);
        let router = Arc::new(sql::open_router(&url(&data.join(ROUTER_DB))).await?);
        Ok(Self {
            placements: router.clone(),
            stores: presence.stores(),
            mails: register.clone(),
            router,
            presence,
            register,
        })
    }

    /// Closes them; what was answered with success is in their files already.
    pub(crate) async fn close(&self) {
        self.presence.close().await;
        self.register.close().await;
        self.router.close().await;
    }
}

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}
