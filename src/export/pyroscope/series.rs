//! A profile's value over time: one series per value of some labels, one point per step.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::fields::invalid;
use crate::export::guard::Refusal;
use crate::export::wire::Message;
use crate::store::profile::to_usize;

/// Series of an answer at most.
const SERIES: usize = 1_024;

/// The steps of a span of time, in milliseconds since 1970. A step is named by its end, as by Pyroscope,
/// and one that ends after the span is not over yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Steps {
    start: i64,
    end: i64,
    step: i64,
}

/// Of a step what a point says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregation {
    Sum,
    /// The mean of what was gathered about each second.
    Average,
}

impl Steps {
    /// # Errors
    /// When the step is no time that passes.
    pub(crate) fn new(start: i64, end: i64, seconds: f64) -> Result<Self, Refusal> {
        let allowed = "a number of seconds, 0.001..=1000000000";
        let refused = || invalid("step", allowed, &seconds.to_string());
        if !(0.001..=1e9).contains(&seconds) {
            return Err(refused());
        }
        let step = Duration::from_secs_f64(seconds).as_millis();
        let step = i64::try_from(step).ok().filter(|step| *step > 0);
        let step = step.ok_or_else(refused)?;
        Ok(Self { start, end, step })
    }

    /// The end of the step that holds a moment; `None` outside the span.
    pub(crate) fn end_of(&self, moment: i64) -> Option<i64> {
        let since = moment.checked_sub(self.start).filter(|since| *since >= 0)?;
        let steps = since / self.step + i64::from(since % self.step > 0);
        let end = self.start.checked_add(steps.checked_mul(self.step)?)?;
        (end <= self.end).then_some(end)
    }
}

/// Values of samples by the labels that series are told apart by.
#[derive(Debug)]
pub(crate) struct Series<'a> {
    /// By the labels' values; of each slice of time the sum.
    sums: HashMap<Vec<&'a str>, BTreeMap<u32, i64>>,
}

impl<'a> Series<'a> {
    pub(crate) fn new() -> Self {
        Self {
            sums: HashMap::new(),
        }
    }

    /// Adds a sample's values by the slice that they fell in.
    pub(crate) fn add(&mut self, labels: Vec<&'a str>, values: &[(u32, i64)]) {
        let sums = self.sums.entry(labels).or_default();
        for (slice, value) in values {
            let sum = sums.entry(*slice).or_default();
            *sum = sum.saturating_add(*value);
        }
    }

    /// The answer: of at most so many series, the heaviest first. `moments` says when each slice was, in
    /// milliseconds since 1970.
    pub(crate) fn message(
        &self,
        labels: &[&str],
        moments: &[i64],
        (steps, aggregation): (Steps, Aggregation),
        most: usize,
    ) -> Message {
        let weight =
            |sums: &BTreeMap<u32, i64>| sums.values().copied().fold(0, i64::saturating_add);
        let mut heaviest: Vec<_> = self.sums.iter().collect();
        heaviest.sort_by_key(|(values, sums)| (Reverse(weight(sums)), *values));
        let mut out = Message::default();
        for (values, sums) in heaviest.into_iter().take(most.min(SERIES)) {
            let mut series = Message::default();
            for (name, value) in labels
                .iter()
                .zip(values)
                .filter(|(_, value)| !value.is_empty())
            {
                series.message(1, &pair(name, value));
            }
            for (end, value) in points(sums, moments, steps, aggregation) {
                let mut point = Message::default();
                point.double(1, value);
                point.number(2, end.cast_unsigned());
                series.message(2, &point);
            }
            out.message(1, &series);
        }
        out
    }
}

/// A label with its value.
pub(crate) fn pair(name: &str, value: &str) -> Message {
    let mut out = Message::default();
    out.bytes(1, name.as_bytes());
    out.bytes(2, value.as_bytes());
    out
}

/// One point for each step in which there is something.
fn points(
    sums: &BTreeMap<u32, i64>,
    moments: &[i64],
    steps: Steps,
    aggregation: Aggregation,
) -> BTreeMap<i64, f64> {
    let mut points: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (slice, value) in sums {
        let moment = moments.get(to_usize(*slice)).copied();
        if let Some(end) = moment.and_then(|moment| steps.end_of(moment)) {
            let (sum, slices) = points.entry(end).or_default();
            *sum = sum.saturating_add(*value);
            *slices += 1;
        }
    }
    let shown = points.into_iter().map(|(end, (sum, slices))| {
        let over = match aggregation {
            Aggregation::Sum => 1,
            Aggregation::Average => slices,
        };
        (end, sum as f64 / over as f64)
    });
    shown.collect()
}
