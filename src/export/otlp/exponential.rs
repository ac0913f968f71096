//! A full row of cells as an exponential histogram of scale 3 or less.
//!
//! Source: the OpenTelemetry metrics data model. Bucket `index` holds (base^index, base^(index + 1)] with
//! base 2^(2^-scale). The row's cells are cut at these bounds too, so that every bucket is an exact sum.

use crate::catalog::bounds::Bounds;
use crate::store::metrics::{Distribution, Layout};

/// Buckets of one point, above which neighbours are joined; the specification's own default.
const BUCKETS: usize = 160;
/// Bounds in an octave at scale 3.
const IN_OCTAVE: i32 = 8;

/// The buckets from the first with an event to the last.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exponential {
    pub(crate) scale: i32,
    /// Index of the first bucket.
    pub(crate) offset: i32,
    pub(crate) buckets: Vec<u64>,
    /// Events at or below `zero_threshold`.
    pub(crate) zero_count: u64,
    /// In seconds.
    pub(crate) zero_threshold: f64,
}

/// The row in exponential buckets; `None` for sets whose rows are not cut so finely.
pub(crate) fn exponential(bounds: Bounds, row: &Distribution<'_>) -> Option<Exponential> {
    let (low, high) = bounds.native_octaves()?;
    let (first, last) = (low * IN_OCTAVE, high * IN_OCTAVE);
    let places = usize::try_from(last - first).ok()?;
    // Below the first bound, between the bounds, and above the last one.
    let mut counts = vec![0_u64; places + 2];
    let mut place = 0;
    let natives: Vec<u64> = (first..=last).map(Layout::native_upper_nanos).collect();
    let uppers = row.layout.uppers().iter().copied().map(Some).chain([None]);
    for (upper, cell) in uppers.zip(row.cells) {
        let is_above = |bound: &u64| upper.is_none_or(|upper| upper > *bound);
        while natives.get(place).is_some_and(is_above) {
            place += 1;
        }
        *counts.get_mut(place)? += cell;
    }
    let zero_count = counts.first().copied()?;
    let mut buckets = counts.split_off(1);
    // Bucket (2^(i/8), 2^((i+1)/8)] has index i, and the first of ours begins at the first bound.
    let mut offset = first;
    let mut scale = 3;
    trim(&mut buckets, &mut offset);
    while buckets.len() > BUCKETS {
        buckets = joined(&buckets, offset);
        offset = offset.div_euclid(2);
        scale -= 1;
    }
    Some(Exponential {
        scale,
        offset,
        buckets,
        zero_count,
        zero_threshold: f64::from(low).exp2(),
    })
}

fn trim(buckets: &mut Vec<u64>, offset: &mut i32) {
    let empty = buckets.iter().take_while(|count| **count == 0).count();
    let end = buckets.iter().rposition(|count| *count > 0);
    buckets.truncate(end.map_or(0, |end| end + 1));
    let empty = empty.min(buckets.len());
    buckets.drain(..empty);
    *offset = if buckets.is_empty() {
        0
    } else {
        offset.saturating_add(i32::try_from(empty).unwrap_or(i32::MAX))
    };
}

/// Pairs of buckets at half the resolution: those with indices 2i and 2i + 1 become i.
fn joined(buckets: &[u64], offset: i32) -> Vec<u64> {
    let odd = offset.rem_euclid(2) == 1;
    let lone = buckets.get(..usize::from(odd)).unwrap_or_default();
    let pairs = buckets.get(usize::from(odd)..).unwrap_or_default();
    let sums = pairs.chunks(2).map(|pair| pair.iter().sum());
    lone.iter().copied().chain(sums).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of events at these nanoseconds.
    fn of(bounds: Bounds, events: &[(u64, u64)]) -> Exponential {
        let layout = Layout::of(bounds);
        let mut cells = vec![0; layout.buckets()];
        for (nanos, count) in events {
            cells[layout.cell(*nanos)] += count;
        }
        let row = Distribution {
            layout,
            cells: &cells,
            sum: 0.0,
        };
        exponential(bounds, &row).unwrap()
    }

    /// The bounds in seconds of the bucket with each count.
    fn ranges(shown: &Exponential) -> Vec<(f64, f64, u64)> {
        let base = f64::from(-shown.scale).exp2();
        let bound = |index: i32| (f64::from(index) * base).exp2();
        let buckets = shown.buckets.iter().zip(shown.offset..);
        let some = buckets.filter(|(count, _)| **count > 0);
        some.map(|(count, index)| (bound(index), bound(index + 1), *count))
            .collect()
    }

    #[test]
    fn every_event_lies_in_its_bucket_upper_bounds_inside() {
        let nanos = [1_000, 75_000_000, 200_000_000, 1_000_000_000, 1_000_000_001];
        for nanos in nanos {
            let shown = of(Bounds::Request, &[(nanos, 3)]);
            let [(low, high, 3)] = ranges(&shown)[..] else {
                panic!("{shown:?}");
            };
            let seconds = nanos as f64 / 1e9;
            assert!(low < seconds && seconds <= high, "{nanos}: {low} to {high}");
            assert!((high / low - 1.090_507_732_665_257_7).abs() < 1e-9);
        }
    }

    #[test]
    fn what_no_bucket_holds_is_zero_or_above_and_nothing_is_lost() {
        let shown = of(Bounds::Request, &[(1, 5), (500, 6), (u64::MAX, 7), (0, 1)]);
        assert_eq!(shown.zero_count, 12);
        assert_eq!(shown.buckets, [7]);
        assert_eq!((shown.scale, shown.offset), (3, 8 * 8));
        let none = of(Bounds::Cache, &[]);
        assert_eq!(
            (none.buckets.len(), none.offset, none.zero_count),
            (0, 0, 0)
        );
    }

    #[test]
    fn a_wide_spread_is_shown_at_half_the_resolution() {
        let events: Vec<(u64, u64)> = (0..28).map(|octave| (1_000 << octave, 1)).collect();
        let shown = of(Bounds::Request, &events);
        assert_eq!(shown.scale, 2);
        assert!(shown.buckets.len() <= BUCKETS);
        assert_eq!(shown.buckets.iter().sum::<u64>(), 28);
        for ((nanos, _), (low, high, _)) in events.iter().zip(ranges(&shown)) {
            let seconds = *nanos as f64 / 1e9;
            assert!(low < seconds && seconds <= high, "{nanos}: {low} to {high}");
        }
    }

    #[test]
    fn rows_without_fine_cells_have_no_exponential_form() {
        let layout = Layout::of(Bounds::Wait);
        let cells = vec![0; layout.buckets()];
        let row = Distribution {
            layout,
            cells: &cells,
            sum: 0.0,
        };
        assert_eq!(exponential(Bounds::Wait, &row), None);
    }
}
