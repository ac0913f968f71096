//! All numbers at one moment, from which every output is written.

use std::sync::Arc;

use super::family::{Lines, Series};
use super::handle::ABSENT;
use super::layout::Layout;
use crate::catalog::{Kind, Metric, Unit};

#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Summed over threads, indexed by slot.
    pub(crate) cells: Vec<u64>,
    /// Sorted by name.
    pub(crate) families: Vec<FamilySnapshot>,
}

#[derive(Debug)]
pub(crate) struct FamilySnapshot {
    pub(crate) metric: Metric,
    pub(crate) layout: Option<&'static Layout>,
    pub(crate) series: Arc<Vec<Arc<Series>>>,
    /// Of the same series, in the same order.
    pub(crate) lines: Arc<Lines>,
    pub(crate) wraps: Vec<u64>,
}

/// One series' number or distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// A counter of events.
    Total(u64),
    /// An up-down number.
    Signed(i64),
    /// A gauge or an observed total.
    Float(f64),
    Histogram(Distribution<'a>),
    /// An info family.
    One,
}

/// A histogram row, with the layout that says what its cells mean.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Distribution<'a> {
    pub(crate) layout: &'static Layout,
    /// Buckets, the one above the last bound included; the sum is not among them.
    pub(crate) cells: &'a [u64],
    /// In the family's unit: seconds, bytes or things.
    pub(crate) sum: f64,
}

impl PartialEq for Distribution<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cells == other.cells
    }
}

impl Distribution<'_> {
    /// All events: by construction the value of the `+Inf` bucket.
    pub(crate) fn count(&self) -> u64 {
        self.cells.iter().sum()
    }

    /// The events at or below each classic bound, and all of them last.
    pub(crate) fn totals(&self) -> impl Iterator<Item = u64> + '_ {
        let ends = self.layout.classic().map(|(_, end)| end);
        let mut taken = 0;
        let mut total = 0_u64;
        ends.chain([self.cells.len()]).map(move |end| {
            let more: u64 = self.cells.get(taken..end).unwrap_or_default().iter().sum();
            taken = end;
            total += more;
            total
        })
    }

    /// The classic bounds in the smallest unit, each with the events at or below it.
    #[cfg(test)]
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let bounds = self.layout.classic().map(|(bound, _)| bound);
        bounds.zip(self.totals())
    }
}

impl Snapshot {
    /// The family with this name.
    pub(crate) fn family(&self, metric: &Metric) -> Option<&FamilySnapshot> {
        let place = self
            .families
            .binary_search_by(|family| family.metric.name.cmp(metric.name))
            .ok()?;
        self.families.get(place)
    }

    /// The value of a gauge or an observed total without labels; `None` where it is not known.
    pub(crate) fn float(&self, metric: &Metric) -> Option<f64> {
        match self.values(self.family(metric)?).next()? {
            (_, Value::Float(value)) => Some(value),
            _ => None,
        }
    }

    /// Every series of a family that has a value.
    pub(crate) fn values<'a>(
        &'a self,
        family: &'a FamilySnapshot,
    ) -> impl Iterator<Item = (&'a Series, Value<'a>)> + 'a {
        family.series.iter().filter_map(move |series| {
            // A series registered after the cells were added up waits for the next snapshot.
            let value = self.value(family, series)?;
            Some((&**series, value))
        })
    }

    /// Every series of a family that has a value: its ordinal, its label text, and the value.
    pub(crate) fn lines<'a>(
        &'a self,
        family: &'a FamilySnapshot,
    ) -> impl Iterator<Item = (usize, &'a [u8], Value<'a>)> + 'a {
        let lines = family.lines.iter().enumerate();
        lines.filter_map(move |(ordinal, (text, slot))| {
            let value = self.value_at(family, ordinal, slot)?;
            Some((ordinal, text, value))
        })
    }

    /// The value of one series; `None` where it is not known.
    pub(crate) fn value<'a>(
        &'a self,
        family: &'a FamilySnapshot,
        series: &Series,
    ) -> Option<Value<'a>> {
        self.value_at(family, series.ordinal, series.slot)
    }

    fn value_at<'a>(
        &'a self,
        family: &'a FamilySnapshot,
        ordinal: usize,
        slot: u32,
    ) -> Option<Value<'a>> {
        let slot = slot as usize;
        let cell = *self.cells.get(slot)?;
        match (family.metric.kind, family.layout) {
            (Kind::Counter, _) => Some(Value::Total(cell)),
            (Kind::UpDown, _) => Some(Value::Signed(cell.cast_signed())),
            (Kind::Gauge | Kind::ObservedCounter, _) => {
                (cell != ABSENT).then(|| Value::Float(f64::from_bits(cell)))
            }
            (Kind::Info, _) => Some(Value::One),
            (Kind::Histogram(_), Some(layout)) => {
                let row = self.cells.get(slot..slot + layout.cells())?;
                let low = *row.get(layout.sum_cell())?;
                let wraps = family.wraps.get(ordinal).copied().unwrap_or(0);
                let sum = (low as f64 + wraps as f64 * 2_f64.powi(64)) / scale(family.metric.unit);
                let cells = row.get(..layout.buckets())?;
                Some(Value::Histogram(Distribution { layout, cells, sum }))
            }
            (Kind::Histogram(_), None) => None,
        }
    }
}

/// How many of the smallest unit make one of the unit shown.
pub(crate) fn scale(unit: Unit) -> f64 {
    match unit {
        Unit::Seconds | Unit::Number => 1e9,
        Unit::Bytes | Unit::Ratio | Unit::Count => 1.0,
    }
}
