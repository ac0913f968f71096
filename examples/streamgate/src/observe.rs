//! Every handle of the agent, resolved once at start.
//!
//! The rest of the service names no metric: it takes a handle from here and calls it. Guide 8.1.

use streamgate_agent::{
    AgentHandle, Cache, Counter, Error, Gauge, Histogram, Metric, Pool, PoolState, Query,
    QueryLabels, ShedReason, Tier, Unit,
};

use crate::faults::Faults;

static BATCH_ROWS: Metric =
    Metric::rows_histogram("streamgate_batch_rows", "Rows per batch that was written.");
static RESPONSE_BYTES: Metric = Metric::counter(
    "streamgate_response_bytes_total",
    "Bytes of response bodies before and after compression.",
)
.labels(&["stage"])
.unit(Unit::Bytes);
static COMPRESSIONS_SAVED: Metric = Metric::counter(
    "streamgate_compressions_saved_total",
    "Answers that left in an encoding kept from an earlier one.",
);
static PROCESSING: Metric = Metric::gauge(
    "streamgate_content_processing",
    "Contents whose processing is not done.",
);
static PENDING: Metric = Metric::gauge(
    "streamgate_transactions_pending",
    "Transactions that the chain has not taken.",
);
static OLDEST: Metric = Metric::gauge(
    "streamgate_content_oldest_age_seconds",
    "Age of the oldest content; absent without contents.",
)
.unit(Unit::Seconds);
static INDEX_SCANS: Metric = Metric::observed_counter(
    "streamgate_index_scans_total",
    "Scans of an index since the server's statistics began; PostgreSQL only.",
)
.labels(&["index"]);
static REFUSED: Metric = Metric::counter(
    "streamgate_connections_refused_total",
    "Connections closed unanswered because of the limit.",
);
static ACCEPT_FAILURES: Metric = Metric::counter(
    "streamgate_accept_failures_total",
    "Connections the operating system did not hand over.",
);

static ARCHIVE_ROWS: Metric = Metric::counter(
    "streamgate_archive_rows_total",
    "Contents that came to a step on the way to cold storage, or back.",
)
.labels(&["step"]);
static ARCHIVE_BYTES: Metric = Metric::counter(
    "streamgate_archive_bytes_total",
    "Bytes of archived payloads before and after compression.",
)
.labels(&["stage"])
.unit(Unit::Bytes);
static ARCHIVE_OLDEST: Metric = Metric::gauge(
    "streamgate_archive_oldest_age_seconds",
    "Age of the oldest content that is not archived; absent without one.",
)
.unit(Unit::Seconds);

/// What the archiver counts.
#[derive(Clone, Debug)]
pub(crate) struct ArchiveHandles {
    pub(crate) leased: Counter,
    pub(crate) stored: Counter,
    pub(crate) verified: Counter,
    pub(crate) archived: Counter,
    /// Leased, and given back as they were.
    pub(crate) skipped: Counter,
    pub(crate) restored: Counter,
    pub(crate) bytes_raw: Counter,
    pub(crate) bytes_stored: Counter,
    pub(crate) oldest: Gauge,
}

impl ArchiveHandles {
    fn new(agent: &AgentHandle) -> Result<Self, Error> {
        let step = |step| agent.counter(&ARCHIVE_ROWS, &[step]);
        Ok(Self {
            leased: step("leased")?,
            stored: step("stored")?,
            verified: step("verified")?,
            archived: step("archived")?,
            skipped: step("skipped")?,
            restored: step("restored")?,
            bytes_raw: agent.counter(&ARCHIVE_BYTES, &["raw"])?,
            bytes_stored: agent.counter(&ARCHIVE_BYTES, &["stored"])?,
            oldest: agent.gauge(&ARCHIVE_OLDEST, &[])?,
        })
    }
}

/// Handles by what they observe, and the switches of what can be broken.
#[derive(Clone, Debug)]
pub(crate) struct Observe {
    pub(crate) agent: AgentHandle,
    pub(crate) faults: Faults,
    pub(crate) content_cache: Cache,
    pub(crate) page_cache: Cache,
    pub(crate) user_cache: Cache,
    pub(crate) batch_rows: Histogram,
    pub(crate) bytes_raw: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) compressions_saved: Counter,
    pub(crate) processing: Gauge,
    pub(crate) pending: Gauge,
    pub(crate) oldest: Gauge,
    pub(crate) archive: ArchiveHandles,
    pub(crate) listener: Listener,
}

/// What an accept loop counts.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) agent: AgentHandle,
    pub(crate) refused: Counter,
    pub(crate) accept_failures: Counter,
    /// `None` where nothing can be broken: at the edge.
    pub(crate) faults: Option<Faults>,
}

impl Listener {
    /// Resolves the handles.
    ///
    /// # Errors
    /// As [`Observe::new`].
    pub(crate) fn new(agent: AgentHandle, faults: Option<Faults>) -> Result<Self, Error> {
        Ok(Self {
            faults,
            refused: agent.counter(&REFUSED, &[])?,
            accept_failures: agent.counter(&ACCEPT_FAILURES, &[])?,
            agent,
        })
    }
}

impl Observe {
    /// Resolves all handles.
    ///
    /// # Errors
    /// A family of the service collides with one that the agent or the host registered otherwise.
    pub(crate) fn new(agent: AgentHandle) -> Result<Self, Error> {
        let faults = Faults::new(&agent)?;
        Ok(Self {
            listener: Listener::new(agent.clone(), Some(faults.clone()))?,
            faults,
            content_cache: agent.cache("content", Tier::L1),
            page_cache: agent.cache("pages", Tier::L1),
            user_cache: agent.cache("users", Tier::L1),
            batch_rows: agent.histogram(&BATCH_ROWS, &[])?,
            bytes_raw: agent.counter(&RESPONSE_BYTES, &["raw"])?,
            bytes_sent: agent.counter(&RESPONSE_BYTES, &["sent"])?,
            compressions_saved: agent.counter(&COMPRESSIONS_SAVED, &[])?,
            processing: agent.gauge(&PROCESSING, &[])?,
            pending: agent.gauge(&PENDING, &[])?,
            oldest: agent.gauge(&OLDEST, &[])?,
            archive: ArchiveHandles::new(&agent)?,
            agent,
        })
    }

    /// The handle that times one statement.
    pub(crate) fn query(&self, labels: QueryLabels) -> Query {
        self.agent.query(labels)
    }

    /// Counts a request that was refused without being worked on.
    pub(crate) fn shed(&self, reason: ShedReason) {
        self.agent.shed(reason);
    }

    /// Shows how often an index was scanned; one that the agent refuses stays unseen.
    pub(crate) fn index_scans(&self, index: &str, scans: f64) {
        if let Ok(total) = self.agent.observed_counter(&INDEX_SCANS, &[index]) {
            total.set(scans);
        }
    }

    /// A pool that the agent looks at once a second, with the bounds that the pool itself has.
    ///
    /// # Errors
    /// The agent looks at too many things already.
    pub(crate) fn watch_pool<D: sqlx::Database>(
        &self,
        name: &str,
        pool: sqlx::Pool<D>,
    ) -> Result<Pool, Error> {
        let handle = self.agent.pool(name);
        handle.observe(move || {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            PoolState {
                idle,
                used: pool.size().saturating_sub(idle),
                max: pool.options().get_max_connections(),
                // The driver knows no limit of idle connections: they end by their age.
                idle_max: None,
                idle_min: Some(pool.options().get_min_connections()),
            }
        })?;
        Ok(handle)
    }
}
