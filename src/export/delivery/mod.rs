//! Spans, logs and profiles on their way to a collector that may be away.
//!
//! Whoever makes messages hands them to a [`Producer`] and goes on at once. One thread per agent
//! sends them, oldest first, tries again by the rules of OTLP, and counts what becomes of every item.
//! With a spool it first writes to disk what waits. No lock is held while a message is sent, written or
//! read.

mod books;
mod clock;
mod queue;
mod record;
mod signal;
mod spool;
mod spooling;
mod transport;

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::flushed::Flushed;
use super::push::post::Outcome;
use crate::catalog::families;
use crate::config::otlp::Otlp;
use crate::config::otlp::delivery::{BACKOFF_FIRST, BACKOFF_LAST, Limits, SPOOL_RETRY};
use crate::store::Store;
use crate::store::metrics::Histogram;
use crate::store::sync::lock;

use books::{Books, Counts, Reason};
use clock::{Clock, MachineClock};
use queue::{Held, Oldest, Queue, Stamp};
pub(crate) use signal::PushSignal;
use spooling::Spooling;
use transport::{Posts, Transport};

/// How long to wait for news where nothing is due.
const IDLE: Duration = Duration::from_secs(60);

pub(crate) struct Delivery {
    state: Mutex<State>,
    /// There is something to send, or nothing more will come.
    changed: Condvar,
    /// Taken by the sending thread only.
    spooling: Mutex<Option<Spooling>>,
    clock: Box<dyn Clock>,
    transport: Box<dyn Transport>,
    age: Duration,
}

struct State {
    lanes: [Lane; 3],
    /// Something was handed over since the last turn began.
    news: bool,
    producers: usize,
    closing: Option<Closing>,
}

/// One signal.
struct Lane {
    queue: Queue,
    /// When its oldest message may be sent.
    due: Duration,
    /// When a disk that could not be read is tried again.
    disk_due: Duration,
    /// Attempts in vain since the last that was not.
    failures: u32,
    took: Histogram,
}

impl Lane {
    /// When there is something to send; `None` while nothing waits.
    fn next_due(&self) -> Option<Duration> {
        if self.queue.has_memory() {
            return Some(self.due);
        }
        (!self.queue.is_empty()).then(|| self.due.max(self.disk_due))
    }
}

#[derive(Clone, Copy)]
struct Closing {
    until: Duration,
    /// What the books said before.
    before: [Counts; 3],
}

impl State {
    fn lane(&mut self, signal: PushSignal) -> &mut Lane {
        let [spans, logs, profiles] = &mut self.lanes;
        match signal {
            PushSignal::Spans => spans,
            PushSignal::Logs => logs,
            PushSignal::Profiles => profiles,
        }
    }

    fn is_empty(&self) -> bool {
        self.lanes.iter().all(|lane| lane.queue.is_empty())
    }
}

/// Hands over the messages of one signal. An agent that stops waits, within its deadline, until all
/// producers are dropped.
pub(crate) struct Producer {
    delivery: Arc<Delivery>,
    signal: PushSignal,
}

impl Producer {
    /// Hands over an encoded message with its number of items (spans, log records, profiles). It takes one
    /// short lock and copies nothing; what has no room is dropped and counted.
    pub(crate) fn enqueue(&self, body: Vec<u8>, items: u64) {
        let delivery = &self.delivery;
        let held = Held {
            stamp: Stamp {
                items,
                created_unix_nanos: delivery.clock.unix_nanos(),
                expires: delivery.clock.now() + delivery.age,
            },
            body: Arc::new(body),
        };
        let mut state = lock(&delivery.state);
        state.lane(self.signal).queue.push(held);
        state.news = true;
        drop(state);
        delivery.changed.notify_all();
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        lock(&self.delivery.state).producers -= 1;
        self.delivery.changed.notify_all();
    }
}

impl Delivery {
    pub(crate) fn new(store: &Arc<Store>, otlp: &Otlp) -> Arc<Self> {
        let clock = Box::new(MachineClock::new());
        Self::with(store, &otlp.delivery, clock, Box::new(Posts::new(otlp)))
    }

    fn with(
        store: &Arc<Store>,
        limits: &Limits,
        clock: Box<dyn Clock>,
        transport: Box<dyn Transport>,
    ) -> Arc<Self> {
        let row = &families::OTEL_EXPORTER_OPERATION_DURATION;
        let lanes = PushSignal::ALL.map(|signal| Lane {
            queue: Queue::new(limits.queue_bytes, Books::new(store, signal)),
            due: Duration::ZERO,
            disk_due: Duration::ZERO,
            failures: 0,
            took: store.metrics.own_histogram(row, &[signal.exporter()]),
        });
        Arc::new(Self {
            state: Mutex::new(State {
                lanes,
                news: false,
                producers: 0,
                closing: None,
            }),
            changed: Condvar::new(),
            spooling: Mutex::new(Spooling::new(store, limits)),
            clock,
            transport,
            age: limits.queue_age,
        })
    }

    /// `None` where there is nowhere to send this signal.
    pub(crate) fn producer(self: &Arc<Self>, signal: PushSignal) -> Option<Producer> {
        if !self.transport.takes(signal) {
            return None;
        }
        lock(&self.state).producers += 1;
        Some(Producer {
            delivery: Arc::clone(self),
            signal,
        })
    }

    /// Sends until [`close`](Self::close), then what is left until its deadline. After a panic it may be
    /// called again.
    pub(crate) fn run(&self) {
        loop {
            let wait = self.turn();
            let mut state = lock(&self.state);
            if !state.news && state.closing.is_none() {
                state = self.clock.wait(&self.changed, state, wait);
            }
            if state.closing.is_some() {
                break;
            }
        }
        self.flush();
    }

    /// Asks the sending thread to end within so long. Asked again, the earlier end holds.
    pub(crate) fn close(&self, within: Duration) {
        let until = self.clock.now().saturating_add(within);
        let mut state = lock(&self.state);
        let before = state.lanes.each_ref().map(|lane| lane.queue.counts());
        let closing = state.closing.get_or_insert(Closing { until, before });
        closing.until = closing.until.min(until);
        drop(state);
        self.changed.notify_all();
    }

    /// Gives up what the sending thread left, and says what became of each signal since
    /// [`close`](Self::close). Signals that never had an item are left out.
    pub(crate) fn flushed(&self) -> Vec<Flushed> {
        self.give_up();
        let state = lock(&self.state);
        let before = state
            .closing
            .map(|closing| closing.before)
            .unwrap_or_default();
        let lanes = state.lanes.iter().zip(before).zip(PushSignal::ALL);
        let flushed = lanes.filter_map(|((lane, before), signal)| {
            let now = lane.queue.counts();
            (now.created > 0).then(|| Flushed {
                signal: signal.word(),
                delivered: now.delivered - before.delivered,
                kept: now.queued,
                lost: now.lost() - before.lost(),
            })
        });
        flushed.collect()
    }

    /// Makes at most one attempt, and returns how long until the next is due.
    fn turn(&self) -> Duration {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        state.news = false;
        let mut gone = Vec::new();
        for lane in &mut state.lanes {
            // What a turn that panicked was sending or writing waits again.
            lane.queue.unpin();
            gone.extend(lane.queue.expire(now));
        }
        drop(state);
        self.spool(now, &gone);
        let mut state = lock(&self.state);
        let left = state
            .closing
            .map(|closing| closing.until.saturating_sub(now));
        let lanes = state.lanes.iter().zip(PushSignal::ALL);
        let next = lanes.filter_map(|(lane, signal)| Some((signal, lane.next_due()?)));
        // Who has waited for longest, so that a signal whose collector is silent does not keep the others.
        let Some((signal, due)) = next.min_by_key(|(_, due)| *due) else {
            return IDLE;
        };
        if due > now {
            return due - now;
        }
        if left.is_some_and(|left| left.is_zero()) {
            return IDLE;
        }
        let lane = state.lane(signal);
        let Some(oldest) = lane.queue.oldest(lane.disk_due <= now) else {
            return IDLE;
        };
        drop(state);
        self.attempt(signal, &oldest, left.unwrap_or(Duration::MAX));
        Duration::ZERO
    }

    fn attempt(&self, signal: PushSignal, oldest: &Oldest, most: Duration) {
        let read;
        let body = match oldest {
            Oldest::InMemory(held) => &*held.body,
            Oldest::OnDisk(spooled) => match self.read(spooled) {
                Ok(body) => {
                    read = body;
                    &read
                }
                Err(again) => return self.unreadable(signal, oldest, again),
            },
        };
        let started = self.clock.now();
        let outcome = self.transport.send(signal, body, most);
        let now = self.clock.now();
        if !matches!(outcome, Outcome::Later { .. })
            && let Oldest::OnDisk(spooled) = oldest
        {
            // Before the books: a kill in between would have it sent twice.
            self.remove(spooled.file);
        }
        let mut state = lock(&self.state);
        let lane = state.lane(signal);
        lane.took.record(now.saturating_sub(started));
        match outcome {
            Outcome::Later { after, .. } => {
                lane.queue.unpin();
                let most = BACKOFF_FIRST.saturating_mul(1 << lane.failures.min(8));
                let backoff = || self.clock.jitter(most.min(BACKOFF_LAST));
                // A collector that says "at once" would have us knock without a pause.
                let after = after.filter(|after| !after.is_zero());
                lane.due = now + after.map_or_else(backoff, |after| after.min(BACKOFF_LAST));
                lane.failures = lane.failures.saturating_add(1);
                return;
            }
            Outcome::Accepted { rejected } => {
                let say = |books: &mut Books, items| books.delivered(items, rejected);
                lane.queue.end(oldest, say);
            }
            Outcome::Refused { why } => {
                let say = |books: &mut Books, items| books.dropped_as(items, Reason::Refused, &why);
                lane.queue.end(oldest, say);
            }
        }
        lane.due = now;
        lane.failures = 0;
    }

    /// A message on disk could not be read: it is given up, or left there if the disk may come back.
    fn unreadable(&self, signal: PushSignal, oldest: &Oldest, again: bool) {
        let mut state = lock(&self.state);
        let lane = state.lane(signal);
        if again {
            lane.disk_due = self.clock.now() + SPOOL_RETRY;
            return;
        }
        let say = |books: &mut Books, items| books.dropped(items, Reason::Unreadable);
        lane.queue.end(oldest, say);
        drop(state);
        if let Oldest::OnDisk(spooled) = oldest {
            self.remove(spooled.file);
        }
    }

    fn flush(&self) {
        for lane in &mut lock(&self.state).lanes {
            // Whatever it waits for, this is the last chance.
            lane.due = Duration::ZERO;
        }
        loop {
            let wait = self.turn();
            let state = lock(&self.state);
            let until = state.closing.map(|closing| closing.until);
            let left = until.unwrap_or_default().saturating_sub(self.clock.now());
            let ended = state.producers == 0 && (state.is_empty() || wait >= left);
            if left.is_zero() || ended {
                break;
            }
            if !state.news {
                drop(self.clock.wait(&self.changed, state, wait.min(left)));
            }
        }
        self.give_up();
    }

    /// All locks that the sending thread takes.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        (lock(&self.spooling), lock(&self.state))
    }

    fn give_up(&self) {
        for lane in &mut lock(&self.state).lanes {
            lane.queue.close();
        }
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod spool_tests;
#[cfg(test)]
mod tests;
