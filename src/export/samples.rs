//! The sample lines, which the two text formats share but for exemplars.
//!
//! Own series carry their labels rendered and escaped since registration, so writing a line copies
//! bytes and allocates nothing.

use crate::catalog::Kind;
use crate::store::foreign::{ForeignFamily, ForeignValue};
use crate::store::metrics::{
    Distribution, Exemplar, FamilySnapshot, Series, Snapshot, Value, push_label, scale,
};

use super::number::{bucket_ends, push_bound, push_f64, push_i64, push_u64};

/// A family of the page.
pub(super) enum Entry<'a> {
    Own(&'a FamilySnapshot),
    Foreign(&'a ForeignFamily),
}

/// All families by name; `target_info` first, as OpenMetrics asks. Ours wins over a foreign one of
/// the same name.
pub(super) fn in_order<'a>(
    snapshot: &'a Snapshot,
    foreign: &'a [ForeignFamily],
) -> impl Iterator<Item = Entry<'a>> {
    let is_target = |family: &&FamilySnapshot| family.metric.name == "target_info";
    let target = snapshot.families.iter().filter(is_target);
    let mut own = snapshot
        .families
        .iter()
        .filter(move |family| !is_target(family))
        .peekable();
    let mut foreign = foreign.iter().peekable();
    let rest = std::iter::from_fn(move || {
        let Some(next) = own.peek() else {
            return foreign.next().map(Entry::Foreign);
        };
        let name = next.metric.name;
        match foreign.next_if(|family| family.name.as_str() < name) {
            Some(family) => Some(Entry::Foreign(family)),
            None => {
                while foreign.next_if(|family| family.name == name).is_some() {}
                own.next().map(Entry::Own)
            }
        }
    });
    target.map(Entry::Own).chain(rest)
}

/// Writes the lines of every series that has a value, after `head` if there is one at all.
pub(super) fn own(
    out: &mut Vec<u8>,
    snapshot: &Snapshot,
    family: &FamilySnapshot,
    exemplars: bool,
    head: impl Fn(&mut Vec<u8>),
) {
    let name = family.metric.name;
    let mut lines = snapshot.lines(family).peekable();
    if lines.peek().is_none() {
        return;
    }
    head(out);
    let exemplars = exemplars && family.metric.exemplars;
    for (ordinal, labels, value) in lines {
        match value {
            Value::Histogram(row) => {
                let series = family.series.get(ordinal).filter(|_| exemplars);
                histogram(out, family, labels, &row, series.map(AsRef::as_ref));
            }
            Value::Total(total) => {
                begin(out, name, "", labels);
                push_u64(out, total);
                out.push(b'\n');
            }
            Value::Signed(number) => {
                begin(out, name, "", labels);
                push_i64(out, number);
                out.push(b'\n');
            }
            Value::Float(number) => {
                begin(out, name, "", labels);
                push_f64(out, number);
                out.push(b'\n');
            }
            Value::One => {
                begin(out, name, "", labels);
                out.extend_from_slice(b"1\n");
            }
        }
    }
}

fn histogram(
    out: &mut Vec<u8>,
    family: &FamilySnapshot,
    labels: &[u8],
    row: &Distribution<'_>,
    exemplars: Option<&Series>,
) {
    let Kind::Histogram(bounds) = family.metric.kind else {
        return;
    };
    let (name, unit) = (family.metric.name, family.metric.unit);
    let ends = bucket_ends(bounds, unit).iter().map(AsRef::as_ref);
    let infinite: &[u8] = b"le=\"+Inf\"} ";
    let mut count = 0;
    let mut head = 0..0;
    for (place, (end, total)) in ends.chain([infinite]).zip(row.totals()).enumerate() {
        if place == 0 {
            head.start = out.len();
            begin_bucket(out, name, labels);
            head.end = out.len();
        } else {
            out.extend_from_within(head.clone());
        }
        out.extend_from_slice(end);
        push_u64(out, total);
        if let Some(exemplar) = exemplars.and_then(|series| series.exemplar(place)) {
            push_exemplar(out, &exemplar, scale(unit));
        }
        out.push(b'\n');
        count = total;
    }
    begin(out, name, "_sum", labels);
    push_f64(out, row.sum);
    out.push(b'\n');
    begin(out, name, "_count", labels);
    push_u64(out, count);
    out.push(b'\n');
}

/// Writes the lines of a foreign family.
pub(super) fn foreign(out: &mut Vec<u8>, family: &ForeignFamily) {
    let name = family.name.as_str();
    let mut labels = String::new();
    for series in &family.series {
        labels.clear();
        for (label, value) in &series.labels {
            push_label(&mut labels, label, value);
        }
        let (sum, count) = match &series.value {
            ForeignValue::Number(number) => {
                begin(out, name, "", labels.as_bytes());
                push_f64(out, *number);
                out.push(b'\n');
                continue;
            }
            ForeignValue::Histogram {
                buckets,
                sum,
                count,
            } => {
                let infinite = (f64::INFINITY, *count);
                for (bound, total) in buckets.iter().chain([&infinite]) {
                    begin_bucket(out, name, labels.as_bytes());
                    out.extend_from_slice(b"le=\"");
                    push_bound(out, *bound);
                    out.extend_from_slice(b"\"} ");
                    push_u64(out, *total);
                    out.push(b'\n');
                }
                (sum, count)
            }
            ForeignValue::Summary {
                quantiles,
                sum,
                count,
            } => {
                for (quantile, value) in quantiles {
                    out.extend_from_slice(name.as_bytes());
                    out.push(b'{');
                    push_labels_before(out, labels.as_bytes());
                    out.extend_from_slice(b"quantile=\"");
                    push_bound(out, *quantile);
                    out.extend_from_slice(b"\"} ");
                    push_f64(out, *value);
                    out.push(b'\n');
                }
                (sum, count)
            }
        };
        begin(out, name, "_sum", labels.as_bytes());
        push_f64(out, *sum);
        out.push(b'\n');
        begin(out, name, "_count", labels.as_bytes());
        push_u64(out, *count);
        out.push(b'\n');
    }
}

/// Writes one line of metadata: `# HELP name text`.
pub(super) fn metadata(out: &mut Vec<u8>, keyword: &str, name: &str, text: &str) {
    for part in ["# ", keyword, " ", name, " ", text, "\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Writes the `# HELP` line of a text that is not empty, with its backslashes and line ends escaped,
/// and its quotes where the format asks.
pub(super) fn help(out: &mut Vec<u8>, name: &str, text: &str, quotes: bool) {
    if text.is_empty() {
        return;
    }
    for part in ["# HELP ", name, " "] {
        out.extend_from_slice(part.as_bytes());
    }
    for byte in text.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' if quotes => out.extend_from_slice(b"\\\""),
            other => out.push(other),
        }
    }
    out.push(b'\n');
}

/// Writes a line up to its value: `name_sum{a="b"} `.
fn begin(out: &mut Vec<u8>, name: &str, suffix: &str, labels: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(suffix.as_bytes());
    if !labels.is_empty() {
        out.push(b'{');
        out.extend_from_slice(labels);
        out.push(b'}');
    }
    out.push(b' ');
}

fn begin_bucket(out: &mut Vec<u8>, name: &str, labels: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"_bucket{");
    push_labels_before(out, labels);
}

fn push_labels_before(out: &mut Vec<u8>, labels: &[u8]) {
    out.extend_from_slice(labels);
    if !labels.is_empty() {
        out.push(b',');
    }
}

/// Writes ` # {trace_id="..",span_id=".."} value timestamp`.
fn push_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar, scale: f64) {
    out.extend_from_slice(b" # {trace_id=\"");
    push_hex(out, exemplar.trace.trace_id, 32);
    out.extend_from_slice(b"\",span_id=\"");
    push_hex(out, u128::from(exemplar.trace.span_id), 16);
    out.extend_from_slice(b"\"} ");
    push_f64(out, exemplar.value as f64 / scale);
    out.push(b' ');
    let millis = exemplar.unix_nanos / 1_000_000;
    push_u64(out, millis / 1_000);
    out.push(b'.');
    for unit in [100, 10, 1] {
        push_u64(out, millis / unit % 10);
    }
}

fn push_hex(out: &mut Vec<u8>, value: u128, digits: u32) {
    for place in (0..digits).rev() {
        let digit = u8::try_from(value >> (place * 4) & 15).unwrap_or(0);
        out.push(if digit < 10 {
            b'0' + digit
        } else {
            b'a' + digit - 10
        });
    }
}
