//! What naming a profile's addresses costs: time and memory, on this bench's own binary, which holds
//! an agent, an HTTP server and a runtime as a service does, and in StreamGate after a load.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench"
)]

mod streamgate;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use streamgate_agent::Agent;
use streamgate_agent::bench_door::Names;

/// Resident memory of this process in MiB.
fn resident() -> f64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / f64::from(1 << 20)
}

/// The most resident memory while `work` runs, looked at each millisecond.
fn peak<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let over = Arc::new(AtomicBool::new(false));
    let most = Arc::new(AtomicU64::new(0));
    let (told, seen) = (Arc::clone(&over), Arc::clone(&most));
    let watch = std::thread::spawn(move || {
        while !told.load(Ordering::Relaxed) {
            let bytes = (resident() * 1024.0).to_bits();
            seen.fetch_max(bytes, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let done = work();
    over.store(true, Ordering::Relaxed);
    watch.join().unwrap();
    (done, f64::from_bits(most.load(Ordering::Relaxed)) / 1024.0)
}

/// The executable mapping of this binary.
fn code() -> (u64, u64) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let binary = std::env::current_exe().unwrap();
    let line = maps
        .lines()
        .find(|line| line.contains(" r-xp ") && line.ends_with(binary.to_str().unwrap()))
        .unwrap();
    let range = line.split(' ').next().unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let hex = |text| u64::from_str_radix(text, 16).unwrap();
    (hex(start), hex(end))
}

fn main() {
    // Keeps the agent and its server in the binary.
    let symbols = Agent::builder("symbols").no_listener().recorder(0);
    drop(symbols.start().unwrap());
    let (start, end) = code();
    let size = fs::metadata(std::env::current_exe().unwrap())
        .unwrap()
        .len()
        >> 20;
    println!(
        "\n### Naming addresses of a binary of {size} MiB, {} MiB of them code\n",
        (end - start) >> 20
    );
    println!("| addresses | named | with lines | time, s | peak above start, MiB | after, MiB |");
    println!("|---|---|---|---|---|---|");
    let mut names = Names::default();
    for (count, share, of) in [
        (500, 10, "a tenth of the code"),
        (3000, 10, "a tenth of the code"),
        (3000, 10, "the same again"),
        (3000, 1, "all of the code"),
    ] {
        let step = (end - start) / share / count;
        let addresses: Vec<u64> = (0..count)
            .map(|n| start + (end - start) / 3 * (share / 10) + n * step)
            .collect();
        let before = resident();
        let begun = Instant::now();
        // On a thread of its own, as the agent does.
        let find = || std::thread::scope(|scope| scope.spawn(|| names.find(&addresses)).join());
        let (found, most) = peak(find);
        let (named, lines) = found.unwrap();
        println!(
            "| {count} over {of} | {named} | {lines} | {:.2} | {:.1} | {:.1} |",
            begun.elapsed().as_secs_f64(),
            most - before,
            resident() - before,
        );
    }
    streamgate::measure();
}
