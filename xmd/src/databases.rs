//! Where the databases are: files in the data directory, or a server. What is in them is `xm-store`'s; they are opened in
//! `stores.rs`.

use std::path::{Path, PathBuf};

use xm_store::OpenError;
use xm_store::sql::{Schema, SchemaStatus, Server};

use crate::config::Config;
use crate::password;

/// The databases of a single process.
pub(crate) struct Databases {
    pub(crate) router: Database,
    pub(crate) presence: Database,
    pub(crate) register: Database,
    /// The server they are on; `None` for files.
    pub(crate) server: Option<Server>,
}

/// One database. It does not print: its URL may hold a password.
pub(crate) struct Database {
    /// As in the design: `RouterDB`.
    pub(crate) name: String,
    pub(crate) schema: Schema,
    /// Its file, if it is one.
    pub(crate) file: Option<PathBuf>,
    /// What people are told.
    pub(crate) shown: String,
    url: String,
}

impl Databases {
    /// The databases that `config` names, with their files in `data`.
    ///
    /// # Errors
    /// If the password cannot be read.
    pub(crate) fn find(config: &Config, data: &Path) -> Result<Self, String> {
        let (server, file) = (&config.database.server, &config.database.password_file);
        let password = file.as_deref().map(|file| password::read(file, "database.password_file")).transpose()?;
        let database = |name: String, schema| match server {
            None => Database::file(name, schema, data),
            Some(server) => {
                let url = server.url(&name, password.as_deref());
                Database { shown: format!("{server}{name}"), name, schema, file: None, url }
            }
        };
        Ok(Self {
            router: database("RouterDB".into(), Schema::Router),
            presence: database(format!("PresenceDB_{}", config.presence.identity), Schema::Presence),
            register: database("RegisterDB".into(), Schema::Register),
            server: server.clone(),
        })
    }

    /// In the order in which they are made: where the Router's is, all others are.
    pub(crate) fn all(&self) -> [&Database; 3] {
        [&self.presence, &self.register, &self.router]
    }
}

impl Database {
    /// A file in `directory`.
    pub(crate) fn file(name: String, schema: Schema, directory: &Path) -> Self {
        let file = directory.join(format!("{name}.db"));
        let shown = file.display().to_string();
        Self { url: format!("sqlite:{shown}"), name, schema, file: Some(file), shown }
    }

    /// For the functions that open it. A secret.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How far it is.
    pub(crate) async fn status(&self) -> Result<SchemaStatus, OpenError> {
        self.schema.status(&self.url).await
    }

    /// Whether it has been made.
    pub(crate) async fn exists(&self) -> Result<bool, OpenError> {
        match &self.file {
            Some(file) => Ok(file.exists()),
            None => Ok(!self.status().await?.applied.is_empty()),
        }
    }
}
