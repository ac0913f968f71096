//! What is known now: numbers, profiles and readers' wishes, readable from any thread.
//!
//! May use the catalogue, the limits and the error. Absent on purpose: tokio, sockets, files,
//! formats.

pub(crate) mod callbacks;
pub(crate) mod demand;
#[cfg_attr(
    not(feature = "prometheus"),
    expect(dead_code, reason = "only foreign registries fill it")
)]
pub(crate) mod foreign;
pub(crate) mod label;
pub(crate) mod metrics;
pub(crate) mod profile;
#[cfg_attr(not(feature = "profiling"), path = "samples_off.rs")]
pub(crate) mod samples;
#[cfg(feature = "profiling")]
pub(crate) mod stacks;
pub(crate) mod symbols;
pub(crate) mod sync;
#[cfg(feature = "profiling")]
pub(crate) mod windows;

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, SampleRate};
use callbacks::Callbacks;
use demand::Board;
use foreign::Foreign;
use metrics::{Metrics, MetricsLimits};
use profile::Profile;
use samples::Samples;
use symbols::Symbols;

/// A reader's wish for a CPU profile of the seconds to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuWish {
    pub(crate) rate: SampleRate,
    pub(crate) duration: Duration,
    /// Whether requests that are traced are told apart.
    pub(crate) traces: bool,
}

/// The symbolised profile, or why there is none.
pub(crate) type CpuAnswer = Result<Arc<Profile>, Unavailable>;

/// Why a signal cannot be had; the text is for the person who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unavailable(pub(crate) String);

/// Everything that is known.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) metrics: Metrics,
    pub(crate) foreign: Foreign,
    /// The host's own readings.
    pub(crate) callbacks: Callbacks,
    /// Wishes for CPU profiles, answered by the profiling thread.
    pub(crate) cpu: Arc<Board<CpuWish, CpuAnswer>>,
    /// Wishes for fresh readings, answered by the collecting thread.
    pub(crate) refresh: Arc<Board<(), ()>>,
    /// CPU samples of the last minutes.
    #[cfg_attr(
        not(feature = "profiling"),
        expect(dead_code, reason = "nothing samples in this build")
    )]
    pub(crate) samples: Samples,
    /// Names and lines of addresses seen in profiles.
    pub(crate) symbols: Symbols,
}

impl Store {
    pub(crate) fn new(series: usize) -> Self {
        let limits = MetricsLimits {
            series,
            bytes: config::CELL_BYTES,
        };
        Self {
            metrics: Metrics::new(limits),
            foreign: Foreign::default(),
            callbacks: Callbacks::default(),
            cpu: Arc::new(Board::new(config::PROFILE_READERS)),
            refresh: Arc::new(Board::new(config::SCRAPES)),
            samples: Samples::default(),
            symbols: Symbols::new(config::SYMBOL_BYTES),
        }
    }
}
