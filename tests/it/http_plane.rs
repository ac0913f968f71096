//! The endpoints of a whole agent: its own listener, its own profiler, its default limits.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use streamgate_agent::{Agent, AgentHandle, Reply, Request};

use crate::client::{Answer, get};

fn agent() -> AgentHandle {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let shop = Agent::builder("shop").listen(any).recorder(0);
    let shop = shop.profile_raises(600);
    shop.start().unwrap()
}

/// A process has one sampler: tests whose agents sample take turns.
pub(crate) fn sampler() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One agent for all tests of this file that take profiles.
fn profiled() -> (&'static AgentHandle, MutexGuard<'static, ()>) {
    static AGENT: OnceLock<AgentHandle> = OnceLock::new();
    let turn = sampler();
    (AGENT.get_or_init(agent), turn)
}

fn authority(agent: &AgentHandle) -> String {
    agent.address().unwrap().to_string()
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        let waited = begun.elapsed();
        assert!(waited < Duration::from_secs(20), "not in 20 s: {what}");
        thread::yield_now();
    }
}

/// A thread that uses CPU until dropped, so that profiles have something to show.
pub(crate) struct Busy {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    pub(crate) fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut number = 1_u64;
            while !asked.load(Ordering::Relaxed) {
                number = std::hint::black_box(number.rotate_left(5) ^ 7);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

pub(crate) fn samples(folded: &Answer) -> u64 {
    assert_eq!(folded.status, 200, "{}", folded.body);
    let values = folded.body.lines().map(|line| line.rsplit(' ').next());
    values
        .map(|value| value.unwrap().parse::<u64>().unwrap())
        .sum()
}

#[test]
fn a_taken_port_is_an_error_of_start_and_the_first_agent_answers_on() {
    let first = agent();
    let address = first.address().unwrap();
    let error = Agent::builder("shop").listen(address).start().unwrap_err();
    assert!(error.is_address_in_use(), "{error}");
    assert!(error.to_string().contains(&address.to_string()));
    assert_eq!(get(&authority(&first), "/healthz").status, 200);
}

#[test]
fn every_link_of_the_index_answers() {
    let (agent, _turn) = profiled();
    let _one = crate::wall::one();
    // Its workers are what a wall-clock profile shows.
    let _runtime = tokio::runtime::Runtime::new().unwrap();
    let authority = authority(agent);
    let page = get(&authority, "/").body;
    let links: Vec<&str> = page
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(links.len() > 10, "{links:?}");
    for link in links {
        let path = link.replace("&amp;", "&").replace("seconds=5", "seconds=1");
        let short = if path.contains("/thread") {
            ""
        } else {
            "seconds=1"
        };
        let (path, query) = path.split_once('?').unwrap_or((&path, short));
        let path = path.strip_prefix('.').unwrap_or(path);
        let answer = get(&authority, &format!("/{path}?{query}"));
        // These tests have the system's allocator, and a person who follows the link is told what to add.
        let is_heap = path.starts_with("debug/pprof/heap")
            || path.starts_with("debug/pprof/allocs")
            || path.starts_with("debug/heap/stats")
            || path.starts_with("debug/heap/leaks")
            || query.contains("type=heap")
            || query.contains("type=allocs");
        if is_heap && answer.status == 503 {
            assert!(
                answer.body.contains("#[global_allocator]"),
                "{link}: {}",
                answer.body
            );
            continue;
        }
        let is_missing = answer.status == 501 && answer.body.contains("built without feature");
        let is_tuning = path.starts_with("debug/heap/tuning");
        if is_tuning && (is_missing || answer.status == 503 && answer.body.contains("jemalloc")) {
            continue;
        }
        assert_eq!(answer.status, 200, "{link}: {}", answer.body);
    }
}

#[test]
fn two_profiles_at_once_are_both_full_and_each_keeps_its_length() {
    let (agent, _turn) = profiled();
    let _busy = Busy::start();
    let authority = authority(agent);
    let other = authority.clone();
    let target = "/debug/pprof/profile?seconds=1&hz=99&format=folded";
    let second = thread::spawn(move || get(&other, target));
    assert!(samples(&get(&authority, target)) > 0);
    assert!(samples(&second.join().unwrap()) > 0);
}

#[test]
fn a_reader_that_leaves_mid_profile_frees_the_profiler_for_the_next() {
    let (agent, _turn) = profiled();
    let _busy = Busy::start();
    let authority = authority(agent);
    let waiting = |count: u64| {
        let about = get(&authority, "/debug/agent").body;
        let about: serde_json::Value = serde_json::from_str(&about).unwrap();
        about["profile_readers_waiting"] == count
    };
    for how in [Shutdown::Write, Shutdown::Both] {
        let mut reader = TcpStream::connect(&authority).unwrap();
        let request = "GET /debug/pprof/profile?seconds=60 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        reader.write_all(request.as_bytes()).unwrap();
        slowly("one waits", || waiting(1));
        reader.shutdown(how).unwrap();
        slowly("none waits", || waiting(0));
    }
    let next = get(&authority, "/debug/pprof/profile?seconds=1&format=folded");
    assert!(samples(&next) > 0);
}

/// [`eventually`], for questions that go over the rate-limited listener.
pub(crate) fn slowly(what: &str, holds: impl Fn() -> bool) {
    eventually(what, || {
        thread::park_timeout(Duration::from_millis(100));
        holds()
    });
}

#[test]
fn a_half_sent_head_is_closed_without_an_answer_and_not_before_its_time() {
    let agent = agent();
    let begun = Instant::now();
    let mut client = TcpStream::connect(agent.address().unwrap()).unwrap();
    client.write_all(b"GET /metrics HTTP/1.1\r\nHos").unwrap();
    let mut bytes = Vec::new();
    client
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    client.read_to_end(&mut bytes).unwrap();
    assert!(bytes.is_empty(), "{}", String::from_utf8_lossy(&bytes));
    assert!(begun.elapsed() >= Duration::from_millis(4900));
    let page = get(&authority(&agent), "/metrics").body;
    let counted = "\nagent_http_denied_total{reason=\"head_timeout\"} 1\n";
    assert!(page.contains(counted), "{page}");
}

#[test]
fn bad_parameters_are_told_the_range_and_the_value() {
    let agent = agent();
    let rows = [
        ("seconds=0", "seconds must be 1..=60 (got \"0\")"),
        ("seconds=-1", "seconds must be 1..=60 (got \"-1\")"),
        ("seconds=1e9", "seconds must be 1..=60 (got \"1e9\")"),
        ("hz=0", "hz must be 1..=250 (got \"0\")"),
        ("ago=29", "ago must be 30..=900 (got \"29\")"),
        (
            "from=5000&to=5500",
            "to must be 6000..=905000 (got \"5500\")",
        ),
    ];
    for (query, text) in rows {
        let answer = get(&authority(&agent), &format!("/debug/pprof/profile?{query}"));
        assert_eq!((answer.status, answer.body.trim_end()), (400, text));
        assert!(answer.headers.contains("\r\nx-go-pprof: 1\r\n"));
    }
    assert_eq!(get(&authority(&agent), "/no/such/path").status, 404);
}

/// These tests have the system's allocator: what they ask of the heap has no answer but how to get one.
#[test]
fn a_heap_without_the_allocator_is_503_with_the_three_lines_and_never_an_empty_profile() {
    let agent = agent();
    let lines = "\n\
        #[global_allocator]\n\
        static ALLOCATOR: streamgate_agent::ProfiledAllocator<std::alloc::System> =\n    \
            streamgate_agent::ProfiledAllocator::new(std::alloc::System);\n";
    for path in [
        "pprof/heap",
        "pprof/heap?seconds=1",
        "pprof/heap?debug=1",
        "pprof/heap?at=peak",
        "pprof/allocs",
        "pprof/allocs?format=folded",
    ] {
        let answer = get(&authority(&agent), &format!("/debug/{path}"));
        assert_eq!(answer.status, 503, "{path}: {}", answer.body);
        for header in ["x-go-pprof: 1", "content-type: text/plain; charset=utf-8"] {
            let header = format!("\r\n{header}\r\n");
            assert!(
                answer.headers.contains(&header),
                "{path}: {}",
                answer.headers
            );
        }
        assert!(answer.body.contains(lines), "{path}: {}", answer.body);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on(future: impl Future<Output = Reply>) -> Reply {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(reply) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return reply;
        }
        thread::park();
    }
}

#[test]
fn an_agent_without_a_listener_answers_a_host_without_a_runtime() {
    let shop = Agent::builder("shop").no_listener().recorder(0);
    let agent = shop.start().unwrap();
    assert_eq!(agent.address(), None);
    let ask = |target: &str| {
        let request = Request::new("GET", target).header("host", "localhost");
        block_on(agent.respond(request))
    };
    let page = ask("/metrics");
    let text = String::from_utf8_lossy(page.body()).into_owned();
    assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
    let stranger = Request::new("GET", "/metrics").header("host", "evil.example");
    assert_eq!(block_on(agent.respond(stranger)).status(), 403);
}
