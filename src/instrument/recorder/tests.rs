//! The macros of the `metrics` crate against the page, the limits and the counters of what was refused.

use std::thread;

use ::metrics::{counter, describe_counter, describe_histogram, gauge, histogram};

use super::*;
use crate::catalog::{Metric, families as catalogue};
use crate::export::{openmetrics, text};
use crate::store::metrics::Value;

fn recorder() -> (Arc<Store>, MetricsRecorder) {
    let store = Arc::new(Store::new(50_000));
    let recorder = MetricsRecorder::new(&store);
    (store, recorder)
}

fn record(work: impl FnOnce()) -> Arc<Store> {
    let (store, recorder) = recorder();
    ::metrics::with_local_recorder(&recorder, work);
    store
}

fn page(store: &Store) -> String {
    let mut out = Vec::new();
    text::encode(&store.metrics.snapshot(), &[], &mut out);
    let page = String::from_utf8(out).unwrap();
    let own = |line: &&str| !line.contains("agent_");
    page.lines()
        .filter(own)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// How much a family of the agent's counts under a label's value.
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
    counted(store, &catalogue::AGENT_SCRAPE_CONFLICTS, "recorder")
}

#[test]
fn what_any_library_records_stands_on_the_page() {
    let store = record(|| {
        describe_counter!("app.orders", ::metrics::Unit::Count, "Orders taken.");
        counter!("app.orders", "kind" => "gift").increment(2);
        counter!("app.orders", "kind" => "gift").increment(1);
        gauge!("queue_depth").set(4.0);
        histogram!("work_seconds").record(0.2);
    });
    let page = page(&store);
    let orders = "# HELP app_orders_total Orders taken.\n# TYPE app_orders_total counter\n\
                  app_orders_total{kind=\"gift\"} 3\n";
    assert!(page.contains(orders), "{page}");
    let depth = "# HELP queue_depth Recorded through the metrics crate.\n# TYPE queue_depth gauge\n\
                 queue_depth 4\n";
    assert!(page.contains(depth), "{page}");
    for line in [
        "work_seconds_bucket{le=\"0.1\"} 0\n",
        "work_seconds_bucket{le=\"0.25\"} 1\n",
        "work_seconds_sum 0.2\nwork_seconds_count 1\n",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    assert_eq!(refused(&store), 0);
}

#[test]
fn labels_may_come_and_go_from_event_to_event() {
    let store = record(|| {
        counter!("jobs").increment(1);
        counter!("jobs", "queue" => "mail").increment(2);
        counter!("jobs", "result" => "ok", "queue" => "mail").increment(4);
        counter!("jobs", "queue" => "mail", "result" => "ok").increment(8);
        counter!("jobs").increment(16);
    });
    let lines: String = page(&store)
        .lines()
        .skip(2)
        .map(|line| format!("{line}\n"))
        .collect();
    let expected = "jobs_total 17\njobs_total{queue=\"mail\"} 2\n\
                    jobs_total{queue=\"mail\",result=\"ok\"} 12\n";
    assert_eq!(lines, expected);
    assert_eq!(refused(&store), 0);
}

#[test]
fn a_gauge_goes_up_and_down_from_many_threads_and_loses_nothing() {
    let (store, recorder) = recorder();
    let work = || {
        ::metrics::with_local_recorder(&recorder, || {
            let open = gauge!("open");
            (0..10_000).for_each(|_| open.increment(1.5));
            (0..10_000).for_each(|_| open.decrement(0.5));
        });
    };
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
    assert!(page(&store).contains("\nopen 40000\n"));
}

#[test]
fn an_absolute_total_never_steps_back_and_is_the_highest() {
    let store = record(|| {
        for total in [7, 5, 12, 12] {
            counter!("read").absolute(total);
        }
    });
    assert!(page(&store).contains("read_total 12\n"));
}

#[test]
fn numbers_of_any_kind_keep_their_fractions_and_what_is_no_number_is_counted() {
    let store = record(|| {
        let share = histogram!("share");
        for value in [0.3, 0.7, 2.5, 1e7, f64::NAN, -1.0, -0.0] {
            share.record(value);
        }
        histogram!("body_bytes").record(1024.0);
    });
    let page = page(&store);
    for line in [
        "share_bucket{le=\"0.0001\"} 1\n",
        "share_bucket{le=\"0.5\"} 2\n",
        "share_bucket{le=\"2.5\"} 4\n",
        "share_bucket{le=\"1e+06\"} 4\n",
        "share_bucket{le=\"+Inf\"} 5\n",
        "share_sum 10000003.5\nshare_count 5\n",
        "body_bytes_bucket{le=\"1024.0\"} 1\n",
        "body_bytes_sum 1024\n",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    let dropped = |why| counted(&store, &catalogue::AGENT_DROPPED, why);
    assert_eq!((dropped("negative"), dropped("not_a_number")), (1, 1));
}

#[test]
fn a_name_that_is_taken_records_nothing_is_counted_and_panics_nowhere() {
    let (store, recorder) = recorder();
    let hosts = Metric::counter("hosts_total", "The host's own.").labels(&["a"]);
    store.metrics.counter(&hosts, &["x"]).unwrap().add(1);
    ::metrics::with_local_recorder(&recorder, || {
        counter!("mine").increment(1);
        // Another kind, another name that looks the same, the catalogue's, the host's; each twice.
        for _ in 0..2 {
            gauge!("mine").set(1.0);
            counter!("mi.ne").increment(1);
            counter!("mi_ne").increment(1);
            gauge!("process_cpu_seconds").set(1.0);
            histogram!("http_server_request_duration_seconds").record(1.0);
            counter!("hosts", "b" => "y").increment(1);
            counter!("reserved", "le" => "1").increment(1);
            counter!("").increment(1);
        }
    });
    let page = page(&store);
    for line in [
        "mine_total 1\n",
        "mi_ne_total 2\n",
        "hosts_total{a=\"x\"} 1\n",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    assert!(
        !page.contains("\nmine ") && !page.contains("reserved"),
        "{page}"
    );
    assert_eq!(refused(&store), 7, "once for each key that is kept");
}

#[test]
fn a_flood_of_label_values_is_bounded_and_its_total_exact() {
    let store = record(|| {
        for user in 0..20_000_u32 {
            counter!("seen", "user" => user.to_string()).increment(1);
        }
    });
    let snapshot = store.metrics.snapshot();
    let family = snapshot.family(&Metric::counter("seen_total", "")).unwrap();
    let totals = snapshot.values(family).map(|(_, value)| match value {
        Value::Total(total) => total,
        other => panic!("{other:?}"),
    });
    assert_eq!(totals.sum::<u64>(), 20_000);
    assert_eq!(family.series.len(), 2_001);
}

#[test]
fn a_flood_of_names_ends_at_a_thousand_and_the_rest_are_counted() {
    let store = record(|| {
        for name in 0..1_200_u32 {
            counter!(format!("name_{name}")).increment(1);
        }
    });
    assert_eq!(page(&store).matches("# TYPE name_").count(), 1_000);
    assert_eq!(refused(&store), 200);
}

#[test]
fn a_family_has_at_most_ten_labels_however_they_come() {
    let (store, recorder) = recorder();
    ::metrics::with_local_recorder(&recorder, || {
        for label in 0..12_u32 {
            counter!("wide", format!("l{label}") => "x").increment(1);
        }
    });
    assert_eq!(page(&store).matches("\nwide_total{").count(), 10);
    assert_eq!(refused(&store), 2);
}

#[test]
fn the_first_description_counts_and_says_the_unit_that_the_name_does_not() {
    let store = record(|| {
        histogram!("latency").record(3.0);
        describe_histogram!(
            "latency",
            ::metrics::Unit::Milliseconds,
            "Latency of calls."
        );
        describe_histogram!("latency", "Something else.");
        describe_histogram!("pause_seconds", ::metrics::Unit::Seconds, "Pauses.");
        histogram!("pause_seconds").record(0.001);
    });
    let mut out = Vec::new();
    openmetrics::encode(&store.metrics.snapshot(), &[], &mut out);
    let page = String::from_utf8(out).unwrap();
    assert!(
        page.contains("# HELP latency Latency of calls. (milliseconds)\n"),
        "{page}"
    );
    assert!(
        page.contains("latency_sum 3\n"),
        "what came before the description stays"
    );
    assert!(page.contains("# HELP pause_seconds Pauses.\n"), "{page}");
    assert!(page.contains("# UNIT pause_seconds seconds\n"), "{page}");
    assert!(!page.contains("# UNIT latency"), "{page}");
}
