//! Sends what a collector shall have, on a thread of the agent's own.
//!
//! The only connections that the agent opens itself. A collector that is gone or slow costs the host
//! nothing: nobody waits for this thread.

#[cfg_attr(not(feature = "otlp-grpc"), path = "grpc_off.rs")]
mod grpc;
#[cfg(feature = "otlp-profiles")]
pub(crate) mod otlp_profiles;
pub(in crate::export) mod post;
#[cfg(feature = "otlp-profiles")]
pub(crate) mod profiles;
#[cfg(feature = "otlp-profiles")]
pub(crate) mod pyroscope;
#[cfg(feature = "otlp-profiles")]
mod windows;

use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::otlp::attribute;
use super::otlp::metrics::{HistogramForm, Push};
use crate::catalog::families;
use crate::config;
use crate::config::otlp::Otlp;
use crate::store::Store;
use crate::store::demand::{Demand, Outcome as Asked};
use crate::store::metrics::{Histogram, unix_nanos_now};

use post::{Outcome, Post};

/// Bytes of one message. Receivers refuse more than 4 MiB by gRPC and some by HTTP too.
const MESSAGE_BYTES: usize = 4 << 20;
/// The longest that a collector may have us wait; a number of seconds is easily one digit too long.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
const COMPONENT: &str = "otlp_http_metric_exporter";

/// Pushes all numbers, each time as they are then: what a collector misses, the next push holds.
pub(crate) struct MetricsPush {
    store: Arc<Store>,
    post: Post,
    resource: Resource,
    start_unix_nanos: u64,
    interval: Duration,
    histograms: HistogramForm,
    took: Histogram,
    due: Instant,
}

impl MetricsPush {
    /// `None` where metrics are not to be pushed.
    pub(crate) fn new(store: &Arc<Store>, otlp: &Otlp, resource: Resource) -> Option<Self> {
        let target = otlp.metrics.clone()?;
        let row = &families::OTEL_EXPORTER_OPERATION_DURATION;
        Some(Self {
            took: store.metrics.own_histogram(row, &[COMPONENT]),
            store: Arc::clone(store),
            post: Post::new(target),
            resource,
            start_unix_nanos: unix_nanos_now(),
            interval: otlp.interval,
            histograms: if otlp.exponential {
                HistogramForm::Exponential
            } else {
                HistogramForm::Explicit
            },
            due: Instant::now() + otlp.interval,
        })
    }

    /// Pushes if it is time, and returns how long until it is again.
    pub(crate) fn turn(&mut self) -> Duration {
        let now = Instant::now();
        if now >= self.due {
            self.refresh();
            let wait = self.push(Duration::MAX);
            self.due = now + self.interval.max(wait);
        }
        self.due.saturating_duration_since(Instant::now())
    }

    /// Has the readings made that a scrape would have made, and waits as long as a scrape does.
    fn refresh(&self) {
        let deadline = Instant::now() + config::REFRESH_WAIT;
        // With no place left, scrapes are having them made.
        if let Ok(demand) = self.store.refresh.ask((), deadline) {
            answered(demand, deadline);
        }
    }

    /// Pushes now, for at most `most`, and returns how long the collector wants to be left alone. One message
    /// at a time is made, beside the snapshot and the collector's own answer all the memory that it takes.
    pub(crate) fn push(&self, most: Duration) -> Duration {
        let began = Instant::now();
        let snapshot = self.store.metrics.snapshot();
        let push = Push {
            resource: &self.resource,
            start_unix_nanos: self.start_unix_nanos,
            // A clock that was set back must not have series end before they begin.
            unix_nanos: unix_nanos_now().max(self.start_unix_nanos),
            histograms: self.histograms,
        };
        let foreign = self.store.foreign.get();
        let mut messages = push.messages(&snapshot, &foreign, MESSAGE_BYTES);
        while let Some(message) = messages.next() {
            let points = points(&message);
            let body = message.encode_to_vec();
            drop(message);
            let started = Instant::now();
            let outcome = self.post.send(&body, most.saturating_sub(began.elapsed()));
            self.took.record(started.elapsed());
            match outcome {
                Outcome::Accepted { rejected } => {
                    let rejected = rejected.min(points);
                    self.count(points - rejected, "");
                    self.count(rejected, "rejected");
                    self.say_success();
                }
                Outcome::Refused { why } => self.count(points, &why),
                // What is left would fare no better, and the next push holds all that this one did.
                Outcome::Later { why, after } => {
                    let left = messages.map(|message| self::points(&message));
                    self.count(points + left.sum::<u64>(), &why);
                    return after.unwrap_or_default().min(LONGEST_WAIT);
                }
            }
        }
        Duration::ZERO
    }

    fn count(&self, points: u64, error_type: &str) {
        if points > 0 {
            let row = &families::OTEL_EXPORTED_METRIC_POINTS;
            let counter = self
                .store
                .metrics
                .own_counter(row, &[COMPONENT, error_type]);
            counter.add(points);
        }
    }

    fn say_success(&self) {
        let row = &families::AGENT_LAST_SUCCESS;
        let gauge = self.store.metrics.own_gauge(row, &["metrics"]);
        gauge.set(unix_nanos_now() as f64 / 1e9);
    }
}

/// Waits on the calling thread, which has no runtime; `None`: nobody answered in time.
fn answered<W, A: Clone>(demand: Demand<W, A>, until: Instant) -> Option<A> {
    let mut demand = pin!(demand);
    let waker = Waker::from(Arc::new(Wakes(thread::current())));
    loop {
        let polled = demand.as_mut().poll(&mut Context::from_waker(&waker));
        let left = until.saturating_duration_since(Instant::now());
        match polled {
            Poll::Ready(Asked::Answered(answer)) => return Some(answer),
            Poll::Ready(Asked::Expired) => return None,
            Poll::Pending if left.is_zero() => return None,
            Poll::Pending => thread::park_timeout(left),
        }
    }
}

/// Ends a thread's wait for an answer.
struct Wakes(Thread);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Data points of a message.
fn points(message: &ExportMetricsServiceRequest) -> u64 {
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    let scopes = message
        .resource_metrics
        .iter()
        .flat_map(|one| &one.scope_metrics);
    let metrics = scopes.flat_map(|scope| &scope.metrics);
    let points = metrics.map(|metric| match &metric.data {
        Some(Data::Gauge(held)) => held.data_points.len(),
        Some(Data::Sum(held)) => held.data_points.len(),
        Some(Data::Histogram(held)) => held.data_points.len(),
        Some(Data::ExponentialHistogram(held)) => held.data_points.len(),
        Some(Data::Summary(held)) => held.data_points.len(),
        None => 0,
    });
    points.map(|points| points as u64).sum()
}

/// What the numbers are of: the service, the process, the machine, and what the host says beside.
pub(crate) fn resource<'a>(
    own: impl IntoIterator<Item = (&'a str, &'a str)>,
    otlp: &'a Otlp,
) -> Resource {
    let said = otlp
        .attributes
        .iter()
        .map(|(key, value)| (&**key, &**value));
    let service = otlp.service.as_deref().map(|name| ("service.name", name));
    // The host's attributes come before what was found, and the service's name before theirs.
    let all = own.into_iter().chain(said).chain(service);
    let all: std::collections::BTreeMap<&str, &str> =
        all.filter(|(_, value)| !value.is_empty()).collect();
    // The conventions want a number here, and only here.
    let numbers = ["process.pid", "process.parent_pid"];
    let number = |key: &str, value: &str| value.parse().ok().filter(|_| numbers.contains(&key));
    let all = all
        .into_iter()
        .map(|(key, value)| match number(key, value) {
            Some(number) => KeyValue {
                value: Some(AnyValue {
                    value: Some(any_value::Value::IntValue(number)),
                }),
                ..attribute(key, "")
            },
            None => attribute(key, value),
        });
    Resource {
        attributes: all.collect(),
        ..Resource::default()
    }
}

#[cfg(test)]
pub(in crate::export) mod tests;
