//! How a histogram's row is cut into cells.
//!
//! The cells are cut at the union of the family's classic bounds and, for full rows, the bounds of
//! native-histogram schema 3 (eight per octave, ratio 2^(1/8) = 1.0905). Classic buckets, native
//! buckets and quantiles are therefore exact sums of the same cells.
//!
//! The index is guessed from the leading bits of the value and decided by integer comparison:
//! `ns as f64 * 1e-9` puts exactly 75, 150, 175, 300 and 7,500 ms one bucket too high.

use std::sync::OnceLock;

use crate::catalog::bounds::Bounds;

/// Bits after the leading one that the guess looks at: 16 parts of each power of two. With 8 parts
/// up to three bounds would lie between a guess and the truth, with 16 at most `STEPS`.
const PART_BITS: u32 = 4;
const PARTS: usize = 1 << PART_BITS;
const GUESSES: usize = 64 * PARTS;

/// Bounds that one part can hold.
const STEPS: usize = 2;

#[derive(Debug)]
pub(crate) struct Layout {
    /// Upper bounds, inclusive, ascending, in the smallest unit, then `STEPS` that nothing exceeds.
    /// One more cell lies above the last true one.
    padded: Box<[u64]>,
    buckets: usize,
    /// For each classic bound the number of cells at or below it.
    classic_ends: Box<[usize]>,
    classic: &'static [u64],
    guess: [u16; GUESSES],
}

static LAYOUTS: [OnceLock<Layout>; 6] = [const { OnceLock::new() }; 6];

impl Layout {
    /// The layout of a set of bounds, built once per process.
    pub(crate) fn of(bounds: Bounds) -> &'static Self {
        let place = match bounds {
            Bounds::Request => &LAYOUTS[0],
            Bounds::Db => &LAYOUTS[1],
            Bounds::Cache => &LAYOUTS[2],
            Bounds::Wait => &LAYOUTS[3],
            Bounds::Size => &LAYOUTS[4],
            Bounds::Rows => &LAYOUTS[5],
        };
        place.get_or_init(|| Self::build(bounds))
    }

    /// Upper bound of native bucket `index` at schema 3, in nanoseconds, rounded down: a whole number
    /// of nanoseconds is inside the bucket exactly if it is at most this.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounds lie between 59 ns and 256 s"
    )]
    pub(crate) fn native_upper_nanos(index: i32) -> u64 {
        ((f64::from(index) / 8.0).exp2() * 1e9 + 1e-6).floor() as u64
    }

    fn build(bounds: Bounds) -> Self {
        let classic = bounds.classic();
        let mut uppers: Vec<u64> = classic.to_vec();
        if let Some((low, high)) = bounds.native_octaves() {
            uppers.extend((low * 8..=high * 8).map(Self::native_upper_nanos));
        }
        uppers.sort_unstable();
        uppers.dedup();
        let classic_ends = classic
            .iter()
            .map(|bound| uppers.partition_point(|upper| upper <= bound))
            .collect();
        let mut guess = [0_u16; GUESSES];
        for (key, first) in guess.iter_mut().enumerate() {
            let cell = uppers.partition_point(|upper| *upper < smallest(key));
            *first = u16::try_from(cell).unwrap_or(u16::MAX);
        }
        let buckets = uppers.len() + 1;
        uppers.extend([u64::MAX; STEPS]);
        Self {
            padded: uppers.into(),
            buckets,
            classic_ends,
            classic,
            guess,
        }
    }

    /// Cells of a row: the buckets, the one above the last bound, and the sum.
    pub(crate) fn cells(&self) -> usize {
        self.buckets + 1
    }

    /// Buckets of a row, the one above the last bound included.
    pub(crate) fn buckets(&self) -> usize {
        self.buckets
    }

    /// The place of the sum in a row.
    #[inline]
    pub(crate) fn sum_cell(&self) -> usize {
        self.buckets
    }

    /// The cell that counts `value`.
    #[inline]
    pub(crate) fn cell(&self, value: u64) -> usize {
        let guess = usize::from(*self.guess.get(guess_key(value)).unwrap_or(&0));
        // Both comparisons always, as durations are random and a branch would be mispredicted.
        let ahead = self
            .padded
            .get(guess..)
            .and_then(<[u64]>::first_chunk::<STEPS>);
        ahead.map_or(guess, |ahead| {
            guess
                + ahead
                    .iter()
                    .map(|upper| usize::from(value > *upper))
                    .sum::<usize>()
        })
    }

    /// Upper bounds of the cells in the smallest unit.
    pub(crate) fn uppers(&self) -> &[u64] {
        self.padded.get(..self.buckets - 1).unwrap_or_default()
    }

    /// The classic bounds, each with the number of cells at or below it.
    pub(crate) fn classic(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        self.classic
            .iter()
            .copied()
            .zip(self.classic_ends.iter().copied())
    }

    /// The classic bucket that counts `value`; the last one is `+Inf`.
    pub(crate) fn classic_bucket(&self, value: u64) -> usize {
        self.classic.partition_point(|bound| *bound < value)
    }

    /// The `quantile` (0..=1) of the events in `cells`, in the smallest unit, interpolated inside
    /// its cell; `None` without events. Above the last bound the last bound is returned.
    pub(crate) fn quantile(&self, cells: &[u64], quantile: f64) -> Option<f64> {
        let buckets = cells.get(..self.buckets())?;
        let total: u64 = buckets.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = quantile.clamp(0.0, 1.0) * total as f64;
        let mut below = 0_u64;
        let mut lower = 0.0;
        for (count, upper) in buckets.iter().zip(self.uppers()) {
            let upper = *upper as f64;
            if *count > 0 && (below + count) as f64 >= rank {
                let share = ((rank - below as f64) / *count as f64).clamp(0.0, 1.0);
                return Some(lower + (upper - lower) * share);
            }
            below += count;
            lower = upper;
        }
        Some(lower)
    }
}

#[inline]
fn guess_key(value: u64) -> usize {
    if value < PARTS as u64 {
        return usize::try_from(value).unwrap_or(0);
    }
    let octave = value.ilog2();
    let part = (value >> (octave - PART_BITS)) & (PARTS as u64 - 1);
    octave as usize * PARTS + usize::try_from(part).unwrap_or(0)
}

/// The smallest value with this key.
fn smallest(key: usize) -> u64 {
    let (octave, part) = (key / PARTS, key % PARTS);
    if octave < PART_BITS as usize {
        return if key < PARTS { key as u64 } else { 0 };
    }
    ((PARTS + part) as u64) << (octave - PART_BITS as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Bounds; 6] = [
        Bounds::Request,
        Bounds::Db,
        Bounds::Cache,
        Bounds::Wait,
        Bounds::Size,
        Bounds::Rows,
    ];

    #[test]
    fn bounds_are_upper_inclusive() {
        for bounds in ALL {
            let layout = Layout::of(bounds);
            for (place, upper) in layout.uppers().iter().enumerate() {
                assert_eq!(layout.cell(*upper), place, "{bounds:?} {upper}");
                assert_eq!(layout.cell(upper + 1), place + 1, "{bounds:?} {upper} + 1");
                assert!(layout.cell(upper - 1) <= place, "{bounds:?} {upper} - 1");
            }
        }
    }

    #[test]
    fn the_five_float_traps_fall_into_their_own_bucket() {
        let layout = Layout::of(Bounds::Request);
        for (millis, bucket) in [(75, 4), (150, 7), (175, 8), (300, 12), (7_500, 19)] {
            let nanos = millis * 1_000_000;
            assert_eq!(layout.classic_bucket(nanos), bucket);
            let (bound, end) = layout.classic().nth(bucket).unwrap();
            assert_eq!(bound, nanos);
            assert_eq!(layout.cell(nanos) + 1, end);
        }
    }

    #[test]
    fn a_full_request_row_has_the_designed_size_and_one_bound_per_native_cell() {
        let layout = Layout::of(Bounds::Request);
        assert_eq!(layout.cells(), 225 + 17 + 2);
        let mut seen = std::collections::HashMap::new();
        for upper in layout.uppers() {
            let index =
                (-20 * 8..=8 * 8).find(|index| *upper <= Layout::native_upper_nanos(*index));
            *seen.entry(index).or_insert(0) += 1;
        }
        assert!(seen.values().all(|cells| *cells <= 2));
    }

    #[test]
    fn every_value_lands_in_the_cell_that_a_search_finds() {
        for bounds in ALL {
            let layout = Layout::of(bounds);
            let mut value = 1_u64;
            while value < u64::MAX / 3 {
                for probe in [value - 1, value, value + 1, value * 2 - 1] {
                    let expected = layout.uppers().partition_point(|upper| *upper < probe);
                    assert_eq!(layout.cell(probe), expected, "{bounds:?} {probe}");
                }
                value += value / 16 + 1;
            }
        }
    }

    #[test]
    fn no_part_holds_more_bounds_than_are_compared() {
        for bounds in ALL {
            let mut held = std::collections::HashMap::new();
            for upper in Layout::of(bounds).uppers() {
                *held.entry(guess_key(*upper)).or_insert(0) += 1;
            }
            assert!(held.values().all(|count| *count <= STEPS), "{bounds:?}");
        }
    }

    #[test]
    fn a_quantile_lies_within_a_cell_of_the_truth() {
        let layout = Layout::of(Bounds::Request);
        let mut cells = vec![0; layout.cells()];
        for millis in 1..=1000_u64 {
            cells[layout.cell(millis * 1_000_000)] += 1;
        }
        for (quantile, truth) in [(0.5, 500e6), (0.95, 950e6), (0.99, 990e6)] {
            let got = layout.quantile(&cells, quantile).unwrap();
            assert!((got / truth - 1.0).abs() < 0.01, "{quantile}: {got}");
        }
        assert_eq!(layout.quantile(&vec![0; layout.cells()], 0.5), None);
    }
}
