//! The edge: a caching proxy before the service, level L3.
//!
//! Owns: what of the service's answers is kept for all clients. May use: the accept loop of `serve`,
//! `problem`, entity tags of `api`. Absent: any knowledge of the service beyond HTTP.
//!
//! Guide 2.1. A client's way: connection clocks → the agent's layer → `front` → kept, or `flights` →
//! `origin`.

mod answer;
mod flights;
mod front;
mod kept;
mod key;
pub(crate) mod origin;
mod policy;
mod purge;
mod purger;
mod settings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use streamgate_agent::{Agent, AgentHandle, Metric, Tier};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tower::Layer as _;

use crate::error::Fatal;
use crate::observe::Listener;
use crate::serve::{accept, bind, stop};
pub(crate) use purger::Purger;
pub use settings::{Args, Settings};

static OPENED: Metric = Metric::counter(
    "streamgate_client_connections_total",
    "Connections opened to the origin.",
);

/// The one route there is: which ones the service has is its own affair.
const ROUTE: &str = "/{path}";

/// A started edge. Dropping it without [`stop`](Running::stop) cuts what is under way.
#[derive(Debug)]
pub struct Running {
    /// Where clients are served.
    pub address: SocketAddr,
    /// Where purges are taken; `None` without a token.
    pub purge: Option<SocketAddr>,
    /// The observability agent of the edge.
    pub agent: AgentHandle,
    stop: watch::Sender<bool>,
    acceptors: Vec<JoinHandle<JoinSet<()>>>,
}

/// Starts an edge; its addresses are bound before this returns. The origin need not be there yet.
///
/// # Errors
/// An address is taken, that for purges is not on loopback, the origin's address is none, or the agent
/// refused to start.
pub async fn start(settings: Settings) -> Result<Running, Fatal> {
    if !settings.purge.ip().is_loopback() {
        return Err(Fatal::OutOfRange {
            parameter: "--purge",
            range: "an address on loopback".to_owned(),
            seen: settings.purge.to_string(),
        });
    }
    let (clients, address) = bind(settings.listen).await?;
    let agent = Agent::builder("streamgate-edge")
        .version(env!("CARGO_PKG_VERSION"))
        .listen(settings.agent)
        .start()
        .map_err(Fatal::Agent)?;
    let listener = Listener::new(agent.clone(), None).map_err(Fatal::Agent)?;
    let opened = agent.counter(&OPENED, &[]).map_err(Fatal::Agent)?;
    let observe = agent.cache("edge", Tier::L3);
    let store = kept::Store::new(settings.cache_bytes, &observe).map_err(Fatal::Agent)?;
    let store = Arc::new(store);
    let token = settings.token.as_deref();
    let origin = origin::Origin::new(&settings.origin, token, settings.origin_deadline, opened)?;

    let (stop, stopped) = watch::channel(false);
    let mut acceptors = Vec::new();
    let mut purge = None;
    if let Some(token) = token {
        let (purgers, address) = bind(settings.purge).await?;
        purge = Some(address);
        let service = purge::Purge::new(Arc::clone(&store), observe.clone(), token);
        acceptors.push(tokio::spawn(accept::accept(
            purgers,
            None,
            service,
            listener.clone(),
            settings.connections,
            stopped.clone(),
        )));
    }
    let front = front::Front::new(store, origin, observe);
    let observed = agent.http_layer().matched_path(|_| Some(ROUTE));
    acceptors.push(tokio::spawn(accept::accept(
        clients,
        None,
        observed.layer(front),
        listener,
        settings.connections,
        stopped,
    )));
    Ok(Running {
        address,
        purge,
        agent,
        stop,
        acceptors,
    })
}

impl Running {
    /// Accepts no more, lets answers under way end, then stops the agent. What is left at the deadline is
    /// cut.
    pub async fn stop(self, deadline: Duration) {
        let end = tokio::time::Instant::now() + deadline;
        self.agent.ready(false);
        self.stop.send_replace(true);
        for acceptor in self.acceptors {
            stop::drain(acceptor, end).await;
        }
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        if let Err(error) = self.agent.shutdown(left).await {
            tracing::warn!(%error, "the agent did not stop");
        }
    }
}

/// Serves until SIGINT or SIGTERM.
///
/// # Errors
/// As [`start`], and when signals cannot be listened for.
pub async fn run(args: Args) -> Result<(), Fatal> {
    let settings = args.settings()?;
    let origin = settings.origin.clone();
    let running = start(settings).await?;
    tracing::warn!("serving http://{}/ from {origin}", running.address);
    stop::signal().await?;
    running.stop(stop::DEADLINE).await;
    Ok(())
}
