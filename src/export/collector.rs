//! The core as a collector that a host registers in a `prometheus` registry of its own.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use crate::catalog::Kind;
use crate::store::Store;
use crate::store::metrics::{FamilySnapshot, Series, Value};

use super::number::bound_value;

/// The agent's families in a registry that the host already serves.
///
/// It carries counters, gauges and classic histogram buckets; exemplars have no field in the
/// `prometheus` crate. One registry takes one such collector. A registry that holds it and is also
/// shown by the agent shows these families once: the agent's own win.
///
/// # Cost
/// One snapshot and one allocation per label for each gathering. The agent's own page is cheaper.
#[derive(Debug, Clone)]
pub struct CoreCollector {
    store: Arc<Store>,
}

impl CoreCollector {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

impl Collector for CoreCollector {
    /// Empty: families appear when they are first used, and the registry accepts that.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let snapshot = self.store.metrics.snapshot();
        let families = snapshot.families.iter().map(|family| {
            let metrics = snapshot
                .values(family)
                .map(|(series, value)| metric(family, series, value))
                .collect();
            let mut shown = proto::MetricFamily::default();
            shown.set_name(family.metric.name.to_owned());
            shown.set_help(family.metric.help.to_owned());
            shown.set_field_type(kind(family.metric.kind));
            shown.set_metric(metrics);
            shown
        });
        families
            .filter(|family| !family.get_metric().is_empty())
            .collect()
    }
}

fn kind(kind: Kind) -> proto::MetricType {
    match kind {
        Kind::Counter | Kind::ObservedCounter => proto::MetricType::COUNTER,
        Kind::UpDown | Kind::Gauge | Kind::Info => proto::MetricType::GAUGE,
        Kind::Histogram(_) => proto::MetricType::HISTOGRAM,
    }
}

fn metric(family: &FamilySnapshot, series: &Series, value: Value<'_>) -> proto::Metric {
    let labels = series.labels(&family.metric);
    let mut shown = proto::Metric::from_label(labels.map(label).collect());
    match value {
        Value::Histogram(row) => {
            let bucket = |((bound, _), total)| {
                let mut bucket = proto::Bucket::default();
                bucket.set_upper_bound(bound_value(bound, family.metric.unit));
                bucket.set_cumulative_count(total);
                bucket
            };
            let mut histogram = proto::Histogram::default();
            histogram.set_bucket(row.layout.classic().zip(row.totals()).map(bucket).collect());
            histogram.set_sample_count(row.count());
            histogram.set_sample_sum(row.sum);
            shown.set_histogram(histogram);
        }
        Value::Total(total) => set_number(&mut shown, family.metric.kind, total as f64),
        Value::Signed(number) => set_number(&mut shown, family.metric.kind, number as f64),
        Value::Float(number) => set_number(&mut shown, family.metric.kind, number),
        Value::One => set_number(&mut shown, family.metric.kind, 1.0),
    }
    shown
}

fn set_number(shown: &mut proto::Metric, kind: Kind, number: f64) {
    if matches!(kind, Kind::Counter | Kind::ObservedCounter) {
        let mut counter = proto::Counter::default();
        counter.set_value(number);
        shown.set_counter(counter);
    } else {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(number);
        shown.set_gauge(gauge);
    }
}

fn label((name, value): (&str, &str)) -> proto::LabelPair {
    let mut pair = proto::LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
