//! Keeps sampling within its share of the host's CPU time, by lowering the highest rate allowed.
//!
//! A pure function of readings and their times. Absent on purpose: clocks and the engine.

use std::time::{Duration, Instant};

use crate::config::{SampleRate, sampling};

/// CPU time used since some moment, at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) at: Instant,
    /// By the threads that sample and unwind. Naming addresses is left out: it is done once per
    /// profile, and a lower rate would not make it cheaper.
    pub(super) sampling: Duration,
    /// By the host.
    pub(super) host: Duration,
}

/// What became of the highest rate allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Lowered,
    Raised,
}

#[derive(Debug)]
pub(super) struct Governor {
    share: f64,
    /// `None`: any rate is allowed.
    ceiling: Option<SampleRate>,
    window: Option<Window>,
}

/// The stretch over which the cost is summed.
#[derive(Debug, Clone, Copy)]
struct Window {
    first: Reading,
    /// The highest rate within, what the cost is put down to; `None` until the second reading.
    highest: Option<SampleRate>,
}

impl Window {
    fn new(first: Reading) -> Self {
        Self {
            first,
            highest: None,
        }
    }
}

impl Governor {
    pub(super) fn new(share: f64) -> Self {
        Self {
            share,
            ceiling: None,
            window: None,
        }
    }

    /// The share of the host's CPU time that may be used.
    pub(super) fn share(&self) -> f64 {
        self.share
    }

    /// The rate above which sampling cost too much.
    pub(super) fn ceiling(&self) -> Option<SampleRate> {
        self.ceiling
    }

    /// As much of a rate as is allowed.
    pub(super) fn allowed(&self, rate: SampleRate) -> SampleRate {
        self.ceiling.map_or(rate, |ceiling| rate.min(ceiling))
    }

    /// Sampling begins: what was used before says nothing.
    pub(super) fn begin(&mut self) {
        self.window = None;
    }

    /// Takes what was used until now; `rate` is the one since the last reading. Half the cost leaves
    /// room for twice the rate, and only then it is raised.
    pub(super) fn read(&mut self, reading: Option<Reading>, rate: SampleRate) -> Change {
        let Some(now) = reading else {
            self.window = None;
            return Change::None;
        };
        let Some(window) = &mut self.window else {
            self.window = Some(Window::new(now));
            return Change::None;
        };
        let highest = window.highest.map_or(rate, |highest| highest.max(rate));
        window.highest = Some(highest);
        let first = window.first;
        let length = now.at.saturating_duration_since(first.at);
        if length < sampling::BUDGET_WINDOW {
            return Change::None;
        }
        self.window = Some(Window::new(now));
        let used = now.sampling.saturating_sub(first.sampling).as_secs_f64();
        let host = now.host.saturating_sub(first.host).as_secs_f64();
        let idle = length.as_secs_f64() * sampling::IDLE_COST;
        let budget = (host * self.share).max(idle);
        if used > budget {
            return self.change(Some(highest.halved()), Change::Lowered);
        }
        match self.ceiling {
            Some(ceiling) if used <= budget / 2.0 => self.change(ceiling.doubled(), Change::Raised),
            _ => Change::None,
        }
    }

    fn change(&mut self, ceiling: Option<SampleRate>, change: Change) -> Change {
        if self.ceiling == ceiling {
            return Change::None;
        }
        self.ceiling = ceiling;
        // The next reading still closes a bucket of the rate before.
        self.window = None;
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HZ_HIGH;

    fn hertz(rate: u32) -> SampleRate {
        SampleRate::new(rate, &HZ_HIGH).unwrap()
    }

    /// A host and its sampler, read once a second.
    struct Bench {
        governor: Governor,
        start: Instant,
        seconds: u32,
        sampling: Duration,
        host: Duration,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                governor: Governor::new(0.03),
                start: Instant::now(),
                seconds: 0,
                sampling: Duration::ZERO,
                host: Duration::ZERO,
            }
        }

        /// Seconds in which each sample costs as much as given and the host uses its CPU share.
        fn run(
            &mut self,
            seconds: u32,
            wished: u32,
            per_sample: Duration,
            host: f64,
        ) -> Vec<Change> {
            let mut changes = Vec::new();
            for _ in 0..seconds {
                let rate = self.governor.allowed(hertz(wished));
                self.seconds += 1;
                self.sampling += per_sample * rate.hz();
                self.host += Duration::from_secs(1).mul_f64(host);
                let reading = Reading {
                    at: self.start + Duration::from_secs(1) * self.seconds,
                    sampling: self.sampling,
                    host: self.host,
                };
                let change = self.governor.read(Some(reading), rate);
                if change != Change::None {
                    changes.push(change);
                }
            }
            changes
        }

        fn allowed(&self, wished: u32) -> u32 {
            self.governor.allowed(hertz(wished)).hz()
        }
    }

    const DEAR: Duration = Duration::from_micros(500);
    const CHEAP: Duration = Duration::from_micros(50);

    #[test]
    fn a_rate_that_costs_too_much_for_ten_seconds_is_halved_until_it_fits() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(10, 999, DEAR, 2.0), []);
        assert_eq!(
            bench.allowed(999),
            999,
            "nine seconds and a half are not ten"
        );
        // 500 us at 999 Hz are 25 % of two cores: 499, 249, 124 Hz; the last is 3.1 %, 62 Hz fit.
        assert_eq!(bench.run(40, 999, DEAR, 2.0), [Change::Lowered; 4]);
        assert_eq!(bench.allowed(999), 62);
        assert_eq!(bench.allowed(19), 19, "the flight recorder fits as it is");
        assert_eq!(bench.run(60, 999, DEAR, 2.0), [], "and there it stays");
    }

    #[test]
    fn with_room_the_rate_comes_back_and_the_limit_goes() {
        let mut bench = Bench::new();
        bench.run(50, 999, DEAR, 2.0);
        assert_eq!(bench.run(100, 999, CHEAP, 2.0), [Change::Raised; 4]);
        assert_eq!(bench.governor.ceiling(), None);
        assert_eq!(bench.allowed(999), 999);
    }

    #[test]
    fn the_rate_does_not_fall_below_one_nor_is_the_same_limit_told_twice() {
        let mut bench = Bench::new();
        let changes = bench.run(200, 19, Duration::from_millis(200), 0.5);
        assert_eq!(changes, [Change::Lowered; 4], "9, 4, 2, 1");
        assert_eq!(bench.allowed(19), 1);
    }

    #[test]
    fn an_idle_host_has_no_share_to_give_but_bears_half_a_percent_of_a_core() {
        let mut bench = Bench::new();
        let cost = |share: f64| Duration::from_secs(1).mul_f64(share / 19.0);
        assert_eq!(bench.run(60, 19, cost(0.004), 0.001), []);
        assert_eq!(bench.run(20, 19, cost(0.008), 0.001), [Change::Lowered]);
    }

    #[test]
    fn what_is_not_known_changes_nothing_and_is_not_bridged() {
        let mut bench = Bench::new();
        for _ in 0..6 {
            assert_eq!(bench.run(9, 999, DEAR, 2.0), []);
            assert_eq!(bench.governor.read(None, hertz(999)), Change::None);
        }
        bench.run(9, 999, DEAR, 2.0);
        bench.governor.begin();
        assert_eq!(bench.run(9, 999, DEAR, 2.0), []);
    }
}
