//! Wall-clock profiles and the thread pages of a process whose threads do known things.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use streamgate_agent::Agent;

use crate::agent::{eventually, start};
use crate::client::{Answer, get};

/// Threads of one process are looked at by one agent at a time.
static ONE: Mutex<()> = Mutex::new(());

#[inline(never)]
fn a_task_that_burns(stop: &AtomicBool) -> u64 {
    let mut number = 1_u64;
    while !stop.load(Ordering::Relaxed) {
        number = std::hint::black_box(number.wrapping_mul(31) ^ 7);
    }
    number
}

#[inline(never)]
fn a_task_that_waits_for_a_lock(lock: &Mutex<()>) {
    drop(lock.lock().unwrap_or_else(PoisonError::into_inner));
}

/// A runtime of four workers: one burns, one waits for a lock inside its task, two are idle; and
/// threads of the host that are blocked in calls of their own.
struct Host {
    stop: Arc<AtomicBool>,
    locked: Option<MutexGuard<'static, ()>>,
    pipe: UnixStream,
    threads: Vec<JoinHandle<std::io::Result<usize>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Host {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let lock: &'static Mutex<()> = Box::leak(Box::default());
        let locked = lock.lock().unwrap();
        let burning = Arc::clone(&stop);
        runtime.spawn(async move { a_task_that_burns(&burning) });
        runtime.spawn(async move { a_task_that_waits_for_a_lock(lock) });
        let (pipe, mut end) = UnixStream::pair().unwrap();
        let reader = std::thread::Builder::new().name("host-reader".to_owned());
        let reader = reader.spawn(move || end.read(&mut [0; 8])).unwrap();
        Self {
            stop,
            locked: Some(locked),
            pipe,
            threads: vec![reader],
            _runtime: runtime,
        }
    }

    /// Says what became of the host's own read: one that was interrupted would have failed.
    fn end(mut self) {
        self.pipe.write_all(b"end").unwrap();
        for thread in self.threads.drain(..) {
            assert_eq!(thread.join().unwrap().unwrap(), 3);
        }
    }
}

/// The runtime's own drop, which comes after this, waits for its tasks.
impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.locked.take();
    }
}

/// Sum and text of the lines that hold all of the words.
fn lines<'a>(folded: &'a str, words: &[&str]) -> Vec<(&'a str, u64)> {
    let split = folded.lines().map(|line| line.rsplit_once(' ').unwrap());
    split
        .filter(|(stack, _)| words.iter().all(|word| stack.contains(word)))
        .map(|(stack, value)| (stack, value.parse().unwrap()))
        .collect()
}

fn nanos(folded: &str, words: &[&str]) -> u64 {
    lines(folded, words).iter().map(|line| line.1).sum()
}

/// A turn at looking at threads.
pub(crate) fn one() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn running_and_blocked_workers_are_told_apart_and_idle_ones_left_out() {
    let _one = one();
    let (agent, host) = (start(), Host::start());
    let address = agent.address().unwrap().to_string();
    let wall = |query: &str| -> Answer {
        let answer = get(&address, &format!("/debug/pprof/wall?seconds=2&{query}"));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    };
    let folded = wall("format=folded&hz=50").body;
    let whole = 1_500_000_000..=2_500_000_000;
    let burns = nanos(&folded, &["[running];", "a_task_that_burns"]);
    assert!(whole.contains(&burns), "{burns} of {folded}");
    let waits = nanos(&folded, &["[blocked];", "a_task_that_waits_for_a_lock"]);
    assert!(whole.contains(&waits), "{waits} of {folded}");
    let polled = lines(&folded, &["a_task_that_waits", "tokio::runtime::task"]);
    assert!(!polled.is_empty(), "no whole stack in {folded}");
    assert_eq!(nanos(&folded, &["host-reader"]), 0);
    assert_eq!(nanos(&folded, &["park_internal"]), 0, "idle: {folded}");

    let idle = wall("format=folded&idle=1").body;
    let parked = nanos(&idle, &["[blocked];"]);
    assert!(parked >= 2 * whole.start(), "{parked} of {idle}");
    let other = wall("format=folded&threads=host-re").body;
    let read = nanos(&other, &["[blocked];[blocked: "]);
    assert!(whole.contains(&read), "{other}");
    let pprof = wall("hz=5");
    assert!(pprof.headers.contains("application/octet-stream"));
    host.end();
}

#[test]
fn looking_interrupts_no_call_of_the_host() {
    let _one = one();
    let (agent, host) = (start(), Host::start());
    let address = agent.address().unwrap().to_string();
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, errors) = mpsc::channel();
    let waiting = {
        let stop = Arc::clone(&stop);
        let (mut quiet, other) = UnixStream::pair().unwrap();
        // A read with a time limit ends with EINTR at any signal, whatever the signal's flags.
        let limit = Some(Duration::from_millis(300));
        quiet.set_read_timeout(limit).unwrap();
        let thread = std::thread::Builder::new().name("host-waiter".to_owned());
        let waiter = move || {
            while !stop.load(Ordering::Relaxed) {
                let error = quiet.read(&mut [0; 8]).unwrap_err();
                if error.kind() != std::io::ErrorKind::WouldBlock {
                    sender.send(error).unwrap();
                }
            }
            drop(other);
        };
        thread.spawn(waiter).unwrap()
    };
    let answer = get(
        &address,
        "/debug/pprof/wall?seconds=3&hz=99&threads=all&format=folded",
    );
    assert_eq!(answer.status, 200, "{}", answer.body);
    let waited = nanos(&answer.body, &["[blocked: re"]);
    assert!(waited > 4_000_000_000, "{}", answer.body);
    assert_eq!(nanos(&answer.body, &["sg-"]), 0, "the agent's own threads");
    stop.store(true, Ordering::Relaxed);
    waiting.join().unwrap();
    assert_eq!(errors.try_iter().count(), 0, "EINTR in the host's read");
    host.end();
}

#[test]
fn the_thread_pages_show_every_thread_with_its_call_and_stack() {
    let _one = one();
    let (agent, host) = (start(), Host::start());
    let address = agent.address().unwrap().to_string();
    let page = |target: &str| get(&address, &format!("/debug/pprof/{target}")).body;
    // A busy machine may not let the burning task answer in time.
    let mut each = String::new();
    eventually("the burning task is seen in its stack", || {
        each = page("threads?debug=2");
        each.contains("a_task_that_burns")
    });
    let blocks: Vec<&str> = each.split("\n\n").collect();
    let block = |words: &[&str]| {
        let found = blocks
            .iter()
            .find(|block| words.iter().all(|word| block.contains(word)));
        *found.unwrap_or_else(|| panic!("no {words:?} in {each}"))
    };
    assert!(block(&["\"host-reader\"", "[sleeping: "]).contains("[blocked: "));
    block(&[
        "\"tokio-rt-worker\" [sleeping: futex",
        "a_task_that_waits_for_a_lock",
    ]);
    block(&["\"sg-serve\""]);
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    assert!(blocks.len() + 20 > threads, "{threads} threads, {each}");
    let grouped = page("threads?debug=1");
    assert!(grouped.starts_with("threads profile: total "), "{grouped}");
    assert!(grouped.contains("tests/it/wall.rs:"), "{grouped}");
    let names = page("threadcreate?debug=1");
    let workers = names.lines().zip(names.lines().skip(1));
    let mut workers = workers.filter(|(_, name)| *name == "#\ttokio-rt-worker");
    let count = workers.next().unwrap().0.split(' ').next().unwrap();
    assert!(count.parse::<u32>().unwrap() >= 4, "{names}");
    host.end();
}

#[test]
fn a_name_that_no_thread_has_is_an_error_and_not_an_empty_profile() {
    let _one = one();
    let agent = Agent::builder("test")
        .listen(([127, 0, 0, 1], 0).into())
        .recorder(0)
        .start()
        .unwrap();
    let address = agent.address().unwrap().to_string();
    let answer = get(&address, "/debug/pprof/wall?seconds=1&threads=nobody");
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("begins with \"nobody\""),
        "{}",
        answer.body
    );
}
