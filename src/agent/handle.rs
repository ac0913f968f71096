//! What the host holds while the agent runs.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::memory_pressure::{MemoryPressureSource, MemoryPressureSubscription};
use super::pushing::Pushing;
use super::serving::{self, Serving};
use super::{Shared, collecting};
use crate::assess::memory_pressure::MemoryPressure;
use crate::assess::targets::TargetTable;
use crate::catalog::{Metric, families};
use crate::collect::agent_cost::AgentCost;
use crate::collect::callbacks::CallbackSource;
use crate::collect::cgroup::ContainerSource;
use crate::collect::runtime::RuntimeSource;
use crate::collect::{Source, host, jemalloc, process};
use crate::error::Error;
use crate::export::flushed::Flushed;
use crate::export::respond::{Plane, Reply, Request};
use crate::instrument::buffer_pool::BufferPool;
use crate::instrument::cache::{Cache, Tier};
use crate::instrument::connection::{Connection, Connections};
use crate::instrument::pool::Pool;
use crate::instrument::query::{Query, QueryLabels};
use crate::instrument::request::Requests;
use crate::instrument::worker_pool::WorkerPool;
use crate::store::metrics::{Counter, Gauge, Histogram, ObservedCounter, UpDown};

/// A running agent. Clones speak of the same one; when the last is dropped, the agent stops.
#[derive(Clone)]
pub struct AgentHandle {
    inner: Arc<Inner>,
}

impl fmt::Debug for AgentHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentHandle")
            .field("address", &self.inner.address)
            .finish_non_exhaustive()
    }
}

pub(super) struct Inner {
    shared: Shared,
    address: Option<SocketAddr>,
    plane: Arc<Plane>,
    requests: Arc<Requests>,
    found: Found,
    pub(super) serving: Option<Serving>,
    pub(super) pushing: Pushing,
    #[cfg(feature = "prometheus")]
    registries: crate::collect::registry::Registries,
}

/// Handles of what happens many times a second: finding one takes the registry's lock, so each is
/// found once.
#[derive(Default)]
struct Found {
    http1: OnceLock<Connections>,
    http2: OnceLock<Connections>,
    shed: [OnceLock<Counter>; 4],
}

impl Found {
    fn connections(&self, version: &str) -> Option<&OnceLock<Connections>> {
        match version {
            "1.1" => Some(&self.http1),
            "2" => Some(&self.http2),
            _ => None,
        }
    }

    fn shed(&self, reason: ShedReason) -> &OnceLock<Counter> {
        let [queue, pool, rate, drain] = &self.shed;
        match reason {
            ShedReason::Queue => queue,
            ShedReason::Pool => pool,
            ShedReason::Rate => rate,
            ShedReason::Drain => drain,
        }
    }
}

/// What [`AgentHandle::shutdown`] left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Threads that had not ended by the deadline; they end when their work returns.
    pub still_running: Vec<&'static str>,
    /// What became of spans, logs and profiles that were waiting for a collector. Signals that never had
    /// any are left out.
    pub flushed: Vec<Flushed>,
}

impl Inner {
    pub(super) fn new(
        shared: Shared,
        address: Option<SocketAddr>,
        plane: Arc<Plane>,
        requests: Arc<Requests>,
    ) -> Result<Self, Error> {
        Ok(Self {
            #[cfg(feature = "prometheus")]
            registries: crate::collect::registry::Registries::new(Arc::clone(&shared.store))?,
            shared,
            address,
            plane,
            requests,
            found: Found::default(),
            serving: None,
            pushing: Pushing::default(),
        })
    }

    /// Starts to read everything that the agent reads by itself.
    pub(super) fn collect(&self, shared: &Shared) -> Result<(), Error> {
        let store = &shared.store;
        let mut sources: Vec<Box<dyn Source>> = vec![
            Box::new(process::ProcessSource::new(&store.metrics)?),
            // After the process's, whose readings it judges.
            Box::new(MemoryPressureSource::new(
                &store.metrics,
                shared.config.memory_soft_limit,
                Arc::clone(&shared.pressure),
            )?),
            Box::new(ContainerSource::new(&store.metrics)?),
            Box::new(CallbackSource::new(Arc::clone(store))?),
            Box::new(RuntimeSource::new(
                Arc::clone(store),
                Arc::clone(&shared.runtimes),
            )?),
            Box::new(AgentCost::new(
                Arc::clone(store),
                Arc::clone(&shared.threads),
            )?),
        ];
        sources.extend(host::sources(store)?);
        sources.extend(jemalloc::source(store)?);
        #[cfg(feature = "prometheus")]
        sources.push(Box::new(self.registries.clone()));
        collecting::collect(shared, sources)
    }

    fn ask_to_stop(&self, drain: Duration) {
        // A little earlier than the host stops waiting, or threads would be found still running.
        let work = drain.mul_f64(0.9);
        self.shared.published.set_ready(false);
        self.shared.stop.ask(work);
        self.shared.store.refresh.nudge();
        self.shared.store.cpu.nudge();
        self.shared.store.looks.nudge();
        self.shared.store.heap.wishes.nudge();
        // Who waits for seconds to pass gets those that have.
        self.shared.store.pauses.close(());
        self.pushing.stop(work);
        if let Some(serving) = &self.serving {
            serving.stop(drain);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ask_to_stop(Duration::ZERO);
    }
}

impl AgentHandle {
    pub(super) fn new(inner: Inner) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Where the agent listens; `None` without a listener.
    pub fn address(&self) -> Option<SocketAddr> {
        self.inner.address
    }

    /// A tower layer that records every request of the service below it.
    #[cfg(feature = "tower")]
    pub fn http_layer(&self) -> crate::HttpLayer {
        crate::HttpLayer::new(Arc::clone(&self.inner.requests))
    }

    /// A warp filter that names the route of the running request for [`http_layer`](Self::http_layer).
    ///
    /// Put it behind the path filter: `warp::path!("content" / u64).and(agent.route("/content/{id}"))`.
    /// The first 1,000 templates are kept apart.
    #[cfg(feature = "http")]
    pub fn route(
        &self,
        template: &str,
    ) -> impl warp::Filter<Extract = (), Error = std::convert::Infallible>
    + Clone
    + Send
    + Sync
    + 'static
    + use<> {
        crate::instrument::request_route::filter(self.inner.requests.routes.get(template))
    }

    /// A layer for `tracing_subscriber` that makes the host's spans children of the running request's span,
    /// and its events log records with the ids of its trace.
    ///
    /// Spans count only inside a request that [`http_layer`](Self::http_layer) watches, 64 of them in each,
    /// and are pushed if the request is kept. So are events, but those at `WARN` and `ERROR` are pushed in any
    /// case, and so is what is said outside of requests. Queries and cache operations inside a span are
    /// its children. Names of fields that promise a secret, such as `password`, lose their values.
    ///
    /// # Cost
    /// What is more verbose than `level` costs what a disabled span costs, a span outside of a request one
    /// thread-local look-up; one inside is allocated with its fields, of which 32 are kept and 1 KiB of each.
    ///
    /// ```
    /// use streamgate_agent::Agent;
    /// use tracing_subscriber::layer::SubscriberExt as _;
    ///
    /// let agent = Agent::builder("shop").no_listener().start()?;
    /// let layer = agent.request_spans(tracing::Level::INFO);
    /// let subscriber = tracing_subscriber::registry().with(layer);
    /// # drop(subscriber);
    /// # Ok::<(), streamgate_agent::Error>(())
    /// ```
    #[cfg(all(feature = "tracing", feature = "otlp"))]
    pub fn request_spans<S>(
        &self,
        level: tracing_core::Level,
    ) -> impl tracing_subscriber::Layer<S> + Send + Sync + 'static + use<S>
    where
        S: tracing_core::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        let store = Arc::clone(&self.inner.shared.store);
        crate::instrument::host_spans::layer(store, level)
    }

    /// A level of a cache. Asked for twice, it counts into the same series.
    pub fn cache(&self, name: &str, tier: Tier) -> Cache {
        Cache::new(&self.inner.shared.store, name, tier)
    }

    /// A pool of database connections.
    pub fn pool(&self, name: &str) -> Pool {
        Pool::new(&self.inner.shared.store, name)
    }

    /// A pool of buffers that are used again.
    pub fn buffer_pool(&self, name: &str) -> BufferPool {
        BufferPool::new(&self.inner.shared.store, name)
    }

    /// A pool of so many workers with a queue for so many jobs; made once, or its workers count twice.
    pub fn worker_pool(&self, name: &str, workers: usize, capacity: usize) -> WorkerPool {
        WorkerPool::new(&self.inner.shared.store, name, workers, capacity)
    }

    /// A statement that is run many times; make it once and keep it.
    pub fn query(&self, labels: QueryLabels) -> Query {
        Query::new(
            &self.inner.shared.store,
            labels,
            self.inner.shared.config.slow_query,
        )
    }

    /// An accepted client connection, until its last clone is dropped. `version` is `1.1` or `2`.
    pub fn connection(&self, version: &str) -> Connection {
        let find = || Connections::new(&self.inner.shared.store, version);
        match self.inner.found.connections(version) {
            Some(found) => found.get_or_init(find).accept(),
            None => find().accept(),
        }
    }

    /// Counts a request that the host refused because a part was full.
    pub fn shed(&self, reason: ShedReason) {
        let metrics = &self.inner.shared.store.metrics;
        let find = || metrics.own_counter(&families::HTTP_SERVER_REQUESTS_SHED, &[reason.word()]);
        self.inner.found.shed(reason).get_or_init(find).inc();
    }

    /// A counter of the host's own; keep the handle, finding it takes a lock.
    ///
    /// # Errors
    /// [`Error::is_out_of_range`] when the name, the kind or the labels do not fit the family.
    pub fn counter(&self, metric: &Metric, values: &[&str]) -> Result<Counter, Error> {
        self.inner.shared.store.metrics.counter(metric, values)
    }

    /// An up-down number of the host's own.
    ///
    /// # Errors
    /// As for [`counter`](Self::counter).
    pub fn up_down(&self, metric: &Metric, values: &[&str]) -> Result<UpDown, Error> {
        self.inner.shared.store.metrics.up_down(metric, values)
    }

    /// A gauge of the host's own, absent until it is set.
    ///
    /// # Errors
    /// As for [`counter`](Self::counter).
    pub fn gauge(&self, metric: &Metric, values: &[&str]) -> Result<Gauge, Error> {
        self.inner.shared.store.metrics.gauge(metric, values)
    }

    /// An observed total of the host's own, absent until it is set.
    ///
    /// # Errors
    /// As for [`counter`](Self::counter).
    pub fn observed_counter(
        &self,
        metric: &Metric,
        values: &[&str],
    ) -> Result<ObservedCounter, Error> {
        self.inner
            .shared
            .store
            .metrics
            .observed_counter(metric, values)
    }

    /// A histogram of the host's own.
    ///
    /// # Errors
    /// As for [`counter`](Self::counter).
    pub fn histogram(&self, metric: &Metric, values: &[&str]) -> Result<Histogram, Error> {
        self.inner.shared.store.metrics.histogram(metric, values)
    }

    /// Has a closure called about once a second on the agent's thread; a panic in it is counted.
    ///
    /// # Errors
    /// [`Error::is_refused`] when 4,096 such closures are held.
    pub fn observe(&self, read: impl Fn() + Send + Sync + 'static) -> Result<(), Error> {
        if self.inner.shared.store.callbacks.add(read) {
            Ok(())
        } else {
            Err(Error::refused("observe", "4096 closures are held"))
        }
    }

    /// Has a closure told when the process holds more memory than its soft limit, so that caches give
    /// some back before the kernel takes the process.
    ///
    /// Resident memory is compared about once a second with [`Builder::memory_soft_limit`]'s share of
    /// the memory limit. The closure is told at each change and, while the level is
    /// [`High`](crate::PressureLevel::High), at each comparison; never where memory or limit cannot be read, and no
    /// more once the agent stops. It starts at normal, and normal again is below 15/16 of the soft
    /// limit. `process_memory_pressure` says the same to operators.
    ///
    /// It runs on the agent's collecting thread, beside all other readings: set a flag or wake a task
    /// there, and evict elsewhere. A panic in it is counted and does no harm. Dropping what this
    /// returns ends it.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use streamgate_agent::{Agent, PressureLevel};
    ///
    /// let agent = Agent::builder("shop").no_listener().start()?;
    /// let budget = Arc::new(AtomicU64::new(256 << 20));
    /// let cache = Arc::clone(&budget);
    /// let _told = agent.on_memory_pressure(move |pressure| {
    ///     let bytes = match pressure.level {
    ///         PressureLevel::High => 64 << 20,
    ///         _ => 256 << 20,
    ///     };
    ///     cache.store(bytes, Ordering::Relaxed);
    /// })?;
    /// # Ok::<(), streamgate_agent::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::is_refused`] when 4,096 such closures are held.
    ///
    /// [`Builder::memory_soft_limit`]: crate::Builder::memory_soft_limit
    pub fn on_memory_pressure(
        &self,
        tell: impl Fn(MemoryPressure) + Send + Sync + 'static,
    ) -> Result<MemoryPressureSubscription, Error> {
        let added = self.inner.shared.pressure.add(tell);
        added.ok_or_else(|| Error::refused("on_memory_pressure", "4096 closures are held"))
    }

    /// Measures a tokio runtime under this name.
    pub fn runtime(&self, name: &str, runtime: tokio::runtime::Handle) {
        self.inner.shared.runtimes.add(name, runtime);
    }

    /// A recorder that puts what libraries say through the `metrics` crate into the agent's core.
    ///
    /// ```
    /// use streamgate_agent::Agent;
    ///
    /// let agent = Agent::builder("shop").no_listener().start()?;
    /// metrics::set_global_recorder(agent.metrics_recorder()).unwrap();
    /// metrics::counter!("orders", "kind" => "gift").increment(1);
    /// # Ok::<(), streamgate_agent::Error>(())
    /// ```
    #[cfg(feature = "metrics")]
    pub fn metrics_recorder(&self) -> crate::MetricsRecorder {
        crate::MetricsRecorder::new(&self.inner.shared.store)
    }

    /// A meter provider that puts what libraries record through OpenTelemetry's API into the agent's core.
    ///
    /// ```
    /// use opentelemetry::{KeyValue, global};
    /// use streamgate_agent::Agent;
    ///
    /// let agent = Agent::builder("shop").no_listener().start()?;
    /// global::set_meter_provider(agent.meter_provider());
    /// let orders = global::meter("shop").u64_counter("shop.orders").build();
    /// orders.add(1, &[KeyValue::new("kind", "gift")]);
    /// # Ok::<(), streamgate_agent::Error>(())
    /// ```
    #[cfg(feature = "opentelemetry")]
    pub fn meter_provider(&self) -> crate::MeterProvider {
        crate::MeterProvider::new(&self.inner.shared.store)
    }

    /// Shows the families of a foreign registry on the agent's page.
    ///
    /// A family whose name the agent already uses is left out and counted in
    /// `agent_scrape_conflicts_total`.
    #[cfg(feature = "prometheus")]
    pub fn registry(&self, registry: prometheus::Registry) {
        self.inner.registries.add(registry);
    }

    /// The agent's numbers as a collector for a registry of the host's own.
    #[cfg(feature = "prometheus")]
    pub fn collector(&self) -> crate::CoreCollector {
        crate::CoreCollector::new(Arc::clone(&self.inner.shared.store))
    }

    /// Whether the service wants traffic: what `/readyz` answers. True at the start.
    pub fn ready(&self, ready: bool) {
        self.inner.shared.published.set_ready(ready);
    }

    /// The target table of this moment, over the last minute or since the service became ready.
    ///
    /// # Cost
    /// Adds up all cells on the calling thread: about 0.1 ms for a service of a thousand series.
    pub fn targets(&self) -> TargetTable {
        let shared = &self.inner.shared;
        shared.judge.judge(&shared.store.metrics, &shared.published)
    }

    /// Answers a request to the agent's endpoints, for hosts that mount them in their own server.
    ///
    /// The answer is made on the agent's own thread. Dropping the future withdraws the request.
    pub fn respond(&self, request: Request) -> Responding {
        let plane = Arc::clone(&self.inner.plane);
        let answer = serving::answer(plane, request);
        let task = self
            .inner
            .serving
            .as_ref()
            .map(|serving| serving.runtime.spawn(answer));
        Responding { task }
    }

    /// The endpoints as a service for the host's own server.
    #[cfg(feature = "http")]
    pub fn service(&self) -> crate::AgentService {
        let handle = self.clone();
        crate::AgentService::new(move |request| handle.respond(request))
    }

    /// Stops the agent: no new connections, open answers get the rest of the deadline.
    ///
    /// Works on every runtime, also a single-threaded one; calling it twice does no harm.
    ///
    /// # Errors
    /// When the operating system gives no thread to wait on; the agent stops all the same.
    pub async fn shutdown(&self, deadline: Duration) -> Result<Shutdown, Error> {
        let (done, waiting) = tokio::sync::oneshot::channel();
        let handle = self.clone();
        let waiter = std::thread::Builder::new()
            .name("sg-stop".to_owned())
            .spawn(move || {
                // Nobody listens any more if the host gave up waiting.
                drop(done.send(handle.shutdown_blocking(deadline)));
            });
        if let Err(source) = waiter {
            self.inner.ask_to_stop(deadline);
            return Err(Error::thread("sg-stop", source));
        }
        waiting
            .await
            .map_err(|_| Error::refused("shutdown", "the waiting thread ended early"))
    }

    /// [`shutdown`](Self::shutdown) for hosts without a runtime: waits on the calling thread.
    pub fn shutdown_blocking(&self, deadline: Duration) -> Shutdown {
        let started = Instant::now();
        self.inner.ask_to_stop(deadline);
        let left = deadline.saturating_sub(started.elapsed());
        Shutdown {
            still_running: self.inner.shared.stop.wait(left),
            flushed: self.inner.pushing.flushed(),
        }
    }
}

/// Why the host refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShedReason {
    /// The queue in front of a part was full.
    Queue,
    /// A pool had nothing left.
    Pool,
    /// The client asked too often.
    Rate,
    /// The service is stopping.
    Drain,
}

impl ShedReason {
    fn word(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Pool => "pool",
            Self::Rate => "rate",
            Self::Drain => "drain",
        }
    }
}

/// An answer under way on the agent's thread; dropping it withdraws the request.
#[derive(Debug)]
pub struct Responding {
    task: Option<tokio::task::JoinHandle<Reply>>,
}

impl Future for Responding {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let Some(task) = self.task.as_mut() else {
            return Poll::Ready(Reply::stopped());
        };
        Pin::new(task)
            .poll(context)
            .map(|answer| answer.unwrap_or_else(|_| Reply::stopped()))
    }
}

impl Drop for Responding {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
