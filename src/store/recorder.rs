//! What the flight recorder says of itself, set by the profiling thread about once a second.

/// The state of the flight recorder.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Recorder {
    /// Samples per second of CPU time that are being taken; `None`: nothing is sampled.
    pub(crate) hz: Option<u32>,
    /// The rate above which sampling cost too much; `None`: any rate is allowed.
    pub(crate) limit_hz: Option<u32>,
    /// Why nothing is sampled although something should be.
    pub(crate) obstacle: Option<String>,
    pub(crate) held: Option<HeldSpan>,
    /// Bytes of samples, stacks and names of threads.
    pub(crate) bytes: usize,
    pub(crate) buckets: usize,
}

/// The stretch of wall time of which samples are held, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldSpan {
    pub(crate) from: u64,
    pub(crate) to: u64,
}
