//! A profile seen by its labels: the samples of one route only, or a root frame for each.

use std::collections::HashMap;

use crate::store::heap::AGE;
use crate::store::label::{METHOD, ROUTE};
use crate::store::looks::STATE;
use crate::store::profile::{Profile, SAMPLES, Sample, THREAD};

/// What stands at the root of every stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    Route,
    Thread,
    /// Whether the thread ran or waited.
    State,
    /// How long ago a live block was allocated.
    Age,
}

/// The samples whose label has a value. How much of the truth they are is not known: a thread's
/// clock does not tell routes apart.
pub(crate) fn only(profile: &Profile, key: &'static str, value: &str) -> Profile {
    let mut shown = profile.clone();
    shown
        .samples
        .retain(|sample| sample.label(key).is_some_and(|held| **held == *value));
    // Elsewhere the first column counts.
    let counted = shown.sample_types.iter().position(|held| *held == SAMPLES);
    let counted = counted.unwrap_or_else(|| shown.default_column());
    let (kept, all) = (shown.total(counted), profile.total(counted));
    let unit = match shown.sample_types.get(counted) {
        Some(column) if *column != SAMPLES => format!(" {} of {}", column.unit, column.name),
        _ => String::new(),
    };
    shown.comments.push(format!(
        "only samples with {key}={value}: {kept} of {all}{unit}; what is said of coverage and losses is of all"
    ));
    shown.accounting.recorded = u64::try_from(kept).unwrap_or(0);
    shown.accounting.expected = None;
    shown.accounting.coverage = None;
    shown
}

/// The profile with a frame at the root of each stack that says whose it is.
pub(crate) fn rooted(profile: &Profile, root: Root) -> Profile {
    let mut shown = profile.clone();
    let mut marks: HashMap<String, u32> = HashMap::new();
    let mut samples = std::mem::take(&mut shown.samples);
    for sample in &mut samples {
        let name = root.name(sample);
        let mark = match marks.get(&name) {
            Some(mark) => *mark,
            None => {
                let mark = shown.add_mark(&name);
                marks.insert(name, mark);
                mark
            }
        };
        sample.stack = sample.stack.iter().copied().chain([mark]).collect();
    }
    shown.samples = samples;
    shown
}

impl Root {
    fn name(self, sample: &Sample) -> String {
        match self {
            Self::Age => match sample.label(AGE) {
                Some(age) => format!("[{age}]"),
                None => "[allocated]".to_owned(),
            },
            Self::State => match sample.label(STATE) {
                Some(state) => format!("[{state}]"),
                None => "[state not known]".to_owned(),
            },
            Self::Thread => match sample.label(THREAD) {
                Some(thread) => format!("[{thread}]"),
                None => "[no thread name]".to_owned(),
            },
            Self::Route => match (sample.label(METHOD), sample.label(ROUTE)) {
                (Some(method), Some(route)) => format!("[{method} {route}]"),
                (None, Some(route)) => format!("[{route}]"),
                (_, None) => "[no route]".to_owned(),
            },
        }
    }
}
