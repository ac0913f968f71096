//! Whether "P95 below 200 ms?" is answered rightly, with our bounds and with the usual ones.

use crate::catalog::bounds::Bounds;
use crate::catalog::families::HTTP_SERVER_REQUEST_DURATION;
use crate::store::metrics::{Layout, Metrics, Value};

use super::LIMITS;

const REQUESTS: u32 = 20_000;
const TARGET_SECONDS: f64 = 0.2;
/// The bounds that OpenTelemetry advises.
const ADVISED: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// A name, and the latency at a rank between 0 and 1, up to a factor.
type Shape = (&'static str, fn(f64) -> f64);

fn shapes() -> [Shape; 4] {
    [
        ("exponential", |p| -(1.0 - p).ln()),
        ("uniform", |p| 0.2 + p),
        ("heavy tail", |p| (1.0 - p).powf(-0.5)),
        ("two humps", |p| {
            if p < 0.8 {
                0.1 + 0.1 * p
            } else {
                0.9 + 0.2 * p
            }
        }),
    ]
}

/// The quantile as a Prometheus server computes it.
fn server_quantile(buckets: &[(f64, u64)], count: u64, quantile: f64) -> f64 {
    let rank = quantile * count as f64;
    let (mut lower, mut below) = (0.0, 0);
    for (bound, total) in buckets {
        if *total as f64 >= rank {
            let share = (rank - below as f64) / (total - below) as f64;
            return lower + (bound - lower) * share;
        }
        (lower, below) = (*bound, *total);
    }
    lower
}

#[test]
fn p95_verdict() {
    let (mut wrong, mut wrong_inside, mut wrong_advised) = (0, 0, 0);
    for (name, shape) in shapes() {
        for true_p95 in [0.150, 0.170, 0.190, 0.210, 0.230, 0.245] {
            let scale = true_p95 / shape(0.95);
            let metrics = Metrics::new(LIMITS);
            let times = metrics
                .histogram(&HTTP_SERVER_REQUEST_DURATION, &["GET", name])
                .unwrap();
            let mut advised = ADVISED.map(|bound| (bound, 0_u64));
            for place in 0..REQUESTS {
                let rank = (f64::from(place) + 0.5) / f64::from(REQUESTS);
                let seconds = scale * shape(rank);
                times.record(std::time::Duration::from_secs_f64(seconds));
                for (bound, total) in &mut advised {
                    *total += u64::from(seconds <= *bound);
                }
            }
            let snapshot = metrics.snapshot();
            let family = snapshot.family(&HTTP_SERVER_REQUEST_DURATION).unwrap();
            let Some((_, Value::Histogram(row))) = snapshot.values(family).next() else {
                panic!("one histogram was recorded")
            };
            let buckets: Vec<(f64, u64)> = row
                .cumulative()
                .map(|(bound, total)| (bound as f64 / 1e9, total))
                .collect();
            let truth = true_p95 < TARGET_SECONDS;
            let verdict = |p95: f64| p95 < TARGET_SECONDS;
            let ours = server_quantile(&buckets, row.count(), 0.95);
            let inside = Layout::of(Bounds::Request).quantile(row.cells, 0.95);
            let theirs = server_quantile(&advised, u64::from(REQUESTS), 0.95);
            wrong += u32::from(verdict(ours) != truth);
            wrong_inside += u32::from(verdict(inside.unwrap() / 1e9) != truth);
            wrong_advised += u32::from(verdict(theirs) != truth);
        }
    }
    assert_eq!((wrong, wrong_inside), (0, 0));
    // The control: without 0.2 every quantile between 0.1 and 0.25 is a guess.
    assert_eq!(wrong_advised, 10);
}
