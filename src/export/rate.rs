//! Lets so many through in a time, with a burst above it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::store::sync::lock;

/// A generic cell rate: `due` is when those so far would have come at the even rate.
#[derive(Debug)]
pub(crate) struct Rate {
    /// From one to the next at the even rate.
    step: Duration,
    burst: u32,
    due: Mutex<Option<Instant>>,
}

impl Rate {
    pub(crate) fn new(step: Duration, burst: u32) -> Self {
        Self {
            step,
            burst,
            due: Mutex::default(),
        }
    }

    /// Takes a place, or says how long until there is one.
    pub(crate) fn take(&self, now: Instant) -> Result<(), Duration> {
        let mut due = lock(&self.due);
        let at = due.map_or(now, |due| due.max(now));
        let ahead = at.duration_since(now);
        let allowed = self.step * self.burst.saturating_sub(1);
        if ahead > allowed {
            return Err(ahead.saturating_sub(allowed));
        }
        *due = Some(at + self.step);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_each_step() {
        let rate = Rate::new(Duration::from_secs(10), 2);
        let start = Instant::now();
        let at = |seconds| rate.take(start + Duration::from_secs(seconds));
        assert_eq!([at(0), at(0)], [Ok(()), Ok(())]);
        assert_eq!(at(3), Err(Duration::from_secs(7)));
        assert_eq!(at(10), Ok(()));
        assert_eq!(at(11), Err(Duration::from_secs(9)));
        assert_eq!([at(60), at(60)], [Ok(()), Ok(())], "the burst comes back");
        assert!(at(60).is_err());
    }
}
