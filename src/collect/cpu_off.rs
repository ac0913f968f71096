//! Stands where the CPU profiler would be in a build without it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::store::{Store, Unavailable};

/// Turns readers away.
#[derive(Debug)]
pub(crate) struct CpuCollector {
    store: Arc<Store>,
}

/// Between two looks at the wishes.
const IDLE_TURN: Duration = Duration::from_millis(100);

impl CpuCollector {
    pub(crate) fn new(store: Arc<Store>, _config: &Config) -> Self {
        Self { store }
    }

    /// Turns away whoever waits and says how long to wait for the next turn, at most.
    pub(crate) fn turn(&mut self, now: Instant) -> Duration {
        self.store.refresh.expire(now);
        self.refuse(
            "CPU profiles are not built in: enable the feature `profiling` of streamgate-agent",
        );
        IDLE_TURN
    }

    /// Turns away whoever waits.
    pub(crate) fn turn_away(&mut self) {
        self.refuse("the agent is stopping");
    }

    /// The same: there is nothing to stop.
    pub(crate) fn stop(&mut self) {
        self.turn_away();
    }

    fn refuse(&self, why: &str) {
        for (id, _) in self.store.cpu.open() {
            self.store
                .cpu
                .answer(id, Err(Unavailable(why.to_owned()).into()));
        }
    }
}

/// Nothing is sampled.
pub(crate) fn signals() -> Option<[u64; 3]> {
    None
}

/// Nothing is sampled.
pub(crate) fn thread_started() {}
