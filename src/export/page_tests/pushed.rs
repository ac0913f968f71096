//! What is pushed against what is scraped: the same series with the same numbers, after the translation
//! that Prometheus makes of OTLP.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, Sum, exemplar};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::parser::{Labels, parse};
use super::tests::{foreign, hostile, openmetrics_page, text_page, whole_catalogue};
use crate::export::otlp::attribute;
use crate::export::otlp::metrics::{HistogramForm, Push};
use crate::store::foreign::ForeignFamily;
use crate::store::metrics::Metrics;

type Samples = BTreeMap<(String, Labels), f64>;

const START: u64 = 1_795_000_000_000_000_000;
const NOW: u64 = START + 15_000_000_000;

/// A push as its receiver has it.
fn pushed(metrics: &Metrics, foreign: &[ForeignFamily], histograms: HistogramForm) -> Vec<Metric> {
    let resource = Resource {
        attributes: vec![attribute("service.name", "svc")],
        ..Resource::default()
    };
    let push = Push {
        resource: &resource,
        start_unix_nanos: START,
        unix_nanos: NOW,
        histograms,
    };
    let sent = push.encode(&metrics.snapshot(), foreign).encode_to_vec();
    let mut message = ExportMetricsServiceRequest::decode(&*sent).unwrap();
    let mut of_resource = message.resource_metrics.remove(0);
    assert_eq!(of_resource.resource, Some(resource));
    of_resource.scope_metrics.remove(0).metrics
}

fn labels(attributes: &[KeyValue]) -> Labels {
    let label = |attribute: &KeyValue| {
        let Some(Any::StringValue(value)) = attribute.value.clone().unwrap().value else {
            panic!("{attribute:?}");
        };
        (attribute.key.replace('.', "_"), value)
    };
    attributes.iter().map(label).collect()
}

/// The name that Prometheus gives: dots, the unit, what counts.
fn name(metric: &Metric) -> String {
    // promtool takes no gauge that ends like a histogram's count, so these three have another name on our
    // page than the conventions give them.
    match metric.name.as_str() {
        "db.client.connection.count" => return "db_client_connections".to_owned(),
        "process.thread.count" => return "process_threads".to_owned(),
        "process.unix.file_descriptor.count" => return "process_unix_file_descriptors".to_owned(),
        _ => {}
    }
    let mut name = metric.name.replace('.', "_");
    let is_total = matches!(&metric.data, Some(Data::Sum(sum)) if sum.is_monotonic);
    let is_gauge = matches!(&metric.data, Some(Data::Gauge(_)));
    let stem = name.strip_suffix("_total").filter(|_| is_total);
    name = stem.unwrap_or(&name).to_owned();
    let unit = match metric.unit.as_str() {
        "s" => "_seconds",
        "By" => "_bytes",
        "1" if is_gauge => "_ratio",
        _ => "",
    };
    if !name.ends_with(unit) {
        name.push_str(unit);
    }
    if is_total {
        name.push_str("_total");
    }
    name
}

/// All samples of a push; those with buckets like a page's, up to each bound.
fn samples(pushed: &[Metric]) -> Samples {
    let mut samples = Samples::new();
    for metric in pushed {
        let name = name(metric);
        let mut add = |suffix: &str, labels: Labels, value: f64| {
            let twice = samples.insert((format!("{name}{suffix}"), labels), value);
            assert!(twice.is_none(), "{name}{suffix} twice");
        };
        match metric.data.as_ref().unwrap() {
            Data::Gauge(Gauge { data_points }) | Data::Sum(Sum { data_points, .. }) => {
                for point in data_points {
                    assert_eq!(
                        (point.start_time_unix_nano, point.time_unix_nano),
                        (START, NOW)
                    );
                    let value = match point.value.unwrap() {
                        Number::AsInt(value) => value as f64,
                        Number::AsDouble(value) => value,
                    };
                    add("", labels(&point.attributes), value);
                }
            }
            Data::Histogram(histogram) => {
                for point in &histogram.data_points {
                    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                    let bounds = point.explicit_bounds.iter().chain([&f64::INFINITY]);
                    let mut total = 0;
                    for (bound, count) in bounds.zip(&point.bucket_counts) {
                        total += count;
                        let mut labels = labels(&point.attributes);
                        labels.insert("le".to_owned(), le(*bound));
                        add("_bucket", labels, total as f64);
                    }
                    add("_count", labels(&point.attributes), point.count as f64);
                    add("_sum", labels(&point.attributes), point.sum.unwrap());
                }
            }
            Data::Summary(summary) => {
                for point in &summary.data_points {
                    for at in &point.quantile_values {
                        let mut labels = labels(&point.attributes);
                        labels.insert("quantile".to_owned(), le(at.quantile));
                        add("", labels, at.value);
                    }
                    add("_count", labels(&point.attributes), point.count as f64);
                    add("_sum", labels(&point.attributes), point.sum);
                }
            }
            Data::ExponentialHistogram(_) => panic!("not asked for"),
        }
    }
    samples
}

fn le(bound: f64) -> String {
    if bound.is_infinite() {
        return "+Inf".to_owned();
    }
    let mut text = Vec::new();
    crate::export::number::push_bound(&mut text, bound);
    String::from_utf8(text).unwrap()
}

/// NaN equals itself here.
fn bits(samples: Samples) -> BTreeMap<(String, Labels), u64> {
    let bits = |value: f64| {
        if value.is_nan() {
            u64::MAX
        } else {
            value.to_bits()
        }
    };
    let samples = samples.into_iter();
    samples
        .map(|(series, value)| (series, bits(value)))
        .collect()
}

#[test]
fn scrape_equals_push() {
    for (metrics, foreign) in [(hostile(), foreign()), (whole_catalogue(), Vec::new())] {
        let mut page = parse(&text_page(&metrics, &foreign), false).samples;
        // The resource has it.
        page.retain(|(name, _), _| name != "target_info");
        let push = samples(&pushed(&metrics, &foreign, HistogramForm::Explicit));
        assert!(page.len() > 50);
        let (push, page) = (bits(push), bits(page));
        let lacks = |all: &BTreeMap<_, _>, other: &BTreeMap<(String, Labels), u64>| {
            let mut missing = other.clone();
            missing.retain(|series, value| all.get(series) != Some(value));
            missing
        };
        let (not_pushed, not_shown) = (lacks(&push, &page), lacks(&page, &push));
        assert_eq!((not_pushed, not_shown), Default::default());
    }
}

#[test]
fn exemplars_are_pushed_as_they_are_shown() {
    let metrics = hostile();
    let page = parse(&openmetrics_page(&metrics, &[]), true);
    let push = pushed(&metrics, &[], HistogramForm::Explicit);
    let points = push.iter().filter_map(|metric| match &metric.data {
        Some(Data::Histogram(histogram)) => Some(&histogram.data_points),
        _ => None,
    });
    let exemplars: Vec<_> = points
        .flatten()
        .flat_map(|point| &point.exemplars)
        .collect();
    assert_eq!(exemplars.len(), page.exemplars.len());
    for (pushed, shown) in exemplars.iter().zip(&page.exemplars) {
        let Some(exemplar::Value::AsDouble(value)) = pushed.value else {
            panic!("{pushed:?}");
        };
        assert!((value - shown.value).abs() < f64::EPSILON);
        let hex =
            |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        assert_eq!(hex(&pushed.trace_id), shown.labels["trace_id"]);
        assert_eq!(hex(&pushed.span_id), shown.labels["span_id"]);
        let seconds = pushed.time_unix_nano as f64 / 1e9;
        assert!((seconds - shown.unix_seconds).abs() < 0.001);
    }
}

#[test]
fn exponential_and_explicit_histograms_count_the_same() {
    let metrics = hostile();
    let counts = |form| {
        let push = pushed(&metrics, &[], form);
        let mut fine = 0;
        let mut counts = BTreeMap::new();
        for metric in push {
            match metric.data.unwrap() {
                Data::Histogram(histogram) => {
                    for point in histogram.data_points {
                        let own: u64 = point.bucket_counts.iter().sum();
                        counts.insert(metric.name.clone(), (own, point.sum));
                    }
                }
                Data::ExponentialHistogram(histogram) => {
                    for point in histogram.data_points {
                        fine += 1;
                        let own: u64 = point.positive.unwrap().bucket_counts.iter().sum();
                        let all = own + point.zero_count;
                        assert_eq!(all, point.count);
                        counts.insert(metric.name.clone(), (all, point.sum));
                    }
                }
                _ => {}
            }
        }
        (fine, counts)
    };
    let ((none, explicit), (fine, exponential)) = (
        counts(HistogramForm::Explicit),
        counts(HistogramForm::Exponential),
    );
    assert_eq!(none, 0);
    assert!(fine > 0);
    assert_eq!(explicit, exponential);
}
