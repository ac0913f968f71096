//! One request from its head to its last byte: the record that a layer carries along.
//!
//! Recorded exactly once: when the body ends, or in `Drop`, since an abort, a panic and a timeout
//! leave no other trace.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::method::{self, Method};
use super::routes::{Abort, Outcome, Route, Routes, method_labels};
use super::scope::Scope;
use super::traces::{Ended, Traced};
use crate::catalog::families as rows;
use crate::store::Store;
use crate::store::label::{Mark, Trace};
use crate::store::metrics::{Held, UpDown};

/// What all requests of a host share.
#[derive(Debug)]
pub(crate) struct Requests {
    store: Arc<Store>,
    pub(crate) routes: Arc<Routes>,
    active: [OnceLock<UpDown>; method::COUNT * SCHEMES.len()],
}

const SCHEMES: [&str; 2] = ["http", "https"];

/// What is known of a request when its head has been read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) https: bool,
    pub(crate) content_length: Option<u64>,
}

impl Requests {
    pub(crate) fn new(store: Arc<Store>, routes: Arc<Routes>) -> Self {
        Self {
            store,
            routes,
            active: [const { OnceLock::new() }; method::COUNT * SCHEMES.len()],
        }
    }

    /// Starts the clock of a request; `target` is its path and query, and `header` finds one, all its lines
    /// joined by commas.
    pub(crate) fn begin<'a>(
        self: &Arc<Self>,
        head: Head,
        target: &str,
        header: impl Fn(&'static str) -> Option<Cow<'a, str>>,
    ) -> RequestRecord {
        let started = Instant::now();
        RequestRecord {
            traced: Traced::begin(&self.store, started, target, header),
            requests: Arc::clone(self),
            head,
            started,
            first_byte: None,
            status: 0,
            route: None,
            queries: 0,
            sent: 0,
            done: false,
            _active: self.active(head).map(UpDown::hold),
        }
    }

    fn active(&self, head: Head) -> Option<&UpDown> {
        let scheme = usize::from(head.https);
        let place = self
            .active
            .get(head.method.place() * SCHEMES.len() + scheme)?;
        if let Some(active) = place.get() {
            return Some(active);
        }
        let labels = [head.method.name(), scheme_name(head.https)];
        let active = self
            .store
            .metrics
            .own_up_down(&rows::HTTP_SERVER_ACTIVE_REQUESTS, &labels);
        Some(place.get_or_init(|| active))
    }
}

fn scheme_name(https: bool) -> &'static str {
    if https { "https" } else { "http" }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Complete,
    /// The host's service returned an error instead of a response.
    ServiceError,
    Aborted(Abort),
}

#[derive(Debug)]
pub(crate) struct RequestRecord {
    requests: Arc<Requests>,
    head: Head,
    traced: Traced,
    started: Instant,
    first_byte: Option<Instant>,
    status: u16,
    route: Option<Arc<Route>>,
    queries: u32,
    sent: u64,
    done: bool,
    _active: Option<Held>,
}

impl RequestRecord {
    /// The response head is there.
    pub(crate) fn responded(&mut self, status: u16) {
        self.first_byte = Some(Instant::now());
        self.status = status;
    }

    /// The scope of code below the layer; `template` is the route if it is known.
    pub(crate) fn scope(&self, template: Option<&str>) -> Box<Scope> {
        let mark = Mark {
            set: method_labels(self.head.method),
            trace: self
                .traced
                .context()
                .map_or_else(Trace::default, |context| Trace {
                    trace_id: context.trace_id,
                    span_id: context.span_id,
                }),
        };
        let store = Arc::clone(&self.requests.store);
        let watch = self.traced.watch();
        let scope = Scope::serving(store, self.head.method, mark, self.started, watch);
        if let Some(template) = template {
            scope.set_route(&self.requests.routes.get(template));
        }
        Box::new(scope)
    }

    /// Takes over what code below the layer has said of the request.
    pub(crate) fn absorb(&mut self, scope: &Scope) {
        if let Some(route) = scope.route() {
            self.route = Some(route);
        }
        self.queries = scope.queries();
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    pub(crate) fn bytes_sent(&self) -> u64 {
        self.sent
    }

    /// Says whether the answer has no body on the wire, whatever its headers announce.
    pub(crate) fn is_bodyless(&self) -> bool {
        self.head.method.is_head() || matches!(self.status, 204 | 304)
    }

    /// Writes the request down; later calls and the drop do nothing.
    pub(crate) fn end(&mut self, end: End) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let elapsed = self.started.elapsed();
        let route = self
            .route
            .take()
            .unwrap_or_else(|| self.requests.routes.unmatched());
        if let End::Aborted(abort) = end {
            route.count_abort(abort);
        }
        let outcome = Outcome {
            method: self.head.method,
            status: self.status,
            scheme: scheme_name(self.head.https),
            error: error_type(self.status, end),
        };
        let series = route.series(outcome);
        let ended = Ended {
            method: outcome.method.name(),
            route: route.template(),
            scheme: outcome.scheme,
            status: outcome.status,
            error: outcome.error,
            elapsed,
            sent_bytes: self.sent,
        };
        let kept = self.traced.end(&self.requests.store, ended);
        series.duration.record_traced(elapsed, kept);
        if let Some(bytes) = self.head.content_length {
            series.request_size.record_value(bytes);
        }
        if let Some(first_byte) = self.first_byte {
            series
                .first_byte
                .record(first_byte.duration_since(self.started));
            series.response_size.record_value(self.sent);
        }
        if self.queries > 0 {
            route.count_queries(self.queries);
        }
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let panics = std::thread::panicking();
        self.end(End::Aborted(if panics {
            Abort::Panic
        } else {
            Abort::Client
        }));
    }
}

/// Source: OpenTelemetry HTTP semantic conventions, `error.type`: the status code of a server
/// error, else a low-cardinality word for what happened.
fn error_type(status: u16, end: End) -> &'static str {
    match (end, status) {
        (End::ServiceError, _) => "service_error",
        (End::Aborted(Abort::Client), _) => "client_gone",
        (End::Aborted(Abort::BodyError), _) => "body_error",
        (End::Aborted(Abort::Panic), _) => "panic",
        (End::Aborted(Abort::Timeout), _) => "timeout",
        (End::Complete, 500) => "500",
        (End::Complete, 501) => "501",
        (End::Complete, 502) => "502",
        (End::Complete, 503) => "503",
        (End::Complete, 504) => "504",
        (End::Complete, 500..) => "5xx",
        (End::Complete, _) => "",
    }
}
