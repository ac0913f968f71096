//! The target table: what is measured, against what, with which verdict.

use std::time::Duration;

use serde::Serialize;

use super::target_file::Threshold;
use super::window::{Change, Lookups, Window};
use crate::catalog::bounds::Bounds;
use crate::catalog::families;
use crate::config;
use crate::store::metrics::{Layout, Metrics};

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

impl Window {
    /// The guide's seven targets, judged over the window.
    ///
    /// `uptime` is the agent's; `unix_milliseconds` is only copied.
    pub(crate) fn table(&self, uptime: Duration, unix_milliseconds: u64) -> TargetTable {
        let change = self.change();
        let change = change.as_ref();
        let latency = change.map_or_else(Latency::default, latency);
        let rows = vec![
            self.latency_row(change, latency),
            self.cache_row(change, uptime),
            self.error_row(change),
            self.throughput_row(change),
            self.cpu_row(change),
            self.memory_row(),
            self.disk_row(change),
        ];
        TargetTable {
            rows,
            latency,
            requests: change.map_or(0, |change| change.requests.finished()),
            errors: change.map_or(0, |change| change.requests.failed),
            unix_milliseconds,
        }
    }

    /// The targets of the single cache levels, which the seven rows hold together as one.
    pub(crate) fn cache_levels(&self, uptime: Duration) -> Vec<TargetRow> {
        let change = self.change();
        let thresholds = [
            ("cache_hit_l1", &self.thresholds.cache_hit_l1),
            ("cache_hit_l2", &self.thresholds.cache_hit_l2),
            ("cache_hit_l3", &self.thresholds.cache_hit_l3),
        ];
        let levels = self.latest().map(|latest| latest.caches.levels);
        thresholds
            .into_iter()
            .zip(levels.unwrap_or_default())
            .enumerate()
            .map(|(place, ((name, threshold), total))| {
                let Some(Lookups { asked: ever, .. }) = total else {
                    return Measured::nothing(0.0, "the service has no cache of this level")
                        .judge(name, threshold);
                };
                let Some(change) = change.as_ref() else {
                    return one_reading().judge(name, threshold);
                };
                let window = change.elapsed.as_secs_f64();
                let Lookups { asked, served } = change
                    .caches
                    .levels
                    .get(place)
                    .copied()
                    .flatten()
                    .unwrap_or_default();
                if asked == 0 {
                    return Measured::nothing(window, "no lookups in the window")
                        .judge(name, threshold);
                }
                Measured::over(
                    change,
                    served as f64 / asked as f64,
                    format!("{asked} lookups"),
                )
                .warm(threshold, uptime, ever)
                .judge(name, threshold)
            })
            .collect()
    }

    fn latency_row(&self, change: Option<&Change>, latency: Latency) -> TargetRow {
        let measured = match (change, latency.p95_seconds) {
            (None, _) => one_reading(),
            (Some(change), None) => no_requests(change),
            (Some(change), Some(p95)) => Measured::over(change, p95, rests_on_requests(change)),
        };
        measured.judge("latency_p95", &self.thresholds.latency_p95)
    }

    /// 1 - loads / lookups of the first level asked: the share of demands that cost no load.
    fn cache_row(&self, change: Option<&Change>, uptime: Duration) -> TargetRow {
        let threshold = &self.thresholds.cache_hit;
        let totals = self
            .latest()
            .map(|latest| latest.caches)
            .unwrap_or_default();
        let window = change.map_or(0.0, |change| change.elapsed.as_secs_f64());
        let measured = match change {
            _ if totals.levels.iter().all(Option::is_none) => {
                Measured::nothing(window, "the service has no cache")
            }
            _ if totals.loads.is_none() => {
                Measured::nothing(window, "the service does not count its cache loads")
            }
            None => one_reading(),
            Some(change) if change.caches.demands() == 0 => {
                Measured::nothing(window, "no lookups in the window")
            }
            Some(change) => {
                let demands = change.caches.demands();
                let loads = change.caches.loads.unwrap_or(0);
                // A load ends after its lookup, so a window can hold more loads than lookups.
                let ratio = (1.0 - loads as f64 / demands as f64).max(0.0);
                Measured::over(
                    change,
                    ratio,
                    format!("{loads} loads for {demands} lookups"),
                )
                .warm(threshold, uptime, totals.demands())
            }
        };
        measured.judge("cache_hit", threshold)
    }

    fn error_row(&self, change: Option<&Change>) -> TargetRow {
        let measured = match change {
            None => one_reading(),
            Some(change) if change.requests.finished() == 0 => no_requests(change),
            Some(change) => {
                let (failed, finished) = (change.requests.failed, change.requests.finished());
                let note = format!("{failed} of {finished} requests failed");
                Measured::over(change, failed as f64 / finished as f64, note)
            }
        };
        measured.judge("error_ratio", &self.thresholds.error_ratio)
    }

    fn throughput_row(&self, change: Option<&Change>) -> TargetRow {
        let measured = match change {
            None => one_reading(),
            Some(change) if change.requests.finished() == 0 => no_requests(change),
            Some(change) => {
                let (served, finished) = (change.requests.served, change.requests.finished());
                let note = if served == finished {
                    rests_on_requests(change)
                } else {
                    format!("{served} of {finished} requests; failed and refused ones do not count")
                };
                Measured::over(change, served as f64 / change.elapsed.as_secs_f64(), note)
            }
        };
        measured.judge("throughput", &self.thresholds.throughput)
    }

    fn cpu_row(&self, change: Option<&Change>) -> TargetRow {
        let limit = self.latest().and_then(|latest| latest.cpu_limit);
        let measured = match (change, limit) {
            (None, _) => one_reading(),
            (Some(change), Some(limit)) if limit > 0.0 && change.cores.is_some() => {
                let cores = change.cores.unwrap_or(0.0);
                let note = format!("{cores:.2} of {limit} cores");
                Measured::over(change, cores / limit, note)
            }
            (Some(change), _) => {
                let window = change.elapsed.as_secs_f64();
                Measured::nothing(
                    window,
                    "the CPU time of the process or its limit is not known",
                )
            }
        };
        measured.judge("cpu", &self.thresholds.cpu)
    }

    fn memory_row(&self) -> TargetRow {
        let measured = match self.latest().and_then(|latest| latest.memory_ratio) {
            None => Measured::nothing(0.0, "the memory of the process or its limit is not known"),
            Some(ratio) => Measured {
                current: Some(ratio),
                early: None,
                window_seconds: 0.0,
                note: "resident now, of the limit".to_owned(),
            },
        };
        measured.judge("memory", &self.thresholds.memory)
    }

    fn disk_row(&self, change: Option<&Change>) -> TargetRow {
        let measured = match change {
            None => one_reading(),
            Some(change) => match &change.busiest {
                None => Measured::nothing(change.elapsed.as_secs_f64(), "no disk can be seen"),
                Some((disk, ratio)) => Measured::over(change, *ratio, format!("busiest: {disk}")),
            },
        };
        measured.judge("disk_busy", &self.thresholds.disk_busy)
    }
}

/// Shows thresholds and values as metrics; a target without data has no value.
pub(crate) fn publish<'a>(metrics: &Metrics, rows: impl IntoIterator<Item = &'a TargetRow>) {
    for row in rows {
        let labels = [row.name.as_str()];
        if let Ok(threshold) = metrics.gauge(&families::AGENT_TARGET_THRESHOLD, &labels) {
            threshold.set(row.target);
        }
        if let Ok(value) = metrics.gauge(&families::AGENT_TARGET_VALUE, &labels) {
            value.set(row.current.unwrap_or(f64::NAN));
        }
    }
}

/// A value on its way to a verdict.
struct Measured {
    current: Option<f64>,
    /// Why it is too early to judge.
    early: Option<String>,
    window_seconds: f64,
    note: String,
}

impl Measured {
    fn nothing(window_seconds: f64, why: &str) -> Self {
        Self {
            current: None,
            early: None,
            window_seconds,
            note: why.to_owned(),
        }
    }

    fn over(change: &Change, value: f64, note: String) -> Self {
        let early = (change.elapsed < config::ASSESS_INTERVAL).then(|| {
            let seconds = change.elapsed.as_secs_f64();
            let needed = config::ASSESS_INTERVAL.as_secs();
            format!("measured for {seconds:.1} s; judged from {needed} s on")
        });
        Self {
            current: Some(value),
            early,
            window_seconds: change.elapsed.as_secs_f64(),
            note,
        }
    }

    /// A cache is cold for one lifetime of its entries, and unknown before some use.
    fn warm(mut self, threshold: &Threshold, uptime: Duration, lookups: u64) -> Self {
        let (warmup, enough) = (threshold.warmup(), threshold.min_lookups());
        let cold = if uptime < warmup {
            let (up, needed) = (uptime.as_secs(), warmup.as_secs());
            Some(format!("up for {up} s; judged from {needed} s on"))
        } else if lookups < enough {
            let text = format!("{lookups} lookups since the start; judged from {enough} on");
            Some(text)
        } else {
            None
        };
        self.early = self.early.or(cold);
        self
    }

    fn judge(self, name: &str, threshold: &Threshold) -> TargetRow {
        let (status, note) = match (self.current, self.early) {
            (None, _) => (Status::NoData, self.note),
            (Some(_), Some(early)) => (Status::WarmingUp, format!("{early}; {}", self.note)),
            (Some(value), None) if threshold.op.holds(value, threshold.must) => {
                (Status::Ok, self.note)
            }
            (Some(_), None) => (Status::Breach, self.note),
        };
        TargetRow {
            name: name.to_owned(),
            title: threshold.title.clone(),
            op: threshold.op.sign().to_owned(),
            target: threshold.must,
            stretch: threshold.stretch,
            unit: threshold.unit.clone(),
            current: self.current,
            status,
            window_seconds: self.window_seconds,
            note,
        }
    }
}

fn one_reading() -> Measured {
    Measured::nothing(0.0, "a rate needs two readings")
}

fn no_requests(change: &Change) -> Measured {
    Measured::nothing(change.elapsed.as_secs_f64(), "no requests in the window")
}

fn rests_on_requests(change: &Change) -> String {
    format!("{} requests", change.requests.finished())
}

fn latency(change: &Change) -> Latency {
    let seconds = |quantile| {
        Layout::of(Bounds::Request)
            .quantile(&change.requests.cells, quantile)
            .map(|nanos| nanos / 1e9)
    };
    Latency {
        p50_seconds: seconds(0.5),
        p95_seconds: seconds(0.95),
        p99_seconds: seconds(0.99),
    }
}
