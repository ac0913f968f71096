//! A door for the crate's own benches and tests, which look at one step that hosts only see as part of
//! a whole.
//!
//! No promise is made about it: it may change or go with any version.

use crate::catalog::families::HTTP_SERVER_REQUEST_DURATION;
use crate::config;
use crate::error::Error;
use crate::export::{openmetrics, text};
use crate::store::metrics::{Counter, Histogram, Metrics, MetricsLimits};

pub use crate::catalog::Metric;

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

/// Stacks as the sampling handler copied them, to be followed again and again.
#[cfg(all(feature = "profiling", target_os = "linux"))]
#[derive(Debug)]
pub struct CopiedStacks(crate::collect::cpu_steps::Copies);

/// What one stack took, in seconds, and what it was.
#[cfg(all(feature = "profiling", target_os = "linux"))]
#[derive(Debug, Clone, Copy)]
pub struct StackCost {
    /// Following it.
    pub unwind: f64,
    /// Adding it to what was seen before.
    pub keep: f64,
    /// Frames found.
    pub frames: usize,
    /// Bytes of stack that were copied.
    pub bytes: usize,
    /// It was followed to its end.
    pub whole: bool,
}

#[cfg(all(feature = "profiling", target_os = "linux"))]
impl CopiedStacks {
    /// Samples the process at 999 Hz for as long as `work` says that it goes on; copies are taken away
    /// after each call.
    ///
    /// # Errors
    /// Refused if the process cannot be sampled.
    pub fn take(work: impl FnMut() -> bool) -> Result<Self, Error> {
        let rate = config::SampleRate::new(999, &config::HZ_HIGH)?;
        crate::collect::cpu_steps::Copies::take(rate, work).map(Self)
    }

    /// Follows all stacks in the order in which they were taken.
    pub fn unwind(&mut self) -> Vec<StackCost> {
        let took = self.0.unwind().into_iter().map(|took| StackCost {
            unwind: took.unwind.as_secs_f64(),
            keep: took.keep.as_secs_f64(),
            frames: took.frames,
            bytes: took.bytes,
            whole: took.whole,
        });
        took.collect()
    }
}

/// Seconds that the sampling handler takes, each after `before` was run. Not on the main thread, whose
/// stack lies elsewhere.
///
/// # Errors
/// Refused if the kernel gives no memory.
#[cfg(all(feature = "profiling", target_os = "linux"))]
pub fn handler_costs(runs: usize, before: impl FnMut()) -> Result<Vec<f64>, Error> {
    let costs = crate::collect::cpu_steps::handler(runs, before)?;
    Ok(costs.iter().map(std::time::Duration::as_secs_f64).collect())
}

/// Names for addresses of this process.
#[cfg(all(feature = "profiling", target_os = "linux"))]
#[derive(Debug, Default)]
pub struct Names(crate::collect::cpu_steps::Names);

#[cfg(all(feature = "profiling", target_os = "linux"))]
impl Names {
    /// Names addresses, sorted and distinct; says how many have a name and how many a line.
    pub fn find(&mut self, addresses: &[u64]) -> (usize, usize) {
        self.0.find(addresses)
    }
}
