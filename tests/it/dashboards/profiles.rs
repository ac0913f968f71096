//! Flame graphs, drawn from what the agent itself answers: no profile server.

use super::board::{Board, row};
use super::panel::{Kind, against, lines, panel};
use crate::alerts::TargetFile;

pub(super) fn board(file: &TargetFile) -> Board {
    let target = &file.target;
    let graph = |title: &str, id| {
        panel(Kind::FlameGraph, title, "short")
            .profile(id)
            .wide(24)
            .leads("runtime")
    };
    let cpu = vec![
        lines(
            format!("CPU of the limit, {}", against(&target.cpu)),
            "percentunit",
        )
        .says(
            "Processor time of the cores the process may use",
            "under the line",
            "mark the time that is high: the graph below follows",
        )
        .asks("instance:process_cpu:ratio_rate5m{$S}", "{{instance}}")
        .target(&target.cpu)
        .runbook("StreamGateCPUHigh")
        .leads("runtime")
        .wide(12),
        lines(format!("P95, {}", against(&target.latency_p95)), "s")
            .says(
                "Time below which 95 % of requests are answered",
                "under the line",
                "mark the time that is slow: the graph below follows",
            )
            .asks(
                "job:http_server_request_duration_seconds:p95_rate5m{$J}",
                "{{job}}",
            )
            .target(&target.latency_p95)
            .runbook("StreamGateLatencyP95AboveTarget")
            .leads("api")
            .wide(12),
        graph(
            "Processor time",
            "process_cpu:cpu:nanoseconds:cpu:nanoseconds",
        )
        .says(
            "Where the time of the processors went, of the last 15 minutes at most",
            "your own work on top",
            "the widest bar at the bottom of a stack is what to change",
        ),
    ];
    let heap = vec![
        graph("Memory in use", "memory:inuse_space:bytes:space:bytes").says(
            "Who allocated what is held at this moment",
            "caches, within their budgets",
            "a bar that grows between two looks is a leak",
        ),
        graph(
            "Allocated since the start",
            "memory:alloc_space:bytes:space:bytes",
        )
        .says(
            "Who allocates, whether it is freed or not",
            "the work on bodies and rows",
            "what allocates most costs processor time too",
        ),
    ];
    Board {
        name: "profiles",
        title: "Profiles",
        about: "Flame graphs of CPU and heap beside what they explain. The source is the agent itself, one per instance, and reaches back 15 minutes.",
        rows: vec![row("Processor", cpu), row("Memory", heap)],
        profiles: true,
    }
}
