//! Which key is asked for: Zipf popularity over a fixed set.

use rand::Rng;
use rand::distr::Distribution;
use rand_distr::Zipf;

/// Zipf-distributed indexes `0..count`, the popular ones spread over the whole range.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Popularity {
    ranks: Zipf<f64>,
    count: u64,
    stride: u64,
}

impl Popularity {
    /// Gives `count` keys popularity `1 / rank^skew`; nothing when `count` is 0 or `skew` is negative.
    pub(crate) fn new(count: u64, skew: f64) -> Option<Self> {
        let ranks = Zipf::new(count as f64, skew).ok()?;
        // Neighbouring keys share a database page. A stride near the golden ratio scatters the popular
        // ones, as they are scattered in a real catalogue; coprime, so that every key stays reachable.
        let mut stride = (count / 1000 * 618).max(1);
        while gcd(stride, count) != 1 {
            stride += 1;
        }
        Some(Self {
            ranks,
            count,
            stride,
        })
    }

    /// Draws an index below `count`.
    pub(crate) fn draw(&self, rng: &mut impl Rng) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a rank is a whole number of 1..=count"
        )]
        let rank = self.ranks.sample(rng) as u64;
        self.index(rank)
    }

    /// Index of the key with this rank, 1 being the most popular.
    fn index(&self, rank: u64) -> u64 {
        let product = u128::from(rank.clamp(1, self.count)) * u128::from(self.stride);
        u64::try_from(product % u128::from(self.count)).unwrap_or_default()
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn every_rank_has_its_own_key() {
        for count in [1, 2, 10, 997, 1000, 5000, 12_345] {
            let keys = Popularity::new(count, 1.0).unwrap();
            let seen: HashSet<u64> = (1..=count).map(|rank| keys.index(rank)).collect();
            assert_eq!(seen.len() as u64, count);
            assert!(seen.iter().all(|index| *index < count));
        }
    }

    #[test]
    fn first_key_is_asked_twice_as_often_as_the_second() {
        let keys = Popularity::new(1000, 1.0).unwrap();
        let mut rng = SmallRng::seed_from_u64(1);
        let mut counts = HashMap::new();
        for _ in 0..200_000 {
            *counts.entry(keys.draw(&mut rng)).or_insert(0_u32) += 1;
        }
        let share = |rank| f64::from(counts[&keys.index(rank)]) / 200_000.0;
        let harmonic: f64 = (1..=1000).map(|rank| 1.0 / f64::from(rank)).sum();
        assert!((share(1) - 1.0 / harmonic).abs() < 0.005, "{}", share(1));
        assert!(
            (share(1) / share(2) - 2.0).abs() < 0.15,
            "{}",
            share(1) / share(2)
        );
    }

    #[test]
    fn empty_set_or_negative_skew_has_no_keys() {
        assert!(Popularity::new(0, 1.0).is_none());
        assert!(Popularity::new(10, -1.0).is_none());
    }
}
