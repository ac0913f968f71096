use std::collections::HashSet;

use super::bounds::Bounds;
use super::{Kind, Unit, endpoints, families};

#[test]
fn names_are_unique_also_without_the_suffixes_that_openmetrics_drops() {
    let mut seen = HashSet::new();
    for metric in families::ALL {
        let base = metric.name.strip_suffix("_total").unwrap_or(metric.name);
        let base = base.strip_suffix("_info").unwrap_or(base);
        assert!(seen.insert(base), "{} clashes", metric.name);
    }
}

#[test]
fn counters_end_in_total_and_units_stand_in_the_name() {
    for metric in families::ALL {
        let counts = matches!(metric.kind, Kind::Counter | Kind::ObservedCounter);
        assert_eq!(metric.name.ends_with("_total"), counts, "{}", metric.name);
        let base = metric.name.trim_end_matches("_total");
        let suffix = match metric.unit {
            Unit::Seconds => "_seconds",
            Unit::Bytes => "_bytes",
            Unit::Ratio => "_ratio",
            Unit::Count | Unit::Number => "",
        };
        assert!(
            base.ends_with(suffix),
            "{} should end in {suffix}",
            metric.name
        );
        let wrong = ["_milliseconds", "_ms", "_percent", "_kb"];
        assert!(
            wrong.iter().all(|end| !base.ends_with(end)),
            "{}",
            metric.name
        );
    }
}

#[test]
fn every_row_has_help_that_ends_in_a_full_stop_and_at_most_ten_labels() {
    for metric in families::ALL {
        let whole = metric.help.ends_with('.') || metric.help.ends_with(").");
        assert!(
            metric.help.len() > 10 && whole,
            "{}: {}",
            metric.name,
            metric.help
        );
        assert!(metric.labels.len() <= 10, "{}", metric.name);
        let distinct: HashSet<_> = metric.labels.iter().collect();
        assert_eq!(distinct.len(), metric.labels.len(), "{}", metric.name);
    }
}

#[test]
fn the_latency_targets_are_bounds_of_every_request_histogram() {
    for millis in [100, 200] {
        assert!(Bounds::Request.classic().contains(&(millis * 1_000_000)));
    }
}

#[test]
fn every_endpoint_has_help_and_a_path_of_its_own() {
    let mut seen = HashSet::new();
    for endpoint in endpoints::ALL {
        assert!(
            seen.insert(endpoint.path) && endpoint.help.ends_with('.'),
            "{}",
            endpoint.path
        );
    }
}
