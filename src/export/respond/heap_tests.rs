//! Heap profiles by hand: what each path, parameter and build answers.

use std::sync::atomic::{AtomicI64, Ordering};

use super::super::tests::{ask, detail, header, profile, served, silent, silent_with, text};
use super::*;
use crate::catalog::families::ALLOCATOR_BYTES;
use crate::config::Config;
use crate::store::heap::{
    AGE, Estimate, Fill, HeapAnswer, HeapStats, KeptRow, LostHeap, RouteHeap, SPACE, SiteStack,
};
use crate::store::label::ROUTE;
use crate::store::profile::{Function, Label, Line, Location, Sample};
use crate::store::symbols::Symbol;

/// Every profile of this moment has one object of 100 bytes more than the one before; a kept one has
/// ten in all.
static MOMENTS: AtomicI64 = AtomicI64::new(100);

pub(in crate::export::respond) fn answer(wish: HeapWish) -> HeapAnswer {
    let wish = match wish {
        HeapWish::Stats => return Ok(HeapSeen::Stats(Arc::new(stats()))),
        HeapWish::Sites(sites) => return Ok(HeapSeen::Sites(sites.iter().map(stack).collect())),
        HeapWish::Profile(wish) => wish,
    };
    match wish.moment {
        HeapMoment::Number(3) => Err(NoProfile {
            text: "2 heaps are kept".to_owned(),
            not_held: true,
        }),
        HeapMoment::Kept(_) | HeapMoment::Number(_) => Ok(seen_profile(wish, 10)),
        HeapMoment::Now => {
            let objects = MOMENTS.fetch_add(1, Ordering::Relaxed);
            Ok(seen_profile(wish, objects))
        }
    }
}

fn seen_profile(wish: HeapProfileWish, objects: i64) -> HeapSeen {
    let label = |key, value: &str| Label {
        key,
        value: value.into(),
    };
    let sample = |place: u32, values: [i64; 4], labels: Vec<Label>| Sample {
        stack: [place].into(),
        values: values.into(),
        times: Vec::new(),
        labels,
    };
    let keep = [2 * objects, 200 * objects, objects, 100 * objects];
    let mut samples = vec![
        sample(0, keep, vec![label(ROUTE, "/a")]),
        sample(1, [5, 500, 0, 0], Vec::new()),
    ];
    if wish.ages {
        let [allocated, bytes, in_use, in_use_bytes] = keep;
        let [kept, ..] = &mut *samples else { panic!() };
        kept.values = vec![allocated, bytes, 0, 0];
        let age = vec![label(ROUTE, "/a"), label(AGE, "<1m")];
        samples.push(sample(0, [0, 0, in_use, in_use_bytes], age));
    }
    let line = |function| Location {
        address: 0x401_000 + u64::from(function),
        mapping: None,
        lines: vec![Line { function, line: 7 }],
    };
    let seen = Profile {
        duration: Duration::ZERO,
        period_type: SPACE,
        period: 512 << 10,
        sample_types: crate::store::heap::COLUMNS.to_vec(),
        default_type: wish.column.name,
        samples,
        locations: vec![line(0), line(1)],
        functions: vec![Function::named("shop::keep"), Function::named("shop::drop")],
        comments: vec!["in use: so much".to_owned()],
        ..profile("")
    };
    HeapSeen::Profile(Arc::new(seen))
}

/// `shop::keep_<site>`, called by main, three quarters of it for one route.
fn stack(site: &u64) -> SiteStack {
    let frame = |name: &str, line| Symbol {
        function: Function::named(name),
        line,
    };
    SiteStack {
        site: *site,
        frames: vec![
            frame(&format!("shop::keep_{site}"), 0),
            frame("shop::main", 7),
        ],
        routes: vec![(Some("/a".into()), 75.0), (None, 25.0)],
    }
}

fn stats() -> HeapStats {
    let some = Estimate {
        objects: 3.0,
        bytes: 300.4,
    };
    HeapStats {
        rate: 512 << 10,
        samples: 12,
        live: some,
        routes: vec![RouteHeap {
            route: Some("/a".into()),
            allocated: some,
            ..RouteHeap::default()
        }],
        lost: vec![LostHeap {
            cause: "no room for the stack",
            samples: 1,
            estimate: some,
        }],
        blocks: Fill {
            used: 12,
            limit: 1_044_480,
        },
        stacks: Fill {
            used: 7,
            limit: 32_768,
        },
        tables_bytes: 1 << 20,
        kept: vec![KeptRow {
            kept_for: KeptFor::Peak,
            unix_nanos: 1_700_000_000_000_000_000,
            live: some,
        }],
        ..HeapStats::default()
    }
}

fn folded(plane: &Plane, target: &str) -> String {
    let reply = ask(plane, "GET", target);
    assert_eq!(reply.status(), 200, "{target}: {}", detail(&reply));
    text(&reply).to_owned()
}

#[test]
fn each_path_shows_its_own_column_first_and_names_its_file_as_go_does() {
    let served = served();
    let plane = &served.plane;
    for (path, name, first) in [
        ("heap", "heap", "shop::keep 1000\n"),
        ("allocs", "allocs", "shop::drop 500\nshop::keep 2000\n"),
    ] {
        let path = format!("/debug/pprof/{path}?at=peak");
        let reply = ask(plane, "GET", &path);
        let wanted = format!("attachment; filename=\"{name}\"");
        assert_eq!(header(&reply, "Content-Disposition"), Some(&*wanted));
        assert_eq!(folded(plane, &format!("{path}&format=folded")), first);
    }
    let objects = "/debug/pprof/heap?at=peak&format=folded&gc=1&sample_index=inuse_objects";
    assert_eq!(folded(plane, objects), "shop::keep 10\n");
    let flame = "/debug/flamegraph?type=allocs&at=peak&format=folded";
    assert_eq!(folded(plane, flame), "shop::drop 500\nshop::keep 2000\n");
}

#[test]
fn labels_choose_blocks_by_route_and_age() {
    let served = served();
    let page = |query: &str| {
        let target = format!("/debug/pprof/heap?at=0&format=folded&{query}");
        folded(&served.plane, &target)
    };
    assert_eq!(page("labels=route"), "[/a];shop::keep 1000\n");
    assert_eq!(page("labels=age"), "[<1m];shop::keep 1000\n");
    assert_eq!(page("route=/b"), "");
    assert_eq!(page("route=/a"), "shop::keep 1000\n");
}

#[test]
fn seconds_show_what_changed_and_a_kept_heap_can_be_subtracted() {
    let served = served();
    let plane = &served.plane;
    let reply = ask(plane, "GET", "/debug/pprof/heap?seconds=1");
    let name = Some("attachment; filename=\"heap-delta\"");
    assert_eq!(header(&reply, "Content-Disposition"), name);
    let allocs = folded(plane, "/debug/pprof/allocs?seconds=1&format=folded");
    let bytes = allocs.strip_prefix("shop::keep ").unwrap().trim();
    assert!(bytes.parse::<i64>().unwrap() >= 200, "{allocs}");
    let less = folded(plane, "/debug/pprof/heap?at=1&diff_at=peak&format=folded");
    assert_eq!(less, "shop::keep 1000 1000\n");
}

#[test]
fn debug_is_the_text_of_go_with_estimates_that_its_tool_leaves_alone() {
    let served = served();
    let page = folded(&served.plane, "/debug/pprof/heap?at=peak&debug=1");
    assert_eq!(
        page,
        "heap profile: 10: 1000 [25: 2500] @ heap/2\n\
         10: 1000 [20: 2000] @ 0x401000\n#\thttp_route=/a\n#\t0x401000\tshop::keep\n\n\
         0: 0 [5: 500] @ 0x401001\n#\t0x401001\tshop::drop\n\n\
         # in use: so much\n"
    );
}

#[test]
fn a_heap_that_was_not_kept_is_404() {
    let served = served();
    let reply = ask(&served.plane, "GET", "/debug/pprof/heap?at=3");
    assert_eq!(
        (reply.status(), &*detail(&reply)),
        (404, "2 heaps are kept")
    );
}

#[test]
fn bad_parameters_get_exact_answers_and_start_nothing() {
    let plane = silent();
    plane.store.heap.recording.set(Recording::On).unwrap();
    let rows = [
        ("seconds=0", "seconds must be 1..=60 (got \"0\")"),
        ("seconds=1&debug=1", "seconds and debug exclude each other"),
        (
            "seconds=1&at=peak",
            "seconds and at, diff_at exclude each other: a kept heap is of the past",
        ),
        ("at=now", "at must be peak|limit|0|1|2|3 (got \"now\")"),
        (
            "gc=yes",
            "gc must be 0..=18446744073709551615 (got \"yes\")",
        ),
        ("labels=thread", "labels must be route|age (got \"thread\")"),
        (
            "sample_index=space",
            "sample_index must be inuse_space|inuse_objects|alloc_space|alloc_objects (got \"space\")",
        ),
        (
            "diff_ago=60",
            "diff_ago is for CPU profiles alone; seconds shows what changes, diff_at less a heap that was \
             kept",
        ),
        (
            "seconds=1&route=/a&diff_route=/b",
            "diff_route and seconds, diff_at exclude each other",
        ),
        (
            "seconds=1&format=speedscope",
            "format=speedscope cannot show a difference, which has values below zero; \
             pprof, folded, svg and firefox can",
        ),
    ];
    for (query, wanted) in rows {
        let reply = ask(&plane, "GET", &format!("/debug/pprof/heap?{query}"));
        assert_eq!((reply.status(), &*detail(&reply)), (400, wanted), "{query}");
        assert_eq!(plane.store.heap.wishes.waiting(), 0, "{query}");
    }
}

#[test]
fn a_heap_that_is_not_recorded_is_503_with_the_lines_to_write() {
    let plane = silent();
    plane
        .store
        .heap
        .recording
        .set(Recording::NotInstalled)
        .unwrap();
    for path in ["/debug/pprof/heap", "/debug/pprof/allocs?seconds=1"] {
        let reply = ask(&plane, "GET", path);
        assert_eq!(reply.status(), 503);
        assert_eq!(header(&reply, "X-Go-Pprof"), Some("1"));
        let page = detail(&reply);
        for line in [
            "#[global_allocator]",
            "ProfiledAllocator::new(std::alloc::System);",
        ] {
            assert!(page.contains(line), "{page}");
        }
    }
    let stats = ask(&plane, "GET", "/debug/heap/stats");
    let stats: serde_json::Value = serde_json::from_slice(stats.body()).unwrap();
    assert_eq!(stats["recorded"], false);
    assert!(stats["heap"].is_null(), "no zeros: {stats}");

    let off = silent();
    let why = "heap profiles are off";
    off.store.heap.recording.set(Recording::Off(why)).unwrap();
    let reply = ask(&off, "GET", "/debug/pprof/heap");
    assert_eq!((reply.status(), &*detail(&reply)), (503, why));

    let mut config = Config::new("shop");
    config.profiling = false;
    let reply = ask(&silent_with(config), "GET", "/debug/pprof/heap");
    assert_eq!(
        (reply.status(), &*detail(&reply)),
        (404, "profile plane is off")
    );
}

#[test]
fn stats_are_numbers_with_their_losses_and_links_to_what_was_kept() {
    let served = served();
    let reply = ask(&served.plane, "GET", "/debug/heap/stats");
    let page: serde_json::Value = serde_json::from_slice(reply.body()).unwrap();
    let heap = &page["heap"];
    assert_eq!(heap["period_bytes"], 524_288);
    assert_eq!(heap["live"]["bytes"], 300.0);
    assert_eq!(heap["routes"][0]["http_route"], "/a");
    assert!(heap["routes"][0]["allocated_per_second"].is_null());
    assert_eq!(heap["lost"][0]["samples"], 1);
    let filled = serde_json::json!({"used": 12, "limit": 1_044_480});
    assert_eq!(heap["blocks"], filled);
    assert_eq!(heap["tables_bytes"], 1 << 20);
    assert_eq!(
        page["allocators"],
        serde_json::json!([]),
        "none says anything"
    );
    assert_eq!(heap["kept"][0]["kept_for"], "peak");
    assert_eq!(heap["kept"][0]["profile"], "/debug/pprof/heap?at=0");
    assert_eq!(page["obstacle"], serde_json::Value::Null);
}

#[test]
fn what_an_allocator_says_stands_beside_the_heap_even_where_none_is_recorded() {
    let plane = silent();
    let recording = &plane.store.heap.recording;
    recording.set(Recording::NotInstalled).unwrap();
    for (kind, bytes) in [("allocated", 10.0), ("resident", 30.0)] {
        let labels = ["jemalloc", kind];
        let gauge = plane.store.metrics.gauge(&ALLOCATOR_BYTES, &labels);
        gauge.unwrap().set(bytes);
    }
    let absent = ["jemalloc", "mapped"];
    plane
        .store
        .metrics
        .gauge(&ALLOCATOR_BYTES, &absent)
        .unwrap();
    let reply = ask(&plane, "GET", "/debug/heap/stats");
    let page: serde_json::Value = serde_json::from_slice(reply.body()).unwrap();
    let wanted = serde_json::json!([
        {"allocator": "jemalloc", "bytes": {"allocated": 10.0, "resident": 30.0}}
    ]);
    assert_eq!(page["allocators"], wanted);
}
