//! The connection to Redis: one deadline for whatever is asked, a breaker, a new connection after a failure.
//!
//! Guide 2.1, level L2. Metrics: `streamgate_l2_failures_total{operation}`, `streamgate_l2_breaker_open`. Breaking
//! tests: `a_stopped_redis_costs_nobody_an_answer`, `a_killed_redis_is_used_again_when_it_is_back`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError};
use streamgate_agent::{AgentHandle, Counter, Metric};
use tokio::sync::Mutex;

use super::breaker::Breaker;

static FAILURES: Metric = Metric::counter(
    "streamgate_l2_failures_total",
    "Commands that Redis did not carry out in time.",
)
.labels(&["operation"]);
static OPEN: Metric = Metric::gauge(
    "streamgate_l2_breaker_open",
    "1 while Redis is asked once a second only, else 0.",
);

/// What Redis is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    Store,
    Lock,
    Bump,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the breaker is open")]
    Open,
    #[error("no answer in time")]
    TooSlow,
    #[error(transparent)]
    Refused(#[from] RedisError),
}

pub(super) struct Link {
    client: Client,
    /// For an answer, connecting included.
    deadline: Duration,
    connection: Mutex<Option<MultiplexedConnection>>,
    breaker: Arc<Breaker>,
    failures: [Counter; 4],
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// # Errors
    /// The agent looks at too many things already, or a family collides with one of the host.
    pub(super) fn new(
        client: Client,
        deadline: Duration,
        agent: &AgentHandle,
    ) -> Result<Self, streamgate_agent::Error> {
        let breaker = Arc::new(Breaker::default());
        let (watched, open) = (Arc::clone(&breaker), agent.gauge(&OPEN, &[])?);
        agent.observe(move || open.set(f64::from(u8::from(watched.is_open()))))?;
        let counter = |operation| agent.counter(&FAILURES, &[operation]);
        Ok(Self {
            client,
            deadline,
            connection: Mutex::new(None),
            breaker,
            failures: [
                counter("read")?,
                counter("store")?,
                counter("lock")?,
                counter("bump")?,
            ],
        })
    }

    /// Runs one command, or fails at the deadline.
    pub(super) async fn run<T, F>(
        &self,
        operation: Operation,
        command: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        if !self.breaker.admits(Instant::now()) {
            return Err(Failure::Open);
        }
        let answer = tokio::time::timeout(self.deadline, async {
            let connection = self.connect().await?;
            command(connection).await
        });
        let failure = match answer.await {
            Ok(Ok(value)) => {
                self.breaker.succeeded();
                return Ok(value);
            }
            Ok(Err(error)) => Failure::Refused(error),
            Err(_) => Failure::TooSlow,
        };
        tracing::debug!(?operation, error = %failure, "Redis failed");
        if let Some(counter) = self.failures.get(operation as usize) {
            counter.inc();
        }
        if is_full(&failure) {
            // It answers, and reads go on.
            return Err(failure);
        }
        self.breaker.failed(Instant::now());
        // Who became a replica stays one on this connection; one without answers may be half open.
        // While it is locked, somebody is connecting already.
        if let Ok(mut connection) = self.connection.try_lock() {
            connection.take();
        }
        Err(failure)
    }

    /// A connection with its own deadlines, for whoever waits for messages.
    pub(super) async fn dedicated(&self, wait: Duration) -> Result<MultiplexedConnection, Failure> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(wait));
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        Ok(connection.await?)
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = &*held {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.deadline))
            .set_response_timeout(Some(self.deadline));
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let connection = connection.await?;
        *held = Some(connection.clone());
        Ok(connection)
    }
}

/// "OOM command not allowed when used memory > 'maxmemory'".
fn is_full(failure: &Failure) -> bool {
    match failure {
        Failure::Refused(error) => error.code() == Some("OOM") || error.to_string().contains("OOM"),
        Failure::Open | Failure::TooSlow => false,
    }
}
