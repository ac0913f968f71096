//! Clocks and tables that the benches share.
//!
//! CPU time is the thread's own, so that other work on the machine costs it only caches; of wall
//! time only the minimum means anything on a shared machine.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What one round cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub cpu: Duration,
    pub wall: Duration,
}

/// Runs `work` and returns what it cost this thread.
pub fn cost(work: impl FnOnce()) -> Cost {
    let (cpu, wall) = (thread_cpu(), Instant::now());
    work();
    Cost {
        wall: wall.elapsed(),
        cpu: thread_cpu() - cpu,
    }
}

fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// The rounds of one contender, per piece of work.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub cpu_median: f64,
    pub cpu_least: f64,
    pub cpu_most: f64,
    pub wall_least: f64,
}

impl Row {
    /// Summarises rounds of `pieces` each, in nanoseconds per piece.
    pub fn new(name: &str, rounds: &[Cost], pieces: f64) -> Self {
        let mut cpu: Vec<f64> = rounds.iter().map(|cost| nanos(cost.cpu) / pieces).collect();
        cpu.sort_by(f64::total_cmp);
        let wall = rounds.iter().map(|cost| nanos(cost.wall) / pieces);
        Self {
            name: name.to_owned(),
            cpu_median: cpu[cpu.len() / 2],
            cpu_least: cpu[0],
            cpu_most: cpu[cpu.len() - 1],
            wall_least: wall.fold(f64::INFINITY, f64::min),
        }
    }
}

/// Prints a Markdown table; `unit` nanoseconds make one of the shown. The ratio of each row is the
/// CPU median of the row called `against` divided by its own.
pub fn print(title: &str, rows: &[Row], against: &str, unit: f64, unit_name: &str) {
    let base = rows.iter().find(|row| row.name == against);
    let base = base.map_or(f64::NAN, |row| row.cpu_median);
    println!("\n### {title}\n");
    println!("| contender | CPU median, {unit_name} | least–most | wall minimum | ratio |");
    println!("|---|---|---|---|---|");
    for row in rows {
        println!(
            "| {} | {:.2} | {:.2}–{:.2} | {:.2} | {:.2} × |",
            row.name,
            row.cpu_median / unit,
            row.cpu_least / unit,
            row.cpu_most / unit,
            row.wall_least / unit,
            base / row.cpu_median,
        );
    }
}

fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}
