//! A server from start to stop: opens what it keeps, binds its sockets, serves all roles, and stops them in order.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use xm_core::engine::Engine;
use xm_core::link::LinkError;
use xm_core::net::thread::{OwnThread, on_own_thread};
use xm_core::net::{Clock, udp};
use xm_core::presence::{self, Presence};
use xm_core::router::Router;

use crate::config::{Config, Mail, MailMode};
use crate::data::{DataDir, DataError};
use crate::databases::Databases;
use crate::mail::{Courier, Relay, RelayTimeouts, Relays, Road, read_credentials};
use crate::memory;
use crate::places::Sockets;
use crate::roles::{Registering, Roles};
pub use crate::stores::StoresError;
use crate::stores::{self, Kept};
use crate::threads;
use crate::web::{self, Settings, Site};

pub use crate::places::Places;

/// How long stopping may take: what was begun ends, and a supervisor that kills after five seconds never has to.
const STOP_TIMEOUT: Duration = Duration::from_millis(4_800);

/// Why the server did not start. Each message names what is wrong and the way out.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory or the keys.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A database or the offline messages.
    #[error(transparent)]
    Store(#[from] StoresError),
    /// How to log in at the database server.
    #[error("{0}")]
    Database(String),
    /// An address cannot be listened on.
    #[error("{key} = \"{address}\": {why}")]
    Listen {
        /// The configuration key.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// What is in the way, and the way out.
        why: String,
    },
    /// `public_address` leads nowhere.
    #[error("public_address = \"{name}\": {why}")]
    PublicAddress {
        /// Its value.
        name: String,
        /// What is wrong, and the way out.
        why: String,
    },
    /// The mail settings.
    #[error("{0}")]
    Mail(String),
    /// The system has no thread left for a lane.
    #[error("presence.lanes: no thread for a lane: {0}; allow this user more (ulimit -u), or set fewer lanes")]
    Thread(io::Error),
    /// The roles of this process did not come together, which a database that hangs may cause.
    #[error("the Presence could not join the Router: {0}; look at the log")]
    Join(#[from] LinkError),
}

/// A part of the server that ended, and how.
type Ended = (&'static str, io::Result<()>);

/// A running server.
pub struct Server {
    places: Places,
    site: Arc<Site>,
    stop: CancellationToken,
    tasks: JoinSet<Ended>,
    /// Of the lanes.
    threads: Vec<OwnThread>,
    kept: Kept,
    /// Dropped last: the directory is free for the next process only when all else is gone.
    _data: DataDir,
}

impl Server {
    /// Starts everything a configuration asks for; returns once it serves.
    ///
    /// # Errors
    /// See [`StartError`]. Whatever runs already ends.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let data = DataDir::open(&config.data_dir)?;
        let databases = Databases::find(config, data.path()).map_err(StartError::Database)?;
        for risk in databases.server.iter().flat_map(xm_store::sql::Server::warnings) {
            tracing::warn!("database.url: {risk}");
        }
        let evidence = stores::evidence(&data, &databases).await?;
        // Tables may have been made before the first start, so without any key it is people that count.
        let known = if data.has_keys() { &evidence.made } else { &evidence.used };
        let keys = data.keys(&mut rand::make_rng::<StdRng>(), known.as_deref())?;
        let sockets = Sockets::bind(config).await?;
        let mail_directory = config.mail.directory.clone().unwrap_or_else(|| data.join("mail"));
        let road = road(&config.mail, &mail_directory)?;
        let mails = (config.mail.mode == MailMode::Directory).then_some(mail_directory);
        let places = Places::find(config, &sockets, keys.router.public(), (data.path().to_owned(), mails)).await?;
        let kept = Kept::open(&data, config, &databases, &evidence).await?;

        let clock = Clock::start();
        let courier = Courier::new(kept.mails.clone(), config.mail.from.clone(), road);
        let roles = Roles::new(config, &keys, &places, &kept, clock, sockets.presence.len());
        let settings = Settings {
            public_url: places.web.clone(),
            client_address: places.client.to_string(),
            behind_proxy: config.web.behind_proxy,
            mode: config.registration.mode,
            token_days: config.registration.token_days,
            secret: *keys.register.expose(),
        };
        let registering = Registering { register: roles.register, clock, bell: courier.bell() };
        let site = Site::new(settings, Arc::new(registering));
        let (stop, tasks, threads) = (CancellationToken::new(), JoinSet::new(), Vec::new());
        let mut server = Self { places, site, stop, tasks, threads, kept, _data: data };

        server.serve_router(roles.router, sockets.router, clock);
        for (number, (engine, socket)) in roles.lanes.into_iter().zip(sockets.presence).enumerate() {
            server.serve_lane(number, engine, socket, clock)?;
        }
        server.serve_web(sockets.web, config.web.connections_max);
        server.serve_mail(courier, clock);
        server.watch_database();
        server.give_back_memory();
        presence::join(&roles.presence, clock.now().mono, roles.to_router).await?;
        server.site.set_ready(true);
        tracing::info!(client = %server.places.client, web = %server.places.web, "serving");
        Ok(server)
    }

    fn serve_router(&mut self, engine: Engine<Router>, socket: UdpSocket, clock: Clock) {
        let lane = udp::serve(engine, socket, clock, self.stopped());
        self.tasks.spawn(async move { ("router", lane.await) });
    }

    fn give_back_memory(&mut self) {
        let memory = memory::give_back(self.stopped());
        self.tasks.spawn(async move {
            memory.await;
            ("memory", Ok(()))
        });
    }

    fn serve_lane(
        &mut self,
        number: usize,
        engine: Engine<Presence>,
        socket: UdpSocket,
        clock: Clock,
    ) -> Result<(), StartError> {
        let lane = udp::serve(engine, socket, clock, self.stopped());
        if threads::cores() == 1 {
            self.tasks.spawn(async move { ("presence", lane.await) });
            return Ok(());
        }
        let memory = memory::give_back(self.stopped());
        let lane = async move {
            tokio::spawn(memory);
            lane.await
        };
        let (thread, lane) = on_own_thread(format!("presence-{number}"), lane).map_err(StartError::Thread)?;
        self.threads.push(thread);
        self.tasks.spawn(async move { ("presence", lane.await) });
        Ok(())
    }

    /// Ready when the server is to stop.
    fn stopped(&self) -> WaitForCancellationFutureOwned {
        self.stop.clone().cancelled_owned()
    }

    fn serve_web(&mut self, listener: TcpListener, connections_max: usize) {
        let (routes, stopped) = (web::routes(self.site.clone()), self.stopped());
        self.tasks.spawn(async move {
            web::serve(listener, routes, connections_max, stopped).await;
            ("web", Ok(()))
        });
    }

    fn serve_mail(&mut self, courier: Courier, clock: Clock) {
        let stopped = self.stopped();
        self.tasks.spawn(async move {
            courier.run(move || clock.now().wall, stopped).await;
            ("mail", Ok(()))
        });
    }

    /// Ends the server when its database is not the one any more whose content it has in memory.
    fn watch_database(&mut self) {
        let watch = self.kept.witness.clone().watch(self.kept.presence.clone());
        let stopped = self.stopped();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stopped => ("database", Ok(())),
                why = watch => ("database", Err(why)),
            }
        });
    }

    /// Where everything is.
    #[must_use]
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Resolves when a part of the server ended by itself, with its name and why. The rest must not go on alone: stop it.
    pub async fn failed(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Ok((name, Ok(())))) => format!("{name} ended"),
            Some(Ok((name, Err(error)))) => format!("{name} failed: {error}"),
            Some(Err(error)) => format!("a part of the server failed: {error}"),
            None => "nothing runs".to_owned(),
        }
    }

    /// Stops: takes nothing new, finishes what was begun, closes the stores. Under five seconds.
    pub async fn stop(self) {
        let Self { site, stop, mut tasks, threads, kept, _data, .. } = self;
        site.set_ready(false);
        stop.cancel();
        // It holds Register, and with it the mail queue.
        drop(site);
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                match ended {
                    Ok((_, Ok(()))) => {}
                    Ok((name, Err(error))) => tracing::error!(name, %error, "failed while stopping"),
                    Err(error) => tracing::error!(%error, "failed while stopping"),
                }
            }
            kept.close().await;
        };
        if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
            tracing::warn!("not everything ended in time; what had a tick is stored");
        }
        // Connections to databases may have needed them until here.
        drop(threads);
        tracing::info!("stopped");
    }
}

/// Where mails go.
fn road(mail: &Mail, directory: &Path) -> Result<Road, StartError> {
    if mail.mode == MailMode::Directory {
        return Ok(Road::Directory(directory.to_owned()));
    }
    let credentials = match &mail.password_file {
        Some(file) => Some(read_credentials(&mail.user, file).map_err(StartError::Mail)?),
        None => None,
    };
    let relay = |address: &crate::config::RelayAddress| Relay {
        address: address.clone(),
        tls: mail.tls,
        credentials: credentials.clone(),
    };
    Ok(Road::Relays(Relays::new(mail.relays.iter().map(relay).collect(), RelayTimeouts::default())))
}
