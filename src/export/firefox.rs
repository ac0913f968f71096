//! Shows a profile as a file of <https://profiler.firefox.com>, in the viewer's own processed format.
//!
//! The version is the one that `samply` writes; the viewer brings it up to its own.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::bounded::{self, Bounded};
use super::firefox_format::{
    Category, Extensions, Extra, ExtraEntry, File, Lib, Markers, Meta, SampleUnits, Samples,
    Shared, Thread,
};
use crate::config;
use crate::store::profile::{Function, Mapping, Profile, Sample, Slice, THREAD, UNNAMED, to_usize};

/// Whose profile it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program<'a> {
    pub(crate) service: &'a str,
    pub(crate) pid: u32,
}

/// The profile as a response body of at most [`config::PROFILE_BODY_BYTES`]; one track for each
/// thread name. `None` only if not even the names of the modules fit.
pub(crate) fn encode(profile: &Profile, program: Program<'_>) -> Option<Vec<u8>> {
    encode_within(profile, program, config::PROFILE_BODY_BYTES)
}

pub(super) fn encode_within(
    profile: &Profile,
    program: Program<'_>,
    limit: usize,
) -> Option<Vec<u8>> {
    bounded::shrink_timed(profile, limit, |profile, out| write(profile, program, out)).ok()
}

const VERSION: u32 = 66;
const IMPORTER: &str = concat!("streamgate-agent ", env!("CARGO_PKG_VERSION"));
const NO_THREAD: &str = "[no thread name]";
const NO_SAMPLES: &str = "[no samples]";

/// The first grey one is the viewer's default.
const CATEGORIES: [Category; 3] = [
    Category::new("Other", "grey"),
    Category::new("Program", "blue"),
    Category::new("Libraries", "orange"),
];
const OTHER: u32 = 0;
const PROGRAM: u32 = 1;
const LIBRARIES: u32 = 2;

/// The type of a resource that is a library.
const LIBRARY: u32 = 1;

const NANOS_PER_MILLI: f64 = 1e6;

fn write(profile: &Profile, program: Program<'_>, out: &mut Bounded) -> serde_json::Result<()> {
    let mut tables = Tables::new(profile);
    let mut by_thread: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
    for sample in &profile.samples {
        let thread = sample.label(THREAD).map_or(NO_THREAD, |name| &**name);
        by_thread.entry(thread).or_default().push(sample);
    }
    if by_thread.is_empty() {
        // The viewer does not open a profile without any thread.
        by_thread.insert(NO_SAMPLES, Vec::new());
    }
    let column = profile.default_column();
    let value = |sample: &&Sample| sample.values.get(column).copied().unwrap_or(0);
    let mut by_thread: Vec<(&str, Vec<&Sample>)> = by_thread.into_iter().collect();
    by_thread.sort_by_key(|(_, samples)| {
        std::cmp::Reverse(samples.iter().map(value).fold(0, i64::saturating_add))
    });
    let threads = by_thread.into_iter().zip(1..);
    let threads = threads.map(|((name, samples), tid)| Thread {
        name,
        process_name: program.service,
        process_type: "default",
        process_startup_time: 0.0,
        process_shutdown_time: None,
        register_time: 0.0,
        unregister_time: None,
        paused_ranges: [],
        show_markers_in_timeline: false,
        is_main_thread: false,
        pid: program.pid.to_string(),
        tid,
        samples: tables.samples(&samples, column),
        markers: Markers::default(),
    });
    let threads = threads.collect();
    let file = File {
        meta: meta(profile, program.service),
        libs: profile.mappings.iter().map(lib).collect(),
        shared: tables.finish(),
        threads,
        pages: [],
        counters: [],
        overhead: [],
    };
    serde_json::to_writer(out, &file)
}

fn meta<'a>(profile: &'a Profile, service: &'a str) -> Meta<'a> {
    let entries = profile.comments.iter().map(|comment| ExtraEntry {
        label: "Note",
        format: "string",
        value: comment,
    });
    Meta {
        preprocessed_profile_version: VERSION,
        version: 24,
        interval: if profile.period_type.unit == "nanoseconds" {
            profile.period as f64 / NANOS_PER_MILLI
        } else {
            1.0
        },
        start_time: profile.start_unix_nanos as f64 / NANOS_PER_MILLI,
        profiling_start_time: 0.0,
        profiling_end_time: millis(profile.length()),
        process_type: 0,
        stackwalk: 1,
        debug: false,
        product: service,
        imported_from: IMPORTER,
        categories: CATEGORIES,
        marker_schema: [],
        extensions: Extensions::default(),
        sample_units: SampleUnits {
            time: "ms",
            event_delay: "ms",
            thread_cpu_delta: "ns",
        },
        // Else the viewer would ask its symbol server about every module.
        symbolicated: true,
        uses_only_one_stack_type: true,
        source_code_is_not_on_searchfox: true,
        keep_profile_thread_order: true,
        extra: [Extra {
            label: "Sampling",
            entries: entries.collect(),
        }],
    }
}

fn lib(mapping: &Mapping) -> Lib<'_> {
    let name = short(mapping);
    Lib {
        arch: None,
        name,
        path: &mapping.file,
        debug_name: name,
        debug_path: &mapping.file,
        breakpad_id: breakpad_id(&mapping.build_id),
        code_id: (!mapping.build_id.is_empty()).then_some(&*mapping.build_id),
    }
}

fn short(mapping: &Mapping) -> &str {
    mapping.file.rsplit('/').next().unwrap_or_default()
}

/// The build id as symbol servers spell it: its first 16 bytes as a GUID, whose first three groups
/// have their bytes in reverse order, and an age of 0.
fn breakpad_id(build_id: &str) -> String {
    let mut bytes: Vec<&str> = (0..16)
        .map(|at| build_id.get(2 * at..2 * at + 2).unwrap_or("00"))
        .collect();
    let (groups, _) = bytes.split_at_mut(8);
    let (first, others) = groups.split_at_mut(4);
    let (second, third) = others.split_at_mut(2);
    first.reverse();
    second.reverse();
    third.reverse();
    bytes.concat().to_ascii_uppercase() + "0"
}

/// What the threads share, growing as their stacks are met.
struct Tables<'a> {
    profile: &'a Profile,
    shared: Shared<'a>,
    strings: HashMap<&'a str, u32>,
    resources: HashMap<u32, u32>,
    sources: HashMap<&'a str, u32>,
    funcs: HashMap<(&'a str, &'a str, Option<u32>), u32>,
    frames: HashMap<(u32, usize), u32>,
    stacks: HashMap<(Option<u32>, u32), u32>,
}

impl<'a> Tables<'a> {
    fn new(profile: &'a Profile) -> Self {
        Self {
            profile,
            shared: Shared::default(),
            strings: HashMap::new(),
            resources: HashMap::new(),
            sources: HashMap::new(),
            funcs: HashMap::new(),
            frames: HashMap::new(),
            stacks: HashMap::new(),
        }
    }

    /// A thread's samples of a slice one after the other from its start, each as long as its CPU time,
    /// and then nothing: when within the slice they ran is not known. Without slices the window is one.
    fn samples(&mut self, samples: &[&'a Sample], column: usize) -> Samples {
        let unit = self.profile.sample_types.get(column);
        let unit = unit.map_or("", |column| column.unit);
        let is_time = unit == "nanoseconds";
        let mut drawn: Vec<(u32, u32, i64)> = Vec::new();
        for sample in samples {
            let Some(stack) = self.stack(&sample.stack) else {
                continue;
            };
            let values = sample.by_slice(column).into_iter();
            drawn.extend(values.map(|(slice, value)| (slice, stack, value)));
        }
        drawn.sort_unstable();
        let width = |value: i64| if is_time { value.max(0) } else { 0 };
        let mut out = Samples {
            weight_type: match unit {
                "nanoseconds" => "tracing-ms",
                "bytes" => "bytes",
                _ => "samples",
            },
            ..Samples::default()
        };
        // The viewer takes no CPU time from a thread's first sample.
        out.push(None, 0.0, 0.0, 0);
        let whole = Slice {
            from: Duration::ZERO,
            to: self.profile.length(),
            period: Duration::ZERO,
        };
        let mut time = 0.0;
        for run in drawn.chunk_by(|a, b| a.0 == b.0) {
            let slice = run.first().map_or(0, |(slice, ..)| to_usize(*slice));
            let slice = self.profile.slices.get(slice).unwrap_or(&whole);
            let (from, to) = (millis(slice.from), millis(slice.to));
            if time < from {
                time = from;
                out.push(None, time, 0.0, 0);
            }
            let total: i64 = run.iter().map(|(.., value)| width(*value)).sum();
            // Several threads of one name may use more CPU time than the slice is long.
            let room = (to - from) * NANOS_PER_MILLI;
            let squeeze = (room / total.max(1) as f64).min(1.0);
            for (_, stack, value) in run {
                time += width(*value) as f64 / NANOS_PER_MILLI * squeeze;
                let weight = if is_time {
                    *value as f64 / NANOS_PER_MILLI
                } else {
                    *value as f64
                };
                out.push(Some(*stack), time, weight, width(*value));
            }
        }
        let window = millis(whole.to);
        if time < window {
            out.push(None, window, 0.0, 0);
        }
        out
    }

    /// The stack's place; its callers' stacks stand before it.
    fn stack(&mut self, stack: &'a [u32]) -> Option<u32> {
        let mut prefix = None;
        for place in stack.iter().rev().copied() {
            let Some(location) = self.profile.locations.get(to_usize(place)) else {
                continue;
            };
            let depths = self.profile.functions_at(location).count();
            for depth in 0..depths {
                let frame = self.frame(place, depth)?;
                prefix = Some(self.stack_of(prefix, frame));
            }
        }
        prefix
    }

    fn stack_of(&mut self, prefix: Option<u32>, frame: u32) -> u32 {
        *self.stacks.entry((prefix, frame)).or_insert_with(|| {
            let table = &mut self.shared.stack_table;
            let place = place(table.length);
            table.frame.push(frame);
            table
                .prefix_offset
                .push(prefix.map_or(0, |prefix| place - prefix));
            table.length += 1;
            place
        })
    }

    /// One function at a location; depth 0 is the one that holds the code.
    fn frame(&mut self, at: u32, depth: usize) -> Option<u32> {
        if let Some(frame) = self.frames.get(&(at, depth)) {
            return Some(*frame);
        }
        let location = self.profile.locations.get(to_usize(at))?;
        let function = self.profile.functions_at(location).rev().nth(depth)?;
        let line = location.lines.iter().rev().nth(depth).map(|line| line.line);
        let func = self.func(function, location.mapping);
        let table = &mut self.shared.frame_table;
        table.address.push(-1);
        table
            .inline_depth
            .push(u8::try_from(depth).unwrap_or(u8::MAX));
        table.category.push(match location.mapping {
            Some(0) => PROGRAM,
            Some(_) => LIBRARIES,
            None => OTHER,
        });
        table.subcategory.push(0);
        table.func.push(func);
        table.native_symbol.push(None);
        table.inner_window_id.push(0);
        table.line.push(line.filter(|line| *line > 0));
        table.column.push(None);
        table.original_location.push(None);
        let frame = place(table.length);
        table.length += 1;
        self.frames.insert((at, depth), frame);
        Some(frame)
    }

    fn func(&mut self, function: Option<&'a Function>, mapping: Option<u32>) -> u32 {
        let name = function.map_or(UNNAMED, |function| &*function.name);
        let file = function.map_or("", |function| &*function.filename);
        if let Some(func) = self.funcs.get(&(name, file, mapping)) {
            return *func;
        }
        let resource = mapping.and_then(|mapping| self.resource(mapping));
        let source = (!file.is_empty()).then(|| self.source(file));
        let name_place = self.string(name);
        let table = &mut self.shared.func_table;
        table.name.push(name_place);
        table.is_js.push(false);
        table.relevant_for_js.push(false);
        table.resource.push(resource.map_or(-1, i64::from));
        table.source.push(source);
        table.line_number.push(None);
        table.column_number.push(None);
        table.original_location.push(None);
        let func = place(table.length);
        table.length += 1;
        self.funcs.insert((name, file, mapping), func);
        func
    }

    fn resource(&mut self, mapping: u32) -> Option<u32> {
        if let Some(resource) = self.resources.get(&mapping) {
            return Some(*resource);
        }
        let held = self.profile.mappings.get(to_usize(mapping))?;
        let name = self.string(short(held));
        let table = &mut self.shared.resource_table;
        table.lib.push(mapping);
        table.name.push(name);
        table.host.push(None);
        table.r#type.push(LIBRARY);
        let resource = place(table.length);
        table.length += 1;
        self.resources.insert(mapping, resource);
        Some(resource)
    }

    fn source(&mut self, file: &'a str) -> u32 {
        if let Some(source) = self.sources.get(file) {
            return *source;
        }
        let name = self.string(file);
        let table = &mut self.shared.sources;
        table.id.push(None);
        table.filename.push(name);
        table.start_line.push(1);
        table.start_column.push(1);
        table.source_map_url.push(None);
        table.content.push(None);
        let source = place(table.length);
        table.length += 1;
        self.sources.insert(file, source);
        source
    }

    fn string(&mut self, text: &'a str) -> u32 {
        *self.strings.entry(text).or_insert_with(|| {
            self.shared.string_array.push(text);
            place(self.shared.string_array.len() - 1)
        })
    }

    fn finish(self) -> Shared<'a> {
        self.shared
    }
}

impl Samples {
    fn push(&mut self, stack: Option<u32>, time: f64, weight: f64, cpu_nanos: i64) {
        self.stack.push(stack);
        self.time.push(time);
        self.weight.push(weight);
        self.thread_cpu_delta.push(cpu_nanos);
        self.length += 1;
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn place(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
