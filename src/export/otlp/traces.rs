//! Kept requests as OTLP spans: one of the request and one of each piece of its work.
//!
//! Source: OpenTelemetry's trace data model, and the semantic conventions of HTTP and database spans.

use std::time::Duration;

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{KeyValue, Value};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::batch::{Batch, Clock};
use super::exporter::{Exporter, Message};
use super::{number, redact, text};
use crate::store::traces::{Child, OpenTrace, Root, Site, Sites, Spans, Work, span_id};

/// Bytes of a span beside its texts: ids, times, numbers, and the lengths before all of them.
const SPAN_BYTES: usize = 160;
/// Bytes of an attribute beside its texts.
const ATTRIBUTE_BYTES: usize = 24;

/// Spans on their way into messages.
#[derive(Debug)]
pub(crate) struct SpanEncoder<'a> {
    exporter: &'a Exporter<SpanExporter>,
    sites: &'a Sites,
    clock: Clock,
    batch: Batch<SpanData>,
}

impl<'a> SpanEncoder<'a> {
    pub(crate) fn new(exporter: &'a Exporter<SpanExporter>, sites: &'a Sites) -> Self {
        Self {
            exporter,
            sites,
            clock: Clock::now(),
            batch: Batch::default(),
        }
    }

    /// Adds a request; returns a message when there is enough for one.
    pub(crate) fn add(&mut self, trace: &OpenTrace, spans: &Spans) -> Option<Message> {
        self.push(self.root(trace, spans));
        for child in &spans.children {
            self.push(self.child(trace, spans, child));
        }
        self.batch.is_full().then(|| self.message()).flatten()
    }

    /// What has not been returned yet as a message.
    pub(crate) fn message(&mut self) -> Option<Message> {
        self.exporter.message(self.batch.take())
    }

    fn push(&mut self, span: SpanData) {
        let bytes = most_bytes(&span);
        self.batch.push(span, bytes);
    }

    fn root(&self, trace: &OpenTrace, spans: &Spans) -> SpanData {
        let root = &spans.root;
        let is_matched = !root.route.starts_with('<');
        let failed = !root.error.is_empty() && root.error != "client_gone";
        let name = if is_matched {
            format!("{} {}", root.method, root.route).into()
        } else {
            root.method.into()
        };
        SpanData {
            span_context: context(trace, trace.context.span_id, state(&trace.tracestate)),
            parent_span_id: trace
                .parent
                .map_or(SpanId::INVALID, |parent| parent.context.span_id.into()),
            parent_span_is_remote: trace.parent.is_some(),
            span_kind: SpanKind::Server,
            name,
            attributes: root_attributes(trace, root, spans.beyond),
            status: status(failed),
            ..self.span(trace, Duration::ZERO, root.elapsed)
        }
    }

    fn child(&self, trace: &OpenTrace, spans: &Spans, child: &Child) -> SpanData {
        // Of a span that was not written down nobody knows.
        let is_known = spans.children.iter().any(|other| match &other.work {
            Work::Host(span) => span.span_id == child.parent,
            _ => false,
        });
        let parent = if is_known {
            child.parent
        } else {
            trace.context.span_id
        };
        let mut span = SpanData {
            parent_span_id: parent.into(),
            ..self.span(trace, child.start, child.elapsed)
        };
        match &child.work {
            Work::Query { site, error, rows } => {
                self.name(&mut span, *site);
                span.status = status(!error.is_empty());
                span.attributes.push(if error.is_empty() {
                    number("db.response.returned_rows", *rows)
                } else {
                    KeyValue::new("error.type", *error)
                });
            }
            Work::Lookup {
                site,
                result,
                class,
            } => {
                self.name(&mut span, *site);
                span.attributes.push(KeyValue::new("cache.result", *result));
                span.attributes.push(KeyValue::new("cache.class", *class));
            }
            Work::Load { site, failed } => {
                self.name(&mut span, *site);
                span.status = status(*failed);
            }
            Work::Host(host) => {
                span.name = host.name.into();
                span.span_context = context(trace, host.span_id, TraceState::NONE);
                let target = [KeyValue::new("code.namespace", host.target)];
                let fields = redact::fields(&host.fields);
                let fields = fields.map(|(key, value)| text(key, value));
                span.attributes = target.into_iter().chain(fields).collect();
            }
        }
        span
    }

    fn name(&self, span: &mut SpanData, site: Site) {
        if let Some(names) = self.sites.get(site) {
            span.name = names.name.clone().into();
            let attributes = names.attributes.iter();
            span.attributes = attributes.map(|(key, value)| text(key, value)).collect();
            if names.is_client {
                span.span_kind = SpanKind::Client;
            }
        }
    }

    /// What the spans of a request have in common; `start` is after the request's.
    fn span(&self, trace: &OpenTrace, start: Duration, elapsed: Duration) -> SpanData {
        let start_time = self.clock.system_time(trace.began) + start;
        SpanData {
            span_context: context(trace, span_id(), TraceState::NONE),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "".into(),
            start_time,
            end_time: start_time + elapsed,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.exporter.scope(),
        }
    }
}

fn context(trace: &OpenTrace, span_id: u64, state: TraceState) -> SpanContext {
    let trace_id = TraceId::from(trace.context.trace_id);
    let flags = TraceFlags::new(trace.flags());
    SpanContext::new(trace_id, span_id.into(), flags, false, state)
}

/// A caller's state. The SDK knows no system of more than 13 letters in `tenant@system`, which level 2 of the
/// specification allows: such a state goes on to those that are called, and is not in the span.
fn state(text: &str) -> TraceState {
    text.parse().unwrap_or(TraceState::NONE)
}

/// Bytes that a span has at most in a message.
pub(super) fn most_bytes(span: &SpanData) -> usize {
    let attributes = span.attributes.iter().map(|attribute| {
        let value = match &attribute.value {
            Value::String(text) => text.as_str().len(),
            _ => 0,
        };
        ATTRIBUTE_BYTES + attribute.key.as_str().len() + value
    });
    let state = span.span_context.trace_state().header().len();
    SPAN_BYTES + span.name.len() + state + attributes.sum::<usize>()
}

fn root_attributes(trace: &OpenTrace, root: &Root, beyond: u32) -> Vec<KeyValue> {
    let (path, query) = match trace.target.split_once('?') {
        Some((path, query)) => (path, query),
        None => (&*trace.target, ""),
    };
    let query = redact::query(query);
    let texts = [
        ("http.request.method", root.method),
        ("http.route", &*root.route),
        ("url.scheme", root.scheme),
        ("url.path", path),
        ("url.query", &*query),
        ("error.type", root.error),
        ("keep.reason", root.keep.word()),
    ];
    let numbers = [
        ("http.response.status_code", u64::from(root.status)),
        ("http.response.body.size", root.sent_bytes),
        // Of the agent's own, as no convention has a word for it.
        ("dropped_children_count", u64::from(beyond)),
    ];
    let texts = texts.into_iter().filter(|(_, value)| !value.is_empty());
    let texts = texts.map(|(key, value)| text(key, value));
    let numbers = numbers.into_iter().filter(|(_, value)| *value > 0);
    let numbers = numbers.map(|(key, value)| number(key, value));
    texts.chain(numbers).collect()
}

fn status(failed: bool) -> Status {
    if failed {
        Status::error("")
    } else {
        Status::Unset
    }
}
