//! `xmd db`: how far the databases are, and bringing them further. What a step changes is `xm-store`'s.

use std::fmt::Write as _;
use std::process::ExitCode;

use xm_store::sql;

use crate::cli::{DbCommand, RunArgs};
use crate::config::Config;
use crate::data::DataDir;
use crate::databases::{Database, Databases};
use crate::run::{EXIT_USAGE, complain, configuration, say};
use crate::stores::{self, StoresError};

/// `xmd db status` and `xmd db migrate`.
pub async fn db(command: &DbCommand) -> ExitCode {
    let (DbCommand::Status(args) | DbCommand::Migrate(args)) = command;
    let (config, databases) = match found(args) {
        Ok(found) => found,
        Err(why) => {
            complain(&why);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match command {
        DbCommand::Status(_) => status(&config, &databases).await,
        DbCommand::Migrate(_) => match migrate(&config, &databases).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                complain(&why);
                ExitCode::FAILURE
            }
        },
    }
}

fn found(args: &RunArgs) -> Result<(Config, Databases), String> {
    let config = configuration(args)?;
    let databases = Databases::find(&config, &config.data_dir)?;
    Ok((config, databases))
}

async fn status(config: &Config, databases: &Databases) -> ExitCode {
    let mut is_ready = true;
    if let Err(error) = stores::old_names(&config.data_dir) {
        complain(&error.to_string());
        is_ready = false;
    }
    for database in databases.all() {
        let mut text = String::new();
        is_ready &= describe(database, &mut text).await.is_ok_and(|ready| ready);
        say(&text);
    }
    for risk in databases.server.iter().flat_map(sql::Server::warnings) {
        say(&format!("warning: database.url: {risk}\n"));
    }
    if is_ready { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes what is known about a database. Returns whether it can be used as it is.
async fn describe(database: &Database, text: &mut String) -> Result<bool, std::fmt::Error> {
    writeln!(text, "{}: {}", database.name, database.shown)?;
    let status = match database.status().await {
        Ok(status) => status,
        Err(error) => {
            writeln!(text, "  unusable: {error}")?;
            return Ok(false);
        }
    };
    let list = |steps: &[String]| if steps.is_empty() { "none".to_owned() } else { steps.join(", ") };
    writeln!(text, "  applied: {}", list(&status.applied))?;
    writeln!(text, "  pending: {}", list(&status.pending))?;
    if !status.applied.is_empty() {
        match sql::server_warnings(database.url()).await {
            Ok(risks) => risks.iter().try_for_each(|risk| writeln!(text, "  warning: {risk}"))?,
            Err(error) => writeln!(text, "  warning: its settings cannot be read: {error}")?,
        }
    }
    Ok(status.pending.is_empty())
}

async fn migrate(config: &Config, databases: &Databases) -> Result<(), String> {
    // Of files the server that uses them must be stopped. On a database server others may go on, whose steps are done.
    let _data = match databases.server {
        None => Some(DataDir::open(&config.data_dir).map_err(|error| error.to_string())?),
        Some(_) => None,
    };
    stores::old_names(&config.data_dir).map_err(|error| error.to_string())?;
    for database in databases.all() {
        let of = |error| StoresError::of(database, error).to_string();
        let pending = database.status().await.map_err(of)?.pending;
        if pending.is_empty() {
            say(&format!("{}: nothing to do\n", database.name));
            continue;
        }
        say(&format!("{}: {} …\n", database.name, pending.join(", ")));
        database.schema.migrate(database.url()).await.map_err(of)?;
        say(&format!("{}: done\n", database.name));
    }
    Ok(())
}
