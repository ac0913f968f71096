//! What was gathered and the names of its addresses become a profile.

use std::sync::Arc;
use std::time::Duration;

use super::gathered::{Entry, Gathered};
use super::marks;
use crate::collect::code::symbols::Symbolised;
use crate::collect::code::tables::Tables;
use crate::store::looks::{BLOCKED, Look, STATE, Seen, ThreadChoice, ThreadRow};
use crate::store::profile::{Accounting, Label, Profile, SAMPLES, Sample, THREAD, ValueType};

/// Time that passed, whether or not the CPU was used.
const WALL: ValueType = ValueType {
    name: "wall",
    unit: "nanoseconds",
};
/// Threads at one moment.
const THREADS: ValueType = ValueType {
    name: "threads",
    unit: "count",
};

/// When and how the look was taken.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) look: Look,
    pub(super) start_unix_nanos: u64,
    pub(super) duration: Duration,
    /// How often the threads were looked at.
    pub(super) moments: u64,
}

/// What a reader sees.
pub(super) fn seen(gathered: Gathered, symbolised: Symbolised, taken: &Taken) -> Seen {
    let mut tables = Tables::of(&symbolised);
    let (entries, shown) = match gathered {
        Gathered::Window(sums) => ((sums.entries(), sums.truncated), Vec::new()),
        Gathered::Now(shown) => {
            let entries = shown.iter().map(|shown| Entry {
                stack: Arc::clone(&shown.stack),
                thread: Arc::clone(&shown.row.name),
                state: shown.state,
                samples: 1,
                nanos: 0,
            });
            ((entries.collect(), 0), shown)
        }
    };
    let (mut entries, truncated): (Vec<Entry>, u64) = entries;
    let marks = entries.iter().flat_map(|entry| entry.stack.iter().copied());
    for mark in marks {
        if !tables.places.contains_key(&mark)
            && let Some(name) = marks::name(mark)
        {
            tables.mark(mark, &name);
        }
    }
    let mut left_out = 0;
    if matches!(&taken.look, Look::Over(wish) if !wish.idle) {
        entries.retain(|entry| {
            let parked = is_parked(&entry.stack, &symbolised)
                && (entry.state == BLOCKED || is_in_wait(&entry.stack, &symbolised));
            left_out += if parked { entry.samples } else { 0 };
            !parked
        });
    }
    let locate = |stack: &[u64]| -> Arc<[u32]> {
        let places = stack.iter();
        let places = places.filter_map(|address| tables.places.get(address).copied());
        places.collect()
    };
    let mut rows: Vec<ThreadRow> = shown
        .into_iter()
        .map(|shown| ThreadRow {
            stack: locate(&shown.stack),
            ..shown.row
        })
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name).then(a.tid.cmp(&b.tid)));
    let columns = match &taken.look {
        Look::Over(_) => vec![SAMPLES, WALL],
        Look::Now { .. } => vec![THREADS],
    };
    let recorded = entries.iter().map(|entry| entry.samples).sum();
    let mut comments = comments(taken, &entries, left_out);
    comments.extend(symbolised.comments);
    let mut samples: Vec<Sample> = entries
        .iter()
        .map(|entry| sample(entry, locate(&entry.stack), columns.len()))
        .collect();
    samples.sort_unstable_by(|a, b| {
        b.values
            .last()
            .cmp(&a.values.last())
            .then_with(|| a.stack.cmp(&b.stack))
            .then_with(|| a.labels.cmp(&b.labels))
    });
    let (period_type, period) = match &taken.look {
        Look::Over(wish) => (WALL, wish.rate.period().as_nanos()),
        Look::Now { .. } => (THREADS, 1),
    };
    let profile = Profile {
        start_unix_nanos: taken.start_unix_nanos,
        duration: taken.duration,
        period_type,
        period: u64::try_from(period).unwrap_or(u64::MAX),
        sample_types: columns,
        default_type: period_type.name,
        samples,
        slices: Vec::new(),
        locations: tables.locations,
        functions: tables.functions,
        mappings: symbolised.mappings,
        accounting: Accounting {
            recorded,
            truncated,
            ..Accounting::default()
        },
        comments,
    };
    Seen {
        profile,
        threads: rows,
    }
}

fn sample(entry: &Entry, stack: Arc<[u32]>, columns: usize) -> Sample {
    let whole = |value| i64::try_from(value).unwrap_or(i64::MAX);
    let mut values = vec![whole(entry.samples), whole(entry.nanos)];
    values.truncate(columns);
    let label = |key, value: &Arc<str>| Label {
        key,
        value: Arc::clone(value),
    };
    Sample {
        stack,
        values,
        labels: vec![
            label(STATE, &entry.state.into()),
            label(THREAD, &entry.thread),
        ],
        times: Vec::new(),
    }
}

fn comments(taken: &Taken, entries: &[Entry], left_out: u64) -> Vec<String> {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = match &taken.look {
        Look::Over(wish) => {
            let threads = match &wish.threads {
                ThreadChoice::Workers => "runtime workers".to_owned(),
                ThreadChoice::All => "all threads".to_owned(),
                ThreadChoice::Prefix(prefix) => format!("threads named {prefix}.."),
            };
            let hertz = wish.rate.hz();
            vec![format!(
                "streamgate-agent {version}, wall clock of {threads} at {hertz} Hz"
            )]
        }
        Look::Now { .. } => vec![format!("streamgate-agent {version}, threads at one moment")],
    };
    if let Look::Over(wish) = &taken.look {
        let wanted = u64::from(wish.rate.hz()) * wish.duration.as_secs();
        if taken.moments * 10 < wanted * 9 {
            out.push(format!(
                "the threads were looked at {} times instead of {wanted}: a look takes long with many \
                 threads or on a busy machine; read nanoseconds, not samples",
                taken.moments
            ));
        }
    }
    if left_out > 0 {
        out.push(format!(
            "{left_out} samples of workers that waited for work are left out (idle=1 shows them)"
        ));
    }
    let of_mark = |entry: &&Entry| *entry.stack == [marks::NO_ANSWER];
    let silent: u64 = entries
        .iter()
        .filter(of_mark)
        .map(|entry| entry.samples)
        .sum();
    if silent > 0 {
        out.push(format!(
            "{silent} samples of threads that ended or did not run before they could answer"
        ));
    }
    out
}

/// What a wait consists of below whoever waits.
const MACHINERY: [&str; 12] = [
    "std::",
    "core::",
    "alloc::",
    "parking_lot",
    "mio::",
    "tokio::loom::",
    "syscall",
    "__",
    "epoll_",
    "pthread_",
    "futex",
    "[",
];

/// Where the runtime has nothing to do: its workers, and its threads for blocking work.
const IDLE: [&str; 3] = [
    "tokio::runtime::scheduler::multi_thread::",
    "tokio::runtime::scheduler::current_thread::",
    "tokio::runtime::blocking::pool::",
];

/// A worker without a task: between the wait and the runtime's own loop there is neither a frame of
/// anybody else nor a task that is polled. (Workers themselves run as a task of the blocking threads.)
fn is_parked(stack: &[u64], symbolised: &Symbolised) -> bool {
    let places = stack.iter();
    let places = places.filter_map(|address| symbolised.places.get(address));
    let symbols = places.flat_map(|place| place.symbols.iter());
    let names = symbols.map(|symbol| symbol.function.name.trim_start_matches('<'));
    let machinery = |name: &&str| MACHINERY.iter().any(|start| name.starts_with(start));
    let mut own = names
        .filter(|name| !machinery(name))
        .take_while(|name| name.starts_with("tokio::runtime::"))
        .take_while(|name| !name.starts_with("tokio::runtime::task::"));
    own.any(|name| IDLE.iter().any(|start| name.starts_with(start)))
}

/// The leaf is the call that waits: a worker that was seen running on its way into it or out.
fn is_in_wait(stack: &[u64], symbolised: &Symbolised) -> bool {
    let leaf = stack
        .first()
        .and_then(|address| symbolised.places.get(address));
    leaf.and_then(|place| place.symbols.first())
        .is_some_and(|symbol| {
            ["syscall", "epoll_"]
                .iter()
                .any(|start| symbol.function.name.starts_with(start))
        })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::collect::code::symbols::Place;
    use crate::store::profile::Function;
    use crate::store::symbols::Symbol;

    /// A stack whose functions have these names, leaf first.
    fn named(names: &[&str]) -> (Vec<u64>, Symbolised) {
        let place = |name: &&str| Place {
            mapping: None,
            symbols: Arc::new([Symbol {
                function: Function::named(name),
                line: 0,
            }]),
        };
        let stack: Vec<u64> = (1..=names.len() as u64).collect();
        let places: HashMap<u64, Place> =
            stack.iter().copied().zip(names.iter().map(place)).collect();
        let symbolised = Symbolised {
            places,
            ..Symbolised::default()
        };
        (stack, symbolised)
    }

    #[test]
    fn a_worker_is_parked_only_if_the_runtime_itself_waits_and_no_task_runs() {
        let parked = |names: &[&str]| {
            let (stack, symbolised) = named(names);
            is_parked(&stack, &symbolised)
        };
        const CONDVAR: [&str; 2] = ["syscall", "std::sys::sync::condvar::futex::Condvar::wait"];
        let run = "tokio::runtime::scheduler::multi_thread::worker::Context::run";
        let park = "tokio::runtime::scheduler::multi_thread::park::Inner::park";
        let pool = "tokio::runtime::blocking::pool::Inner::run";
        let poll = "<tokio::runtime::task::harness::Harness<T,S>>::poll";
        assert!(parked(&[CONDVAR[0], CONDVAR[1], park, run, poll, pool]));
        assert!(parked(&[
            "epoll_wait",
            "mio::poll::Poll::poll",
            "tokio::runtime::io::driver::Driver::turn",
            run
        ]));
        assert!(parked(&[CONDVAR[0], CONDVAR[1], pool]));
        let lock = "std::sys::sync::mutex::futex::Mutex::lock_contended";
        assert!(!parked(&["syscall", lock, "shop::handler", poll, run]));
        let inner = "tokio::runtime::park::CachedParkThread::park";
        assert!(!parked(&[
            CONDVAR[0],
            CONDVAR[1],
            inner,
            "shop::work",
            poll,
            pool
        ]));
        assert!(!parked(&["[blocked: read]"]));
        let wait = |names: &[&str]| {
            let (stack, symbolised) = named(names);
            is_in_wait(&stack, &symbolised)
        };
        assert!(wait(&["epoll_wait", park]) && !wait(&[park, run]));
    }
}
