//! The trace of the running request: begun with it, joined by its queries and cache operations, handed on to
//! whoever it calls.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cache::Tier;
use super::query::QueryLabels;
use super::scope;
use crate::store::Store;
use crate::store::label;
use crate::store::metrics::TraceContext;
pub(crate) use crate::store::traces::Site;
use crate::store::traces::context::{self, Parent};
use crate::store::traces::{Child, Incoming, OpenTrace, Root, SiteNames, Work};

/// Where a request stands in its trace.
#[derive(Debug)]
pub(crate) enum Traced {
    /// The agent keeps no spans: what the caller keeps is all there is.
    Elsewhere(Option<TraceContext>),
    Here(Arc<OpenTrace>),
}

/// What code below the layer writes its work to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watch(Option<Arc<OpenTrace>>);

/// A piece of a request's work that has begun.
#[derive(Debug)]
pub(crate) struct Begun(Option<Open>);

/// How long a piece of work took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took<'a> {
    pub(crate) store: &'a Store,
    pub(crate) began: Instant,
    pub(crate) elapsed: Duration,
}

#[derive(Debug)]
struct Open {
    trace: Arc<OpenTrace>,
    parent: u64,
}

/// What is known of a request at its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended<'a> {
    pub(crate) method: &'static str,
    pub(crate) route: &'a Arc<str>,
    pub(crate) scheme: &'static str,
    pub(crate) status: u16,
    pub(crate) error: &'static str,
    pub(crate) elapsed: Duration,
    pub(crate) sent_bytes: u64,
}

impl Traced {
    /// Begins the trace of a request; `header` finds one, all its lines joined by commas.
    pub(crate) fn begin<'a>(
        store: &Store,
        began: Instant,
        target: &str,
        header: impl Fn(&'static str) -> Option<Cow<'a, str>>,
    ) -> Self {
        let parent = header("traceparent");
        let parent = parent.as_deref();
        if !store.traces.is_on() {
            return Self::Elsewhere(parent.and_then(TraceContext::sampled_from_traceparent));
        }
        let parent = parent.and_then(Parent::read);
        let tracestate = parent.and_then(|_| header("tracestate"));
        let baggage = header("baggage");
        let incoming = Incoming {
            parent,
            tracestate: tracestate.as_deref().unwrap_or_default(),
            baggage: baggage.as_deref().unwrap_or_default(),
            target,
        };
        let trace = store.traces.begin(began, incoming);
        trace.map_or(Self::Elsewhere(None), Self::Here)
    }

    /// Where CPU samples of the request belong.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        match self {
            Self::Elsewhere(context) => *context,
            Self::Here(trace) => Some(trace.context),
        }
    }

    pub(crate) fn watch(&self) -> Watch {
        match self {
            Self::Elsewhere(_) => Watch(None),
            Self::Here(trace) => Watch(Some(Arc::clone(trace))),
        }
    }

    /// The request is over; returns where its span is, if that is kept.
    pub(crate) fn end(&mut self, store: &Store, ended: Ended<'_>) -> Option<TraceContext> {
        let trace = match std::mem::replace(self, Self::Elsewhere(None)) {
            Self::Elsewhere(context) => return context,
            Self::Here(trace) => trace,
        };
        let context = trace.context;
        let Ended { error, elapsed, .. } = ended;
        let is_kept = store.traces.end(trace, error, elapsed, |keep| Root {
            method: ended.method,
            route: Arc::clone(ended.route),
            scheme: ended.scheme,
            status: ended.status,
            error,
            elapsed,
            sent_bytes: ended.sent_bytes,
            keep,
        });
        is_kept.then_some(context)
    }
}

/// Does something with the record of the running request, if that is traced, and by this store.
pub(super) fn with_running<T>(
    store: &Arc<Store>,
    act: impl FnOnce(&Arc<OpenTrace>) -> T,
) -> Option<T> {
    let done = scope::with(|scope| {
        let trace = scope.watch().0.as_ref()?;
        let (own, _) = scope.seat()?;
        Arc::ptr_eq(own, store).then(|| act(trace))
    });
    done.flatten()
}

impl Begun {
    /// A piece of work that begins now in the running request, if that is traced, and by this store.
    pub(crate) fn now(store: &Arc<Store>) -> Self {
        Self(with_running(store, |trace| Open {
            trace: Arc::clone(trace),
            // A span of the host's own that is entered is nearer than the request's.
            parent: label::current().trace.span_id,
        }))
    }

    /// It was a statement, and has ended; `error` is empty where it succeeded.
    pub(crate) fn query(&mut self, took: Took<'_>, site: Site, error: &'static str, rows: u64) {
        self.end(took, Work::Query { site, error, rows });
    }

    /// It was a lookup in a cache, and has ended.
    pub(crate) fn lookup(
        &mut self,
        took: Took<'_>,
        site: Site,
        result: &'static str,
        class: &'static str,
    ) {
        self.end(
            took,
            Work::Lookup {
                site,
                result,
                class,
            },
        );
    }

    /// It was a load from behind a cache, and has ended.
    pub(crate) fn load(&mut self, took: Took<'_>, site: Site, failed: bool) {
        self.end(took, Work::Load { site, failed });
    }

    fn end(&mut self, took: Took<'_>, work: Work) {
        if let Some(Open { trace, parent }) = self.0.take() {
            let child = Child {
                parent,
                start: took.began.saturating_duration_since(trace.began),
                elapsed: took.elapsed,
                work,
            };
            took.store.traces.add(&trace, child);
        }
    }
}

/// What the spans of a statement say.
pub(crate) fn query_site(store: &Store, labels: QueryLabels) -> Site {
    let attributes = [
        ("db.system.name", labels.system),
        ("db.namespace", labels.namespace),
        ("db.operation.name", labels.operation),
        ("db.collection.name", labels.collection),
        ("db.query.summary", labels.summary),
    ];
    site(store, labels.summary.to_owned(), &attributes, true)
}

/// What the spans of a cache's operation say.
pub(crate) fn cache_site(store: &Store, name: &str, tier: Tier, operation: &str) -> Site {
    let level = tier.word();
    let attributes = [
        ("cache.name", name),
        ("cache.level", level),
        ("cache.operation", operation),
    ];
    let title = format!("cache {operation} {name} {level}");
    site(store, title, &attributes, tier != Tier::L1)
}

fn site(store: &Store, name: String, attributes: &[(&'static str, &str)], is_client: bool) -> Site {
    let attributes = attributes.iter().filter(|(_, value)| !value.is_empty());
    store.traces.sites.add(SiteNames {
        name,
        attributes: attributes
            .map(|(key, value)| (*key, (*value).to_owned()))
            .collect(),
        is_client,
    })
}

/// Hands the running request's trace on: calls `set` with the name and the value of each header that an
/// outgoing request shall carry.
///
/// These are `traceparent`, and `tracestate` and `baggage` where the request came with them in good order.
/// Outside of a request that is traced there are none. Whether the sampled flag is set was decided at the
/// request's start; one that is kept for what happened later goes on unsampled, and its span says so in
/// `keep.reason`.
///
/// # Cost
/// One allocation of 55 bytes.
///
/// ```
/// let mut headers: Vec<(String, String)> = Vec::new();
/// streamgate_agent::inject_trace_context(|name, value| {
///     headers.push((name.to_owned(), value.to_owned()));
/// });
/// assert!(headers.is_empty(), "outside of a request");
/// ```
pub fn inject_trace_context(mut set: impl FnMut(&'static str, &str)) {
    let running = scope::with(|scope| scope.watch().0.clone());
    let Some(trace) = running.flatten() else {
        return;
    };
    let inside = label::current().trace;
    let span_id = if inside.trace_id == trace.context.trace_id {
        inside.span_id
    } else {
        trace.context.span_id
    };
    let context = TraceContext {
        span_id,
        ..trace.context
    };
    set("traceparent", &context::traceparent(context, trace.flags()));
    for (name, value) in [
        ("tracestate", &trace.tracestate),
        ("baggage", &trace.baggage),
    ] {
        if !value.is_empty() {
            set(name, value);
        }
    }
}
