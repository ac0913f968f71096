//! What the agent gathers by itself: the process, its machine, its runtime, its CPU samples.
//!
//! May use the store, the catalogue, the limits and the error. Absent on purpose: HTTP and output
//! formats, so that a new output never touches this room. Unsafe code stands in `sys` only.

use std::time::Duration;

use crate::config;

pub(crate) mod agent_cost;
pub(crate) mod callbacks;
pub(crate) mod cgroup;
mod kept_file;
pub(crate) mod process;
pub(crate) mod runtime;
pub(crate) mod sys;

#[cfg(feature = "profiling")]
pub(crate) mod code;
#[cfg_attr(not(feature = "profiling"), path = "cpu_off.rs")]
pub(crate) mod cpu;

#[cfg_attr(
    not(all(
        feature = "profiling",
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )),
    path = "heap_none.rs"
)]
pub(crate) mod heap;
#[cfg(all(feature = "profiling", target_os = "linux"))]
pub(crate) mod heap_steps;
#[cfg_attr(
    not(all(feature = "profiling", target_os = "linux")),
    path = "wall_none.rs"
)]
pub(crate) mod wall;

#[cfg_attr(not(feature = "host"), path = "host_off.rs")]
pub(crate) mod host;
#[cfg_attr(not(feature = "jemalloc"), path = "jemalloc_off.rs")]
pub(crate) mod jemalloc;
#[cfg(feature = "prometheus")]
pub(crate) mod registry;

#[cfg(feature = "otlp")]
pub(crate) mod resource;

/// Something that is read from time to time on the collecting thread.
pub(crate) trait Source: Send {
    /// The part's name in `agent_up` and `agent_panics_total`.
    fn component(&self) -> &'static str;

    /// How often to read.
    fn interval(&self) -> Duration;

    /// Whether a scrape waits for a fresh reading.
    fn on_scrape(&self) -> bool {
        self.interval() <= config::COLLECT_INTERVAL
    }

    /// Reads and sets the metrics; what cannot be read is made absent.
    fn collect(&mut self);
}

/// What a gauge or an observed total is set to: NaN makes it absent.
fn or_absent(value: Option<f64>) -> f64 {
    value.unwrap_or(f64::NAN)
}

#[cfg(test)]
mod fixture;
