//! What one reader's look has gathered, bounded however long and wide it is.

use std::collections::HashMap;
use std::sync::Arc;

use super::asker::{Moment, Owed};
use super::marks;
use super::threads::{Call, Thread};
use crate::store::looks::ThreadRow;
use crate::store::stacks::{self, Interned, Limits, OVERFLOWED};

/// Distinct stacks of one look: an eighth of what CPU profiles of 15 minutes hold.
const STACKS: Limits = Limits {
    count: 8_192,
    bytes: 4 << 20,
};
const NAMES: Limits = Limits {
    count: 4_096,
    bytes: 512 << 10,
};
/// Distinct stacks by thread and state.
const SUMS: usize = 65_536;

/// One stack of one thread name in one state.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) stack: Arc<[u64]>,
    pub(super) thread: Arc<str>,
    pub(super) state: &'static str,
    pub(super) samples: u64,
    pub(super) nanos: u64,
}

/// Samples of a window.
#[derive(Debug)]
pub(super) struct Sums {
    stacks: Interned<[u64]>,
    names: Interned<str>,
    sums: HashMap<(u32, u32, &'static str), (u64, u64)>,
    pub(super) truncated: u64,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            stacks: stacks::stacks(STACKS),
            names: stacks::names(NAMES),
            sums: HashMap::new(),
            truncated: 0,
        }
    }
}

impl Sums {
    fn add(&mut self, moment: &Moment<'_>, owed: Owed) {
        let mut key = (
            self.stacks.intern(moment.stack),
            self.names.intern(moment.name),
            moment.state,
        );
        if self.sums.len() >= SUMS && !self.sums.contains_key(&key) {
            key = (OVERFLOWED, OVERFLOWED, moment.state);
        }
        let (samples, nanos) = self.sums.entry(key).or_default();
        *samples += owed.samples;
        *nanos += owed.nanos;
        if moment.truncated {
            self.truncated += owed.samples;
        }
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        let entries = self.sums.iter();
        let entries = entries.map(|((stack, thread, state), (samples, nanos))| Entry {
            stack: Arc::clone(self.stacks.get(*stack)),
            thread: Arc::clone(self.names.get(*thread)),
            state,
            samples: *samples,
            nanos: *nanos,
        });
        entries.collect()
    }
}

/// A thread and its stack; `row.stack` is filled when the addresses have places.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) row: ThreadRow,
    /// Running or blocked.
    pub(super) state: &'static str,
    pub(super) stack: Arc<[u64]>,
}

/// What a reader asked for.
#[derive(Debug)]
pub(super) enum Gathered {
    Window(Box<Sums>),
    /// All threads at one moment.
    Now(Vec<Shown>),
}

impl Gathered {
    /// Takes a moment for its reader.
    pub(super) fn add(&mut self, moment: &Moment<'_>, owed: Owed) {
        match self {
            Self::Window(sums) => sums.add(moment, owed),
            Self::Now(rows) => {
                if let Some(shown) = rows.iter_mut().find(|shown| shown.row.tid == moment.tid) {
                    shown.state = moment.state;
                    shown.stack = moment.stack.into();
                }
            }
        }
    }

    /// Notes that a thread is there; its stack may follow.
    pub(super) fn list(&mut self, thread: &Thread, state: &'static str) {
        if let Self::Now(rows) = self {
            rows.push(Shown {
                row: ThreadRow {
                    tid: thread.tid,
                    name: thread.name.as_str().into(),
                    state: word(thread.state),
                    call: match thread.call {
                        Call::Number(number) => Some(marks::call_name(number).into()),
                        Call::None | Call::Unknown => None,
                    },
                    cpu: thread.cpu(),
                    stack: Arc::new([]),
                },
                state,
                stack: Arc::new([marks::of(thread)]),
            });
        }
    }

    /// The distinct addresses of code, sorted.
    pub(super) fn addresses(&self) -> Vec<u64> {
        let stacks: Vec<Arc<[u64]>> = match self {
            Self::Window(sums) => sums.entries().into_iter().map(|one| one.stack).collect(),
            Self::Now(rows) => rows.iter().map(|shown| Arc::clone(&shown.stack)).collect(),
        };
        let mut addresses: Vec<u64> = stacks
            .iter()
            .flat_map(|stack| stack.iter().copied())
            .filter(|address| marks::name(*address).is_none())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }
}

/// Source: proc(5), field 3 of `/proc/<pid>/stat`.
fn word(state: u8) -> &'static str {
    match state {
        b'R' => "running",
        b'S' => "sleeping",
        b'D' => "disk sleep",
        b'T' | b't' => "stopped",
        b'Z' | b'X' => "ended",
        b'I' => "idle",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::looks::{BLOCKED, RUNNING};

    const OWED: Owed = Owed {
        reader: 1,
        samples: 2,
        nanos: 300,
    };

    fn moment<'a>(state: &'static str, stack: &'a [u64]) -> Moment<'a> {
        Moment {
            tid: 7,
            name: "worker",
            state,
            stack,
            truncated: true,
            owed: &[],
        }
    }

    #[test]
    fn equal_stacks_add_up_and_states_stay_apart() {
        let mut gathered = Gathered::Window(Box::default());
        gathered.add(&moment(RUNNING, &[1, 2]), OWED);
        gathered.add(&moment(RUNNING, &[1, 2]), OWED);
        gathered.add(&moment(BLOCKED, &[1, 2]), OWED);
        gathered.add(&moment(BLOCKED, &[marks::NO_ANSWER]), OWED);
        assert_eq!(gathered.addresses(), [1, 2]);
        let Gathered::Window(sums) = gathered else {
            panic!("a window");
        };
        let mut seen: Vec<_> = sums
            .entries()
            .into_iter()
            .map(|one| (one.state, one.stack.len(), one.samples, one.nanos))
            .collect();
        seen.sort_unstable();
        let wanted = [
            (BLOCKED, 1, 2, 300),
            (BLOCKED, 2, 2, 300),
            (RUNNING, 2, 4, 600),
        ];
        assert_eq!(seen, wanted);
        assert_eq!(sums.truncated, 8);
    }
}
