//! What became of the items of one signal that were waiting when the agent was asked to stop.

/// Items of one signal at the end of an agent, of those that waited or still came when it was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flushed {
    /// `spans`, `logs` or `profiles`.
    pub signal: &'static str,
    /// The collector has these.
    pub delivered: u64,
    /// On disk for the next start.
    pub kept: u64,
    /// Nobody has these.
    pub lost: u64,
}
