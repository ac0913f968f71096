//! Which names a family takes up, and which texts are names at all.
//!
//! A counter `jobs_total` is called `jobs` in OpenMetrics metadata, a histogram `x` also writes
//! `x_bucket`, `x_sum` and `x_count`. Two families whose names meet anywhere make a page that a
//! reader may refuse as a whole, so the check covers all of them.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::Metrics;
use crate::catalog::families::ALL;
use crate::catalog::{Kind, Metric};
use crate::store::sync::read;

/// How a family's samples are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    Counter,
    Info,
    Histogram,
    Summary,
}

impl Shape {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Counter | Kind::ObservedCounter => Self::Counter,
            Kind::UpDown | Kind::Gauge => Self::Plain,
            Kind::Histogram(_) => Self::Histogram,
            Kind::Info => Self::Info,
        }
    }

    /// What the samples append to the family's name, after that name itself lost the first of them.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Plain => &[],
            Self::Counter => &["_total", "_created"],
            Self::Info => &["_info"],
            Self::Histogram => &["_bucket", "_sum", "_count", "_created"],
            Self::Summary => &["_sum", "_count", "_created"],
        }
    }
}

/// Every name that a family takes up on any page.
pub(crate) fn claims(name: &str, shape: Shape) -> impl Iterator<Item = String> + '_ {
    let stem = match shape {
        Shape::Counter => name.strip_suffix("_total"),
        Shape::Info => name.strip_suffix("_info"),
        Shape::Plain | Shape::Histogram | Shape::Summary => Some(name),
    };
    let (stem, suffixes) = match stem {
        Some(stem) if !stem.is_empty() => (stem, shape.suffixes()),
        _ => (name, [].as_slice()),
    };
    let derived = suffixes.iter().map(move |suffix| format!("{stem}{suffix}"));
    std::iter::once(stem.to_owned()).chain(derived)
}

/// Every name that a family of ours takes up.
pub(super) fn claims_of(metric: &Metric) -> impl Iterator<Item = String> {
    claims(metric.name, Shape::of(metric.kind))
}

/// Whether a family of the catalogue takes up this name.
pub(super) fn in_catalogue(name: &str) -> bool {
    static NAMES: LazyLock<HashSet<String>> =
        LazyLock::new(|| ALL.iter().flat_map(|metric| claims_of(metric)).collect());
    NAMES.contains(name)
}

impl Metrics {
    /// Whether a family of ours takes up this name on any page, or will once it is used.
    pub(crate) fn claims(&self, name: &str) -> bool {
        in_catalogue(name) || read(&self.families).claimed.contains(name)
    }
}

/// `[a-zA-Z_:][a-zA-Z0-9_:]*`
pub(crate) fn is_metric_name(text: &str) -> bool {
    is_word(text, true)
}

/// `[a-zA-Z_][a-zA-Z0-9_]*` outside the `__` that Prometheus keeps for itself.
pub(crate) fn is_label_name(text: &str) -> bool {
    is_word(text, false) && !text.starts_with("__")
}

fn is_word(text: &str, colon: bool) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || (colon && byte == b':');
    let first = text.bytes().next();
    first.is_some_and(|byte| !byte.is_ascii_digit()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_of_the_catalogue_meet() {
        let mut seen = HashSet::new();
        for metric in ALL {
            for name in claims_of(metric) {
                assert!(seen.insert(name.clone()), "{} claims {name}", metric.name);
            }
        }
    }

    #[test]
    fn a_family_claims_its_metadata_name_and_its_samples() {
        let names = |name, shape| claims(name, shape).collect::<Vec<_>>();
        assert_eq!(names("up", Shape::Plain), ["up"]);
        assert_eq!(
            names("jobs_total", Shape::Counter),
            ["jobs", "jobs_total", "jobs_created"]
        );
        assert_eq!(names("jobs", Shape::Counter), ["jobs"]);
        assert_eq!(names("_total", Shape::Counter), ["_total"]);
        assert_eq!(names("target_info", Shape::Info), ["target", "target_info"]);
        assert_eq!(
            names("x", Shape::Histogram),
            ["x", "x_bucket", "x_sum", "x_count", "x_created"]
        );
    }
}
