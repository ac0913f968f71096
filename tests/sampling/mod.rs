//! A profile through the public API, read by a decoder of our own, and work measured by the kernel.
#![allow(
    dead_code,
    clippy::print_stderr,
    reason = "each binary uses its part, and says what it had to repeat"
)]

mod proto;

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use flate2::read::GzDecoder;
use prost::Message as _;
use rustix::time::{ClockId, clock_gettime};
use streamgate_agent::{Agent, AgentHandle, Request};

/// A function on a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) name: String,
    /// As the compiler mangled it; empty where the name says it all.
    pub(crate) system_name: String,
    pub(crate) file: String,
    pub(crate) line: i64,
    /// The file name of what it was loaded from, without directories.
    pub(crate) object: String,
    /// The compiler put it into the next frame's function.
    pub(crate) inlined: bool,
}

/// One stack of one thread.
#[derive(Debug, Clone)]
pub(crate) struct Stack {
    pub(crate) samples: i64,
    /// One per column, of which the first are the samples.
    pub(crate) values: Vec<i64>,
    pub(crate) thread: String,
    /// All string labels, the thread's name among them.
    pub(crate) labels: HashMap<String, String>,
    /// Leaf first.
    pub(crate) frames: Vec<Frame>,
    /// The frames' names.
    pub(crate) names: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Profile {
    pub(crate) stacks: Vec<Stack>,
    pub(crate) comments: Vec<String>,
    /// The window's end, since 1970.
    pub(crate) end: Duration,
}

impl Profile {
    pub(crate) fn decode(body: &[u8]) -> Self {
        let mut raw = Vec::new();
        GzDecoder::new(body).read_to_end(&mut raw).unwrap();
        let profile = proto::Profile::decode(&*raw).unwrap();
        let text = |place: i64| profile.string_table[usize::try_from(place).unwrap()].clone();
        let at = |id: u64| usize::try_from(id).unwrap() - 1;
        let frames = |id: &u64| {
            let location = &profile.location[at(*id)];
            let mapping = location.mapping_id.checked_sub(1);
            let mapping = mapping.map(|place| &profile.mapping[usize::try_from(place).unwrap()]);
            let object = mapping.map_or(String::new(), |mapping| text(mapping.filename));
            let outermost = location.line.len().saturating_sub(1);
            let lines = location.line.iter().enumerate();
            let frame = |(place, line): (usize, &proto::Line)| {
                let function = &profile.function[at(line.function_id)];
                Frame {
                    name: text(function.name),
                    system_name: text(function.system_name),
                    file: text(function.filename),
                    line: line.line,
                    object: object.rsplit('/').next().unwrap().to_owned(),
                    inlined: place < outermost,
                }
            };
            lines.map(frame).collect::<Vec<_>>()
        };
        let stack = |sample: &proto::Sample| {
            let labels = sample.label.iter().filter(|label| label.str != 0);
            let labels: HashMap<String, String> = labels
                .map(|label| (text(label.key), text(label.str)))
                .collect();
            let frames: Vec<Frame> = sample.location_id.iter().flat_map(frames).collect();
            Stack {
                samples: sample.value[0],
                values: sample.value.clone(),
                thread: labels.get("thread").cloned().unwrap_or_default(),
                labels,
                names: frames.iter().map(|frame| frame.name.clone()).collect(),
                frames,
            }
        };
        Self {
            stacks: profile.sample.iter().map(stack).collect(),
            comments: profile.comment.iter().map(|place| text(*place)).collect(),
            end: Duration::from_nanos(
                u64::try_from(profile.time_nanos + profile.duration_nanos).unwrap(),
            ),
        }
    }

    /// Samples of the threads of this name.
    pub(crate) fn of(&self, thread: &str) -> f64 {
        self.sum(|stack| stack.thread == thread)
    }

    pub(crate) fn sum(&self, filter: impl Fn(&Stack) -> bool) -> f64 {
        let stacks = self.stacks.iter().filter(|stack| filter(stack));
        let samples: i64 = stacks.map(|stack| stack.samples).sum();
        f64::from(i32::try_from(samples).unwrap())
    }

    /// Samples with this label.
    pub(crate) fn labelled(&self, key: &str, value: &str) -> f64 {
        self.sum(|stack| stack.labels.get(key).is_some_and(|held| held == value))
    }

    /// Samples that no signal stood for, as the comments say.
    pub(crate) fn unseen(&self) -> f64 {
        let mut lines = self.comments.iter();
        let unseen = lines.find_map(|line| line.split_once(" samples were due of threads"));
        unseen.map_or(0.0, |(number, _)| number.parse().unwrap())
    }

    /// What the comments say was lost for a reason.
    pub(crate) fn lost(&self, reason: &str) -> u64 {
        let lines = self.comments.iter();
        let mut lost = lines.filter_map(|line| {
            line.strip_prefix("lost ")?
                .strip_suffix(&format!(" samples: {reason}"))?
                .parse()
                .ok()
        });
        lost.next().unwrap_or(0)
    }
}

/// One sampler per process: tests that use it take turns.
static ONE: Mutex<()> = Mutex::new(());

/// The turn of one test, whether or not an earlier one failed in its own.
pub(crate) fn serial() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Work on a thread of this name.
pub(crate) fn named<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(work).unwrap()
}

/// Samples only while a profile is being taken, so that a test can tell when that is; and at the rate
/// asked for although an unoptimised unwinder is dear.
pub(crate) fn agent() -> AgentHandle {
    let agent = Agent::builder("truth").no_listener().high_rate(true);
    let agent = agent.profile_raises(600).heap_sampling(0);
    agent.recorder(0).profiling_budget(0.5).start().unwrap()
}

/// A profile that is being taken.
pub(crate) struct Taking(Receiver<Result<Profile, String>>);

/// Asks for a profile and returns once sampling goes on.
pub(crate) fn take(agent: &AgentHandle, hertz: u32, seconds: u32) -> Taking {
    let taking = ask(agent, hertz, seconds);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !threads().iter().any(|name| name == "sg-watch") {
        if let Ok(answer) = taking.0.try_recv() {
            panic!("no profile: {:?}", answer.map(|profile| profile.comments));
        }
        assert!(
            Instant::now() < deadline,
            "sampling does not begin: {:?}",
            threads()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    taking
}

/// Windows, in seconds, and which of them held the work the last time.
const WINDOWS: [u32; 5] = [3, 6, 12, 24, 48];
static HELD: AtomicUsize = AtomicUsize::new(0);

/// A profile that holds work from its beginning to its end, and what the work returned. `prepare` runs
/// before the window, so that threads made there are known when it begins.
///
/// A busy machine may take long for the work: then the profile says nothing, and a longer one is
/// taken of the work anew.
pub(crate) fn during<P, T>(
    agent: &AgentHandle,
    hertz: u32,
    mut prepare: impl FnMut() -> P,
    mut work: impl FnMut(P) -> T,
) -> (Profile, T) {
    let first = HELD.load(Ordering::Relaxed);
    for (place, seconds) in WINDOWS.into_iter().enumerate().skip(first) {
        let prepared = prepare();
        let taking = take(agent, hertz, seconds);
        let done = work(prepared);
        let ended = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let profile = taking.profile();
        if ended <= profile.end {
            return (profile, done);
        }
        eprintln!("work outlived a window of {seconds} s");
        HELD.store(place + 1, Ordering::Relaxed);
    }
    panic!("the machine is too busy for any window");
}

pub(crate) fn ask(agent: &AgentHandle, hertz: u32, seconds: u32) -> Taking {
    let target = format!("/debug/pprof/profile?seconds={seconds}&hz={hertz}");
    let (sender, receiver) = channel();
    let agent = agent.clone();
    std::thread::spawn(move || {
        let request = Request::new("GET", &target).header("host", "localhost");
        let reply = futures_executor::block_on(agent.respond(request));
        let answer = if reply.status() == 200 {
            Ok(Profile::decode(reply.body()))
        } else {
            Err(String::from_utf8_lossy(reply.body()).into_owned())
        };
        drop(sender.send(answer));
    });
    Taking(receiver)
}

impl Taking {
    /// Whether sampling goes on.
    pub(crate) fn goes_on(&self) -> bool {
        threads().iter().any(|name| name == "sg-watch")
    }

    pub(crate) fn profile(self) -> Profile {
        self.answer().unwrap()
    }

    pub(crate) fn answer(self) -> Result<Profile, String> {
        self.0.recv_timeout(Duration::from_secs(240)).unwrap()
    }
}

/// The names of this process's threads.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        let name = std::fs::read_to_string(task.ok()?.path().join("comm")).ok()?;
        Some(name.trim().to_owned())
    };
    tasks.filter_map(name).collect()
}

/// CPU time that the running thread has used, as the kernel counts it.
pub(crate) fn own_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

/// Works until the running thread has used this much CPU time more; says how much it was.
pub(crate) fn burn(time: Duration) -> Duration {
    let start = own_cpu();
    let mut sum = 1_u64;
    while own_cpu() - start < time {
        sum = spin(sum);
    }
    std::hint::black_box(sum);
    own_cpu() - start
}

#[inline(never)]
pub(crate) fn spin(sum: u64) -> u64 {
    let mut sum = sum;
    for step in 0..4000_u64 {
        sum = std::hint::black_box(sum.wrapping_mul(31) ^ step);
    }
    sum
}

/// The kernel looks at CPU clocks this often.
pub(crate) fn tick() -> Duration {
    let resolution = rustix::time::clock_getres(ClockId::MonotonicCoarse);
    Duration::try_from(resolution).unwrap()
}

/// Samples by which a total of `threads` independent timers may be off: four standard deviations. Each
/// timer's phase at the start, the tick at which it is seen, and the same at the end are uniform.
pub(crate) fn tolerance(threads: f64, hertz: u32) -> f64 {
    let ticks = tick().as_secs_f64() * f64::from(hertz);
    4.0 * (threads * (1.0 + ticks * ticks) / 6.0).sqrt()
}
