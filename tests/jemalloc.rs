//! jemalloc as the global allocator: its numbers, its decay times, and who may change them.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails where something is missing"
)]

use std::hint::black_box;
use std::sync::{Barrier, Mutex, MutexGuard, Once, PoisonError};

use streamgate_agent::{Agent, AgentHandle, Reply, Request};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const TUNING: &str = "/debug/heap/tuning";

/// The process has one jemalloc: tests that change it, or look at what it holds, take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    make_all_arenas();
    turn
}

/// An arena that a starting thread makes while decay times are set has read the old ones and is not yet
/// seen. Four arenas a processor are all that jemalloc makes, one for each of the first threads.
fn make_all_arenas() {
    static MADE: Once = Once::new();
    MADE.call_once(|| {
        let threads = 16 * std::thread::available_parallelism().unwrap().get();
        let all_there = Barrier::new(threads);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    drop(black_box(vec![1_u8; 64]));
                    all_there.wait();
                });
            }
        });
        drop(black_box(vec![1_u8; 64 << 20]));
    });
}

fn agent(control: bool) -> AgentHandle {
    let builder = Agent::builder("jemalloc").no_listener().recorder(0);
    builder.control(control).start().unwrap()
}

fn answer(agent: &AgentHandle, request: Request) -> Reply {
    futures_executor::block_on(agent.respond(request.header("host", "localhost")))
}

fn get(agent: &AgentHandle, target: &str) -> Reply {
    answer(agent, Request::new("GET", target))
}

fn post(agent: &AgentHandle, kind: &str, body: &str) -> Reply {
    let request = Request::new("POST", TUNING).header("content-type", kind);
    answer(agent, request.body(body))
}

fn json(reply: &Reply) -> serde_json::Value {
    serde_json::from_slice(reply.body()).unwrap()
}

/// A series of `allocator_bytes`, of a reading newer than the last.
fn bytes(agent: &AgentHandle, kind: &str) -> Option<f64> {
    let page = get(agent, "/metrics");
    let page = String::from_utf8(page.body().to_vec()).unwrap();
    let line = format!("allocator_bytes{{allocator=\"jemalloc\",kind=\"{kind}\"}} ");
    let value = page.lines().find_map(|text| text.strip_prefix(&line));
    value.map(|value| value.parse().unwrap())
}

#[test]
fn what_jemalloc_holds_stands_in_order_and_contains_a_block_of_ours() {
    let _turn = turn();
    let block = black_box(vec![1_u8; 64 << 20]);
    let agent = agent(false);
    let kinds = [
        "allocated",
        "active",
        "metadata",
        "resident",
        "mapped",
        "retained",
    ];
    let [allocated, active, metadata, resident, mapped, _] =
        kinds.map(|kind| bytes(&agent, kind).unwrap_or_else(|| panic!("no {kind}")));
    assert!(allocated >= block.len() as f64, "{allocated}");
    assert!(active >= allocated, "{active} < {allocated}");
    assert!(
        resident >= active && mapped >= active,
        "{resident} {mapped}"
    );
    assert!(metadata > 0.0);
}

#[test]
fn the_heaps_numbers_contain_what_the_allocator_says() {
    let block = black_box(vec![1_u8; 64 << 20]);
    let agent = agent(false);
    let metric = bytes(&agent, "allocated").unwrap();
    let stats = json(&get(&agent, "/debug/heap/stats"));
    assert_eq!(stats["allocators"][0]["allocator"], "jemalloc");
    let said = &stats["allocators"][0]["bytes"];
    for kind in ["active", "resident", "mapped", "retained"] {
        assert!(said[kind].is_number(), "{kind}: {stats}");
    }
    let said = said["allocated"].as_f64().unwrap();
    assert!(metric.min(said) >= block.len() as f64, "{metric}, {said}");
    assert_eq!(
        stats["recorded"], false,
        "this program's allocator is jemalloc alone"
    );
}

#[test]
fn the_control_plane_is_off_and_reading_is_not() {
    let agent = agent(false);
    let reply = post(&agent, "application/json", "{\"purge\":true}");
    assert_eq!(reply.status(), 404);
    assert_eq!(json(&reply)["detail"], "control plane is off");
    let seen = json(&get(&agent, TUNING));
    assert_eq!(seen["allocator"], "jemalloc");
    assert_eq!(seen["changeable"], false);
    assert!(seen["arenas"].as_u64().unwrap() >= 1, "{seen}");
}

#[test]
fn a_change_reaches_every_arena_and_stands_in_the_record_of_actions() {
    let _turn = turn();
    let agent = agent(true);
    let body = "{\"dirty_decay_ms\":1234,\"muzzy_decay_ms\":-1,\"purge\":true}";
    let reply = post(&agent, "application/json; charset=utf-8", body);
    assert_eq!(reply.status(), 200, "{:?}", json(&reply));
    let seen = json(&get(&agent, TUNING));
    let both = |ms: i64| serde_json::json!({"new_arenas": ms, "arenas": [ms]});
    assert_eq!(seen["dirty_decay_ms"], both(1234));
    assert_eq!(seen["muzzy_decay_ms"], both(-1));
    let about = json(&get(&agent, "/debug/agent"));
    let last = about["profile_requests"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(
        last["change"],
        "dirty_decay_ms=1234, muzzy_decay_ms=-1, purge"
    );
    assert_eq!(last["status"], 200);
}

#[test]
fn a_purge_gives_back_what_was_freed_and_leaves_the_decay_times_as_they_were() {
    let _turn = turn();
    let agent = agent(true);
    let json_body = "application/json";
    let keep = post(
        &agent,
        json_body,
        "{\"dirty_decay_ms\":-1,\"muzzy_decay_ms\":-1}",
    );
    assert_eq!(keep.status(), 200);
    let before = json(&get(&agent, TUNING));
    // Small enough to be kept: what exceeds 8 MiB goes to an arena that keeps nothing.
    let blocks: Vec<Vec<u8>> = (0..64).map(|_| black_box(vec![1_u8; 1 << 20])).collect();
    drop(blocks);
    // An agent of its own for each reading: one takes them a second apart.
    let resident = || bytes(&self::agent(false), "resident").unwrap();
    let kept = resident();
    assert_eq!(post(&agent, json_body, "{\"purge\":true}").status(), 200);
    let left = resident();
    assert!(
        kept - left > 48.0 * (1 << 20) as f64,
        "{kept} bytes before, {left} after"
    );
    let after = json(&get(&agent, TUNING));
    for name in ["dirty_decay_ms", "muzzy_decay_ms"] {
        assert_eq!(after[name], before[name]);
    }
}

#[test]
fn what_is_no_change_is_refused_by_name_range_and_value() {
    let agent = agent(true);
    let json_body = "application/json";
    let rows = [
        (
            json_body,
            "{\"dirty_decay_ms\":-2}",
            400,
            "dirty_decay_ms must be -1..=3600000 (got \"-2\")",
        ),
        (
            json_body,
            "{\"muzzy_decay_ms\":\"1s\"}",
            400,
            "muzzy_decay_ms must be -1..=3600000 (got \"1s\")",
        ),
        (
            json_body,
            "{\"dirty_decay_ms\":1.5}",
            400,
            "dirty_decay_ms must be -1..=3600000 (got \"1.5\")",
        ),
        (
            json_body,
            "{\"background_thread\":1}",
            400,
            "background_thread must be true|false (got \"1\")",
        ),
        (
            json_body,
            "{\"purge\":false}",
            400,
            "purge must be true (got \"false\")",
        ),
        (
            json_body,
            "{\"gogc\":150}",
            400,
            "body must be an object of dirty_decay_ms|muzzy_decay_ms|background_thread|purge (got \"gogc\")",
        ),
        (
            json_body,
            "[]",
            400,
            "body must be a JSON object (got \"[]\")",
        ),
        (
            "application/x-www-form-urlencoded",
            "purge=true",
            415,
            "content type application/json required",
        ),
    ];
    for (kind, body, status, text) in rows {
        let reply = post(&agent, kind, body);
        let seen = (reply.status(), json(&reply)["detail"].clone());
        assert_eq!(seen, (status, text.into()), "{body}");
    }
    let by_get = get(&agent, "/debug/heap/tuning?purge=true");
    assert_eq!(by_get.status(), 405);
    assert_eq!(json(&by_get)["detail"], "method POST required");
    let allow = by_get.headers().find(|(name, _)| *name == "Allow");
    assert_eq!(allow, Some(("Allow", "GET, HEAD, POST")));
    let about = json(&get(&agent, "/debug/agent"));
    assert_eq!(
        about["profile_requests"],
        serde_json::json!([]),
        "nothing was changed"
    );
}
