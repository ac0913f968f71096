//! What libraries record through the `metrics` crate, in our own core.
//!
//! Source: `metrics` 0.24. Its macros ask for a handle at every event, so handles are kept by key; past the
//! number that is kept they are looked up each time, in the core and under its limits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::metrics::{
    CounterFn, GaugeFn, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use super::known::{Known, Room};
use super::undeclared::{Distribution, Families, Lost, Told, Use};
use crate::catalog::Metric;
use crate::catalog::families::AGENT_DROPPED;
use crate::error::Error;
use crate::store::Store;
use crate::store::metrics::{Counter, Gauge, Metrics};

/// The help of a family that nobody has described.
const UNDESCRIBED: &str = "Recorded through the metrics crate.";

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
    counters: Known<Key, Counted>,
    gauges: Known<Key, Level>,
    histograms: Known<Key, Values>,
    lost: Lost,
    /// Totals that could not be told from the one before.
    lost_absolute: Counter,
}

impl fmt::Debug for MetricsRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsRecorder").finish_non_exhaustive()
    }
}

impl MetricsRecorder {
    pub(crate) fn new(store: &Arc<Store>) -> Self {
        let core = &store.metrics;
        Self {
            families: Families::new(store, "recorder", UNDESCRIBED),
            counters: Known::new(&Room::default()),
            gauges: Known::new(&Room::default()),
            histograms: Known::new(&Room::default()),
            lost: Lost::new(core),
            lost_absolute: core.own_counter(&AGENT_DROPPED, &["metrics", "absolute"]),
        }
    }

    fn describe(&self, used: Use, key: &KeyName, unit: Option<Unit>, text: &str) {
        let unit = unit.filter(|unit| *unit != Unit::Count);
        let unit = unit.as_ref().map(Unit::as_str);
        self.families.describe(used, key.as_str(), unit, text);
    }

    fn series<T>(
        &self,
        used: Use,
        key: &Key,
        find: impl Fn(&Metrics, &Metric, &[&str]) -> Result<T, Error>,
    ) -> Option<T> {
        let labels = key.labels().map(|label| (label.key(), label.value()));
        let labels: Vec<_> = labels.collect();
        let told = Told {
            name: key.name(),
            otel_name: None,
            labels: &labels,
        };
        self.families.series(used, told, find)
    }
}

/// The length of a key's texts.
fn bytes(key: &Key) -> usize {
    let labels = key.labels();
    let labels = labels.map(|label| label.key().len() + label.value().len());
    key.name().len() + labels.sum::<usize>()
}

impl Recorder for MetricsRecorder {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe(Use::Counter, &key, unit, &description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe(Use::Gauge, &key, unit, &description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.describe(Use::Histogram, &key, unit, &description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> ::metrics::Counter {
        let make = |kept: bool| {
            Some(Counted {
                counter: self.series(Use::Counter, key, Metrics::counter)?,
                seen: kept.then(AtomicU64::default),
                lost: self.lost_absolute.clone(),
            })
        };
        let found = self.counters.get(key, || bytes(key), make);
        found.map_or_else(::metrics::Counter::noop, ::metrics::Counter::from_arc)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> ::metrics::Gauge {
        let make = |_| self.series(Use::Gauge, key, Metrics::gauge).map(Level);
        let found = self.gauges.get(key, || bytes(key), make);
        found.map_or_else(::metrics::Gauge::noop, ::metrics::Gauge::from_arc)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> ::metrics::Histogram {
        let make = |_| {
            Some(Values {
                distribution: self.series(Use::Histogram, key, Distribution::find)?,
                lost: self.lost.clone(),
            })
        };
        let found = self.histograms.get(key, || bytes(key), make);
        found.map_or_else(::metrics::Histogram::noop, ::metrics::Histogram::from_arc)
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

struct Values {
    distribution: Distribution,
    lost: Lost,
}

impl HistogramFn for Values {
    fn record(&self, value: f64) {
        if self.lost.fits(value) {
            self.distribution.record(value);
        }
    }
}

#[cfg(test)]
mod tests;
