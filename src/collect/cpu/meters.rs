//! The sampler's numbers: samples expected, recorded and lost, coverage, rate, memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Drained;
use super::governor::Change;
use crate::catalog::families;
use crate::config::{SampleRate, sampling};
use crate::store::Store;
use crate::store::metrics::{Counter, Gauge, whole_nanos};
use crate::store::sync::lock;
use crate::store::windows::Dropped;

/// The numbers; absent if the catalogue's rows do not fit, which a test excludes.
#[derive(Debug)]
pub(super) struct Meters {
    expected: Counter,
    recorded: Counter,
    lost: Counter,
    /// By reason, from the first loss on.
    reasons: BTreeMap<&'static str, Counter>,
    truncated: Counter,
    coverage: Gauge,
    rate: Gauge,
    limit: Gauge,
    slowdowns: Counter,
    folded: Counter,
    crowded_out: Counter,
    memory: Gauge,
    hijacked: Gauge,
    dropped: Dropped,
    store: Arc<Store>,
    /// CPU time that has not yet given a whole sample.
    rest: Duration,
    window: Covered,
}

/// What coverage is worked out from.
#[derive(Debug, Default)]
struct Covered {
    length: Duration,
    cpu: Duration,
    sampled: Duration,
    expected: u64,
    /// CPU time is not known for a part.
    gap: bool,
}

impl Meters {
    pub(super) fn new(store: &Arc<Store>) -> Option<Self> {
        let metrics = &store.metrics;
        let cpu = |metric| metrics.counter(metric, &["cpu"]).ok();
        let gauge = |metric| metrics.gauge(metric, &["cpu"]).ok();
        let samples = |result| {
            metrics
                .counter(&families::AGENT_PROFILE_SAMPLES, &["cpu", result])
                .ok()
        };
        let dropped = |reason| {
            metrics
                .counter(&families::AGENT_DROPPED, &["cpu", reason])
                .ok()
        };
        Some(Self {
            expected: cpu(&families::AGENT_PROFILE_EXPECTED)?,
            recorded: samples("recorded")?,
            lost: samples("lost")?,
            reasons: BTreeMap::new(),
            truncated: cpu(&families::AGENT_PROFILE_TRUNCATED)?,
            coverage: gauge(&families::AGENT_PROFILE_COVERAGE)?,
            rate: gauge(&families::AGENT_PROFILE_RATE)?,
            limit: gauge(&families::AGENT_PROFILE_RATE_LIMIT)?,
            slowdowns: cpu(&families::AGENT_PROFILE_SLOWDOWNS)?,
            folded: dropped("stack_table_full")?,
            crowded_out: dropped("recorder_full")?,
            memory: metrics.gauge(&families::AGENT_MEMORY, &["profile"]).ok()?,
            hijacked: metrics.gauge(&families::AGENT_SIGNAL_HIJACKED, &[]).ok()?,
            dropped: lock(&store.samples.windows).dropped(),
            store: Arc::clone(store),
            rest: Duration::ZERO,
            window: Covered::default(),
        })
    }

    /// What one drain brought, and what the windows have had to drop since start.
    pub(super) fn drained(&mut self, taken: &Drained, dropped: Dropped) {
        self.recorded.add(taken.recorded);
        self.truncated.add(taken.truncated);
        for (reason, samples) in &taken.lost {
            self.lost.add(*samples);
            if !self.reasons.contains_key(reason) {
                let labels = ["cpu", *reason];
                let counter = self
                    .store
                    .metrics
                    .counter(&families::AGENT_PROFILE_LOST, &labels);
                self.reasons
                    .extend(counter.ok().map(|counter| (*reason, counter)));
            }
            if let Some(counter) = self.reasons.get(reason) {
                counter.add(*samples);
            }
        }
        self.folded.add(dropped.folded - self.dropped.folded);
        self.crowded_out.add(dropped.buckets - self.dropped.buckets);
        self.dropped = dropped;
    }

    /// A bucket that is over: its length, period, samples and the host's CPU time in it.
    pub(super) fn bucket(
        &mut self,
        length: Duration,
        period: Duration,
        recorded: u64,
        cpu: Option<Duration>,
    ) {
        let used = self.rest + cpu.unwrap_or_default();
        let expected = whole_nanos(used) / whole_nanos(period).max(1);
        self.rest = used.saturating_sub(times(period, expected));
        self.expected.add(expected);
        let window = &mut self.window;
        window.length += length;
        window.cpu += cpu.unwrap_or_default();
        window.gap |= cpu.is_none();
        window.sampled += times(period, recorded);
        window.expected += expected;
        if window.length < sampling::COVERAGE_WINDOW {
            return;
        }
        let Covered {
            cpu,
            sampled,
            expected,
            gap,
            ..
        } = std::mem::take(window);
        if gap || expected < sampling::COVERAGE_SAMPLES {
            self.coverage.clear();
        } else {
            self.coverage.set(sampled.as_secs_f64() / cpu.as_secs_f64());
        }
    }

    /// The rate at which samples are taken; `None`: none are.
    pub(super) fn rate(&self, rate: Option<SampleRate>) {
        match rate {
            Some(rate) => self.rate.set(rate.hz().into()),
            None => {
                self.rate.clear();
                self.coverage.clear();
            }
        }
    }

    /// What the governor did and allows.
    pub(super) fn governed(&self, change: Change, ceiling: Option<SampleRate>) {
        self.slowdowns.add(u64::from(change == Change::Lowered));
        match ceiling {
            Some(ceiling) => self.limit.set(ceiling.hz().into()),
            None => self.limit.clear(),
        }
    }

    pub(super) fn hijacked(&self, yes: bool) {
        self.hijacked.set(f64::from(u8::from(yes)));
    }

    pub(super) fn memory(&self, bytes: usize) {
        // Bounded by limits far below the whole numbers that a float holds.
        self.memory
            .set(u32::try_from(bytes).map_or(f64::NAN, f64::from));
    }
}

fn times(period: Duration, samples: u64) -> Duration {
    Duration::from_nanos(whole_nanos(period).saturating_mul(samples))
}
