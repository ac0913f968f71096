//! Shows a profile as gzipped profile.proto, the format that `go tool pprof` and its kin read.
//!
//! The tool's habits decide the details: see each rule where it is applied.

use std::collections::HashMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::wire::Message;
use crate::config;
use crate::store::heap::object_bytes;
use crate::store::metrics::whole_nanos;
use crate::store::profile::{
    Function, Line, Location, OVERFLOW_NAME, Profile, Sample, ValueType, to_usize,
};

/// The profile as a response body of at most [`config::PROFILE_BODY_BYTES`] before compression;
/// stacks that do not fit are one sample under `[overflow]`, so totals stay true.
pub(crate) fn encode(profile: &Profile) -> Vec<u8> {
    encode_within(profile, config::PROFILE_BODY_BYTES)
}

/// The same within another limit.
pub(super) fn encode_within(profile: &Profile, limit: usize) -> Vec<u8> {
    compress(&message(profile, limit))
}

fn compress(message: &Message) -> Vec<u8> {
    let packed = || -> io::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(COMPRESSION));
        encoder.write_all(message.as_bytes())?;
        encoder.finish()
    };
    // Writing to memory does not fail, and the tool reads an unpacked message just as well.
    packed().unwrap_or_else(|_| message.as_bytes().to_vec())
}

/// Level 4 of 9 (a guess): higher levels cost the host CPU time for a body that is read once.
const COMPRESSION: u32 = 4;

/// The message itself, within a limit.
pub(super) fn message(profile: &Profile, limit: usize) -> Message {
    let mut tables = Tables::choose(profile, limit);
    let overflow = tables.overflow(profile);
    let overflow = overflow.as_ref();
    let mut strings = Strings::default();
    let mut out = Message::default();
    for column in &profile.sample_types {
        out.message(1, &strings.value_type(*column));
    }
    let samples = profile.samples.iter().take(tables.samples);
    for sample in samples.chain(overflow.map(|overflow| &overflow.sample)) {
        out.message(2, &strings.sample(profile, sample, &tables.locations));
    }
    write_mappings(profile, &tables, &mut strings, &mut out);
    let locations = profile.locations.iter();
    let locations = locations.chain(overflow.map(|overflow| &overflow.location));
    for (location, id) in locations.zip(&tables.locations) {
        if *id != 0 {
            out.message(4, &location_message(*id, location, &tables.functions));
        }
    }
    let functions = profile.functions.iter();
    let functions = functions.chain(overflow.map(|overflow| &overflow.function));
    for (function, id) in functions.zip(&tables.functions) {
        if *id != 0 {
            out.message(5, &strings.function(*id, function));
        }
    }
    let nanos = whole_nanos(profile.duration);
    out.number(9, profile.start_unix_nanos);
    out.number(10, nanos);
    out.message(11, &strings.value_type(profile.period_type));
    out.number(12, profile.period);
    // The tool hides comments that open with `#`.
    let comments = profile.comments.iter();
    let comments: Vec<u64> = comments.map(|comment| strings.index(comment)).collect();
    out.packed(13, comments);
    let default_type = strings.index(profile.default_type);
    out.number(14, default_type);
    for text in &strings.texts {
        out.bytes(6, text.as_bytes());
    }
    out
}

fn write_mappings<'a>(
    profile: &'a Profile,
    tables: &Tables,
    strings: &mut Strings<'a>,
    out: &mut Message,
) {
    // With one flag set the tool skips its own symbols for the mapping, so it is all or none.
    let mut named: Vec<bool> = profile.mappings.iter().map(|held| held.complete).collect();
    for (location, id) in profile.locations.iter().zip(&tables.locations) {
        let mapping = location.mapping.map(to_usize);
        if let Some(flag) = mapping.and_then(|mapping| named.get_mut(mapping)) {
            *flag &= *id == 0 || !location.lines.is_empty();
        }
    }
    for ((mapping, named), id) in profile.mappings.iter().zip(named).zip(1..) {
        let mut held = Message::default();
        held.number(1, id);
        held.number(2, mapping.start);
        held.number(3, mapping.limit);
        held.number(4, mapping.offset);
        held.number(5, strings.index(&mapping.file));
        held.number(6, strings.index(&mapping.build_id));
        for flag in 7..=10 {
            held.flag(flag, named);
        }
        out.message(3, &held);
    }
}

fn location_message(id: u64, location: &Location, functions: &[u64]) -> Message {
    let mut out = Message::default();
    out.number(1, id);
    out.number(2, location.mapping.map_or(0, |place| u64::from(place) + 1));
    out.number(3, location.address);
    for line in &location.lines {
        let function = functions.get(to_usize(line.function));
        let mut held = Message::default();
        held.number(1, function.copied().unwrap_or(0));
        held.number(2, u64::from(line.line));
        out.message(4, &held);
    }
    out
}

/// Which samples fit, and the dense ids (from 1, 0: not used) of what they refer to.
struct Tables {
    samples: usize,
    locations: Vec<u64>,
    functions: Vec<u64>,
}

/// Upper guess of a message's bytes beyond what it refers to: a few varints of at most ten bytes.
const MESSAGE_BYTES: usize = 48;

impl Tables {
    fn choose(profile: &Profile, limit: usize) -> Self {
        let comments: usize = profile.comments.iter().map(String::len).sum();
        let mut bytes = comments + (profile.mappings.len() + 8) * 8 * MESSAGE_BYTES;
        let mut locations = vec![false; profile.locations.len()];
        let mut functions = vec![false; profile.functions.len()];
        let mut samples = 0;
        for sample in &profile.samples {
            let labels = sample.labels.iter().map(|label| label.value.len());
            bytes += (2 + sample.labels.len()) * MESSAGE_BYTES + labels.sum::<usize>();
            bytes += sample.stack.len() * 4;
            for place in sample.stack.iter().copied().map(to_usize) {
                if first_use(&mut locations, place) {
                    let lines = profile.locations.get(place).map(|held| &*held.lines);
                    bytes += new_lines(profile, &mut functions, lines.unwrap_or_default());
                }
            }
            if bytes > limit {
                break;
            }
            samples += 1;
        }
        // What only the left-out samples use is left out too.
        locations.fill(false);
        functions.fill(false);
        for sample in profile.samples.iter().take(samples) {
            for place in sample.stack.iter().copied().map(to_usize) {
                if first_use(&mut locations, place) {
                    let lines = profile.locations.get(place).map(|held| &*held.lines);
                    new_lines(profile, &mut functions, lines.unwrap_or_default());
                }
            }
        }
        Self {
            samples,
            locations: dense(&locations),
            functions: dense(&functions),
        }
    }

    /// The samples that did not fit, as one; its location and function follow the others.
    fn overflow(&mut self, profile: &Profile) -> Option<Overflow> {
        let left_out = profile.samples.get(self.samples..)?;
        if left_out.is_empty() {
            return None;
        }
        let mut values = vec![0_i64; profile.sample_types.len()];
        for sample in left_out {
            for (sum, value) in values.iter_mut().zip(&sample.values) {
                *sum = sum.saturating_add(*value);
            }
        }
        let place = u32::try_from(self.locations.len()).ok()?;
        let function = u32::try_from(self.functions.len()).ok()?;
        for ids in [&mut self.locations, &mut self.functions] {
            ids.push(ids.iter().copied().max().unwrap_or(0) + 1);
        }
        Some(Overflow {
            sample: Sample {
                stack: [place].into(),
                values,
                labels: Vec::new(),
                times: Vec::new(),
            },
            location: Location {
                address: 0,
                mapping: None,
                lines: vec![Line { function, line: 0 }],
            },
            function: Function::named(OVERFLOW_NAME),
        })
    }
}

/// The samples that did not fit, as one, and what it refers to.
struct Overflow {
    sample: Sample,
    location: Location,
    function: Function,
}

fn first_use(used: &mut [bool], place: usize) -> bool {
    used.get_mut(place)
        .is_some_and(|used| !std::mem::replace(used, true))
}

/// Marks the functions of a location and says how many bytes it brings.
fn new_lines(profile: &Profile, functions: &mut [bool], lines: &[Line]) -> usize {
    let mut bytes = MESSAGE_BYTES;
    for line in lines {
        bytes += MESSAGE_BYTES;
        let place = to_usize(line.function);
        if let Some(function) = profile.functions.get(place)
            && first_use(functions, place)
        {
            let texts = [&function.name, &function.system_name, &function.filename];
            bytes += MESSAGE_BYTES + texts.iter().map(|text| text.len() + 4).sum::<usize>();
        }
    }
    bytes
}

fn dense(used: &[bool]) -> Vec<u64> {
    let mut next = 0;
    let ids = used.iter().map(|used| {
        next += u64::from(*used);
        if *used { next } else { 0 }
    });
    ids.collect()
}

/// The string table; its first entry is the empty string.
struct Strings<'a> {
    texts: Vec<&'a str>,
    places: HashMap<&'a str, u64>,
}

impl Default for Strings<'_> {
    fn default() -> Self {
        Self {
            texts: vec![""],
            places: HashMap::from([("", 0)]),
        }
    }
}

impl<'a> Strings<'a> {
    fn index(&mut self, text: &'a str) -> u64 {
        *self.places.entry(text).or_insert_with(|| {
            self.texts.push(text);
            self.texts.len() as u64 - 1
        })
    }

    fn value_type(&mut self, column: ValueType) -> Message {
        let mut out = Message::default();
        out.number(1, self.index(column.name));
        out.number(2, self.index(column.unit));
        out
    }

    fn sample(&mut self, profile: &Profile, sample: &'a Sample, ids: &[u64]) -> Message {
        let mut out = Message::default();
        let stack = sample.stack.iter();
        out.packed(
            1,
            stack.filter_map(|place| ids.get(to_usize(*place)).copied()),
        );
        let values = sample.values.iter();
        out.packed(2, values.map(|value| value.cast_unsigned()));
        for label in &sample.labels {
            let mut held = Message::default();
            held.number(1, self.index(label.key));
            held.number(2, self.index(&label.value));
            out.message(3, &held);
        }
        if let Some(bytes) = object_bytes(profile, sample) {
            let mut held = Message::default();
            held.number(1, self.index("bytes"));
            held.number(3, bytes.cast_unsigned());
            held.number(4, self.index("bytes"));
            out.message(3, &held);
        }
        out
    }

    fn function(&mut self, id: u64, function: &'a Function) -> Message {
        // Equal names make the tool take them for C++ and delete all within `<>` and `()`.
        let system_name = if function.system_name == function.name {
            ""
        } else {
            &*function.system_name
        };
        let mut out = Message::default();
        out.number(1, id);
        out.number(2, self.index(&function.name));
        out.number(3, self.index(system_name));
        out.number(4, self.index(&function.filename));
        out
    }
}
