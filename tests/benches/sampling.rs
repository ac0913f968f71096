//! What CPU samples cost: the sampled thread's work per CPU-second with sampling on and off, and the
//! agent's own CPU time per sample. Rounds interleave, so that the machine's drift hits all alike.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench"
)]

#[path = "../sampling/mod.rs"]
mod sampling;

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use sampling::{agent, own_cpu, spin, take};

const ROUNDS: usize = 11;
const RATES: [u32; 3] = [0, 99, 999];

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

/// Operations per CPU-second of the running thread.
fn work(time: Duration) -> f64 {
    let mut held = vec![Vec::new(); 32];
    let start = own_cpu();
    let mut done = 0_u32;
    while own_cpu() - start < time {
        for depth in [10, 20, 40] {
            std::hint::black_box(deep(depth, &mut held));
            done += 1;
        }
    }
    f64::from(done) / (own_cpu() - start).as_secs_f64()
}

/// CPU seconds of the agent's threads, by name.
fn agents() -> HashMap<String, f64> {
    let mut sums = HashMap::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        let (Ok(name), Ok(stat)) = (
            fs::read_to_string(task.join("comm")),
            fs::read_to_string(task.join("schedstat")),
        ) else {
            continue;
        };
        if name.starts_with("sg-") {
            let nanos: f64 = stat.split_whitespace().next().unwrap().parse().unwrap();
            *sums.entry(name.trim().to_owned()).or_default() += nanos / 1e9;
        }
    }
    sums
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

fn main() {
    let agent = agent();
    // Symbols are read before anything is timed.
    let warm = take(&agent, 999, 1);
    work(Duration::from_millis(500));
    warm.profile();
    let mut speeds: [Vec<f64>; 3] = Default::default();
    let mut costs: [Vec<f64>; 3] = Default::default();
    let mut per_signal: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (place, hertz) in RATES.into_iter().enumerate() {
            let taking = (hertz > 0).then(|| take(&agent, hertz, 2));
            let before = agents();
            let thread = std::thread::spawn(|| work(Duration::from_millis(1200)));
            speeds[place].push(thread.join().unwrap());
            let after = agents();
            let spent =
                |name: &str| after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0);
            let spent = spent("sg-profile") + spent("sg-watch");
            costs[place].push(spent / 1.2);
            if let Some(taking) = taking {
                let profile = taking.profile();
                let signals = 1.2 * f64::from(hertz.min(250));
                per_signal[place].push(1e6 * spent / signals);
                assert!(profile.sum(|_| true) > 0.0);
            }
        }
    }
    let speeds = speeds.map(median);
    for (place, hertz) in RATES.into_iter().enumerate() {
        let slower = 100.0 * (1.0 - speeds[place] / speeds[0]);
        let cost = 100.0 * median(costs[place].clone());
        print!("{hertz:>4} Hz: work {slower:+.2} % slower, agent {cost:.2} % of the work's CPU");
        if hertz > 0 {
            let each = median(per_signal[place].clone());
            print!(" ({each:.0} us per signal)");
        }
        println!();
    }
}
