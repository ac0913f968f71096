//! What becomes of one sample, step by step, for benches that time each step.

use std::time::{Duration, Instant};

use super::engine;
use crate::collect::code::symbols::{Patience, Symboliser};
use crate::collect::code::unwind::{End, Unwinder};
use crate::collect::sys::sampling::arena::Head;
use crate::collect::sys::sampling::rehearsal::Rehearsal;
use crate::config::{self, SampleRate};
use crate::error::Error;
use crate::store::samples::Samples;
use crate::store::symbols::{Symbol, Symbols};
use crate::store::sync::lock;

/// Stacks as the handler copied them.
#[derive(Debug)]
pub(crate) struct Copies {
    copies: Vec<(Head, Vec<u8>)>,
    unwinder: Unwinder,
    samples: Samples,
}

/// What one stack took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    /// Following the stack.
    pub(crate) unwind: Duration,
    /// Finding its number and adding it to the open bucket.
    pub(crate) keep: Duration,
    pub(crate) frames: usize,
    /// Bytes of stack that were copied.
    pub(crate) bytes: usize,
    pub(crate) whole: bool,
}

impl Copies {
    /// Samples the process while `work` says that it goes on.
    ///
    /// # Errors
    /// Refused if it cannot be sampled.
    pub(crate) fn take(rate: SampleRate, work: impl FnMut() -> bool) -> Result<Self, Error> {
        let copies = engine::copies(rate, work);
        Ok(Self {
            copies: copies.map_err(|why| Error::refused("copies", why.0))?,
            unwinder: Unwinder::default(),
            samples: Samples::default(),
        })
    }

    /// Unwinds all stacks in the order in which they were taken.
    pub(crate) fn unwind(&mut self) -> Vec<Took> {
        self.unwinder.refresh();
        let mut frames = Vec::new();
        let Self {
            copies,
            unwinder,
            samples,
        } = self;
        let took = copies.iter().map(|(head, stack)| {
            let start = Instant::now();
            let end = unwinder.unwind(head, stack, &mut frames);
            let unwound = Instant::now();
            lock(&samples.windows).add(&frames, "work", head.mark, head.weight);
            Took {
                unwind: unwound - start,
                keep: unwound.elapsed(),
                frames: frames.len(),
                bytes: stack.len(),
                whole: end == End::Whole,
            }
        });
        took.collect()
    }
}

/// Names for addresses of this process, and what is remembered of them.
#[derive(Debug)]
pub(crate) struct Names {
    symboliser: Symboliser,
    table: Symbols,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            symboliser: Symboliser::default(),
            table: Symbols::new(config::SYMBOL_BYTES),
        }
    }
}

impl Names {
    /// Names addresses, sorted and distinct; says how many have a name and how many a line.
    pub(crate) fn find(&mut self, addresses: &[u64]) -> (usize, usize) {
        let patience = Patience {
            deadline: Instant::now() + Duration::from_secs(600),
            wanted: &|| true,
        };
        let found = self.symboliser.symbolise(addresses, &self.table, &patience);
        let symbols = || {
            found
                .places
                .values()
                .filter_map(|place| place.symbols.first())
        };
        let named = |symbol: &&Symbol| !symbol.function.name.starts_with('[');
        let lined = |symbol: &&Symbol| symbol.line > 0;
        (
            symbols().filter(named).count(),
            symbols().filter(lined).count(),
        )
    }
}

/// Times of the handler, each after `before` was run; the running thread must not be the main one.
///
/// # Errors
/// The kernel's, as text, if it gives no memory.
pub(crate) fn handler(runs: usize, mut before: impl FnMut()) -> Result<Vec<Duration>, Error> {
    let rehearsal = Rehearsal::new().map_err(|why| Error::refused("handler", why.to_string()))?;
    let run = || {
        before();
        rehearsal.run()
    };
    Ok(std::iter::repeat_with(run).take(runs).collect())
}
