//! The host's `tracing` spans and events as spans and log records of the running request.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::subscriber::Interest;
use tracing_core::{Event, Level, LevelFilter, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use super::bounded_text::bounded;
use super::entered::Entered;
use super::traces::with_running;
use crate::store::Store;
use crate::store::label::{self, Mark, Trace};
use crate::store::metrics::TraceContext;
use crate::store::traces::{Child, HostSpan, LogRecord, OpenTrace, Severity, Work, span_id};

/// Fields of a span or an event that are written down.
const FIELDS: usize = 32;
/// Bytes of a field.
const FIELD_BYTES: usize = 1 << 10;
/// Bytes of what an event says.
const BODY_BYTES: usize = 2 << 10;

/// The layer, behind its filter.
pub(crate) fn layer<S>(store: Arc<Store>, level: Level) -> impl Layer<S> + Send + Sync + 'static
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let filter = UpTo {
        store: Arc::clone(&store),
        level,
    };
    HostSpans { store }.with_filter(filter)
}

#[derive(Debug)]
struct HostSpans {
    store: Arc<Store>,
}

/// Lets through what is at most this verbose; spans only in a request.
#[derive(Debug)]
struct UpTo {
    store: Arc<Store>,
    level: Level,
}

/// A span of the host's that is open.
struct Open {
    trace: Arc<OpenTrace>,
    began: Instant,
    parent: u64,
    span: HostSpan,
}

thread_local! {
    static ENTERED: RefCell<Entered<Trace>> = RefCell::default();
}

fn with<T>(act: impl FnOnce(&mut Entered<Trace>) -> Option<T>) -> Option<T> {
    // Thread-locals may be gone while a thread ends; then nothing is traced any more.
    ENTERED
        .try_with(|entered| act(&mut *entered.try_borrow_mut().ok()?))
        .ok()
        .flatten()
}

impl UpTo {
    /// Beside what is more verbose: what OpenTelemetry's crates say. Ours say something for each message that
    /// they make, also for one that holds nothing but what they said for the last.
    fn is_left_out(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() > self.level || metadata.target().starts_with("opentelemetry")
    }
}

impl<S> Filter<S> for UpTo {
    fn enabled(&self, metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        // An event outside of a request is a log record all the same.
        !self.is_left_out(metadata)
            && (metadata.is_event() || with_running(&self.store, |_| ()).is_some())
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.is_left_out(metadata) {
            Interest::never()
        } else {
            Interest::sometimes()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.level))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for HostSpans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let running = with_running(&self.store, Arc::clone);
        let (Some(trace), Some(span)) = (running, context.span(id)) else {
            return;
        };
        let named = attributes.parent().and_then(|parent| context.span(parent));
        let named = named.and_then(|parent| {
            let held = parent.extensions();
            held.get::<Open>().map(|open| open.span.span_id)
        });
        let metadata = attributes.metadata();
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(Open {
            parent: named.unwrap_or_else(|| label::current().trace.span_id),
            trace,
            began: Instant::now(),
            span: HostSpan {
                span_id: span_id(),
                name: metadata.name(),
                target: metadata.target(),
                fields: fields.held,
            },
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(open) = span.extensions_mut().get_mut::<Open>()
        {
            let mut fields = Fields {
                held: std::mem::take(&mut open.span.fields),
                body: String::new(),
            };
            values.record(&mut fields);
            open.span.fields = fields.held;
        }
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let Some(logs) = self.store.traces.logs() else {
            return;
        };
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let running = with_running(&self.store, Arc::clone);
        let record = LogRecord {
            at: Instant::now(),
            severity: severity(*metadata.level()),
            target: metadata.target(),
            body: fields.body,
            fields: fields.held,
            context: running.as_ref().map(|trace| TraceContext {
                span_id: label::current().trace.span_id,
                ..trace.context
            }),
        };
        match running.filter(|_| record.severity < Severity::Warn) {
            Some(trace) => trace.log(record),
            // What went wrong is said whether or not the request is kept.
            None => logs.keep(record),
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else {
            return;
        };
        let extensions = span.extensions();
        if let Some(open) = extensions.get::<Open>() {
            let before = label::current();
            let trace = Trace {
                trace_id: open.trace.context.trace_id,
                span_id: open.span.span_id,
            };
            label::replace(Mark { trace, ..before });
            with(|entered| {
                entered.enter(id.into_u64(), before.trace);
                Some(())
            });
        }
    }

    fn on_exit(&self, id: &Id, _context: Context<'_, S>) {
        if let Some(trace) = with(|entered| entered.exit(id.into_u64())) {
            label::replace(Mark {
                trace,
                ..label::current()
            });
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let open = context.span(&id);
        let open = open.and_then(|span| span.extensions_mut().remove::<Open>());
        if let Some(open) = open {
            let child = Child {
                parent: open.parent,
                start: open.began.saturating_duration_since(open.trace.began),
                elapsed: open.began.elapsed(),
                work: Work::Host(Box::new(open.span)),
            };
            self.store.traces.add(&open.trace, child);
        }
    }
}

fn severity(level: Level) -> Severity {
    match level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warn,
        Level::INFO => Severity::Info,
        Level::DEBUG => Severity::Debug,
        _ => Severity::Trace,
    }
}

/// The fields of a span or an event, as texts.
#[derive(Default)]
struct Fields {
    held: Vec<(&'static str, String)>,
    body: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: impl fmt::Display) {
        let name = field.name();
        let (place, bytes) = match name {
            "message" => (&mut self.body, BODY_BYTES),
            _ => {
                let held = self.held.iter().position(|(held, _)| *held == name);
                if held.is_none() {
                    if self.held.len() >= FIELDS {
                        return;
                    }
                    self.held.push((name, String::new()));
                }
                let place = held.unwrap_or(self.held.len().saturating_sub(1));
                let Some((_, place)) = self.held.get_mut(place) else {
                    return;
                };
                (place, FIELD_BYTES)
            }
        };
        *place = bounded(bytes, value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, value);
    }
}
