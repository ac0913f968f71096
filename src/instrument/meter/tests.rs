//! Instruments of OpenTelemetry's API against the page, the limits and the counters of what was refused.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider as _};

use super::MeterProvider;
use crate::catalog::{Metric, families as catalogue};
use crate::export::text;
use crate::store::Store;
use crate::store::metrics::Value;
use std::sync::Arc;

fn meter() -> (Arc<Store>, Meter) {
    let store = Arc::new(Store::new(50_000));
    let meter = MeterProvider::new(&store).meter("a library");
    (store, meter)
}

/// What the agent's thread does once a second; how many callbacks panicked.
fn ask(store: &Store) -> usize {
    let asked = store.callbacks.all().into_iter();
    let panicked = asked.filter(|ask| catch_unwind(AssertUnwindSafe(|| ask())).is_err());
    panicked.count()
}

fn page(store: &Store) -> String {
    let mut out = Vec::new();
    text::encode(&store.metrics.snapshot(), &[], &mut out);
    String::from_utf8(out).unwrap()
}

fn counted(store: &Store, metric: &Metric, value: &str) -> u64 {
    let snapshot = store.metrics.snapshot();
    let family = snapshot.family(metric).unwrap();
    let totals = snapshot.values(family).map(|(series, total)| {
        let Value::Total(total) = total else {
            panic!("{total:?}");
        };
        let is_it = series.values.iter().any(|held| **held == *value);
        if is_it { total } else { 0 }
    });
    totals.sum()
}

fn refused(store: &Store) -> u64 {
    counted(store, &catalogue::AGENT_SCRAPE_CONFLICTS, "meter")
}

#[track_caller]
fn assert_lines(store: &Store, lines: &[&str]) {
    let page = page(store);
    for line in lines {
        assert!(page.contains(&format!("\n{line}\n")), "{line} in {page}");
    }
}

#[test]
fn every_instrument_stands_on_the_page_under_the_name_that_prometheus_gives_it() {
    let (store, meter) = meter();
    let gift = [
        KeyValue::new("order.kind", "gift"),
        KeyValue::new("first", true),
    ];
    let orders = meter.u64_counter("shop.orders").with_unit("{order}");
    let orders = orders.with_description("Orders taken.").build();
    orders.add(2, &gift);
    orders.add(1, &gift);
    meter
        .f64_counter("work")
        .with_unit("s")
        .build()
        .add(0.25, &[]);
    let open = meter.i64_up_down_counter("open").build();
    open.add(5, &[]);
    open.add(-2, &[]);
    let level = meter.f64_up_down_counter("level").build();
    level.add(1.5, &[]);
    level.add(-2.0, &[]);
    meter.u64_gauge("depth").build().record(7, &[]);
    meter.i64_gauge("below").build().record(-7, &[]);
    meter
        .f64_gauge("share")
        .with_unit("1")
        .build()
        .record(0.5, &[]);
    let took = meter
        .f64_histogram("http.client.duration")
        .with_unit("s")
        .build();
    took.record(0.2, &[KeyValue::new("status", 200)]);
    meter
        .u64_histogram("body")
        .with_unit("By")
        .build()
        .record(1_024, &[]);
    assert_lines(
        &store,
        &[
            "# HELP shop_orders_total Orders taken.",
            "# TYPE shop_orders_total counter",
            "shop_orders_total{order_kind=\"gift\",first=\"true\"} 3",
            "# TYPE work_seconds_total counter",
            "work_seconds_total 0.25",
            "open 3",
            "level -0.5",
            "depth 7",
            "below -7",
            "share_ratio 0.5",
            "http_client_duration_seconds_bucket{status=\"200\",le=\"0.1\"} 0",
            "http_client_duration_seconds_bucket{status=\"200\",le=\"0.25\"} 1",
            "http_client_duration_seconds_sum{status=\"200\"} 0.2",
            "body_bytes_bucket{le=\"1024.0\"} 1",
        ],
    );
    assert_eq!(refused(&store), 0);
}

#[test]
fn observed_values_are_those_of_the_last_callback_and_what_it_leaves_out_is_absent() {
    let (store, meter) = meter();
    let run = Arc::new(AtomicU64::new(0));
    let at = |key: &'static str, value: &'static str| [KeyValue::new(key, value)];
    let runs = Arc::clone(&run);
    let read = meter.u64_observable_counter("read").with_unit("By");
    let read = read.with_callback(move |read| {
        let run = runs.load(Ordering::Relaxed);
        read.observe(run * 10, &at("disk", "a"));
        if run == 1 {
            read.observe(3, &at("disk", "b"));
        }
    });
    read.build();
    let spare = meter.i64_observable_up_down_counter("spare");
    spare.with_callback(|spare| spare.observe(-4, &[])).build();
    let load = meter.f64_observable_gauge("load");
    load.with_callback(|load| load.observe(0.75, &[])).build();
    run.store(1, Ordering::Relaxed);
    assert_eq!(ask(&store), 0);
    let lines = [
        "read_bytes_total{disk=\"a\"} 10",
        "read_bytes_total{disk=\"b\"} 3",
        "spare -4",
        "load 0.75",
    ];
    assert_lines(&store, &lines);
    run.store(2, Ordering::Relaxed);
    ask(&store);
    assert_lines(&store, &["read_bytes_total{disk=\"a\"} 20"]);
    assert!(!page(&store).contains("disk=\"b\""));
    drop(meter);
    ask(&store);
    assert!(!page(&store).contains("disk="), "nobody is asked any more");
}

#[test]
fn a_callback_that_panics_loses_what_it_had_not_observed_yet_and_nothing_else() {
    let (store, meter) = meter();
    let is_broken = Arc::new(AtomicU64::new(1));
    let broken = Arc::clone(&is_broken);
    let first = meter
        .u64_observable_gauge("first")
        .with_callback(move |first| {
            first.observe(1, &[KeyValue::new("part", "before")]);
            assert_eq!(broken.load(Ordering::Relaxed), 0, "the host's bug");
            first.observe(2, &[KeyValue::new("part", "after")]);
        });
    first.build();
    let second = meter.u64_observable_gauge("second");
    second
        .with_callback(|second| second.observe(3, &[]))
        .build();
    assert_eq!(ask(&store), 1);
    assert_lines(&store, &["first{part=\"before\"} 1", "second 3"]);
    assert!(!page(&store).contains("part=\"after\""));
    is_broken.store(0, Ordering::Relaxed);
    assert_eq!(ask(&store), 0);
    assert_lines(&store, &["first{part=\"after\"} 2"]);
}

#[test]
fn no_event_is_lost_between_threads_and_attributes_in_any_order_are_one_series() {
    let (store, meter) = meter();
    let counter = meter.f64_counter("sum").build();
    let (a, b) = (KeyValue::new("a", 1), KeyValue::new("b", 2));
    let orders = [[a.clone(), b.clone()], [b, a]];
    // Whose order is the page's.
    counter.add(0.0, &orders[0]);
    thread::scope(|scope| {
        for thread in 0..4_usize {
            let (counter, attributes) = (counter.clone(), &orders[thread % 2]);
            scope.spawn(move || (0..10_000).for_each(|_| counter.add(0.5, attributes)));
        }
    });
    assert_lines(&store, &["sum_total{a=\"1\",b=\"2\"} 20000"]);
}

#[test]
fn what_is_no_number_or_below_zero_is_counted_and_not_recorded() {
    let (store, meter) = meter();
    let sum = meter.f64_counter("sum").build();
    let values = meter.f64_histogram("values").build();
    for value in [1.5, -1.0, f64::NAN] {
        sum.add(value, &[]);
        values.record(value, &[]);
    }
    meter
        .f64_up_down_counter("level")
        .build()
        .add(f64::NAN, &[]);
    assert_lines(
        &store,
        &["sum_total 1.5", "values_sum 1.5", "values_count 1"],
    );
    assert!(!page(&store).contains("\nlevel "));
    let dropped = |why| counted(&store, &catalogue::AGENT_DROPPED, why);
    assert_eq!((dropped("negative"), dropped("not_a_number")), (2, 3));
}

#[test]
fn a_name_that_is_taken_records_nothing_is_counted_and_panics_nowhere() {
    let (store, meter) = meter();
    meter.u64_counter("mine").build().add(1, &[]);
    // The same again, another kind, another name that looks the same, the catalogue's, and nothing at all.
    meter.u64_counter("mine").build().add(1, &[]);
    meter.f64_counter("mine").build().add(1.0, &[]);
    meter.u64_counter("mi.ne").build().add(4, &[]);
    meter.u64_counter("mi_ne").build().add(1, &[]);
    let taken = meter.f64_histogram("http.server.request.duration");
    taken.with_unit("s").build().record(1.0, &[]);
    meter.u64_counter("").build().add(1, &[]);
    let reserved = [KeyValue::new("le", "1")];
    meter.u64_counter("reserved").build().add(1, &reserved);
    assert_lines(&store, &["mine_total 2", "mi_ne_total 4"]);
    assert_eq!(refused(&store), 5);
}

#[test]
fn a_flood_of_attributes_is_bounded_and_its_total_exact() {
    let (store, meter) = meter();
    let seen = meter.u64_counter("seen").build();
    for user in 0..20_000_i64 {
        seen.add(1, &[KeyValue::new("user", user)]);
    }
    let snapshot = store.metrics.snapshot();
    let family = snapshot.family(&Metric::counter("seen_total", "")).unwrap();
    let totals = snapshot.values(family).map(|(_, value)| match value {
        Value::Total(total) => total,
        other => panic!("{other:?}"),
    });
    assert_eq!(totals.sum::<u64>(), 20_000);
    assert_eq!(family.series.len(), 2_001);
}
