//! Traces: the records of requests that are open, and those that are kept until they are sent.
//!
//! A request writes into a record of its own. At its end it is decided whether its spans are kept: then the
//! record waits in a ring, else its memory goes to the next request. Only what is kept is ever made into spans,
//! on the agent's thread. Rings are sharded, so that requests seldom meet, and bounded in records and in
//! bytes; what finds no place is dropped and counted.

pub(crate) mod context;
mod ids;
pub(crate) mod keep;
mod logs;
mod open;
mod ring;
mod sites;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::catalog::families;
use crate::config::traces::Sampling;
use crate::store::metrics::{Counter, Metrics};

pub(crate) use ids::span_id;
pub(crate) use logs::{LogRecord, Logs, Severity};
pub(crate) use open::{Added, Child, HostSpan, Incoming, OpenTrace, Root, Spans, Work, cut};
use ring::Ring;
pub(crate) use sites::{Site, SiteNames, Sites};

/// All that is traced by one agent.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    pub(crate) sites: Sites,
    ring: Ring,
    /// Not set: nothing is traced.
    on: OnceLock<Tracing>,
    /// Not set: nobody wants any.
    logs: OnceLock<Logs>,
}

#[derive(Debug)]
struct Tracing {
    sampling: Sampling,
    ring_full: Counter,
    children: Counter,
    late: Counter,
}

impl Traces {
    /// Begins to trace; only the first call counts.
    pub(crate) fn start(&self, sampling: Sampling, has_logs: bool, metrics: &Metrics) {
        let dropped = |reason| metrics.own_counter(&families::AGENT_DROPPED, &["spans", reason]);
        self.on.get_or_init(|| Tracing {
            sampling,
            ring_full: dropped("ring_full"),
            children: dropped("children"),
            late: dropped("late"),
        });
        if has_logs {
            self.keep_logs(metrics);
        }
    }

    /// Begins to keep log records; where nothing is traced, each goes by itself.
    pub(crate) fn keep_logs(&self, metrics: &Metrics) {
        self.logs.get_or_init(|| Logs::new(metrics));
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.get().is_some()
    }

    /// A record for a request; `None` where nothing is traced.
    ///
    /// # Cost
    /// One lock that is seldom contended; memory only where more requests are open than ever before.
    pub(crate) fn begin(&self, began: Instant, incoming: Incoming<'_>) -> Option<Arc<OpenTrace>> {
        let tracing = self.on.get()?;
        let mut trace = self.ring.free();
        if Arc::get_mut(&mut trace).is_none() {
            // Work that the last request left behind still writes there.
            trace = Arc::default();
        }
        if let Some(own) = Arc::get_mut(&mut trace) {
            own.begin(began, incoming, &tracing.sampling);
        }
        Some(trace)
    }

    /// A request has ended: says whether its spans are kept.
    ///
    /// `root` is called only for those that are.
    pub(crate) fn end(
        &self,
        trace: Arc<OpenTrace>,
        error: &str,
        elapsed: Duration,
        root: impl FnOnce(keep::Keep) -> Root,
    ) -> bool {
        let Some(tracing) = self.on.get() else {
            return false;
        };
        let Some(keep) = keep::at_end(&tracing.sampling, trace.start, error, elapsed) else {
            self.ring.give_back(trace);
            return false;
        };
        trace.end(root(keep));
        let spans = self.ring.keep(trace);
        if let Err(spans) = spans {
            tracing.ring_full.add(spans);
        }
        spans.is_ok()
    }

    /// Writes a piece of a request's work down.
    pub(crate) fn add(&self, trace: &OpenTrace, child: Child) {
        let added = trace.add(child);
        if let (Added::Late, Some(tracing)) = (added, self.on.get()) {
            tracing.late.inc();
        }
    }

    /// Takes all records that are kept, oldest first within each shard, and has them read one by one.
    pub(crate) fn drain(&self, mut each: impl FnMut(&OpenTrace, &Spans)) {
        let Some(tracing) = self.on.get() else {
            return;
        };
        self.ring.drain(|trace, spans| {
            tracing.children.add(u64::from(spans.beyond));
            if let Some(logs) = self.logs() {
                logs.count_beyond(spans.logs_beyond);
            }
            each(trace, spans);
        });
    }

    /// Log records that go by themselves; `None` where nobody wants any.
    pub(crate) fn logs(&self) -> Option<&Logs> {
        self.logs.get()
    }

    /// Waits until a ring is half full, at most so long.
    pub(crate) fn wait(&self, longest: Duration) {
        self.ring.wait(longest);
    }

    /// Ends a wait.
    pub(crate) fn wake(&self) {
        self.ring.wake();
    }

    /// Bytes of records that are kept.
    #[cfg(test)]
    pub(crate) fn kept_bytes(&self) -> usize {
        self.ring.bytes()
    }
}

#[cfg(test)]
pub(crate) mod tests;
