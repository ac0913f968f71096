//! What an allocation and its release cost: through our wrapper, through the allocator alone, and with
//! other heap profilers.
//!
//! Rounds of all contenders take turns. jemalloc with its own profiling is another build of it and so
//! another process, which takes its turns, too. Samples are drained between rounds, as the agent's thread
//! does it. Run with `cargo bench -p streamgate-agent --bench alloc`.
#![expect(
    unsafe_code,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    unreachable_pub,
    reason = "a bench prints, and stops where its set-up fails"
)]

mod alloc_work;
#[path = "measure.rs"]
mod measure;

use std::alloc::{GlobalAlloc, System};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use alloc_work::{PAIRS, ROWS, Work};
use measure::{Cost, Row, cost};
use streamgate_agent::ProfiledAllocator;
use streamgate_agent::bench_door::{HeapStacks, heap_counts, set_heap_rate};
use tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 41;

/// dhat takes about a hundred times as long.
const DHAT_PAIRS: usize = PAIRS / 512;

/// jemalloc's own profiling, in a process of its own.
struct Profiled {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Profiled {
    fn start(program: &str, active: bool) -> Self {
        let conf = format!("prof:true,prof_active:{active},lg_prof_sample:19");
        let mut command = Command::new(program);
        command.env("_RJEM_MALLOC_CONF", conf);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn run(&mut self, row: usize) -> Cost {
        writeln!(self.input, "{row}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let nanos = line
            .split_whitespace()
            .map(|word| Duration::from_nanos(word.parse().unwrap()));
        let [cpu, wall] = nanos.collect::<Vec<_>>()[..] else {
            panic!("the other process said {line:?}");
        };
        Cost { cpu, wall }
    }
}

impl Drop for Profiled {
    fn drop(&mut self) {
        // It holds nothing that has to be brought to an end.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Builds it and returns where it stands.
fn profiled_program() -> String {
    let root = env!("CARGO_MANIFEST_DIR");
    let manifest = format!("{root}/tests/benches/jemalloc_profiled/Cargo.toml");
    let target = format!("{root}/target");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--locked"])
        .args(["--manifest-path", &manifest, "--target-dir", &target])
        .status()
        .unwrap();
    assert!(status.success());
    format!("{target}/release/jemalloc-profiled")
}

struct Contender {
    name: &'static str,
    pairs: usize,
    run: Box<dyn FnMut(usize) -> Cost>,
}

fn direct(name: &'static str, pairs: usize, allocator: impl GlobalAlloc + 'static) -> Contender {
    let work = Work::default();
    Contender {
        name,
        pairs,
        run: Box::new(move |row| cost(|| work.run(row, &allocator, pairs))),
    }
}

const BARE: &str = "jemalloc";

fn main() {
    set_heap_rate(512 << 10, u64::MAX);
    let program = profiled_program();
    let [mut inactive, mut active] = [false, true].map(|active| Profiled::start(&program, active));
    let dhat = dhat::Profiler::builder().testing().build();
    let mut contenders = [
        direct(BARE, PAIRS, Jemalloc),
        direct(
            "ours over jemalloc",
            PAIRS,
            ProfiledAllocator::new(Jemalloc),
        ),
        direct("System", PAIRS, System),
        direct("ours over System", PAIRS, ProfiledAllocator::new(System)),
        direct("dhat over System", DHAT_PAIRS, dhat::Alloc),
        Contender {
            name: "jemalloc built with profiling, inactive",
            pairs: PAIRS,
            run: Box::new(move |row| inactive.run(row)),
        },
        Contender {
            name: "jemalloc built with profiling, active at 512 KiB",
            pairs: PAIRS,
            run: Box::new(move |row| active.run(row)),
        },
    ];
    let mut stacks = HeapStacks::default();
    for (row, title) in ROWS.iter().enumerate() {
        let before = heap_counts();
        let mut costs = vec![Vec::new(); contenders.len()];
        for round in 0..=ROUNDS {
            for (contender, costs) in contenders.iter_mut().zip(&mut costs) {
                let cost = (contender.run)(row);
                // The first round warms up.
                if round > 0 {
                    costs.push(cost);
                }
                stacks.drain();
            }
        }
        let rows: Vec<Row> = contenders
            .iter()
            .zip(&costs)
            .map(|(contender, costs)| Row::new(contender.name, costs, contender.pairs as f64))
            .collect();
        let after = heap_counts();
        measure::print(
            &format!(
                "{title}, {ROUNDS} rounds, {} samples of ours, {} stacks lost",
                after.sampled - before.sampled,
                after.stacks_lost - before.stacks_lost
            ),
            &rows,
            BARE,
            1.0,
            "ns",
        );
    }
    drop(dhat);
}
