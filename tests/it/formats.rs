//! The formats of a whole agent: one profile of the past in each, and what differs from before it.

use std::io::Read;
use std::net::SocketAddr;

use flate2::read::GzDecoder;
use serde_json::Value;
use streamgate_agent::{Agent, AgentHandle, Request};

use crate::client::{Answer, get, request};
use crate::http_plane::{Busy, sampler, samples, slowly};

fn recording() -> AgentHandle {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    // Unoptimised unwinding is dear, and these tests are not about its cost.
    let builder = Agent::builder("shop").listen(any).profiling_budget(0.5);
    builder.recorder(99).start().unwrap()
}

fn authority(agent: &AgentHandle) -> String {
    agent.address().unwrap().to_string()
}

fn held(agent: &AgentHandle) -> [u64; 2] {
    let about = get(&authority(agent), "/debug/agent").body;
    let about: Value = serde_json::from_str(&about).unwrap();
    let held = &about["recorder"]["held_unix_milliseconds"];
    [0, 1].map(|place| held[place].as_u64().unwrap_or(0))
}

/// Waits until this many milliseconds are held and says when they end.
fn hold(agent: &AgentHandle, millis: u64) -> u64 {
    slowly("the past is held", || {
        let [from, to] = held(agent);
        to - from >= millis
    });
    let [_, to] = held(agent);
    to
}

fn folded_sum(answer: &Answer) -> i64 {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let values = answer.body.lines().map(|line| line.rsplit(' ').next());
    values
        .map(|value| value.unwrap().parse::<i64>().unwrap())
        .sum()
}

#[test]
fn the_same_seconds_have_the_same_total_in_every_format() {
    let _turn = sampler();
    let _busy = Busy::start();
    let agent = recording();
    let to = hold(&agent, 6000);
    let path = format!("/debug/pprof/profile?from={}&to={to}", to - 4000);
    let show = |more: &str| get(&authority(&agent), &format!("{path}{more}"));
    let folded = show("&format=folded");
    let total = i64::try_from(samples(&folded)).unwrap();
    assert!(total > 0);
    let by_thread = show("&format=folded&labels=thread");
    assert_eq!(folded_sum(&by_thread), total);
    assert!(by_thread.body.lines().all(|line| line.starts_with('[')));
    let speedscope: Value = serde_json::from_str(&show("&format=speedscope").body).unwrap();
    assert_eq!(speedscope["profiles"][0]["endValue"], total);
    let firefox: Value = serde_json::from_str(&show("&format=firefox").body).unwrap();
    let threads = firefox["threads"].as_array().unwrap().iter();
    let weights = threads.flat_map(|thread| thread["samples"]["weight"].as_array().unwrap());
    let millis: f64 = weights.map(|weight| weight.as_f64().unwrap()).sum();
    let wanted = std::time::Duration::from_nanos(total.unsigned_abs()).as_secs_f64() * 1e3;
    assert!((millis - wanted).abs() < 0.001, "{millis} ms, not {wanted}");
    let main = show("&format=svg");
    assert_eq!(main.status, 200);
    if cfg!(feature = "flamegraph") {
        assert!(main.body.contains(&format!("total_samples=\"{total}\"")));
    }
    let routes = show("&format=folded&labels=route");
    assert!(
        routes
            .body
            .lines()
            .all(|line| line.starts_with("[no route];"))
    );
    let nothing = show("&format=folded&route=/nobody");
    assert_eq!((nothing.status, &*nothing.body), (200, ""));
}

#[test]
fn a_difference_holds_the_seconds_before_and_ends_at_once_if_they_are_not_held() {
    let _turn = sampler();
    let _busy = Busy::start();
    let agent = recording();
    let to = hold(&agent, 9000);
    let show = |more: &str| {
        let path = format!("/debug/pprof/profile?from={}&to={to}", to - 3000);
        get(&authority(&agent), &format!("{path}{more}"))
    };
    let later = samples(&show("&format=folded"));
    let pairs = show("&format=folded&diff_ago=4");
    assert_eq!(pairs.status, 200, "{}", pairs.body);
    let column = |back: usize| -> u64 {
        let lines = pairs.body.lines();
        let values = lines.map(|line| line.rsplit(' ').nth(back).unwrap());
        values.map(|value| value.parse::<u64>().unwrap()).sum()
    };
    assert_eq!(column(0), later);
    let earlier = format!(
        "/debug/pprof/profile?from={}&to={}&format=folded",
        to - 7000,
        to - 4000
    );
    assert_eq!(column(1), samples(&get(&authority(&agent), &earlier)));
    let svg = show("&format=svg&diff_ago=4");
    assert_eq!(svg.status, 200);
    if cfg!(feature = "flamegraph") {
        assert!(svg.body.contains("CPU of shop less 4 s before"));
    }
    let unheld = show("&diff_ago=800");
    assert_eq!(unheld.status, 404, "{}", unheld.body);
    assert!(unheld.headers.contains("x-go-pprof: 1"));
}

#[test]
fn a_profile_without_names_still_says_where_its_code_is() {
    let _turn = sampler();
    let _busy = Busy::start();
    let agent = recording();
    let to = hold(&agent, 5000);
    let raw = |more: &str| {
        let from = to - 3000;
        let target = format!("/debug/pprof/profile?from={from}&to={to}{more}");
        let request = Request::new("GET", &target).header("host", "localhost");
        let reply = futures_executor::block_on(agent.respond(request));
        assert_eq!(reply.status(), 200);
        let mut raw = Vec::new();
        GzDecoder::new(reply.body()).read_to_end(&mut raw).unwrap();
        String::from_utf8_lossy(&raw).into_owned()
    };
    let own = std::env::current_exe().unwrap();
    let own = own.to_str().unwrap();
    let busy = "Busy::start";
    let named = raw("");
    assert!(named.contains(own) && named.contains(busy));
    let bare = raw("&symbolize=none");
    assert!(bare.contains(own), "the mapping");
    assert!(!bare.contains(busy), "a name");
    assert!(
        bare.len() < named.len(),
        "{} of {}",
        bare.len(),
        named.len()
    );
}

#[inline(never)]
fn a_function_no_profile_has_met() -> u64 {
    std::hint::black_box(11)
}

#[test]
fn symbols_are_found_for_addresses_that_no_profile_has_met() {
    let _turn = sampler();
    let agent = recording();
    let authority = authority(&agent);
    let address = a_function_no_profile_has_met as *const () as usize;
    let body = format!("{address:#x}+0x1");
    let length = body.len();
    let text = format!(
        "POST /debug/pprof/symbol HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    let answer = request(&authority, &text);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let lines: Vec<&str> = answer.body.lines().collect();
    assert_eq!(lines[0], "num_symbols: 1");
    let named = format!("{address:#x} ");
    let name = lines[1].strip_prefix(&named).unwrap();
    assert!(name.ends_with("::a_function_no_profile_has_met"), "{name}");
    assert_eq!(lines[2], "0x1 ??");
    assert!(
        answer.body.ends_with('\n'),
        "the tool drops an open last line"
    );
}
