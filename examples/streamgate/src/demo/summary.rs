//! What the demo found, for scripts (one JSON object) and for people (the target table).

use std::net::SocketAddr;

use serde::Serialize;
use streamgate_agent::{Status, TargetRow, TargetTable};

use super::capture::Pictures;
use crate::bench::report::{Report, decimal};

/// The JSON object. A value without data is `null`, never 0.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    /// Requests that the load generator started.
    requests: u64,
    /// Those that failed, as the load generator saw it.
    errors: u64,
    /// Answers per second over the load.
    rps: f64,
    /// Median time that the service took, by the agent.
    p50_ms: Option<f64>,
    /// 95th percentile of it.
    p95_ms: Option<f64>,
    /// 99th percentile of it.
    p99_ms: Option<f64>,
    /// 95th percentile from the intended start, by the load generator.
    client_p95_ms: Option<f64>,
    /// Lookups answered from the cache.
    cache_hit_ratio: Option<f64>,
    /// Processor time of the processors the service may use.
    cpu_ratio: Option<f64>,
    /// Memory of the memory the service may use.
    memory_ratio: Option<f64>,
    /// The target table.
    targets: Vec<TargetRow>,
    /// Samples in the profile of the load.
    profile_samples: Option<u64>,
    /// Path of the flame graph.
    flamegraph: Option<String>,
}

impl Summary {
    /// Joins what the load generator and the agent measured.
    pub(super) fn new(report: &Report, table: TargetTable, pictures: &Pictures) -> Self {
        let milliseconds = |seconds: Option<f64>| seconds.map(|seconds| seconds * 1000.0);
        let current = |name| {
            table
                .rows
                .iter()
                .find(|row| row.name == name)
                .and_then(|row| row.current)
        };
        Self {
            requests: report.requests,
            errors: report.errors,
            rps: report.rps,
            p50_ms: milliseconds(table.latency.p50_seconds),
            p95_ms: milliseconds(table.latency.p95_seconds),
            p99_ms: milliseconds(table.latency.p99_seconds),
            client_p95_ms: report.p95_ms,
            cache_hit_ratio: current("cache_hit"),
            cpu_ratio: current("cpu"),
            memory_ratio: current("memory"),
            profile_samples: pictures.samples,
            flamegraph: pictures
                .flamegraph
                .as_ref()
                .map(|path| path.display().to_string()),
            targets: table.rows,
        }
    }

    /// The target table as lines for people.
    pub(super) fn target_table(&self) -> String {
        let mut text = format!(
            "{:<14}{:>12}{:>14}  {:<11}{:>8}\n",
            "target", "current", "should be", "status", "window"
        );
        for row in &self.targets {
            text.push_str(&format!(
                "{:<14}{:>12}{:>14}  {:<11}{:>6} s\n",
                row.name,
                row.current
                    .map_or_else(|| "-".to_owned(), |value| quantity(value, &row.unit)),
                format!("{} {}", row.op, quantity(row.target, &row.unit)),
                words(row.status),
                decimal(Some(row.window_seconds), 0),
            ));
        }
        text
    }
}

/// A value in the unit people read it in.
fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "s" => format!("{:.1} ms", value * 1000.0),
        "ratio" => format!("{:.1} %", value * 100.0),
        "1/s" => format!("{value:.0} /s"),
        other => format!("{value} {other}"),
    }
}

fn words(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Breach => "breach",
        Status::NoData => "no data",
        Status::WarmingUp => "warming up",
        _ => "unknown",
    }
}

/// Addresses that answer while the service runs.
pub(super) fn live(public: SocketAddr, agent: SocketAddr) -> String {
    format!(
        "Look while it runs:\n\
         \x20 service       http://{public}/v1/content?limit=3\n\
         \x20 agent         http://{agent}/\n\
         \x20 metrics       curl -s http://{agent}/metrics\n\
         \x20 targets       curl -s http://{agent}/targets\n\
         \x20 flame graph   http://{agent}/debug/flamegraph?seconds=5\n\
         \x20 profile       go tool pprof -top 'http://{agent}/debug/pprof/profile?seconds=5'\n"
    )
}

/// What stays on disk.
pub(super) fn where_to_look(pictures: &Pictures) -> String {
    let mut text = String::from("Saved:\n");
    match &pictures.flamegraph {
        Some(path) => text.push_str(&format!("  flame graph   {}\n", path.display())),
        None => text.push_str("  flame graph   none\n"),
    }
    match &pictures.profile {
        Some(path) => text.push_str(&format!(
            "  profile       go tool pprof -top {}\n",
            path.display()
        )),
        None => text.push_str("  profile       none\n"),
    }
    text
}
