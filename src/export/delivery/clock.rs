//! Time as delivery knows it, so that tests can make it pass.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Condvar, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::State;
use crate::store::metrics::unix_nanos_now;

pub(super) trait Clock: Send + Sync {
    /// Since a moment that does not move.
    fn now(&self) -> Duration;

    /// Wall time, which outlives the process and may step.
    fn unix_nanos(&self) -> u64;

    /// Anything between nothing and `most`, so that agents do not come back in step after an outage.
    fn jitter(&self, most: Duration) -> Duration;

    /// Waits for news, at most for `most`.
    fn wait<'a>(
        &self,
        changed: &Condvar,
        state: MutexGuard<'a, State>,
        most: Duration,
    ) -> MutexGuard<'a, State>;
}

/// The machine's clocks.
pub(super) struct MachineClock {
    started: Instant,
}

impl MachineClock {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn unix_nanos(&self) -> u64 {
        unix_nanos_now()
    }

    fn jitter(&self, most: Duration) -> Duration {
        // Its keys are random, and so is what they make of nothing.
        let random = RandomState::new().build_hasher().finish();
        most.mul_f64(random as f64 / u64::MAX as f64)
    }

    fn wait<'a>(
        &self,
        changed: &Condvar,
        state: MutexGuard<'a, State>,
        most: Duration,
    ) -> MutexGuard<'a, State> {
        let waited = changed.wait_timeout(state, most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
