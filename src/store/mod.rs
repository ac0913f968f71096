//! What is known now: numbers, profiles and readers' wishes, readable from any thread.
//!
//! May use the catalogue, the limits and the error. Absent on purpose: tokio, sockets, files,
//! formats.

pub(crate) mod awaits;
pub(crate) mod callbacks;
#[cfg_attr(
    not(feature = "otlp-profiles"),
    expect(dead_code, reason = "nobody pushes profiles in this build")
)]
pub(crate) mod demand;
#[cfg_attr(
    not(feature = "prometheus"),
    expect(dead_code, reason = "only foreign registries fill it")
)]
pub(crate) mod foreign;
pub(crate) mod heap;
pub(crate) mod label;
#[cfg_attr(
    not(feature = "profiling"),
    expect(dead_code, reason = "nothing looks at threads in this build")
)]
pub(crate) mod looks;
pub(crate) mod metrics;
pub(crate) mod profile;
pub(crate) mod recorder;
#[cfg_attr(not(feature = "profiling"), path = "samples_off.rs")]
pub(crate) mod samples;
pub(crate) mod scopes;
#[cfg_attr(
    not(feature = "profiling"),
    expect(dead_code, reason = "only an allocator that records fills it")
)]
pub(crate) mod sites;
#[cfg(feature = "profiling")]
pub(crate) mod stacks;
pub(crate) mod symbols;
pub(crate) mod sync;
#[cfg_attr(not(feature = "otlp"), path = "traces_off.rs")]
#[cfg_attr(
    all(feature = "otlp", not(feature = "tracing")),
    expect(
        dead_code,
        unused_imports,
        reason = "only the tracing layer writes the host's spans and log records"
    )
)]
pub(crate) mod traces;
pub(crate) mod tuning;
#[cfg(feature = "profiling")]
pub(crate) mod windows;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::config::{self, SampleRate};
use awaits::Awaits;
use callbacks::Callbacks;
use demand::Board;
use foreign::Foreign;
use heap::Heap;
use looks::{Look, LookAnswer};
use metrics::{Metrics, MetricsLimits};
use profile::Profile;
use recorder::Recorder;
use samples::Samples;
use scopes::Scopes;
use sites::Sites;
use symbols::Symbols;
use traces::Traces;
use tuning::{TuningAnswer, TuningWish};

/// A reader's wish for a CPU profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CpuWish {
    pub(crate) span: CpuSpan,
    pub(crate) detail: Detail,
    /// Whether addresses get names; else whoever reads the profile names them.
    pub(crate) names: bool,
}

/// What samples of a window are told apart by, beyond stack, thread and labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Detail {
    /// The requests that are traced.
    pub(crate) traces: bool,
    /// When they were taken, to a bucket.
    pub(crate) times: bool,
}

/// Addresses whose functions a reader wants to know.
pub(crate) type NameWish = Arc<[u64]>;

/// The functions, in the order of the wish; `None` where there is no code.
pub(crate) type NameAnswer = Arc<[Option<Arc<str>>]>;

/// Which seconds a profile is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CpuSpan {
    /// Those to come, sampled at this rate or a higher one.
    Next {
        rate: SampleRate,
        duration: Duration,
    },
    /// Some that began this long before the wish.
    Ago { ago: Duration, duration: Duration },
    /// Those between two moments of wall time, in milliseconds since 1970.
    Between { from: u64, to: u64 },
}

impl CpuSpan {
    /// The rate that is asked for; the past has its own.
    pub(crate) fn hz(self) -> Option<u32> {
        match self {
            Self::Next { rate, .. } => Some(rate.hz()),
            Self::Ago { .. } | Self::Between { .. } => None,
        }
    }

    pub(crate) fn duration(self) -> Duration {
        match self {
            Self::Next { duration, .. } | Self::Ago { duration, .. } => duration,
            Self::Between { from, to } => Duration::from_millis(to.saturating_sub(from)),
        }
    }
}

/// The symbolised profile, or why there is none.
pub(crate) type CpuAnswer = Result<Arc<Profile>, NoProfile>;

/// Why there is no profile; the text is for the person who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NoProfile {
    pub(crate) text: String,
    /// Samples are held, but none of the seconds that were asked for.
    pub(crate) not_held: bool,
}

impl From<Unavailable> for NoProfile {
    fn from(Unavailable(text): Unavailable) -> Self {
        Self {
            text,
            not_held: false,
        }
    }
}

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
    /// Where requests waited.
    pub(crate) awaits: Awaits,
    /// The requests that are open.
    pub(crate) scopes: Scopes,
    /// The records of requests that are traced.
    #[cfg_attr(
        not(feature = "otlp"),
        expect(dead_code, reason = "nothing is traced in this build")
    )]
    pub(crate) traces: Traces,
    /// Readers that wait until a span of time is over, which nobody answers.
    pub(crate) pauses: Arc<Board<(), ()>>,
    /// Wishes for CPU profiles, answered by the profiling thread.
    pub(crate) cpu: Arc<Board<CpuWish, CpuAnswer>>,
    /// What the allocator's samples say, asked of the thread that reads them.
    pub(crate) heap: Heap,
    /// Wishes for names of addresses, answered by the profiling thread.
    pub(crate) names: Arc<Board<NameWish, NameAnswer>>,
    /// Wishes for looks at threads, answered by the thread that looks.
    pub(crate) looks: Arc<Board<Look, LookAnswer>>,
    /// Wishes to see or change how the allocator is tuned, answered by the collecting thread.
    pub(crate) tuning: Arc<Board<TuningWish, TuningAnswer>>,
    /// Wishes for fresh readings, answered by the collecting thread.
    pub(crate) refresh: Arc<Board<(), ()>>,
    /// CPU samples of the last minutes.
    #[cfg_attr(
        not(feature = "profiling"),
        expect(dead_code, reason = "nothing samples in this build")
    )]
    pub(crate) samples: Samples,
    /// Where live memory was allocated.
    pub(crate) sites: Sites,
    /// What the flight recorder says of itself.
    pub(crate) recorder: Mutex<Recorder>,
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
            awaits: Awaits::default(),
            scopes: Scopes::default(),
            traces: Default::default(),
            pauses: Arc::new(Board::new(config::PROFILE_READERS)),
            cpu: Arc::new(Board::new(config::PROFILE_READERS)),
            heap: Heap::default(),
            names: Arc::new(Board::new(config::PROFILE_READERS)),
            looks: Arc::new(Board::new(config::PROFILE_READERS)),
            tuning: Arc::new(Board::new(config::PROFILE_READERS)),
            refresh: Arc::new(Board::new(config::SCRAPES)),
            samples: Samples::default(),
            sites: Sites::default(),
            recorder: Mutex::default(),
            symbols: Symbols::new(config::SYMBOL_BYTES),
        }
    }
}
