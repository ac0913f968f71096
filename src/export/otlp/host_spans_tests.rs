//! The host's `tracing` spans and events in the bytes that a collector would get.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tracing::Level;
use tracing_core::Dispatch;
use tracing_core::dispatcher::with_default;
use tracing_subscriber::layer::SubscriberExt as _;

use super::{FAILED_OR_SLOW, Host, LABELS, root, said};
use crate::export::otlp::exporter::Exporter;
use crate::export::otlp::logs::LogEncoder;
use crate::instrument::host_spans::layer;
use crate::instrument::query::Query;
use crate::instrument::span::SpanLabels;
use crate::instrument::traces::inject_trace_context;
use crate::store::label;

fn host() -> (Host, Dispatch) {
    let host = Host::new(FAILED_OR_SLOW, Duration::from_secs(1));
    let spans = layer(Arc::clone(&host.store), Level::INFO);
    // Beside the layer that labels CPU samples, which changes the same mark.
    let subscriber = tracing_subscriber::registry()
        .with(spans)
        .with(SpanLabels::default());
    (host, Dispatch::new(subscriber))
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).unwrap()
}

/// The records of one message for all that was said, and the spans.
fn logs(host: &Host) -> Vec<LogRecord> {
    let resource = Resource::default();
    let exporter = Exporter::of_logs(&host.store, &resource).unwrap();
    let mut encoder = LogEncoder::new(&exporter);
    host.store.traces.drain(|_, kept| {
        assert!(kept.logs.iter().all(|record| encoder.add(record).is_none()));
    });
    let alone = host.store.traces.logs().unwrap().drain();
    assert!(alone.iter().all(|record| encoder.add(record).is_none()));
    let message = encoder.message().unwrap();
    let decoded = ExportLogsServiceRequest::decode(&*message.body).unwrap();
    decoded.resource_logs[0].scope_logs[0].log_records.clone()
}

fn text(record: &LogRecord) -> &str {
    match record.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn spans_of_the_host_nest_below_the_request_and_hold_its_queries() {
    let (host, dispatch) = host();
    let query = Query::new(&host.store, LABELS, Duration::from_secs(1));
    let sent = std::cell::RefCell::new(String::new());
    with_default(&dispatch, || {
        tracing::info_span!("outside").in_scope(|| ());
        host.request(&[], async || {
            let before = label::current();
            let outer = tracing::info_span!(
                "outer",
                user = 7,
                password = "p",
                late = tracing::field::Empty
            );
            outer.in_scope(|| {
                tracing::info_span!("inner").in_scope(|| {
                    tracing::debug_span!("too verbose").in_scope(|| query.start().ok(1));
                    inject_trace_context(|_, value| *sent.borrow_mut() = value.to_owned());
                });
            });
            outer.record("late", "x".repeat(5_000));
            assert_eq!(label::current(), before, "left as it was found");
            500
        });
    });
    let spans = host.spans();
    assert_eq!(spans.len(), 4, "{spans:?}");
    let (root, outer, inner) = (root(&spans), named(&spans, "outer"), named(&spans, "inner"));
    assert_eq!(outer.parent_span_id, root.span_id);
    assert_eq!(inner.parent_span_id, outer.span_id);
    assert_eq!(named(&spans, LABELS.summary).parent_span_id, inner.span_id);
    let id: String = inner
        .span_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(sent.borrow().contains(&id), "{sent:?}");
    assert_eq!(said(outer, "user").as_deref(), Some("7"));
    assert_eq!(said(outer, "password").as_deref(), Some("REDACTED"));
    assert_eq!(said(outer, "late").unwrap().len(), 1_024);
}

#[test]
fn events_go_with_their_request_but_warnings_and_those_outside_of_one_always() {
    let (host, dispatch) = host();
    let spans = std::cell::RefCell::new(Vec::new());
    with_default(&dispatch, || {
        tracing::info!(port = 80, "started");
        host.request(&[], async || {
            tracing::info!("of a request that nobody keeps");
            tracing::debug!("too verbose");
            tracing::warn!(token = "t", "odd");
            200
        });
        host.request(&[], async || {
            tracing::info_span!("step").in_scope(|| tracing::info!("kept {}", 1));
            inject_trace_context(|_, value| spans.borrow_mut().push(value.to_owned()));
            500
        });
    });
    let logs = logs(&host);
    let texts: Vec<&str> = logs.iter().map(text).collect();
    assert_eq!(texts, ["kept 1", "started", "odd"]);
    let [kept, started, odd] = &logs[..] else {
        panic!();
    };
    let trace: String = kept
        .trace_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(spans.borrow()[0].contains(&trace));
    assert_eq!(kept.span_id.len(), 8);
    assert!(started.trace_id.is_empty() && started.span_id.is_empty());
    assert_eq!(
        (odd.trace_id.len(), &*odd.severity_text, odd.severity_number),
        (16, "WARN", 13)
    );
    assert_eq!((kept.severity_number, started.severity_number), (9, 9));
    let attributes = format!("{:?}", odd.attributes);
    assert!(
        attributes.contains("REDACTED") && !attributes.contains("\"t\""),
        "{attributes}"
    );
    assert!(format!("{:?}", started.attributes).contains("\"80\""));
    assert!(kept.time_unix_nano > 1_600_000_000_000_000_000);
}

#[test]
fn what_the_exporters_say_of_a_message_makes_no_message() {
    let (host, dispatch) = host();
    with_default(&dispatch, || {
        tracing::warn!(target: "opentelemetry-otlp", "the last message was sent");
        tracing::warn!("the host's");
    });
    assert_eq!(
        logs(&host).iter().map(text).collect::<Vec<_>>(),
        ["the host's"]
    );
}

#[test]
fn a_value_that_is_endless_or_cannot_be_shown_is_cut() {
    struct Endless;
    impl std::fmt::Debug for Endless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            loop {
                f.write_str("more ")?;
            }
        }
    }
    let (host, dispatch) = host();
    with_default(&dispatch, || tracing::error!("all of {:?}", Endless));
    let logs = logs(&host);
    assert!((2_000..=2_048).contains(&text(&logs[0]).len()));
}
