//! The end of an agent whose collector is away: it comes in time, and says to the last span what is lost.

use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use prometheus::core::Collector as _;
use streamgate_agent::{Agent, AgentHandle, CoreCollector, Otlp, Shutdown};

use crate::http_plane::{Busy, sampler, slowly};
use crate::pushing::silent;
use crate::receiver::{answers, receiver};
use crate::traces::{host, serve};

/// For an attempt; an end that waited for one would be told apart from one that did not.
const ATTEMPT: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_millis(500);
const REQUESTS: u64 = 20;
/// A request, its lookup and its statement.
const SPANS: u64 = 3 * REQUESTS;

/// An agent all of whose spans are handed over and wait for a collector that is away.
struct Host {
    agent: AgentHandle,
    books: CoreCollector,
}

impl Host {
    fn start(collector: &str, attempt: Duration) -> Self {
        let otlp = Otlp::to(collector).unwrap().timeout(attempt).unwrap();
        // The last push of metrics is the only one.
        let otlp = otlp.metrics_interval(Duration::from_secs(3600)).unwrap();
        let agent = Agent::builder("shop").no_listener().recorder(0);
        let agent = agent.otlp(otlp).start().unwrap();
        let host = host(&agent);
        (0..REQUESTS).for_each(|_| serve(&host));
        let books = agent.collector();
        slowly("all spans are handed over", || books_of(&books).0 == SPANS);
        Self { agent, books }
    }
}

/// Spans created, waiting, delivered, and lost by the end.
fn books_of(books: &CoreCollector) -> (u64, u64, u64, u64) {
    let families = books.collect();
    let total = |name: &str, label: (&str, &str)| -> u64 {
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.into_iter().flat_map(|family| family.get_metric());
        let with = |metric: &&prometheus::proto::Metric| {
            let mut labels = metric.get_label().iter();
            labels.any(|pair| (pair.name(), pair.value()) == label)
        };
        let values = metrics.filter(with).map(|metric| {
            let value = metric.get_counter().value() + metric.get_gauge().value();
            format!("{value:.0}").parse::<u64>().unwrap()
        });
        values.sum()
    };
    let exported = "otel_sdk_exporter_span_exported_total";
    (
        total(
            "otel_sdk_processor_span_processed_total",
            ("otel_component_type", "batching_span_processor"),
        ),
        total("agent_queue_items", ("signal", "spans")),
        total(exported, ("error_type", "")),
        total(exported, ("error_type", "shutdown")),
    )
}

const ALL_LOST: (u64, u64, u64, u64) = (SPANS, 0, 0, SPANS);

/// Ends an agent in some way while its collector is silent, and while nobody listens there.
fn both_ways(attempt: Duration, end: impl Fn(AgentHandle) -> Vec<Shutdown>) {
    let (silent, connections) = silent();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let closed = format!("http://{}", closed.unwrap());
    for collector in [silent, closed] {
        let Host { agent, books } = Host::start(&collector, attempt);
        let began = Instant::now();
        let reports = end(agent);
        let took = began.elapsed();
        assert!(took < attempt / 2, "{collector}: {took:?}");
        for report in &reports {
            let [spans] = &report.flushed[..] else {
                panic!("{collector}: {report:?}");
            };
            let said = (spans.signal, spans.delivered, spans.kept, spans.lost);
            assert_eq!(said, ("spans", 0, 0, SPANS), "{collector}");
        }
        // Where nobody is told, the sending thread ends with its attempt.
        slowly("the books are closed", || books_of(&books) == ALL_LOST);
    }
    drop(connections);
}

#[test]
fn from_a_current_thread_runtime_an_end_is_in_time_and_names_each_lost_span() {
    both_ways(ATTEMPT, |agent| {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        vec![runtime.unwrap().block_on(agent.shutdown(DEADLINE)).unwrap()]
    });
}

#[test]
fn a_second_end_is_in_time_and_says_what_the_first_said() {
    both_ways(ATTEMPT, |agent| {
        vec![(); 2]
            .into_iter()
            .map(|()| agent.shutdown_blocking(DEADLINE))
            .collect()
    });
}

#[test]
fn a_dropped_handle_waits_for_nothing_and_counts_each_lost_span() {
    both_ways(ATTEMPT / 3, |agent| {
        drop(agent);
        Vec::new()
    });
}

/// Ends its agent while its stack is unwound, as hosts do in a guard.
struct EndsIt(AgentHandle, Sender<Shutdown>);

impl Drop for EndsIt {
    fn drop(&mut self) {
        assert!(std::thread::panicking());
        self.1.send(self.0.shutdown_blocking(DEADLINE)).unwrap();
    }
}

#[test]
fn inside_a_panic_an_end_is_in_time_and_names_each_lost_span() {
    both_ways(ATTEMPT, |agent| {
        let (told, reports) = channel();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _guard = EndsIt(agent, told);
            panic!("a host's bug");
        }));
        assert!(panicked.is_err());
        reports.iter().collect()
    });
}

#[test]
fn an_endless_deadline_is_no_panic() {
    let agent = Agent::builder("shop").no_listener().recorder(0);
    let report = agent.start().unwrap().shutdown_blocking(Duration::MAX);
    assert_eq!(report.still_running, [""; 0]);
}

#[test]
fn an_end_pushes_the_window_of_cpu_samples_that_has_only_begun() {
    let _turn = sampler();
    let _busy = Busy::start();
    let ok = || answers("200 OK", "", &[]);
    let (collector, requests) = receiver(std::iter::repeat_with(ok));
    let otlp = Otlp::to(&collector).unwrap().timeout(ATTEMPT).unwrap();
    let agent = Agent::builder("shop").no_listener().recorder(99);
    let agent = agent.profiling_budget(0.5).otlp(otlp).start().unwrap();
    let books = agent.collector();
    let recorded = |family: &prometheus::proto::MetricFamily| {
        let metrics = family.get_metric().iter();
        metrics
            .map(|metric| metric.get_counter().value())
            .sum::<f64>()
    };
    slowly("there are samples", || {
        let families = books.collect();
        let mut families = families.iter();
        let samples = families.find(|family| family.name() == "agent_profile_samples_total");
        samples.map_or(0.0, recorded) > 20.0
    });
    // Names of a large test binary take a while where both cores are busy.
    let report = agent.shutdown_blocking(4 * ATTEMPT);
    assert_eq!(report.still_running, [""; 0]);
    let profiles = report.flushed.iter().find(|one| one.signal == "profiles");
    let profiles = profiles.map(|one| (one.delivered > 0, one.lost));
    assert_eq!(profiles, Some((true, 0)), "{report:?}");
    let mut sent = requests.try_iter();
    assert!(sent.any(|sent| sent.head.starts_with("post /v1development/profiles")));
}
