//! The metrics page in OpenMetrics 1.0.0, with exemplars on histogram buckets.
//!
//! Source: the OpenMetrics 1.0 specification. Metadata there names a counter without `_total` and an
//! info family without `_info`; samples keep both. `_created` is never written: a Prometheus server
//! would store it as one more series each.

use crate::catalog::{Kind, Metric, Unit};
use crate::store::foreign::{ForeignFamily, ForeignKind};
use crate::store::metrics::Snapshot;

use super::samples::{self, Entry};

/// Appends the page, `# EOF` last.
///
/// # Cost
/// As the text page: no allocation per series of ours beyond the growth of `out`.
pub(crate) fn encode(snapshot: &Snapshot, foreign: &[ForeignFamily], out: &mut Vec<u8>) {
    for entry in samples::in_order(snapshot, foreign) {
        match entry {
            Entry::Own(family) => {
                let (name, kind) = identity(&family.metric);
                samples::own(out, snapshot, family, true, |out| {
                    samples::help(out, name, family.metric.help, true);
                    samples::metadata(out, "TYPE", name, kind);
                    if let Some(unit) = unit(name, kind, family.metric.unit) {
                        samples::metadata(out, "UNIT", name, unit);
                    }
                });
            }
            Entry::Foreign(family) => {
                if family.series.is_empty() {
                    continue;
                }
                let (name, kind) = foreign_identity(family);
                samples::help(out, name, &family.help, true);
                samples::metadata(out, "TYPE", name, kind);
                samples::foreign(out, family);
            }
        }
    }
    out.extend_from_slice(b"# EOF\n");
}

/// The family's name and type as this format has them.
fn identity(metric: &Metric) -> (&'static str, &'static str) {
    let name = metric.name;
    match metric.kind {
        Kind::Counter | Kind::ObservedCounter => stripped(name, "_total", "counter", "unknown"),
        Kind::Info => stripped(name, "_info", "info", "gauge"),
        Kind::UpDown | Kind::Gauge => (name, "gauge"),
        Kind::Histogram(_) => (name, "histogram"),
    }
}

/// A foreign counter without `_total` is `unknown` here: as a counter it would need another name,
/// and a name must not change with the format.
fn foreign_identity(family: &ForeignFamily) -> (&str, &'static str) {
    let name = family.name.as_str();
    match family.kind {
        ForeignKind::Counter => stripped(name, "_total", "counter", "unknown"),
        ForeignKind::Gauge => (name, "gauge"),
        ForeignKind::Histogram => (name, "histogram"),
        ForeignKind::Summary => (name, "summary"),
        ForeignKind::Untyped => (name, "unknown"),
    }
}

fn stripped<'a>(
    name: &'a str,
    suffix: &str,
    with: &'static str,
    without: &'static str,
) -> (&'a str, &'static str) {
    match name.strip_suffix(suffix) {
        Some(stem) if !stem.is_empty() => (stem, with),
        _ => (name, without),
    }
}

/// The unit, if the name ends in it; any other `UNIT` line fails the whole scrape.
fn unit(name: &str, kind: &str, unit: Unit) -> Option<&'static str> {
    let (word, suffix) = match unit {
        Unit::Seconds => ("seconds", "_seconds"),
        Unit::Bytes => ("bytes", "_bytes"),
        Unit::Ratio => ("ratio", "_ratio"),
        Unit::Count | Unit::Number => return None,
    };
    (kind != "info" && name.ends_with(suffix)).then_some(word)
}
