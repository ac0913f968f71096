//! Heap profiles as readers get them: counted work, with the allocator installed.
#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::float_cmp,
    reason = "tests; sums of blocks are small and whole"
)]

mod sampling;

use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use axum::Router;
use axum::extract::MatchedPath;
use axum::routing::get;
use sampling::Profile;
use streamgate_agent::{Agent, AgentHandle, ProfiledAllocator, Request, label};
use tower::ServiceExt as _;

#[global_allocator]
static ALLOCATOR: ProfiledAllocator<System> = ProfiledAllocator::new(System);

const KIB: usize = 1 << 10;

/// Large blocks are nearly all sampled at this distance, also when too many samples have doubled it.
fn agent() -> AgentHandle {
    let agent = Agent::builder("heap").no_listener().recorder(0);
    agent.heap_sampling(32 << 10).start().unwrap()
}

fn body(agent: &AgentHandle, target: &str) -> Vec<u8> {
    let request = Request::new("GET", target).header("host", "localhost");
    let reply = futures_executor::block_on(agent.respond(request));
    let text = String::from_utf8_lossy(reply.body()).into_owned();
    assert_eq!(reply.status(), 200, "{target}: {text}");
    reply.body().to_vec()
}

fn heap(agent: &AgentHandle, target: &str) -> Profile {
    Profile::decode(&body(agent, target))
}

/// The four columns of all stacks whose innermost function ends like this.
fn of(profile: &Profile, function: &str) -> [f64; 4] {
    sum(profile, |stack| {
        stack
            .names
            .first()
            .is_some_and(|name| name.ends_with(function))
    })
}

fn sum(profile: &Profile, chosen: impl Fn(&sampling::Stack) -> bool) -> [f64; 4] {
    let stacks = profile.stacks.iter().filter(|stack| chosen(stack));
    stacks.fold([0.0; 4], |sums, stack| {
        let value = |column: usize| stack.values[column] as f64;
        [0, 1, 2, 3].map(|column| sums[column] + value(column))
    })
}

fn near(seen: f64, wanted: f64) -> bool {
    (seen - wanted).abs() <= 0.05 * wanted
}

#[inline(never)]
fn freed_block(size: usize) {
    drop(std::hint::black_box(vec![1_u8; size]));
}

/// The ring of samples has 256 places: a burst of more loses stacks, and here none may be lost. Whoever
/// asks gets an answer after all samples were taken out.
fn take_in(agent: &AgentHandle, turn: usize) {
    if turn % 50 == 49 {
        body(agent, "/debug/heap/stats");
    }
}

#[inline(never)]
fn kept_block(size: usize) -> Vec<u8> {
    std::hint::black_box(vec![1; size])
}

#[inline(never)]
fn dropped_block(size: usize) {
    drop(std::hint::black_box(vec![1_u8; size]));
}

#[test]
fn counted_work_is_seen_under_its_function_in_all_four_columns() {
    let _turn = sampling::serial();
    let agent = agent();
    let before = of(&heap(&agent, "/debug/pprof/heap"), "kept_block");
    let mut kept = Vec::new();
    for turn in 0..200 {
        kept.push(kept_block(512 * KIB));
        if turn % 2 == 0 {
            freed_block(1024 * KIB);
        }
        take_in(&agent, turn);
    }
    let profile = heap(&agent, "/debug/pprof/heap");
    let seen = of(&profile, "kept_block");
    let (objects, bytes) = (200.0, (200 * 512 * KIB) as f64);
    eprintln!("kept {seen:?}, dropped {:?}", of(&profile, "freed_block"));
    for (column, wanted) in [objects, bytes, objects, bytes].into_iter().enumerate() {
        let seen = seen[column] - before[column];
        assert!(near(seen, wanted), "column {column}: {seen} of {wanted}");
    }
    let dropped = of(&profile, "freed_block");
    assert!(near(dropped[0], 100.0) && near(dropped[1], (100 * 1024 * KIB) as f64));
    assert_eq!(dropped[2..], [0.0, 0.0], "freed");
    drop(kept);
    let after = of(&heap(&agent, "/debug/pprof/allocs"), "kept_block");
    assert_eq!(after[2..], [0.0, 0.0], "freed");
    assert_eq!(after[..2], seen[..2], "allocated all the same");
    assert!(profile.comments[0].contains("heap of the Rust allocator"));
}

#[test]
fn a_difference_over_seconds_shows_what_was_allocated_in_them_alone() {
    let _turn = sampling::serial();
    let agent = agent();
    let old: Vec<Vec<u8>> = (0..100).map(|_| kept_block(16 * KIB)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, done) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&done);
    let working = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            dropped_block(32 * KIB);
            count.fetch_add(32 * KIB as u64, Ordering::Relaxed);
            thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    let started = std::time::Instant::now();
    let delta = heap(&agent, "/debug/pprof/allocs?seconds=2");
    let elapsed = started.elapsed().as_secs_f64();
    let done = done.load(Ordering::Relaxed) as f64;
    stop.store(true, Ordering::Relaxed);
    working.join().unwrap();
    let seen = of(&delta, "dropped_block")[1];
    eprintln!("{seen} bytes in 2 s, {done} in {elapsed:.1} s");
    assert!(seen > 0.0 && seen <= 1.05 * done, "{seen} of {done}");
    assert!(
        of(&delta, "kept_block").iter().all(|sum| *sum == 0.0),
        "was there before"
    );
    drop(old);
}

/// Groups of tasks and the share of all bytes that each allocates, in percent.
const GROUPS: [(&str, usize); 4] = [("half", 50), ("third", 30), ("few", 15), ("rest", 5)];
/// A block of this for every percent is all but sure to be sampled, also at a distance that was doubled
/// twice: what the test sees then is where samples went, and not how many of few there happened to be.
const PERCENT: usize = 60 * KIB;
const TASKS: usize = 100;
const TURNS: usize = 8;

#[test]
fn blocks_of_interleaved_tasks_carry_their_tasks_labels_and_no_others() {
    let _turn = sampling::serial();
    let agent = agent();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    let tasks: Vec<_> = (0..TASKS)
        .map(|n| {
            let (group, share) = GROUPS[n % GROUPS.len()];
            runtime.spawn(label("group", group).scope(async move {
                for _ in 0..TURNS {
                    labelled_block(share * PERCENT);
                    tokio::task::yield_now().await;
                }
            }))
        })
        .chain([runtime.spawn(async {
            for _ in 0..TURNS {
                unlabelled_block(50 * PERCENT);
                tokio::task::yield_now().await;
            }
        })])
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    let profile = heap(&agent, "/debug/pprof/allocs");
    let is = |stack: &sampling::Stack, name: &str| {
        let function = stack.names.first();
        function.is_some_and(|function| function.ends_with(name))
    };
    let all = of(&profile, "::labelled_block")[1];
    for (group, share) in GROUPS {
        let seen = sum(&profile, |stack| {
            let held = stack.labels.get("group");
            is(stack, "::labelled_block") && held.is_some_and(|held| held == group)
        })[1];
        let seen = 100.0 * seen / all;
        eprintln!("{group}: {seen:.1} % of {share} %");
        assert!((seen - share as f64).abs() < 5.0, "{group}: {seen} %");
    }
    let stray = sum(&profile, |stack| {
        is(stack, "unlabelled_block") && stack.labels.contains_key("group")
            || is(stack, "::labelled_block") && !stack.labels.contains_key("group")
    });
    assert!(stray.iter().all(|sum| *sum == 0.0), "{stray:?}");
}

#[inline(never)]
fn labelled_block(size: usize) {
    drop(std::hint::black_box(vec![1_u8; size]));
}

#[inline(never)]
fn unlabelled_block(size: usize) {
    drop(std::hint::black_box(vec![1_u8; size]));
}

#[test]
fn requests_are_told_apart_by_route_in_profile_metrics_and_stats_alike() {
    let _turn = sampling::serial();
    let agent = agent();
    let handler = |kib: usize| {
        move || async move {
            dropped_block(kib * KIB);
            "done"
        }
    };
    let observed = agent
        .http_layer()
        .matched_path(|extensions| extensions.get::<MatchedPath>().map(MatchedPath::as_str));
    let app = Router::new()
        .route("/heavy/{id}", get(handler(600)))
        .route("/light", get(handler(200)))
        .layer(observed);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for n in 0..100 {
            for path in [format!("/heavy/{n}"), "/light".to_owned()] {
                let request = http::Request::get(path).body(axum::body::Body::empty());
                let response = app.clone().oneshot(request.unwrap()).await.unwrap();
                assert_eq!(response.status(), 200);
            }
            take_in(&agent, n);
        }
    });
    let bytes = |profile: &Profile| {
        sum(profile, |stack| {
            stack
                .names
                .first()
                .is_some_and(|name| name.ends_with("dropped_block"))
        })[1]
    };
    let heavy = heap(&agent, "/debug/pprof/allocs?route=/heavy/%7Bid%7D");
    let light = heap(&agent, "/debug/pprof/allocs?route=/light");
    assert!(
        near(bytes(&heavy), (100 * 600 * KIB) as f64),
        "{}",
        bytes(&heavy)
    );
    assert!(
        near(bytes(&light), (100 * 200 * KIB) as f64),
        "{}",
        bytes(&light)
    );

    let stats: serde_json::Value =
        serde_json::from_slice(&body(&agent, "/debug/heap/stats")).unwrap();
    let routes = stats["heap"]["routes"].as_array().unwrap();
    let of_route = |route: &str| {
        let found = routes.iter().find(|row| row["http_route"] == route);
        found.unwrap()["allocated"]["bytes"].as_f64().unwrap()
    };
    let all = sum(&heavy, |_| true)[1];
    let shown = of_route("/heavy/{id}");
    assert!(
        (all - shown).abs() <= 0.01 * all,
        "{all} in the profile, {shown} in the stats"
    );
    assert!(stats["heap"]["live"]["bytes"].as_f64().unwrap() > 0.0);
    for table in ["blocks", "stacks", "sites"] {
        let fill = &stats["heap"][table];
        let [used, limit] = ["used", "limit"].map(|key| fill[key].as_u64().unwrap());
        assert!(0 < used && used < limit, "{table}: {fill}");
    }
    // The first level of the table of blocks and its filter alone.
    assert!(stats["heap"]["tables_bytes"].as_u64().unwrap() >= 256 << 10);

    // The numbers of the page are set about once a second.
    let wanted = "http_server_allocated_bytes_total{http_route=\"/light\"} ";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let metric: f64 = loop {
        let page = String::from_utf8(body(&agent, "/metrics")).unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(wanted));
        let value = value.map_or(0.0, |value| value.parse().unwrap());
        if value >= bytes(&light) {
            assert!(page.contains("\nheap_profile_live_bytes "));
            break value;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "not on the page: {wanted}"
        );
        // The agent answers 20 requests a second.
        thread::sleep(std::time::Duration::from_millis(100));
    };
    assert!(metric <= 1.1 * (100 * 200 * KIB) as f64 + 1e6, "{metric}");
}

#[inline(never)]
fn allocating_work() {
    for size in 1..200 {
        drop(std::hint::black_box(vec![1_u8; size * 64]));
    }
}

#[test]
fn the_heap_and_the_cpu_are_profiled_at_the_same_time() {
    let _turn = sampling::serial();
    let agent = agent();
    let taking = sampling::take(&agent, 250, 2);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let working = thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            allocating_work();
        }
    });
    for _ in 0..5 {
        let profile = heap(&agent, "/debug/pprof/allocs?symbolize=none");
        assert!(!profile.stacks.is_empty());
    }
    let cpu = taking.profile();
    stop.store(true, Ordering::Relaxed);
    working.join().unwrap();
    let samples = |profile: &Profile| {
        let named = |stack: &sampling::Stack| {
            let mut names = stack.names.iter();
            names.any(|name| name.ends_with("allocating_work"))
        };
        profile.sum(named)
    };
    let samples = samples(&cpu);
    assert!(samples > 20.0, "{samples} CPU samples of the work");
    let allocs = heap(&agent, "/debug/pprof/allocs");
    let (blocks, bytes) = (sum(&allocs, |_| true)[0], of(&allocs, "allocating_work")[1]);
    assert!(
        blocks > 0.0 && bytes > 0.0,
        "{blocks} blocks, {bytes} bytes"
    );
}
