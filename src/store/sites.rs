//! Where live memory was allocated, as the allocator's samples estimate it.

use std::sync::Mutex;
use std::time::Instant;

use super::sync::lock;

/// One place in the program that allocated, at one moment. All numbers are estimates from samples.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct SiteReading {
    /// The same number for the same call stack, for as long as the process runs.
    pub(crate) site: u64,
    pub(crate) live_bytes: f64,
    pub(crate) live_objects: f64,
    /// Sampled blocks that are alive: what the estimates stand on.
    pub(crate) live_samples: u64,
    /// Bytes allocated since the start, freed or not.
    pub(crate) allocated_bytes: f64,
    /// Of the live bytes: the sum of the squared weights of the sampled blocks, in bytes squared.
    pub(crate) variance: f64,
    /// The live bytes by age: below 1, 10, 60 minutes, and older.
    pub(crate) age_bytes: [f64; 4],
}

/// The newest readings, until somebody takes them.
#[derive(Debug, Default)]
pub(crate) struct Sites {
    newest: Mutex<Option<(Instant, Vec<SiteReading>)>>,
}

impl Sites {
    /// Shows the readings of this moment; ones that nobody took are replaced.
    pub(crate) fn put(&self, at: Instant, sites: Vec<SiteReading>) {
        *lock(&self.newest) = Some((at, sites));
    }

    pub(crate) fn take(&self) -> Option<(Instant, Vec<SiteReading>)> {
        lock(&self.newest).take()
    }
}
