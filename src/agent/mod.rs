//! The one place that knows all rooms: joins them, starts their threads and stops them.
//!
//! `sg-collect` reads the process, the runtime and the host's closures and judges targets;
//! `sg-profile` samples, unwinds and symbolises; `sg-serve` answers. They are apart so that slow
//! symbols or a slow closure never delay a scrape.

mod builder;
mod handle;
mod threads;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use builder::{Agent, Builder};
pub use handle::{AgentHandle, Shutdown};

use crate::assess::targets::{self, Reading, Window};
use crate::catalog::families;
use crate::collect::agent_cost::{AgentCost, AgentThreads};
use crate::collect::callbacks::CallbackSource;
use crate::collect::cpu::CpuCollector;
use crate::collect::runtime::{RuntimeSource, Runtimes};
use crate::collect::{Source, host, process};
use crate::config::{self, Config};
use crate::error::Error;
use crate::export::Published;
use crate::export::respond::Plane;
use crate::instrument::request::Requests;
use crate::instrument::routes::Routes;
use crate::store::Store;
use crate::store::metrics::{Counter, unix_nanos_now};
use crate::store::sync::lock;

use handle::Inner;
use threads::Stop;

pub(crate) const EDITION: &str = "2024";

fn start(config: Config) -> Result<AgentHandle, Error> {
    config.check()?;
    let listener = config.address.map(crate::export::serve::bind).transpose()?;
    let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let config = Arc::new(config);
    let store = Arc::new(Store::new(config.series));
    let published = Arc::new(Published::default());
    let stop = Arc::new(Stop::default());
    let agent_threads = Arc::new(AgentThreads::default());
    let runtimes = Arc::new(Runtimes::default());
    describe(&store, &config)?;
    if let Ok(host) = tokio::runtime::Handle::try_current() {
        runtimes.add("main", host);
    }
    let plane = Arc::new(Plane::new(Arc::clone(&store), Arc::clone(&config), Arc::clone(&published)));
    let routes = Arc::new(Routes::new(Arc::clone(&store)));
    let requests = Arc::new(Requests::new(Arc::clone(&store), Arc::clone(&routes)));

    // From here on a failure must not leave threads behind.
    let inner = Inner::new(address, config, store, published, plane, requests, runtimes, stop);
    let handle = AgentHandle::new(inner);
    handle.inner.start_collecting(&agent_threads)?;
    handle.inner.start_profiling(&agent_threads)?;
    handle.inner.start_serving(listener, &agent_threads)?;
    Ok(handle)
}
