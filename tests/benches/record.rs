//! What recording one finished request costs: ours against the handles of other crates.
//!
//! The same 4,096 requests over 48 series go to every contender, round by round in turn, so that a
//! busy machine slows all of them. Run with `cargo bench -p streamgate-agent --bench record`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a bench prints, and stops where its set-up fails"
)]

#[path = "measure.rs"]
mod measure;

use std::sync::Barrier;
use std::time::Duration;

use measure::{Cost, Row, cost};
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use prometheus_client::metrics::counter::Counter as ClientCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram as ClientHistogram;
use streamgate_agent::TraceContext;
use streamgate_agent::bench_door::{Core, Metric};

const EVENTS: usize = 4_096;
const ROUNDS: usize = 15;
/// Times that the events are recorded in a round.
const REPEATS: usize = 64;
const LABELS: [&str; 3] = ["method", "route", "status"];
const SECONDS: [f64; 21] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25, 0.3, 0.4, 0.5,
    0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

#[derive(Debug, Clone, Copy)]
struct Event {
    series: usize,
    duration: Duration,
    /// One request of a hundred has a kept span.
    trace: Option<TraceContext>,
}

/// Durations of a log-normal shape around 40 ms, made by a fixed generator.
fn events() -> Vec<Event> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..EVENTS)
        .map(|place| {
            let normal = (0..12).map(|_| random()).sum::<f64>() - 6.0;
            let trace = (place % 100 == 0).then_some(TraceContext {
                trace_id: place as u128 + 1,
                span_id: place as u64 + 1,
            });
            Event {
                series: (random() * 48.0) as usize,
                duration: Duration::from_secs_f64(0.04 * normal.exp()),
                trace,
            }
        })
        .collect()
}

fn label_sets() -> Vec<[&'static str; 3]> {
    let mut sets = Vec::new();
    for method in ["GET", "PUT", "POST", "DELETE"] {
        for route in ["/", "/content/{id}", "/users/{id}", "/healthz"] {
            for status in ["200", "404", "500"] {
                sets.push([method, route, status]);
            }
        }
    }
    sets
}

/// Records all events once.
type Recorder<'a> = Box<dyn Fn(&[Event]) + Sync + 'a>;

struct Idle;

impl PushMetricExporter for Idle {
    async fn export(&self, _: &ResourceMetrics) -> OTelSdkResult {
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

fn ours() -> (Recorder<'static>, Recorder<'static>, Recorder<'static>) {
    static REQUESTS: Metric = Metric::counter("bench_requests_total", "Requests.").labels(&LABELS);
    let core = Core::new(1_000);
    let sets = label_sets();
    let with_exemplars: Vec<_> = sets
        .iter()
        .map(|[method, route, status]| core.request(&[method, route, status, "http"]).unwrap())
        .collect();
    let with_counter: Vec<_> = with_exemplars
        .iter()
        .cloned()
        .zip(&sets)
        .map(|(histogram, set)| (core.counter(&REQUESTS, set).unwrap(), histogram))
        .collect();
    let untraced = with_exemplars.clone();
    (
        Box::new(move |events| {
            for event in events {
                with_exemplars[event.series].record_traced(event.duration, event.trace);
            }
        }),
        Box::new(move |events| {
            for event in events {
                untraced[event.series].record_traced(event.duration, None);
            }
        }),
        Box::new(move |events| {
            for event in events {
                let (counter, histogram) = &with_counter[event.series];
                counter.inc();
                histogram.record_traced(event.duration, event.trace);
            }
        }),
    )
}

fn prometheus() -> (Recorder<'static>, Recorder<'static>) {
    let options = prometheus::Opts::new("requests_total", "Requests.");
    let counters = prometheus::IntCounterVec::new(options, &LABELS).unwrap();
    let options = prometheus::HistogramOpts::new("duration_seconds", "Duration.");
    let options = options.buckets(SECONDS.to_vec());
    let histograms = prometheus::HistogramVec::new(options, &LABELS).unwrap();
    let sets = label_sets();
    let resolved: Vec<_> = sets
        .iter()
        .map(|set| {
            (
                counters.with_label_values(set),
                histograms.with_label_values(set),
            )
        })
        .collect();
    (
        Box::new(move |events| {
            for event in events {
                let (counter, histogram) = &resolved[event.series];
                counter.inc();
                histogram.observe(event.duration.as_secs_f64());
            }
        }),
        Box::new(move |events| {
            for event in events {
                let set = &sets[event.series];
                counters.with_label_values(set).inc();
                let seconds = event.duration.as_secs_f64();
                histograms.with_label_values(set).observe(seconds);
            }
        }),
    )
}

fn prometheus_client() -> (Recorder<'static>, Recorder<'static>) {
    type Set = Vec<(String, String)>;
    let counters = Family::<Set, ClientCounter>::default();
    let histograms =
        Family::<Set, ClientHistogram>::new_with_constructor(|| ClientHistogram::new(SECONDS));
    let sets: Vec<Set> = label_sets()
        .iter()
        .map(|set| {
            let pair = |(name, value): (&&str, &&str)| ((*name).to_owned(), (*value).to_owned());
            LABELS.iter().zip(set).map(pair).collect()
        })
        .collect();
    let resolved: Vec<_> = sets
        .iter()
        .map(|set| {
            (
                counters.get_or_create_owned(set),
                histograms.get_or_create_owned(set),
            )
        })
        .collect();
    (
        Box::new(move |events| {
            for event in events {
                let (counter, histogram) = &resolved[event.series];
                counter.inc();
                histogram.observe(event.duration.as_secs_f64());
            }
        }),
        Box::new(move |events| {
            for event in events {
                let set = &sets[event.series];
                counters.get_or_create(set).inc();
                let seconds = event.duration.as_secs_f64();
                histograms.get_or_create(set).observe(seconds);
            }
        }),
    )
}

fn opentelemetry() -> Recorder<'static> {
    let reader = PeriodicReader::builder(Idle)
        .with_interval(Duration::from_secs(3_600))
        .build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    let meter = provider.meter("bench");
    let counter = meter.u64_counter("requests").build();
    let histogram = meter
        .f64_histogram("duration")
        .with_boundaries(SECONDS.to_vec())
        .build();
    let sets: Vec<Vec<KeyValue>> = label_sets()
        .iter()
        .map(|set| {
            LABELS
                .iter()
                .zip(set)
                .map(|(name, value)| KeyValue::new(*name, *value))
                .collect()
        })
        .collect();
    Box::new(move |events| {
        // The provider stops its instruments when it is dropped.
        let _held = &provider;
        for event in events {
            let set = &sets[event.series];
            counter.add(1, set);
            histogram.record(event.duration.as_secs_f64(), set);
        }
    })
}

/// One round on this many threads at once; the CPU of all, the wall time of the slowest.
fn round(recorder: &Recorder<'_>, events: &[Event], threads: usize) -> Cost {
    let barrier = Barrier::new(threads);
    let run = || {
        // The first pass gives a new thread its cells.
        recorder(events);
        barrier.wait();
        cost(|| (0..REPEATS).for_each(|_| recorder(events)))
    };
    let costs: Vec<Cost> = std::thread::scope(|scope| {
        let running: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let own = run();
        let others = running.into_iter().map(|thread| thread.join().unwrap());
        others.chain([own]).collect()
    });
    Cost {
        cpu: costs.iter().map(|cost| cost.cpu).sum::<Duration>() / threads as u32,
        wall: costs.iter().map(|cost| cost.wall).max().unwrap(),
    }
}

fn main() {
    let events = events();
    let (with_exemplars, untraced, with_counter) = ours();
    let (resolved, looked_up) = prometheus();
    let (client_resolved, client_family) = prometheus_client();
    let against = "prometheus, pre-resolved";
    let contenders = [
        ("ours: histogram, 1 % traced", with_exemplars),
        ("ours: histogram, none traced", untraced),
        ("ours: counter + histogram, 1 % traced", with_counter),
        (against, resolved),
        ("prometheus, with_label_values", looked_up),
        ("prometheus-client, pre-resolved", client_resolved),
        ("prometheus-client, Family", client_family),
        ("OpenTelemetry SDK, one reader", opentelemetry()),
    ];
    for threads in [1, 2] {
        let mut costs = vec![Vec::new(); contenders.len()];
        for _ in 0..ROUNDS {
            for ((_, recorder), costs) in contenders.iter().zip(&mut costs) {
                costs.push(round(recorder, &events, threads));
            }
        }
        let rows: Vec<Row> = contenders
            .iter()
            .zip(&costs)
            .map(|((name, _), costs)| Row::new(name, costs, (EVENTS * REPEATS) as f64))
            .collect();
        let title = format!("One finished request, {threads} thread(s), {ROUNDS} rounds");
        measure::print(&title, &rows, against, 1.0, "ns");
    }
}
