//! The corpus as OTLP, read back with the types that OpenTelemetry publishes.

use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::profiles::v1development::{
    self as otlp, ProfilesDictionary, ValueType as OtlpType,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::*;
use crate::export::otlp::attribute;
use crate::export::otlp::profiles::encode;
use crate::store::heap::{COLUMNS, SPACE};
use crate::store::looks::{BLOCKED, RUNNING, STATE};
use crate::store::profile::{SPAN_ID, TRACE_ID, ValueType};

const LIMIT: usize = 4 << 20;

struct Read {
    profiles: Vec<otlp::Profile>,
    tables: ProfilesDictionary,
}

fn read(profile: &Profile) -> Read {
    read_within(profile, LIMIT)
}

fn read_within(profile: &Profile, limit: usize) -> Read {
    let body = encode(&Resource::default(), profile, limit).unwrap();
    assert!(body.len() <= limit, "{}", body.len());
    let message = ExportProfilesServiceRequest::decode(&*body).unwrap();
    let [resource] = &message.resource_profiles[..] else {
        panic!("one resource");
    };
    Read {
        profiles: resource.scope_profiles[0].profiles.clone(),
        tables: message.dictionary.unwrap(),
    }
}

fn at<T>(table: &[T], index: i32) -> &T {
    &table[usize::try_from(index).unwrap()]
}

impl Read {
    fn text(&self, index: i32) -> &str {
        at::<String>(&self.tables.string_table, index)
    }

    fn words(&self, held: Option<&OtlpType>) -> Option<(&str, &str)> {
        let held = held?;
        Some((self.text(held.type_strindex), self.text(held.unit_strindex)))
    }

    fn attributes(&self, indices: &[i32]) -> BTreeMap<&str, &str> {
        let held = indices
            .iter()
            .map(|index| at(&self.tables.attribute_table, *index));
        let pairs = held.filter_map(|held| match held.value.as_ref()?.value.as_ref()? {
            Value::StringValue(value) => Some((self.text(held.key_strindex), &**value)),
            _ => None,
        });
        pairs.collect()
    }

    fn total(&self, profile: &otlp::Profile) -> i64 {
        assert!(self.profiles.contains(profile));
        profile.samples.iter().map(|sample| sample.values[0]).sum()
    }

    /// Names of a stack's functions, as they stand.
    fn stack(&self, sample: &otlp::Sample) -> Vec<&str> {
        let places = &at(&self.tables.stack_table, sample.stack_index).location_indices;
        let lines = places
            .iter()
            .flat_map(|place| &at(&self.tables.location_table, *place).lines);
        let functions = lines.map(|line| at(&self.tables.function_table, line.function_index));
        functions
            .map(|function| self.text(function.name_strindex))
            .collect()
    }
}

/// Four columns, with an allocation that is gone and one from before sampling began.
fn heap() -> Profile {
    let mut heap = plain();
    (heap.period_type, heap.period) = (SPACE, 524_288);
    (heap.sample_types, heap.default_type) = (COLUMNS.to_vec(), "inuse_space");
    let values = [
        [9, 900, 4, 400],
        [5, 50, 0, 0],
        [-3, -30, 2, 20],
        [0, 0, 1, 7],
    ];
    for (sample, values) in heap.samples.iter_mut().zip(values) {
        sample.values = values.to_vec();
    }
    heap
}

fn wall() -> Profile {
    let mut wall = plain();
    let nanoseconds = ValueType {
        name: "wall",
        unit: "nanoseconds",
    };
    (wall.period_type, wall.sample_types) = (nanoseconds, vec![SAMPLES, nanoseconds]);
    wall.default_type = nanoseconds.name;
    for (sample, state) in wall
        .samples
        .iter_mut()
        .zip([RUNNING, BLOCKED, BLOCKED, RUNNING])
    {
        let value = Arc::from(state);
        sample.labels.insert(0, Label { key: STATE, value });
    }
    wall
}

fn traced() -> Profile {
    let mut traced = plain();
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    for (key, value) in [
        (TRACE_ID, trace),
        (SPAN_ID, span),
        ("http_route", "/a/{id}"),
    ] {
        let value = Arc::from(value);
        traced.samples[1].labels.push(Label { key, value });
    }
    traced
}

fn every() -> Vec<(&'static str, Profile)> {
    let more = [("heap", heap()), ("wall", wall()), ("traced", traced())];
    corpus().into_iter().chain(more).collect()
}

#[test]
fn every_reference_is_in_range_and_index_0_is_the_empty_value() {
    for (name, profile) in every() {
        let Read { profiles, tables } = read(&profile);
        assert_eq!(tables.mapping_table[0], otlp::Mapping::default(), "{name}");
        assert_eq!(
            tables.location_table[0],
            otlp::Location::default(),
            "{name}"
        );
        assert_eq!(
            tables.function_table[0],
            otlp::Function::default(),
            "{name}"
        );
        assert_eq!(tables.link_table[0], otlp::Link::default(), "{name}");
        assert_eq!(tables.string_table[0], "", "{name}");
        assert_eq!(
            tables.attribute_table[0],
            otlp::KeyValueAndUnit::default(),
            "{name}"
        );
        assert_eq!(tables.stack_table[0], otlp::Stack::default(), "{name}");
        let fits = |index: i32, length: usize| {
            let within = usize::try_from(index).is_ok_and(|index| index < length);
            assert!(within, "{name}: {index} of {length}");
        };
        let string = |index| fits(index, tables.string_table.len());
        let attributes = |indices: &[i32]| {
            let mut keys = BTreeSet::new();
            for index in indices {
                fits(*index, tables.attribute_table.len());
                let key = at(&tables.attribute_table, *index).key_strindex;
                assert!(key != 0 && keys.insert(key), "{name}: a key twice or none");
            }
        };
        for held in &tables.attribute_table {
            string(held.key_strindex);
            string(held.unit_strindex);
        }
        for held in &tables.mapping_table {
            string(held.filename_strindex);
            attributes(&held.attribute_indices);
        }
        for held in &tables.function_table {
            string(held.name_strindex);
            string(held.system_name_strindex);
            string(held.filename_strindex);
        }
        for held in &tables.location_table {
            fits(held.mapping_index, tables.mapping_table.len());
            attributes(&held.attribute_indices);
            for line in &held.lines {
                fits(line.function_index, tables.function_table.len());
            }
        }
        for held in &tables.stack_table {
            for place in &held.location_indices {
                assert_ne!(*place, 0, "{name}");
                fits(*place, tables.location_table.len());
            }
        }
        for held in &profiles {
            for kind in [&held.sample_type, &held.period_type].into_iter().flatten() {
                string(kind.type_strindex);
                string(kind.unit_strindex);
            }
            attributes(&held.attribute_indices);
            for sample in &held.samples {
                fits(sample.stack_index, tables.stack_table.len());
                fits(sample.link_index, tables.link_table.len());
                attributes(&sample.attribute_indices);
            }
        }
        let distinct: BTreeSet<&String> = tables.string_table.iter().collect();
        assert_eq!(
            distinct.len(),
            tables.string_table.len(),
            "{name}: a text twice"
        );
    }
}

#[test]
fn a_profile_has_one_type_and_each_sample_one_value_and_no_timestamps() {
    for (name, profile) in every() {
        for held in read(&profile).profiles {
            assert!(held.sample_type.is_some(), "{name}");
            for sample in held.samples {
                assert!(sample.values.len() == 1 && sample.timestamps_unix_nano.is_empty());
            }
        }
    }
}

#[test]
fn cpu_goes_as_samples_with_their_period_and_is_the_same_cpu_time_as_in_pprof() {
    for (name, profile) in corpus() {
        let read = read(&profile);
        let pprof = decode(&pprof::encode(&profile));
        let mut nanos = 0;
        for held in &read.profiles {
            let kind = read.words(held.sample_type.as_ref());
            assert_eq!(kind, Some(("samples", "count")), "{name}");
            let kind = read.words(held.period_type.as_ref());
            assert_eq!(kind, Some(("cpu", "nanoseconds")), "{name}");
            nanos += read.total(held) * held.period;
        }
        assert_eq!(nanos, pprof.total(1), "{name}");
    }
}

#[test]
fn a_heap_is_four_profiles_with_the_totals_of_pprofs_four_columns() {
    let profile = heap();
    let read = read(&profile);
    let pprof = decode(&pprof::encode(&profile));
    assert_eq!(read.profiles.len(), 4);
    for (column, held) in read.profiles.iter().enumerate() {
        let kind = &pprof.sample_type[column];
        let kind = (pprof.text(kind.kind), pprof.text(kind.unit));
        assert_eq!(read.words(held.sample_type.as_ref()), Some(kind));
        assert_eq!(
            read.words(held.period_type.as_ref()),
            Some(("space", "bytes"))
        );
        assert_eq!(held.period, 524_288);
        assert_eq!(read.total(held), pprof.total(column), "{kind:?}");
    }
}

#[test]
fn wall_time_goes_as_the_time_off_the_cpu_and_without_a_period() {
    let profile = wall();
    let read = read(&profile);
    let [held] = &read.profiles[..] else {
        panic!("one profile");
    };
    let kind = read.words(held.sample_type.as_ref());
    assert_eq!(kind, Some(("off_cpu", "nanoseconds")));
    assert_eq!(
        (read.words(held.period_type.as_ref()), held.period),
        (None, 0)
    );
    let blocked = profile.samples[1].values[1] + profile.samples[2].values[1];
    assert_eq!(read.total(held), blocked);
}

#[test]
fn each_stretch_of_one_rate_is_a_profile_with_its_own_period_and_time() {
    let mut profile = timed();
    let slow = 4 * PERIOD;
    profile.slices[2].period = Duration::from_nanos(slow);
    profile.period = slow;
    let read = read(&profile);
    let seen: Vec<(i64, u64, u64)> = read
        .profiles
        .iter()
        .map(|held| (held.period, held.time_unix_nano, held.duration_nano))
        .collect();
    let (start, second) = (profile.start_unix_nanos, 1_000_000_000);
    let (fast, slow) = (i64::try_from(PERIOD).unwrap(), i64::try_from(slow).unwrap());
    assert_eq!(
        seen,
        [
            (fast, start, 2 * second),
            (slow, start + 4 * second, second)
        ]
    );
    let nanos: i64 = read
        .profiles
        .iter()
        .map(|held| read.total(held) * held.period)
        .sum();
    assert_eq!(nanos, profile.total(1));
    assert_eq!(
        read.total(&read.profiles[1]),
        10,
        "40 samples of the short period"
    );
}

#[test]
fn a_traced_sample_links_to_its_span_and_its_labels_are_attributes() {
    let profile = traced();
    let read = read(&profile);
    let samples = &read.profiles[0].samples;
    let link = at(&read.tables.link_table, samples[1].link_index);
    let trace: [u8; 16] = link.trace_id.clone().try_into().unwrap();
    assert_eq!(
        u128::from_be_bytes(trace),
        0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736
    );
    assert_eq!(link.span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    let others = samples.iter().filter(|sample| sample.link_index == 0);
    assert_eq!((others.count(), samples.len()), (3, 4));
    let told = [("http.route", "/a/{id}"), ("thread.name", "worker-2")];
    assert_eq!(
        read.attributes(&samples[1].attribute_indices),
        BTreeMap::from(told)
    );
    assert_eq!(
        read.stack(&samples[0]),
        ["compress", "serve", "main"],
        "leaf first"
    );
}

#[test]
fn a_mapping_carries_both_digests_of_its_file_and_a_profile_its_comments() {
    let read = read(&plain());
    let mapping = &read.tables.mapping_table[1];
    let ids = [
        ("process.executable.build_id.gnu", "c0ffee"),
        (
            "process.executable.build_id.htlhash",
            "600dcafe4a110000f2bf38c493f5fb92",
        ),
    ];
    assert_eq!(
        read.attributes(&mapping.attribute_indices),
        BTreeMap::from(ids)
    );
    assert_eq!(read.text(mapping.filename_strindex), "/srv/app");
    assert_eq!(
        (
            mapping.memory_start,
            mapping.memory_limit,
            mapping.file_offset
        ),
        (0x1000, 0x9000, 0x400)
    );
    let comment = at(
        &read.tables.attribute_table,
        read.profiles[0].attribute_indices[0],
    );
    assert_eq!(read.text(comment.key_strindex), "pprof.profile.comment");
    assert!(
        format!("{comment:?}").contains("coverage 0.985"),
        "{comment:?}"
    );
}

#[test]
fn a_message_past_its_limit_folds_its_rest_and_keeps_its_total() {
    let mut profile = flood();
    profile.slices = timed().slices;
    profile.slices[2].period = Duration::from_nanos(3 * PERIOD);
    for sample in &mut profile.samples {
        sample.times = vec![(0, 0), (2, sample.values[1])];
    }
    let read = read_within(&profile, 400_000);
    let nanos: i64 = read
        .profiles
        .iter()
        .map(|held| read.total(held) * held.period)
        .sum();
    assert_eq!(nanos, profile.total(1));
    let last = read.profiles[1].samples.last().unwrap();
    assert_eq!(read.stack(last), ["[overflow]"]);
    assert!(encode(&Resource::default(), &profile, 100).is_err());
}

#[test]
fn the_message_is_the_one_kept() {
    let resource = Resource {
        attributes: vec![attribute("service.name", "shop")],
        ..Resource::default()
    };
    let body = encode(&resource, &traced(), LIMIT).unwrap();
    let mut message = ExportProfilesServiceRequest::decode(&*body).unwrap();
    let scope = message.resource_profiles[0].scope_profiles[0]
        .scope
        .as_mut();
    scope.unwrap().version = "0".to_owned();
    let body = message.encode_to_vec();
    let place = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/profiles/traced.otlp.pb"
    );
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(place, &body).unwrap();
    }
    let kept = std::fs::read(place).unwrap();
    let kept = ExportProfilesServiceRequest::decode(&*kept).unwrap();
    assert_eq!(message, kept, "run with BLESS=1 if this is wanted");
}
