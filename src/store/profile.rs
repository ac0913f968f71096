//! One profile over one window: stacks with values, what they stand for, and what was missed.
//!
//! The tables refer to each other by index, as profile.proto does, so that every encoder is a walk
//! over them. Nothing here is scaled up to look whole: [`Accounting`] says what is missing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What one column of values counts, in which unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueType {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

/// How often a stack was seen.
pub(crate) const SAMPLES: ValueType = ValueType {
    name: "samples",
    unit: "count",
};
/// CPU time.
pub(crate) const CPU: ValueType = ValueType {
    name: "cpu",
    unit: "nanoseconds",
};

/// Stacks with values over one window.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Profile {
    pub(crate) start_unix_nanos: u64,
    /// The window's true length, which may differ from the one asked for.
    pub(crate) duration: Duration,
    pub(crate) period_type: ValueType,
    /// In the unit of `period_type`; the largest of the window if the rate changed within it.
    pub(crate) period: u64,
    pub(crate) sample_types: Vec<ValueType>,
    /// The column that a reader wants to see first.
    pub(crate) default_type: &'static str,
    /// Heaviest first, so that an encoder that runs into its byte limit folds the lightest.
    pub(crate) samples: Vec<Sample>,
    /// Stretches of the window, in order; empty: nobody asked when samples were taken.
    pub(crate) slices: Vec<Slice>,
    pub(crate) locations: Vec<Location>,
    pub(crate) functions: Vec<Function>,
    /// The running binary first.
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) accounting: Accounting,
    /// Sentences for the reader: rate, coverage, what was lost.
    pub(crate) comments: Vec<String>,
}

/// One distinct stack and its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Indices into [`Profile::locations`], leaf first.
    pub(crate) stack: Arc<[u32]>,
    /// One per [`Profile::sample_types`].
    pub(crate) values: Vec<i64>,
    pub(crate) labels: Vec<Label>,
    /// The value of the default column by the place of its slice in [`Profile::slices`], in order;
    /// empty: all of it in the first.
    pub(crate) times: Vec<(u32, i64)>,
}

/// A stretch of a window, from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    /// What one sample in it stands for, the largest if there are several; zero: not known.
    pub(crate) period: Duration,
}

/// A word about a sample, such as its thread's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Label {
    pub(crate) key: &'static str,
    pub(crate) value: Arc<str>,
}

/// What stands for code that has no name.
pub(crate) const UNNAMED: &str = "[unnamed]";

/// What stands for all that found no place.
pub(crate) const OVERFLOW_NAME: &str = "[overflow]";

/// The label that names the thread.
pub(crate) const THREAD: &str = "thread";
/// The label that names the trace of a traced request, in hexadecimal; Pyroscope reads these two.
pub(crate) const TRACE_ID: &str = "trace_id";
/// The label that names the span of a traced request, in hexadecimal.
pub(crate) const SPAN_ID: &str = "span_id";

/// One address of the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// The exact program counter of a leaf; of a caller one byte before its return address.
    pub(crate) address: u64,
    /// Index into [`Profile::mappings`].
    pub(crate) mapping: Option<u32>,
    /// Innermost inlined function first; the last is the function that holds the code.
    pub(crate) lines: Vec<Line>,
}

/// A place in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    /// Index into [`Profile::functions`].
    pub(crate) function: u32,
    /// 0: not known.
    pub(crate) line: u32,
}

/// A function of the code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Function {
    /// For people: demangled, without crate hashes.
    pub(crate) name: Arc<str>,
    /// The mangled symbol; empty if there is none or it equals the name.
    pub(crate) system_name: Arc<str>,
    /// With its directory; empty: not known.
    pub(crate) filename: Arc<str>,
}

impl Function {
    /// A name that stands for something without a symbol.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            system_name: "".into(),
            filename: "".into(),
        }
    }
}

/// An executable stretch of a file in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) limit: u64,
    pub(crate) offset: u64,
    /// Absolute path or a name such as `[vdso]`.
    pub(crate) file: String,
    /// Lower-case hexadecimal; empty: not known.
    pub(crate) build_id: String,
    /// OpenTelemetry's digest of the file, in lower-case hexadecimal; empty: not known, or not wanted.
    pub(crate) htlhash: String,
    /// All symbols that the file has were used, so no other tool can add names.
    pub(crate) complete: bool,
}

/// How much of the truth a profile holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Accounting {
    /// Samples that the CPU time used should have given; `None` if that time is not known.
    pub(crate) expected: Option<u64>,
    pub(crate) recorded: u64,
    /// Samples lost, by cause, as far as the engine sees them.
    pub(crate) lost: Vec<(&'static str, u64)>,
    /// Samples whose stack was deeper than is kept.
    pub(crate) truncated: u64,
    /// Sampled time as a share of the CPU time that the process used.
    pub(crate) coverage: Option<f64>,
}

impl Profile {
    /// The sum of one column.
    pub(crate) fn total(&self, column: usize) -> i64 {
        self.samples
            .iter()
            .filter_map(|sample| sample.values.get(column))
            .fold(0, |sum, value| sum.saturating_add(*value))
    }

    /// The place of the column that a reader wants to see first.
    pub(crate) fn default_column(&self) -> usize {
        let mut names = self.sample_types.iter();
        names
            .position(|column| column.name == self.default_type)
            .unwrap_or(0)
    }

    /// Names of a sample's functions, innermost first.
    pub(crate) fn names<'a>(&'a self, sample: &'a Sample) -> impl Iterator<Item = &'a str> {
        let locations = sample.stack.iter();
        let locations = locations.filter_map(|place| self.locations.get(to_usize(*place)));
        let functions = locations.flat_map(|location| self.functions_at(location));
        functions.map(|function| function.map_or(UNNAMED, |function| &*function.name))
    }

    /// The functions at a location, innermost first; a location without any keeps its place.
    pub(crate) fn functions_at<'a>(
        &'a self,
        location: &'a Location,
    ) -> impl DoubleEndedIterator<Item = Option<&'a Function>> {
        let lines = location.lines.iter();
        let named = lines.map(|line| self.functions.get(to_usize(line.function)));
        let nameless = location.lines.is_empty().then_some(None);
        named.chain(nameless)
    }

    /// The same profile with only the first, heaviest samples; the others are one sample under
    /// `[overflow]`, so totals stay true.
    pub(crate) fn folded_to(&self, samples: usize) -> Self {
        let mut folded = self.clone();
        let rest: Vec<Sample> = folded
            .samples
            .drain(samples.min(self.samples.len())..)
            .collect();
        if rest.is_empty() {
            return folded;
        }
        let place = folded.add_mark(OVERFLOW_NAME);
        let mut values = vec![0_i64; self.sample_types.len()];
        let mut times: BTreeMap<u32, i64> = BTreeMap::new();
        for sample in &rest {
            for (sum, value) in values.iter_mut().zip(&sample.values) {
                *sum = sum.saturating_add(*value);
            }
            for (slice, value) in &sample.times {
                let sum = times.entry(*slice).or_default();
                *sum = sum.saturating_add(*value);
            }
        }
        folded.samples.push(Sample {
            stack: [place].into(),
            values,
            labels: Vec::new(),
            times: times.into_iter().collect(),
        });
        let stacks = rest.len();
        let comment =
            format!("the {stacks} lightest stacks are one, {OVERFLOW_NAME}, to save room");
        folded.comments.push(comment);
        folded
    }

    /// From its start to the end of its last slice, gaps between them included.
    pub(crate) fn length(&self) -> Duration {
        let last = self.slices.last().map_or(self.duration, |slice| slice.to);
        last.max(self.duration)
    }

    /// The same profile with so many slices as one.
    pub(crate) fn coarser(&self, slices: usize) -> Self {
        let mut coarse = self.clone();
        let runs = self.slices.chunks(slices.max(1));
        let joined = runs.filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            Some(Slice {
                from: first.from,
                to: last.to,
                period: run.iter().map(|slice| slice.period).max()?,
            })
        });
        coarse.slices = joined.collect();
        let step = u32::try_from(slices.max(1)).unwrap_or(u32::MAX);
        for sample in &mut coarse.samples {
            let mut times: Vec<(u32, i64)> = Vec::new();
            for (slice, value) in &sample.times {
                push_time(&mut times, slice / step, *value);
            }
            sample.times = times;
        }
        coarse
    }

    /// The same profile without its slices.
    pub(crate) fn timeless(&self) -> Self {
        let mut timeless = self.clone();
        timeless.slices.clear();
        timeless
            .samples
            .iter_mut()
            .for_each(|sample| sample.times.clear());
        timeless
    }

    /// Adds a location that stands for something without code, and returns its place.
    pub(crate) fn add_mark(&mut self, name: &str) -> u32 {
        let function = u32::try_from(self.functions.len()).unwrap_or(u32::MAX);
        self.functions.push(Function::named(name));
        self.add_location(Some(function))
    }

    /// Adds a location without an address in a function, or in none that is known, and returns its place.
    pub(crate) fn add_location(&mut self, function: Option<u32>) -> u32 {
        let place = u32::try_from(self.locations.len()).unwrap_or(u32::MAX);
        let line = function.map(|function| Line { function, line: 0 });
        self.locations.push(Location {
            address: 0,
            mapping: None,
            lines: line.into_iter().collect(),
        });
        place
    }

    /// Whether any value is below zero, as only a difference can have it.
    pub(crate) fn is_signed(&self) -> bool {
        let mut values = self.samples.iter().flat_map(|sample| &sample.values);
        values.any(|value| *value < 0)
    }
}

impl Sample {
    /// Its value of a column by slice, in order.
    pub(crate) fn by_slice(&self, column: usize) -> Vec<(u32, i64)> {
        if self.times.is_empty() {
            vec![(0, self.values.get(column).copied().unwrap_or(0))]
        } else {
            self.times.clone()
        }
    }

    /// The value of a label.
    pub(crate) fn label(&self, key: &str) -> Option<&Arc<str>> {
        let mut labels = self.labels.iter();
        let label = labels.find(|label| label.key == key)?;
        Some(&label.value)
    }
}

/// Adds a value to the last slice, if it is this one, or begins this one.
pub(crate) fn push_time<T: Copy + std::ops::Add<Output = T>>(
    times: &mut Vec<(u32, T)>,
    slice: u32,
    value: T,
) {
    match times.last_mut() {
        Some((last, sum)) if *last == slice => *sum = *sum + value,
        _ => times.push((slice, value)),
    }
}

/// An index as memory is addressed; every supported target has at least 32 bits.
pub(crate) fn to_usize(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}
