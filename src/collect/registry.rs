//! Families of the host's `prometheus` registries, taken over for our pages.
//!
//! The `prometheus` crate merges families of one name unchecked and its encoder panics on some
//! types; here each family is checked, and one that does not fit is left out and counted. Ours wins
//! a clash of names.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus::Registry;
use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::Source;
use crate::catalog::families::AGENT_SCRAPE_CONFLICTS;
use crate::config;
use crate::error::Error;
use crate::store::Store;
use crate::store::foreign::{ForeignFamily, ForeignKind, ForeignSeries, ForeignValue};
use crate::store::metrics::Counter;
use crate::store::metrics::names::{Shape, claims, is_label_name, is_metric_name};
use crate::store::sync::lock;

/// The registries that the host handed over. Clones share the list.
#[derive(Debug, Clone)]
pub(crate) struct Registries {
    registries: Arc<Mutex<Vec<Registry>>>,
    store: Arc<Store>,
    conflicts: Conflicts,
}

/// What was left out, by why.
#[derive(Debug, Clone)]
struct Conflicts {
    name: Counter,
    invalid: Counter,
    limit: Counter,
    panic: Counter,
}

impl Registries {
    /// An empty list whose families go to `store`.
    ///
    /// # Errors
    /// Out of range if the conflict counter was declared in another shape.
    pub(crate) fn new(store: Arc<Store>) -> Result<Self, Error> {
        let counter = |source| store.metrics.counter(&AGENT_SCRAPE_CONFLICTS, &[source]);
        let conflicts = Conflicts {
            name: counter("name")?,
            invalid: counter("invalid")?,
            limit: counter("limit")?,
            panic: counter("panic")?,
        };
        Ok(Self {
            registries: Arc::default(),
            store,
            conflicts,
        })
    }

    /// Shows the registry's families from the next collection on.
    pub(crate) fn add(&self, registry: Registry) {
        lock(&self.registries).push(registry);
    }

    fn gather(&self) -> Vec<ForeignFamily> {
        let registries = lock(&self.registries).clone();
        let mut claimed = HashSet::new();
        let mut held = 0;
        let mut kept = Vec::new();
        for registry in registries {
            // A collector is the host's code, and its panic must not end our thread.
            let Ok(families) = catch_unwind(AssertUnwindSafe(|| registry.gather())) else {
                self.conflicts.panic.inc();
                continue;
            };
            for family in families {
                let Some(family) = checked(family) else {
                    self.conflicts.invalid.inc();
                    continue;
                };
                let names: Vec<String> = claims(&family.name, shape(family.kind)).collect();
                let taken =
                    |name: &String| claimed.contains(name) || self.store.metrics.claims(name);
                if names.iter().any(taken) {
                    self.conflicts.name.inc();
                } else if held + family.series.len() > config::SERIES {
                    self.conflicts.limit.inc();
                } else {
                    held += family.series.len();
                    claimed.extend(names);
                    kept.push(family);
                }
            }
        }
        kept.sort_by(|one, other| one.name.cmp(&other.name));
        kept
    }
}

impl Source for Registries {
    fn component(&self) -> &'static str {
        "registry"
    }

    /// Seldom, as a registry may be large: `prometheus` takes 270 ms for 100,000 series (design
    /// measurement). A scrape asks for a fresh reading anyway.
    fn interval(&self) -> Duration {
        config::HOST_INTERVAL
    }

    fn on_scrape(&self) -> bool {
        true
    }

    fn collect(&mut self) {
        let families = self.gather();
        self.store.foreign.replace(families);
    }
}

fn shape(kind: ForeignKind) -> Shape {
    match kind {
        ForeignKind::Counter => Shape::Counter,
        ForeignKind::Gauge | ForeignKind::Untyped => Shape::Plain,
        ForeignKind::Histogram => Shape::Histogram,
        ForeignKind::Summary => Shape::Summary,
    }
}

/// The family in neutral form; `None` if any part of it would make a false or refused page.
fn checked(mut family: MetricFamily) -> Option<ForeignFamily> {
    let kind = match family.get_field_type() {
        MetricType::COUNTER => ForeignKind::Counter,
        MetricType::GAUGE => ForeignKind::Gauge,
        MetricType::SUMMARY => ForeignKind::Summary,
        MetricType::UNTYPED => ForeignKind::Untyped,
        MetricType::HISTOGRAM => ForeignKind::Histogram,
    };
    let name = family.take_name();
    let metrics = family.take_metric();
    let series: Vec<ForeignSeries> = metrics
        .into_iter()
        .map(|metric| checked_series(kind, metric))
        .collect::<Option<_>>()?;
    let fits = is_metric_name(&name) && !series.is_empty() && are_distinct(&series);
    fits.then(|| ForeignFamily {
        name,
        help: family.take_help(),
        kind,
        series,
    })
}

fn checked_series(kind: ForeignKind, mut metric: Metric) -> Option<ForeignSeries> {
    let value = value(kind, &metric)?;
    let reserved = match kind {
        ForeignKind::Histogram => "le",
        ForeignKind::Summary => "quantile",
        ForeignKind::Counter | ForeignKind::Gauge | ForeignKind::Untyped => "",
    };
    let mut labels: Vec<(String, String)> = metric
        .take_label()
        .into_iter()
        .map(|mut pair| (pair.take_name(), pair.take_value()))
        .collect();
    let mut names = HashSet::new();
    let fits = |(name, _): &(String, String)| {
        is_label_name(name) && name != reserved && names.insert(name.clone())
    };
    if !labels.iter().all(fits) {
        return None;
    }
    // An empty value and an absent label are the same thing to Prometheus.
    labels.retain(|(_, value)| !value.is_empty());
    Some(ForeignSeries { labels, value })
}

fn value(kind: ForeignKind, metric: &Metric) -> Option<ForeignValue> {
    match kind {
        ForeignKind::Counter => {
            let total = metric.counter.as_ref()?.value();
            (total >= 0.0).then_some(ForeignValue::Number(total))
        }
        ForeignKind::Gauge => Some(ForeignValue::Number(metric.gauge.as_ref()?.value())),
        ForeignKind::Untyped => Some(ForeignValue::Number(metric.untyped.as_ref()?.value())),
        ForeignKind::Histogram => {
            let histogram = metric.histogram.as_ref()?;
            let count = histogram.sample_count();
            let buckets: Vec<(f64, u64)> = histogram
                .bucket
                .iter()
                .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
                .filter(|(bound, _)| *bound < f64::INFINITY || bound.is_nan())
                .collect();
            let rises =
                buckets.is_sorted_by(|(low, fewer), (high, more)| low < high && fewer <= more);
            let last = buckets.last().copied().unwrap_or((0.0, 0));
            (rises && !last.0.is_nan() && last.1 <= count).then(|| ForeignValue::Histogram {
                buckets,
                sum: histogram.sample_sum(),
                count,
            })
        }
        ForeignKind::Summary => {
            let summary = metric.summary.as_ref()?;
            let quantiles: Vec<(f64, f64)> = summary
                .quantile
                .iter()
                .map(|quantile| (quantile.quantile(), quantile.value()))
                .collect();
            let inside = quantiles
                .iter()
                .all(|(quantile, _)| (0.0..=1.0).contains(quantile));
            inside.then(|| ForeignValue::Summary {
                quantiles,
                sum: summary.sample_sum(),
                count: summary.sample_count(),
            })
        }
    }
}

fn are_distinct(series: &[ForeignSeries]) -> bool {
    let mut seen = HashSet::new();
    series.iter().all(|series| {
        let mut labels: Vec<&(String, String)> = series.labels.iter().collect();
        labels.sort_unstable();
        seen.insert(labels)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{collector::CoreCollector, openmetrics, text};
    use prometheus::core::{Collector, Desc};
    use prometheus::proto;
    use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter};

    /// Gives whatever families a test wants.
    struct Fixed(Vec<MetricFamily>);

    impl Collector for Fixed {
        fn desc(&self) -> Vec<&Desc> {
            Vec::new()
        }

        fn collect(&self) -> Vec<MetricFamily> {
            self.0.clone()
        }
    }

    struct Panicking;

    impl Collector for Panicking {
        fn desc(&self) -> Vec<&Desc> {
            Vec::new()
        }

        fn collect(&self) -> Vec<MetricFamily> {
            panic!("a collector of the host's")
        }
    }

    fn family(name: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(format!("Help of {name}."));
        family.set_field_type(kind);
        family.set_metric(metrics);
        family
    }

    fn labels(pairs: &[(&str, &str)]) -> Vec<proto::LabelPair> {
        let pair = |(name, value): &(&str, &str)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        pairs.iter().map(pair).collect()
    }

    fn gauge(pairs: &[(&str, &str)], value: f64) -> Metric {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_gauge(gauge);
        metric.set_label(labels(pairs));
        metric
    }

    fn counter(value: f64) -> Metric {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        let mut metric = Metric::default();
        metric.set_counter(counter);
        metric
    }

    fn histogram(buckets: &[(f64, u64)], count: u64) -> Metric {
        let mut histogram = proto::Histogram::default();
        let bucket = |(bound, total): &(f64, u64)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*total);
            bucket
        };
        histogram.set_bucket(buckets.iter().map(bucket).collect());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(1.5);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        metric
    }

    fn untyped(value: f64) -> Metric {
        let mut number = proto::Untyped::default();
        number.set_value(value);
        Metric {
            untyped: Some(number).into(),
            ..Metric::default()
        }
    }

    fn summary(quantile: f64) -> Metric {
        let mut at = proto::Quantile::default();
        at.set_quantile(quantile);
        at.set_value(0.25);
        let mut summary = proto::Summary::default();
        summary.set_quantile(vec![at]);
        summary.set_sample_count(4);
        summary.set_sample_sum(0.5);
        let mut metric = Metric::default();
        metric.set_summary(summary);
        metric
    }

    struct Page {
        text: String,
        openmetrics: String,
    }

    impl Page {
        fn conflicts(&self, source: &str) -> u64 {
            let start = format!("agent_scrape_conflicts_total{{source=\"{source}\"}} ");
            let line = self.text.lines().find_map(|line| line.strip_prefix(&start));
            line.unwrap().parse().unwrap()
        }

        /// Lines of foreign families in the text page.
        fn foreign(&self) -> Vec<&str> {
            let ours = |line: &&str| !line.contains("agent_scrape_conflicts_total");
            self.text.lines().filter(ours).collect()
        }
    }

    fn page(registries: Vec<Registry>) -> Page {
        let store = Arc::new(Store::new(1000));
        let mut source = Registries::new(Arc::clone(&store)).unwrap();
        for registry in registries {
            source.clone().add(registry);
        }
        source.collect();
        let (mut plain, mut open) = (Vec::new(), Vec::new());
        let (snapshot, foreign) = (store.metrics.snapshot(), store.foreign.get());
        text::encode(&snapshot, &foreign, &mut plain);
        openmetrics::encode(&snapshot, &foreign, &mut open);
        Page {
            text: String::from_utf8(plain).unwrap(),
            openmetrics: String::from_utf8(open).unwrap(),
        }
    }

    fn fixed(families: Vec<MetricFamily>) -> Registry {
        let registry = Registry::new();
        registry.register(Box::new(Fixed(families))).unwrap();
        registry
    }

    #[test]
    fn foreign_registry_families_stand_on_both_pages() {
        let registry = Registry::new();
        let jobs = IntCounter::new("jobs_total", "Jobs \\ \"done\".").unwrap();
        let ticks = IntCounter::new("ticks", "Ticks.").unwrap();
        let level = Gauge::new("level", "Level.").unwrap();
        let sizes = HistogramOpts::new("sizes", "Sizes.").buckets(vec![1.0, 1_048_576.0]);
        let sizes = Histogram::with_opts(sizes).unwrap();
        jobs.inc_by(3);
        ticks.inc();
        level.set(-0.5);
        sizes.observe(2.0);
        registry.register(Box::new(jobs)).unwrap();
        registry.register(Box::new(ticks)).unwrap();
        registry.register(Box::new(level)).unwrap();
        registry.register(Box::new(sizes)).unwrap();
        let page = page(vec![registry]);
        let expected = "\
# HELP jobs_total Jobs \\\\ \"done\".
# TYPE jobs_total counter
jobs_total 3
# HELP level Level.
# TYPE level gauge
level -0.5
# HELP sizes Sizes.
# TYPE sizes histogram
sizes_bucket{le=\"1.0\"} 0
sizes_bucket{le=\"1.048576e+06\"} 1
sizes_bucket{le=\"+Inf\"} 1
sizes_sum 2
sizes_count 1
# HELP ticks Ticks.
# TYPE ticks counter
ticks 1";
        assert_eq!(page.foreign().join("\n"), expected);
        for line in [
            "# HELP jobs Jobs \\\\ \\\"done\\\".",
            "# TYPE jobs counter",
            "jobs_total 3",
            "# TYPE ticks unknown",
            "ticks 1",
        ] {
            assert!(
                page.openmetrics.lines().any(|shown| shown == line),
                "{line}"
            );
        }
    }

    #[test]
    fn foreign_registry_untyped_and_summary_are_shown() {
        let page = page(vec![fixed(vec![
            family("raw", MetricType::UNTYPED, vec![untyped(f64::NAN)]),
            family("took", MetricType::SUMMARY, vec![summary(1.0)]),
        ])]);
        let expected = [
            "# HELP raw Help of raw.",
            "# TYPE raw untyped",
            "raw NaN",
            "# HELP took Help of took.",
            "# TYPE took summary",
            "took{quantile=\"1.0\"} 0.25",
            "took_sum 0.5",
            "took_count 4",
        ];
        assert_eq!(page.foreign(), expected);
        assert!(page.openmetrics.contains("# TYPE raw unknown\n"));
    }

    #[test]
    fn foreign_registry_clash_is_won_by_ours_under_every_name() {
        let clashing = [
            "process_open_fds",
            "http_server_connections",
            "http_server_request_duration_seconds_count",
            "agent_scrape_conflicts_total",
            "target",
        ];
        let families = clashing
            .iter()
            .map(|name| family(name, MetricType::GAUGE, vec![gauge(&[], 1.0)]));
        let page = page(vec![fixed(families.collect())]);
        assert!(page.foreign().is_empty(), "{}", page.text);
        assert_eq!(page.conflicts("name"), clashing.len() as u64);
    }

    #[test]
    fn foreign_registry_of_a_later_registry_yields_to_an_earlier_one() {
        let one = fixed(vec![family(
            "took",
            MetricType::HISTOGRAM,
            vec![histogram(&[(0.5, 1)], 2)],
        )]);
        let two = fixed(vec![
            family("took_sum", MetricType::GAUGE, vec![gauge(&[], 1.0)]),
            family("other", MetricType::GAUGE, vec![gauge(&[], 1.0)]),
        ]);
        let page = page(vec![one, two]);
        assert_eq!(page.conflicts("name"), 1);
        assert!(page.text.contains("\nother 1\n") && page.text.contains("\ntook_sum 1.5\n"));
    }

    #[test]
    fn foreign_registry_with_a_wrong_type_or_name_is_left_out() {
        let bad = vec![
            family("a_gauge", MetricType::GAUGE, vec![counter(1.0)]),
            family("b_total", MetricType::COUNTER, vec![counter(-1.0)]),
            family("c_total", MetricType::COUNTER, vec![counter(f64::NAN)]),
            family("d", MetricType::HISTOGRAM, vec![untyped(1.0)]),
            family(
                "e",
                MetricType::HISTOGRAM,
                vec![histogram(&[(2.0, 1), (1.0, 2)], 3)],
            ),
            family(
                "f",
                MetricType::HISTOGRAM,
                vec![histogram(&[(1.0, 2), (2.0, 1)], 3)],
            ),
            family("g", MetricType::HISTOGRAM, vec![histogram(&[(1.0, 4)], 3)]),
            family(
                "h",
                MetricType::HISTOGRAM,
                vec![histogram(&[(f64::NAN, 1)], 3)],
            ),
            family("i", MetricType::SUMMARY, vec![summary(1.5)]),
            family("9j", MetricType::GAUGE, vec![gauge(&[], 1.0)]),
            family("k-l", MetricType::GAUGE, vec![gauge(&[], 1.0)]),
            family("m", MetricType::GAUGE, vec![gauge(&[("a b", "")], 1.0)]),
            family(
                "n",
                MetricType::GAUGE,
                vec![gauge(&[("__name__", "x")], 1.0)],
            ),
            family(
                "o",
                MetricType::GAUGE,
                vec![gauge(&[("a", "1"), ("a", "2")], 1.0)],
            ),
            family(
                "p",
                MetricType::GAUGE,
                vec![gauge(&[("a", "1")], 1.0), gauge(&[("a", "1")], 2.0)],
            ),
        ];
        let count = bad.len() as u64;
        let page = page(vec![fixed(bad)]);
        assert!(page.foreign().is_empty(), "{}", page.text);
        assert_eq!(page.conflicts("invalid"), count);
    }

    #[test]
    fn foreign_registry_that_panics_loses_its_own_families_only() {
        let panicking = Registry::new();
        panicking.register(Box::new(Panicking)).unwrap();
        let well = fixed(vec![family(
            "well",
            MetricType::GAUGE,
            vec![gauge(&[], 1.0)],
        )]);
        let page = page(vec![panicking, well]);
        assert_eq!(page.conflicts("panic"), 1);
        assert!(page.text.contains("\nwell 1\n"));
    }

    #[test]
    fn foreign_registry_beyond_the_series_limit_is_left_out() {
        let many = (0..=config::SERIES)
            .map(|place| gauge(&[("place", &place.to_string())], 1.0))
            .collect();
        let page = page(vec![fixed(vec![
            family("few", MetricType::GAUGE, vec![gauge(&[], 1.0)]),
            family("many", MetricType::GAUGE, many),
        ])]);
        assert_eq!(page.conflicts("limit"), 1);
        assert!(page.text.contains("\nfew 1\n") && !page.text.contains("many"));
    }

    #[test]
    fn foreign_registry_that_holds_our_core_shows_nothing_twice() {
        let store = Arc::new(Store::new(1000));
        let mut source = Registries::new(Arc::clone(&store)).unwrap();
        let registry = Registry::new();
        let core = CoreCollector::new(Arc::clone(&store));
        registry.register(Box::new(core)).unwrap();
        source.add(registry);
        source.collect();
        assert!(store.foreign.get().is_empty());
    }
}
