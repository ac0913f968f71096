//! Tags whose write Redis has not heard of yet: what it holds under them is from before the write.
//!
//! Guide 2.3. Breaking test:
//! `a_write_while_redis_is_away_is_not_undone_when_it_is_back`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::cache::epoch::Tag;

/// Beyond so many, everything is pending: the list must not grow with an outage.
const MOST: usize = 10_000;

/// Tags by the number of the last write to them.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    writes: u64,
    /// Microseconds since 1970 of the oldest untold write.
    since: i64,
    tags: HashMap<Tag, u64>,
    /// The last write that found the list full. Until all is told, nothing may be read.
    all: Option<u64>,
}

/// Writes that are to be told.
#[derive(Debug)]
pub(super) struct Untold {
    pub(super) tags: Vec<Tag>,
    /// More were written than are listed: those who hear must forget everything.
    pub(super) all: bool,
    until: u64,
    /// Microseconds since 1970 of the oldest of them.
    pub(super) since: i64,
}

impl Pending {
    /// Before Redis is told of a write.
    pub(super) fn add(&self, tags: &[Tag], now_micros: i64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.tags.is_empty() {
            state.since = now_micros;
        }
        state.writes += 1;
        let write = state.writes;
        for tag in tags {
            if state.tags.len() < MOST || state.tags.contains_key(tag) {
                state.tags.insert(*tag, write);
            } else {
                state.all = Some(write);
            }
        }
    }

    /// Whether Redis must not be asked for what carries one of these tags.
    pub(super) fn holds(&self, tags: &[Tag]) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.all.is_some() || tags.iter().any(|tag| state.tags.contains_key(tag))
    }

    /// What is to be told; `None` when all is.
    pub(super) fn untold(&self) -> Option<Untold> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let untold = Untold {
            tags: state.tags.keys().copied().collect(),
            all: state.all.is_some(),
            until: state.writes,
            since: state.since,
        };
        (untold.all || !untold.tags.is_empty()).then_some(untold)
    }

    /// Redis has heard of these; writes that came meanwhile stay.
    pub(super) fn told(&self, untold: &Untold) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for tag in &untold.tags {
            if state
                .tags
                .get(tag)
                .is_some_and(|write| *write <= untold.until)
            {
                state.tags.remove(tag);
            }
        }
        if state.all.is_some_and(|write| write <= untold.until) {
            state.all = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn tag(n: u128) -> Tag {
        Tag::Content(Uuid::from_u128(n))
    }

    #[test]
    fn a_write_that_comes_while_redis_is_told_stays_untold() {
        let pending = Pending::default();
        pending.add(&[tag(1), tag(2)], 1);
        let untold = pending.untold().unwrap();
        pending.add(&[tag(1)], 2);
        pending.told(&untold);
        assert!(pending.holds(&[tag(1)]));
        assert!(!pending.holds(&[tag(2)]));
        let untold = pending.untold().unwrap();
        pending.told(&untold);
        assert!(pending.untold().is_none());
    }

    #[test]
    fn beyond_its_length_everything_is_pending_until_all_is_told() {
        let pending = Pending::default();
        for n in 0..=u128::try_from(MOST).unwrap() {
            pending.add(&[tag(n)], 1);
        }
        assert!(pending.holds(&[tag(u128::MAX)]));
        let untold = pending.untold().unwrap();
        assert!(untold.all && untold.tags.len() == MOST);
        pending.told(&untold);
        assert!(!pending.holds(&[tag(1)]));
    }
}
