//! The metrics page in the Prometheus text format 0.0.4.
//!
//! Source: "Exposition formats" of the Prometheus documentation. The format has no info type and no
//! exemplars: an info family is a gauge of 1 here, and an exemplar would fail the whole scrape.

use crate::catalog::Kind;
use crate::store::foreign::{ForeignFamily, ForeignKind};
use crate::store::metrics::Snapshot;

use super::samples::{self, Entry};

/// Appends the page.
///
/// # Cost
/// No allocation per series of ours beyond the growth of `out`.
pub(crate) fn encode(snapshot: &Snapshot, foreign: &[ForeignFamily], out: &mut Vec<u8>) {
    for entry in samples::in_order(snapshot, foreign) {
        match entry {
            Entry::Own(family) => {
                let metric = &family.metric;
                samples::own(out, snapshot, family, false, |out| {
                    samples::help(out, metric.name, metric.help, false);
                    samples::metadata(out, "TYPE", metric.name, kind(metric.kind));
                });
            }
            Entry::Foreign(family) => {
                if family.series.is_empty() {
                    continue;
                }
                samples::help(out, &family.name, &family.help, false);
                samples::metadata(out, "TYPE", &family.name, foreign_kind(family.kind));
                samples::foreign(out, family);
            }
        }
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter | Kind::ObservedCounter => "counter",
        Kind::UpDown | Kind::Gauge | Kind::Info => "gauge",
        Kind::Histogram(_) => "histogram",
    }
}

fn foreign_kind(kind: ForeignKind) -> &'static str {
    match kind {
        ForeignKind::Counter => "counter",
        ForeignKind::Gauge => "gauge",
        ForeignKind::Histogram => "histogram",
        ForeignKind::Summary => "summary",
        ForeignKind::Untyped => "untyped",
    }
}
