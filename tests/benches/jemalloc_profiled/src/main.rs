//! Rounds of work for jemalloc with its own profiling: reads a row's number per line, answers with the
//! round's CPU and wall time in nanoseconds.

#[path = "../../alloc_work.rs"]
mod alloc_work;
#[path = "../../measure.rs"]
#[allow(dead_code, reason = "tables are the bench's")]
mod measure;

use std::io::BufRead;

use alloc_work::{PAIRS, Work};
use measure::cost;
use tikv_jemallocator::Jemalloc;

fn main() {
    let work = Work::default();
    for line in std::io::stdin().lock().lines() {
        let row = line.unwrap().parse().unwrap();
        let cost = cost(|| work.run(row, &Jemalloc, PAIRS));
        println!("{} {}", cost.cpu.as_nanos(), cost.wall.as_nanos());
    }
}
