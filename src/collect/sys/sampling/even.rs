//! Random numbers that are spread evenly: whole numbers for fractions, and moments within a period.

use std::sync::atomic::{AtomicU64, Ordering};

/// Multiples of the golden ratio, of which only the fraction counts: each is as likely as any other, and
/// a few in a row are spread over the whole range already. So many threads that live alike are counted
/// almost exactly, where independent numbers would scatter; and whoever takes every second or fifth of
/// them has such a sequence, too, so that nothing beats with them.
#[derive(Debug)]
pub(super) struct Even(AtomicU64);

/// 2^64 times the fraction of the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Even {
    pub(super) fn from_seed(seed: u32) -> Self {
        Self(AtomicU64::new(u64::from(seed).wrapping_mul(STEP)))
    }

    /// A number below `limit`.
    #[inline]
    fn below(&self, limit: u64) -> u64 {
        let fraction = self.0.fetch_add(STEP, Ordering::Relaxed);
        let scaled = (u128::from(fraction) * u128::from(limit)) >> 64;
        u64::try_from(scaled).unwrap_or(0)
    }

    /// A moment in (0, period], in nanoseconds.
    #[inline]
    pub(super) fn moment(&self, period: u64) -> u64 {
        self.below(period.max(1)).saturating_add(1)
    }

    /// `part / unit`, rounded up or down so that the mean of many is right.
    #[inline]
    pub(super) fn share(&self, part: u64, unit: u64) -> u32 {
        let unit = unit.max(1);
        let whole = part.saturating_add(self.below(unit)) / unit;
        u32::try_from(whole).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_whole_also_of_every_second_and_fifth() {
        for step in [1, 2, 5] {
            for (part, unit) in [(396, 1000), (4000, 1001), (1, 2), (3, 7)] {
                let even = Even::from_seed(step);
                let all = (0..1000 * step).map(|place| (place % step, even.share(part, unit)));
                let taken = all.filter(|(place, _)| *place == 0);
                let total: u32 = taken.map(|(_, share)| share).sum();
                let due = u32::try_from(1000 * part / unit).unwrap();
                assert!(total.abs_diff(due) <= 4, "{total} of {due}, each {step}th");
            }
        }
    }

    #[test]
    fn moments_lie_within_the_period_and_all_over_it() {
        let even = Even::from_seed(7);
        let mut seen = [0_u32; 10];
        for _ in 0..100 {
            let moment = even.moment(1_000_000);
            assert!((1..=1_000_000).contains(&moment));
            seen[usize::try_from((moment - 1) / 100_000).unwrap()] += 1;
        }
        assert!(seen.iter().all(|part| (8..=12).contains(part)), "{seen:?}");
    }
}
