//! What libraries record through the `metrics` crate, in our own core.
//!
//! Source: `metrics` 0.24. Its macros ask for a handle at every event, so handles are kept by key; past the
//! number that is kept they are looked up each time, in the core and under its limits.

mod families;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use ::metrics::{
    CounterFn, GaugeFn, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use self::families::{Families, Use, smallest};
use crate::catalog::families::AGENT_DROPPED;
use crate::store::Store;
use crate::store::metrics::{Counter, Gauge, Histogram};
use crate::store::sync::{read, write};

/// Handles that are kept of each kind; about 300 bytes each.
const KEPT: usize = 10_000;
/// Bytes of a key that is kept. Longer ones come from clients, not from code.
const KEY_BYTES: usize = 1024;

/// Puts what is recorded through the `metrics` crate into the agent's core.
///
/// So it stands on `/metrics`, is pushed with everything else, and obeys the same limits: 2,000 label sets in a
/// family, 10 labels, 128 bytes of a value; events beyond go to one series `otel_metric_overflow="true"`, and
/// totals stay exact.
///
/// - A name is shown in Prometheus's letters, a counter's with `_total` at its end, any other's without.
///   Labels may differ from event to event.
/// - A name's end is its unit: `_seconds`, `_bytes`, `_ratio`. A unit that was described and that the name
///   does not say stands in the help. The first description counts.
/// - A histogram that ends in `_seconds` has buckets from 0.1 ms to 10 s, one in `_bytes` from 256 B to
///   64 MiB, any other from 0.0001 to 1,000,000 in steps of 1, 2.5 and 5. Values below zero and NaN are left
///   out and counted in `agent_dropped_total`.
/// - A name that is taken, by the agent, the host, or another kind, records nothing and is counted in
///   `agent_scrape_conflicts_total{source="recorder"}`; so are a family's eleventh label and the names past
///   a thousand.
///
/// # Cost
/// A look-up by key for each macro; a handle that is kept, as from `let orders = counter!("orders")`, costs
/// what [`Counter`](crate::Counter) costs.
///
/// ```
/// use streamgate_agent::Agent;
///
/// let agent = Agent::builder("shop").no_listener().start()?;
/// let recorder = agent.metrics_recorder();
/// metrics::with_local_recorder(&recorder, || {
///     metrics::describe_histogram!("parcel_kilograms", "Weight of parcels.");
///     metrics::histogram!("parcel_kilograms", "country" => "PT").record(2.5);
///     metrics::gauge!("parcels_waiting").increment(1.0);
/// });
/// # Ok::<(), streamgate_agent::Error>(())
/// ```
pub struct MetricsRecorder {
    families: Families,
    counters: Known<Counted>,
    gauges: Known<Level>,
    histograms: Known<Distribution>,
    lost: Lost,
}

/// What could not be counted, by why.
#[derive(Debug, Clone)]
struct Lost {
    negative: Counter,
    not_a_number: Counter,
    absolute: Counter,
}

impl fmt::Debug for MetricsRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsRecorder").finish_non_exhaustive()
    }
}

impl MetricsRecorder {
    pub(crate) fn new(store: &Arc<Store>) -> Self {
        let lost = |why| store.metrics.own_counter(&AGENT_DROPPED, &["metrics", why]);
        Self {
            families: Families::new(store),
            counters: Known::default(),
            gauges: Known::default(),
            histograms: Known::default(),
            lost: Lost {
                negative: lost("negative"),
                not_a_number: lost("not_a_number"),
                absolute: lost("absolute"),
            },
        }
    }
}

impl Recorder for MetricsRecorder {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.families
            .describe(Use::Counter, key.as_str(), unit, &description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.families
            .describe(Use::Gauge, key.as_str(), unit, &description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.families
            .describe(Use::Histogram, key.as_str(), unit, &description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> ::metrics::Counter {
        let found = self.counters.get(key, |kept| {
            let series = self
                .families
                .series(Use::Counter, key, |core, metric, values| {
                    core.counter(metric, values)
                });
            Some(Counted {
                counter: series?,
                seen: kept.then(AtomicU64::default),
                lost: self.lost.absolute.clone(),
            })
        });
        found.map_or_else(::metrics::Counter::noop, ::metrics::Counter::from_arc)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> ::metrics::Gauge {
        let found = self.gauges.get(key, |_| {
            let series = self
                .families
                .series(Use::Gauge, key, |core, metric, values| {
                    core.gauge(metric, values)
                });
            series.map(Level)
        });
        found.map_or_else(::metrics::Gauge::noop, ::metrics::Gauge::from_arc)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> ::metrics::Histogram {
        let found = self.histograms.get(key, |_| {
            self.families
                .series(Use::Histogram, key, |core, metric, values| {
                    Ok(Distribution {
                        histogram: core.histogram(metric, values)?,
                        smallest: smallest(metric),
                        lost: self.lost.clone(),
                    })
                })
        });
        found.map_or_else(::metrics::Histogram::noop, ::metrics::Histogram::from_arc)
    }
}

/// Handles by key; `None`: there can be none.
struct Known<T>(RwLock<HashMap<Key, Option<Arc<T>>>>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T> Known<T> {
    /// The handle of a key, made by `make`, which is told whether it will be kept.
    fn get(&self, key: &Key, make: impl FnOnce(bool) -> Option<T>) -> Option<Arc<T>> {
        if let Some(known) = read(&self.0).get(key) {
            return known.clone();
        }
        let labels = key
            .labels()
            .map(|label| label.key().len() + label.value().len());
        let bytes = key.name().len() + labels.sum::<usize>();
        let mut known = write(&self.0);
        if let Some(known) = known.get(key) {
            return known.clone();
        }
        if known.len() >= KEPT || bytes > KEY_BYTES {
            drop(known);
            return make(false).map(Arc::new);
        }
        let made = make(true).map(Arc::new);
        known.insert(key.clone(), made.clone());
        made
    }
}

struct Counted {
    counter: Counter,
    /// The highest total that was set; `None`: it would be forgotten.
    seen: Option<AtomicU64>,
    lost: Counter,
}

impl CounterFn for Counted {
    fn increment(&self, value: u64) {
        self.counter.add(value);
    }

    /// Raises the counter by what this total is above the highest before.
    fn absolute(&self, value: u64) {
        match &self.seen {
            Some(seen) => {
                let before = seen.fetch_max(value, Ordering::Relaxed);
                self.counter.add(value.saturating_sub(before));
            }
            None => self.lost.inc(),
        }
    }
}

struct Level(Gauge);

impl GaugeFn for Level {
    fn increment(&self, value: f64) {
        self.0.add(value);
    }

    fn decrement(&self, value: f64) {
        self.0.add(-value);
    }

    fn set(&self, value: f64) {
        self.0.set(value);
    }
}

struct Distribution {
    histogram: Histogram,
    smallest: f64,
    lost: Lost,
}

impl HistogramFn for Distribution {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded and not below zero; a conversion from float keeps within the type's range"
    )]
    fn record(&self, value: f64) {
        if value.is_nan() {
            self.lost.not_a_number.inc();
        } else if value < 0.0 {
            self.lost.negative.inc();
        } else {
            self.histogram
                .record_value((value * self.smallest).round() as u64);
        }
    }
}

#[cfg(test)]
mod tests;
