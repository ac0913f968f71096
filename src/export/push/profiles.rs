//! Windows of CPU samples and the heap to whoever receives profiles, every 15 s.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::LONGEST_WAIT;
use super::post::Outcome;
use super::windows::{CLOSING, CpuWindows, HeapWindows, Sent, WINDOW};
use crate::catalog::families;
use crate::store::Store;
use crate::store::metrics::unix_nanos_now;
use crate::store::profile::Profile;

const SIGNAL: &str = "profiles";

/// Pushes windows of samples; what a receiver misses is pushed again while the recorder holds it.
pub(crate) struct ProfilesPush {
    store: Arc<Store>,
    cpu: CpuWindows,
    heap: HeapWindows,
    receiver: Box<dyn Receiver>,
    due: Instant,
    /// When the agent ends, if it is asked to.
    ends: Option<Instant>,
}

/// Somebody who takes profiles.
pub(super) trait Receiver: Send {
    /// Sends one, and waits for what becomes of it, at most for `most`.
    fn send(&self, profile: &Profile, most: Duration) -> Sent;
}

impl ProfilesPush {
    pub(super) fn new(store: &Arc<Store>, receiver: Box<dyn Receiver>) -> Self {
        Self {
            store: Arc::clone(store),
            cpu: CpuWindows::new(store, unix_nanos_now() / 1_000_000),
            heap: HeapWindows::new(store),
            receiver,
            due: Instant::now() + WINDOW + CLOSING,
            ends: None,
        }
    }

    /// Pushes if it is time, and returns how long until it is again.
    pub(crate) fn turn(&mut self) -> Duration {
        let now = Instant::now();
        if now >= self.due {
            let wait = self.push(unix_nanos_now() / 1_000_000);
            self.due = now + WINDOW.max(wait);
        }
        self.due.saturating_duration_since(Instant::now())
    }

    /// Pushes all that is left within so long, also the window that has only begun, and counts what is lost.
    pub(crate) fn last(&mut self, within: Duration) {
        let Some(until) = Instant::now().checked_add(within) else {
            return self.last(LONGEST_WAIT);
        };
        self.ends = Some(until);
        self.cpu.end(until);
        self.heap.end(until);
        let now = unix_nanos_now() / 1_000_000;
        self.push(now);
        count_lost(&self.store, "shutdown", self.cpu.left(now));
    }

    /// Pushes what is due at a moment, and returns how long the receiver wants to be left alone.
    pub(super) fn push(&mut self, unix_millis: u64) -> Duration {
        let (receiver, ends) = (&self.receiver, self.ends);
        let mut send = |profile: &Profile| {
            let left = |until: Instant| until.saturating_duration_since(Instant::now());
            receiver.send(profile, ends.map_or(Duration::MAX, left))
        };
        let turn = self.cpu.turn(unix_millis, &mut send);
        count_lost(&self.store, "age", turn.lost);
        if turn.wait.is_zero() {
            self.heap.turn(&mut send)
        } else {
            turn.wait
        }
    }
}

/// Counts what nobody will have, and says when a receiver last took something.
pub(super) fn settle(store: &Store, outcome: &Outcome) -> Sent {
    match outcome {
        Outcome::Accepted { .. } => {
            let gauge = store
                .metrics
                .own_gauge(&families::AGENT_LAST_SUCCESS, &[SIGNAL]);
            gauge.set(unix_nanos_now() as f64 / 1e9);
            Sent::Done
        }
        Outcome::Later { after, .. } => {
            let least = Duration::from_secs(1);
            Sent::Later(after.unwrap_or_default().clamp(least, LONGEST_WAIT))
        }
        Outcome::Refused { why } => {
            count_lost(store, why, 1);
            Sent::Done
        }
    }
}

/// Counts profiles that nobody will have.
pub(super) fn count_lost(store: &Store, reason: &str, profiles: u64) {
    if profiles > 0 {
        let row = &families::AGENT_DROPPED;
        store
            .metrics
            .own_counter(row, &[SIGNAL, reason])
            .add(profiles);
    }
}
