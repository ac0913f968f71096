//! Which stretches of CPU samples and which differences of the heap are due to be sent.
//!
//! A window counts as sent when it was taken. The flight recorder keeps 15 minutes and the heap's sums only
//! grow, so what a receiver does not take now is asked for again the next time and nothing is copied.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answered;
use crate::config;
use crate::export::difference::subtract;
use crate::store::demand::Hold;
use crate::store::heap::{
    ALLOC_OBJECTS, ALLOC_SPACE, HeapAnswer, HeapMoment, HeapProfileWish, HeapSeen, HeapWish,
    INUSE_SPACE, Recording,
};
use crate::store::profile::Profile;
use crate::store::{CpuAnswer, CpuSpan, CpuWish, Detail, NoProfile, Store};

/// The length of a window: as long as Pyroscope's and Parca's own clients gather.
pub(super) const WINDOW: Duration = Duration::from_secs(15);
/// After the end of a window, until its last bucket is surely closed.
pub(super) const CLOSING: Duration = Duration::from_secs(2);
/// How far back windows are made up for: a little less than the recorder reaches.
const REACH: Duration = Duration::from_secs(config::RECORDED_SECONDS).saturating_sub(WINDOW);

/// What became of a profile that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is out of our hands: taken, or refused for good.
    Done,
    /// Nobody has it; not before so long.
    Later(Duration),
}

/// CPU samples, window after window without a gap between them.
#[derive(Debug)]
pub(super) struct CpuWindows {
    store: Arc<Store>,
    /// Where the next one begins, in milliseconds since 1970.
    from: u64,
    /// When the agent ends, if it is asked to.
    ends: Option<Instant>,
    _asks: Hold<CpuWish, CpuAnswer>,
}

/// What one turn did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// As long as the receiver wants to be left alone.
    pub(super) wait: Duration,
    /// Windows that nobody took while the recorder held them.
    pub(super) lost: u64,
}

impl CpuWindows {
    /// Windows from this moment on.
    pub(super) fn new(store: &Arc<Store>, unix_millis: u64) -> Self {
        Self {
            store: Arc::clone(store),
            from: unix_millis,
            ends: None,
            _asks: store.cpu.hold(),
        }
    }

    /// From now on a window need not be over, and nobody is waited for beyond this moment.
    pub(super) fn end(&mut self, until: Instant) {
        self.ends = Some(until);
    }

    /// Hands over each window that is over by now, the oldest first, until one is not taken.
    pub(super) fn turn(
        &mut self,
        unix_millis: u64,
        send: &mut dyn FnMut(&Profile) -> Sent,
    ) -> Turn {
        let mut turn = Turn::default();
        let window = millis(WINDOW);
        // After a step of the clock, as after a machine has slept, what lies behind is not made up for.
        let behind = unix_millis.saturating_sub(self.from);
        let too_old = behind.saturating_sub(millis(REACH)).div_ceil(window);
        self.from = (self.from + too_old * window).min(unix_millis);
        turn.lost += too_old;
        let end = match self.ends {
            Some(_) => unix_millis,
            None => unix_millis.saturating_sub(millis(CLOSING)),
        };
        while self.from + window <= end || (self.ends.is_some() && self.from < end) {
            let to = (self.from + window).min(end);
            match self.ask(self.from, to) {
                // An idle process has nothing to say, and neither has one that is not sampled.
                Some(Ok(profile)) if profile.samples.is_empty() => {}
                Some(Ok(profile)) => {
                    if let Sent::Later(wait) = send(&profile) {
                        turn.wait = wait;
                        return turn;
                    }
                }
                Some(Err(_)) => {}
                None => return turn,
            }
            self.from = to;
        }
        turn
    }

    /// Windows, the one that has only begun included, that nobody has yet.
    pub(super) fn left(&self, unix_millis: u64) -> u64 {
        unix_millis
            .saturating_sub(self.from)
            .div_ceil(millis(WINDOW))
    }

    /// `None`: nobody answered, now.
    fn ask(&self, from: u64, to: u64) -> Option<Result<Arc<Profile>, NoProfile>> {
        let wish = CpuWish {
            span: CpuSpan::Between { from, to },
            detail: Detail {
                traces: true,
                times: true,
            },
            names: true,
        };
        let until = patience(self.ends);
        let demand = self.store.cpu.ask(wish, until).ok()?;
        answered(demand, until)
    }
}

/// The heap: what is in use now, and what was allocated since the last that was taken.
#[derive(Debug)]
pub(super) struct HeapWindows {
    store: Arc<Store>,
    /// The last that was taken, with nothing in use, so that a difference leaves that whole.
    before: Option<Profile>,
    ends: Option<Instant>,
    _asks: Hold<HeapWish, HeapAnswer>,
}

impl HeapWindows {
    pub(super) fn new(store: &Arc<Store>) -> Self {
        Self {
            store: Arc::clone(store),
            before: None,
            ends: None,
            _asks: store.heap.wishes.hold(),
        }
    }

    /// From now on nobody is waited for beyond this moment.
    pub(super) fn end(&mut self, until: Instant) {
        self.ends = Some(until);
    }

    /// Hands over the heap of now, where it is recorded.
    pub(super) fn turn(&mut self, send: &mut dyn FnMut(&Profile) -> Sent) -> Duration {
        if self.store.heap.recording.get() != Some(&Recording::On) {
            return Duration::ZERO;
        }
        let Some(now) = self.ask() else {
            return Duration::ZERO;
        };
        let since = self.before.as_ref().and_then(|before| since(before, &now));
        match send(since.as_ref().unwrap_or(&now)) {
            Sent::Done => {
                self.before = Some(allocated(&now));
                Duration::ZERO
            }
            Sent::Later(wait) => wait,
        }
    }

    fn ask(&self) -> Option<Arc<Profile>> {
        let wish = HeapWish::Profile(HeapProfileWish {
            moment: HeapMoment::Now,
            column: INUSE_SPACE,
            ages: false,
            names: true,
        });
        let until = patience(self.ends);
        let demand = self.store.heap.wishes.ask(wish, until).ok()?;
        match answered(demand, until)? {
            Ok(HeapSeen::Profile(profile)) => Some(profile),
            Ok(_) | Err(_) => None,
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Until when an answer is waited for: at the end of the agent there is no other turn to ask again.
fn patience(ends: Option<Instant>) -> Instant {
    ends.unwrap_or_else(|| Instant::now() + config::SYMBOLISE)
}

/// The profile with what was allocated less what had been before.
fn since(before: &Profile, now: &Profile) -> Option<Profile> {
    let mut since = subtract(before, now)?;
    since.comments.clone_from(&now.comments);
    since.comments.push(format!(
        "alloc_objects and alloc_space: in the {:.1} s before; in use: at their end",
        since.duration.as_secs_f64()
    ));
    Some(since)
}

/// Only what was allocated.
fn allocated(profile: &Profile) -> Profile {
    let mut only = profile.clone();
    let in_use = |place: &usize| {
        let column = only.sample_types.get(*place);
        column.is_none_or(|column| ![ALLOC_OBJECTS, ALLOC_SPACE].contains(column))
    };
    let in_use: Vec<usize> = (0..only.sample_types.len()).filter(in_use).collect();
    for sample in &mut only.samples {
        for place in &in_use {
            if let Some(value) = sample.values.get_mut(*place) {
                *value = 0;
            }
        }
    }
    only
}

#[cfg(test)]
#[path = "window_tests.rs"]
pub(in crate::export) mod tests;
