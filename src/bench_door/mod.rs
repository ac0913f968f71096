//! A door for the crate's own benches and tests, which look at one step that hosts only see as part of
//! a whole.
//!
//! No promise is made about it: it may change or go with any version.

use crate::catalog::Kind;
use crate::catalog::families::{self, HTTP_SERVER_REQUEST_DURATION};
use crate::config;
use crate::error::Error;
use crate::export::{openmetrics, text};
use crate::store::metrics::{Counter, Histogram, Metrics, MetricsLimits};

pub use crate::catalog::Metric;
#[cfg(all(feature = "profiling", target_os = "linux"))]
pub use steps::{
    CopiedStacks, HeapBlock, HeapCounts, HeapStacks, Names, StackCost, handler_costs, heap_counts,
    heap_is_installed, heap_live, leave_out_this_thread, on_own_thread, set_heap_rate,
};

#[cfg(all(feature = "profiling", target_os = "linux"))]
mod steps;

/// Every family of the catalogue, with the bounds of those that are histograms, in their smallest unit.
///
/// The alert rules name families in a file that no compiler reads; a test holds the two together.
pub fn catalogue() -> impl Iterator<Item = (&'static Metric, &'static [u64])> {
    families::ALL.iter().map(|family| match family.kind {
        Kind::Histogram(bounds) => (*family, bounds.classic()),
        _ => (*family, [].as_slice()),
    })
}

/// The metrics core without an agent around it.
#[derive(Debug)]
pub struct Core(Metrics);

impl Core {
    /// A core for this many label sets.
    pub fn new(series: usize) -> Self {
        Self(Metrics::new(MetricsLimits {
            series,
            bytes: config::CELL_BYTES,
        }))
    }

    /// The counter of these label values.
    ///
    /// # Errors
    /// As a handle's.
    pub fn counter(&self, metric: &Metric, values: &[&str]) -> Result<Counter, Error> {
        self.0.counter(metric, values)
    }

    /// The histogram of these label values.
    ///
    /// # Errors
    /// As a handle's.
    pub fn histogram(&self, metric: &Metric, values: &[&str]) -> Result<Histogram, Error> {
        self.0.histogram(metric, values)
    }

    /// The histogram that a served request goes to, exemplar slots included.
    ///
    /// # Errors
    /// As a handle's.
    pub fn request(&self, values: &[&str]) -> Result<Histogram, Error> {
        self.0.histogram(&HTTP_SERVER_REQUEST_DURATION, values)
    }

    /// Appends the text page.
    pub fn text(&self, out: &mut Vec<u8>) {
        text::encode(&self.0.snapshot(), &[], out);
    }

    /// Appends the OpenMetrics page.
    pub fn openmetrics(&self, out: &mut Vec<u8>) {
        openmetrics::encode(&self.0.snapshot(), &[], out);
    }

    /// Bytes held in cells.
    pub fn cell_bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// Sampling signals of this process since its first CPU profile: fired, recorded, lost.
pub fn cpu_signals() -> Option<[u64; 3]> {
    crate::collect::cpu::signals()
}
