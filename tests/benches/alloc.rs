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
use streamgate_agent::bench_door::{HeapStacks, heap_counts, heap_live, set_heap_rate};
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

/// What is held when memory is looked at.
const HELD: usize = 256 << 20;

/// Sizes of held blocks, from 16 B on, all magnitudes alike.
const LARGEST: [(&str, usize); 2] = [("1 KiB", 1 << 10), ("1 MiB", 1 << 20)];

/// Allocates [`HELD`] bytes and writes to all of them; prints the process's resident and mapped bytes, how
/// many blocks there are and how many of them are sampled.
fn hold(allocator: &impl GlobalAlloc, largest: usize, drains: bool) {
    let mut stacks = HeapStacks::default();
    let (mut held, mut blocks, mut drained) = (0, 0_u64, 0);
    for size in alloc_work::sizes(largest) {
        if held >= HELD {
            break;
        }
        let block = alloc_work::allocate(allocator, size);
        // SAFETY: the block is that long; it lives until the process ends.
        unsafe { block.write_bytes(1, size) };
        held += size;
        blocks += 1;
        // As often as the agent's thread does it when samples come fast.
        if drains && held - drained > 32 << 20 {
            drained = held;
            stacks.drain();
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap().split_whitespace().next().unwrap().to_owned()
    };
    let sampled = heap_live().len();
    println!(
        "{} {} {held} {blocks} {sampled}",
        kib("VmRSS:"),
        kib("VmSize:")
    );
}

const HOLDERS: [&str; 4] = [
    "jemalloc",
    "ours over jemalloc",
    "System",
    "ours over System",
];

fn hold_as(holder: &str, largest: usize) {
    match HOLDERS.iter().position(|name| *name == holder) {
        Some(0) => hold(&Jemalloc, largest, false),
        Some(1) => hold(&ProfiledAllocator::new(Jemalloc), largest, true),
        Some(2) => hold(&System, largest, false),
        _ => hold(&ProfiledAllocator::new(System), largest, true),
    }
}

/// A process each, so that each starts with an empty heap.
fn memory() {
    for (name, largest) in LARGEST {
        println!(
            "\n### Memory of {} MiB in blocks of 16 B to {name}\n",
            HELD >> 20
        );
        println!(
            "| contender | blocks | sampled | resident, MiB | mapped, MiB | above bare, of what is held |"
        );
        println!("|---|---|---|---|---|---|");
        let mut bare = 0.0;
        for holder in HOLDERS {
            let mut child = Command::new(std::env::current_exe().unwrap());
            let child = child
                .args(["hold", holder, &largest.to_string()])
                .output()
                .unwrap();
            let line = String::from_utf8(child.stdout).unwrap();
            let numbers = line.split_whitespace().map(|word| word.parse().unwrap());
            let [resident, mapped, held, blocks, sampled] = numbers.collect::<Vec<f64>>()[..]
            else {
                panic!("the other process said {line:?}");
            };
            if !holder.starts_with("ours") {
                bare = resident;
            }
            println!(
                "| {holder} | {blocks} | {sampled} | {:.1} | {:.1} | {:+.2} % |",
                resident / 1024.0,
                mapped / 1024.0,
                102_400.0 * (resident - bare) / held,
            );
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    set_heap_rate(512 << 10, u64::MAX);
    if let [part, holder, largest] = &args[..]
        && part == "hold"
    {
        return hold_as(holder, largest.parse().unwrap());
    }
    let parts: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |part: &str| parts.is_empty() || parts.iter().any(|arg| *arg == part);
    if is_wanted("memory") {
        memory();
    }
    if is_wanted("cost") {
        costs();
    }
}

fn costs() {
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
