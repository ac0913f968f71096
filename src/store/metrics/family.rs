//! One family: its label sets, their limit, and the series that takes what lies beyond it.
//!
//! Label sets are compared by equality. The `prometheus` crate keys them by a hash of the joined
//! values, so ("1","12") and ("11","2") share a counter there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::exemplar::{Exemplar, ExemplarSlot};
use super::layout::Layout;
use crate::catalog::{Kind, Metric};
use crate::store::sync::lock;

/// Bytes of a label value that are kept. Longer ones come from clients, not from code.
pub(crate) const LABEL_VALUE_BYTES: usize = 128;

/// The label of the series that takes the events beyond a limit, as OpenTelemetry names it.
pub(crate) const OVERFLOW_LABEL: &str = "otel_metric_overflow";

#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) slot: u32,
    /// Place among the family's series, in order of registration.
    pub(crate) ordinal: usize,
    /// Values in the order of the family's label names; empty for the overflow series.
    pub(crate) values: Box<[Box<str>]>,
    pub(crate) overflow: bool,
    /// `name="value"` pairs joined by commas, escaped, without braces.
    pub(crate) rendered: Box<str>,
    pub(crate) exemplars: OnceLock<Box<[ExemplarSlot]>>,
}

impl Series {
    /// The label pairs as they are shown; an empty value and an absent label are the same thing.
    pub(crate) fn labels<'a>(
        &'a self,
        metric: &'a Metric,
    ) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        let own = metric
            .labels
            .iter()
            .copied()
            .zip(self.values.iter().map(AsRef::as_ref))
            .filter(|(_, value): &(_, &str)| !value.is_empty());
        own.chain(self.overflow.then_some((OVERFLOW_LABEL, "true")))
    }

    /// The exemplar of a classic bucket; the one after the last bound is `+Inf`.
    #[inline]
    pub(crate) fn exemplar(&self, bucket: usize) -> Option<Exemplar> {
        self.exemplars.get()?.get(bucket)?.read()
    }
}

#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) metric: Metric,
    pub(crate) layout: Option<&'static Layout>,
    pub(crate) overflowed: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_key: HashMap<Box<str>, Arc<Series>>,
    series: Arc<Vec<Arc<Series>>>,
    overflow: Option<Arc<Series>>,
    /// Sum cells wrap after 584 years of recorded time; with 10,000 requests in flight that is 21
    /// days. Per series: the last reading and how often it wrapped.
    sums: Vec<(u64, u64)>,
}

impl Family {
    pub(crate) fn new(metric: Metric) -> Self {
        let layout = match metric.kind {
            Kind::Histogram(bounds) => Some(Layout::of(bounds)),
            _ => None,
        };
        Self {
            metric,
            layout,
            overflowed: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Cells that one series needs.
    pub(crate) fn cells(&self) -> usize {
        self.layout.map_or(1, Layout::cells)
    }

    /// Finds the series of these label values, or admits it through `admit`, which reserves its
    /// cells and may refuse. A refused set gets the overflow series; `None` only if not even that
    /// one could be had.
    pub(crate) fn series(
        &self,
        values: &[&str],
        admit: impl Fn(bool) -> Option<u32>,
    ) -> Option<Arc<Series>> {
        let names = self.metric.labels.len();
        let cut: Vec<&str> = values
            .iter()
            .copied()
            .chain(std::iter::repeat(""))
            .take(names)
            .map(|value| cut_at_char(value, LABEL_VALUE_BYTES))
            .collect();
        let key = key_of(&cut);
        let mut state = lock(&self.state);
        if let Some(found) = state.by_key.get(key.as_str()) {
            return Some(Arc::clone(found));
        }
        if state.series.len() < self.metric.series_limit
            && let Some(slot) = admit(false)
        {
            let series = state.admit(&self.metric, slot, &cut, false);
            state.by_key.insert(key.into(), Arc::clone(&series));
            return Some(series);
        }
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        if state.overflow.is_none() {
            let slot = admit(true)?;
            state.overflow = Some(state.admit(&self.metric, slot, &[], true));
        }
        state.overflow.clone()
    }

    pub(crate) fn all(&self) -> Arc<Vec<Arc<Series>>> {
        Arc::clone(&lock(&self.state).series)
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.state).series.len()
    }

    /// How often the sum cell of each series has wrapped, given the cells as they are now. The
    /// caller hands in readings in the order in which they were taken.
    pub(crate) fn wraps(&self, cells: &[u64]) -> Vec<u64> {
        let Some(layout) = self.layout else {
            return Vec::new();
        };
        let mut state = lock(&self.state);
        let series = Arc::clone(&state.series);
        state.sums.resize(series.len(), (0, 0));
        let readings = series
            .iter()
            .map(|series| cells.get(series.slot as usize + layout.sum_cell()).copied());
        for ((last, wraps), now) in state.sums.iter_mut().zip(readings) {
            let Some(now) = now else { continue };
            // Cells only grow and readings are taken in order, so a step back is a wrap.
            if now < *last {
                *wraps += 1;
            }
            *last = now;
        }
        state.sums.iter().map(|(_, wraps)| *wraps).collect()
    }
}

impl State {
    fn admit(
        &mut self,
        metric: &Metric,
        slot: u32,
        values: &[&str],
        overflow: bool,
    ) -> Arc<Series> {
        let values: Box<[Box<str>]> = values.iter().map(|value| Box::from(*value)).collect();
        let mut rendered = String::new();
        if overflow {
            push_label(&mut rendered, OVERFLOW_LABEL, "true");
        }
        for (name, value) in metric.labels.iter().zip(&values) {
            // An empty value and an absent label are the same thing to Prometheus.
            if !value.is_empty() {
                push_label(&mut rendered, name, value);
            }
        }
        let series = Arc::new(Series {
            slot,
            ordinal: self.series.len(),
            values,
            overflow,
            rendered: rendered.into(),
            exemplars: OnceLock::new(),
        });
        // Copies only while a snapshot still holds the old list.
        Arc::make_mut(&mut self.series).push(Arc::clone(&series));
        series
    }
}

/// Appends `name="value"`, escaped as both text formats ask.
pub(crate) fn push_label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Lengths first, so that no two sets share a key.
fn key_of(values: &[&str]) -> String {
    let mut key = String::with_capacity(values.iter().map(|value| value.len() + 4).sum());
    for value in values {
        key.push_str(&value.len().to_string());
        key.push(':');
        key.push_str(value);
    }
    key
}

fn cut_at_char(value: &str, bytes: usize) -> &str {
    value
        .get(..value.floor_char_boundary(bytes))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn admit_all() -> impl Fn(bool) -> Option<u32> {
        let next = Cell::new(0);
        move |_| Some(next.replace(next.get() + 1))
    }

    const PAIR: Metric = Metric::counter("pair_total", "Pairs.").labels(&["a", "b"]);

    #[test]
    fn label_sets_that_join_to_the_same_text_stay_apart() {
        let family = Family::new(PAIR);
        let admit = admit_all();
        for values in [["1", "12"], ["11", "2"], ["112", ""], ["", "112"]] {
            family.series(&values, &admit);
        }
        assert_eq!(family.len(), 4);
    }

    #[test]
    fn sets_beyond_the_limit_share_the_overflow_series() {
        let family = Family::new(PAIR.series_limit(2));
        let admit = admit_all();
        let slots: Vec<u32> = ["a", "b", "c", "d", "a"]
            .iter()
            .map(|v| family.series(&[v, ""], &admit).unwrap().slot)
            .collect();
        assert_eq!(slots, [0, 1, 2, 2, 0]);
        assert_eq!(family.overflowed.load(Ordering::Relaxed), 2);
        assert_eq!(&*family.all()[2].rendered, "otel_metric_overflow=\"true\"");
    }

    #[test]
    fn values_are_escaped_and_cut_between_characters() {
        let family = Family::new(PAIR);
        let admit = admit_all();
        let series = family
            .series(&["a\"b\\c\nd", &"é".repeat(100)], &admit)
            .unwrap();
        assert!(series.rendered.starts_with(r#"a="a\"b\\c\nd",b="é"#));
        assert_eq!(series.values[1].len(), 128);
    }
}
