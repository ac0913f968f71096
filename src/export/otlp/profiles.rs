//! A profile as OTLP profiles, version 1development.
//!
//! Source: opentelemetry-proto 1.10 (`profiles/v1development`), the semantic conventions, and how Pyroscope
//! and the collector read it. Index 0 of every table is the empty value, which stands for "none"; a message
//! has one type of value for each of its profiles, so that a heap is four.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{self, Write as _};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue};
use opentelemetry_proto::tonic::profiles::v1development as otlp;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use super::scope;
use crate::catalog::attributes;
use crate::export::bounded::shrink;
use crate::store::looks::{RUNNING, STATE};
use crate::store::metrics::whole_nanos;
use crate::store::profile::{
    CPU, Location, Profile, SAMPLES, SPAN_ID, Sample, THREAD, TRACE_ID, ValueType, to_usize,
};

/// Time that passed while no CPU was used, as the convention names it.
const OFF_CPU: ValueType = ValueType {
    name: "off_cpu",
    unit: "nanoseconds",
};

/// One message of at most so many bytes before compression; what is too much of a profile is one sample
/// under `[overflow]`, so totals stay true.
///
/// # Errors
/// If even a profile of one stack does not fit.
pub(crate) fn encode(resource: &Resource, profile: &Profile, limit: usize) -> io::Result<Vec<u8>> {
    shrink(profile, limit, |profile, out| {
        out.write_all(&message(resource, profile).encode_to_vec())
    })
}

/// How many profiles the message of one has.
pub(crate) fn count(profile: &Profile) -> u64 {
    parts(profile).len() as u64
}

/// The message itself.
pub(crate) fn message(resource: &Resource, profile: &Profile) -> ExportProfilesServiceRequest {
    let mut tables = Tables::new(profile);
    let comments = tables.comments();
    let parts = parts(profile).into_iter();
    let profiles = parts.map(|part| tables.profile(&part, &comments)).collect();
    ExportProfilesServiceRequest {
        resource_profiles: vec![otlp::ResourceProfiles {
            resource: Some(resource.clone()),
            scope_profiles: vec![otlp::ScopeProfiles {
                scope: Some(scope()),
                profiles,
                ..otlp::ScopeProfiles::default()
            }],
            ..otlp::ResourceProfiles::default()
        }],
        dictionary: Some(tables.dictionary()),
    }
}

/// What one of the message's profiles shows.
struct Part {
    sample_type: ValueType,
    /// Type and length; `None`: values do not come by periods.
    period: Option<(ValueType, u64)>,
    /// From the window's start.
    from: Duration,
    duration: Duration,
    values: Values,
}

/// Where a part's values stand.
enum Values {
    Column(usize),
    /// The column of those samples whose thread did not run.
    OffCpu(usize),
    /// Samples in these slices, of a period in nanoseconds.
    Slices {
        first: usize,
        end: usize,
        period: u64,
    },
}

fn parts(profile: &Profile) -> Vec<Part> {
    let part = |sample_type, period, values| Part {
        sample_type,
        period,
        from: Duration::ZERO,
        duration: profile.duration,
        values,
    };
    let place = |wanted: &str| {
        let mut types = profile.sample_types.iter();
        types.position(|held| held.name == wanted)
    };
    let period = Some((profile.period_type, profile.period));
    if profile.period_type == CPU {
        // Samples and not nanoseconds: Pyroscope multiplies them by the period and files them under
        // `process_cpu`, where its own clients' CPU time is.
        return match place(SAMPLES.name) {
            Some(column) if profile.slices.is_empty() => {
                vec![part(SAMPLES, period, Values::Column(column))]
            }
            _ => by_rate(profile),
        };
    }
    if let Some(wall) = place("wall") {
        return vec![part(OFF_CPU, None, Values::OffCpu(wall))];
    }
    let columns = profile.sample_types.iter().zip(0..);
    let columns = columns.map(|(held, column)| part(*held, period, Values::Column(column)));
    columns.collect()
}

/// The stretches of a window that have one period each.
fn by_rate(profile: &Profile) -> Vec<Part> {
    let mut first = 0;
    let runs = profile.slices.chunk_by(|a, b| a.period == b.period);
    let parts = runs.filter_map(|run| {
        let (begin, last) = (run.first()?, run.last()?);
        let period = whole_nanos(begin.period);
        let end = first + run.len();
        let values = Values::Slices { first, end, period };
        first = end;
        Some(Part {
            sample_type: SAMPLES,
            period: Some((CPU, period)),
            from: begin.from,
            duration: last.to.saturating_sub(begin.from),
            values,
        })
    });
    parts.collect()
}

impl Values {
    fn of(&self, profile: &Profile, sample: &Sample) -> i64 {
        let column = |column: usize| sample.values.get(column).copied().unwrap_or(0);
        match *self {
            Self::Column(place) => column(place),
            Self::OffCpu(_) if sample.label(STATE).is_some_and(|state| **state == *RUNNING) => 0,
            Self::OffCpu(place) => column(place),
            Self::Slices { first, end, period } => {
                let times = sample.by_slice(profile.default_column()).into_iter();
                let inside = times.filter(|(slice, _)| (first..end).contains(&to_usize(*slice)));
                let nanos = inside.fold(0_i64, |sum, (_, nanos)| sum.saturating_add(nanos));
                let period = i64::try_from(period).unwrap_or(i64::MAX).max(1);
                // Whole periods; what was folded together over a change of the rate may not be.
                nanos.saturating_add(period / 2).div_euclid(period)
            }
        }
    }
}

/// A table whose entries are told apart by a key; the empty value comes first.
struct Table<K, T> {
    places: HashMap<K, i32>,
    entries: Vec<T>,
}

impl<K: Eq + Hash, T: Default> Table<K, T> {
    fn new() -> Self {
        Self {
            places: HashMap::new(),
            entries: vec![T::default()],
        }
    }

    fn add(&mut self, key: K, entry: impl FnOnce() -> T) -> i32 {
        let place = self.entries.len();
        *self.places.entry(key).or_insert_with(|| {
            self.entries.push(entry());
            // No table of a message within its byte limit is longer than this type counts.
            i32::try_from(place).unwrap_or(0)
        })
    }
}

/// The tables that the profiles of a message share; only what a sample leads to is in them.
struct Tables<'a> {
    profile: &'a Profile,
    strings: Table<&'a str, String>,
    attributes: Table<(i32, String), otlp::KeyValueAndUnit>,
    mappings: Table<u32, otlp::Mapping>,
    functions: Table<u32, otlp::Function>,
    locations: Table<u32, otlp::Location>,
    stacks: Table<&'a [u32], otlp::Stack>,
    links: Table<[&'a str; 2], otlp::Link>,
}

impl<'a> Tables<'a> {
    fn new(profile: &'a Profile) -> Self {
        let mut tables = Self {
            profile,
            strings: Table::new(),
            attributes: Table::new(),
            mappings: Table::new(),
            functions: Table::new(),
            locations: Table::new(),
            stacks: Table::new(),
            links: Table::new(),
        };
        tables.strings.places.insert("", 0);
        tables.stacks.places.insert(&[], 0);
        tables
    }

    fn dictionary(self) -> otlp::ProfilesDictionary {
        otlp::ProfilesDictionary {
            mapping_table: self.mappings.entries,
            location_table: self.locations.entries,
            function_table: self.functions.entries,
            link_table: self.links.entries,
            string_table: self.strings.entries,
            attribute_table: self.attributes.entries,
            stack_table: self.stacks.entries,
        }
    }

    fn profile(&mut self, part: &Part, comments: &[i32]) -> otlp::Profile {
        let profile = self.profile;
        let samples = profile.samples.iter();
        let samples = samples.filter_map(|sample| {
            let value = part.values.of(profile, sample);
            (value != 0).then(|| self.sample(sample, value))
        });
        let samples = samples.collect();
        let from = whole_nanos(part.from);
        otlp::Profile {
            sample_type: Some(self.value_type(part.sample_type)),
            samples,
            time_unix_nano: profile.start_unix_nanos.saturating_add(from),
            duration_nano: whole_nanos(part.duration),
            period_type: part.period.map(|(held, _)| self.value_type(held)),
            period: part
                .period
                .map_or(0, |(_, length)| i64::try_from(length).unwrap_or(i64::MAX)),
            attribute_indices: comments.to_vec(),
            ..otlp::Profile::default()
        }
    }

    fn sample(&mut self, sample: &'a Sample, value: i64) -> otlp::Sample {
        let places = sample.stack.iter();
        let places: Vec<i32> = places.map(|place| self.location(*place)).collect();
        let stack_index = self.stacks.add(&sample.stack, || otlp::Stack {
            location_indices: places,
        });
        let told = sample.labels.iter();
        let told = told.filter(|label| ![TRACE_ID, SPAN_ID].contains(&label.key));
        let attribute_indices = told.map(|label| {
            let key = match label.key {
                THREAD => "thread.name",
                key => attributes::of(key),
            };
            self.attribute(key, &label.value)
        });
        otlp::Sample {
            stack_index,
            attribute_indices: attribute_indices.collect(),
            link_index: self.link(sample),
            values: vec![value],
            ..otlp::Sample::default()
        }
    }

    fn link(&mut self, sample: &'a Sample) -> i32 {
        let ids = [TRACE_ID, SPAN_ID].map(|key| sample.label(key).map(|id| &**id));
        let [Some(trace), Some(span)] = ids else {
            return 0;
        };
        let trace_id = u128::from_str_radix(trace, 16).unwrap_or(0);
        let span_id = u64::from_str_radix(span, 16).unwrap_or(0);
        if trace_id == 0 || span_id == 0 {
            return 0;
        }
        self.links.add([trace, span], || otlp::Link {
            trace_id: trace_id.to_be_bytes().to_vec(),
            span_id: span_id.to_be_bytes().to_vec(),
        })
    }

    fn location(&mut self, place: u32) -> i32 {
        if let Some(index) = self.locations.places.get(&place) {
            return *index;
        }
        let Some(location) = self.profile.locations.get(to_usize(place)) else {
            return 0;
        };
        let entry = self.location_entry(location);
        self.locations.add(place, || entry)
    }

    fn location_entry(&mut self, location: &'a Location) -> otlp::Location {
        let native = location
            .mapping
            .map(|_| self.attribute("profile.frame.type", "native"));
        let lines = location.lines.iter().map(|line| otlp::Line {
            function_index: self.function(line.function),
            line: i64::from(line.line),
            ..otlp::Line::default()
        });
        otlp::Location {
            lines: lines.collect(),
            address: location.address,
            mapping_index: location.mapping.map_or(0, |place| self.mapping(place)),
            attribute_indices: native.into_iter().collect(),
        }
    }

    fn mapping(&mut self, place: u32) -> i32 {
        let Some(mapping) = self.profile.mappings.get(to_usize(place)) else {
            return 0;
        };
        let ids = [
            ("process.executable.build_id.gnu", &mapping.build_id),
            ("process.executable.build_id.htlhash", &mapping.htlhash),
        ];
        let known = ids.into_iter().filter(|(_, id)| !id.is_empty());
        let attribute_indices = known.map(|(key, id)| self.attribute(key, id)).collect();
        let filename_strindex = self.string(&mapping.file);
        self.mappings.add(place, || otlp::Mapping {
            memory_start: mapping.start,
            memory_limit: mapping.limit,
            file_offset: mapping.offset,
            filename_strindex,
            attribute_indices,
        })
    }

    fn function(&mut self, place: u32) -> i32 {
        let Some(function) = self.profile.functions.get(to_usize(place)) else {
            return 0;
        };
        let texts = [&function.name, &function.system_name, &function.filename];
        let [name_strindex, system_name_strindex, filename_strindex] =
            texts.map(|text| self.string(text));
        self.functions.add(place, || otlp::Function {
            name_strindex,
            system_name_strindex,
            filename_strindex,
            start_line: 0,
        })
    }

    fn value_type(&mut self, held: ValueType) -> otlp::ValueType {
        otlp::ValueType {
            type_strindex: self.string(held.name),
            unit_strindex: self.string(held.unit),
        }
    }

    /// The sentences for the reader, as one attribute of every profile.
    fn comments(&mut self) -> Vec<i32> {
        let sentences = &self.profile.comments;
        if sentences.is_empty() {
            return Vec::new();
        }
        let key = self.string("pprof.profile.comment");
        let values = sentences.iter().map(|sentence| text(sentence)).collect();
        let value = Value::ArrayValue(ArrayValue { values });
        let entry = || otlp::KeyValueAndUnit {
            key_strindex: key,
            value: Some(AnyValue { value: Some(value) }),
            unit_strindex: 0,
        };
        vec![self.attributes.add((key, String::new()), entry)]
    }

    fn attribute(&mut self, key: &'a str, value: &str) -> i32 {
        let key = self.string(key);
        let entry = || otlp::KeyValueAndUnit {
            key_strindex: key,
            value: Some(text(value)),
            unit_strindex: 0,
        };
        self.attributes.add((key, value.to_owned()), entry)
    }

    fn string(&mut self, text: &'a str) -> i32 {
        self.strings.add(text, || text.to_owned())
    }
}

fn text(value: &str) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(value.to_owned())),
    }
}
