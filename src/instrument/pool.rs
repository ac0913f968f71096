//! Connection pools: how long callers wait, how long they hold, and what the pool holds.

use std::sync::Arc;
use std::time::Instant;

use super::awaits::{self, OpenAwait};
use crate::catalog::families as rows;
use crate::error::Error;
use crate::store::Store;
use crate::store::awaits::Frame;
use crate::store::metrics::{Counter, Gauge, Held, Histogram, UpDown};

/// What a pool holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::exhaustive_structs, reason = "hosts write it as a literal")]
pub struct PoolState {
    /// Connections that nobody uses.
    pub idle: u32,
    /// Connections lent out.
    pub used: u32,
    /// Connections that the pool may open.
    pub max: u32,
    /// Idle connections that the pool may keep, if it has such a bound.
    pub idle_max: Option<u32>,
    /// Idle connections that the pool keeps at least, if it has such a bound.
    pub idle_min: Option<u32>,
}

/// A connection pool of the host. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<Store>,
    name: Box<str>,
    pending: UpDown,
    wait: Histogram,
    used: Histogram,
    created: Histogram,
    timeouts: Counter,
    frame: Frame,
}

impl Pool {
    pub(crate) fn new(store: &Arc<Store>, name: &str) -> Self {
        let metrics = &store.metrics;
        let label = [name];
        Self {
            inner: Arc::new(Inner {
                pending: metrics.own_up_down(&rows::DB_CLIENT_CONNECTION_PENDING_REQUESTS, &label),
                wait: metrics.own_histogram(&rows::DB_CLIENT_CONNECTION_WAIT_TIME, &label),
                used: metrics.own_histogram(&rows::DB_CLIENT_CONNECTION_USE_TIME, &label),
                created: metrics.own_histogram(&rows::DB_CLIENT_CONNECTION_CREATE_TIME, &label),
                timeouts: metrics.own_counter(&rows::DB_CLIENT_CONNECTION_TIMEOUTS, &label),
                frame: store.awaits.frame(&format!("pool acquire {name}")),
                store: Arc::clone(store),
                name: name.into(),
            }),
        }
    }

    /// Has the pool's state read about once a second on the agent's thread.
    ///
    /// # Errors
    /// Refused when the host has already given the agent 4,096 such closures.
    pub fn observe(
        &self,
        read: impl Fn() -> PoolState + Send + Sync + 'static,
    ) -> Result<(), Error> {
        let metrics = &self.inner.store.metrics;
        let name = &*self.inner.name;
        let count = |state| metrics.own_gauge(&rows::DB_CLIENT_CONNECTION_COUNT, &[name, state]);
        let (idle, used) = (count("idle"), count("used"));
        let max = metrics.own_gauge(&rows::DB_CLIENT_CONNECTION_MAX, &[name]);
        let idle_max = metrics.own_gauge(&rows::DB_CLIENT_CONNECTION_IDLE_MAX, &[name]);
        let idle_min = metrics.own_gauge(&rows::DB_CLIENT_CONNECTION_IDLE_MIN, &[name]);
        let held = self.inner.store.callbacks.add(move || {
            let state = read();
            idle.set(f64::from(state.idle));
            used.set(f64::from(state.used));
            max.set(f64::from(state.max));
            set_or_clear(&idle_max, state.idle_max);
            set_or_clear(&idle_min, state.idle_min);
        });
        if held {
            Ok(())
        } else {
            Err(Error::refused("pool.observe", "4096 closures are held"))
        }
    }

    /// A caller begins to wait for a connection.
    #[must_use]
    pub fn wait(&self) -> PoolWait {
        PoolWait {
            pool: self.clone(),
            started: Instant::now(),
            _pending: self.inner.pending.hold(),
            _open: awaits::open(&self.inner.store, self.inner.frame),
        }
    }

    /// A connection was opened, which took this long.
    pub fn created(&self, took: std::time::Duration) {
        self.inner.created.record(took);
    }
}

fn set_or_clear(gauge: &Gauge, value: Option<u32>) {
    gauge.set(value.map_or(f64::NAN, f64::from));
}

/// A caller that waits for a connection; dropped, it has gone away and nothing is recorded.
#[derive(Debug)]
pub struct PoolWait {
    pool: Pool,
    started: Instant,
    _pending: Held,
    _open: Option<OpenAwait>,
}

impl PoolWait {
    /// The connection is there: records the wait and starts the clock of its use.
    pub fn acquired(self) -> PoolUse {
        let now = Instant::now();
        self.pool
            .inner
            .wait
            .record(now.duration_since(self.started));
        PoolUse {
            pool: self.pool,
            started: now,
        }
    }

    /// The caller gave up.
    pub fn timed_out(self) {
        self.pool.inner.wait.record(self.started.elapsed());
        self.pool.inner.timeouts.inc();
    }
}

/// A connection in use; its drop records for how long.
#[derive(Debug)]
pub struct PoolUse {
    pool: Pool,
    started: Instant,
}

impl Drop for PoolUse {
    fn drop(&mut self) {
        self.pool.inner.used.record(self.started.elapsed());
    }
}
