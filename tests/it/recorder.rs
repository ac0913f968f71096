//! The flight recorder of a whole agent: always on, answering the past, one per process.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use streamgate_agent::{Agent, AgentHandle, Builder};

use crate::client::{Answer, get};
use crate::http_plane::{Busy, sampler, samples, slowly};

fn recording(hertz: u32) -> Builder {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    // Unoptimised unwinding is dear, and these tests are not about its cost.
    let builder = Agent::builder("shop").listen(any).profiling_budget(0.5);
    builder.recorder(hertz).profile_raises(600)
}

fn ask(agent: &AgentHandle, target: &str) -> Answer {
    get(&agent.address().unwrap().to_string(), target)
}

fn recorder(agent: &AgentHandle) -> Value {
    let about: Value = serde_json::from_str(&ask(agent, "/debug/agent").body).unwrap();
    about["recorder"].clone()
}

fn held(agent: &AgentHandle) -> [u64; 2] {
    let held = &recorder(agent)["held_unix_milliseconds"];
    [0, 1].map(|place| held[place].as_u64().unwrap_or(0))
}

/// Waits until this many milliseconds are held.
fn hold(agent: &AgentHandle, millis: u64) {
    slowly("the past is held", || {
        let [from, to] = held(agent);
        to - from >= millis
    });
}

#[test]
fn eight_readers_of_the_past_are_answered_at_once_and_alike() {
    let _turn = sampler();
    let _busy = Busy::start();
    let agent = recording(99).start().unwrap();
    hold(&agent, 10_000);
    let [_, to] = held(&agent);
    let from = to - 8_000;
    let target = format!("/debug/pprof/profile?format=folded&from={from}&to={to}");
    // The first reads the symbols of a large test binary.
    let first = samples(&ask(&agent, &target));
    assert!(first > 0);
    let begun = Instant::now();
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let (agent, target) = (agent.clone(), target.clone());
            thread::spawn(move || samples(&ask(&agent, &target)))
        })
        .collect();
    for reader in readers {
        assert_eq!(reader.join().unwrap(), first);
    }
    let waited = begun.elapsed();
    assert!(
        waited < Duration::from_secs(4),
        "{waited:?} for 8 s of the past"
    );
    let ago = ask(&agent, "/debug/flamegraph?ago=8&seconds=5&format=folded");
    assert!(samples(&ago) > 0);
}

#[test]
fn a_reader_raises_the_rate_while_it_waits_and_the_recorder_goes_on() {
    let _turn = sampler();
    let _busy = Busy::start();
    let agent = recording(19).start().unwrap();
    let rate = |hertz: u64| recorder(&agent)["hz"] == hertz;
    slowly("the recorder runs", || rate(19));
    hold(&agent, 2000);
    let fast = {
        let agent = agent.clone();
        let target = "/debug/pprof/profile?seconds=3&hz=250&format=folded";
        thread::spawn(move || samples(&ask(&agent, target)))
    };
    slowly("the reader's rate", || rate(250));
    assert!(fast.join().unwrap() > 0);
    slowly("the recorder's rate", || rate(19));
    let page = ask(&agent, "/metrics").body;
    for line in [
        "\nagent_profile_rate_hertz{kind=\"cpu\"} 19\n",
        "\nagent_profile_samples_total{kind=\"cpu\",result=\"recorded\"} ",
        "\nagent_profile_expected_samples_total{kind=\"cpu\"} ",
        "\nagent_profile_truncated_samples_total{kind=\"cpu\"} ",
        "\nagent_profile_slowdowns_total{kind=\"cpu\"} 0\n",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
}

/// Works until the running thread has used this much CPU time; says how much it was.
fn burn(time: Duration) -> Duration {
    let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let (start, mut number) = (used(), 1_u64);
    while used() - start < time {
        for step in 0..4000 {
            number = std::hint::black_box(number.wrapping_mul(31) ^ step);
        }
    }
    used() - start
}

#[test]
fn changes_of_rate_neither_lose_nor_double_cpu_time() {
    let _turn = sampler();
    let builder = recording(19).high_rate(true);
    let agent = builder.start().unwrap();
    hold(&agent, 2000);
    let [_, from] = held(&agent);
    let work = thread::Builder::new().name("steady".to_owned());
    let work = work.spawn(|| burn(Duration::from_secs(6))).unwrap();
    let mut changes = 0;
    for hertz in [999, 99, 499].into_iter().cycle() {
        if work.is_finished() {
            break;
        }
        let target = format!("/debug/pprof/profile?seconds=1&format=folded&hz={hertz}");
        assert_eq!(ask(&agent, &target).status, 200);
        changes += 2;
    }
    let used = work.join().unwrap().as_secs_f64();
    let [_, done] = held(&agent);
    slowly("the work's last bucket is over", || {
        held(&agent)[1] > done + 1000
    });
    let [_, to] = held(&agent);
    let target = format!("/debug/pprof/profile?format=folded&labels=thread&from={from}&to={to}");
    let answer = ask(&agent, &target);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let lines = answer.body.lines();
    let nanos: u64 = lines
        .filter(|line| {
            line.split(';')
                .next()
                .is_some_and(|root| root.contains("steady"))
        })
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    let (seen, changes) = (
        Duration::from_nanos(nanos).as_secs_f64(),
        f64::from(changes),
    );
    // Each change begins anew at a random phase: at most half a period of 19 Hz off at either end,
    // four standard deviations of their sum.
    let tolerance = 4.0 * (changes * 0.0526 * 0.0526 / 12.0).sqrt();
    eprintln!("{seen:.3} s of {used:.3} s in {changes} changes, {tolerance:.3} s allowed");
    assert!(changes >= 6.0);
    assert!(
        (seen - used).abs() <= 0.03 * used + tolerance,
        "{seen} of {used}"
    );
}

#[test]
fn seconds_before_the_first_are_refused_with_the_span_that_may_be_asked_for() {
    let _turn = sampler();
    let _busy = Busy::start();
    let agent = recording(99).start().unwrap();
    hold(&agent, 2000);
    let answer = ask(&agent, "/debug/pprof/profile?ago=600&seconds=5");
    assert_eq!(answer.status, 404, "{}", answer.body);
    assert!(answer.headers.contains("\r\nx-go-pprof: 1\r\n"));
    let (_, span) = answer.body.split_once("from=").unwrap();
    let (span, _) = span.split_once(' ').unwrap();
    let target = format!("/debug/pprof/profile?format=folded&from={span}");
    assert!(samples(&ask(&agent, &target)) > 0, "as it was told");
}

#[test]
fn without_a_recorder_nothing_is_sampled_and_the_past_is_refused_in_words() {
    let _turn = sampler();
    let agent = recording(0).start().unwrap();
    let answer = ask(&agent, "/debug/pprof/profile?ago=60&seconds=5");
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.starts_with("the flight recorder is off"));
    let off = recording(19).profiling(false).start().unwrap();
    for agent in [&agent, &off] {
        let recorder = recorder(agent);
        assert_eq!(recorder["set_hz"], 0);
        assert!(recorder["hz"].is_null() && recorder["obstacle"].is_null());
        assert!(
            !ask(agent, "/metrics")
                .body
                .contains("agent_profile_rate_hertz{")
        );
    }
    let answer = ask(&off, "/debug/pprof/profile?ago=60");
    assert_eq!(answer.status, 404);
}

#[test]
fn a_second_recorder_waits_quietly_and_takes_over_when_the_first_agent_stops() {
    let _turn = sampler();
    let first = recording(19).start().unwrap();
    slowly("the first runs", || recorder(&first)["hz"] == 19);
    let second = recording(9).start().unwrap();
    slowly("the second says why not", || {
        let obstacle = &recorder(&second)["obstacle"];
        obstacle
            .as_str()
            .is_some_and(|why| why.starts_with("another agent of this process samples"))
    });
    let answer = ask(&second, "/debug/pprof/profile?seconds=1");
    assert_eq!(answer.status, 503);
    assert!(
        answer
            .body
            .starts_with("another agent of this process samples")
    );
    assert_eq!(recorder(&first)["hz"], 19, "undisturbed");
    let report = first.shutdown_blocking(Duration::from_secs(15));
    assert_eq!(report.still_running, [""; 0]);
    slowly("the second takes over", || recorder(&second)["hz"] == 9);
    assert!(recorder(&second)["obstacle"].is_null());
}
