//! Pages of a core with everything that is hard to write, and of the whole catalogue.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::LIMITS;
use super::parser::{Labels, Page, parse};
use crate::catalog::families::{ALL, HTTP_SERVER_REQUEST_DURATION, TARGET_INFO};
use crate::catalog::{Kind, Metric, Unit};
use crate::export::{openmetrics, text};
use crate::store::foreign::{ForeignFamily, ForeignKind, ForeignSeries, ForeignValue};
use crate::store::metrics::{Metrics, TraceContext};

static HOSTILE: Metric = Metric::counter(
    "hostile_total",
    "Back\\slash, \"quotes\",\nand a second line.",
)
.labels(&["a", "b"]);
static LEVEL: Metric = Metric::gauge("level_ratio", "Level.")
    .unit(Unit::Ratio)
    .labels(&["place"]);
static BODY: Metric = Metric::size_histogram("body_size_bytes", "Size of bodies.");
static OPEN: Metric = Metric::up_down("open_things", "Open.");
static READ: Metric = Metric::observed_counter("read_bytes_total", "Read.").unit(Unit::Bytes);

/// A core with everything that is hard to write.
pub(super) fn hostile() -> Metrics {
    let metrics = Metrics::new(LIMITS);
    for (place, values) in [
        ["1", "12"],
        ["11", "2"],
        ["", ""],
        ["quote\" slash\\ line\nend", "},{le=\"0.5\"} 7 # EOF"],
        ["é漢🦀", "\u{1}\t \u{2028}"],
        ["\\", "\\n"],
    ]
    .into_iter()
    .enumerate()
    {
        metrics
            .counter(&HOSTILE, &values)
            .unwrap()
            .add(place as u64 * 10);
    }
    for (place, value) in [
        ("half", 0.5),
        ("less", -1e-7),
        ("most", f64::INFINITY),
        ("least", f64::NEG_INFINITY),
        ("large", 1e21),
        ("absent", f64::NAN),
    ] {
        metrics.gauge(&LEVEL, &[place]).unwrap().set(value);
    }
    metrics.up_down(&OPEN, &[]).unwrap().add(-3);
    metrics.observed_counter(&READ, &[]).unwrap().set(12.5);
    let body = metrics.histogram(&BODY, &[]).unwrap();
    for bytes in [0, 256, 257, 1 << 20, u64::MAX >> 12] {
        body.record_value(bytes);
    }
    let request = metrics
        .histogram(
            &HTTP_SERVER_REQUEST_DURATION,
            &["GET", "/a\"b", "200", "http"],
        )
        .unwrap();
    let trace = TraceContext {
        trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
        span_id: 0x00ad_6b71_6920_3331,
    };
    request.record_traced(Duration::from_millis(200), Some(trace));
    request.record_traced(Duration::from_secs(20), Some(trace));
    request.record(Duration::from_nanos(200_000_001));
    metrics
        .info(&TARGET_INFO, &["svc", "1.0", "host", "7"])
        .unwrap();
    metrics
}

pub(super) fn foreign() -> Vec<ForeignFamily> {
    let family = |name: &str, kind, values: Vec<(&str, ForeignValue)>| ForeignFamily {
        name: name.to_owned(),
        help: "A \"foreign\" one.".to_owned(),
        kind,
        series: values
            .into_iter()
            .map(|(label, value)| ForeignSeries {
                labels: vec![("label".to_owned(), label.to_owned())],
                value,
            })
            .collect(),
    };
    let histogram = ForeignValue::Histogram {
        buckets: vec![(0.000_001, 1), (1.0, 2), (1e6, 2)],
        sum: 1.25,
        count: 3,
    };
    let summary = ForeignValue::Summary {
        quantiles: vec![(0.5, 0.1), (1.0, f64::NAN)],
        sum: 0.3,
        count: 2,
    };
    use ForeignValue::Number;
    vec![
        family("a_jobs", ForeignKind::Counter, vec![("x", Number(2.0))]),
        family(
            "b_jobs_total",
            ForeignKind::Counter,
            vec![("x\"", Number(3.5))],
        ),
        family("c_empty", ForeignKind::Gauge, vec![]),
        family(
            "level_ratio",
            ForeignKind::Gauge,
            vec![("ours wins", Number(9.0))],
        ),
        family("m_raw", ForeignKind::Untyped, vec![("x", Number(f64::NAN))]),
        family(
            "z_took_seconds",
            ForeignKind::Histogram,
            vec![("x", histogram)],
        ),
        family("z_waited", ForeignKind::Summary, vec![("x", summary)]),
    ]
}

/// A core in which every family of the catalogue has a value.
pub(super) fn whole_catalogue() -> Metrics {
    let metrics = Metrics::new(LIMITS);
    for metric in ALL {
        let values = vec!["x"; metric.labels.len()];
        match metric.kind {
            Kind::Counter => metrics.counter(metric, &values).unwrap().add(2),
            Kind::ObservedCounter => metrics.observed_counter(metric, &values).unwrap().set(2.5),
            Kind::UpDown => metrics.up_down(metric, &values).unwrap().add(3),
            Kind::Gauge => metrics.gauge(metric, &values).unwrap().set(0.25),
            Kind::Histogram(_) => metrics.histogram(metric, &values).unwrap().record_value(7),
            Kind::Info => metrics.info(metric, &values).unwrap(),
        }
    }
    metrics
}

pub(super) fn text_page(metrics: &Metrics, foreign: &[ForeignFamily]) -> Vec<u8> {
    let mut page = Vec::new();
    text::encode(&metrics.snapshot(), foreign, &mut page);
    page
}

pub(super) fn openmetrics_page(metrics: &Metrics, foreign: &[ForeignFamily]) -> Vec<u8> {
    let mut page = Vec::new();
    openmetrics::encode(&metrics.snapshot(), foreign, &mut page);
    page
}

fn both(metrics: &Metrics, foreign: &[ForeignFamily]) -> [Page; 2] {
    [
        parse(&text_page(metrics, foreign), false),
        parse(&openmetrics_page(metrics, foreign), true),
    ]
}

/// The one thing on a page that changes with the clock.
fn without_times(page: &[u8]) -> String {
    let page = std::str::from_utf8(page).unwrap();
    let line = |line: &str| match line.split_once(" # {") {
        Some(_) => {
            let (before, time) = line.rsplit_once(' ').unwrap();
            let (_, millis) = time.split_once('.').unwrap();
            assert_eq!(millis.len(), 3, "{line}");
            format!("{before} TIME\n")
        }
        None => format!("{line}\n"),
    };
    page.lines().map(line).collect()
}

#[test]
fn golden_pages() {
    let (metrics, foreign) = (hostile(), foreign());
    for (file, page) in [
        ("metrics.txt", text_page(&metrics, &foreign)),
        (
            "metrics.openmetrics.txt",
            openmetrics_page(&metrics, &foreign),
        ),
    ] {
        let path = format!("{}/tests/data/{file}", env!("CARGO_MANIFEST_DIR"));
        let page = without_times(&page);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap();
        assert_eq!(page, golden, "{path} differs; BLESS=1 rewrites it");
    }
}

#[test]
fn a_stranger_reads_back_what_was_recorded() {
    let [text, open] = both(&hostile(), &foreign());
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    };
    for page in [&text, &open] {
        let value = |name: &str, pairs: &[(&str, &str)]| {
            page.samples.get(&(name.to_owned(), labels(pairs))).copied()
        };
        assert_eq!(
            value("hostile_total", &[("a", "1"), ("b", "12")]),
            Some(0.0)
        );
        assert_eq!(
            value("hostile_total", &[("a", "11"), ("b", "2")]),
            Some(10.0)
        );
        assert_eq!(value("hostile_total", &[]), Some(20.0));
        let worst = [
            ("a", "quote\" slash\\ line\nend"),
            ("b", "},{le=\"0.5\"} 7 # EOF"),
        ];
        assert_eq!(value("hostile_total", &worst), Some(30.0));
        assert_eq!(
            value("hostile_total", &[("a", "\\"), ("b", "\\n")]),
            Some(50.0)
        );
        assert_eq!(value("level_ratio", &[("place", "absent")]), None);
        assert_eq!(value("level_ratio", &[("label", "ours wins")]), None);
        assert_eq!(value("open_things", &[]), Some(-3.0));
        assert_eq!(
            value("body_size_bytes_bucket", &[("le", "256.0")]),
            Some(2.0)
        );
        assert_eq!(
            value("body_size_bytes_bucket", &[("le", "1.048576e+06")]),
            Some(4.0)
        );
        assert!(!page.families.contains_key("c_empty"));
    }
    let help = Some("Back\\slash, \"quotes\",\nand a second line.");
    assert_eq!(text.families["hostile_total"].help.as_deref(), help);
    assert_eq!(open.families["hostile"].help.as_deref(), help);
    let kind = |page: &Page, name: &str| page.families[name].kind.clone();
    assert_eq!(kind(&text, "target_info"), "gauge");
    assert_eq!(kind(&open, "target"), "info");
    assert_eq!(kind(&text, "m_raw"), "untyped");
    assert_eq!(kind(&open, "m_raw"), "unknown");
    assert_eq!(kind(&open, "a_jobs"), "unknown");
    assert_eq!(kind(&open, "b_jobs"), "counter");
    let unit = |name: &str| open.families[name].unit.clone();
    assert_eq!(
        unit("http_server_request_duration_seconds").as_deref(),
        Some("seconds")
    );
    assert_eq!(unit("read_bytes").as_deref(), Some("bytes"));
    assert_eq!(unit("level_ratio").as_deref(), Some("ratio"));
    assert_eq!(unit("open_things"), None);
}

#[test]
fn exemplars_stand_on_their_own_bucket_and_only_in_openmetrics() {
    let [text, open] = both(&hostile(), &[]);
    assert!(text.exemplars.is_empty());
    let shown: Vec<_> = open
        .exemplars
        .iter()
        .map(|one| (one.le, one.value))
        .collect();
    assert_eq!(shown, [(0.2, 0.2), (f64::INFINITY, 20.0)]);
    for exemplar in &open.exemplars {
        assert_eq!(
            exemplar.sample,
            "http_server_request_duration_seconds_bucket"
        );
        assert_eq!(
            exemplar.labels["trace_id"],
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(exemplar.labels["span_id"], "00ad6b7169203331");
        assert!(exemplar.unix_seconds > 1.7e9);
    }
}

#[test]
fn target_info_is_first_and_the_rest_is_sorted() {
    for page in [
        text_page(&hostile(), &foreign()),
        openmetrics_page(&hostile(), &foreign()),
    ] {
        let page = String::from_utf8(page).unwrap();
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let names: Vec<&str> = types.map(|rest| rest.split(' ').next().unwrap()).collect();
        assert!(names[0].starts_with("target"), "{names:?}");
        assert!(names[1..].is_sorted(), "{names:?}");
    }
}

#[test]
fn an_empty_core_is_a_valid_page() {
    let metrics = Metrics::new(LIMITS);
    metrics.gauge(&LEVEL, &["never set"]).unwrap();
    assert!(text_page(&metrics, &[]).is_empty());
    assert_eq!(openmetrics_page(&metrics, &[]), b"# EOF\n");
}

#[test]
fn format_switch_splits_nothing() {
    for metrics in [hostile(), whole_catalogue()] {
        let [text, open] = both(&metrics, &foreign());
        let series = |page: &Page| page.samples.keys().cloned().collect::<Vec<_>>();
        assert_eq!(series(&text), series(&open));
    }
}

#[test]
fn every_target_of_time_is_a_bound_of_the_request_page() {
    let targets: toml::Table = include_str!("../../../targets.toml").parse().unwrap();
    let [page, _] = both(&whole_catalogue(), &[]);
    let mut checked = 0;
    for (name, target) in targets["target"].as_table().unwrap() {
        if target["unit"].as_str() != Some("s") {
            continue;
        }
        for threshold in ["must", "stretch"] {
            let threshold = target[threshold].as_float().unwrap();
            let bound = |(sample, labels): &(String, Labels)| {
                sample == "http_server_request_duration_seconds_bucket"
                    && labels["le"] == format!("{threshold:?}")
            };
            assert!(page.samples.keys().any(bound), "{name}: {threshold}");
            checked += 1;
        }
    }
    assert!(checked >= 2);
}

/// Runs a program over a page and returns what it said, or `None` if it is not there.
fn run(program: &str, arguments: &[&str], page: &[u8]) -> Option<(bool, String)> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.ok()?;
    // A program that refuses its arguments closes the pipe early; its status says so.
    let written = child.stdin.take().unwrap().write_all(page);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    Some((output.status.success() && written.is_ok(), said))
}

#[test]
fn promtool_finds_nothing_to_say_about_the_catalogue() {
    let page = text_page(&whole_catalogue(), &[]);
    let Some((_, said)) = run("promtool", &["check", "metrics"], &page) else {
        println!("skipped: promtool is not installed");
        return;
    };
    let complaints: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    // The tool does look.
    let bad = b"# TYPE x_total gauge\nx_total 1\n";
    let (fine, said) = run("promtool", &["check", "metrics"], bad).unwrap();
    assert!(!fine && said.contains("x_total"), "{said}");
}

#[test]
fn the_reference_parser_of_openmetrics_reads_the_page() {
    const READ: &str = "\
import sys
try:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as read
except ImportError:
    print('no parser'); sys.exit(0)
page = sys.stdin.buffer.read().decode()
print(sum(len(family.samples) for family in read(page)))";
    for metrics in [hostile(), whole_catalogue()] {
        let page = openmetrics_page(&metrics, &foreign());
        let samples = parse(&page, true).samples.len();
        match run("python3", &["-c", READ], &page) {
            Some((_, said)) if said.trim() == "no parser" => {
                println!("skipped: python3 has no prometheus_client");
            }
            Some((_, said)) => assert_eq!(said.trim(), samples.to_string()),
            None => println!("skipped: python3 is not installed"),
        }
    }
}

#[cfg(feature = "prometheus")]
mod collector {
    use super::*;
    use crate::export::collector::CoreCollector;
    use crate::store::Store;
    use prometheus::core::Collector;
    use prometheus::proto::MetricFamily;
    use std::sync::Arc;

    static COUNT: Metric = Metric::counter("some_total", "Some.").labels(&["which"]);
    static WAIT: Metric = Metric::wait_histogram("some_wait_seconds", "Waits.").labels(&["which"]);
    static SIZE: Metric = Metric::size_histogram("some_size_bytes", "Sizes.").labels(&["which"]);
    static GAUGE: Metric = Metric::gauge("some_level", "Level.").labels(&["which"]);

    /// What the families say, as samples of a page.
    fn flat(families: &[MetricFamily]) -> BTreeMap<(String, Labels), f64> {
        let mut samples = BTreeMap::new();
        for family in families {
            for metric in family.get_metric() {
                let labels: Labels = metric
                    .get_label()
                    .iter()
                    .map(|pair| (pair.name().to_owned(), pair.value().to_owned()))
                    .collect();
                let mut add = |suffix: &str, labels: Labels, value: f64| {
                    samples.insert((format!("{}{suffix}", family.name()), labels), value);
                };
                if let Some(counter) = metric.counter.as_ref() {
                    add("", labels, counter.value());
                } else if let Some(gauge) = metric.gauge.as_ref() {
                    add("", labels, gauge.value());
                } else if let Some(histogram) = metric.histogram.as_ref() {
                    let count = histogram.sample_count() as f64;
                    for bucket in &histogram.bucket {
                        let mut labels = labels.clone();
                        let mut le = Vec::new();
                        crate::export::number::push_bound(&mut le, bucket.upper_bound());
                        labels.insert("le".to_owned(), String::from_utf8(le).unwrap());
                        add("_bucket", labels, bucket.cumulative_count() as f64);
                    }
                    let mut infinite = labels.clone();
                    infinite.insert("le".to_owned(), "+Inf".to_owned());
                    add("_bucket", infinite, count);
                    add("_sum", labels.clone(), histogram.sample_sum());
                    add("_count", labels, count);
                }
            }
        }
        samples
    }

    #[derive(Debug, Clone)]
    enum Step {
        Count(u8, u32),
        Wait(u8, u64),
        Request(u8, u64),
        Size(u8, u64),
        Level(u8, f64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4_u8, any::<u32>()).prop_map(|(which, by)| Step::Count(which, by)),
            (0..4_u8, 0..20_000_000_000_u64).prop_map(|(which, ns)| Step::Wait(which, ns)),
            (0..4_u8, 0..400_000_000_000_u64).prop_map(|(which, ns)| Step::Request(which, ns)),
            (0..4_u8, 0..1_u64 << 40).prop_map(|(which, bytes)| Step::Size(which, bytes)),
            (0..4_u8, any::<f64>()).prop_map(|(which, value)| Step::Level(which, value)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn views_agree(steps in proptest::collection::vec(step(), 0..200)) {
            let store = Arc::new(Store::new(1000));
            let metrics = &store.metrics;
            for step in steps {
                let which = |which: u8| which.to_string();
                match step {
                    Step::Count(place, by) => {
                        metrics.counter(&COUNT, &[&which(place)]).unwrap().add(by.into());
                    }
                    Step::Wait(place, nanos) => {
                        metrics.histogram(&WAIT, &[&which(place)]).unwrap().record_value(nanos);
                    }
                    Step::Request(place, nanos) => metrics
                        .histogram(&HTTP_SERVER_REQUEST_DURATION, &["GET", &which(place)])
                        .unwrap()
                        .record_value(nanos),
                    Step::Size(place, bytes) => {
                        metrics.histogram(&SIZE, &[&which(place)]).unwrap().record_value(bytes);
                    }
                    Step::Level(place, value) => {
                        metrics.gauge(&GAUGE, &[&which(place)]).unwrap().set(value);
                    }
                }
            }
            let [text, open] = both(metrics, &[]);
            let gathered = flat(&CoreCollector::new(Arc::clone(&store)).collect());
            prop_assert_eq!(&text.samples, &open.samples);
            prop_assert_eq!(&text.samples, &gathered);
        }
    }

    #[test]
    fn collector_exposes_core() {
        let store = Arc::new(Store::new(1000));
        store.metrics.counter(&COUNT, &["x"]).unwrap().add(7);
        let registry = prometheus::Registry::new();
        registry
            .register(Box::new(CoreCollector::new(Arc::clone(&store))))
            .unwrap();
        let page = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        assert!(
            page.contains("# TYPE some_total counter\nsome_total{which=\"x\"} 7\n"),
            "{page}"
        );
    }
}

#[test]
fn count_equals_inf_under_load() {
    let metrics = Metrics::new(LIMITS);
    let stop = AtomicBool::new(false);
    let times = metrics
        .histogram(&HTTP_SERVER_REQUEST_DURATION, &["GET", "/"])
        .unwrap();
    let name = |suffix: &str| format!("http_server_request_duration_seconds{suffix}");
    let recorded: u64 = std::thread::scope(|scope| {
        let record = || {
            let mut events = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                events += 1;
                times.record(Duration::from_millis(events * 7_919 % 12_000));
            }
            events
        };
        let writers = [(); 4].map(|()| scope.spawn(record));
        let mut last = (0.0, 0.0);
        for _ in 0..300 {
            // The parser checks that the +Inf bucket is the count and that buckets rise.
            let page = parse(&text_page(&metrics, &[]), false);
            let find = |wanted: &str| {
                let mut found = page.samples.iter().filter(|((name, _), _)| name == wanted);
                *found.next().unwrap().1
            };
            let now = (find(&name("_count")), find(&name("_sum")));
            assert!(now.0 >= last.0 && now.1 >= last.1, "{last:?} then {now:?}");
            last = now;
        }
        stop.store(true, Ordering::Relaxed);
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .sum()
    });
    let page = parse(&text_page(&metrics, &[]), false);
    let count = page
        .samples
        .iter()
        .find(|((sample, _), _)| *sample == name("_count"));
    assert_eq!(count.map(|(_, count)| *count), Some(recorded as f64));
}
