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

#[path = "../sampling/mod.rs"]
mod sampling;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use sampling::{agent, own_cpu, spin, take};
use streamgate_agent::AgentHandle;

/// How long each contender samples per round, in seconds.
const WINDOW: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Off,
    OffAgain,
    Ours(u32),
    PprofCrate(i32),
}

const CONTENDERS: [Contender; 7] = [
    Contender::Off,
    Contender::Ours(19),
    Contender::Ours(99),
    Contender::Ours(999),
    Contender::OffAgain,
    Contender::PprofCrate(99),
    Contender::PprofCrate(999),
];

impl Contender {
    fn name(self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::OffAgain => "off, again".to_owned(),
            Self::Ours(hertz) => format!("ours, {hertz} Hz"),
            Self::PprofCrate(hertz) => format!("`pprof` crate, {hertz} Hz"),
        }
    }
}

/// Allocator-heavy work some 40 calls deep, as services have it.
#[inline(never)]
fn deep(left: u32, held: &mut Vec<Vec<u8>>) -> u64 {
    if left > 0 {
        return deep(left - 1, held).wrapping_add(u64::from(left));
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

/// Time that the running thread lost to whatever interrupted it, seen by the thread itself.
///
/// It reads 24 KiB again and again, a set that just fits the first-level cache, and takes the time of
/// each pass: one that was interrupted takes longer by the interruption and by what had to be read
/// into the cache again. A pass of more than 100 us was another process's turn.
#[derive(Debug, Default)]
struct Interrupted {
    seconds: f64,
    /// Microseconds by which passes were longer than their neighbours' median.
    excess: Vec<f64>,
}

fn interrupted(time: Duration) -> Interrupted {
    let set = vec![1_u64; 3072];
    let mut seen = Interrupted::default();
    let start = Instant::now();
    while start.elapsed() < time {
        let mut passes = [0.0; 500];
        let mut before = Instant::now();
        for pass in &mut passes {
            let sum: u64 = std::hint::black_box(&set).iter().step_by(8).sum();
            std::hint::black_box(sum);
            let now = Instant::now();
            *pass = 1e6 * (now - before).as_secs_f64();
            before = now;
        }
        let usual = median(passes.to_vec());
        let long = passes.iter().map(|pass| pass - usual);
        let within: f64 = passes.iter().filter(|pass| **pass < 100.0).sum();
        seen.seconds += within / 1e6;
        seen.excess
            .extend(long.filter(|excess| (0.5..100.0).contains(excess)));
    }
    seen
}

/// The thread that works while it is told to.
struct Worker {
    go: Sender<()>,
    busy: Arc<AtomicBool>,
    pieces: Receiver<Vec<f64>>,
}

impl Worker {
    fn start() -> Self {
        let (go, wait) = channel();
        let (done, pieces) = channel();
        let busy = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&busy);
        let work = move || {
            let mut held = vec![Vec::new(); 32];
            while wait.recv().is_ok() {
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

    /// CPU seconds of the pieces that were done in this time.
    fn work(&self, time: Duration) -> Vec<f64> {
        self.busy.store(true, Ordering::Relaxed);
        self.go.send(()).unwrap();
        std::thread::sleep(time);
        self.busy.store(false, Ordering::Relaxed);
        self.pieces.recv().unwrap()
    }
}

/// CPU seconds of the agent's threads that live now.
fn agents() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let spent = |task: std::io::Result<fs::DirEntry>| {
        let task = task.ok()?.path();
        let name = fs::read_to_string(task.join("comm")).ok()?;
        let stat = fs::read_to_string(task.join("schedstat")).ok()?;
        let nanos: f64 = stat.split_whitespace().next()?.parse().ok()?;
        name.starts_with("sg-").then_some(nanos / 1e9)
    };
    tasks.filter_map(spent).sum()
}

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
    agents: Vec<f64>,
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
        let before = agents();
        let pieces = worker.work(window);
        (pieces, agents() - before)
    });
    let total: f64 = pieces.iter().sum();
    let count = f64::from(u32::try_from(pieces.len()).unwrap());
    rounds.means.push(total / count);
    rounds.agents.push(100.0 * own / total);
    rounds.pieces.extend(pieces);
}

/// What one thread loses to interruptions.
fn interruptions(agent: &AgentHandle, count: usize) {
    let mut all: Vec<Vec<Interrupted>> = CONTENDERS.iter().map(|_| Vec::new()).collect();
    for turn in 0..count {
        for step in 0..CONTENDERS.len() {
            let place = (turn + step) % CONTENDERS.len();
            all[place].push(under(CONTENDERS[place], agent, interrupted));
        }
    }
    println!("\n### What a thread loses to interruptions, {count} rounds of {WINDOW} s\n");
    println!("| contender | interruptions/s | median, us | lost | more than off |");
    println!("|---|---|---|---|---|");
    let lost = |rounds: &[Interrupted]| {
        median(
            rounds
                .iter()
                .map(|one| one.excess.iter().sum::<f64>() / 1e4 / one.seconds)
                .collect(),
        )
    };
    let off = lost(&all[0]).midpoint(lost(&all[4]));
    for (contender, rounds) in CONTENDERS.iter().zip(&all) {
        let seconds: f64 = rounds.iter().map(|one| one.seconds).sum();
        let excess: Vec<f64> = rounds.iter().flat_map(|one| one.excess.clone()).collect();
        let number = f64::from(u32::try_from(excess.len()).unwrap());
        println!(
            "| {} | {:.0} | {:.2} | {:.3} % | {:+.3} % |",
            contender.name(),
            number / seconds,
            median(excess),
            lost(rounds),
            lost(rounds) - off,
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
        "| contender | CPU of a piece, ms | slower, median piece | slower, median round | least–most | agent's threads |"
    );
    println!("|---|---|---|---|---|---|");
    let off = median(all[0].pieces.clone());
    for (contender, rounds) in CONTENDERS.iter().zip(&all) {
        let ratios = rounds.means.iter().zip(&all[0].means).zip(&all[4].means);
        let mut slower: Vec<f64> = ratios
            .map(|((mean, off), again)| 100.0 * (2.0 * mean / (off + again) - 1.0))
            .collect();
        slower.sort_by(f64::total_cmp);
        let piece = median(rounds.pieces.clone());
        println!(
            "| {} | {:.3} | {:+.2} % | {:+.2} % | {:+.2}–{:+.2} | {:.2} % |",
            contender.name(),
            1e3 * piece,
            100.0 * (piece / off - 1.0),
            median(slower.clone()),
            slower[0],
            slower[slower.len() - 1],
            median(rounds.agents.clone()),
        );
    }
}

/// Share of a core that the agent's threads use while nobody asks for anything.
fn idle(seconds: u64) {
    let before = agents();
    std::thread::sleep(Duration::from_secs(seconds));
    let share = 100.0 * (agents() - before) / Duration::from_secs(seconds).as_secs_f64();
    println!("\nIdle agent: {share:.3} % of a core over {seconds} s");
}

fn main() {
    let rounds = std::env::var("ROUNDS").map_or(11, |text| text.parse().unwrap());
    let agent = agent();
    idle(10);
    interruptions(&agent, rounds);
    overhead(&agent, rounds);
}
