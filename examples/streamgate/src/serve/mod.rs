//! Starting, serving and stopping.
//!
//! Owns: sockets, connection and request limits, compression, the life of the process. May use:
//! everything. Absent: knowledge of any route.
//!
//! A request passes: connection clocks → the agent's layer → `front` (HEAD, entity tags, 304) →
//! compression → `origin` (shedding, deadline, problem bodies) → the routes.

mod accept;
mod admin;
mod backlog;
mod connection;
mod counted;
mod front;
mod gzip;
mod head_clock;
mod origin;
mod stack;
mod stop;
mod throw_away;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use streamgate_agent::{Agent, AgentHandle};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use crate::api::AdminAccess;
use crate::api::App;
use crate::cache::budget;
use crate::db::Database;
use crate::error::Fatal;
use crate::faults;
use crate::observe::Observe;
use crate::seed::insert::seed;
use crate::settings::{Args, Settings};
use crate::work::Work;
use throw_away::ThrowAway;

pub use stop::Stopped;

/// A started service. Dropping it without [`stop`](Running::stop) cuts what is under way.
#[derive(Debug)]
pub struct Running {
    /// Where the API listens.
    pub public: SocketAddr,
    /// Where the admin plane listens and what a POST to it must know.
    pub admin: Option<(SocketAddr, AdminAccess)>,
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
        .await?;
        drop(conn);
        // A process that was killed under the fault `drop_index` left one away.
        db.swap_index(0).await
    };
    seeded.await.map_err(|source| Fatal::Database {
        step: "seeded",
        source,
    })?;

    let cache_bytes = settings.cache_bytes.unwrap_or_else(budget::bytes);
    let access = admin::access(&settings);
    let work = Work::new(&observe).map_err(|source| Fatal::System {
        what: "the system gives no threads for jobs",
        source,
    })?;
    let keys = &settings.cursor_keys;
    let app = App::new(observe, db, cache_bytes, keys, access.clone(), work);
    let app = app.map_err(Fatal::Agent)?;
    let app = Arc::new(app);
    let (stop, stopped) = watch::channel(false);
    let service = stack::stack(&app, &settings);
    let acceptor = accept::accept(
        listener,
        service,
        app.observe.clone(),
        settings.connections,
        stopped,
    );
    let mut background = vec![tokio::spawn(faults::drive(Arc::clone(&app)))];
    let admin = match settings.admin {
        Some(address) => {
            let (address, serving) = admin::listen(address, Arc::clone(&app)).await?;
            background.push(tokio::spawn(serving));
            Some((address, access))
        }
        None => None,
    };
    let tasks = stop::Tasks {
        stop,
        background,
        acceptor: tokio::spawn(acceptor),
        backlog: tokio::spawn(backlog::watch(Arc::clone(&app))),
    };
    agent.ready(true);
    Ok(Running {
        public,
        admin,
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
    if let Some((address, access)) = &running.admin {
        tracing::warn!("admin plane at http://{address}/, token {}", access.token());
    }
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
