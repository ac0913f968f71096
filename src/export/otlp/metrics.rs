//! All numbers as OTLP metrics, cumulative since the agent's start.
//!
//! Source: opentelemetry-proto 1, the metrics data model, and the translation that Prometheus makes of it:
//! names and labels come out there as they stand on our page.

use std::iter;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
    Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    Summary, SummaryDataPoint, exemplar,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::exponential::exponential;
use super::parts::parts;
use super::{attribute, scope};
use crate::catalog::bounds::Bounds;
use crate::catalog::{Kind, Unit, attributes};
use crate::export::number::bound_value;
use crate::export::samples::{Entry, in_order};
use crate::store::foreign::{ForeignFamily, ForeignKind, ForeignSeries, ForeignValue};
use crate::store::metrics::{
    Distribution, Exemplar as Held, FamilySnapshot, Series, Snapshot, Value, scale,
};

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// In which form histograms go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HistogramForm {
    /// With the bounds of the page, so that "below 200 ms" stays exact.
    Explicit,
    /// In exponential buckets where the row has them.
    Exponential,
}

/// What all points of one push have in common.
#[derive(Debug, Clone)]
pub(crate) struct Push<'a> {
    pub(crate) resource: &'a Resource,
    /// When counting began; it never moves.
    pub(crate) start_unix_nanos: u64,
    pub(crate) unix_nanos: u64,
    pub(crate) histograms: HistogramForm,
}

/// Series that are made into points at once, so that a push of many takes little memory.
const SERIES: usize = 256;

impl Push<'_> {
    /// All numbers in messages of at most so many bytes, each made when it is asked for. `target_info` is the
    /// resource itself.
    pub(crate) fn messages<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        foreign: &'a [ForeignFamily],
        limit: usize,
    ) -> impl Iterator<Item = ExportMetricsServiceRequest> + 'a {
        let entries = in_order(snapshot, foreign);
        let pieces = entries.flat_map(|entry| -> Box<dyn Iterator<Item = Metric> + 'a> {
            match entry {
                Entry::Own(family) if family.metric.name == "target_info" => {
                    Box::new(iter::empty())
                }
                Entry::Own(family) => Box::new(self.own(snapshot, family)),
                Entry::Foreign(family) => {
                    let pieces = family.series.chunks(SERIES);
                    Box::new(pieces.map(|series| self.foreign(family, series)))
                }
            }
        });
        let empty = self.message(Vec::new()).encoded_len();
        parts(pieces, limit.saturating_sub(empty)).map(|metrics| self.message(metrics))
    }

    /// All numbers in one message.
    #[cfg(test)]
    pub(crate) fn encode(
        &self,
        snapshot: &Snapshot,
        foreign: &[ForeignFamily],
    ) -> ExportMetricsServiceRequest {
        let mut messages = self.messages(snapshot, foreign, usize::MAX);
        messages.next().unwrap_or_default()
    }

    fn message(&self, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(scope()),
                    metrics,
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        }
    }

    fn own<'a>(
        &'a self,
        snapshot: &'a Snapshot,
        family: &'a FamilySnapshot,
    ) -> impl Iterator<Item = Metric> + 'a {
        let mut values = snapshot.values(family);
        iter::from_fn(move || {
            let values: Vec<_> = values.by_ref().take(SERIES).collect();
            (!values.is_empty()).then(|| self.piece(family, &values))
        })
    }

    fn piece(&self, family: &FamilySnapshot, values: &[(&Series, Value<'_>)]) -> Metric {
        let metric = &family.metric;
        let data = match metric.kind {
            Kind::Histogram(bounds) => self.histogram(family, bounds, values),
            kind => {
                let points = values.iter().map(|(series, value)| NumberDataPoint {
                    attributes: labels(family, series),
                    start_time_unix_nano: self.start_unix_nanos,
                    time_unix_nano: self.unix_nanos,
                    value: number(*value),
                    ..NumberDataPoint::default()
                });
                numbers(kind.into(), points.collect())
            }
        };
        Metric {
            name: metric.otel_name.to_owned(),
            description: metric.help.to_owned(),
            unit: unit(metric.unit).to_owned(),
            data: Some(data),
            ..Metric::default()
        }
    }

    fn histogram(
        &self,
        family: &FamilySnapshot,
        bounds: Bounds,
        values: &[(&Series, Value<'_>)],
    ) -> Data {
        let rows = || {
            values.iter().filter_map(|(series, value)| match value {
                Value::Histogram(row) => Some((*series, row)),
                _ => None,
            })
        };
        let is_exponential = self.histograms == HistogramForm::Exponential;
        if is_exponential && bounds.native_octaves().is_some() {
            let points = rows().filter_map(|(series, row)| self.fine(family, bounds, series, row));
            return Data::ExponentialHistogram(ExponentialHistogram {
                data_points: points.collect(),
                aggregation_temporality: CUMULATIVE,
            });
        }
        let unit = family.metric.unit;
        let points = rows().map(|(series, row)| HistogramDataPoint {
            attributes: labels(family, series),
            start_time_unix_nano: self.start_unix_nanos,
            time_unix_nano: self.unix_nanos,
            count: row.count(),
            sum: Some(row.sum),
            bucket_counts: apart(row.totals()),
            explicit_bounds: bounds
                .classic()
                .iter()
                .map(|bound| bound_value(*bound, unit))
                .collect(),
            exemplars: exemplars(family, bounds, series),
            ..HistogramDataPoint::default()
        });
        Data::Histogram(Histogram {
            data_points: points.collect(),
            aggregation_temporality: CUMULATIVE,
        })
    }

    fn fine(
        &self,
        family: &FamilySnapshot,
        bounds: Bounds,
        series: &Series,
        row: &Distribution<'_>,
    ) -> Option<ExponentialHistogramDataPoint> {
        let shown = exponential(bounds, row)?;
        Some(ExponentialHistogramDataPoint {
            attributes: labels(family, series),
            start_time_unix_nano: self.start_unix_nanos,
            time_unix_nano: self.unix_nanos,
            count: row.count(),
            sum: Some(row.sum),
            scale: shown.scale,
            zero_count: shown.zero_count,
            positive: Some(Buckets {
                offset: shown.offset,
                bucket_counts: shown.buckets,
            }),
            exemplars: exemplars(family, bounds, series),
            zero_threshold: shown.zero_threshold,
            ..ExponentialHistogramDataPoint::default()
        })
    }

    fn foreign(&self, family: &ForeignFamily, series: &[ForeignSeries]) -> Metric {
        let series = || series.iter();
        let data = match family.kind {
            ForeignKind::Histogram => Data::Histogram(Histogram {
                data_points: series().filter_map(|one| self.foreign_row(one)).collect(),
                aggregation_temporality: CUMULATIVE,
            }),
            ForeignKind::Summary => Data::Summary(Summary {
                data_points: series().filter_map(|one| self.summary(one)).collect(),
            }),
            kind => {
                let points = series().filter_map(|one| match one.value {
                    ForeignValue::Number(value) => Some(NumberDataPoint {
                        attributes: foreign_labels(one),
                        start_time_unix_nano: self.start_unix_nanos,
                        time_unix_nano: self.unix_nanos,
                        value: Some(Number::AsDouble(value)),
                        ..NumberDataPoint::default()
                    }),
                    _ => None,
                });
                let adds = match kind {
                    // As a monotonic sum it would get another name in Prometheus than it has on our page.
                    ForeignKind::Counter if !family.name.ends_with("_total") => Adds::UpAndDown,
                    ForeignKind::Counter => Adds::Up,
                    _ => Adds::Nothing,
                };
                numbers(adds, points.collect())
            }
        };
        Metric {
            name: family.name.clone(),
            description: family.help.clone(),
            data: Some(data),
            ..Metric::default()
        }
    }

    fn foreign_row(&self, series: &ForeignSeries) -> Option<HistogramDataPoint> {
        let ForeignValue::Histogram {
            buckets,
            sum,
            count,
        } = &series.value
        else {
            return None;
        };
        let totals = buckets.iter().map(|(_, total)| *total).chain([*count]);
        Some(HistogramDataPoint {
            attributes: foreign_labels(series),
            start_time_unix_nano: self.start_unix_nanos,
            time_unix_nano: self.unix_nanos,
            count: *count,
            sum: Some(*sum),
            bucket_counts: apart(totals),
            explicit_bounds: buckets.iter().map(|(bound, _)| *bound).collect(),
            ..HistogramDataPoint::default()
        })
    }

    fn summary(&self, series: &ForeignSeries) -> Option<SummaryDataPoint> {
        let ForeignValue::Summary {
            quantiles,
            sum,
            count,
        } = &series.value
        else {
            return None;
        };
        let at = |(quantile, value): &(f64, f64)| ValueAtQuantile {
            quantile: *quantile,
            value: *value,
        };
        Some(SummaryDataPoint {
            attributes: foreign_labels(series),
            start_time_unix_nano: self.start_unix_nanos,
            time_unix_nano: self.unix_nanos,
            count: *count,
            sum: *sum,
            quantile_values: quantiles.iter().map(at).collect(),
            ..SummaryDataPoint::default()
        })
    }
}

/// How the values of a family add up over series.
#[derive(Debug, Clone, Copy)]
enum Adds {
    /// Monotonic.
    Up,
    UpAndDown,
    Nothing,
}

impl From<Kind> for Adds {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Counter | Kind::ObservedCounter => Self::Up,
            Kind::UpDown => Self::UpAndDown,
            Kind::Gauge | Kind::Info | Kind::Histogram(_) => Self::Nothing,
        }
    }
}

fn numbers(adds: Adds, data_points: Vec<NumberDataPoint>) -> Data {
    match adds {
        Adds::Up | Adds::UpAndDown => Data::Sum(Sum {
            data_points,
            aggregation_temporality: CUMULATIVE,
            is_monotonic: matches!(adds, Adds::Up),
        }),
        Adds::Nothing => Data::Gauge(Gauge { data_points }),
    }
}

/// Past 2^63, as only a total over centuries could be, a whole number is one with a fraction.
fn number(value: Value<'_>) -> Option<Number> {
    match value {
        Value::Total(total) => Some(match i64::try_from(total) {
            Ok(total) => Number::AsInt(total),
            Err(_) => Number::AsDouble(total as f64),
        }),
        Value::Signed(number) => Some(Number::AsInt(number)),
        Value::Float(number) => Some(Number::AsDouble(number)),
        Value::One => Some(Number::AsInt(1)),
        Value::Histogram(_) => None,
    }
}

/// By the Unified Code for Units of Measure; what counts things has none, as Prometheus would write it
/// into the name.
fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "s",
        Unit::Bytes => "By",
        Unit::Ratio => "1",
        Unit::Count | Unit::Number => "",
    }
}

/// What each bucket holds itself, of totals up to each.
fn apart(totals: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut before = 0;
    totals
        .map(|total| {
            let own = total.saturating_sub(before);
            before = total;
            own
        })
        .collect()
}

fn labels(family: &FamilySnapshot, series: &Series) -> Vec<KeyValue> {
    let labels = series.labels(&family.metric);
    labels
        .map(|(label, value)| attribute(attributes::of(label), value))
        .collect()
}

fn foreign_labels(series: &ForeignSeries) -> Vec<KeyValue> {
    let labels = series.labels.iter();
    labels
        .map(|(label, value)| attribute(label, value))
        .collect()
}

fn exemplars(family: &FamilySnapshot, bounds: Bounds, series: &Series) -> Vec<Exemplar> {
    let scale = scale(family.metric.unit);
    // One more than the bounds: above the last.
    let held = (0..=bounds.classic().len()).filter_map(|bucket| series.exemplar(bucket));
    held.map(|held: Held| Exemplar {
        time_unix_nano: held.unix_nanos,
        span_id: held.trace.span_id.to_be_bytes().to_vec(),
        trace_id: held.trace.trace_id.to_be_bytes().to_vec(),
        value: Some(exemplar::Value::AsDouble(held.value as f64 / scale)),
        ..Exemplar::default()
    })
    .collect()
}
