//! Starting, serving and stopping.
//!
//! Owns: sockets, connection and request limits, compression, the life of the process. May use:
//! everything. Absent: knowledge of any route.
//!
//! A request passes: connection clocks → the agent's layer → `front` (HEAD, entity tags, 304) →
//! compression → `origin` (shedding, deadline, problem bodies) → the routes.

mod accept;
mod archive;
mod backlog;
mod connection;
mod counted;
mod front;
mod head_clock;
mod origin;
mod stack;
mod stop;
mod throw_away;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use streamgate_agent::{Agent, AgentHandle};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api::App;
use crate::archive::command::directory_beside;
use crate::archive::{Archive, ColdStore};
use crate::cache::budget;
use crate::db::Database;
use crate::error::Fatal;
use crate::observe::Observe;
use crate::seed::insert::seed;
use crate::settings::{Args, Settings};
use throw_away::ThrowAway;

pub use stop::Stopped;

/// A started service. Dropping it without [`stop`](Running::stop) cuts what is under way.
#[derive(Debug)]
pub struct Running {
    /// Where the API listens.
    pub public: SocketAddr,
    /// The observability agent of the process.
    pub agent: AgentHandle,
    app: Arc<App>,
    tasks: stop::Tasks,
    settings: Settings,
    /// Removed when dropped, after the database is closed.
    _throw_away: Option<ThrowAway>,
}

/// Opens the database, seeds it if it is empty, and serves; both addresses are bound before this
/// returns.
///
/// # Errors
/// An address is taken, the database cannot be opened or seeded, or the agent refused to start.
pub async fn start(settings: Settings) -> Result<Running, Fatal> {
    // First of all, so that a taken port costs no seeding.
    let listener = TcpListener::bind(settings.public).await;
    let listener = listener.map_err(|source| Fatal::Bind {
        address: settings.public,
        source,
    })?;
    let public = listener.local_addr();
    let public = public.map_err(|source| Fatal::Bind {
        address: settings.public,
        source,
    })?;
    let tls = match &settings.tls {
        Some(files) => Some(tls::acceptor(&files.certificates, &files.key)?),
        None => None,
    };
    let agent = Agent::builder("streamgate")
        .version(env!("CARGO_PKG_VERSION"))
        .listen(settings.agent)
        // Made to be looked at: profiles one after the other are its use.
        .profile_raises(60)
        .control(settings.control)
        .start()
        .map_err(Fatal::Agent)?;
    agent.ready(false);
    let observe = Observe::new(agent.clone()).map_err(Fatal::Agent)?;

    let (path, throw_away) = place(settings.database.as_deref())?;
    let db = Database::open(&path, settings.query_deadline, &observe).await?;
    let seeded = async {
        let mut conn = db.direct().await?;
        seed(
            &mut conn,
            settings.seed,
            settings.users.into(),
            settings.contents.into(),
        )
        .await
    };
    seeded.await.map_err(|source| Fatal::Database {
        step: "seeded",
        source,
    })?;

    let archive_dir = settings.archive_dir.clone();
    let cold = ColdStore::local(&archive_dir.unwrap_or_else(|| directory_beside(&path)))?;
    let archive = Archive::new(cold, observe.clone(), settings.archive_after, None);
    let cache_bytes = settings.cache_bytes.unwrap_or_else(budget::bytes);
    let app = App::new(
        observe,
        db,
        archive,
        settings.chain,
        cache_bytes,
        &settings.cursor_keys,
    )
    .map_err(Fatal::Agent)?;
    let app = Arc::new(app);
    let (stop, stopped) = watch::channel(false);
    let service = stack::stack(&app, &settings);
    let acceptor = accept::accept(
        listener,
        tls,
        service,
        app.observe.clone(),
        settings.connections,
        stopped,
    );
    let tasks = stop::Tasks {
        stop,
        acceptor: tokio::spawn(acceptor),
        backlog: tokio::spawn(backlog::watch(Arc::clone(&app))),
        archiver: tokio::spawn(archive::watch(Arc::clone(&app), settings.archive_every)),
    };
    agent.ready(true);
    Ok(Running {
        public,
        agent,
        app,
        tasks,
        settings,
        _throw_away: throw_away,
    })
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// As [`start`], and when signals cannot be listened for.
pub async fn run(args: Args) -> Result<(), Fatal> {
    let running = start(args.settings()?).await?;
    let agent = running
        .agent
        .address()
        .map(|address| format!("http://{address}/"));
    tracing::warn!(
        "serving http://{}/, observed at {}",
        running.public,
        agent.as_deref().unwrap_or("no address")
    );
    stop::signal().await?;
    let stopped = running.stop(stop::DEADLINE).await;
    tracing::warn!("stopped: {stopped}");
    Ok(())
}

/// The database file: the given one, or one in a directory that goes with the process.
fn place(given: Option<&Path>) -> Result<(PathBuf, Option<ThrowAway>), Fatal> {
    if let Some(path) = given {
        return Ok((path.to_owned(), None));
    }
    let dir = ThrowAway::new().map_err(|source| Fatal::File {
        path: std::env::temp_dir(),
        source,
    })?;
    Ok((dir.path().join("streamgate.db"), Some(dir)))
}
