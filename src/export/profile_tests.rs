//! One corpus of profiles, every encoder, one decoder that is not ours: all agree on the totals.

#[path = "../../tests/sampling/proto.rs"]
mod proto;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use flate2::read::GzDecoder;
use prost::Message as _;

use super::{flamegraph, folded, pprof, runtime_frames};
use crate::store::profile::{
    Accounting, CPU, Function, Label, Line, Location, Mapping, Profile, SAMPLES, Sample, Slice,
    THREAD,
};

#[path = "format_tests.rs"]
mod formats;
#[cfg(feature = "otlp-profiles")]
#[path = "otlp/profile_tests.rs"]
mod otlp;

impl proto::Profile {
    fn text(&self, index: i64) -> &str {
        &self.string_table[usize::try_from(index).unwrap()]
    }

    fn total(&self, column: usize) -> i64 {
        self.sample.iter().map(|sample| sample.value[column]).sum()
    }
}

fn decode(body: &[u8]) -> proto::Profile {
    proto::Profile::decode(&*unpack(body)).unwrap()
}

fn unpack(body: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    GzDecoder::new(body).read_to_end(&mut raw).unwrap();
    raw
}

/// What is in a pprof body: the sum of each column, how many samples, since when.
pub(in crate::export) fn read_pprof(body: &[u8]) -> (Vec<(String, i64)>, usize, i64) {
    let profile = decode(body);
    let columns = profile.sample_type.iter().enumerate();
    let columns = columns.map(|(column, held)| {
        let name = profile.text(held.kind).to_owned();
        (name, profile.total(column))
    });
    (columns.collect(), profile.sample.len(), profile.time_nanos)
}

const PERIOD: u64 = 10_101_010;

/// A profile of `(stack of names, leaf first; samples; thread)`.
fn profile(stacks: &[(&[&str], i64, &str)]) -> Profile {
    let names: BTreeSet<&str> = stacks
        .iter()
        .flat_map(|(names, ..)| *names)
        .copied()
        .collect();
    let places: BTreeMap<&str, u32> = names.iter().copied().zip(0..).collect();
    let period = i64::try_from(PERIOD).unwrap();
    let samples = stacks.iter().map(|(names, samples, thread)| Sample {
        stack: names.iter().map(|name| places[name]).collect(),
        values: vec![*samples, samples * period],
        labels: vec![Label {
            key: THREAD,
            value: Arc::from(*thread),
        }],
        times: Vec::new(),
    });
    let locations = places.values().map(|place| Location {
        address: 0x1000 + u64::from(*place),
        mapping: Some(0),
        lines: vec![Line {
            function: *place,
            line: place + 1,
        }],
    });
    let functions = names.iter().map(|name| Function {
        name: Arc::from(*name),
        system_name: Arc::from(format!("_RNv{name}")),
        filename: Arc::from("/src/lib.rs"),
    });
    let recorded: i64 = stacks.iter().map(|(_, samples, _)| samples).sum();
    Profile {
        start_unix_nanos: 1_795_000_000_000_000_000,
        duration: Duration::from_millis(5_250),
        period_type: CPU,
        period: PERIOD,
        sample_types: vec![SAMPLES, CPU],
        default_type: CPU.name,
        samples: samples.collect(),
        slices: Vec::new(),
        locations: locations.collect(),
        functions: functions.collect(),
        mappings: vec![Mapping {
            start: 0x1000,
            limit: 0x9000,
            offset: 0x400,
            file: "/srv/app".to_owned(),
            build_id: "c0ffee".to_owned(),
            htlhash: "600dcafe4a110000f2bf38c493f5fb92".to_owned(),
            complete: true,
        }],
        accounting: Accounting {
            expected: Some(200),
            recorded: u64::try_from(recorded).unwrap(),
            coverage: Some(0.985),
            ..Accounting::default()
        },
        comments: vec!["coverage 0.985".to_owned()],
    }
}

fn plain() -> Profile {
    profile(&[
        (&["compress", "serve", "main"], 120, "worker-1"),
        (&["compress", "serve", "main"], 40, "worker-2"),
        (&["<Vec<T> as Drop>::drop", "serve", "main"], 30, "worker-1"),
        (&["main"], 7, "main"),
    ])
}

/// Names that try to be marks of each format.
fn hostile() -> Profile {
    profile(&[
        (
            &["[u8; 4]::f", "a;b", "<script>alert(1)</script>"],
            5,
            "x\"><b>",
        ),
        (&["leaf 12", "]]>", "# comment"], 6, "a\nb"),
        (&["leaf 1.x", "\u{0}\u{1b}[31m", "&amp;"], 7, ";;"),
        (&["", " ", "\u{ffff}"], 8, ""),
    ])
}

fn with_inlines() -> Profile {
    let mut profile = plain();
    let inlined = profile.functions.len();
    profile.functions.push(Function {
        name: Arc::from("push"),
        system_name: Arc::from("push"),
        filename: Arc::from(""),
    });
    for location in &mut profile.locations {
        let function = u32::try_from(inlined).unwrap();
        location.lines.insert(0, Line { function, line: 99 });
    }
    profile
}

/// Seconds 0, 1 and 4: one stack in the first two, the others in one each.
fn timed() -> Profile {
    let mut profile = plain();
    let second = |from| Slice {
        from: Duration::from_secs(from),
        to: Duration::from_secs(from + 1),
        period: Duration::from_nanos(PERIOD),
    };
    profile.slices = vec![second(0), second(1), second(4)];
    let value = |sample: &Sample| sample.values[1];
    let first = value(&profile.samples[0]);
    profile.samples[0].times = vec![(0, first / 2), (1, first - first / 2)];
    for (sample, slice) in [(1, 2), (2, 1), (3, 0)] {
        profile.samples[sample].times = vec![(slice, value(&profile.samples[sample]))];
    }
    profile
}

fn corpus() -> Vec<(&'static str, Profile)> {
    vec![
        ("timed", timed()),
        ("plain", plain()),
        ("hostile", hostile()),
        ("with inlines", with_inlines()),
        ("empty", profile(&[])),
    ]
}

fn folded_total(text: &[u8]) -> i64 {
    let text = std::str::from_utf8(text).unwrap();
    let values = text.lines().map(|line| line.rsplit_once(' ').unwrap().1);
    values.map(|value| value.parse::<i64>().unwrap()).sum()
}

/// What the picture's own script takes for the whole.
fn svg_total(svg: &[u8]) -> Option<i64> {
    let svg = std::str::from_utf8(svg).unwrap();
    let (_, rest) = svg.split_once("total_samples=\"")?;
    rest.split_once('"')?.0.parse().ok()
}

#[test]
fn every_encoder_gives_the_same_total() {
    for (name, profile) in corpus() {
        let total = profile.total(profile.default_column());
        let decoded = decode(&pprof::encode(&profile));
        assert_eq!(decoded.total(1), total, "{name}: pprof");
        assert_eq!(decoded.total(0), profile.total(0), "{name}: pprof samples");
        assert_eq!(
            folded_total(&folded::encode(&profile)),
            total,
            "{name}: folded"
        );
        if cfg!(feature = "flamegraph") {
            let svg = flamegraph::encode(&profile, name).unwrap();
            assert_eq!(svg_total(&svg).unwrap_or(0), total, "{name}: svg");
        }
    }
}

#[test]
fn encoding_twice_gives_the_same_bytes_as_the_files_kept() {
    let profile = plain();
    let raw = unpack(&pprof::encode(&profile));
    assert_eq!(raw, unpack(&pprof::encode(&profile)));
    let kept = include_bytes!("../../tests/data/profiles/plain.pb");
    assert_eq!(raw, kept, "pprof differs from tests/data/profiles/plain.pb");
    let folded = String::from_utf8(folded::encode(&profile)).unwrap();
    assert_eq!(
        folded,
        include_str!("../../tests/data/profiles/plain.folded")
    );
}

#[test]
fn pprof_follows_the_rules_of_the_format() {
    for (name, profile) in corpus() {
        let decoded = decode(&pprof::encode(&profile));
        assert_eq!(decoded.string_table[0], "", "{name}");
        let kinds: Vec<(&str, &str)> = decoded
            .sample_type
            .iter()
            .map(|column| (decoded.text(column.kind), decoded.text(column.unit)))
            .collect();
        assert_eq!(
            kinds,
            [("samples", "count"), ("cpu", "nanoseconds")],
            "{name}"
        );
        let period_type = decoded.period_type.unwrap();
        assert_eq!(decoded.text(period_type.kind), "cpu");
        assert_eq!(decoded.text(period_type.unit), "nanoseconds");
        assert_eq!(decoded.period, 10_101_010);
        assert_eq!(decoded.text(decoded.default_sample_type), "cpu");
        assert_eq!(decoded.time_nanos, 1_795_000_000_000_000_000);
        assert_eq!(decoded.duration_nanos, 5_250_000_000);
        let comments: Vec<&str> = decoded.comment.iter().map(|c| decoded.text(*c)).collect();
        assert_eq!(comments, profile.comments);

        let dense = |ids: Vec<u64>| ids.iter().copied().eq(1..=ids.len() as u64);
        assert!(dense(decoded.mapping.iter().map(|held| held.id).collect()));
        assert!(dense(decoded.location.iter().map(|held| held.id).collect()));
        assert!(dense(decoded.function.iter().map(|held| held.id).collect()));
        for sample in &decoded.sample {
            assert_eq!(sample.value.len(), 2, "{name}");
            let known = 1..=decoded.location.len() as u64;
            assert!(sample.location_id.iter().all(|id| known.contains(id)));
            for label in &sample.label {
                assert_eq!(decoded.text(label.key), "thread");
                assert_eq!(label.num, 0, "a label is text or a number, not both");
            }
        }
        let places: BTreeSet<(u64, u64)> = decoded
            .location
            .iter()
            .map(|location| (location.mapping_id, location.address))
            .collect();
        assert_eq!(
            places.len(),
            decoded.location.len(),
            "{name}: one per address"
        );
        for location in &decoded.location {
            let known = 1..=decoded.function.len() as u64;
            assert!(
                location
                    .line
                    .iter()
                    .all(|line| known.contains(&line.function_id))
            );
        }
        let mapping = decoded.mapping[0];
        assert_eq!(decoded.text(mapping.filename), "/srv/app");
        assert_eq!(decoded.text(mapping.build_id), "c0ffee");
        assert_eq!(
            (mapping.memory_start, mapping.memory_limit),
            (0x1000, 0x9000)
        );
        assert_eq!(mapping.file_offset, 0x400);
    }
}

#[test]
fn stacks_are_written_leaf_first_and_inlines_innermost_first() {
    let profile = with_inlines();
    let decoded = decode(&pprof::encode(&profile));
    let location = |id: u64| decoded.location.iter().find(|held| held.id == id).unwrap();
    let names = |id: u64| -> Vec<&str> {
        let lines = location(id).line.iter();
        let functions = lines.map(|line| {
            let held = decoded.function.iter();
            held.clone()
                .find(|held| held.id == line.function_id)
                .unwrap()
        });
        functions
            .map(|function| decoded.text(function.name))
            .collect()
    };
    let stack = &decoded.sample[0].location_id;
    let stack: Vec<Vec<&str>> = stack.iter().map(|id| names(*id)).collect();
    assert_eq!(
        stack,
        [["push", "compress"], ["push", "serve"], ["push", "main"]]
    );
}

#[test]
fn a_mapping_is_marked_as_named_all_in_all_or_not_at_all() {
    let flags = |profile: &Profile| {
        let mapping = decode(&pprof::encode(profile)).mapping[0];
        [
            mapping.has_functions,
            mapping.has_filenames,
            mapping.has_line_numbers,
            mapping.has_inline_frames,
        ]
    };
    assert_eq!(flags(&plain()), [true; 4]);
    let mut nameless = plain();
    nameless.locations[0].lines.clear();
    assert_eq!(flags(&nameless), [false; 4]);
    let mut unread = plain();
    unread.mappings[0].complete = false;
    assert_eq!(flags(&unread), [false; 4]);
}

#[test]
fn a_system_name_is_never_the_name_or_the_tool_would_eat_the_generics() {
    let mut profile = plain();
    for function in &mut profile.functions {
        function.system_name = Arc::clone(&function.name);
    }
    let decoded = decode(&pprof::encode(&profile));
    assert!(
        decoded
            .function
            .iter()
            .all(|function| function.system_name == 0)
    );
    let mut functions = decoded.function.iter();
    assert!(functions.any(|function| decoded.text(function.name) == "<Vec<T> as Drop>::drop"));
}

/// More than the limit of an answer: many stacks of long names.
fn flood() -> Profile {
    let names: Vec<String> = (0..400)
        .map(|n| format!("{n}{}", "x".repeat(1000)))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let stacks: Vec<Vec<&str>> = (0..400)
        .map(|n| {
            (0..100)
                .map(|depth| names[(n * 7 + depth * 13) % 400])
                .collect()
        })
        .collect();
    let stacks: Vec<(&[&str], i64, &str)> =
        stacks.iter().map(|names| (&names[..], 3, "t")).collect();
    profile(&stacks)
}

#[test]
fn a_profile_past_the_limit_folds_its_rest_and_keeps_its_total() {
    let profile = flood();
    let limit = crate::config::PROFILE_BODY_BYTES;
    let text = folded::encode(&profile);
    assert!(text.len() <= limit && text.len() > limit / 2);
    assert_eq!(folded_total(&text), profile.total(1));
    assert!(String::from_utf8(text).unwrap().contains("\n[overflow] "));
    if cfg!(feature = "flamegraph") {
        let svg = flamegraph::encode(&profile, "flood").unwrap();
        assert!(svg.len() <= limit);
        assert_eq!(svg_total(&svg).unwrap(), profile.total(1));
    }
    let small = 400_000;
    let raw = unpack(&pprof::encode_within(&profile, small));
    assert!(raw.len() <= small && raw.len() > small / 2, "{}", raw.len());
    let decoded = proto::Profile::decode(&*raw).unwrap();
    assert_eq!(decoded.total(0), profile.total(0));
    let last = decoded.sample.last().unwrap();
    let location = &decoded.location[usize::try_from(last.location_id[0]).unwrap() - 1];
    let function = &decoded.function[usize::try_from(location.line[0].function_id).unwrap() - 1];
    assert_eq!(decoded.text(function.name), "[overflow]");
}

#[test]
fn folded_text_is_root_first_and_survives_hostile_names() {
    let text = String::from_utf8(folded::encode(&hostile())).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "#_comment;]]>;leaf_12 60606060",
            "&amp:;\u{fffd}\u{fffd}[31m;leaf_1.x 70707070",
            "<script>alert(1)</script>;a:b;[u8: 4]::f 50505050",
            "\u{fffd};[unnamed];[unnamed] 80808080",
        ]
    );
}

#[cfg(feature = "flamegraph")]
mod svg {
    use super::*;

    fn text(profile: &Profile, title: &str) -> String {
        String::from_utf8(flamegraph::encode(profile, title).unwrap()).unwrap()
    }

    #[test]
    fn names_are_escaped_and_no_control_character_remains() {
        let svg = text(&hostile(), "<script>title</script> & \u{1}");
        assert_eq!(svg.matches("<script").count(), 2, "the picture's own two");
        assert!(svg.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        let allowed = |letter: char| !letter.is_control() || "\n\r\t".contains(letter);
        assert!(svg.chars().all(allowed));
        assert!(!svg.contains('\u{ffff}'));
    }

    #[test]
    fn the_picture_says_how_much_of_the_truth_it_shows() {
        let svg = text(&plain(), "CPU of app");
        assert!(svg.contains("CPU of app"));
        assert!(
            svg.contains("5.2 s, 99 Hz, 197 samples, coverage 0.98"),
            "{svg}"
        );
        assert!(svg.contains("&lt;Vec&lt;T&gt; as Drop&gt;::drop"));
    }

    #[test]
    fn the_search_button_shows_and_boxes_show_the_ends_of_names() {
        let svg = text(&plain(), "CPU of app");
        assert!(svg.contains("#search { text-anchor:end; opacity:0.7;"));
        assert_eq!(svg.matches("short_name(").count(), 3, "one made, two used");
        assert!(
            svg.contains("<title>&lt;Vec&lt;T&gt; as Drop&gt;::drop ("),
            "whole in hover"
        );
    }

    #[test]
    fn scripts_run_under_a_nonce_and_nothing_else_does() {
        let svg = flamegraph::encode(&plain(), "CPU").unwrap();
        let svg = String::from_utf8(flamegraph::with_nonce(&svg, "n0nce")).unwrap();
        assert_eq!(svg.matches("<script nonce=\"n0nce\" ").count(), 2);
        assert_eq!(svg.matches("<script").count(), 2);
        assert!(!svg.contains(" onload="));
        assert!(svg.ends_with("init()</script></svg>"));
    }

    #[test]
    fn every_element_that_opens_also_closes() {
        for (name, profile) in corpus() {
            let svg = text(&profile, name);
            let code = |c: char| c.is_ascii_lowercase();
            for tag in ["svg", "script", "style", "g", "title", "text", "defs"] {
                let (open, close) = (format!("<{tag}"), format!("</{tag}>"));
                let opens = svg.match_indices(&open);
                let after = |at: usize| svg.get(at + open.len()..).unwrap();
                let opens = opens.filter(|(at, _)| !after(*at).starts_with(code));
                let closes = svg.matches(&close).count();
                assert_eq!(opens.count(), closes, "{name}: <{tag}>");
            }
        }
    }

    #[test]
    fn a_profile_without_samples_gives_a_picture_that_says_so() {
        let svg = text(&profile(&[]), "CPU <idle>");
        assert!(svg.contains("No samples; 200 were to be expected"));
        assert!(svg.contains("CPU &lt;idle&gt;"));
        assert!(svg.ends_with("</svg>\n") && !svg.contains("ERROR"));
    }
}

#[test]
fn without_the_runtimes_frames_every_value_stays() {
    let profile = profile(&[
        (
            &["shop::a", "core::call", "std::start", "[libc.so.6+0x1]"],
            3,
            "1",
        ),
        (&["shop::a", "core::call", "tokio::runtime::run"], 4, "2"),
        (&["shop::a", "core::call", "hyper::serve"], 5, "2"),
        (&["std::park", "std::start"], 6, "2"),
    ]);
    let shown = runtime_frames::without(&profile);
    let lines = String::from_utf8(folded::encode(&shown)).unwrap();
    let period = i64::try_from(PERIOD).unwrap();
    let wanted = [
        ("[runtime];shop::a", 3 + 4),
        ("hyper::serve;core::call;shop::a", 5),
        ("std::start;std::park", 6),
    ];
    let wanted = wanted.map(|(stack, samples)| format!("{stack} {}\n", samples * period));
    assert_eq!(lines, wanted.concat());
    let whole = runtime_frames::without(&hostile());
    assert_eq!(folded::encode(&whole), folded::encode(&hostile()));
}

#[cfg(feature = "flamegraph")]
#[test]
fn a_picture_says_how_to_see_what_it_leaves_out() {
    let hint = "frames=all";
    let picture = |profile: &Profile| {
        let svg = flamegraph::encode(&runtime_frames::without(profile), "CPU").unwrap();
        String::from_utf8(svg).unwrap()
    };
    let deep = profile(&[(&["shop::a", "core::call", "std::start"], 3, "1")]);
    assert!(picture(&deep).contains(hint));
    assert!(!picture(&plain()).contains(hint));
}
