//! The target table: what is measured, against what, with which verdict.

use serde::Serialize;

/// What a target's value says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// The value meets the target.
    Ok,
    /// The value misses the target.
    Breach,
    /// Nothing was measured; neither good nor bad.
    NoData,
    /// Measured, but too early to be judged.
    WarmingUp,
}

/// One row of the target table.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TargetRow {
    /// The target's id, such as `latency_p95`.
    pub name: String,
    /// What it means, in a few words.
    pub title: String,
    /// `<` or `>`: on which side of `target` the value should lie.
    pub op: String,
    /// The value that must hold.
    pub target: f64,
    /// The value to strive for.
    pub stretch: f64,
    /// The unit of `target`, `stretch` and `current`: `s`, `ratio` or `1/s`.
    pub unit: String,
    /// What is measured; `None` without data.
    pub current: Option<f64>,
    /// The verdict.
    pub status: Status,
    /// The time that `current` looks back on, in seconds.
    pub window_seconds: f64,
    /// Why the status is not `ok`, or what the value rests on.
    pub note: String,
}

/// Quantiles of the requests served in the window, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// Half of the requests were at most this slow.
    pub p50_seconds: Option<f64>,
    /// 95 % of the requests were at most this slow.
    pub p95_seconds: Option<f64>,
    /// 99 % of the requests were at most this slow.
    pub p99_seconds: Option<f64>,
}

/// The target table at one moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct TargetTable {
    /// The guide's seven targets, in its order.
    pub rows: Vec<TargetRow>,
    /// What the latency row rests on, and its neighbours.
    pub latency: Latency,
    /// Requests finished in the window.
    pub requests: u64,
    /// Requests in the window that failed: status 5xx, or no status at all.
    pub errors: u64,
    /// When the table was made, in milliseconds since the Unix epoch.
    pub unix_milliseconds: u64,
}
