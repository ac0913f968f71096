//! Shows a profile as a file of <https://www.speedscope.app>.
//!
//! Its own format and not profile.proto, of which that page keeps only the last line of a location:
//! inlined functions would vanish.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::bounded::{self, Bounded};
use super::summary::summary;
use crate::config;
use crate::store::profile::{Profile, THREAD, UNNAMED, to_usize};

/// The profile as a response body of at most [`config::PROFILE_BODY_BYTES`]; one graph of all
/// threads, then one for each thread, each in the order of time if that is known. `None` for a profile with negative values, which the page
/// cannot draw.
pub(crate) fn encode(profile: &Profile, title: &str) -> Option<Vec<u8>> {
    encode_within(profile, title, config::PROFILE_BODY_BYTES)
}

pub(super) fn encode_within(profile: &Profile, title: &str, limit: usize) -> Option<Vec<u8>> {
    if profile.is_signed() {
        return None;
    }
    bounded::shrink_timed(profile, limit, |profile, out| write(profile, title, out)).ok()
}

#[derive(Serialize)]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    name: &'a str,
    exporter: &'static str,
    #[serde(rename = "activeProfileIndex")]
    active: usize,
    shared: Shared<'a>,
    profiles: Vec<Sampled<'a>>,
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: Vec<Frame<'a>>,
}

/// One function, whichever of its lines ran: a frame for each line would split its box.
#[derive(Serialize)]
struct Frame<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    file: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sampled<'a> {
    r#type: &'static str,
    name: &'a str,
    unit: &'static str,
    start_value: i64,
    end_value: i64,
    /// Frames, root first.
    samples: Vec<&'a [u32]>,
    weights: Vec<i64>,
}

const SCHEMA: &str = "https://www.speedscope.app/file-format-schema.json";
const EXPORTER: &str = concat!("streamgate-agent ", env!("CARGO_PKG_VERSION"));
const NO_THREAD: &str = "[no thread name]";

fn write(profile: &Profile, title: &str, out: &mut Bounded) -> serde_json::Result<()> {
    let column = profile.default_column();
    let mut frames = Frames::default();
    let samples: Vec<Drawn<'_>> = profile
        .samples
        .iter()
        .map(|sample| Drawn {
            thread: sample.label(THREAD).map_or(NO_THREAD, |name| &**name),
            stack: frames.stack(profile, &sample.stack),
            weights: sample.by_slice(column),
        })
        .collect();
    let mut threads: BTreeMap<&str, Vec<&Drawn<'_>>> = BTreeMap::new();
    for sample in &samples {
        threads.entry(sample.thread).or_default().push(sample);
    }
    let unit = unit(profile, column);
    let all = format!("{title}, all threads: {}", summary(profile));
    let mut profiles = vec![Sampled::new(&all, unit, samples.iter().collect())];
    let mut by_thread: Vec<Sampled<'_>> = threads
        .into_iter()
        .map(|(thread, samples)| Sampled::new(thread, unit, samples))
        .collect();
    by_thread.sort_by_key(|thread| std::cmp::Reverse(thread.end_value));
    profiles.extend(by_thread);
    let file = File {
        schema: SCHEMA,
        name: title,
        exporter: EXPORTER,
        active: 0,
        shared: Shared {
            frames: frames.held,
        },
        profiles,
    };
    serde_json::to_writer(out, &file)
}

fn unit(profile: &Profile, column: usize) -> &'static str {
    let unit = profile.sample_types.get(column).map(|column| column.unit);
    match unit {
        Some("nanoseconds") => "nanoseconds",
        Some("bytes") => "bytes",
        _ => "none",
    }
}

struct Drawn<'a> {
    thread: &'a str,
    stack: Vec<u32>,
    /// By slice, in order.
    weights: Vec<(u32, i64)>,
}

impl<'a> Sampled<'a> {
    /// In the order of time. Within a slice equal stacks add up and related ones stand side by side,
    /// since when within it they ran is not known.
    fn new(name: &'a str, unit: &'static str, drawn: Vec<&'a Drawn<'a>>) -> Self {
        let pieces = drawn.into_iter().flat_map(|drawn| {
            let stack = &*drawn.stack;
            let weights = drawn.weights.iter();
            weights.map(move |(slice, weight)| (*slice, stack, *weight))
        });
        let mut pieces: Vec<(u32, &[u32], i64)> = pieces.collect();
        pieces.sort();
        let mut samples: Vec<&[u32]> = Vec::new();
        let mut weights: Vec<i64> = Vec::new();
        for (_, stack, value) in pieces {
            match (samples.last(), weights.last_mut()) {
                (Some(last), Some(weight)) if *last == stack => {
                    *weight = weight.saturating_add(value);
                }
                _ => {
                    samples.push(stack);
                    weights.push(value);
                }
            }
        }
        Self {
            r#type: "sampled",
            name,
            unit,
            start_value: 0,
            end_value: weights.iter().sum(),
            samples,
            weights,
        }
    }
}

/// The table that all stacks share.
#[derive(Default)]
struct Frames<'a> {
    held: Vec<Frame<'a>>,
    places: HashMap<(&'a str, &'a str), u32>,
}

impl<'a> Frames<'a> {
    fn stack(&mut self, profile: &'a Profile, stack: &[u32]) -> Vec<u32> {
        let locations = stack.iter().rev();
        let locations = locations.filter_map(|place| profile.locations.get(to_usize(*place)));
        let functions = locations.flat_map(|location| profile.functions_at(location).rev());
        let named = functions.map(|function| match function {
            Some(function) if !function.name.is_empty() => (&*function.name, &*function.filename),
            _ => (UNNAMED, ""),
        });
        named.map(|(name, file)| self.place(name, file)).collect()
    }

    fn place(&mut self, name: &'a str, file: &'a str) -> u32 {
        *self.places.entry((name, file)).or_insert_with(|| {
            self.held.push(Frame { name, file });
            u32::try_from(self.held.len() - 1).unwrap_or(u32::MAX)
        })
    }
}
