//! The formats of viewers elsewhere, read by the rules of those viewers; profiles by label and the
//! difference of two.

use serde_json::Value;

use super::*;
use crate::export::firefox::Program;
use crate::export::labels::Root;
use crate::export::{difference, firefox, labels, speedscope};
use crate::store::label::{METHOD, ROUTE};

const SHOP: Program<'static> = Program {
    service: "shop",
    pid: 7,
};

fn speedscope_of(profile: &Profile) -> Value {
    let body = speedscope::encode(profile, "CPU of shop").unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn firefox_of(profile: &Profile) -> Value {
    serde_json::from_slice(&firefox::encode(profile, SHOP).unwrap()).unwrap()
}

fn numbers(list: &Value) -> Vec<i64> {
    let list = list.as_array().unwrap().iter();
    list.map(|number| number.as_i64().unwrap()).collect()
}

/// Milliseconds of all threads as whole nanoseconds.
fn firefox_total(file: &Value) -> i64 {
    let threads = file["threads"].as_array().unwrap().iter();
    let weights = threads.flat_map(|thread| thread["samples"]["weight"].as_array().unwrap());
    #[expect(clippy::cast_possible_truncation, reason = "whole after rounding")]
    let nanos = weights.map(|weight| (weight.as_f64().unwrap() * 1e6).round() as i64);
    nanos.sum()
}

#[test]
fn viewers_elsewhere_see_the_same_total_as_the_profile() {
    for (name, profile) in corpus() {
        let total = profile.total(1);
        let file = speedscope_of(&profile);
        let graphs = file["profiles"].as_array().unwrap();
        assert_eq!(graphs[0]["endValue"], total, "{name}: all threads");
        let threads = graphs.iter().skip(1);
        let sum: i64 = threads.map(|held| held["endValue"].as_i64().unwrap()).sum();
        assert_eq!(sum, total, "{name}: by thread");
        assert_eq!(
            firefox_total(&firefox_of(&profile)),
            total,
            "{name}: firefox"
        );
    }
}

#[test]
fn the_kept_files_are_what_is_written() {
    let profile = plain();
    let kept = |text: &str| -> Value {
        let text = text.replace("{version}", env!("CARGO_PKG_VERSION"));
        serde_json::from_str(&text).unwrap()
    };
    let file = include_str!("../../tests/data/profiles/plain.speedscope.json");
    assert_eq!(speedscope_of(&profile), kept(file));
    let file = include_str!("../../tests/data/profiles/plain.firefox.json");
    assert_eq!(firefox_of(&profile), kept(file));
    let again = speedscope::encode(&profile, "CPU of shop");
    assert_eq!(speedscope::encode(&profile, "CPU of shop"), again);
    assert_eq!(
        firefox::encode(&profile, SHOP),
        firefox::encode(&profile, SHOP)
    );
}

/// What speedscope's published schema asks for, and what its importer does beyond the schema.
#[test]
fn a_speedscope_file_is_as_its_schema_says() {
    for (name, profile) in corpus() {
        let file = speedscope_of(&profile);
        assert_eq!(
            file["$schema"], "https://www.speedscope.app/file-format-schema.json",
            "{name}"
        );
        assert!(file["name"].is_string() && file["exporter"].is_string());
        let frames = file["shared"]["frames"].as_array().unwrap();
        assert!(frames.iter().all(|frame| frame["name"].is_string()));
        let distinct: BTreeSet<String> = frames.iter().map(Value::to_string).collect();
        assert_eq!(distinct.len(), frames.len(), "{name}: a frame twice");
        let graphs = file["profiles"].as_array().unwrap();
        assert!(file["activeProfileIndex"].as_u64().unwrap() < graphs.len() as u64);
        for graph in graphs {
            assert_eq!(
                (&graph["type"], &graph["unit"]),
                (&"sampled".into(), &"nanoseconds".into())
            );
            assert!(graph["name"].is_string());
            let weights = numbers(&graph["weights"]);
            let samples = graph["samples"].as_array().unwrap();
            assert_eq!(samples.len(), weights.len(), "{name}: a weight each");
            assert_eq!(graph["startValue"], 0);
            assert_eq!(graph["endValue"], weights.iter().sum::<i64>());
            for sample in samples {
                let known = 0..i64::try_from(frames.len()).unwrap();
                assert!(numbers(sample).iter().all(|frame| known.contains(frame)));
            }
        }
    }
}

#[test]
fn speedscope_shows_stacks_in_the_order_of_their_seconds() {
    let file = speedscope_of(&timed());
    let frames = &file["shared"]["frames"];
    let graph = &file["profiles"][0];
    let leaves: Vec<&str> = graph["samples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stack| numbers(stack).last().copied().unwrap())
        .map(|leaf| {
            frames[usize::try_from(leaf).unwrap()]["name"]
                .as_str()
                .unwrap()
        })
        .collect();
    let wanted = ["main", "compress", "<Vec<T> as Drop>::drop", "compress"];
    assert_eq!(leaves, wanted);
}

#[test]
fn speedscope_gets_stacks_root_first_with_inlined_functions_inside() {
    let file = speedscope_of(&with_inlines());
    let frames = &file["shared"]["frames"];
    let heaviest = numbers(&file["profiles"][1]["samples"][0]);
    let names: Vec<&str> = heaviest
        .iter()
        .map(|frame| {
            frames[usize::try_from(*frame).unwrap()]["name"]
                .as_str()
                .unwrap()
        })
        .collect();
    assert_eq!(names, ["main", "push", "serve", "push", "compress", "push"]);
    assert_eq!(file["profiles"][1]["name"], "worker-1");
}

/// What the viewer's tables ask for: columns of one length, references within range, parents first.
#[test]
fn a_firefox_profile_has_whole_tables_and_parents_first() {
    for (name, profile) in corpus() {
        let file = firefox_of(&profile);
        assert_eq!(file["meta"]["preprocessedProfileVersion"], 66);
        let shared = file["shared"].as_object().unwrap();
        let threads = file["threads"].as_array().unwrap();
        assert!(!threads.is_empty(), "{name}: the viewer needs a thread");
        let of_threads = threads.iter();
        let of_threads = of_threads.flat_map(|thread| [&thread["samples"], &thread["markers"]]);
        let tables = shared.values().filter(|table| table.is_object());
        for table in tables.chain(of_threads) {
            let length = table["length"].as_u64().unwrap();
            for (column, values) in table.as_object().unwrap() {
                if let Some(values) = values.as_array() {
                    assert_eq!(values.len() as u64, length, "{name}: {column}");
                }
            }
        }
        let length = |table: &str| shared[table]["length"].as_i64().unwrap();
        let strings = shared["stringArray"].as_array().unwrap().len();
        let strings = i64::try_from(strings).unwrap();
        let libs = file["libs"].as_array().unwrap().len();
        let libs = i64::try_from(libs).unwrap();
        let references = [
            ("stackTable", "frame", length("frameTable")),
            ("frameTable", "func", length("funcTable")),
            ("frameTable", "category", 3),
            ("funcTable", "name", strings),
            ("resourceTable", "name", strings),
            ("resourceTable", "lib", libs),
            ("sources", "filename", strings),
        ];
        for (table, column, limit) in references {
            let values = numbers(&shared[table][column]);
            assert!(
                values.iter().all(|at| (0..limit).contains(at)),
                "{name}: {table}.{column}"
            );
        }
        let prefixes = numbers(&shared["stackTable"]["prefixOffset"]);
        let before = |(at, offset): (i64, i64)| (0..=at).contains(&offset);
        assert!(
            (0..).zip(prefixes).all(before),
            "{name}: a parent after its child"
        );
        for thread in threads {
            let samples = &thread["samples"];
            let stacks = samples["stack"].as_array().unwrap().iter();
            let stacks: Vec<i64> = stacks.filter_map(Value::as_i64).collect();
            assert!(
                stacks
                    .iter()
                    .all(|stack| (0..length("stackTable")).contains(stack))
            );
            let times: Vec<f64> = samples["time"]
                .as_array()
                .unwrap()
                .iter()
                .map(|time| time.as_f64().unwrap())
                .collect();
            assert!(times.is_sorted(), "{name}: time runs backwards");
            assert!(
                times.iter().all(|time| *time <= 5250.0),
                "{name}: past the end"
            );
        }
    }
}

#[test]
fn firefox_shows_when_each_thread_was_busy_to_a_second() {
    let file = firefox_of(&timed());
    let threads = file["threads"].as_array().unwrap();
    let busy = |name: &str| -> Vec<(f64, f64)> {
        let thread = threads.iter().find(|thread| thread["name"] == name);
        let samples = &thread.unwrap()["samples"];
        let column = |name: &str| samples[name].as_array().unwrap();
        let rows = column("stack")
            .iter()
            .zip(column("time"))
            .zip(column("weight"));
        rows.filter(|((stack, _), _)| !stack.is_null())
            .map(|((_, time), weight)| (time.as_f64().unwrap(), weight.as_f64().unwrap()))
            .collect()
    };
    let seconds = |name: &str| -> Vec<u32> {
        let times = busy(name).into_iter();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0..6"
        )]
        times
            .map(|(time, _)| ((time - 1e-6) / 1e3) as u32)
            .collect()
    };
    assert_eq!(seconds("worker-1"), [0, 1, 1]);
    assert_eq!(seconds("worker-2"), [4]);
    assert_eq!(seconds("main"), [0]);
    let whole = file["meta"]["profilingEndTime"].as_f64().unwrap();
    assert!((whole - 5250.0).abs() < 1e-6, "{whole}");
}

#[test]
fn time_gets_coarser_before_any_stack_goes() {
    let mut profile = timed();
    let slices = 300;
    let second = |from| Slice {
        from: Duration::from_secs(from),
        to: Duration::from_secs(from + 1),
        period: Duration::from_nanos(PERIOD),
    };
    profile.slices = (0..u64::from(slices)).map(second).collect();
    for sample in &mut profile.samples {
        let each = sample.values[1] / i64::from(slices);
        let mut times: Vec<(u32, i64)> = (0..slices).map(|slice| (slice, each)).collect();
        times[0].1 += sample.values[1] - each * i64::from(slices);
        sample.times = times;
    }
    let total = profile.total(1);
    let whole = speedscope::encode(&profile, "t").unwrap().len();
    let body = speedscope::encode_within(&profile, "t", whole / 3).unwrap();
    assert!(
        (whole / 8..=whole / 3).contains(&body.len()),
        "{}",
        body.len()
    );
    let file: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(file["profiles"][0]["endValue"], total);
    let samples = file["profiles"][0]["samples"].as_array().unwrap().len();
    assert_eq!(samples, 75 * 3, "each of three stacks, each 4 s");

    let whole = firefox::encode(&profile, SHOP).unwrap().len();
    let body = firefox::encode_within(&profile, SHOP, whole / 2).unwrap();
    let file: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(firefox_total(&file), total);
    let notes = file["meta"]["extra"][0]["entries"].to_string();
    assert!(notes.contains("true to 4 s only"), "{notes}");
}

#[test]
fn firefox_counts_inlined_functions_from_the_one_that_holds_the_code() {
    let file = firefox_of(&with_inlines());
    let shared = &file["shared"];
    let at = |list: &Value, place: &Value| {
        list[usize::try_from(place.as_u64().unwrap()).unwrap()].clone()
    };
    let mut stack = file["threads"][0]["samples"]["stack"][1].as_u64().unwrap();
    let mut seen = Vec::new();
    loop {
        let place = Value::from(stack);
        let frame = at(&shared["stackTable"]["frame"], &place);
        let func = at(&shared["frameTable"]["func"], &frame);
        let name = at(
            &shared["stringArray"],
            &at(&shared["funcTable"]["name"], &func),
        );
        let depth = at(&shared["frameTable"]["inlineDepth"], &frame);
        let line = at(&shared["frameTable"]["line"], &frame);
        seen.push((
            name.as_str().unwrap().to_owned(),
            depth.as_u64().unwrap(),
            line.as_u64().unwrap(),
        ));
        let up = at(&shared["stackTable"]["prefixOffset"], &place)
            .as_u64()
            .unwrap();
        if up == 0 {
            break;
        }
        stack -= up;
    }
    let seen: Vec<(&str, u64, u64)> = seen
        .iter()
        .map(|(name, depth, line)| (&**name, *depth, *line))
        .collect();
    assert_eq!(
        seen,
        [
            ("push", 1, 99),
            ("compress", 0, 2),
            ("push", 1, 99),
            ("serve", 0, 4),
            ("push", 1, 99),
            ("main", 0, 3)
        ]
    );
}

#[test]
fn a_library_is_known_by_its_build_id_in_both_spellings() {
    let mut profile = plain();
    profile.mappings[0].build_id = "510d0a5c19eadf8043f203b4525be9be3dcb9554".to_owned();
    let file = firefox_of(&profile);
    assert_eq!(
        file["libs"][0]["codeId"],
        "510d0a5c19eadf8043f203b4525be9be3dcb9554"
    );
    assert_eq!(
        file["libs"][0]["breakpadId"],
        "5C0A0D51EA1980DF43F203B4525BE9BE0"
    );
    profile.mappings[0].build_id = String::new();
    let file = firefox_of(&profile);
    assert_eq!(file["libs"][0]["breakpadId"], "0".repeat(33));
    assert!(file["libs"][0]["codeId"].is_null());
}

#[test]
fn a_profile_past_the_limit_keeps_its_total_in_json_too() {
    let profile = flood();
    let limit = 200_000;
    let body = speedscope::encode_within(&profile, "flood", limit).unwrap();
    assert!(body.len() <= limit, "{}", body.len());
    let file: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(file["profiles"][0]["endValue"], profile.total(1));
    let frames = file["shared"]["frames"].as_array().unwrap();
    assert!(frames.iter().any(|frame| frame["name"] == "[overflow]"));

    let body = firefox::encode_within(&profile, SHOP, limit).unwrap();
    assert!(body.len() <= limit, "{}", body.len());
    let file: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(firefox_total(&file), profile.total(1));
    let notes = file["meta"]["extra"][0]["entries"].to_string();
    assert!(
        notes.contains("lightest stacks are one, [overflow]"),
        "{notes}"
    );
}

/// Ten minutes later, the same code at the same addresses: `compress` less, `drop` gone, `zip` new.
fn later() -> Profile {
    let mut later = profile(&[
        (&["compress", "serve", "main"], 100, "worker-1"),
        (&["compress", "serve", "main"], 40, "worker-2"),
        (&["zip", "serve", "main"], 60, "worker-1"),
        (&["<Vec<T> as Drop>::drop", "serve", "main"], 0, "worker-1"),
        (&["main"], 7, "main"),
    ]);
    later.samples.retain(|sample| sample.values[0] > 0);
    later.start_unix_nanos += 600_000_000_000;
    later
}

#[test]
fn a_difference_is_what_the_later_has_more_in_each_column() {
    let (earlier, later) = (plain(), later());
    let difference = difference::subtract(&earlier, &later).unwrap();
    for column in [0, 1] {
        let wanted = later.total(column) - earlier.total(column);
        assert_eq!(difference.total(column), wanted);
        assert_eq!(decode(&pprof::encode(&difference)).total(column), wanted);
    }
    assert_eq!(
        folded_total(&folded::encode(&difference)),
        difference.total(1)
    );
    assert_eq!(firefox_total(&firefox_of(&difference)), difference.total(1));
    let seen: BTreeMap<String, i64> = difference
        .samples
        .iter()
        .map(|sample| {
            let names: Vec<&str> = difference.names(sample).collect();
            (
                format!("{} {}", names.join("<"), sample.labels[0].value),
                sample.values[0],
            )
        })
        .collect();
    let wanted = [
        ("<Vec<T> as Drop>::drop<serve<main worker-1", -30),
        ("compress<serve<main worker-1", -20),
        ("zip<serve<main worker-1", 60),
    ];
    let wanted = wanted.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(seen, BTreeMap::from(wanted), "what is equal is left out");
    assert!(
        difference.comments[0].contains("that began 600.0 s before"),
        "{:?}",
        difference.comments
    );
}

#[test]
fn the_same_code_at_another_address_is_the_same_and_other_code_is_not() {
    let earlier = plain();
    let mut moved = plain();
    for location in &mut moved.locations {
        location.address += 0x10_0000;
    }
    for mapping in &mut moved.mappings {
        mapping.start += 0x10_0000;
        mapping.limit += 0x10_0000;
    }
    let difference = difference::subtract(&earlier, &moved).unwrap();
    assert_eq!(difference.samples, []);
    assert_eq!(difference.mappings, moved.mappings);
    moved.mappings[0].build_id = "another".to_owned();
    let difference = difference::subtract(&earlier, &moved).unwrap();
    assert_eq!(difference.samples.len(), 8, "another build's code");
    assert_eq!(difference.mappings.len(), 2);
    assert_eq!(difference.functions.len(), earlier.functions.len());
    let mut other = plain();
    other.sample_types.reverse();
    assert_eq!(difference::subtract(&earlier, &other), None);
}

#[test]
fn locations_of_marks_differ_by_name() {
    let mut profile = plain();
    let [truncated, overflow] = ["[truncated]", "[overflow]"].map(|name| profile.add_mark(name));
    profile.samples[0].stack = [truncated].into();
    profile.samples[1].stack = [overflow].into();
    let none = Profile {
        samples: Vec::new(),
        ..profile.clone()
    };
    let difference = difference::subtract(&none, &profile).unwrap();
    let text = String::from_utf8(folded::encode(&difference)).unwrap();
    assert_eq!(text, String::from_utf8(folded::encode(&profile)).unwrap());
}

#[test]
fn a_normalized_difference_compares_shares() {
    let earlier = plain();
    let mut later = plain();
    for sample in &mut later.samples {
        for value in &mut sample.values {
            *value *= 3;
        }
    }
    let scaled = difference::normalized(&earlier, &later);
    assert_eq!(scaled.total(0), later.total(0));
    let difference = difference::subtract(&scaled, &later).unwrap();
    assert_eq!(difference.samples, []);
    let idle = profile(&[]);
    assert_eq!(difference::normalized(&idle, &later), idle);
    let huge = i64::MAX / 2;
    let mut large = plain();
    large.samples.truncate(1);
    large.samples[0].values = vec![huge, huge];
    let halved = difference::normalized(&large, &earlier);
    assert_eq!(halved.total(0), earlier.total(0));
}

#[test]
fn folded_pairs_hold_both_sides() {
    let text = String::from_utf8(folded::encode_pairs(&plain(), &later())).unwrap();
    assert_eq!(
        text,
        "main 70707070 70707070\n\
         main;serve;<Vec<T> as Drop>::drop 303030300 0\n\
         main;serve;compress 1616161600 1414141400\n\
         main;serve;zip 0 606060600\n"
    );
}

#[test]
fn speedscope_refuses_what_is_below_zero() {
    let difference = difference::subtract(&plain(), &later()).unwrap();
    assert_eq!(speedscope::encode(&difference, "less"), None);
}

#[cfg(feature = "flamegraph")]
#[test]
fn a_picture_of_a_difference_is_red_where_it_grew_and_says_what_is_gone() {
    let svg = flamegraph::encode_pair(&plain(), &later(), "CPU").unwrap();
    let svg = String::from_utf8(svg).unwrap();
    let fill = |function: &str| {
        let (_, rest) = svg.split_once(&format!("<title>{function} (")).unwrap();
        let (title, rest) = rest.split_once("</title>").unwrap();
        let (_, rest) = rest.split_once("fill=\"rgb(").unwrap();
        let (colour, _) = rest.split_once(')').unwrap();
        (title.to_owned(), colour.to_owned())
    };
    let (title, colour) = fill("zip");
    assert!(title.ends_with("; +28.99%)"), "{title}");
    assert!(colour.starts_with("255,"), "red: {colour}");
    let (title, colour) = fill("compress");
    assert!(title.ends_with("; -9.66%)"), "{title}");
    assert!(colour.ends_with(",255"), "blue: {colour}");
    assert!(svg.contains("gone: 303 ms. Now "));
    assert_eq!(
        svg_total(svg.as_bytes()),
        Some((later().total(1) + 500) / 1000)
    );
}

fn with_routes() -> Profile {
    let mut profile = plain();
    let routes = [
        ("GET", "/content/{id}"),
        ("POST", "/content/{id}"),
        ("", "/other"),
    ];
    for (sample, (method, route)) in profile.samples.iter_mut().zip(routes) {
        for (key, value) in [(METHOD, method), (ROUTE, route)] {
            if !value.is_empty() {
                let value = value.into();
                sample.labels.push(Label { key, value });
            }
        }
    }
    profile
}

#[test]
fn one_route_is_its_samples_and_says_how_many_they_are() {
    let profile = with_routes();
    let content = labels::only(&profile, ROUTE, "/content/{id}");
    assert_eq!(content.total(0), 120 + 40);
    assert_eq!(
        content.accounting.coverage, None,
        "nobody knows a route's CPU time"
    );
    let said = content.comments.last().unwrap();
    assert!(
        said.starts_with("only samples with http_route=/content/{id}: 160 of 197;"),
        "{said}"
    );
    assert_eq!(labels::only(&profile, ROUTE, "/nope").samples, []);
    let other = labels::only(&profile, ROUTE, "/other");
    let difference = difference::subtract(&other, &content).unwrap();
    assert_eq!(difference.total(0), 160 - 30);
}

#[test]
fn labels_become_frames_at_the_root_in_every_format() {
    let profile = with_routes();
    let routes = labels::rooted(&profile, Root::Route);
    let text = String::from_utf8(folded::encode(&routes)).unwrap();
    assert_eq!(
        text,
        "[/other];main;serve;<Vec<T> as Drop>::drop 303030300\n\
         [GET /content/{id}];main;serve;compress 1212121200\n\
         [POST /content/{id}];main;serve;compress 404040400\n\
         [no route];main 70707070\n"
    );
    let threads = labels::rooted(&profile, Root::Thread);
    let text = String::from_utf8(folded::encode(&threads)).unwrap();
    assert!(
        text.starts_with("[main];main 70707070\n[worker-1];main;serve;"),
        "{text}"
    );
    assert_eq!(firefox_total(&firefox_of(&threads)), profile.total(1));
    assert_eq!(decode(&pprof::encode(&threads)).total(1), profile.total(1));
}
