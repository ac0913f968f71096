//! The load, fixed before the first request: when each arrival is due and what it asks.
//!
//! Everything here follows from the settings and the seed. Nothing depends on an answer, so a slow
//! service meets the same arrivals as a fast one.

use std::time::Duration;

use clap::ValueEnum;
use rand::distr::Distribution;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rand_distr::Exp1;

use super::mix::{Journey, Mix};
use super::popularity::Popularity;

/// Share of requests that carry a sampled `traceparent`: enough for an exemplar in each common bucket.
const TRACED: f64 = 0.01;
/// Share of detail requests that name the tag of an earlier answer, when one is known.
const CONDITIONAL: f64 = 0.2;
/// Share of list requests that go on from an earlier page, when one is known.
const FOLLOWING: f64 = 0.4;

/// Spacing of the arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arrivals {
    /// Equal gaps.
    Constant,
    /// Exponential gaps with the same mean: independent visitors, with the bursts they make.
    Poisson,
}

/// What the plan is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Mean arrivals per second.
    pub(crate) rate: u32,
    /// Time in which arrivals fall.
    pub(crate) duration: Duration,
    /// Spacing of the arrivals.
    pub(crate) arrivals: Arrivals,
    /// Shares of the journeys.
    pub(crate) mix: Mix,
    /// Popularity of contents.
    pub(crate) contents: Popularity,
    /// Popularity of users.
    pub(crate) users: Popularity,
    /// Same seed, same plan.
    pub(crate) seed: u64,
}

/// One arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Place in the plan, from 0.
    pub(crate) number: u64,
    /// Intended start, from the start of the load.
    pub(crate) at: Duration,
    /// Kind of request.
    pub(crate) journey: Journey,
    /// Content asked for, where the journey names one.
    pub(crate) content: u64,
    /// User asked for, where the journey names one.
    pub(crate) user: u64,
    /// Choice among the forms of a journey, even over `0..100`.
    pub(crate) form: u8,
    /// Whether to name a known tag.
    pub(crate) conditional: bool,
    /// Whether to go on from a known page.
    pub(crate) following: bool,
    /// Trace and span id of a sampled request.
    pub(crate) trace: Option<(u128, u64)>,
}

/// The arrivals in order of time.
#[derive(Debug)]
pub(crate) struct Plan {
    shape: Shape,
    number: u64,
    clock: Clock,
    choices: SmallRng,
}

impl Plan {
    /// Lays out the arrivals of a shape.
    pub(crate) fn new(shape: Shape) -> Self {
        // Two generators, so that another spacing keeps the same sequence of requests.
        let gaps = SmallRng::seed_from_u64(shape.seed ^ 0x6172_7269_7661_6c73);
        let choices = SmallRng::seed_from_u64(shape.seed);
        let clock = match shape.arrivals {
            Arrivals::Constant => Clock::Constant,
            Arrivals::Poisson => Clock::Poisson {
                gaps,
                at_seconds: 0.0,
            },
        };
        Self {
            shape,
            number: 0,
            clock,
            choices,
        }
    }
}

impl Iterator for Plan {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        let at = self.clock.at(self.number, self.shape.rate);
        if at >= self.shape.duration {
            return None;
        }
        let number = self.number;
        self.number += 1;
        let rng = &mut self.choices;
        Some(Arrival {
            number,
            at,
            journey: self.shape.mix.draw(rng),
            content: self.shape.contents.draw(rng),
            user: self.shape.users.draw(rng),
            form: rng.random_range(0..100),
            conditional: rng.random_bool(CONDITIONAL),
            following: rng.random_bool(FOLLOWING),
            trace: rng.random_bool(TRACED).then(|| {
                (
                    rng.random_range(1..=u128::MAX),
                    rng.random_range(1..=u64::MAX),
                )
            }),
        })
    }
}

#[derive(Debug)]
enum Clock {
    Constant,
    Poisson { gaps: SmallRng, at_seconds: f64 },
}

impl Clock {
    /// Time of the arrival with this number; to be asked for in order.
    fn at(&mut self, number: u64, rate: u32) -> Duration {
        match self {
            Self::Constant => {
                // From the number, not by adding gaps: 1/3 ms added a million times drifts.
                let nanos = u128::from(number) * 1_000_000_000 / u128::from(rate.max(1));
                u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos)
            }
            Self::Poisson { gaps, at_seconds } => {
                let gap: f64 = Exp1.sample(gaps);
                *at_seconds += gap / f64::from(rate.max(1));
                Duration::try_from_secs_f64(*at_seconds).unwrap_or(Duration::MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(arrivals: Arrivals, seed: u64) -> Shape {
        Shape {
            rate: 1000,
            duration: Duration::from_secs(20),
            arrivals,
            mix: Mix::Full,
            contents: Popularity::new(10_000, 1.0).unwrap(),
            users: Popularity::new(500, 1.0).unwrap(),
            seed,
        }
    }

    #[test]
    fn same_seed_gives_the_same_plan_and_another_seed_another() {
        for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
            let first: Vec<Arrival> = Plan::new(shape(arrivals, 1)).collect();
            assert_eq!(first, Plan::new(shape(arrivals, 1)).collect::<Vec<_>>());
            assert_ne!(first, Plan::new(shape(arrivals, 2)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn constant_arrivals_are_rate_times_duration_with_equal_gaps() {
        let plan: Vec<Arrival> = Plan::new(shape(Arrivals::Constant, 1)).collect();
        assert_eq!(plan.len(), 20_000);
        assert!(
            plan.windows(2)
                .all(|pair| pair[1].at - pair[0].at == Duration::from_millis(1))
        );
        assert_eq!(plan[0].at, Duration::ZERO);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_exponential_gaps() {
        let plan: Vec<Arrival> = Plan::new(shape(Arrivals::Poisson, 1)).collect();
        // 20 000 expected, standard deviation 141.
        assert!((19_300..20_700).contains(&plan.len()), "{}", plan.len());
        let over_mean = plan
            .windows(2)
            .filter(|pair| pair[1].at - pair[0].at > Duration::from_millis(1))
            .count();
        let share = over_mean as f64 / plan.len() as f64;
        assert!((share - 1.0_f64.exp().recip()).abs() < 0.02, "{share}");
    }

    #[test]
    fn spacing_leaves_the_requests_as_they_are() {
        let requests = |arrivals| {
            Plan::new(shape(arrivals, 3))
                .take(1000)
                .map(|arrival| Arrival {
                    at: Duration::ZERO,
                    ..arrival
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(requests(Arrivals::Constant), requests(Arrivals::Poisson));
    }

    #[test]
    fn about_one_request_in_a_hundred_is_traced() {
        let traced = Plan::new(shape(Arrivals::Constant, 1))
            .filter(|arrival| arrival.trace.is_some())
            .count();
        assert!((130..270).contains(&traced), "{traced}");
    }
}
