//! Starting, serving and stopping.
//!
//! Owns: sockets, connection and request limits, compression, the life of the process. May use:
//! everything. Absent: knowledge of any route.
//!
//! A request passes: connection clocks → the agent's layer → `front` (HEAD, entity tags, 304) →
//! compression → `origin` (shedding, deadline, problem bodies) → the routes.

pub(crate) mod accept;
mod admin;
mod archive;
mod backlog;
mod connection;
mod counted;
mod front;
mod gzip;
mod head_clock;
mod origin;
mod reuse;
mod stack;
pub(crate) mod stop;
mod throw_away;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use streamgate_agent::{Agent, AgentHandle, Otlp};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use crate::api::AdminAccess;
use crate::api::{App, Levels};
use crate::archive::command::directory_of;
use crate::archive::{Archive, ColdStore};
use crate::cache::L2;
use crate::db::{Database, Direct, Place, PoolSize, indexes};
use crate::edge::Purger;
use crate::error::Fatal;
use crate::faults;
use crate::observe::Observe;
use crate::seed::insert::seed;
use crate::settings::{Args, Settings};
use crate::work::Work;
use throw_away::ThrowAway;

pub use crate::db::slow::SlowStatement;
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

impl Running {
    /// Statements that took over a second, the worst first, each with its plan.
    #[must_use]
    pub fn slow_statements(&self) -> Vec<SlowStatement> {
        self.app.db.slow_statements()
    }
}

/// Opens the database, seeds it if it is empty, and serves; both addresses are bound before this
/// returns.
///
/// # Errors
/// An address is taken, the database cannot be opened or seeded, or the agent refused to start.
pub async fn start(settings: Settings) -> Result<Running, Fatal> {
    // First of all, so that a taken port costs no seeding.
    let (listener, public) = bind(settings.public).await?;
    let tls = match &settings.tls {
        Some(files) => Some(tls::acceptor(&files.certificates, &files.key)?),
        None => None,
    };
    let mut agent = Agent::builder("streamgate")
        .version(env!("CARGO_PKG_VERSION"))
        // Made to be looked at: profiles one after the other are its use.
        .profile_raises(60)
        .control(settings.control);
    agent = if settings.observed {
        agent.listen(settings.agent)
    } else {
        agent.no_listener().profiling(false).heap_sampling(0)
    };
    if settings.observed
        && let Some(collector) = collector().map_err(Fatal::Agent)?
    {
        agent = agent.otlp(collector);
    }
    let agent = agent.start().map_err(Fatal::Agent)?;
    agent.ready(false);
    let observe = Observe::new(agent.clone()).map_err(Fatal::Agent)?;

    let (place, throw_away) = place(settings.database.clone())?;
    prepare(&place, &settings).await?;
    let size = PoolSize {
        max: settings.pool_max,
        instances: settings.instances,
    };
    let db = Database::open(&place, size, settings.query_deadline, &observe).await?;

    let archive_dir = settings.archive_dir.clone();
    let cold = ColdStore::local(&archive_dir.unwrap_or_else(|| directory_of(&place)))?;
    let archive = Archive::new(cold, observe.clone(), settings.archive_after, None);
    let access = admin::access(&settings);
    let work = Work::new(&observe, settings.job_queue).map_err(|source| Fatal::System {
        what: "the system gives no threads for jobs",
        source,
    })?;
    let l2 = match &settings.redis {
        Some(address) => Some(Arc::new(l2(address, &settings, &agent)?)),
        None => None,
    };
    if let Some(l2) = &l2 {
        l2.report().await;
    }
    let edge = match (settings.edge_purge, &settings.edge_token) {
        (Some(edge), Some(token)) => Purger::new(edge, token, &agent).map_err(Fatal::Agent)?,
        _ => None,
    };
    let levels = Levels { l2, edge };
    let app = App::new(
        observe,
        db,
        archive,
        work,
        access.clone(),
        levels,
        &settings,
    );
    let app = Arc::new(app.map_err(Fatal::Agent)?);
    let bus = app.bus();
    let joined = match &bus {
        Some(bus) => bus.join().await,
        None => None,
    };
    let (stop, stopped) = watch::channel(false);
    let acceptor = if settings.observed {
        tokio::spawn(accept::accept(
            listener,
            tls,
            stack::stack(&app, &settings),
            app.observe.listener.clone(),
            settings.connections,
            stopped,
        ))
    } else {
        tokio::spawn(accept::accept(
            listener,
            tls,
            stack::unobserved(&app, &settings),
            app.observe.listener.clone(),
            settings.connections,
            stopped,
        ))
    };
    let mut background = vec![
        tokio::spawn(faults::drive(Arc::clone(&app))),
        tokio::spawn(backlog::watch(Arc::clone(&app))),
        // Ended anywhere on the way: that is what its steps are for.
        tokio::spawn(archive::watch(Arc::clone(&app), settings.archive_every)),
    ];
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
        acceptor,
        background,
        bus: bus.map(|bus| tokio::spawn(bus.run(joined))),
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

/// A listener, and where it listens.
///
/// # Errors
/// The address is taken or not ours.
pub(crate) async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Fatal> {
    let refused = |source| Fatal::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
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

/// Instances share pages if they sign cursors alike, and only then: the cursors stand in the pages.
fn l2(address: &str, settings: &Settings, agent: &AgentHandle) -> Result<L2, Fatal> {
    let own: [u8; 32] = rand::random();
    let key = settings.cursor_keys.first().unwrap_or(&own);
    L2::new(
        address,
        settings.redis_deadline,
        &Sha256::digest(key),
        agent,
    )
}

/// The collector that the environment names; where it names none, nothing is traced or pushed.
fn collector() -> Result<Option<Otlp>, streamgate_agent::Error> {
    let named = std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT");
    let named = named.filter(|endpoint| !endpoint.is_empty());
    named.map(|_| Otlp::from_env()).transpose()
}

/// Brings the database to the current schema, and seeds it if it is empty.
async fn prepare(place: &Place, settings: &Settings) -> Result<(), Fatal> {
    let failed = |step| move |source| Fatal::Database { step, source };
    let mut direct = Direct::open(place).await.map_err(failed("opened"))?;
    let migrated = direct.migrate().await;
    migrated.map_err(|error| failed("migrated")(error.into()))?;
    let (users, contents) = (settings.users.into(), settings.contents.into());
    let seeded = seed(&mut direct, settings.seed, users, contents).await;
    seeded.map_err(failed("seeded"))?;
    // A process that was killed under the fault `drop_index` left one away.
    indexes::swap(&mut direct, 0)
        .await
        .map_err(failed("indexed"))?;
    direct.close().await.map_err(failed("seeded"))
}

/// The database: the given one, or a file in a directory that goes with the process.
fn place(given: Option<Place>) -> Result<(Place, Option<ThrowAway>), Fatal> {
    if let Some(place) = given {
        return Ok((place, None));
    }
    let dir = ThrowAway::new().map_err(|source| Fatal::File {
        path: std::env::temp_dir(),
        source,
    })?;
    let file = Place::File(dir.path().join("streamgate.db"));
    Ok((file, Some(dir)))
}
