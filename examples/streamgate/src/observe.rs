//! Every handle of the agent, resolved once at start.
//!
//! The rest of the service names no metric: it takes a handle from here and calls it. Guide 8.1.

use sqlx::sqlite::SqlitePool;
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
static REFUSED: Metric = Metric::counter(
    "streamgate_connections_refused_total",
    "Connections closed unanswered because of the limit.",
);
static ACCEPT_FAILURES: Metric = Metric::counter(
    "streamgate_accept_failures_total",
    "Connections the operating system did not hand over.",
);

/// Handles by what they observe, and the switches of what can be broken.
#[derive(Clone, Debug)]
pub(crate) struct Observe {
    pub(crate) agent: AgentHandle,
    pub(crate) faults: Faults,
    pub(crate) content_cache: Cache,
    pub(crate) page_cache: Cache,
    pub(crate) user_cache: Cache,
    pub(crate) writer: Pool,
    pub(crate) readers: Pool,
    pub(crate) batch_rows: Histogram,
    pub(crate) bytes_raw: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) processing: Gauge,
    pub(crate) pending: Gauge,
    pub(crate) oldest: Gauge,
    pub(crate) refused: Counter,
    pub(crate) accept_failures: Counter,
}

impl Observe {
    /// Resolves all handles.
    ///
    /// # Errors
    /// A family of the service collides with one that the agent or the host registered otherwise.
    pub(crate) fn new(agent: AgentHandle) -> Result<Self, Error> {
        Ok(Self {
            faults: Faults::new(&agent)?,
            content_cache: agent.cache("content", Tier::L1),
            page_cache: agent.cache("pages", Tier::L1),
            user_cache: agent.cache("users", Tier::L1),
            writer: agent.pool("writer"),
            readers: agent.pool("readers"),
            batch_rows: agent.histogram(&BATCH_ROWS, &[])?,
            bytes_raw: agent.counter(&RESPONSE_BYTES, &["raw"])?,
            bytes_sent: agent.counter(&RESPONSE_BYTES, &["sent"])?,
            processing: agent.gauge(&PROCESSING, &[])?,
            pending: agent.gauge(&PENDING, &[])?,
            oldest: agent.gauge(&OLDEST, &[])?,
            refused: agent.counter(&REFUSED, &[])?,
            accept_failures: agent.counter(&ACCEPT_FAILURES, &[])?,
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

    /// Lets the agent look at a pool once a second.
    ///
    /// # Errors
    /// The agent looks at too many things already.
    pub(crate) fn watch_pool(
        &self,
        handle: &Pool,
        pool: SqlitePool,
        size: u32,
    ) -> Result<(), Error> {
        handle.observe(move || {
            let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
            PoolState {
                idle,
                used: pool.size().saturating_sub(idle),
                max: size,
                // The driver knows no limit of idle connections, and keeps all of them.
                idle_max: None,
                idle_min: Some(size),
            }
        })
    }
}
