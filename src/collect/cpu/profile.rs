//! A window of samples and the names of its addresses become a profile.

use std::sync::Arc;
use std::time::Duration;

use crate::collect::code::symbols::Symbolised;
use crate::collect::code::tables::Tables;
use crate::config::sampling;
use crate::store::label::Trace;
use crate::store::metrics::whole_nanos;
use crate::store::profile::{
    Accounting, CPU, Label, OVERFLOW_NAME, Profile, SAMPLES, SPAN_ID, Sample, THREAD, TRACE_ID,
};
use crate::store::stacks::{LOST_NAME, OVERFLOW, TRUNCATED, TRUNCATED_NAME};
use crate::store::windows::{Window, WindowStack};

/// Addresses that have no code behind them, and what they are called.
const MARKS: [(u64, &str); 2] = [(TRUNCATED, TRUNCATED_NAME), (OVERFLOW, OVERFLOW_NAME)];

/// The distinct addresses of a window that have code behind them, sorted.
pub(super) fn addresses(window: &Window) -> Vec<u64> {
    let stacks = window.stacks.iter();
    let mut addresses: Vec<u64> = stacks
        .flat_map(|stack| stack.addresses.iter().copied())
        .filter(|address| !MARKS.iter().any(|(mark, _)| mark == address))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Who took the samples, for the reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) engine: &'static str,
    pub(super) leaves_out: Option<&'static str>,
    /// The share of the host's CPU time that sampling may cost.
    pub(super) budget: f64,
    /// The length that the reader asked for.
    pub(super) asked: Duration,
}

/// The profile of a window.
pub(super) fn profile(window: &Window, symbolised: Symbolised, taken: Taken) -> Profile {
    let accounting = account(window);
    let mut comments = comments(window, &accounting, taken);
    let mut tables = Tables::of(&symbolised);
    comments.extend(symbolised.comments);
    for (mark, name) in MARKS {
        if window
            .stacks
            .iter()
            .any(|stack| stack.addresses.contains(&mark))
        {
            tables.mark(mark, name);
        }
    }
    let stacks = window.stacks.iter();
    let mut samples: Vec<Sample> = stacks.map(|stack| sample(&tables, stack)).collect();
    samples.sort_unstable_by(|a, b| {
        b.values
            .last()
            .cmp(&a.values.last())
            .then_with(|| a.stack.cmp(&b.stack))
            .then_with(|| a.labels.cmp(&b.labels))
    });
    let (_, period) = window.periods;
    Profile {
        start_unix_nanos: window.start_unix_nanos,
        duration: window.duration,
        period_type: CPU,
        period: whole_nanos(period),
        sample_types: vec![SAMPLES, CPU],
        default_type: CPU.name,
        samples,
        slices: window.slices.clone(),
        locations: tables.locations,
        functions: tables.functions,
        mappings: symbolised.mappings,
        accounting,
        comments,
    }
}

/// One stack of the window, by the places of its addresses.
fn sample(tables: &Tables, stack: &WindowStack) -> Sample {
    let addresses = stack.addresses.iter();
    let places = addresses.filter_map(|address| tables.places.get(address).copied());
    let mut labels = stack.mark.set.labels().to_vec();
    let mut add = |key, value| labels.push(Label { key, value });
    if !stack.thread.is_empty() {
        add(THREAD, Arc::clone(&stack.thread));
    }
    let trace = stack.mark.trace;
    if trace != Trace::default() {
        add(TRACE_ID, format!("{:032x}", trace.trace_id).into());
        add(SPAN_ID, format!("{:016x}", trace.span_id).into());
    }
    let whole = |value| i64::try_from(value).unwrap_or(i64::MAX);
    let times = stack.times.iter();
    Sample {
        stack: places.collect(),
        values: vec![whole(stack.samples), whole(stack.nanos)],
        labels,
        times: times
            .map(|(slice, nanos)| (*slice, whole(*nanos)))
            .collect(),
    }
}

fn account(window: &Window) -> Accounting {
    let nanos: u64 = window.stacks.iter().map(|stack| stack.nanos).sum();
    let cpu = window.cpu.filter(|cpu| !cpu.is_zero());
    Accounting {
        expected: window.expected,
        recorded: window.stacks.iter().map(|stack| stack.samples).sum(),
        lost: window
            .lost
            .iter()
            .map(|(reason, n)| (*reason, *n))
            .collect(),
        truncated: window.truncated,
        coverage: cpu.map(|cpu| Duration::from_nanos(nanos).as_secs_f64() / cpu.as_secs_f64()),
    }
}

/// A span is met to a bucket at each end.
const WHOLE: Duration = sampling::BUCKET.saturating_mul(2);

/// A sample more or less at either end of a window is no gap.
const NOISE: u64 = 2;

fn comments(window: &Window, accounting: &Accounting, taken: Taken) -> Vec<String> {
    let hertz = |period: Duration| 1.0 / period.as_secs_f64();
    let (fast, slow) = window.periods;
    let mut out = vec![
        format!(
            "streamgate-agent {}, CPU samples by {} at {:.0} Hz",
            env!("CARGO_PKG_VERSION"),
            taken.engine,
            hertz(fast),
        ),
        match (accounting.expected, window.cpu, accounting.coverage) {
            (Some(expected), Some(cpu), Some(coverage)) => format!(
                "coverage {coverage:.3}: {} samples recorded, {expected} expected from {:.2} s of CPU time",
                accounting.recorded,
                cpu.as_secs_f64()
            ),
            _ => format!(
                "coverage not known: {} samples recorded, the CPU time used could not be read",
                accounting.recorded
            ),
        },
    ];
    if window.duration + WHOLE < taken.asked {
        out.push(format!(
            "of the {} s asked for {:.0} s are held",
            taken.asked.as_secs(),
            window.duration.as_secs_f64()
        ));
    }
    if fast != slow {
        out.push(format!(
            "the rate changed within the window ({:.0} and {:.0} Hz): read nanoseconds, not samples",
            hertz(slow),
            hertz(fast)
        ));
    }
    if !window.slowed.is_zero() {
        out.push(format!(
            "the rate was lower than wished for during {:.0} s: sampling cost more than {} % of the \
             host's CPU time",
            window.slowed.as_secs_f64(),
            100.0 * taken.budget
        ));
    }
    let missing = accounting
        .expected
        .map_or(0, |expected| expected.saturating_sub(accounting.recorded));
    let gap = accounting
        .coverage
        .filter(|coverage| *coverage < sampling::COVERAGE && missing > NOISE);
    if let Some(coverage) = gap {
        let cause = taken.leaves_out.map_or(String::new(), |what| {
            format!("; this engine leaves out {what}")
        });
        out.push(format!(
            "{:.0} % of the CPU time is missing from this profile{cause}; nothing was scaled up",
            100.0 * (1.0 - coverage)
        ));
    }
    if window.unseen > 0 {
        out.push(format!(
            "{} samples were due of threads that no tick had met yet: they have the latest stacks of \
             threads of that name, or {LOST_NAME}",
            window.unseen
        ));
    }
    for (reason, samples) in &accounting.lost {
        out.push(format!("lost {samples} samples: {reason}"));
    }
    if accounting.truncated > 0 {
        out.push(format!(
            "{} samples ({:.1} %) were deeper than is kept or could not be followed to their root, and begin at {TRUNCATED_NAME}",
            accounting.truncated,
            100.0 * accounting.truncated as f64 / accounting.recorded.max(1) as f64,
        ));
    }
    out
}
