//! Start and stop: what a host sees when it links the agent.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use streamgate_agent::{Agent, AgentHandle, Metric, PressureLevel, Request, Status};

use crate::client::get;

/// An agent that samples only while it is asked to: a process has one sampler, and it belongs to the
/// tests that are about it.
pub(crate) fn start() -> AgentHandle {
    Agent::builder("test")
        .listen(([127, 0, 0, 1], 0).into())
        .recorder(0)
        .start()
        .unwrap()
}

/// A request's answer, made without a runtime of the caller's.
fn respond(agent: &AgentHandle, target: &str) -> (u16, String) {
    let request = Request::new("GET", target).header("host", "localhost");
    let reply = futures_executor::block_on(agent.respond(request));
    (
        reply.status(),
        String::from_utf8_lossy(reply.body()).into_owned(),
    )
}

/// Waits until `done` says so; the deadline is only for a broken build.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::yield_now();
    }
}

fn threads_named(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name.starts_with(prefix))
        .count()
}

#[test]
fn a_taken_port_is_an_error_that_says_so_and_the_host_goes_on() {
    let first = start();
    let taken = first.address().unwrap();
    let error = Agent::builder("second").listen(taken).start().unwrap_err();
    assert!(error.is_address_in_use());
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
    assert_eq!(get(&taken.to_string(), "/healthz").status, 200);
}

#[test]
fn an_address_beyond_loopback_has_to_be_allowed() {
    let outside = ([0, 0, 0, 0], 0).into();
    let error = Agent::builder("open").listen(outside).start().unwrap_err();
    assert!(
        error.is_refused() && error.to_string().contains("allow_insecure_remote"),
        "{error}"
    );
    let agent = Agent::builder("open")
        .listen(outside)
        .allow_insecure_remote(true)
        .recorder(0)
        .start()
        .unwrap();
    let local = format!("127.0.0.1:{}", agent.address().unwrap().port());
    assert!(
        get(&local, "/metrics")
            .body
            .contains("\nagent_insecure 1\n")
    );
}

#[test]
fn bad_settings_name_parameter_range_and_value() {
    let error = Agent::builder("").no_listener().start().unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"service must be a name of 1..=128 bytes (got "")"#
    );
    let error = Agent::builder("a")
        .no_listener()
        .series(0)
        .start()
        .unwrap_err();
    assert_eq!(error.to_string(), r#"series must be 1..=1000000 (got "0")"#);
    let rate = Agent::builder("a").no_listener().recorder(100);
    let error = rate.start().unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"recorder must be 0 (off) or 1..=99 (got "100")"#
    );
    for budget in [0.0, -0.1, 0.51, f64::NAN, f64::INFINITY] {
        let budget = Agent::builder("a").no_listener().profiling_budget(budget);
        let error = budget.start().unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("profiling_budget must be above 0 and at most 0.5 (got "),
            "{error}"
        );
    }
    for share in [0.0, -0.1, 1.1, f64::NAN] {
        let soft = Agent::builder("a").no_listener().memory_soft_limit(share);
        let error = soft.start().unwrap_err().to_string();
        let start = "memory_soft_limit must be above 0 and at most 1 (got ";
        assert!(error.starts_with(start), "{error}");
    }
}

/// A soft limit of some kilobytes, which every process is above.
#[test]
fn a_process_above_its_soft_limit_has_its_subscribers_told_until_they_leave() {
    let agent = Agent::builder("pressed").no_listener().recorder(0);
    let agent = agent.memory_soft_limit(1e-6).start().unwrap();
    let (tell, told) = mpsc::channel();
    let subscription = agent
        .on_memory_pressure(move |pressure| tell.send(pressure).unwrap_or_default())
        .unwrap();
    for _ in 0..2 {
        let pressure = told.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(pressure.level, PressureLevel::High);
        assert!(pressure.over_bytes() > 0 && pressure.soft_limit_bytes > 0);
    }
    let page = respond(&agent, "/metrics").1;
    for line in [
        "process_memory_pressure 1",
        "process_memory_pressure_changes_total{level=\"high\"} 1",
        "process_memory_pressure_changes_total{level=\"normal\"} 0",
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line} in {page}");
    }
    drop(subscription);
    // Ends when the closure, and with it the channel's sender, is gone.
    assert!(told.iter().all(|told| told.level == PressureLevel::High));
}

#[test]
fn without_a_listener_respond_answers_on_any_executor() {
    let quiet = Agent::builder("quiet").no_listener().recorder(0);
    let agent = quiet.start().unwrap();
    assert_eq!(agent.address(), None);
    let (status, body) = respond(&agent, "/targets");
    assert_eq!(status, 200);
    assert!(body.contains("latency_p95"));
    assert_eq!(respond(&agent, "/no/such/path").0, 404);
}

#[test]
fn shutdown_ends_every_thread_frees_the_port_and_may_be_called_twice() {
    let agent = start();
    let address = agent.address().unwrap();
    assert_eq!(
        agent
            .shutdown_blocking(Duration::from_secs(15))
            .still_running,
        [""; 0]
    );
    assert_eq!(
        agent
            .shutdown_blocking(Duration::from_secs(15))
            .still_running,
        [""; 0]
    );
    drop(std::net::TcpListener::bind(address).unwrap());
    assert_eq!(respond(&agent, "/healthz").0, 503);
}

#[tokio::test]
async fn shutdown_does_not_block_a_runtime_of_one_thread() {
    let agent = start();
    let ticking = tokio::spawn(async {
        tokio::task::yield_now().await;
        7
    });
    let report = agent.shutdown(Duration::from_secs(15)).await.unwrap();
    assert_eq!(report.still_running, [""; 0]);
    assert_eq!(ticking.await.unwrap(), 7);
}

#[test]
fn an_idle_client_and_a_waiting_reader_do_not_hold_up_the_stop() {
    let agent = start();
    let address = agent.address().unwrap().to_string();
    let idle = std::net::TcpStream::connect(&address).unwrap();
    let waiting = {
        let address = address.clone();
        std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(&address).unwrap();
            let head =
                format!("GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nhost: {address}\r\n\r\n");
            std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
            let mut answer = Vec::new();
            drop(std::io::Read::read_to_end(&mut stream, &mut answer));
        })
    };
    eventually("the reader waits", || {
        let about = get(&address, "/debug/agent").body;
        about.contains("\"profile_readers_waiting\":1")
    });
    let started = Instant::now();
    let report = agent.shutdown_blocking(Duration::from_secs(15));
    assert_eq!(report.still_running, [""; 0]);
    assert!(started.elapsed() < Duration::from_secs(15));
    waiting.join().unwrap();
    drop(idle);
}

#[test]
fn dropping_the_last_handle_stops_the_agent() {
    let agent = start();
    let clone = agent.clone();
    let address = agent.address().unwrap();
    drop(agent);
    assert_eq!(get(&address.to_string(), "/healthz").status, 200);
    drop(clone);
    eventually("the port is free", || {
        std::net::TcpListener::bind(address).is_ok()
    });
}

#[test]
fn a_host_closure_that_panics_is_counted_and_the_page_is_served() {
    let agent = start();
    agent.observe(|| panic!("host bug")).unwrap();
    let address = agent.address().unwrap().to_string();
    eventually("the panic is counted", || {
        let page = get(&address, "/metrics").body;
        page.lines().any(|line| {
            line.strip_prefix(r#"agent_panics_total{component="callback"} "#)
                .is_some_and(|count| count != "0")
        })
    });
}

#[test]
fn a_host_closure_that_hangs_makes_pages_old_but_not_late() {
    let agent = start();
    let (entered, hanging) = mpsc::channel();
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = std::sync::Mutex::new(blocked);
    agent
        .observe(move || {
            entered.send(()).unwrap_or_default();
            blocked.lock().unwrap().recv().unwrap_or_default();
        })
        .unwrap();
    hanging.recv().unwrap();
    let answer = get(&agent.address().unwrap().to_string(), "/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("agent_build_info"));
    drop(release);
}

#[test]
fn a_host_that_declares_a_name_of_ours_is_refused_and_its_own_family_is_shown() {
    static OURS: Metric = Metric::counter("cache_requests_total", "Not theirs.");
    static THEIRS: Metric =
        Metric::counter("shop_orders_total", "Orders placed.").labels(&["kind"]);
    let agent = start();
    assert!(agent.counter(&OURS, &[]).unwrap_err().is_out_of_range());
    agent.counter(&THEIRS, &["gift"]).unwrap().add(3);
    let page = get(&agent.address().unwrap().to_string(), "/metrics").body;
    assert!(
        page.contains("\nshop_orders_total{kind=\"gift\"} 3\n"),
        "{page}"
    );
}

#[test]
fn the_window_of_the_targets_begins_when_the_service_becomes_ready() {
    let agent = start();
    let cpu = |agent: &AgentHandle| {
        let rows = agent.targets().rows;
        rows.into_iter().find(|row| row.name == "cpu").unwrap()
    };
    eventually("CPU time is known", || cpu(&agent).current.is_some());
    agent.ready(false);
    assert!(cpu(&agent).current.is_some());
    agent.ready(true);
    let row = cpu(&agent);
    assert_eq!((row.current, row.status), (None, Status::NoData));
}

#[test]
fn the_agents_threads_carry_its_prefix() {
    let _agent = start();
    // A thread names itself, a moment after it has started.
    eventually("three named threads", || threads_named("sg-") >= 3);
}
