//! Stops asking what fails: open after five failures within a second, then one probe a second.
//!
//! Guide 2.1, level L2. Metric: `streamgate_l2_breaker_open`. Breaking test:
//! `five_failures_in_a_second_open_it_and_a_good_probe_closes_it`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const FAILURES: usize = 5;
const WINDOW: Duration = Duration::from_secs(1);
const PROBE: Duration = Duration::from_secs(1);

/// Whether to ask.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The latest failures, oldest first, while closed.
    failed: Vec<Instant>,
    /// When the next probe is due, while open.
    probe: Option<Instant>,
}

impl Breaker {
    /// Whether to ask now; an open breaker lets one through a second.
    pub(super) fn admits(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.probe {
            None => true,
            Some(due) if now >= due => {
                state.probe = Some(now + PROBE);
                true
            }
            Some(_) => false,
        }
    }

    /// Closes.
    pub(super) fn succeeded(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.probe = None;
        state.failed.clear();
    }

    pub(super) fn failed(&self, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.probe.is_some() {
            return;
        }
        state
            .failed
            .retain(|then| now.duration_since(*then) < WINDOW);
        state.failed.push(now);
        if state.failed.len() >= FAILURES {
            state.failed.clear();
            state.probe = Some(now + PROBE);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.probe.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_second_open_it_and_a_good_probe_closes_it() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        // Never five within one second.
        for n in 0..20 {
            breaker.failed(at(n * 251));
        }
        assert!(!breaker.is_open() && breaker.admits(at(5_000)));
        for n in 0..5 {
            breaker.failed(at(10_000 + n));
        }
        assert!(breaker.is_open());
        assert!(!breaker.admits(at(10_500)));
        assert!(breaker.admits(at(11_100)), "the probe");
        assert!(!breaker.admits(at(11_200)), "one a second");
        breaker.failed(at(11_150));
        assert!(breaker.admits(at(12_200)));
        breaker.succeeded();
        assert!(breaker.admits(at(12_201)) && breaker.admits(at(12_202)));
    }
}
