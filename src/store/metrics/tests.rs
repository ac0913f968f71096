use std::sync::Barrier;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const LIMITS: MetricsLimits = MetricsLimits {
    series: 50_000,
    bytes: 32 << 20,
};
const EVENTS: Metric = Metric::counter("events_total", "Events.").labels(&["a", "b"]);
const TIMES: Metric = Metric::request_histogram("times_seconds", "Times.").labels(&["route"]);
const LEVEL: Metric = Metric::gauge("level", "Level.");

fn only<'a>(snapshot: &'a Snapshot, metric: &Metric) -> Value<'a> {
    let family = snapshot.family(metric).unwrap();
    snapshot.values(family).next().unwrap().1
}

#[test]
fn label_pairs_that_join_alike_stay_two_series() {
    let metrics = Metrics::new(LIMITS);
    metrics.counter(&EVENTS, &["1", "12"]).unwrap().add(1);
    metrics.counter(&EVENTS, &["11", "2"]).unwrap().add(10);
    let snapshot = metrics.snapshot();
    let family = snapshot.family(&EVENTS).unwrap();
    let values: Vec<_> = snapshot.values(family).map(|(_, value)| value).collect();
    assert_eq!(values, [Value::Total(1), Value::Total(10)]);
}

#[test]
fn a_gauge_is_absent_until_set_and_after_clear() {
    let metrics = Metrics::new(LIMITS);
    let level = metrics.gauge(&LEVEL, &[]).unwrap();
    let shown = |metrics: &Metrics| {
        let snapshot = metrics.snapshot();
        let family = snapshot.family(&LEVEL).unwrap();
        snapshot.values(family).count()
    };
    assert_eq!((shown(&metrics), level.get()), (0, None));
    level.set(0.0);
    assert_eq!((shown(&metrics), level.get()), (1, Some(0.0)));
    level.clear();
    assert_eq!((shown(&metrics), level.get()), (0, None));
}

#[test]
fn an_up_down_returns_to_zero_when_its_guards_are_gone() {
    const OPEN: Metric = Metric::up_down("open", "Open.");
    let metrics = Metrics::new(LIMITS);
    let open = metrics.up_down(&OPEN, &[]).unwrap();
    let guard = open.hold();
    assert_eq!(only(&metrics.snapshot(), &OPEN), Value::Signed(1));
    std::thread::spawn(move || drop(guard)).join().unwrap();
    assert_eq!(only(&metrics.snapshot(), &OPEN), Value::Signed(0));
}

#[test]
fn count_equals_the_last_bucket_and_the_sum_is_exact() {
    let metrics = Metrics::new(LIMITS);
    let times = metrics.histogram(&TIMES, &["/"]).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (1..=1000).for_each(|ms| times.record(Duration::from_millis(ms))));
        }
    });
    let snapshot = metrics.snapshot();
    let Value::Histogram(row) = only(&snapshot, &TIMES) else {
        panic!("not a histogram")
    };
    assert_eq!(row.count(), 4000);
    assert!((row.sum - 4.0 * 500.5).abs() < 1e-9);
    let at_200_ms = row
        .cumulative()
        .find(|(bound, _)| *bound == 200_000_000)
        .unwrap();
    assert_eq!(at_200_ms.1, 4 * 200);
}

#[test]
fn the_sum_goes_on_after_its_cell_wrapped() {
    let metrics = Metrics::new(LIMITS);
    let times = metrics.histogram(&TIMES, &["/"]).unwrap();
    times.record_value(u64::MAX - 5);
    metrics.snapshot();
    times.record_value(1_000_000_005);
    let snapshot = metrics.snapshot();
    let Value::Histogram(row) = only(&snapshot, &TIMES) else {
        panic!("not a histogram")
    };
    assert!((row.sum - (u64::MAX as f64 + 1e9) / 1e9).abs() < 1.0);
}

#[test]
fn a_million_label_values_stay_bounded_and_none_is_lost() {
    let metrics = Metrics::new(LIMITS);
    for value in 0..1_000_000_u32 {
        metrics
            .counter(&EVENTS, &[&value.to_string(), ""])
            .unwrap()
            .inc();
    }
    let snapshot = metrics.snapshot();
    let family = snapshot.family(&EVENTS).unwrap();
    let total: u64 = snapshot
        .values(family)
        .map(|(_, value)| {
            if let Value::Total(total) = value {
                total
            } else {
                0
            }
        })
        .sum();
    assert_eq!(total, 1_000_000);
    assert_eq!(family.series.len(), 2_001);
    let (_, _, overflowed) = metrics
        .sizes()
        .into_iter()
        .find(|row| row.0 == "events_total")
        .unwrap();
    assert_eq!(overflowed, 998_000);
    assert!(metrics.bytes() < 1 << 20);
}

#[test]
fn a_family_declared_twice_with_another_shape_is_refused_by_name() {
    let metrics = Metrics::new(LIMITS);
    metrics.counter(&EVENTS, &["a", "b"]).unwrap();
    let other = Metric::counter("events_total", "Events.").labels(&["c"]);
    let error = metrics.counter(&other, &["x"]).unwrap_err();
    assert!(error.is_out_of_range() && error.to_string().contains("events_total"));
    let gauge = Metric::gauge("events_total", "Events.");
    assert!(metrics.gauge(&gauge, &[]).is_err());
    assert!(
        metrics
            .counter(&Metric::counter("events", "No suffix."), &[])
            .is_err()
    );
    assert!(
        metrics
            .counter(&Metric::counter("9_total", "Digit."), &[])
            .is_err()
    );
    assert!(
        metrics
            .counter(&Metric::counter("x_total", "le.").labels(&["le"]), &[""])
            .is_err()
    );
}

#[test]
fn names_that_meet_on_a_page_are_refused() {
    let metrics = Metrics::new(LIMITS);
    metrics
        .counter(&Metric::counter("jobs_total", "Jobs."), &[])
        .unwrap();
    metrics
        .histogram(&Metric::wait_histogram("wait_seconds", "Waits."), &[])
        .unwrap();
    for name in [
        "jobs",
        "wait_seconds_count",
        "wait_seconds_bucket",
        "http_server_connections",
    ] {
        let error = metrics.gauge(&Metric::gauge(name, "."), &[]).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(metrics.claims("jobs") && metrics.claims("process_cpu_seconds_total"));
    assert!(!metrics.claims("job"));
}

#[test]
fn an_observed_total_below_zero_is_absent() {
    let metrics = Metrics::new(LIMITS);
    let observed = Metric::observed_counter("seen_total", "Seen.");
    let seen = metrics.observed_counter(&observed, &[]).unwrap();
    seen.set(2.5);
    assert_eq!(seen.get(), Some(2.5));
    seen.set(-1.0);
    assert_eq!(seen.get(), None);
    seen.set(f64::NAN);
    assert_eq!(seen.get(), None);
}

#[test]
fn counters_never_step_back_while_threads_come_and_go() {
    let metrics = Metrics::new(LIMITS);
    let events = metrics.counter(&EVENTS, &["a", "b"]).unwrap();
    let mut last = 0;
    for _ in 0..200 {
        std::thread::scope(|scope| {
            scope.spawn(|| events.add(3));
            scope.spawn(|| events.add(4));
        });
        let Value::Total(now) = only(&metrics.snapshot(), &EVENTS) else {
            panic!("not a total")
        };
        assert_eq!(now, last + 7);
        last = now;
    }
}

fn totals(metrics: &Metrics) -> (u64, u64, f64) {
    let snapshot = metrics.snapshot();
    let (Value::Total(events), Value::Histogram(row)) =
        (only(&snapshot, &EVENTS), only(&snapshot, &TIMES))
    else {
        panic!("a counter and a histogram were registered")
    };
    (events, row.count(), row.sum)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Waves of threads come and go; those of a wave live at the same time. With a small byte cap
    /// most of them write to the shared copy.
    #[test]
    fn merge_equals_truth(
        waves in proptest::collection::vec(proptest::collection::vec(0..40_u64, 1..70), 1..4),
        small_cap: bool,
    ) {
        let bytes = if small_cap { 40_000 } else { 32 << 20 };
        let metrics = Metrics::new(MetricsLimits { bytes, ..LIMITS });
        let events = metrics.counter(&EVENTS, &["a", "b"]).unwrap();
        let times = metrics.histogram(&TIMES, &["/"]).unwrap();
        let mut truth = (0, 0, 0_u64);
        for wave in waves {
            let barrier = Barrier::new(wave.len());
            let done = AtomicBool::new(false);
            let record = |count: u64| {
                barrier.wait();
                for millis in 1..=count {
                    events.add(3);
                    times.record(Duration::from_millis(millis));
                }
            };
            std::thread::scope(|scope| {
                let record = &record;
                let reader = scope.spawn(|| {
                    let mut last = (0, 0, 0.0);
                    while !done.load(Ordering::Relaxed) {
                        let now = totals(&metrics);
                        assert!(now.0 >= last.0 && now.1 >= last.1 && now.2 >= last.2);
                        last = now;
                    }
                });
                let running: Vec<_> = wave
                    .iter()
                    .map(|count| scope.spawn(move || record(*count)))
                    .collect();
                running.into_iter().for_each(|thread| thread.join().unwrap());
                done.store(true, Ordering::Relaxed);
                reader.join().unwrap();
            });
            for count in &wave {
                truth = (truth.0 + 3 * count, truth.1 + count, truth.2 + count * (count + 1) / 2);
            }
            let now = totals(&metrics);
            prop_assert_eq!((now.0, now.1), (truth.0, truth.1));
            prop_assert!((now.2 - truth.2 as f64 / 1e3).abs() < 1e-9);
            prop_assert!(!small_cap || metrics.bytes() < 60_000);
        }
    }
}
