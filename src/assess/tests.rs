//! The verdicts, by table: what was recorded at which second, and what the row then says.

use std::time::{Duration, Instant};

use super::target_file::Thresholds;
use super::targets::{Status, TargetRow, publish};
use super::window::{Reading, Window};
use crate::catalog::families;
use crate::store::metrics::{Metrics, MetricsLimits, Value};
use Status::{Breach, NoData, Ok, WarmingUp};

const HOUR: Duration = Duration::from_secs(3600);

/// A service whose clock stands still between readings.
struct Service {
    metrics: Metrics,
    window: Window,
    start: Instant,
}

fn service() -> Service {
    let limits = MetricsLimits {
        series: 1000,
        bytes: 32 << 20,
    };
    Service {
        metrics: Metrics::new(limits),
        window: Window::new(Thresholds::built_in().unwrap()),
        start: Instant::now(),
    }
}

impl Service {
    fn requests(&self, count: u64, status: &str, took: Duration) {
        let labels = ["GET", "/", status, "http", ""];
        let histogram = self
            .metrics
            .histogram(&families::HTTP_SERVER_REQUEST_DURATION, &labels);
        let histogram = histogram.unwrap();
        (0..count).for_each(|_| histogram.record(took));
    }

    fn lookups(&self, level: &str, result: &str, class: &str, count: u64) {
        let labels = ["content", level, result, class];
        let counter = self.metrics.counter(&families::CACHE_REQUESTS, &labels);
        counter.unwrap().add(count);
    }

    fn loads(&self, class: &str, count: u64) {
        let counter = self
            .metrics
            .counter(&families::CACHE_LOADS, &["content", class]);
        counter.unwrap().add(count);
    }

    fn cpu(&self, seconds: f64, limit: f64) {
        let total = self
            .metrics
            .observed_counter(&families::PROCESS_CPU_SECONDS, &[]);
        total.unwrap().set(seconds);
        let cores = self.metrics.gauge(&families::PROCESS_CPU_LIMIT, &[]);
        cores.unwrap().set(limit);
    }

    fn memory(&self, ratio: f64) {
        let gauge = self
            .metrics
            .gauge(&families::PROCESS_MEMORY_UTILIZATION, &[]);
        gauge.unwrap().set(ratio);
    }

    fn disk(&self, device: &str, busy_seconds: f64) {
        let total = self
            .metrics
            .observed_counter(&families::SYSTEM_DISK_IO_TIME, &[device]);
        total.unwrap().set(busy_seconds);
    }

    fn read_at(&mut self, seconds: f64) {
        let at = self.start + Duration::from_secs_f64(seconds);
        self.window.push(Reading::of(&self.metrics.snapshot(), at));
    }

    fn row(&self, name: &str) -> TargetRow {
        let rows = self.window.table(HOUR, 0).rows;
        rows.into_iter().find(|row| row.name == name).unwrap()
    }
}

#[track_caller]
fn says(row: &TargetRow, status: Status, current: Option<f64>, note: &str) {
    let close = match (row.current, current) {
        (Some(seen), Some(expected)) => (seen - expected).abs() < 1e-9,
        (seen, expected) => seen == expected,
    };
    assert!(
        row.status == status && close && row.note.contains(note),
        "{row:#?} is not {status:?} {current:?} {note:?}"
    );
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn the_table_has_the_seven_targets_in_the_order_of_the_guide() {
    let table = service().window.table(HOUR, 7);
    let names: Vec<&str> = table.rows.iter().map(|row| row.name.as_str()).collect();
    let guide = [
        "latency_p95",
        "cache_hit",
        "error_ratio",
        "throughput",
        "cpu",
        "memory",
        "disk_busy",
    ];
    assert_eq!(names, guide);
    assert_eq!(table.unix_milliseconds, 7);
    let latency = &table.rows[0];
    assert_eq!((latency.op.as_str(), latency.unit.as_str()), ("<", "s"));
}

#[test]
fn nothing_is_ok_without_data() {
    let mut service = service();
    let none = |service: &Service| {
        let mut rows = service.window.table(HOUR, 0).rows;
        rows.extend(service.window.cache_levels(HOUR));
        for row in rows {
            says(&row, NoData, None, "");
            assert!(!row.note.is_empty(), "{row:?}");
        }
    };
    none(&service);
    service.read_at(0.0);
    none(&service);
    service.read_at(10.0);
    service.read_at(20.0);
    none(&service);
}

#[test]
fn a_first_reading_alone_gives_no_rate_but_memory() {
    let mut service = service();
    service.requests(100, "200", MS);
    service.lookups("l1", "hit", "public", 5000);
    service.loads("public", 0);
    service.cpu(5.0, 2.0);
    service.disk("vda", 3.0);
    service.memory(0.5);
    service.read_at(0.0);
    let table = service.window.table(HOUR, 0);
    for row in &table.rows {
        if row.name == "memory" {
            says(row, Ok, Some(0.5), "");
        } else {
            says(row, NoData, None, "two readings");
        }
    }
    assert_eq!(table.latency.p95_seconds, None);
    assert_eq!(table.requests, 0);
}

#[test]
fn latency_is_judged_over_the_requests_of_the_window() {
    // (fast requests of 10 ms, slow ones, their time in ms, verdict)
    let cases = [
        (96, 4, 300, Ok),
        (94, 6, 300, Breach),
        (96, 4, 201, Ok),
        (0, 100, 201, Breach),
    ];
    for (fast, slow, millis, verdict) in cases {
        let mut service = service();
        service.requests(1000, "200", Duration::from_secs(9));
        service.read_at(0.0);
        service.requests(fast, "200", 10 * MS);
        service.requests(slow, "200", millis * MS);
        service.read_at(10.0);
        let row = service.row("latency_p95");
        assert_eq!(row.status, verdict, "{fast} {slow} {millis}: {row:?}");
        assert_eq!(row.note, "100 requests");
        let table = service.window.table(HOUR, 0);
        assert_eq!(table.requests, 100);
        assert_eq!(table.latency.p95_seconds, row.current);
    }
}

#[test]
fn a_p95_exactly_at_the_threshold_misses_it() {
    let mut service = service();
    service.read_at(0.0);
    service.requests(95, "200", 200 * MS);
    service.requests(5, "200", 400 * MS);
    service.read_at(10.0);
    says(
        &service.row("latency_p95"),
        Breach,
        Some(0.2),
        "100 requests",
    );
}

#[test]
fn failed_means_5xx_or_no_status() {
    let labels = families::HTTP_SERVER_REQUEST_DURATION.labels;
    assert_eq!(labels[2], "http_response_status_code");
    type Counts = &'static [(&'static str, u64)];
    let cases: [(Counts, Status, f64); 5] = [
        (&[("200", 991), ("500", 5), ("", 4)], Ok, 0.009),
        (&[("200", 990), ("503", 5), ("", 5)], Breach, 0.01),
        (&[("200", 100), ("404", 900)], Ok, 0.0),
        (&[("500", 10)], Breach, 1.0),
        (&[("429", 10)], Ok, 0.0),
    ];
    for (statuses, verdict, ratio) in cases {
        let mut service = service();
        service.read_at(0.0);
        for (status, count) in statuses {
            service.requests(*count, status, MS);
        }
        service.read_at(10.0);
        says(&service.row("error_ratio"), verdict, Some(ratio), "failed");
    }
}

#[test]
fn throughput_counts_what_was_served() {
    // (served, failed, refused) in 10 s
    let cases = [
        ((10_001, 0, 0), Ok, 1000.1, "10001 requests"),
        ((10_000, 0, 0), Breach, 1000.0, "10000 requests"),
        ((7_000, 8_000, 0), Breach, 700.0, "7000 of 15000 requests"),
        ((9_999, 0, 3), Breach, 999.9, "do not count"),
    ];
    for ((served, failed, refused), verdict, rate, note) in cases {
        let mut service = service();
        service.read_at(0.0);
        service.requests(served, "200", MS);
        service.requests(failed, "503", MS);
        service.requests(refused, "429", MS);
        service.read_at(10.0);
        says(&service.row("throughput"), verdict, Some(rate), note);
    }
}

#[test]
fn an_idle_service_has_no_latency_no_errors_and_no_throughput() {
    let mut service = service();
    service.requests(5, "500", MS);
    service.read_at(0.0);
    service.read_at(10.0);
    for name in ["latency_p95", "error_ratio", "throughput"] {
        says(
            &service.row(name),
            NoData,
            None,
            "no requests in the window",
        );
        assert!((service.row(name).window_seconds - 10.0).abs() < 1e-9);
    }
}

#[test]
fn a_window_under_ten_seconds_shows_values_and_judges_none() {
    let mut service = service();
    service.cpu(0.0, 1.0);
    service.disk("vda", 0.0);
    service.read_at(0.0);
    service.requests(100, "200", 500 * MS);
    service.cpu(4.0, 1.0);
    service.disk("vda", 8.0);
    service.read_at(8.0);
    let early = "measured for 8.0 s; judged from 10 s on";
    says(&service.row("error_ratio"), WarmingUp, Some(0.0), early);
    says(&service.row("throughput"), WarmingUp, Some(12.5), early);
    says(&service.row("cpu"), WarmingUp, Some(0.5), early);
    says(&service.row("disk_busy"), WarmingUp, Some(1.0), early);
    assert_eq!(service.row("latency_p95").status, WarmingUp);
}

#[test]
fn a_young_process_is_judged_over_its_whole_life() {
    let mut service = service();
    service.read_at(0.0);
    service.requests(12_000, "200", MS);
    service.read_at(10.0);
    service.requests(12_000, "200", MS);
    service.read_at(20.0);
    let row = service.row("throughput");
    says(&row, Ok, Some(1200.0), "24000 requests");
    assert!((row.window_seconds - 20.0).abs() < 1e-9);
}

#[test]
fn the_window_forgets_what_is_older_than_a_minute() {
    let mut service = service();
    service.read_at(0.0);
    service.requests(100, "500", MS);
    for tick in 1..=7 {
        service.read_at(f64::from(tick) * 10.0);
        service.requests(10, "200", MS);
    }
    service.read_at(80.0);
    let row = service.row("error_ratio");
    says(&row, Ok, Some(0.0), "0 of 60 requests");
    assert!((row.window_seconds - 60.0).abs() < 1e-9);
}

#[test]
fn frequent_readers_do_not_shorten_the_window() {
    let mut service = service();
    for tenths in 0..=9000 {
        service.read_at(f64::from(tenths) / 10.0);
    }
    let change = service.window.change().unwrap();
    let seconds = change.elapsed.as_secs_f64();
    assert!((50.0..=60.0).contains(&seconds), "{seconds}");
}

#[test]
fn totals_that_step_back_count_from_zero() {
    let mut service = service();
    service.requests(5000, "200", MS);
    service.lookups("l1", "hit", "public", 5000);
    service.loads("public", 100);
    service.cpu(100.0, 1.0);
    service.disk("vda", 50.0);
    service.read_at(0.0);
    let fresh = self::service();
    service.metrics = fresh.metrics;
    service.requests(20, "500", MS);
    service.lookups("l1", "miss", "public", 1000);
    service.loads("public", 1000);
    service.cpu(8.0, 1.0);
    service.disk("vda", 2.0);
    service.read_at(10.0);
    says(&service.row("error_ratio"), Breach, Some(1.0), "20 of 20");
    says(&service.row("cache_hit"), Breach, Some(0.0), "1000 loads");
    says(&service.row("cpu"), Breach, Some(0.8), "0.80 of 1 cores");
    says(&service.row("disk_busy"), Ok, Some(0.2), "vda");
}

#[test]
fn the_cache_rate_is_the_share_of_demands_without_a_load() {
    let mut service = service();
    service.read_at(0.0);
    service.lookups("l1", "hit", "public", 700);
    service.lookups("l1", "stale", "gated", 150);
    service.lookups("l1", "miss", "public", 150);
    service.lookups("l2", "hit", "public", 50);
    service.lookups("l2", "miss", "public", 100);
    // Not judged: what does not exist, what the edge fetches, what a rule forbids to ask.
    service.lookups("l1", "miss", "absent", 5000);
    service.lookups("l1", "hit", "fill", 5000);
    service.lookups("l1", "bypass", "public", 5000);
    service.loads("public", 90);
    service.loads("gated", 10);
    service.loads("absent", 5000);
    service.read_at(10.0);
    let note = "100 loads for 1000 lookups";
    says(&service.row("cache_hit"), Ok, Some(0.9), note);
    let levels = service.window.cache_levels(HOUR);
    says(&levels[0], Breach, Some(0.85), "1000 lookups");
    says(
        &levels[1],
        WarmingUp,
        Some(50.0 / 150.0),
        "150 lookups since",
    );
    says(&levels[2], NoData, None, "no cache of this level");
}

#[test]
fn lookups_at_the_edge_are_demands_and_gated_ones_pass_it() {
    let mut service = service();
    service.read_at(0.0);
    service.lookups("l3", "hit", "public", 900);
    service.lookups("l3", "miss", "public", 100);
    service.lookups("l3", "miss", "gated", 1000);
    service.lookups("l1", "miss", "gated", 1000);
    service.lookups("l1", "miss", "fill", 100);
    service.loads("gated", 300);
    service.loads("fill", 100);
    service.read_at(10.0);
    let note = "400 loads for 2000 lookups";
    says(&service.row("cache_hit"), Breach, Some(0.8), note);
    let levels = service.window.cache_levels(HOUR);
    says(&levels[2], Ok, Some(0.9), "1000 lookups");
}

#[test]
fn a_cache_warms_up_for_one_lifetime_and_a_thousand_lookups() {
    let cases = [
        (299, 5000, WarmingUp, "up for 299 s; judged from 300 s on"),
        (
            300,
            999,
            WarmingUp,
            "999 lookups since the start; judged from 1000 on",
        ),
        (300, 1000, Ok, "0 loads for 1000 lookups"),
    ];
    for (up, lookups, verdict, note) in cases {
        let mut service = service();
        service.read_at(0.0);
        service.lookups("l1", "hit", "public", lookups);
        service.loads("public", 0);
        service.read_at(10.0);
        let table = service.window.table(Duration::from_secs(up), 0);
        says(&table.rows[1], verdict, Some(1.0), note);
    }
}

#[test]
fn a_cache_that_nobody_asks_or_whose_loads_nobody_counts_has_no_rate() {
    let mut service = service();
    service.lookups("l1", "hit", "public", 5000);
    service.read_at(0.0);
    service.read_at(10.0);
    says(
        &service.row("cache_hit"),
        NoData,
        None,
        "does not count its cache loads",
    );
    service.loads("public", 0);
    service.read_at(20.0);
    says(
        &service.row("cache_hit"),
        NoData,
        None,
        "no lookups in the window",
    );
    let levels = service.window.cache_levels(HOUR);
    says(&levels[0], NoData, None, "no lookups in the window");
}

#[test]
fn cpu_is_judged_against_the_limit() {
    let cases = [
        (6.9, 1.0, Ok, 0.69),
        (7.0, 1.0, Breach, 0.7),
        (7.0, 2.0, Ok, 0.35),
        (10.0, 0.5, Breach, 2.0),
    ];
    for (seconds, limit, verdict, ratio) in cases {
        let mut service = service();
        service.cpu(0.0, limit);
        service.read_at(0.0);
        service.cpu(seconds, limit);
        service.read_at(10.0);
        says(&service.row("cpu"), verdict, Some(ratio), "cores");
    }
    let mut service = service();
    service.cpu(1.0, f64::NAN);
    service.read_at(0.0);
    service.cpu(2.0, f64::NAN);
    service.read_at(10.0);
    says(&service.row("cpu"), NoData, None, "not known");
}

#[test]
fn cpu_seconds_that_appear_later_are_not_a_burst() {
    let mut service = service();
    service.read_at(0.0);
    service.cpu(500.0, 1.0);
    service.read_at(10.0);
    says(&service.row("cpu"), NoData, None, "not known");
    service.cpu(502.0, 1.0);
    service.read_at(20.0);
    says(&service.row("cpu"), Ok, Some(0.2), "0.20 of 1 cores");
}

#[test]
fn memory_is_judged_as_it_is_now() {
    for (ratio, verdict) in [(0.79, Ok), (0.8, Breach), (1.2, Breach)] {
        let mut service = service();
        service.memory(ratio);
        service.read_at(0.0);
        says(&service.row("memory"), verdict, Some(ratio), "of the limit");
    }
}

#[test]
fn the_busiest_disk_is_judged() {
    let cases = [
        (&[("sda", 1.0), ("sdb", 6.9)][..], Ok, 0.69, "sdb"),
        (&[("sda", 7.0), ("sdb", 1.0)], Breach, 0.7, "sda"),
        (&[("sda", 10.4)], Breach, 1.0, "sda"),
    ];
    for (disks, verdict, ratio, name) in cases {
        let mut service = service();
        for (disk, _) in disks {
            service.disk(disk, 0.0);
        }
        service.read_at(0.0);
        for (disk, busy) in disks {
            service.disk(disk, *busy);
        }
        service.read_at(10.0);
        says(&service.row("disk_busy"), verdict, Some(ratio), name);
    }
}

#[test]
fn thresholds_and_values_become_gauges_and_a_value_without_data_is_absent() {
    let mut service = service();
    service.memory(0.25);
    service.read_at(0.0);
    let shown = |service: &Service, metric| {
        let snapshot = service.metrics.snapshot();
        let family = snapshot.family(metric).unwrap();
        let values = snapshot.values(family);
        let found: Vec<(String, f64)> = values
            .map(|(series, value)| match value {
                Value::Float(value) => (series.values[0].to_string(), value),
                other => panic!("{other:?}"),
            })
            .collect();
        found
    };
    let publish_all = |service: &Service| {
        let table = service.window.table(HOUR, 0);
        let levels = service.window.cache_levels(HOUR);
        publish(&service.metrics, table.rows.iter().chain(&levels));
    };
    publish_all(&service);
    let thresholds = shown(&service, &families::AGENT_TARGET_THRESHOLD);
    assert_eq!(thresholds.len(), 10);
    assert!(thresholds.contains(&("latency_p95".to_owned(), 0.2)));
    assert!(thresholds.contains(&("cache_hit_l3".to_owned(), 0.7)));
    let memory = ("memory".to_owned(), 0.25);
    assert_eq!(shown(&service, &families::AGENT_TARGET_VALUE), [memory]);
    service.memory(f64::NAN);
    service.read_at(10.0);
    publish_all(&service);
    assert_eq!(shown(&service, &families::AGENT_TARGET_VALUE), []);
}

#[test]
fn requests_beyond_the_series_limit_are_no_failures() {
    let mut service = service();
    let mut row = families::HTTP_SERVER_REQUEST_DURATION;
    row.series_limit = 0;
    let overflow = service.metrics.histogram(&row, &["", "", "500", "", ""]);
    service.read_at(0.0);
    overflow.unwrap().record(MS);
    service.read_at(10.0);
    says(
        &service.row("error_ratio"),
        Ok,
        Some(0.0),
        "0 of 1 requests",
    );
}
