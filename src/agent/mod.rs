//! The one place that knows all rooms: joins them, starts their threads and stops them.
//!
//! `sg-collect` reads the process, the runtime and the host's closures and judges targets;
//! `sg-profile` samples and unwinds; `sg-wall` looks at threads; `sg-heap` reads the
//! allocator's samples; `sg-serve` answers; `sg-otlp` pushes metrics, `sg-traces` makes spans,
//! `sg-otlp-prof` makes profiles, `sg-deliver` sends what waits for a collector, `sg-pyroscope` to
//! Pyroscope. They are apart so that slow symbols or a slow closure never delay a scrape.

mod builder;
mod collecting;
mod handle;
mod judge;
mod memory_pressure;
#[cfg_attr(not(feature = "otlp"), path = "pushing_off.rs")]
mod pushing;
#[cfg(feature = "otlp")]
#[cfg_attr(not(feature = "otlp-profiles"), path = "pushing_profiles_off.rs")]
mod pushing_profiles;
#[cfg_attr(not(feature = "http"), path = "serving_off.rs")]
mod serving;
mod thread_start;
mod threads;
#[cfg(feature = "otlp")]
mod traces;

use std::sync::Arc;

pub use builder::{Agent, Builder};
pub use handle::{AgentHandle, Responding, ShedReason, Shutdown};
pub use memory_pressure::MemoryPressureSubscription;
pub use thread_start::thread_started;

use crate::assess::target_file::Thresholds;
use crate::catalog::families;
use crate::collect::agent_cost::AgentThreads;
use crate::collect::runtime::Runtimes;
use crate::config::Config;
use crate::error::Error;
use crate::export::Published;
use crate::export::respond::Plane;
use crate::instrument::request::Requests;
use crate::instrument::routes::Routes;
use crate::store::Store;

use handle::Inner;
use judge::Judge;
use memory_pressure::Subscribers;
use threads::Stop;

/// What every thread of one agent shares.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) config: Arc<Config>,
    pub(crate) published: Arc<Published>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) threads: Arc<AgentThreads>,
    pub(crate) runtimes: Arc<Runtimes>,
    pub(crate) judge: Arc<Judge>,
    pub(crate) pressure: Arc<Subscribers>,
}

fn start(config: Config) -> Result<AgentHandle, Error> {
    config.check()?;
    let thresholds = Thresholds::built_in()?;
    let listener = serving::bind(&config)?;
    let address = listener
        .as_ref()
        .and_then(|listener| listener.local_addr().ok());
    let shared = Shared {
        store: Arc::new(Store::new(config.series)),
        config: Arc::new(config),
        published: Arc::default(),
        stop: Arc::default(),
        threads: Arc::default(),
        runtimes: Arc::default(),
        judge: Arc::new(Judge::new(thresholds)),
        pressure: Arc::default(),
    };
    describe(&shared)?;
    // Seven rows from the first moment on, none of them green.
    let table = shared.judge.judge(&shared.store.metrics, &shared.published);
    shared.published.set_targets(table);
    if let Ok(host) = tokio::runtime::Handle::try_current() {
        shared.runtimes.add("main", host);
    }
    let plane = Arc::new(Plane::new(
        Arc::clone(&shared.store),
        Arc::clone(&shared.config),
        Arc::clone(&shared.published),
    ));
    let routes = Arc::new(Routes::new(Arc::clone(&shared.store)));
    let requests = Arc::new(Requests::new(Arc::clone(&shared.store), routes));
    // Its drop asks every thread to stop, so that a later failure leaves none behind.
    let mut inner = Inner::new(shared.clone(), address, Arc::clone(&plane), requests)?;
    inner.collect(&shared)?;
    collecting::profile(&shared)?;
    collecting::look(&shared)?;
    collecting::heap(&shared)?;
    inner.pushing = pushing::start(&shared)?;
    inner.serving = Some(serving::start(&shared, listener, plane)?);
    Ok(AgentHandle::new(inner))
}

/// Sets what is known before anything is measured.
fn describe(shared: &Shared) -> Result<(), Error> {
    let (metrics, config) = (&shared.store.metrics, &shared.config);
    metrics.info(
        &families::AGENT_BUILD_INFO,
        &[env!("CARGO_PKG_VERSION"), "2024"],
    )?;
    let pid = std::process::id().to_string();
    let host = crate::collect::process::host_name().unwrap_or_default();
    metrics.info(
        &families::TARGET_INFO,
        &[&config.service, &config.version, &host, &pid],
    )?;
    let exposed = config
        .address
        .is_some_and(|address| !address.ip().is_loopback());
    metrics
        .gauge(&families::AGENT_INSECURE, &[])?
        .set(f64::from(u8::from(exposed)));
    Ok(())
}

#[cfg(test)]
mod shared_tests;
