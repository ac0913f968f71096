//! What one scrape costs: ours from snapshot to text, against `prometheus` from gather to text.
//!
//! Two threads have recorded into every series, so that our snapshot has two copies to add up. Run
//! with `cargo bench -p streamgate-agent --bench scrape`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a bench prints, and stops where its set-up fails"
)]

#[path = "measure.rs"]
mod measure;

use std::sync::Barrier;
use std::time::Duration;

use measure::{Row, cost};
use prometheus::{Encoder, Registry, TextEncoder};
use streamgate_agent::bench_door::{Core, Metric};

const ROUNDS: usize = 11;
const LABELS: [&str; 4] = ["method", "route", "status", "place"];
const LIMIT: usize = 200_000;
static EVENTS: Metric = Metric::counter("bench_events_total", "Events.")
    .labels(&LABELS)
    .series_limit(LIMIT);
static TIMES: Metric = Metric::request_histogram("bench_duration_seconds", "Duration.")
    .labels(&LABELS)
    .series_limit(LIMIT);
static WAITS: Metric = Metric::wait_histogram("bench_wait_seconds", "Waits.")
    .labels(&LABELS)
    .series_limit(LIMIT);
const WAIT_SECONDS: [f64; 16] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];
const SECONDS: [f64; 21] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.225, 0.25, 0.3, 0.4, 0.5,
    0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

fn set(place: usize) -> [String; 4] {
    let method = ["GET", "PUT", "POST", "DELETE"][place % 4];
    let status = ["200", "404", "500"][place % 3];
    [
        method.to_owned(),
        format!("/content/{}/{{id}}", place % 997),
        status.to_owned(),
        place.to_string(),
    ]
}

/// Lets two threads that live at the same time run `record`.
fn on_two_threads(record: impl Fn() + Sync) {
    let barrier = Barrier::new(2);
    let run = || {
        barrier.wait();
        record();
        barrier.wait();
    };
    std::thread::scope(|scope| {
        scope.spawn(run);
        run();
    });
}

fn counters(series: usize) -> (Core, Registry) {
    let (core, registry) = (Core::new(LIMIT), Registry::new());
    let options = prometheus::Opts::new("bench_events_total", "Events.");
    let family = prometheus::IntCounterVec::new(options, &LABELS).unwrap();
    registry.register(Box::new(family.clone())).unwrap();
    let handles: Vec<_> = (0..series)
        .map(|place| {
            let set = set(place);
            let set = set.each_ref().map(String::as_str);
            (
                core.counter(&EVENTS, &set).unwrap(),
                family.with_label_values(&set),
            )
        })
        .collect();
    on_two_threads(|| {
        for (place, (ours, theirs)) in handles.iter().enumerate() {
            ours.add(place as u64 * 31);
            theirs.inc_by(place as u64 * 31);
        }
    });
    (core, registry)
}

/// Histograms of `metric`, whose bounds are `seconds`.
fn histograms(metric: &Metric, seconds: &[f64], series: usize) -> (Core, Registry) {
    let (core, registry) = (Core::new(LIMIT), Registry::new());
    let options = prometheus::HistogramOpts::new(metric.name(), "Duration.");
    let options = options.buckets(seconds.to_vec());
    let family = prometheus::HistogramVec::new(options, &LABELS).unwrap();
    registry.register(Box::new(family.clone())).unwrap();
    let handles: Vec<_> = (0..series)
        .map(|place| {
            let set = set(place);
            let set = set.each_ref().map(String::as_str);
            (
                core.histogram(metric, &set).unwrap(),
                family.with_label_values(&set),
            )
        })
        .collect();
    on_two_threads(|| {
        for (place, (ours, theirs)) in handles.iter().enumerate() {
            for step in 0..20_u64 {
                let millis = (place as u64 * 7 + step * step * 13) % 3_000;
                ours.record(Duration::from_millis(millis));
                theirs.observe(Duration::from_millis(millis).as_secs_f64());
            }
        }
    });
    (core, registry)
}

fn compare(title: &str, (core, registry): &(Core, Registry)) {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut costs = [Vec::new(), Vec::new(), Vec::new()];
    // The first round grows the buffers and is left out.
    for round in 0..=ROUNDS {
        let new = [
            cost(|| {
                ours.clear();
                core.text(&mut ours);
            }),
            cost(|| {
                ours.clear();
                core.openmetrics(&mut ours);
            }),
            cost(|| {
                theirs.clear();
                TextEncoder::new()
                    .encode(&registry.gather(), &mut theirs)
                    .unwrap();
            }),
        ];
        if round > 0 {
            costs
                .iter_mut()
                .zip(new)
                .for_each(|(costs, new)| costs.push(new));
        }
    }
    let names = ["ours: text", "ours: OpenMetrics", "prometheus: text"];
    let rows: Vec<Row> = names
        .iter()
        .zip(&costs)
        .map(|(name, costs)| Row::new(name, costs, 1.0))
        .collect();
    let title = format!(
        "{title}, {ROUNDS} rounds; pages of {} and {} KB; our cells {} KB",
        ours.len() / 1_000,
        theirs.len() / 1_000,
        core.cell_bytes() / 1_000
    );
    measure::print(&title, &rows, "prometheus: text", 1e6, "ms");
}

fn main() {
    memory();
    for series in [1_000, 10_000, 100_000] {
        compare(&format!("{series} counters"), &counters(series));
    }
    for series in [1_000, 5_000] {
        let pair = histograms(&TIMES, &SECONDS, series);
        compare(&format!("{series} request histograms (244 cells)"), &pair);
    }
    let pair = histograms(&WAITS, &WAIT_SECONDS, 5_000);
    compare("5000 wait histograms (18 cells)", &pair);
}

/// Resident bytes per counter series, each crate alone and one recording thread.
fn memory() {
    const SERIES: usize = 100_000;
    let sets: Vec<_> = (0..SERIES).map(set).collect();
    let core = Core::new(LIMIT);
    let before = resident();
    for set in &sets {
        let set = set.each_ref().map(String::as_str);
        core.counter(&EVENTS, &set).unwrap().inc();
    }
    let ours = resident() - before;
    let options = prometheus::Opts::new("bench_events_total", "Events.");
    let family = prometheus::IntCounterVec::new(options, &LABELS).unwrap();
    let before = resident();
    for set in &sets {
        let set = set.each_ref().map(String::as_str);
        family.with_label_values(&set).inc();
    }
    let theirs = resident() - before;
    println!("\n### Resident bytes per counter series of four labels, {SERIES} series\n");
    println!("ours {}, prometheus {}", ours / SERIES, theirs / SERIES);
}

fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
