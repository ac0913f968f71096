//! One family: its label sets, their limit, and the series that takes what lies beyond it.
//!
//! Label sets are compared by equality. The `prometheus` crate keys them by a hash of the joined
//! values, so ("1","12") and ("11","2") share a counter there.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::cells::Place;
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
    pub(super) place: Place,
    /// Place among the family's series, in order of registration.
    pub(crate) ordinal: usize,
    /// Values in the order of the family's label names; empty for the overflow series.
    pub(crate) values: Box<[Box<str>]>,
    pub(crate) overflow: bool,
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

/// The label text of a family's series and the slots of their cells, in order of registration:
/// what a page needs, side by side in memory. Following a pointer to each of 100,000 series took
/// most of a scrape.
#[derive(Debug, Default, Clone)]
pub(crate) struct Lines {
    text: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    end: usize,
    slot: u32,
}

impl Lines {
    /// For each series its `name="value"` pairs, joined by commas, escaped, without braces; and the
    /// slot of its first cell.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], u32)> + '_ {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let text = self.text.get(start..entry.end).unwrap_or_default();
            start = entry.end;
            (text, entry.slot)
        })
    }

    fn text(&self, ordinal: usize) -> Option<&[u8]> {
        let start = match ordinal.checked_sub(1) {
            Some(before) => self.entries.get(before)?.end,
            None => 0,
        };
        self.text.get(start..self.entries.get(ordinal)?.end)
    }

    fn push(&mut self, text: &str, slot: u32) {
        self.text.extend_from_slice(text.as_bytes());
        let end = self.text.len();
        self.entries.push(Entry { end, slot });
    }
}

#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) metric: Metric,
    pub(crate) layout: Option<&'static Layout>,
    /// Shared, like what follows, with the same family under more labels or another help.
    pub(crate) overflowed: Arc<AtomicU64>,
    pub(super) state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Ordinals by the hash of the label text; a hash that is taken by another text moves on by 1.
    by_hash: HashMap<u64, usize>,
    hasher: RandomState,
    series: Arc<Vec<Arc<Series>>>,
    lines: Arc<Lines>,
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
            overflowed: Arc::default(),
            state: Arc::default(),
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
        admit: impl Fn(bool) -> Option<(u32, Place)>,
    ) -> Option<Arc<Series>> {
        let names = self.metric.labels.len();
        let cut: Vec<&str> = values
            .iter()
            .copied()
            .chain(std::iter::repeat(""))
            .take(names)
            .map(|value| cut_at_char(value, LABEL_VALUE_BYTES))
            .collect();
        let rendered = rendered(&self.metric, &cut);
        let mut state = lock(&self.state);
        let hash = match state.find(&rendered) {
            Ok(found) => return Some(found),
            Err(free) => free,
        };
        if state.series.len() < self.metric.series_limit
            && let Some(cells) = admit(false)
        {
            let series = state.admit(cells, &cut, &rendered, false);
            state.by_hash.insert(hash, series.ordinal);
            return Some(series);
        }
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        if state.overflow.is_none() {
            let cells = admit(true)?;
            let mut rendered = String::new();
            push_label(&mut rendered, OVERFLOW_LABEL, "true");
            state.overflow = Some(state.admit(cells, &[], &rendered, true));
        }
        state.overflow.clone()
    }

    /// All series, and their lines in the same order.
    pub(crate) fn all(&self) -> (Arc<Vec<Arc<Series>>>, Arc<Lines>) {
        let state = lock(&self.state);
        (Arc::clone(&state.series), Arc::clone(&state.lines))
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
        let lines = Arc::clone(&state.lines);
        state.sums.resize(lines.entries.len(), (0, 0));
        let readings = lines
            .iter()
            .map(|(_, slot)| cells.get(slot as usize + layout.sum_cell()).copied());
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
    /// The series with this label text, or the hash under which it would be entered.
    fn find(&self, rendered: &str) -> Result<Arc<Series>, u64> {
        let mut hash = self.hasher.hash_one(rendered);
        while let Some(ordinal) = self.by_hash.get(&hash) {
            let held = self.lines.text(*ordinal);
            if held == Some(rendered.as_bytes())
                && let Some(series) = self.series.get(*ordinal)
            {
                return Ok(Arc::clone(series));
            }
            hash = hash.wrapping_add(1);
        }
        Err(hash)
    }

    fn admit(
        &mut self,
        (slot, place): (u32, Place),
        values: &[&str],
        rendered: &str,
        overflow: bool,
    ) -> Arc<Series> {
        let series = Arc::new(Series {
            slot,
            place,
            ordinal: self.series.len(),
            values: values.iter().map(|value| Box::from(*value)).collect(),
            overflow,
            exemplars: OnceLock::new(),
        });
        // Copies only while a snapshot still holds the old lists.
        Arc::make_mut(&mut self.series).push(Arc::clone(&series));
        Arc::make_mut(&mut self.lines).push(rendered, slot);
        series
    }
}

/// The label text of these values. Distinct value lists have distinct texts: names are distinct,
/// quotes are escaped, and an empty value is nothing but an absent label.
fn rendered(metric: &Metric, values: &[&str]) -> String {
    let mut text = String::new();
    for (name, value) in metric.labels.iter().zip(values) {
        if !value.is_empty() {
            push_label(&mut text, name, value);
        }
    }
    text
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

fn cut_at_char(value: &str, bytes: usize) -> &str {
    value
        .get(..value.floor_char_boundary(bytes))
        .unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::metrics::cells::Cells;

    fn admit_all() -> impl Fn(bool) -> Option<(u32, Place)> {
        let cells = Cells::new(usize::MAX);
        move |_| cells.reserve(1)
    }

    fn text(family: &Family, ordinal: usize) -> String {
        let (_, lines) = family.all();
        String::from_utf8(lines.iter().nth(ordinal).unwrap().0.to_vec()).unwrap()
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
        assert_eq!(text(&family, 2), "otel_metric_overflow=\"true\"");
    }

    #[test]
    fn texts_whose_hashes_meet_stay_apart() {
        let family = Family::new(PAIR);
        let admit = admit_all();
        family.series(&["one", ""], &admit);
        // As if "two" had been entered first under the hash of "three".
        let hash = lock(&family.state).hasher.hash_one("a=\"three\"");
        lock(&family.state).by_hash.insert(hash, 0);
        let three = family.series(&["three", ""], &admit).unwrap();
        assert_eq!(three.ordinal, 1);
        let again = family.series(&["three", ""], &admit).unwrap();
        assert!(Arc::ptr_eq(&three, &again));
    }

    #[test]
    fn values_are_escaped_and_cut_between_characters() {
        let family = Family::new(PAIR);
        let admit = admit_all();
        let series = family
            .series(&["a\"b\\c\nd", &"é".repeat(100)], &admit)
            .unwrap();
        assert!(text(&family, 0).starts_with(r#"a="a\"b\\c\nd",b="é"#));
        assert_eq!(series.values[1].len(), 128);
    }
}
