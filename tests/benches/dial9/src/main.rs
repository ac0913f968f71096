//! The same work with nobody sampling it, and sampled by ours, by dial9's `PerfSampler` and by the
//! `pprof` crate: what it costs, and how many of the samples that are due arrive.
//!
//! Two threads in user space and one in the kernel, new in each turn and begun after the sampler, share
//! the cores. Contenders take turns, in an order that moves on each round; `off` is there twice.

#[path = "../../../sampling/mod.rs"]
mod sampling;

use std::collections::HashMap;
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::time::{Duration, Instant};

use dial9_perf_self_profile::{
    PerfSampler, SamplerConfig, SamplingMode, register_current_thread, resolve_symbol,
    unregister_current_thread,
};
use rustix::time::{ClockId, clock_gettime};
use sampling::{agent, during, named, own_cpu, spin};
use streamgate_agent::AgentHandle;

/// Where a thread works is its name.
const PLACES: [&str; 2] = ["user", "kernel"];
const THREADS: [usize; 3] = [USER, KERNEL, USER];
const USER: usize = 0;
const KERNEL: usize = 1;

/// Makes dial9 take its fallback for where the kernel refuses perf.
const FORCE_CTIMER: &str = "DIAL9_FORCE_CTIMER";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sampler {
    Nobody,
    Ours,
    Perf,
    PerfWithKernel,
    Ctimer,
    PprofCrate,
}

use Sampler::{Ctimer, Nobody, Ours, Perf, PerfWithKernel, PprofCrate};

/// The last is `off` again.
const CONTENDERS: [(&str, Sampler, i32); 12] = [
    ("off", Nobody, 0),
    ("ours, 99 Hz", Ours, 99),
    ("dial9, perf, 99 Hz", Perf, 99),
    ("dial9, perf with kernel, 99 Hz", PerfWithKernel, 99),
    ("dial9, ctimer, 99 Hz", Ctimer, 99),
    ("`pprof` crate, 99 Hz", PprofCrate, 99),
    ("ours, 999 Hz", Ours, 999),
    ("dial9, perf, 999 Hz", Perf, 999),
    ("dial9, perf with kernel, 999 Hz", PerfWithKernel, 999),
    ("dial9, ctimer, 999 Hz", Ctimer, 999),
    ("`pprof` crate, 999 Hz", PprofCrate, 999),
    ("off, again", Nobody, 0),
];
const AGAIN: usize = CONTENDERS.len() - 1;

/// The function that is on every whole stack of the work.
#[inline(never)]
fn outermost(place: usize) {
    let mut zeros = File::open("/dev/zero").unwrap();
    let mut buffer = vec![0_u8; 1 << 16];
    for _ in 0..PIECES {
        for depth in [10, 20, 40] {
            deep(depth, &mut || match place {
                KERNEL => (0..10).for_each(|_| zeros.read_exact(&mut buffer).unwrap()),
                _ => drop(black_box((0..5).fold(1, |sum, _| spin(sum)))),
            });
        }
    }
}

const PIECES: u32 = 12_000;

#[inline(never)]
fn deep(left: u32, work: &mut dyn FnMut()) {
    match left {
        0 => work(),
        // What follows the call keeps it from becoming a jump.
        _ => black_box(deep(left - 1, work)),
    }
    black_box(left);
}

/// One turn of the work.
struct Turn {
    /// CPU seconds by place.
    cpu: [f64; 2],
    /// What other threads of the process used meanwhile.
    others: f64,
    wall: f64,
    places: HashMap<u32, usize>,
}

fn work() -> Turn {
    let process = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap();
    let (start, before) = (Instant::now(), process());
    let threads = THREADS.map(|place| {
        let work = move || {
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            // Only dial9's fallback does not find threads by itself.
            register_current_thread().unwrap();
            outermost(place);
            unregister_current_thread();
            (u32::try_from(tid).unwrap(), own_cpu().as_secs_f64())
        };
        (place, named(PLACES[place], work))
    });
    let (mut cpu, mut places) = ([0.0; 2], HashMap::new());
    for (place, thread) in threads {
        let (tid, used) = thread.join().unwrap();
        cpu[place] += used;
        places.insert(tid, place);
    }
    Turn {
        others: (process() - before).as_secs_f64() - cpu.iter().sum::<f64>(),
        wall: start.elapsed().as_secs_f64(),
        cpu,
        places,
    }
}

/// Samples of one turn.
#[derive(Default)]
struct Seen {
    /// By place, each counted as often as its sampler says.
    samples: [f64; 2],
    /// Those of whose stack the outermost function is part.
    whole: f64,
}

impl Seen {
    fn add(&mut self, place: Option<usize>, samples: f64, is_whole: bool) {
        if let Some(place) = place {
            self.samples[place] += samples;
            self.whole += if is_whole { samples } else { 0.0 };
        }
    }
}

fn place_of(thread: &str) -> Option<usize> {
    PLACES.iter().position(|name| *name == thread)
}

fn ours(agent: &AgentHandle, hertz: i32) -> (Turn, Seen) {
    let (profile, turn) = during(agent, u32::try_from(hertz).unwrap(), || (), |()| work());
    let mut seen = Seen::default();
    for stack in &profile.stacks {
        let is_whole = stack.names.iter().any(|name| name.contains("outermost"));
        let samples = f64::from(i32::try_from(stack.samples).unwrap());
        seen.add(place_of(&stack.thread), samples, is_whole);
    }
    (turn, seen)
}

fn dial9(sampler: Sampler, hertz: i32, wholes: &mut HashMap<u64, bool>) -> (Turn, Seen) {
    if sampler == Ctimer {
        // SAFETY: all that reads the environment meanwhile does so under the standard library's lock.
        unsafe { std::env::set_var(FORCE_CTIMER, "1") };
    }
    let rate = SamplingMode::FrequencyHz(u64::try_from(hertz).unwrap());
    let config = SamplerConfig::default().sampling(rate);
    let config = config.include_kernel(sampler == PerfWithKernel);
    let mut running = PerfSampler::start(config).unwrap();
    // SAFETY: as above.
    unsafe { std::env::remove_var(FORCE_CTIMER) };
    let backend = if sampler == Ctimer { "ctimer" } else { "perf" };
    assert_eq!(running.active_backend().as_str(), backend);
    let turn = work();
    running.disable();
    unregister_current_thread();
    let mut seen = Seen::default();
    running.for_each_sample(|sample| {
        let mut is_outermost = |address: &u64| {
            let known = wholes.entry(*address).or_insert_with(|| {
                let name = resolve_symbol(*address).name;
                name.is_some_and(|name| name.contains("outermost"))
            });
            *known
        };
        let is_whole = sample.callchain.iter().any(&mut is_outermost);
        // In nanoseconds, those of missed expiries included.
        let samples = Duration::from_nanos(sample.period).as_secs_f64() * f64::from(hertz);
        seen.add(turn.places.get(&sample.tid).copied(), samples, is_whole);
    });
    (turn, seen)
}

fn pprof_crate(hertz: i32) -> (Turn, Seen) {
    let guard = pprof::ProfilerGuardBuilder::default()
        .frequency(hertz)
        .blocklist(&["libc", "libgcc", "pthread", "vdso", "ld-linux"])
        .build()
        .unwrap();
    let turn = work();
    let report = guard.report().build().unwrap();
    let mut seen = Seen::default();
    for (stack, samples) in &report.data {
        let mut names = stack.frames.iter().flatten().map(pprof::Symbol::name);
        let is_whole = names.any(|name| name.contains("outermost"));
        let samples = f64::from(i32::try_from(*samples).unwrap());
        seen.add(place_of(&stack.thread_name), samples, is_whole);
    }
    (turn, seen)
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn print(contender: usize, rounds: &[Vec<(Turn, Seen)>]) {
    let cpu = |turn: &Turn| turn.cpu.iter().sum::<f64>();
    let ratios = |of: &dyn Fn(&Turn) -> f64| {
        let of = |who: usize, round: usize| of(&rounds[who][round].0);
        let ratio = |round| 2.0 * of(contender, round) / (of(0, round) + of(AGAIN, round));
        (0..rounds[0].len()).map(ratio).collect::<Vec<f64>>()
    };
    let (mut slower, longer) = (ratios(&cpu), median(ratios(&|turn| turn.wall)));
    slower.sort_by(f64::total_cmp);
    let all = &rounds[contender];
    let others = all.iter().map(|(turn, _)| 100.0 * turn.others / cpu(turn));
    let (name, sampler, hertz) = CONTENDERS[contender];
    print!(
        "| {name} | {:.3} | {:.3} | {:.3}–{:.3} | {longer:.3} | {:.2} % |",
        median(all.iter().map(|(turn, _)| cpu(turn)).collect()),
        slower[slower.len() / 2],
        slower[0],
        slower[slower.len() - 1],
        median(others.collect()),
    );
    if sampler == Nobody {
        return println!(" – | – | – |");
    }
    let sum = |of: &dyn Fn(&(Turn, Seen)) -> f64| all.iter().map(of).sum::<f64>();
    let of = |place: usize| sum(&|(_, seen)| seen.samples[place]);
    let due = |place: usize| f64::from(hertz) * sum(&|(turn, _)| turn.cpu[place]);
    println!(
        " {:.3} | {:.3} | {:.1} % |",
        of(USER) / due(USER),
        of(KERNEL) / due(KERNEL),
        100.0 * sum(&|(_, seen)| seen.whole) / (of(USER) + of(KERNEL)),
    );
}

fn main() {
    let count: usize = std::env::var("ROUNDS").map_or(3, |text| text.parse().unwrap());
    let agent = agent();
    let mut wholes = HashMap::new();
    let mut rounds: Vec<Vec<(Turn, Seen)>> = CONTENDERS.iter().map(|_| Vec::new()).collect();
    let mut turn = |who: usize| match CONTENDERS[who] {
        (_, Nobody, _) => (work(), Seen::default()),
        (_, Ours, hertz) => ours(&agent, hertz),
        (_, PprofCrate, hertz) => pprof_crate(hertz),
        (_, sampler, hertz) => dial9(sampler, hertz, &mut wholes),
    };
    // Symbols are read before anything is timed.
    (0..6).for_each(|who| drop(turn(who)));
    for round in 0..count {
        for step in 0..CONTENDERS.len() {
            let who = (round + step) % CONTENDERS.len();
            rounds[who].push(turn(who));
        }
    }
    println!(
        "\n| contender | CPU of the work, s | of off | least–most | wall of off | other threads | user space: of what is due | kernel | whole stacks |\n|{}",
        "---|".repeat(9)
    );
    (0..CONTENDERS.len()).for_each(|who| print(who, &rounds));
}
