//! The journeys of a visitor and how often each is made.

use clap::ValueEnum;
use rand::Rng;

/// One kind of request, as the report lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Journey {
    /// One content by id.
    Detail,
    /// A page of a user's contents, sometimes the page after a known one.
    List,
    /// A user, or the NFTs of an owner, contract or token.
    Lookup,
    /// A page of a user's transactions.
    Transactions,
    /// A new content, or a change to one under `If-Match`.
    Write,
    /// Several new contents in one request.
    Batch,
}

impl Journey {
    /// Every journey, in report order.
    pub(crate) const ALL: [Self; 6] = [
        Self::Detail,
        Self::List,
        Self::Lookup,
        Self::Transactions,
        Self::Write,
        Self::Batch,
    ];

    /// Name in the report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Detail => "detail",
            Self::List => "list",
            Self::Lookup => "lookup",
            Self::Transactions => "transactions",
            Self::Write => "write",
            Self::Batch => "batch",
        }
    }
}

/// Shares of the journeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mix {
    /// 70 % detail, 12 % list, 8 % lookup, 5 % transactions, 4 % write, 1 % batch.
    Full,
    /// The reading part alone: 74 % detail, 13 % list, 8 % lookup, 5 % transactions.
    Read,
}

impl Mix {
    /// Percent per journey; sums to 100.
    const fn percents(self) -> [(Journey, u32); 6] {
        let [detail, list, lookup, transactions, write, batch] = match self {
            Self::Full => [70, 12, 8, 5, 4, 1],
            Self::Read => [74, 13, 8, 5, 0, 0],
        };
        [
            (Journey::Detail, detail),
            (Journey::List, list),
            (Journey::Lookup, lookup),
            (Journey::Transactions, transactions),
            (Journey::Write, write),
            (Journey::Batch, batch),
        ]
    }

    /// Draws a journey with these shares.
    pub(crate) fn draw(self, rng: &mut impl Rng) -> Journey {
        let mut left = rng.random_range(0..100);
        for (journey, percent) in self.percents() {
            if left < percent {
                return journey;
            }
            left -= percent;
        }
        Journey::Detail
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn percents_sum_to_a_hundred() {
        for mix in [Mix::Full, Mix::Read] {
            assert_eq!(
                mix.percents()
                    .iter()
                    .map(|(_, percent)| percent)
                    .sum::<u32>(),
                100
            );
        }
    }

    #[test]
    fn shares_drawn_are_the_shares_stated() {
        let mut rng = SmallRng::seed_from_u64(7);
        let drawn: Vec<Journey> = (0..100_000).map(|_| Mix::Full.draw(&mut rng)).collect();
        for (journey, percent) in Mix::Full.percents() {
            let seen = drawn.iter().filter(|other| **other == journey).count() as f64 / 1000.0;
            assert!(
                (seen - f64::from(percent)).abs() < 0.5,
                "{journey:?} {seen}"
            );
        }
    }

    #[test]
    fn reading_mix_never_writes() {
        let mut rng = SmallRng::seed_from_u64(7);
        assert!(
            (0..10_000)
                .all(|_| !matches!(Mix::Read.draw(&mut rng), Journey::Write | Journey::Batch))
        );
    }
}
