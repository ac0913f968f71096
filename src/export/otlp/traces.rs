//! Kept requests as OTLP spans: one of the request and one of each piece of its work.
//!
//! Made from our records into opentelemetry-proto's messages directly. The SDK's `SpanData` would be built only
//! to be taken apart again by its exporter, with a vector and a text for each attribute twice.
//!
//! Source: opentelemetry-proto 1, and the semantic conventions of HTTP and database spans.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

use super::batch::{Batch, Clock, Message};
use super::{attribute, number, redact, scope, text};
use crate::store::metrics::whole_nanos;
use crate::store::traces::{Child, OpenTrace, Root, Site, Sites, Spans, Work, span_id};

/// The parent's span is known, and whether it is of another process.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Spans on their way into messages.
#[derive(Debug)]
pub(crate) struct SpanEncoder<'a> {
    resource: &'a Resource,
    sites: &'a Sites,
    clock: Clock,
    batch: Batch<Span>,
}

impl<'a> SpanEncoder<'a> {
    pub(crate) fn new(resource: &'a Resource, sites: &'a Sites) -> Self {
        Self {
            resource,
            sites,
            clock: Clock::now(),
            batch: Batch::default(),
        }
    }

    /// Adds a request; returns a message when there is enough for one.
    pub(crate) fn add(&mut self, trace: &OpenTrace, spans: &Spans) -> Option<Message> {
        self.batch.push(self.root(trace, spans));
        for child in &spans.children {
            self.batch.push(self.child(trace, spans, child));
        }
        self.batch.is_full().then(|| self.message()).flatten()
    }

    /// What has not been returned yet as a message.
    pub(crate) fn message(&mut self) -> Option<Message> {
        let resource = self.resource;
        self.batch.message(|spans| ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope()),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        })
    }

    fn root(&self, trace: &OpenTrace, spans: &Spans) -> Span {
        let root = &spans.root;
        let parent = trace.parent;
        let remote = parent.map_or(0, |_| IS_REMOTE);
        let parent = parent.map(|parent| id(parent.context.span_id));
        let failed = !root.error.is_empty() && root.error != "client_gone";
        let is_matched = !root.route.starts_with('<');
        Span {
            span_id: id(trace.context.span_id),
            trace_state: trace.tracestate.clone(),
            parent_span_id: parent.unwrap_or_default(),
            flags: u32::from(trace.flags()) | HAS_IS_REMOTE | remote,
            name: if is_matched {
                format!("{} {}", root.method, root.route)
            } else {
                root.method.to_owned()
            },
            kind: SpanKind::Server.into(),
            attributes: root_attributes(trace, root, spans.beyond),
            status: status(failed),
            ..self.span(trace, Duration::ZERO, root.elapsed)
        }
    }

    fn child(&self, trace: &OpenTrace, spans: &Spans, child: &Child) -> Span {
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
        let mut span = Span {
            parent_span_id: id(parent),
            flags: u32::from(trace.flags()) | HAS_IS_REMOTE,
            kind: SpanKind::Internal.into(),
            ..self.span(trace, child.start, child.elapsed)
        };
        match &child.work {
            Work::Query { site, error, rows } => {
                self.name(&mut span, *site);
                span.status = status(!error.is_empty());
                span.attributes.push(if error.is_empty() {
                    number("db.response.returned_rows", *rows)
                } else {
                    attribute("error.type", error)
                });
            }
            Work::Lookup {
                site,
                result,
                class,
            } => {
                self.name(&mut span, *site);
                span.attributes.push(attribute("cache.result", result));
                span.attributes.push(attribute("cache.class", class));
            }
            Work::Load { site, failed } => {
                self.name(&mut span, *site);
                span.status = status(*failed);
            }
            Work::Host(host) => {
                host.name.clone_into(&mut span.name);
                span.span_id = id(host.span_id);
                let target = [attribute("code.namespace", host.target)];
                let fields = redact::fields(&host.fields);
                let fields = fields.map(|(key, value)| text(key, value));
                span.attributes = target.into_iter().chain(fields).collect();
            }
        }
        if span.span_id.is_empty() {
            span.span_id = id(span_id());
        }
        span
    }

    fn name(&self, span: &mut Span, site: Site) {
        if let Some(names) = self.sites.get(site) {
            names.name.clone_into(&mut span.name);
            let attributes = names.attributes.iter();
            span.attributes = attributes.map(|(key, value)| text(key, value)).collect();
            if names.is_client {
                span.kind = SpanKind::Client.into();
            }
        }
    }

    /// What all spans of a request have in common; `start` is after the request's.
    fn span(&self, trace: &OpenTrace, start: Duration, elapsed: Duration) -> Span {
        let start = self
            .clock
            .unix_nanos(trace.began)
            .saturating_add(whole_nanos(start));
        Span {
            trace_id: trace.context.trace_id.to_be_bytes().to_vec(),
            start_time_unix_nano: start,
            end_time_unix_nano: start.saturating_add(whole_nanos(elapsed)),
            ..Span::default()
        }
    }
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

fn status(failed: bool) -> Option<Status> {
    failed.then(|| Status {
        code: StatusCode::Error.into(),
        ..Status::default()
    })
}

fn id(span_id: u64) -> Vec<u8> {
    span_id.to_be_bytes().to_vec()
}
