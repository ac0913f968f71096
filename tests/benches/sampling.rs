//! What CPU samples cost: the sampled thread's CPU time for a fixed amount of work with sampling off
//! and on, the agent's own CPU time beside it, and the `pprof` crate's in the same rounds.
//!
//! One long-lived thread works in pieces of equal size; who samples it changes every few seconds, in
//! an order that moves on each round, so that the machine's drift and the age of the heap hit all
//! alike. `off` is there twice: what differs between the two is noise.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench"
)]

#[path = "bare.rs"]
mod bare;
#[path = "../sampling/mod.rs"]
mod sampling;

use std::alloc::System;
use std::collections::BTreeMap;
use std::fs;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use sampling::{agent, own_cpu, spin, take};
use streamgate_agent::bench_door::{CopiedStacks, StackCost, cpu_signals, handler_costs};
use streamgate_agent::{Agent, AgentHandle, ProfiledAllocator};

/// So that the idle agent has its thread for the heap; where CPU samples are timed, the heap is not sampled.
#[global_allocator]
static ALLOCATOR: ProfiledAllocator<System> = ProfiledAllocator::new(System);

/// How long each contender samples per round, in seconds: short, so that a change of the machine's
/// clock meets all contenders.
const WINDOW: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Off,
    OffAgain,
    /// A timer on the thread and a handler that only counts: what the kernel takes by itself.
    Bare(u32),
    Ours(u32),
    PprofCrate(i32),
}

const CONTENDERS: [Contender; 9] = [
    Contender::Off,
    Contender::Ours(19),
    Contender::Bare(99),
    Contender::Ours(99),
    Contender::PprofCrate(99),
    Contender::OffAgain,
    Contender::Bare(999),
    Contender::Ours(999),
    Contender::PprofCrate(999),
];

impl Contender {
    /// The rate of a timer that the sampled thread starts itself.
    fn bare(self) -> Option<u32> {
        match self {
            Self::Bare(hertz) => Some(hertz),
            _ => None,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::OffAgain => "off, again".to_owned(),
            Self::Bare(hertz) => format!("empty handler, {hertz} Hz"),
            Self::Ours(hertz) => format!("ours, {hertz} Hz"),
            Self::PprofCrate(hertz) => format!("`pprof` crate, {hertz} Hz"),
        }
    }
}

/// Allocator-heavy work some 40 calls deep, as services have it.
#[inline(never)]
fn deep(left: u32, held: &mut Vec<Vec<u8>>) -> u64 {
    if left > 0 {
        // Without it the compiler makes a loop of this, and no stack is deep.
        return std::hint::black_box(deep(left - 1, held)).wrapping_add(u64::from(left));
    }
    let mut sum = 1;
    for (place, block) in held.iter_mut().enumerate() {
        *block = vec![7_u8; 64 + place * 97].clone();
        sum ^= u64::from(block[3]);
    }
    spin(sum)
}

/// CPU seconds of one piece of work.
fn piece(held: &mut Vec<Vec<u8>>) -> f64 {
    let start = own_cpu();
    for _ in 0..200 {
        for depth in [10, 20, 40] {
            std::hint::black_box(deep(depth, held));
        }
    }
    (own_cpu() - start).as_secs_f64()
}

/// What samples took from the running thread, seen by the thread itself.
///
/// It reads 24 KiB again and again, a set that just fits the first-level cache, and takes the time of
/// each pass by its own CPU clock. One in which a sample was taken is longer than its neighbours by the
/// tick, the signal's way through the kernel, the handler, and by what had to be read into the cache
/// again.
#[derive(Debug, Default)]
struct Interrupted {
    seconds: f64,
    samples: u32,
    /// Microseconds by which passes with a sample were longer than their neighbours' median.
    sampled: Vec<f64>,
    /// The same of long passes without a sample: ticks and other interruptions.
    others: Vec<f64>,
}

fn interrupted(time: Duration) -> Interrupted {
    let set = vec![1_u64; 3072];
    let fired = || bare::fired() + cpu_signals().map_or(0, |[fired, ..]| fired);
    let micros = |time: Duration| 1e6 * time.as_secs_f64();
    let mut seen = Interrupted::default();
    let start = Instant::now();
    while start.elapsed() < time {
        let mut passes = [(0.0, 0.0, false); 500];
        let mut before = (own_cpu(), Instant::now(), fired());
        for (cpu, wall, is_sampled) in &mut passes {
            let sum: u64 = std::hint::black_box(&set).iter().step_by(8).sum();
            std::hint::black_box(sum);
            let now = (own_cpu(), Instant::now(), fired());
            *cpu = micros(now.0 - before.0);
            *wall = micros(now.1 - before.1);
            *is_sampled = now.2 != before.2;
            before = now;
        }
        let usual = median(passes.iter().map(|(cpu, ..)| *cpu).collect());
        for pair in passes.windows(2) {
            let ((cpu, wall, is_sampled), next) = (pair[0], pair[1]);
            seen.seconds += cpu / 1e6;
            seen.samples += u32::from(is_sampled);
            if wall > cpu + 20.0 || next.1 > next.0 + 20.0 {
                // Another process had its turn and left its own data in the caches.
                continue;
            }
            if is_sampled {
                // The signal may have fallen between the clock and the count.
                seen.sampled.push(cpu + next.0 - 2.0 * usual);
            } else if !next.2 && cpu > usual + 0.5 {
                seen.others.push(cpu - usual);
            }
        }
    }
    seen
}

/// The thread that works while it is told to.
struct Worker {
    go: Sender<Option<u32>>,
    busy: Arc<AtomicBool>,
    pieces: Receiver<Vec<f64>>,
}

impl Worker {
    fn start() -> Self {
        let (go, wait) = channel::<Option<u32>>();
        let (done, pieces) = channel();
        let busy = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&busy);
        let work = move || {
            let mut held = vec![Vec::new(); 32];
            while let Ok(bare) = wait.recv() {
                let _timer = bare.map(bare::Timer::start);
                let mut times = Vec::new();
                while told.load(Ordering::Relaxed) {
                    times.push(piece(&mut held));
                }
                done.send(times).unwrap();
            }
        };
        let thread = std::thread::Builder::new().name("work".to_owned());
        thread.spawn(work).unwrap();
        Self { go, busy, pieces }
    }

    /// CPU seconds of the pieces that were done in this time, under a bare timer of this rate.
    fn work(&self, time: Duration, bare: Option<u32>) -> Vec<f64> {
        self.busy.store(true, Ordering::Relaxed);
        self.go.send(bare).unwrap();
        std::thread::sleep(time);
        self.busy.store(false, Ordering::Relaxed);
        self.pieces.recv().unwrap()
    }
}

/// CPU seconds of the agent's threads that live now and whose name begins like this.
fn agents(prefix: &str) -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let spent = |task: std::io::Result<fs::DirEntry>| {
        let task = task.ok()?.path();
        let name = fs::read_to_string(task.join("comm")).ok()?;
        let stat = fs::read_to_string(task.join("schedstat")).ok()?;
        let nanos: f64 = stat.split_whitespace().next()?.parse().ok()?;
        name.starts_with(prefix).then_some(nanos / 1e9)
    };
    tasks.filter_map(spent).sum()
}

/// The agent's threads: those that sample, then all.
const AGENTS: [&str; 3] = ["sg-profile", "sg-watch", "sg-"];

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// One contender's rounds.
#[derive(Debug, Default)]
struct Rounds {
    /// CPU seconds of every piece.
    pieces: Vec<f64>,
    /// Mean CPU seconds of a piece, by round.
    means: Vec<f64>,
    /// Share of the work's CPU time that the agent's threads used, by round.
    agents: [Vec<f64>; 3],
}

/// Runs `work` for most of a window in which the contender samples.
fn under<T>(contender: Contender, agent: &AgentHandle, work: impl FnOnce(Duration) -> T) -> T {
    let window = Duration::from_secs(u64::from(WINDOW)).mul_f64(0.9);
    let taking = match contender {
        Contender::Ours(hertz) => Some(take(agent, hertz, WINDOW)),
        _ => None,
    };
    let guard = match contender {
        Contender::PprofCrate(hertz) => {
            let builder = pprof::ProfilerGuardBuilder::default().frequency(hertz);
            let builder = builder.blocklist(&["libc", "libgcc", "pthread", "vdso", "ld-linux"]);
            Some(builder.build().unwrap())
        }
        _ => None,
    };
    let done = work(window);
    drop(guard);
    if let Some(taking) = taking {
        assert!(taking.profile().sum(|_| true) > 0.0);
    }
    done
}

fn round(contender: Contender, agent: &AgentHandle, worker: &Worker, rounds: &mut Rounds) {
    let (pieces, own) = under(contender, agent, |window| {
        let before = AGENTS.map(agents);
        let pieces = worker.work(window, contender.bare());
        (
            pieces,
            AGENTS
                .map(agents)
                .iter()
                .zip(before)
                .map(|(now, before)| now - before)
                .collect::<Vec<f64>>(),
        )
    });
    let total: f64 = pieces.iter().sum();
    let count = f64::from(u32::try_from(pieces.len()).unwrap());
    rounds.means.push(total / count);
    for (rounds, own) in rounds.agents.iter_mut().zip(own) {
        rounds.push(100.0 * own / total);
    }
    rounds.pieces.extend(pieces);
}

/// What samples take from the thread that they interrupt.
fn interruptions(agent: &AgentHandle, count: usize) {
    println!("\n### What a sample takes from its thread, {count} rounds of {WINDOW} s\n");
    println!(
        "| contender | samples per CPU-second | 1 of 10 below, us | median | 9 of 10 below | of its CPU | other interruptions, us |"
    );
    println!("|---|---|---|---|---|---|---|");
    let all = [19, 99, 999].map(|hertz| [Contender::Bare(hertz), Contender::Ours(hertz)]);
    let all = all.into_iter().flatten();
    let mut all: Vec<_> = all.map(|it| (it, Interrupted::default())).collect();
    for _ in 0..count {
        for (contender, sum) in &mut all {
            let one = under(*contender, agent, |window| {
                let _timer = contender.bare().map(bare::Timer::start);
                interrupted(window)
            });
            sum.seconds += one.seconds;
            sum.samples += one.samples;
            sum.sampled.extend(one.sampled);
            sum.others.extend(one.others);
        }
    }
    for (contender, mut sum) in all {
        sum.sampled.sort_by(f64::total_cmp);
        let number = sum.sampled.len();
        let each = sum.sampled[number / 2];
        let per_second = f64::from(sum.samples) / sum.seconds;
        println!(
            "| {} | {per_second:.0} | {:.2} | {each:.2} | {:.2} | {:.3} % | {:.2} |",
            contender.name(),
            sum.sampled[number / 10],
            sum.sampled[number * 9 / 10],
            per_second * each / 1e4,
            median(sum.others),
        );
    }
}

fn overhead(agent: &AgentHandle, count: usize) {
    let worker = Worker::start();
    let mut all: Vec<Rounds> = CONTENDERS.iter().map(|_| Rounds::default()).collect();
    // Symbols are read and the heap has grown before anything is timed.
    for place in [3, 0] {
        round(CONTENDERS[place], agent, &worker, &mut Rounds::default());
    }
    for turn in 0..count {
        for step in 0..CONTENDERS.len() {
            let place = (turn + step) % CONTENDERS.len();
            round(CONTENDERS[place], agent, &worker, &mut all[place]);
        }
    }
    println!("\n### What sampling costs the work, {count} rounds of {WINDOW} s\n");
    println!(
        "| contender | CPU of a piece, ms | slower, median piece | slower, median round | least–most | sg-profile | sg-watch | all agent's threads |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let off = median(all[0].pieces.clone());
    for (contender, rounds) in CONTENDERS.iter().zip(&all) {
        let ratios = rounds.means.iter().zip(&all[0].means).zip(&all[5].means);
        let mut slower: Vec<f64> = ratios
            .map(|((mean, off), again)| 100.0 * (2.0 * mean / (off + again) - 1.0))
            .collect();
        slower.sort_by(f64::total_cmp);
        let piece = median(rounds.pieces.clone());
        println!(
            "| {} | {:.3} | {:+.2} % | {:+.2} % | {:+.2}–{:+.2} | {:.2} % | {:.2} % | {:.2} % |",
            contender.name(),
            1e3 * piece,
            100.0 * (piece / off - 1.0),
            median(slower.clone()),
            slower[0],
            slower[slower.len() - 1],
            median(rounds.agents[0].clone()),
            median(rounds.agents[1].clone()),
            median(rounds.agents[2].clone()),
        );
    }
}

/// How long the idle agent is looked at.
const IDLE: Duration = Duration::from_secs(10);

/// Share of a core that the agent's threads use while nobody asks for anything and nothing runs.
fn idle(name: &str, looks: usize) {
    let threads = ["sg-", "sg-collect", "sg-watch", "sg-profile", "sg-heap"];
    let mut shares = threads.map(|_| Vec::new());
    for _ in 0..looks {
        let before = threads.map(agents);
        std::thread::sleep(IDLE);
        for ((shares, now), before) in shares.iter_mut().zip(threads.map(agents)).zip(before) {
            shares.push(100.0 * (now - before) / IDLE.as_secs_f64());
        }
    }
    let (least, most) = shares[0]
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), share| {
            (least.min(*share), most.max(*share))
        });
    let cells: Vec<String> = shares
        .map(|shares| format!("{:.3} %", median(shares)))
        .into();
    println!("| {name} | {} | {least:.3}–{most:.3} |", cells.join(" | "));
}

fn idles(looks: usize) {
    println!("\n### Idle agent, share of a core, {looks} looks of {IDLE:?}\n");
    println!(
        "| idle | all, median | sg-collect | sg-watch | sg-profile | sg-heap | least–most of all |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, recorder, heap, has_runtime) in [
        (
            "CPU at 19 Hz and the heap, in a tokio runtime",
            19,
            512 << 10,
            true,
        ),
        ("CPU at 19 Hz and the heap", 19, 512 << 10, false),
        ("CPU at 19 Hz", 19, 0, false),
        ("the heap", 0, 512 << 10, false),
        ("nothing", 0, 0, false),
    ] {
        let runtime = has_runtime.then(|| {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .build()
                .unwrap()
        });
        let _inside = runtime.as_ref().map(tokio::runtime::Runtime::enter);
        let agent = Agent::builder("idle").no_listener().recorder(recorder);
        let agent = agent.heap_sampling(heap).start().unwrap();
        idle(name, looks);
        agent.shutdown_blocking(Duration::from_secs(10));
    }
}

/// A chain of distinct futures, each of which allocates and formats after the next was awaited, as
/// handlers and their layers do.
macro_rules! layers {
    ($name:ident) => {
        async fn $name(left: u64) -> u64 { texts(left) }
    };
    ($name:ident $next:ident $($rest:ident)*) => {
        #[inline(never)]
        fn $name(left: u64) -> Pin<Box<dyn Future<Output = u64> + Send>> {
            Box::pin(async move {
                if left == 0 {
                    return texts(1);
                }
                let inner: Pin<Box<dyn Future<Output = u64> + Send>> = Box::pin($next(left - 1));
                let sum = inner.await;
                tokio::task::yield_now().await;
                sum ^ texts(sum ^ stringify!($name).len() as u64)
            })
        }
        layers!($next $($rest)*);
    };
}

layers!(
    l00 l01 l02 l03 l04 l05 l06 l07 l08 l09 l10 l11 l12 l13 l14 l15 l16 l17 l18 l19 l20 l21 l22 l23
    l24 l25 l26 l27 l28 l29 l30 l31 l32 l33 l34 l35 l36 l37 l38 l39 l40 l41 l42 l43 l44 l45 l46 l47
);

/// Some work in the standard library, a few calls deep.
#[inline(never)]
fn texts(seed: u64) -> u64 {
    let mut names: Vec<String> = (0..12)
        .map(|n| format!("/content/{}/{:x}", seed.wrapping_mul(n) % 977, seed ^ n))
        .collect();
    names.sort();
    let map: BTreeMap<&str, usize> = names.iter().map(|name| (&**name, name.len())).collect();
    let text = serde_json::to_string(&map).unwrap();
    let back: serde_json::Value = serde_json::from_str(&text).unwrap();
    spin(back.as_object().unwrap().len() as u64 ^ seed) & 0xff
}

/// The cost of one sample's steps in isolation.
fn steps() {
    println!("\n### One sample, step by step\n");
    println!("| step | median, us | 9 of 10 below |");
    println!("|---|---|---|");
    let row = |name: &str, mut costs: Vec<f64>| {
        costs.sort_by(f64::total_cmp);
        let (half, most) = (costs[costs.len() / 2], costs[costs.len() * 9 / 10]);
        println!("| {name} | {:.2} | {:.2} |", 1e6 * half, 1e6 * most);
    };
    let handler = |sweep: usize| {
        let thread = std::thread::spawn(move || {
            let mut memory = vec![1_u8; sweep];
            handler_costs(2000, || {
                for byte in memory.iter_mut().step_by(64) {
                    *byte = byte.wrapping_add(1);
                }
            })
        });
        thread.join().unwrap().unwrap()
    };
    row("handler, caches warm", handler(0));
    row("handler, 1 MiB written before", handler(1 << 20));
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).build().unwrap();
    let mut turns = 0_u64;
    let mut copies = CopiedStacks::take(|| {
        let tasks = (0..8).map(|task| runtime.spawn(l00((turns + task * 7) % 47)));
        let tasks: Vec<_> = tasks.collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
        turns += 1;
        turns < 2500
    })
    .unwrap();
    for pass in ["first", "second"] {
        let costs = copies.unwind();
        let of = |step: fn(&StackCost) -> f64| costs.iter().map(step).collect();
        row(&format!("unwinding, {pass} time"), of(|cost| cost.unwind));
        row(&format!("keeping, {pass} time"), of(|cost| cost.keep));
        if pass == "second" {
            let mut frames: Vec<usize> = costs.iter().map(|cost| cost.frames).collect();
            let mut bytes: Vec<usize> = costs.iter().map(|cost| cost.bytes).collect();
            frames.sort_unstable();
            bytes.sort_unstable();
            let whole = costs.iter().filter(|cost| cost.whole).count();
            println!(
                "\n{} stacks, {whole} whole; frames {} in the median, at most {}; bytes copied {} in the \
                 median, at most {}",
                frames.len(),
                frames[frames.len() / 2],
                frames[frames.len() - 1],
                bytes[bytes.len() / 2],
                bytes[bytes.len() - 1],
            );
        }
    }
}

fn main() {
    let rounds = std::env::var("ROUNDS").map_or(3, |text| text.parse().unwrap());
    let only: Vec<String> = std::env::args().skip(1).collect();
    let only: Vec<_> = only.iter().filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |part: &str| only.is_empty() || only.iter().any(|arg| *arg == part);
    if is_wanted("steps") {
        steps();
    }
    if is_wanted("idle") {
        idles(rounds);
    }
    let agent = agent();
    if is_wanted("interruptions") {
        interruptions(&agent, rounds);
    }
    if is_wanted("work") {
        overhead(&agent, rounds);
    }
}
